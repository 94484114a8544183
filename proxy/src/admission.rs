//! How many requests may be in flight: a permit for each, held to its last byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Error;

/// The limit and those inside it.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    active: Arc<AtomicUsize>,
}

/// The right to be in flight.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Admission {
    /// An admission of at most `limit` requests at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, active: Arc::default() }
    }

    /// How many are in flight.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Admits a request.
    ///
    /// # Errors
    /// When as many as allowed are in flight.
    pub fn enter(&self) -> Result<Permit, Error> {
        // The permit is taken first and given back by its drop if it was one too many.
        let active = self.active.fetch_add(1, Ordering::AcqRel);
        let permit = Permit(Arc::clone(&self.active));
        if active < self.limit { Ok(permit) } else { Err(Error::Busy { active }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_given_back() {
        let admission = Admission::new(2);
        let (one, _two) = (admission.enter().unwrap(), admission.enter().unwrap());
        assert!(matches!(admission.enter(), Err(Error::Busy { active: 2 })));
        assert_eq!(admission.active(), 2);
        drop(one);
        assert!(admission.enter().is_ok());
    }
}
