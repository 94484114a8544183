//! The responses that their own account has just said to be gone, so that it is not asked again and again.
//!
//! A client repeats what fails. For a while its repetitions are asked for once each, without the pauses in
//! which an upstream may still find a response; what the upstream says then is the client's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::state::Digest;

/// How long a response counts as gone: longer than Codex repeats a failed turn (about 7 s on a WebSocket,
/// 24 s over HTTP).
const TIME: Duration = Duration::from_secs(30);

/// Most responses that are remembered as gone.
const CAPACITY: usize = 1024;

/// The responses that are gone.
#[derive(Debug, Default)]
pub struct Gone(Mutex<HashMap<Digest, Instant>>);

impl Gone {
    /// Remembers that a response is gone.
    pub fn insert(&self, response: Digest, now: Instant) {
        let mut gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.len() >= CAPACITY {
            gone.retain(|_, until| *until > now);
        }
        if gone.len() < CAPACITY {
            gone.insert(response, now + TIME);
        }
    }

    /// Whether a response was said to be gone a moment ago.
    #[must_use]
    pub fn contains(&self, response: &Digest, now: Instant) -> bool {
        let gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gone.get(response).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::digest;

    #[test]
    fn what_is_gone_is_remembered_for_a_while_and_within_bounds() {
        let (gone, now) = (Gone::default(), Instant::now());
        gone.insert(digest("r"), now);
        assert!(gone.contains(&digest("r"), now) && !gone.contains(&digest("s"), now));
        assert!(!gone.contains(&digest("r"), now + TIME));
        for n in 0..3 * CAPACITY {
            gone.insert(digest(&n.to_string()), now);
        }
        assert!(gone.0.lock().unwrap().len() <= CAPACITY);
        gone.insert(digest("later"), now + TIME);
        assert!(gone.contains(&digest("later"), now + TIME), "what is past makes room");
    }
}
