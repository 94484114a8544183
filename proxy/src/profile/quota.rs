//! What is known of an account's quota: its windows as last stated, and until when it is used up.

use std::time::Instant;

use wire::limits::Window;
use wire::run_event::{QuotaWindow, Source, Standing};

use super::Now;

/// How long an account counts as used up when the refusal does not say when it comes back.
const UNKNOWN_RESET: i64 = 5 * 60;

/// Longest time that a reset is believed to be away: the longest known window is a week.
const LONGEST_RESET: i64 = 32 * 24 * 3600;

/// The quota of one account.
#[derive(Debug, Default, Clone)]
pub struct Quota {
    windows: Vec<Window>,
    /// When the windows were stated, in seconds since the epoch.
    observed_at: i64,
    exhausted: Option<Exhausted>,
}

/// That an account is used up, and when it said so.
#[derive(Debug, Clone, Copy)]
struct Exhausted {
    since: Instant,
    until: i64,
}

impl Quota {
    /// Takes the windows that a response stated. Windows do not lift what a refusal said.
    pub fn observe(&mut self, windows: Vec<Window>) {
        if !windows.is_empty() {
            self.windows = windows;
            self.observed_at = Now::read().unix;
        }
    }

    /// Says what selection may know of it.
    pub fn describe(&self, standing: &mut Standing) {
        standing.exhausted_until = self.exhausted.map(|exhausted| exhausted.until);
        let observed_at = self.observed_at;
        let window = |window: &Window| QuotaWindow {
            seconds: window.length.map(|length| length.as_secs()),
            remaining: (100.0 - window.used_percent).clamp(0.0, 100.0),
            resets_at: window.resets_at,
            source: Source::Response,
            observed_at,
        };
        standing.windows.clear();
        standing.windows.extend(self.windows.iter().map(window));
    }

    /// Takes a refusal: the account is used up until `resets_at`. Says until when it is left out.
    pub fn exhaust(&mut self, resets_at: Option<i64>, now: Now) -> i64 {
        let until = resets_at.filter(|at| *at > now.unix).unwrap_or(now.unix + UNKNOWN_RESET);
        let until = until.min(now.unix + LONGEST_RESET);
        self.exhausted = Some(Exhausted { since: now.instant, until });
        until
    }

    /// Takes the success of a request that began at `started`: what a refusal had said before that is
    /// past. One that came meanwhile is not: the account may well finish what it had begun.
    pub fn serve(&mut self, started: Instant) {
        self.exhausted = self.exhausted.filter(|exhausted| exhausted.since > started);
    }

    /// Until when the account is used up, if a refusal said so and that time has not come.
    #[must_use]
    pub fn exhausted_until(&self, now: Now) -> Option<i64> {
        self.exhausted.map(|exhausted| exhausted.until).filter(|until| *until > now.unix)
    }

    /// How much of the tightest window is left, in percent; windows that have started anew since they
    /// were stated do not count. None while nothing is known.
    #[must_use]
    pub fn remaining(&self, now: Now) -> Option<f64> {
        let current = self.windows.iter().filter(|window| window.resets_at.is_none_or(|at| at > now.unix));
        current.map(|window| (100.0 - window.used_percent).max(0.0)).reduce(f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix: i64) -> Now {
        Now { instant: Instant::now(), unix }
    }

    #[test]
    fn a_refusal_holds_until_its_reset_or_a_success() {
        let mut quota = Quota::default();
        assert_eq!(quota.exhaust(Some(2000), at(1000)), 2000);
        assert_eq!(quota.exhausted_until(at(1999)), Some(2000));
        assert_eq!(quota.exhausted_until(at(2000)), None);
        assert_eq!(quota.exhaust(None, at(1000)), 1000 + UNKNOWN_RESET);
        assert_eq!(
            quota.exhaust(Some(999), at(1000)),
            1000 + UNKNOWN_RESET,
            "a reset in the past says nothing"
        );
        assert_eq!(quota.exhaust(Some(i64::MAX), at(1000)), 1000 + LONGEST_RESET);
        let before = Instant::now();
        quota.exhaust(Some(2000), at(1000));
        quota.serve(before);
        assert_eq!(quota.exhausted_until(at(1000)), Some(2000), "it was refused after this one had begun");
        quota.serve(Instant::now());
        assert_eq!(quota.exhausted_until(at(1000)), None);
    }

    #[test]
    fn the_tightest_window_counts_until_it_resets() {
        let window = |used_percent, resets_at| Window { used_percent, length: None, resets_at };
        let mut quota = Quota::default();
        assert_eq!(quota.remaining(at(0)), None);
        quota.observe(vec![window(10.0, None), window(90.5, Some(100)), window(120.0, Some(50))]);
        assert_eq!(quota.remaining(at(0)), Some(0.0));
        assert_eq!(quota.remaining(at(60)), Some(9.5));
        assert_eq!(quota.remaining(at(100)), Some(90.0));
        quota.observe(Vec::new());
        assert_eq!(quota.remaining(at(100)), Some(90.0), "silence changes nothing");
    }
}
