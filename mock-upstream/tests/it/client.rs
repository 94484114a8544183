//! A client that shows every byte: what it sends is written by hand, what it gets is kept as it came.

use std::net::SocketAddr;
use std::time::Duration;

use mock_upstream::{Config, Mock, Script};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::http1::ResponseHead;

/// Longest that anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

pub(crate) async fn mock(script: Script) -> Mock {
    Mock::start(Config::script(script)).await.unwrap()
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The data of the events in the body.
    pub(crate) fn events(&self) -> Vec<Value> {
        let mut events = Vec::new();
        let mut decoder = wire::sse::Decoder::default();
        decoder
            .feed(&self.body, |event| events.push(serde_json::from_str(&event.text()).unwrap_or_default()))
            .unwrap();
        events
    }

    /// The text that the turn put out.
    pub(crate) fn said(&self) -> String {
        said(&self.events())
    }
}

/// The text that the events of a turn put out.
pub(crate) fn said(events: &[Value]) -> String {
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    deltas.map(|event| event["delta"].as_str().unwrap_or_default()).collect()
}

pub(crate) struct Client {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), ahead: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// What the next read gives; empty at the end of the connection.
    pub(crate) async fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let mut buffer = vec![0; 64 * 1024];
        let read =
            tokio::time::timeout(LIMIT, self.stream.read(&mut buffer)).await.expect("a read in time")?;
        buffer.truncate(read);
        Ok(buffer)
    }

    /// Everything up to the end of the connection, and the error that it ended with.
    pub(crate) async fn read_to_end(&mut self) -> (Vec<u8>, Option<std::io::ErrorKind>) {
        let mut all = std::mem::take(&mut self.ahead);
        loop {
            match self.read().await {
                Ok(bytes) if bytes.is_empty() => return (all, None),
                Ok(bytes) => all.extend(bytes),
                Err(error) => return (all, Some(error.kind())),
            }
        }
    }

    /// A response, by its own framing.
    pub(crate) async fn response(&mut self) -> Response {
        let (head, length) = loop {
            if let Some(parsed) = ResponseHead::parse(&self.ahead).unwrap() {
                break parsed;
            }
            let bytes = self.read().await.unwrap();
            assert!(!bytes.is_empty(), "the connection ended within a head");
            self.ahead.extend(bytes);
        };
        self.ahead.drain(..length);
        let mut decoder = head.body_length(false).unwrap().decoder();
        let mut body = Vec::new();
        while !decoder.is_done() {
            let decoded = decoder.decode(&self.ahead, |payload| body.extend_from_slice(payload)).unwrap();
            self.ahead.drain(..decoded.consumed);
            if decoder.is_done() {
                break;
            }
            let bytes = self.read().await.unwrap();
            if bytes.is_empty() {
                assert!(decoder.may_end_at_close(), "the connection ended within a body");
                break;
            }
            self.ahead.extend(bytes);
        }
        let field = |field: wire::http1::Field<'_>| {
            (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned())
        };
        Response { status: head.status(), headers: head.fields().map(field).collect(), body }
    }

    /// A request with these fields and body, and its response.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &str,
        body: &[u8],
    ) -> Response {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: mock\r\nContent-Length: {}\r\n{fields}\r\n",
            body.len()
        );
        self.send([head.as_bytes(), body].concat()).await;
        self.response().await
    }
}

/// A request on a connection of its own.
pub(crate) async fn request(mock: &Mock, method: &str, target: &str, fields: &str, body: &[u8]) -> Response {
    Client::connect(mock.address()).await.request(method, target, fields, body).await
}

pub(crate) const CHATGPT: &str = "/backend-api/codex/responses";

/// A turn over HTTP.
pub(crate) async fn turn(mock: &Mock, fields: &str, body: &Value) -> Response {
    request(mock, "POST", CHATGPT, fields, body.to_string().as_bytes()).await
}

/// The body of a turn in which the user says `text`.
pub(crate) fn user(text: &str) -> Value {
    let content = json!([{ "type": "input_text", "text": text }]);
    json!({
        "model": "gpt-5.5", "stream": true, "store": false,
        "input": [{ "type": "message", "role": "user", "content": content }],
        "tools": [{ "type": "function", "name": "exec_command" }],
    })
}

/// The header fields of an account.
pub(crate) fn as_account(account: &mock_upstream::Account) -> String {
    bearer(&account.access_token(), &account.id)
}

pub(crate) fn bearer(token: &str, account: &str) -> String {
    format!("Authorization: Bearer {token}\r\nChatGPT-Account-Id: {account}\r\n")
}
