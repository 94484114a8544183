//! Tickets: whether a change is durable, told by comparing two numbers.
//!
//! Commits are numbered. A ticket is the number of the commit that a change goes with, and the watermark
//! that of the last commit which is settled: durable, or given up for now because the disk fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::lock;
use super::writer::Shared;

/// The commit that a change goes with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

impl Ticket {
    /// That of what needs no commit.
    pub const DURABLE: Self = Self(0);
}

/// The last commit that is settled, and who waits for a later one.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    settled: AtomicU64,
    waiting: Mutex<Vec<(Ticket, Waker)>>,
}

impl Watermark {
    pub(super) fn has_passed(&self, ticket: Ticket) -> bool {
        ticket.0 <= self.settled.load(Ordering::Acquire)
    }

    /// Every commit up to this one is settled.
    pub(super) fn settle(&self, ticket: Ticket) {
        self.settled.fetch_max(ticket.0, Ordering::Release);
        let passed: Vec<_> = lock(&self.waiting).extract_if(.., |(awaited, _)| *awaited <= ticket).collect();
        passed.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Says whether the commit is settled; if not, `waker` is told when it is.
    fn wait(&self, ticket: Ticket, waker: &Waker) -> bool {
        let mut waiting = lock(&self.waiting);
        // Looked at under the lock, under which waiters are told.
        if self.has_passed(ticket) {
            return true;
        }
        waiting.push((ticket, waker.clone()));
        false
    }
}

/// What stands between bytes and a client until the ids in them are durable.
#[derive(Debug, Clone)]
pub struct Gate {
    pub(super) shared: Arc<Shared>,
    pub(super) ticket: Ticket,
}

impl Gate {
    /// Waits until it is open.
    pub fn poll_open(&self, context: &mut Context<'_>) -> Poll<()> {
        let Self { shared, ticket } = self;
        if shared.watermark.has_passed(*ticket) || shared.watermark.wait(*ticket, context.waker()) {
            return Poll::Ready(());
        }
        shared.hurry(*ticket);
        Poll::Pending
    }

    /// The later of two.
    #[must_use]
    pub fn and(self, other: Option<Self>) -> Self {
        other.filter(|other| other.ticket > self.ticket).unwrap_or(self)
    }
}
