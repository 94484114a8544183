//! The capability, taken out of what is recorded.
//!
//! In front of a path it goes without a trace, so that what is recorded is what the client asks of its
//! vendor. A key of another launch goes the same way. Anywhere else, as a key or in what a client says,
//! stars of the same length take its place.

use memchr::memmem;
use wire::capture::{Entry, Headers, Payload};

use crate::secret::Secret;

/// Takes the capability out of an entry.
pub(super) fn conceal(entry: &mut Entry, capability: &Secret) {
    let secret = capability.expose().as_bytes();
    match entry {
        Entry::Request(request) => {
            if let Some(head) = &mut request.head {
                strip_line(&mut head.0);
            }
            let mut url = std::mem::take(&mut request.url).into_bytes();
            strip_prefix(&mut url, 0);
            star(&mut url, secret);
            request.url = text(url);
            star_message(&mut request.headers, &mut request.head, &mut request.body, secret);
        }
        Entry::Response(response) => {
            star_message(&mut response.headers, &mut response.head, &mut response.body, secret);
        }
        Entry::SseStream(stream) => {
            star_message(&mut stream.headers, &mut stream.head, &mut None, secret);
            star(&mut stream.stream.0, secret);
        }
        Entry::WebsocketMessage(message) => star(&mut message.message.0, secret),
        Entry::WebsocketClose(close) => {
            let mut reason = std::mem::take(&mut close.reason).into_bytes();
            star(&mut reason, secret);
            close.reason = text(reason);
        }
        Entry::Meta(_)
        | Entry::ClientDisconnect { .. }
        | Entry::ExchangeEnd(_)
        | Entry::Marker { .. }
        | Entry::Fault { .. } => {}
    }
}

fn star_message(
    headers: &mut Headers,
    head: &mut Option<Payload>,
    body: &mut Option<Payload>,
    secret: &[u8],
) {
    for (_, value) in headers {
        let mut bytes = std::mem::take(value).into_bytes();
        star(&mut bytes, secret);
        *value = text(bytes);
    }
    for payload in [head, body].into_iter().flatten() {
        star(&mut payload.0, secret);
    }
}

/// Stars are as good UTF-8 as what they replace.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_default()
}

fn star(bytes: &mut [u8], secret: &[u8]) {
    if secret.is_empty() {
        return;
    }
    let found: Vec<usize> = memmem::find_iter(bytes, secret).collect();
    for at in found {
        bytes[at..at + secret.len()].fill(b'*');
    }
}

/// Takes `/k/<capability>` out of a request line.
fn strip_line(head: &mut Vec<u8>) {
    let end = memchr::memchr(b'\n', head).unwrap_or(head.len());
    if let Some(at) = memmem::find(&head[..end], b"/k/") {
        strip_prefix(head, at);
    }
}

/// Takes `/k/<capability>` out where it begins at `start`.
fn strip_prefix(bytes: &mut Vec<u8>, start: usize) {
    let Some(rest) = bytes[start..].strip_prefix(b"/k/") else { return };
    let is_end = |byte: &u8| matches!(byte, b'/' | b'?' | b' ' | b'\r' | b'\n');
    let length = rest.iter().position(is_end).unwrap_or(rest.len());
    bytes.drain(start..start + 3 + length);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(line: &str) -> String {
        let mut bytes = line.as_bytes().to_vec();
        strip_line(&mut bytes);
        text(bytes)
    }

    #[test]
    fn the_path_behind_the_capability_is_what_is_recorded() {
        assert_eq!(
            stripped("GET /k/cap/v1/models?x HTTP/1.1\r\nA: /k/b/\r\n"),
            "GET /v1/models?x HTTP/1.1\r\nA: /k/b/\r\n"
        );
        assert_eq!(stripped("GET /k/other HTTP/1.1\r\n"), "GET  HTTP/1.1\r\n");
        assert_eq!(stripped("GET /k/half"), "GET ");
        assert_eq!(stripped("GET /v1/k/ HTTP/1.1\r\n"), "GET /v1 HTTP/1.1\r\n");
        let mut said = b"a key cap, and capcap".to_vec();
        star(&mut said, b"cap");
        assert_eq!(text(said), "a key ***, and ******");
    }
}
