//! Tokens that are shaped like the vendor's and worth nothing: minted here, never written down.
//!
//! A client reads expiry and account out of a token without checking its signature, so the mock's are
//! unsigned JWTs. Whether a token is good only the mock knows, never the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// What a token says about its account.
#[derive(Debug, Clone, Copy)]
pub struct Claims<'a> {
    /// The account's id.
    pub account: &'a str,
    /// Its plan.
    pub plan: &'a str,
    /// The expiry it states, in seconds since the epoch.
    pub expires_at: i64,
}

/// An access token of an account; each generation is another one.
#[must_use]
pub fn access(claims: &Claims<'_>, generation: u64) -> String {
    let Claims { account, plan, expires_at } = claims;
    let user = format!("user-{account}");
    let payload = json!({
        "iss": "https://auth.mock.invalid",
        "sub": user,
        "jti": format!("{account}-{generation}"),
        "iat": 1_700_000_000,
        "exp": expires_at,
        "email": format!("{account}@mock.invalid"),
        "https://api.openai.com/auth": {
            "chatgpt_account_id": account,
            "chatgpt_plan_type": plan,
            "chatgpt_user_id": user,
            "user_id": user,
        },
    });
    let head = json!({ "alg": "none", "typ": "JWT" });
    let parts = [head, payload].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode("unsigned"))
}

/// A refresh token of an account; each generation is another one.
#[must_use]
pub fn refresh(account: &str, generation: u64) -> String {
    format!("refresh-{generation}-{account}")
}

/// What an exchange gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) id_token: String,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

impl Grant {
    fn new(claims: &Claims<'_>, generation: u64) -> Self {
        let access_token = access(claims, generation);
        let refresh_token = refresh(claims.account, generation);
        Self { id_token: access_token.clone(), access_token, refresh_token }
    }

    /// A grant where no accounts are declared: for the account that the token was minted for, if it was.
    pub(crate) fn for_anyone(refresh_token: &str) -> Self {
        let parts = refresh_token.strip_prefix("refresh-").and_then(|rest| rest.split_once('-'));
        let parsed = parts.and_then(|(generation, account)| Some((generation.parse::<u64>().ok()?, account)));
        let (generation, account) = parsed.unwrap_or((0, "anyone"));
        let claims = Claims { account, plan: "plus", expires_at: 4_102_444_800 };
        Self::new(&claims, generation + 1)
    }
}

/// The refresh token was exchanged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reused;

/// The tokens of an account through the generations.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// Access tokens that have expired.
    expired: Vec<String>,
    /// Access tokens that are good.
    good: Vec<String>,
    /// Refresh tokens in the order they were issued; the last is the good one.
    refresh: Vec<String>,
}

impl Tokens {
    pub(crate) fn new(access: String, refresh: String, expired: bool) -> Self {
        let (expired, good) = if expired { (vec![access], Vec::new()) } else { (Vec::new(), vec![access]) };
        Self { expired, good, refresh: vec![refresh] }
    }

    pub(crate) fn is_expired(&self, access: &str) -> bool {
        self.expired.iter().any(|token| token == access)
    }

    pub(crate) fn expire(&mut self) {
        self.expired.append(&mut self.good);
    }

    pub(crate) fn knows_refresh(&self, refresh: &str) -> bool {
        self.refresh.iter().any(|token| token == refresh)
    }

    pub(crate) fn exchange(&mut self, claims: &Claims<'_>, refresh: &str) -> Result<Grant, Reused> {
        if self.refresh.last().is_none_or(|last| last != refresh) {
            return Err(Reused);
        }
        let grant = Grant::new(claims, self.refresh.len() as u64);
        self.good.push(grant.access_token.clone());
        self.refresh.push(grant.refresh_token.clone());
        Ok(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_clients_read() {
        let claims = Claims { account: "acct", plan: "pro", expires_at: 5 };
        let token = access(&claims, 0);
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(payload["exp"], 5);
        assert_eq!(payload["https://api.openai.com/auth"]["chatgpt_account_id"], "acct");
        assert_ne!(token, access(&claims, 1));
    }

    #[test]
    fn anyone_keeps_the_account_of_a_minted_token() {
        let grant = Grant::for_anyone(&refresh("acct-x", 3));
        assert_eq!(grant.refresh_token, refresh("acct-x", 4));
        assert_eq!(Grant::for_anyone("other").refresh_token, refresh("anyone", 1));
    }
}
