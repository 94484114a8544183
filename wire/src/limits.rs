//! How Codex's backend says how much of an account is used, that it is used up, and when it comes back.
//!
//! The facts were measured with Codex 0.140 to 0.169 (November 2026). The same windows come in response
//! headers, in `codex.rate_limits` events and from the usage endpoint; they are told apart by their
//! length, never by the names `primary` and `secondary`, which say nothing about it.

use std::borrow::Cow;
use std::time::Duration;

use crate::http1::Field;
use crate::json::Value;

/// One quota window of an account.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// How much of it is used, in percent; may exceed 100.
    pub used_percent: f64,
    /// How long it is, if the backend says so.
    pub length: Option<Duration>,
    /// When it starts anew, in seconds since the epoch.
    pub resets_at: Option<i64>,
}

/// What kind of error a code stands for. Anything else is [`ErrorCode::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The account's window is used up.
    UsageLimitReached,
    /// The account's plan does not have this.
    UsageNotIncluded,
    /// The account has no credit.
    InsufficientQuota,
    /// The account has no credit (0.160 and newer).
    CreditBalanceExhausted,
    /// Too many requests; whose limit it is, the code alone does not say.
    RateLimitExceeded,
    /// Too many requests, politely.
    SlowDown,
    /// The model has no capacity.
    ServerIsOverloaded,
    /// The account was closed or suspended.
    AccountDeactivated,
    /// The workspace was closed; comes with 402.
    DeactivatedWorkspace,
    /// The access token is no longer good.
    TokenInvalid,
    /// The response to continue is not this account's, or gone.
    PreviousResponseNotFound,
    /// An encrypted item was made by another account or key.
    InvalidEncryptedContent,
    /// The connection is an hour old.
    WebsocketConnectionLimitReached,
    /// Any other.
    Other,
}

impl ErrorCode {
    /// The code or type of an error.
    #[must_use]
    pub fn parse(code: &str) -> Self {
        match code {
            "usage_limit_reached" => Self::UsageLimitReached,
            "usage_not_included" => Self::UsageNotIncluded,
            "insufficient_quota" => Self::InsufficientQuota,
            "credit_balance_exhausted" => Self::CreditBalanceExhausted,
            "rate_limit_exceeded" => Self::RateLimitExceeded,
            "slow_down" => Self::SlowDown,
            "server_is_overloaded" => Self::ServerIsOverloaded,
            // These four are known from public reports of users, not from measurements.
            "account_deactivated" => Self::AccountDeactivated,
            "deactivated_workspace" => Self::DeactivatedWorkspace,
            "token_expired" | "token_invalidated" | "token_revoked" => Self::TokenInvalid,
            "previous_response_not_found" => Self::PreviousResponseNotFound,
            "invalid_encrypted_content" => Self::InvalidEncryptedContent,
            "websocket_connection_limit_reached" => Self::WebsocketConnectionLimitReached,
            _ => Self::Other,
        }
    }
}

/// An error as the backend states it: in a body, an event or a WebSocket message.
#[derive(Debug, Clone, Copy)]
pub struct ErrorView<'a> {
    error: Value<'a>,
}

impl<'a> ErrorView<'a> {
    /// The error of a response body: `{"error":{…}}`, or `{"detail":{…}}` as some routes have it.
    #[must_use]
    pub fn of_body(body: &'a [u8]) -> Option<Self> {
        let body = Value::new(body);
        let error = body.get("error").filter(|error| error.is_object());
        let detail = body.get("detail").filter(|detail| detail.is_object());
        error.or(detail).map(Self::of_object)
    }

    /// A view of the error object itself.
    #[must_use]
    pub fn of_object(error: Value<'a>) -> Self {
        Self { error }
    }

    /// What kind of error it is: by `code`, and by `type` when the code is none of the known.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        let by = |key: &str| {
            let text = self.error.get(key).and_then(Value::as_str);
            text.map_or(ErrorCode::Other, |text| ErrorCode::parse(&text))
        };
        match by("code") {
            ErrorCode::Other => by("type"),
            code => code,
        }
    }

    /// The code or type as it was written, for logs.
    #[must_use]
    pub fn name(self) -> Option<Cow<'a, str>> {
        let text = |key: &str| self.error.get(key).and_then(Value::as_str);
        text("code").or_else(|| text("type"))
    }

    /// When the limit is lifted, in seconds since the epoch: `resets_at`, or `resets_in_seconds` from
    /// `now`.
    #[must_use]
    pub fn resets_at(self, now: i64) -> Option<i64> {
        let number = |key: &str| self.error.get(key).and_then(Value::as_i64);
        number("resets_at").or_else(|| number("resets_in_seconds").and_then(|left| now.checked_add(left)))
    }
}

/// The windows that the headers of a response state: `x-codex-primary-used-percent` and its siblings.
/// Only the account's own family is read; the further ones (`x-codex-<limit>-primary-…`) are of single
/// models or features.
#[must_use]
pub fn windows_of_headers<'a>(fields: impl Iterator<Item = Field<'a>>) -> Vec<Window> {
    /// The values of one window, as they are found.
    #[derive(Default, Clone, Copy)]
    struct Found {
        used: Option<f64>,
        minutes: Option<f64>,
        resets_at: Option<i64>,
    }
    let mut found = [Found::default(); 2];
    for field in fields {
        let Some(rest) = strip_prefix_ignoring_case(field.name, "x-codex-") else { continue };
        let (window, what) = if let Some(what) = strip_prefix_ignoring_case(rest, "primary-") {
            (&mut found[0], what)
        } else if let Some(what) = strip_prefix_ignoring_case(rest, "secondary-") {
            (&mut found[1], what)
        } else {
            continue;
        };
        let Some(value) = field.text().map(str::trim) else { continue };
        match what {
            "used-percent" => window.used = value.parse().ok().filter(|used: &f64| used.is_finite()),
            "window-minutes" => window.minutes = value.parse().ok(),
            "reset-at" => window.resets_at = value.parse().ok(),
            _ => {}
        }
    }
    let window = |found: Found| {
        let length = found.minutes.and_then(|minutes| Duration::try_from_secs_f64(minutes * 60.0).ok());
        found.used.map(|used_percent| Window { used_percent, length, resets_at: found.resets_at })
    };
    found.into_iter().filter_map(window).collect()
}

fn strip_prefix_ignoring_case<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = name.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The windows of a `codex.rate_limits` event.
#[must_use]
pub fn windows_of_event(event: Value<'_>) -> Vec<Window> {
    let Some(limits) = event.get("rate_limits") else { return Vec::new() };
    windows_of_object(limits, ["primary", "secondary"], "window_minutes", 60.0, "reset_at")
}

/// The windows of the answer of `GET …/wham/usage`.
#[must_use]
pub fn windows_of_usage(body: &[u8]) -> Vec<Window> {
    let Some(limits) = Value::new(body).get("rate_limit") else { return Vec::new() };
    windows_of_object(limits, ["primary_window", "secondary_window"], "limit_window_seconds", 1.0, "reset_at")
}

fn windows_of_object(
    limits: Value<'_>,
    names: [&str; 2],
    length: &str,
    seconds_per_unit: f64,
    resets_at: &str,
) -> Vec<Window> {
    let window = |name: &str| {
        let window = limits.get(name)?;
        let length = window.get(length).and_then(Value::as_f64).map(|units| units * seconds_per_unit);
        Some(Window {
            used_percent: window.get("used_percent").and_then(Value::as_f64)?,
            length: length.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            resets_at: window.get(resets_at).and_then(Value::as_i64),
        })
    };
    names.into_iter().filter_map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::ResponseHead;

    const FIVE_HOURS: Option<Duration> = Some(Duration::from_secs(5 * 3600));
    const WEEK: Option<Duration> = Some(Duration::from_secs(7 * 24 * 3600));

    #[test]
    fn all_three_places_state_the_same_windows() {
        let head = "HTTP/1.1 200 OK\r\nX-Codex-primary-used-percent: 12.5\r\n\
            x-codex-primary-window-minutes: 300\r\nx-codex-primary-reset-at: 1795170000\r\n\
            x-codex-secondary-used-percent: 34\r\nx-codex-secondary-window-minutes: 10080\r\n\
            x-codex-spark-primary-used-percent: 99\r\nx-codex-secondary-reset-at: soon\r\n\r\n";
        let (head, _) = ResponseHead::parse(head.as_bytes()).unwrap().unwrap();
        let expected = [
            Window { used_percent: 12.5, length: FIVE_HOURS, resets_at: Some(1_795_170_000) },
            Window { used_percent: 34.0, length: WEEK, resets_at: None },
        ];
        assert_eq!(windows_of_headers(head.fields()), expected);
        let event = br#"{"type":"codex.rate_limits","rate_limits":{"allowed":true,"primary":{"used_percent":12.5,
            "window_minutes":300,"reset_at":1795170000},"secondary":{"used_percent":34,"window_minutes":10080}}}"#;
        assert_eq!(windows_of_event(Value::new(event)), expected);
        let usage = br#"{"plan_type":"plus","rate_limit":{"primary_window":{"used_percent":12.5,
            "limit_window_seconds":18000,"reset_at":1795170000},
            "secondary_window":{"used_percent":34,"limit_window_seconds":604800}}}"#;
        assert_eq!(windows_of_usage(usage), expected);
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        assert_eq!(windows_of_usage(br#"{"rate_limit":null}"#), []);
        assert_eq!(windows_of_event(Value::new(b"{}")), []);
        let (head, _) = ResponseHead::parse(b"HTTP/1.1 200 OK\r\nx-codex-primary-used-percent: NaN\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(windows_of_headers(head.fields()), []);
    }

    #[test]
    fn errors_are_known_by_code_and_by_type() {
        let view = |body: &'static str| ErrorView::of_body(body.as_bytes()).unwrap();
        let limit = view(r#"{"error":{"type":"usage_limit_reached","message":"x","resets_in_seconds":60}}"#);
        assert_eq!((limit.code(), limit.resets_at(1000)), (ErrorCode::UsageLimitReached, Some(1060)));
        let quota = view(r#"{"error":{"type":"other","code":"insufficient_quota","resets_at":5}}"#);
        assert_eq!((quota.code(), quota.resets_at(1000)), (ErrorCode::InsufficientQuota, Some(5)));
        assert_eq!(
            view(r#"{"detail":{"code":"deactivated_workspace"}}"#).code(),
            ErrorCode::DeactivatedWorkspace
        );
        assert_eq!(view(r#"{"error":{}}"#).code(), ErrorCode::Other);
        for body in [r#"{"detail":"Not Found"}"#, r#"{"error":"x"}"#, "<html>", ""] {
            assert!(ErrorView::of_body(body.as_bytes()).is_none(), "{body}");
        }
    }
}
