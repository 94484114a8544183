//! What is judged: each check by name, what it says, and how much of a difference it forgives and why.

use serde::{Deserialize, Serialize};

/// Declares the checks, so that none lacks its name, its meaning or its word on tolerance.
macro_rules! checks {
    ($($variant:ident $name:literal $meaning:literal $tolerance:expr,)*) => {
        /// A thing that is judged.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Check {
            $(
                #[doc = $meaning]
                #[serde(rename = $name)]
                $variant,
            )*
        }

        impl Check {
            /// All of them, in the order of a report.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name, which does not change.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What holds when there is no finding.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What it forgives, and why.
            #[must_use]
            pub fn tolerance(self) -> Option<&'static str> {
                match self { $(Self::$variant => $tolerance,)* }
            }
        }
    };
}

checks! {
    ReachesUpstream "reaches-upstream" "every request reaches the upstream"
        Some("a client that leaves within its request may have left before there was anything to forward"),
    UnexpectedRequest "unexpected-request" "nothing reaches the upstream that no client has sent"
        Some("a pooling proxy asks questions of its own: who the account is, how much is left, for new tokens"),
    SentOnce "sent-once" "no request is sent twice"
        Some("a pooling proxy may ask again where nothing of the answer was output: on a refusal or a cut before it"),
    Method "method" "the method is the client's" None,
    PathAndQuery "path-and-query" "path and query are the client's, byte for byte" None,
    RequestHeadersKept "request-headers-kept" "fields that are the client's arrive with their values"
        Some("lines of one name may be joined by a comma (RFC 9110 §5.3), which is told as lawful"),
    RequestHeadersReplaced "request-headers-replaced" "the account's credentials stand in place of the client's" None,
    RequestHeadersDropped "request-headers-dropped" "fields that a pooling proxy must not forward are not forwarded" None,
    RequestHeadersAdded "request-headers-added" "no field is added to a request"
        Some("Via, Forwarded and X-Forwarded-* are what a reverse proxy is expected to say, so they are lawful"),
    RequestHeaderOrder "request-header-order" "fields come in the client's order"
        Some("only the order of lines with one name has a meaning (RFC 9110 §5.3); any other order is lawful"),
    RequestHeaderCase "request-header-case" "field names keep their spelling"
        Some("names have no case (RFC 9110 §5.1), and over HTTP/2 none has any: another spelling is lawful"),
    RequestBody "request-body" "the body of a request arrives byte for byte"
        Some("one that is answered before it has ended may be cut off"),
    Status "status" "the status is the upstream's" None,
    ResponseHeadersKept "response-headers-kept" "fields that are the upstream's arrive with their values"
        Some("lines of one name may be joined by a comma (RFC 9110 §5.3) but for Set-Cookie, which is told as lawful"),
    ResponseHeadersDropped "response-headers-dropped" "fields that are not for a pool's clients do not arrive" None,
    ResponseHeadersAdded "response-headers-added" "no field is added to a response"
        Some("Date, Server, Via and Age are what a reverse proxy may say of itself, so they are lawful"),
    ResponseHeaderDuplicates "response-header-duplicates" "a field that came several times arrives as often" None,
    ResponseHeaderOrder "response-header-order" "fields come in the upstream's order"
        Some("only the order of lines with one name has a meaning (RFC 9110 §5.3); any other order is lawful"),
    ResponseHeaderCase "response-header-case" "field names keep their spelling"
        Some("names have no case (RFC 9110 §5.1): another spelling is lawful"),
    HopByHop "hop-by-hop" "even the fields of a connection are as they were"
        Some("those of RFC 9110 §7.6.1 and the framing are each hop's own: any difference is lawful"),
    ResponseBody "response-body" "the body of a response arrives byte for byte"
        Some("with a reset, and with any cut over HTTP/2, which is one, what was under way may be lost (RFC 9113 §5.4.2)"),
    EventOrder "event-order" "the events of a stream are the upstream's, in its order" None,
    FirstByteDelay "first-byte-delay" "a response begins when the upstream begins it"
        Some("400 ms, and only when the head came later than the next two upstream writes: the upstream waits for the client behind each write, so a busy machine moves both and only a proxy that holds bytes moves one"),
    ChunkDelay "chunk-delay" "a stream arrives while it is sent"
        Some("as for the first byte; a pooling proxy may hold a stream up to its first output, since until then it may ask another account"),
    CutSeenAsCut "cut-seen-as-cut" "an answer that breaks off is seen to break off"
        Some("a reset may be passed on as any cut: which of the two it was, no client can act on"),
    CleanEnd "clean-end" "an answer that ends well is seen to end well" None,
    Cancellation "cancellation-reaches-upstream" "a client that leaves takes its request with it"
        Some("2 s: a proxy sees it at once, a busy machine shows it late, and no account is used up by then"),
    HalfClose "half-close" "a client that ends only its sending side still gets its answer"
        Some("no standard says so for HTTP, and a proxy cannot tell it from leaving: it is lawful"),
    WsHandshake "ws-handshake" "the opening handshake is that of RFC 6455 and its answer the upstream's" None,
    WsSubprotocol "ws-subprotocol" "the subprotocol is the one that the upstream chose" None,
    WsExtensions "ws-extensions" "no extension is agreed to that the upstream has not agreed to" None,
    WsRefusedUpgrade "ws-refused-upgrade" "a refused upgrade is refused with the upstream's status, fields and body" None,
    WsMessages "ws-messages" "messages arrive with their type, size and bytes, in order, each once"
        Some("a pooling proxy may still hold the beginning of a turn when its client leaves"),
    WsFrames "ws-frames" "messages keep the frames they were sent in"
        Some("an intermediary may frame anew (RFC 6455 §5.4), so it is lawful"),
    WsCloseCode "ws-close-code" "the end of a WebSocket arrives with its code and reason" None,
    ErrorBody "error-body" "an error keeps its body" None,
    RetryAfter "retry-after" "an error keeps its Retry-After" None,
    ContentEncoding "content-encoding-untouched" "what is encoded stays encoded as it was" None,
    BigBody "big-body" "a body of many megabytes passes whole" None,
    SlowFirstByte "slow-first-byte" "an answer that takes long to begin is waited for" None,
    ContinuationOwner "continuation-owner" "a conversation stays with the account that has it"
        Some("once that account has refused, another may be asked"),
    NoCrossAccountLeak "no-cross-account-leak" "nothing of an account reaches another one, or a client" None,
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_what_reports_know() {
        let names: Vec<_> = Check::ALL.iter().map(|check| check.name()).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "no name twice");
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
        assert_eq!(serde_json::to_value(Check::WsCloseCode).unwrap(), "ws-close-code");
    }
}
