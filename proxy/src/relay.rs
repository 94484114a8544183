//! The way of a committed response to the client: bytes as they come, one write per read.
//!
//! To an HTTP/1.1 client the body goes with the framing it came in; to an HTTP/2 client its payload goes
//! as frames (`http2`). The framing is followed only to know where the body ends. Nothing is kept of a
//! stream but what the client's socket did not take, and while there is some, nothing is read.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use wire::http1::BodyLength;

use crate::accounting::{Account, Outcome, Tap};
use crate::attempt::connection::Connections;
use crate::attempt::headers;
use crate::attempt::http::Body;
use crate::commit::Committed;
use crate::state::crash;
use crate::stream::{Stream, poll_read_scratch};
use outbox::Outbox;
use stall::Stall;

pub mod http2;

mod outbox;

mod stall;

pub mod websocket;

/// How many bytes of a further request are taken from a client whose response is still on its way.
const MAX_PIPELINED: usize = 64 * 1024;

/// What a relay leaves behind.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the client takes the end of the connection for the end of the body, so that a cut must
    /// look different.
    pub ends_by_close: bool,
    /// Whether the client's connection may carry another request.
    pub keeps_alive: bool,
}

/// Sends a committed response to an HTTP/1.1 client. `input` takes what the client sends meanwhile.
pub async fn run(
    client: &mut Stream,
    input: &mut Vec<u8>,
    connections: &Connections,
    committed: Committed,
    keep_alive: bool,
) -> Ended {
    let Committed { head, body, held, tap, mut account } = committed;
    let config = &account.proxy().control.config;
    let (idle, write) = (config.stream_idle_timeout, config.write_timeout);
    let length = body.length;
    let mut outbox = Outbox::new(headers::response(&head, length, keep_alive), held);
    outbox.close_until(account.gate());
    crash::point("response.release");
    drop(head);
    let is_done = body.decoder.is_done();
    let mut relay = Relay { client, input, body, tap, account, outbox, is_done, progress: 0 };
    let outcome = relay.run(idle, write).await;
    relay.account.close(outcome);
    let body = relay.body;
    if outcome == Outcome::Complete && body.keeps_alive && body.decoder.is_done() {
        connections.keep(body.peer, body.stream);
    }
    let ends_by_close = length == BodyLength::UntilClose;
    Ended {
        outcome,
        ends_by_close,
        keeps_alive: keep_alive && outcome == Outcome::Complete && !ends_by_close,
    }
}

/// A response on its way.
struct Relay<'a> {
    client: &'a mut Stream,
    input: &'a mut Vec<u8>,
    body: Body,
    tap: Tap,
    account: Account,
    /// What the client's socket has not taken.
    outbox: Outbox,
    /// Whether all of the body has been read.
    is_done: bool,
    /// Grows with every byte in either direction.
    progress: u64,
}

impl Relay<'_> {
    async fn run(&mut self, idle: Duration, write: Duration) -> Outcome {
        let mut stall = Stall::new(idle, write);
        loop {
            let polled =
                tokio::time::timeout(stall.tick(), std::future::poll_fn(|context| self.poll(context)));
            match polled.await {
                Ok(outcome) => return outcome,
                Err(_) => {
                    if let Some(outcome) = stall.check(self.progress, !self.outbox.is_empty()) {
                        return outcome;
                    }
                }
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            match self.poll_outbox(context) {
                Poll::Ready(Ok(())) if self.is_done => return Poll::Ready(Outcome::Complete),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Outcome::ClientGone),
                Poll::Pending => return self.poll_client(context),
            }
            match self.poll_upstream(context) {
                Poll::Ready(Some(outcome)) => return Poll::Ready(outcome),
                Poll::Ready(None) => {}
                Poll::Pending => return self.poll_client(context),
            }
        }
    }

    /// Hands over what the client's socket did not take before.
    fn poll_outbox(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { client, outbox, account, progress, .. } = self;
        outbox.poll_send(client, context, |count| {
            crash::point("response.written");
            account.forwarded(count);
            *progress += 1;
        })
    }

    /// Reads once and writes what came straight on. `Some` says how the relay ends.
    fn poll_upstream(&mut self, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let Self { client, body, tap, account, outbox, is_done, progress, .. } = self;
        let Body { stream, decoder, keeps_alive, .. } = body;
        // The buffer belongs to the thread, so the client is written to from within the read.
        let mut writing = Context::from_waker(context.waker());
        let read = poll_read_scratch(stream, context, |bytes| {
            if bytes.is_empty() {
                let outcome =
                    if decoder.may_end_at_close() { Outcome::Complete } else { Outcome::UpstreamCut };
                return Ok(Some(outcome));
            }
            *progress += 1;
            let look = |payload: &[u8]| tap.look(payload, |event| account.event(event));
            let decoded = decoder.decode(bytes, look).map_err(|error| error.to_string())?;
            *keeps_alive &= decoded.consumed == bytes.len();
            *is_done = decoded.is_done;
            outbox.close_until(account.gate());
            match outbox.write(client, &mut writing, &bytes[..decoded.consumed]) {
                Ok(count) => account.forwarded(count),
                Err(_) => return Ok(Some(Outcome::ClientGone)),
            }
            Ok(None)
        });
        let problem = match ready!(read) {
            Ok(Ok(Some(Outcome::UpstreamCut))) => "the connection ended within the body".to_owned(),
            Ok(Ok(outcome)) => return Poll::Ready(outcome),
            Ok(Err(framing)) => framing,
            Err(error) => error.to_string(),
        };
        self.account.read_error(&problem);
        Poll::Ready(Some(Outcome::UpstreamCut))
    }

    /// Watches the client: one that has ended its side has gone. What it sends is kept for later.
    fn poll_client(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        while self.input.len() < MAX_PIPELINED {
            let read = poll_read_scratch(self.client, context, |bytes| {
                self.input.extend_from_slice(bytes);
                bytes.len()
            });
            match ready!(read) {
                Ok(0) | Err(_) => return Poll::Ready(Outcome::ClientGone),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }
}
