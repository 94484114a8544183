//! Programs under the laboratory's control: started, awaited, stopped, and nothing of them left behind.
//!
//! A program gets a process group of its own, exactly the environment it is given, and no stdin but for a
//! dialog. Whatever it started and did not end is found, ended and reported. Dropping a running program kills it and all of
//! its descendants, so that a panic leaves nothing behind either.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

mod output;
mod stragglers;

use output::Output;
use stragglers::Mark;
pub use stragglers::Straggler;

/// Why a program did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("start {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended before it was ready.
    #[error("see {program} ready: it ended with {exit}; its last words: {stderr}")]
    Ended {
        /// The program.
        program: PathBuf,
        /// How it ended.
        exit: Exit,
        /// The end of its stderr.
        stderr: String,
    },
    /// It was not ready, or not done, in time.
    #[error("see {program} {what} within {limit:?}; its last words: {stderr}")]
    Timeout {
        /// The program.
        program: PathBuf,
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
        /// The end of its stderr.
        stderr: String,
    },
    /// Its ready line is not what was agreed.
    #[error("read the ready line of {program}: {line}")]
    Ready {
        /// The program.
        program: PathBuf,
        /// The line.
        line: String,
    },
    /// It could not be waited for.
    #[error("wait for {program}")]
    Wait {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The code, if it ended by itself.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        // A process that has ended has one or the other.
        status.code().map_or_else(|| Self::Signal(status.signal().unwrap_or_default()), Self::Code)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// A program that can be started.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
}

impl Program {
    /// The program at this path, with an empty environment.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), arguments: Vec::new(), environment: Vec::new(), directory: None }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds variables to the environment; of two with one name the later counts.
    #[must_use]
    pub fn envs<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Starts it in this directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The path and the arguments, for a report.
    #[must_use]
    pub fn command_line(&self) -> Vec<String> {
        let words =
            std::iter::once(self.path.as_os_str()).chain(self.arguments.iter().map(OsString::as_os_str));
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Running, ProcessError> {
        let (mut running, stdout) = self.spawn(Stdio::null())?;
        running.readers.push(running.stdout.collect(stdout));
        Ok(running)
    }

    /// Starts it and speaks with it, a line at a time. Its stdout is the dialog's alone.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_dialog(&self) -> Result<(Running, Dialog), ProcessError> {
        let (mut running, stdout) = self.spawn(Stdio::piped())?;
        let input = running.child.stdin.take().ok_or_else(|| ProcessError::Start {
            program: self.path.clone(),
            source: std::io::Error::other("the child has no stdin"),
        })?;
        Ok((running, Dialog { input, lines: BufReader::new(stdout).lines() }))
    }

    /// Starts it and waits for the line of its stdout that begins with `prefix`; gives the JSON behind it.
    ///
    /// # Errors
    /// When it cannot be started, ends first, takes longer than `limit`, or says something else.
    pub async fn start_ready(
        &self,
        prefix: &str,
        limit: Duration,
    ) -> Result<(Running, serde_json::Value), ProcessError> {
        let (mut running, stdout) = self.spawn(Stdio::null())?;
        let mut lines = BufReader::new(stdout).lines();
        let line = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(rest) = line.strip_prefix(prefix) {
                    return Some(rest.to_owned());
                }
                running.stdout.push(line.as_bytes());
                running.stdout.push(b"\n");
            }
            None
        };
        let line = match tokio::time::timeout(limit, line).await {
            Ok(Some(line)) => line,
            Ok(None) => return Err(running.ended_early(limit).await),
            Err(_) => return Err(running.timed_out("ready", limit)),
        };
        let ready = serde_json::from_str(&line)
            .map_err(|_| ProcessError::Ready { program: self.path.clone(), line: line.clone() })?;
        running.readers.push(running.stdout.collect(lines.into_inner()));
        Ok((running, ready))
    }

    /// Runs it to its end. When that takes longer than `limit` it is killed, and [`Finished::exit`] is `None`.
    ///
    /// # Errors
    /// When it cannot be started or waited for.
    pub async fn run(&self, limit: Duration) -> Result<Finished, ProcessError> {
        let started = Instant::now();
        let mut running = self.start()?;
        let exit = running.wait(limit).await?;
        let wall = started.elapsed();
        if exit.is_none() {
            running.signal(Signal::SIGKILL);
            // Reaped, so that it is not taken for one of its own stragglers.
            running.wait(LAST_WAIT).await?;
        }
        let stragglers = running.end_stragglers().await;
        running.finish_reading().await;
        let (stdout, stderr) = (running.stdout.text(), running.stderr.text());
        Ok(Finished { exit, stdout, stderr, wall, stragglers })
    }

    fn spawn(&self, stdin: Stdio) -> Result<(Running, ChildStdout), ProcessError> {
        let start = |source| ProcessError::Start { program: self.path.clone(), source };
        let mark = Mark::new();
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env(mark.name(), mark.value());
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let mut child = command.spawn().map_err(start)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        let piped = (child.stdout.take(), child.stderr.take());
        let (Some(pid), (Some(stdout), Some(stderr))) = (pid, piped) else {
            return Err(start(std::io::Error::other("the child has neither id nor pipes")));
        };
        let (out, err) = (Output::default(), Output::default());
        let readers = vec![err.collect(stderr)];
        let program = self.path.clone();
        Ok((Running { program, child, pid, mark, stdout: out, stderr: err, readers, over: false }, stdout))
    }
}

/// What is said to a running program, and what it says.
#[derive(Debug)]
pub struct Dialog {
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Dialog {
    /// Says a line.
    ///
    /// # Errors
    /// When it does not listen any more.
    pub async fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await
    }

    /// Hears its next line; none when it says no more.
    ///
    /// # Errors
    /// When what it says is not text.
    pub async fn hear(&mut self) -> std::io::Result<Option<String>> {
        self.lines.next_line().await
    }
}

/// A program that ran to its end.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended; `None` when its time was up.
    pub exit: Option<Exit>,
    /// What it wrote to stdout, as far as it is kept.
    pub stdout: String,
    /// What it wrote to stderr, as far as it is kept.
    pub stderr: String,
    /// How long it took.
    pub wall: Duration,
    /// What it had started and not ended; they have been killed.
    pub stragglers: Vec<Straggler>,
}

/// A running program. Dropping it kills it and everything that it started.
#[derive(Debug)]
pub struct Running {
    program: PathBuf,
    child: Child,
    pid: Pid,
    mark: Mark,
    stdout: Output,
    stderr: Output,
    readers: Vec<JoinHandle<()>>,
    /// Whether the end has been seen and its stragglers dealt with.
    over: bool,
}

/// How a program was stopped.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// How it ended.
    pub exit: Option<Exit>,
    /// Whether it had to be killed, because it did not end by itself in time.
    pub killed: bool,
    /// What it had started and not ended; they have been killed.
    pub stragglers: Vec<Straggler>,
    /// The end of its stderr.
    pub stderr: String,
}

impl Running {
    /// The process id, which is the id of its group as well.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// What it has written to stdout so far, without the ready line.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Sends a signal to the program's group. A group that is gone already is none's mistake.
    pub fn signal(&self, signal: Signal) {
        let _ = nix::sys::signal::killpg(self.pid, signal);
    }

    /// Waits for its end; `None` when it still runs behind `limit`.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn wait(&mut self, limit: Duration) -> Result<Option<Exit>, ProcessError> {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(Ok(status)) => Ok(Some(status.into())),
            Ok(Err(source)) => Err(ProcessError::Wait { program: self.program.clone(), source }),
            Err(_) => Ok(None),
        }
    }

    /// Ends it: SIGTERM, and SIGKILL when that has not done it within `grace`.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(mut self, grace: Duration) -> Result<Stopped, ProcessError> {
        self.signal(Signal::SIGTERM);
        let mut exit = self.wait(grace).await?;
        let killed = exit.is_none();
        if killed {
            self.signal(Signal::SIGKILL);
            exit = self.wait(grace.max(LAST_WAIT)).await?;
        }
        let stragglers = self.end_stragglers().await;
        self.finish_reading().await;
        Ok(Stopped { exit, killed, stragglers, stderr: self.stderr.text() })
    }

    /// Finds what the program started and did not end, kills it, and says what it was.
    async fn end_stragglers(&mut self) -> Vec<Straggler> {
        self.over = true;
        stragglers::end(self.pid, &self.mark).await
    }

    /// Lets the readers take what is still in the pipes.
    async fn finish_reading(&mut self) {
        for reader in self.readers.drain(..) {
            // Something that escaped may hold a pipe open; what it says is not waited for.
            let abort = reader.abort_handle();
            if tokio::time::timeout(LAST_WAIT, reader).await.is_err() {
                abort.abort();
            }
        }
    }

    async fn ended_early(mut self, limit: Duration) -> ProcessError {
        match self.wait(LAST_WAIT).await {
            Ok(Some(exit)) => {
                self.finish_reading().await;
                let (program, stderr) = (self.program.clone(), self.stderr.tail());
                ProcessError::Ended { program, exit, stderr }
            }
            // It closed its stdout and lives on: it will never be ready.
            Ok(None) => self.timed_out("ready", limit),
            Err(error) => error,
        }
    }

    fn timed_out(&self, what: &'static str, limit: Duration) -> ProcessError {
        ProcessError::Timeout { program: self.program.clone(), what, limit, stderr: self.stderr.tail() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            self.signal(Signal::SIGKILL);
            stragglers::kill(self.pid, &self.mark);
        }
    }
}

/// How long the end of something already ended or killed is waited for.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// The file of a program: the path itself if it has a directory, else the first of that name in the
/// directories of `search`, which is written as `PATH` is.
#[must_use]
pub fn find(program: &Path, search: Option<&OsStr>) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    std::env::split_paths(search?).map(|directory| directory.join(program)).find(|path| path.is_file())
}
