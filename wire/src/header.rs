//! One table of header fields: what each carries, and whether a pooling proxy keeps, replaces or drops it.
//!
//! The scrubber, the logger, the mock's journal and the request rewriting read this table and nothing
//! else. A field that is not in it is plain and kept. Measured with Codex 0.140 to 0.169, Claude Code
//! 2.1.197 and Gemini CLI 0.61.0 (November 2026); hop-by-hop fields are those of RFC 9110 §7.6.1.

/// What a field's value tells about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carries {
    /// Nothing that needs care.
    Plain,
    /// A credential: never logged, never stored.
    Secret,
    /// A person, an account, an installation.
    Identity,
    /// A conversation: what keeps requests on one account.
    Affinity,
    /// A value that differs on every run: a time, a request id, a port.
    Volatile,
}

/// What a pooling proxy does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Forward the line as it came.
    Keep,
    /// Forward a value of the proxy's own, in the same place: the selected account's, or that of the hop.
    Replace,
    /// Do not forward.
    Drop,
}

/// What is known of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The name in lower case.
    pub name: &'static str,
    /// What the value tells about.
    pub carries: Carries,
    /// What happens to it from client to upstream.
    pub request: Action,
    /// What happens to it from upstream to client.
    pub response: Action,
}

const fn entry(name: &'static str, carries: Carries, request: Action, response: Action) -> Entry {
    Entry { name, carries, request, response }
}

use Action::{Drop, Keep, Replace};
use Carries::{Affinity, Identity, Plain, Secret, Volatile};

/// The table, sorted by name.
pub const TABLE: &[Entry] = &[
    entry("alt-svc", Plain, Keep, Drop),
    entry("authorization", Secret, Replace, Keep),
    entry("cf-ray", Volatile, Keep, Keep),
    entry("chatgpt-account-id", Identity, Replace, Keep),
    entry("connection", Plain, Drop, Drop),
    // The body's bytes are forwarded as they came; how its length is given is decided per hop.
    entry("content-length", Plain, Replace, Replace),
    entry("conversation-id", Affinity, Keep, Keep),
    entry("conversation_id", Affinity, Keep, Keep),
    entry("cookie", Secret, Drop, Keep),
    entry("date", Volatile, Keep, Keep),
    entry("etag", Volatile, Keep, Keep),
    // An expectation is met by the hop that reads the body (RFC 9110 §10.1.1).
    entry("expect", Plain, Drop, Keep),
    entry("host", Volatile, Replace, Keep),
    entry("keep-alive", Plain, Drop, Drop),
    entry("mcp-session-id", Affinity, Keep, Keep),
    entry("openai-organization", Identity, Replace, Keep),
    entry("openai-project", Identity, Replace, Keep),
    // The proxy is not a page's peer: what a browser would add must not travel on.
    entry("origin", Plain, Drop, Keep),
    entry("proxy-authenticate", Plain, Drop, Drop),
    entry("proxy-authorization", Secret, Drop, Drop),
    entry("proxy-connection", Plain, Drop, Drop),
    entry("request-id", Volatile, Keep, Keep),
    entry("sec-websocket-accept", Volatile, Drop, Replace),
    entry("sec-websocket-extensions", Plain, Drop, Drop),
    entry("sec-websocket-key", Volatile, Replace, Drop),
    entry("sec-websocket-version", Plain, Replace, Drop),
    entry("session-id", Affinity, Keep, Keep),
    entry("session_id", Affinity, Keep, Keep),
    entry("set-cookie", Secret, Keep, Drop),
    entry("strict-transport-security", Plain, Keep, Drop),
    entry("te", Plain, Drop, Drop),
    entry("thread-id", Affinity, Keep, Keep),
    entry("transfer-encoding", Plain, Replace, Replace),
    entry("upgrade", Plain, Replace, Replace),
    entry("x-api-key", Secret, Replace, Keep),
    entry("x-claude-code-session-id", Affinity, Keep, Keep),
    // Equals the thread id on every request of a thread, so it is no request id.
    entry("x-client-request-id", Affinity, Keep, Keep),
    entry("x-codex-installation-id", Identity, Keep, Keep),
    entry("x-codex-parent-thread-id", Affinity, Keep, Keep),
    entry("x-codex-primary-reset-after-seconds", Volatile, Keep, Keep),
    entry("x-codex-primary-reset-at", Volatile, Keep, Keep),
    entry("x-codex-secondary-reset-after-seconds", Volatile, Keep, Keep),
    entry("x-codex-secondary-reset-at", Volatile, Keep, Keep),
    // Holds installation, session, thread and turn ids and a start time.
    entry("x-codex-turn-metadata", Identity, Keep, Keep),
    // Kept for the account that issued it; a rotation drops it, which the attempt knows and no table.
    entry("x-codex-turn-state", Affinity, Keep, Keep),
    entry("x-codex-window-id", Affinity, Keep, Keep),
    entry("x-gemini-api-privileged-user-id", Identity, Keep, Keep),
    entry("x-goog-api-key", Secret, Replace, Keep),
    entry("x-models-etag", Volatile, Keep, Keep),
    entry("x-oai-attestation", Identity, Keep, Keep),
    entry("x-oai-request-id", Volatile, Keep, Keep),
    entry("x-openai-account-routing-override", Identity, Replace, Keep),
    entry("x-openai-fedramp", Identity, Replace, Keep),
    entry("x-request-id", Volatile, Keep, Keep),
];

/// What a field is that the table does not list.
pub const UNLISTED: Entry = entry("", Plain, Keep, Keep);

/// What a field for intermediaries is that the table does not list: what a client says to its proxy ends there.
const PROXY: Entry = entry("proxy-", Plain, Drop, Keep);

/// Where in the table the names with each first letter begin.
const STARTS: [u8; 27] = starts();

const fn starts() -> [u8; 27] {
    let mut starts = [0; 27];
    let mut at = 0;
    let mut letter = 0;
    while letter < 26 {
        while at < TABLE.len() && TABLE[at].name.as_bytes()[0] < b'a' + letter as u8 {
            at += 1;
        }
        starts[letter] = at as u8;
        letter += 1;
    }
    starts[26] = TABLE.len() as u8;
    starts
}

/// What is known of the field with this name, in any case.
#[must_use]
pub fn lookup(name: &str) -> Entry {
    let Some(letter) = name.bytes().next().map(|first| first.to_ascii_lowercase().wrapping_sub(b'a')) else {
        return UNLISTED;
    };
    let letter = usize::from(letter);
    if letter >= 26 {
        return UNLISTED;
    }
    let range = usize::from(STARTS[letter])..usize::from(STARTS[letter + 1]);
    let listed = TABLE[range].iter().copied().find(|entry| entry.name.eq_ignore_ascii_case(name));
    listed.unwrap_or_else(|| {
        let prefix = name.as_bytes().get(..PROXY.name.len());
        let is_for_proxies = prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(PROXY.name.as_bytes()));
        if is_for_proxies { PROXY } else { UNLISTED }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_entry_is_found() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name), "sorted, without duplicates");
        for entry in TABLE {
            assert_eq!(lookup(entry.name), *entry);
            assert_eq!(lookup(&entry.name.to_ascii_uppercase()), *entry);
        }
        for name in ["", "x-codex-routing-hint", "accept", "Zeta", "7", "é", "proxy", "proxé-a"] {
            assert_eq!(lookup(name), UNLISTED, "{name}");
        }
        for name in ["Proxy-Features", "proxy-status", "PROXY-"] {
            assert_eq!((lookup(name).request, lookup(name).response), (Drop, Keep), "{name}");
        }
    }

    #[test]
    fn no_secret_is_forwarded_as_it_came() {
        for entry in TABLE.iter().filter(|entry| entry.carries == Carries::Secret) {
            let way = if entry.name == "set-cookie" { entry.response } else { entry.request };
            assert_ne!(way, Action::Keep, "{}", entry.name);
        }
    }
}
