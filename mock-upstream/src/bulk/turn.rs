//! Playing a reply: which of its events, with which pauses and writes, and what goes wrong with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::connection::{Wire, open_turn};
use super::known::Known;
use super::reply::{self, Framing};
use crate::connection::Gone;
use crate::content::{
    self, Ask, Content, Fault, LineEnd, TURN_STATE_PREFIX, Template, Values, now, time_field,
};
use crate::metrics::count;

/// A model call that is to be answered.
pub(super) struct Order {
    ask: Ask,
    reply: Reply,
    known: Arc<Known>,
    template: Arc<Template>,
    /// What is wrong with the reply.
    fault: Fault,
    /// When the request was there, in nanoseconds of the clock that replies tell times of.
    pub(super) received: u64,
    /// Whether the connection is closed behind the reply.
    closes: bool,
}

/// In which form the reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Sse,
    Unary,
    Messages,
}

/// A part of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// An event as it should be.
    Event(usize),
    /// An event with one letter that is another.
    Wrong(usize),
    /// An event that says that the turn has failed, for this reason.
    Failed(&'static str),
    /// The first half of a unary body.
    Half,
}

/// How a reply ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// In good order.
    Clean,
    /// The connection is closed.
    Fin,
    /// The connection is reset.
    Reset,
    /// Nothing more comes.
    Silence,
}

impl Order {
    pub(super) fn new(ask: Ask, reply: Reply, known: Arc<Known>, closes: bool) -> Self {
        let framing = match reply {
            Reply::Sse => Framing::Chunked,
            Reply::Unary => Framing::Length,
            Reply::Messages => Framing::Messages,
        };
        let template = reply::ready(framing, ask.shape);
        let fault = if ask.is_struck(known.name.as_bytes()) { ask.fault } else { Fault::None };
        Self { ask, reply, template, fault, known, received: now(), closes }
    }

    /// What is wrong with the reply.
    pub(super) fn fault(&self) -> Fault {
        self.fault
    }

    /// The status and body of a reply that is no turn at all.
    pub(super) fn refusal(&self) -> Option<(&'static str, &'static str)> {
        match (self.fault, self.reply) {
            (Fault::Unavailable, _) => Some(("503 Service Unavailable", UNAVAILABLE)),
            (Fault::RateLimited, _) => Some(("429 Too Many Requests", RATE_LIMITED)),
            (Fault::UsageLimit, _) => Some(("429 Too Many Requests", USAGE_LIMIT)),
            // A unary reply has no band to fail in.
            (Fault::Failed | Fault::InsufficientQuota, Reply::Unary) => {
                Some(("500 Internal Server Error", UNAVAILABLE))
            }
            _ => None,
        }
    }

    /// How many parts there are.
    fn parts(&self) -> usize {
        let events = self.template.ends.len();
        match self.fault {
            Fault::Failed | Fault::InsufficientQuota => 2,
            Fault::Cut | Fault::Reset | Fault::Silence => (events / 2).max(1),
            Fault::NoTerminal => (events - 1).max(1),
            Fault::Double => events + 1,
            _ => events,
        }
    }

    fn part(&self, number: usize) -> Part {
        let last = self.template.ends.len() - 1;
        match self.fault {
            Fault::Failed if number == 1 => Part::Failed("server_error"),
            Fault::InsufficientQuota if number == 1 => Part::Failed("insufficient_quota"),
            Fault::WrongByte if number == last / 2 => Part::Wrong(number),
            Fault::Cut | Fault::Reset | Fault::Silence | Fault::NoTerminal if last == 0 => Part::Half,
            _ => Part::Event(number.min(last)),
        }
    }

    pub(super) fn ending(&self) -> Ending {
        match self.fault {
            Fault::Cut => Ending::Fin,
            Fault::Reset => Ending::Reset,
            Fault::Silence => Ending::Silence,
            _ => Ending::Clean,
        }
    }

    /// Renders some of the parts, as sent now.
    fn render(&self, parts: std::ops::Range<usize>, out: &mut Vec<u8>) {
        let Self { ask: Ask { nonce, shape, .. }, known, template, .. } = self;
        let values = Values { nonce: *nonce, account: known.field, received: time_field(self.received) };
        let sent = time_field(now());
        if self.fault == Fault::None {
            return template.render(parts.start, parts.end, &values, &sent, out);
        }
        for number in parts {
            let start = out.len();
            match self.part(number) {
                Part::Event(event) => template.render(event, event + 1, &values, &sent, out),
                Part::Wrong(event) => {
                    template.render(event, event + 1, &values, &sent, out);
                    spoil(&mut out[start..]);
                }
                Part::Half => {
                    template.render(0, 1, &values, &sent, out);
                    out.truncate(start + (out.len() - start) / 2);
                }
                Part::Failed(code) => self.render_failed(&content::failed(code, nonce), shape.line_end, out),
            }
        }
    }

    fn render_failed(&self, json: &str, line_end: LineEnd, out: &mut Vec<u8>) {
        if self.reply == Reply::Messages {
            reply::frame_begin(json.len(), out);
            return out.extend_from_slice(json.as_bytes());
        }
        let end = if line_end == LineEnd::Lf { "\n" } else { "\r\n" };
        let event = format!("event: response.failed{end}data: {json}{end}{end}");
        reply::chunk_begin(event.len(), out);
        out.extend_from_slice(event.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// The head of the response.
    fn render_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        if self.closes {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(QUOTA);
        match self.reply {
            Reply::Sse => {
                out.extend_from_slice(b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n");
                out.extend_from_slice(b"x-codex-turn-state: ");
                out.extend_from_slice(TURN_STATE_PREFIX.as_bytes());
                out.extend_from_slice(&self.known.field);
                out.extend_from_slice(b"\r\n\r\n");
            }
            Reply::Unary | Reply::Messages => {
                out.extend_from_slice(b"content-type: application/json\r\ncontent-length: ");
                let whole = self.template.bytes.len();
                let length = match self.fault {
                    // An orderly end that comes too early.
                    Fault::NoTerminal => whole / 2,
                    Fault::Double => whole * 2,
                    _ => whole,
                };
                push_number(length, out);
                out.extend_from_slice(b"\r\n\r\n");
            }
        }
    }

    /// How long to wait before a part.
    fn delay(&self, shared: &Shared, number: usize) -> Duration {
        let plain = if number == 0 { self.ask.first_byte } else { self.ask.gap };
        if self.ask.jitter.is_zero() {
            return plain;
        }
        // SplitMix64 over seed, nonce and place: the same run has the same jitter.
        let nonce = self.ask.nonce.iter().fold(0_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
        let mut mixed = shared.seed ^ nonce ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let microseconds = u64::try_from(self.ask.jitter.as_micros()).unwrap_or(u64::MAX - 1);
        plain + Duration::from_micros((mixed ^ (mixed >> 31)) % (microseconds + 1))
    }

    fn is_paced(&self) -> bool {
        !(self.ask.gap.is_zero() && self.ask.jitter.is_zero())
    }
}

/// Plays a reply over HTTP. Gives the connection back if it serves another request.
pub(super) async fn play(shared: &Shared, mut wire: Wire, order: &Order) -> Option<Wire> {
    let counts = &order.known.counts;
    count(if order.reply == Reply::Unary { &counts.unary } else { &counts.streams });
    let _open = open_turn(&shared.counters);
    if order.fault != Fault::None {
        count(&counts.faults);
    }
    let Ok(ending) = send(shared, &mut wire, order).await else {
        count(&counts.client_gone);
        return None;
    };
    match ending {
        Ending::Clean if !order.closes => return Some(wire),
        Ending::Clean | Ending::Fin => {}
        Ending::Reset => wire.reset(),
        Ending::Silence => wire.until_gone().await,
    }
    None
}

async fn send(shared: &Shared, wire: &mut Wire, order: &Order) -> Result<Ending, Gone> {
    if let Some((status, body)) = order.refusal() {
        pause(shared, wire, order.delay(shared, 0), Instant::now()).await?;
        let sent = wire.send(shared, |out| super::control::render(status, body, out)).await?;
        order.known.counts.bytes_sent.fetch_add(sent as u64, Ordering::Relaxed);
        return Ok(Ending::Clean);
    }
    events(shared, wire, order, order.reply != Reply::Messages).await
}

/// Sends the events of a reply, behind its head if it has one.
pub(super) async fn events(
    shared: &Shared,
    wire: &mut Wire,
    order: &Order,
    has_head: bool,
) -> Result<Ending, Gone> {
    let (parts, ending) = (order.parts(), order.ending());
    let ends_body = order.reply == Reply::Sse && ending == Ending::Clean;
    let render = |range: std::ops::Range<usize>, out: &mut Vec<u8>| {
        if range.start == 0 && has_head {
            order.render_head(out);
        }
        let ends = range.end == parts && ends_body;
        order.render(range, out);
        if ends {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    };
    let mut due = Instant::now();
    let first = order.delay(shared, 0);
    due = pause(shared, wire, first, due).await?;
    let mut sent = 0;
    if order.ask.shape.in_one_write {
        sent = wire.send(shared, |out| render(0..parts, out)).await?;
    } else {
        // What comes twice comes at once: a client that has read its last event may look no further.
        let writes = if order.fault == Fault::Double { parts - 1 } else { parts };
        for number in 0..writes {
            let end = if number + 1 == writes { parts } else { number + 1 };
            if number > 0 && order.is_paced() {
                due = pause(shared, wire, order.delay(shared, number), due).await?;
            } else if number % TURNS_OF_OTHERS == TURNS_OF_OTHERS - 1 {
                tokio::task::yield_now().await;
            }
            sent += wire.send(shared, |out| render(number..end, out)).await?;
        }
    }
    let counts = &order.known.counts;
    counts.bytes_sent.fetch_add(sent as u64, Ordering::Relaxed);
    if order.reply != Reply::Unary {
        if order.ask.shape.content == Content::Compaction {
            count(&counts.compactions);
        }
        counts.events.fetch_add(parts as u64, Ordering::Relaxed);
    }
    Ok(ending)
}

/// After so many events without a pause the other connections have their turn.
const TURNS_OF_OTHERS: usize = 32;

/// Waits, counted from when the last wait was to end: what the sending takes does not add up over a stream.
/// Says when this one was to end.
async fn pause(shared: &Shared, wire: &mut Wire, delay: Duration, from: Instant) -> Result<Instant, Gone> {
    let until = from + delay;
    if !delay.is_zero() {
        wire.pause(shared, until).await?;
    }
    Ok(until)
}

/// Makes the letter before the last quotation mark another one.
fn spoil(event: &mut [u8]) {
    if let Some(quote) = memchr::memrchr(b'"', event)
        && let Some(letter) = quote.checked_sub(1).and_then(|at| event.get_mut(at))
    {
        *letter = if *letter == b'!' { b'?' } else { b'!' };
    }
}

fn push_number(number: usize, out: &mut Vec<u8>) {
    let start = out.len();
    let mut rest = number;
    loop {
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out[start..].reverse();
}

/// What the backend tells of an account's quota with every response, as measured with Codex 0.149 and 0.169:
/// a primary window of five hours and a secondary of a week, both with plenty left.
const QUOTA: &[u8] = b"x-codex-primary-used-percent: 12\r\nx-codex-primary-window-minutes: 300\r\n\
    x-codex-primary-reset-at: 4102444800\r\nx-codex-secondary-used-percent: 34\r\n\
    x-codex-secondary-window-minutes: 10080\r\nx-codex-secondary-reset-at: 4102444800\r\n";

/// An error body in which [`content::ASKED_FOR`] says whose it is.
macro_rules! asked_for {
    ($before:literal, $behind:literal) => {
        concat!($before, "asked for by the load driver", $behind)
    };
}

const UNAVAILABLE: &str =
    asked_for!(r#"{"error":{"message":""#, r#"","type":"server_error","code":"server_error"}}"#);

const RATE_LIMITED: &str =
    asked_for!(r#"{"error":{"message":""#, r#"","type":"requests","code":"rate_limit_exceeded"}}"#);

const USAGE_LIMIT: &str = asked_for!(
    r#"{"error":{"type":"usage_limit_reached","message":""#,
    r#"","plan_type":"plus","resets_at":4102444800,"resets_in_seconds":3600}}"#
);
