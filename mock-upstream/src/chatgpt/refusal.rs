//! How the backend says no: as a response over HTTP, as an error message on a WebSocket.
//!
//! Shapes as Codex 0.149 and 0.169 understand them (`wire-facts` 2.2). A usage limit is only understood as
//! HTTP 429, or as a message that carries `status`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Body, Plan};
use crate::accounts::{AccountState, Unauthorized, unix_now};
use crate::pacing::Piece;
use crate::script::Http;

/// A no, before it is known over which transport it goes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Refusal {
    fn error(status: u16, kind: &str, code: &str, message: &str) -> Self {
        let error = json!({ "type": kind, "code": code, "message": message, "param": null });
        Self { status, headers: Vec::new(), body: json!({ "error": error }) }
    }

    /// The caller is nobody that the mock knows.
    pub(crate) fn unauthorized(why: &Unauthorized) -> Self {
        let (status, code, message) = match why {
            Unauthorized::Unknown => (401, "token_invalidated", "The access token is not known."),
            Unauthorized::Expired(_) => (401, "token_expired", "The access token has expired."),
            Unauthorized::Mismatch(_) => (403, "account_mismatch", "The token is of another account."),
        };
        Self::error(status, "invalid_request_error", code, message)
    }

    /// The account has nothing left.
    pub(crate) fn usage_limit(state: &AccountState) -> Self {
        let resets_at = state.resets_at();
        let error = json!({
            "type": "usage_limit_reached",
            "message": "The usage limit has been reached",
            "plan_type": state.plan,
            "resets_at": resets_at,
            "resets_in_seconds": resets_at.saturating_sub(unix_now()),
        });
        Self { status: 429, headers: quota_headers(state), body: json!({ "error": error }) }
    }

    /// The response to be continued is not known to the account.
    pub(crate) fn previous_response_not_found(id: &str) -> Self {
        let message = format!("Previous response with id '{id}' not found.");
        let mut refusal = Self::error(400, "invalid_request_error", "previous_response_not_found", &message);
        refusal.body["error"]["param"] = "previous_response_id".into();
        refusal
    }

    /// Encrypted content that the account cannot use.
    pub(crate) fn invalid_encrypted_content() -> Self {
        let message = "The encrypted content could not be verified.";
        Self::error(400, "invalid_request_error", "invalid_encrypted_content", message)
    }

    /// Not a request.
    pub(crate) fn bad_request(message: &str) -> Self {
        Self::error(400, "invalid_request_error", "invalid_value", message)
    }

    /// As a response over HTTP.
    pub(crate) fn into_response(self) -> Plan {
        let mut plan = Plan::json(self.status, &self.body);
        plan.headers.extend(self.headers);
        plan
    }

    /// As an error message on a WebSocket.
    pub(crate) fn into_message(self) -> Plan {
        let mut message = json!({ "type": "error", "status": self.status });
        match self.body {
            Value::Object(fields) => {
                for (key, value) in fields {
                    message[key] = value;
                }
            }
            Value::Null => {}
            other => message["error"] = json!({ "message": other }),
        }
        if !self.headers.is_empty() {
            let headers = self.headers.into_iter().map(|(name, value)| (name, value.into()));
            message["headers"] = Value::Object(headers.collect());
        }
        Plan::of(self.status, Body::Pieces(vec![Piece::Data(message.to_string().into())]))
    }
}

impl From<&Http> for Refusal {
    /// A scripted response, to become a message: a JSON body gives its fields, a text its message.
    fn from(http: &Http) -> Self {
        let text = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| text.clone().into());
        let body = http.json.clone().or_else(|| http.body.as_ref().map(text)).unwrap_or_default();
        Self { status: http.status, headers: http.headers.clone(), body }
    }
}

/// The header fields that state the account's windows.
pub(crate) fn quota_headers(state: &AccountState) -> Vec<(String, String)> {
    let mut headers = vec![
        ("x-codex-active-limit".to_owned(), "codex".to_owned()),
        ("x-codex-plan-type".to_owned(), state.plan.clone()),
    ];
    let now = unix_now();
    for (name, window) in ["primary", "secondary"].into_iter().zip(&state.windows) {
        let mut push = |what: &str, value: String| headers.push((format!("x-codex-{name}-{what}"), value));
        push("used-percent", window.used_percent.to_string());
        push("window-minutes", (window.seconds / 60).to_string());
        push("reset-at", window.resets_at.to_string());
        push("reset-after-seconds", window.resets_at.saturating_sub(now).to_string());
    }
    for (what, value) in [("has-credits", "False"), ("unlimited", "False"), ("balance", "")] {
        headers.push((format!("x-codex-credits-{what}"), value.to_owned()));
    }
    headers
}

/// The bytes of a base64 text that the script's check has let pass.
pub(super) fn decode_checked(text: &str) -> Bytes {
    STANDARD.decode(text).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(plan: &Plan) -> Value {
        let Body::Pieces(pieces) = &plan.body else { panic!("a message is a piece") };
        let Piece::Data(data) = &pieces[0] else { panic!("a message is data") };
        serde_json::from_slice(data).unwrap()
    }

    #[test]
    fn a_scripted_response_becomes_a_message_with_its_status() {
        let http = Http::json(429, json!({ "error": { "type": "usage_limit_reached" } }))
            .header("x-codex-promo-message", "promo");
        let expected = json!({
            "type": "error", "status": 429, "error": { "type": "usage_limit_reached" },
            "headers": { "x-codex-promo-message": "promo" },
        });
        assert_eq!(message(&Refusal::from(&http).into_message()), expected);
        let text = message(&Refusal::from(&Http::text(503, "busy")).into_message());
        assert_eq!(text, json!({ "type": "error", "status": 503, "error": { "message": "busy" } }));
        let empty = message(&Refusal::from(&Http::status(500)).into_message());
        assert_eq!(empty, json!({ "type": "error", "status": 500 }));
    }
}
