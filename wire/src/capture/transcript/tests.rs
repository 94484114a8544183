//! Connections as bytes, and the records that they become, however the bytes are cut.

use proptest::prelude::*;

use super::*;
use crate::capture::{Exchange, Record, exchanges};
use crate::websocket::{FrameHeader, Opcode, apply_mask};

const LIMITS: Limits = Limits { exchange: 1 << 20, cut_is_missing: true };

/// What happens on a connection: bytes of the client, bytes for the client.
#[derive(Debug, Clone)]
enum Step {
    Asks(Vec<u8>),
    Answers(Vec<u8>),
}

fn asks(text: &str) -> Step {
    Step::Asks(text.as_bytes().to_vec())
}

fn answers(text: &str) -> Step {
    Step::Answers(text.as_bytes().to_vec())
}

fn notes_of(steps: &[Step], closing: Closing, limits: Limits) -> Vec<Note> {
    let (mut transcript, mut ids, mut notes, mut at) = (Transcript::new(7, limits), 0, Vec::new(), 0.0);
    for step in steps {
        at += 1.0;
        match step {
            Step::Asks(bytes) => transcript.received(at, bytes, &mut ids, &mut notes),
            Step::Answers(bytes) => transcript.sent(at, bytes, &mut ids, &mut notes),
        }
    }
    transcript.close(at + 1.0, closing, &mut ids, &mut notes);
    assert_eq!(transcript.held(), 0);
    notes
}

fn told(steps: &[Step], closing: Closing) -> Vec<Exchange> {
    let record = |(t_ms, entry)| Record { ts: String::new(), t_ms, entry };
    let records: Vec<Record> = notes_of(steps, closing, LIMITS).into_iter().map(record).collect();
    let ends = records.iter().filter(|record| matches!(record.entry, Entry::ExchangeEnd(_))).count();
    let exchanges = exchanges(&records).unwrap();
    assert_eq!(ends, exchanges.len(), "each has its end");
    exchanges
}

fn lines(steps: &[Step], closing: Closing) -> String {
    let record = |(t_ms, entry)| serde_json::to_string(&Record { ts: String::new(), t_ms, entry }).unwrap();
    notes_of(steps, closing, LIMITS).into_iter().map(|note| record(note) + "\n").collect()
}

fn frame(is_final: bool, opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    FrameHeader { is_final, opcode, mask, length: payload.len() as u64 }.encode(&mut bytes);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(mask, 0, &mut bytes[start..]);
    }
    bytes
}

const POST: &str =
    "POST /v1/responses?a HTTP/1.1\r\nHost: x\r\nX-Two: 1\r\nx-two:  2\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn a_connection_becomes_records() {
    let steps = [
        asks(&POST[..POST.len() - 2]),
        asks("lo"),
        answers(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
        ),
        answers("9\r\ndata: 2\n\n\r\n0\r\n\r\n"),
        asks("GET /models HTTP/1.1\r\nHost: x\r\n\r\nHEAD /models HTTP/1.1\r\nHost: x\r\n\r\n"),
        answers(
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        ),
    ];
    insta::assert_snapshot!(lines(&steps, Closing::ByClient));
}

#[test]
fn a_websocket_becomes_messages() {
    let mask = Some([1, 2, 3, 4]);
    let steps = [
        asks("GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"),
        Step::Asks(frame(true, Opcode::Text, mask, b"early")),
        answers("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
        Step::Answers(
            [frame(false, Opcode::Text, None, b"one "), frame(true, Opcode::Ping, None, b"p")].concat(),
        ),
        Step::Answers(frame(true, Opcode::Continuation, None, b"two")),
        Step::Asks(frame(true, Opcode::Binary, mask, &[0xFF, 0])),
        Step::Asks(frame(true, Opcode::Close, mask, b"\x03\xE8bye")),
        Step::Answers([frame(true, Opcode::Text, None, b""), frame(true, Opcode::Close, None, b"")].concat()),
    ];
    insta::assert_snapshot!(lines(&steps, Closing::ByServer));
}

#[test]
fn a_refused_upgrade_is_followed_by_another_request() {
    let steps = [
        asks(
            "GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        answers("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"),
        answers("HTTP/1.1 204 No Content\r\n\r\n"),
    ];
    let seen: Vec<_> = told(&steps, Closing::ByClient)
        .into_iter()
        .map(|exchange| (exchange.request.url, exchange.answer.unwrap().status, exchange.missing))
        .collect();
    assert_eq!(seen, [("/v1/responses".to_owned(), 426, None), ("/2".to_owned(), 204, None)]);
}

#[test]
fn what_is_cut_says_so() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    let until_close = "HTTP/1.1 200 OK\r\n\r\nall";
    let upgraded = [
        asks("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
        answers("HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ];
    let whole = [asks(POST), answers(until_close)];
    let cut = [asks(POST), answers(head)];
    let unanswered = [asks(POST)];
    let unasked = [asks("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"), answers(head)];
    let stopped = [asks("GET / HT")];
    let mut said = String::new();
    for (what, steps) in [
        ("until close", &whole[..]),
        ("half an answer", &cut),
        ("no answer", &unanswered),
        ("half a request", &unasked),
        ("half a head", &stopped),
        ("a websocket", &upgraded),
    ] {
        for closing in [
            Closing::ByClient,
            Closing::ByServer,
            Closing::Reset,
            Closing::Hung,
            Closing::Drained,
            Closing::Unknown,
        ] {
            for exchange in told(steps, closing) {
                let end = exchange.answer.map(|answer| answer.end);
                let (gone, messages) = (exchange.client_gone.is_some(), exchange.messages.len());
                said += &format!(
                    "{what}, {closing:?}: {end:?}, gone {gone}, messages {messages}, missing {:?}\n",
                    exchange.missing
                );
            }
        }
    }
    insta::assert_snapshot!(said);
}

#[test]
fn what_cannot_be_read_is_kept() {
    let refusal = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (asked, problem) in [
        ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.1"),
        ("nonsense\r\n\r\nmore", "malformed"),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "both"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "framing"),
    ] {
        let exchanges = told(&[asks(asked), answers(refusal)], Closing::ByServer);
        let request = &exchanges[0].request;
        let kept =
            [request.head.clone().unwrap_or_default().0, request.body.clone().unwrap_or_default().0].concat();
        assert!(asked.as_bytes().starts_with(&kept[..kept.len().min(asked.len())]), "{asked}");
        assert!(request.rest["malformed"].as_str().unwrap().contains(problem), "{:?}", request.rest);
        assert_eq!(exchanges[0].answer.as_ref().unwrap().status, 400);
    }
}

#[test]
fn what_is_too_long_is_cut_and_said() {
    let limits = Limits { exchange: 8, ..LIMITS };
    let body = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nanswering";
    let next = asks("GET / HTTP/1.1\r\n\r\n");
    let steps = [asks(POST), answers(body), next, answers("HTTP/1.1 204 No Content\r\n\r\n")];
    let notes = notes_of(&steps, Closing::ByClient, limits);
    let ends: Vec<_> = notes
        .iter()
        .filter_map(|(_, entry)| if let Entry::ExchangeEnd(end) = entry { Some(end.clone()) } else { None })
        .collect();
    assert_eq!((ends[0].partial, ends[1].partial), (true, false), "{ends:?}");
    let Entry::Response(response) = &notes[1].1 else { panic!("{notes:?}") };
    assert_eq!(response.body.as_ref().unwrap().0, b"ans");
}

#[test]
fn a_recorder_that_lost_track_says_so_once() {
    let (mut transcript, mut ids, mut notes) = (Transcript::new(1, LIMITS), 0, Vec::new());
    transcript.received(1.0, POST.as_bytes(), &mut ids, &mut notes);
    transcript.lose(2.0, "the recorder could not keep up", &mut notes);
    let before = notes.len();
    transcript.sent(3.0, b"HTTP/1.1 200 OK\r\n\r\n", &mut ids, &mut notes);
    transcript.close(4.0, Closing::ByClient, &mut ids, &mut notes);
    assert_eq!(notes.len(), before);
    let Some((_, Entry::ExchangeEnd(end))) = notes.last() else { panic!("{notes:?}") };
    assert_eq!(end.reason.as_deref(), Some("the recorder could not keep up"));
}

/// A conversation of every kind, as one run of bytes for each step.
fn conversation() -> Vec<Step> {
    let mask = Some([9, 8, 7, 6]);
    vec![
        asks(
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        ),
        answers(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n",
        ),
        asks("GET /b HTTP/1.1\r\n\r\nGET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
        answers("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyzHTTP/1.1 101 Switching Protocols\r\n\r\n"),
        Step::Asks(
            [frame(false, Opcode::Text, mask, b"on"), frame(true, Opcode::Continuation, mask, b"e")].concat(),
        ),
        Step::Answers(
            [frame(true, Opcode::Text, None, b"two"), frame(true, Opcode::Close, None, b"\x03\xE9")].concat(),
        ),
    ]
}

/// What does not depend on how the bytes were cut.
fn essence(steps: &[Step]) -> Vec<String> {
    let mut exchanges = told(steps, Closing::ByServer);
    for exchange in &mut exchanges {
        exchange.at = 0.0;
        exchange.request.writes.clear();
        if let Some(answer) = &mut exchange.answer {
            answer.at = 0.0;
            answer.writes.clear();
        }
        exchange.messages.iter_mut().for_each(|message| message.at = 0.0);
    }
    exchanges.iter().map(|exchange| format!("{exchange:?}")).collect()
}

proptest! {
    #[test]
    fn cuts_do_not_matter(sizes in prop::collection::vec(1..20_usize, 1..12)) {
        let whole = conversation();
        let mut sizes = sizes.into_iter().cycle();
        let mut pieces = Vec::new();
        for step in &whole {
            let (mut rest, is_ask) = match step {
                Step::Asks(bytes) => (&bytes[..], true),
                Step::Answers(bytes) => (&bytes[..], false),
            };
            while !rest.is_empty() {
                let (piece, next) = rest.split_at(sizes.next().unwrap().min(rest.len()));
                pieces.push(if is_ask { Step::Asks(piece.to_vec()) } else { Step::Answers(piece.to_vec()) });
                rest = next;
            }
        }
        prop_assert_eq!(essence(&pieces), essence(&whole));
    }

    #[test]
    fn no_bytes_make_it_panic(steps in prop::collection::vec(
        (any::<bool>(), prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::sample::select(vec![
                POST.as_bytes().to_vec(),
                b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n".to_vec(),
                b"HTTP/1.1 101 X\r\n\r\n".to_vec(),
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                b"HTTP/1.1 204 OK\r\n\r\n".to_vec(),
                b"0\r\n\r\n".to_vec(),
            ]),
        ]), 0..12))
    {
        let steps: Vec<Step> = steps
            .into_iter()
            .map(|(is_ask, bytes)| if is_ask { Step::Asks(bytes) } else { Step::Answers(bytes) })
            .collect();
        for closing in [Closing::ByClient, Closing::ByServer, Closing::Drained] {
            told(&steps, closing);
        }
    }
}
