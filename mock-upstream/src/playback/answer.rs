//! A recorded answer as bytes: its head, the pieces and the framing of its body, and what its end does.

use wire::capture::{Answer, Exchange, StreamEnd};
use wire::http1::RequestHead;

/// The pieces that a body was recorded in; what its writes do not cover comes in a last one.
pub(super) fn writes(answer: &Answer, length: usize) -> Vec<(f64, usize)> {
    let (mut pieces, mut covered) = (Vec::new(), 0_usize);
    for (at, size) in &answer.writes {
        let size = usize::try_from(*size).unwrap_or(usize::MAX).min(length - covered);
        if size > 0 {
            pieces.push((*at, size));
        }
        covered += size;
    }
    if covered < length {
        pieces.push((pieces.last().map_or(answer.at, |(at, _)| *at), length - covered));
    }
    pieces
}

/// How the body of the answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length,
    Chunked,
    /// Chunked without a word of it in the record, which was made over HTTP/2.
    AddedChunked,
    Close,
}

impl Framing {
    pub(super) fn of(head: &RequestHead, exchange: &Exchange, answer: &Answer) -> Self {
        let says = |name: &str| answer.headers.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
        let has_none = head.method() == "HEAD" || matches!(answer.status, 100..=199 | 204 | 304);
        match () {
            () if has_none => Self::None,
            () if says("transfer-encoding") => Self::Chunked,
            () if says("content-length") => Self::Length,
            () if exchange.request.http_version.starts_with('2') => Self::AddedChunked,
            () => Self::Close,
        }
    }

    pub(super) fn frame(self, piece: &[u8]) -> Vec<u8> {
        match self {
            Self::Chunked | Self::AddedChunked => {
                [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
            }
            Self::None | Self::Length | Self::Close => piece.to_vec(),
        }
    }
}

/// The head of an answer as it was recorded, but for what belongs to this very connection.
pub(super) fn head_of(answer: &Answer, framing: Framing, accept: Option<&str>) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    for (name, value) in &answer.headers {
        let is = |other: &str| accept.is_some() && name.eq_ignore_ascii_case(other);
        match accept {
            Some(accept) if is("sec-websocket-accept") => push(&mut head, name, accept),
            // Recorded messages are decoded ones: the extension that coded them is not agreed to again.
            _ if is("sec-websocket-extensions") => {}
            _ => push(&mut head, name, value),
        }
    }
    let says = |name: &str| answer.headers.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
    if let Some(accept) = accept {
        for (name, value) in
            [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept)]
        {
            if !says(name) {
                push(&mut head, name, value);
            }
        }
    }
    if framing == Framing::AddedChunked {
        push(&mut head, "transfer-encoding", "chunked");
    }
    head.push_str("\r\n");
    // Values were read as text; bytes beyond ASCII go back as they are.
    head.into_bytes()
}

fn push(head: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        head.push_str(part);
    }
}

/// How an exchange ends on the connection.
pub(super) enum Ending {
    Keep,
    Close,
    Reset,
    Hang,
}

impl Ending {
    pub(super) fn of(head: &RequestHead, answer: &Answer, framing: Framing) -> Self {
        let closes = |name: &str, value: &str| {
            name.eq_ignore_ascii_case("connection") && value.to_ascii_lowercase().contains("close")
        };
        let closes = answer.headers.iter().any(|(name, value)| closes(name, value))
            || head.fields().any(|field| closes(field.name, field.text().unwrap_or_default()));
        match answer.end {
            StreamEnd::Eof if closes || framing == Framing::Close => Self::Close,
            StreamEnd::Eof => Self::Keep,
            StreamEnd::Fin => Self::Close,
            StreamEnd::Reset => Self::Reset,
            StreamEnd::Hang | StreamEnd::ClientGone => Self::Hang,
        }
    }
}

/// The reason phrase of a status.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}
