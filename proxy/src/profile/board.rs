//! What selection may know of the profiles of one API, published whenever it changes.
//!
//! A request reads it under one lock, without taking those of the profiles: a snapshot is one reference and
//! the counts of requests in flight. Whoever changes what is known of a profile publishes it while it holds
//! that, so that what was published last is what was changed last.

use std::sync::{Arc, Mutex};

use wire::run_event::Standing;

use super::lock;

/// The standings of all profiles of one API, in their order.
pub type Standings = Arc<Vec<Arc<Standing>>>;

/// What is published.
#[derive(Debug, Default)]
pub struct Board(Mutex<Published>);

#[derive(Debug, Default)]
struct Published {
    standings: Standings,
    current: Option<Arc<str>>,
}

impl Board {
    /// Adds a profile. Says which place it has.
    pub fn add(&self, standing: Standing) -> usize {
        let mut published = lock(&self.0);
        let standings = Arc::make_mut(&mut published.standings);
        standings.push(Arc::new(standing));
        standings.len() - 1
    }

    /// Publishes a change of the profile at a place, if it is one.
    pub fn publish(&self, at: usize, change: impl FnOnce(&mut Standing)) {
        let mut published = lock(&self.0);
        let Some(standing) = published.standings.get(at) else { return };
        let mut next = Standing::clone(standing);
        change(&mut next);
        if next != **standing {
            // Copies the list of references if a snapshot of it is in use.
            Arc::make_mut(&mut published.standings)[at] = Arc::new(next);
        }
    }

    /// All of it, as it is now.
    #[must_use]
    pub fn read(&self) -> (Standings, Option<Arc<str>>) {
        let published = lock(&self.0);
        (Arc::clone(&published.standings), published.current.clone())
    }

    /// The profile that fresh requests stay with.
    #[must_use]
    pub fn current(&self) -> Option<Arc<str>> {
        lock(&self.0).current.clone()
    }

    /// Makes a profile the one that fresh requests stay with.
    pub fn set_current(&self, name: &Arc<str>) {
        let mut published = lock(&self.0);
        // Most of the time it is the same one.
        if published.current.as_ref() != Some(name) {
            published.current = Some(Arc::clone(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_does_not_change() {
        let board = Board::default();
        let at = board.add(Standing::new("a".into()));
        let (before, _) = board.read();
        board.publish(at, |standing| standing.is_parked = true);
        let (after, _) = board.read();
        assert_eq!((before[0].is_parked, after[0].is_parked), (false, true));
        board.publish(at, |standing| standing.is_parked = true);
        assert!(Arc::ptr_eq(&after, &board.read().0), "nothing changed");
        board.publish(7, |_| unreachable!("there is nobody"));
    }
}
