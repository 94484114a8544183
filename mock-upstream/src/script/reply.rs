//! What a rule answers: turns of the model, whole responses, and bodies and frames exactly as written.
//!
//! Shapes only; `chatgpt` makes events of them and `server/play.rs` and `websocket` send those.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What a rule answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A turn of the model, as events of either transport.
    Turn(Turn),
    /// A response whose body is one whole. On a WebSocket it becomes an error message with its status.
    Http(Http),
    /// A body of bytes exactly as written here; only over HTTP.
    Stream(Stream),
    /// Frames exactly as written here; only on a WebSocket.
    Frames(Vec<Frame>),
    /// What the built-in rules answer.
    Default,
}

impl From<Turn> for Reply {
    fn from(turn: Turn) -> Self {
        Self::Turn(turn)
    }
}

impl From<Http> for Reply {
    fn from(http: Http) -> Self {
        Self::Http(http)
    }
}

impl From<Stream> for Reply {
    fn from(stream: Stream) -> Self {
        Self::Stream(stream)
    }
}

impl From<Vec<Frame>> for Reply {
    fn from(frames: Vec<Frame>) -> Self {
        Self::Frames(frames)
    }
}

/// A turn of the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Turn {
    /// What it puts out, in order.
    pub output: Vec<Item>,
    /// The tokens it reports.
    pub usage: Usage,
    /// How it ends.
    pub end: TurnEnd,
    /// The response's id; the mock makes one up without it.
    pub id: Option<String>,
    /// Header fields besides the usual ones; on a WebSocket they are in `response.metadata`.
    pub headers: Vec<(String, String)>,
}

impl Turn {
    /// A turn that says `text`.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::of([Item::Text(text.into())])
    }

    /// A turn that runs `command` with the shell tool that the client offers.
    #[must_use]
    pub fn shell(command: impl Into<String>) -> Self {
        Self::of([Item::Shell(command.into())])
    }

    /// A turn with these items.
    #[must_use]
    pub fn of(output: impl IntoIterator<Item = Item>) -> Self {
        Self { output: output.into_iter().collect(), ..Self::default() }
    }

    /// Lets the turn end otherwise than completed.
    #[must_use]
    pub fn ending(mut self, end: TurnEnd) -> Self {
        self.end = end;
        self
    }

    /// Lets the turn report this many tokens in all.
    #[must_use]
    pub fn tokens(mut self, total: u64) -> Self {
        self.usage = Usage { input: total.saturating_sub(5), cached: 0, output: total.min(5), total: None };
        self
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Something that a turn puts out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// A message of the assistant.
    Text(String),
    /// A message in deltas of at least `bytes` bytes each, cut between characters.
    Deltas {
        /// The whole text.
        text: String,
        /// The least length of a delta.
        bytes: usize,
    },
    /// A call of whichever shell tool the request offers.
    Shell(String),
    /// A call of a function.
    Call(Call),
    /// A call of a tool with free text as its input.
    CustomCall(CustomCall),
    /// A reasoning item with this summary and `encrypted_content` that only this account can use.
    Reasoning(String),
    /// A compaction item with `encrypted_content` that only this account can use.
    Compaction {},
    /// An output item verbatim.
    Raw(serde_json::Value),
    /// An event verbatim.
    Event(serde_json::Value),
    /// A comment line; nothing on a WebSocket.
    Comment(String),
}

/// A call of a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The function.
    pub name: String,
    /// Its arguments.
    pub arguments: serde_json::Value,
    /// The id of the call; the mock makes one up without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// The tool's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A call of a tool with free text as its input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomCall {
    /// The tool.
    pub name: String,
    /// Its input.
    pub input: String,
    /// The id of the call; the mock makes one up without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// The tool's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// The tokens that a turn reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// Tokens of the input, cached ones included.
    pub input: u64,
    /// Tokens of the input that were cached.
    pub cached: u64,
    /// Tokens of the output.
    pub output: u64,
    /// All tokens; the sum without it. Over `model_auto_compact_token_limit` Codex compacts.
    pub total: Option<u64>,
}

impl Default for Usage {
    fn default() -> Self {
        Self { input: 10, cached: 0, output: 2, total: None }
    }
}

/// How a turn ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnEnd {
    /// With `response.completed`.
    #[default]
    Completed,
    /// With `response.failed` and this error.
    Failed {
        /// The error's code.
        code: String,
        /// Its message.
        message: String,
    },
    /// With `response.incomplete` for this reason.
    Incomplete(String),
    /// With nothing.
    Open,
}

/// A response whose body is one whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// The status.
    pub status: u16,
    /// The header fields, as they are written. The length is added.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body as JSON; adds its content type if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<serde_json::Value>,
}

impl Http {
    /// A response without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: None, json: None }
    }

    /// A response with a JSON body.
    #[must_use]
    pub fn json(status: u16, body: serde_json::Value) -> Self {
        Self { status, headers: Vec::new(), body: None, json: Some(body) }
    }

    /// A response with a text body.
    #[must_use]
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: Some(body.into()), json: None }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A body of bytes exactly as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// The status.
    #[serde(default = "Stream::default_status")]
    pub status: u16,
    /// The header fields; without any, those of an event stream.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// How the end of the body is told.
    #[serde(default)]
    pub framing: Framing,
    /// What is written: each piece in one write of its own.
    pub writes: Vec<Write>,
}

impl Stream {
    /// An event stream of these texts, each in one write.
    #[must_use]
    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        let writes = texts.into_iter().map(|text| Write::Text(text.into())).collect();
        Self { status: Self::default_status(), headers: Vec::new(), framing: Framing::default(), writes }
    }

    /// An event stream of these bytes, each in one write.
    #[must_use]
    pub fn bytes<B: AsRef<[u8]>>(parts: impl IntoIterator<Item = B>) -> Self {
        let writes = parts.into_iter().map(|part| Write::Base64(STANDARD.encode(part))).collect();
        Self { status: Self::default_status(), headers: Vec::new(), framing: Framing::default(), writes }
    }

    fn default_status() -> u16 {
        200
    }
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// One chunk per write, and the last chunk.
    #[default]
    Chunked,
    /// `Content-Length`.
    Length,
    /// By closing the connection.
    Close,
}

/// A piece of a raw body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Write {
    /// Text.
    Text(String),
    /// Bytes, in base64.
    Base64(String),
    /// Nothing for so many milliseconds.
    PauseMs(u64),
}

/// A frame, or a message in several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// A text message in one frame.
    Text(String),
    /// A text message in several frames.
    Fragments(Vec<String>),
    /// A binary message, in base64.
    Binary(String),
    /// A ping with this payload.
    Ping(String),
    /// A close frame, and the end.
    Close {
        /// The close code.
        code: u16,
        /// The reason.
        #[serde(default)]
        reason: String,
    },
    /// Nothing for so many milliseconds.
    PauseMs(u64),
}
