//! A client that shows every byte: what it sends is written by hand, what it gets is kept as it came.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::rig::{LIMIT, Rig};

/// A connection to the proxy.
pub(crate) struct Client {
    stream: TcpStream,
    ahead: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    /// Its head, with the empty line.
    pub(crate) head: String,
    /// Its body, with its framing.
    pub(crate) raw: Vec<u8>,
    /// The payload of its body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The lines of the head behind the status line.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.head.trim_end().split("\r\n").skip(1).collect()
    }
}

impl Client {
    pub(crate) async fn connect(port: u16) -> Self {
        Self { stream: TcpStream::connect(("127.0.0.1", port)).await.unwrap(), ahead: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// What the next read gives; empty at the end of the connection.
    pub(crate) async fn read(&mut self) -> std::io::Result<Vec<u8>> {
        if !self.ahead.is_empty() {
            return Ok(std::mem::take(&mut self.ahead));
        }
        let mut buffer = vec![0; 64 * 1024];
        let read =
            tokio::time::timeout(LIMIT, self.stream.read(&mut buffer)).await.expect("a read in time")?;
        buffer.truncate(read);
        Ok(buffer)
    }

    /// Reads until `enough` says so of all that came.
    pub(crate) async fn read_until(&mut self, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut all = Vec::new();
        while !enough(&all) {
            let bytes = self.read().await.unwrap();
            assert!(!bytes.is_empty(), "the connection ended at {}", String::from_utf8_lossy(&all));
            all.extend(bytes);
        }
        all
    }

    /// Everything up to the end of the connection, and the error that it ended with.
    pub(crate) async fn read_to_end(&mut self) -> (Vec<u8>, Option<std::io::ErrorKind>) {
        let mut all = Vec::new();
        loop {
            match self.read().await {
                Ok(bytes) if bytes.is_empty() => return (all, None),
                Ok(bytes) => all.extend(bytes),
                Err(error) => return (all, Some(error.kind())),
            }
        }
    }

    /// A response, by its own framing, read here without the proxy's parser.
    pub(crate) async fn response(&mut self) -> Response {
        let head = self.read_until(|all| find(all, b"\r\n\r\n").is_some()).await;
        let end = find(&head, b"\r\n\r\n").unwrap() + 4;
        let mut raw = head[end..].to_vec();
        let head = String::from_utf8(head[..end].to_vec()).unwrap();
        let field = |name: &str| {
            let line = head.split("\r\n").find(|line| line.to_lowercase().starts_with(name));
            line.map(|line| line.split_once(':').unwrap().1.trim().to_owned())
        };
        let length = field("content-length:").map(|length| length.parse::<usize>().unwrap());
        let is_chunked = field("transfer-encoding:").is_some();
        loop {
            let (is_done, body) = match length {
                Some(length) => (raw.len() >= length, raw.clone()),
                None if is_chunked => unchunk(&raw),
                None => (false, raw.clone()),
            };
            if is_done {
                return Response { head, raw, body };
            }
            let bytes = self.read().await.unwrap();
            if bytes.is_empty() {
                assert!(length.is_none() && !is_chunked, "the connection ended within a body");
                return Response { head, raw, body };
            }
            raw.extend(bytes);
        }
    }
}

/// Sends a request on a connection of its own and reads the response. `fields` are whole lines.
pub(crate) async fn request(rig: &Rig, method: &str, path: &str, fields: &str, body: &[u8]) -> Response {
    let mut client = rig.client().await;
    client.send(head(rig, method, path, fields, body.len())).await;
    client.send(body).await;
    client.response().await
}

/// A turn of the model over HTTP.
pub(crate) async fn turn(rig: &Rig, fields: &str, body: &str) -> Response {
    let fields = format!("user-agent: codex_exec/0.169.0\r\ncontent-type: application/json\r\n{fields}");
    request(rig, "POST", "/backend-api/codex/responses", &fields, body.as_bytes()).await
}

/// The head of a request to the proxy, with its capability.
pub(crate) fn head(rig: &Rig, method: &str, path: &str, fields: &str, length: usize) -> String {
    let length = if method == "GET" { String::new() } else { format!("content-length: {length}\r\n") };
    format!("{method} {}{path} HTTP/1.1\r\n{fields}host: 127.0.0.1\r\n{length}\r\n", rig.prefix())
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The payload of chunks, and whether their end is there.
fn unchunk(mut raw: &[u8]) -> (bool, Vec<u8>) {
    let mut body = Vec::new();
    while let Some(line) = find(raw, b"\r\n") {
        let size = std::str::from_utf8(&raw[..line]).unwrap();
        let size = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16).unwrap();
        let start = line + 2;
        if size == 0 {
            return (find(&raw[line..], b"\r\n\r\n").is_some(), body);
        }
        if raw.len() < start + size + 2 {
            body.extend_from_slice(&raw[start..raw.len().min(start + size)]);
            return (false, body);
        }
        body.extend_from_slice(&raw[start..start + size]);
        raw = &raw[start + size + 2..];
    }
    (false, body)
}
