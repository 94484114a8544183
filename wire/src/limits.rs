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

/// A limit and its windows.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// Which limit: none for the account's own, else the id of one of single models or features, in lower
    /// case with `_` between its words.
    pub id: Option<Box<str>>,
    /// Its windows; one or two.
    pub windows: Vec<Window>,
}

/// Most limits that are read of one response. More than three have not been seen.
const MAX_LIMITS: usize = 16;

/// Longest id of a limit.
const MAX_ID: usize = 64;

/// The id of the account's own limit.
const OWN: &str = "codex";

/// The limits that the headers of a response state: `x-codex-primary-used-percent` and its siblings, and
/// `x-<limit>-primary-used-percent` for limits besides the account's own. How the name of a field becomes
/// the id of a limit is Codex's own rule (`codex-rs/codex-api/src/rate_limits.rs`, read November 2026).
#[must_use]
pub fn limits_of_headers<'a>(fields: impl Iterator<Item = Field<'a>>) -> Vec<Limit> {
    let mut found: Vec<Found<'a>> = Vec::new();
    for field in fields {
        let Some(name) = FieldName::parse(field.name) else { continue };
        let Ok(value) = std::str::from_utf8(field.value) else { continue };
        let at = found.iter().position(|found| found.limit.eq_ignore_ascii_case(name.limit));
        let at = match at {
            Some(at) => at,
            None if found.len() < MAX_LIMITS => {
                found.push(Found { limit: name.limit, windows: Default::default() });
                found.len() - 1
            }
            None => continue,
        };
        found[at].windows[usize::from(name.is_secondary)].take(name.what, value.trim());
    }
    found.into_iter().filter_map(Found::limit).collect()
}

/// The windows of the account's own limit that the headers of a response state.
#[must_use]
pub fn windows_of_headers<'a>(fields: impl Iterator<Item = Field<'a>>) -> Vec<Window> {
    let own = limits_of_headers(fields).into_iter().find(|limit| limit.id.is_none());
    own.map(|limit| limit.windows).unwrap_or_default()
}

/// The windows of the account's own limit that the `headers` of an error message on a WebSocket state. Codex takes
/// strings and numbers there (measured with 0.149 and 0.169).
#[must_use]
pub fn windows_of_error(message: Value<'_>) -> Vec<Window> {
    let mut windows = [FoundWindow::default(); 2];
    for (key, value) in message.get("headers").into_iter().flat_map(Value::entries) {
        let Some(key) = key.as_str() else { continue };
        let Some(name) = FieldName::parse(&key).filter(|name| name.limit.eq_ignore_ascii_case(OWN)) else {
            continue;
        };
        let text = value.as_str().unwrap_or_else(|| String::from_utf8_lossy(value.raw()));
        windows[usize::from(name.is_secondary)].take(name.what, text.trim());
    }
    windows.into_iter().filter_map(FoundWindow::window).collect()
}

/// What the name of a header field says about the value.
#[derive(Debug, Clone, Copy)]
struct FieldName<'a> {
    limit: &'a str,
    is_secondary: bool,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    UsedPercent,
    WindowMinutes,
    ResetAt,
}

impl<'a> FieldName<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let rest = strip_prefix_ignoring_case(name, "x-")?;
        let (rest, what) = [
            ("-used-percent", What::UsedPercent),
            ("-window-minutes", What::WindowMinutes),
            ("-reset-at", What::ResetAt),
        ]
        .into_iter()
        .find_map(|(suffix, what)| Some((strip_suffix_ignoring_case(rest, suffix)?, what)))?;
        let primary = strip_suffix_ignoring_case(rest, "-primary").map(|limit| (limit, false));
        let place = primary.or_else(|| Some((strip_suffix_ignoring_case(rest, "-secondary")?, true)));
        place.map(|(limit, is_secondary)| Self { limit, is_secondary, what })
    }
}

/// The values of one limit, as they are found.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    limit: &'a str,
    windows: [FoundWindow; 2],
}

#[derive(Debug, Clone, Copy, Default)]
struct FoundWindow {
    used: Option<f64>,
    minutes: Option<f64>,
    resets_at: Option<i64>,
}

impl FoundWindow {
    fn take(&mut self, what: What, value: &str) {
        match what {
            What::UsedPercent => self.used = value.parse().ok().filter(|used: &f64| used.is_finite()),
            What::WindowMinutes => self.minutes = value.parse().ok(),
            What::ResetAt => self.resets_at = value.parse().ok(),
        }
    }

    /// The window, if it says how much is used.
    fn window(self) -> Option<Window> {
        let length = self.minutes.and_then(|minutes| Duration::try_from_secs_f64(minutes * 60.0).ok());
        self.used.map(|used_percent| Window { used_percent, length, resets_at: self.resets_at })
    }
}

impl Found<'_> {
    /// The limit, if it has an id that is one, and a window that says how much is used.
    fn limit(self) -> Option<Limit> {
        let windows: Vec<Window> = self.windows.into_iter().filter_map(FoundWindow::window).collect();
        let id = limit_id(self.limit)?;
        (!windows.is_empty()).then_some(Limit { id, windows })
    }
}

/// The id of a limit as one spells it everywhere: none for the account's own. Outer `None` when it cannot
/// be one.
#[expect(
    clippy::option_option,
    reason = "no id, and the id of the account's own limit, are different things"
)]
fn limit_id(name: &str) -> Option<Option<Box<str>>> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > MAX_ID || !name.bytes().all(is_good) {
        return None;
    }
    let id = name.to_ascii_lowercase().replace('-', "_");
    Some((id != OWN).then(|| id.into()))
}

fn strip_prefix_ignoring_case<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = name.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn strip_suffix_ignoring_case<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let (rest, tail) = name.split_at_checked(name.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(rest)
}

/// The windows of a `codex.rate_limits` event.
#[must_use]
pub fn windows_of_event(event: Value<'_>) -> Vec<Window> {
    let Some(limits) = event.get("rate_limits") else { return Vec::new() };
    windows_of_object(limits, ["primary", "secondary"], "window_minutes", 60.0, "reset_at")
}

/// The answer of `GET …/wham/usage`. Shape measured with Codex 0.169 (November 2026).
#[derive(Debug, Clone, Copy)]
pub struct UsageView<'a> {
    body: Value<'a>,
}

impl<'a> UsageView<'a> {
    /// A view of the answer; none if it is not one: Codex wants `plan_type` in it, and so do we.
    #[must_use]
    pub fn of_body(body: &'a [u8]) -> Option<Self> {
        let body = Value::new(body);
        body.get("plan_type").and_then(Value::as_str).map(|_| Self { body })
    }

    /// The account's plan.
    #[must_use]
    pub fn plan(self) -> Option<Cow<'a, str>> {
        self.body.get("plan_type").and_then(Value::as_str)
    }

    /// Whether the backend says that a limit is reached.
    #[must_use]
    pub fn is_reached(self) -> bool {
        let flag = |key: &str| self.body.at(&["rate_limit", key]).and_then(Value::as_bool);
        flag("limit_reached") == Some(true) || flag("allowed") == Some(false)
    }

    /// The account's own limit first, then those of single models or features. A limit without windows is
    /// left out: an account that is not limited has none.
    #[must_use]
    pub fn limits(self) -> Vec<Limit> {
        let windows = |of: Value<'_>| {
            let limits = of.get("rate_limit")?;
            let names = ["primary_window", "secondary_window"];
            let windows = windows_of_object(limits, names, "limit_window_seconds", 1.0, "reset_at");
            (!windows.is_empty()).then_some(windows)
        };
        let own = windows(self.body).map(|windows| Limit { id: None, windows });
        let further = self.body.get("additional_rate_limits").into_iter().flat_map(Value::elements);
        let further = further.filter_map(|limit| {
            let name = |key: &str| limit.get(key).and_then(Value::as_str);
            let id = limit_id(&name("metered_feature").or_else(|| name("limit_name"))?)?;
            // The account's own limit is told above, and only there.
            Some(Limit { id: Some(id?), windows: windows(limit)? })
        });
        own.into_iter().chain(further).take(MAX_LIMITS).collect()
    }
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
            used_percent: window
                .get("used_percent")
                .and_then(Value::as_f64)
                .filter(|used| used.is_finite())?,
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
    use proptest::prelude::*;

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
        let usage = UsageView::of_body(usage).unwrap();
        assert_eq!(usage.limits(), [Limit { id: None, windows: expected.to_vec() }]);
        assert_eq!((usage.plan().as_deref(), usage.is_reached()), (Some("plus"), false));
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        for none in
            [r#"{"plan_type":"x","rate_limit":null}"#, r#"{"plan_type":"x","additional_rate_limits":{}}"#]
        {
            assert_eq!(UsageView::of_body(none.as_bytes()).unwrap().limits(), [], "{none}");
        }
        for other in ["", "[]", "<html>", r#"{"rate_limit":{}}"#, r#"{"plan_type":null}"#] {
            assert!(UsageView::of_body(other.as_bytes()).is_none(), "{other}");
        }
        assert_eq!(windows_of_event(Value::new(b"{}")), []);
        let (head, _) = ResponseHead::parse(b"HTTP/1.1 200 OK\r\nx-codex-primary-used-percent: NaN\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(windows_of_headers(head.fields()), []);
    }

    #[test]
    fn limits_of_single_models_have_the_same_id_in_headers_and_in_the_usage_answer() {
        let head = "HTTP/1.1 200 OK\r\nx-codex-primary-used-percent: 1\r\n\
            X-Codex-Spark-Primary-Used-Percent: 99\r\nx-codex-spark-primary-window-minutes: 300\r\n\
            x-codex-secondary-primary-used-percent: 3\r\nx-codex-credits-balance: 5\r\n\
            x-other-secondary-reset-at: 5\r\nx-bad/id-primary-used-percent: 4\r\n\r\n";
        let (head, _) = ResponseHead::parse(head.replace("bad/id", "bad!id").as_bytes()).unwrap().unwrap();
        let limits = limits_of_headers(head.fields());
        let ids: Vec<Option<&str>> = limits.iter().map(|limit| limit.id.as_deref()).collect();
        assert_eq!(ids, [None, Some("codex_spark"), Some("codex_secondary")]);
        let usage = br#"{"plan_type":"pro","rate_limit":{"allowed":false,"limit_reached":true},
            "additional_rate_limits":[{"limit_name":"Spark","metered_feature":"codex_spark","rate_limit":
            {"primary_window":{"used_percent":99,"limit_window_seconds":18000}}},{"limit_name":"x"},7]}"#;
        let usage = UsageView::of_body(usage).unwrap();
        assert!(usage.is_reached());
        assert_eq!(usage.limits(), limits[1..2]);
    }

    proptest! {
        #[test]
        fn an_answer_of_any_bytes_is_read_without_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cut in 0_usize..400,
            used in any::<f64>(),
            seconds in any::<f64>(),
        ) {
            let whole = format!(
                r#"{{"plan_type":"p","rate_limit":{{"primary_window":{{"used_percent":{used},
                "limit_window_seconds":{seconds},"reset_at":{seconds}}}}},"additional_rate_limits":
                [{{"metered_feature":"a-B","rate_limit":{{"secondary_window":{{"used_percent":{used}}}}}}}]}}"#
            );
            let cut = &whole.as_bytes()[..cut.min(whole.len())];
            for body in [&bytes[..], cut, whole.as_bytes(), &[cut, &bytes].concat()] {
                let limits = UsageView::of_body(body).map(UsageView::limits).unwrap_or_default();
                prop_assert!(limits.len() <= MAX_LIMITS);
                for limit in limits {
                    prop_assert!(limit.windows.iter().all(|window| window.used_percent.is_finite()));
                    prop_assert!((1..=2).contains(&limit.windows.len()));
                }
            }
        }

        #[test]
        fn headers_of_any_names_and_values_are_read_without_harm(
            fields in prop::collection::vec(
                ("(x-)?[a-zA-Z_.-]{0,12}(-primary|-Secondary)?(-used-percent|-window-minutes|-reset-at)?",
                "[ -~]{0,12}|[0-9.]{1,9}"), 0..40),
        ) {
            let lines: String = fields.iter().filter(|(name, _)| !name.is_empty())
                .map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
            if let Ok(Some((head, _))) = ResponseHead::parse(head.as_bytes()) {
                for limit in limits_of_headers(head.fields()) {
                    prop_assert!(limit.windows.iter().all(|window| window.used_percent.is_finite()));
                }
            }
        }
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
