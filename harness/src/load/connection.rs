//! A connection to the target: bytes out, bytes in, under a deadline, through one buffer per thread.
//!
//! Bytes are looked at in the buffer that they were read into; a connection keeps none. Timers are armed
//! once and moved only when they fire, because requests are many and timeouts few.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mock_upstream::content::now;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Why nothing more can be done with a connection.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The other side closed it in good order.
    Closed,
    /// It broke.
    Broken(io::Error),
    /// The deadline passed.
    Late,
}

/// The buffer that all connections of a thread read into, one at a time.
pub(crate) type Buffer = RefCell<Box<[u8]>>;

/// Most bytes read at once.
pub(crate) const BUFFER: usize = 64 * 1024;

/// A timer that is armed for the deadline of some earlier request, and moved when it fires.
#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    fn new() -> Self {
        // The first poll arms it.
        Self { sleep: Box::pin(tokio::time::sleep_until(Instant::now())) }
    }

    /// Ready when the clock has passed the deadline, which is in its nanoseconds.
    fn poll(&mut self, context: &mut Context<'_>, deadline: u64) -> Poll<()> {
        while self.sleep.as_mut().poll(context).is_ready() {
            let left = deadline.saturating_sub(now());
            if left == 0 {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(Instant::now() + Duration::from_nanos(left));
        }
        Poll::Pending
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    timer: Timer,
    /// What of a request the socket did not take at once.
    rest: Vec<u8>,
    /// When it was last used, in nanoseconds of the clock.
    pub(crate) used: u64,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn open(address: SocketAddr, deadline: u64) -> Result<Self, String> {
        let left = Duration::from_nanos(deadline.saturating_sub(now()));
        let stream = match tokio::time::timeout(left, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("connect to {address}: {error}")),
            Err(_) => return Err(format!("connect to {address}: not within {left:?}")),
        };
        stream.set_nodelay(true).map_err(|error| format!("connect to {address}: {error}"))?;
        Ok(Self { stream, timer: Timer::new(), rest: Vec::new(), used: now() })
    }

    /// Sends what the socket takes of `bytes` at once, which is nearly always all of it, and keeps a copy of
    /// the rest for [`Self::flush`].
    pub(crate) fn start(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let written = match self.stream.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(Lost::Broken(error)),
        };
        self.rest.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Sends what is left of what was to be sent.
    pub(crate) async fn flush(&mut self, deadline: u64) -> Result<(), Lost> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let mut at = 0;
        poll_fn(|context| {
            while at < self.rest.len() {
                match Pin::new(&mut self.stream).poll_write(context, &self.rest[at..]) {
                    Poll::Ready(Ok(written)) => at += written,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Lost::Broken(error))),
                    Poll::Pending => {
                        ready!(self.timer.poll(context, deadline));
                        return Poll::Ready(Err(Lost::Late));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        self.rest.clear();
        Ok(())
    }

    /// Reads up to `room` bytes, and hands them to `take` together with the time.
    pub(crate) async fn read<T>(
        &mut self,
        buffer: &Buffer,
        room: usize,
        deadline: u64,
        mut take: impl FnMut(&[u8], u64) -> T,
    ) -> Result<T, Lost> {
        poll_fn(|context| {
            let mut bytes = buffer.borrow_mut();
            let room = room.min(bytes.len());
            let mut into = ReadBuf::new(&mut bytes[..room]);
            match Pin::new(&mut self.stream).poll_read(context, &mut into) {
                Poll::Ready(Ok(())) if into.filled().is_empty() => Poll::Ready(Err(Lost::Closed)),
                Poll::Ready(Ok(())) => {
                    let time = now();
                    self.used = time;
                    Poll::Ready(Ok(take(into.filled(), time)))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(Lost::Broken(error))),
                Poll::Pending => {
                    ready!(self.timer.poll(context, deadline));
                    Poll::Ready(Err(Lost::Late))
                }
            }
        })
        .await
    }

    /// Whether an idle connection was closed, or has something to say that nobody asked for.
    pub(crate) fn is_stale(&self) -> bool {
        let mut byte = [0];
        !matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}
