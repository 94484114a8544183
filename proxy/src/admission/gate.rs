//! A limit and the queue before it: who is in flight, who waits for a place, and who gives way.
//!
//! Whoever finds no room waits in a bounded queue, the strongest rank first and within a rank the first to
//! come. A full queue gives the place of its weakest to a stronger one, never the other way round. Nothing
//! here is async or knows the time: a place in the queue is a future of its own, and dropping it leaves.
//!
//! One rule makes it simple: while somebody waits, there is no room for them. Places that become free go to
//! waiters at once, so whoever finds room may take it without looking at the queue.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How firmly somebody stands in a queue, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// A turn of a conversation that has begun.
    Continuation,
    /// The compaction of a conversation that has begun.
    Compact,
    /// The first turn of a conversation, or a call that belongs to none.
    Fresh,
    /// A compaction of what nobody knows.
    FreshCompact,
}

impl Rank {
    /// The rank of a turn or a compaction, by whether its conversation has begun.
    #[must_use]
    pub fn new(is_compact: bool, continues: bool) -> Self {
        match (is_compact, continues) {
            (false, true) => Self::Continuation,
            (true, true) => Self::Compact,
            (false, false) => Self::Fresh,
            (true, false) => Self::FreshCompact,
        }
    }

    fn is_compact(self) -> bool {
        matches!(self, Self::Compact | Self::FreshCompact)
    }
}

/// Why somebody was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// As many as allowed are in flight.
    Active,
    /// As many as allowed are in flight in this lane.
    Lane,
    /// As many as allowed wait.
    Queue,
    /// A stronger one took the place in the queue.
    Displaced,
    /// It is a compaction, and turns wait.
    Pressure,
}

/// A limit over all lanes, one for each lane, and the queue before them.
#[derive(Debug)]
pub struct Gate {
    limit: usize,
    lanes: Box<[usize]>,
    max_waiting: usize,
    /// How many are in flight; changed under the lock, and read without it by those who only look.
    total: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    active: Box<[usize]>,
    /// In the order in which they are admitted.
    waiting: BTreeMap<Key, Waiter>,
    /// The number of the next who waits.
    ticket: u64,
}

/// A place in the queue: by rank, then by ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Rank, u64);

#[derive(Debug)]
struct Waiter {
    request: u64,
    lane: usize,
    since: Instant,
    /// Dropped without a permit when the waiter is displaced.
    sender: oneshot::Sender<Permit>,
}

/// Somebody who wants to be in flight.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// The number of the request.
    pub request: u64,
    /// In which of the gate's lanes, counted from 0.
    pub lane: usize,
    /// How firmly it stands in the queue.
    pub rank: Rank,
}

/// What came of asking.
#[derive(Debug)]
pub enum Entry {
    /// There was room.
    Admitted(Permit),
    /// There will be.
    Waits(Place),
}

/// Who is in flight and who waits, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Most at once, over all lanes.
    pub limit: usize,
    /// How many are in flight in each lane, and how many may be.
    pub lanes: Vec<(usize, usize)>,
    /// Who waits, in the order in which they are admitted while their lanes have room.
    pub waiting: Vec<Waiting>,
}

/// Somebody who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The number of the request.
    pub request: u64,
    /// In which lane.
    pub lane: usize,
    /// How firmly it stands.
    pub rank: Rank,
    /// For how long it has waited.
    pub waited: Duration,
}

impl Gate {
    /// A gate that nobody has passed. `lanes` are the limits of its lanes; at most `max_waiting` wait.
    #[must_use]
    pub fn new(limit: usize, lanes: &[usize], max_waiting: usize) -> Arc<Self> {
        let active = vec![0; lanes.len()].into();
        let state = Mutex::new(State { active, waiting: BTreeMap::new(), ticket: 0 });
        Arc::new(Self { limit, lanes: lanes.into(), max_waiting, total: AtomicUsize::new(0), state })
    }

    /// How many are in flight.
    #[must_use]
    pub fn active(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// How many may be in flight, over all lanes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many are in flight in a lane, and how many may be.
    #[must_use]
    pub fn lane(&self, lane: usize) -> (usize, usize) {
        (self.lock().active[lane], self.lanes[lane])
    }

    /// How many wait, and how many may.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        (self.lock().waiting.len(), self.max_waiting)
    }

    /// Who is in flight and who waits.
    #[must_use]
    pub fn view(&self) -> View {
        let state = self.lock();
        let waiting = state.waiting.iter().map(|(Key(rank, _), waiter)| Waiting {
            request: waiter.request,
            lane: waiter.lane,
            rank: *rank,
            waited: waiter.since.elapsed(),
        });
        let lanes = state.active.iter().copied().zip(self.lanes.iter().copied());
        View { limit: self.limit, lanes: lanes.collect(), waiting: waiting.collect() }
    }

    /// Takes a place in a lane if there is room.
    #[must_use]
    pub fn try_enter(self: &Arc<Self>, lane: usize) -> Option<Permit> {
        let mut state = self.lock();
        if self.obstacle(&state, lane).is_some() {
            return None;
        }
        self.count(&mut state, lane);
        Some(Permit::new(self, lane))
    }

    /// Counts somebody who is in flight already, whether there is room or not.
    #[must_use]
    pub fn enter_anyway(self: &Arc<Self>, lane: usize) -> Permit {
        self.count(&mut self.lock(), lane);
        Permit::new(self, lane)
    }

    /// Takes a place in flight, or one in the queue.
    ///
    /// # Errors
    /// When there is neither, or, for a compaction, when turns wait.
    pub fn enter(self: &Arc<Self>, ask: Ask) -> Result<Entry, Reason> {
        let mut state = self.lock();
        let Some(obstacle) = self.obstacle(&state, ask.lane) else {
            self.count(&mut state, ask.lane);
            return Ok(Entry::Admitted(Permit::new(self, ask.lane)));
        };
        if ask.rank.is_compact() && state.waiting.keys().any(|Key(rank, _)| !rank.is_compact()) {
            return Err(Reason::Pressure);
        }
        if state.waiting.len() >= self.max_waiting {
            let weakest = state.waiting.last_entry().filter(|last| ask.rank < last.key().0);
            match weakest {
                Some(weakest) => drop(weakest.remove()),
                None if self.max_waiting == 0 => return Err(obstacle),
                None => return Err(Reason::Queue),
            }
        }
        let key = Key(ask.rank, state.ticket);
        state.ticket += 1;
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter { request: ask.request, lane: ask.lane, since: Instant::now(), sender };
        state.waiting.insert(key, waiter);
        Ok(Entry::Waits(Place { gate: Arc::clone(self), key, receiver, obstacle }))
    }

    /// What keeps somebody from entering a lane.
    fn obstacle(&self, state: &State, lane: usize) -> Option<Reason> {
        if self.active() >= self.limit {
            Some(Reason::Active)
        } else if state.active[lane] >= self.lanes[lane] {
            Some(Reason::Lane)
        } else {
            None
        }
    }

    /// Gives free places to those who wait for them.
    fn admit_waiting(self: &Arc<Self>, state: &mut State) {
        while self.active() < self.limit {
            let has_room = |waiter: &Waiter| state.active[waiter.lane] < self.lanes[waiter.lane];
            let next = state.waiting.iter().find(|(_, waiter)| has_room(waiter)).map(|(key, _)| *key);
            let Some(waiter) = next.and_then(|key| state.waiting.remove(&key)) else { return };
            self.count(state, waiter.lane);
            if let Err(permit) = waiter.sender.send(Permit::new(self, waiter.lane)) {
                // A place leaves the queue before its receiver goes, so nobody has seen this; but a permit
                // that is dropped here would lock what is locked.
                self.uncount(state, waiter.lane);
                permit.forget();
            }
        }
    }

    fn count(&self, state: &mut State, lane: usize) {
        self.total.fetch_add(1, Ordering::Relaxed);
        state.active[lane] += 1;
    }

    fn uncount(&self, state: &mut State, lane: usize) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        state.active[lane] -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to be in flight, given back by its drop.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    lane: usize,
    is_counted: bool,
}

impl Permit {
    fn new(gate: &Arc<Gate>, lane: usize) -> Self {
        Self { gate: Arc::clone(gate), lane, is_counted: true }
    }

    /// Drops it without giving anything back.
    fn forget(mut self) {
        self.is_counted = false;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_counted {
            let mut state = self.gate.lock();
            self.gate.uncount(&mut state, self.lane);
            self.gate.admit_waiting(&mut state);
        }
    }
}

/// A place in the queue; whoever drops it leaves.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    key: Key,
    receiver: oneshot::Receiver<Permit>,
    obstacle: Reason,
}

impl Place {
    /// Waits for a place in flight. May be dropped half-way and called again.
    ///
    /// # Errors
    /// When a stronger one took this place.
    pub async fn admitted(&mut self) -> Result<Permit, Reason> {
        (&mut self.receiver).await.map_err(|_| Reason::Displaced)
    }

    /// How many are admitted before, if nobody stronger comes.
    #[must_use]
    pub fn position(&self) -> usize {
        self.gate.lock().waiting.range(..self.key).count()
    }

    /// Leaves the queue. The place in flight may have come at the last moment.
    ///
    /// # Errors
    /// With what there was to wait for.
    pub fn give_up(mut self) -> Result<Permit, Reason> {
        self.leave();
        self.receiver.try_recv().map_err(|_| self.obstacle)
    }

    fn leave(&self) {
        self.gate.lock().waiting.remove(&self.key);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;
