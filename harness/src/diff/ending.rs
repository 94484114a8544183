//! How exchanges end: cuts seen as cuts, ends as ends, and a client that leaves noticed by the upstream.

use wire::capture::StreamEnd;

use super::{Case, Check, Findings};
use crate::replay::SeenEnd;

/// Longest time from a client's leaving to the upstream's noticing, in milliseconds.
const NOTICED: f64 = 2000.0;

pub(super) fn judge(case: &Case<'_>, findings: &mut Findings) {
    if case.seen.end == SeenEnd::Left {
        return cancellation(case, findings);
    }
    let Some(answer) = &case.exchange.answer else { return unanswered(case, findings) };
    if case.exchange.is_upgrade() && answer.status == 101 {
        return;
    }
    let seen = case.seen.end;
    let said = format!("{seen:?} {}", case.seen.problem.as_deref().unwrap_or_default());
    match answer.end {
        StreamEnd::Eof if case.seen.status == Some(answer.status) && seen != SeenEnd::Clean => {
            findings.text(Check::CleanEnd, "the answer did not end well", "a clean end", &said);
        }
        StreamEnd::Fin | StreamEnd::Reset => {
            let is_seen = matches!(seen, SeenEnd::Cut | SeenEnd::Reset | SeenEnd::Garbled);
            let is_error = case.seen.status.is_some_and(|status| status != answer.status && status >= 500);
            let ends_by_close = answer.end == StreamEnd::Fin && ends_by_close(case);
            if !is_seen && !is_error && !ends_by_close {
                findings.text(Check::CutSeenAsCut, "the answer broke off unseen", "a cut", &said);
            }
        }
        StreamEnd::Eof | StreamEnd::Hang | StreamEnd::ClientGone => {}
    }
}

/// An upstream that broke off before its answer: no answer of it can have come, only one that says so.
fn unanswered(case: &Case<'_>, findings: &mut Findings) {
    let broke = matches!(case.exchange.unanswered, Some(StreamEnd::Fin | StreamEnd::Reset));
    if broke && let Some(status) = case.seen.status.filter(|status| *status < 400) {
        let problem = "the upstream broke off before its answer, and the client got one";
        findings.text(Check::CutSeenAsCut, problem, "a cut or an error", &status.to_string());
    }
}

/// Whether the close is the only end that the answer has: then it is not to be told from a cut.
fn ends_by_close(case: &Case<'_>) -> bool {
    let headers = case.exchange.answer.iter().flat_map(|answer| &answer.headers);
    let names = ["content-length", "transfer-encoding"];
    let mut framing = headers.filter(|(name, _)| names.iter().any(|field| name.eq_ignore_ascii_case(field)));
    framing.next().is_none()
}

fn cancellation(case: &Case<'_>, findings: &mut Findings) {
    for ask in &case.asks {
        let left = case.seen.ended;
        // What had been sent in full needs no cancelling.
        if ask.gone.is_none() && ask.ended.is_some_and(|ended| ended <= left) {
            continue;
        }
        let after = ask.gone.map(|gone| gone - left);
        if after.is_none_or(|after| after > NOTICED) {
            let seen = after.map_or("not noticed".to_owned(), |after| format!("noticed after {after:.0} ms"));
            let problem = "the client left and its request went on";
            findings.text(Check::Cancellation, problem, "noticed within 2000 ms", &seen);
        }
    }
}
