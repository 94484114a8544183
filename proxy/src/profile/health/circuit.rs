//! A circuit: open for a while after a refusal, then half open for one probe, closed by a success.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wire::run_event::{CircuitOf, OpenCircuit};

use super::super::Now;

/// How long the circuit is open after a first refusal; it doubles with each further one.
const FIRST: u32 = 15;

/// How often that doubles at most: up to 16 min.
const DOUBLINGS: f64 = 6.0;

/// After how long a refusal counts half.
const HALF_LIFE: Duration = Duration::from_secs(30 * 60);

/// How long a probe has until the next one may begin. Most end before that, with a success or a refusal;
/// this is for those of which nobody hears again.
const PROBE: i64 = 60;

/// Whether a probe that has time until then may still be under way. One with more time than any has was begun
/// by a clock that was set back since.
#[must_use]
pub fn is_trying(until: i64, now: i64) -> bool {
    (1..=PROBE).contains(&until.saturating_sub(now))
}

/// The refusals of an account for one kind of call.
#[derive(Debug, Clone, Default)]
pub struct Circuit {
    /// How many refusals there were, old ones counted less; as of the last one.
    refusals: f64,
    last: Option<Now>,
    until: i64,
    /// Which request tries, and until when it has time.
    probing: Option<(u64, i64)>,
    /// When the last refusal came that a success showed to be past, unless there was one since.
    closed: Option<i64>,
}

/// A circuit as it is kept over a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it is for.
    pub of: CircuitOf,
    /// How many refusals there were when the last one came, old ones counted less.
    pub refusals: f64,
    /// When the last one came, in seconds since the epoch.
    pub since: i64,
    /// Until when it is open.
    pub until: i64,
}

impl Circuit {
    /// Takes a refusal. Says until when nothing passes, in seconds since the epoch.
    pub fn refuse(&mut self, now: Now) -> i64 {
        self.refusals = self.refusals_at(now.instant) + 1.0;
        let doublings = (self.refusals - 1.0).clamp(0.0, DOUBLINGS);
        let open = (f64::from(FIRST) * doublings.exp2()).round();
        // At most 16 min.
        self.until = now.unix.saturating_add(open as i64);
        self.last = Some(now);
        (self.probing, self.closed) = (None, None);
        self.until
    }

    /// Takes the success of a request that began at `started`: refusals before that are past. Says whether
    /// there were any.
    pub fn serve(&mut self, started: Instant) -> bool {
        let past = self.last.filter(|last| last.instant <= started);
        if let Some(last) = past {
            *self = Self::closed_at(last.unix);
        }
        past.is_some()
    }

    /// A circuit that a success has closed, whose last refusal came at this time.
    pub(super) fn closed_at(unix: i64) -> Self {
        Self { closed: Some(unix), ..Self::default() }
    }

    /// When the last refusal came that a success showed to be past, unless there was one since.
    pub(super) fn closed(&self) -> Option<i64> {
        self.closed
    }

    /// Whether a request, by its number, may try now, while the circuit is half open; that is noted.
    pub fn probe(&mut self, request: u64, now: Now) -> bool {
        // Before the last refusal only a clock that was set back can be.
        let is_open = self.last.is_some_and(|last| last.unix <= now.unix) && now.unix < self.until;
        let may = !is_open && !self.probing.is_some_and(|(_, until)| is_trying(until, now.unix));
        if may {
            self.probing = Some((request, now.unix.saturating_add(PROBE)));
        }
        may
    }

    /// The probe of this request, if it is one, ended and said nothing about the account.
    pub fn release(&mut self, request: u64) {
        self.probing = self.probing.filter(|(by, _)| *by != request);
    }

    /// Whether there is nothing against the account.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.last.is_none()
    }

    /// What selection may know of it, unless it is closed.
    #[must_use]
    pub fn standing(&self, of: CircuitOf) -> Option<OpenCircuit> {
        let since = self.last?.unix;
        // By then less than half a refusal is left of them.
        let half_lives = (self.refusals * 2.0).log2().max(0.0);
        let forgotten_at = since.saturating_add((half_lives * HALF_LIFE.as_secs_f64()) as i64);
        let (until, probing_until) = (self.until, self.probing.map(|(_, until)| until));
        Some(OpenCircuit { of, since, until, forgotten_at: forgotten_at.max(until), probing_until })
    }

    /// What is kept of it over a restart.
    #[must_use]
    pub fn to_record(&self, of: CircuitOf) -> Option<Record> {
        Some(Record { of, refusals: self.refusals, since: self.last?.unix, until: self.until })
    }

    /// A circuit as it was kept. What a record says of the future is not believed.
    #[must_use]
    pub fn from_record(record: &Record, now: Now) -> Self {
        let age = u64::try_from(now.unix.saturating_sub(record.since)).unwrap_or_default();
        let instant = now.instant.checked_sub(Duration::from_secs(age)).unwrap_or(now.instant);
        let longest = record.since.saturating_add((f64::from(FIRST) * DOUBLINGS.exp2()) as i64);
        if record.since > now.unix || !record.refusals.is_finite() {
            return Self::default();
        }
        Self {
            refusals: record.refusals.max(0.0),
            last: Some(Now { instant, unix: record.since }),
            until: record.until.min(longest),
            ..Self::default()
        }
    }

    fn refusals_at(&self, now: Instant) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let age = now.saturating_duration_since(last.instant);
        self.refusals * (-age.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(now: Now, seconds: u64) -> Now {
        Now { instant: now.instant + Duration::from_secs(seconds), unix: now.unix + seconds as i64 }
    }

    fn now() -> Now {
        Now { instant: Instant::now(), unix: 1000 }
    }

    #[test]
    fn refusals_in_a_row_open_it_for_longer() {
        let (mut circuit, now) = (Circuit::default(), now());
        let open: Vec<i64> = (0..9).map(|_| circuit.refuse(now) - now.unix).collect();
        assert_eq!(open, [15, 30, 60, 120, 240, 480, 960, 960, 960]);
    }

    #[test]
    fn an_old_refusal_counts_less() {
        let (mut circuit, now) = (Circuit::default(), now());
        circuit.refuse(now);
        circuit.refuse(now);
        let later = after(now, 2 * HALF_LIFE.as_secs());
        assert_eq!(circuit.refuse(later) - later.unix, 21, "two have become half of one");
        let standing = circuit.standing(CircuitOf::Compact).unwrap();
        assert_eq!(standing.forgotten_at - later.unix, 2852, "when less than half of one is left");
    }

    #[test]
    fn only_a_success_that_began_later_closes_it() {
        let (mut circuit, now) = (Circuit::default(), now());
        assert!(!circuit.serve(now.instant), "it was closed");
        circuit.refuse(after(now, 1));
        assert!(!circuit.serve(now.instant) && !circuit.is_closed());
        assert!(circuit.serve(after(now, 2).instant) && circuit.is_closed());
    }

    #[test]
    fn one_probe_at_a_time() {
        let (mut circuit, now) = (Circuit::default(), now());
        circuit.refuse(now);
        assert!(!circuit.probe(1, after(now, 14)), "it is open");
        let half_open = after(now, 15);
        assert!(circuit.probe(1, half_open));
        circuit.release(2);
        assert!(!circuit.probe(2, half_open), "one is trying");
        circuit.release(1);
        assert!(circuit.probe(2, half_open));
        assert!(circuit.probe(3, after(half_open, 60)), "nobody heard of it again");
        circuit.refuse(after(now, 80));
        assert!(!circuit.probe(4, after(now, 80 + 28)), "the refusal of a probe opens it for longer");
        let set_back = Now { unix: now.unix - 5000, ..now };
        assert!(circuit.probe(5, set_back), "a clock that was set back does not keep it open");
        assert!(!circuit.probe(6, set_back), "one is trying");
        let again = Now { unix: set_back.unix - 5000, ..now };
        assert!(circuit.probe(6, again), "nor does a probe of before it");
    }

    #[test]
    fn it_survives_a_restart_and_distrusts_the_future() {
        let (mut circuit, now) = (Circuit::default(), now());
        circuit.refuse(now);
        circuit.refuse(now);
        let record = circuit.to_record(CircuitOf::Credentials).unwrap();
        let mut restarted = Circuit::from_record(&record, after(now, 10));
        assert_eq!(restarted.standing(CircuitOf::Credentials), circuit.standing(CircuitOf::Credentials));
        assert!(restarted.serve(after(now, 11).instant));
        let future = Record { since: 2000, ..record.clone() };
        assert!(Circuit::from_record(&future, now).is_closed());
        let far = Record { until: i64::MAX, ..record };
        assert_eq!(Circuit::from_record(&far, now).standing(CircuitOf::Compact).unwrap().until, 1960);
        let odd = Record { of: CircuitOf::Compact, refusals: f64::MAX, since: i64::MIN, until: i64::MIN };
        for now in [now, Now { unix: i64::MAX, ..now }] {
            for (since, refusals) in
                [(i64::MIN, 1.0), (i64::MIN, f64::MAX), (now.unix, f64::MAX), (now.unix, -1.0)]
            {
                let mut circuit = Circuit::from_record(&Record { since, refusals, ..odd.clone() }, now);
                let standing = circuit.standing(CircuitOf::Compact).unwrap();
                assert!(standing.forgotten_at >= standing.since, "{standing:?}");
                circuit.probe(1, now);
                circuit.refuse(now);
            }
        }
    }
}
