//! The data of a finished run: what was measured, per stage, route and outcome, and over time.
//!
//! Everything that is shown (the table, the page, the JSON, log files) is made from a [`Run`], and a run that
//! was written as JSON can be shown again. Histograms are kept whole, so that nothing has to be decided
//! about percentiles before; their unit is microseconds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

/// The version of the format, as JSON.
pub const VERSION: u32 = 1;

/// Longest time that a histogram tells from a longer one, in microseconds: one hour.
pub const LONGEST: u64 = 3_600_000_000;

/// One run against one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// [`VERSION`].
    pub version: u32,
    /// The name of the scenario.
    pub scenario: String,
    /// What was driven: `mock`, `proxy`, or the name of another target.
    pub target: String,
    /// What all random choices were made from.
    pub seed: u64,
    /// When it began, as RFC 3339.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// On what machine.
    pub machine: Machine,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// What was measured; at most one entry for each stage, route and outcome.
    pub cells: Vec<Cell>,
    /// Length of a tick in seconds.
    pub tick_seconds: f64,
    /// How it went over time. A tick without an entry had nothing.
    pub ticks: Vec<Tick>,
    /// What the driver itself took.
    pub driver: DriverCost,
    /// The processes that were watched.
    pub processes: Vec<Process>,
    /// What the proxy refused or made wait for want of room, if there is a way to know.
    pub pressure: Pressure,
    /// The limits and what came of them.
    pub gates: Vec<Gate>,
    /// Why the run did not go on to its end: interrupted, out of time, out of bytes.
    pub cut_short: Option<String>,
    /// A few things that went wrong, in words, of each kind the first.
    pub examples: Vec<Example>,
}

/// The machine; runs are comparable only where this is equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub processor: String,
    /// How many of them this process may use.
    pub processors: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// The kernel and its version.
    pub kernel: String,
    /// How the driver was built: `release` or `debug`.
    pub build: String,
}

/// A part of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// How requests came: `closed`, `constant-rate`, `ramping-rate`, `soak` or `sessions`.
    pub executor: String,
    /// When it began, in seconds of the run.
    pub from: f64,
    /// When its last request ended, in seconds of the run.
    pub to: f64,
    /// The rate that was meant at its end, in requests per second; none for closed loops.
    pub rate: Option<f64>,
    /// Most requests at once.
    pub concurrency: usize,
    /// Requests that were never sent because the run ended before.
    pub unsent: u64,
    /// Requests that were in flight when the run was cut short; how they would have ended is not known, and they
    /// count nowhere else.
    #[serde(default)]
    pub unfinished: u64,
    /// Most requests that were in flight at once.
    pub peak: u64,
}

/// What kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// A turn over HTTP, answered by SSE.
    Responses,
    /// A unary compaction.
    Compact,
    /// A turn on a WebSocket.
    Websocket,
}

/// How a request ended. Exactly one is true of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything came, right to the last byte, and the terminal event with it.
    Ok,
    /// The upstream said no: by status, or in-band with `response.failed`.
    UpstreamError,
    /// The proxy said no, and not for want of room.
    ProxyError,
    /// The proxy refused for want of room.
    Admission,
    /// The reply ended before its end.
    Truncated,
    /// What came is not HTTP, not chunked, not WebSocket, or went on behind its end.
    ProtocolViolation,
    /// The reply is well-formed and not what was asked for: another byte, another account's.
    WrongContent,
    /// It was not over in time.
    Timeout,
    /// There was no connection.
    Connect,
}

impl Outcome {
    /// All of them, `Ok` first.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::UpstreamError,
        Self::ProxyError,
        Self::Admission,
        Self::Truncated,
        Self::ProtocolViolation,
        Self::WrongContent,
        Self::Timeout,
        Self::Connect,
    ];

    /// Its name, as people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UpstreamError => "upstream error",
            Self::ProxyError => "proxy error",
            Self::Admission => "admission",
            Self::Truncated => "truncated",
            Self::ProtocolViolation => "protocol violation",
            Self::WrongContent => "wrong content",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
        }
    }
}

impl Route {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Responses, Self::Compact, Self::Websocket];

    /// Its name, as people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Compact => "compact",
            Self::Websocket => "websocket",
        }
    }
}

/// What was measured of the requests of one stage and route that ended in one way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// The stage's place in [`Run::stages`].
    pub stage: usize,
    /// The kind of request.
    pub route: Route,
    /// How they ended.
    pub outcome: Outcome,
    /// How many.
    pub count: u64,
    /// Events that were checked.
    pub events: u64,
    /// Bytes of bodies and messages received.
    pub bytes: u64,
    /// From when a request was really sent to its end.
    pub service: Times,
    /// From when it was meant to be sent to its end.
    pub response: Times,
    /// From when it was meant to be sent to the first byte of the reply's head.
    pub first_byte: Times,
    /// From when it was meant to be sent to its first content event.
    pub first_content: Times,
    /// Between two events of a stream, as they were read. These and the next but one are of all streams,
    /// and stand with [`Outcome::Ok`]: how a stream ends is not known when its events come.
    pub gap: Times,
    /// What the way there and back added to the first event: from sending to the mock's having the request,
    /// and from the mock's sending it to its arrival. Without a proxy it is what the machine and the mock add.
    pub added: Times,
    /// What the way back added to each later event.
    pub added_event: Times,
}

impl Cell {
    /// Nothing yet.
    #[must_use]
    pub fn new(stage: usize, route: Route, outcome: Outcome) -> Self {
        let (service, response) = (Times::default(), Times::default());
        let (first_byte, first_content) = (Times::default(), Times::default());
        let (gap, added, added_event) = (Times::default(), Times::default(), Times::default());
        Self {
            stage,
            route,
            outcome,
            count: 0,
            events: 0,
            bytes: 0,
            service,
            response,
            first_byte,
            first_content,
            gap,
            added,
            added_event,
        }
    }

    /// Adds what another driver thread measured of the same.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.events += other.events;
        self.bytes += other.bytes;
        self.service.add(&other.service);
        self.response.add(&other.response);
        self.first_byte.add(&other.first_byte);
        self.first_content.add(&other.first_content);
        self.gap.add(&other.gap);
        self.added.add(&other.added);
        self.added_event.add(&other.added_event);
    }
}

/// A histogram of times in microseconds, three digits of each. As JSON it is base64 of HdrHistogram's V2.
#[derive(Debug, Clone)]
pub struct Times(pub Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self::with_digits(3)
    }
}

impl Times {
    /// Nothing yet, with so many digits kept of each: 1 to 5.
    #[must_use]
    pub fn with_digits(digits: u8) -> Self {
        let mut histogram = Histogram::new(digits.clamp(1, 5)).expect("one to five digits are allowed");
        histogram.auto(true);
        Self(histogram)
    }

    /// Records a time; one above [`LONGEST`] counts as that.
    pub fn record(&mut self, micros: u64) {
        let time = micros.min(LONGEST);
        self.0.record(time).expect("a histogram that resizes itself takes every time");
    }

    /// The time that this share of all is not above, in milliseconds; none without any.
    #[must_use]
    pub fn millis(&self, quantile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(quantile) as f64 / 1_000.0)
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("a histogram that resizes itself takes every other");
    }
}

impl Serialize for Times {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut bytes).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)?;
        let mut histogram = Deserializer::new()
            .deserialize::<u64, _>(&mut bytes.as_slice())
            .map_err(|error| D::Error::custom(format!("no histogram: {error:?}")))?;
        histogram.auto(true);
        Ok(Self(histogram))
    }
}

/// What happened in one stretch of the run; by when requests ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tick {
    /// Which: it begins at `index * tick_seconds`.
    pub index: usize,
    /// The stage of the last request that ended in it.
    pub stage: usize,
    /// Requests that were meant to begin in it.
    pub due: u64,
    /// Requests that were sent in it.
    pub sent: u64,
    /// Requests that ended well.
    pub ok: u64,
    /// Requests that ended in another way.
    pub not_ok: u64,
    /// Requests in flight at its end.
    pub in_flight: u64,
    /// Requests that were due and not sent at its end.
    pub late: u64,
    /// Events that were checked.
    pub events: u64,
    /// Bytes of bodies and messages received.
    pub bytes: u64,
    /// Response times of the requests that ended well, with two digits.
    pub response: Times,
    /// Times to the first byte of the same.
    pub first_byte: Times,
}

impl Tick {
    /// Nothing yet.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self {
            index,
            stage: 0,
            due: 0,
            sent: 0,
            ok: 0,
            not_ok: 0,
            in_flight: 0,
            late: 0,
            events: 0,
            bytes: 0,
            response: Times::with_digits(2),
            first_byte: Times::with_digits(2),
        }
    }

    /// Adds what another driver thread did in the same stretch.
    pub fn add(&mut self, other: &Self) {
        self.stage = self.stage.max(other.stage);
        self.due += other.due;
        self.sent += other.sent;
        self.ok += other.ok;
        self.not_ok += other.not_ok;
        self.in_flight += other.in_flight;
        self.late += other.late;
        self.events += other.events;
        self.bytes += other.bytes;
        self.response.add(&other.response);
        self.first_byte.add(&other.first_byte);
    }
}

/// What the driver itself took: its threads alone, the kernel's part of them included.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DriverCost {
    /// How many threads.
    pub threads: usize,
    /// Processor time in user mode, in seconds.
    pub user_seconds: f64,
    /// Processor time in the kernel, in seconds.
    pub system_seconds: f64,
    /// Connections that it opened.
    pub connections: u64,
    /// Requests that it sent.
    pub requests: u64,
}

/// A process that was watched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// What it is: `proxy`, `mock`, or the name of another target.
    pub name: String,
    /// Its id.
    pub pid: u32,
    /// What was seen, in order.
    pub samples: Vec<Sample>,
    /// How its resources grew, where the scenario asks for that.
    pub slopes: Vec<Growth>,
}

/// A process's resources at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When, in seconds of the run.
    pub at: f64,
    /// Processor time so far, in seconds; user mode and kernel.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub rss: u64,
    /// Proportional share of memory in bytes, where it was read.
    pub pss: Option<u64>,
    /// Open file descriptors.
    pub fds: u64,
    /// Those of them that are sockets.
    pub sockets: u64,
    /// Threads.
    pub threads: u64,
}

/// How one resource of a process grew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Growth {
    /// Which: `rss`, `fds`, `threads` or `sockets`.
    pub resource: String,
    /// By how much per hour: bytes, or a number.
    pub per_hour: f64,
    /// The bounds of that.
    pub low: f64,
    /// The bounds of that.
    pub high: f64,
    /// From which second on it was looked at.
    pub from: f64,
    /// What that means.
    pub verdict: Trend,
}

/// Whether something grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trend {
    /// Both bounds are above what is nothing.
    Grows,
    /// Zero is within the bounds, and they are close enough to say so.
    DoesNotGrow,
    /// It took too short a time to say.
    TooShort,
}

/// Requests that a proxy refused, or made wait too long, for want of room. Each cause counts once: a refusal
/// that has its event in the run log is one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pressure {
    /// Causes altogether.
    pub causes: u64,
    /// Refusals that the driver saw.
    pub refusals: u64,
    /// Events of the run log, by their name.
    pub events: Vec<(String, u64)>,
    /// Whether a run log was there to be read.
    pub log_read: bool,
    /// Lines of it that are no events.
    pub unreadable: u64,
}

/// A limit and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// What is limited: `error rate`, `ttft p95`, …
    pub name: String,
    /// The stage it is for; all together without one.
    pub stage: Option<String>,
    /// What was measured. None when there was nothing to measure, which is a failure.
    pub value: Option<f64>,
    /// Most that it may be.
    pub limit: f64,
    /// Unit of both: `ms`, or empty for a share.
    pub unit: String,
    /// Whether the limit is kept.
    pub passed: bool,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The stage's place in [`Run::stages`].
    pub stage: usize,
    /// The kind of request.
    pub route: Route,
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen, in one line.
    pub text: String,
}

impl Run {
    /// Whether all limits were kept, and the run went to its end.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.cut_short.is_none() && self.gates.iter().all(|gate| gate.passed)
    }

    /// Requests that ended, all of them.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.cells.iter().map(|cell| cell.count).sum()
    }

    /// Everything of the cells that a filter takes, as one.
    pub fn merged(&self, take: impl Fn(&Cell) -> bool) -> Cell {
        let mut sum = Cell::new(0, Route::Responses, Outcome::Ok);
        for cell in self.cells.iter().filter(|cell| take(cell)) {
            sum.add(cell);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_survives_json() {
        let mut times = Times::default();
        for time in [0, 1, 999, 1_000_000, LONGEST * 2] {
            times.record(time);
        }
        let text = serde_json::to_string(&times).unwrap();
        let again: Times = serde_json::from_str(&text).unwrap();
        assert_eq!(again.0, times.0);
        let longest = times.millis(1.0).unwrap();
        assert!((3_599_000.0..3_605_000.0).contains(&longest), "{longest}");
        assert_eq!(Times::default().millis(0.5), None);
    }
}
