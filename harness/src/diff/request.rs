//! What reached the upstream against what the client sent: method, target, fields, body, and how often.

use mock_upstream::playback::{Ask, answers_after, path_and_query};
use wire::capture::Exchange;
use wire::header::{Action, Carries, lookup};

use super::headers::{self, Compare, REQUEST};
use super::{Case, Check, Expect, Findings, pool};
use crate::replay::is_short;

/// From how many bytes on a body has a check of its own.
pub(super) const BIG: usize = 8 << 20;

pub(super) fn judge(case: &Case<'_>, findings: &mut Findings) {
    let Some(first) = case.asks.first() else { return };
    let request = &case.exchange.request;
    if first.method != request.method {
        findings.text(Check::Method, "the method has changed", &request.method, &first.method);
    }
    let target = path_and_query(&request.url);
    findings.bytes(&[Check::PathAndQuery], "the target", target.as_bytes(), first.target.as_bytes());
    for ask in &case.asks {
        fields(case, ask, findings);
        body(case, ask, findings);
    }
    let most = if case.expect.is_pooled() { pool::most_asks(case.exchange, case.expect) } else { 1 };
    if case.asks.len() > most {
        let (expected, seen) = (most.to_string(), case.asks.len().to_string());
        findings.text(Check::SentOnce, &format!("it reached the upstream {seen} times"), &expected, &seen);
    }
}

/// Whether the client left within its request, so that there may have been nothing to forward.
pub(super) fn breaks_off(exchange: &Exchange) -> bool {
    exchange.client_gone.is_some() && is_short(exchange)
}

fn fields(case: &Case<'_>, ask: &Ask, findings: &mut Findings) {
    let is_pooled = case.expect.is_pooled();
    // A turn state is its issuer's; whether this account is that is judged with the pool.
    let may_miss = |name: &str| is_pooled && name == "x-codex-turn-state";
    let (expected, seen) = (&case.exchange.request.headers, &ask.headers);
    let is_http2 = case.seen.http2;
    headers::judge(&REQUEST, &Compare { expected, seen, is_pooled, is_http2, may_miss: &may_miss }, findings);
    let Expect::Pooled { accounts } = case.expect else { return };
    for (name, value) in expected {
        let entry = lookup(name);
        let is_credential = matches!(entry.carries, Carries::Secret | Carries::Identity);
        let is_accounts = accounts.iter().any(|account| account.owns(value));
        if entry.request == Action::Replace && is_credential && !is_accounts && !value.is_empty() {
            let goes_through =
                seen.iter().any(|(field, other)| field.eq_ignore_ascii_case(name) && other == value);
            if goes_through {
                let problem = format!("{name} went upstream as the client sent it");
                findings.text(Check::RequestHeadersReplaced, &problem, "the account's own", value);
            }
        }
    }
    let has_account = seen.iter().any(|(_, value)| accounts.iter().any(|account| account.owns(value)));
    if !has_account && !accounts.is_empty() && !pool::goes_without(expected) {
        let problem = "no account's credentials are on it";
        findings.text(Check::RequestHeadersReplaced, problem, "an account's credentials", "");
    }
}

fn body(case: &Case<'_>, ask: &Ask, findings: &mut Findings) {
    let (expected, seen) = (case.exchange.body(), &ask.body.0[..]);
    let may_be_cut = answers_after(case.exchange).is_some() || case.exchange.client_gone.is_some();
    if may_be_cut && expected.starts_with(seen) {
        return;
    }
    let mut checks = vec![if expected.len() >= BIG { Check::BigBody } else { Check::RequestBody }];
    let is_encoded =
        case.exchange.request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
    if is_encoded {
        checks.push(Check::ContentEncoding);
    }
    findings.bytes(&checks, "the request's body", expected, seen);
}
