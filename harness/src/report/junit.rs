//! A report as JUnit XML: a suite per client, a case per fixture and check.

use std::fmt::Write as _;

use super::html::push_escaped;
use super::{Problem, Report, Severity};

/// Renders a report as JUnit XML.
#[must_use]
pub fn junit(report: &Report) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        text,
        "<testsuites name=\"compat-replay {}\" time=\"{:.3}\">",
        escape(&report.target),
        report.seconds
    );
    for client in report.clients() {
        suite(report, client, &mut text);
    }
    text.push_str("</testsuites>\n");
    text
}

fn suite(report: &Report, client: &str, text: &mut String) {
    let fixtures = || report.fixtures.iter().filter(|fixture| fixture.client == client);
    let mut cases = String::new();
    let (mut tests, mut failures, mut errors) = (0, 0, 0);
    for fixture in fixtures() {
        let class = escape(&fixture.name);
        let broken: Vec<&Problem> = fixture.broken().collect();
        let names =
            fixture.made.keys().map(String::as_str).chain(broken.iter().map(|problem| &*problem.check));
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            tests += 1;
            let found: Vec<&&Problem> = broken.iter().filter(|problem| problem.check == name).collect();
            let _ =
                write!(cases, "    <testcase classname=\"{class}\" name=\"{name} ({})\"", fixture.protocol);
            let Some(first) = found.first() else {
                cases.push_str("/>\n");
                continue;
            };
            failures += 1;
            let _ = writeln!(cases, ">\n      <failure message=\"{}\">", escape(&first.what));
            for problem in &found {
                debug_assert_eq!(problem.severity, Severity::Broken, "the broken ones were asked for");
                let _ = writeln!(
                    cases,
                    "{}: {}\nexpected: {}\nseen: {}",
                    escape(&problem.request),
                    escape(&problem.what),
                    escape(&problem.expected.text),
                    escape(&problem.seen.text)
                );
            }
            let _ = writeln!(cases, "again: {}</failure>\n    </testcase>", escape(&fixture.again));
        }
        if let Some(error) = &fixture.error {
            (tests, errors) = (tests + 1, errors + 1);
            let _ = writeln!(
                cases,
                "    <testcase classname=\"{class}\" name=\"replay\"><error message=\"{}\"/></testcase>",
                escape(error)
            );
        }
    }
    let seconds: f64 = fixtures().map(|fixture| fixture.seconds).sum();
    let _ = writeln!(
        text,
        "  <testsuite name=\"{}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{seconds:.3}\">\n{cases}  </testsuite>",
        escape(client)
    );
}

/// Text for XML 1.0, which has no way to write most control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            '\t' => escaped.push_str("&#9;"),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            letter => push_escaped(letter, &mut escaped),
        }
    }
    escaped
}
