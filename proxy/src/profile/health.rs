//! What is known of an account's health apart from its quota: its credentials, its own refusals.

use std::time::{Duration, Instant};

/// How often the disk is looked at for a new login of a profile that is left out.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The health of one account.
#[derive(Debug, Default, Clone)]
pub struct Health {
    parked: Option<String>,
    /// When the disk was last looked at for a new login.
    looked: Option<Instant>,
    /// When it refused last, and until when it is left out.
    backoff: Option<(Instant, Instant)>,
    refusals: u32,
}

impl Health {
    /// Leaves the account out until its credentials change: they are not good and cannot be renewed.
    pub fn park(&mut self, reason: String) {
        self.parked = Some(reason);
        self.looked = None;
    }

    /// Says of an account that is left out already why that is so now.
    pub fn stay_parked(&mut self, reason: String) {
        self.parked = Some(reason);
    }

    /// Takes new credentials: what was wrong with the old ones is past.
    pub fn unpark(&mut self) {
        self.parked = None;
    }

    /// Whether it is time to look on the disk whether there is a new login; notes that it is done.
    pub fn may_look(&mut self, now: Instant) -> bool {
        let may = self.parked.is_some()
            && self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_AGAIN);
        if may {
            self.looked = Some(now);
        }
        may
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
        self.backoff = Some((now, now + backoff));
        backoff
    }

    /// Takes the success of a request that began at `started`: refusals before that are past.
    pub fn serve(&mut self, started: Instant) {
        if self.backoff.is_none_or(|(since, _)| since <= started) {
            self.backoff = None;
            self.refusals = 0;
        }
    }

    /// For how much longer the account is left out after its own refusals.
    #[must_use]
    pub fn backoff(&self, now: Instant) -> Option<Duration> {
        let left = self.backoff.and_then(|(_, until)| until.checked_duration_since(now));
        left.filter(|left| !left.is_zero())
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
        health.serve(now);
        assert_eq!((health.backoff(now), health.refuse(now).as_secs()), (None, 15));
    }
}
