//! Raw bytes to a proxy, and what comes back within two seconds.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::Target;

/// How long connecting and an answer may take.
const LIMIT: Duration = Duration::from_secs(2);

/// How much of an answer is read.
const MOST: usize = 64 * 1024;

/// A connection to a proxy.
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

/// What a proxy did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It ended the connection and said nothing.
    Closed,
    /// It neither answered nor ended the connection.
    Nothing,
    /// It answered.
    Answers {
        /// With how many responses.
        count: usize,
        /// The status of the first.
        status: u16,
        /// It lets a page of another origin read the response.
        allows_origins: bool,
    },
}

/// Connects.
pub(super) fn open(target: &Target) -> io::Result<Connection> {
    let stream = TcpStream::connect_timeout(&target.address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    let Some(tls) = &target.tls else { return Ok(Connection::Plain(stream)) };
    let name = ServerName::from(target.address.ip());
    let session = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
    Ok(Connection::Tls(Box::new(StreamOwned::new(session, stream))))
}

/// Sends a request and looks at what comes.
pub(super) fn exchange(target: &Target, request: &[u8]) -> Seen {
    let Ok(mut connection) = open(target) else { return Seen::Closed };
    // One that refuses early closes before it has all; its answer is there all the same.
    let _ = connection.send(request);
    let deadline = Instant::now() + LIMIT;
    let (mut answer, mut is_closed) = (Vec::new(), false);
    let mut buffer = [0; 4096];
    while answer.len() < MOST && Instant::now() < deadline {
        match connection.read(&mut buffer) {
            Ok(0) => {
                is_closed = true;
                break;
            }
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                is_closed = !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                break;
            }
        }
    }
    judge(&answer, is_closed)
}

fn judge(answer: &[u8], is_closed: bool) -> Seen {
    let text = String::from_utf8_lossy(answer);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    match status {
        Some(status) => Seen::Answers {
            // Bodies of refusals do not quote status lines.
            count: text.matches("HTTP/1.1 ").count(),
            status,
            allows_origins: text.to_ascii_lowercase().contains("\naccess-control-allow-origin:"),
        },
        None if answer.is_empty() && !is_closed => Seen::Nothing,
        None => Seen::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_and_read() {
        let answers = |count, status, allows_origins| Seen::Answers { count, status, allows_origins };
        let one = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        assert_eq!(judge(one, true), answers(1, 400, false));
        assert_eq!(judge(&[&one[..], one].concat(), true), answers(2, 400, false));
        let open = b"HTTP/1.1 204 x\r\nAccess-Control-Allow-Origin: *\r\n\r\n";
        assert_eq!(judge(open, true), answers(1, 204, true));
        assert_eq!(judge(b"", false), Seen::Nothing);
        assert_eq!(judge(b"", true), Seen::Closed);
        assert_eq!(judge(b"\x15\x03\x01", true), Seen::Closed);
    }
}
