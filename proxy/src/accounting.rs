//! What a response tells beside its bytes: who owns it from now on, what it cost, how it ended.
//!
//! A tap looks at the bytes as they pass and never delays or changes them. What it cannot read, a stream
//! with an overlong event or an unknown encoding, passes all the same.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wire::http1::ResponseHead;
use wire::limits::{limits_of_headers, windows_of_event};
use wire::responses::{EventKind, EventView, TURN_STATE};
use wire::run_event::RunEvent;
use wire::sse;

use crate::admission::Permit;
use crate::commit::refusal::{Refusal, refusal_of_event};
use crate::exchange::Ties;
use crate::metrics::{Ending, Series};
use crate::pipeline::{Proxy, Tries};
use crate::profile::quota::Source;
use crate::profile::{InFlight, Now};
use crate::selection::affinity;
use crate::state::{Gate, Ticket, Tie};
use crate::trace;

pub mod recent;

use recent::Turn;

/// Longest event that is looked at: as much as Codex takes, and twice that. Completed events repeat the
/// whole output before they say what it cost. Memory is used for one that is not in one piece, while it comes.
pub(crate) const MAX_EVENT: usize = sse::DEFAULT_LIMIT;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Every byte of the response reached the client's socket.
    Complete,
    /// The client went away.
    ClientGone,
    /// The upstream broke off.
    UpstreamCut,
    /// The upstream was silent for too long.
    Idle,
    /// The client did not read for too long.
    SlowClient,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::UpstreamCut => "upstream_cut",
            Self::Idle => "idle",
            Self::SlowClient => "slow_client",
        }
    }

    /// Which leg ended the exchange before its end: by a cut, or by its silence.
    fn leg(self) -> Option<&'static str> {
        match self {
            Self::Complete => None,
            Self::ClientGone | Self::SlowClient => Some("client"),
            Self::UpstreamCut | Self::Idle => Some("upstream"),
        }
    }
}

/// The account of one exchange: dropped when it ends, which is when it is logged.
#[derive(Debug)]
pub struct Account {
    proxy: Arc<Proxy>,
    /// The request's number.
    pub request: u64,
    series: Series,
    in_flight: InFlight,
    permit: Option<Permit>,
    trace: trace::Request,
    started: Instant,
    bytes: u64,
    events: u64,
    outcome: Outcome,
    terminal: Option<EventKind>,
    /// The response whose owner was recorded last, so that each is recorded once.
    bound: Option<Box<str>>,
    /// Whether something was put out that only the account can read.
    has_sealed: bool,
    /// When the last of the bindings that were made for it is durable.
    ticket: Ticket,
    /// With which status the response went to the client, once it does.
    status: Option<u16>,
    /// How long the client waited for its first byte.
    first_byte: Duration,
    /// The beginning of the digest of its conversation's id.
    conversation: Option<[u8; 3]>,
    /// That the account is used up, said by an event that came before the response was committed.
    failure: Option<Refusal>,
}

impl Account {
    /// Opens the account of an exchange that a profile serves. `request` is its number, `series` what it is
    /// counted with, and `started` when it came.
    #[must_use]
    pub fn open(
        proxy: &Arc<Proxy>,
        request: u64,
        series: Series,
        started: Instant,
        in_flight: InFlight,
    ) -> Self {
        Self {
            proxy: Arc::clone(proxy),
            request,
            series,
            in_flight,
            permit: None,
            trace: trace::Request::none(),
            started,
            bytes: 0,
            events: 0,
            outcome: Outcome::ClientGone,
            terminal: None,
            bound: None,
            has_sealed: false,
            ticket: Ticket::DURABLE,
            status: None,
            first_byte: Duration::ZERO,
            conversation: None,
            failure: None,
        }
    }

    /// The profile's name.
    #[must_use]
    pub fn profile(&self) -> &Arc<str> {
        &self.in_flight.profile().name
    }

    /// The proxy.
    #[must_use]
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// The response goes to the client from here on, after these tries, whose permit is held until its last byte.
    pub fn commit(&mut self, status: u16, tries: &mut Tries) {
        self.status = Some(status);
        self.first_byte = self.proxy.control.metrics.first_byte(self.series, self.started);
        let attempts = tries.count();
        self.permit = tries.take_permit();
        let early = std::mem::replace(&mut self.trace, tries.take_trace());
        self.trace.commit(status, attempts, &early);
        if let Some(refusal) = self.failure.take() {
            self.proxy.note_refusal(self.request, self.series.name(), self.in_flight.profile(), &refusal);
        }
        self.proxy.control.log.record(&RunEvent::ProfileCommit {
            request: self.request,
            route: self.series.name().into(),
            profile: (&**self.profile()).into(),
            status,
            attempts,
            ms: milliseconds(self.started),
        });
    }

    /// Takes what the head of a successful response says about the account and the turn.
    pub fn observe_head(&mut self, head: &ResponseHead) {
        if let Some(turn_state) = head.get_str(TURN_STATE) {
            self.bind(Tie::TurnState, turn_state);
        }
        self.observe_limits(head, Source::Response);
    }

    /// Takes what the head of a response says about the account's quota.
    pub fn observe_limits(&self, head: &ResponseHead, source: Source) {
        let limits = limits_of_headers(head.fields());
        if !limits.is_empty() {
            self.in_flight.profile().quota().observe(&limits, source, Now::read());
        }
    }

    /// Makes the profile the owner of the thread and the session, and the one that fresh requests stay
    /// with: a turn of the conversation is its own.
    pub fn bind_conversation(&mut self, ties: &Ties) {
        let ticket = affinity::bind(&self.proxy.control.state, ties, self.profile());
        self.conversation = ties.thread.as_ref().or(ties.session.as_ref()).map(|id| {
            let [one, two, three, ..] = *id;
            [one, two, three]
        });
        self.ticket = self.ticket.max(ticket);
        self.proxy.profiles.set_current(self.in_flight.profile());
        self.serves();
    }

    /// Takes note that the account serves such calls.
    pub fn serves(&self) {
        self.proxy.note_success(self.request, self.series.name(), self.in_flight.profile(), self.started);
    }

    /// Looks at an event of the response.
    pub fn event(&mut self, event: EventView<'_>) {
        self.events += 1;
        match event.kind {
            EventKind::Other => return,
            EventKind::ItemDone => return self.bind_contents(event.encrypted_contents()),
            EventKind::Metadata => {
                if let Some(turn_state) = event.header(TURN_STATE) {
                    self.bind(Tie::TurnState, &turn_state);
                }
            }
            EventKind::RateLimits => {
                let windows = windows_of_event(event.value());
                self.in_flight.profile().quota().observe_own(windows, Source::Response, Now::read());
            }
            EventKind::Failed | EventKind::Error => self.observe_failure(event),
            EventKind::Completed => {
                let profile = self.in_flight.profile();
                let has_lifted = profile.quota().serve(self.started);
                if has_lifted {
                    profile.keep(&self.proxy.control.state);
                }
                self.record_usage(event);
            }
            EventKind::Created | EventKind::InProgress | EventKind::Queued | EventKind::Incomplete => {}
        }
        if event.kind.is_terminal() {
            self.terminal = Some(event.kind);
        }
        if let Some(id) = event.response_id()
            && self.bound.as_deref() != Some(&*id)
        {
            self.bind(Tie::Response, &id);
            self.bound = Some(id.into());
        }
    }

    /// Looks at a response that is one JSON text.
    pub fn document(&mut self, text: &[u8]) {
        self.bind_contents(wire::responses::encrypted_contents(text));
        let id = wire::json::Value::new(text).get("id").and_then(wire::json::Value::as_str);
        if let Some(id) = id {
            self.bind(Tie::Response, &id);
        }
    }

    /// Makes the profile the owner of what only its account can read.
    fn bind_contents<'a>(&mut self, contents: impl Iterator<Item = Cow<'a, str>>) {
        for content in contents {
            self.bind(Tie::Content, &content);
            self.has_sealed = true;
        }
    }

    /// Whether the response has put out something that only its account can read.
    #[must_use]
    pub fn has_sealed(&self) -> bool {
        self.has_sealed
    }

    fn bind(&mut self, tie: Tie, id: &str) {
        self.ticket = self.ticket.max(self.proxy.control.state.bind(tie, id, self.profile()));
    }

    /// What bytes that carry the ids seen so far must wait for, if these are not durable yet.
    pub fn gate(&mut self) -> Option<Gate> {
        match std::mem::take(&mut self.ticket) {
            Ticket::DURABLE => None,
            ticket => self.proxy.control.state.gate(ticket),
        }
    }

    /// Waits until the ids seen so far are durable.
    pub async fn settle(&mut self) {
        if let Some(mut gate) = self.gate() {
            std::future::poll_fn(|context| gate.poll_open(context)).await;
        }
    }

    /// The event that ended the response, if one has.
    #[must_use]
    pub fn terminal(&self) -> Option<EventKind> {
        self.terminal
    }

    /// Counts bytes that were handed to the client's socket.
    pub fn forwarded(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Whether no byte of the response has been handed over yet.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.bytes == 0
    }

    /// Says how the exchange ended. A client that leaves after the last event has got all it wanted.
    pub fn close(&mut self, outcome: Outcome) {
        self.outcome = match outcome {
            Outcome::ClientGone if self.terminal.is_some() => Outcome::Complete,
            outcome => outcome,
        };
    }

    /// Logs an error of the upstream's connection.
    pub fn read_error(&self, error: &str) {
        self.proxy.control.log.record(&RunEvent::StreamReadError {
            request: self.request,
            profile: (&**self.profile()).into(),
            error: error.into(),
        });
    }

    /// A failure that came too late to rotate still says that the account is used up.
    fn observe_failure(&mut self, event: EventView<'_>) {
        let Some(refusal @ Refusal::Quota { .. }) = refusal_of_event(event, Now::unix()) else { return };
        if self.status.is_some() {
            self.proxy.note_refusal(self.request, self.series.name(), self.in_flight.profile(), &refusal);
        } else {
            self.failure = Some(refusal);
        }
    }

    /// What failed is a refusal that is dealt with as one.
    pub fn forget_failure(&mut self) {
        self.failure = None;
    }

    /// Counts the exchange, which has come to its end.
    fn count(&self, status: u16) {
        let metrics = &self.proxy.control.metrics;
        let has_failed = status >= 400 || matches!(self.terminal, Some(EventKind::Failed | EventKind::Error));
        let ending = match self.outcome {
            Outcome::Complete if has_failed => Ending::UpstreamError,
            outcome => outcome.into(),
        };
        metrics.end(self.series, ending);
        let took = self.started.elapsed();
        metrics.duration[self.series.lane() as usize].observe(took);
        metrics.response_bytes.fetch_add(self.bytes, Ordering::Relaxed);
        if self.series.is_turn() {
            self.proxy.recent.push(Turn {
                request: self.request,
                at: Now::read().unix,
                route: self.series.name(),
                profile: Arc::clone(self.profile()),
                ending,
                took,
                first_byte: self.first_byte,
                conversation: self.conversation,
            });
        }
    }

    fn record_usage(&mut self, event: EventView<'_>) {
        let Some(usage) = event.usage() else { return };
        self.proxy.control.metrics.used(&usage);
        self.trace.usage(usage.input, usage.output);
        self.proxy.control.log.record(&RunEvent::TokenUsage {
            request: self.request,
            profile: (&**self.profile()).into(),
            input: usage.input,
            cached: usage.cached,
            output: usage.output,
            total: usage.total,
        });
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some(status) = self.status else { return };
        self.close(self.outcome);
        self.count(status);
        self.trace.end(self.outcome.name(), self.bytes);
        self.proxy.control.log.record(&RunEvent::StreamComplete {
            request: self.request,
            profile: (&*self.in_flight.profile().name).into(),
            outcome: self.outcome.name().into(),
            leg: self.outcome.leg().map(Into::into),
            bytes: self.bytes,
            events: self.events,
            ms: milliseconds(self.started),
        });
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The tap on the body of a response: finds its events, if it is a stream of them.
#[derive(Debug)]
pub struct Tap {
    decoder: Option<sse::Decoder>,
}

impl Tap {
    /// A tap for the body behind this head.
    #[must_use]
    pub fn new(head: &ResponseHead) -> Self {
        Self { decoder: is_event_stream(head).then(|| sse::Decoder::new(MAX_EVENT)) }
    }

    /// Whether events can be found.
    #[must_use]
    pub fn sees_events(&self) -> bool {
        self.decoder.is_some()
    }

    /// Looks at payload that passes.
    pub fn look(&mut self, payload: &[u8], mut each: impl FnMut(EventView<'_>)) {
        let Some(decoder) = &mut self.decoder else { return };
        if decoder.feed(payload, |event| each(EventView::new(event.data))).is_err() {
            self.decoder = None;
        }
    }
}

/// Whether the body is a stream of events that can be read as it comes.
fn is_event_stream(head: &ResponseHead) -> bool {
    let is_stream = head.get_str("content-type").is_some_and(|value| {
        value
            .get(.."text/event-stream".len())
            .is_some_and(|kind| kind.eq_ignore_ascii_case("text/event-stream"))
    });
    let is_plain = head.get("content-encoding").is_none_or(|value| value.eq_ignore_ascii_case(b"identity"));
    is_stream && is_plain
}
