//! Which profile owns which conversation.
//!
//! In memory for now, behind the interface that will be durable: a binding is made before the id it is
//! about reaches the client. Bounded: the ids used longest ago are forgotten first, and of an id, which may
//! be as long as a body, only a digest is kept.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most response ids and turn states that are remembered.
const RESPONSES: usize = 16_384;

/// Most sessions that are remembered.
const SESSIONS: usize = 2_048;

/// Most threads that are remembered: a session has one, and one more for each of its sub-agents.
const THREADS: usize = 4_096;

/// Most encrypted items that are remembered: every step of a turn may leave one.
const CONTENTS: usize = 65_536;

/// What ties a request to the profile that served an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tie {
    /// The response it continues.
    Response,
    /// An item of its input that only its account can read.
    Content,
    /// The turn state it carries.
    TurnState,
    /// The thread it belongs to: a conversation of its own.
    Thread,
    /// The session it belongs to: a thread and those of its sub-agents.
    Session,
}

impl Tie {
    /// Its name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Response => "response_id",
            Self::Content => "encrypted_content",
            Self::TurnState => "turn_state",
            Self::Thread => "thread",
            Self::Session => "session",
        }
    }
}

/// What stands for an id: half of its SHA-256, which nobody can make two ids share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The digest of an id.
    #[must_use]
    pub fn of(id: &str) -> Self {
        let whole = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
        let mut half = [0; 16];
        half.iter_mut().zip(whole.as_ref()).for_each(|(to, from)| *to = *from);
        Self(half)
    }
}

/// Profiles' names by what they own.
type Owners = Recent<Digest, Arc<str>>;

/// The owners of conversations.
#[derive(Debug)]
pub struct Bindings {
    responses: Mutex<Owners>,
    contents: Mutex<Owners>,
    turn_states: Mutex<Owners>,
    threads: Mutex<Owners>,
    sessions: Mutex<Owners>,
}

impl Default for Bindings {
    fn default() -> Self {
        Self {
            responses: Mutex::new(Recent::new(RESPONSES)),
            contents: Mutex::new(Recent::new(CONTENTS)),
            turn_states: Mutex::new(Recent::new(RESPONSES)),
            threads: Mutex::new(Recent::new(THREADS)),
            sessions: Mutex::new(Recent::new(SESSIONS)),
        }
    }
}

impl Bindings {
    /// The profile that owns what `id` names.
    #[must_use]
    pub fn owner(&self, tie: Tie, id: &str) -> Option<Arc<str>> {
        self.owner_of(tie, Digest::of(id))
    }

    /// The same for an id whose digest is known.
    #[must_use]
    pub fn owner_of(&self, tie: Tie, id: Digest) -> Option<Arc<str>> {
        self.owners(tie).get(&id)
    }

    /// Makes `profile` the owner of what `id` names.
    pub fn bind(&self, tie: Tie, id: &str, profile: &Arc<str>) {
        let id = Digest::of(id);
        let mut owners = self.owners(tie);
        // Most of what is bound is bound already, and then nothing changes.
        if owners.get(&id).as_ref() != Some(profile) {
            owners.insert(id, Arc::clone(profile));
        }
    }

    fn owners(&self, tie: Tie) -> MutexGuard<'_, Owners> {
        lock(match tie {
            Tie::Response => &self.responses,
            Tie::Content => &self.contents,
            Tie::TurnState => &self.turn_states,
            Tie::Thread => &self.threads,
            Tie::Session => &self.sessions,
        })
    }
}

/// A panic while a map was changed leaves it usable: each change is one insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A map that forgets what was used longest ago, in two generations: when the young one is full it
/// becomes the old one, and the old one is forgotten. At least `capacity` of the last used are kept, at
/// most twice as many.
#[derive(Debug)]
struct Recent<K, V> {
    capacity: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    fn new(capacity: usize) -> Self {
        Self { capacity, young: HashMap::new(), old: HashMap::new() }
    }

    fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.capacity && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_owned_by_who_was_bound_last() {
        let bindings = Bindings::default();
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        bindings.bind(Tie::Response, "a", &one);
        bindings.bind(Tie::Session, "a", &two);
        assert_eq!(bindings.owner(Tie::Response, "a"), Some(Arc::clone(&one)));
        assert_eq!(bindings.owner(Tie::Session, "a"), Some(Arc::clone(&two)));
        assert_eq!(bindings.owner(Tie::TurnState, "a"), None);
        bindings.bind(Tie::Response, "a", &two);
        assert_eq!(bindings.owner(Tie::Response, "a"), Some(two));
    }

    #[test]
    fn what_is_used_is_kept_and_the_rest_is_bounded() {
        let mut recent = Recent::new(100);
        recent.insert(u32::MAX, ());
        for key in 0..10_000 {
            recent.insert(key, ());
            assert!(recent.get(&u32::MAX).is_some(), "in use at {key}");
            assert!(recent.young.len() + recent.old.len() <= 200);
        }
        assert!((9_901..10_000).all(|key| recent.get(&key).is_some()));
        assert!(recent.get(&0).is_none());
    }
}
