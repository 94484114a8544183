//! The profiles of a run: who they are, what is known of their quota and health, who is in use.
//!
//! A profile is a name, a kind and credentials; `store` keeps them on disk. Which one serves a request is
//! decided in `selection`, from a snapshot of what is here.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use wire::route::Api;
use wire::run_event::Standing;

use crate::admission::gate::{Gate, Permit};
use crate::config::Config;

pub mod credentials;

pub mod store;

pub mod import;

pub mod refresh;

pub mod backend;

pub mod origin;

pub mod quota;

pub mod health;

pub mod board;

use board::Board;
pub use credentials::{Credentials, Kind};
use health::Health;
use quota::Quota;

use crate::state::{self, State};

/// A profile in use.
#[derive(Debug)]
pub struct Profile {
    /// Its name, which is also that of its directory.
    pub name: Arc<str>,
    /// What it is an account of.
    pub kind: Kind,
    credentials: Mutex<Arc<Credentials>>,
    quota: Mutex<Quota>,
    health: Mutex<Health>,
    /// How many requests it serves, and those that wait until it serves fewer.
    pub gate: Arc<Gate>,
    /// Where what selection may know of it is published, once it belongs to a pool.
    place: Option<(Arc<Board>, usize)>,
    /// Renews its credentials, one exchange at a time.
    pub refresher: refresh::Refresher,
    /// Knows where its traffic goes.
    pub origin: origin::Flight,
    /// Asks the usage endpoint, when there is a reason.
    pub prober: quota::probe::Prober,
}

impl Profile {
    /// A profile of which nothing but its credentials is known.
    #[must_use]
    pub fn new(name: &str, credentials: Credentials) -> Self {
        Self {
            name: name.into(),
            kind: credentials.kind(),
            credentials: Mutex::new(Arc::new(credentials)),
            quota: Mutex::default(),
            health: Mutex::default(),
            gate: Gate::new(usize::MAX, &[usize::MAX], 0),
            place: None,
            refresher: refresh::Refresher::default(),
            origin: origin::Flight::default(),
            prober: quota::probe::Prober::default(),
        }
    }

    /// With the limit that these settings have for requests in flight.
    #[must_use]
    pub fn limited(self, config: &Config) -> Self {
        let hard_limit = config.profile_hard_limit;
        let gate = Gate::new(hard_limit, &[hard_limit], config.max_waiting);
        Self { gate, ..self }
    }

    /// Takes what earlier runs and other processes knew of its quota and health.
    pub fn recall(&self, state: &State) {
        if let Some(record) = state.get(state::Fact::Quota, &self.name) {
            *self.quota() = Quota::from_record(record, Now::read());
        }
        if let Some(record) = state.get(state::Fact::Health, &self.name) {
            self.health().recall(&record, Now::read());
        }
    }

    /// Keeps what is known of its quota and health for later runs, if anything is.
    pub fn keep(&self, state: &State) {
        let quota = self.quota();
        if !quota.is_empty() {
            state.put(state::Fact::Quota, &self.name, &quota.to_record());
        }
        drop(quota);
        state.put(state::Fact::Health, &self.name, &self.health().to_record());
    }

    /// The credentials as they are now.
    #[must_use]
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&lock(&self.credentials))
    }

    /// Replaces the credentials by newer ones of the same account.
    pub fn set_credentials(&self, credentials: Credentials) -> Arc<Credentials> {
        let credentials = Arc::new(credentials);
        *lock(&self.credentials) = Arc::clone(&credentials);
        credentials
    }

    /// What is known of the account's quota.
    pub fn quota(&self) -> Fact<'_, Quota> {
        Fact::new(self, &self.quota, Quota::describe)
    }

    /// What is known of the account's health.
    pub fn health(&self) -> Fact<'_, Health> {
        Fact::new(self, &self.health, Health::describe)
    }

    /// How many requests it serves now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.gate.active()
    }

    /// Counts a request as served by this profile until the guard is dropped. `None` when it serves as
    /// many as it may.
    #[must_use]
    pub fn try_enter(self: &Arc<Self>) -> Option<InFlight> {
        self.gate.try_enter(0).map(|permit| self.admitted(permit))
    }

    /// The same for a request that is under way already, whatever the limit.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.admitted(self.gate.enter_anyway(0))
    }

    /// A request that has passed this profile's gate.
    #[must_use]
    pub fn admitted(self: &Arc<Self>, permit: Permit) -> InFlight {
        InFlight { profile: Arc::clone(self), _permit: permit }
    }
}

/// Something that is known of a profile, locked. Should it be changed, selection knows it when this is
/// dropped.
#[derive(Debug)]
pub struct Fact<'a, T> {
    profile: &'a Profile,
    value: MutexGuard<'a, T>,
    describe: fn(&T, &mut Standing),
    is_changed: bool,
}

impl<'a, T> Fact<'a, T> {
    fn new(profile: &'a Profile, value: &'a Mutex<T>, describe: fn(&T, &mut Standing)) -> Self {
        Self { profile, value: lock(value), describe, is_changed: false }
    }
}

impl<T> Deref for Fact<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Fact<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.is_changed = true;
        &mut self.value
    }
}

impl<T> Drop for Fact<'_, T> {
    fn drop(&mut self) {
        if self.is_changed
            && let Some((board, at)) = &self.profile.place
        {
            board.publish(*at, |standing| (self.describe)(&self.value, standing));
        }
    }
}

/// A request that a profile serves.
#[derive(Debug)]
pub struct InFlight {
    profile: Arc<Profile>,
    _permit: Permit,
}

impl InFlight {
    /// The profile that serves it.
    #[must_use]
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is replaced as a whole, so a panic elsewhere cannot have left it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All profiles of a run.
#[derive(Debug)]
pub struct Pool {
    profiles: Vec<Arc<Profile>>,
    chatgpt: Arc<Board>,
    openai: Arc<Board>,
}

impl Pool {
    /// The profiles in their order, and the name of the one to prefer.
    #[must_use]
    pub fn new(profiles: Vec<Profile>, current: Option<&str>) -> Self {
        let mut pool = Self { profiles: Vec::new(), chatgpt: Arc::default(), openai: Arc::default() };
        for mut profile in profiles {
            let mut standing = Standing::new(Arc::clone(&profile.name));
            profile.quota().describe(&mut standing);
            profile.health().describe(&mut standing);
            let board = pool.board(profile.kind.api());
            profile.place = Some((Arc::clone(board), board.add(standing)));
            pool.profiles.push(Arc::new(profile));
        }
        if let Some(current) = current.and_then(|name| pool.get(name)) {
            pool.set_current(current);
        }
        pool
    }

    /// What selection may know of the profiles of an API.
    #[must_use]
    pub fn board(&self, api: Api) -> &Arc<Board> {
        match api {
            Api::Chatgpt => &self.chatgpt,
            Api::OpenAi => &self.openai,
        }
    }

    /// The profiles in their order.
    #[must_use]
    pub fn profiles(&self) -> &[Arc<Profile>] {
        &self.profiles
    }

    /// The profile with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Profile>> {
        self.profiles.iter().find(|profile| &*profile.name == name)
    }

    /// The profiles whose credentials are good for an API.
    pub fn of(&self, api: Api) -> impl Iterator<Item = &Arc<Profile>> {
        self.profiles.iter().filter(move |profile| profile.kind.api() == api)
    }

    /// The profile of an API that served last, or that the person chose.
    #[must_use]
    pub fn current(&self, api: Api) -> Option<Arc<str>> {
        self.board(api).current()
    }

    /// Makes a profile the one that fresh requests for its API stay with.
    pub fn set_current(&self, profile: &Profile) {
        self.board(profile.kind.api()).set_current(&profile.name);
    }
}

/// The two clocks, read together: durations are measured with one, resets are given in the other.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The monotonic clock.
    pub instant: Instant,
    /// Seconds since the epoch.
    pub unix: i64,
}

impl Now {
    /// The time.
    #[must_use]
    pub fn read() -> Self {
        Self { instant: Instant::now(), unix: Self::unix() }
    }

    /// Seconds since the epoch alone; a clock that stands before it counts as standing at it.
    #[must_use]
    pub fn unix() -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use wire::limits::Window;
    use wire::run_event::CircuitOf;

    use super::*;
    use crate::profile::quota::Source;
    use crate::secret::Secret;
    use crate::state::Durability;
    use crate::telemetry::RunLog;

    /// A process that has the state in a directory open, and what it knows of its only profile.
    fn process(directory: &Path) -> (State, Profile) {
        let (state, _) = State::open(directory, Durability::Normal, &Arc::new(RunLog::none())).unwrap();
        let profile = Profile::new("work", Credentials::OpenAiKey(Secret::new("k")));
        profile.recall(&state);
        (state, profile)
    }

    fn window(used_percent: f64, now: Now) -> Vec<Window> {
        let length = Some(std::time::Duration::from_secs(18_000));
        vec![Window { used_percent, length, resets_at: Some(now.unix + 9000) }]
    }

    #[test]
    fn what_one_process_learns_another_does_not_overwrite() {
        let home = tempfile::tempdir().unwrap();
        let now = Now::read();
        let (proxy, served) = process(home.path());
        let (lister, listed) = process(home.path());
        let until = served.quota().exhaust(Some(now.unix + 9000), now);
        served.health().refuse(CircuitOf::Compact, now);
        served.keep(&proxy);
        proxy.close();
        listed.quota().observe_own(window(40.0, now), Source::Usage, now);
        listed.keep(&lister);
        lister.close();
        let (_state, known) = process(home.path());
        assert_eq!(known.quota().exhausted_until(now), Some(until));
        assert_eq!(known.quota().remaining(now), Some(60.0));
        assert_eq!(known.health().to_record(), served.health().to_record());
    }

    #[test]
    fn what_a_success_lifted_another_process_does_not_bring_back() {
        let home = tempfile::tempdir().unwrap();
        let now = Now::read();
        let (before, refused) = process(home.path());
        refused.quota().exhaust(Some(now.unix + 9000), now);
        refused.quota().observe_own(window(100.0, now), Source::Refusal, now);
        refused.health().refuse(CircuitOf::Compact, now);
        refused.keep(&before);
        before.close();
        let ((proxy, served), (lister, listed)) = (process(home.path()), process(home.path()));
        served.quota().serve(now.instant);
        assert_eq!(served.health().serve(CircuitOf::Compact, Instant::now()).count(), 1);
        served.keep(&proxy);
        proxy.close();
        listed.quota().set_plan("plus");
        listed.keep(&lister);
        lister.close();
        let (_state, known) = process(home.path());
        let known_quota = known.quota().clone();
        assert_eq!((known_quota.band(now), known_quota.plan()), (quota::Band::Unknown, Some("plus")));
        assert!(known.health().to_record().circuits.is_empty());
    }

    #[test]
    fn each_api_has_a_profile_of_its_own_to_stay_with() {
        let login = r#"{"tokens":{"access_token":"t","account_id":"a"}}"#;
        let login = Profile::new("login", Credentials::parse(login).unwrap());
        let key = Profile::new("key", Credentials::OpenAiKey(Secret::new("k")));
        let pool = Pool::new(vec![login, key], Some("login"));
        assert_eq!((pool.current(Api::Chatgpt).as_deref(), pool.current(Api::OpenAi)), (Some("login"), None));
        pool.set_current(pool.get("key").unwrap());
        assert_eq!(pool.current(Api::Chatgpt).as_deref(), Some("login"));
        assert_eq!(pool.current(Api::OpenAi).as_deref(), Some("key"));
    }
}
