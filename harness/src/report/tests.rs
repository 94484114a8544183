//! One report with everything in it, in every form it is written in.

use super::*;

fn sample() -> Report {
    let checks =
        [("request-body", "the body arrives as it was sent"), ("status", "the status is the recorded one")];
    let checks = checks.map(|(name, meaning)| (name.to_owned(), meaning.to_owned()));
    let problem = |severity| Problem {
        check: "request-body".into(),
        severity,
        exchange: 3,
        request: "POST /v1/responses?a=<1>&b=\"2\"".into(),
        what: "a byte differs".into(),
        expected: Excerpt { text: "{\"a\":\"é|1\"}\n".into(), offset: 40, differs: Some((6, 8)) },
        seen: Excerpt { text: "{\"a\":\"e|1\"}\n\u{7}".into(), offset: 40, differs: Some((6, 7)) },
    };
    let fixture = |name: &str, client: &str, findings, error: Option<&str>| FixtureReport {
        name: name.into(),
        client: client.into(),
        version: Some("1.2.3".into()),
        protocol: "http1".into(),
        exchanges: 4,
        seconds: 0.25,
        made: [("request-body".to_owned(), 4), ("status".to_owned(), 4)].into(),
        findings,
        error: error.map(str::to_owned),
        again: format!("cargo xtask compat-replay --fixture {name}"),
    };
    Report {
        version: VERSION,
        target: "a <proxy> & more".into(),
        expect: "transparent".into(),
        at: "2026-11-20T10:00:00Z".into(),
        seconds: 1.5,
        checks: checks.into(),
        fixtures: vec![
            fixture("codex/good", "codex", Vec::new(), None),
            fixture("codex/lawful", "codex", vec![problem(Severity::Lawful)], None),
            fixture("claude/broken", "claude", vec![problem(Severity::Broken)], None),
            fixture("claude/unreadable", "claude", Vec::new(), Some("read <it>: no such file")),
        ],
    }
}

#[test]
fn a_terminal_gets_a_table_and_what_is_broken() {
    insta::assert_snapshot!(sample().table());
}

#[test]
fn a_ci_summary_gets_markdown() {
    insta::assert_snapshot!(markdown(&sample()));
}

#[test]
fn a_ci_server_gets_junit() {
    insta::assert_snapshot!(junit(&sample()));
}

#[test]
fn a_page_shows_both_sides_and_runs_nothing() {
    let html = page(&sample());
    for way in ["<script", "://", "src=", "url(", "@import", "onclick"] {
        assert!(!html.contains(way), "nothing is run and nothing is loaded: {way}");
    }
    assert!(html.contains("<mark>é</mark>") && html.contains("<mark>e</mark>"), "what differs is marked");
    assert!(html.contains("a=&lt;1&gt;&amp;b=&quot;2&quot;"), "what was on the wire is escaped");
    assert!(html.contains("\\u{7}"), "control characters are visible");
    let body = html.split_once("<body>").map(|(_, body)| body.to_owned());
    insta::assert_snapshot!(body.unwrap_or_default());
}

#[test]
fn a_mark_between_characters_that_it_does_not_fit_is_left_out() {
    let mut report = sample();
    report.fixtures[2].findings[0].expected.differs = Some((7, 900));
    assert!(page(&report).contains("é|1"));
}

#[test]
fn the_json_is_what_its_schema_says() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut document = serde_json::to_value(sample()).unwrap();
    let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let again: Report = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(again, sample());
    document["fixtures"][0]["made"]["status"] = "four".into();
    assert!(!validator.is_valid(&document), "the schema is more than decoration");
}

#[test]
fn a_report_of_nothing_does_not_pass() {
    let report = Report { fixtures: Vec::new(), ..sample() };
    assert!(!report.passed());
}
