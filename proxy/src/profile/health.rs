//! What is known of an account's health apart from its quota: whether its credentials are good, and
//! whether its own refusals keep it out for a while.

use std::time::{Duration, Instant};

/// The health of one account.
#[derive(Debug, Default, Clone)]
pub struct Health {
    parked: Option<String>,
    backoff_until: Option<Instant>,
    refusals: u32,
}

impl Health {
    /// Leaves the account out until its credentials change: they are not good and cannot be renewed.
    pub fn park(&mut self, reason: String) {
        self.parked = Some(reason);
    }

    /// Takes new credentials: what was wrong with the old ones is past.
    pub fn unpark(&mut self) {
        self.parked = None;
    }

    /// Why the account is left out until its credentials change.
    #[must_use]
    pub fn parked(&self) -> Option<&str> {
        self.parked.as_deref()
    }

    /// Takes a refusal that is the account's own and says nothing about when it ends. Says for how long
    /// the account is left out: 15 s, doubling with each refusal in a row up to 16 min.
    pub fn refuse(&mut self, now: Instant) -> Duration {
        let backoff = Duration::from_secs(15 << self.refusals.min(6));
        self.refusals = self.refusals.saturating_add(1);
        self.backoff_until = Some(now + backoff);
        backoff
    }

    /// Takes a success.
    pub fn serve(&mut self) {
        self.backoff_until = None;
        self.refusals = 0;
    }

    /// For how much longer the account is left out after its own refusals.
    #[must_use]
    pub fn backoff(&self, now: Instant) -> Option<Duration> {
        self.backoff_until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_in_a_row_keep_the_account_out_longer() {
        let (mut health, now) = (Health::default(), Instant::now());
        let backoffs: Vec<u64> = (0..9).map(|_| health.refuse(now).as_secs()).collect();
        assert_eq!(backoffs, [15, 30, 60, 120, 240, 480, 960, 960, 960]);
        assert_eq!(health.backoff(now), Some(Duration::from_secs(960)));
        assert_eq!(health.backoff(now + Duration::from_secs(960)), None);
        health.serve();
        assert_eq!((health.backoff(now), health.refuse(now).as_secs()), (None, 15));
    }
}
