//! Renewal of a ChatGPT login's tokens: one exchange for all who need it, in this process and in others.
//!
//! A refresh token is good for one exchange, so a lease on the profile's file comes first, and whoever
//! gets it looks whether another process, or the client itself, has already renewed. The exchange goes on
//! when the request that needed it is gone: its answer holds the only good token.
//!
//! Memory may be ahead of the disk, when that is full, or behind it, when somebody has logged in. What was
//! exchanged is spent, so a disk that still says it is behind; anything else there is newer, and wins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use wire::run_event::RunEvent;

use super::credentials::{Credentials, renew_file};
use super::store::{Store, StoreError};
use super::{Profile, lock};
use crate::control::{Control, Flight, describe};
use crate::secret::Secret;

/// Renews the credentials of one profile.
#[derive(Debug, Default)]
pub struct Refresher {
    flight: Flight<Result<Arc<Credentials>, RefreshError>>,
    /// Changed under the lease only.
    unsaved: Mutex<Option<Unsaved>>,
    /// Whether the file was found to hold somebody else's login: should its own come back, it is good.
    is_foreign: AtomicBool,
}

/// A renewal that the disk did not take: until it does, the only good tokens are in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unsaved {
    /// What the disk says, of which the refresh token is spent: different from ours, and not newer.
    spent: Credentials,
    /// The `auth.json` that should be there instead.
    text: Secret,
    /// When it was last tried to save it later.
    retried: Option<Instant>,
}

impl Refresher {
    fn unsaved(&self) -> MutexGuard<'_, Option<Unsaved>> {
        lock(&self.unsaved)
    }

    /// Whether the disk says nothing but what was exchanged already.
    fn is_spent(&self, stored: &Credentials) -> bool {
        self.unsaved().as_ref().is_some_and(|unsaved| unsaved.spent == *stored)
    }

    /// Whether it is time to try again to save a renewal; notes that it is done.
    fn may_save(&self, now: Instant) -> bool {
        let mut unsaved = self.unsaved();
        let Some(unsaved) = unsaved.as_mut() else { return false };
        let may = unsaved.retried.is_none_or(|retried| now.duration_since(retried) >= SAVE_AGAIN);
        if may {
            unsaved.retried = Some(now);
        }
        may
    }
}

/// How often it is tried to save a renewal that the disk did not take.
const SAVE_AGAIN: Duration = Duration::from_secs(10);

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
    /// Its file holds somebody else's login: conversations that this profile owns are not that one's.
    #[error("its auth.json holds the login of another account now; remove the profile and add it anew")]
    Foreign,
    /// The token endpoint could not be asked, or gave no usable answer; later it may.
    #[error("its login could not be renewed: {0}")]
    Unavailable(String),
}

impl RefreshError {
    /// Whether nothing but another login helps.
    fn parks(&self) -> bool {
        matches!(self, Self::Rejected(_) | Self::Foreign)
    }
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
    let result = profile.refresher.flight.join(&control.tasks, start).await;
    result.unwrap_or_else(|| Err(RefreshError::Unavailable("the renewal was aborted".to_owned())))
}

/// Looks now and then at a profile whose file and memory differ. One that is parked may have got a new
/// login: by `prodex profile import`, or by whoever else writes its file. One whose renewal the disk did
/// not take has it saved.
pub async fn look_again(control: &Arc<Control>, profile: &Arc<Profile>) {
    if profile.refresher.may_save(Instant::now()) {
        let (of_task, profile) = (Arc::clone(control), Arc::clone(profile));
        control.tasks.spawn(async move { save_unsaved(&of_task, &profile).await });
    }
    if !profile.health().may_look(Instant::now()) {
        return;
    }
    let stored = on_disk(profile, control, |store, profile| store.read_auth(&profile.name)).await;
    let Ok((_, stored)) = stored else { return };
    let (current, refresher) = (profile.credentials(), &profile.refresher);
    if !current.is_same_account(&stored) {
        refresher.is_foreign.store(true, Ordering::Relaxed);
        profile.health().stay_parked(RefreshError::Foreign.to_string());
        return;
    }
    let was_foreign = refresher.is_foreign.swap(false, Ordering::Relaxed);
    if (was_foreign || stored.bearer() != current.bearer()) && !refresher.is_spent(&stored) {
        profile.set_credentials(stored);
        profile.health().unpark();
    }
}

/// Saves a renewal that the disk did not take before, if there is one.
pub async fn save_unsaved(control: &Arc<Control>, profile: &Arc<Profile>) {
    if profile.refresher.unsaved().is_none() {
        return;
    }
    let limit = control.config.control_timeout;
    let saved = on_disk(profile, control, move |store, profile| {
        let _lease = store.lease(&profile.name, limit)?;
        save(store, profile)
    });
    // Should it fail again, the loss at the next start has been told.
    let _ = saved.await;
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
            if error.parks() {
                profile.refresher.is_foreign.store(*error == RefreshError::Foreign, Ordering::Relaxed);
                profile.health().park(error.to_string());
            }
            record_error(control, profile, &error.to_string(), error.parks());
        }
    }
    result.map(|(credentials, _)| credentials)
}

fn record_error(control: &Control, profile: &Profile, reason: &str, parked: bool) {
    let (profile, reason) = ((&*profile.name).into(), reason.into());
    control.log.record(&RunEvent::ProfileRefreshError { profile, reason, parked });
}

/// Renews under the lease; also says whether someone else's renewal was found instead.
async fn renew_on_disk(
    control: &Arc<Control>,
    profile: &Arc<Profile>,
    stale: &Credentials,
) -> Result<(Arc<Credentials>, bool), RefreshError> {
    let limit = control.config.control_timeout;
    let (lease, latest) = on_disk(profile, control, move |store, profile| {
        let lease = store.lease(&profile.name, limit)?;
        Ok((lease, Latest::read(store, profile)?))
    })
    .await?;
    let Latest { spent, text, credentials } = latest;
    if credentials.bearer() != stale.bearer() {
        return adopt(stale, credentials);
    }
    let token = credentials.login().and_then(|login| login.refresh_token.clone());
    let token = token.ok_or(RefreshError::NotRenewable)?;
    if control.tasks.are_ending() {
        // The proxy would not wait for the answer, and the token would be spent.
        return Err(RefreshError::Unavailable("the proxy is about to exit".to_owned()));
    }
    let renewed = exchange(control, token.expose()).await?;
    let text = renew_file(text.expose(), &renewed, jiff::Timestamp::now());
    let text = text.ok_or_else(|| RefreshError::Unavailable("its auth.json is no login".to_owned()))?;
    let credentials = Credentials::parse(&text)
        .map_err(|error| RefreshError::Unavailable(format!("the answer was not usable: {error}")))?;
    let unsaved = Unsaved { spent, text: Secret::new(text), retried: None };
    let saved = on_disk(profile, control, move |store, profile| {
        *profile.refresher.unsaved() = Some(unsaved);
        let saved = save(store, profile);
        drop(lease);
        saved
    });
    match saved.await {
        Ok(None) => Ok((Arc::new(credentials), false)),
        Ok(Some(newer)) => adopt(stale, newer),
        Err(error) => {
            // The new token is the only good one: it is used from memory, and saved later. That the next
            // start may be without it is told now.
            record_error(control, profile, &error.to_string(), false);
            Ok((Arc::new(credentials), false))
        }
    }
}

/// Takes credentials that someone else has put on the disk, if they are the same account's.
fn adopt(stale: &Credentials, stored: Credentials) -> Result<(Arc<Credentials>, bool), RefreshError> {
    if stale.is_same_account(&stored) { Ok((Arc::new(stored), true)) } else { Err(RefreshError::Foreign) }
}

/// The newest that is known of a login, read under the lease.
struct Latest {
    /// What the disk says.
    spent: Credentials,
    /// The newest `auth.json`: the disk's, or one that it did not take.
    text: Secret,
    /// What is in it.
    credentials: Credentials,
}

impl Latest {
    fn read(store: &Store, profile: &Profile) -> Result<Self, StoreError> {
        // Should it fail, what is in memory is still the newest.
        let _ = save(store, profile);
        let (text, stored) = store.read_auth(&profile.name)?;
        let unsaved = profile.refresher.unsaved();
        let (text, credentials) = match unsaved.as_ref() {
            // It was parsed before it was kept.
            Some(Unsaved { spent, text, .. }) if *spent == stored => {
                (text.clone(), Credentials::parse(text.expose()).unwrap_or_else(|_| stored.clone()))
            }
            _ => (Secret::new(text), stored.clone()),
        };
        Ok(Self { spent: stored, text, credentials })
    }
}

/// Puts a renewal on the disk, if there is one that is not there, under the lease. Should the disk say
/// something else than what was exchanged, someone has logged in meanwhile: that stays, and is returned.
fn save(store: &Store, profile: &Profile) -> Result<Option<Credentials>, StoreError> {
    let Some(unsaved) = profile.refresher.unsaved().clone() else { return Ok(None) };
    let (_, stored) = store.read_auth(&profile.name)?;
    let is_spent = stored == unsaved.spent;
    if is_spent {
        store.replace_auth(&profile.name, unsaved.text.expose())?;
    }
    *profile.refresher.unsaved() = None;
    Ok((!is_spent).then_some(stored))
}

/// Runs a piece of disk work where it blocks nobody.
async fn on_disk<T: Send + 'static>(
    profile: &Arc<Profile>,
    control: &Arc<Control>,
    work: impl FnOnce(&Store, &Profile) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RefreshError> {
    let (control, profile) = (Arc::clone(control), Arc::clone(profile));
    let result = tokio::task::spawn_blocking(move || work(&control.store, &profile)).await;
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
