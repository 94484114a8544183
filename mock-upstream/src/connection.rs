//! One connection from a client: reads requests, writes exactly the bytes given, notices who goes away.
//!
//! What a request means and what is answered is not known here. The rule: every wait, be it for the next
//! event or for a full send buffer, also watches the client's side.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use wire::capture::Closing;
use wire::http1::{BodyDecoder, BodyLength, FramingError, HeadError, RequestHead};

use crate::recording::Tap;

/// A socket, with or without TLS, recorded or not.
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Recorded(Box<(Socket, Tap)>),
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            Self::Recorded(recorded) => recorded.0.tcp(),
        }
    }

    /// Says how the connection ends, if it is recorded.
    pub(crate) fn settle(&mut self, closing: Closing) {
        if let Self::Recorded(recorded) = self {
            recorded.1.settle(closing);
        }
    }

    /// Closes the connection with RST instead of FIN.
    pub(crate) fn reset(mut self) {
        self.settle(Closing::Reset);
        // If it cannot be set the client sees a FIN, which a test of resets will notice.
        let _ = self.tcp().set_zero_linger();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buffer),
            Self::Recorded(recorded) => {
                let (socket, tap) = &mut **recorded;
                let before = buffer.filled().len();
                let read = ready!(Pin::new(socket).poll_read(cx, buffer));
                tap.received(&buffer.filled()[before..]);
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
            Self::Recorded(recorded) => {
                let (socket, tap) = &mut **recorded;
                // A client may have read what was written before this thread goes on.
                let at = tap.now();
                let taken = ready!(Pin::new(socket).poll_write(cx, bytes));
                tap.sent(at, bytes, &taken);
                Poll::Ready(taken)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
            Self::Recorded(recorded) => Pin::new(&mut recorded.0).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
            Self::Recorded(recorded) => {
                recorded.1.settle(Closing::ByServer);
                Pin::new(&mut recorded.0).poll_shutdown(cx)
            }
        }
    }
}

/// The client went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// Why no request could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the client went away within a request")]
    Gone,
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error("the body is longer than {0} bytes")]
    TooLarge(usize),
}

/// A connection and what has been read from it ahead.
pub(crate) struct Connection {
    pub(crate) id: u64,
    socket: Socket,
    ahead: BytesMut,
    /// Whether a client that has ended its sending side is still there.
    ignores_end: bool,
}

/// Most bytes that are read ahead of the request they belong to, while another is being answered.
const READ_AHEAD: usize = 64 * 1024;

/// Bytes that one read takes at most.
const READ: usize = 128 * 1024;

thread_local! {
    /// Where reads land before it is known how much came: one per thread, so that idle connections hold none.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

impl Connection {
    pub(crate) fn new(id: u64, socket: Socket) -> Self {
        Self { id, socket, ahead: BytesMut::new(), ignores_end: false }
    }

    /// A connection of which something has been read already.
    pub(crate) fn resume(id: u64, socket: Socket, ahead: &[u8]) -> Self {
        Self { id, socket, ahead: BytesMut::from(ahead), ignores_end: false }
    }

    /// The head of the next request; `None` when the client has no further one.
    pub(crate) async fn read_head(&mut self) -> Result<Option<RequestHead>, ReadError> {
        loop {
            if let Some((head, length)) = RequestHead::parse(&self.ahead)? {
                self.ahead.advance(length);
                return Ok(Some(head));
            }
            if self.read().await.is_err() {
                return if self.ahead.is_empty() { Ok(None) } else { Err(ReadError::Gone) };
            }
        }
    }

    /// Whether the end of the client's sending side is taken for its going away, which it is unless told.
    pub(crate) fn ignores_end(&mut self, ignores: bool) {
        self.ignores_end = ignores;
    }

    /// The next piece of a body, put behind `body`.
    pub(crate) async fn read_payload(
        &mut self,
        decoder: &mut BodyDecoder,
        body: &mut BytesMut,
    ) -> Result<(), ReadError> {
        if self.ahead.is_empty() {
            self.read().await.map_err(|Gone| ReadError::Gone)?;
        }
        let decoded = decoder.decode(&self.ahead, |payload| body.extend_from_slice(payload))?;
        self.ahead.advance(decoded.consumed);
        Ok(())
    }

    /// The payload of a body of this length, at most `limit` bytes.
    pub(crate) async fn read_body(&mut self, length: BodyLength, limit: usize) -> Result<Bytes, ReadError> {
        if let BodyLength::Exact(length) = length
            && length > limit as u64
        {
            return Err(ReadError::TooLarge(limit));
        }
        let mut decoder = length.decoder();
        let mut body = BytesMut::new();
        while !decoder.is_done() {
            self.read_payload(&mut decoder, &mut body).await?;
            if body.len() > limit {
                return Err(ReadError::TooLarge(limit));
            }
        }
        // An idle connection keeps no buffer.
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        Ok(body.freeze())
    }

    /// Sends these bytes, in one write if the socket takes them.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let mut rest = bytes;
        std::future::poll_fn(|cx| {
            while !rest.is_empty() {
                match Pin::new(&mut self.socket).poll_write(cx, rest) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Gone)),
                    Poll::Ready(Ok(sent)) => rest = &rest[sent..],
                    Poll::Pending => return self.watch(cx).map(Err),
                }
            }
            Pin::new(&mut self.socket).poll_flush(cx).map_err(|_| Gone)
        })
        .await
    }

    /// Waits, unless the client goes away first.
    pub(crate) async fn pause(&mut self, length: Duration) -> Result<(), Gone> {
        if length.is_zero() {
            return Ok(());
        }
        // Dropping the watch half-way loses nothing: what it has read is in `ahead`.
        tokio::select! {
            gone = std::future::poll_fn(|cx| self.watch(cx)) => Err(gone),
            () = tokio::time::sleep(length) => Ok(()),
        }
    }

    /// Stops in the middle, and waits until the client goes away.
    pub(crate) async fn until_gone(&mut self) {
        self.socket.settle(Closing::Hung);
        let Gone = std::future::poll_fn(|cx| self.watch(cx)).await;
    }

    /// Closes the sending side and gives the client the time to read to its end, so that no RST of unread
    /// input overtakes what was sent.
    pub(crate) async fn close(mut self) {
        let _ = std::future::poll_fn(|cx| Pin::new(&mut self.socket).poll_shutdown(cx)).await;
        let drained = async {
            loop {
                self.ahead.clear();
                if self.read().await.is_err() {
                    break;
                }
            }
        };
        // A client that keeps its side open for longer has had its time.
        let _ = tokio::time::timeout(LINGER, drained).await;
    }

    /// Closes the connection in the middle of whatever was going on.
    pub(crate) fn reset(self) {
        self.socket.reset();
    }

    /// The socket, and what has been read from it ahead.
    pub(crate) fn into_parts(self) -> (Socket, Vec<u8>) {
        (self.socket, self.ahead.to_vec())
    }

    /// Ready when the client is gone; what it sends meanwhile is kept for the next request. One that only
    /// closes its sending side is taken to be gone: no client or proxy does that in the middle of a response.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        while self.ahead.len() < READ_AHEAD {
            if ready!(self.poll_read(cx)).is_err() {
                return if self.ignores_end { Poll::Pending } else { Poll::Ready(Gone) };
            }
        }
        Poll::Pending
    }

    async fn read(&mut self) -> Result<(), Gone> {
        std::future::poll_fn(|cx| self.poll_read(cx)).await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.ahead.extend_from_slice(buffer.filled());
                    Poll::Ready(Ok(()))
                }
                Ok(()) | Err(_) => Poll::Ready(Err(Gone)),
            }
        })
    }
}

/// How long a client may take to read the rest of a connection that is being closed.
const LINGER: Duration = Duration::from_secs(2);
