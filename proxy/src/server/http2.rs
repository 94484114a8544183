//! A client's HTTP/2 connection, which Codex opens over TLS for everything but its WebSocket.
//!
//! hyper speaks the protocol; each request becomes the same [`Exchange`] as one over HTTP/1.1 and goes
//! the same way.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::server::TlsStream;
use wire::capture::Closing;
use wire::http1::RequestHead;
use wire::run_event::RunEvent;

use super::Worker;
use crate::attempt::headers::forwarded;
use crate::commit::Committed;
use crate::error::Error;
use crate::exchange::{Exchange, Ties};
use crate::metrics::{Ending, Meter, Series, Transport};
use crate::pipeline::Answer;
use crate::recording::Tap;
use crate::relay::http2::StreamBody;
use crate::reply::Reply;
use crate::route::{Lane, Routed};

/// Most requests at once on one connection. Codex keeps a handful.
const MAX_STREAMS: u32 = 256;

/// How long a connection without requests takes to say goodbye.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection until it ends, or has had no request for too long.
pub(super) async fn serve(worker: &Arc<Worker>, tls: TlsStream<TcpStream>) {
    let requests = Requests::default();
    let connection = worker.proxy.recorder.as_ref().map(|recorder| recorder.connection());
    let service = service_fn(|request: http::Request<Incoming>| {
        let (worker, open) = (Arc::clone(worker), requests.open());
        async move {
            let (parts, incoming) = request.into_parts();
            let recorder = worker.proxy.recorder.as_ref().zip(connection);
            let mut tap = recorder.map(|(recorder, connection)| recorder.begin(connection, &parts));
            let response = respond(&worker, &parts, incoming, &mut tap).await;
            if let Some(tap) = &mut tap {
                tap.answered(response.status(), response.headers());
            }
            Ok::<_, Infallible>(response.map(|body| Response { body, tap, _open: open }))
        }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // What the upstream did not say, the proxy does not say for it.
        .auto_date_header(false)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(wire::http1::MAX_HEAD).unwrap_or(u32::MAX));
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(tls), service));
    tokio::select! {
        // A client that breaks off is not the proxy's error.
        _ = connection.as_mut() => return,
        () = worker.proxy.leaving.cancelled() => {}
        () = requests.none_for(worker.proxy.control.config.keep_alive) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = requests.none_for(FAREWELL) => {}
    }
}

/// The requests of one connection.
#[derive(Debug, Default)]
struct Requests(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Requests {
    fn open(&self) -> Open {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.0))
    }

    fn counts(&self) -> (usize, usize) {
        (self.0.begun.load(Ordering::Relaxed), self.0.ended.load(Ordering::Relaxed))
    }

    /// Returns when there has been no request for this long, and at most twice as long.
    async fn none_for(&self, limit: Duration) {
        loop {
            let (begun, ended) = self.counts();
            #[expect(clippy::disallowed_methods, reason = "looks at the connection from time to time")]
            tokio::time::sleep(limit).await;
            if begun == ended && self.counts() == (begun, ended) {
                return;
            }
        }
    }
}

/// A request that has not ended.
#[derive(Debug)]
struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

async fn respond(
    worker: &Arc<Worker>,
    parts: &http::request::Parts,
    incoming: Incoming,
    tap: &mut Option<Tap>,
) -> http::Response<Payload> {
    let is_to_head = parts.method == http::Method::HEAD;
    match Box::pin(answer(worker, parts, incoming, tap)).await {
        Ok(Answer::Upstream(mut committed)) => {
            // The head may hold an id, and so may what was held; over HTTP/1.1 both wait in the outbox.
            committed.account.settle().await;
            stream(worker, *committed)
        }
        Ok(Answer::Local(reply)) => local(&reply, is_to_head),
        Err(error) => local(&Reply::of(&error), is_to_head),
    }
}

async fn answer(
    worker: &Arc<Worker>,
    parts: &http::request::Parts,
    incoming: Incoming,
    tap: &mut Option<Tap>,
) -> Result<Answer, Error> {
    let proxy = &worker.proxy;
    let (id, started) = (proxy.next_request(), Instant::now());
    let record = |error: &Error| {
        if let Error::Refused { status, reason } = error {
            let event = RunEvent::RequestRefused { request: id, status: *status, reason: (&**reason).into() };
            proxy.control.log.record(&event);
        }
    };
    let checked = check(worker, parts).inspect_err(|error| {
        record(error);
        proxy.control.metrics.end(Series::unrouted(Transport::Http2), Ending::Invalid);
    });
    let (head, target, routed) = checked?;
    let meter = Meter::new(&proxy.control.metrics, Series::of(routed, Transport::Http2));
    let fail = |error: &Error| meter.settle(error.into());
    let permit = proxy.admit(id, routed.lane, &head).await.inspect_err(fail)?;
    let config = &proxy.control.config;
    let body = collect(incoming, config.max_request_body.bytes(), config.request_timeout, tap).await;
    let body = body.inspect_err(|error| {
        fail(error);
        // One whose body breaks off has gone, and is refused nothing.
        if !matches!(error, Error::Refused { status: 400, .. }) {
            record(error);
        }
    })?;
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
    exchange.ties = proxy.ties(&exchange).await;
    Ok(proxy.answer(&worker.connections, &exchange, permit).await)
}

fn check(worker: &Worker, parts: &http::request::Parts) -> Result<(RequestHead, String, Routed), Error> {
    let head = head_of(parts)?;
    let (target, _) = worker.proxy.guard.check(&head)?;
    let routed = Routed::find(&head, target)?;
    if routed.lane == Lane::Websocket {
        return Err(Error::refused(400, "a WebSocket is opened over HTTP/1.1"));
    }
    let target = target.to_owned();
    Ok((head, target, routed))
}

/// The head as HTTP/1.1 has it: what goes upstream is HTTP/1.1. Bodies are framed anew there.
fn head_of(parts: &http::request::Parts) -> Result<RequestHead, Error> {
    let refused = |reason: String| Error::refused(400, reason);
    let target = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let mut text = format!("{} {target} HTTP/1.1\r\n", parts.method).into_bytes();
    let mut line = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            text.extend_from_slice(part);
        }
    };
    if let Some(authority) = parts.uri.authority() {
        line(b"host", authority.as_str().as_bytes());
    }
    for (name, value) in &parts.headers {
        line(name.as_str().as_bytes(), value.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    let head = RequestHead::parse(&text).map_err(|error| refused(error.to_string()))?;
    head.map(|(head, _)| head).ok_or_else(|| refused("the request has no head".to_owned()))
}

/// Reads the body of a request, of which each piece must come in time.
async fn collect(
    mut incoming: Incoming,
    limit: usize,
    patience: Duration,
    tap: &mut Option<Tap>,
) -> Result<Bytes, Error> {
    let mut body = Vec::new();
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut incoming).poll_frame(context));
        let frame = tokio::time::timeout(patience, frame).await;
        let frame = frame.map_err(|_| Error::refused(408, "the request's body did not arrive in time"))?;
        let Some(frame) = frame else {
            tap.iter_mut().for_each(Tap::asked);
            return Ok(body.into());
        };
        let frame = frame.map_err(|_| Error::refused(400, "the request's body broke off"))?;
        if let Ok(data) = frame.into_data() {
            body.extend_from_slice(&data);
            tap.iter_mut().for_each(|tap| tap.received(&data));
        }
        if body.len() > limit {
            return Err(Error::refused(413, "the request's body is longer than allowed (max_request_body)"));
        }
    }
}

/// The response of an upstream.
fn stream(worker: &Worker, committed: Committed) -> http::Response<Payload> {
    let mut response = http::Response::new(());
    // Parsed from three digits, of which the first is at least 1.
    *response.status_mut() = http::StatusCode::from_u16(committed.head.status()).unwrap_or_default();
    for field in forwarded(&committed.head).filter(|field| !field.is("transfer-encoding")) {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
            response.headers_mut().append(name, value);
        }
    }
    let body = StreamBody::new(committed, Arc::clone(&worker.connections));
    response.map(|()| Payload::Stream(Box::new(body)))
}

/// A reply of the proxy's own.
fn local(reply: &Reply, is_to_head: bool) -> http::Response<Payload> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(reply.status).unwrap_or_default();
    for (name, value) in &reply.fields {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    let body = if is_to_head { Bytes::new() } else { reply.body.clone().into() };
    response.map(|()| Payload::Whole(Some(body)))
}

/// The body of a response; with its end the request ends.
struct Response {
    body: Payload,
    /// Where it is recorded.
    tap: Option<Tap>,
    _open: Open,
}

impl Response {
    fn record(&mut self, frame: Option<&io::Result<Frame<Bytes>>>) {
        let Some(tap) = &mut self.tap else { return };
        match frame {
            Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| tap.sent(data.clone())),
            Some(Err(_)) => tap.settle(Closing::Reset),
            None => tap.done(),
        }
    }
}

impl Drop for Response {
    /// The server does not ask for the end of a body whose last frame it has got.
    fn drop(&mut self) {
        if self.tap.is_some() && self.is_end_stream() {
            self.record(None);
        }
    }
}

enum Payload {
    /// One of our own.
    Whole(Option<Bytes>),
    /// One of an upstream.
    Stream(Box<StreamBody>),
}

impl http_body::Body for Response {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let response = self.get_mut();
        let frame = match &mut response.body {
            Payload::Whole(bytes) => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                bytes.map(|bytes| Ok(Frame::data(bytes)))
            }
            Payload::Stream(stream) => ready!(Pin::new(&mut **stream).poll_frame(context)),
        };
        response.record(frame.as_ref());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Payload::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Payload::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Payload::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Payload::Stream(stream) => stream.size_hint(),
        }
    }
}
