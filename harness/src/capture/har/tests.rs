//! Small archives as Chrome, mitmproxy and Charles write them.

use std::io::Cursor;
use std::path::Path;

use wire::capture::{Entry, exchanges};

use crate::capture::{Options, Reader, normal};

fn archive(creator: &str, entries: &str) -> String {
    format!(
        r#"{{"log":{{"version":"1.2","creator":{{"name":"{creator}","version":"1"}},"pages":[],"entries":[{entries}]}}}}"#
    )
}

fn read(text: &str) -> Result<Vec<String>, String> {
    let input = Cursor::new(text.as_bytes().to_vec());
    let reader =
        Reader::new(input, Path::new("a.har"), Options::default()).map_err(|error| error.to_string())?;
    reader
        .map(|raw| raw.map(|raw| String::from_utf8(raw.bytes).unwrap()).map_err(|error| error.to_string()))
        .collect()
}

fn records(text: &str) -> Vec<wire::capture::Record> {
    let input = Cursor::new(text.as_bytes().to_vec());
    let reader = Reader::new(input, Path::new("a.json"), Options::default()).unwrap();
    normal::Records::new(reader, false).map(Result::unwrap).collect()
}

const CHROME: &str = r#"
{"_initiator":{"type":"script"},"_resourceType":"fetch","connection":"443","startedDateTime":"2026-11-20T06:00:00.250+01:00","time":120.5,
 "request":{"method":"POST","url":"https://chatgpt.com/backend-api/codex/responses?a=b#c","httpVersion":"h2",
  "headers":[{"name":":authority","value":"chatgpt.com"},{"name":"content-type","value":"application/json"},{"name":"Cookie","value":"a"},{"name":"Cookie","value":"b"}],
  "queryString":[{"name":"a","value":"b"}],"cookies":[],"headersSize":-1,"bodySize":9,"postData":{"mimeType":"application/json","text":"{\"x\": 1}"}},
 "response":{"status":200,"statusText":"","httpVersion":"http/2.0","headers":[{"name":"content-type","value":"text/event-stream; charset=utf-8"}],
  "cookies":[],"content":{"size":20,"mimeType":"text/event-stream","text":"data: 1\n\ndata: 2\n\n"},"redirectURL":"","headersSize":-1,"bodySize":-1,"_transferSize":300,"_error":null},
 "cache":{},"timings":{"blocked":1.5,"dns":-1,"ssl":-1,"connect":-1,"send":0.5,"wait":98,"receive":20.5}},
{"_resourceType":"websocket","startedDateTime":"2026-11-20T05:00:01Z","time":0,
 "request":{"method":"GET","url":"wss://chatgpt.com/backend-api/codex/responses","httpVersion":"HTTP/1.1","headers":[{"name":"Upgrade","value":"websocket"}]},
 "response":{"status":101,"httpVersion":"HTTP/1.1","headers":[],"content":{"size":0,"mimeType":"x-unknown"}},
 "timings":{"send":0,"wait":0,"receive":0},
 "_webSocketMessages":[{"type":"send","time":1795150801.5,"opcode":1,"data":"{\"type\":\"response.create\"}"},{"type":"receive","time":1795150802,"opcode":2,"data":"AAE="}]},
{"startedDateTime":"2026-11-20T05:00:02Z","time":3,"_resourceType":"xhr",
 "request":{"method":"GET","url":"https://chatgpt.com/x","httpVersion":"","headers":[]},
 "response":{"status":0,"statusText":"","httpVersion":"","headers":[],"content":{"size":0,"mimeType":"x-unknown"},"_error":"net::ERR_ABORTED"}}"#;

const MITMPROXY: &str = r#"
{"startedDateTime":"2026-11-20T05:00:00.000000+00:00","time":51,
 "request":{"method":"POST","url":"https://api.openai.com/v1/responses","httpVersion":"HTTP/2.0","cookies":[],
  "headers":[{"name":"content-encoding","value":"zstd"},{"name":"content-length","value":"40"}],"queryString":[],"headersSize":100,"bodySize":40,
  "postData":{"mimeType":"application/json","text":"{\"model\":\"m\"}","params":[]}},
 "response":{"status":200,"statusText":"OK","httpVersion":"HTTP/2.0","cookies":[],
  "headers":[{"name":"content-encoding","value":"gzip"},{"name":"content-type","value":"image/png"}],
  "content":{"size":4,"compression":0,"mimeType":"image/png","text":"iVBORw==","encoding":"base64"},"redirectURL":"","headersSize":10,"bodySize":4},
 "cache":{},"timings":{"connect":10,"ssl":4,"send":1,"receive":20,"wait":20},"serverIPAddress":"1.2.3.4"}"#;

const CHARLES: &str = r#"
{"startedDateTime":"2026-11-20T05:00:00.000Z","time":10,"_charlesStatus":"COMPLETE","connection":"7","serverIPAddress":"1.2.3.4",
 "request":{"method":"POST","url":"http://x/login","httpVersion":"HTTP/1.1","cookies":[],"headers":[{"name":"Content-Type","value":"application/x-www-form-urlencoded"}],
  "queryString":[],"postData":{"mimeType":"application/x-www-form-urlencoded","params":[{"name":"a b","value":"c&d"},{"name":"e"}]},"headersSize":120,"bodySize":11},
 "response":{"_charlesStatus":"COMPLETE","status":302,"statusText":"Found","httpVersion":"HTTP/1.1","cookies":[],"headers":[{"name":"Location","value":"/"}],
  "content":{"size":0,"mimeType":null},"redirectURL":"/","headersSize":50,"bodySize":0},
 "timings":{"dns":-1,"connect":-1,"ssl":-1,"send":0,"wait":9,"receive":1},"cache":{}}"#;

#[test]
fn the_archives_of_three_exporters_are_read() {
    for (creator, entries) in [("WebInspector", CHROME), ("mitmproxy", MITMPROXY), ("Charles", CHARLES)] {
        let lines = read(&archive(creator, entries)).unwrap();
        insta::assert_snapshot!(creator, lines.join("\n"));
    }
}

#[test]
fn an_archive_becomes_exchanges() {
    let found = exchanges(&records(&archive("WebInspector", CHROME))).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!((found[0].at, found[0].request.url.as_str()), (0.0, "/backend-api/codex/responses?a=b"));
    assert_eq!(found[0].answer.as_ref().map(|answer| (answer.at, answer.is_stream)), Some((100.0, true)));
    assert_eq!((found[1].is_upgrade(), found[1].messages.len()), (true, 2));
    assert_eq!(found[2].missing.as_deref(), Some("the exporter saw no response"));
    let found = exchanges(&records(&archive("mitmproxy", MITMPROXY))).unwrap();
    assert_eq!(zstd::decode_all(found[0].body()).unwrap(), b"{\"model\":\"m\"}");
    assert_eq!(found[0].answer.as_ref().unwrap().body, b"\x89PNG");
    let Entry::Request(request) = &records(&archive("Charles", CHARLES))[1].entry else { panic!() };
    assert_eq!(request.body.as_ref().unwrap().0, b"a+b=c%26d&e=");
}

#[test]
fn what_an_entry_lacks_is_said() {
    let mut said = String::new();
    for entry in [
        "{}",
        r#"{"startedDateTime":"yesterday"}"#,
        r#"{"startedDateTime":"2026-11-20T05:00:00Z"}"#,
        r#"{"startedDateTime":"2026-11-20T05:00:00Z","request":{"method":"GET"}}"#,
        r#"{"startedDateTime":"2026-11-20T05:00:00Z","request":{"method":"GET","url":"/","headers":{}}}"#,
        r#"{"startedDateTime":"2026-11-20T05:00:00Z","request":{"method":"GET","url":"/"},"response":{"status":200,"content":{"text":"%","encoding":"base64"}}}"#,
        r#"{"startedDateTime":"2026-11-20T05:00:00Z","request":{"method":"GET","url":"/"},"response":{"status":200,"content":{"text":"x","encoding":"rot13"}}}"#,
        r#"{"startedDateTime":"2026-11-20T05:00:00Z","request":{"method":"GET","url":"/"},"_webSocketMessages":[{"type":"both"}]}"#,
    ] {
        said += &format!("{entry}\n    failed to {}\n", read(&archive("x", entry)).unwrap_err());
    }
    insta::assert_snapshot!(said);
}
