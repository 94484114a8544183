//! The order among profiles that could all serve a fresh request.

use std::cmp::Ordering;

use super::Candidate;
use crate::profile::quota::Band;

/// A candidate's place: by band, then by how busy it is, then by how much it has left. Equal candidates
/// keep their order.
#[must_use]
pub fn rank(candidate: &Candidate) -> impl Ord {
    let remaining = candidate.remaining.unwrap_or_default();
    (Band::of(candidate.remaining), candidate.in_flight, MostFirst(remaining))
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
