//! Connections, plain and TLS, recorded or not, as one type, and the buffer that a thread reads with.
//!
//! Streams have no buffers of their own: bytes are read into the thread's scratch buffer and written on
//! from there within one poll, so that a held stream costs no memory for bytes it does not have.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::recording::Watched;

/// A connection to a client or to an upstream.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS accepted from a client.
    Accepted(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS opened to an upstream.
    Opened(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// A client's, of any kind, whose bytes are recorded.
    Recorded(Box<Watched>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Accepted(tls) => tls.get_ref().0,
            Self::Opened(tls) => tls.get_ref().0,
            Self::Recorded(watched) => watched.stream.tcp(),
        }
    }

    /// Whether writes may stay in a layer above the socket until they are flushed.
    #[must_use]
    pub fn is_buffered(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Accepted(_) | Self::Opened(_) => true,
            Self::Recorded(watched) => watched.stream.is_buffered(),
        }
    }

    /// Resolves when the peer has ended the connection, or broken it off, without reading what it has sent.
    async fn hung_up(&self) {
        // Linux tells the end of a connection beside what can be read. tokio says so to whoever waits for
        // priority data, for which it is not registered; elsewhere the end is noticed when it is read.
        #[cfg(target_os = "linux")]
        drop(self.tcp().ready(tokio::io::Interest::PRIORITY).await);
        #[cfg(not(target_os = "linux"))]
        std::future::pending().await
    }

    /// Closes with a reset instead of an orderly end, so that the peer sees a cut as a cut.
    pub fn abort(mut self) {
        if let Self::Recorded(watched) = &mut self {
            watched.note_reset();
        }
        // Best effort: a connection that is gone already needs no reset.
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Accepted(tls) => Pin::new(tls).poll_read(context, buffer),
            Self::Opened(tls) => Pin::new(tls).poll_read(context, buffer),
            Self::Recorded(watched) => watched.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Self::Accepted(tls) => Pin::new(tls).poll_write(context, bytes),
            Self::Opened(tls) => Pin::new(tls).poll_write(context, bytes),
            Self::Recorded(watched) => watched.poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, slices),
            Self::Accepted(tls) => Pin::new(tls).poll_write_vectored(context, slices),
            Self::Opened(tls) => Pin::new(tls).poll_write_vectored(context, slices),
            Self::Recorded(watched) => watched.poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Accepted(tls) => Pin::new(tls).poll_flush(context),
            Self::Opened(tls) => Pin::new(tls).poll_flush(context),
            Self::Recorded(watched) => Pin::new(&mut watched.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Accepted(tls) => Pin::new(tls).poll_shutdown(context),
            Self::Opened(tls) => Pin::new(tls).poll_shutdown(context),
            Self::Recorded(watched) => watched.poll_shutdown(context),
        }
    }
}

/// How much one read takes at most. A burst of a stream fits into one; uploads are read into the memory
/// they stay in and are not bound by this.
const SCRATCH: usize = 128 * 1024;

/// How much is taken of what a client sends while its request is answered.
const MAX_EARLY: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// Reads once into the thread's buffer and looks at what came; no bytes mean that the peer has ended.
///
/// `look` must not read from a stream itself: there is one buffer.
pub fn poll_read_scratch<R>(
    stream: &mut Stream,
    context: &mut Context<'_>,
    look: impl FnOnce(&[u8]) -> R,
) -> Poll<io::Result<R>> {
    BUFFER.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(stream).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(look(buffer.filled()))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    })
}

/// Resolves when the peer has ended the connection, or broken it off. What it sends is kept in `input`, up
/// to a limit; from there on it is not read, and an end behind more than the socket holds is not noticed.
pub async fn gone(stream: &mut Stream, input: &mut Vec<u8>) {
    let is_gone = std::future::poll_fn(|context| {
        while input.len() < MAX_EARLY {
            let read = poll_read_scratch(stream, context, |bytes| {
                input.extend_from_slice(bytes);
                bytes.len()
            });
            if !matches!(ready!(read), Ok(1..)) {
                return Poll::Ready(true);
            }
        }
        Poll::Ready(false)
    });
    if !is_gone.await {
        stream.hung_up().await;
    }
}

/// Reads once and puts what came behind `kept`; says how many bytes, 0 at the end.
///
/// # Errors
/// Those of the connection.
pub async fn read_some(stream: &mut Stream, kept: &mut Vec<u8>) -> io::Result<usize> {
    std::future::poll_fn(|context| {
        poll_read_scratch(stream, context, |bytes| {
            kept.extend_from_slice(bytes);
            bytes.len()
        })
    })
    .await
}

/// Takes what stands at the front of `kept`, if `take` finds it there: a value, and how many bytes it took.
pub fn take_front<T>(kept: &mut Vec<u8>, take: impl FnOnce(&[u8]) -> Option<(T, usize)>) -> Option<T> {
    let (value, end) = take(kept)?;
    if end == kept.len() {
        *kept = Vec::new();
    } else {
        kept.drain(..end);
    }
    Some(value)
}

/// Reads once, puts what came behind `kept` and takes what then stands at its front. What comes in one piece
/// is looked for where it was read, so that only what stands behind it is copied. Says how many bytes came,
/// 0 at the end.
///
/// # Errors
/// Those of the connection.
pub async fn read_and_take<T>(
    stream: &mut Stream,
    kept: &mut Vec<u8>,
    take: impl Fn(&[u8]) -> Option<(T, usize)>,
) -> io::Result<(usize, Option<T>)> {
    std::future::poll_fn(|context| {
        poll_read_scratch(stream, context, |bytes| {
            let taken = if kept.is_empty() {
                let (value, end) = take(bytes).unzip();
                kept.extend_from_slice(&bytes[end.unwrap_or(0)..]);
                value
            } else {
                kept.extend_from_slice(bytes);
                take_front(kept, &take)
            };
            (bytes.len(), taken)
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// A line, and how long it is.
    fn line(bytes: &[u8]) -> Option<(String, usize)> {
        let end = bytes.iter().position(|byte| *byte == b'\n')? + 1;
        Some((String::from_utf8(bytes[..end - 1].to_vec()).unwrap(), end))
    }

    #[tokio::test]
    async fn what_comes_is_taken_whole_and_the_rest_is_kept() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut stream = Stream::Plain(listener.accept().await.unwrap().0);
        let mut kept = Vec::new();
        let steps: [(&str, Option<&str>, &str); 4] = [
            ("one\ntw", Some("one"), "tw"),
            ("o", None, "two"),
            ("\n", Some("two"), ""),
            ("\nx", Some(""), "x"),
        ];
        for (sent, taken, left) in steps {
            peer.write_all(sent.as_bytes()).await.unwrap();
            let read = read_and_take(&mut stream, &mut kept, line).await.unwrap();
            assert_eq!(read, (sent.len(), taken.map(str::to_owned)));
            assert_eq!(kept, left.as_bytes());
        }
        drop(peer);
        assert_eq!(read_and_take(&mut stream, &mut kept, line).await.unwrap(), (0, None));
        kept.push(b'\n');
        assert_eq!(take_front(&mut kept, line).as_deref(), Some("x"));
        assert_eq!(kept.capacity(), 0, "nothing is left, so nothing is held");
    }
}
