//! What goes wrong with a reply: where it breaks off and how.
//!
//! Here a fault cuts a list of writes; breaking a real connection is `connection`'s and `websocket`'s.

use serde::{Deserialize, Serialize};

use crate::pacing::Step;

/// A reply that does not end as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Where it breaks off; behind everything without it.
    #[serde(default)]
    pub at: At,
    /// How it ends.
    pub end: End,
}

impl Fault {
    /// Before the head: the client gets nothing at all.
    #[must_use]
    pub fn before_head(end: End) -> Self {
        Self { at: At::BeforeHead, end }
    }

    /// Behind so many events, messages or scripted writes.
    #[must_use]
    pub fn after_events(count: usize, end: End) -> Self {
        Self { at: At::Events(count), end }
    }

    /// Behind so many bytes of the body.
    #[must_use]
    pub fn after_bytes(count: usize, end: End) -> Self {
        Self { at: At::Bytes(count), end }
    }
}

/// Where a reply breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// Before the head.
    BeforeHead,
    /// Behind the head and so many writes. With the default pacing a write is an event, a message or a
    /// scripted piece.
    Events(usize),
    /// Behind the head and so many bytes of the body. On a WebSocket: before the message that these bytes
    /// end in.
    Bytes(usize),
    /// Behind everything.
    #[default]
    End,
}

/// How a reply ends that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The connection is reset (RST).
    Reset,
    /// The connection is closed (FIN) in the middle of the body, or of a frame.
    Fin,
    /// The body ends cleanly, only too early. A WebSocket is closed with 1000.
    Eof,
    /// `Content-Length` promises more than is sent before the connection is closed.
    Short,
    /// Nothing more is sent and the connection stays open.
    Hang,
    /// A close frame with this code; over HTTP the same as `fin`.
    Close {
        /// The close code.
        code: u16,
        /// The reason.
        #[serde(default)]
        reason: String,
    },
}

impl At {
    /// Drops what is not sent.
    pub(crate) fn cut(self, steps: &mut Vec<Step>) {
        match self {
            Self::BeforeHead => steps.clear(),
            Self::Events(count) => steps.truncate(count),
            Self::Bytes(count) => {
                let mut left = count;
                steps.retain_mut(|step| {
                    step.data.truncate(left);
                    left -= step.data.len();
                    !step.data.is_empty()
                });
            }
            Self::End => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::time::Duration;

    fn cut(at: At) -> Vec<String> {
        let step =
            |text: &'static str| Step { pause: Duration::ZERO, data: Bytes::from_static(text.as_bytes()) };
        let mut steps = vec![step("abc"), step("de"), step("f")];
        at.cut(&mut steps);
        steps.iter().map(|step| String::from_utf8(step.data.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_cut_keeps_what_comes_before_it() {
        assert_eq!(cut(At::BeforeHead), [""; 0]);
        assert_eq!(cut(At::Events(2)), ["abc", "de"]);
        assert_eq!(cut(At::Events(9)), ["abc", "de", "f"]);
        assert_eq!(cut(At::Bytes(0)), [""; 0]);
        assert_eq!(cut(At::Bytes(4)), ["abc", "d"]);
        assert_eq!(cut(At::Bytes(99)), ["abc", "de", "f"]);
        assert_eq!(cut(At::End), ["abc", "de", "f"]);
    }
}
