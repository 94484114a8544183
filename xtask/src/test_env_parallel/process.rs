//! One process that runs many tests, stopped for a look after each of them.
//!
//! The test binary writes a line for every test that begins or ends. Its standard output is a pipe with room
//! for one write, and a line is taken out of it only once the process was looked at. So the process cannot be
//! gone before it was seen with its last test over.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::sandbox::{Sandbox, isolation};
use manifest::run::Program;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use super::environ;
use super::watch::State;

/// How long a process may say nothing.
const SILENCE: Duration = Duration::from_secs(300);

/// What the tests of one process did.
#[derive(Debug, Default, Serialize)]
pub(super) struct Changes {
    pub(super) passed: usize,
    /// The tests that failed, with what they printed.
    pub(super) failed: Vec<(String, String)>,
    /// What was changed, and while which tests ran.
    pub(super) state: Vec<String>,
    #[serde(skip)]
    pub(super) is_interrupted: bool,
}

impl Changes {
    pub(super) fn is_clean(&self) -> bool {
        self.failed.is_empty() && self.state.is_empty()
    }
}

/// A line of a test binary's JSON.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    event: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    stdout: String,
}

/// Runs these tests of a binary in one process.
pub(super) fn run(
    program: &Program,
    tests: &BTreeSet<String>,
    threads: NonZeroUsize,
    seed: u64,
) -> Result<Changes> {
    let mut sandbox = isolation::sandbox().context("failed to make a sandbox")?;
    sandbox.set("CARGO_MANIFEST_DIR", &program.directory);
    sandbox.set("CARGO_PKG_NAME", &program.package);
    // Order and JSON are unstable options of test binaries, which the stable toolchain's know as well.
    sandbox.set("RUSTC_BOOTSTRAP", "1");
    let (reader, writer) = pipe().context("failed to make a pipe")?;
    let mut command = Command::new(&program.path);
    command.args(["-Zunstable-options", "--format=json", "--exact"]);
    command.arg(format!("--shuffle-seed={seed}")).arg(format!("--test-threads={threads}")).args(tests);
    command.current_dir(&program.directory).env_clear().envs(sandbox.environment());
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null()).process_group(0);
    let child = command.spawn().with_context(|| format!("failed to start {}", program.path.display()))?;
    // The command holds the writing end of the pipe, which would keep it open for ever.
    drop(command);
    let mut group = Group(child);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut watch = Watch::new(group.0.id());
    if runtime.block_on(watch.follow(reader))? == Reading::Interrupted {
        return Ok(Changes { is_interrupted: true, ..watch.changes });
    }
    let status = group.0.wait().context("failed to wait for the tests")?;
    drop(group);
    let mut changes = watch.end(&sandbox);
    if changes.passed + changes.failed.len() < tests.len() {
        let (seen, all) = (changes.passed + changes.failed.len(), tests.len());
        changes.state.push(format!("the process ended with {status} after {seen} of {all} tests"));
    }
    Ok(changes)
}

/// A pipe that holds one write.
fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    #[cfg(target_os = "linux")]
    {
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096))?;
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_DIRECT))?;
    }
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, writer))
}

/// A child and its group, which ends with it.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // An error means that the group is gone already.
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// How the reading of what tests say ended.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    /// They have said everything.
    Whole,
    /// Someone asked this process to stop.
    Interrupted,
}

struct Watch {
    pid: u32,
    /// Where it keeps its variables.
    address: Option<u64>,
    first: Option<State>,
    last: Option<State>,
    running: BTreeSet<String>,
    /// The tests that ran since the process was last looked at.
    suspects: BTreeSet<String>,
    changes: Changes,
}

impl Watch {
    fn new(pid: u32) -> Self {
        let (running, suspects) = (BTreeSet::new(), BTreeSet::new());
        Self { pid, address: None, first: None, last: None, running, suspects, changes: Changes::default() }
    }

    /// Reads to the end, and looks at the process before each write is taken out of the pipe.
    async fn follow(&mut self, reader: PipeReader) -> Result<Reading> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut end = signal(SignalKind::terminate())?;
        let mut file = File::from(OwnedFd::from(reader));
        let mut pending = Vec::new();
        loop {
            // A new registration every time: readiness that was noticed once is not noticed again.
            let receiver =
                Receiver::from_owned_fd(file.try_clone()?.into()).context("failed to watch a pipe")?;
            let is_readable = tokio::select! {
                readable = tokio::time::timeout(SILENCE, receiver.readable()) => readable.is_ok(),
                _ = interrupt.recv() => return Ok(Reading::Interrupted),
                _ = end.recv() => return Ok(Reading::Interrupted),
            };
            if !is_readable {
                let running: Vec<_> = self.running.iter().map(String::as_str).collect();
                bail!("failed to hear of {} within {SILENCE:?}", running.join(", "));
            }
            drop(receiver);
            let now = self.look();
            let mut buffer = [0; 4096];
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Reading::Whole),
                Ok(length) => pending.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).context("failed to read what the tests say"),
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                // Tests may print to the same stream; what is no event is theirs.
                if let Ok(line) = serde_json::from_slice(&line) {
                    self.line(line);
                }
            }
            // A test whose beginning was just read may have ended when the process was looked at.
            self.compare(now);
        }
    }

    fn look(&mut self) -> Option<State> {
        // The same for as long as the process lives, and slow to find.
        if self.address.is_none() {
            self.address = environ::address(self.pid).ok();
        }
        State::of(self.pid, self.address?)
    }

    fn compare(&mut self, now: Option<State>) {
        let Some(now) = now else { return };
        if let Some(before) = &self.last {
            let tests: Vec<_> = self.suspects.union(&self.running).map(|test| format!("`{test}`")).collect();
            for change in now.changes(before) {
                self.changes.state.push(format!("{change} was changed while {} ran", tests.join(", ")));
            }
        }
        self.first.get_or_insert_with(|| now.clone());
        self.last = Some(now);
        self.suspects.clone_from(&self.running);
    }

    fn line(&mut self, line: Line) {
        match (line.kind.as_str(), line.event.as_str()) {
            ("test", "started") => {
                self.suspects.insert(line.name.clone());
                self.running.insert(line.name);
            }
            ("test", "ok") => {
                self.running.remove(&line.name);
                self.changes.passed += 1;
            }
            ("test", "failed") => {
                self.running.remove(&line.name);
                self.changes.failed.push((line.name, line.stdout));
            }
            _ => {}
        }
    }

    /// What is left when all is over.
    fn end(mut self, sandbox: &Sandbox) -> Changes {
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            let open = last.left_open(first);
            self.changes.state.extend(open.iter().map(|file| format!("a test left open {file}")));
        }
        for entry in std::fs::read_dir(sandbox.temporary()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            self.changes.state.push(format!("a test left {} in the temporary directory", name.display()));
        }
        self.changes
    }
}
