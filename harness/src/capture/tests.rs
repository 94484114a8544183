//! Every format and what is wrong with files, by example; and that no input makes the reader panic.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// The lines that a text becomes, and the errors.
fn read(name: &str, text: &[u8], options: Options) -> Result<Vec<String>, String> {
    let input = Cursor::new(text.to_vec());
    let reader = Reader::new(input, Path::new(name), options).map_err(|error| error.to_string())?;
    let line = |record: RawRecord| String::from_utf8_lossy(&record.bytes).into_owned();
    Ok(reader.map(|read| read.map_or_else(|error| format!("failed to {error}"), line)).collect())
}

fn lines(name: &str, text: &str) -> Result<Vec<String>, String> {
    read(name, text.as_bytes(), Options::default())
}

#[test]
fn lines_come_as_they_stand() {
    let text = "\u{FEFF}# a comment\n\n  {\"type\" : \"meta\"}\r\n{\"a\":1e0}";
    assert_eq!(lines("a.jsonl", text).unwrap(), ["  {\"type\" : \"meta\"}\r", "{\"a\":1e0}"]);
}

#[test]
fn documents_become_lines() {
    let record = "{ \"type\" : \"marker\",\n \"text\": \"a \\\" b\", \"n\": [1.0, 2] }";
    let line = "{\"type\":\"marker\",\"text\":\"a \\\" b\",\"n\":[1.0,2]}";
    for document in [
        record.to_owned(),
        format!("[{record} , {record}]"),
        format!("{{\"format_version\": 1, \"records\": [{record}], \"kind\": \"x\" }}"),
    ] {
        let read = lines("a.json", &document).unwrap();
        assert!(!read.is_empty() && read.iter().all(|found| found == line), "{document}: {read:?}");
    }
    assert_eq!(lines("a.json", "[]").unwrap(), Vec::<String>::new());
    assert_eq!(lines("a.json", "{\"records\":[]}").unwrap(), Vec::<String>::new());
    let typed = "{\"type\":\"marker\",\"records\":[1]}";
    assert_eq!(lines("a.json", typed).unwrap(), [typed], "a record may have any field");
}

#[test]
fn other_text_is_one_stream() {
    let read = lines("a.txt", "event: x\r\ndata: 1\r\n\r\n").unwrap();
    assert_eq!(read.len(), 1);
    let record = RawRecord { bytes: read[0].clone().into_bytes(), place: place() };
    let wire::capture::Entry::SseStream(stream) = normal::record(&record).unwrap().entry else { panic!() };
    assert_eq!(stream.stream.0, b"event: x\r\ndata: 1\r\n\r\n");
}

fn place() -> Place {
    Place { path: Path::new("a").into(), line: 1, column: 1 }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let mut said = String::new();
    for (name, text) in [
        ("a.jsonl", "{\"type\":\"meta\"}\n\n{\"type\": meta}\n{\"a\":1}\n"),
        ("a.jsonl", "{\n  \"type\": \"meta\"\n}\n"),
        ("a.jsonl", "[1]"),
        ("a.jsonl", "{\"a\":1}\n[1]\n"),
        ("a.jsonl", "data: x\n\n"),
        ("a.json", "{\"type\":\"meta\"}\n{\"type\":\"meta\"}"),
        ("a.json", "[{\"a\":1} {\"b\":2}]"),
        ("a.json", "[{\"a\":1},\n {\"b\":tru}, {\"c\":3}]"),
        ("a.json", "[{\"a\":1},"),
        ("a.json", "# comment\n{}"),
        ("a.json", ""),
        ("a.har", "{\"entries\":[]}"),
        ("a.har", "{\"log\":{\"version\":\"1.2\"}}"),
        ("a.log", "{\"type\":\"meta\"}"),
        ("a.txt", "<html>"),
        ("a", ""),
    ] {
        said += &format!("{name}: {text:?}\n");
        match lines(name, text) {
            Ok(read) => read.iter().for_each(|line| said += &format!("    {line}\n")),
            Err(error) => said += &format!("    failed to {error}\n"),
        }
    }
    insta::assert_snapshot!(said);
}

#[test]
fn bad_records_can_be_counted() {
    let text = b"{\"type\":\"meta\"}\nnonsense\n{\"a\":}\n{\"type\":\"marker\"}\n".to_vec();
    let mut reader = Reader::new(Cursor::new(text), Path::new("a.jsonl"), Options::skip_bad()).unwrap();
    assert_eq!(reader.by_ref().map(Result::unwrap).count(), 2);
    assert_eq!(reader.skipped(), 2);
    let document = b"[{\"a\":1},{\"a\":nul},{\"a\":3}]".to_vec();
    let mut reader = Reader::new(Cursor::new(document), Path::new("a.json"), Options::skip_bad()).unwrap();
    assert_eq!(reader.by_ref().map(Result::unwrap).count(), 2);
    assert_eq!(reader.skipped(), 1);
}

#[test]
fn a_record_has_a_longest_length() {
    let options = Options { max_record: 20, ..Options::default() };
    let text = format!("{{\"a\":\"{}\"}}\n{{\"a\":1}}\n", "x".repeat(50));
    let read = read("a.jsonl", text.as_bytes(), options.clone()).unwrap();
    assert!(read[0].contains("a.jsonl:1:1") && read[0].contains("longer than 20 bytes"), "{read:?}");
    assert_eq!(read[1], "{\"a\":1}", "the next one can be read");
    let exact = format!("{{\"a\":\"{}\"}}", "x".repeat(12));
    let all = super::tests::read("a.jsonl", format!("{exact}\n{exact}").as_bytes(), options).unwrap();
    assert_eq!(all, [exact.clone(), exact]);
}

#[test]
fn a_directory_is_joined_in_time_order() {
    let directory = tempfile::tempdir().unwrap();
    let meta = |run: &str, began: &str| {
        format!(
            r#"{{"ts":"{began}","t_ms":0.0,"type":"meta","recorder":"r","run":"{run}","began":"{began}"}}"#
        )
    };
    let request = |id: u64, t: f64| {
        format!(
            r#"{{"ts":"t","t_ms":{t},"type":"request","direction":"client_to_upstream","id":{id},"connection":1,"method":"GET","url":"/","http_version":"1.1","headers":[],"wire_len":0,"writes":[[{t},5]]}}"#
        )
    };
    let end = |id: u64, t: f64| format!(r#"{{"ts":"t","t_ms":{t},"type":"exchange_end","id":{id}}}"#);
    let (one, two) = ("2026-11-20T05:00:00.000Z", "2026-11-20T05:00:01.000Z");
    let write = |name: &str, lines: &[String], tail: &str| {
        std::fs::write(directory.path().join(name), format!("{}\n{tail}", lines.join("\n"))).unwrap();
    };
    write("one-1.jsonl", &[meta("one", one), request(1, 5.0), end(1, 9.0)], "");
    write("one-2.jsonl", &[meta("one", one), request(2, 7.0)], "{\"ts\":\"t\",\"t_ms\"");
    write("two-1.jsonl", &[meta("two", two), request(1, 5.0), end(1, 6.0)], "");
    std::fs::write(directory.path().join("notes.txt"), "no recording").unwrap();
    let loaded = load(directory.path(), Options::default()).unwrap();
    assert_eq!(loaded.skipped, 1, "half a record");
    let seen: Vec<(f64, Option<u64>)> =
        loaded.records.iter().map(|record| (record.t_ms, normal::id_of(&record.entry))).collect();
    let expected = [
        (0.0, None),
        (5.0, Some(1)),
        (7.0, Some(2)),
        (9.0, Some(1)),
        (1000.0, None),
        (1005.0, Some(3)),
        (1006.0, Some(3)),
    ];
    assert_eq!(seen, expected);
    let wire::capture::Entry::Request(last) = &loaded.records[5].entry else { panic!() };
    assert_eq!((last.connection, last.writes.as_slice()), (2, &[(1005.0, 5)][..]));
    let exchanges = wire::capture::exchanges(&loaded.records).unwrap();
    let missing: Vec<bool> = exchanges.iter().map(|exchange| exchange.missing.is_some()).collect();
    assert_eq!(missing, [true, true, true], "nothing was answered, and one has no end");
}

#[test]
fn a_directory_without_recordings_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let error = super::directory(directory.path()).unwrap_err().to_string();
    assert!(error.contains("--record"), "{error}");
}

/// Valid files of every format, to be broken.
const VALID: [(&str, &str); 4] = [
    (
        "a.jsonl",
        "{\"type\":\"request\",\"method\":\"GET\",\"url\":\"/\",\"headers\":{\"a\":[\"b\"]}}\n{\"type\":\"event\",\"data\":{\"type\":\"x\"}}\n{\"type\":\"sse_stream\",\"events\":[{\"t_ms\":1,\"data\":{\"type\":\"x\"}}]}\n",
    ),
    (
        "a.json",
        "{\"records\":[{\"type\":\"websocket_message\",\"direction\":\"send\",\"data\":{\"a\":[1,\"\\u00e9\"]}}]}",
    ),
    (
        "a.har",
        "{\"log\":{\"creator\":{\"name\":\"x\"},\"entries\":[{\"startedDateTime\":\"2026-11-20T05:56:40.692+01:00\",\"time\":5,\"request\":{\"method\":\"GET\",\"url\":\"https://x/y\",\"headers\":[]},\"response\":{\"status\":200,\"headers\":[],\"content\":{\"text\":\"e30=\",\"encoding\":\"base64\"}}}]}}",
    ),
    ("a.sse", "data: {\"a\":1}\n\n"),
];

fn read_all(name: &str, text: &[u8], options: Options) -> usize {
    let Ok(reader) = Reader::new(Cursor::new(text.to_vec()), Path::new(name), options) else { return 0 };
    normal::Records::new(reader, true).take(1000).count()
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), format in 0..4_usize) {
        let format = [Format::JsonLines, Format::Json, Format::Har, Format::Sse][format];
        read_all("a", &bytes, Options { format: Some(format), ..Options::skip_bad() });
        read_all("a.json", &bytes, Options::default());
    }

    #[test]
    fn no_broken_file_makes_it_panic(
        which in 0..VALID.len(),
        cut in 0.0..1.0_f64,
        at in 0.0..1.0_f64,
        byte in prop::sample::select(b"{}[]\":,\\ 0x\n\xFF".to_vec()),
    ) {
        let (name, text) = VALID[which];
        let mut text = text.as_bytes().to_vec();
        let place = |share: f64, length: usize| (share * length as f64) as usize;
        let at = place(at, text.len());
        text[at] = byte;
        read_all(name, &text, Options::skip_bad());
        text.truncate(place(cut, text.len()));
        read_all(name, &text, Options::skip_bad());
        read_all(name, &text, Options::default());
    }
}

#[test]
fn the_valid_files_are_valid() {
    for (name, text) in VALID {
        let reader =
            Reader::new(Cursor::new(text.as_bytes().to_vec()), Path::new(name), Options::default()).unwrap();
        let records: Result<Vec<_>, _> = normal::Records::new(reader, false).collect();
        assert!(records.is_ok_and(|records| !records.is_empty()), "{name}");
    }
}
