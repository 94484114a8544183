//! The decoder against the standard's examples, a transcription of its algorithm, and every split.

use super::*;
use proptest::prelude::*;

/// An event with its own memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    kind: String,
    text: String,
    last_id: String,
}

fn own(event: Event<'_>) -> Owned {
    Owned {
        kind: event.kind().into_owned(),
        text: event.text().into_owned(),
        last_id: String::from_utf8_lossy(event.last_id).into_owned(),
    }
}

fn decode_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Owned>, Option<u64>) {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for piece in pieces {
        decoder.feed(piece, |event| events.push(own(event))).unwrap();
    }
    (events, decoder.retry())
}

/// The algorithm of the standard, step by step, on the whole decoded text.
fn reference(stream: &[u8]) -> (Vec<Owned>, Option<u64>) {
    let text = String::from_utf8_lossy(stream.strip_prefix(&BOM[..]).unwrap_or(stream)).into_owned();
    let (mut events, mut retry) = (Vec::new(), None);
    let (mut data, mut kind, mut last_id) = (String::new(), String::new(), String::new());
    let normalised = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = normalised.split('\n').collect();
    // What follows the last line end is a line that never ended.
    lines.pop();
    for line in lines {
        if line.is_empty() {
            if !data.is_empty() {
                let text = data.strip_suffix('\n').unwrap_or(&data).to_owned();
                let kind = if kind.is_empty() { "message".to_owned() } else { kind.clone() };
                events.push(Owned { kind, text, last_id: last_id.clone() });
            }
            data.clear();
            kind.clear();
            continue;
        }
        if line.starts_with(':') {
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "event" => value.clone_into(&mut kind),
            "id" if !value.contains('\0') => value.clone_into(&mut last_id),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                retry = Some(value.parse().unwrap_or(u64::MAX));
            }
            _ => {}
        }
    }
    (events, retry)
}

fn event(kind: &str, text: &str, last_id: &str) -> Owned {
    Owned { kind: kind.into(), text: text.into(), last_id: last_id.into() }
}

#[test]
fn the_examples_of_the_standard() {
    let cases: [(&str, Vec<Owned>); 6] = [
        ("data: YHOO\ndata: +2\ndata: 10\n\n", vec![event("message", "YHOO\n+2\n10", "")]),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            vec![
                event("message", "first event", "1"),
                event("message", "second event", ""),
                event("message", " third event", ""),
            ],
        ),
        // Empty data is an event too; the last block has no empty line behind it and is none.
        ("data\n\ndata\ndata\n\ndata:", vec![event("message", "", ""), event("message", "\n", "")]),
        ("data:test\n\ndata: test\n\n", vec![event("message", "test", ""), event("message", "test", "")]),
        ("event: add\ndata: 73857293\n\n", vec![event("add", "73857293", "")]),
        ("event: add\n\ndata: x\n\n", vec![event("message", "x", "")]),
    ];
    for (stream, expected) in cases {
        assert_eq!(decode_pieces([stream.as_bytes()]).0, expected, "{stream:?}");
        assert_eq!(reference(stream.as_bytes()).0, expected, "{stream:?}");
    }
}

#[test]
fn the_odd_streams_that_are_legal() {
    let cases: [(&[u8], Vec<Owned>); 9] = [
        (b"\xEF\xBB\xBFdata: bom\n\n", vec![event("message", "bom", "")]),
        (b"\xEF\xBBdata: not a bom\n\n", vec![]),
        (b"data: cr\r\rdata: crlf\r\n\r\n", vec![event("message", "cr", ""), event("message", "crlf", "")]),
        (b"id: a\0b\nid: c\nid: d\0\ndata: x\n\n", vec![event("message", "x", "c")]),
        (b"data: \xE2\x82\ndata: \xFF\n\n", vec![event("message", "\u{FFFD}\n\u{FFFD}", "")]),
        (
            b"dat\xC3\xA9: no\ndata : no\n data: no\nDATA: no\ndata: yes\n\n",
            vec![event("message", "yes", "")],
        ),
        (b"data: no empty line behind\n", vec![]),
        (b"event\ndata: the name is empty\n\n", vec![event("message", "the name is empty", "")]),
        (b"data: a\xEF\xBB\xBF\n\n", vec![event("message", "a\u{FEFF}", "")]),
    ];
    for (stream, expected) in cases {
        assert_eq!(decode_pieces([stream]).0, expected, "{stream:?}");
        assert_eq!(reference(stream).0, expected, "{stream:?}");
    }
}

#[test]
fn retry_takes_digits_only() {
    for (value, expected) in
        [("10", Some(10)), ("1e3", None), ("-1", None), ("", None), ("99999999999999999999", Some(u64::MAX))]
    {
        let stream = format!("retry: {value}\n");
        assert_eq!(decode_pieces([stream.as_bytes()]).1, expected, "{value:?}");
    }
}

#[test]
fn the_bound_is_an_error_wherever_the_input_is_split() {
    let streams =
        ["data: 0123456789\n\n", ": 0123456789\n", "data: 01234\ndata: 56789\n\n", "data: 0123456789"];
    for stream in streams {
        for size in 1..=stream.len() {
            let mut decoder = Decoder::new(9);
            let mut result = Ok(());
            for piece in stream.as_bytes().chunks(size) {
                result = result.and(decoder.feed(piece, |_| {}));
            }
            assert_eq!(result, Err(TooLong { limit: 9 }), "{stream:?} in pieces of {size}");
            assert!(decoder.feed(b"\n", |_| {}).is_err(), "a failed decoder stays failed");
        }
    }
    assert!(Decoder::new(9).feed(b"data: 012\ndata: 345\n\n", |_| {}).is_ok());
}

#[test]
fn an_event_within_one_piece_is_not_copied() {
    let stream = b"event: a\ndata: {\"b\":1}\n\n".to_vec();
    let range = stream.as_ptr_range();
    let mut seen = 0;
    Decoder::default()
        .feed(&stream, |event| {
            assert!(range.contains(&event.data.as_ptr()) && range.contains(&event.name.as_ptr()));
            seen += 1;
        })
        .unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn a_cut_event_is_known_as_such() {
    let mut decoder = Decoder::default();
    decoder.feed(b"data: a\n\n", |_| {}).unwrap();
    assert!(!decoder.is_mid_event());
    decoder.feed(b"data: b\n", |_| {}).unwrap();
    assert!(decoder.is_mid_event());
}

/// Streams made of the tokens that the syntax turns on, and of raw bytes between them.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => prop::sample::select(vec![
            &b"data"[..], b"data:", b"data: ", b"event: ", b"id: ", b"id", b"retry: ", b":", b" ", b"x",
            b"\n", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"7", b"\xEF\xBB\xBF", b"\xE2\x82", b"\xC3\xA9",
        ])
        .prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_split_gives_what_the_standard_gives(
        stream in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let expected = reference(&stream);
        prop_assert_eq!(&decode_pieces([&stream[..]]), &expected);
        prop_assert_eq!(&decode_pieces(stream.chunks(1)), &expected);
        prop_assert_eq!(&decode_pieces(cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]])), &expected);
    }

    #[test]
    fn what_is_encoded_is_decoded(
        name in prop::option::of("[a-z.]{1,12}"),
        id in prop::option::of("[a-z0-9]{1,6}"),
        text in "(?s).{1,40}",
        comment in "(?s).{0,10}",
    ) {
        let mut bytes = Vec::new();
        encode_comment(&comment, &mut bytes);
        encode_event(name.as_deref(), id.as_deref(), &text, &mut bytes).unwrap();
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let (events, _) = decode_pieces([&bytes[..]]);
        let expected = event(name.as_deref().unwrap_or("message"), &text, id.as_deref().unwrap_or(""));
        prop_assert_eq!(events, vec![expected]);
    }
}
