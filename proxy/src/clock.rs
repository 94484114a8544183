//! The two clocks, read together: durations are measured with one, resets and expiries are given in the other.
//!
//! They disagree. The monotonic clock stands still while the machine sleeps; the wall clock is set, forward and
//! back, by hours when somebody carries a laptop with a flat battery. So what a time is compared with says which
//! of the two is meant, and "long ago" is what either of them says.

use std::time::{Duration, Instant};

/// By how much the clocks may differ over a while without the machine having slept: one of them counts whole
/// seconds, and is adjusted a little all the time.
const DRIFT: Duration = Duration::from_secs(3);

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The monotonic clock.
    pub instant: Instant,
    /// Seconds since the epoch.
    pub unix: i64,
}

impl Now {
    /// The time.
    #[must_use]
    pub fn read() -> Self {
        Self { instant: Instant::now(), unix: Self::unix() }
    }

    /// Seconds since the epoch alone.
    #[must_use]
    pub fn unix() -> i64 {
        jiff::Timestamp::now().as_second().saturating_add(seam::offset())
    }

    /// How long ago another moment was, by the clock that says longer.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.instant.saturating_duration_since(earlier.instant).max(self.wall_since(earlier))
    }

    /// Whether the machine has slept since, or its clock was set forward, which looks the same from here.
    #[must_use]
    pub fn has_slept_since(self, earlier: Self) -> bool {
        let awake = self.instant.saturating_duration_since(earlier.instant);
        self.wall_since(earlier).saturating_sub(awake) > DRIFT
    }

    fn wall_since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.unix.saturating_sub(earlier.unix).try_into().unwrap_or_default())
    }
}

/// Where a test sets the wall clock of a running program. In debug builds only, as [`crate::state::crash`].
#[cfg(debug_assertions)]
mod seam {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    /// What the file that `PRODEX_TEST_CLOCK` names says: by how many seconds the wall clock is off.
    #[expect(clippy::disallowed_methods, reason = "a test sets the clock; a release build has none of this")]
    pub(super) fn offset() -> i64 {
        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let file =
            FILE.get_or_init(|| crate::config::process_environment("PRODEX_TEST_CLOCK").map(Into::into));
        let Some(file) = file else { return 0 };
        std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
    }
}

#[cfg(not(debug_assertions))]
mod seam {
    pub(super) fn offset() -> i64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_clock_may_stand_still_or_be_set() {
        const HOURS: u64 = 5 * 3600;
        let then = Now::read();
        let awake = |seconds: u64| then.instant + Duration::from_secs(seconds);
        let wall = |seconds: i64| then.unix + seconds;
        // The seconds since by each clock, how long ago that was, and whether the machine slept.
        let cases = [
            (0, 0, 0, false),
            (60, 60, 60, false),
            (60, 62, 62, false),
            (60, 60 + 5 * 3600, 60 + HOURS, true),
            (60, 60 - 5 * 3600, 60, false),
            (HOURS, 0, HOURS, false),
            (0, i64::MAX - then.unix, (i64::MAX - then.unix).unsigned_abs(), true),
        ];
        for (monotonic, unix, ago, has_slept) in cases {
            let now = Now { instant: awake(monotonic), unix: wall(unix) };
            assert_eq!(now.since(then), Duration::from_secs(ago), "{monotonic} {unix}");
            assert_eq!(now.has_slept_since(then), has_slept, "{monotonic} {unix}");
        }
        let before = Now { unix: i64::MIN, ..then };
        assert_eq!((before.since(then), before.has_slept_since(then)), (Duration::ZERO, false));
    }
}
