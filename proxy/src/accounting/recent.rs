//! Who served the last turns: a bounded ring in memory, for `prodex status`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::metrics::Ending;

/// How many turns are remembered.
const KEPT: usize = 32;

/// A turn that has ended.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Its number in the run log.
    pub request: u64,
    /// When it ended, in seconds since the epoch.
    pub at: i64,
    /// What it is called in the run log.
    pub route: &'static str,
    /// Who served it.
    pub profile: Arc<str>,
    /// How it ended.
    pub ending: Ending,
    /// How long it took.
    pub took: Duration,
    /// How long its client waited for the first byte.
    pub first_byte: Duration,
    /// The beginning of the digest of its conversation's id: enough to see which turns belong together.
    pub conversation: Option<[u8; 3]>,
}

/// The last turns.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Turn>>);

impl Recent {
    /// Takes a turn that has ended, in the place of the oldest.
    pub fn push(&self, turn: Turn) {
        // A panic elsewhere cannot have left half a turn.
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if turns.len() == KEPT { turns.pop_front() } else { None };
        turns.push_back(turn);
        drop(turns);
        drop(oldest);
    }

    /// The last turns, the latest first.
    #[must_use]
    pub fn turns(&self) -> Vec<Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let recent = Recent::default();
        for request in 0..100 {
            let profile = "a".into();
            let (took, first_byte, conversation) = (Duration::ZERO, Duration::ZERO, None);
            let ending = Ending::Complete;
            recent.push(Turn {
                request,
                at: 0,
                route: "responses",
                profile,
                ending,
                took,
                first_byte,
                conversation,
            });
        }
        let requests: Vec<u64> = recent.turns().iter().map(|turn| turn.request).collect();
        assert_eq!(requests, (68..100).rev().collect::<Vec<_>>());
    }
}
