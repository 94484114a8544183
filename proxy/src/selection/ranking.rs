//! The order among profiles that could all serve a fresh request.

use super::{Candidate, State};
use crate::profile::quota::Band;

/// A candidate's place, the lower the better: whether it has room, can be reached, has proved itself since it
/// last refused, is above the floor and not busy; then by band, by what its person prefers, by how busy it is,
/// and by how much it has left. Equal candidates keep their order. `state` is its state for calls of the kind.
#[must_use]
pub fn rank(candidate: &Candidate<'_>, state: State) -> Rank {
    let remaining = candidate.remaining();
    let band = Band::of(remaining);
    let is_half_open = state == State::HalfOpen;
    let (is_full, is_busy) = (candidate.is_full(), candidate.is_busy());
    let flags = [is_full, candidate.is_unreachable, is_half_open, band.is_below_floor(), is_busy];
    let flags = flags.into_iter().fold(0, |flags, flag| flags << 1 | u64::from(flag));
    let in_flight = u64::try_from(candidate.in_flight).unwrap_or(u64::MAX).min(MOST_IN_FLIGHT);
    // Percentages are not negative, and the bits of such numbers are in the order of the numbers.
    let left = (remaining.unwrap_or_default().clamp(0.0, 100.0) as f32).to_bits();
    let preference = u64::from(!candidate.standing.is_preferred);
    Rank((((flags << 3 | band as u64) << 1 | preference) << 23 | in_flight) << 32 | u64::from(!left))
}

/// More requests in flight on one profile make no difference.
const MOST_IN_FLIGHT: u64 = (1 << 23) - 1;

/// A place among candidates, in one number: ranks are compared for every profile and request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::{Limits, Snapshot};
    use wire::run_event::{CircuitOf, QuotaWindow, Source, Standing};

    /// The rank of a profile with so much left and so many requests in flight.
    fn of(
        remaining: Option<f64>,
        in_flight: usize,
        change: impl FnOnce(&mut Standing, &mut Snapshot),
    ) -> Rank {
        let window = |remaining| QuotaWindow {
            seconds: None,
            remaining,
            resets_at: None,
            source: Source::Usage,
            observed_at: 0,
        };
        let mut standing = Standing::new("a".into());
        standing.windows.extend(remaining.map(window));
        let mut snapshot = Snapshot::new(0, Vec::new(), None);
        change(&mut standing, &mut snapshot);
        let unreachable = snapshot.unreachable;
        let limits = snapshot.limits;
        snapshot = Snapshot {
            in_flight: vec![in_flight],
            unreachable,
            limits,
            ..Snapshot::new(0, vec![standing], None)
        };
        let candidate = snapshot.get("a").expect("it is there");
        rank(&candidate, candidate.state(CircuitOf::Responses))
    }

    #[test]
    fn each_thing_outweighs_all_behind_it() {
        let as_it_is = |_: &mut Standing, _: &mut Snapshot| {};
        let prefer = |standing: &mut Standing, _: &mut Snapshot| standing.is_preferred = true;
        let in_order = [
            of(Some(20.0), 9, prefer),
            of(Some(90.5), 0, as_it_is),
            of(Some(90.0), 0, as_it_is),
            of(Some(100.0), 1, as_it_is),
            of(Some(100.0), usize::MAX - 1, as_it_is),
            of(None, 0, as_it_is),
            of(Some(15.0), 0, prefer),
            of(Some(100.0), 2, |_, snapshot| snapshot.limits = Limits { soft: 2, hard: 3 }),
            of(Some(5.0), 0, prefer),
            of(Some(0.0), 0, prefer),
            of(Some(100.0), 0, |_, snapshot| snapshot.unreachable = vec!["a".into()]),
            of(Some(100.0), 3, |_, snapshot| snapshot.limits = Limits { soft: 2, hard: 3 }),
        ];
        assert!(in_order.is_sorted(), "{in_order:?}");
        assert!(in_order.windows(2).all(|pair| pair[0] != pair[1]), "{in_order:?}");
    }
}
