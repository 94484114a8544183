//! A line of a run log: of ours, or in the text or JSON form of an older tool of the same name.
//!
//! That tool writes `[2026-03-20 12:00:00.000 +07:00] request=7 transport=http first_local_chunk bytes=128`:
//! the first word that is no `key=value` is the event, and a value with blanks is a JSON string. Its JSON has
//! the same text as `message`, values that are all strings, and may lack `event`. Read in its repository and
//! tests (christiandoxa/prodex, versions 0.2.99 to 0.411).

use serde::Deserialize;
use serde_json::{Map, Value};

/// What happened, and when.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// In milliseconds since the epoch.
    pub(crate) at: i64,
    /// The event's name.
    pub(crate) event: String,
    /// What it says.
    pub(crate) fields: Map<String, Value>,
}

/// Why a line tells nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is longer than any event.
    TooLong,
    /// It is in no known form, or only a part of a line.
    NoForm,
    /// It has no time, or none that there is.
    NoTime,
    /// It names no event.
    NoEvent,
}

impl Unread {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too long",
            Self::NoForm => "no event, or a part of one",
            Self::NoTime => "without a time",
            Self::NoEvent => "without an event",
        }
    }
}

impl Entry {
    /// Reads a line, without its end.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Unread> {
        match line.trim_ascii_start().first() {
            Some(b'{') => Self::parse_json(line),
            Some(b'[') => Self::parse_text(line),
            _ => Err(Unread::NoForm),
        }
    }

    fn parse_json(line: &[u8]) -> Result<Self, Unread> {
        #[derive(Deserialize)]
        struct Line {
            timestamp: String,
            event: Option<String>,
            message: Option<String>,
            #[serde(default)]
            fields: Map<String, Value>,
        }
        let line: Line = serde_json::from_slice(line).map_err(|_| Unread::NoForm)?;
        let at = milliseconds(&line.timestamp).ok_or(Unread::NoTime)?;
        let event = line.event.or_else(|| parse_message(&line.message?).0);
        let event = event.filter(|event| is_name(event)).ok_or(Unread::NoEvent)?;
        Ok(Self { at, event, fields: line.fields })
    }

    fn parse_text(line: &[u8]) -> Result<Self, Unread> {
        let text = std::str::from_utf8(line).map_err(|_| Unread::NoForm)?;
        let (time, message) = text
            .trim_start()
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .ok_or(Unread::NoForm)?;
        let at = milliseconds(time).ok_or(Unread::NoTime)?;
        let (event, fields) = parse_message(message);
        let event = event.filter(|event| is_name(event)).ok_or(Unread::NoEvent)?;
        Ok(Self { at, event, fields })
    }

    /// A field as text; of a number its digits.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        text(self.fields.get(key)?)
    }

    /// A field as a number, whether it is written as one or as text.
    pub(crate) fn number(&self, key: &str) -> Option<i64> {
        number(self.fields.get(key)?)
    }

    /// Whether a field has this text.
    pub(crate) fn is(&self, key: &str, expected: &str) -> bool {
        self.fields.get(key).and_then(Value::as_str) == Some(expected)
    }
}

/// A value as text, if it is one that a word can tell.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A value as a whole number.
pub(crate) fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// Event and fields of a message in the text form.
fn parse_message(message: &str) -> (Option<String>, Map<String, Value>) {
    let (mut event, mut fields) = (None, Map::new());
    let mut rest = message.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = &rest[end..];
        if let Some(behind) = rest.strip_prefix('=') {
            let (value, behind) = split_value(behind);
            if !word.is_empty() && !value.is_empty() {
                fields.insert(word.to_owned(), Value::String(value));
            }
            rest = behind;
        } else if event.is_none() {
            event = Some(word.to_owned());
        }
        rest = rest.trim_start();
    }
    (event, fields)
}

/// The value at the beginning of a text, and what is behind it.
fn split_value(text: &str) -> (String, &str) {
    if text.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        if let Some(Ok(value)) = values.next() {
            return (value, &text[values.byte_offset()..]);
        }
    }
    let (value, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    (value.trim_matches('"').to_owned(), rest)
}

/// RFC 3339, or `2026-03-20 12:00:00.000 +07:00`.
fn milliseconds(time: &str) -> Option<i64> {
    let time = time.trim();
    let parsed = time.parse::<jiff::Timestamp>().ok().or_else(|| {
        let (time, offset) = time.rsplit_once(' ')?;
        format!("{time}{offset}").parse().ok()
    });
    parsed.map(jiff::Timestamp::as_millisecond)
}

/// Whether this can be the name of an event.
fn is_name(event: &str) -> bool {
    !event.is_empty()
        && event.len() <= 80
        && event.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(line: &str) -> String {
        match Entry::parse(line.as_bytes()) {
            Ok(entry) => format!("{} {} {}", entry.at, entry.event, Value::Object(entry.fields)),
            Err(unread) => unread.name().to_owned(),
        }
    }

    #[test]
    fn each_form_is_read() {
        let ours = r#"{"timestamp":"2026-11-20T05:56:40.692Z","event":"log_dropped","fields":{"lines":3}}"#;
        let text = r#"[2026-03-20 12:00:00.010 +07:00] request=1 transport=http first_local_chunk profile=main note="a \"b\" c" bytes=128"#;
        let json = r#"{"timestamp":"2026-04-08 10:00:00.000 +00:00","pid":7,"message":"request=7 profile_health profile=main","fields":{"request":"7","profile":"main"}}"#;
        insta::assert_snapshot!([ours, text, json].map(told).join("\n"), @r#"
        1795154200692 log_dropped {"lines":3}
        1773982800010 first_local_chunk {"request":"1","transport":"http","profile":"main","note":"a \"b\" c","bytes":"128"}
        1775642400000 profile_health {"request":"7","profile":"main"}
        "#);
    }

    #[test]
    fn what_is_no_event_says_why() {
        let lines = [
            "",
            "hello",
            r#"{"timestamp":"2026-11-20T05:56:40.692Z","event":"log_dr"#,
            r#"{"timestamp":"soon","event":"log_dropped"}"#,
            r#"{"timestamp":"2026-11-20T05:56:40.692Z","event":"Not A Name"}"#,
            r#"{"timestamp":"2026-11-20T05:56:40.692Z"}"#,
            "[2026-03-20 12:00:00.010 +07:00] request=1",
            "[yesterday] log_dropped",
            "[2026-03-20 12:00:00.010 +07:00",
        ];
        insta::assert_snapshot!(lines.map(told).join("\n"), @r"
        no event, or a part of one
        no event, or a part of one
        no event, or a part of one
        without a time
        without an event
        without an event
        without an event
        without a time
        no event, or a part of one
        ");
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::parse(&line);
        }

        #[test]
        fn no_text_makes_it_panic(message in "[ =\"\\\\a-z{}\\[\\]é]{0,60}") {
            let _ = Entry::parse(format!("[2026-03-20 12:00:00.010 +07:00] {message}").as_bytes());
            let _ = Entry::parse(message.as_bytes());
        }
    }
}
