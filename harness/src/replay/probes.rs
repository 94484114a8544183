//! Exchanges that no recording holds: what is rare in real traffic and breaks in real proxies, built by code.
//!
//! They look like Codex's, so that a proxy which knows its clients treats them as such. Each probe is a
//! small fixture with a name; [`joined`] makes one replay of many, in which they all overlap.

use std::time::Duration;

use wire::capture::{
    Answer, Direction, Exchange, Headers, Message, MessageKind, Payload, Request, Rest, StreamEnd,
};

mod errors;

mod http;

mod streams;

mod websockets;

/// What the probes are to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The path of a turn; each probe adds a query of its own.
    pub path: String,
    /// The path of a question without a body.
    pub question: String,
    /// Length of the big bodies, in bytes.
    pub big: usize,
    /// How long the slow answer takes to begin.
    pub slow: Duration,
    /// Whether there are probes that a pooling proxy rightly refuses: odd methods and paths.
    pub odd: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: "/backend-api/codex/responses".into(),
            question: "/backend-api/codex/models".into(),
            big: 16 << 20,
            slow: Duration::from_secs(2),
            odd: true,
        }
    }
}

/// A small fixture that is made by code.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Its name.
    pub name: String,
    /// Its exchanges, numbered from 1.
    pub exchanges: Vec<Exchange>,
}

impl Probe {
    /// Whether an upstream's refusal is in it: a pool thinks otherwise of the account from then on, so that
    /// such a probe wants a pool for itself.
    #[must_use]
    pub fn refuses(&self) -> bool {
        let answers = self.exchanges.iter().filter_map(|exchange| exchange.answer.as_ref());
        answers.into_iter().any(|answer| answer.status >= 400 && answer.status != 413)
    }
}

/// All probes.
#[must_use]
pub fn all(settings: &Settings) -> Vec<Probe> {
    let mut maker = Maker { settings, probes: Vec::new() };
    http::add(&mut maker);
    streams::add(&mut maker);
    errors::add(&mut maker);
    websockets::add(&mut maker);
    maker.probes
}

/// The exchanges of many probes as those of one fixture, each on connections of its own.
#[must_use]
pub fn joined<'a>(probes: impl IntoIterator<Item = &'a Probe>) -> Vec<Exchange> {
    let mut all = Vec::new();
    for (number, probe) in (1..).zip(probes) {
        for exchange in &probe.exchanges {
            let mut exchange = exchange.clone();
            exchange.id = all.len() as u64 + 1;
            exchange.request.id = exchange.id;
            exchange.request.connection += number * 1000;
            all.push(exchange);
        }
    }
    all
}

/// Makes the probes, each with a target of its own.
struct Maker<'a> {
    settings: &'a Settings,
    probes: Vec<Probe>,
}

impl Maker<'_> {
    fn add(&mut self, name: &str, exchanges: Vec<Exchange>) {
        self.probes.push(Probe { name: name.into(), exchanges });
    }

    /// A probe of one exchange.
    fn one(&mut self, name: &str, exchange: Exchange) {
        self.add(name, vec![exchange]);
    }

    fn target(&self, name: &str) -> String {
        format!("{}?probe={name}", self.settings.path)
    }

    /// A request with a body, by a client of Codex's kind.
    fn post(&self, name: &str, body: impl Into<Vec<u8>>) -> Exchange {
        let body = body.into();
        let mut fields = client_fields(name);
        fields.push(("content-type".into(), "application/json".into()));
        fields.push(("host".into(), "localhost".into()));
        fields.push(("content-length".into(), body.len().to_string()));
        exchange("POST", &self.target(name), fields, body)
    }

    fn get(&self, name: &str) -> Exchange {
        let mut fields = client_fields(name);
        fields.push(("host".into(), "localhost".into()));
        let target = format!("{}?probe={name}", self.settings.question);
        exchange("GET", &target, fields, Vec::new())
    }

    /// A request for a WebSocket, with the fields in the order of Codex's own.
    fn upgrade(&self, name: &str) -> Exchange {
        let fields = [
            ("Host", "localhost"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let mut fields: Headers = fields.map(|(name, value)| (name.into(), value.into())).to_vec();
        fields.extend(client_fields(name));
        let extension = "permessage-deflate; client_max_window_bits";
        fields.push(("sec-websocket-extensions".into(), extension.into()));
        let mut exchange = exchange("GET", &self.target(name), fields, Vec::new());
        exchange.request.upgrade = Some("websocket".into());
        exchange.request.body = None;
        exchange
    }
}

/// What every request of the client has: the account's fields, and those of a conversation of its own.
fn client_fields(name: &str) -> Headers {
    let conversation = format!("0198c2d4-0000-7000-8000-{:0>12}", name.len());
    let fields = [
        ("version", "0.169.0".to_owned()),
        ("x-codex-window-id", format!("{name}:0")),
        ("session-id", format!("{conversation}-{name}")),
        ("thread-id", format!("{conversation}-{name}")),
        ("Accept", "text/event-stream".to_owned()),
        ("authorization", "Bearer the-clients-own-token".to_owned()),
        ("chatgpt-account-id", "the-clients-own-account".to_owned()),
        ("originator", "codex_exec".to_owned()),
        ("user-agent", "codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm".to_owned()),
        ("x-duplicate", "first".to_owned()),
        ("x-duplicate", "second".to_owned()),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

fn exchange(method: &str, target: &str, headers: Headers, body: Vec<u8>) -> Exchange {
    let request = Request {
        direction: Direction::ClientToUpstream,
        id: 1,
        connection: 1,
        method: method.into(),
        url: target.into(),
        http_version: "1.1".into(),
        headers,
        head: None,
        wire_len: body.len() as u64,
        body: Some(Payload(body)),
        writes: Vec::new(),
        upgrade: None,
        rest: Rest::new(),
    };
    let messages = Vec::new();
    Exchange {
        id: 1,
        at: 0.0,
        request,
        answer: None,
        messages,
        client_gone: None,
        unanswered: None,
        missing: None,
    }
}

/// What can be said of an exchange that is being made.
trait Made {
    fn answered(self, answer: Answer) -> Self;
    /// Sets something that no recording says.
    fn with(self, name: &str, value: impl Into<serde_json::Value>) -> Self;
    /// Puts a field behind the others.
    fn field(self, name: &str, value: &str) -> Self;
    /// Makes it follow another one, a while later.
    fn following(self, id: u64) -> Self;
    fn says(self, messages: Vec<Message>) -> Self;
    fn leaves(self, at: f64) -> Self;
}

impl Made for Exchange {
    fn answered(mut self, mut answer: Answer) -> Self {
        answer.at += self.at;
        for (at, _) in &mut answer.writes {
            *at += self.at;
        }
        self.answer = Some(answer);
        self
    }

    fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.request.rest.insert(name.into(), value.into());
        self
    }

    fn field(mut self, name: &str, value: &str) -> Self {
        self.request.headers.push((name.into(), value.into()));
        self
    }

    fn following(mut self, id: u64) -> Self {
        self.id = id + 1;
        self.request.id = self.id;
        #[expect(clippy::cast_precision_loss, reason = "a handful of exchanges")]
        let at = id as f64 * 1000.0;
        self.at = at;
        self
    }

    fn says(mut self, messages: Vec<Message>) -> Self {
        self.messages = messages;
        self
    }

    fn leaves(mut self, at: f64) -> Self {
        self.client_gone = Some(at);
        self
    }
}

fn fields(fields: &[(&str, &str)]) -> Headers {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// An answer in one piece.
fn whole(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    let mut headers = fields(headers);
    headers.push(("content-length".into(), body.len().to_string()));
    let writes = if body.is_empty() { Vec::new() } else { vec![(1.0, body.len() as u64)] };
    Answer { at: 1.0, status, headers, body, writes, end: StreamEnd::Eof, is_stream: false }
}

/// A stream of events in these pieces, in chunks.
fn stream(pieces: &[&[u8]]) -> Answer {
    let mut at = 1.0;
    let writes = pieces.iter().map(|piece| {
        at += 2.0;
        (at, piece.len() as u64)
    });
    Answer {
        at: 1.0,
        status: 200,
        headers: fields(&[
            ("content-type", "text/event-stream"),
            ("Cache-Control", "no-cache"),
            ("transfer-encoding", "chunked"),
        ]),
        writes: writes.collect(),
        body: pieces.concat(),
        end: StreamEnd::Eof,
        is_stream: true,
    }
}

fn message(at: f64, direction: Direction, kind: MessageKind, payload: impl Into<Vec<u8>>) -> Message {
    Message { at, direction, kind, payload: payload.into(), frames: Vec::new() }
}
