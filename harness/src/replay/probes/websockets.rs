//! WebSockets: every kind of message, frames, sizes, ends, subprotocols and refusals.

use wire::capture::Direction::{ClientToUpstream as Client, UpstreamToClient as Upstream};
use wire::capture::{Answer, Message, MessageKind, StreamEnd};

use super::{Made as _, Maker, fields, message, whole};
use MessageKind::{Binary, Close, Ping, Pong, Text};

const ASK: &str = r#"{"type":"response.create","model":"gpt-5.5","input":[]}"#;
const CREATED: &str = r#"{"type":"response.created","response":{"id":"resp_ws"}}"#;
const DELTA: &str = r#"{"type":"response.output_text.delta","delta":"é\u00e9"}"#;
const COMPLETED: &str = r#"{"type":"response.completed","response":{"id":"resp_ws"}}"#;

pub(super) fn add(maker: &mut Maker<'_>) {
    let turn = turn();
    one(maker, "ws-turn", turn.clone());
    let again = turn.iter().cloned().map(|message| Message { at: message.at + 20.0, ..message });
    one(maker, "ws-two-turns", turn.iter().cloned().chain(again).collect());
    kinds(maker);
    frames(maker);
    for code in [1000, 1008, 1011, 1012, 4000] {
        for (from, name) in [(Client, "client"), (Upstream, "upstream")] {
            let end = message(30.0, from, Close(code), format!("because of {code}"));
            one(maker, &format!("ws-close-{code}-by-{name}"), [turn.clone(), vec![end]].concat());
        }
    }
    let dropped = message(30.0, Upstream, Close(1006), "");
    one(maker, "ws-dropped", [turn.clone(), vec![dropped]].concat());
    let mut protocol =
        shaken(maker, "ws-subprotocol", turn.clone()).field("sec-websocket-protocol", "one, two");
    if let Some(answer) = &mut protocol.answer {
        answer.headers.push(("sec-websocket-protocol".into(), "two".into()));
    }
    maker.one("ws-subprotocol", protocol);
    for status in [401, 403, 426, 429] {
        let name = format!("ws-refused-{status}");
        let headers = [("content-type", "application/json"), ("retry-after", "17")];
        let refusal = whole(status, &headers, format!(r#"{{"error":{{"code":"{status}"}}}}"#));
        let exchange = maker.upgrade(&name).answered(refusal);
        maker.one(&name, exchange);
    }
}

fn shaken(maker: &Maker<'_>, name: &str, messages: Vec<Message>) -> wire::capture::Exchange {
    let headers = fields(&[
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", "recorded"),
        ("x-codex-turn-state", name),
    ]);
    let (body, writes, end) = (Vec::new(), Vec::new(), StreamEnd::Eof);
    let answer = Answer { at: 1.0, status: 101, headers, body, writes, end, is_stream: false };
    maker.upgrade(name).answered(answer).says(messages)
}

fn one(maker: &mut Maker<'_>, name: &str, messages: Vec<Message>) {
    let exchange = shaken(maker, name, messages);
    maker.one(name, exchange);
}

fn turn() -> Vec<Message> {
    vec![
        message(2.0, Client, Text, ASK),
        message(4.0, Upstream, Text, CREATED),
        message(6.0, Upstream, Text, DELTA),
        message(8.0, Upstream, Text, DELTA.replace("é", "two")),
        message(10.0, Upstream, Text, COMPLETED),
    ]
}

fn kinds(maker: &mut Maker<'_>) {
    let mut pings = turn();
    pings.insert(3, message(7.0, Upstream, Ping, "are you there"));
    pings.insert(4, message(7.5, Client, Pong, "are you there"));
    one(maker, "ws-ping", pings);
    let mut own = turn();
    own.insert(1, message(2.5, Client, Ping, "c"));
    own.insert(2, message(3.0, Upstream, Pong, "c"));
    one(maker, "ws-ping-by-client", own);
    if maker.settings.odd {
        let binary: Vec<u8> = (0..=255).collect();
        let messages = vec![
            message(2.0, Client, Binary, binary.clone()),
            message(4.0, Upstream, Binary, binary),
            message(6.0, Upstream, Text, ""),
        ];
        one(maker, "ws-binary", messages);
    }
}

fn frames(maker: &mut Maker<'_>) {
    let mut fragmented = turn();
    fragmented[0].frames = vec![10, 0, fragmented[0].payload.len() as u64 - 10];
    fragmented[2].frames = vec![1, fragmented[2].payload.len() as u64 - 1];
    one(maker, "ws-fragments", fragmented);
    let long =
        |kind: &str| format!(r#"{{"type":"{kind}","filler":"{}"}}"#, "0123456789abcdef".repeat(1 << 16));
    let messages = vec![
        message(2.0, Client, Text, long("response.create")),
        message(4.0, Upstream, Text, CREATED),
        message(6.0, Upstream, Text, long("response.output_text.delta")),
        message(8.0, Upstream, Text, COMPLETED),
    ];
    one(maker, "ws-long", messages);
}
