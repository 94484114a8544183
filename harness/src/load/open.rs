//! An open stage: requests begin when they are meant to, or as soon after as a caller is free.
//!
//! Callers are added while there is room and none is free; a request that finds no room waits, and what it
//! waits counts, because its response time begins when it was meant to be sent. What waits is nowhere
//! stored: it is the part of the arrivals that the clock has passed.

use std::cell::{Cell, RefCell};
use std::iter::Peekable;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::rc::Rc;

use mock_upstream::content::now;
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::arrivals::{Arrival, Arrivals};
use super::caller::{Caller, Kit};
use super::driver::Shared;
use super::stats::Counters;

/// What the callers of a stage and the one who wakes them share.
struct Queue {
    arrivals: RefCell<Peekable<Arrivals>>,
    begin: u64,
    idle: RefCell<Vec<Rc<Slot>>>,
    /// Told when a caller has become free.
    freed: Notify,
    is_over: Cell<bool>,
}

/// Where a free caller waits for its next request.
#[derive(Default)]
struct Slot {
    arrival: Cell<Option<Arrival>>,
    given: Notify,
}

impl Queue {
    /// Takes the next request, if it is due.
    fn take_due(&self) -> Option<Arrival> {
        let passed = now().saturating_sub(self.begin);
        self.arrivals.borrow_mut().next_if(|arrival| arrival.after <= passed)
    }

    /// When the next request is due, in nanoseconds of the clock.
    fn next_due(&self) -> Option<u64> {
        self.arrivals.borrow_mut().peek().map(|arrival| self.begin + arrival.after)
    }
}

/// Drives this thread's share of an open stage that begins at this time.
pub(crate) async fn run(shared: Rc<Shared>, kit: Rc<Kit>, begin: u64) {
    let plan = shared.plan();
    let Some(arrivals) = Arrivals::new(&plan.stages[kit.stage].pace, kit.seed, shared.thread, plan.threads)
    else {
        return;
    };
    let queue = Rc::new(Queue {
        arrivals: RefCell::new(arrivals.peekable()),
        begin,
        idle: RefCell::default(),
        freed: Notify::new(),
        is_over: Cell::new(false),
    });
    // What was never sent is counted however this ends.
    let _unsent = Unsent { shared: Rc::clone(&shared), stage: kit.stage, queue: Rc::clone(&queue) };
    let alarm = Alarm::new();
    let most = shared.share(plan.stages[kit.stage].concurrency);
    let mut callers = JoinSet::new();
    let mut has_begun = false;
    while let Some(due) = queue.next_due() {
        if now() < due {
            alarm.until(due).await;
            continue;
        }
        if !has_begun {
            has_begun = true;
            Counters::set(&shared.counters.stage, kit.stage as u64);
        }
        let free = queue.idle.borrow_mut().pop();
        match free {
            Some(slot) => {
                slot.arrival.set(queue.take_due());
                slot.given.notify_one();
            }
            None if callers.len() < most => {
                let first = queue.take_due();
                callers.spawn_local(call(Rc::clone(&shared), Rc::clone(&kit), Rc::clone(&queue), first));
            }
            // A caller that becomes free takes what is due by itself, so there is nothing to be done.
            None => queue.freed.notified().await,
        }
    }
    queue.is_over.set(true);
    for slot in queue.idle.borrow_mut().drain(..) {
        slot.given.notify_one();
    }
    while callers.join_next().await.is_some() {}
}

/// A caller of an open stage.
async fn call(shared: Rc<Shared>, kit: Rc<Kit>, queue: Rc<Queue>, first: Option<Arrival>) {
    let mut caller = Caller::new(shared, kit);
    let slot = Rc::new(Slot::default());
    let mut next = first;
    loop {
        while let Some(arrival) = next.take() {
            caller.call(arrival.number, queue.begin + arrival.after).await;
            next = queue.take_due();
        }
        if queue.is_over.get() {
            return;
        }
        queue.idle.borrow_mut().push(Rc::clone(&slot));
        queue.freed.notify_one();
        slot.given.notified().await;
        next = slot.arrival.take();
    }
}

/// Counts what is left of a stage when it is dropped.
struct Unsent {
    shared: Rc<Shared>,
    stage: usize,
    queue: Rc<Queue>,
}

impl Drop for Unsent {
    fn drop(&mut self) {
        let left = self.queue.arrivals.borrow_mut().by_ref().count() as u64;
        self.shared.recorder.borrow_mut().stages[self.stage].unsent += left;
    }
}

/// A timer that is as exact as the clock: tokio's are rounded to milliseconds.
struct Alarm {
    timer: Option<AsyncFd<Raw>>,
}

struct Raw(TimerFd);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Alarm {
    fn new() -> Self {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).ok();
        #[expect(
            deprecated,
            reason = "its successor is `unsafe`; `Raw` owns its one descriptor and lends no other"
        )]
        let timer = timer.and_then(|timer| AsyncFd::with_interest(Raw(timer), Interest::READABLE).ok());
        Self { timer }
    }

    /// Waits until the clock shows this time, in nanoseconds.
    async fn until(&self, time: u64) {
        let rest = std::time::Duration::from_nanos(time.saturating_sub(now()));
        let Some(timer) = &self.timer else { return tokio::time::sleep(rest).await };
        let at = TimeSpec::new((time / 1_000_000_000) as i64, (time % 1_000_000_000) as i64);
        let set = timer.get_ref().0.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME);
        if set.is_err() {
            return tokio::time::sleep(rest).await;
        }
        while now() < time {
            let Ok(mut ready) = timer.readable().await else { return };
            // Reading it makes it quiet again.
            let _ = ready.try_io(|timer| timer.get_ref().0.wait().map_err(std::io::Error::from));
        }
    }
}
