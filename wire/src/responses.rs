//! Views of the Responses protocol: the few fields of requests and events that a proxy reads.
//!
//! Shapes measured with Codex 0.140 to 0.169 (November 2026). A view borrows the bytes it looks at and
//! changes nothing; what is missing or of another type is simply not there.

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::packed::Searcher;
use memchr::memmem::Finder;

use crate::json::Value;

static ENCRYPTED_CONTENT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(r#""encrypted_content""#));

/// A word in quotes, key or value, that most requests do not hold. (One spelled with escapes is not found; no
/// client writes one.)
#[derive(Debug, Clone, Copy)]
enum Word {
    PreviousResponseId,
    Generate,
    TurnState,
    SessionId,
    PromptCacheKey,
    ThreadId,
    Compaction,
    CompactionTrigger,
    EncryptedContent,
}

/// The words in their order, as they stand in a text.
const WORDS: [&str; 9] = [
    r#""previous_response_id""#,
    r#""generate""#,
    r#""x-codex-turn-state""#,
    r#""session_id""#,
    r#""prompt_cache_key""#,
    r#""thread_id""#,
    r#""compaction""#,
    r#""compaction_trigger""#,
    r#""encrypted_content""#,
];

/// Finds all words in one pass. None on a processor without the vector instructions for that.
static SEARCHER: LazyLock<Option<Searcher>> = LazyLock::new(|| Searcher::new(WORDS));

/// Which words a text holds, a bit for each. A text may be long, so it is gone through once.
#[derive(Debug, Clone, Copy)]
struct Words(u16);

impl Words {
    const ALL: u16 = (1 << WORDS.len()) - 1;

    fn of(text: &[u8]) -> Self {
        let Some(searcher) = &*SEARCHER else { return Self(Self::ALL) };
        let mut found = 0;
        for word in searcher.find_iter(text) {
            found |= 1 << word.pattern().as_usize();
            if found == Self::ALL {
                break;
            }
        }
        Self(found)
    }

    fn has(self, word: Word) -> bool {
        self.0 & (1 << word as u16) != 0
    }
}

/// The body of a `POST …/responses`, or a WebSocket message of type `response.create`.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    text: &'a [u8],
    body: Value<'a>,
    words: Words,
}

impl<'a> RequestView<'a> {
    /// A view of the JSON text of a request.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, body: Value::new(text), words: Words::of(text) }
    }

    /// Whether this is a WebSocket message that asks for a response.
    #[must_use]
    pub fn is_create(self) -> bool {
        self.field("type").is_some_and(|kind| kind == "response.create")
    }

    /// The response that this request continues. Over HTTP Codex never sends one; over WebSocket every
    /// request of a chain but the first has it.
    #[must_use]
    pub fn previous_response_id(self) -> Option<Cow<'a, str>> {
        self.rare(Word::PreviousResponseId, &["previous_response_id"])
    }

    /// The model's name.
    #[must_use]
    pub fn model(self) -> Option<Cow<'a, str>> {
        self.field("model")
    }

    /// Whether this WebSocket request only warms the connection up; its failure is invisible to the
    /// user.
    #[must_use]
    pub fn is_warm_up(self) -> bool {
        self.words.has(Word::Generate) && self.body.get("generate").and_then(Value::as_bool) == Some(false)
    }

    /// The turn state, which on a WebSocket travels in the message instead of a header.
    #[must_use]
    pub fn turn_state(self) -> Option<Cow<'a, str>> {
        self.rare(Word::TurnState, &["client_metadata", TURN_STATE])
    }

    /// The conversation's session.
    #[must_use]
    pub fn session_id(self) -> Option<Cow<'a, str>> {
        self.rare(Word::SessionId, &["client_metadata", "session_id"])
    }

    /// The key of the prompt cache: Codex puts the thread id here, in every mode.
    #[must_use]
    pub fn prompt_cache_key(self) -> Option<Cow<'a, str>> {
        self.rare(Word::PromptCacheKey, &["prompt_cache_key"])
    }

    /// The conversation's thread; sub-agents have threads of their own in one session.
    #[must_use]
    pub fn thread_id(self) -> Option<Cow<'a, str>> {
        self.rare(Word::ThreadId, &["client_metadata", "thread_id"])
    }

    /// Whether the text can have any [`encrypted_contents`].
    #[must_use]
    pub fn may_have_encrypted_contents(self) -> bool {
        self.words.has(Word::EncryptedContent)
    }

    /// Whether the input holds the item that an earlier compaction left of the history.
    #[must_use]
    pub fn has_compaction(self) -> bool {
        self.words.has(Word::Compaction)
            && self.body.get("input").is_some_and(|input| {
                let mut kinds = input.elements().filter_map(|item| item.get("type"));
                kinds.any(|kind| kind.as_str().is_some_and(|kind| kind == "compaction"))
            })
    }

    /// Whether this request asks for a compaction on the ordinary route: its last input item is a
    /// `compaction_trigger`.
    #[must_use]
    pub fn is_compaction(self) -> bool {
        self.words.has(Word::CompactionTrigger)
            && self.body.get("input").is_some_and(|input| {
                let last = input.elements().last().and_then(|item| item.get("type"));
                last.and_then(Value::as_str).is_some_and(|kind| kind == "compaction_trigger")
            })
    }

    /// The text without the turn state in its `client_metadata`; every other byte stays. None if there is
    /// none to take out.
    #[must_use]
    pub fn without_turn_state(self) -> Option<Vec<u8>> {
        let metadata = self.body.get("client_metadata")?;
        let key = metadata.entries().find(|(key, _)| key.as_str().is_some_and(|key| key == TURN_STATE));
        let (key, value) = key?;
        let start = offset(self.text, key.raw());
        let end = offset(self.text, value.raw()) + value.raw().len();
        // With the entry goes the comma behind it, or, if it is the last one, the comma before it.
        let behind = self.text[end..].iter().position(|byte| !byte.is_ascii_whitespace()).map(|at| end + at);
        let (start, end) = match behind {
            Some(at) if self.text[at] == b',' => (start, at + 1),
            _ => {
                let before = self.text[..start].iter().rposition(|byte| !byte.is_ascii_whitespace());
                match before {
                    Some(at) if self.text[at] == b',' => (at, end),
                    _ => (start, end),
                }
            }
        };
        Some([&self.text[..start], &self.text[end..]].concat())
    }

    fn field(self, key: &str) -> Option<Cow<'a, str>> {
        self.body.get(key).and_then(Value::as_str)
    }

    /// A field that most requests do not have: the object is walked only if the last key of `path` is in the
    /// text.
    fn rare(self, key: Word, path: &[&str]) -> Option<Cow<'a, str>> {
        if self.words.has(key) { self.body.at(path).and_then(Value::as_str) } else { None }
    }
}

/// Where `part`, a slice of `text`, begins in it.
fn offset(text: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// What of a text only the account that made it can read: the `encrypted_content` of reasoning and compaction
/// items, wherever in the text they stand, in their order. Whether another account can use one is not known
/// (`invalid_encrypted_content` is the answer to one that cannot be verified), so none is ever shown to
/// another. A text without such items is only searched for the key. (A key spelled with escapes is not
/// found; no client writes one.)
pub fn encrypted_contents(text: &[u8]) -> impl Iterator<Item = Cow<'_, str>> {
    let key = &*ENCRYPTED_CONTENT;
    key.find_iter(text).filter_map(move |at| {
        let value = text[at + key.needle().len()..].trim_ascii_start().strip_prefix(b":")?;
        Value::new(value).as_str().filter(|content| !content.is_empty())
    })
}

/// The header in which Codex says what a request is for, as JSON: present on every model call (0.140 to 0.169).
pub const TURN_METADATA: &str = "x-codex-turn-metadata";

/// Whether the value of [`TURN_METADATA`] says that the request is a compaction, on whatever route.
#[must_use]
pub fn is_of_compaction(turn_metadata: &[u8]) -> bool {
    let kind = Value::new(turn_metadata).get("request_kind").and_then(Value::as_str);
    kind.is_some_and(|kind| kind == "compaction")
}

/// The name of the turn state, as a header and as a key of `client_metadata`.
pub const TURN_STATE: &str = "x-codex-turn-state";

/// What kind of event this is; only the kinds that a proxy treats in their own way are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `response.created`: the response has an id.
    Created,
    /// `response.in_progress`.
    InProgress,
    /// `response.queued`.
    Queued,
    /// `response.metadata`: headers that a WebSocket has no other place for.
    Metadata,
    /// `codex.rate_limits`: the account's windows.
    RateLimits,
    /// `response.output_item.done`: an item of the output, whole.
    ItemDone,
    /// `response.completed`: the only end that Codex takes for success.
    Completed,
    /// `response.failed`.
    Failed,
    /// `response.incomplete`.
    Incomplete,
    /// `error`: on a WebSocket with a `status`, treated as that HTTP status.
    Error,
    /// Any other event, output among them.
    Other,
}

impl EventKind {
    fn parse(name: &[u8]) -> Self {
        match name {
            b"response.created" => Self::Created,
            b"response.in_progress" => Self::InProgress,
            b"response.queued" => Self::Queued,
            b"response.metadata" => Self::Metadata,
            b"codex.rate_limits" => Self::RateLimits,
            b"response.output_item.done" => Self::ItemDone,
            b"response.completed" => Self::Completed,
            b"response.failed" => Self::Failed,
            b"response.incomplete" => Self::Incomplete,
            b"error" => Self::Error,
            _ => Self::Other,
        }
    }

    /// Whether the event comes before any output: nothing of the answer is known yet.
    #[must_use]
    pub fn precedes_output(self) -> bool {
        matches!(self, Self::Created | Self::InProgress | Self::Queued | Self::Metadata | Self::RateLimits)
    }

    /// Whether the event ends its response.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Incomplete | Self::Error)
    }
}

/// The kind of an event that begins with its type, as the backend writes them. Most events are output,
/// and nothing else of them is looked at.
fn kind_at_start(text: &[u8]) -> Option<EventKind> {
    let rest = text.strip_prefix(br#"{"type":""#)?;
    let end = memchr::memchr2(b'"', b'\\', &rest[..rest.len().min(64)])?;
    // A name with an escape in it is left to the general way.
    (rest[end] == b'"').then(|| EventKind::parse(&rest[..end]))
}

fn kind_of(event: Value<'_>) -> EventKind {
    let kind = event.get("type").and_then(Value::as_str);
    kind.map_or(EventKind::Other, |kind| EventKind::parse(kind.as_bytes()))
}

/// How many tokens a response took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// Tokens of the input, cached ones included.
    pub input: i64,
    /// Tokens of the input that were cached.
    pub cached: i64,
    /// Tokens of the output, reasoning included.
    pub output: i64,
    /// All tokens, as the backend counts them.
    pub total: i64,
}

/// The data of an SSE event, or a WebSocket message from upstream.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a> {
    text: &'a [u8],
    event: Value<'a>,
    /// What kind of event it is.
    pub kind: EventKind,
}

impl<'a> EventView<'a> {
    /// A view of an event. What is no JSON object, or has no type, is of kind [`EventKind::Other`].
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        let event = Value::new(text);
        Self { text, event, kind: kind_at_start(text).unwrap_or_else(|| kind_of(event)) }
    }

    /// The id of the response that the event is about.
    #[must_use]
    pub fn response_id(self) -> Option<Cow<'a, str>> {
        self.event.at(&["response", "id"]).and_then(Value::as_str)
    }

    /// The `encrypted_content` of the items in the event.
    pub fn encrypted_contents(self) -> impl Iterator<Item = Cow<'a, str>> {
        encrypted_contents(self.text)
    }

    /// The error object: of the response that failed, or of the event itself.
    #[must_use]
    pub fn error(self) -> Option<Value<'a>> {
        let nested = self.event.at(&["response", "error"]);
        nested.or_else(|| self.event.get("error")).filter(|error| error.is_object())
    }

    /// The HTTP status that an `error` message stands for; without one Codex ignores most of them.
    #[must_use]
    pub fn status(self) -> Option<u16> {
        let status = self.event.get("status").or_else(|| self.event.get("status_code"));
        status.and_then(Value::as_i64).and_then(|status| u16::try_from(status).ok())
    }

    /// A header that the event carries, as `response.metadata` and error messages do.
    #[must_use]
    pub fn header(self, name: &str) -> Option<Cow<'a, str>> {
        let headers = self.event.get("headers")?;
        let entry =
            headers.entries().find(|(key, _)| key.as_str().is_some_and(|key| key.eq_ignore_ascii_case(name)));
        entry.and_then(|(_, value)| value.as_str())
    }

    /// The tokens that the response took.
    #[must_use]
    pub fn usage(self) -> Option<TokenUsage> {
        let usage = self.event.at(&["response", "usage"]).filter(|usage| usage.is_object())?;
        let count = |path: &[&str]| usage.at(path).and_then(Value::as_i64).unwrap_or_default();
        Some(TokenUsage {
            input: count(&["input_tokens"]),
            cached: count(&["input_tokens_details", "cached_tokens"]),
            output: count(&["output_tokens"]),
            total: count(&["total_tokens"]),
        })
    }

    /// The event itself, for what has no accessor here.
    #[must_use]
    pub fn value(self) -> Value<'a> {
        self.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_request_are_read() {
        let text = br#"{"type":"response.create","model":"gpt-5.5","previous_response_id":"resp_1",
            "input":[{"type":"reasoning","encrypted_content" : "gAAA"},{"type":"compaction_trigger"}],
            "include":["reasoning.encrypted_content"],"prompt_cache_key":"t1","generate":false,
            "client_metadata":{"session_id":"s1","thread_id":"t2","x-codex-turn-state":"ts"}}"#;
        let view = RequestView::new(text);
        assert!(view.is_create() && view.is_warm_up() && view.is_compaction());
        assert!(view.may_have_encrypted_contents());
        assert_eq!(encrypted_contents(text).collect::<Vec<_>>(), ["gAAA"]);
        assert!(!view.has_compaction());
        assert_eq!(view.previous_response_id().as_deref(), Some("resp_1"));
        assert_eq!(view.model().as_deref(), Some("gpt-5.5"));
        assert_eq!(view.turn_state().as_deref(), Some("ts"));
        assert_eq!(view.session_id().as_deref(), Some("s1"));
        assert_eq!(view.thread_id().as_deref(), Some("t2"));
        assert_eq!(view.prompt_cache_key().as_deref(), Some("t1"));
        let items = br#"{"input":[{"type":"compaction","encrypted_content":"one"},
            {"type":"reasoning","encrypted_content":"t\/wo"},{"encrypted_content":7}]}"#;
        assert!(RequestView::new(items).has_compaction());
        assert_eq!(encrypted_contents(items).collect::<Vec<_>>(), ["one", "t/wo"]);
    }

    #[test]
    fn each_word_is_found_wherever_it_stands() {
        for (number, word) in WORDS.iter().enumerate() {
            for place in 0..70 {
                let text = format!("{}{word}{}", "\"".repeat(place), "x".repeat(70 - place));
                assert_eq!(Words::of(text.as_bytes()).0, 1 << number, "{text}");
            }
        }
        assert_eq!(Words::of(WORDS.join(":").as_bytes()).0, Words::ALL);
        assert_eq!(Words::of(b"").0, 0);
        assert_eq!(WORDS[Word::EncryptedContent as usize], r#""encrypted_content""#, "one is as the other");
    }

    #[test]
    fn what_only_looks_like_a_field_is_none() {
        let text = br#"{"input":[{"previous_response_id":"x","text":"\"encrypted_content\":\"y\""},
            {"encrypted_content":null},{"encrypted_content":""}],"include":["reasoning.encrypted_content"],
            "previous_response_id":null,"generate":"false","text":"compaction_trigger"}"#;
        let view = RequestView::new(text);
        assert_eq!(view.previous_response_id(), None);
        assert_eq!(encrypted_contents(text).count(), 0);
        assert!(!view.is_warm_up() && !view.is_compaction() && !view.has_compaction());
        assert!(!view.is_create());
        for text in ["", "[]", "null", "\"x\"", "{", "\u{0}"] {
            let view = RequestView::new(text.as_bytes());
            assert_eq!((view.previous_response_id(), view.model()), (None, None), "{text:?}");
        }
    }

    #[test]
    fn a_compaction_says_so_in_the_head() {
        assert!(is_of_compaction(br#"{"turn_id":"1","request_kind":"compaction","model":"m"}"#));
        for other in [r#"{"request_kind":"turn"}"#, r#"{"model":"compaction"}"#, "compaction", ""] {
            assert!(!is_of_compaction(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn the_turn_state_is_taken_out_and_nothing_else() {
        for (text, expected) in [
            (r#"{"client_metadata":{"x-codex-turn-state":"t"}}"#, r#"{"client_metadata":{}}"#),
            (
                r#"{"client_metadata":{"x-codex-turn-state" : "t" , "a":1}}"#,
                r#"{"client_metadata":{ "a":1}}"#,
            ),
            (r#"{"client_metadata":{"a":1, "x-codex-turn-state":"t"} }"#, r#"{"client_metadata":{"a":1} }"#),
            (
                r#"{"client_metadata":{"a":1,"x-codex-turn-state":"t,\"}","b":2}}"#,
                r#"{"client_metadata":{"a":1,"b":2}}"#,
            ),
        ] {
            let view = RequestView::new(text.as_bytes());
            assert_eq!(view.without_turn_state().unwrap(), expected.as_bytes(), "{text}");
        }
        for text in [r#"{"client_metadata":{"a":"x-codex-turn-state"}}"#, r#"{"x-codex-turn-state":"t"}"#, ""]
        {
            assert_eq!(RequestView::new(text.as_bytes()).without_turn_state(), None, "{text}");
        }
    }

    #[test]
    fn the_fields_of_events_are_read() {
        let completed = EventView::new(
            br#"{"type":"response.completed","response":{"id":"r","usage":{"input_tokens":10,
            "input_tokens_details":{"cached_tokens":4},"output_tokens":2,"total_tokens":12}}}"#,
        );
        assert!(completed.kind.is_terminal() && !completed.kind.precedes_output());
        assert_eq!(completed.response_id().as_deref(), Some("r"));
        let usage = TokenUsage { input: 10, cached: 4, output: 2, total: 12 };
        assert_eq!(completed.usage(), Some(usage));
        let error = EventView::new(
            br#"{"type":"error","status_code":429,"error":{"type":"usage_limit_reached"},
            "headers":{"X-Codex-Turn-State":"ts","n":1}}"#,
        );
        assert_eq!((error.kind, error.status()), (EventKind::Error, Some(429)));
        assert_eq!(error.header("x-codex-turn-state").as_deref(), Some("ts"));
        assert_eq!(error.header("n"), None);
        assert!(error.error().is_some());
        for text in [
            r#"{"type":"response.completed"}"#,
            r#" { "x":1, "type" : "response.completed"}"#,
            r#"{"type":"response.\u0063ompleted"}"#,
        ] {
            assert_eq!(EventView::new(text.as_bytes()).kind, EventKind::Completed, "{text}");
        }
        for text in ["", "[DONE]", "[]", "{\"type\":7}", "{\"type\":\"response.output_item.added\"}"] {
            assert_eq!(EventView::new(text.as_bytes()).kind, EventKind::Other, "{text:?}");
        }
    }
}
