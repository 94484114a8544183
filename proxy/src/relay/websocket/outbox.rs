//! What a socket has not taken yet of the bytes that are for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;

use crate::stream::Stream;

/// Bytes on their way to a socket. Whoever fills it stops reading while it is not empty.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    must_flush: bool,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len() && !self.must_flush
    }

    /// Puts bytes behind those that wait.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes bytes straight to the socket, and keeps what it does not take. Nothing may wait.
    pub(super) fn write(
        &mut self,
        stream: &mut Stream,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let written = match Pin::new(&mut *stream).poll_write(context, bytes) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.must_flush = stream.is_buffered();
        self.push(&bytes[written..]);
        Ok(())
    }

    /// Hands what waits to the socket.
    pub(super) fn poll_send(
        &mut self,
        stream: &mut Stream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let written = ready!(Pin::new(&mut *stream).poll_write(context, &self.bytes[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
            self.must_flush = stream.is_buffered();
        }
        if self.sent > 0 {
            self.bytes = Vec::new();
            self.sent = 0;
        }
        if self.must_flush {
            ready!(Pin::new(stream).poll_flush(context))?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }
}
