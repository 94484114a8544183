//! The answer to `wham/accounts/check`, which the proxy gives itself.
//!
//! Codex 0.156 and newer asks where its workspace's traffic goes, and follows the answer: an upstream's
//! own would lead it around the proxy, with its bearer. The answer must name the client's own account and
//! nobody else's (measured with 0.160 and 0.169: with any other it ends with an error after 13 s).

use serde_json::json;
use wire::http1::RequestHead;

use crate::error::Error;
use crate::profile::credentials::account_of_token;
use crate::reply::Reply;

/// An https origin where nothing answers and to which nothing may be sent: over plain HTTP with two
/// origins the client wants one to be named, and keeps to its configured URLs.
const NOWHERE: &str = "https://localhost:9";

/// The answer for this client. `is_tls` says whether it came over TLS, where "anywhere" keeps it here.
#[must_use]
pub fn answer(head: &RequestHead, is_tls: bool) -> Reply {
    let Some(account) = account_of(head) else {
        return Reply::of(&Error::refused(400, "the request does not say which account it is about"));
    };
    let origin = if is_tls { "NO_CONSTRAINT" } else { NOWHERE };
    let entry = json!({
        "id": account,
        "account_id": account,
        "structure": "personal",
        "workspace_backend_origin": origin,
        "account_routing_override": "NO_CONSTRAINT",
    });
    Reply::json(
        200,
        &json!({"accounts": [entry], "account_ordering": [account], "default_account_id": account}),
    )
}

/// The client's own account: as it says, or as its token does.
fn account_of(head: &RequestHead) -> Option<String> {
    if let Some(account) = head.get_str("chatgpt-account-id").filter(|account| !account.is_empty()) {
        return Some(account.to_owned());
    }
    let bearer = head.get_str("authorization")?.strip_prefix("Bearer ")?;
    account_of_token(bearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(fields: &str, is_tls: bool) -> (u16, serde_json::Value) {
        let text = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let (head, _) = RequestHead::parse(text.as_bytes()).unwrap().unwrap();
        let reply = answer(&head, is_tls);
        (reply.status, serde_json::from_str(&reply.body).unwrap())
    }

    #[test]
    fn the_clients_own_account_is_named() {
        let (status, answer) = body("ChatGPT-Account-Id: acct-own\r\n", false);
        assert_eq!(status, 200);
        assert_eq!(answer["accounts"][0]["id"], "acct-own");
        assert_eq!(answer["accounts"][0]["workspace_backend_origin"], NOWHERE);
        assert_eq!(answer["accounts"].as_array().map(Vec::len), Some(1));
        let claims = json!({"https://api.openai.com/auth": {"chatgpt_account_id": "acct-claimed"}});
        let token = crate::profile::credentials::tests::token(&claims);
        let (_, answer) = body(&format!("Authorization: Bearer {token}\r\n"), true);
        assert_eq!(answer["default_account_id"], "acct-claimed");
        assert_eq!(answer["accounts"][0]["workspace_backend_origin"], "NO_CONSTRAINT");
        assert_eq!(body("", false).0, 400);
    }
}
