//! Recorded pauses, scaled and cut.

use std::time::Duration;

/// How recorded pauses are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// How many times as fast as recorded.
    pub speed: f64,
    /// Longest pause, whatever was recorded.
    pub max_gap: Duration,
}

impl Pace {
    /// The pause between two recorded times, both in milliseconds.
    #[must_use]
    pub fn gap(&self, from: f64, to: f64) -> Duration {
        let millis = ((to - from) / self.speed).max(0.0);
        // An infinite or undefined pause is cut like any long one.
        Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(self.max_gap).min(self.max_gap)
    }

    /// Waits as long as between two recorded times.
    pub async fn pause(&self, from: f64, to: f64) {
        let gap = self.gap(from, to);
        if !gap.is_zero() {
            tokio::time::sleep(gap).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_scaled_and_then_cut() {
        let pace = Pace { speed: 2.0, max_gap: Duration::from_millis(40) };
        let gaps = [(0.0, 10.0), (0.0, 1000.0), (10.0, 0.0), (0.0, f64::INFINITY)];
        let millis = gaps.map(|(from, to)| pace.gap(from, to).as_millis());
        assert_eq!(millis, [5, 40, 0, 40]);
    }
}
