//! What reached the client against what the upstream answered: status, fields, body, events.

use wire::capture::{Answer, StreamEnd};
use wire::sse;

use super::headers::{self, Compare, RESPONSE};
use super::request::BIG;
use super::{Case, Check, Findings, pool};
use crate::replay::SeenEnd;

pub(super) fn judge(case: &Case<'_>, findings: &mut Findings) {
    let Some(answer) = &case.exchange.answer else { return };
    let Some(status) = case.seen.status else {
        if case.seen.end != SeenEnd::Left && !may_lack_head(case, answer) && !is_half_closed(case, findings) {
            let seen = format!("no response: {:?} {:?}", case.seen.end, case.seen.problem);
            findings.text(Check::Status, "there was no response", &answer.status.to_string(), &seen);
            slow(case, findings);
        }
        return;
    };
    if status != answer.status {
        if is_half_closed(case, findings) || pool::may_answer(case, status) {
            return;
        }
        let problem = format!("the upstream answered {}, the client got {status}", answer.status);
        findings.text(Check::Status, &problem, &answer.status.to_string(), &status.to_string());
        if answer.status >= 400 && case.seen.body.0 != answer.body {
            findings.bytes(&[Check::ErrorBody], "the error's body", &answer.body, &case.seen.body.0);
        }
        slow(case, findings);
    } else {
        body(case, answer, findings);
    }
    fields(case, answer, findings);
}

/// A reset may overtake what it cuts, head and all; over HTTP/2 every cut is a reset of its stream.
fn may_lack_head(case: &Case<'_>, answer: &Answer) -> bool {
    answer.end == StreamEnd::Reset || (case.seen.http2 && answer.end == StreamEnd::Fin)
}

/// Told as what it is, and nothing more of the exchange is judged.
pub(super) fn is_half_closed(case: &Case<'_>, findings: &mut Findings) -> bool {
    let is = mock_upstream::playback::half_closes(case.exchange);
    if is {
        let seen = format!("{:?} {:?}", case.seen.status, case.seen.end);
        let problem = "a client that has ended its sending side was taken to have left";
        findings.lawful(Check::HalfClose, problem, "the answer", &seen);
    }
    is
}

/// An answer that took long to begin and did not come.
fn slow(case: &Case<'_>, findings: &mut Findings) {
    if case.exchange.request.rest.contains_key(mock_upstream::playback::MAX_GAP) {
        let seen = format!("{:?} {:?}", case.seen.status, case.seen.end);
        findings.text(Check::SlowFirstByte, "a slow answer was not waited for", "the answer", &seen);
    }
}

pub(super) fn fields(case: &Case<'_>, answer: &Answer, findings: &mut Findings) {
    let (expected, seen) = (&answer.headers, &case.seen.headers);
    let (is_pooled, is_http2) = (case.expect.is_pooled(), case.seen.http2);
    let compare = Compare { expected, seen, is_pooled, is_http2, may_miss: &|_| false };
    headers::judge(&RESPONSE, &compare, findings);
}

fn body(case: &Case<'_>, answer: &Answer, findings: &mut Findings) {
    let has_none = case.exchange.request.method == "HEAD" || matches!(answer.status, 204 | 304);
    let expected = if has_none { &[][..] } else { &answer.body[..] };
    let seen = &case.seen.body.0[..];
    // Of an answer that is left nobody knows how much would have come; a reset loses what is under way.
    let may_be_cut = case.seen.end == SeenEnd::Left || may_lack_head(case, answer);
    if (may_be_cut && expected.starts_with(seen)) || expected == seen {
        return;
    }
    let mut checks = vec![match () {
        () if expected.len() >= BIG => Check::BigBody,
        () if answer.status >= 400 => Check::ErrorBody,
        () => Check::ResponseBody,
    }];
    if answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-encoding")) {
        checks.push(Check::ContentEncoding);
    }
    if answer.is_stream && events(expected) != events(seen) {
        checks.push(Check::EventOrder);
    }
    findings.bytes(&checks, "the body", expected, seen);
}

/// The events of a stream: names and data.
fn events(stream: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut events = Vec::new();
    let mut decoder = sse::Decoder::new(stream.len() + 1);
    // The limit is longer than the stream.
    let _ = decoder.feed(stream, |event| events.push((event.name.to_vec(), event.data.to_vec())));
    events
}
