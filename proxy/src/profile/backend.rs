//! Questions of our own to the ChatGPT backend, asked as a profile's account.
//!
//! They go to the common backend, as Codex's own do, and a token of yesterday is renewed for them.

use std::sync::Arc;
use std::time::Duration;

use wire::route::Api;

use super::refresh::{self, RefreshError};
use super::{Credentials, Now, Profile};
use crate::control::{Control, describe};

/// Longest answer that is read. Those that have been seen take a few KiB.
const MAX_ANSWER: usize = 1 << 20;

/// An answer with a 2xx status.
#[derive(Debug)]
pub struct Answer {
    /// The account that was asked for.
    pub account_id: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The profile is no ChatGPT login, so there is nobody to ask.
    #[error("it is no login")]
    NoLogin,
    /// Its token is not accepted and cannot be renewed.
    #[error("{0}")]
    Login(#[from] RefreshError),
    /// Its token is not accepted, though it is new.
    #[error("the upstream does not accept its token")]
    Unauthorized,
    /// The backend answered with another status than 2xx.
    #[error("the upstream answered {0}")]
    Status(u16),
    /// The backend cannot be reached, or broke off.
    #[error("{0}")]
    Unreachable(String),
    /// The answer is not what was asked for.
    #[error("{0}")]
    Unusable(&'static str),
}

/// Asks `path` as the profile's account, for at most `limit` and the time that a renewal takes.
///
/// # Errors
/// When there is no answer.
pub async fn get(
    control: &Arc<Control>,
    profile: &Arc<Profile>,
    path: &str,
    limit: Duration,
) -> Result<Answer, Problem> {
    let mut credentials = profile.credentials();
    let is_expired = credentials.login().is_some_and(|login| login.is_expired(Now::unix()));
    let answer =
        if is_expired { Err(Problem::Unauthorized) } else { once(control, &credentials, path, limit).await };
    match answer {
        // The question is often the first thing that a token of yesterday is used for.
        Err(Problem::Unauthorized) => {
            credentials = refresh::renew(control, profile, &credentials).await?;
            once(control, &credentials, path, limit).await
        }
        answer => answer,
    }
}

async fn once(
    control: &Control,
    credentials: &Credentials,
    path: &str,
    limit: Duration,
) -> Result<Answer, Problem> {
    let login = credentials.login().ok_or(Problem::NoLogin)?;
    let url = control.origin(Api::Chatgpt).join(path).to_string();
    let request = control
        .client()
        .map_err(Problem::Unreachable)?
        .get(url)
        .bearer_auth(login.access_token.expose())
        .header("chatgpt-account-id", &login.account_id)
        .timeout(limit);
    let unreachable = |error: reqwest::Error| Problem::Unreachable(describe(&error.without_url()));
    let mut response = request.send().await.map_err(unreachable)?;
    match response.status() {
        status if status.is_success() => {}
        reqwest::StatusCode::UNAUTHORIZED => return Err(Problem::Unauthorized),
        status => return Err(Problem::Status(status.as_u16())),
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(Problem::Unusable("the answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { account_id: login.account_id.clone(), body })
}
