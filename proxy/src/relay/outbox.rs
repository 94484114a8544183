//! What a socket has not taken yet of the bytes that are for it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;

use crate::state::Gate;
use crate::stream::Stream;

/// Bytes on their way to a socket. Whoever fills it stops reading while it is not empty.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Comes before `bytes`; only the head of a response does, so that what was held need not be moved.
    head: Vec<u8>,
    bytes: Vec<u8>,
    /// How much of the two has been taken.
    sent: usize,
    must_flush: bool,
    /// What all of it waits for: an id in it that is not durable yet.
    gate: Option<Gate>,
}

impl Outbox {
    /// A head and what follows it, to be sent in one piece.
    pub(super) fn new(head: Vec<u8>, bytes: Vec<u8>) -> Self {
        Self { head, bytes, sent: 0, must_flush: false, gate: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.head.len() + self.bytes.len() && !self.must_flush
    }

    /// Puts bytes behind those that wait.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Nothing more is handed over until this gate is open.
    pub(super) fn close_until(&mut self, gate: Option<Gate>) {
        self.gate = match (self.gate.take(), gate) {
            (Some(one), other) => Some(one.and(other)),
            (None, gate) => gate,
        };
    }

    /// Writes bytes straight to the socket, and keeps what it does not take. Nothing may wait but for the
    /// gate. Says how many bytes it took.
    pub(super) fn write(
        &mut self,
        stream: &mut Stream,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> io::Result<usize> {
        if self.gate.is_some() {
            self.push(bytes);
            return Ok(0);
        }
        let written = match Pin::new(&mut *stream).poll_write(context, bytes) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.must_flush = stream.is_buffered();
        self.push(&bytes[written..]);
        Ok(written)
    }

    /// Hands what waits to the socket; each portion that it takes is told.
    pub(super) fn poll_send(
        &mut self,
        stream: &mut Stream,
        context: &mut Context<'_>,
        mut taken: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.poll_open(context));
            self.gate = None;
        }
        while self.sent < self.head.len() + self.bytes.len() {
            let in_head = self.sent.min(self.head.len());
            let slices =
                [IoSlice::new(&self.head[in_head..]), IoSlice::new(&self.bytes[self.sent - in_head..])];
            let slices = if in_head == self.head.len() { &slices[1..] } else { &slices[..] };
            let written = ready!(Pin::new(&mut *stream).poll_write_vectored(context, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
            self.must_flush = stream.is_buffered();
            taken(written);
        }
        if self.sent > 0 {
            (self.head, self.bytes, self.sent) = (Vec::new(), Vec::new(), 0);
        }
        if self.must_flush {
            ready!(Pin::new(stream).poll_flush(context))?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }
}
