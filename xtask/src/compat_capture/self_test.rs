//! The scrubber against a session that is made of secrets: nothing of them may survive.
//!
//! The secrets are put together when it runs, so that no file holds what a scanner of secrets would flag.
//! The same is proven kind by kind in the tests of `harness::scrub`; this is for a machine without those.

use std::fmt::Write as _;

use anyhow::Result;
use harness::scrub::{Error, Learner, Options};
use serde_json::json;

use crate::exit::Exit;
use crate::terminal;

/// The part that every planted secret has, and that must be gone.
const MARK: &str = "Zq7Lm2Xv9Rt4Kp8Wn3Yc";

pub(super) fn run() -> Result<Exit> {
    let mut problems = Vec::new();
    let mut planted = 0;
    for keep_content in [false, true] {
        let options = Options { keep_content };
        for secret in secrets() {
            let records: Vec<String> = encodings(&secret).into_iter().map(|text| record(&text)).collect();
            planted += records.len();
            match scrub(&records, options) {
                Ok((lines, findings)) => {
                    let left = lines.iter().filter(|line| has_mark(line)).count() + findings;
                    let is_longer =
                        lines.iter().zip(&records).any(|(line, record)| line.len() != record.len());
                    if left > 0 || is_longer {
                        // Before the mark stands what kind it is.
                        let kind = secret.split(MARK).next().unwrap_or_default();
                        problems.push(format!("{left} of {} places of `{kind}...` are left", records.len()));
                    }
                    if !matches!(scrub(&lines, options), Ok((again, 0)) if again == lines) {
                        problems.push("scrubbing twice is not scrubbing once".to_owned());
                    }
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
    }
    if !matches!(scrub(&[BENIGN.to_owned()], Options::default()), Ok((lines, 0)) if lines == [BENIGN]) {
        problems.push("a record without anything sensitive is changed".to_owned());
    }
    problems.iter().for_each(|problem| terminal::progress(&format!("self-test: {problem}")));
    if !problems.is_empty() {
        return Ok(Exit::Findings);
    }
    terminal::result(&format!("self-test: nothing of {planted} planted secrets survives"))?;
    Ok(Exit::Good)
}

const BENIGN: &str = r#"{ "type":"response","id":1,"headers":[["Content-Type","application/json"]],"body":{"usage":{"input_tokens":1234567},"data":[{"id":"gpt-5.5"}],"commit":"2b1e0f6a9d3c4b5a69788796a5b4c3d2e1f00112"}}"#;

fn scrub(records: &[String], options: Options) -> Result<(Vec<String>, usize), Error> {
    let mut learner = Learner::new(options);
    records.iter().try_for_each(|record| learner.learn(record.as_bytes()))?;
    let mut scrubber = learner.finish()?;
    let mut lines = Vec::new();
    for record in records {
        let mut line = record.clone().into_bytes();
        scrubber.scrub(&mut line)?;
        lines.push(line);
    }
    let mut verifier = scrubber.verifier();
    let mut findings = 0;
    for line in &lines {
        findings += verifier.check(line)?.len();
    }
    findings += verifier.finish().len();
    Ok((lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect(), findings))
}

fn secrets() -> Vec<String> {
    let parts: &[&[&str]] = &[
        &["sk", "-proj-", MARK, "6Bd1Fg5H"],
        &["sk", "-ant-", "api03-", MARK],
        &["AI", "za", MARK, "6Bd1Fg5Hj0AaXy"],
        &["gh", "p_", MARK, "6Bd1Fg5Hj0Aa6Bd1Fg5H"],
        &["xo", "xb-", "17653672481-", MARK],
        &["sk", "_live_", MARK],
        &["np", "m_", MARK, "6Bd1Fg5Hj0Aa6Bd1Fg5H"],
        &["h", "f_", MARK, "6Bd1Fg5Hj0Aa"],
        &["gl", "pat-", MARK],
        &["Bear", "er ", MARK],
        &["postgres://svc:", MARK, "@db.test/main"],
        &["https://b.test/k?X-Amz-Sig", "nature=", MARK, "6Bd1Fg5H"],
        &["MY_", "SECRET=", MARK],
        &["-----BEGIN ", "PRIVATE KEY-----\n", MARK, MARK, "\n-----END ", "PRIVATE KEY-----"],
        &["/home/", MARK, "/x"],
        &[MARK, "@", "corp", ".io"],
        &["resp", "_", MARK],
    ];
    parts.iter().map(|parts| parts.concat()).collect()
}

fn encodings(secret: &str) -> Vec<String> {
    let note = format!("see {secret} there");
    let spell = |each: &dyn Fn(u8) -> String| note.bytes().map(each).collect::<String>();
    vec![
        note.clone(),
        json!({"note": note}).to_string(),
        json!({"note": json!({"inner": note}).to_string()}).to_string(),
        spell(&|byte| format!("%{byte:02X}")),
        format!("{{\"note\":\"{}\"}}", spell(&|byte| format!("\\u{byte:04x}"))),
        spell(&|byte| format!("{byte:02x}")),
        format!("data: {}\n\n", json!({"note": note})),
    ]
}

fn record(text: &str) -> String {
    json!({"ts": "2026-11-20T05:56:44.294Z", "type": "response", "id": 1, "headers": [], "body": {"odd": text}}).to_string()
}

/// Whether the mark can be read from a line, in the encodings that were planted.
fn has_mark(line: &str) -> bool {
    let spell = |each: &dyn Fn(&mut String, u8)| {
        MARK.bytes().fold(String::new(), |mut text, byte| {
            each(&mut text, byte);
            text
        })
    };
    let escaped = spell(&|text, byte| {
        let _ = write!(text, "\\u{byte:04x}");
    });
    let percent = spell(&|text, byte| {
        let _ = write!(text, "%{byte:02X}");
    });
    let hex = spell(&|text, byte| {
        let _ = write!(text, "{byte:02x}");
    });
    let plain = line.replace("\\\\", "\\");
    [MARK, &escaped, &percent, &hex].iter().any(|spelled| plain.contains(*spelled) || line.contains(*spelled))
}
