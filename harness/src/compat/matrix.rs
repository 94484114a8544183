//! Every fault that clients were measured with, and the recording that shows it. Data only.
//!
//! Measured in November 2026 with Codex 0.169.0 and 0.149.1, Claude Code 2.1.197 and Gemini CLI 0.61.0 against a mock:
//! what a client does when its backend answers so. The names are those of the measurement; the scenarios and
//! fixtures have the laboratory's. The tests see to it that each fault can be played and has been recorded, so that
//! neither a scenario nor a fixture goes missing unnoticed.

/// The faults of one client in one way of launching it.
#[derive(Debug, Clone, Copy)]
pub struct Matrix {
    /// Whose.
    pub client: &'static str,
    /// The version that they are recorded with.
    pub version: &'static str,
    /// The launch mode, as the names of fixtures have it.
    pub mode: &'static str,
    /// Each fault as it was measured, and the scenario or session that plays it.
    pub shown: &'static [(&'static str, &'static str)],
    /// Each fault that is not recorded, and why.
    pub left_out: &'static [(&'static str, &'static str)],
}

/// All of them.
pub const MATRICES: &[Matrix] = &[
    Matrix { client: "codex", version: "0.169.0", mode: "custom-sse", shown: CODEX_HTTP, left_out: &[] },
    Matrix {
        client: "codex",
        version: "0.169.0",
        mode: "provider",
        shown: CODEX_WEBSOCKET,
        left_out: &[(
            "deflate",
            "the mock and the replay speak no permessage-deflate, and the proxy declines it as RFC 7692 §5 allows",
        )],
    },
    Matrix {
        client: "claude",
        version: "2.1.197",
        mode: "api-key",
        shown: CLAUDE_KEY,
        left_out: &[("completed-no-eof", HANGS)],
    },
    Matrix {
        client: "claude",
        version: "2.1.197",
        mode: "oauth",
        shown: CLAUDE_OAUTH,
        left_out: &[(
            "529, default retries",
            "the client gives up after 178 s; with its retries off it is `529`",
        )],
    },
    Matrix {
        client: "gemini",
        version: "0.61.0",
        mode: "api-key",
        shown: GEMINI,
        left_out: &[("429-QUOTA_EXHAUSTED", HANGS), ("completed-no-eof", HANGS)],
    },
];

/// The faults of Codex that 0.149.1 takes otherwise than 0.169.0, recorded with both: the one comes back where the
/// other gives up.
pub const DIFFERING: &[(&str, &str)] = &[
    ("custom-sse", "failed-credit"),
    ("custom-sse", "failed-flex"),
    ("custom-sse", "failed-slow-down"),
    ("custom-sse", "incomplete-max-tokens"),
    ("custom-sse", "status-429-generic-retry-after"),
    ("custom-sse", "status-503-slow-down"),
    ("provider", "upgrade-429-retry-after"),
    ("provider", "ws-error-429-retry-after"),
    ("provider", "ws-incomplete"),
];

const HANGS: &str = "the client waits for ever and has to be killed";

const CODEX_HTTP: &[(&str, &str)] = &[
    ("307", "status-307"),
    ("ok", "simple"),
    ("slow-headers", "slow-head"),
    ("keepalive-event", "keepalive-events"),
    ("long-line-8MB", "long-line-8MB"),
    ("crlf", "lines-crlf"),
    ("no-event-line", "no-event-line"),
    ("data-nospace", "no-space"),
    ("multi-data-lines", "data-on-several-lines"),
    ("id-retry-fields", "id-and-retry"),
    ("utf8-split", "cut-within-characters"),
    ("byte-by-byte", "byte-by-byte"),
    ("garbage-json", "garbage-json"),
    ("done-marker", "done-marker"),
    ("unknown-events", "unknown-events"),
    ("only-completed", "only-completed"),
    ("completed-no-eof", "completed-without-eof"),
    ("no-created", "no-created"),
    ("done-without-added", "done-without-added"),
    ("delta-no-done", "deltas-without-done"),
    ("completed-no-usage", "completed-without-usage"),
    ("completed-output-only", "completed-with-output-only"),
    ("two-created", "two-created"),
    ("ct-json", "content-type-json"),
    ("ct-none", "content-type-none"),
    ("content-length", "length-known"),
    ("402", "status-402"),
    ("404", "status-404"),
    ("401", "status-401"),
    ("408", "status-408"),
    ("409", "status-409"),
    ("425", "status-425"),
    ("413", "status-413"),
    ("500", "status-500"),
    ("429-usage_limit-resets_at", "status-429-usage-resets-at"),
    ("429-usage_limit-in_seconds_only", "status-429-usage-seconds"),
    ("429-usage_limit-RA", "status-429-usage-retry-after"),
    ("429-usage_limit-hdrs", "status-429-usage-headers"),
    ("429-usage_not_included", "status-429-usage-not-included"),
    ("429-generic", "status-429-generic"),
    ("502", "status-502"),
    ("429-insufficient_quota", "status-429-insufficient-quota"),
    ("429-generic-RA1", "status-429-generic-retry-after"),
    ("503", "status-503"),
    ("529", "status-529"),
    ("400-invalid", "status-400-invalid"),
    ("400-context", "status-400-context"),
    ("400-model", "status-400-model"),
    ("400-prev", "status-400-previous-response"),
    ("503-overloaded", "status-503-overloaded"),
    ("403-json", "status-403-json"),
    ("403-html", "status-403-html"),
    ("503-slow_down", "status-503-slow-down"),
    ("503-RA1", "status-503-retry-after"),
    ("reset-before-headers", "reset-before-head"),
    ("fin-before-headers", "fin-before-head"),
    ("reset-after-headers", "reset-after-head"),
    ("eof-empty-200", "eof-empty"),
    ("json-200", "json-instead-of-stream"),
    ("reset-after-created", "reset-after-created"),
    ("fin-after-created", "fin-after-created"),
    ("failed-quota", "failed-quota"),
    ("eof-after-created", "eof-after-created"),
    ("failed-context", "failed-context"),
    ("failed-overloaded", "failed-overloaded"),
    ("reset-after-delta", "reset-after-delta"),
    ("eof-after-item_done", "eof-after-item"),
    ("failed-rate", "failed-rate-limit"),
    ("failed-slow_down", "failed-slow-down"),
    ("failed-usage_not_included", "failed-usage-not-included"),
    ("failed-cyber", "failed-cyber-policy"),
    ("failed-server_error", "failed-server-error"),
    ("failed-bio", "failed-bio-policy"),
    ("failed-usage_limit", "failed-usage-limit"),
    ("failed-invalid_prompt", "failed-invalid-prompt"),
    ("failed-flex", "failed-flex"),
    ("failed-credit", "failed-credit"),
    ("incomplete-max", "incomplete-max-tokens"),
    ("failed-noerror", "failed-without-error"),
    ("failed-after-delta", "failed-after-delta"),
    ("incomplete-filter", "incomplete-filter"),
    ("sse-error-event", "error-event"),
    ("sse-error-first", "error-event-first"),
    ("sse-error-usage", "error-event-usage"),
    ("slow-first-event", "slow-first-event"),
    ("cr-only", "lines-cr"),
    ("idle-mid", "idle-in-the-middle"),
    ("keepalive-comments", "keepalive-comments-only"),
    ("bom", "byte-order-mark"),
    ("invalid-utf8", "invalid-utf8"),
    ("completed-no-id", "completed-without-id"),
    ("response.done", "old-done-event"),
    ("gzip", "coding-gzip"),
    ("zstd", "coding-zstd"),
    ("br", "coding-brotli"),
    ("cl-short", "length-too-long"),
];

const CODEX_WEBSOCKET: &[(&str, &str)] = &[
    ("ok", "simple"),
    ("warm-error-429", "ws-warm-up-error-429"),
    // The mock gives one with every upgrade.
    ("turnstate-hdr", "simple"),
    ("warm-error-401", "ws-warm-up-error-401"),
    ("warm-error-500", "ws-warm-up-error-500"),
    ("warm-close-1000", "ws-warm-up-close-1000"),
    ("warm-reset", "ws-warm-up-reset"),
    ("warm-close-1011", "ws-warm-up-close-1011"),
    ("warm-failed", "ws-warm-up-failed"),
    ("warm-no-created", "ws-warm-up-no-created"),
    ("warm-full-text", "ws-warm-up-with-text"),
    ("err-prev-once", "ws-previous-response-once"),
    ("err-conn-limit-once", "ws-connection-limit-once"),
    ("close-once", "ws-close-once"),
    ("reset-once", "ws-reset-once"),
    ("badjson", "ws-garbage-json"),
    ("array", "ws-array"),
    ("unknown", "ws-unknown-event"),
    ("pretty-json", "ws-pretty-json"),
    ("no-created", "ws-no-created"),
    ("dup-completed", "ws-two-completed"),
    ("ping", "ws-ping"),
    // In one frame it is refused like 40 MB: a frame may have 16 MiB.
    ("big-20MB", "ws-message-20MB-fragmented"),
    ("fragmented", "ws-fragmented"),
    ("up-400", "upgrade-400"),
    ("up-426", "upgrade-426"),
    ("up-429-usage", "upgrade-429-usage"),
    ("up-429-generic", "upgrade-429-generic"),
    ("up-401", "upgrade-401"),
    ("up-403", "upgrade-403"),
    ("up-404", "upgrade-404"),
    ("up-503-overloaded", "upgrade-503-overloaded"),
    ("up-500", "upgrade-500"),
    ("up-429-RA", "upgrade-429-retry-after"),
    ("up-503", "upgrade-503"),
    ("up-302", "upgrade-302"),
    ("up-200", "upgrade-200"),
    ("up-reset", "upgrade-reset"),
    ("up-fin", "upgrade-fin"),
    ("err-429-usage", "ws-error-429-usage"),
    ("err-429-usage-hdrs", "ws-error-429-usage-headers"),
    ("err-429-usage-status_code", "ws-error-429-usage-status-code"),
    ("err-429-generic", "ws-error-429-generic"),
    ("err-429-RAhdr", "ws-error-429-retry-after"),
    ("err-401", "ws-error-401"),
    ("err-400", "ws-error-400"),
    ("err-403", "ws-error-403"),
    ("err-400-prev", "ws-error-400-previous-response"),
    ("warm-ignored", "ws-warm-up-ignored"),
    ("err-prev-nostatus", "ws-error-previous-response-without-status"),
    ("failed-prev", "ws-failed-previous-response"),
    ("err-503-overloaded", "ws-error-503-overloaded"),
    ("err-500", "ws-error-500"),
    ("err-after-created", "ws-error-after-created"),
    ("err-503", "ws-error-503"),
    ("failed-quota", "ws-failed-quota"),
    ("err-conn-limit", "ws-error-connection-limit"),
    ("failed-context", "ws-failed-context"),
    ("failed-overloaded", "ws-failed-overloaded"),
    ("err-after-delta", "ws-error-after-delta"),
    ("failed-usage", "ws-failed-usage-limit"),
    ("incomplete", "ws-incomplete"),
    ("failed-rate", "ws-failed-rate-limit"),
    ("failed-server_error", "ws-failed-server-error"),
    ("close-1000-before", "ws-close-1000-before"),
    ("close-1001-before", "ws-close-1001-before"),
    ("close-1008-before", "ws-close-1008-before"),
    ("close-1011-before", "ws-close-1011-before"),
    ("close-1012-before", "ws-close-1012-before"),
    ("close-1013-before", "ws-close-1013-before"),
    ("close-4001-before", "ws-close-4001-before"),
    ("close-1011-created", "ws-close-1011-after-created"),
    ("close-noframe", "ws-fin-before"),
    ("up-hang", "upgrade-hang"),
    ("close-1000-delta", "ws-close-1000-after-delta"),
    ("err-429-usage-nostatus", "ws-error-without-status"),
    ("reset-before", "ws-reset-before"),
    ("reset-after-delta", "ws-reset-after-delta"),
    ("binary", "ws-binary"),
    ("idle-keepalive-msg", "ws-idle-keepalive-messages"),
    ("big-40MB", "ws-message-40MB"),
    ("idle", "ws-idle"),
    ("idle-keepalive-ping", "ws-idle-keepalive-pings"),
];

const CLAUDE_KEY: &[(&str, &str)] = &[
    ("ok", "simple"),
    ("eof-after-blockstop", "eof-after-block-stop"),
    ("eof-after-message_delta", "eof-after-message-delta"),
    ("crlf", "lines-crlf"),
    ("unknown", "unknown-events"),
    ("comments", "comments"),
    ("no-ping", "no-ping"),
    ("done-marker", "done-marker"),
    ("gzip", "coding-gzip"),
    ("br", "coding-brotli"),
    ("zstd", "coding-zstd"),
    ("utf8-split", "cut-within-characters"),
    ("404", "status-404"),
    ("403", "status-403"),
    ("400", "status-400"),
    ("413", "status-413"),
    ("401", "status-401"),
    ("408", "status-408"),
    ("409", "status-409"),
    ("500", "status-500"),
    ("502", "status-502"),
    ("503", "status-503"),
    ("529", "status-529"),
    ("429-RA3600", "status-429-retry-after-3600"),
    ("429-unified", "status-429-unified"),
    ("429-bare", "status-429"),
    ("429-shouldretry-false", "status-429-no-retry"),
    ("429-unified-noRA", "status-429-unified-without-retry-after"),
    ("529-noretry", "status-529-no-retry"),
    ("400-long", "status-400-too-long"),
    ("403-revoked", "status-403-revoked"),
    ("429-RA2", "status-429-retry-after-2"),
    ("400-credit", "status-400-credit"),
    ("eof-empty", "eof-empty"),
    ("json-200", "json-instead-of-stream"),
    ("reset-after-start", "reset-after-start"),
    ("reset-after-delta", "reset-after-delta"),
    ("reset-before", "reset-before-head"),
    ("fin-before", "fin-before-head"),
    ("eof-after-start", "eof-after-start"),
    ("eof-after-delta", "eof-after-delta"),
    ("err-after-start-api", "error-after-start"),
    ("err-after-delta-overloaded", "error-after-delta-overloaded"),
    ("err-rate-first", "error-first-rate-limit"),
    ("err-first-overloaded", "error-first-overloaded"),
    ("err-after-start-overloaded", "error-after-start-overloaded"),
    ("no-event-line", "no-event-line"),
    ("garbage", "garbage-json"),
    ("no-message_start", "no-message-start"),
    ("stop-refusal", "stop-refusal"),
    ("stop-max", "stop-max-tokens"),
];

const CLAUDE_OAUTH: &[(&str, &str)] = &[
    ("404", "status-404"),
    ("403", "status-403"),
    ("429-bare", "status-429"),
    ("429-RA2", "status-429-retry-after-2"),
    ("429-unified", "status-429-unified"),
    ("429-unified-noRA", "status-429-unified-without-retry-after"),
    ("401", "status-401"),
    ("500", "status-500"),
    ("529", "status-529"),
    ("400-credit", "status-400-credit"),
    ("403-revoked", "status-403-revoked"),
    ("reset-before", "reset-before-head"),
];

const GEMINI: &[(&str, &str)] = &[
    ("400", "status-400"),
    ("401", "status-401"),
    ("403", "status-403"),
    ("404", "status-404"),
    ("502", "status-502"),
    ("ok", "simple"),
    ("429-retryinfo-600s", "status-429-retry-info-600s"),
    ("429-perday", "status-429-per-day"),
    ("500", "status-500"),
    ("499", "status-499"),
    ("503", "status-503"),
    ("504", "status-504"),
    ("429-retryinfo-2s", "status-429-retry-info-2s"),
    ("400-key", "status-400-key"),
    ("429-MODEL_CAPACITY", "status-429-model-capacity"),
    ("429-bare", "status-429"),
    ("eof-empty", "eof-empty"),
    ("reset-after-chunk", "reset-after-chunk-always"),
    ("fin-after-chunk", "fin-after-chunk-always"),
    ("eof-no-finish", "eof-without-finish"),
    ("lf", "lines-lf"),
    ("err-in-stream", "error-in-stream"),
    ("cr", "lines-cr"),
    ("no-final-sep", "no-final-blank-line"),
    ("comments", "comments"),
    ("garbage", "garbage-json"),
    ("gzip", "coding-gzip"),
    ("br", "coding-brotli"),
    ("finish-MAX", "finish-max-tokens"),
    ("finish-SAFETY", "finish-safety"),
    ("MALFORMED", "finish-malformed-call"),
    ("blocked", "blocked"),
    ("429-RAheader", "status-429-retry-after"),
    ("429-RATE_LIMIT_EXCEEDED", "status-429-rate-limit-exceeded"),
    ("reset-before", "reset-before-head"),
    ("429-bare once", "status-429-once"),
    ("503 once", "status-503-once"),
    ("429-retryinfo-2s once", "status-429-retry-info-2s-once"),
    ("429-RATE_LIMIT_EXCEEDED once", "status-429-rate-limit-exceeded-once"),
    ("fin-after-chunk once", "fin-after-chunk"),
    ("reset-after-chunk once", "reset-after-chunk"),
    ("eof-no-finish once", "eof-without-finish-once"),
    ("reset-before once", "reset-before-head-once"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clients::Kind;
    use crate::clients::codex::Mode;
    use crate::compat::{faults, scenarios, sessions};
    use crate::fixture::Library;

    /// Everything that can be played, as `client mode name`.
    fn playable() -> BTreeSet<String> {
        let scenarios = scenarios();
        let turns = Mode::ALL
            .iter()
            .flat_map(|mode| scenarios.iter().map(|one| format!("codex {} {}", mode.name(), one.name)));
        let faults = faults();
        let faults =
            faults.iter().map(|fault| format!("codex {} {}", fault.mode.name(), fault.scenario.name));
        let sessions = Kind::ALL.into_iter().flat_map(sessions);
        let sessions = sessions.map(|one| format!("{} {} {}", one.kind.name(), one.mode, one.name));
        turns.chain(faults).chain(sessions).collect()
    }

    #[test]
    fn every_measured_fault_can_be_played_or_says_why_not() {
        let playable = playable();
        let mut seen = BTreeSet::new();
        for Matrix { client, mode, shown, left_out, .. } in MATRICES {
            for (fault, name) in *shown {
                assert!(playable.contains(&format!("{client} {mode} {name}")), "{client} {mode} {fault}");
            }
            for (fault, why) in shown.iter().chain(*left_out) {
                assert!(!why.is_empty() && seen.insert((client, mode, fault)), "{client} {mode} {fault}");
            }
        }
        // Rows of the measurement: a row that is taken out is missed here.
        let rows = MATRICES.iter().map(|matrix| matrix.shown.len() + matrix.left_out.len());
        assert_eq!(rows.collect::<Vec<_>>(), [96, 84, 52, 13, 45]);
    }

    #[test]
    fn every_measured_fault_is_recorded() {
        let library = Library::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/replay")).unwrap();
        let is_there = |name: &String| library.names().binary_search(name).is_ok();
        let named = MATRICES.iter().flat_map(|Matrix { client, version, mode, shown, .. }| {
            shown.iter().map(move |(_, name)| format!("{client}/{version}/{mode}-{name}"))
        });
        let older = DIFFERING.iter().map(|(mode, name)| format!("codex/0.149.1/{mode}-{name}"));
        let missing: BTreeSet<_> = named.chain(older).filter(|name| !is_there(name)).collect();
        assert!(missing.is_empty(), "not recorded: {missing:#?}");
    }
}
