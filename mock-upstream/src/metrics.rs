//! Counters of what the mock did; they run whether or not a journal is kept.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The counters of a running mock.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections: AtomicU64,
    pub(crate) open_connections: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) open_exchanges: AtomicU64,
    pub(crate) peak_exchanges: AtomicU64,
    pub(crate) model_requests: AtomicU64,
    pub(crate) websockets: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) client_gone: AtomicU64,
    pub(crate) bad_requests: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open_connections: u64,
    /// Requests read, WebSocket messages not among them.
    pub requests: u64,
    /// Exchanges running now.
    pub open_exchanges: u64,
    /// Most exchanges that ran at once.
    pub peak_exchanges: u64,
    /// Model requests over either transport.
    pub model_requests: u64,
    /// WebSockets opened.
    pub websockets: u64,
    /// Messages received on WebSockets.
    pub messages: u64,
    /// Answers with a status of 400 or more.
    pub refusals: u64,
    /// Exchanges that the client left before their end.
    pub client_gone: u64,
    /// Bytes that were no request.
    pub bad_requests: u64,
    /// Bytes of bodies and messages sent.
    pub bytes_sent: u64,
    /// Exchanges and messages that the journal no longer keeps.
    pub journal_dropped: u64,
}

impl Metrics {
    pub(crate) fn counts(&self, journal_dropped: u64) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connections: load(&self.connections),
            open_connections: load(&self.open_connections),
            requests: load(&self.requests),
            open_exchanges: load(&self.open_exchanges),
            peak_exchanges: load(&self.peak_exchanges),
            model_requests: load(&self.model_requests),
            websockets: load(&self.websockets),
            messages: load(&self.messages),
            refusals: load(&self.refusals),
            client_gone: load(&self.client_gone),
            bad_requests: load(&self.bad_requests),
            bytes_sent: load(&self.bytes_sent),
            journal_dropped,
        }
    }

    /// Counts something that is open until the guard is dropped.
    pub(crate) fn open<'a>(counter: &'a AtomicU64, peak: Option<&AtomicU64>) -> Open<'a> {
        let now = counter.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(peak) = peak {
            peak.fetch_max(now, Ordering::Relaxed);
        }
        Open { counter }
    }
}

/// Something that is counted as open.
pub(crate) struct Open<'a> {
    counter: &'a AtomicU64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
