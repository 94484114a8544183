//! The hidden `xtask __isolate --keep FOLDER -- program arguments`: what every test is run by.
//!
//! A test gets a sandbox, and fails when it leaves a process behind. What is in the sandbox of a test that
//! fails is kept below the folder, under the test's name, with a list of what it left behind.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use harness::process::{Exit, Straggler};
use harness::sandbox::isolation;
use manifest::case::TestId;

use crate::terminal;

/// The first argument; it is no task, so it is not among them.
pub(crate) const NAME: &str = "__isolate";

/// Where the processes that a test left behind are listed, in its folder.
const LEFT_BEHIND: &str = "left-behind.json";

/// What a test ends with that would have passed but for what it left behind.
const LEAKED: u8 = 1;

/// The words that run a program isolated, and keep what is left of failures in `folder`.
pub(crate) fn wrapper(folder: &Path) -> Result<Vec<String>> {
    let program = this().context("failed to find this program")?;
    let words = [program.as_os_str(), NAME.as_ref(), "--keep".as_ref(), folder.as_os_str(), "--".as_ref()];
    let words = words.map(|word| word.to_str().map(str::to_owned).context("a path that is not UTF-8"));
    words.into_iter().collect()
}

/// This very program, even when a build has put another in its place meanwhile.
fn this() -> std::io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok(format!("/proc/{}/exe", std::process::id()).into());
    }
    env::current_exe()
}

/// The folder of a test, below that of its run; without colons, which not every archive takes.
pub(crate) fn folder(kept: &Path, id: &TestId) -> PathBuf {
    let [binary, test] = [&id.binary, &id.test].map(|name| name.replace("::", ".").replace(['/', ':'], "-"));
    kept.join(binary).join(test)
}

/// The processes that a test left behind.
pub(crate) fn left_behind(folder: &Path) -> Vec<Straggler> {
    let text = fs::read_to_string(folder.join(LEFT_BEHIND)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Runs what stands behind `--`.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match isolate(&arguments.collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(error) => {
            terminal::progress(&format!("error: {error:#}"));
            crate::exit::Exit::Environment.into()
        }
    }
}

fn isolate(arguments: &[OsString]) -> Result<ExitCode> {
    let [keep, kept, dashes, program, arguments @ ..] = arguments else {
        bail!("{NAME} is for test runs only");
    };
    if keep != "--keep" || dashes != "--" {
        bail!("{NAME} is for test runs only");
    }
    let sandbox = isolation::sandbox().context("failed to make a sandbox")?;
    let ended = isolation::run(&sandbox, Path::new(program), arguments)
        .with_context(|| format!("failed to run {}", Path::new(program).display()))?;
    let code = match ended.exit {
        Exit::Code(0) if ended.left_behind.is_empty() => return Ok(ExitCode::SUCCESS),
        Exit::Code(0) => LEAKED,
        Exit::Code(code) => u8::try_from(code).unwrap_or(LEAKED),
        // As a shell says it.
        Exit::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
    };
    let folder = folder(Path::new(kept), &test());
    sandbox.keep_in(&folder).context("failed to keep the sandbox")?;
    if !ended.left_behind.is_empty() {
        let names: Vec<_> = ended.left_behind.iter().map(name).collect();
        terminal::progress(&format!("the test left behind: {}", names.join(", ")));
        fs::write(folder.join(LEFT_BEHIND), serde_json::to_string(&ended.left_behind)?)
            .context("failed to keep the list of what was left behind")?;
    }
    Ok(code.into())
}

/// The test that runs here, as the runner says.
fn test() -> TestId {
    let variable = |name| env::var(name).unwrap_or_else(|_| "unknown".to_owned());
    TestId { binary: variable("NEXTEST_BINARY_ID"), test: variable("NEXTEST_TEST_NAME") }
}

/// A process as people read it.
pub(crate) fn name(straggler: &Straggler) -> String {
    format!("{} ({})", straggler.command, straggler.pid)
}
