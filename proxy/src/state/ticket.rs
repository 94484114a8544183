//! Tickets: whether a change is durable, told by comparing two numbers.
//!
//! Commits are numbered. A ticket is the number of the commit that a change goes with, and the watermark
//! that of the last commit which is settled: durable, or given up for now because the disk fails.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Sleep;

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
        if self.has_passed(ticket) {
            return true;
        }
        let mut waiting = lock(&self.waiting);
        // Looked at under the lock, under which waiters are told.
        if self.has_passed(ticket) {
            return true;
        }
        waiting.push((ticket, waker.clone()));
        false
    }
}

/// How long a commit is waited for: longer than one that fails takes. A disk that does not even fail must not
/// stop what it is not needed for.
pub(super) const LIMIT: Duration = Duration::from_secs(2);

/// What stands between bytes and a client until the ids in them are durable.
#[derive(Debug)]
pub struct Gate {
    shared: Arc<Shared>,
    ticket: Ticket,
    /// Runs from when it is first found closed.
    limit: Option<Pin<Box<Sleep>>>,
    /// Who is told when it opens.
    waker: Option<Waker>,
}

impl Gate {
    pub(super) fn new(shared: &Arc<Shared>, ticket: Ticket) -> Self {
        Self { shared: Arc::clone(shared), ticket, limit: None, waker: None }
    }

    /// Waits until it is open. Must be called within a runtime that has a clock.
    pub fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self { shared, ticket, limit, waker } = self;
        let is_known = waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        let has_passed = if is_known {
            shared.watermark.has_passed(*ticket)
        } else {
            *waker = Some(context.waker().clone());
            shared.watermark.wait(*ticket, context.waker())
        };
        if has_passed {
            return Poll::Ready(());
        }
        let limit = limit.get_or_insert_with(|| {
            shared.hurry(*ticket);
            #[expect(clippy::disallowed_methods, reason = "a limit that is polled with what it limits")]
            Box::pin(tokio::time::sleep(LIMIT))
        });
        if limit.as_mut().poll(context).is_ready() {
            shared.give_up(*ticket);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// The later of two.
    #[must_use]
    pub fn and(self, other: Option<Self>) -> Self {
        other.filter(|other| other.ticket > self.ticket).unwrap_or(self)
    }
}
