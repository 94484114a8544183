//! The body of a committed response to an HTTP/2 client: payload, read when its flow control has room.
//!
//! A cut is an error of the body, which resets the stream; dropping the body cancels the upstream.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use wire::http1::BodyLength;

use crate::accounting::{Account, Outcome, Tap};
use crate::attempt::connection::Connections;
use crate::attempt::http::Body;
use crate::commit::Committed;
use crate::stream::poll_read_scratch;

/// A body of a response to an HTTP/2 client.
#[derive(Debug)]
pub struct StreamBody {
    body: Option<Body>,
    held: Option<Bytes>,
    tap: Tap,
    account: Account,
    connections: Arc<Connections>,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
}

impl StreamBody {
    /// The body of a committed response.
    #[must_use]
    pub fn new(committed: Committed, connections: Arc<Connections>) -> Self {
        let Committed { body, held, tap, account, .. } = committed;
        let mut payload = Vec::with_capacity(held.len());
        // What is held has been decoded once without an error.
        let _ = body.length.decoder().decode(&held, |bytes| payload.extend_from_slice(bytes));
        let idle = account.proxy().control.config.stream_idle_timeout;
        let timer = Box::pin(tokio::time::sleep_until(Instant::now() + idle));
        let held = Some(Bytes::from(payload)).filter(|held| !held.is_empty());
        Self { body: Some(body), held, tap, account, connections, idle, timer }
    }

    /// Ends the body: keeps the connection if it is good for another request.
    fn finish(&mut self) {
        self.account.close(Outcome::Complete);
        if let Some(body) = self.body.take()
            && body.keeps_alive
            && body.decoder.is_done()
        {
            self.connections.keep(body.peer, body.stream);
        }
    }

    fn cut(&mut self, outcome: Outcome, problem: &str) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.account.read_error(problem);
        self.account.close(outcome);
        self.body = None;
        Poll::Ready(Some(Err(io::Error::other(problem.to_owned()))))
    }
}

impl Drop for StreamBody {
    /// The server does not ask for the end of a body whose last frame it has got.
    fn drop(&mut self) {
        let is_done = self.body.as_ref().is_some_and(|body| body.decoder.is_done());
        if self.held.is_none() && is_done {
            self.finish();
        }
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Some(held) = this.held.take() {
            this.account.forwarded(held.len());
            return Poll::Ready(Some(Ok(Frame::data(held))));
        }
        loop {
            let Self { body, tap, account, timer, idle, .. } = &mut *this;
            let Some(open) = body else { return Poll::Ready(None) };
            if open.decoder.is_done() {
                this.finish();
                return Poll::Ready(None);
            }
            let Body { stream, decoder, keeps_alive, .. } = open;
            let read = poll_read_scratch(stream, context, |bytes| {
                let mut payload = Vec::new();
                let decoded = decoder.decode(bytes, |part| {
                    tap.look(part, |event| account.event(event));
                    payload.extend_from_slice(part);
                });
                *keeps_alive &= decoded.is_ok_and(|decoded| decoded.consumed == bytes.len());
                (bytes.is_empty(), decoded, payload)
            });
            let read = match read {
                Poll::Ready(read) => read,
                Poll::Pending => {
                    ready!(timer.as_mut().poll(context));
                    return this.cut(Outcome::Idle, "the upstream was silent for too long");
                }
            };
            timer.as_mut().reset(Instant::now() + *idle);
            match read {
                Ok((true, _, _)) if open.decoder.may_end_at_close() => {
                    this.finish();
                    return Poll::Ready(None);
                }
                Ok((true, _, _)) => {
                    return this.cut(Outcome::UpstreamCut, "the connection ended within the body");
                }
                Ok((_, Err(error), _)) => return this.cut(Outcome::UpstreamCut, &error.to_string()),
                Err(error) => return this.cut(Outcome::UpstreamCut, &error.to_string()),
                // Framing alone: nothing to hand over yet.
                Ok((_, Ok(_), payload)) if payload.is_empty() => {}
                Ok((_, Ok(_), payload)) => {
                    this.account.forwarded(payload.len());
                    return Poll::Ready(Some(Ok(Frame::data(payload.into()))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.as_ref().is_none_or(|body| body.decoder.is_done())
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.as_ref().map(|body| body.length) {
            Some(BodyLength::Exact(length)) if self.account.is_untouched() => SizeHint::with_exact(length),
            _ => SizeHint::default(),
        }
    }
}
