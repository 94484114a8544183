//! What the mock says about itself, below `/__mock`: its journal, its counters, another script.
//!
//! These requests are not in the journal and in no counter. They come over the same port, so that a mock
//! needs only one.

use bytes::Bytes;
use serde_json::json;
use wire::http1::RequestHead;

use crate::chatgpt::{Backend, Plan};
use crate::script::Script;

/// Where the paths of the mock itself begin.
pub(crate) const PREFIX: &str = "/__mock/";

/// Answers a request for the mock itself.
pub(crate) fn answer(backend: &Backend, head: &RequestHead, body: &Bytes) -> Plan {
    let (path, query) = head.target().split_once('?').unwrap_or((head.target(), ""));
    match (head.method(), path.strip_prefix(PREFIX).unwrap_or_default()) {
        ("GET", "journal") => journal(backend, query),
        ("DELETE", "journal") => {
            backend.journal.clear();
            Plan::json(200, &json!({}))
        }
        ("GET", "metrics") => {
            let counts = backend.metrics.counts(backend.journal.dropped());
            let counts = serde_json::to_value(counts).unwrap_or_default();
            Plan::json(200, &counts)
        }
        ("POST", "script") => set_script(backend, body),
        _ => Plan::json(404, &json!({ "detail": "The mock has journal, metrics and script." })),
    }
}

/// The journal as JSON lines. `?since=ID` leaves out the exchanges up to that one; header fields say how
/// far the journal goes and how many exchanges it no longer holds.
fn journal(backend: &Backend, query: &str) -> Plan {
    let since = query.split('&').find_map(|pair| pair.strip_prefix("since="));
    let Ok(since) = since.unwrap_or("0").parse::<u64>() else {
        return Plan::json(400, &json!({ "detail": "since is the number of an exchange" }));
    };
    let mut lines = String::new();
    for record in backend.journal.records(since) {
        // Records are maps with text keys, which always serialise.
        lines.push_str(&serde_json::to_string(&record).unwrap_or_default());
        lines.push('\n');
    }
    let last = backend.journal.exchanges().last().map_or(since, |exchange| exchange.id);
    let headers = vec![
        ("content-type".to_owned(), "application/jsonl".to_owned()),
        ("x-journal-last".to_owned(), last.to_string()),
        ("x-journal-dropped".to_owned(), backend.journal.dropped().to_string()),
    ];
    Plan::whole(200, headers, lines.into())
}

/// A script is JSON if it begins as an object, else TOML.
fn set_script(backend: &Backend, body: &Bytes) -> Plan {
    let is_json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let script = match std::str::from_utf8(body) {
        Ok(text) if is_json => Script::from_json(text.as_bytes()),
        Ok(text) => Script::from_toml(text),
        Err(_) => return Plan::json(400, &json!({ "detail": "the script is not UTF-8" })),
    };
    match script {
        Ok(script) => {
            backend.set_script(script);
            Plan::json(200, &json!({}))
        }
        Err(error) => Plan::json(400, &json!({ "detail": error.to_string() })),
    }
}
