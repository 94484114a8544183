//! Traffic for cases: a Codex session as a recording would hold it, made when it is needed.
//!
//! The shapes and sizes are those of recordings of Codex 0.169 (a request of 70 kB with its instructions,
//! tools and history, an answer in small deltas); words and ids are drawn from a generator with a fixed
//! seed, so that every run measures the same bytes.

use serde_json::json;
use wire::capture::Direction;

/// A session of at least so many bytes, as records with their line ends.
#[must_use]
pub fn codex_session(least: usize) -> Vec<u8> {
    let mut draw = Draw(0x9E37_79B9_7F4A_7C15);
    let mut lines = Vec::with_capacity(least + 200_000);
    let mut turn = 0;
    while lines.len() < least {
        turn += 1;
        add_turn(&mut lines, &mut draw, turn);
    }
    lines
}

/// Numbers that look random.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn prose(&mut self, length: usize) -> String {
        let mut text = String::with_capacity(length + 16);
        while text.len() < length {
            text.push_str(WORDS[self.next() as usize % WORDS.len()]);
            text.push_str(BREAKS[self.next() as usize % BREAKS.len()]);
        }
        text
    }

    fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}_{:016x}{:016x}", self.next(), self.next())
    }

    fn uuid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        let (time, middle, last) = (a >> 32, (a >> 16) & 0xFFFF, a & 0xFFF);
        format!("{time:08x}-{middle:04x}-7{last:03x}-8{:03x}-{:012x}", b & 0xFFF, b >> 16)
    }
}

const WORDS: &[&str] = &[
    "the",
    "of",
    "and",
    "function",
    "returns",
    "a",
    "value",
    "when",
    "parameters",
    "are",
    "missing",
    "in",
    "Files",
    "should",
    "be",
    "read",
    "before",
    "they",
    "change",
    "42",
    "tests",
    "first",
    "path",
    "is",
    "relative",
];
const BREAKS: &[&str] = &[" ", " ", " ", " ", ", ", ".\n", " `x` ", " \"q\" "];

fn add_turn(lines: &mut Vec<u8>, draw: &mut Draw, turn: u64) {
    let ts = format!("2026-11-20T{:02}:{:02}:{:02}.294Z", turn / 3600 % 24, turn / 60 % 60, turn % 60);
    let (thread, item) = (draw.uuid(), draw.id("msg"));
    let request = request(draw, &thread, turn);
    add(lines, &message(&ts, Direction::ClientToUpstream, &request));
    let mut events = Vec::new();
    for number in 0..120 {
        events.push(json!({"type": "response.output_text.delta", "sequence_number": number, "item_id": item, "output_index": 0,
            "content_index": 0, "delta": format!("{} ", WORDS[draw.next() as usize % WORDS.len()]), "logprobs": [], "obfuscation": "aBcDeFgHiJ"}));
    }
    events.push(json!({"type": "response.completed", "response": {"id": draw.id("resp"), "object": "response",
        "created_at": 1_795_154_205 + turn, "status": "completed", "model": "gpt-5.5",
        "output": [{"id": item, "type": "message", "content": [{"type": "output_text", "text": draw.prose(700)}]}],
        "usage": {"input_tokens": 1234, "output_tokens": 33}}}));
    if turn.is_multiple_of(2) {
        let event = |event: &serde_json::Value| {
            format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
        };
        let stream: String = events.iter().map(event).collect();
        add(
            lines,
            &json!({"ts": ts, "t_ms": turn * 10, "type": "sse_stream", "direction": Direction::UpstreamToClient, "id": turn,
            "status": 200, "headers": [["content-type", "text/event-stream"], ["x-request-id", draw.uuid()]],
            "stream": stream, "writes": vec![(1.5, 200); 120], "end": "eof"}),
        );
    } else {
        for event in &events {
            add(lines, &message(&ts, Direction::UpstreamToClient, event));
        }
    }
}

fn request(draw: &mut Draw, thread: &str, turn: u64) -> serde_json::Value {
    let history: Vec<_> = (0..12)
        .map(|_| json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": draw.prose(3000)}]}))
        .collect();
    let tools: Vec<_> = (0..8)
        .map(|tool| {
            let properties =
                json!({"token": {"type": "string", "description": draw.prose(80)}, "id": {"type": "string"}});
            json!({"type": "function", "name": format!("tool_{tool}"), "description": draw.prose(800),
                "parameters": {"type": "object", "properties": properties, "required": ["token"]}})
        })
        .collect();
    let metadata = json!({"session_id": thread, "turn_id": draw.uuid(), "turn_started_at_unix_ms": 1_795_154_205_000 + turn});
    json!({"type": "response.create", "model": "gpt-5.5", "instructions": draw.prose(20_000), "input": history, "tools": tools,
        "prompt_cache_key": thread, "client_metadata": {"session_id": thread, "x-codex-turn-metadata": metadata.to_string()}})
}

fn message(ts: &str, direction: Direction, message: &serde_json::Value) -> serde_json::Value {
    json!({"ts": ts, "t_ms": 10, "type": "websocket_message", "direction": direction, "id": 1, "binary": false,
        "message": message.to_string()})
}

fn add(lines: &mut Vec<u8>, record: &serde_json::Value) {
    lines.extend_from_slice(record.to_string().as_bytes());
    lines.push(b'\n');
}
