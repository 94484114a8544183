//! The findings that a run log can give, as a table: what tells of each, how bad it is, what to say, what to do.
//!
//! A further one is an entry in its class and a golden log in `cli/doctor/tests/golden.rs`, which demands one of each. The names
//! of events are those of the field, so that the logs of an older tool give the same findings.

use std::sync::LazyLock;

use super::evidence::Evidence;
use super::finding::Class::{self, Admission, Auth, Continuation, Persistence, Quota, Setup, Transport};
use super::finding::Severity::{self, Notice, Problem, Warning};
use super::line::Entry;

mod admission;

mod auth;

mod continuation;

mod persistence;

mod quota;

mod transport;

/// Every rule, each with a name of its own.
pub(crate) static RULES: LazyLock<Vec<&'static Rule>> = LazyLock::new(|| {
    let classes = [
        admission::RULES,
        auth::RULES,
        continuation::RULES,
        persistence::RULES,
        quota::RULES,
        transport::RULES,
    ];
    classes.into_iter().flatten().collect()
});

/// A kind of trouble, and how it is known.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    pub(crate) severity: Severity,
    /// In a few words.
    pub(crate) title: &'static str,
    /// The lines that tell of it.
    pub(crate) when: &'static [When],
    /// The fields that tell cases apart, each of which ends for itself.
    pub(crate) key: &'static [&'static str],
    /// How it ends, beside by the time that the field `until` or `reset` names.
    pub(crate) end: End,
    /// The rules of which it may be a consequence, the likeliest first.
    pub(crate) because_of: &'static [&'static str],
    /// What happened, for the person.
    pub(crate) says: fn(&Evidence) -> String,
    /// The one command that helps or tells more. `{field}` is that of the last line.
    pub(crate) next: &'static str,
}

/// Lines of a log.
pub(crate) struct When {
    pub(crate) event: &'static str,
    only: fn(&Entry) -> bool,
}

impl When {
    pub(crate) fn holds(&self, entry: &Entry) -> bool {
        self.event == entry.event && (self.only)(entry)
    }
}

/// What ends a case.
pub(crate) enum End {
    /// Nothing that a log tells.
    Never,
    /// These lines; that it was is told all the same.
    Over(&'static [When]),
    /// These lines, and then it was none. What did not end within so many milliseconds is one.
    Gone(&'static [When], i64),
}

impl End {
    pub(crate) fn lines(&self) -> &'static [When] {
        match self {
            Self::Never => &[],
            Self::Over(lines) | Self::Gone(lines, _) => lines,
        }
    }
}

impl Rule {
    /// The command, with what its placeholders stand for. What could be more than a word to a shell is not
    /// put in.
    pub(crate) fn command(&self, seen: &Evidence) -> String {
        let mut command = String::new();
        let mut rest = self.next;
        while let Some((before, behind)) = rest.split_once('{') {
            let (field, behind) = behind.split_once('}').unwrap_or((behind, ""));
            let value = seen.last(field);
            let is_word = !value.is_empty() && value.bytes().all(is_word);
            command.push_str(before);
            command.push_str(match (is_word, field) {
                (true, _) => &value,
                (false, "request") => "last",
                (false, _) => "NAME",
            });
            rest = behind;
        }
        command + rest
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// What most rules have in common.
const RULE: Rule = Rule {
    name: "",
    class: Setup,
    severity: Warning,
    title: "",
    when: &[],
    key: &["profile"],
    end: End::Never,
    because_of: &[],
    says: |_| String::new(),
    next: "",
};

/// Every line of an event.
const fn on(event: &'static str) -> When {
    When { event, only: |_| true }
}

/// Those lines of an event for which something holds.
const fn on_if(event: &'static str, only: fn(&Entry) -> bool) -> When {
    When { event, only }
}

/// A time for the person, as it is kept in events: seconds since the epoch.
fn clock(seconds: Option<i64>) -> String {
    let at = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.map_or_else(|| "an unknown time".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// Whether an account served a turn: other calls are answered when it is used up, too.
fn is_turn_served(commit: &Entry) -> bool {
    matches!(commit.text("route").as_deref(), Some("responses" | "compact" | "websocket"))
        && commit.number("status") < Some(400)
}

/// Rules about an upstream that cannot be reached.
const UNREACHABLE: &[&str] = &["dns_error", "connect_error", "tls_error", "connect_timeout"];

/// Why a profile may not have been there.
const PROFILE_LOST: &[&str] = &[
    "dns_error",
    "connect_error",
    "tls_error",
    "connect_timeout",
    "profile_parked",
    "quota_everywhere",
    "profile_exhausted",
    "circuit_open",
    "profile_backoff",
];

/// Why there may have been no place.
const FULL: &[&str] = &["active_limit", "lane_limit", "inflight_saturated"];
