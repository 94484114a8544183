//! Every spelling of every field, and what is said of those that are none.

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn raw(text: &str) -> RawRecord {
    let place = Place { path: Path::new("a.jsonl").into(), line: 7, column: 1 };
    RawRecord { place, bytes: text.as_bytes().to_vec() }
}

fn entry(text: &str) -> Entry {
    record(&raw(text)).unwrap_or_else(|error| panic!("{text}: {error}")).entry
}

fn request(text: &str) -> Request {
    match entry(text) {
        Entry::Request(request) => request,
        other => panic!("{other:?}"),
    }
}

fn stream(text: &str) -> (String, Vec<(f64, u64)>) {
    match entry(text) {
        Entry::SseStream(stream) => (String::from_utf8(stream.stream.0).unwrap(), stream.writes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn types_have_many_spellings() {
    for name in ["type", "kind", "record_type"] {
        for (kind, expected) in [
            ("request", "request"),
            ("Request", "request"),
            ("sse-stream", "sse_stream"),
            ("SSE_STREAM", "sse_stream"),
            ("websocket-message", "websocket_message"),
            ("event", "sse_stream"),
            ("response", "response"),
            ("meta", "meta"),
            ("marker", "marker"),
            ("fault", "fault"),
            ("client-disconnect", "client_disconnect"),
            ("websocket-close", "websocket_close"),
            ("exchange-end", "exchange_end"),
        ] {
            let text = format!(
                r#"{{"{name}":"{kind}","method":"GET","url":"/","status":200,"data":"x","direction":"send","id":1}}"#
            );
            let written = serde_json::to_value(record(&raw(&text)).unwrap()).unwrap();
            assert_eq!(written["type"], expected, "{text}");
        }
    }
    assert_eq!(request(r#"{"method":"get","path":"/"}"#).method, "GET", "a request without a type");
}

#[test]
fn paths_and_bodies_have_many_names() {
    for (field, expected) in [
        (r#""path_and_query":"/a?b""#, "/a?b"),
        (r#""path":"/a""#, "/a"),
        (r#""url":"/a?b""#, "/a?b"),
        (r#""url":"https://x.y/a?b""#, "/a?b"),
    ] {
        assert_eq!(request(&format!(r#"{{"method":"POST",{field}}}"#)).url, expected);
    }
    for name in ["body", "payload", "data"] {
        for (value, expected) in [
            (r#"{ "b": 1.0, "a": ["\u00e9", 1e2] }"#, r#"{"b":1.0,"a":["\u00e9",1e2]}"#),
            (r#""text é""#, "text é"),
            (r#"{"base64":"aGk="}"#, "hi"),
            ("[1, 2]", "[1,2]"),
            ("12.50", "12.50"),
        ] {
            let request = request(&format!(r#"{{"method":"POST","path":"/","{name}":{value}}}"#));
            assert_eq!(String::from_utf8(request.body.unwrap().0).unwrap(), expected);
            assert_eq!(request.wire_len, expected.len() as u64);
        }
        assert_eq!(request(&format!(r#"{{"method":"GET","path":"/","{name}":null}}"#)).body, None);
    }
    for name in ["message", "payload", "data"] {
        for (value, expected) in [(r#""{\"a\": 1}""#, r#"{"a": 1}"#), (r#"{"a": 1}"#, r#"{"a":1}"#)] {
            let text = format!(r#"{{"type":"websocket_message","direction":"send","{name}":{value}}}"#);
            let Entry::WebsocketMessage(message) = entry(&text) else { panic!("{text}") };
            assert_eq!(message.message.0, expected.as_bytes());
        }
    }
}

#[test]
fn headers_have_many_spellings() {
    for headers in [
        r#"[["X-One","1"],["x-two","2"],["x-two","3"]]"#,
        r#"{"X-One":"1","x-two":["2","3"]}"#,
        r#"{"X-One":1,"x-two":[2,"3"]}"#,
        r#"[["X-One","1"],["x-two",["2","3"]]]"#,
        r#"[{"name":"X-One","value":"1"},{"name":"x-two","values":["2","3"]}]"#,
        r#"[{"key":"X-One","value":"1"},{"header":"x-two","value":"2"},{"x-two":"3"}]"#,
        r#"["X-One: 1","x-two:2","x-two:  3 "]"#,
        r#""X-One: 1\r\nx-two: 2\r\nx-two: 3\r\n""#,
    ] {
        let request = request(&format!(r#"{{"method":"GET","path":"/","headers":{headers}}}"#));
        let expected = [("X-One", "1"), ("x-two", "2"), ("x-two", "3")];
        let expected: Headers = expected.map(|(name, value)| (name.into(), value.into())).into();
        assert_eq!(request.headers, expected, "{headers}");
    }
}

#[test]
fn streams_have_many_spellings() {
    for name in ["stream", "text", "body", "data"] {
        let one = format!(r#"{{"type":"sse_stream","t_ms":3,"{name}":"data: 1\r\n\r\n"}}"#);
        assert_eq!(stream(&one), ("data: 1\r\n\r\n".into(), vec![(3.0, 11)]));
        let pieces = format!(r#"{{"type":"sse_stream","{name}":["data: 1\n","\n"]}}"#);
        assert_eq!(stream(&pieces), ("data: 1\n\n".into(), vec![(0.0, 8), (0.0, 1)]));
    }
    let events = r#"{"type":"sse_stream","t_ms":1,"events":[{"t_ms":2,"data":{"type":"a", "b": 1}},
        {"t_ms":4.5,"data":"data: raw\r\n\r\n"},{"data":{"no":"type"}}]}"#
        .replace('\n', " ");
    let expected = "event: a\ndata: {\"type\":\"a\",\"b\":1}\n\ndata: raw\r\n\r\ndata: {\"no\":\"type\"}\n\n";
    assert_eq!(stream(&events), (expected.into(), vec![(2.0, 35), (4.5, 13), (4.5, 21)]));
}

#[test]
fn events_have_many_spellings_and_become_one_stream() {
    for (fields, expected) in [
        (r#""data":{"type":"a"}"#, "event: a\ndata: {\"type\":\"a\"}\n\n"),
        (r#""body":{"x":1},"event_name":"n""#, "event: n\ndata: {\"x\":1}\n\n"),
        (r#""payload":"[DONE]""#, "data: [DONE]\n\n"),
        (r#""event":"data: raw\n\n""#, "data: raw\n\n"),
    ] {
        assert_eq!(stream(&format!(r#"{{"type":"event",{fields}}}"#)).0, expected);
    }
    let lines = [
        r#"{"method":"GET","path":"/"}"#,
        r#"{"type":"event","t_ms":1,"data":{"type":"a"}}"#,
        r#"{"type":"event","t_ms":2,"data":"[DONE]"}"#,
        r#"{"method":"GET","path":"/2"}"#,
    ];
    let records: Vec<Record> =
        Records::new(lines.iter().map(|line| Ok(raw(line))), false).map(Result::unwrap).collect();
    let exchanges = wire::capture::exchanges(&records).unwrap();
    let answer = exchanges[0].answer.as_ref().unwrap();
    assert_eq!(answer.body, b"event: a\ndata: {\"type\":\"a\"}\n\ndata: [DONE]\n\n");
    assert_eq!(answer.writes, [(1.0, 29), (2.0, 14)]);
    assert!(exchanges[1].answer.is_none());
}

#[test]
fn what_is_missing_is_filled_in() {
    let lines = [
        r#"{"method":"POST","path":"/1","ts":"2026-11-20T06:00:00.500+01:00"}"#,
        r#"{"method":"POST","path":"/2","ts":"2026-11-20T05:00:01Z","http_version":"http/2.0"}"#,
        r#"{"type":"response","status":201,"t_ms":700}"#,
        r#"{"type":"response","status":"202","note":[1]}"#,
        r#"{"type":"websocket_message","direction":"incoming","data":"x"}"#,
        r#"{"method":"GET","path":"/3","id":"req-1"}"#,
        r#"{"type":"response","status":204,"id":"req-1"}"#,
        r#"{"method":"GET","path":"/4","id":9,"connection":4}"#,
    ];
    let mut normaliser = Normaliser::default();
    let records: Vec<Record> = lines.iter().map(|line| normaliser.record(&raw(line)).unwrap()).collect();
    let ids: Vec<u64> = records.iter().map(|record| id_of(&record.entry).unwrap()).collect();
    assert_eq!(ids, [1, 2, 1, 2, 2, 3, 3, 9]);
    let times: Vec<f64> = records.iter().map(|record| record.t_ms).collect();
    assert_eq!(times, [0.0, 500.0, 700.0, 700.0, 700.0, 700.0, 700.0, 700.0]);
    assert_eq!(records[2].ts, "2026-11-20T05:00:01.200Z");
    let written = serde_json::to_value(&records[3]).unwrap();
    assert_eq!(written["note"][0], 1, "what is not known is kept");
    let (Entry::Request(second), Entry::Request(last)) = (&records[1].entry, &records[7].entry) else {
        panic!()
    };
    assert_eq!((second.http_version.as_str(), second.connection, last.connection), ("2", 2, 4));
}

#[test]
fn a_body_that_was_recorded_decoded_can_be_sent_again() {
    let request = request(
        r#"{"method":"POST","path":"/","headers":{"content-encoding":"zstd","content-length":"99"},"wire_len":99,"body":{"a": 1}}"#,
    );
    let body = request.body.unwrap().0;
    assert_eq!(zstd::decode_all(&body[..]).unwrap(), b"{\"a\":1}");
    assert_eq!(
        (request.headers[1].1.as_str(), request.wire_len),
        (body.len().to_string().as_str(), body.len() as u64)
    );
    assert_eq!(request.rest["recorded_wire_len"], 99);
}

#[test]
fn an_upgrade_is_known_by_its_header() {
    let text = r#"{"method":"GET","path":"/","headers":["Upgrade: WebSocket"],"body":null}"#;
    assert_eq!(request(text).upgrade.as_deref(), Some("websocket"));
    assert_eq!(request(r#"{"method":"GET","path":"/","headers":["Upgrade: h2c"]}"#).upgrade, None);
}

#[test]
fn our_own_records_are_taken_as_they_are() {
    let line = r#"{"ts":"t","t_ms":1.5,"type":"request","direction":"client_to_upstream","id":1,"connection":2,"method":"POST","url":"/","http_version":"1.1","headers":[["Content-Encoding","zstd"],["Content-Length","3"]],"body":"lie","wire_len":3,"x":1}"#;
    assert_eq!(serde_json::to_string(&record(&raw(line)).unwrap()).unwrap(), line);
}

#[test]
fn what_is_no_record_is_said() {
    let mut said = String::new();
    for text in [
        "{}",
        r#"{"type":"reqest"}"#,
        r#"{"type":1}"#,
        r#"{"type":"request","method":"GET"}"#,
        r#"{"type":"request","method":["GET"],"url":"/"}"#,
        r#"{"type":"response"}"#,
        r#"{"type":"response","status":99}"#,
        r#"{"type":"response","status":"ok"}"#,
        r#"{"type":"response","status":200,"headers":7}"#,
        r#"{"type":"response","status":200,"headers":["no colon"]}"#,
        r#"{"type":"response","status":200,"headers":[{"value":"x","other":"y"}]}"#,
        r#"{"type":"response","status":200,"headers":{"a":{"b":"c"}}}"#,
        r#"{"type":"response","status":200,"body":{"base64":"%"}}"#,
        r#"{"type":"response","status":200,"writes":[1]}"#,
        r#"{"type":"sse_stream"}"#,
        r#"{"type":"sse_stream","stream":"","end":"never"}"#,
        r#"{"type":"event"}"#,
        r#"{"type":"websocket_message","data":"x"}"#,
        r#"{"type":"websocket_message","direction":"up","data":"x"}"#,
        r#"{"type":"websocket_message","direction":"send"}"#,
        r#"{"type":"websocket_close","code":70000}"#,
        r#"{"type":"exchange_end","id":true}"#,
        r#"{"type":"marker","ts":"yesterday"}"#,
        r#"{"type":"marker","t_ms":"soon"}"#,
    ] {
        let error = record(&raw(text)).map_or_else(|error| error.to_string(), |record| format!("{record:?}"));
        said += &format!("{text}\n    failed to {error}\n");
    }
    insta::assert_snapshot!(said);
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i32>().prop_map(|number| number.to_string()),
        "[a-z:/ ]{0,6}".prop_map(|text| format!("{text:?}")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((name(), inner), 0..4).prop_map(|items| {
                let members: Vec<String> =
                    items.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "type",
        "kind",
        "id",
        "headers",
        "body",
        "data",
        "events",
        "stream",
        "t_ms",
        "ts",
        "status",
        "name",
        "value",
        "message",
        "method",
        "url",
        "writes",
        "base64",
        "end",
        "direction",
    ])
}

proptest! {
    #[test]
    fn no_record_makes_it_panic(
        kind in prop::sample::select(TYPES.to_vec()),
        members in prop::collection::vec((name(), json()), 0..8),
    ) {
        let members: Vec<String> = members.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        let text = format!("{{\"record_type\":{kind:?}{}{}}}", if members.is_empty() { "" } else { "," }, members.join(","));
        let mut normaliser = Normaliser::default();
        if let Ok(record) = normaliser.record(&raw(&text)) {
            let line = serde_json::to_string(&record).unwrap();
            let again = super::record(&raw(&line)).unwrap();
            prop_assert_eq!(serde_json::to_string(&again).unwrap(), line, "what was read once is read the same");
        }
    }
}
