//! What selection may know of the profiles of one API, published whenever it changes.
//!
//! A request reads it under one lock, without taking those of the profiles: a snapshot is one reference and
//! the counts of requests in flight. Whoever changes what is known of a profile publishes it while it holds
//! that, so that what was published last is what was changed last.

use std::sync::{Arc, Mutex};

use wire::run_event::Standing;

use super::{Profile, lock};

/// The standings of all profiles of one API, in their order.
pub type Standings = Arc<Vec<Arc<Standing>>>;

/// The profiles themselves, in the same order.
pub type Members = Arc<Vec<Arc<Profile>>>;

/// What is published.
#[derive(Debug, Default)]
pub struct Board(Mutex<View>);

/// What is published, at one moment.
#[derive(Debug, Default, Clone)]
pub struct View {
    /// What is known of each profile.
    pub standings: Standings,
    /// The profiles, each in the place of its standing.
    pub members: Members,
    /// The one that fresh requests stay with.
    pub current: Option<Arc<str>>,
}

impl Board {
    /// Adds a profile at a place, or behind all others if there are not so many.
    pub fn add(&self, at: usize, standing: Standing, profile: Arc<Profile>) {
        let mut published = lock(&self.0);
        let at = at.min(published.members.len());
        Arc::make_mut(&mut published.standings).insert(at, Arc::new(standing));
        Arc::make_mut(&mut published.members).insert(at, profile);
    }

    /// Takes a profile off. What it serves it goes on serving.
    pub fn remove(&self, name: &Arc<str>) {
        let mut published = lock(&self.0);
        let Some(at) = published.place(name) else { return };
        Arc::make_mut(&mut published.standings).remove(at);
        Arc::make_mut(&mut published.members).remove(at);
        published.current.take_if(|current| current == name);
    }

    /// Publishes a change of a profile, if it is one. The name is the profile's own: another of that name, which
    /// was added when the first was removed, is not meant.
    pub fn publish(&self, name: &Arc<str>, change: impl FnOnce(&mut Standing)) {
        let mut published = lock(&self.0);
        let Some(at) = published.place(name) else { return };
        let mut next = Standing::clone(&published.standings[at]);
        change(&mut next);
        if next != *published.standings[at] {
            // Copies the list of references if a snapshot of it is in use.
            Arc::make_mut(&mut published.standings)[at] = Arc::new(next);
        }
    }

    /// All of it, as it is now.
    #[must_use]
    pub fn read(&self) -> View {
        lock(&self.0).clone()
    }

    /// The profiles, as they are now.
    #[must_use]
    pub fn members(&self) -> Members {
        Arc::clone(&lock(&self.0).members)
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

impl View {
    fn place(&self, name: &Arc<str>) -> Option<usize> {
        self.standings.iter().position(|standing| Arc::ptr_eq(&standing.name, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Credentials;
    use crate::secret::Secret;

    fn add(board: &Board, at: usize, name: &str) -> Arc<str> {
        let profile = Profile::new(name, Credentials::OpenAiKey(Secret::new("k")));
        let name = Arc::clone(&profile.name);
        board.add(at, Standing::new(Arc::clone(&name)), Arc::new(profile));
        name
    }

    #[test]
    fn what_was_read_does_not_change() {
        let board = Board::default();
        let a = add(&board, 0, "a");
        let before = board.read().standings;
        board.publish(&a, |standing| standing.is_parked = true);
        let after = board.read().standings;
        assert_eq!((before[0].is_parked, after[0].is_parked), (false, true));
        board.publish(&a, |standing| standing.is_parked = true);
        assert!(Arc::ptr_eq(&after, &board.read().standings), "nothing changed");
        board.publish(&"a".into(), |_| unreachable!("another of this name"));
    }

    #[test]
    fn profiles_come_and_go_with_their_standings() {
        let board = Board::default();
        let (a, c) = (add(&board, 0, "a"), add(&board, 9, "c"));
        let b = add(&board, 1, "b");
        board.set_current(&b);
        let names = || {
            let View { standings, members, .. } = board.read();
            assert!(standings.iter().zip(members.iter()).all(|(one, two)| Arc::ptr_eq(&one.name, &two.name)));
            standings.iter().map(|standing| standing.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(), ["a", "b", "c"]);
        board.remove(&a);
        board.remove(&"c".into());
        assert_eq!((names(), board.current()), (vec!["b".to_owned(), "c".to_owned()], Some(Arc::clone(&b))));
        board.publish(&a, |_| unreachable!("it is gone"));
        board.publish(&c, |standing| standing.is_parked = true);
        board.remove(&b);
        let View { standings, current, .. } = board.read();
        assert_eq!((standings.len(), standings[0].is_parked, current), (1, true, None));
    }
}
