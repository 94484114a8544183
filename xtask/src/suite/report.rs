//! What came of a suite: the closing line, JSON, times, and the files that CI collects.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use manifest::run::End;
use manifest::timings::{self, Record};
use serde::Serialize;

use super::show::{Done, Ran, Verdict, rerun};
use super::{Options, junit};
use crate::exit::Exit;
use crate::terminal;

/// What ran, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    version: u32,
    suite: &'static str,
    pub(super) outcome: Outcome,
    passed: usize,
    failed: usize,
    ignored: usize,
    seconds: f64,
    binaries: Vec<Binary>,
    /// Tests that failed and then passed. They are among the failed.
    flaky: Vec<String>,
    /// Tests that failed as their quarantine says. They are neither passed nor failed.
    quarantined: Vec<String>,
    /// Processes that outlived the tests that started them.
    left_behind: Vec<String>,
    /// Tests that the manifest does not know.
    pub(super) without_case: Vec<String>,
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Tests ran, and all of them passed.
    Passed,
    /// A test failed, or is in no case of the manifest.
    Failed,
    /// There was nothing to run, because the tests do not compile.
    BuildFailed,
    /// Cargo refused its arguments.
    Refused,
    /// Not one test was selected.
    NothingSelected,
    /// The tests took longer than they may.
    TimedOut,
    /// Someone asked the command to stop.
    Interrupted,
}

/// What the tests of one binary did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Binary {
    /// The binary as nextest names it: `wire`, `prodex::it`.
    name: String,
    passed: usize,
    failed: usize,
    seconds: f64,
    failures: Vec<Failed>,
}

/// A test that failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Failed {
    test: String,
    /// The command that runs it and nothing else.
    rerun: String,
}

impl Report {
    /// A report of tests that ran.
    pub(super) fn new(suite: &'static str, ran: &Ran, ignored: usize, elapsed: Duration) -> Self {
        let mut report = Self::without_tests(suite, Outcome::Passed, elapsed);
        report.ignored = ignored;
        let mut binaries: BTreeMap<&str, Binary> = BTreeMap::new();
        for done in &ran.tests {
            let id = &done.finished.id;
            let binary = binaries.entry(&id.binary).or_default();
            binary.seconds += time(done).as_secs_f64();
            report.left_behind.extend(done.left_behind.iter().cloned());
            match done.verdict {
                Verdict::Passed => binary.passed += 1,
                Verdict::Expected => report.quarantined.push(id.to_string()),
                Verdict::Failed | Verdict::Flaky => {
                    binary.failed += 1;
                    binary.failures.push(Failed { test: id.test.clone(), rerun: rerun(id) });
                }
            }
            if done.verdict == Verdict::Flaky {
                report.flaky.push(id.to_string());
            }
        }
        let named = binaries.into_iter().map(|(name, binary)| Binary {
            name: name.to_owned(),
            seconds: rounded(binary.seconds),
            ..binary
        });
        report.binaries = named.collect();
        report.passed = report.binaries.iter().map(|binary| binary.passed).sum();
        report.failed = report.binaries.iter().map(|binary| binary.failed).sum();
        report
    }

    /// A report of a run that did not come to its tests.
    pub(super) fn without_tests(suite: &'static str, outcome: Outcome, elapsed: Duration) -> Self {
        Self {
            version: 2,
            suite,
            outcome,
            passed: 0,
            failed: 0,
            ignored: 0,
            seconds: rounded(elapsed.as_secs_f64()),
            binaries: Vec::new(),
            flaky: Vec::new(),
            quarantined: Vec::new(),
            left_behind: Vec::new(),
            without_case: Vec::new(),
        }
    }

    /// Decides, once everything is known.
    pub(super) fn settle(&mut self, end: End) {
        self.outcome = match end {
            End::Interrupted => Outcome::Interrupted,
            End::TimedOut => Outcome::TimedOut,
            _ if self.failed > 0 || !self.without_case.is_empty() => Outcome::Failed,
            End::Nothing => Outcome::NothingSelected,
            End::Complete if self.passed + self.quarantined.len() == 0 => Outcome::NothingSelected,
            End::Complete => Outcome::Passed,
        };
    }

    /// The one line that ends the output; CI and people read it.
    fn closing_line(&self) -> String {
        let Self { suite, passed, failed, ignored, seconds, .. } = self;
        let binaries = match self.binaries.len() {
            1 => "1 binary".to_owned(),
            many => format!("{many} binaries"),
        };
        let counts = format!("{passed} passed, {failed} failed, {ignored} ignored");
        let mut line = format!("{suite}: {counts} in {seconds:.1}s ({binaries})");
        let lists = [
            ("flaky", &self.flaky),
            ("failed as its quarantine says", &self.quarantined),
            ("left behind", &self.left_behind),
            ("in no case of the manifest", &self.without_case),
        ];
        for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            line += &format!("; {what}: {}", several(list));
        }
        match self.outcome {
            Outcome::Passed | Outcome::Failed => {}
            Outcome::BuildFailed => line += "; the build failed",
            Outcome::Refused => line += "; cargo refused its arguments",
            Outcome::NothingSelected => line += "; no test was selected",
            Outcome::TimedOut => line += "; out of time",
            Outcome::Interrupted => line += "; interrupted",
        }
        line
    }
}

/// The first few of a list.
fn several(list: &[String]) -> String {
    let (shown, rest) = list.split_at(list.len().min(5));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    shown.join(", ") + &more
}

impl Outcome {
    /// The exit code that says it.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Outcome::Passed => Exit::Good,
            Outcome::Failed | Outcome::BuildFailed => Exit::Findings,
            Outcome::Refused => Exit::Usage,
            Outcome::NothingSelected => Exit::NothingSelected,
            Outcome::TimedOut => Exit::TimedOut,
            Outcome::Interrupted => Exit::Interrupted,
        }
    }
}

/// Shows the report and gives the exit code.
pub(super) fn end(report: &Report, args: &Options) -> Result<Exit> {
    for Binary { name, passed, failed, seconds, .. } in &report.binaries {
        let failed = if *failed > 0 { format!("{failed} failed, ") } else { String::new() };
        terminal::progress(&format!("{name}: {failed}{passed} passed in {seconds:.2}s"));
    }
    let line = report.closing_line();
    if args.json {
        terminal::progress(&line);
    }
    terminal::result(&if args.json { serde_json::to_string_pretty(report)? } else { line })?;
    Ok(report.outcome.exit())
}

/// The times of what ran to its end by itself.
pub(super) fn records(ran: &Ran) -> Vec<Record> {
    let records = ran.tests.iter().map(|done| Record {
        id: done.finished.id.clone(),
        milliseconds: (time(done).as_secs_f64() * 1e6).round() / 1e3,
        attempts: u32::try_from(done.finished.attempts.len()).unwrap_or(u32::MAX).max(1),
        passed: matches!(done.verdict, Verdict::Passed | Verdict::Flaky),
    });
    records.collect()
}

/// Shows times, as far as they were asked for.
pub(super) fn timings(report: &Report, ran: &Ran, args: &Options) -> Result<()> {
    let show = |text: &str| match args.json {
        true => {
            terminal::progress(text);
            Ok(())
        }
        false => terminal::result(text),
    };
    let mut records = records(ran);
    records.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
    if args.timings {
        let slowest = records.iter().take(args.timings_limit);
        let lines = slowest.map(|record| format!("{:>9.3}s  {}\n", record.milliseconds / 1e3, record.id));
        show(&lines.collect::<String>())?;
    }
    if args.timings_json {
        show(&format!("{}: {}{}", report.suite, timings::MARKER, serde_json::to_string(&records)?))?;
    }
    Ok(())
}

/// Writes what CI collects.
pub(super) fn write(report: &Report, ran: &Ran, folder: &Path) -> Result<()> {
    let xml = junit::render(report.suite, &ran.tests).context("failed to write JUnit")?;
    for (name, text) in [("junit.xml", xml), ("report.json", serde_json::to_string_pretty(report)?)] {
        let part = tempfile::NamedTempFile::new_in(folder).context("failed to make a file")?;
        fs::write(part.path(), text).with_context(|| format!("failed to write {name}"))?;
        part.persist(folder.join(name)).with_context(|| format!("failed to put {name} in place"))?;
    }
    Ok(())
}

/// How long the last attempt at a test took.
pub(super) fn time(done: &Done) -> Duration {
    done.finished.attempts.last().map_or(Duration::ZERO, |attempt| attempt.time)
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use manifest::case::TestId;
    use manifest::run::{Attempt, Failure, Finished};

    use super::*;

    fn done(test: &str, verdict: Verdict) -> Done {
        let failure = (verdict != Verdict::Passed).then_some(Failure::Code(101));
        let attempts =
            vec![Attempt { failure, time: Duration::from_millis(5), output: "words\u{1}".to_owned() }];
        let id = TestId { binary: "wire".into(), test: test.into() };
        let finished = Finished { id, repetition: 0, attempts };
        Done { finished, verdict, left_behind: Vec::new(), kept: None }
    }

    fn report(tests: Vec<Done>, end: End) -> Report {
        let ran = Ran { tests, end };
        let mut report = Report::new("test-fast", &ran, 1, Duration::from_millis(38_240));
        report.settle(end);
        report
    }

    #[test]
    fn every_end_has_its_words_and_its_exit_code() {
        let passed = || done("a", Verdict::Passed);
        let cases = [
            (
                vec![passed(), passed()],
                End::Complete,
                "2 passed, 0 failed, 1 ignored in 38.2s (1 binary)",
                Exit::Good,
            ),
            (
                vec![passed(), done("b", Verdict::Failed)],
                End::Complete,
                "1 passed, 1 failed, 1 ignored in 38.2s (1 binary)",
                Exit::Findings,
            ),
            (
                vec![done("b", Verdict::Flaky)],
                End::Complete,
                "0 passed, 1 failed, 1 ignored in 38.2s (1 binary); flaky: wire b",
                Exit::Findings,
            ),
            (
                vec![done("b", Verdict::Expected)],
                End::Complete,
                "0 passed, 0 failed, 1 ignored in 38.2s (1 binary); failed as its quarantine says: wire b",
                Exit::Good,
            ),
            (
                vec![],
                End::Nothing,
                "0 passed, 0 failed, 1 ignored in 38.2s (0 binaries); no test was selected",
                Exit::NothingSelected,
            ),
            (
                vec![passed()],
                End::TimedOut,
                "1 passed, 0 failed, 1 ignored in 38.2s (1 binary); out of time",
                Exit::TimedOut,
            ),
            (
                vec![passed()],
                End::Interrupted,
                "1 passed, 0 failed, 1 ignored in 38.2s (1 binary); interrupted",
                Exit::Interrupted,
            ),
        ];
        for (tests, end, line, exit) in cases {
            let report = report(tests, end);
            assert_eq!(report.closing_line(), format!("test-fast: {line}"));
            assert_eq!(report.outcome.exit(), exit, "{line}");
        }
    }

    #[test]
    fn a_test_that_the_manifest_does_not_know_fails_the_suite() {
        let ran = Ran { tests: vec![done("a", Verdict::Passed)], end: End::Complete };
        let mut report = Report::new("test-fast", &ran, 0, Duration::ZERO);
        report.without_case = vec!["wire new".to_owned()];
        report.settle(End::Complete);
        let expected = "test-fast: 1 passed, 0 failed, 0 ignored in 0.0s (1 binary); \
            in no case of the manifest: wire new";
        assert_eq!((report.closing_line().as_str(), report.outcome.exit()), (expected, Exit::Findings));
    }

    #[test]
    fn the_json_report_has_the_counts_as_values() {
        let report = report(vec![done("a", Verdict::Passed), done("b::c", Verdict::Failed)], End::Complete);
        let json = serde_json::to_string_pretty(&report).expect("a report is JSON");
        insta::assert_snapshot!(json);
    }

    #[test]
    fn junit_has_a_case_for_every_test() {
        let tests = [done("a", Verdict::Passed), done("b", Verdict::Failed), done("c", Verdict::Flaky)];
        insta::assert_snapshot!(junit::render("test-fast", &tests).expect("XML"));
    }
}
