//! `cargo xtask test-env-parallel`: whether parallel-safe tests are, in one process with all the others.
//!
//! Everywhere else a test has a process of its own, which hides what it does to its process. Here all tests of
//! a binary share one, in a new order every time, and what they change of it is found: variables, the
//! directory, open files, files in the temporary directory.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use manifest::run::Workspace;
use serde::Serialize;

use crate::exit::Exit;
use crate::suite::{self, Suite};
use crate::terminal;

mod environ;

mod process;

mod watch;

use process::Changes;

/// Run parallel-safe tests together in one process.
///
/// Each time in another order; what they change of the process is found and named.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often, each time in another order.
    #[arg(long, value_name = "N", default_value = "2")]
    runs: NonZeroU32,
    /// How many tests run at a time in a process.
    #[arg(long, value_name = "N", default_value = "4")]
    test_threads: NonZeroUsize,
    /// The first order; the others follow from it [default: from the time]
    #[arg(long, value_name = "SEED")]
    shuffle_seed: Option<u64>,
    #[command(flatten)]
    common: suite::Options,
}

/// What is wrong with tests that are said to be parallel-safe.
#[derive(Debug, Serialize)]
struct Finding {
    binary: String,
    run: u32,
    seed: u64,
    #[serde(flatten)]
    changes: Changes,
}

/// Runs the tests and reports.
pub(crate) fn run(args: &Args) -> Result<Exit> {
    let since = Instant::now();
    let workspace = Workspace::open(&crate::cargo::program())?;
    let suite = Suite::new("test-env-parallel", suite::is_safe);
    let chosen = match suite::choose(&suite, &workspace, &args.common)? {
        Ok(chosen) => chosen,
        Err(exit) => {
            terminal::result("test-env-parallel: nothing was run")?;
            return Ok(exit);
        }
    };
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let first = args.shuffle_seed.unwrap_or(seconds);
    let (mut findings, mut count) = (Vec::new(), 0);
    for (run, seed) in (0..args.runs.get()).zip(first..) {
        for program in chosen.programs() {
            let Some(tests) = chosen.tests.get(&program.binary) else { continue };
            let found = process::run(&program, tests, args.test_threads, seed)?;
            count += found.passed;
            let failed = found.failed.len();
            terminal::progress(&format!(
                "{}: {} passed, {failed} failed, seed {seed}",
                program.binary, found.passed
            ));
            if found.is_interrupted {
                terminal::result("test-env-parallel: interrupted")?;
                return Ok(Exit::Interrupted);
            }
            if !found.is_clean() {
                let finding = Finding { binary: program.binary.clone(), run, seed, changes: found };
                if !args.common.json {
                    terminal::result(&finding.to_string())?;
                }
                findings.push(finding);
            }
        }
    }
    let elapsed = since.elapsed().as_secs_f64();
    let binaries = chosen.tests.len();
    let line = format!(
        "test-env-parallel: {count} passed, {} of {binaries} binaries with findings in {elapsed:.1}s",
        findings.iter().map(|finding| finding.binary.as_str()).collect::<BTreeSet<_>>().len()
    );
    if args.common.json {
        let document = serde_json::json!({"version": 1, "passed": count, "findings": findings});
        terminal::progress(&line);
        terminal::result(&serde_json::to_string_pretty(&document)?)?;
    } else {
        terminal::result(&line)?;
    }
    Ok(match (findings.is_empty(), count) {
        (false, _) => Exit::Findings,
        (true, 0) => Exit::NothingSelected,
        (true, _) => Exit::Good,
    })
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} in run {} with seed {}:", self.binary, self.run, self.seed)?;
        for (test, output) in &self.changes.failed {
            writeln!(f, "  `{test}` fails beside others\n{}", output.trim_end())?;
        }
        for change in &self.changes.state {
            writeln!(f, "  {change}")?;
        }
        Ok(())
    }
}
