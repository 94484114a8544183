//! The order among profiles that could all serve a fresh request.

use std::cmp::Ordering;

use wire::run_event::CircuitOf;

use super::{Candidate, State};

/// How much of its tightest window an account has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Band {
    /// More than 15 %.
    Ready,
    /// Nothing is known.
    Unknown,
    /// At most 15 %.
    Thin,
    /// At most 5 %.
    Critical,
    /// Nothing.
    Exhausted,
}

impl Band {
    /// Whether so little is left that a fresh request is better sent to another.
    #[must_use]
    pub fn is_below_floor(self) -> bool {
        matches!(self, Self::Critical | Self::Exhausted)
    }

    /// The band's name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unknown => "unknown",
            Self::Thin => "thin",
            Self::Critical => "critical",
            Self::Exhausted => "exhausted",
        }
    }
}

/// The band of a remaining percentage.
#[must_use]
pub fn band(remaining: Option<f64>) -> Band {
    match remaining {
        None => Band::Unknown,
        Some(remaining) if remaining <= 0.0 => Band::Exhausted,
        Some(remaining) if remaining <= 5.0 => Band::Critical,
        Some(remaining) if remaining <= 15.0 => Band::Thin,
        Some(_) => Band::Ready,
    }
}

/// A candidate's place for calls of a kind, the best first: whether it can be reached, has proved itself
/// since it last refused, is above the floor and not busy; then by band, by what its person prefers, by how
/// busy it is, and by how much it has left. Equal candidates keep their order.
#[must_use]
pub fn rank(candidate: &Candidate<'_>, of: CircuitOf) -> impl Ord + use<> {
    let (remaining, is_half_open) = (candidate.remaining(), candidate.state(of) == State::HalfOpen);
    let band = band(remaining);
    (
        (candidate.is_unreachable, is_half_open, band.is_below_floor(), candidate.is_busy()),
        (band, !candidate.standing.is_preferred, candidate.in_flight),
        MostFirst(remaining.unwrap_or_default()),
    )
}

/// Larger numbers come first.
#[derive(Debug, Clone, Copy)]
struct MostFirst(f64);

impl Ord for MostFirst {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.total_cmp(&self.0)
    }
}

impl PartialOrd for MostFirst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for MostFirst {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for MostFirst {}
