//! A client's HTTP/1.1 connection: one request after the other, read, guarded, answered.
//!
//! While a request is answered the client is watched: one that goes away takes its request with it. What
//! it sends meanwhile is its next request.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::OnceCell;
use wire::http1::{BodyLength, HeadError, RequestHead};
use wire::run_event::RunEvent;

use super::Worker;
use crate::accounting::Outcome;
use crate::admission::Permit;
use crate::attempt::headers::forwarded;
use crate::attempt::websocket::{Opened, accept_key};
use crate::error::Error;
use crate::exchange::{Exchange, Ties};
use crate::metrics::{Ending, Meter, Series, Transport};
use crate::pipeline::{Answer, Tries, Upgraded};
use crate::relay;
use crate::reply::Reply;
use crate::route::{Lane, Routed};
use crate::stream::{Stream, gone, read_and_take, read_some, take_front};

/// Memory that is set aside for a body on the word of its length alone.
const TRUSTED_LENGTH: usize = 1024 * 1024;

/// How much of a refused request is read and thrown away so that its client gets to the reply.
const MAX_LINGER: usize = 1024 * 1024;

/// How long that may take.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

/// A connection and what has been read of it.
struct Connection<'a> {
    worker: &'a Arc<Worker>,
    stream: Stream,
    input: Vec<u8>,
    /// Whether the current request is a `HEAD`, whose reply has no body.
    is_to_head: bool,
}

/// A request that could be read.
struct Request {
    exchange: Exchange,
    /// The right to be in flight, or that of a WebSocket to be open; the memory of its body is bounded by it.
    permit: Permit,
    keep_alive: bool,
}

/// Serves a connection until it ends.
pub(super) async fn serve(worker: &Arc<Worker>, stream: Stream) {
    let mut connection = Connection { worker, stream, input: Vec::new(), is_to_head: false };
    loop {
        // The state of a request is large and that of a held stream must be small, so each phase has
        // its own memory and gives it back.
        match Box::pin(connection.read()).await {
            Ok(Some(request)) if request.exchange.routed.lane == Lane::Websocket => {
                return Box::pin(connection.websocket(request.exchange, request.permit)).await;
            }
            Ok(Some(request)) => match connection.answer(request).await {
                Some(next) => connection = next,
                None => return,
            },
            Ok(None) => return,
            Err(error) => return Box::pin(connection.refuse(&error)).await,
        }
    }
}

impl<'a> Connection<'a> {
    /// Reads the next request. None when the client has ended the connection, or should not go on.
    async fn read(&mut self) -> Result<Option<Request>, Error> {
        let worker = self.worker;
        let config = &worker.proxy.control.config;
        let mut head = None;
        if self.input.is_empty() {
            let beginning = read_and_take(&mut self.stream, &mut self.input, take_head);
            tokio::select! {
                read = tokio::time::timeout(config.keep_alive, beginning) => match read {
                    Ok(Ok((1.., taken))) => head = taken,
                    _ => return Ok(None),
                },
                () = worker.proxy.draining.cancelled() => return Ok(None),
            }
        }
        if head.is_none() {
            let rest = tokio::time::timeout(config.request_timeout, self.read_head()).await;
            let late = |_| Error::refused(408, "the request's head did not arrive in time");
            head = rest.map_err(late).inspect_err(|error| self.record_unrouted(None, error))?;
        }
        let Some(head) = head else { return Ok(None) };
        let head = head.map_err(head_refusal).inspect_err(|error| self.record_unrouted(None, error))?;
        self.is_to_head = head.method() == "HEAD";
        let id = worker.proxy.next_request();
        let started = Instant::now();
        let checked = self.check(&head);
        let (target, length, routed) = checked.inspect_err(|error| self.record_unrouted(Some(id), error))?;
        let meter = Meter::new(&worker.proxy.control.metrics, Series::of(routed, Transport::Http1));
        if worker.proxy.draining.is_cancelled() {
            meter.settle(Ending::Draining);
            return Err(Error::Draining);
        }
        let fail = |error: &Error| meter.settle(error.into());
        let Some(permit) = self.admit(id, routed.lane, &head).await.inspect_err(fail)? else {
            return Ok(None);
        };
        let keep_alive = !wants_close(&head);
        let body = self.read_body(&head, length).await.inspect_err(fail);
        let Some(body) = body.inspect_err(|error| self.record_refusal(id, error))? else { return Ok(None) };
        let mut exchange = Exchange {
            id,
            started,
            target,
            routed,
            head,
            body,
            ties: Ties::default(),
            stripped: OnceCell::new(),
            meter,
        };
        exchange.ties = worker.proxy.ties(&exchange).await;
        Ok(Some(Request { exchange, permit, keep_alive }))
    }

    /// Admits the request. None when the client goes away while it waits.
    async fn admit(&mut self, id: u64, lane: Lane, head: &RequestHead) -> Result<Option<Permit>, Error> {
        let proxy = &self.worker.proxy;
        if lane == Lane::Websocket {
            return proxy.admit_socket(id).map(Some);
        }
        tokio::select! {
            biased;
            permit = proxy.admit(id, lane, head) => permit.map(Some),
            () = gone(&mut self.stream, &mut self.input) => Ok(None),
        }
    }

    fn check(&self, head: &RequestHead) -> Result<(String, BodyLength, Routed), Error> {
        let (target, length) = self.worker.proxy.guard.check(head)?;
        let routed = Routed::find(head, target)?;
        let limit = self.worker.proxy.control.config.max_request_body.bytes() as u64;
        if matches!(length, BodyLength::Exact(length) if length > limit) {
            return Err(too_large());
        }
        if routed.lane == Lane::Websocket && (head.method() != "GET" || length != BodyLength::None) {
            // What comes behind an upgrade is frames; a body there would be read as both.
            return Err(Error::refused(400, "a WebSocket is asked for with GET and without a body"));
        }
        Ok((target.to_owned(), length, routed))
    }

    /// Reads a head that has begun. None when the client ends the connection within it.
    async fn read_head(&mut self) -> Option<Result<RequestHead, HeadError>> {
        let mut head = take_front(&mut self.input, take_head);
        while head.is_none() {
            match read_and_take(&mut self.stream, &mut self.input, take_head).await {
                Ok((1.., taken)) => head = taken,
                _ => return None,
            }
        }
        head
    }

    /// Reads the request's body. None when the client breaks off.
    async fn read_body(&mut self, head: &RequestHead, length: BodyLength) -> Result<Option<Bytes>, Error> {
        if length == BodyLength::None {
            return Ok(Some(Bytes::new()));
        }
        if head.get("expect").is_some() && self.input.is_empty() {
            let goes_on = self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            if goes_on.is_err() || self.stream.flush().await.is_err() {
                return Ok(None);
            }
        }
        match length {
            BodyLength::Exact(length) => self.read_exact(usize::try_from(length).unwrap_or(usize::MAX)).await,
            _ => self.read_chunked(length).await,
        }
    }

    /// Reads a body whose length is known straight into the memory it stays in.
    async fn read_exact(&mut self, length: usize) -> Result<Option<Bytes>, Error> {
        let early = self.input.len().min(length);
        let rest = self.input.split_off(early);
        let mut body = std::mem::replace(&mut self.input, rest);
        body.reserve_exact(length.min(TRUSTED_LENGTH).saturating_sub(body.len()));
        let limit = self.worker.proxy.control.config.request_timeout;
        while body.len() < length {
            if body.len() == body.capacity() {
                body.reserve(body.len().min(length - body.len()));
            }
            let left = (length - body.len()) as u64;
            let mut bounded = (&mut self.stream).take(left);
            let read = tokio::time::timeout(limit, bounded.read_buf(&mut body)).await;
            match read.map_err(|_| Error::refused(408, "the request's body did not arrive in time"))? {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(None),
            }
        }
        Ok(Some(body.into()))
    }

    async fn read_chunked(&mut self, length: BodyLength) -> Result<Option<Bytes>, Error> {
        let config = &self.worker.proxy.control.config;
        let (limit, max) = (config.request_timeout, config.max_request_body.bytes());
        let mut decoder = length.decoder();
        let mut body = Vec::new();
        loop {
            let decoded = decoder.decode(&self.input, |payload| body.extend_from_slice(payload));
            let decoded = decoded.map_err(|error| Error::refused(400, error.to_string()))?;
            self.input.drain(..decoded.consumed);
            if body.len() > max {
                return Err(too_large());
            }
            if decoded.is_done {
                return Ok(Some(body.into()));
            }
            let read = tokio::time::timeout(limit, read_some(&mut self.stream, &mut self.input)).await;
            match read.map_err(|_| Error::refused(408, "the request's body did not arrive in time"))? {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(None),
            }
        }
    }

    /// Has a request answered and sends the answer. None when the connection has ended.
    async fn answer(mut self, request: Request) -> Option<Self> {
        let worker = self.worker;
        let Request { exchange, permit, keep_alive } = request;
        let answering = Box::pin(worker.proxy.answer(&worker.connections, &exchange, permit));
        let answer = tokio::select! {
            answer = answering => answer,
            () = gone(&mut self.stream, &mut self.input) => return None,
        };
        let keep_alive = keep_alive && !worker.proxy.leaving.is_cancelled();
        drop(exchange);
        let committed = match answer {
            Answer::Local(reply) => return self.reply(&reply, keep_alive).await,
            Answer::Upstream(committed) => *committed,
        };
        let Self { mut stream, mut input, .. } = self;
        let ended = relay::run(&mut stream, &mut input, &worker.connections, committed, keep_alive).await;
        if ended.keeps_alive {
            return Some(Self { worker, stream, input, is_to_head: false });
        }
        if ended.outcome == Outcome::Complete {
            say_goodbye(&mut stream).await;
        } else if ended.ends_by_close {
            stream.abort();
        }
        None
    }

    /// Has an upgrade answered and relays the WebSocket.
    async fn websocket(mut self, exchange: Exchange, permit: Permit) {
        let worker = self.worker;
        let proxy = &worker.proxy;
        let Some(key) = websocket_key(&exchange.head) else {
            let error = Error::refused(400, "the WebSocket upgrade is malformed, or not of version 13");
            exchange.meter.settle(Ending::Invalid);
            self.record_refusal(exchange.id, &error);
            return self.refuse(&error).await;
        };
        let mut tries = Tries::new(&proxy.control, &exchange, permit);
        let upgrading = Box::pin(proxy.upgrade(&worker.connections, &exchange, &mut tries));
        let upgraded = tokio::select! {
            upgraded = upgrading => upgraded,
            () = gone(&mut self.stream, &mut self.input) => return,
        };
        match upgraded {
            Upgraded::Local(reply) => drop(self.reply(&reply, false).await),
            Upgraded::Upstream(committed) => {
                let Self { mut stream, mut input, .. } = self;
                relay::run(&mut stream, &mut input, &worker.connections, *committed, false).await;
            }
            Upgraded::Opened(opened, profile) => {
                let greeting = greeting(&opened, &accept_key(&key));
                let permit = tries.take_permit();
                // They hold what was refused, and the profile if it was half open: it is the first turn's.
                drop(tries);
                let client = relay::websocket::Client {
                    stream: self.stream,
                    input: self.input,
                    exchange: &exchange,
                    permit,
                };
                Box::pin(relay::websocket::run(
                    proxy,
                    &worker.connections,
                    client,
                    opened,
                    profile,
                    &greeting,
                ))
                .await;
            }
        }
    }

    /// Sends a reply of the proxy's own. None when the connection does not go on.
    async fn reply(mut self, reply: &Reply, keep_alive: bool) -> Option<Self> {
        let bytes = reply.encode(keep_alive, self.is_to_head);
        let limit = self.worker.proxy.control.config.write_timeout;
        let sending = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        let is_sent = matches!(tokio::time::timeout(limit, sending).await, Ok(Ok(())));
        if is_sent && keep_alive {
            return Some(self);
        }
        if is_sent {
            say_goodbye(&mut self.stream).await;
        }
        None
    }

    /// Refuses a request of which not everything has been read, and ends the connection: what is left of
    /// the request must not be taken for the next one.
    async fn refuse(mut self, error: &Error) {
        let bytes = Reply::of(error).encode(false, self.is_to_head);
        let farewell = async {
            self.stream.write_all(&bytes).await?;
            self.stream.shutdown().await?;
            // A connection that is closed with bytes unread is reset, and the reply with it.
            let mut thrown_away = 0;
            while thrown_away < MAX_LINGER {
                self.input.clear();
                match read_some(&mut self.stream, &mut self.input).await? {
                    0 => break,
                    count => thrown_away += count,
                }
            }
            std::io::Result::Ok(())
        };
        // Best effort: the client may be gone.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }

    fn record_refusal(&self, request: u64, error: &Error) {
        if let Error::Refused { status, reason } = error {
            let event = RunEvent::RequestRefused { request, status: *status, reason: (&**reason).into() };
            self.worker.proxy.control.log.record(&event);
        }
    }

    /// The same for a request that is counted nowhere else; one of which there was no head gets its number here.
    fn record_unrouted(&self, request: Option<u64>, error: &Error) {
        let proxy = &self.worker.proxy;
        self.record_refusal(request.unwrap_or_else(|| proxy.next_request()), error);
        proxy.control.metrics.end(Series::unrouted(Transport::Http1), Ending::Invalid);
    }
}

/// Ends a connection over which the client has got everything. TLS has a last word, for which there may be
/// no room; and a connection that is already gone needs no end.
async fn say_goodbye(stream: &mut Stream) {
    let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
}

fn too_large() -> Error {
    Error::refused(413, "the request's body is longer than allowed (max_request_body)")
}

/// The head at the front of what was read, or what is wrong with it, once that is known.
fn take_head(bytes: &[u8]) -> Option<(Result<RequestHead, HeadError>, usize)> {
    match RequestHead::parse(bytes) {
        Ok(head) => head.map(|(head, end)| (Ok(head), end)),
        Err(error) => Some((Err(error), 0)),
    }
}

fn head_refusal(error: HeadError) -> Error {
    let status = match error {
        HeadError::TooLong | HeadError::TooManyFields => 431,
        HeadError::Version => 505,
        HeadError::BareLineFeed | HeadError::Malformed(_) => 400,
    };
    Error::refused(status, error.to_string())
}

fn wants_close(head: &RequestHead) -> bool {
    head.fields().filter(|field| field.is("connection")).any(|field| {
        field
            .text()
            .is_some_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close")))
    })
}

/// The client's key, if its upgrade is one of RFC 6455.
fn websocket_key(head: &RequestHead) -> Option<String> {
    let is_thirteen = head.get("sec-websocket-version") == Some(b"13");
    let names_upgrade = head.fields().filter(|field| field.is("connection")).any(|field| {
        field
            .text()
            .is_some_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
    });
    let key = head.get_str("sec-websocket-key").filter(|key| key.len() == 24);
    key.filter(|_| is_thirteen && names_upgrade).map(str::to_owned)
}

/// The response to the client's upgrade: the upstream's, with what belongs to this hop in its place. No
/// extension is agreed to, so that frames can pass as they are.
fn greeting(opened: &Opened, accept: &str) -> Vec<u8> {
    let mut out =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n".to_vec();
    out.extend_from_slice(format!("sec-websocket-accept: {accept}\r\n").as_bytes());
    for field in forwarded(&opened.head) {
        out.extend_from_slice(field.line);
    }
    out.extend_from_slice(b"\r\n");
    out
}
