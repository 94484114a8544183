//! The engine of `test-fast` for now: two runs of `cargo test`, one that builds and one that tests.
//!
//! Counts come from what the test binaries print, and are believed only where they add up; whether all is
//! well is decided by cargo's exit code as much as by them.

use std::env;
use std::num::NonZeroUsize;
use std::process::Command;

use anyhow::Result;

use super::{End, Ran, Screen};
use crate::step::Steps;

mod output;

use output::{Output, Seen};

/// What cargo exits with when it does not understand its arguments; for all other trouble it is 101.
const REFUSED: i32 = 1;

/// Builds the tests, runs them, and counts.
pub(super) fn run(steps: &Steps, jobs: NonZeroUsize, extra: &[String], screen: &Screen) -> Result<Ran> {
    let built = steps.show(&mut cargo_test("--no-run", jobs, extra))?;
    let end = match built.status.code() {
        _ if built.is_interrupted => End::Interrupted,
        Some(0) => End::Good,
        Some(REFUSED) => End::Refused,
        _ => End::BuildFailed,
    };
    if end != End::Good {
        return Ok(Ran { end, ..Ran::default() });
    }
    // Who gives the test binaries arguments wants to see what they print.
    let mut output = Output::new(extra.iter().any(|arg| arg == "--"));
    let mut command = cargo_test("--no-fail-fast", jobs, extra);
    let ended =
        steps.read(command.env("CARGO_TERM_COLOR", "never"), |line| show(output.read(line), screen))?;
    let (binaries, seen) = output.finish();
    show(seen, screen);
    let end = match ended.is_interrupted {
        true => End::Interrupted,
        false if ended.status.success() => End::Good,
        false => End::Bad,
    };
    Ok(Ran { binaries, left_behind: ended.left_behind, end })
}

/// `cargo test` over the workspace, or over the packages that `extra` selects.
fn cargo_test(stage: &str, jobs: NonZeroUsize, extra: &[String]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--locked", stage]).arg(format!("--jobs={jobs}"));
    // Cargo ignores `-p` beside `--workspace`, silently.
    if !selects_packages(extra) {
        command.arg("--workspace");
    }
    command.args(extra).env("RUST_TEST_THREADS", jobs.to_string());
    if env::var_os("RUST_BACKTRACE").is_none() {
        command.env("RUST_BACKTRACE", "1");
    }
    command
}

fn selects_packages(extra: &[String]) -> bool {
    let for_cargo = extra.iter().take_while(|arg| *arg != "--");
    for_cargo.into_iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package"))
}

fn show(seen: Vec<Seen>, screen: &Screen) {
    for seen in seen {
        match seen {
            Seen::Progress(line) => screen.progress(&line),
            Seen::Failure(line) => screen.failure(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(extra: &[&str]) -> String {
        let extra: Vec<_> = extra.iter().map(|arg| (*arg).to_owned()).collect();
        let command = cargo_test("--no-run", NonZeroUsize::MIN, &extra);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        args.join(" ")
    }

    #[test]
    fn the_whole_workspace_is_tested_unless_packages_are_named() {
        assert_eq!(args(&["sse"]), "test --locked --no-run --jobs=1 --workspace sse");
        assert_eq!(args(&["-p", "wire"]), "test --locked --no-run --jobs=1 -p wire");
        assert_eq!(args(&["--package=wire"]), "test --locked --no-run --jobs=1 --package=wire");
        assert_eq!(args(&["--", "-p"]), "test --locked --no-run --jobs=1 --workspace -- -p");
    }
}
