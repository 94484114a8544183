//! What a playback has received and sent, as data, and the book that it is entered in.
//!
//! All times are of one clock, [`now`], which whoever plays the client in the same process uses too: what
//! was sent when and what arrived when can be compared without a tolerance for two clocks.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use wire::capture::{Direction, Headers, MessageKind, Payload};

/// Milliseconds since this process first asked for them; monotonic.
#[must_use]
pub fn now() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs_f64() * 1000.0
}

/// Everything that a playback has received, in the order of the requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// The requests.
    pub asks: Vec<Ask>,
}

impl Log {
    /// The requests that were taken for this exchange.
    pub fn of(&self, exchange: u64) -> impl Iterator<Item = &Ask> {
        self.asks.iter().filter(move |ask| ask.exchange == Some(exchange))
    }

    /// The requests that belong to no exchange.
    pub fn unexpected(&self) -> impl Iterator<Item = &Ask> {
        self.asks.iter().filter(|ask| ask.exchange.is_none())
    }
}

/// A request as it was received, and what was sent for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// The recorded exchange that it was taken for.
    pub exchange: Option<u64>,
    /// The connection it came on, from 1.
    pub connection: u64,
    /// When its head was there.
    pub at: f64,
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// The header fields.
    pub headers: Headers,
    /// Every byte of the head.
    pub head: Payload,
    /// The body without its framing, as far as it was read.
    pub body: Payload,
    /// When each piece of the body was read, and its length.
    pub reads: Vec<(f64, u64)>,
    /// Whether the body was read to its end.
    pub is_whole: bool,
    /// When the head of the answer had been written.
    pub head_sent: Option<f64>,
    /// When each write of the answer's body was made, and its length without framing.
    pub writes: Vec<(f64, u64)>,
    /// The messages of a WebSocket, both ways.
    pub messages: Vec<Heard>,
    /// When the other side was seen to go away before the end.
    pub gone: Option<f64>,
    /// When nothing more was to be sent.
    pub ended: Option<f64>,
    /// Why what came is no request, if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Ask {
    /// The value of the first header field with this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A message, a control frame, or the end of a WebSocket, as one side saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// When its last byte was there, or had been written.
    pub at: f64,
    /// Who sent it.
    pub direction: Direction,
    /// What it is.
    pub kind: MessageKind,
    /// The message put together from its frames; of a close frame, its reason.
    pub payload: Payload,
    /// The payload lengths of its frames, when there is more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<u64>,
}

/// The book of a playback, and how far the client is with each exchange.
#[derive(Debug)]
pub(super) struct Book {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    log: Log,
    /// The asks still being answered.
    open: usize,
    /// Each change of exchanges begins a new volume; entries of an older one are not for this one.
    volume: u64,
    arrived: HashMap<u64, u64>,
}

/// An ask in the book.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    volume: u64,
    at: usize,
}

impl Book {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), changes: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    pub(super) fn log(&self) -> Log {
        self.state().log.clone()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let volume = self.state().volume + 1;
        *self.state() = State { volume, ..State::default() };
        self.changed();
    }

    pub(super) fn enter(&self, ask: Ask) -> Entry {
        let mut state = self.state();
        state.log.asks.push(ask);
        state.open += 1;
        let entry = Entry { volume: state.volume, at: state.log.asks.len() - 1 };
        drop(state);
        self.changed();
        entry
    }

    pub(super) fn change(&self, entry: Entry, change: impl FnOnce(&mut Ask)) {
        let mut state = self.state();
        if state.volume == entry.volume {
            change(&mut state.log.asks[entry.at]);
        }
        drop(state);
        self.changed();
    }

    pub(super) fn close(&self, entry: Entry) {
        let mut state = self.state();
        if state.volume == entry.volume {
            state.log.asks[entry.at].ended.get_or_insert_with(now);
            state.open -= 1;
        }
        drop(state);
        self.changed();
    }

    /// The client has so much of an exchange: 1 for the head, and 1 for every byte or message behind it.
    pub(super) fn arrived(&self, exchange: u64, count: u64) {
        self.state().arrived.insert(exchange, count);
        self.changed();
    }

    /// Waits until this holds of the log and the number of open asks. Says whether it came to hold.
    pub(super) async fn until(&self, limit: Duration, holds: impl Fn(&Log, usize) -> bool) -> bool {
        self.wait(limit, |state| holds(&state.log, state.open)).await
    }

    /// Waits until the client has so much of an exchange. Says whether it has.
    pub(super) async fn until_arrived(&self, exchange: u64, count: u64, limit: Duration) -> bool {
        self.wait(limit, |state| state.arrived.get(&exchange).is_some_and(|arrived| *arrived >= count)).await
    }

    async fn wait(&self, limit: Duration, holds: impl Fn(&State) -> bool) -> bool {
        let mut changes = self.changes.subscribe();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                if holds(&self.state()) {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(limit, waiting).await.is_ok()
    }
}
