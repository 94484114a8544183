//! The profiles of a run: who they are, what is known of their quota and health, who is in use.
//!
//! A profile is a name, a kind and credentials; `store` keeps them on disk. Which one serves a request is
//! decided in `selection`, from a snapshot of what is here.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use wire::route::Api;
use wire::run_event::Standing;

use crate::admission::gate::{Gate, Permit};
use crate::config::Config;

pub mod credentials;

pub mod store;

pub mod import;

pub mod scopes;

pub mod refresh;

pub mod backend;

pub mod origin;

pub mod quota;

pub mod health;

pub mod board;

pub mod roster;

use board::{Board, Members};
pub use credentials::{Credentials, Kind};
use health::Health;
use quota::Quota;

pub use crate::clock::Now;
use crate::state::{self, State};

/// A profile in use.
#[derive(Debug)]
pub struct Profile {
    /// Its name, which is also that of its directory.
    pub name: Arc<str>,
    /// What it is an account of.
    pub kind: Kind,
    /// When it was added, RFC 3339: one that was removed and added anew is another.
    pub added: Box<str>,
    credentials: Mutex<Arc<Credentials>>,
    quota: Mutex<Quota>,
    health: Mutex<Health>,
    /// How many requests it serves, and those that wait until it serves fewer.
    pub gate: Arc<Gate>,
    /// Where what selection may know of it is published, once it belongs to a pool.
    board: Weak<Board>,
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
            added: Box::default(),
            credentials: Mutex::new(Arc::new(credentials)),
            quota: Mutex::default(),
            health: Mutex::default(),
            gate: Gate::new(usize::MAX, &[usize::MAX], 0),
            board: Weak::new(),
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

    /// Adds what other processes have learnt of its quota and health meanwhile.
    pub fn learn(&self, state: &State) {
        let now = Now::read();
        if let Some(record) = state.get(state::Fact::Quota, &self.name) {
            let mut quota = self.quota();
            if let Some(learnt) = quota.learnt(record, now) {
                *quota = learnt;
            }
        }
        if let Some(record) = state.get(state::Fact::Health, &self.name) {
            let mut health = self.health();
            if let Some(learnt) = health.learnt(&record, now) {
                *health = learnt;
            }
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
            && let Some(board) = self.profile.board.upgrade()
        {
            board.publish(&self.profile.name, |standing| (self.describe)(&self.value, standing));
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

/// All profiles of a run. They may come and go while it serves; who serves a request goes on to its end.
#[derive(Debug, Default)]
pub struct Pool {
    chatgpt: Arc<Board>,
    openai: Arc<Board>,
    /// The only profiles that this run may use; all, if there is none.
    scope: Option<Box<[String]>>,
    /// The person's choice of the profile that fresh conversations start with, as it was last read.
    chosen: Mutex<Option<String>>,
}

impl Pool {
    /// The profiles in their order, and the name of the one to prefer.
    #[must_use]
    pub fn new(profiles: Vec<Profile>, current: Option<&str>) -> Self {
        let pool = Self::default();
        for profile in profiles {
            pool.add(profile, &Standing::new("".into()), usize::MAX);
        }
        pool.choose(current.map(str::to_owned));
        pool
    }

    /// The same without profiles, of which `scope` names the only ones that may be used.
    #[must_use]
    pub fn scoped(scope: Option<Box<[String]>>) -> Self {
        Self { scope, ..Self::default() }
    }

    /// The only profiles that this run may use; all, if there is none.
    #[must_use]
    pub fn scope(&self) -> Option<&[String]> {
        self.scope.as_deref()
    }

    /// Adds a profile of which its person says this, at a place in the order of its API.
    fn add(&self, mut profile: Profile, said: &Standing, at: usize) {
        let mut standing = Standing { name: Arc::clone(&profile.name), ..said.clone() };
        standing.is_out_of_scope =
            self.scope().is_some_and(|scope| scope.iter().all(|name| **name != *profile.name));
        profile.quota().describe(&mut standing);
        profile.health().describe(&mut standing);
        let board = self.board(profile.kind.api());
        profile.board = Arc::downgrade(board);
        board.add(at, standing, Arc::new(profile));
    }

    /// Takes the person's choice of the profile that fresh conversations start with. One that is not new
    /// changes nothing: meanwhile another may serve them.
    fn choose(&self, chosen: Option<String>) {
        let mut known = lock(&self.chosen);
        if *known == chosen {
            return;
        }
        if let Some(profile) = chosen.as_deref().and_then(|name| self.get(name)) {
            self.set_current(&profile);
        }
        *known = chosen;
    }

    /// What selection may know of the profiles of an API.
    #[must_use]
    pub fn board(&self, api: Api) -> &Arc<Board> {
        match api {
            Api::Chatgpt => &self.chatgpt,
            Api::OpenAi => &self.openai,
        }
    }

    fn boards(&self) -> [&Arc<Board>; 2] {
        [&self.chatgpt, &self.openai]
    }

    /// All profiles: those of each API in their order.
    #[must_use]
    pub fn profiles(&self) -> Vec<Arc<Profile>> {
        self.boards().into_iter().flat_map(|board| board.members().to_vec()).collect()
    }

    /// The profile with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Profile>> {
        self.boards()
            .into_iter()
            .find_map(|board| board.members().iter().find(|profile| &*profile.name == name).map(Arc::clone))
    }

    /// The profiles whose credentials are good for an API, in their order.
    #[must_use]
    pub fn of(&self, api: Api) -> Members {
        self.board(api).members()
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

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

    #[tokio::test]
    async fn what_one_process_learns_another_that_runs_takes_up() {
        let home = tempfile::tempdir().unwrap();
        let now = Now::read();
        let ((one, refused), (other, serving)) = (process(home.path()), process(home.path()));
        let earlier = Now { unix: now.unix - 60, ..now };
        refused.quota().observe_own(window(10.0, earlier), Source::Usage, earlier);
        let until = refused.quota().exhaust(Some(now.unix + 9000), now);
        refused.health().refuse(CircuitOf::Compact, now);
        refused.keep(&one);
        one.close();
        // It has been told more of the window meanwhile, and of another circuit.
        serving.quota().observe_own(window(40.0, now), Source::Response, now);
        serving.health().refuse(CircuitOf::Websocket, now);
        let began = Instant::now();
        other.reread().await;
        serving.learn(&other);
        assert_eq!(serving.quota().exhausted_until(now), Some(until));
        assert_eq!(serving.quota().remaining(now), Some(60.0));
        let circuits = serving.health().to_record().circuits;
        let of: Vec<_> = circuits.iter().map(|circuit| circuit.of).collect();
        assert_eq!(of, [CircuitOf::Compact, CircuitOf::Websocket]);
        let known = serving.quota().to_record();
        serving.learn(&other);
        assert_eq!(serving.quota().to_record(), known, "nothing is new");
        assert!(!serving.quota().serve(began), "what had begun before is no sign that it is past");
        assert!(serving.quota().serve(Instant::now()));
        serving.keep(&other);
        serving.learn(&other);
        assert_eq!(serving.quota().exhausted_until(now), None, "nor does it come back");
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
        pool.set_current(&pool.get("key").unwrap());
        assert_eq!(pool.current(Api::Chatgpt).as_deref(), Some("login"));
        assert_eq!(pool.current(Api::OpenAi).as_deref(), Some("key"));
    }
}
