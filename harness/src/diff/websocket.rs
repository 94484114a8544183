//! A WebSocket on both sides: the handshake, the messages of each direction, and the end.

use mock_upstream::playback::{Heard, held_messages};
use wire::capture::{Answer, Direction, Message, MessageKind};

use super::{Case, Check, Excerpt, Findings, Severity, differ, pool, response};
use crate::replay::SeenEnd;

pub(super) fn judge(case: &Case<'_>, findings: &mut Findings) {
    let Some(answer) = &case.exchange.answer else { return };
    if answer.status != 101 {
        return refused(case, answer, findings);
    }
    if case.seen.status != Some(101) {
        let seen = format!("{:?} {:?}", case.seen.status, case.seen.end);
        findings.text(Check::WsHandshake, "the upgrade did not come about", "101", &seen);
        return;
    }
    let field = |name: &str| {
        let mut fields = case.seen.headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        fields.next().map(|(_, value)| value.clone())
    };
    if let Some(extension) = field("sec-websocket-extensions") {
        let problem = "an extension was agreed to that the upstream does not know of";
        findings.text(Check::WsExtensions, problem, "none", &extension);
    }
    response::fields(case, answer, findings);
    if case.seen.end == SeenEnd::Garbled && case.seen.messages.is_empty() {
        let seen = case.seen.problem.as_deref().unwrap_or_default();
        findings.text(Check::WsHandshake, "what came is no WebSocket", "a WebSocket", seen);
    }
    if pool::is_refused_in_messages(case) {
        return;
    }
    let heard: Vec<&Heard> = case.asks.iter().flat_map(|ask| &ask.messages).collect();
    for (direction, heard) in [
        (Direction::ClientToUpstream, heard),
        (Direction::UpstreamToClient, case.seen.messages.iter().collect()),
    ] {
        let mut sent: Vec<&Message> =
            case.exchange.messages.iter().filter(|message| message.direction == direction).collect();
        let heard: Vec<&Heard> = heard.into_iter().filter(|message| message.direction == direction).collect();
        if direction == Direction::UpstreamToClient && case.expect.is_pooled() {
            let arrived = heard.iter().filter(|message| is_data(message.kind)).count();
            forgive_held(&mut sent, arrived, &case.exchange.messages);
        }
        messages(&sent, &heard, direction, findings);
        frames(&sent, &heard, findings);
    }
    close(case, findings);
    delays(case, findings);
}

/// Leaves out what a pool may still have held when the client left: the messages of a last turn that had no
/// output, where they did not arrive and the upstream said nothing behind them. Pings and pongs pass by what is
/// held.
fn forgive_held(sent: &mut Vec<&Message>, arrived: usize, all: &[Message]) {
    let messages = sent.iter().filter(|message| is_data(message.kind)).count();
    let held = held_messages(all);
    let numbers = (1..=messages as u64).rev();
    let last_turn = held.iter().rev().zip(numbers).take_while(|(held, number)| **held == *number).count();
    let says_no_more =
        sent.iter().rfind(|message| !is_control(message.kind)).is_some_and(|last| is_data(last.kind));
    if messages.saturating_sub(arrived) <= last_turn && says_no_more {
        let mut number = 0;
        sent.retain(|message| {
            number += usize::from(is_data(message.kind));
            !is_data(message.kind) || number <= arrived
        });
    }
}

/// A refusal is a response like any other, under a name of its own.
fn refused(case: &Case<'_>, answer: &Answer, findings: &mut Findings) {
    let seen = case.seen.status;
    if case.expect.is_pooled() && seen.is_some_and(|status| status >= 400) {
        // A pool asks others first, and then says itself that there is no WebSocket to be had.
        let problem = format!("the upstream refused with {}, the pool with {seen:?}", answer.status);
        if seen != Some(answer.status) || case.seen.body.0 != answer.body {
            let said = String::from_utf8_lossy(&case.seen.body.0);
            findings.lawful(Check::WsRefusedUpgrade, &problem, &answer.status.to_string(), &said);
        }
        return;
    }
    if seen != Some(answer.status) {
        let problem = format!("the upstream refused with {}", answer.status);
        let said = format!("{seen:?} {:?}", case.seen.end);
        findings.text(Check::WsRefusedUpgrade, &problem, &answer.status.to_string(), &said);
        return;
    }
    findings.bytes(&[Check::WsRefusedUpgrade], "the refusal's body", &answer.body, &case.seen.body.0);
    response::fields(case, answer, findings);
}

fn is_data(kind: MessageKind) -> bool {
    matches!(kind, MessageKind::Text | MessageKind::Binary)
}

fn is_control(kind: MessageKind) -> bool {
    matches!(kind, MessageKind::Ping | MessageKind::Pong)
}

/// Data and control messages are two sequences: a control frame may overtake a message (RFC 6455 §5.4).
fn messages(sent: &[&Message], heard: &[&Heard], direction: Direction, findings: &mut Findings) {
    let who = match direction {
        Direction::ClientToUpstream => "the client's",
        Direction::UpstreamToClient => "the upstream's",
    };
    for (what, are_data) in [("message", true), ("ping or pong", false)] {
        let is_kind = |kind| if are_data { is_data(kind) } else { is_control(kind) };
        let sent: Vec<_> = sent.iter().filter(|message| is_kind(message.kind)).collect();
        let heard: Vec<_> = heard.iter().filter(|message| is_kind(message.kind)).collect();
        let count = sent.len().max(heard.len());
        let difference = (0..count).find_map(|at| {
            let (problem, left, right) = difference(sent.get(at).copied(), heard.get(at).copied())?;
            Some((format!("{who} {what} {} {problem}", at + 1), left, right))
        });
        if let Some((problem, left, right)) = difference {
            findings.add(Check::WsMessages, Severity::Broken, &problem, left, right);
        }
    }
}

/// What differs between a message and what was heard in its place.
fn difference(sent: Option<&&Message>, heard: Option<&&Heard>) -> Option<(String, Excerpt, Excerpt)> {
    let (payload, nothing) =
        (|bytes: &[u8]| Excerpt::whole(&String::from_utf8_lossy(bytes)), Excerpt::default);
    match (sent, heard) {
        (Some(sent), Some(heard)) => {
            if let Some((at, left, right)) = differ(&sent.payload, &heard.payload.0) {
                return Some((format!("differs from byte {at} on"), left, right));
            }
            let [left, right] = [sent.kind, heard.kind].map(|kind| Excerpt::whole(&format!("{kind:?}")));
            (sent.kind != heard.kind).then(|| ("has another type".to_owned(), left, right))
        }
        (Some(sent), None) => {
            let problem = format!("of {} bytes did not arrive", sent.payload.len());
            Some((problem, payload(&sent.payload), nothing()))
        }
        (None, Some(heard)) => Some(("was never sent".to_owned(), nothing(), payload(&heard.payload.0))),
        (None, None) => None,
    }
}

fn frames(sent: &[&Message], heard: &[&Heard], findings: &mut Findings) {
    let data = sent.iter().filter(|message| is_data(message.kind));
    let heard = heard.iter().filter(|message| is_data(message.kind));
    let changed =
        data.zip(heard).find(|(sent, heard)| sent.frames != heard.frames && sent.payload == heard.payload.0);
    if let Some((sent, heard)) = changed {
        let (left, right) = (format!("{:?}", sent.frames), format!("{:?}", heard.frames));
        findings.lawful(Check::WsFrames, "a message has other frames", &left, &right);
    }
}

/// The first end that was recorded must be heard on the other side.
fn close(case: &Case<'_>, findings: &mut Findings) {
    let is_close = |message: &&Message| matches!(message.kind, MessageKind::Close(_));
    let Some(sent) = case.exchange.messages.iter().find(is_close) else { return };
    let mut heard: Box<dyn Iterator<Item = &Heard>> = match sent.direction {
        Direction::ClientToUpstream => Box::new(case.asks.iter().rev().flat_map(|ask| &ask.messages)),
        Direction::UpstreamToClient => Box::new(case.seen.messages.iter()),
    };
    let heard =
        heard.find(|heard| heard.direction == sent.direction && matches!(heard.kind, MessageKind::Close(_)));
    let said = |kind: MessageKind, reason: &[u8]| match kind {
        MessageKind::Close(1006) => "the connection ends without a close frame".to_owned(),
        MessageKind::Close(code) => format!("{code} {}", String::from_utf8_lossy(reason)),
        _ => String::new(),
    };
    let expected = said(sent.kind, &sent.payload);
    let seen = heard.map_or("nothing".to_owned(), |heard| said(heard.kind, &heard.payload.0));
    if expected != seen {
        findings.text(Check::WsCloseCode, "the WebSocket ended in another way", &expected, &seen);
    }
}

/// Messages of the upstream that were held back, by the rule for pieces of a stream.
fn delays(case: &Case<'_>, findings: &mut Findings) {
    let [ask] = &case.asks[..] else { return };
    let times = |messages: &[Heard]| -> Vec<f64> {
        let own =
            |message: &&Heard| message.direction == Direction::UpstreamToClient && is_data(message.kind);
        messages.iter().filter(own).map(|message| message.at).collect()
    };
    let (sent, arrived) = (times(&ask.messages), times(&case.seen.messages));
    let held = if case.expect.is_pooled() { held_messages(&case.exchange.messages) } else { Vec::new() };
    for (at, (sent_at, arrived)) in sent.iter().zip(&arrived).enumerate() {
        let Some(next) = sent.get(at + 2).copied().or(ask.ended) else { continue };
        if held.contains(&(at as u64 + 1)) {
            continue;
        }
        let lag = arrived - sent_at;
        if lag >= super::timing::FLOOR && *arrived > next {
            let problem =
                format!("message {} arrived {lag:.0} ms behind its sending, and behind the next two", at + 1);
            let (left, right) = (format!("{sent_at:.1} ms"), format!("{arrived:.1} ms"));
            findings.text(Check::ChunkDelay, &problem, &left, &right);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(direction: Direction, kind: MessageKind, text: &str) -> Message {
        Message { at: 0.0, direction, kind, payload: text.into(), frames: Vec::new() }
    }

    /// How many of the upstream's messages are asked for when this many arrived.
    fn asked_for(events: &[&str], arrived: usize) -> usize {
        let mut all = vec![message(Direction::ClientToUpstream, MessageKind::Text, "create")];
        let kind = |event: &str| match event {
            "close" => MessageKind::Close(1011),
            "ping" => MessageKind::Ping,
            _ => MessageKind::Text,
        };
        all.extend(events.iter().map(|event| message(Direction::UpstreamToClient, kind(event), event)));
        let mut sent: Vec<&Message> =
            all.iter().filter(|message| message.direction == Direction::UpstreamToClient).collect();
        forgive_held(&mut sent, arrived, &all);
        sent.len()
    }

    #[test]
    fn only_the_beginning_of_a_last_turn_may_be_missing() {
        assert_eq!(asked_for(&["response.created", "response.in_progress"], 0), 0);
        assert_eq!(asked_for(&["response.created", "response.in_progress"], 1), 1);
        assert_eq!(asked_for(&["response.created", "response.output_text.delta"], 1), 2);
        assert_eq!(asked_for(&["response.created", "response.output_text.delta"], 0), 2);
        assert_eq!(asked_for(&["response.created", "close"], 0), 2);
        assert_eq!(asked_for(&["response.created", "ping"], 0), 1, "the ping passes by what is held");
        assert_eq!(
            asked_for(&["response.created"], 3),
            1,
            "more than was sent is for the comparison to find"
        );
    }
}
