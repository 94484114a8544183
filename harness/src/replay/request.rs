//! The bytes of a recorded request as they are sent again: head, pieces of the body, and when to leave.

use mock_upstream::playback::path_and_query;
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
    pub(super) fn of(exchange: &Exchange) -> Self {
        let Some(gone) = exchange.client_gone else { return Self::Never };
        if is_short(exchange) {
            return Self::InRequest;
        }
        match &exchange.answer {
            Some(answer) if answer.at <= gone => {
                let seen = answer.writes.iter().filter(|(at, _)| *at <= gone).map(|(_, length)| length);
                let seen = if answer.writes.is_empty() { answer.body.len() as u64 } else { seen.sum() };
                match answer.end {
                    // The whole answer had come when it left, which is no leaving.
                    StreamEnd::Eof if seen >= answer.body.len() as u64 => Self::Never,
                    _ => Self::Behind(seen),
                }
            }
            _ => Self::BeforeHead,
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
