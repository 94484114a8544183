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

/// What of an id memory may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lacks {
    /// It knows the owner.
    Nothing,
    /// It knows no owner, and would if it had been told one.
    News,
    /// It knows no owner, and may have forgotten one that the disk still has.
    Anything,
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
            owners.keep(id, Known { profile, at, ticket: Ticket::DURABLE });
        }
    }

    /// Whether the disk may have what is not here, of what was told to memory.
    pub(super) fn lacks(&self, tie: Tie, id: &Digest) -> Lacks {
        let mut owners = self.owners(tie);
        if owners.get(id).is_some() {
            Lacks::Nothing
        } else if owners.is_complete() {
            Lacks::News
        } else {
            Lacks::Anything
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
///
/// The disk keeps the `capacity` that were *written* last, which may be others: the map knows when it may have
/// forgotten one of those.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    capacity: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// How many of the young were written since they are the young; the others are only used.
    written: usize,
    /// How many have to be written until what was forgotten is not among the last `capacity`.
    forgotten: usize,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    fn new(capacity: usize) -> Self {
        Self { capacity, young: HashMap::new(), old: HashMap::new(), written: 0, forgotten: 0 }
    }

    /// Whether all of the last `capacity` that were inserted are here.
    pub(super) fn is_complete(&self) -> bool {
        self.forgotten == 0
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.keep(key, value.clone());
        Some(value)
    }

    /// Takes what is written now.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.keep(key, value) {
            self.written += 1;
            self.forgotten = self.forgotten.saturating_sub(1);
        }
    }

    /// Takes what was written some time ago. Says whether it was not among the young.
    pub(super) fn keep(&mut self, key: K, value: V) -> bool {
        if self.young.len() >= self.capacity && !self.young.contains_key(&key) {
            std::mem::swap(&mut self.old, &mut self.young);
            if !self.young.is_empty() {
                self.forgotten = self.capacity.saturating_sub(self.written).max(self.forgotten);
            }
            // Its memory is used again: tables that grow anew each time leave holes, and a long run grows by them.
            self.young.clear();
            self.written = 0;
        }
        self.young.insert(key, value).is_none()
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

    /// Beside a disk that keeps the last `capacity` that were written.
    #[test]
    fn it_knows_when_it_may_have_forgotten_what_the_disk_has() {
        for uses in 0..12 {
            let mut recent = Recent::new(100);
            let mut disk = std::collections::VecDeque::new();
            for key in 0..2_000_u32 {
                recent.insert(key, ());
                disk.push_back(key);
                if disk.len() > 100 {
                    disk.pop_front();
                }
                for back in 1..=uses {
                    recent.get(&key.saturating_sub(back * 16));
                }
                let lacks =
                    disk.iter().any(|key| !recent.young.contains_key(key) && !recent.old.contains_key(key));
                assert!(!lacks || !recent.is_complete(), "{uses} uses between two writes, at {key}");
                assert!(uses > 0 || recent.is_complete(), "what is only written is complete, at {key}");
            }
        }
    }
}
