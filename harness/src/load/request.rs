//! Requests as bytes, as Codex sends them: made once, with the places at which they differ.
//!
//! Field names, their order and the shape of the body are those of Codex 0.169 (`compat` records them); what
//! matters to a proxy (session, thread, turn, previous response) is there, and the rest of the body is
//! filled up to a size.

use mock_upstream::content::{ACCOUNT, Ask, NONCE};

use super::plan::Target;
use super::result::Route;

/// Length of a conversation's id: a UUID.
pub(crate) const THREAD: usize = 36;

/// Length of what a request refers to an earlier response with: its nonce, a line, its account.
pub(crate) const PREVIOUS: usize = NONCE + 1 + ACCOUNT;

/// A request that can be sent once its open places are filled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prepared {
    /// All of it; the body alone for a WebSocket.
    pub(crate) bytes: Vec<u8>,
    /// Where the body begins.
    body_at: usize,
    /// Where the nonce goes.
    nonces: Vec<usize>,
    /// Where the conversation's id goes.
    threads: Vec<usize>,
    /// Where the earlier response's id goes.
    previous: Option<usize>,
    /// Whether the body is compressed before it is sent.
    compressed: bool,
}

/// What fills the open places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filling<'a> {
    /// What tells this request from all others.
    pub(crate) nonce: &'a [u8; NONCE],
    /// The conversation.
    pub(crate) thread: &'a [u8; THREAD],
    /// The earlier response, where the request refers to one.
    pub(crate) previous: Option<&'a [u8; PREVIOUS]>,
}

/// What a body is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    /// The ask; its nonce does not matter.
    pub(crate) ask: &'a Ask,
    /// Items of the input, JSON with commas between; none makes one message.
    pub(crate) input: &'a [u8],
    /// Bytes that the body is filled up to.
    pub(crate) size: usize,
    /// Whether it refers to an earlier response.
    pub(crate) has_previous: bool,
    /// Whether it is compressed.
    pub(crate) compressed: bool,
    /// The turn state to return, if there is one.
    pub(crate) turn_state: Option<&'a [u8]>,
    /// Whether it asks for a compaction.
    pub(crate) is_compaction: bool,
    /// How often the conversation has been compacted.
    pub(crate) window: u32,
}

impl Prepared {
    /// A request over HTTP, or a message for a WebSocket.
    pub(crate) fn new(target: &Target, route: Route, content: &Content<'_>) -> Self {
        let body = Self::body(route, content);
        if route == Route::Websocket {
            return body;
        }
        let mut request = Self::default();
        let path = match route {
            Route::Responses | Route::Websocket => "responses",
            Route::Compact => "responses/compact",
        };
        request.literal(&format!("POST {}/backend-api/codex/{path} HTTP/1.1\r\n", target.prefix));
        request.fields(target, content.turn_state, content.window, content.is_compaction);
        let accept = if route == Route::Responses { "text/event-stream" } else { "application/json" };
        request.literal(&format!("accept: {accept}\r\ncontent-type: application/json\r\n"));
        if content.compressed {
            request.literal("content-encoding: zstd\r\n");
        } else {
            request.literal(&format!("content-length: {}\r\n\r\n", body.bytes.len()));
        }
        request.append(&body);
        request.compressed = content.compressed;
        request
    }

    /// The request that opens a WebSocket, with this key.
    pub(crate) fn upgrade(target: &Target, key: &str) -> Self {
        let mut request = Self::default();
        request.literal(&format!("GET {}/backend-api/codex/responses HTTP/1.1\r\n", target.prefix));
        request.fields(target, None, 0, false);
        request.literal("connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n");
        request.literal("openai-beta: responses_websockets=2026-02-06\r\n");
        request.literal(&format!("sec-websocket-key: {key}\r\n\r\n"));
        request
    }

    /// Fills the open places; the bytes are ready to be sent then, unless they have to be compressed.
    pub(crate) fn fill(&mut self, filling: &Filling<'_>) {
        for at in &self.nonces {
            self.bytes[*at..*at + NONCE].copy_from_slice(filling.nonce);
        }
        for at in &self.threads {
            self.bytes[*at..*at + THREAD].copy_from_slice(filling.thread);
        }
        if let (Some(at), Some(previous)) = (self.previous, filling.previous) {
            self.bytes[at..at + PREVIOUS].copy_from_slice(previous);
        }
    }

    /// The filled request with its body compressed, if it has to be.
    pub(crate) fn compressed(&self) -> Option<std::io::Result<Vec<u8>>> {
        self.compressed.then(|| {
            let (head, body) = self.bytes.split_at(self.body_at);
            let body = zstd::bulk::compress(body, 3)?;
            let mut out = head.to_vec();
            out.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
            out.extend_from_slice(&body);
            Ok(out)
        })
    }

    /// The fields that every request of a conversation has.
    fn fields(&mut self, target: &Target, turn_state: Option<&[u8]>, window: u32, is_compaction: bool) {
        self.literal(&format!("host: {}\r\n", target.host));
        let Target { account, token, .. } = target;
        self.literal(&format!("authorization: Bearer {token}\r\nchatgpt-account-id: {account}\r\n"));
        self.literal("originator: codex_exec\r\nuser-agent: codex_exec/0.169.0 (load; x86_64) load\r\n");
        for name in ["session-id", "thread-id", "x-client-request-id"] {
            self.literal(name);
            self.literal(": ");
            self.thread();
            self.literal("\r\n");
        }
        self.literal("x-codex-window-id: ");
        self.thread();
        self.literal(&format!(":{window}\r\n"));
        if let Some(state) = turn_state {
            self.literal("x-codex-turn-state: ");
            self.bytes.extend_from_slice(state);
            self.literal("\r\n");
        }
        self.literal(r#"x-codex-turn-metadata: {"session_id":""#);
        self.thread();
        self.literal(r#"","turn_id":""#);
        self.nonce();
        let kind = if is_compaction { "compaction" } else { "turn" };
        self.literal(&format!("\",\"request_kind\":\"{kind}\"}}\r\n"));
    }

    fn body(route: Route, content: &Content<'_>) -> Self {
        let mut body = Self::default();
        let kind = if route == Route::Websocket { r#""type":"response.create","# } else { "" };
        let ask = content.ask.text();
        body.literal(&format!(r#"{{{kind}"model":"load","instructions":"{}"#, &ask[..ask.len() - NONCE]));
        body.nonce();
        body.literal(r#"","#);
        if content.has_previous {
            body.literal(r#""previous_response_id":"resp_"#);
            body.previous = Some(body.bytes.len());
            body.bytes.resize(body.bytes.len() + PREVIOUS, b'0');
            body.literal(r#"","#);
        }
        let mut tail = Self::default();
        tail.literal(r#"],"tools":[],"tool_choice":"auto","parallel_tool_calls":false,"#);
        if route != Route::Compact {
            tail.literal(r#""store":false,"stream":true,"include":["reasoning.encrypted_content"],"#);
        }
        tail.literal(r#""prompt_cache_key":""#);
        tail.thread();
        tail.literal(r#"","client_metadata":{"session_id":""#);
        tail.thread();
        tail.literal(r#"","turn_id":""#);
        tail.nonce();
        tail.literal(r#""}}"#);
        body.literal(r#""input":["#);
        if content.input.is_empty() {
            let (before, after) =
                (r#"{"type":"message","role":"user","content":[{"type":"input_text","text":""#, r#""}]}"#);
            let fixed = body.bytes.len() + before.len() + after.len() + tail.bytes.len();
            body.literal(before);
            body.words(content.size.saturating_sub(fixed));
            body.literal(after);
        } else {
            body.bytes.extend_from_slice(content.input);
        }
        body.append(&tail);
        body
    }

    /// Text of this length.
    fn words(&mut self, length: usize) {
        words(length, &mut self.bytes);
    }

    fn literal(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn nonce(&mut self) {
        self.nonces.push(self.bytes.len());
        self.bytes.resize(self.bytes.len() + NONCE, b'0');
    }

    fn thread(&mut self) {
        self.threads.push(self.bytes.len());
        self.bytes.resize(self.bytes.len() + THREAD, b'0');
    }

    fn append(&mut self, other: &Self) {
        let base = self.bytes.len();
        self.body_at = base;
        self.bytes.extend_from_slice(&other.bytes);
        self.nonces.extend(other.nonces.iter().map(|at| at + base));
        self.threads.extend(other.threads.iter().map(|at| at + base));
        self.previous = self.previous.or(other.previous.map(|at| at + base));
    }
}

/// Appends text of this length.
pub(crate) fn words(length: usize, out: &mut Vec<u8>) {
    const TEXT: &[u8] = b"the quick brown fox jumps over the lazy dog, and ";
    out.extend(TEXT.iter().cycle().take(length));
}

/// The digits of a nonce.
pub(crate) fn nonce(bits: [u64; 2]) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    for (half, bits) in nonce.chunks_exact_mut(NONCE / 2).zip(bits) {
        for (place, digit) in half.iter_mut().enumerate() {
            *digit = DIGITS[(bits >> (60 - 4 * place)) as usize & 15];
        }
    }
    nonce
}

/// What a request refers to the response with, that this account gave to the request with this nonce.
pub(crate) fn previous(nonce: &[u8; NONCE], account: &[u8; ACCOUNT]) -> [u8; PREVIOUS] {
    let mut previous = [b'_'; PREVIOUS];
    previous[..NONCE].copy_from_slice(nonce);
    previous[NONCE + 1..].copy_from_slice(account);
    previous
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The id of a conversation: a UUID of version 8, made from these bits.
pub(crate) fn thread(bits: [u64; 2]) -> [u8; THREAD] {
    let digits = nonce(bits);
    let mut thread = [b'-'; THREAD];
    let mut rest = digits.as_slice();
    for (start, length) in [(0, 8), (9, 4), (14, 4), (19, 4), (24, 12)] {
        let (these, others) = rest.split_at(length);
        thread[start..start + length].copy_from_slice(these);
        rest = others;
    }
    thread[14] = b'8';
    thread[19] = b'a';
    thread
}

#[cfg(test)]
mod tests {
    use wire::http1::RequestHead;
    use wire::responses::RequestView;

    use super::super::plan::Traffic;
    use super::*;

    fn content(ask: &Ask) -> Content<'_> {
        Content {
            ask,
            input: b"",
            size: 4_000,
            has_previous: false,
            compressed: false,
            turn_state: None,
            is_compaction: false,
            window: 0,
        }
    }

    #[test]
    fn a_filled_request_is_one_that_readers_take() {
        let shape = Traffic { events: 2, bytes: 10, ..Traffic::default() }.shape();
        let ask = Ask::new(shape, [b'f'; NONCE]);
        let target = Target::of_url("proxy", "http://127.0.0.1:1/k/abc").unwrap();
        let (nonce, thread) = (nonce([1, u64::MAX]), thread([3, 4]));
        let previous = [b'7'; PREVIOUS];
        let filling = Filling { nonce: &nonce, thread: &thread, previous: Some(&previous) };
        for compressed in [false, true] {
            let content = Content { compressed, turn_state: Some(b"state"), ..content(&ask) };
            let mut request = Prepared::new(&target, Route::Responses, &content);
            request.fill(&filling);
            let bytes = request.compressed().map_or(request.bytes.clone(), Result::unwrap);
            let (head, end) = RequestHead::parse(&bytes).unwrap().unwrap();
            assert_eq!(head.target(), "/k/abc/backend-api/codex/responses");
            assert_eq!(head.get("thread-id"), Some(&thread[..]));
            assert_eq!(head.get("x-codex-turn-state"), Some(&b"state"[..]));
            let mut body = bytes[end..].to_vec();
            if compressed {
                body = zstd::bulk::decompress(&body, 10_000).unwrap();
            }
            assert_eq!(body.len(), 4_000);
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json["prompt_cache_key"], std::str::from_utf8(&thread).unwrap());
            assert_eq!(Ask::find(&body).unwrap().nonce, nonce);
        }
        let content = Content { has_previous: true, ..content(&ask) };
        let mut message = Prepared::new(&target, Route::Websocket, &content);
        message.fill(&filling);
        let view = RequestView::new(&message.bytes);
        assert!(view.is_create());
        assert_eq!(view.previous_response_id().unwrap().len(), "resp_".len() + PREVIOUS);
    }
}
