//! `cargo xtask bench-check`: whether each guarded part is as fast as `benches/thresholds.toml` says.
//!
//! Time is judged as a ratio to a reference that was measured in the same run and beside each case, never in
//! nanoseconds of one machine; instructions as they are. What is measured, and how, is `benches`' own.

use std::process::Command;

use anyhow::{Context, Result};

use crate::exit::Exit;
use crate::step::Steps;
use crate::terminal;
use crate::thresholds::Options;

mod measured;

mod report;

mod tools;

use measured::{Counted, Timed};
use report::{Instructions, Report};
use tools::Tools;

/// Check that each guarded part is as fast as it was.
///
/// Runs the cases of `benches` for some seconds, each beside a reference, and compares the ratios with the file
/// of thresholds; and under valgrind, where it is installed, how many instructions each takes. A case without a
/// threshold is a finding, and so is a threshold without a case.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The cases of one bench, which is the part of their names before the slash; may be given more than once.
    #[arg(long, value_name = "NAME")]
    bench: Vec<String>,
    /// Count instructions and measure no time; valgrind must be there.
    #[arg(long, conflicts_with = "time")]
    instructions: bool,
    /// Measure time and count no instructions.
    #[arg(long)]
    time: bool,
    #[command(flatten)]
    options: Options,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench-check
  cargo xtask bench-check --bench select --time
  cargo xtask bench-check --json >> runs.jsonl     for bench-calibrate

Exit codes: 0 all within their thresholds; 1 a case is not, or lacks a threshold, or does not build;
2 usage, or a mistake in the thresholds; 3 valgrind was asked for and is not there.";

/// What `gate` ends with when it was asked for a bench that does not exist.
const NO_SUCH_BENCH: i32 = 2;

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let Some(thresholds) = args.options.open()? else { return Ok(Exit::Usage) };
    let tools = if args.time { None } else { Some(tools::find()) };
    if args.instructions
        && let Some(Err(missing)) = &tools
    {
        terminal::progress(&format!("error: instructions cannot be counted: {missing}"));
        return Ok(Exit::Environment);
    }
    let cargo = Cargo { steps: Steps::new()?, counts: matches!(tools, Some(Ok(_))) };
    let mut report = Report::default();
    if !args.instructions {
        match cargo.time(&args.bench)? {
            Ok(timed) => report.time = Some(timed),
            Err(exit) => return Ok(exit),
        }
    }
    report.instructions = match tools {
        None => Instructions::NotAskedFor,
        Some(Err(missing)) => Instructions::Skipped(missing),
        Some(Ok(tools)) => match cargo.count(&tools, &args.bench)? {
            Ok(counted) => Instructions::Counted(counted),
            Err(exit) => return Ok(exit),
        },
    };
    let verdict = report.judge(&thresholds, &args.bench);
    terminal::result(&if args.options.json { serde_json::to_string(&verdict)? } else { verdict.table() })?;
    Ok(if verdict.passed { Exit::Good } else { Exit::Findings })
}

/// Cargo, as it builds and runs the programs of `benches`.
struct Cargo {
    steps: Steps,
    /// Whether instructions are counted in this run: the programs are built once, for both.
    counts: bool,
}

impl Cargo {
    /// What every case takes, or how the task ends without.
    fn time(&self, benches: &[String]) -> Result<Result<Vec<Timed>, Exit>> {
        let words: Vec<_> = benches.iter().map(String::as_str).collect();
        let lines = match self.lines("gate", &words, None)? {
            Ok(lines) => lines,
            Err(exit) => return Ok(Err(exit)),
        };
        let timed: Result<_> = lines.iter().map(|line| measured::timed(line)).collect();
        timed.context("failed to read what `gate` printed").map(Ok)
    }

    /// How many instructions every case takes, or how the task ends without.
    fn count(&self, tools: &Tools, benches: &[String]) -> Result<Result<Vec<Counted>, Exit>> {
        let names = match self.lines("gate", &["--list"], None)? {
            Ok(names) => names,
            Err(exit) => return Ok(Err(exit)),
        };
        let lines = match self.lines("instructions", &["--output-format=json"], Some(tools))? {
            Ok(lines) => lines,
            Err(exit) => return Ok(Err(exit)),
        };
        let counted =
            measured::counted(&names, &lines.concat()).context("failed to read what gungraun printed")?;
        let is_asked =
            |case: &Counted| benches.is_empty() || benches.iter().any(|bench| bench == case.bench());
        Ok(Ok(counted.into_iter().filter(|case| case.is_reference() || is_asked(case)).collect()))
    }

    /// What one of the programs prints, or how the task ends because it failed.
    fn lines(&self, bench: &str, words: &[&str], tools: Option<&Tools>) -> Result<Result<Vec<String>, Exit>> {
        let mut command = crate::cargo::command();
        command.args(["bench", "--quiet", "--locked", "--package", "benches", "--bench", bench]);
        if self.counts {
            command.args(["--features", "instructions"]);
        }
        command.arg("--").args(words);
        let mut lines = Vec::new();
        terminal::progress(&format!("bench-check: {bench}, built first if it must be"));
        let ended = self.steps.read(in_path(&mut command, tools), |line| lines.push(line.to_owned()))?;
        if ended.is_interrupted {
            return Ok(Err(Exit::Interrupted));
        }
        if ended.status.success() {
            return Ok(Ok(lines));
        }
        // `cargo bench` passes the program's code on, and ends with 101 where there is no program.
        let exit = if ended.status.code() == Some(NO_SUCH_BENCH) { Exit::Usage } else { Exit::Findings };
        terminal::progress(&format!("error: `{bench}` failed: {}", ended.status));
        Ok(Err(exit))
    }
}

/// Has the command find gungraun's runner, which its library looks for by name.
fn in_path<'a>(command: &'a mut Command, tools: Option<&Tools>) -> &'a mut Command {
    if let Some(tools) = tools {
        command.env("PATH", tools.path());
    }
    command
}
