//! Notices that nothing moves: an upstream that is silent for too long, a client that does not read.

use std::time::{Duration, Instant};

use crate::accounting::Outcome;

/// Looks at a relay from time to time. Reading the clock for every byte would cost more than being late
/// by one look.
#[derive(Debug)]
pub(super) struct Stall {
    idle: Duration,
    write: Duration,
    since: Instant,
    seen: u64,
}

impl Stall {
    /// A watch that begins now, with the limits for an upstream and for a client.
    pub(super) fn new(idle: Duration, write: Duration) -> Self {
        Self { idle, write, since: Instant::now(), seen: 0 }
    }

    /// How long to wait until the next look.
    pub(super) fn tick(&self) -> Duration {
        self.idle.min(self.write)
    }

    /// Takes how far the relay has come, and whether it waits for the client. Says how it ends, if it
    /// has stood still for too long.
    pub(super) fn check(&mut self, progress: u64, waits_for_client: bool) -> Option<Outcome> {
        if self.seen != progress {
            (self.seen, self.since) = (progress, Instant::now());
            return None;
        }
        let (limit, outcome) =
            if waits_for_client { (self.write, Outcome::SlowClient) } else { (self.idle, Outcome::Idle) };
        (self.since.elapsed() >= limit).then_some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_still_is_told_by_whom_it_waits_for() {
        let mut stall = Stall::new(Duration::ZERO, Duration::from_secs(3600));
        assert_eq!(stall.tick(), Duration::ZERO);
        assert_eq!(stall.check(1, false), None, "it has moved");
        assert_eq!(stall.check(1, true), None, "the client has time");
        assert_eq!(stall.check(1, false), Some(Outcome::Idle));
        let mut stall = Stall::new(Duration::from_secs(3600), Duration::ZERO);
        assert_eq!(stall.check(0, true), Some(Outcome::SlowClient));
        assert_eq!(stall.check(0, false), None);
    }
}
