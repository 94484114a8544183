//! When the pieces of a reply are sent: delays, jitter from a seed, and the size of the writes.
//!
//! A reply is a list of pieces; a schedule turns it into writes with the pause before each. The same seed
//! and the same number of the exchange give the same schedule. Nothing waits here.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// How a reply is paced. All durations are milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pacing {
    /// Before the head.
    pub head_ms: u64,
    /// Between the head and the first event. Without it the head goes out with the first event.
    pub first_event_ms: u64,
    /// Between two writes.
    pub gap_ms: u64,
    /// How much each of the pauses may be longer, at most.
    pub jitter_ms: u64,
    /// What goes into one write.
    pub write: WriteSize,
}

impl Pacing {
    /// Pauses of this length between the events.
    #[must_use]
    pub fn gap(gap: Duration) -> Self {
        Self { gap_ms: u64::try_from(gap.as_millis()).unwrap_or(u64::MAX), ..Self::default() }
    }

    /// The body in writes of `size` bytes.
    #[must_use]
    pub fn bytes(size: usize) -> Self {
        Self { write: WriteSize::Bytes(size), ..Self::default() }
    }

    /// Everything in one write.
    #[must_use]
    pub fn one_write() -> Self {
        Self { write: WriteSize::All, ..Self::default() }
    }
}

/// What goes into one write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteSize {
    /// One event, or one scripted piece.
    #[default]
    Event,
    /// All of the reply, head and end included.
    All,
    /// So many bytes of the body, whatever they belong to.
    Bytes(usize),
}

/// A part of a reply's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes that belong together: an event, a message, a scripted write.
    Data(Bytes),
    /// Nothing for a while.
    Pause(Duration),
}

/// A write and the pause before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) pause: Duration,
    pub(crate) data: Bytes,
}

/// Makes the writes of a reply.
#[derive(Debug)]
pub(crate) struct Schedule {
    pacing: Pacing,
    random: Option<ChaCha8Rng>,
}

impl Schedule {
    /// The schedule of one exchange.
    pub(crate) fn new(pacing: Pacing, seed: u64, exchange: u64) -> Self {
        let random = (pacing.jitter_ms > 0).then(|| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(exchange);
            random
        });
        Self { pacing, random }
    }

    /// The pause before the head.
    pub(crate) fn head(&mut self) -> Duration {
        if self.pacing.head_ms == 0 { Duration::ZERO } else { self.pause(self.pacing.head_ms) }
    }

    /// Whether the head is written together with what follows it.
    pub(crate) fn joins_head(&self) -> bool {
        self.pacing.first_event_ms == 0
    }

    /// Whether the end of the body is written together with what precedes it.
    pub(crate) fn joins_end(&self) -> bool {
        self.pacing.write == WriteSize::All
    }

    /// The writes for a body of these pieces.
    pub(crate) fn steps(&mut self, pieces: &[Piece]) -> Vec<Step> {
        let mut steps = Vec::with_capacity(pieces.len());
        for (data, pause) in self.units(pieces) {
            let paced = match (steps.is_empty(), self.pacing.first_event_ms, self.pacing.gap_ms) {
                (true, 0, _) | (false, _, 0) => self.jitter(),
                (true, first, _) => self.pause(first),
                (false, _, gap) => self.pause(gap),
            };
            steps.push(Step { pause: pause + paced, data });
        }
        steps
    }

    /// The data of each write and the scripted pause before it.
    fn units(&self, pieces: &[Piece]) -> Vec<(Bytes, Duration)> {
        let mut units = Vec::with_capacity(pieces.len());
        let mut pause = Duration::ZERO;
        let mut joined = BytesMut::new();
        for piece in pieces {
            match (piece, self.pacing.write) {
                (Piece::Pause(length), _) => pause += *length,
                (Piece::Data(data), WriteSize::Event) => {
                    units.push((data.clone(), std::mem::take(&mut pause)));
                }
                (Piece::Data(data), WriteSize::All | WriteSize::Bytes(_)) => joined.extend_from_slice(data),
            }
        }
        let joined = joined.freeze();
        match self.pacing.write {
            WriteSize::Event => {}
            WriteSize::All if joined.is_empty() => {}
            WriteSize::All => units.push((joined, pause)),
            WriteSize::Bytes(size) => {
                for start in (0..joined.len()).step_by(size.max(1)) {
                    let end = joined.len().min(start + size.max(1));
                    units.push((joined.slice(start..end), std::mem::take(&mut pause)));
                }
            }
        }
        units
    }

    fn pause(&mut self, milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds) + self.jitter()
    }

    fn jitter(&mut self) -> Duration {
        let Some(random) = &mut self.random else { return Duration::ZERO };
        let microseconds = self.pacing.jitter_ms.saturating_mul(1000).saturating_add(1);
        Duration::from_micros(random.next_u64() % microseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(texts: &[&'static str]) -> Vec<Piece> {
        texts.iter().map(|text| Piece::Data(Bytes::from_static(text.as_bytes()))).collect()
    }

    #[test]
    fn events_are_written_one_by_one_with_the_gap_between() {
        let pacing = Pacing { first_event_ms: 7, gap_ms: 3, ..Pacing::default() };
        let mut all = pieces(&["a", "b"]);
        all.push(Piece::Pause(Duration::from_millis(10)));
        all.extend(pieces(&["c"]));
        let steps = Schedule::new(pacing, 0, 0).steps(&all);
        let expected = [(7, "a"), (3, "b"), (13, "c")];
        let actual: Vec<_> = steps.iter().map(|step| (step.pause.as_millis(), &*step.data)).collect();
        assert_eq!(actual, expected.map(|(ms, data)| (ms, data.as_bytes())));
    }

    #[test]
    fn the_seed_and_the_exchange_make_the_jitter() {
        let pacing = Pacing { jitter_ms: 50, gap_ms: 1, ..Pacing::default() };
        let run = |seed, exchange| Schedule::new(pacing, seed, exchange).steps(&pieces(&["a", "b", "c"]));
        assert_eq!(run(1, 1), run(1, 1));
        assert_ne!(run(1, 1), run(2, 1));
        assert_ne!(run(1, 1), run(1, 2));
        assert!(run(1, 1).iter().all(|step| step.pause <= Duration::from_millis(51)));
    }

    proptest! {
        #[test]
        fn no_write_size_changes_the_bytes(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8),
            size in 0_usize..30,
        ) {
            let pieces: Vec<_> = parts.iter().map(|part| Piece::Data(Bytes::from(part.clone()))).collect();
            for write in [WriteSize::Event, WriteSize::All, WriteSize::Bytes(size)] {
                let steps = Schedule::new(Pacing { write, ..Pacing::default() }, 0, 0).steps(&pieces);
                let data: Vec<u8> = steps.iter().flat_map(|step| step.data.to_vec()).collect();
                prop_assert_eq!(&data, &parts.concat());
                prop_assert!(steps.iter().all(|step| !step.data.is_empty()));
                if let WriteSize::Bytes(size) = write {
                    prop_assert!(steps.iter().all(|step| step.data.len() <= size.max(1)));
                }
            }
        }
    }
}
