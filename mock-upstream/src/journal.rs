//! Everything the mock received and sent, exchange by exchange, with a bound on what is kept.
//!
//! Bytes are kept as they came; nothing is interpreted here. What falls out of the bound is counted, never
//! silently missed. Tests wait on the journal for a condition with a limit and never sleep.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use wire::capture::Direction;

use crate::script::CallName;

mod record;

/// How much a journal keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most exchanges; 0 switches the journal off.
    pub exchanges: usize,
    /// Most bytes of heads, bodies and messages.
    pub bytes: usize,
}

impl Limits {
    /// Keeps nothing: for load.
    pub const OFF: Self = Self { exchanges: 0, bytes: 0 };
}

impl Default for Limits {
    fn default() -> Self {
        Self { exchanges: 20_000, bytes: 256 << 20 }
    }
}

/// A request and what became of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Its number, from 1.
    pub id: u64,
    /// The connection it came on.
    pub connection: u64,
    /// When its head and body had been read, since the mock started.
    pub at: Duration,
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// What is called.
    pub call: CallName,
    /// Every byte of the request's head.
    pub head: Bytes,
    /// The body as it came, still encoded, without its framing.
    pub body: Bytes,
    /// Whose token it came with, let in or not.
    pub account: Option<Arc<str>>,
    /// The rule that answered it; for a WebSocket, the handshake.
    pub rule: Option<Arc<str>>,
    /// What was answered.
    pub answer: Option<Answer>,
    /// The messages of a WebSocket, both ways, in order.
    pub messages: Vec<Message>,
    /// What the caller did that no honest caller does.
    pub violations: Vec<Violation>,
    /// How it ended, once it has.
    pub end: Option<End>,
}

impl Exchange {
    /// The header fields in order, in the sender's spelling.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, String)> {
        let head = wire::http1::RequestHead::parse(&self.head).ok().flatten();
        let fields = head.iter().flat_map(|(head, _)| head.fields());
        fields.map(|field| (field.name.into(), String::from_utf8_lossy(field.value).into_owned())).collect()
    }

    /// The value of the first header field with this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers().into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body with its content coding undone.
    ///
    /// # Errors
    /// When it is not what its `content-encoding` says.
    pub fn decoded_body(&self) -> std::io::Result<Vec<u8>> {
        match self.header("content-encoding").as_deref() {
            Some("zstd") => zstd::decode_all(&self.body[..]),
            _ => Ok(self.body.to_vec()),
        }
    }

    /// The body as JSON, `null` if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let body = self.decoded_body().unwrap_or_default();
        serde_json::from_slice(&body).unwrap_or_default()
    }

    /// The messages that the client sent.
    pub fn received(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|message| message.direction == Direction::ClientToUpstream)
    }

    /// The messages that the mock sent.
    pub fn sent(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|message| message.direction == Direction::UpstreamToClient)
    }

    /// The status that was answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.answer.as_ref().map(|answer| answer.status)
    }

    /// Whether it opened a WebSocket.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.status() == Some(101)
    }

    /// Whether the client went away before the exchange had ended.
    #[must_use]
    pub fn client_gone(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.how == HowEnded::ClientGone)
    }

    fn size(&self) -> usize {
        let answer = self.answer.as_ref().map_or(0, |answer| answer.head.len() + answer.body.len());
        let messages: usize = self.messages.iter().map(|message| message.payload.len()).sum();
        self.head.len() + self.body.len() + answer + messages
    }
}

/// What was answered to a request, as far as it has been sent.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// When the head was sent, since the mock started.
    pub at: Duration,
    /// The status.
    pub status: u16,
    /// Every byte of the head; empty until it is sent.
    pub head: Bytes,
    /// The body so far, without its framing.
    pub body: Vec<u8>,
    /// When each write of the body was made, since the mock started, and its length.
    pub writes: Vec<(Duration, usize)>,
    /// Whether the body is a stream of events.
    pub is_stream: bool,
}

/// What kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Text.
    Text,
    /// Binary.
    Binary,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
    /// The close handshake; the payload is the reason.
    Close(u16),
}

/// A message on a WebSocket.
#[derive(Debug, Clone)]
pub struct Message {
    /// When, since the mock started.
    pub at: Duration,
    /// Who sent it.
    pub direction: Direction,
    /// What kind it is.
    pub kind: Kind,
    /// What it holds.
    pub payload: Bytes,
    /// The lengths of its frames, of a message that was sent in several. Of what is received only the whole
    /// is known.
    pub frames: Vec<u64>,
    /// The rule that made it.
    pub rule: Option<Arc<str>>,
}

impl Message {
    /// The payload as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The payload as JSON, `null` if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }
}

/// Something that no honest caller does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// The turn state of another account.
    ForeignTurnState {
        /// Whose it is.
        owner: String,
    },
    /// A turn state that this mock never issued.
    UnknownTurnState,
    /// The response of another account as the one to continue.
    ForeignResponse {
        /// Whose it is.
        owner: String,
    },
    /// Encrypted content of another account.
    ForeignEncryptedContent {
        /// Whose it is.
        owner: String,
    },
    /// The token of another account than the one named.
    AccountMismatch,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignTurnState { owner } => write!(f, "turn state of {owner}"),
            Self::UnknownTurnState => f.write_str("unknown turn state"),
            Self::ForeignResponse { owner } => write!(f, "response of {owner}"),
            Self::ForeignEncryptedContent { owner } => write!(f, "encrypted content of {owner}"),
            Self::AccountMismatch => f.write_str("token of another account"),
        }
    }
}

/// The end of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// When, since the mock started.
    pub at: Duration,
    /// How.
    pub how: HowEnded,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HowEnded {
    /// All was sent that was to be sent.
    Complete,
    /// The client went away first.
    ClientGone,
    /// The mock reset the connection, as it was told.
    Reset,
    /// The mock closed the connection too early, as it was told.
    Fin,
    /// The mock stopped sending, as it was told, and the client went away in the end.
    Hang,
}

struct Inner {
    exchanges: VecDeque<Exchange>,
    bytes: usize,
    dropped: u64,
}

struct Shared {
    limits: Limits,
    started: Instant,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

/// A handle on the journal.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

/// The condition did not become true in time.
#[derive(Debug, thiserror::Error)]
#[error("{what} within {limit:?}; the journal holds {seen}")]
pub struct Timeout {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub limit: Duration,
    /// The exchanges there were, one line each.
    pub seen: String,
}

impl Journal {
    pub(crate) fn new(limits: Limits) -> Self {
        let inner = Inner { exchanges: VecDeque::new(), bytes: 0, dropped: 0 };
        let shared = Shared {
            limits,
            started: Instant::now(),
            inner: Mutex::new(inner),
            changed: watch::channel(0).0,
        };
        Self { shared: Arc::new(shared) }
    }

    /// All exchanges that are kept, oldest first.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.lock().exchanges.iter().cloned().collect()
    }

    /// What happened since a time by [`Journal::elapsed`]: the exchanges begun since then, and of those that
    /// were open the messages since then.
    #[must_use]
    pub fn since(&self, time: Duration) -> Vec<Exchange> {
        let later = |exchange: Exchange| {
            if exchange.at >= time {
                return Some(exchange);
            }
            let messages: Vec<Message> =
                exchange.messages.into_iter().filter(|message| message.at >= time).collect();
            (!messages.is_empty()).then_some(Exchange { messages, ..exchange })
        };
        self.exchanges().into_iter().filter_map(later).collect()
    }

    /// The exchanges of one call.
    #[must_use]
    pub fn of(&self, call: CallName) -> Vec<Exchange> {
        self.lock().exchanges.iter().filter(|exchange| exchange.call == call).cloned().collect()
    }

    /// The model requests: POSTs, and handshakes with their messages.
    #[must_use]
    pub fn responses(&self) -> Vec<Exchange> {
        self.of(CallName::Responses)
    }

    /// How many exchanges and messages are no longer kept.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Forgets everything that is kept.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.exchanges.clear();
        inner.bytes = 0;
    }

    /// The time since the mock started, by which all times in the journal go.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Waits until `condition` holds for the exchanges, and returns them. `what` completes "expected …".
    ///
    /// # Errors
    /// When it does not hold within `limit`.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&[Exchange]) -> bool,
    ) -> Result<Vec<Exchange>, Timeout> {
        let mut changed = self.shared.changed.subscribe();
        let met = async {
            loop {
                changed.borrow_and_update();
                let exchanges = self.exchanges();
                if condition(&exchanges) {
                    return exchanges;
                }
                // The sender lives in `self`, so a change is all that can come. A burst of changes is looked
                // at once: every look copies what there is.
                let _ = changed.changed().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(limit, met).await.map_err(|_| {
            let lines = self.exchanges().iter().map(Exchange::line).collect::<Vec<_>>().join("");
            Timeout { what: format!("expected {what}"), limit, seen: lines }
        })
    }

    pub(crate) fn is_on(&self) -> bool {
        self.shared.limits.exchanges > 0
    }

    /// Takes up an exchange; the number is given by the caller, so that it exists without a journal too.
    pub(crate) fn begin(&self, exchange: Exchange) {
        if !self.is_on() {
            return;
        }
        let mut inner = self.lock();
        inner.bytes += exchange.size();
        inner.exchanges.push_back(exchange);
        while inner.exchanges.len() > self.shared.limits.exchanges || inner.bytes > self.shared.limits.bytes {
            let Some(oldest) = inner.exchanges.pop_front() else { break };
            inner.bytes -= oldest.size();
            inner.dropped += 1;
        }
        drop(inner);
        self.notify();
    }

    /// Changes an exchange that is still kept.
    pub(crate) fn update(&self, id: u64, change: impl FnOnce(&mut Exchange)) {
        if !self.is_on() {
            return;
        }
        let mut inner = self.lock();
        // Numbers ascend, but a number is taken before the exchange is: so it is searched for.
        let Some(at) = inner.exchanges.iter().rposition(|exchange| exchange.id == id) else { return };
        let before = inner.exchanges[at].size();
        change(&mut inner.exchanges[at]);
        let after = inner.exchanges[at].size();
        inner.bytes = inner.bytes + after - before;
        drop(inner);
        self.notify();
    }

    fn notify(&self) {
        self.shared.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    fn line(&self) -> String {
        let Self { id, method, target, messages, .. } = self;
        let status = self.status().map_or_else(|| "-".into(), |status| status.to_string());
        let end = self.end.as_ref().map_or("open".into(), |end| format!("{:?}", end.how));
        let messages =
            if messages.is_empty() { String::new() } else { format!(" {} messages", messages.len()) };
        format!("\n  {id}: {method} {target} -> {status}{messages}, {end}")
    }
}

#[cfg(test)]
mod tests;
