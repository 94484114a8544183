//! What a bulk mock says about itself, below `/__mock`, and how it is told to stand still.

use std::time::Duration;

use serde_json::json;

use super::Shared;
use crate::accounts::Unauthorized;
use crate::connection::Connection;
use crate::control::PREFIX;

/// What a model call is told that says not what it asks for.
pub(super) const NO_ASK: &str = r#"{"error":{"type":"invalid_request_error","code":"no_ask","message":"The first 64 KiB of the body hold no line `load/1 …` as mock_upstream::content describes it."}}"#;

/// Whether the next request is about the mock itself. Its head is there already.
pub(super) fn is_next(bytes: &[u8]) -> bool {
    let target = bytes.iter().position(|byte| *byte == b' ').map(|space| &bytes[space + 1..]);
    let names = |name: &[u8]| target.is_some_and(|target| target.starts_with(name));
    // Another script is the scripted mock's business.
    names(PREFIX.as_bytes()) && !names(b"/__mock/script")
}

/// Answers a request about the mock itself. Gives the connection back if it serves another request.
pub(super) async fn answer(shared: &Shared, mut connection: Connection) -> Option<Connection> {
    let head = connection.read_head().await.ok()??;
    let length = head.body_length().ok()?;
    connection.read_body(length, 1 << 20).await.ok()?;
    let (path, query) = head.target().split_once('?').unwrap_or((head.target(), ""));
    let mut freeze = None;
    let (status, body) = match (head.method(), path.strip_prefix(PREFIX).unwrap_or_default()) {
        ("GET", "metrics") => {
            ("200 OK", serde_json::to_string(&shared.counters.counts()).unwrap_or_default())
        }
        ("POST", "freeze") => match milliseconds(query) {
            Some(length) => {
                freeze = Some(length);
                ("200 OK", json!({ "freezes_ms": length.as_millis() }).to_string())
            }
            None => ("400 Bad Request", detail("freeze?ms=NUMBER, at most 60000")),
        },
        _ => ("404 Not Found", detail("The bulk mock has metrics, freeze and script.")),
    };
    let mut reply = Vec::new();
    render(status, &body, &mut reply);
    connection.write(&reply).await.ok()?;
    // Whoever asked for it is to know that it has begun.
    if let Some(length) = freeze {
        shared.freeze(length);
    }
    Some(connection)
}

fn milliseconds(query: &str) -> Option<Duration> {
    let number = query.split('&').find_map(|pair| pair.strip_prefix("ms="))?;
    let length = Duration::from_millis(number.parse().ok()?);
    (length <= super::LONGEST_FREEZE).then_some(length)
}

fn detail(text: &str) -> String {
    json!({ "detail": text }).to_string()
}

/// The body that tells a client that it is not let in.
pub(super) fn unauthorized(why: &Unauthorized) -> String {
    let (code, message) = match why {
        Unauthorized::Unknown => ("invalid_token", "No account has this token."),
        Unauthorized::Expired(_) => ("token_expired", "The token has expired."),
        Unauthorized::Mismatch(_) => ("account_mismatch", "The token is another account's."),
    };
    json!({ "error": { "type": "invalid_request_error", "code": code, "message": message } }).to_string()
}

/// A JSON reply.
pub(super) fn render(status: &str, body: &str, out: &mut Vec<u8>) {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body.as_bytes());
}
