//! Streams of events: odd but legal ones, in odd pieces, and those that break off.

use mock_upstream::playback::{CUT_IN_CHUNK, LEAVES_WITH_RESET};
use wire::capture::{Answer, StreamEnd};

use super::{Made as _, Maker, fields, stream, whole};

/// Everything that the standard lets a stream have, and that somebody's parser does not.
const ODD: &[&[u8]] = &[
    b": a comment\n\n",
    b"event: response.created\ndata: {\"type\":\"response.created\"}\n\n",
    b"id: 7\r\ndata: with CR LF\r\n\r\n",
    b"data: line one\ndata: line two\ndata:\n\n",
    b"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"\xc3",
    b"\xa9\\u00e9\"}\n\n",
    b"retry: 3000\ndata:no space\nunknown: field\n\n",
    b"data: {\"type\":\"response.completed\"}\n\n",
    b"data: without an empty line behind it",
];

pub(super) fn add(maker: &mut Maker<'_>) {
    let odd = maker.post("odd-stream", "{\"stream\":true}").answered(stream(ODD));
    maker.one("odd-stream", odd);
    let all = ODD.concat();
    let bytes: Vec<&[u8]> = all.chunks(1).collect();
    let mut dribble = stream(&bytes);
    // Without pauses: each byte waits for the client to have the one before.
    dribble.writes.iter_mut().for_each(|(at, _)| *at = 1.0);
    let dribbled = maker.post("dribbled-stream", "{\"stream\":true}").answered(dribble);
    maker.one("dribbled-stream", dribbled);
    plain(maker);
    cuts(maker);
    let mut hang = stream(&ODD[..5]);
    hang.end = StreamEnd::ClientGone;
    for (name, resets) in [("left-in-stream", false), ("left-in-stream-by-reset", true)] {
        let exchange = maker.post(name, "{\"stream\":true}").answered(hang.clone()).leaves(100.0);
        maker.one(name, exchange.with(LEAVES_WITH_RESET, resets));
    }
}

/// A stream as Codex's backend sends it.
fn plain(maker: &mut Maker<'_>) {
    let event = |kind: &str, rest: &str| {
        format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n").into_bytes()
    };
    let mut events = vec![event("response.created", ",\"response\":{\"id\":\"resp_plain\"}")];
    for number in 0..12 {
        events.push(event("response.output_text.delta", &format!(",\"delta\":\"word {number} \"")));
    }
    events.push(event(
        "response.completed",
        ",\"response\":{\"id\":\"resp_plain\",\"usage\":{\"total_tokens\":3}}",
    ));
    let pieces: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
    let exchange = maker.post("stream", "{\"stream\":true}").answered(stream(&pieces));
    maker.one("stream", exchange);
}

fn cuts(maker: &mut Maker<'_>) {
    let begun = &ODD[..5];
    for (name, end, in_chunk) in [
        ("cut-between-chunks", StreamEnd::Fin, false),
        ("cut-in-chunk", StreamEnd::Fin, true),
        ("reset-in-chunk", StreamEnd::Reset, true),
    ] {
        let answer = Answer { end, ..stream(begun) };
        let exchange = maker.post(name, "{\"stream\":true}").answered(answer);
        maker.one(name, exchange.with(CUT_IN_CHUNK, in_chunk));
    }
    for (name, end) in [("cut-in-length", StreamEnd::Fin), ("reset-in-length", StreamEnd::Reset)] {
        let mut answer = whole(200, &[("content-type", "application/json")], "{\"output\":[\"cut");
        answer.headers = fields(&[("content-type", "application/json"), ("content-length", "5000")]);
        answer.end = end;
        let exchange = maker.post(name, "{}").answered(answer);
        maker.one(name, exchange);
    }
    let mut answer = Answer { end: StreamEnd::Reset, ..stream(begun) };
    answer.headers.retain(|(name, _)| name != "transfer-encoding");
    let exchange = maker.post("reset-until-close", "{\"stream\":true}").answered(answer);
    maker.one("reset-until-close", exchange);
}
