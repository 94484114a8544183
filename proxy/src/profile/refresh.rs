//! Renewal of a ChatGPT login's tokens: one exchange for all who need it, in this process and in others.
//!
//! A refresh token is good for one exchange, so a lease on the profile's file comes first, and whoever
//! gets it looks whether another process, or the client itself, has already renewed. The exchange goes on
//! when the request that needed it is gone: its answer holds the only good token.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};
use wire::run_event::RunEvent;

use super::credentials::{Credentials, renew_file};
use super::{Profile, store::StoreError};
use crate::control::{Control, describe};

/// The exchange that runs for a profile.
pub type Flight = crate::control::Flight<Result<Arc<Credentials>, RefreshError>>;

/// The client id of Codex, with which its logins are made (measured: what Codex itself sends).
const CLIENT_ID: &str = "app_EMoamEEZ73f0CkXaXp7hrann";

/// Why a login could not be renewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// It is no login, or has no refresh token.
    #[error("its credentials cannot be renewed")]
    NotRenewable,
    /// The token endpoint says that the login is no longer good: only a new one helps.
    #[error("its login is no longer good ({0}); log in again with `codex login` and import it")]
    Rejected(String),
    /// The token endpoint could not be asked, or gave no usable answer; later it may.
    #[error("its login could not be renewed: {0}")]
    Unavailable(String),
}

/// Gets credentials that are newer than `stale`: those that someone else has renewed meanwhile, or those
/// of an exchange. A login that is no longer good parks the profile.
///
/// # Errors
/// When there are none to be had.
pub async fn renew(
    control: &Arc<Control>,
    profile: &Arc<Profile>,
    stale: &Arc<Credentials>,
) -> Result<Arc<Credentials>, RefreshError> {
    let current = profile.credentials();
    if current.bearer() != stale.bearer() {
        return Ok(current);
    }
    let start = || {
        let (control, profile, stale) = (Arc::clone(control), Arc::clone(profile), Arc::clone(stale));
        async move { run(&control, &profile, &stale).await }
    };
    let result = profile.refresher.join(&control.tasks, start).await;
    result.unwrap_or_else(|| Err(RefreshError::Unavailable("the renewal was aborted".to_owned())))
}

/// Looks whether a parked profile has got a new login: by `prodex profile import`, or by whoever else
/// writes its file.
pub async fn look_again(control: &Arc<Control>, profile: &Arc<Profile>) {
    if !profile.health().may_look(Instant::now()) {
        return;
    }
    let stored = on_disk(control, profile, |control, name| control.store.read_auth(name)).await;
    if let Ok((_, stored)) = stored
        && stored.bearer() != profile.credentials().bearer()
    {
        profile.set_credentials(stored);
        profile.health().unpark();
    }
}

/// Runs one renewal and records how it went.
async fn run(
    control: &Arc<Control>,
    profile: &Arc<Profile>,
    stale: &Credentials,
) -> Result<Arc<Credentials>, RefreshError> {
    let started = Instant::now();
    let result = renew_on_disk(control, profile, stale).await;
    match &result {
        Ok((credentials, adopted)) => {
            profile.set_credentials((**credentials).clone());
            profile.health().unpark();
            let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            control.log.record(&RunEvent::ProfileRefreshOk {
                profile: (&*profile.name).into(),
                adopted: *adopted,
                ms,
            });
        }
        Err(error) => {
            let parked = matches!(error, RefreshError::Rejected(_));
            if parked {
                profile.health().park(error.to_string());
            }
            let (profile, reason) = ((&*profile.name).into(), error.to_string().into());
            control.log.record(&RunEvent::ProfileRefreshError { profile, reason, parked });
        }
    }
    result.map(|(credentials, _)| credentials)
}

/// Renews under the lease; also says whether someone else's renewal was found instead.
async fn renew_on_disk(
    control: &Arc<Control>,
    profile: &Profile,
    stale: &Credentials,
) -> Result<(Arc<Credentials>, bool), RefreshError> {
    let (lease, (text, stored)) = on_disk(control, profile, |control, name| {
        let lease = control.store.lease(name)?;
        Ok((lease, control.store.read_auth(name)?))
    })
    .await?;
    if stored.bearer() != stale.bearer() {
        return Ok((Arc::new(stored), true));
    }
    let token = stored.login().and_then(|login| login.refresh_token.clone());
    let token = token.ok_or(RefreshError::NotRenewable)?;
    let renewed = exchange(control, token.expose()).await?;
    let text = renew_file(&text, &renewed, jiff::Timestamp::now());
    let text = text.ok_or_else(|| RefreshError::Unavailable("its auth.json changed meanwhile".to_owned()))?;
    let credentials = Credentials::parse(&text)
        .map_err(|error| RefreshError::Unavailable(format!("the answer was not usable: {error}")))?;
    let saved = on_disk(control, profile, move |control, name| {
        control.store.replace_auth(name, &text)?;
        drop(lease);
        Ok(())
    })
    .await;
    if let Err(error) = saved {
        // The new token is the only good one: it is used from memory, and the loss at the next start is
        // told now.
        let (profile, reason) = ((&*profile.name).into(), error.to_string().into());
        control.log.record(&RunEvent::ProfileRefreshError { profile, reason, parked: false });
    }
    Ok((Arc::new(credentials), false))
}

/// Runs a piece of disk work where it blocks nobody.
async fn on_disk<T: Send + 'static>(
    control: &Arc<Control>,
    profile: &Profile,
    work: impl FnOnce(&Control, &str) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RefreshError> {
    let (control, name) = (Arc::clone(control), Arc::clone(&profile.name));
    let result = tokio::task::spawn_blocking(move || work(&control, &name)).await;
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(RefreshError::Unavailable(describe(&error))),
        Err(_) => Err(RefreshError::Unavailable("the disk work was aborted".to_owned())),
    }
}

/// Exchanges a refresh token. The shape of request and answer was measured with Codex 0.149 and 0.169.
async fn exchange(control: &Control, token: &str) -> Result<Map<String, Value>, RefreshError> {
    let unavailable = |problem: String| RefreshError::Unavailable(problem);
    let endpoint = control.config.token_endpoint();
    let body = json!({"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": token});
    let client = control.client().map_err(unavailable)?;
    let response = client.post(endpoint.to_string()).json(&body).send().await;
    let response = response.map_err(|error| unavailable(describe(&error.without_url())))?;
    let status = response.status().as_u16();
    let answer: Value = match response.json().await {
        Ok(answer) => answer,
        Err(_) if matches!(status, 400 | 401) => Value::Null,
        Err(_) => return Err(unavailable(format!("{endpoint} answered {status} and no JSON"))),
    };
    match (status, answer) {
        (200, Value::Object(answer)) if answer.get("access_token").is_some_and(Value::is_string) => {
            Ok(answer)
        }
        (400 | 401, answer) => Err(RefreshError::Rejected(error_code(&answer))),
        (status, _) => Err(unavailable(format!("{endpoint} answered {status}"))),
    }
}

/// The code of a token endpoint's error: `{"error":"invalid_grant"}`, or `{"error":{"code":…}}`. Only a
/// word is taken: the answer could quote the token.
fn error_code(answer: &Value) -> String {
    let error = &answer["error"];
    let code = error.as_str().or_else(|| error["code"].as_str()).unwrap_or("rejected");
    code.chars().take(60).filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests;
