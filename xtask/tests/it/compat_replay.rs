//! `compat-replay` and `compat-capture` as a person runs them, with nothing between client and upstream.

use std::path::Path;
use std::process::{Command, Output};

fn xtask(words: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(words)
        .current_dir(root)
        .output()
        .expect("the program was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_fixture_conforms_with_nothing_in_between_and_the_report_is_written() {
    let place = tempfile::tempdir().unwrap();
    let report = place.path().join("report");
    let words = ["compat-replay", "--direct", "--fixture", "claude/*/api-key-tool", "--json", "--report"];
    let output = xtask(&[&words[..], &[report.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let fixture = &document["fixtures"][0];
    assert_eq!((&document["expect"], &fixture["client"]), (&"transparent".into(), &"claude".into()));
    assert_eq!(document["fixtures"].as_array().unwrap().len(), 1);
    assert_eq!(fixture["findings"], serde_json::json!([]));
    for name in ["report.html", "report.json", "report.schema.json", "junit.xml", "summary.md"] {
        assert!(report.join(name).is_file(), "{name}");
    }
}

#[test]
fn what_cannot_be_replayed_is_said_with_a_documented_exit_code() {
    for (words, code, said) in [
        (&["compat-replay", "--direct", "--fixture", "nobody/*"][..], 4, "no fixture matches"),
        (&["compat-replay", "--direct", "--fixtures-dir", "nowhere"], 3, "nowhere"),
        (&["compat-replay", "--target", "http://127.0.0.1:1"], 2, "--upstream-listen"),
        (&["compat-replay", "--direct", "--speed", "0"], 2, "not above 0"),
        (
            &["compat-replay", "--proxy", "/nowhere/proxy", "--fixture", "codex/*/custom-sse-simple"],
            3,
            "/nowhere",
        ),
        (&["compat-capture", "--input", "/nowhere.jsonl", "--stdout"], 3, "/nowhere.jsonl"),
    ] {
        let output = xtask(words);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
        assert!(stderr.contains(said), "{words:?}: {stderr}");
    }
}

#[test]
fn a_recording_becomes_a_fixture_that_is_the_same_the_next_time() {
    let place = tempfile::tempdir().unwrap();
    let recording = place.path().join("a.jsonl");
    let token = ["Bea", "rer ", "tok-", "Qm3k9Zt7Lp2Xw8"].concat();
    let line = serde_json::json!({ "ts": "2026-11-20T05:56:40.692Z", "t_ms": 1.0, "type": "request", "id": 1,
        "direction": "client_to_upstream", "connection": 1, "method": "GET", "url": "/", "http_version": "1.1",
        "headers": [["authorization", token]], "wire_len": 0 });
    std::fs::write(&recording, format!("{line}\n")).unwrap();
    let fixture = place.path().join("b.jsonl");
    let words =
        ["compat-capture", "--input", recording.to_str().unwrap(), "--output", fixture.to_str().unwrap()];
    let output = xtask(&words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let scrubbed = std::fs::read_to_string(&fixture).unwrap();
    assert!(!scrubbed.contains("Qm3k9Zt7Lp2Xw8") && scrubbed.len() == line.to_string().len() + 1);
    let again = [&words[..], &["--check"]].concat();
    assert_eq!(xtask(&again).status.code(), Some(0));
    std::fs::write(&fixture, scrubbed.replace("GET", "PUT")).unwrap();
    let output = xtask(&again);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/method"), "{}", text(&output.stderr));
    std::fs::write(&recording, "{\"type\":\n").unwrap();
    let output = xtask(&words);
    assert_eq!(output.status.code(), Some(1), "a recording that cannot be read is a finding");
    assert!(text(&output.stderr).contains("a.jsonl:1:"), "{}", text(&output.stderr));
}

#[test]
fn a_big_fixture_is_packed_and_a_replay_does_not_care() {
    let place = tempfile::tempdir().unwrap();
    let recording = place.path().join("big.jsonl");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let stream = format!("data: {}\n\n", "word ".repeat(250_000));
    let times = |entry: serde_json::Value| {
        let mut record = serde_json::json!({ "ts": "2026-11-20T05:56:40.692Z", "t_ms": 1.0, "id": 1 });
        record.as_object_mut().unwrap().extend(entry.as_object().unwrap().clone());
        format!("{record}\n")
    };
    let request = times(serde_json::json!({ "type": "request", "direction": "client_to_upstream",
        "connection": 1, "method": "GET", "url": "/stream", "http_version": "1.1",
        "headers": [["host", "localhost"]], "wire_len": 0 }));
    let answer = times(serde_json::json!({ "type": "sse_stream", "direction": "upstream_to_client",
        "status": 200, "headers": [], "head": head, "stream": stream, "writes": [[1.0, stream.len()]],
        "end": "eof" }));
    std::fs::write(&recording, request + &answer).unwrap();
    let folder = place.path().join("library");
    let words = ["compat-capture", "-i", recording.to_str().unwrap(), "--out-dir", folder.to_str().unwrap()];
    // What an earlier version left is no second fixture of the name.
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("big.jsonl"), "").unwrap();
    let output = xtask(&words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["big.jsonl.cert.json", "big.jsonl.zst"]);
    let packed = folder.join("big.jsonl.zst");
    assert!(std::fs::metadata(&packed).unwrap().len() < 10_000);
    assert_eq!(xtask(&[&words[..], &["--check"]].concat()).status.code(), Some(0));
    let words =
        ["compat-replay", "--direct", "--no-probes", "--fixtures-dir", folder.to_str().unwrap(), "--json"];
    let output = xtask(&words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["fixtures"][0]["name"], "big");
    std::fs::write(&packed, "{}\n").unwrap();
    let output = xtask(&words);
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stderr);
    assert!(said.contains("big.jsonl.zst") && said.contains("does not unpack"), "{said}");
}
