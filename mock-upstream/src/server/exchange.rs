//! The exchanges of a connection: each request is read whole, answered, and entered into the journal.

use std::borrow::Cow;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use wire::capture::Direction;
use wire::http1::RequestHead;

use super::{Server, play};
use crate::chatgpt::{Backend, Body, Incoming, Plan, Refusal, call_of};
use crate::connection::{Connection, Gone, ReadError};
use crate::journal::{Answer, End, Exchange, HowEnded, Kind, Message};
use crate::metrics::{Metrics, count};
use crate::script::{CallName, Transport};
use crate::{control, websocket};

/// What becomes of a connection behind an exchange.
pub(crate) enum After {
    /// The next request may come.
    Keep(Connection),
    /// Nothing more; it has been closed.
    Closed,
}

/// Serves a connection to its end.
pub(super) async fn serve(server: &Server, mut connection: Connection) {
    loop {
        match once(server, connection).await {
            After::Keep(kept) => connection = kept,
            After::Closed => return,
        }
    }
}

/// Serves the next request of a connection, if there is one.
pub(crate) async fn once(server: &Server, mut connection: Connection) -> After {
    let head = match connection.read_head().await {
        Ok(Some(head)) => head,
        Ok(None) => return After::Closed,
        Err(error) => return refuse(server, connection, &error).await,
    };
    match read_body(server, &mut connection, &head).await {
        Ok(body) => one(server, connection, &head, body).await,
        Err(error) => refuse(server, connection, &error).await,
    }
}

async fn read_body(
    server: &Server,
    connection: &mut Connection,
    head: &RequestHead,
) -> Result<Bytes, ReadError> {
    let length = head.body_length()?;
    if head.get_str("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        connection.write(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|Gone| ReadError::Gone)?;
    }
    connection.read_body(length, server.max_body).await
}

/// Says what was wrong with a request and closes: where the next one begins is not known.
async fn refuse(server: &Server, mut connection: Connection, error: &ReadError) -> After {
    count(&server.backend.metrics.bad_requests);
    let status = match error {
        ReadError::Gone => return After::Closed,
        ReadError::TooLarge(_) => "413 Content Too Large",
        ReadError::Head(_) | ReadError::Framing(_) => "400 Bad Request",
    };
    let text = format!("{error}\n");
    let reply = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len(),
    );
    if connection.write(reply.as_bytes()).await.is_ok() {
        connection.close().await;
    }
    After::Closed
}

/// Answers one request.
async fn one(server: &Server, connection: Connection, head: &RequestHead, body: Bytes) -> After {
    let backend = &*server.backend;
    if head.target().starts_with(control::PREFIX) {
        let plan = control::answer(backend, head, &body);
        return play::play(connection, head, plan, &Recorder::off(backend)).await;
    }
    count(&backend.metrics.requests);
    let metrics = &backend.metrics;
    let _open = Metrics::open(&metrics.open_exchanges, Some(&metrics.peak_exchanges));
    let call = call_of(head.method(), head.target());
    let is_upgrade = head.get_str("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let (call, transport) = match (call, head.method()) {
        (CallName::Responses, "GET") if is_upgrade => (call, Some(Transport::Upgrade)),
        // A GET without an upgrade asks for nothing that there is.
        (CallName::Responses, "GET") => (CallName::Unknown, None),
        (CallName::Responses, _) => {
            count(&metrics.model_requests);
            (call, Some(Transport::Http))
        }
        _ => (call, None),
    };
    let plan = match decoded(head, &body, server.max_body) {
        Ok(decoded) => {
            let connection = connection.id;
            backend.answer(&Incoming { call, transport, head, body: &decoded, connection })
        }
        Err(error) => Refusal::bad_request(&format!("the body cannot be decoded: {error}")).into_response(),
    };
    let recorder = Recorder::begin(backend, &connection, head, body, call, &plan);
    if plan.status >= 400 {
        count(&metrics.refusals);
    }
    if matches!(plan.body, Body::Upgrade) {
        websocket::serve(connection, head, plan, &recorder).await;
        return After::Closed;
    }
    play::play(connection, head, plan, &recorder).await
}

/// The body with its content coding undone, at most `limit` bytes of it.
fn decoded<'a>(head: &RequestHead, body: &'a Bytes, limit: usize) -> std::io::Result<Cow<'a, [u8]>> {
    if head.get_str("content-encoding") != Some("zstd") {
        return Ok(Cow::Borrowed(body));
    }
    let mut text = Vec::new();
    zstd::Decoder::new(&body[..])?.take(limit as u64).read_to_end(&mut text)?;
    Ok(Cow::Owned(text))
}

/// Enters what happens in an exchange into the journal.
pub(crate) struct Recorder<'a> {
    pub(crate) backend: &'a Backend,
    /// `None` for what is no exchange.
    id: Option<u64>,
}

impl<'a> Recorder<'a> {
    fn off(backend: &'a Backend) -> Self {
        Self { backend, id: None }
    }

    fn begin(
        backend: &'a Backend,
        connection: &Connection,
        head: &RequestHead,
        body: Bytes,
        call: CallName,
        plan: &Plan,
    ) -> Self {
        let id = backend.next_exchange();
        if backend.journal.is_on() {
            backend.journal.begin(Exchange {
                id,
                connection: connection.id,
                at: backend.journal.elapsed(),
                method: head.method().to_owned(),
                target: head.target().to_owned(),
                call,
                head: Bytes::copy_from_slice(head.as_bytes()),
                body,
                account: plan.account.clone(),
                rule: plan.rule.clone(),
                answer: None,
                messages: Vec::new(),
                violations: plan.violations.clone(),
                end: None,
            });
        }
        Self { backend, id: Some(id) }
    }

    /// The exchange's number, for the jitter; 0 for what is no exchange.
    pub(crate) fn id(&self) -> u64 {
        self.id.unwrap_or_default()
    }

    pub(crate) fn head(&self, status: u16, head: &[u8], is_stream: bool) {
        self.update(|exchange, at| {
            let head = Bytes::copy_from_slice(head);
            exchange.answer = Some(Answer { at, status, head, is_stream, ..Answer::default() });
        });
    }

    pub(crate) fn wrote(&self, data: &[u8]) {
        self.backend.metrics.bytes_sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.update(|exchange, at| {
            if let Some(answer) = &mut exchange.answer {
                answer.body.extend_from_slice(data);
                answer.writes.push((at, data.len()));
            }
        });
    }

    pub(crate) fn message(&self, direction: Direction, kind: Kind, payload: Bytes, rule: Option<&Arc<str>>) {
        self.frames(direction, kind, payload, Vec::new(), rule);
    }

    /// A message in frames of these lengths.
    pub(crate) fn frames(
        &self,
        direction: Direction,
        kind: Kind,
        payload: Bytes,
        frames: Vec<u64>,
        rule: Option<&Arc<str>>,
    ) {
        if direction == Direction::UpstreamToClient {
            self.backend.metrics.bytes_sent.fetch_add(payload.len() as u64, Ordering::Relaxed);
        }
        self.update(|exchange, at| {
            let rule = rule.map(Arc::clone);
            exchange.messages.push(Message { at, direction, kind, payload, frames, rule });
        });
    }

    pub(crate) fn violations(&self, plan: &Plan) {
        if !plan.violations.is_empty() {
            self.update(|exchange, _| exchange.violations.extend(plan.violations.iter().cloned()));
        }
    }

    pub(crate) fn end(&self, how: HowEnded) {
        if how == HowEnded::ClientGone {
            count(&self.backend.metrics.client_gone);
        }
        self.update(|exchange, at| exchange.end = Some(End { at, how }));
    }

    fn update(&self, change: impl FnOnce(&mut Exchange, Duration)) {
        let journal = &self.backend.journal;
        if let Some(id) = self.id
            && journal.is_on()
        {
            let at = journal.elapsed();
            journal.update(id, |exchange| change(exchange, at));
        }
    }
}
