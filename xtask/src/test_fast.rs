//! `cargo xtask test-fast`: the tests of the workspace, and one closing line that says how they went.
//!
//! This file is the command's contract: arguments, report, closing line, exit code. How tests are built, run
//! and counted is the engine's, `libtest`, and may be replaced without a change here.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::exit::Exit;
use crate::step::Steps;
use crate::terminal;

mod libtest;

/// Run the tests of the workspace.
///
/// One build, then every test binary. Failures are shown as they come; the last line says how many passed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How many compilers and how many tests run at a time [default: the processors, at most 6]
    #[arg(long, short, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    json: bool,
    /// Arguments for `cargo test`; with `-p`, only these packages are built and tested.
    #[arg(last = true, value_name = "CARGO ARGS")]
    extra: Vec<String>,
}

/// What ran, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Report {
    version: u32,
    outcome: Outcome,
    passed: usize,
    failed: usize,
    ignored: usize,
    seconds: f64,
    binaries: Vec<Binary>,
    /// Processes that outlived the tests that started them.
    left_behind: Vec<String>,
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Tests ran, and all of them passed.
    Passed,
    /// A test failed, a binary broke off, or a process was left behind.
    Failed,
    /// There was nothing to run, because the tests do not compile.
    BuildFailed,
    /// Cargo refused its arguments.
    Refused,
    /// Not one test was selected.
    NothingSelected,
    /// Someone asked the command to stop.
    Interrupted,
}

/// What one test binary did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Binary {
    /// The crate, or the name of the test target, and the file it is made from.
    name: String,
    passed: usize,
    failed: usize,
    ignored: usize,
    seconds: f64,
    /// The names of the tests that failed.
    failures: Vec<String>,
    /// Whether it ended without saying how its tests went: it crashed, or a test ended the process.
    is_cut: bool,
}

/// Runs the tests of the workspace around the current directory.
pub(crate) fn run(args: &Args) -> Result<Exit> {
    let since = Instant::now();
    let jobs = args.jobs.unwrap_or_else(default_jobs);
    let screen = Screen { is_json: args.json };
    let ran = libtest::run(&Steps::new()?, jobs, &args.extra, &screen)?;
    let report = Report::of(ran, since.elapsed());
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { report.closing_line() };
    if args.json {
        terminal::progress(&report.closing_line());
    }
    terminal::result(&text)?;
    Ok(report.outcome.exit())
}

/// As many as there are processors; more than six would not make a test sooner, but each takes memory.
fn default_jobs() -> NonZeroUsize {
    let most = NonZeroUsize::MIN.saturating_add(5);
    available_parallelism().unwrap_or(NonZeroUsize::MIN).min(most)
}

/// Where the engine writes while it runs.
struct Screen {
    is_json: bool,
}

impl Screen {
    /// Life signs: they are not part of the result.
    fn progress(&self, line: &str) {
        terminal::progress(line);
    }

    /// What a failing test wrote: part of the result, unless that is a JSON document.
    fn failure(&self, line: &str) {
        if self.is_json {
            terminal::progress(line);
        } else {
            // When this cannot be written, the closing line cannot either, and says so.
            let _ = terminal::result(line);
        }
    }
}

/// What an engine reports.
#[derive(Debug, Default)]
struct Ran {
    binaries: Vec<Binary>,
    left_behind: Vec<String>,
    end: End,
}

/// How an engine's work ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Every binary was run and all was well, as far as the engine's tools say.
    #[default]
    Good,
    /// Every binary was run and not all was well.
    Bad,
    /// The build failed.
    BuildFailed,
    /// The arguments were refused.
    Refused,
    /// The engine was asked to stop.
    Interrupted,
}

impl Report {
    fn of(ran: Ran, elapsed: Duration) -> Self {
        let Ran { binaries, left_behind, end } = ran;
        let sum = |count: fn(&Binary) -> usize| binaries.iter().map(count).sum();
        let (passed, failed, ignored) = (sum(|it| it.passed), sum(|it| it.failed), sum(|it| it.ignored));
        let is_whole = failed == 0 && left_behind.is_empty() && !binaries.iter().any(|it| it.is_cut);
        let outcome = match end {
            End::Interrupted => Outcome::Interrupted,
            End::Refused => Outcome::Refused,
            End::BuildFailed => Outcome::BuildFailed,
            End::Bad => Outcome::Failed,
            End::Good if !is_whole => Outcome::Failed,
            End::Good if passed == 0 => Outcome::NothingSelected,
            End::Good => Outcome::Passed,
        };
        let seconds = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
        Self { version: 1, outcome, passed, failed, ignored, seconds, binaries, left_behind }
    }

    /// The one line that ends the output; CI and people read it.
    fn closing_line(&self) -> String {
        let Self { passed, failed, ignored, seconds, .. } = self;
        let binaries = match self.binaries.len() {
            1 => "1 binary".to_owned(),
            many => format!("{many} binaries"),
        };
        let counts = format!("{passed} passed, {failed} failed, {ignored} ignored");
        let mut line = format!("test-fast: {counts} in {seconds:.1}s ({binaries})");
        let cut = self.binaries.iter().filter(|binary| binary.is_cut).map(|binary| binary.name.as_str());
        let cut: Vec<_> = cut.collect();
        if !cut.is_empty() {
            line += &format!("; broke off: {}", cut.join(", "));
        }
        if !self.left_behind.is_empty() {
            line += &format!("; left behind: {}", self.left_behind.join(", "));
        }
        match self.outcome {
            Outcome::Passed => {}
            Outcome::Failed if self.failed > 0 || !cut.is_empty() || !self.left_behind.is_empty() => {}
            Outcome::Failed => line += "; cargo test failed",
            Outcome::BuildFailed => line += "; the build failed",
            Outcome::Refused => line += "; cargo refused its arguments",
            Outcome::NothingSelected => line += "; no test was selected",
            Outcome::Interrupted => line += "; interrupted",
        }
        line
    }
}

impl Outcome {
    fn exit(self) -> Exit {
        match self {
            Outcome::Passed => Exit::Good,
            Outcome::Failed | Outcome::BuildFailed => Exit::Findings,
            Outcome::Refused => Exit::Usage,
            Outcome::NothingSelected => Exit::NothingSelected,
            Outcome::Interrupted => Exit::Interrupted,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask test-fast
  cargo xtask test-fast -- -p wire              one crate
  cargo xtask test-fast -- --test it owner      one target, tests with a word
  cargo xtask test-fast -- sse -- --nocapture   arguments for test binaries

Exit codes: 0 all passed; 1 a test or the build failed; 2 usage; 3 environment;
4 no test was selected; 130 interrupted.";

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(passed: usize, failed: usize, ignored: usize) -> Binary {
        Binary { name: "wire src/lib.rs".to_owned(), passed, failed, ignored, ..Binary::default() }
    }

    fn report(binaries: Vec<Binary>, end: End) -> Report {
        let ran = Ran { binaries, left_behind: Vec::new(), end };
        Report::of(ran, Duration::from_millis(38_240))
    }

    #[test]
    fn the_closing_line_counts_over_all_binaries() {
        let report = report(vec![binary(200, 0, 1), binary(14, 0, 0)], End::Good);
        let expected = "test-fast: 214 passed, 0 failed, 1 ignored in 38.2s (2 binaries)";
        assert_eq!((report.closing_line().as_str(), report.outcome.exit()), (expected, Exit::Good));
    }

    #[test]
    fn every_end_has_its_words_and_its_exit_code() {
        let cut = Binary { is_cut: true, ..binary(0, 0, 0) };
        let cases = [
            (
                vec![binary(1, 2, 0)],
                End::Bad,
                "1 passed, 2 failed, 0 ignored in 38.2s (1 binary)",
                Exit::Findings,
            ),
            (
                vec![binary(1, 2, 0)],
                End::Good,
                "1 passed, 2 failed, 0 ignored in 38.2s (1 binary)",
                Exit::Findings,
            ),
            (
                vec![binary(1, 0, 0)],
                End::Bad,
                "1 passed, 0 failed, 0 ignored in 38.2s (1 binary); cargo test failed",
                Exit::Findings,
            ),
            (
                vec![binary(3, 0, 0), cut],
                End::Good,
                "3 passed, 0 failed, 0 ignored in 38.2s (2 binaries); broke off: wire src/lib.rs",
                Exit::Findings,
            ),
            (
                vec![],
                End::BuildFailed,
                "0 passed, 0 failed, 0 ignored in 38.2s (0 binaries); the build failed",
                Exit::Findings,
            ),
            (
                vec![],
                End::Refused,
                "0 passed, 0 failed, 0 ignored in 38.2s (0 binaries); cargo refused its arguments",
                Exit::Usage,
            ),
            (
                vec![binary(0, 0, 4)],
                End::Good,
                "0 passed, 0 failed, 4 ignored in 38.2s (1 binary); no test was selected",
                Exit::NothingSelected,
            ),
            (
                vec![binary(5, 0, 0)],
                End::Interrupted,
                "5 passed, 0 failed, 0 ignored in 38.2s (1 binary); interrupted",
                Exit::Interrupted,
            ),
        ];
        for (binaries, end, line, exit) in cases {
            let report = report(binaries, end);
            assert_eq!(report.closing_line(), format!("test-fast: {line}"));
            assert_eq!(report.outcome.exit(), exit, "{line}");
        }
    }

    #[test]
    fn a_process_left_behind_fails_the_run_and_is_named() {
        let left_behind = vec!["sleep (7)".to_owned()];
        let report =
            Report::of(Ran { binaries: vec![binary(1, 0, 0)], left_behind, end: End::Good }, Duration::ZERO);
        let expected = "test-fast: 1 passed, 0 failed, 0 ignored in 0.0s (1 binary); left behind: sleep (7)";
        assert_eq!((report.closing_line().as_str(), report.outcome.exit()), (expected, Exit::Findings));
    }

    #[test]
    fn the_json_report_has_the_counts_as_values() {
        let failing = Binary { failures: vec!["sse::tests::a_bom_is_dropped".to_owned()], ..binary(1, 1, 0) };
        let json = serde_json::to_string_pretty(&report(vec![failing], End::Bad)).expect("a report is JSON");
        insta::assert_snapshot!(json, @r#"
        {
          "version": 1,
          "outcome": "failed",
          "passed": 1,
          "failed": 1,
          "ignored": 0,
          "seconds": 38.24,
          "binaries": [
            {
              "name": "wire src/lib.rs",
              "passed": 1,
              "failed": 1,
              "ignored": 0,
              "seconds": 0.0,
              "failures": [
                "sse::tests::a_bom_is_dropped"
              ],
              "is_cut": false
            }
          ],
          "left_behind": []
        }
        "#);
    }
}
