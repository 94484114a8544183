//! A request as the pipeline sees it: its head, its replayable body, and the conversation it belongs to.
//!
//! The body is kept as it came until a response is committed. What is read of it is read from a view
//! that is decoded aside; the bytes that are forwarded are never touched.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::Read as _;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OnceCell;
use wire::http1::RequestHead;
use wire::responses::{RequestView, TURN_STATE, encrypted_contents};

use crate::metrics::Meter;
use crate::route::Routed;
use crate::state::{Digest, digest};

/// A request that passed the guard, with all of its body.
#[derive(Debug)]
pub struct Exchange {
    /// Its number in this run.
    pub id: u64,
    /// When its head had arrived.
    pub started: Instant,
    /// The head as it came.
    pub head: RequestHead,
    /// The request target without the capability.
    pub target: String,
    /// Which call it is.
    pub routed: Routed,
    /// The body as it came, decoded from chunks and from nothing else.
    pub body: Bytes,
    /// What ties the request to a conversation.
    pub ties: Ties,
    /// The body without its turn state, once that was needed.
    pub stripped: OnceCell<Option<Bytes>>,
    /// Counts it.
    pub meter: Meter,
}

/// What ties a request to a conversation, and so to the account that has it: of each id its digest, made
/// once and asked for many times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ties {
    /// The response that it continues.
    pub response: Option<Digest>,
    /// Items of its input that only the account which made them can read: the newest few, in their order.
    pub contents: Vec<Digest>,
    /// The turn state that an upstream gave out in this turn, from the head.
    pub turn_state: Option<Digest>,
    /// The same from the body.
    pub turn_state_in_body: Option<Digest>,
    /// The thread: a conversation of its own.
    pub thread: Option<Digest>,
    /// The session; sub-agents, whose threads are their own, share it with their parent.
    pub session: Option<Digest>,
    /// Whether it carries what a compaction left of its history.
    pub has_compaction: bool,
    /// Whether it asks for a compaction.
    pub is_compaction: bool,
    /// Whether there is a body that cannot be looked at: it may hold anything.
    pub is_opaque: bool,
}

impl Ties {
    /// Reads the ids of a request over HTTP: from the head, and from the body those that the head does not
    /// have.
    #[must_use]
    pub fn read(head: &RequestHead, body: Option<RequestView<'_>>) -> Self {
        let field = |name: &str| head.get_str(name).filter(|value| !value.is_empty()).map(digest);
        let session = ["session-id", "session_id", "conversation_id"].into_iter().find_map(field);
        let ties =
            Self { turn_state: field(TURN_STATE), thread: field("thread-id"), session, ..Self::default() };
        ties.with_body(body)
    }

    /// The ids of a message on a WebSocket, whose upgrade had these.
    #[must_use]
    pub fn of_message(upgrade: &Self, message: RequestView<'_>) -> Self {
        let (thread, session) = (upgrade.thread, upgrade.session);
        Self { thread, session, ..Self::default() }.with_body(Some(message))
    }

    fn with_body(mut self, body: Option<RequestView<'_>>) -> Self {
        let Some(view) = body else { return self };
        // An empty text names nothing: it would tie every request that has one to all the others.
        let id = |text: Option<Cow<'_, str>>| text.filter(|text| !text.is_empty()).map(|text| digest(&text));
        self.response = id(view.previous_response_id());
        self.turn_state_in_body = id(view.turn_state());
        self.session = self.session.or_else(|| id(view.session_id()));
        self.thread = self.thread.or_else(|| id(view.thread_id()).or_else(|| id(view.prompt_cache_key())));
        self.has_compaction = view.has_compaction();
        self.is_compaction = view.is_compaction();
        self
    }

    /// The turn states that the request carries.
    pub fn turn_states(&self) -> impl Iterator<Item = &Digest> {
        [&self.turn_state, &self.turn_state_in_body].into_iter().flatten()
    }

    /// Whether the request holds something of a conversation that has begun, whoever owns that. Which thread
    /// and session it belongs to, also the first request of a conversation says.
    #[must_use]
    pub fn is_continuation(&self) -> bool {
        let holds_items = !self.contents.is_empty() || self.has_compaction || self.is_compaction;
        holds_items || self.response.is_some() || self.turn_states().next().is_some()
    }
}

/// How many of the encrypted items of a request are asked whose they are: its newest ones. Those of one
/// conversation are one account's, and a request that holds any does not move.
const CONTENTS: usize = 4;

/// The newest items of a request that only their account can read, each hashed once. `view` is one of its
/// `text`. A long text is gone through off the runtime's threads.
pub async fn contents(view: RequestView<'_>, text: &Bytes) -> Vec<Digest> {
    if !view.may_have_encrypted_contents() {
        return Vec::new();
    }
    let find = |text: &[u8]| {
        let mut newest = VecDeque::with_capacity(CONTENTS + 1);
        for content in encrypted_contents(text) {
            newest.push_back(content);
            if newest.len() > CONTENTS {
                newest.pop_front();
            }
        }
        newest.into_iter().map(|content| digest(&content)).collect()
    };
    if text.len() <= INLINE_TEXT {
        return find(text);
    }
    let text = text.clone();
    // A panic in there would be a mistake of ours; what could not be looked at has no owner by its items.
    tokio::task::spawn_blocking(move || find(&text)).await.unwrap_or_default()
}

/// Longest compressed body that is decoded on a runtime thread, and the longest text that may come of it:
/// about a millisecond of work. A few bytes can stand for very many.
const INLINE_DECODE: usize = 256 * 1024;
const INLINE_TEXT: usize = 1024 * 1024;

/// The text of a body for looking at: the bytes themselves, or what their `Content-Encoding` decodes to,
/// if that is known and at most `limit` bytes. None for a body that cannot be looked at.
pub async fn readable(head: &RequestHead, body: &Bytes, limit: usize) -> Option<Bytes> {
    match head.get("content-encoding") {
        None => Some(body.clone()),
        Some(encoding) if encoding.eq_ignore_ascii_case(b"identity") => Some(body.clone()),
        Some(encoding) if encoding.eq_ignore_ascii_case(b"zstd") => {
            if body.len() <= INLINE_DECODE
                && let Some(text) = decode_zstd(body, limit.min(INLINE_TEXT))
            {
                return Some(text);
            }
            let body = body.clone();
            tokio::task::spawn_blocking(move || decode_zstd(&body, limit)).await.ok().flatten()
        }
        Some(_) => None,
    }
}

fn decode_zstd(body: &[u8], limit: usize) -> Option<Bytes> {
    let mut text = Vec::with_capacity(body.len().saturating_mul(4).min(limit));
    let decoder = zstd::stream::read::Decoder::with_buffer(body).ok()?;
    decoder.take(limit as u64 + 1).read_to_end(&mut text).ok()?;
    (text.len() <= limit).then(|| text.into())
}

impl Exchange {
    /// Whether the request goes upstream with an account's credentials: calls that no turn depends on
    /// have them only if the client sent its own.
    #[must_use]
    pub fn is_authorised(&self) -> bool {
        self.routed.call.is_model_call() || self.head.get("authorization").is_some()
    }

    /// Whether it may be sent again though the upstream may have acted on it: it only reads, or its answer
    /// is all that it brings about.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.routed.call.is_model_call() || matches!(self.head.method(), "GET" | "HEAD")
    }

    /// The body for a profile: as it came, or without a turn state that is not the profile's to see.
    #[must_use]
    pub fn body_for(&self, sees_turn_state: bool) -> &Bytes {
        self.stripped_for(sees_turn_state).unwrap_or(&self.body)
    }

    /// The body without its turn state, decoded, for a profile that may not see that.
    #[must_use]
    pub fn stripped_for(&self, sees_turn_state: bool) -> Option<&Bytes> {
        if sees_turn_state { None } else { self.stripped.get()?.as_ref() }
    }

    /// Prepares the body for profiles that may not see its turn state. `limit` is as in [`readable`].
    pub async fn strip_turn_state(&self, limit: usize) {
        if self.ties.turn_state_in_body.is_none() {
            return;
        }
        let strip = || async {
            let text = readable(&self.head, &self.body, limit).await?;
            RequestView::new(&text).without_turn_state().map(Bytes::from)
        };
        self.stripped.get_or_init(strip).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> RequestHead {
        let text = format!("POST / HTTP/1.1\r\n{fields}\r\n");
        RequestHead::parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn the_head_goes_before_the_body() {
        let body = RequestView::new(
            br#"{"previous_response_id":"r","prompt_cache_key":"k","client_metadata":{"x-codex-turn-state":"b",
            "session_id":"bs","thread_id":"bt"}}"#,
        );
        let some = |text: &str| Some(digest(text));
        let fields = "Session-Id: s\r\nThread-Id: t\r\nX-Codex-Turn-State: h\r\n";
        let ties = Ties::read(&head(fields), Some(body));
        let all = Ties {
            response: some("r"),
            turn_state: some("h"),
            turn_state_in_body: some("b"),
            thread: some("t"),
            session: some("s"),
            ..Ties::default()
        };
        assert_eq!(ties, all);
        assert_eq!(Ties::of_message(&ties, body), Ties { turn_state: None, ..all.clone() });
        let from_body = Ties::read(&head(""), Some(body));
        assert_eq!((from_body.thread, from_body.session), (some("bt"), some("bs")));
        let keyed = Ties::read(&head(""), Some(RequestView::new(br#"{"prompt_cache_key":"k"}"#)));
        assert_eq!((keyed.thread, keyed.session), (some("k"), None));
        let nothing = RequestView::new(
            br#"{"previous_response_id":"","prompt_cache_key":"","client_metadata":{"x-codex-turn-state":"",
            "session_id":"","thread_id":""}}"#,
        );
        assert_eq!(Ties::read(&head("Session-Id: \r\n"), Some(nothing)), Ties::default());
        let keyed = RequestView::new(br#"{"prompt_cache_key":"k","client_metadata":{"thread_id":""}}"#);
        assert_eq!(Ties::read(&head(""), Some(keyed)).thread, some("k"));
    }

    async fn contents_of(text: impl Into<Bytes>) -> Vec<Digest> {
        let text = text.into();
        contents(RequestView::new(&text), &text).await
    }

    #[tokio::test]
    async fn encrypted_items_are_found_in_texts_of_any_length() {
        let text = br#"{"input":[{"encrypted_content":"one"},{"encrypted_content":"two"}],"x":""#;
        let digests = ["one", "two"].map(digest);
        assert_eq!(contents_of(&text[..]).await, digests);
        let long = [&text[..], &vec![b' '; 2 * INLINE_TEXT]].concat();
        assert_eq!(contents_of(long).await, digests);
        let many: String = (0..9).map(|n| format!(r#"{{"encrypted_content":"{n}"}},"#)).collect();
        assert_eq!(contents_of(many).await, ["5", "6", "7", "8"].map(digest));
    }

    #[tokio::test]
    async fn compressed_bodies_are_looked_at_within_a_limit() {
        let text = vec![b' '; 100_000];
        let body = Bytes::from(zstd::encode_all(&text[..], 3).unwrap());
        let zstd_head = head("Content-Encoding: zstd\r\n");
        assert_eq!(readable(&zstd_head, &body, 100_000).await.unwrap(), text);
        assert!(readable(&zstd_head, &body, 99_999).await.is_none());
        assert!(readable(&zstd_head, &Bytes::from_static(b"no zstd"), 100).await.is_none());
        let long = vec![b' '; 3 * INLINE_TEXT];
        let body_of_long = Bytes::from(zstd::encode_all(&long[..], 3).unwrap());
        assert!(body_of_long.len() < INLINE_DECODE);
        assert_eq!(readable(&zstd_head, &body_of_long, long.len()).await.unwrap(), long);
        assert!(readable(&head("Content-Encoding: br\r\n"), &body, 100_000).await.is_none());
        assert_eq!(readable(&head(""), &body, 1).await.unwrap(), body);
    }
}
