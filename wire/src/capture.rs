//! The record format of recorded traffic: JSON lines, one record each.
//!
//! The mock's journal writes it, captures and fixtures are made of it. A record says who sent what to
//! whom and when; bytes that are no UTF-8 travel as base64, so that nothing is lost. Records of one
//! exchange share its `id`; fields that this version does not know are kept. What belongs together is put
//! together in `capture/exchange.rs`; what a recorder sees of a connection becomes records in
//! `capture/transcript.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

mod exchange;

mod transcript;

pub use exchange::{Answer, Exchange, ExchangeError, Message, MessageKind, exchanges};
pub use transcript::{Closing, Draft, Limits, Note, Transcript};

/// What else a record holds, in its order.
pub type Rest = serde_json::Map<String, serde_json::Value>;

/// One line of a capture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, as RFC 3339 in UTC with milliseconds.
    pub ts: String,
    /// When, in milliseconds since the recording began (monotonic).
    pub t_ms: f64,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Entry {
    /// What the capture is, before everything else.
    Meta(Meta),
    /// A request, from the client to the upstream.
    Request(Request),
    /// A response whose body is one whole.
    Response(Response),
    /// A response whose body is a stream of events.
    SseStream(SseStream),
    /// A message on a WebSocket.
    WebsocketMessage(WebsocketMessage),
    /// The end of a WebSocket.
    WebsocketClose(WebsocketClose),
    /// The client went away before its exchange had ended.
    ClientDisconnect {
        /// The exchange.
        id: u64,
    },
    /// The recorder has seen the exchange to its end, or knows that it has not.
    ExchangeEnd(ExchangeEnd),
    /// A word of the recorder, between exchanges: a new process of the client, say.
    Marker {
        /// What else the record holds.
        #[serde(flatten)]
        rest: Rest,
    },
    /// What the upstream was told to do wrong.
    Fault {
        /// What else the record holds.
        #[serde(flatten)]
        rest: Rest,
    },
}

/// Where a capture comes from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The client, as people call it: `codex`, `claude`, `gemini`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The client's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<String>,
    /// Who wrote the capture. One that names its recorder has an [`ExchangeEnd`] for every whole exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorder: Option<String>,
    /// What else the record holds.
    #[serde(flatten)]
    pub rest: Rest,
}

/// How far an exchange was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeEnd {
    /// The exchange.
    pub id: u64,
    /// Whether something of it is missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// What is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How the upstream ended it without an answer: a connection that broke before the head has no other
    /// record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<StreamEnd>,
}

/// Who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The client.
    ClientToUpstream,
    /// The upstream.
    UpstreamToClient,
}

/// Header fields in the order, case and number they came in.
pub type Headers = Vec<(String, String)>;

/// Some bytes: as text where they are UTF-8, else as base64.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload(pub Vec<u8>);

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// The two spellings of a payload.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Spelling {
    Text(String),
    Base64 { base64: String },
}

impl Serialize for Payload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Spelling::Base64 { base64: STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Spelling::deserialize(deserializer)? {
            Spelling::Text(text) => Ok(Self(text.into_bytes())),
            Spelling::Base64 { base64 } => {
                STANDARD.decode(base64).map(Self).map_err(serde::de::Error::custom)
            }
        }
    }
}

/// A request as it was received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Always from the client.
    pub direction: Direction,
    /// The exchange.
    pub id: u64,
    /// The connection it came on; exchanges on one connection follow each other.
    pub connection: u64,
    /// The method.
    pub method: String,
    /// The request target.
    pub url: String,
    /// `1.1` or `2`.
    pub http_version: String,
    /// The header fields.
    pub headers: Headers,
    /// Every byte of the head, where the protocol has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Payload>,
    /// The body as it came, still encoded; none for an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Payload>,
    /// Length of the body in bytes.
    pub wire_len: u64,
    /// The reads it came in: milliseconds since the recording began, and length in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<(f64, u64)>,
    /// `websocket` for an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<String>,
    /// What else the record holds.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A response as it was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Always from the upstream.
    pub direction: Direction,
    /// The exchange.
    pub id: u64,
    /// The status.
    pub status: u16,
    /// The header fields.
    pub headers: Headers,
    /// Every byte of the head, where the protocol has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Payload>,
    /// The body as it was sent, still encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Payload>,
    /// The writes it was sent in: milliseconds since the recording began, and length in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<(f64, u64)>,
    /// How it ended; as it should, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<StreamEnd>,
    /// What else the record holds.
    #[serde(flatten)]
    pub rest: Rest,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamEnd {
    /// As it should.
    Eof,
    /// The sender reset the connection.
    Reset,
    /// The sender closed the connection in the middle.
    Fin,
    /// The sender stopped and kept the connection open.
    Hang,
    /// The client went away.
    ClientGone,
}

/// A streamed response as it was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SseStream {
    /// Always from the upstream.
    pub direction: Direction,
    /// The exchange.
    pub id: u64,
    /// The status.
    pub status: u16,
    /// The header fields.
    pub headers: Headers,
    /// Every byte of the head, where the protocol has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Payload>,
    /// Every byte of the body.
    pub stream: Payload,
    /// The writes it was sent in: milliseconds since the recording began, and length in bytes.
    pub writes: Vec<(f64, u64)>,
    /// How it ended.
    pub end: StreamEnd,
    /// What else the record holds.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A message on a WebSocket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebsocketMessage {
    /// Who sent it.
    pub direction: Direction,
    /// The exchange that opened the WebSocket.
    pub id: u64,
    /// Whether it is a binary message.
    pub binary: bool,
    /// Set for a control frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// The message, put together from its frames.
    pub message: Payload,
    /// The payload lengths of its frames, when there is more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<u64>,
    /// What else the record holds.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A control frame that is recorded like a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// A ping.
    Ping,
    /// A pong.
    Pong,
}

/// The end of a WebSocket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebsocketClose {
    /// Who ended it.
    pub direction: Direction,
    /// The exchange that opened the WebSocket.
    pub id: u64,
    /// The close code; 1006 when the connection went without a close frame.
    pub code: u16,
    /// The reason given.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_reads_as_people_expect() {
        let record = Record {
            ts: "2026-11-20T05:56:40.692Z".into(),
            t_ms: 311.25,
            entry: Entry::Request(Request {
                direction: Direction::ClientToUpstream,
                id: 1,
                connection: 2,
                method: "POST".into(),
                url: "/v1/responses".into(),
                http_version: "1.1".into(),
                headers: vec![("Host".into(), "x".into())],
                head: None,
                body: Some(Payload(vec![0x28, 0xB5, 0x2F, 0xFD])),
                wire_len: 4,
                writes: Vec::new(),
                upgrade: None,
                rest: Rest::new(),
            }),
        };
        insta::assert_snapshot!(serde_json::to_string(&record).unwrap(), @r#"{"ts":"2026-11-20T05:56:40.692Z","t_ms":311.25,"type":"request","direction":"client_to_upstream","id":1,"connection":2,"method":"POST","url":"/v1/responses","http_version":"1.1","headers":[["Host","x"]],"body":{"base64":"KLUv/Q=="},"wire_len":4}"#);
    }

    #[test]
    fn unknown_fields_are_kept() {
        let line = r#"{"ts":"t","t_ms":0.0,"type":"response","direction":"upstream_to_client","id":1,
            "status":200,"headers":[],"note":{"a":[1]}}"#;
        let record: Record = serde_json::from_str(line).unwrap();
        let again: serde_json::Value = serde_json::to_value(&record).unwrap();
        assert_eq!(again["note"]["a"][0], 1);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let payload = Payload(bytes);
            let text = serde_json::to_string(&payload).unwrap();
            prop_assert_eq!(serde_json::from_str::<Payload>(&text).unwrap(), payload);
        }
    }
}
