//! Whether an answer arrived while it was sent, by one clock and against the upstream's own next writes.

use mock_upstream::playback::held_beginning;

use super::{Case, Check, Findings};
use crate::replay::SeenEnd;

/// What is no delay whatever else was written meanwhile, in milliseconds.
pub(super) const FLOOR: f64 = 400.0;

pub(super) fn judge(case: &Case<'_>, findings: &mut Findings) {
    let (Some(ask), Some(answer)) = (case.ask(), &case.exchange.answer) else { return };
    if case.asks.len() != 1 || (answer.writes.len() < 2 && !answer.is_stream) {
        return;
    }
    let held = if case.expect.is_pooled() { held_beginning(answer) } else { 0 };
    let end = ask.ended.unwrap_or(f64::INFINITY);
    // Each point: when it was written, behind how many bytes, and when it arrived.
    let sent = ask.head_sent.map(|at| (at, 0, case.seen.head_at));
    let mut bytes = 0;
    let writes = ask.writes.iter().map(|(at, length)| {
        bytes += length;
        (*at, bytes, case.seen.arrival(bytes))
    });
    let points: Vec<_> = sent.into_iter().chain(writes).collect();
    for (at, (written, bytes, arrived)) in points.iter().enumerate() {
        let next = points.get(at + 2).map_or(end, |(written, ..)| *written);
        // What never arrived is a matter of the body.
        let Some(arrived) = *arrived else { continue };
        let lag = arrived - written;
        if *bytes < held || lag < FLOOR || arrived <= next || case.seen.end == SeenEnd::Left {
            continue;
        }
        let (check, what) = match bytes {
            0 => (Check::FirstByteDelay, "the head".to_owned()),
            bytes => (Check::ChunkDelay, format!("byte {bytes} of the body")),
        };
        let problem = format!("{what} arrived {lag:.0} ms behind its write, and behind the next two");
        findings.text(check, &problem, &format!("{written:.1} ms"), &format!("{arrived:.1} ms"));
        // The rest is late with it; but a late head says nothing of the pieces behind it.
        if *bytes > 0 {
            break;
        }
    }
}
