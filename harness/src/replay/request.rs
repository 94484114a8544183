//! The bytes of a recorded request as they are sent again: head, pieces of the body, and when to leave.

use mock_upstream::playback::{held_beginning, path_and_query};
use wire::capture::{Exchange, StreamEnd};

use super::stream::Endpoint;

/// The path and query of an exchange at this target.
pub(super) fn target(exchange: &Exchange, endpoint: &Endpoint) -> String {
    format!("{}{}", endpoint.path, path_and_query(&exchange.request.url))
}

/// The head in the recorded order and spelling. Only `Host` names the target; a request that was recorded
/// over HTTP/2 gets what HTTP/1.1 must have.
pub(super) fn head(exchange: &Exchange, endpoint: &Endpoint, key: Option<&str>) -> Vec<u8> {
    let request = &exchange.request;
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, target(exchange, endpoint));
    let mut push = |name: &str, value: &str| {
        for part in [name, ": ", value, "\r\n"] {
            head.push_str(part);
        }
    };
    let says = |name: &str| request.headers.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
    if !says("host") {
        push("host", &endpoint.authority);
    }
    for (name, value) in &request.headers {
        match key {
            _ if name.starts_with(':') => {}
            _ if name.eq_ignore_ascii_case("host") => push(name, &endpoint.authority),
            Some(key) if name.eq_ignore_ascii_case("sec-websocket-key") => push(name, key),
            _ => push(name, value),
        }
    }
    let body = exchange.body();
    if !body.is_empty() && !says("content-length") && !says("transfer-encoding") {
        push("content-length", &body.len().to_string());
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Whether the body goes in chunks.
pub(super) fn is_chunked(exchange: &Exchange) -> bool {
    exchange.request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"))
}

/// The pieces that the body was recorded in, with their times; the rest in a last one.
pub(super) fn pieces(exchange: &Exchange) -> Vec<(f64, &[u8])> {
    let mut rest = exchange.body();
    let mut pieces = Vec::new();
    for (at, length) in &exchange.request.writes {
        let length = usize::try_from(*length).unwrap_or(usize::MAX).min(rest.len());
        let (piece, behind) = rest.split_at(length);
        if !piece.is_empty() {
            pieces.push((*at, piece));
        }
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push((exchange.at, rest));
    }
    pieces
}

/// When a client leaves that did so in the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// It stays to the end.
    Never,
    /// Within its own request.
    InRequest,
    /// When the upstream has been asked, before the response has begun.
    BeforeHead,
    /// Behind so many bytes of the response's body.
    Behind(u64),
}

impl Leave {
    /// When it leaves; `holds` says that the proxy may hold the beginning of a stream, for which a client
    /// cannot wait.
    pub(super) fn of(exchange: &Exchange, holds: bool) -> Self {
        let gone = exchange.client_gone;
        if gone.is_some() && is_short(exchange) {
            return Self::InRequest;
        }
        if exchange.answer.is_none() && matches!(exchange.unanswered, Some(StreamEnd::Fin | StreamEnd::Reset))
        {
            return Self::Never;
        }
        let Some(answer) =
            exchange.answer.as_ref().filter(|answer| gone.is_none_or(|gone| answer.at <= gone))
        else {
            return Self::BeforeHead;
        };
        let seen = match gone {
            Some(gone) if !answer.writes.is_empty() => {
                answer.writes.iter().filter(|(at, _)| *at <= gone).map(|(_, length)| length).sum()
            }
            _ => answer.body.len() as u64,
        };
        let has_all = seen >= answer.body.len() as u64;
        match answer.end {
            // The whole answer had come, or its end was what came next.
            StreamEnd::Eof | StreamEnd::Fin | StreamEnd::Reset if gone.is_none() || has_all => Self::Never,
            // Nobody waits for what never comes: the recorded client has left, or its recorder has.
            _ if holds && seen <= held_beginning(answer) => Self::BeforeHead,
            _ => Self::Behind(seen),
        }
    }
}

/// Whether the recorded body is shorter than its head promises: its client broke off.
pub(crate) fn is_short(exchange: &Exchange) -> bool {
    let headers = &exchange.request.headers;
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, length)| length.parse::<usize>().ok());
    length.is_some_and(|length| length > exchange.body().len())
}
