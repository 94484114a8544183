//! The bindings in memory: of each kind those used last, by the digest of their id.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use super::database::Row;
use super::ticket::{Ticket, Watermark};
use super::{Tie, lock};

/// What stands for an id: half of its SHA-256, which nobody can make two ids share.
pub type Digest = [u8; 16];

/// The digest of an id.
#[must_use]
pub fn digest(id: &str) -> Digest {
    let whole = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
    let mut half = [0; 16];
    half.iter_mut().zip(whole.as_ref()).for_each(|(to, from)| *to = *from);
    half
}

/// A binding.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The owner's name.
    pub(super) profile: Arc<str>,
    /// When it was written last, in seconds since the epoch.
    pub(super) at: i64,
    /// When it is durable.
    pub(super) ticket: Ticket,
}

pub(super) type Owners = Recent<Digest, Known>;

/// The owners of conversations.
#[derive(Debug)]
pub(super) struct Memory {
    responses: Mutex<Owners>,
    contents: Mutex<Owners>,
    turn_states: Mutex<Owners>,
    threads: Mutex<Owners>,
    sessions: Mutex<Owners>,
}

impl Default for Memory {
    fn default() -> Self {
        let [responses, contents, turn_states, threads, sessions] =
            Tie::ALL.map(|tie| Mutex::new(Recent::new(tie.capacity())));
        Self { responses, contents, turn_states, threads, sessions }
    }
}

impl Memory {
    pub(super) fn get(&self, tie: Tie, id: &Digest) -> Option<Known> {
        self.owners(tie).get(id)
    }

    /// Takes a row of the database.
    pub(super) fn learn(&self, row: Row) {
        let Row { tie, id, profile, at } = row;
        self.owners(tie).insert(id, Known { profile, at, ticket: Ticket::DURABLE });
    }

    /// Takes a row that was looked up, unless a newer one is known by now.
    pub(super) fn learn_missing(&self, row: Row) {
        let Row { tie, id, profile, at } = row;
        let mut owners = self.owners(tie);
        if owners.get(&id).is_none() {
            owners.insert(id, Known { profile, at, ticket: Ticket::DURABLE });
        }
    }

    /// Takes a row of another process, unless one of ours is on its way and will replace it.
    pub(super) fn learn_settled(&self, row: Row, watermark: &Watermark) {
        let Row { tie, id, profile, at } = row;
        // Locked once for both: between them one of ours may begin its way.
        let mut owners = self.owners(tie);
        let is_ours = owners.get(&id).is_some_and(|known| !watermark.has_passed(known.ticket));
        if !is_ours {
            owners.insert(id, Known { profile, at, ticket: Ticket::DURABLE });
        }
    }

    pub(super) fn owners(&self, tie: Tie) -> MutexGuard<'_, Owners> {
        lock(match tie {
            Tie::Response => &self.responses,
            Tie::Content => &self.contents,
            Tie::TurnState => &self.turn_states,
            Tie::Thread => &self.threads,
            Tie::Session => &self.sessions,
        })
    }
}

/// A map that forgets what was used longest ago, in two generations: when the young one is full it
/// becomes the old one, and the old one is forgotten. At least `capacity` of the last used are kept, at
/// most twice as many.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    capacity: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    fn new(capacity: usize) -> Self {
        Self { capacity, young: HashMap::new(), old: HashMap::new() }
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
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

    pub(super) fn insert(&mut self, key: K, value: V) {
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
