//! The body of a committed response to an HTTP/2 client: payload, read when its flow control has room.
//!
//! A cut is an error of the body, which resets the stream; dropping the body cancels the upstream. A
//! client that does not read does not ask for frames either, so a task beside the body notices that.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::AbortHandle;
use wire::http1::BodyLength;

use super::stall::Stall;
use crate::accounting::{Account, Outcome, Tap};
use crate::attempt::connection::Connections;
use crate::attempt::http::Body;
use crate::commit::Committed;
use crate::state::Gate;
use crate::stream::poll_read_scratch;

/// A body of a response to an HTTP/2 client.
#[derive(Debug)]
pub struct StreamBody {
    shared: Arc<Shared>,
    watch: AbortHandle,
}

impl StreamBody {
    /// The body of a committed response. Must be called within a runtime.
    #[must_use]
    pub fn new(committed: Committed, connections: Arc<Connections>) -> Self {
        let Committed { body, held, tap, account, .. } = committed;
        let mut payload = Vec::with_capacity(held.len());
        // What is held has been decoded once without an error.
        let _ = body.length.decoder().decode(&held, |bytes| payload.extend_from_slice(bytes));
        let held = Some(Bytes::from(payload)).filter(|held| !held.is_empty());
        let config = &account.proxy().control.config;
        let stall = Stall::new(config.stream_idle_timeout, config.write_timeout);
        let relay = Relay { body, held, gate: None, tap, account, connections };
        let state = State { relay: Some(relay), problem: None, progress: 0, waits: None };
        let shared = Arc::new(Shared(Mutex::new(state)));
        let watch = tokio::spawn(watch(Arc::downgrade(&shared), stall)).abort_handle();
        Self { shared, watch }
    }
}

impl Drop for StreamBody {
    /// The server does not ask for the end of a body whose last frame it has got.
    fn drop(&mut self) {
        self.watch.abort();
        let relay = self.shared.lock().relay.take();
        if let Some(relay) = relay.filter(Relay::is_done) {
            relay.finish();
        }
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.shared.lock().poll(context).map(|read| Some(read.transpose()?.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.lock();
        state.problem.is_none() && state.relay.as_ref().is_none_or(Relay::is_done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.shared.lock().relay {
            Some(Relay { body, account, .. }) if account.is_untouched() => match body.length {
                BodyLength::Exact(length) => SizeHint::with_exact(length),
                _ => SizeHint::default(),
            },
            _ => SizeHint::default(),
        }
    }
}

/// What the body and its watch share.
#[derive(Debug)]
struct Shared(Mutex<State>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State {
    /// Until it ends.
    relay: Option<Relay>,
    /// What cut it, until the server asks.
    problem: Option<String>,
    /// Grows with every read.
    progress: u64,
    /// Whom to wake, while it is the upstream that is waited for.
    waits: Option<Waker>,
}

impl State {
    /// Reads on. `None` at the end.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if let Some(problem) = self.problem.take() {
            return Poll::Ready(Err(io::Error::other(problem)));
        }
        let Some(relay) = &mut self.relay else { return Poll::Ready(Ok(None)) };
        match relay.poll(context) {
            Poll::Pending => {
                self.waits = Some(context.waker().clone());
                Poll::Pending
            }
            Poll::Ready(Ok(Some(bytes))) => {
                self.waits = None;
                self.progress += 1;
                Poll::Ready(Ok(Some(bytes)))
            }
            Poll::Ready(Ok(None)) => {
                if let Some(relay) = self.relay.take() {
                    relay.finish();
                }
                Poll::Ready(Ok(None))
            }
            Poll::Ready(Err(error)) => {
                self.cut(Outcome::UpstreamCut, &error.to_string());
                self.problem = None;
                Poll::Ready(Err(error))
            }
        }
    }

    /// Ends the relay before its body's end.
    fn cut(&mut self, outcome: Outcome, problem: &str) {
        let Some(mut relay) = self.relay.take() else { return };
        if outcome == Outcome::UpstreamCut {
            relay.account.read_error(problem);
        }
        relay.account.close(outcome);
        self.problem = Some(problem.to_owned());
    }
}

/// A response on its way.
#[derive(Debug)]
struct Relay {
    body: Body,
    /// What was read and not handed over: before the commitment, or before its gate is open.
    held: Option<Bytes>,
    /// What `held` waits for: an id in it that is not durable yet.
    gate: Option<Gate>,
    tap: Tap,
    account: Account,
    connections: Arc<Connections>,
}

impl Relay {
    fn is_done(&self) -> bool {
        self.held.is_none() && self.body.decoder.is_done()
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let Self { body, held, gate, tap, account, .. } = self;
        loop {
            if let Some(closed) = gate {
                std::task::ready!(closed.poll_open(context));
                *gate = None;
            }
            if let Some(held) = held.take() {
                account.forwarded(held.len());
                return Poll::Ready(Ok(Some(held)));
            }
            let Body { stream, decoder, keeps_alive, .. } = &mut *body;
            if decoder.is_done() {
                return Poll::Ready(Ok(None));
            }
            let read = poll_read_scratch(stream, context, |bytes| {
                let mut payload = Vec::new();
                let decoded = decoder.decode(bytes, |part| {
                    tap.look(part, |event| account.event(event));
                    payload.extend_from_slice(part);
                });
                *keeps_alive &= decoded.is_ok_and(|decoded| decoded.consumed == bytes.len());
                decoded.map(|_| (bytes.is_empty(), payload))
            });
            let (is_end, payload) = std::task::ready!(read)?.map_err(io::Error::other)?;
            if is_end && decoder.may_end_at_close() {
                return Poll::Ready(Ok(None));
            }
            if is_end {
                return Poll::Ready(Err(io::Error::other("the connection ended within the body")));
            }
            // Framing alone is nothing to hand over.
            if !payload.is_empty() {
                *held = Some(payload.into());
                *gate = account.gate();
            }
        }
    }

    /// Ends the whole body: keeps the connection if it is good for another request.
    fn finish(mut self) {
        self.account.close(Outcome::Complete);
        if self.body.keeps_alive && self.body.decoder.is_done() {
            self.connections.keep(self.body.peer, self.body.stream);
        }
    }
}

/// Cuts a relay that stands still for too long.
async fn watch(shared: Weak<Shared>, mut stall: Stall) {
    loop {
        #[expect(clippy::disallowed_methods, reason = "looks at the relay from time to time")]
        tokio::time::sleep(stall.tick()).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.lock();
        let Some(outcome) = stall.check(state.progress, state.waits.is_none()) else { continue };
        let problem = match outcome {
            Outcome::Idle => "the upstream was silent for too long",
            _ => "the client did not read for too long",
        };
        state.cut(outcome, problem);
        let waits = state.waits.take();
        drop(state);
        waits.inspect(Waker::wake_by_ref);
        return;
    }
}
