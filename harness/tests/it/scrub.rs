//! Scrubbing, seen from outside: nothing of a secret survives in any encoding, and nothing else changes.
//!
//! Secrets are put together from parts, so that no file holds what a scanner of secrets would flag.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use harness::scrub::{Certificate, Error, Learner, Options, Report, verify_fixture};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Both passes and the verification over a session.
struct Scrubbed {
    lines: Vec<Vec<u8>>,
    findings: Vec<String>,
    report: Report,
}

impl Scrubbed {
    fn text(&self) -> String {
        String::from_utf8(self.lines.join(&b'\n')).unwrap()
    }

    fn value(&self, record: usize) -> Value {
        serde_json::from_slice(&self.lines[record]).unwrap()
    }
}

fn try_scrub<T: AsRef<[u8]>>(records: &[T], options: Options) -> Result<Scrubbed, Error> {
    let mut learner = Learner::new(options);
    for record in records {
        learner.learn(record.as_ref())?;
    }
    let mut scrubber = learner.finish()?;
    let mut lines = Vec::new();
    for record in records {
        let mut line = record.as_ref().to_vec();
        scrubber.scrub(&mut line)?;
        lines.push(line);
    }
    let mut verifier = scrubber.verifier();
    let mut findings = Vec::new();
    for line in &lines {
        findings.extend(verifier.check(line)?);
    }
    findings.extend(verifier.finish());
    let findings = findings.iter().map(ToString::to_string).collect();
    Ok(Scrubbed { lines, findings, report: scrubber.report() })
}

fn scrub_with<T: AsRef<[u8]>>(records: &[T], options: Options) -> Scrubbed {
    let scrubbed = try_scrub(records, options).unwrap();
    assert_eq!(scrubbed.findings, Vec::<String>::new(), "{}", scrubbed.text());
    scrubbed
}

fn scrub<T: AsRef<[u8]>>(records: &[T]) -> Scrubbed {
    scrub_with(records, Options::default())
}

const KEEP: Options = Options { keep_content: true };

/// A record with a body.
fn with_body(body: &Value) -> String {
    json!({"ts": "2026-11-20T05:56:44.294Z", "t_ms": 1, "type": "request", "direction": "client_to_upstream", "id": 1,
        "connection": 1, "method": "POST", "url": "/v1/responses", "http_version": "1.1",
        "headers": [["content-type", "application/json"]], "wire_len": 9, "body": body})
    .to_string()
}

/// One value of every kind that a detector knows without its place.
fn detected() -> Vec<(&'static str, String)> {
    let join = |parts: &[&str]| parts.concat();
    let long = "Zq7Lm2Xv9Rt4Kp8Wn3Yc6Bd1Fg5Hj0Aa";
    let claims =
        URL_SAFE_NO_PAD.encode(r#"{"sub":"user-Qm3k9Zt7Lp2Xw8","email":"mia.k@corp.io","exp":1795170000}"#);
    vec![
        ("openai-key", join(&["sk", "-proj-", long])),
        ("anthropic-key", join(&["sk", "-ant-", "api03-", long])),
        ("google-key", join(&["AI", "za", "Sy", long, "x"])),
        ("google-key", join(&["ya", "29.", long])),
        ("github-token", join(&["gh", "p_", long, "Zz99"])),
        ("github-token", join(&["github", "_pat_", long])),
        ("aws-key", join(&["AK", "IA", "Q3ZX7LM2RT9KP4WN"])),
        ("slack-token", join(&["xo", "xb-", "17653672481-", long])),
        ("stripe-key", join(&["sk", "_live_", long])),
        ("registry-token", join(&["np", "m_", long, "Zz99"])),
        ("huggingface-token", join(&["h", "f_", long])),
        ("gitlab-token", join(&["gl", "pat-", "Zq7Lm2Xv9Rt4Kp8Wn3Yc"])),
        ("provider-key", join(&["gs", "k_", long])),
        ("jwt", join(&["ey", "JhbGciOiJIUzI1NiJ9", ".", &claims, ".", long])),
        ("bearer-token", join(&["Bear", "er ", long])),
        ("basic-auth", join(&["Bas", "ic ", &STANDARD.encode("mia.kern:Tr0ub4dor&3")])),
        ("connection-string", join(&["postgres://svc:", "h4nd-w4sh-9", "@db.corp.io:5432/main"])),
        (
            "signed-url",
            join(&["https://b.s3.amazonaws.com/k?X-Amz-Sig", "nature=", "5f2b8c1d9e3a7f60415b8c2d9e3a7f60"]),
        ),
        ("environment-secret", join(&["STRIPE_WEBHOOK_", "SECRET=", "n0t-Very-l0ng"])),
        (
            "private-key",
            join(&[
                "-----BEGIN ",
                "PRIVATE KEY-----\n",
                long,
                long,
                "\n",
                long,
                "\n-----END ",
                "PRIVATE KEY-----",
            ]),
        ),
        ("email", "mia.kern@corp.io".to_owned()),
        ("user-name", "/home/miakern/src/main.rs".to_owned()),
        ("user-name", r"C:\Users\miakern\src".to_owned()),
        ("uuid", "7d9f2c4e-1b3a-6c5d-8e7f-901a2b3c4d5e".to_owned()),
        ("object-id", "resp_68a1f3c2e94b7d05861c".to_owned()),
        ("ip-address", "(10.21.33.47)".to_owned()),
        ("ip-address", "(2a02:8109:9c80::c4f2)".to_owned()),
    ]
}

/// The part of a value that must be gone: what is no letter of its kind.
fn core_of(value: &str) -> String {
    let long = "Zq7Lm2Xv9Rt4Kp8Wn3Yc";
    if value.contains(long) {
        return long.to_owned();
    }
    let words = [
        "miakern",
        "h4nd-w4sh-9",
        "5f2b8c1d9e3a7f60415b8c2d9e3a7f60",
        "n0t-Very-l0ng",
        "corp.io",
        "Tr0ub4dor",
        "Q3ZX7LM2RT9KP4WN",
    ];
    let found = words.iter().find(|word| value.contains(**word));
    found.map_or_else(
        || value.trim_matches(|letter| "()".contains(letter)).to_owned(),
        |word| (*word).to_owned(),
    )
}

type Encoding = (&'static str, fn(&str) -> String);

/// The ways in which a value can be hidden in a string of a body.
fn encodings() -> Vec<Encoding> {
    vec![
        ("plain", |value| format!("see {value} there")),
        ("JSON in a string", |value| json!({"note": format!("see {value}")}).to_string()),
        ("JSON in JSON in a string", |value| {
            json!({"note": json!({"inner": [format!("see {value}")]}).to_string()}).to_string()
        }),
        ("percent", |value| {
            value.bytes().fold("q=".to_owned(), |mut text, byte| {
                let _ = write!(text, "%{byte:02X}");
                text
            })
        }),
        ("unicode escapes", |value| {
            format!(
                "{{\"note\":\"{}\"}}",
                value.encode_utf16().fold(String::new(), |mut text, unit| {
                    let _ = write!(text, "\\u{unit:04x}");
                    text
                })
            )
        }),
        ("base64", |value| STANDARD.encode(format!("see {value} there"))),
        ("base64url within text", |value| {
            format!("token is: {} ok", URL_SAFE_NO_PAD.encode(format!("a see {value} there")))
        }),
        ("hex", |value| {
            format!("see {value} there").bytes().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        }),
        ("events", |value| {
            format!("event: x\ndata: {}\n\n: see {value}\n\n", json!({"note": format!("see {value}")}))
        }),
        ("split data lines", |value| {
            format!("data: {{\"note\":\ndata: {}}}\n\n", json!(format!("see {value}")))
        }),
        ("base64 in JSON in base64", |value| {
            STANDARD.encode(json!({"note": STANDARD.encode(format!("see {value} there"))}).to_string())
        }),
    ]
}

/// Everything that can be read from a text by decoding it, one within the other.
fn everything(text: &str, depth: usize, all: &mut String) {
    all.push_str(text);
    all.push('\n');
    if depth == 0 {
        return;
    }
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        every_string(&value, depth - 1, all);
    }
    for line in text.lines().filter_map(|line| line.strip_prefix("data:")) {
        everything(line.trim(), depth - 1, all);
    }
    let joined: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data:")).collect();
    if joined.len() > 1 {
        everything(&joined.join("\n"), depth - 1, all);
    }
    let is_digit = |letter: char| letter.is_ascii_alphanumeric() || "+/-_".contains(letter);
    for run in text.split(|letter| !is_digit(letter)).filter(|run| run.len() >= 8) {
        let decoded = URL_SAFE_NO_PAD
            .decode(run)
            .or_else(|_| STANDARD.decode(format!("{run}{}", "=".repeat((4 - run.len() % 4) % 4))));
        if let Ok(Ok(decoded)) = decoded.map(String::from_utf8) {
            everything(&decoded, depth - 1, all);
        }
        let bytes: Option<Vec<u8>> =
            (0..run.len() / 2).map(|at| u8::from_str_radix(run.get(2 * at..2 * at + 2)?, 16).ok()).collect();
        if let Some(Ok(decoded)) = bytes.map(String::from_utf8) {
            everything(&decoded, depth - 1, all);
        }
    }
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let found = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *byte == b'%');
        decoded.push(found.unwrap_or(*byte));
        rest = if found.is_some() { &tail[2..] } else { tail };
    }
    if decoded != text.as_bytes() {
        everything(&String::from_utf8_lossy(&decoded), depth - 1, all);
    }
}

fn every_string(value: &Value, depth: usize, all: &mut String) {
    match value {
        Value::String(text) => everything(text, depth, all),
        Value::Array(values) => values.iter().for_each(|value| every_string(value, depth, all)),
        Value::Object(entries) => entries.iter().for_each(|(key, value)| {
            everything(key, depth, all);
            every_string(value, depth, all);
        }),
        _ => {}
    }
}

#[test]
fn every_kind_is_found_in_every_encoding() {
    let mut survivors = Vec::new();
    for (kind, value) in detected() {
        for (encoding, encode) in encodings() {
            for keep_content in [false, true] {
                let record = with_body(&json!({"model": "gpt-5.5", "odd": encode(&value)}));
                let scrubbed = try_scrub(&[&record], Options { keep_content }).unwrap();
                let mut all = String::new();
                everything(&scrubbed.text(), 7, &mut all);
                let core = core_of(&value);
                if all.contains(&core) || all.to_lowercase().contains(&core.to_lowercase()) {
                    survivors.push(format!("{kind} as {encoding}, kept {keep_content}: {}", scrubbed.text()));
                }
                if !scrubbed.findings.is_empty() {
                    survivors.push(format!(
                        "{kind} as {encoding}, kept {keep_content}: {:?} {}",
                        scrubbed.findings,
                        scrubbed.text()
                    ));
                }
                if scrubbed.text().len() != record.len() {
                    survivors.push(format!("{kind} as {encoding}: changed its length"));
                }
            }
        }
    }
    assert!(survivors.is_empty(), "{} survive:\n{}", survivors.len(), survivors.join("\n"));
}

#[test]
fn what_one_place_tells_is_found_in_every_encoding_elsewhere() {
    let secret = ["Winter", "-mango-", "7719"].concat();
    let mut survivors = Vec::new();
    for (encoding, encode) in encodings() {
        let typed = json!({"type": "request", "headers": [["X-Api-Key", &secret]]}).to_string();
        let other = with_body(&json!({"odd": encode(&secret)}));
        // Before the place that tells, and behind it.
        for records in [[&typed, &other], [&other, &typed]] {
            let scrubbed = scrub_with(&records, KEEP);
            let mut all = String::new();
            everything(&scrubbed.text(), 7, &mut all);
            if all.contains(&secret) || !all.contains("Xxxxxx-xxxxx-0001") {
                survivors.push(format!("{encoding}: {}", scrubbed.text()));
            }
        }
    }
    assert!(survivors.is_empty(), "{}", survivors.join("\n"));
}

#[test]
fn compressed_bodies_are_scrubbed_and_their_lengths_stay_true() {
    let secret = ["Winter", "-mango-", "7719"].concat();
    let plain = json!({"odd": format!("see {secret}"), "session_id": "7d9f2c4e-1b3a-4c5d-8e7f-901a2b3c4d5e"})
        .to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(plain.as_bytes()).unwrap();
    let zstd = zstd::encode_all(plain.as_bytes(), 3).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(plain.as_bytes()).unwrap();
    // One meta-block that is not compressed, and an empty last one (RFC 7932 §9.2).
    let header = ((plain.len() as u32 - 1) << 3 | 1 << 19) << 1;
    let brotli = [&header.to_le_bytes()[..3], plain.as_bytes(), &[3]].concat();
    for (coding, bytes) in [
        ("gzip", gzip.finish().unwrap()),
        ("zstd", zstd),
        ("deflate", zlib.finish().unwrap()),
        ("br", brotli),
    ] {
        let length = bytes.len().to_string();
        let record = json!({"type": "request", "headers": [["X-Api-Key", &secret], ["Content-Encoding", coding], ["Content-Length", length]],
            "body": {"base64": STANDARD.encode(&bytes)}, "wire_len": bytes.len()}).to_string();
        let scrubbed = scrub(&[record]).value(0);
        let body = STANDARD.decode(scrubbed["body"]["base64"].as_str().unwrap()).unwrap();
        let mut text = String::new();
        match coding {
            "gzip" => flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).map(|_| ()),
            "deflate" => flate2::read::ZlibDecoder::new(&body[..]).read_to_string(&mut text).map(|_| ()),
            // As before: three bytes, the text, one byte.
            "br" => (&body[3..body.len() - 1]).read_to_string(&mut text).map(|_| ()),
            _ => zstd::Decoder::new(&body[..]).unwrap().read_to_string(&mut text).map(|_| ()),
        }
        .unwrap();
        assert_eq!(
            text,
            r#"{"odd":"see Xxxxxx-xxxxx-0001","session_id":"00000000-0000-4000-8000-000000000001"}"#
        );
        assert_eq!(scrubbed["wire_len"], body.len());
        assert_eq!(scrubbed["headers"][2][1], body.len().to_string());
    }
    let cut = json!({"type": "request", "body": {"base64": STANDARD.encode([0x28, 0xB5, 0x2F, 0xFD, 9, 9])}})
        .to_string();
    assert!(matches!(try_scrub(&[cut], Options::default()), Err(Error::Compressed { record: 1, .. })));
}

#[test]
fn a_body_in_an_encoding_that_is_not_known_is_refused_by_its_place() {
    // Neither a whole brotli stream, nor deflate without its frame, nor one encoding within another.
    let bytes = STANDARD.encode([0x0B, 0x02, 0x80, 0xC3, 0x41]);
    for coding in ["br", "deflate", "gzip, br", "compress", "GZIP"] {
        let after =
            json!({"type": "response", "body": {"base64": bytes}, "headers": [["Content-Encoding", coding]]});
        let before =
            json!({"type": "response", "headers": {"content-encoding": coding}, "body": {"base64": bytes}});
        for record in [after, before] {
            let Err(Error::Compressed { record: 1, place }) =
                try_scrub(&[record.to_string()], Options::default())
            else {
                panic!("{coding} was not refused")
            };
            assert!(place.starts_with("/body/base64: ") && place.contains(&coding.to_lowercase()), "{place}");
        }
    }
    // What a recorder has decoded, and what was never encoded.
    scrub(&[
        json!({"type": "response", "headers": [["content-encoding", "gzip"]], "body": {"base64": STANDARD.encode("plain")}}).to_string(),
        json!({"type": "response", "headers": [["content-encoding", "identity"]], "body": {"base64": bytes}}).to_string(),
        json!({"type": "response", "headers": [["content-encoding", "br"]], "body": "plain"}).to_string(),
    ]);
}

#[test]
fn values_in_base64_that_is_wrapped_into_lines_are_found() {
    let secret = ["Winter", "-mango-", "7719-", "of-the-long-road"].concat();
    let key = json!({"type": "request", "headers": [["X-Api-Key", &secret]]}).to_string();
    let detected = ["ghp", "_", "Zq7Lm2Xv9Rt4Kp8Wn3Yc6Bd1Fg5Hj0Aa"].concat();
    for (value, before, end) in
        [(&secret, 40, "\r\n"), (&secret, 41, "\n"), (&detected, 42, "\r\n"), (&detected, 99, "\n")]
    {
        let plain = format!("{} {value} {}", "-".repeat(before), "-".repeat(60));
        let digits = STANDARD.encode(&plain);
        let lines: Vec<_> =
            digits.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let wrapped = lines.join(end);
        let text = json!({"type": "request", "odd": wrapped}).to_string();
        let scrubbed = scrub(&[key.clone(), text.clone()]);
        let again = scrubbed.value(1)["odd"].as_str().unwrap().to_owned();
        assert_eq!(again.len(), wrapped.len());
        let decoded = STANDARD.decode(again.split(end).collect::<String>()).unwrap();
        assert!(!String::from_utf8(decoded).unwrap().contains(&value[4..]), "{again}");
        // The verification sees it by itself.
        let mut learner = Learner::new(Options::default());
        learner.learn(key.as_bytes()).unwrap();
        let mut verifier = learner.finish().unwrap().verifier();
        assert_eq!(verifier.check(text.as_bytes()).unwrap().len(), 1, "{value} at {before}");
    }
}

#[test]
fn what_comes_again_is_scrubbed_and_counted_every_time() {
    let secret = ["Winter", "-mango-", "7719"].concat();
    let pad = "The tool does as it is told, and says so. ".repeat(12);
    let tool = |name: &str| json!({"type": "function", "name": name, "description": pad, "api_key": secret, "user_id": "u-4711-ab"});
    let bodies = [
        json!({"tools": [tool("a"), tool("b")]}),
        json!({"tools": [tool("a"), tool("b"), tool("c")]}),
        json!({"tools": [tool("b"), tool("a"), tool("c")], "input": []}),
        json!({"tools": [tool("c"), tool("b"), tool("a")], "input": []}),
    ];
    let records: Vec<_> = bodies.iter().map(|body| with_body(&Value::String(body.to_string()))).collect();
    let together = scrub(&records);
    for (at, record) in records.iter().enumerate() {
        assert_eq!(together.lines[at], scrub(std::slice::from_ref(record)).lines[0], "record {at}");
    }
    let keys = together.report.rules.iter().find(|rule| rule.rule == "api-key").expect("keys were replaced");
    assert_eq!(keys.count, 11, "one for every tool");
}

#[test]
fn the_verification_joins_pieces_of_what_comes_again() {
    let secret = ["sk", "-proj-", "Zq7Lm2Xv9Rt4Kp8Wn3Yc6Bd1"].concat();
    let piece = |text: &str| json!({"type": "output_text", "annotations": [], "text": text});
    let body = |pieces: &[&str]| {
        let pieces: Vec<_> = pieces.iter().map(|text| piece(text)).collect();
        json!({"type": "websocket_message", "id": 1, "message": {"content": pieces}}).to_string()
    };
    let benign = scrub(&[body(&["nothing"])]);
    assert!(benign.findings.is_empty());
    let mut verifier = Learner::new(KEEP).finish().unwrap().verifier();
    let (head, tail) = secret.split_at(8);
    for pieces in [&["one ", "two "][..], &["one ", head], &["two ", head, tail]] {
        assert_eq!(verifier.check(body(pieces).as_bytes()).unwrap(), [], "{pieces:?}");
    }
    assert_eq!(verifier.finish().len(), 1, "the head was joined though it was known");
}

#[test]
fn what_is_benign_stays_byte_for_byte() {
    let records = [
        concat!(
            r#"{ "ts":"2026-01-01T00:00:00.294Z" ,"t_ms":332.50,"type":"request","id":7, "url":"/v1/models?limit=20&client_version=0.169.0","#,
            r#""headers":[["Host","127.0.0.1:8080"],["accept","*/*"],["Accept","*/*"],["user-agent","codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm"],"#,
            r#"["anthropic-beta","oauth-2025-04-20,context-1m-2025-08-07"],["x-ratelimit-reset-tokens","6m0s"],["sec-websocket-key","dGhlIHNhbXBsZSBub25jZQ=="]],"wire_len":0}"#
        ),
        concat!(
            r#"{"type":"response","id":7,"headers":{"content-type":"application/json"},"body":{"usage":{"input_tokens":1234567,"max_tokens":64000},"#,
            r#""data":[{"id":"gpt-5.5","slug":"claude-sonnet-4-20250514"}],"service_tiers":[{"id":"priority"}],"n":[1.0,-0e0,1E5]}}"#
        ),
        concat!(
            r#"{"type":"request","body":{"tools":[{"type":"function","name":"login","parameters":{"type":"object","properties":"#,
            r#"{"token":{"type":"string"},"id":{"type":"string","enum":["id","token"]},"password":{"type":"string"}},"required":["token","id"]}}],"#,
            r#""commit":"2b1e0f6a9d3c4b5a69788796a5b4c3d2e1f00112","integrity":"sha512-Zk1hcm0gbG9jayBmaWxlIGhhc2hlcyBhcmUgbm90IHNlY3JldHM=","#,
            r#""reasoning":{"effort":"low","summary":"auto"},"include":["reasoning.encrypted_content"],"tool_choice":"auto","status":"completed"}}"#
        ),
        "{\"type\":\"sse_stream\",\"stream\":\"event: ping\\r\\ndata: {\\\"type\\\": \\\"ping\\\"}\\r\\n\\r\\n: keep\\r\\n\\r\\n\",\"writes\":[[1.5,20]]}",
    ];
    let scrubbed = scrub(&records);
    for (line, record) in scrubbed.lines.iter().zip(records) {
        assert_eq!(std::str::from_utf8(line).unwrap(), record);
    }
    assert!(scrubbed.report.rules.is_empty(), "{:?}", scrubbed.report);
    let prose = with_body(
        &json!({"content": "fn token(id: &str) -> Option<Token> { max_tokens.get(id) } // as of v1.2.3, see #42"}),
    );
    let kept = scrub_with(&[prose.replace("2026-11-20T05:56:44", "2026-01-01T00:00:00")], KEEP);
    assert!(kept.report.rules.is_empty(), "{:?}", kept.report);
}

#[test]
fn ids_times_and_headers_keep_their_shape_and_their_links() {
    let records = [
        r#"{"ts":"2026-11-20T05:56:44.294Z","type":"request","id":1,"url":"/v1/sessions/7d9f2c4e-1b3a-7c5d-8e7f-901a2b3c4d5e/x?key=Qw3rty-7&user=ann%40corp.io","headers":[["authorization","Bearer abc.DEF-123"],["Cookie","sid=a1B2c3D4e5; theme=dark"],["x-codex-window-id","7d9f2c4e-1b3a-7c5d-8e7f-901a2b3c4d5e:2"],["x-codex-turn-metadata","{\"session_id\":\"7D9F2C4E-1B3A-7C5D-8E7F-901A2B3C4D5E\",\"turn_started_at_unix_ms\":1795154205000}"],["chatgpt-account-id","acct_Ab12"]],"body":{"previous_response_id":"resp_0aB1","input":[{"type":"message","role":"user","content":"Hi, Ann!"},{"type":"function_call","call_id":"call_Zz9","arguments":"{\"path\":\"a b\",\"n\":12}"}]}}"#,
        r#"{"ts":"2026-11-20T06:56:45.000Z","type":"response","id":1,"headers":{"date":"Fri, 20 Nov 2026 05:56:45 GMT","set-cookie":"sid=a1B2c3D4e5; Path=/; Expires=Fri, 20 Nov 2026 06:56:44 GMT","x-codex-primary-reset-at":"1795154264","x-codex-primary-reset-after-seconds":"300"},"body":{"id":"resp_0aB1","created_at":1795154204,"usage":{"input_tokens":3},"error":{"message":"no credit left for ann@corp.io","code":"usage_limit_reached"}}}"#,
    ];
    insta::assert_snapshot!(scrub(&records).text(), @r#"
    {"ts":"2026-01-01T00:00:00.294Z","type":"request","id":1,"url":"/v1/sessions/00000000-0000-7000-8000-000000000001/x?key=Xx0xxx-1&user=us1%40xx.test","headers":[["authorization","Bearer xxx.XXX-001"],["Cookie","sid=x0X0x0X0x2; theme=xxx1"],["x-codex-window-id","00000000-0000-7000-8000-000000000001:2"],["x-codex-turn-metadata","{\"session_id\":\"00000000-0000-7000-8000-000000000001\",\"turn_started_at_unix_ms\":1767225601000}"],["chatgpt-account-id","acct_Xx01"]],"body":{"previous_response_id":"resp_0xX1","input":[{"type":"message","role":"user","content":"Xx, Xxx!"},{"type":"function_call","call_id":"call_Xx1","arguments":"{\"path\":\"x x\",\"n\":10}"}]}}
    {"ts":"2026-01-01T01:00:01.000Z","type":"response","id":1,"headers":{"date":"Thu, 01 Jan 2026 00:00:01 GMT","set-cookie":"sid=x0X0x0X0x2; Path=/; Expires=Thu, 01 Jan 2026 01:00:00 GMT","x-codex-primary-reset-at":"1767225660","x-codex-primary-reset-after-seconds":"300"},"body":{"id":"resp_0xX1","created_at":1767225600,"usage":{"input_tokens":3},"error":{"message":"no credit left for us1@xx.test","code":"usage_limit_reached"}}}
    "#);
}

#[test]
fn scrubbing_twice_is_scrubbing_once_and_always_the_same() {
    let records: Vec<String> = detected()
        .iter()
        .flat_map(|(_, value)| {
            encodings().into_iter().map(move |(_, encode)| {
                with_body(&json!({"odd": encode(value), "account_id": format!("acct_Ab{}", value.len())}))
            })
        })
        .collect();
    for options in [Options::default(), KEEP] {
        let once = try_scrub(&records, options).unwrap();
        let again = try_scrub(&records, options).unwrap();
        let twice = try_scrub(&once.lines, options).unwrap();
        for (at, (line, second)) in once.lines.iter().zip(&twice.lines).enumerate() {
            assert_eq!(
                String::from_utf8_lossy(line),
                String::from_utf8_lossy(second),
                "from {}",
                records[at]
            );
        }
        assert_eq!(once.lines, again.lines);
        assert_eq!(once.report, again.report);
    }
}

#[test]
fn values_split_over_pieces_of_a_stream_are_found() {
    let secret = ["sk", "-proj-", "Zq7Lm2Xv9Rt4Kp8Wn3Yc6Bd1"].concat();
    let pieces = ["my key is ", &secret[..7], &secret[7..20], &secret[20..], " ok"];
    let event = |piece: &&str| {
        json!({"type": "response.output_text.delta", "item_id": "msg_1", "delta": piece}).to_string()
    };
    let stream: String = pieces.iter().map(|piece| format!("event: x\ndata: {}\n\n", event(piece))).collect();
    let sse = json!({"type": "sse_stream", "id": 1, "stream": stream}).to_string();
    let socket: Vec<String> = pieces
        .iter()
        .map(|piece| json!({"type": "websocket_message", "id": 1, "message": event(piece)}).to_string())
        .collect();
    for records in [vec![sse], socket] {
        let text = scrub_with(&records, KEEP).text();
        assert!(!text.contains("Lm2Xv9") && !text.contains("8Wn3Yc6Bd1"), "{text}");
        assert!(text.contains("my key is") && text.contains("Xx1"), "{text}");
        let filled = scrub(&records).text();
        assert!(!filled.contains("my key"), "{filled}");
    }
}

#[test]
fn pieces_of_arguments_make_the_whole() {
    let whole = r#"{"command":["ls","/home/miakern"],"timeout":1500,"ok":true}"#;
    let (head, tail) = whole.split_at(17);
    let event = |piece: &str| {
        json!({"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": piece})
            .to_string()
    };
    let done = json!({"type": "response.output_item.done", "item": {"type": "function_call", "id": "fc_1", "arguments": whole}}).to_string();
    let records: Vec<String> = [event(head), event(tail), done]
        .iter()
        .map(|message| json!({"type": "websocket_message", "id": 1, "message": message}).to_string())
        .collect();
    let scrubbed = scrub(&records);
    let message =
        |at: usize| serde_json::from_str::<Value>(scrubbed.value(at)["message"].as_str().unwrap()).unwrap();
    let joined =
        format!("{}{}", message(0)["delta"].as_str().unwrap(), message(1)["delta"].as_str().unwrap());
    assert_eq!(joined, r#"{"command":["xx","/xxxx/xxxxxxx"],"timeout":1000,"ok":true}"#);
    assert_eq!(message(2)["item"]["arguments"], joined);
}

#[test]
fn a_certificate_is_of_its_bytes_alone() {
    let scrubbed = scrub(&[with_body(&json!({"session_id": "7d9f2c4e-1b3a-7c5d-8e7f-901a2b3c4d5e"}))]);
    let bytes = scrubbed.lines.join(&b'\n');
    let certificate = Certificate::new(&bytes[..], Options::default(), &scrubbed.report).unwrap();
    let text = serde_json::to_string(&certificate).unwrap();
    assert!(!text.contains("7d9f2c4e"), "{text}");
    assert_eq!(serde_json::from_str::<Certificate>(&text).unwrap(), certificate);
    verify_fixture(&bytes, &certificate).unwrap();
    let mut other = bytes.clone();
    other.push(b'\n');
    verify_fixture(&other, &certificate).unwrap_err();
    let leaked = with_body(&json!({"odd": format!("mail {}", ["mia", "@", "corp.io"].concat())}));
    let forged = Certificate::new(leaked.as_bytes(), Options::default(), &scrubbed.report).unwrap();
    let message = verify_fixture(leaked.as_bytes(), &forged).unwrap_err().to_string();
    assert!(
        message.contains("/body/odd") && message.contains("email") && !message.contains("mia"),
        "{message}"
    );
}

#[test]
fn what_is_nested_too_deeply_is_refused() {
    for depth in [200, 300, 100_000] {
        let body = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let record = format!("{{\"type\":\"request\",\"body\":{body}}}");
        assert!(try_scrub(&[record], Options::default()).is_err(), "{depth}");
    }
    let mail = ["mia", "@", "corp.io"].concat();
    let wrapped = (0..12).fold(mail, |text, _| json!({"note": text}).to_string());
    let record = json!({"type": "request", "body": wrapped}).to_string();
    assert!(matches!(try_scrub(&[record], Options::default()), Err(Error::TooDeep { record: 1 })));
}

#[test]
fn the_order_of_records_changes_numbers_and_no_links() {
    let record = |account: &str, call: &str| {
        with_body(&json!({"account_id": account, "call_id": call, "odd": format!("for {account}")}))
    };
    let records = [
        record("acct_Mia77", "call_Ab1Cd2"),
        record("acct_Bo4455", "call_Ab1Cd2"),
        record("acct_Mia77", "call_Zz9Yy8"),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let ordered: Vec<_> = order.iter().map(|at| &records[*at]).collect();
        let scrubbed = scrub(&ordered);
        let made = |record: usize, key: &str| {
            let at = order.iter().position(|at| *at == record).unwrap();
            scrubbed.value(at)["body"][key].as_str().unwrap().to_owned()
        };
        assert_eq!(made(0, "account_id"), made(2, "account_id"));
        assert_ne!(made(0, "account_id"), made(1, "account_id"));
        assert_eq!(made(0, "call_id"), made(1, "call_id"));
        assert_ne!(made(0, "call_id"), made(2, "call_id"));
        for record in 0..3 {
            assert_eq!(made(record, "odd"), format!("for {}", made(record, "account_id")));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_values_never_share_a_placeholder(ids in prop::collection::btree_set("[a-zA-Z0-9]{6,9}", 2..12), mails in prop::collection::btree_set("[a-z]{3,6}@[a-z]{3,6}\\.(io|dev)", 2..6)) {
        let ids: Vec<_> = ids.into_iter().map(|id| format!("call_{id}")).collect();
        let record = with_body(&json!({"call_ids": ids, "emails": mails}));
        let scrubbed = scrub(&[&record]).value(0);
        let made: std::collections::BTreeSet<String> = scrubbed["body"]["call_ids"].as_array().unwrap().iter().map(ToString::to_string).collect();
        prop_assert_eq!(made.len(), ids.len());
        let made: std::collections::BTreeSet<String> = scrubbed["body"]["emails"].as_array().unwrap().iter().map(ToString::to_string).collect();
        prop_assert_eq!(made.len(), mails.len());
    }

    #[test]
    fn any_bytes_can_be_scrubbed(line in prop::collection::vec(prop_oneof![prop::sample::select(b"{}[]\":,\\u0a1%=@./-_ e".to_vec()), any::<u8>()], 0..120)) {
        let _ = try_scrub(&[line], KEEP);
    }

    #[test]
    fn any_text_in_any_place_keeps_its_length(text in "\\PC{0,80}", key in "[a-z_]{1,12}|authorization|cookie|arguments|session_id|delta|url|expires_at|image_url", keep_content: bool) {
        for record in [with_body(&json!({&key: &text})), json!({"type": "request", "url": &text, "headers": [[&key, &text]]}).to_string(), json!({"type": "sse_stream", "id": 1, "head": &text, "stream": format!("data: {text}\n\n")}).to_string()] {
            if let Ok(scrubbed) = try_scrub(&[&record], Options { keep_content }) {
                prop_assert_eq!(scrubbed.lines[0].len(), record.len());
                prop_assert!(serde_json::from_slice::<Value>(&scrubbed.lines[0]).is_ok());
                // A broken percent escape may have become a whole one, with no room for a number: that fails closed.
                match try_scrub(&scrubbed.lines, Options { keep_content }) {
                    Ok(twice) => prop_assert_eq!(String::from_utf8_lossy(&twice.lines[0]), String::from_utf8_lossy(&scrubbed.lines[0])),
                    Err(error) => prop_assert!(matches!(error, Error::NoRoom { .. }) && text.contains('%'), "{error}"),
                }
            }
        }
    }
}

#[test]
fn a_token_with_claims_stays_one_and_its_claims_stay_linked() {
    let claims = URL_SAFE_NO_PAD.encode(r#"{"iat":1700000000,"exp":4102444800,"account":"acct-Client-77"}"#);
    let header = ["ey", "JhbGciOiJub25lIiwidHlwIjoiSldUIn0"].concat();
    let token = format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode("unsigned 1"));
    let record = json!({"ts": "2026-11-20T05:56:44.294Z", "t_ms": 1, "type": "request", "id": 1, "method": "GET",
        "url": "/", "headers": [["authorization", format!("Bearer {token}")], ["x-account-id", "acct-Client-77"]],
        "head": format!("GET / HTTP/1.1\r\nauthorization: Bearer {token}\r\n\r\n")});
    let scrubbed = scrub(&[record.to_string()]);
    let value = scrubbed.value(0);
    let shown = value["headers"][0][1].as_str().unwrap().to_owned();
    assert!(shown.starts_with(&format!("Bearer {header}.ey")), "{shown}");
    assert_eq!(shown.len(), "Bearer ".len() + token.len());
    assert!(value["head"].as_str().unwrap().contains(&shown), "one token, one placeholder");
    let claims = URL_SAFE_NO_PAD.decode(shown.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["account"], value["headers"][1][1], "the claim still names the account");
    assert!(!scrubbed.text().contains("Client-77"));
}

#[test]
fn lines_of_a_stream_that_are_no_data_are_looked_at_once() {
    for text in
        ["\u{feff}event: x\ndata: {}\n\n", "id: 7\nretry: 10\nevent: x\ndata: {}\n\n", "retry: 10\n\n"]
    {
        let record = json!({"ts": "2026-11-20T05:56:44.294Z", "t_ms": 1, "type": "sse_stream", "id": 1,
            "status": 200, "headers": [], "stream": text, "writes": [[1.0, text.len()]], "end": "eof"});
        assert_eq!(scrub(&[record.to_string()]).value(0)["stream"], text);
    }
}
