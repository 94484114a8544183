//! Credentials in the format of Codex's own `auth.json`: a profile's file and the client's are the same.
//!
//! The file is kept as it was read: a renewal changes the tokens in it and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use wire::route::Api;

use crate::secret::Secret;

/// What a profile is an account of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A ChatGPT login.
    Chatgpt,
    /// An OpenAI API key.
    OpenAiKey,
}

impl Kind {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chatgpt => "chatgpt",
            Self::OpenAiKey => "openai-key",
        }
    }

    /// The API that its credentials are good for.
    #[must_use]
    pub fn api(self) -> Api {
        match self {
            Self::Chatgpt => Api::Chatgpt,
            Self::OpenAiKey => Api::OpenAi,
        }
    }
}

/// Why a file holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// It is no JSON object.
    #[error("it is not JSON: {0}; `prodex login` makes a new login")]
    Syntax(String),
    /// It has neither tokens nor a key.
    #[error("it holds neither tokens nor an API key; `prodex login` makes a login")]
    Empty,
    /// It lacks something that a login has.
    #[error("it has no {0}; log in again with `prodex login`")]
    Missing(&'static str),
    /// A value would break out of the header line it is sent in.
    #[error("its {0} holds a character that no credential has; `prodex login` makes a new login")]
    Unprintable(&'static str),
}

/// What a request is authorised with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The tokens of a ChatGPT login.
    Chatgpt(Login),
    /// An API key.
    OpenAiKey(Secret),
}

/// A ChatGPT login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Sent with every request.
    pub access_token: Secret,
    /// Good for one renewal.
    pub refresh_token: Option<Secret>,
    /// The account (workspace) that is used.
    pub account_id: String,
    /// For lists: whose login it is.
    pub email: Option<String>,
    /// For lists: the plan as the token names it.
    pub plan: Option<String>,
    /// When the access token expires, in seconds since the epoch.
    pub expires_at: Option<i64>,
}

impl Credentials {
    /// Reads an `auth.json`.
    ///
    /// # Errors
    /// When there is nothing in it that a request could be authorised with.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let syntax = |error: &serde_json::Error| {
            // The error's own text could quote the file.
            CredentialsError::Syntax(format!("line {}, column {}", error.line(), error.column()))
        };
        let file: Map<String, Value> = serde_json::from_str(text).map_err(|error| syntax(&error))?;
        let tokens = file.get("tokens").and_then(Value::as_object);
        let key = file.get("OPENAI_API_KEY").and_then(Value::as_str).filter(|key| !key.is_empty());
        let wants_key = file.get("auth_mode").and_then(Value::as_str) == Some("apikey");
        match (tokens, key) {
            (Some(tokens), _) if !wants_key => Login::parse(tokens).map(Self::Chatgpt),
            (_, Some(key)) => Ok(Self::OpenAiKey(secret(key, "API key")?)),
            _ => Err(CredentialsError::Empty),
        }
    }

    /// The text of a new `auth.json` for an API key.
    #[must_use]
    pub fn key_file(key: &Secret) -> String {
        let file = serde_json::json!({"auth_mode": "apikey", "OPENAI_API_KEY": key.expose()});
        format!("{file:#}\n")
    }

    /// What they are for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Chatgpt(_) => Kind::Chatgpt,
            Self::OpenAiKey(_) => Kind::OpenAiKey,
        }
    }

    /// Whether these can take the other's place: they are the same person's, of the same account. Of two
    /// keys nobody can tell, so the person who put one in the other's place is believed.
    #[must_use]
    pub fn is_same_account(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Chatgpt(one), Self::Chatgpt(two)) => {
                let are_known = one.email.is_some() && two.email.is_some();
                one.account_id == two.account_id && (!are_known || one.email == two.email)
            }
            (Self::OpenAiKey(_), Self::OpenAiKey(_)) => true,
            _ => false,
        }
    }

    /// What goes behind `Bearer`.
    #[must_use]
    pub fn bearer(&self) -> &Secret {
        match self {
            Self::Chatgpt(login) => &login.access_token,
            Self::OpenAiKey(key) => key,
        }
    }

    /// The login, if they are one.
    #[must_use]
    pub fn login(&self) -> Option<&Login> {
        match self {
            Self::Chatgpt(login) => Some(login),
            Self::OpenAiKey(_) => None,
        }
    }
}

/// The claim of OpenAI's tokens that tells about the account.
const AUTH_CLAIM: &str = "https://api.openai.com/auth";

impl Login {
    fn parse(tokens: &Map<String, Value>) -> Result<Self, CredentialsError> {
        let text = |key: &str| tokens.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let access = text("access_token").ok_or(CredentialsError::Missing("access token"))?;
        let access_claims = claims(access);
        let identity = text("id_token").and_then(claims);
        let claim = |path: &[&str]| {
            let of = |claims: &Option<Value>| {
                let found = path.iter().try_fold(claims.as_ref()?, |value, key| value.get(key));
                found.and_then(Value::as_str).map(str::to_owned)
            };
            of(&identity).or_else(|| of(&access_claims))
        };
        let account_id = text("account_id")
            .map(str::to_owned)
            .or_else(|| claim(&[AUTH_CLAIM, "chatgpt_account_id"]))
            .ok_or(CredentialsError::Missing("account id"))?;
        if !is_printable(&account_id) {
            return Err(CredentialsError::Unprintable("account id"));
        }
        Ok(Self {
            access_token: secret(access, "access token")?,
            refresh_token: text("refresh_token").map(|token| secret(token, "refresh token")).transpose()?,
            account_id,
            email: claim(&["email"]),
            plan: claim(&[AUTH_CLAIM, "chatgpt_plan_type"]),
            expires_at: access_claims.and_then(|claims| claims.get("exp").and_then(Value::as_i64)),
        })
    }

    /// Whether the access token has expired, or does within a minute.
    #[must_use]
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|at| at <= now + 60)
    }
}

/// The account id that a client's own token names, for the one answer that must be about it.
#[must_use]
pub fn account_of_token(token: &str) -> Option<String> {
    let claims = claims(token)?;
    claims.get(AUTH_CLAIM)?.get("chatgpt_account_id")?.as_str().map(str::to_owned)
}

/// The claims of a token, unverified: they are only read for hints, and to whom they matter verifies
/// them.
fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn secret(text: &str, what: &'static str) -> Result<Secret, CredentialsError> {
    if is_printable(text) { Ok(Secret::new(text)) } else { Err(CredentialsError::Unprintable(what)) }
}

/// The text of an `auth.json` with the tokens of a renewal in the place of the old ones; everything else
/// stays, in its order. `None` when the text is no `auth.json` of a login.
#[must_use]
pub fn renew_file(text: &str, renewed: &Map<String, Value>, now: jiff::Timestamp) -> Option<String> {
    let mut file: Map<String, Value> = serde_json::from_str(text).ok()?;
    let tokens = file.get_mut("tokens")?.as_object_mut()?;
    for key in ["id_token", "access_token", "refresh_token"] {
        if let Some(token) = renewed.get(key).filter(|token| token.is_string()) {
            tokens.insert(key.to_owned(), token.clone());
        }
    }
    file.insert("last_refresh".to_owned(), Value::String(now.to_string()));
    serde_json::to_string_pretty(&file).ok().map(|text| text + "\n")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// An unsigned token with these claims.
    pub(crate) fn token(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{}", part(&json!({"alg": "none"})), part(claims), "sig")
    }

    #[test]
    fn a_login_is_read_with_what_its_tokens_claim() {
        let id_token = token(&json!({"email": "a@b.c", AUTH_CLAIM: {"chatgpt_account_id": "acct-1",
            "chatgpt_plan_type": "plus"}}));
        let file = json!({"auth_mode": "chatgpt", "OPENAI_API_KEY": null, "tokens": {"id_token": id_token,
            "access_token": token(&json!({"exp": 1000})), "refresh_token": "r"}});
        let credentials = Credentials::parse(&file.to_string()).unwrap();
        let login = credentials.login().unwrap();
        assert_eq!((login.account_id.as_str(), login.email.as_deref()), ("acct-1", Some("a@b.c")));
        assert_eq!((login.plan.as_deref(), login.expires_at), (Some("plus"), Some(1000)));
        assert!(login.is_expired(940) && !login.is_expired(939));
        assert!(!format!("{credentials:?}").contains("eyJ"), "nothing of a token is printed");
    }

    #[test]
    fn keys_and_opaque_tokens_are_read_too() {
        let key = Credentials::parse(&Credentials::key_file(&Secret::new("sk"))).unwrap();
        assert_eq!((key.kind(), key.bearer().expose()), (Kind::OpenAiKey, "sk"));
        let opaque = json!({"tokens": {"access_token": "opaque", "account_id": "a"}}).to_string();
        let opaque = Credentials::parse(&opaque).unwrap();
        assert_eq!(opaque.login().unwrap().expires_at, None);
    }

    #[test]
    fn broken_files_are_described_without_their_content() {
        for (text, error) in [
            ("{\"tokens\": canary", CredentialsError::Syntax("line 1, column 12".into())),
            ("[]", CredentialsError::Syntax("line 1, column 0".into())),
            ("{}", CredentialsError::Empty),
            (r#"{"tokens":{}}"#, CredentialsError::Missing("access token")),
            (r#"{"tokens":{"access_token":"opaque"}}"#, CredentialsError::Missing("account id")),
            (r#"{"OPENAI_API_KEY":"a\r\nb"}"#, CredentialsError::Unprintable("API key")),
            (
                r#"{"tokens":{"access_token":"a","account_id":"b c"}}"#,
                CredentialsError::Unprintable("account id"),
            ),
        ] {
            assert_eq!(Credentials::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn a_renewal_changes_the_tokens_and_nothing_else() {
        let text =
            r#"{"z":1,"tokens":{"access_token":"old","x":2,"account_id":"a"},"last_refresh":"then","b":[3]}"#;
        let renewed = json!({"access_token": "new", "refresh_token": "r2", "scope": "s"});
        let now = jiff::Timestamp::from_second(0).unwrap();
        let text = renew_file(text, renewed.as_object().unwrap(), now).unwrap();
        let compact: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            compact.to_string(),
            r#"{"z":1,"tokens":{"access_token":"new","x":2,"account_id":"a","refresh_token":"r2"},"last_refresh":"1970-01-01T00:00:00Z","b":[3]}"#
        );
    }
}
