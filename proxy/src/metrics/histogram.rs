//! How long things take: counts of durations up to each of a few bounds, and their sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The bounds, in milliseconds: from what the proxy itself adds up to the longest thinking of a model.
pub const BOUNDS: [u64; 16] =
    [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 900_000];

/// Counts of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many are at most as long as each bound and longer than the one before; behind them the longer ones.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// In microseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts a duration.
    pub fn observe(&self, took: Duration) {
        let bucket = BOUNDS.iter().position(|bound| took <= Duration::from_millis(*bound));
        self.buckets[bucket.unwrap_or(BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// How many are at most as long as each bound; at the end, all.
    #[must_use]
    pub fn cumulative(&self) -> [u64; BOUNDS.len() + 1] {
        let mut total = 0;
        self.buckets.each_ref().map(|bucket| {
            total += bucket.load(Ordering::Relaxed);
            total
        })
    }

    /// All of them together, in seconds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_up_to_its_bound() {
        let histogram = Histogram::default();
        for milliseconds in [0, 5, 6, 900_000, 900_001] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let counts = histogram.cumulative();
        assert_eq!((counts[0], counts[1], counts[14], counts[15], counts[16]), (2, 3, 3, 4, 5));
        assert!((histogram.sum() - 1800.012).abs() < 1e-6);
    }
}
