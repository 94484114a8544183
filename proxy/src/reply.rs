//! The replies that the proxy gives itself: refusals, and the few answers it is the authority for.
//!
//! Never an imitation of an upstream error: a local refusal is 4xx for what the client did, and 503 with
//! `Retry-After` for what the proxy cannot do now; its message says who speaks.

use crate::error::{Error, Side};
use crate::metrics::Ending;

/// A reply of the proxy's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Further header fields: names in lower case, values without line ends.
    pub fields: Vec<(&'static str, String)>,
    /// The body, JSON.
    pub body: String,
    /// What became of its request.
    pub ending: Ending,
}

impl Reply {
    /// A reply with a JSON body.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        let fields = vec![("content-type", "application/json".to_owned())];
        Self { status, fields, body: body.to_string(), ending: Ending::Local }
    }

    /// The reply to a request that went wrong.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        if let Error::Busy(refused) = error
            && refused.is_of_sockets()
        {
            return Self::upgrade_required(&refused.to_string());
        }
        let (status, kind) = match error {
            Error::Refused { status, .. } => (*status, refusal_kind(*status)),
            _ => (503, "service_unavailable"),
        };
        let message = format!("prodex: {error}");
        let body = serde_json::json!({"error": {"type": kind, "code": kind, "message": message}});
        let mut reply = Self { ending: error.into(), ..Self::json(status, &body) };
        if error.side() != Side::Client {
            // Codex multiplies every 5xx by up to 30 requests; a second between them is kind to both.
            let seconds = match error {
                Error::Owned { retry_in: Some(seconds), .. } => (*seconds).max(1),
                _ => 1,
            };
            reply.fields.push(("retry-after", seconds.to_string()));
        }
        reply
    }

    /// The reply that makes a Codex client use HTTP instead of a WebSocket: the one clean fallback
    /// (measured: immediate, silent, sticky).
    #[must_use]
    pub fn upgrade_required(message: &str) -> Self {
        let message = format!("prodex: {message}");
        let body = serde_json::json!({"error": {
            "type": "upgrade_required", "code": "upgrade_required", "message": message}});
        Self { ending: Ending::Fallback, ..Self::json(426, &body) }
    }

    /// The reply as a message on a WebSocket, as the backend says there what it says with a status over
    /// HTTP. Codex ignores one without `status` (measured).
    #[must_use]
    pub fn message(&self) -> String {
        let mut message: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        message["type"] = "error".into();
        message["status"] = self.status.into();
        let headers = self.fields.iter().filter(|(name, _)| *name != "content-type");
        for (name, value) in headers {
            message["headers"][name] = value.as_str().into();
        }
        message.to_string()
    }

    /// The head and the body as HTTP/1.1.
    #[must_use]
    pub fn encode(&self, keep_alive: bool, to_head: bool) -> Vec<u8> {
        use std::io::Write as _;
        let mut out = Vec::with_capacity(256 + self.body.len());
        // Writing into memory cannot fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.fields {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        let _ = write!(out, "content-length: {}\r\n", self.body.len());
        if !keep_alive {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !to_head {
            out.extend_from_slice(self.body.as_bytes());
        }
        out
    }
}

/// The error type that goes with the status of a refusal.
fn refusal_kind(status: u16) -> &'static str {
    match status {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        405 => "method_not_allowed",
        408 => "request_timeout",
        413 | 431 => "request_too_large",
        _ => "bad_request",
    }
}

/// The reason phrase of the statuses that the proxy itself replies with.
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::gate::Reason;
    use crate::admission::{Refused, Subject};

    #[test]
    fn a_refusal_says_who_speaks() {
        let error = Error::refused(401, "this request does not carry the capability of this launch");
        let text = String::from_utf8(Reply::of(&error).encode(false, false)).unwrap();
        insta::assert_snapshot!(text.replace('\r', ""), @r#"
        HTTP/1.1 401 Unauthorized
        content-type: application/json
        content-length: 133
        connection: close

        {"error":{"type":"unauthorized","code":"unauthorized","message":"prodex: this request does not carry the capability of this launch"}}
        "#);
    }

    #[test]
    fn what_the_proxy_cannot_do_is_503_with_retry_after() {
        let refused = |subject| {
            let (reason, waited) = (Reason::Active, std::time::Duration::ZERO);
            Error::Busy(Refused { subject, reason, active: 1, limit: 1, waited })
        };
        let busy = refused(Subject::Lane(crate::route::Lane::Responses));
        for error in [busy, Error::Draining, Error::NoProfile("none".into())] {
            let reply = Reply::of(&error);
            assert_eq!(reply.status, 503);
            assert!(reply.fields.iter().any(|(name, _)| *name == "retry-after"));
        }
        assert_eq!(Reply::of(&refused(Subject::Sockets)).status, 426, "over HTTP there may be room");
        for (retry_in, after) in [(Some(30), "30"), (Some(0), "1"), (None, "1")] {
            let reply = Reply::of(&Error::Owned { why: "a".into(), retry_in });
            assert_eq!((reply.status, reply.fields[1].1.as_str()), (503, after));
        }
    }
}
