//! Renewal of a ChatGPT login's tokens: one exchange for all who need it, in this process and in others.
//!
//! A refresh token is good for one exchange, so a lease on the profile's file comes first, and whoever
//! gets it looks whether another process, or the client itself, has already renewed. The exchange goes on
//! when the request that needed it is gone: its answer holds the only good token.
//!
//! A process that dies gives its lease back, and what it was at is gone on with: a file that it had written
//! but not put in place is, and a refresh token that it had not got an answer for is exchanged again. Lost are
//! tokens that the endpoint had issued and whose file was not written yet; that takes a millisecond, and then
//! only a new login helps. Whoever finds that out leaves a note with the lease, so that each process need not
//! send a spent token to find it out for itself.
//!
//! Memory may be ahead of the disk, when that is full, or behind it, when somebody has logged in. What was
//! exchanged is spent, so a disk that still says it is behind; anything else there is newer, and wins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wire::run_event::RunEvent;

use super::credentials::{Credentials, renew_file};
use super::store::{Lease, Store, StoreError};
use super::{Now, Profile, lock};
use crate::control::{Control, Flight, describe};
use crate::metrics::Renewal;
use crate::notice;
use crate::secret::Secret;

/// Renews the credentials of one profile.
#[derive(Debug, Default)]
pub struct Refresher {
    flight: Flight<Result<Arc<Credentials>, RefreshError>>,
    /// Looks at the file of a profile that is parked.
    looks: Flight<()>,
    /// When it was last seen to that a token is renewed before it is needed.
    ahead: Mutex<Option<Instant>>,
    /// Changed under the lease only.
    unsaved: Mutex<Option<Unsaved>>,
    /// How long the token of the last exchange was to be good when it came, in seconds. If that is no time at
    /// all, it is our clock that is wrong, and the upstream's word alone says when a token has expired.
    lifetime: Mutex<Option<i64>>,
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

impl Profile {
    /// Whether these credentials of the profile say that they have expired, as far as our clock is to be
    /// believed.
    #[must_use]
    pub fn has_expired(&self, credentials: &Credentials, now: Now) -> bool {
        let is_expired = credentials.login().is_some_and(|login| login.is_expired(now.unix));
        is_expired && lock(&self.refresher.lifetime).is_none_or(|lifetime| lifetime > SHORTEST)
    }
}

/// A token that is good for no longer than that, in seconds, counts as expired when it comes.
const SHORTEST: i64 = 60;

/// How long before its expiry a token is renewed, so that no request waits for that. Codex itself does so
/// about two minutes before (measured with 0.169): a login that both use is renewed here.
const AHEAD: i64 = 5 * 60;

/// How much earlier, at most: several proxies of a home begin at different times and find it done.
const AHEAD_SPREAD: u32 = 60;

/// How often a token is renewed ahead. One that lives shorter is renewed by the request that needs it.
const AHEAD_AGAIN: Duration = Duration::from_secs(2 * 60);

/// How often it is tried to save a renewal that the disk did not take.
const SAVE_AGAIN: Duration = Duration::from_secs(10);

/// The client id of Codex, with which its logins are made (measured: what Codex itself sends).
const CLIENT_ID: &str = "app_EMoamEEZ73f0CkXaXp7hrann";

/// Why a login could not be renewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// It is no login, or has no refresh token.
    #[error("its credentials cannot be renewed; log in again with `prodex login` and its name")]
    NotRenewable,
    /// The token endpoint says that the login is no longer good: only a new one helps.
    #[error("its login is no longer good ({0}); log in again with `prodex login` and its name")]
    Rejected(String),
    /// Its file holds somebody else's login: conversations that this profile owns are not that one's.
    #[error(
        "its auth.json holds the login of another account now; `prodex profile remove` it and add it anew, or \
         log its own account in with `prodex login` and its name"
    )]
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
        async move { run(&control, &profile, &stale, Need::Now).await }
    };
    let result = profile.refresher.flight.join(&control.tasks, start).await;
    result.unwrap_or_else(|| Err(RefreshError::Unavailable("the renewal was aborted".to_owned())))
}

/// Sees to it that a token which is about to expire is renewed, whether its profile serves now or waits for
/// its quota. Waits for nothing.
pub fn renew_ahead(control: &Arc<Control>, profile: &Arc<Profile>, now: Now) {
    let stale = profile.credentials();
    let Some(login) = stale.login().filter(|login| login.refresh_token.is_some()) else { return };
    let spread = i64::from(std::process::id() % AHEAD_SPREAD);
    let lifetime = *lock(&profile.refresher.lifetime);
    let is_due = login.expires_at.is_some_and(|at| at <= now.unix.saturating_add(AHEAD + spread))
        && lifetime.is_none_or(|lifetime| lifetime > AHEAD + spread);
    if !is_due || control.tasks.are_ending() || profile.health().parked().is_some() {
        return;
    }
    {
        let mut ahead = lock(&profile.refresher.ahead);
        if ahead.is_some_and(|was| now.instant.saturating_duration_since(was) < AHEAD_AGAIN) {
            return;
        }
        *ahead = Some(now.instant);
    }
    let (of_task, profile) = (Arc::clone(control), Arc::clone(profile));
    control.tasks.spawn(async move {
        let control = of_task;
        let Some(Ok(_permit)) = control.tasks.unless_ending(control.background.acquire()).await else {
            return;
        };
        let start = || {
            let (control, profile, stale) = (Arc::clone(&control), Arc::clone(&profile), Arc::clone(&stale));
            async move { run(&control, &profile, &stale, Need::Soon).await }
        };
        if profile.credentials().bearer() == stale.bearer() {
            profile.refresher.flight.join(&control.tasks, start).await;
        }
    });
}

/// When a renewed token is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The old one is not accepted any more.
    Now,
    /// The old one is still good for a while, even if there will be no other.
    Soon,
}

/// Has a renewal that the disk did not take saved now and then. Waits for nothing.
pub fn save_later(control: &Arc<Control>, profile: &Arc<Profile>, now: Now) {
    if profile.refresher.may_save(now.instant) {
        let (of_task, profile) = (Arc::clone(control), Arc::clone(profile));
        control.tasks.spawn(async move { save_unsaved(&of_task, &profile).await });
    }
}

/// Has the file of a profile that is parked looked at now and then. It may have got a new login: by `prodex
/// profile import`, or by whoever else writes its file. Waits for nothing.
pub fn begin_look(control: &Arc<Control>, profile: &Arc<Profile>) {
    if profile.health().may_look(Instant::now()) {
        profile.refresher.looks.begin(&control.tasks, || {
            let (control, profile) = (Arc::clone(control), Arc::clone(profile));
            async move { look(&control, &profile).await }
        });
    }
}

/// The same, and waits for the look that is under way, if one is.
pub async fn look_again(control: &Arc<Control>, profile: &Arc<Profile>) {
    begin_look(control, profile);
    profile.refresher.looks.landed().await;
}

async fn look(control: &Arc<Control>, profile: &Arc<Profile>) {
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

/// What became of a look at a profile's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// It holds what is known, or what was exchanged already.
    Nothing,
    /// It held a newer login, which is in use now.
    Newer,
}

/// Takes the login that somebody has put into a profile's file. Under the lease: without it, what a renewal
/// is about to replace could be taken for newer.
///
/// # Errors
/// When the file cannot be read, or holds the login of another account.
pub async fn adopt_stored(control: &Arc<Control>, profile: &Arc<Profile>) -> Result<Adopted, RefreshError> {
    let limit = control.config.control_timeout;
    let adopted = on_disk(profile, control, move |store, profile| {
        let _lease = store.lease(&profile.name, limit)?;
        let (_, stored) = store.read_auth(&profile.name)?;
        let current = profile.credentials();
        if !current.is_same_account(&stored) {
            return Ok(Err(RefreshError::Foreign));
        }
        if *current == stored || profile.refresher.is_spent(&stored) {
            return Ok(Ok(Adopted::Nothing));
        }
        profile.set_credentials(stored);
        profile.health().unpark();
        Ok(Ok(Adopted::Newer))
    });
    adopted.await?
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
    need: Need,
) -> Result<Arc<Credentials>, RefreshError> {
    let started = Instant::now();
    let result = renew_on_disk(control, profile, stale).await;
    control.metrics.renewal(match &result {
        Ok((_, true)) => Renewal::Adopted,
        Ok((_, false)) => Renewal::Renewed,
        Err(error) if error.parks() => Renewal::Rejected,
        Err(_) => Renewal::Failed,
    });
    match &result {
        Ok((credentials, adopted)) => {
            let now = Now::read().unix;
            let expires_at = credentials.login().and_then(|login| login.expires_at);
            // Nobody knows how long ago another process got its token.
            let lifetime = expires_at.filter(|_| !*adopted).map(|at| at.saturating_sub(now));
            *lock(&profile.refresher.lifetime) = lifetime;
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
            let parks = error.parks() && need == Need::Now;
            if parks {
                profile.refresher.is_foreign.store(*error == RefreshError::Foreign, Ordering::Relaxed);
                profile.health().park(error.to_string());
            }
            record_error(control, profile, &error.to_string(), parks);
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
    if let Some(code) = Rejection::of(&lease, &token, Now::read().unix) {
        return Err(RefreshError::Rejected(code));
    }
    let renewed = match exchange(control, token.expose()).await {
        Err(RefreshError::Rejected(code)) => {
            let note = Rejection::note(&token, &code, Now::read().unix);
            // Without the note the next one finds it out for itself.
            let _ = on_disk(profile, control, move |_, _| lease.set_note(&note)).await;
            return Err(RefreshError::Rejected(code));
        }
        renewed => renewed?,
    };
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
            notice::tell(format_args!(
                "the renewed login of profile {} is not on the disk ({error}); it is used from memory and \
                 written as soon as that goes: do not end this proxy before, or log in again",
                profile.name
            ));
            Ok((Arc::new(credentials), false))
        }
    }
}

/// How long a refresh token is taken for rejected without asking again: should the endpoint have been wrong,
/// a login is not lost for ever.
const REJECTED: i64 = 10 * 60;

/// The note that the endpoint rejected a refresh token.
#[derive(Debug, Serialize, Deserialize)]
struct Rejection {
    /// Which, as the beginning of its SHA-256.
    rejected: String,
    code: String,
    at: i64,
}

impl Rejection {
    /// The text of a new note.
    fn note(token: &Secret, code: &str, now: i64) -> String {
        let note = Self { rejected: fingerprint(token), code: code.to_owned(), at: now };
        json!(note).to_string()
    }

    /// The code with which this token was rejected lately, if it was.
    fn of(lease: &Lease, token: &Secret, now: i64) -> Option<String> {
        let note: Self = serde_json::from_str(&lease.note()).ok()?;
        let is_recent = (note.at..note.at.saturating_add(REJECTED)).contains(&now);
        (is_recent && note.rejected == fingerprint(token)).then(|| plain(&note.code))
    }
}

/// With which code the endpoint rejected the renewal of these credentials lately, if it did.
///
/// # Errors
/// When the profile's lease cannot be had.
pub fn rejection(store: &Store, name: &str, credentials: &Credentials) -> Result<Option<String>, StoreError> {
    let Some(token) = credentials.login().and_then(|login| login.refresh_token.as_ref()) else {
        return Ok(None);
    };
    let lease = store.lease(name, Duration::from_secs(1))?;
    Ok(Rejection::of(&lease, token, jiff::Timestamp::now().as_second()))
}

/// Tells tokens apart without telling anything of them.
fn fingerprint(token: &Secret) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.expose().as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..12])
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
        // Should it fail, what is in place may be good as well.
        let _ = store.recover_auth(&profile.name);
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

/// Runs a piece of disk work where it blocks nobody. A lease may be waited for in it for as long as anything of the
/// control path, and a disk that does not answer within that time again is not waited for: the work goes on.
async fn on_disk<T: Send + 'static>(
    profile: &Arc<Profile>,
    control: &Arc<Control>,
    work: impl FnOnce(&Store, &Profile) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RefreshError> {
    let limit = 2 * control.config.control_timeout;
    let (control, profile) = (Arc::clone(control), Arc::clone(profile));
    let working = tokio::task::spawn_blocking(move || work(&control.store, &profile));
    match tokio::time::timeout(limit, working).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(RefreshError::Unavailable(describe(&error))),
        Ok(Err(_)) => Err(RefreshError::Unavailable("the disk work was aborted".to_owned())),
        Err(_) => Err(RefreshError::Unavailable(format!("the disk did not answer within {limit:?}"))),
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
    plain(error.as_str().or_else(|| error["code"].as_str()).unwrap_or("rejected"))
}

/// The word characters of a code, which goes to logs and terminals.
fn plain(code: &str) -> String {
    code.chars().take(60).filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests;
