//! The point from which a response is the client's: before it a profile may rotate, after it none does.
//!
//! The head of a stream is held together with the events that come before any output; the first other
//! event commits, and so does the limit of what the client tolerates. What was held is forwarded first,
//! in the bytes it came in. [`Committed`] owns the exchange from there on.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use wire::http1::{BodyDecoder, FramingError, ResponseHead};
use wire::responses::EventView;
use wire::route::Call;

use crate::accounting::{Account, Tap};
use crate::attempt::http::{Body, Response};
use crate::error::Error;
use crate::exchange::Exchange;
use crate::pipeline::Proxy;
use crate::profile::Now;
use crate::profile::quota::Source;
use crate::stream::poll_read_scratch;

pub mod refusal;

use refusal::{Refusal, may_be_refusal, refusal_of_event, refusal_of_response};

/// Longest error body that is read to find out whose fault the error is.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// How long an upstream may take to send an error body.
const ERROR_BODY_TIME: Duration = Duration::from_secs(5);

/// A response that will go to the client, and all that is needed to send it.
#[derive(Debug)]
pub struct Committed {
    /// The response's head.
    pub head: ResponseHead,
    /// Its body; what has been read of it is in `held`.
    pub body: Body,
    /// The bytes of the body that have been read, with their framing.
    pub held: Vec<u8>,
    /// Looks at what passes.
    pub tap: Tap,
    /// The exchange's account.
    pub account: Account,
}

/// What became of a response before it was committed.
#[derive(Debug)]
pub enum Judged {
    /// It goes to the client.
    Accepted(Box<Committed>),
    /// It is the refusal of an account; it goes to the client if nobody else serves.
    Refused(Refusal, Box<Committed>),
}

/// What the events of a stream say about its fate; the first that says anything counts.
#[derive(Debug, Default)]
enum Verdict {
    #[default]
    Open,
    Output,
    Refusal(Refusal),
}

impl Verdict {
    fn take(&mut self, event: EventView<'_>, now: i64) {
        if matches!(self, Self::Open) && !event.kind.precedes_output() {
            *self = refusal_of_event(event, now).map_or(Self::Output, Self::Refusal);
        }
    }
}

/// Reads as much of a response as is needed to know whether it is the refusal of an account.
///
/// # Errors
/// When the upstream breaks off before anything could be committed.
pub async fn judge(
    proxy: &Proxy,
    exchange: &Exchange,
    account: Account,
    response: Response,
) -> Result<Judged, Error> {
    let Response { head, mut body } = response;
    let origin = exchange.routed.api;
    if exchange.routed.call.is_model_call()
        && let Some(location) = redirection(&head)
    {
        let origin = proxy.control.origin(origin).to_string();
        return Err(Error::Redirected { origin, location });
    }
    let read = std::mem::take(&mut body.read);
    let tap = Tap::new(&head);
    let mut committed = Box::new(Committed { head, body, held: Vec::new(), tap, account });
    let now = Now::unix();
    let mut verdict = Verdict::default();
    let broken =
        |problem: String| Error::Broken { origin: proxy.control.origin(origin).to_string(), problem };
    committed.hold(read, |event| verdict.take(event, now)).map_err(|error| broken(error.to_string()))?;
    if committed.head.status() >= 400 {
        return Ok(judge_error(exchange, committed, now).await);
    }
    let config = &proxy.control.config;
    let hold = exchange.routed.client.hold_limit(config);
    if hold.is_zero() {
        return Ok(Judged::Accepted(committed));
    }
    let deadline = Instant::now() + hold;
    if !committed.tap.sees_events() {
        if exchange.routed.call == Call::Compact && is_document(&committed.head) {
            committed.observe_document(deadline, config.hold_bytes.bytes()).await;
        }
        return Ok(Judged::Accepted(committed));
    }
    loop {
        match verdict {
            Verdict::Output => return Ok(Judged::Accepted(committed)),
            Verdict::Refusal(refusal) => {
                committed.account.forget_failure();
                return Ok(Judged::Refused(refusal, committed));
            }
            Verdict::Open => {}
        }
        let is_done = committed.body.decoder.is_done() || !committed.tap.sees_events();
        if is_done || committed.held.len() >= config.hold_bytes.bytes() {
            return Ok(Judged::Accepted(committed));
        }
        let reading = committed.read_and_hold(|event| verdict.take(event, now));
        match timeout_at(deadline, reading).await {
            Err(_) => return Ok(Judged::Accepted(committed)),
            Ok(Err(error)) => return Err(broken(error.to_string())),
            Ok(Ok(0)) if committed.body.decoder.may_end_at_close() => return Ok(Judged::Accepted(committed)),
            Ok(Ok(0)) => return Err(broken("the stream ended before any output".to_owned())),
            Ok(Ok(_)) => {}
        }
    }
}

/// Whether the body is one JSON text that can be read: of no use to anybody before its end.
fn is_document(head: &ResponseHead) -> bool {
    let is_json = head.get_str("content-type").is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    });
    let is_plain = head.get("content-encoding").is_none_or(|value| value.eq_ignore_ascii_case(b"identity"));
    (200..300).contains(&head.status()) && is_json && is_plain
}

/// Where a model request is sent to instead, if that is another address: Codex would follow with method,
/// body and bearer (measured), and the turn would go around the proxy. A path alone leads back here.
fn redirection(head: &ResponseHead) -> Option<String> {
    if !matches!(head.status(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = head.get_str("location")?;
    let is_path = location.starts_with('/') && !location.starts_with("//");
    (!is_path).then(|| location.split(['?', '#']).next().unwrap_or_default().chars().take(200).collect())
}

/// Reads the body of an error, where it matters whose fault it is.
async fn judge_error(exchange: &Exchange, mut committed: Box<Committed>, now: i64) -> Judged {
    if !may_be_refusal(committed.head.status()) {
        return Judged::Accepted(committed);
    }
    // What there is can be judged; the relay meets the same end.
    committed.hold_body(Instant::now() + ERROR_BODY_TIME, MAX_ERROR_BODY).await;
    let body = committed.payload();
    match refusal_of_response(&committed.head, &body, now) {
        // Nobody's token was refused if none was sent.
        Some(Refusal::Auth) if !exchange.is_authorised() => Judged::Accepted(committed),
        Some(refusal) => {
            if matches!(refusal, Refusal::Quota { .. }) {
                committed.account.observe_limits(&committed.head, Source::Refusal);
            }
            Judged::Refused(refusal, committed)
        }
        None => Judged::Accepted(committed),
    }
}

impl Committed {
    /// Reads the body up to its end, `limit` bytes or the deadline.
    async fn hold_body(&mut self, deadline: Instant, limit: usize) {
        while !self.body.decoder.is_done() && self.held.len() <= limit {
            match timeout_at(deadline, self.read_and_hold(|_| {})).await {
                Ok(Ok(count)) if count > 0 => {}
                _ => break,
            }
        }
    }

    /// What of the body is held, without its framing.
    fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        // What is held has been decoded once without an error.
        let _ = self.body.length.decoder().decode(&self.held, |part| payload.extend_from_slice(part));
        payload
    }

    /// Looks at the response of a compaction, which is one JSON text, before any of it is the client's. One
    /// that is too long, or too long on its way, passes without: its items are then held to be those of the
    /// conversation's account.
    async fn observe_document(&mut self, deadline: Instant, limit: usize) {
        self.hold_body(deadline, limit).await;
        if self.body.decoder.is_done() {
            self.account.document(&self.payload());
        }
    }

    /// Keeps the first bytes of the body, which came with the head, and looks at what they carry.
    fn hold(&mut self, mut bytes: Vec<u8>, mut each: impl FnMut(EventView<'_>)) -> Result<(), FramingError> {
        let Self { body, held, tap, account, .. } = self;
        let consumed = look(&mut body.decoder, &mut body.keeps_alive, tap, account, &bytes, &mut each)?;
        bytes.truncate(consumed);
        *held = bytes;
        Ok(())
    }

    /// Reads once, keeps what came and looks at it. Says how many bytes came; 0 at the end.
    async fn read_and_hold(&mut self, mut each: impl FnMut(EventView<'_>)) -> io::Result<usize> {
        let Self { body, held, tap, account, .. } = self;
        std::future::poll_fn(|context| {
            let Body { stream, decoder, keeps_alive, .. } = body;
            let read = poll_read_scratch(stream, context, |bytes| {
                let consumed = look(decoder, keeps_alive, tap, account, bytes, &mut each)?;
                held.extend_from_slice(&bytes[..consumed]);
                Ok(bytes.len())
            });
            read.map(|read| read?.map_err(|error: FramingError| io::Error::other(error)))
        })
        .await
    }
}

/// Looks at what bytes of the body carry. Says how many of them are the body's.
fn look(
    decoder: &mut BodyDecoder,
    keeps_alive: &mut bool,
    tap: &mut Tap,
    account: &mut Account,
    bytes: &[u8],
    each: &mut impl FnMut(EventView<'_>),
) -> Result<usize, FramingError> {
    let decoded = decoder.decode(bytes, |payload| {
        tap.look(payload, |event| {
            account.event(event);
            each(event);
        });
    })?;
    // Bytes behind the end of the body answer nothing: the connection is not used again.
    *keeps_alive &= decoded.consumed == bytes.len();
    Ok(decoded.consumed)
}
