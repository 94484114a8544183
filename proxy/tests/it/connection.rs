//! A connection that shows every byte: what is sent is written by hand, what comes is kept as it came.

use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::rig::{LIMIT, Proxy};

/// One end of a connection: a client's of the proxy, or an upstream's.
#[derive(Debug)]
pub(crate) struct Connection<S = TcpStream> {
    stream: S,
    ahead: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    /// Its head with the empty line, each byte a character.
    pub(crate) head: String,
    /// Its body, with its framing.
    pub(crate) raw: Vec<u8>,
    /// The payload of its body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().trim().parse().unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The value of the first field with this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// What the turn put out as text.
    pub(crate) fn said(&self) -> String {
        let text = self.text();
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let events = events.filter_map(|data| serde_json::from_str::<serde_json::Value>(data).ok());
        let deltas = events.filter(|event| event["type"] == "response.output_text.delta");
        deltas.map(|event| event["delta"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Request {
    /// Its head with the empty line, each byte a character.
    pub(crate) head: String,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The value of the first field with this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// The lines of a head behind the first.
fn lines(head: &str) -> Vec<&str> {
    head.trim_end_matches("\r\n").split("\r\n").skip(1).collect()
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = lines(head).into_iter().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

impl Connection {
    pub(crate) async fn open(port: u16) -> Self {
        Self::over(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }

    /// Ends it with a reset.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Ends the sending side.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let sending = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        tokio::time::timeout(LIMIT, sending).await.expect("a write in time")
    }

    /// What the next read gives; empty at the end of the connection.
    pub(crate) async fn read(&mut self) -> std::io::Result<Vec<u8>> {
        self.read_within(LIMIT).await
    }

    async fn read_within(&mut self, limit: Duration) -> std::io::Result<Vec<u8>> {
        if !self.ahead.is_empty() {
            return Ok(std::mem::take(&mut self.ahead));
        }
        let mut buffer = vec![0; 64 * 1024];
        let read =
            tokio::time::timeout(limit, self.stream.read(&mut buffer)).await.expect("a read in time")?;
        buffer.truncate(read);
        Ok(buffer)
    }

    /// Reads up to and with the first `end`. What comes behind it is left for the next read.
    pub(crate) async fn read_through(&mut self, end: impl AsRef<[u8]>) -> Vec<u8> {
        let (end, mut all) = (end.as_ref(), Vec::new());
        loop {
            let searched = (all.len() + 1_usize).saturating_sub(end.len());
            let bytes = self.read().await.unwrap();
            assert!(!bytes.is_empty(), "the connection ended behind {:?}", String::from_utf8_lossy(&all));
            all.extend(bytes);
            if let Some(at) = memmem::find(&all[searched..], end) {
                self.ahead = all.split_off(searched + at + end.len());
                return all;
            }
        }
    }

    /// Reads so many bytes. What comes behind them is left for the next read.
    pub(crate) async fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            let bytes = self.read().await.unwrap();
            assert!(!bytes.is_empty(), "the connection ended behind {:?}", String::from_utf8_lossy(&all));
            all.extend(bytes);
        }
        self.ahead = all.split_off(count);
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

    async fn read_head(&mut self) -> String {
        self.read_through("\r\n\r\n").await.into_iter().map(char::from).collect()
    }

    /// A response, by its own framing, read here without the proxy's parser.
    pub(crate) async fn response(&mut self) -> Response {
        let head = self.read_head().await;
        let length = field(&head, "content-length").map(|length| length.parse::<usize>().unwrap());
        let is_chunked = field(&head, "transfer-encoding").is_some();
        let (mut raw, mut chunks) = (Vec::new(), Chunks::default());
        loop {
            let end = match length {
                Some(length) => (raw.len() >= length).then_some(length),
                None if is_chunked => chunks.advance(&raw),
                None => None,
            };
            if let Some(end) = end {
                self.ahead = raw.split_off(end);
                let body = if is_chunked { chunks.payload } else { raw.clone() };
                return Response { head, raw, body };
            }
            let bytes = self.read().await.unwrap();
            if bytes.is_empty() {
                assert!(length.is_none() && !is_chunked, "the connection ended within a body");
                return Response { head, body: raw.clone(), raw };
            }
            raw.extend(bytes);
        }
    }

    /// The head of a response that has no body whatever its head says.
    pub(crate) async fn bare_response(&mut self) -> Response {
        Response { head: self.read_head().await, raw: Vec::new(), body: Vec::new() }
    }

    /// A request with the body that its length promises.
    pub(crate) async fn request(&mut self) -> Request {
        let head = self.read_head().await;
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = Vec::new();
        while body.len() < length {
            let bytes = self.read().await.unwrap();
            assert!(!bytes.is_empty(), "the connection ended within a request");
            body.extend(bytes);
        }
        self.ahead = body.split_off(length);
        Request { head, body }
    }
}

/// The payload of chunks, taken out as they come.
#[derive(Debug, Default)]
struct Chunks {
    /// Where the next chunk begins.
    at: usize,
    payload: Vec<u8>,
}

impl Chunks {
    /// Takes the chunks that are complete. Says where the last one ends, trailers included.
    fn advance(&mut self, raw: &[u8]) -> Option<usize> {
        loop {
            let rest = &raw[self.at..];
            let line = memmem::find(rest, b"\r\n")?;
            let size = std::str::from_utf8(&rest[..line]).unwrap();
            let size = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16).unwrap();
            if size == 0 {
                return memmem::find(&rest[line..], b"\r\n\r\n").map(|end| self.at + line + end + 4);
            }
            let data = rest.get(line + 2..line + 2 + size)?;
            let end = rest.get(line + 2 + size..line + 4 + size)?;
            assert_eq!(end, b"\r\n", "a chunk ends where its size says");
            self.payload.extend_from_slice(data);
            self.at += line + 4 + size;
        }
    }
}

/// The path of a turn.
pub(crate) const TURN: &str = "/backend-api/codex/responses";

/// The fields by which a Codex client is known.
pub(crate) const CODEX: &str = "user-agent: codex_exec/0.169.0 (Linux)\r\noriginator: codex_exec\r\n";

/// The head of a request to the proxy, with its capability. `fields` are whole lines.
pub(crate) fn head(proxy: &Proxy, method: &str, path: &str, fields: &str, length: usize) -> String {
    let length = if matches!(method, "GET" | "HEAD") {
        String::new()
    } else {
        format!("content-length: {length}\r\n")
    };
    format!("{method} {}{path} HTTP/1.1\r\n{fields}host: 127.0.0.1\r\n{length}\r\n", proxy.prefix())
}

/// Sends a request on a connection of its own and reads the response.
pub(crate) async fn request(proxy: &Proxy, method: &str, path: &str, fields: &str, body: &[u8]) -> Response {
    let mut client = proxy.connect().await;
    client.send([head(proxy, method, path, fields, body.len()).as_bytes(), body].concat()).await;
    client.response().await
}

/// Begins a turn of a Codex client over HTTP.
pub(crate) async fn begin_turn(proxy: &Proxy, fields: &str, body: &str) -> Connection {
    let mut client = proxy.connect().await;
    let fields = format!("{CODEX}content-type: application/json\r\n{fields}");
    client.send(head(proxy, "POST", TURN, &fields, body.len()) + body).await;
    client
}

/// A turn of a Codex client over HTTP.
pub(crate) async fn turn(proxy: &Proxy, fields: &str, body: &str) -> Response {
    begin_turn(proxy, fields, body).await.response().await
}

/// The body of a turn in which the user says `text`.
pub(crate) fn user(text: &str) -> String {
    let content = serde_json::json!([{ "type": "input_text", "text": text }]);
    let input = serde_json::json!([{ "type": "message", "role": "user", "content": content }]);
    serde_json::json!({ "model": "gpt-5.5", "stream": true, "store": false, "input": input }).to_string()
}
