//! What is known of an account's health apart from its quota: its credentials, its own refusals.
//!
//! Only what the account itself refused counts. That an upstream cannot be reached, or has no capacity, is
//! not the account's fault: `attempt::breaker` knows about that, for all who use the upstream.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wire::run_event::{CircuitOf, Standing};

use super::Now;

mod circuit;

pub use circuit::{Circuit, Record as CircuitRecord, is_trying};

/// How often the disk is looked at for a new login of a profile that is left out.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long ago an account may have served a call to be known to serve such calls.
const SERVES: Duration = Duration::from_secs(10 * 60);

/// All circuits of an account, in the order in which they are kept.
const CIRCUITS: [CircuitOf; 5] = [
    CircuitOf::Credentials,
    CircuitOf::Responses,
    CircuitOf::Compact,
    CircuitOf::Websocket,
    CircuitOf::Standard,
];

/// The health of one account.
#[derive(Debug, Default, Clone)]
pub struct Health {
    parked: Option<String>,
    /// When the disk was last looked at for a new login.
    looked: Cell<Option<Instant>>,
    circuits: [Circuit; CIRCUITS.len()],
    /// When calls of each kind were last served.
    served: [Option<Instant>; CIRCUITS.len()],
}

/// What is kept of an account's health over a restart. That it is parked is not: its file is looked at anew.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// The circuits that are not closed.
    pub circuits: Vec<CircuitRecord>,
    /// Those that a success has closed, so that another process does not bring their refusals back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<Closed>,
}

/// A circuit that a success has closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// What it is for.
    pub of: CircuitOf,
    /// When the last refusal came that the success showed to be past, in seconds since the epoch.
    pub at: i64,
}

impl Record {
    /// What two processes know of an account's health: of each circuit what the newer one says, and of
    /// equals that it is closed.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut merged = Self::default();
        for of in CIRCUITS {
            let open = self.circuits.iter().chain(&other.circuits).filter(|circuit| circuit.of == of);
            let open = open.max_by_key(|circuit| (circuit.since, circuit.until));
            let closed = self.closed.iter().chain(&other.closed).filter(|closed| closed.of == of);
            match (open, closed.max_by_key(|closed| closed.at)) {
                (Some(open), closed) if closed.is_none_or(|closed| closed.at < open.since) => {
                    merged.circuits.push(open.clone());
                }
                (_, closed) => merged.closed.extend(closed),
            }
        }
        merged
    }
}

impl Health {
    /// Leaves the account out until its credentials change: they are not good and cannot be renewed.
    pub fn park(&mut self, reason: String) {
        self.parked = Some(reason);
        self.looked.set(None);
    }

    /// Says of an account that is left out already why that is so now.
    pub fn stay_parked(&mut self, reason: String) {
        self.parked = Some(reason);
    }

    /// Takes new credentials: what was wrong with the old ones is past.
    pub fn unpark(&mut self) {
        self.parked = None;
    }

    /// Whether it is time to look on the disk whether there is a new login; notes that it is done,
    /// which is no news about the account.
    pub fn may_look(&self, now: Instant) -> bool {
        let may = self.parked.is_some()
            && self.looked.get().is_none_or(|looked| now.duration_since(looked) >= LOOK_AGAIN);
        if may {
            self.looked.set(Some(now));
        }
        may
    }

    /// Why the account is left out until its credentials change.
    #[must_use]
    pub fn parked(&self) -> Option<&str> {
        self.parked.as_deref()
    }

    /// Takes a refusal that is the account's own and says nothing about when it ends. Says until when the
    /// account is left out for such calls, in seconds since the epoch: for 15 s, doubling with each refusal
    /// in a row up to 16 min; one of half an hour ago counts half.
    pub fn refuse(&mut self, of: CircuitOf, now: Now) -> i64 {
        self.circuits[index(of)].refuse(now)
    }

    /// Takes the success of a call that began at `started`: refusals of such calls before that are past, and
    /// so are those of the credentials. Says which circuits that closed.
    pub fn serve(&mut self, of: CircuitOf, started: Instant) -> impl Iterator<Item = CircuitOf> + use<> {
        self.served[index(of)] = Some(started);
        let closed =
            [CircuitOf::Credentials, of].map(|of| self.circuits[index(of)].serve(started).then_some(of));
        closed.into_iter().flatten()
    }

    /// Whether a request, by its number, may try an account that is left out for such calls no longer, but has
    /// not served one yet. One at a time may; it ends with a refusal, a success or [`Health::release`].
    pub fn probe(&mut self, of: CircuitOf, request: u64, now: Now) -> bool {
        for of in [CircuitOf::Credentials, of] {
            let circuit = &mut self.circuits[index(of)];
            if !circuit.is_closed() && !circuit.probe(request, now) {
                self.release(request);
                return false;
            }
        }
        true
    }

    /// The probe of this request, if it is one, ended and said nothing about the account.
    pub fn release(&mut self, request: u64) {
        self.circuits.iter_mut().for_each(|circuit| circuit.release(request));
    }

    /// Other calls than these that the account has served lately.
    #[must_use]
    pub fn serves_other(&self, than: CircuitOf, now: Instant) -> Option<CircuitOf> {
        let is_recent = |served: &Option<Instant>| {
            served.is_some_and(|served| now.saturating_duration_since(served) < SERVES)
        };
        let others = CIRCUITS.into_iter().zip(&self.served).filter(|(of, _)| *of != than);
        others.filter(|(_, served)| is_recent(served)).map(|(of, _)| of).next()
    }

    /// Says what selection may know of it.
    pub fn describe(&self, standing: &mut Standing) {
        standing.is_parked = self.parked.is_some();
        standing.circuits.clear();
        let all = CIRCUITS.into_iter().zip(&self.circuits);
        standing.circuits.extend(all.filter_map(|(of, circuit)| circuit.standing(of)));
    }

    /// What is kept of it over a restart.
    #[must_use]
    pub fn to_record(&self) -> Record {
        let all = || CIRCUITS.into_iter().zip(&self.circuits);
        Record {
            circuits: all().filter_map(|(of, circuit)| circuit.to_record(of)).collect(),
            closed: all().filter_map(|(of, circuit)| Some(Closed { of, at: circuit.closed()? })).collect(),
        }
    }

    /// The health of an account as it was kept.
    #[must_use]
    pub fn from_record(record: &Record, now: Now) -> Self {
        let mut health = Self::default();
        health.recall(record, now);
        health
    }

    /// This with what the record of another process adds to it; none if that is nothing. Circuits of which it
    /// knows nothing newer stay as they are, with who tries them.
    #[must_use]
    pub fn learnt(&self, theirs: &Record, now: Now) -> Option<Self> {
        let ours = self.to_record();
        let merged = ours.merge(theirs);
        if merged == ours {
            return None;
        }
        let of = |record: &Record, of| {
            let open = record.circuits.iter().find(|circuit| circuit.of == of).cloned();
            (open, record.closed.iter().find(|closed| closed.of == of).copied())
        };
        let mut learnt = self.clone();
        for circuit in CIRCUITS.into_iter().filter(|circuit| of(&merged, *circuit) != of(&ours, *circuit)) {
            learnt.circuits[index(circuit)] = match of(&merged, circuit) {
                (Some(open), _) => Circuit::from_record(&open, now),
                (None, Some(closed)) if closed.at <= now.unix => Circuit::closed_at(closed.at),
                (None, _) => Circuit::default(),
            };
        }
        Some(learnt)
    }

    /// Takes the circuits as they were kept. Why the account is left out until its credentials change stays.
    pub fn recall(&mut self, record: &Record, now: Now) {
        self.circuits = Default::default();
        for closed in record.closed.iter().filter(|closed| closed.at <= now.unix) {
            self.circuits[index(closed.of)] = Circuit::closed_at(closed.at);
        }
        for kept in &record.circuits {
            self.circuits[index(kept.of)] = Circuit::from_record(kept, now);
        }
    }
}

/// A circuit's place among all.
fn index(of: CircuitOf) -> usize {
    match of {
        CircuitOf::Credentials => 0,
        CircuitOf::Responses => 1,
        CircuitOf::Compact => 2,
        CircuitOf::Websocket => 3,
        CircuitOf::Standard => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        Now { instant: Instant::now(), unix: 1000 }
    }

    #[test]
    fn each_circuit_has_its_own_place() {
        assert_eq!(CIRCUITS.map(index), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_refused_route_says_nothing_of_another() {
        let (mut health, now) = (Health::default(), now());
        assert_eq!(health.refuse(CircuitOf::Compact, now), 1015);
        let mut standing = Standing::new("x".into());
        health.describe(&mut standing);
        assert_eq!(
            standing.circuits.iter().map(|circuit| circuit.of).collect::<Vec<_>>(),
            [CircuitOf::Compact]
        );
        assert!(health.probe(CircuitOf::Responses, 1, now), "nothing is against these");
        assert_eq!(health.serve(CircuitOf::Responses, now.instant).count(), 0);
        assert_eq!(health.serves_other(CircuitOf::Compact, now.instant), Some(CircuitOf::Responses));
        assert_eq!(health.serves_other(CircuitOf::Responses, now.instant), None);
        assert_eq!(health.serve(CircuitOf::Compact, now.instant).collect::<Vec<_>>(), [CircuitOf::Compact]);
    }

    #[test]
    fn one_probe_for_credentials_and_route_together() {
        let (mut health, now) = (Health::default(), now());
        health.refuse(CircuitOf::Compact, now);
        health.refuse(CircuitOf::Credentials, now);
        health.refuse(CircuitOf::Credentials, now);
        let later = Now { unix: now.unix + 20, ..now };
        assert!(!health.probe(CircuitOf::Compact, 1, later), "the credentials are left out for longer");
        let later = Now { unix: now.unix + 30, ..now };
        assert!(health.probe(CircuitOf::Compact, 2, later), "what was not begun is not in the way");
        assert!(!health.probe(CircuitOf::Responses, 3, later), "one tries the credentials");
        health.release(2);
        assert!(health.probe(CircuitOf::Responses, 3, later));
    }

    #[test]
    fn it_is_kept_over_a_restart() {
        let (mut health, now) = (Health::default(), now());
        health.refuse(CircuitOf::Websocket, now);
        let text = serde_json::to_string(&health.to_record()).unwrap();
        let kept = Health::from_record(&serde_json::from_str(&text).unwrap(), now);
        assert_eq!(kept.to_record(), health.to_record());
    }
}
