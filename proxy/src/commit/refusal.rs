//! Whether an error is the account's own, so that another account may be asked.
//!
//! Told by payload, as the backend states it (`wire::limits`). An error without evidence about the
//! account, a plain 429 among them, is nobody's refusal and passes to the client untouched.

use wire::http1::ResponseHead;
use wire::limits::{ErrorCode, ErrorView, Window, windows_of_error, windows_of_headers};
use wire::responses::{EventKind, EventView};

/// The refusal of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Its quota is used up, or its plan does not have what is asked.
    Quota {
        /// The backend's word for it.
        code: String,
        /// When it is lifted, in seconds since the epoch.
        resets_at: Option<i64>,
    },
    /// Its token is not good. The client must not see this: it would spend its own refresh token.
    Auth,
    /// It is closed, suspended or unpaid.
    Account {
        /// The backend's word for it.
        code: String,
    },
    /// The model has no capacity; another account may be served elsewhere. Says nothing about this one.
    Overload,
    /// The response that is continued is not its own, or gone. Says nothing about the account.
    NotFound,
    /// It cannot read an encrypted item. Never a matter of quota: the item is another account's.
    Unreadable,
}

impl Refusal {
    /// What kind it is, in a word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Quota { .. } => "quota",
            Self::Auth => "auth",
            Self::Account { .. } => "account",
            Self::Overload => "overload",
            Self::NotFound => "not_found",
            Self::Unreadable => "unreadable",
        }
    }

    /// What the refusal is worth to the client, the best first: one that may be over at once, which its
    /// client tries again; then one that says when to come back, the earliest of them; then one that says
    /// that the account is used up; then the others.
    #[must_use]
    pub fn worth(&self) -> (u8, i64) {
        match self {
            Self::Overload => (0, 0),
            Self::Quota { resets_at: Some(at), .. } => (1, *at),
            Self::Quota { resets_at: None, .. } => (2, 0),
            Self::Account { .. } => (3, 0),
            Self::NotFound | Self::Unreadable => (4, 0),
            Self::Auth => (5, 0),
        }
    }
}

/// Whether a response with this status can be the refusal of an account at all.
#[must_use]
pub fn may_be_refusal(status: u16) -> bool {
    matches!(status, 400 | 401 | 402 | 403 | 429 | 503)
}

/// The refusal that a response states.
#[must_use]
pub fn refusal_of_response(head: &ResponseHead, body: &[u8], now: i64) -> Option<Refusal> {
    let status = head.status();
    let error = ErrorView::of_body(body);
    if status == 401 {
        return Some(Refusal::Auth);
    }
    let stated = error.and_then(|error| refusal_of_error(status, error, now));
    if status == 400 {
        // A mistake of the request, whatever else it says: nobody's account is to blame.
        return stated.filter(|refusal| matches!(refusal, Refusal::NotFound | Refusal::Unreadable));
    }
    stated.or_else(|| match status {
        402 => Some(Refusal::Account { code: code_of(error, "payment_required") }),
        429 => refusal_of_windows(error, &windows_of_headers(head.fields()), now),
        _ => None,
    })
}

/// The limit of requests per minute is the account's own if its windows are full. Until the last of those starts
/// anew.
fn refusal_of_windows(error: Option<ErrorView<'_>>, windows: &[Window], now: i64) -> Option<Refusal> {
    let full = || windows.iter().filter(|window| window.used_percent >= 100.0);
    full().next()?;
    let resets_at = full().filter_map(|window| window.resets_at).filter(|at| *at > now).max();
    Some(Refusal::Quota { code: code_of(error, "rate_limit_exceeded"), resets_at })
}

/// The refusal that an event states: a failed response, or an error message on a WebSocket.
#[must_use]
pub fn refusal_of_event(event: EventView<'_>, now: i64) -> Option<Refusal> {
    if !matches!(event.kind, EventKind::Failed | EventKind::Error) {
        return None;
    }
    let status = event.status().unwrap_or_default();
    if status == 401 {
        return Some(Refusal::Auth);
    }
    let error = event.error().map(ErrorView::of_object);
    let stated = error.and_then(|error| refusal_of_error(status, error, now));
    stated.or_else(|| match status {
        402 => Some(Refusal::Account { code: code_of(error, "payment_required") }),
        429 => refusal_of_windows(error, &windows_of_error(event.value()), now),
        _ => None,
    })
}

fn refusal_of_error(status: u16, error: ErrorView<'_>, now: i64) -> Option<Refusal> {
    match error.code() {
        ErrorCode::UsageLimitReached
        | ErrorCode::UsageNotIncluded
        | ErrorCode::InsufficientQuota
        | ErrorCode::CreditBalanceExhausted => {
            Some(Refusal::Quota { code: code_of(Some(error), "quota"), resets_at: error.resets_at(now) })
        }
        ErrorCode::AccountDeactivated | ErrorCode::DeactivatedWorkspace => {
            Some(Refusal::Account { code: code_of(Some(error), "account") })
        }
        ErrorCode::TokenInvalid => Some(Refusal::Auth),
        ErrorCode::ServerIsOverloaded => Some(Refusal::Overload),
        ErrorCode::SlowDown if status == 503 => Some(Refusal::Overload),
        ErrorCode::PreviousResponseNotFound => Some(Refusal::NotFound),
        ErrorCode::InvalidEncryptedContent => Some(Refusal::Unreadable),
        _ => None,
    }
}

fn code_of(error: Option<ErrorView<'_>>, otherwise: &str) -> String {
    let name = error.and_then(ErrorView::name);
    name.map_or_else(|| otherwise.to_owned(), |name| name.chars().take(60).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, fields: &str, body: &str) -> Option<Refusal> {
        let head = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
        let (head, _) = ResponseHead::parse(head.as_bytes()).unwrap().unwrap();
        refusal_of_response(&head, body.as_bytes(), 1000)
    }

    fn event(text: &str) -> Option<Refusal> {
        refusal_of_event(EventView::new(text.as_bytes()), 1000)
    }

    fn quota(code: &str, resets_at: Option<i64>) -> Option<Refusal> {
        Some(Refusal::Quota { code: code.to_owned(), resets_at })
    }

    fn account(code: &str) -> Option<Refusal> {
        Some(Refusal::Account { code: code.to_owned() })
    }

    #[test]
    fn refusals_of_accounts_are_known_by_their_payload() {
        let limit = r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":60}}"#;
        assert_eq!(response(429, "", limit), quota("usage_limit_reached", Some(1060)));
        let credit = r#"{"error":{"code":"insufficient_quota"}}"#;
        assert_eq!(response(429, "", credit), quota("insufficient_quota", None));
        let full = "x-codex-primary-used-percent: 100\r\nx-codex-primary-reset-at: 1500\r\n";
        let rate = r#"{"error":{"code":"rate_limit_exceeded"}}"#;
        assert_eq!(response(429, full, rate), quota("rate_limit_exceeded", Some(1500)));
        assert_eq!(response(401, "", "<html>"), Some(Refusal::Auth));
        assert_eq!(
            response(402, "", r#"{"detail":{"code":"deactivated_workspace"}}"#),
            account("deactivated_workspace")
        );
        assert_eq!(response(402, "", ""), account("payment_required"));
        assert_eq!(
            response(403, "", r#"{"error":{"code":"account_deactivated"}}"#),
            account("account_deactivated")
        );
        assert_eq!(response(403, "", r#"{"error":{"code":"token_revoked"}}"#), Some(Refusal::Auth));
        assert_eq!(
            response(503, "", r#"{"error":{"code":"server_is_overloaded"}}"#),
            Some(Refusal::Overload)
        );
    }

    #[test]
    fn errors_without_evidence_are_nobodys_refusal() {
        for (status, body) in [
            (429, r#"{"error":{"code":"rate_limit_exceeded","message":"slow"}}"#),
            (429, "Too Many Requests"),
            (403, "<html>challenge</html>"),
            (403, r#"{"error":{"message":"no"}}"#),
            (503, r#"{"detail":"unavailable"}"#),
            (400, r#"{"error":{"code":"context_length_exceeded"}}"#),
        ] {
            assert_eq!(response(status, "", body), None, "{status} {body}");
        }
    }

    #[test]
    fn what_an_account_does_not_have_is_no_matter_of_quota() {
        for (code, refusal) in [
            ("previous_response_not_found", Refusal::NotFound),
            ("invalid_encrypted_content", Refusal::Unreadable),
        ] {
            let error = format!(r#"{{"code":"{code}"}}"#);
            let body = format!(r#"{{"error":{error}}}"#);
            assert_eq!(response(400, "", &body).as_ref(), Some(&refusal));
            let message = format!(r#"{{"type":"error","status":400,"error":{error}}}"#);
            assert_eq!(event(&message).as_ref(), Some(&refusal));
            let failed = format!(r#"{{"type":"response.failed","response":{{"error":{error}}}}}"#);
            assert_eq!(event(&failed), Some(refusal));
        }
        assert_eq!(response(400, "", r#"{"error":{"code":"usage_limit_reached"}}"#), None);
    }

    #[test]
    fn events_state_refusals_too() {
        assert_eq!(
            event(r#"{"type":"error","status":429,"error":{"type":"usage_limit_reached","resets_at":2000}}"#),
            quota("usage_limit_reached", Some(2000))
        );
        assert_eq!(
            event(r#"{"type":"response.failed","response":{"error":{"code":"insufficient_quota"}}}"#),
            quota("insufficient_quota", None)
        );
        assert_eq!(event(r#"{"type":"error","status":401,"error":{}}"#), Some(Refusal::Auth));
        let rate = |headers: &str| {
            let error = r#"{"code":"rate_limit_exceeded"}"#;
            event(&format!(r#"{{"type":"error","status":429,"error":{error},"headers":{{{headers}}}}}"#))
        };
        let full = r#""X-Codex-Primary-Used-Percent":"100","x-codex-primary-reset-at":1500"#;
        assert_eq!(rate(full), quota("rate_limit_exceeded", Some(1500)));
        let secondary = r#""x-codex-primary-used-percent":7,"x-codex-secondary-used-percent":100.0"#;
        assert_eq!(rate(secondary), quota("rate_limit_exceeded", None));
        for others in ["", r#""x-codex-primary-used-percent":"99""#, r#""x-other-primary-used-percent":100"#]
        {
            assert_eq!(rate(others), None, "{others}");
        }
        for text in [
            r#"{"type":"response.failed","response":{"error":{"code":"context_length_exceeded"}}}"#,
            r#"{"type":"response.failed","response":{"error":null}}"#,
            r#"{"type":"response.completed","response":{"error":{"code":"insufficient_quota"}}}"#,
        ] {
            assert_eq!(event(text), None, "{text}");
        }
    }
}
