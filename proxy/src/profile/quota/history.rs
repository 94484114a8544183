//! How a window's use has grown: a bounded ring of samples, and what they let one expect.

use std::collections::VecDeque;

use super::Reading;

/// Most samples of one window: a 5-hour window in steps of about two percent.
const CAPACITY: usize = 48;

/// A sample is kept when this much time has passed since the last, or the use has changed by this much.
const STEP_SECONDS: i64 = 300;
const STEP_PERCENT: f64 = 2.0;

/// How far back an estimate looks: the pace of the last hours, not that of last week.
const LOOK_BACK: i64 = 3 * 3600;

/// What an estimate needs at least: a shorter time or a smaller change is noise, since percentages come
/// rounded.
const MIN_SECONDS: i64 = 10 * 60;
const MIN_PERCENT: f64 = 1.0;

/// How old a sample that was kept may be: no window is longer than a month.
const OLDEST: i64 = 32 * 24 * 3600;

/// Resets that are further apart than this are of different windows.
const SAME_RESET: u64 = 120;

/// Time and remaining percentage, oldest first, of one window since it last started anew.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    samples: VecDeque<(i64, f64)>,
}

/// When a window will be used up if it goes on as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// In seconds since the epoch.
    pub runs_out_at: i64,
    /// Over how many seconds the pace was measured.
    pub over_seconds: i64,
}

impl History {
    /// The history of a window that is read for the first time.
    pub(super) fn new(reading: &Reading) -> Self {
        Self { samples: [(reading.observed.unix, reading.remaining())].into() }
    }

    /// The history that a record holds, as far as it is possible `now`, in seconds since the epoch.
    pub(super) fn of(samples: impl IntoIterator<Item = (i64, f64)>, now: i64) -> Self {
        let times = now.saturating_sub(OLDEST)..=now;
        let is_possible = |(at, remaining): &(i64, f64)| times.contains(at) && remaining.is_finite();
        let mut samples: VecDeque<(i64, f64)> =
            samples.into_iter().filter(is_possible).take(CAPACITY).collect();
        samples.make_contiguous().sort_by_key(|(at, _)| *at);
        Self { samples }
    }

    /// The samples, oldest first.
    pub fn samples(&self) -> impl Iterator<Item = (i64, f64)> {
        self.samples.iter().copied()
    }

    /// Takes a reading that replaces another.
    pub(super) fn note(&mut self, old: &Reading, new: &Reading) {
        let is_another_window = match (old.resets_at, new.resets_at) {
            (Some(old), Some(new)) => old.abs_diff(new) > SAME_RESET,
            _ => false,
        };
        let (at, remaining) = (new.observed.unix, new.remaining());
        let has_last = self.samples.back().copied();
        // More is left than before, or the clock was set back: what was before tells nothing about this.
        if is_another_window || has_last.is_some_and(|last| last.0 > at || last.1 + STEP_PERCENT < remaining)
        {
            self.samples.clear();
        }
        let is_step = |last: &(i64, f64)| {
            at.saturating_sub(last.0) >= STEP_SECONDS || (last.1 - remaining).abs() >= STEP_PERCENT
        };
        if self.samples.back().is_none_or(is_step) {
            if self.samples.len() == CAPACITY {
                self.samples.pop_front();
            }
            self.samples.push_back((at, remaining));
        }
    }

    /// When the window will be used up at the pace of its last hours; none while that is not known.
    #[must_use]
    pub fn estimate(&self) -> Option<Estimate> {
        let last = self.samples.back()?;
        let first = self.samples.iter().find(|(at, _)| last.0.saturating_sub(*at) <= LOOK_BACK)?;
        let (seconds, percent) = (last.0.saturating_sub(first.0), first.1 - last.1);
        if seconds < MIN_SECONDS || percent < MIN_PERCENT {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a few hours in seconds")]
        let left = last.1 / percent * seconds as f64;
        #[expect(clippy::cast_possible_truncation, reason = "at most 100 times a few hours")]
        Some(Estimate { runs_out_at: last.0.saturating_add(left as i64), over_seconds: seconds })
    }
}
