//! The order among profiles that could all serve a fresh request.

use std::cmp::Ordering;

use super::Candidate;
use crate::admission::Saturation;

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
    /// Whether what is left is better kept for conversations that have begun.
    #[must_use]
    pub fn is_low(self) -> bool {
        matches!(self, Self::Critical | Self::Exhausted)
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

/// A candidate's place. One without room is last, then come those with little left and those that are busy;
/// among equals it is by band, by the requests in flight, and by how much is left. Equal candidates keep
/// their order.
#[must_use]
pub fn rank(candidate: &Candidate) -> impl Ord {
    let remaining = candidate.remaining.unwrap_or_default();
    let (band, saturation) = (band(candidate.remaining), candidate.saturation);
    let is_full = saturation == Saturation::Full;
    (is_full, band.is_low(), saturation, band, candidate.in_flight, MostFirst(remaining))
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
