//! One side's connection of the faulty proxy: what is read ahead, heads cut off it, and how it ends.

use std::io;

use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A connection taken apart.
pub(crate) struct Link {
    pub(crate) read: Reader,
    pub(crate) write: OwnedWriteHalf,
}

pub(crate) struct Reader {
    half: OwnedReadHalf,
    pub(crate) ahead: BytesMut,
}

impl Link {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let (half, write) = stream.into_split();
        Self { read: Reader { half, ahead: BytesMut::new() }, write }
    }

    /// Ends it with RST.
    pub(crate) fn reset(self) {
        self.read.half.reunite(self.write).unwrap().set_zero_linger().unwrap();
    }
}

impl Reader {
    /// Reads more, if only to see that there is an end.
    pub(crate) async fn more(&mut self) -> io::Result<usize> {
        self.ahead.reserve(64 * 1024);
        self.half.read_buf(&mut self.ahead).await
    }

    /// The bytes of the next head; none at the end of the connection.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.ahead, b"\r\n\r\n") {
                let head = self.ahead[..at + 4].to_vec();
                self.ahead.advance(at + 4);
                return Ok(Some(head));
            }
            if self.more().await? == 0 {
                return Ok(None);
            }
        }
    }
}
