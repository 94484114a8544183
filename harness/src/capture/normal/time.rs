//! Times as captures write them.

/// Milliseconds since 1970 of an RFC 3339 time with any offset. A time without an offset is taken for UTC.
pub(in crate::capture) fn milliseconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let stamp: jiff::Timestamp = text.parse().or_else(|_| format!("{text}Z").parse()).ok()?;
    let microseconds = stamp.as_microsecond() as f64;
    Some(microseconds / 1000.0)
}

/// The time as RFC 3339 in UTC with milliseconds.
pub(in crate::capture) fn text(milliseconds: f64) -> String {
    let stamp = jiff::Timestamp::from_millisecond(milliseconds as i64).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    stamp.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
