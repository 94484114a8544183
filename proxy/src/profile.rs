//! The profiles of a run: who they are, what is known of their quota and health, who is in use.
//!
//! A profile is a name, a kind and credentials; `store` keeps them on disk. Which one serves a request is
//! decided in `selection`, from a snapshot of what is here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use wire::route::Api;

pub mod credentials;

pub mod store;

pub mod import;

pub mod refresh;

pub mod backend;

pub mod origin;

pub mod quota;

pub mod health;

pub use credentials::{Credentials, Kind};
use health::Health;
use quota::Quota;
use store::{Store, StoreError, Stored};

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
    in_flight: AtomicUsize,
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
            in_flight: AtomicUsize::new(0),
            refresher: refresh::Refresher::default(),
            origin: origin::Flight::default(),
            prober: quota::probe::Prober::default(),
        }
    }

    /// A profile of the store, with what was last known of its quota.
    #[must_use]
    pub fn stored(store: &Store, stored: Stored) -> Self {
        let profile = Self::new(&stored.name, stored.credentials);
        if let Some(record) = store.quota(&stored.name) {
            *profile.quota() = Quota::from_record(record, Now::read());
        }
        profile
    }

    /// Keeps what is known of its quota for the next run. Blocks for the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep_quota(&self, store: &Store) -> Result<(), StoreError> {
        let record = self.quota().to_record();
        store.keep_quota(&self.name, &record)
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
    pub fn quota(&self) -> MutexGuard<'_, Quota> {
        lock(&self.quota)
    }

    /// What is known of the account's health.
    pub fn health(&self) -> MutexGuard<'_, Health> {
        lock(&self.health)
    }

    /// How many requests it serves now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request as served by this profile until the guard is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// A request that a profile serves.
#[derive(Debug)]
pub struct InFlight(Arc<Profile>);

impl InFlight {
    /// The profile that serves it.
    #[must_use]
    pub fn profile(&self) -> &Arc<Profile> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
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
    /// The one of each API that has any.
    current: Mutex<HashMap<Api, Arc<str>>>,
}

impl Pool {
    /// The profiles in their order, and the name of the one to prefer.
    #[must_use]
    pub fn new(profiles: Vec<Profile>, current: Option<&str>) -> Self {
        let profiles = profiles.into_iter().map(Arc::new).collect();
        let pool = Self { profiles, current: Mutex::default() };
        if let Some(current) = current.and_then(|name| pool.get(name)) {
            pool.set_current(current);
        }
        pool
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
        lock(&self.current).get(&api).cloned()
    }

    /// Makes a profile the one that fresh requests for its API stay with.
    pub fn set_current(&self, profile: &Profile) {
        let mut current = lock(&self.current);
        // Most of the time it is the same one.
        if current.get(&profile.kind.api()) != Some(&profile.name) {
            current.insert(profile.kind.api(), Arc::clone(&profile.name));
        }
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
        Self { instant: Instant::now(), unix: jiff::Timestamp::now().as_second() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

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
