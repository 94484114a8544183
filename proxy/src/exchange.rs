//! A request as the pipeline sees it: its head, its replayable body, and the conversation it belongs to.
//!
//! The body is kept as it came until a response is committed. What is read of it is read from a view
//! that is decoded aside; the bytes that are forwarded are never touched.

use std::borrow::Cow;
use std::io::Read as _;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OnceCell;
use wire::http1::RequestHead;
use wire::responses::{RequestView, TURN_STATE};

use crate::route::Routed;

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
    /// Whether any account could serve it, once that was asked.
    pub is_neutral: OnceCell<bool>,
}

/// The ids by which a request belongs to a conversation, the strongest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ties {
    /// The response that it continues.
    pub response: Option<String>,
    /// The turn state that an upstream gave out in this turn.
    pub turn_state: Option<String>,
    /// The session; sub-agents share it with their parent.
    pub session: Option<String>,
}

impl Ties {
    /// Reads the ids from the head, and from the body those that the head does not have.
    #[must_use]
    pub fn read(head: &RequestHead, body: Option<RequestView<'_>>) -> Self {
        let field = |name: &str| head.get_str(name).filter(|value| !value.is_empty()).map(str::to_owned);
        let session = ["session-id", "session_id", "conversation_id"].into_iter().find_map(field);
        let in_body = || body.and_then(|view| view.session_id().or_else(|| view.prompt_cache_key()));
        Self {
            response: body.and_then(RequestView::previous_response_id).map(own),
            turn_state: field(TURN_STATE).or_else(|| body.and_then(RequestView::turn_state).map(own)),
            session: session.or_else(|| in_body().map(own)),
        }
    }

    /// Whether the request continues something that an account may own.
    #[must_use]
    pub fn is_continuation(&self) -> bool {
        self.response.is_some() || self.turn_state.is_some() || self.session.is_some()
    }
}

fn own(text: Cow<'_, str>) -> String {
    text.into_owned()
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

    /// Whether any account could serve this request: it holds no item that only the account which made
    /// it can read, and continues no response by id. What cannot be looked at is not neutral.
    pub async fn is_account_neutral(&self, limit: usize) -> bool {
        if self.ties.response.is_some() {
            return false;
        }
        let look = || async {
            let text = readable(&self.head, &self.body, limit).await;
            text.is_some_and(|text| !RequestView::new(&text).has_encrypted_content())
        };
        *self.is_neutral.get_or_init(look).await
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
            br#"{"previous_response_id":"r","prompt_cache_key":"k","client_metadata":{"x-codex-turn-state":"b"}}"#,
        );
        let ties = Ties::read(&head("Session-Id: s\r\nX-Codex-Turn-State: h\r\n"), Some(body));
        let all = |response: &str, turn_state: &str, session: &str| Ties {
            response: Some(response.into()),
            turn_state: Some(turn_state.into()),
            session: Some(session.into()),
        };
        assert_eq!(ties, all("r", "h", "s"));
        assert_eq!(Ties::read(&head(""), Some(body)), all("r", "b", "k"));
        assert!(!Ties::read(&head("Session-Id: \r\n"), None).is_continuation());
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
