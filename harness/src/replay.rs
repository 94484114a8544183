//! A recorded client played once more: its requests, in their order and on their connections, against any proxy.
//!
//! The other side of the same record is a [`Playback`] behind the proxy. What came of it is a
//! [`Recording`]; whether that is right is judged in `diff`. Requests that overlapped overlap, those that
//! followed each other do so, and recorded pauses are kept up to a limit.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use mock_upstream::playback::{Heard, Log, Pace, Playback, now, pace_of};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use wire::capture::{Exchange, Headers, Payload};

mod http1;

mod http2;

mod order;

mod request;

mod stream;

mod websocket;

pub mod probes;

pub use stream::{Target, TargetError};

pub(crate) use request::is_short;

use order::{Order, Stage};

/// How a client is played.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many times as fast as recorded.
    pub speed: f64,
    /// Longest pause, whatever was recorded.
    pub max_gap: Duration,
    /// Which requests go over HTTP/2.
    pub http2: Http2,
    /// How long an exchange may take, apart from pauses that are longer by its own record.
    pub timeout: Duration,
    /// How long a WebSocket waits for the other side's next message.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            speed: 1.0,
            max_gap: Duration::from_millis(20),
            http2: Http2::AsRecorded,
            timeout: Duration::from_secs(20),
            patience: Duration::from_secs(5),
        }
    }
}

/// Which requests go over HTTP/2. Over a plain connection none does, and a WebSocket never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http2 {
    /// Those that did in the recording.
    AsRecorded,
    /// All.
    Always,
    /// None.
    Never,
}

/// What both sides saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// What the client saw, in the order of the exchanges.
    pub client: Vec<Seen>,
    /// What the upstream saw.
    pub upstream: Log,
}

/// What the client saw of an exchange.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The exchange.
    pub exchange: u64,
    /// Whether it went over HTTP/2.
    pub http2: bool,
    /// When its first byte was sent.
    pub started: f64,
    /// When its last byte had been sent.
    pub sent: Option<f64>,
    /// The statuses of interim responses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interim: Vec<u16>,
    /// When the head of the response was there.
    pub head_at: Option<f64>,
    /// The status.
    pub status: Option<u16>,
    /// Every byte of the head, where the protocol has one.
    pub head: Payload,
    /// The header fields.
    pub headers: Headers,
    /// The body without its framing, as far as it came.
    pub body: Payload,
    /// When each piece of the body arrived, and its length.
    pub reads: Vec<(f64, u64)>,
    /// The messages of a WebSocket, both ways.
    pub messages: Vec<Heard>,
    /// How it ended.
    pub end: SeenEnd,
    /// When it ended.
    pub ended: f64,
    /// What went wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Seen {
    /// When so many bytes of the body had arrived.
    #[must_use]
    pub fn arrival(&self, bytes: u64) -> Option<f64> {
        let mut sum = 0;
        self.reads.iter().find_map(|(at, length)| {
            sum += length;
            (sum >= bytes).then_some(*at)
        })
    }
}

/// How an exchange ended for the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeenEnd {
    /// There was no connection to the proxy.
    #[default]
    NoConnection,
    /// As its framing says.
    Clean,
    /// The connection ended before the message did.
    Cut,
    /// The connection was reset.
    Reset,
    /// It did not end in time.
    Timeout,
    /// What came is not the protocol.
    Garbled,
    /// The client left, as recorded.
    Left,
}

/// Why nothing could be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The target cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// What every exchange of a replay needs.
struct Play<'a> {
    target: &'a stream::Endpoint,
    playback: &'a Playback,
    options: &'a Options,
    /// By the recorded number of the connection.
    connections: HashMap<u64, Lanes>,
}

/// The connections that stand for a recorded one.
#[derive(Default)]
struct Lanes {
    idle: Mutex<Vec<stream::Stream>>,
    http2: tokio::sync::OnceCell<Option<http2::Sender>>,
}

/// Plays the client of these exchanges against a proxy whose upstream is the playback, which plays the
/// same exchanges.
///
/// # Errors
/// When the target is no URL that can be spoken to. What the proxy does wrong is no error but is seen.
pub async fn replay(
    exchanges: &[Exchange],
    target: &Target,
    playback: &Playback,
    options: &Options,
) -> Result<Recording, ReplayError> {
    let endpoint = target.endpoint()?;
    let lanes = exchanges.iter().map(|exchange| (exchange.request.connection, Lanes::default()));
    let stage = Play { target: &endpoint, playback, options, connections: lanes.collect() };
    let order = Order::new(exchanges);
    let stages = watch::Sender::new(vec![Stage::Waiting; exchanges.len()]);
    let client =
        join_all(exchanges.iter().enumerate().map(|(at, exchange)| stage.one(at, exchange, &order, &stages)))
            .await;
    // The proxy has nothing more to wait for, nor has the upstream behind it.
    drop(stage);
    playback.settled(playback.config().patience + SETTLE).await;
    Ok(Recording { client, upstream: playback.log() })
}

/// What a proxy may take to end what its client has left, beyond what the playback waits anyway.
const SETTLE: Duration = Duration::from_secs(1);

impl Play<'_> {
    fn pace(&self, exchange: &Exchange) -> Pace {
        pace_of(exchange, Pace { speed: self.options.speed, max_gap: self.options.max_gap })
    }

    async fn one(
        &self,
        at: usize,
        exchange: &Exchange,
        order: &Order,
        stages: &watch::Sender<Vec<Stage>>,
    ) -> Seen {
        let set = |stage: Stage| stages.send_modify(|stages| stages[at] = stages[at].max(stage));
        let mut changes = stages.subscribe();
        // The sender outlives the wait: it belongs to the caller.
        let _ = changes.wait_for(|stages| order.may_begin(at, stages)).await;
        let pause = self.pace(exchange).gap(order.pause_from(at), order.begin(at));
        tokio::time::sleep(pause).await;
        set(Stage::Begun);
        self.playback.begun(exchange.id);
        let mut seen = Seen { exchange: exchange.id, started: now(), ..Seen::default() };
        let limit = self.options.timeout + self.pace(exchange).max_gap;
        let mut progress =
            Progress { seen: &mut seen, stage: self, answered: &|| set(Stage::Answered), counted: 0 };
        let is_done = tokio::time::timeout(limit, self.run(exchange, &mut progress)).await.is_ok();
        if !is_done {
            seen.end = SeenEnd::Timeout;
        }
        seen.ended = now();
        self.playback.left(exchange.id);
        set(Stage::Ended);
        seen
    }

    async fn run(&self, exchange: &Exchange, progress: &mut Progress<'_>) {
        let wants = match self.options.http2 {
            Http2::AsRecorded => exchange.request.http_version.starts_with('2'),
            Http2::Always => true,
            Http2::Never => false,
        };
        if exchange.is_upgrade() {
            websocket::run(self, exchange, progress).await;
        } else if wants && self.target.is_tls() {
            http2::run(self, exchange, progress).await;
        } else {
            http1::run(self, exchange, progress).await;
        }
    }

    fn lanes(&self, exchange: &Exchange) -> Option<&Lanes> {
        self.connections.get(&exchange.request.connection)
    }
}

/// What is being seen of an exchange, while it is.
struct Progress<'a> {
    seen: &'a mut Seen,
    stage: &'a Play<'a>,
    answered: &'a (dyn Fn() + Sync),
    /// How much of the body is in the reads.
    counted: u64,
}

impl Progress<'_> {
    fn head(&mut self, status: u16, head: &[u8], headers: Headers) {
        self.seen.head_at = Some(now());
        self.seen.status = Some(status);
        (self.seen.head, self.seen.headers) = (Payload::from(head), headers);
        (self.answered)();
        self.stage.playback.arrived(self.seen.exchange, 0);
    }

    fn body(&mut self, bytes: &[u8]) {
        self.seen.body.0.extend_from_slice(bytes);
    }

    /// All that one read has brought is in the body.
    fn arrived(&mut self) {
        let all = self.seen.body.0.len() as u64;
        if all > self.counted {
            self.seen.reads.push((now(), all - self.counted));
            self.counted = all;
            self.stage.playback.arrived(self.seen.exchange, all);
        }
    }

    fn end(&mut self, end: SeenEnd, problem: Option<String>) {
        (self.seen.end, self.seen.problem) = (end, problem);
    }
}
