//! What a file is: found by its name and its first bytes, which must not contradict each other.

use std::path::Path;

/// How many bytes are looked at.
pub(super) const LOOK: u64 = 64 * 1024;

/// A format of captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A record on each line.
    JsonLines,
    /// One document: an array of records, `{"records":[…]}`, or a record. A HAR is recognised. What stands
    /// beside `records` is not read.
    Json,
    /// An HTTP archive, version 1.2.
    Har,
    /// The text of one stream of events.
    Sse,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "jsonl" | "ndjson" => Ok(Self::JsonLines),
            "json" => Ok(Self::Json),
            "har" => Ok(Self::Har),
            "sse" => Ok(Self::Sse),
            _ => Err(format!("there is no format {text:?}: name jsonl, json, har or sse")),
        }
    }
}

/// What does not go together, and what to do.
type Doubt = (String, String);

/// How a content begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    Nothing,
    Object,
    Array,
    Comment,
    Events,
    Other,
}

impl Format {
    /// The format of a file with this name that begins with these bytes.
    pub(super) fn find(name: &Path, head: &[u8]) -> Result<Self, Doubt> {
        let extension = name.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let beginning = Beginning::of(head);
        let doubt = |problem: &str, advice: &str| Err((problem.to_owned(), advice.to_owned()));
        match (extension.to_ascii_lowercase().as_str(), beginning) {
            ("jsonl" | "ndjson", Beginning::Array) => doubt(
                "its name says JSON lines, and it begins like one JSON array",
                "rename it to .json, or name the format",
            ),
            ("jsonl" | "ndjson" | "json" | "har", Beginning::Events) => doubt(
                "its name says JSON, and it begins like a stream of events",
                "rename it to .sse, or name the format",
            ),
            ("jsonl" | "ndjson", _) => Ok(Self::JsonLines),
            ("har", Beginning::Object) => Ok(Self::Har),
            ("json", Beginning::Object | Beginning::Array) => Ok(Self::Json),
            ("json" | "har", Beginning::Nothing) => {
                doubt("it is empty", "a JSON document holds an array of records, or one record")
            }
            ("json" | "har", _) => doubt(
                "its name says that it is one JSON document, and it does not begin like one",
                "rename it to .jsonl if it has a record on each line, or name the format",
            ),
            ("sse", _) => Ok(Self::Sse),
            (_, Beginning::Object | Beginning::Array) => doubt(
                "it begins like JSON, and its name does not say which kind",
                "rename it to .jsonl, .json or .har, or name the format",
            ),
            (_, Beginning::Events) => Ok(Self::Sse),
            (_, Beginning::Nothing | Beginning::Comment | Beginning::Other) => doubt(
                "it holds neither JSON nor server-sent events",
                "name the format: jsonl, json, har, or sse to take all of it as one stream",
            ),
        }
    }
}

impl Beginning {
    fn of(head: &[u8]) -> Self {
        let text = head.trim_ascii_start();
        match text.first() {
            None => Self::Nothing,
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(_) if is_event_line(text) => Self::Events,
            Some(b'#') => Self::Comment,
            Some(_) => Self::Other,
        }
    }
}

/// Whether a text begins with a line as streams of events have them.
fn is_event_line(text: &[u8]) -> bool {
    let line = text.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    line.contains(&b':') && matches!(name, b"" | b"data" | b"event" | b"id" | b"retry")
}
