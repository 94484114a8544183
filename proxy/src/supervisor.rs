//! The processes of `prodex run`: a proxy, its own or one that runs anyway, and the client in the foreground.
//!
//! The proxy of its own ends when its standard input does, so it goes also when the launcher is killed. It has a
//! process group of its own: an interrupt at the terminal is for the client. A proxy that crashes is
//! started again on its port, with its capability: Codex waits for ever on a port that refuses (measured
//! with 0.149 to 0.169), and goes on by itself when it answers again.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::launch::{Launch, Ready};
use crate::notice;
use crate::secret::Secret;

mod shared;

pub use shared::Shared;

/// How long a proxy may take to be ready.
const START: Duration = Duration::from_secs(20);

/// How long a proxy may take to end when its client has, apart from a renewal that is under way: cut off,
/// that would cost a login.
const END: Duration = Duration::from_secs(5);

/// How long a client may take to end after each signal, before the next stronger one.
const SIGNAL: Duration = Duration::from_secs(3);

/// How often in a row a proxy that crashes is started again.
const MAX_RESTARTS: u32 = 8;

/// One that was ready for so long before it ended is no longer one in a row.
const STEADY: Duration = Duration::from_secs(60);

/// The pause before the second restart; it doubles. The first comes at once.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// The proxy behind a client.
#[derive(Debug)]
pub struct Behind {
    program: PathBuf,
    /// The arguments of one of our own.
    arguments: Vec<String>,
    of: Of,
    restarts: u32,
}

/// Whose it is.
#[derive(Debug)]
enum Of {
    /// Our own.
    Own(Box<Server>),
    /// One that runs anyway.
    Home(Shared),
}

impl Behind {
    /// Starts a proxy with this address and capability and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; what it says about that is on standard error.
    pub async fn start(
        program: &Path,
        arguments: &[String],
        listen: SocketAddr,
        capability: Secret,
    ) -> io::Result<(Self, Ready)> {
        let (server, ready) = Server::start(program, arguments, listen, capability).await?;
        let (program, arguments, of) = (program.to_owned(), arguments.to_vec(), Of::Own(Box::new(server)));
        Ok((Self { program, arguments, of, restarts: 0 }, ready))
    }

    /// Uses one that runs anyway, and starts one in its place should it end.
    #[must_use]
    pub fn shared(program: &Path, arguments: &[String], shared: Shared) -> Self {
        let (program, arguments, of) = (program.to_owned(), arguments.to_vec(), Of::Home(shared));
        Self { program, arguments, of, restarts: 0 }
    }

    /// Resolves when there is no proxy and none can be kept running. May be dropped at any point and called
    /// again.
    async fn keep_running(&mut self) {
        if let Of::Home(shared) = &mut self.of {
            for _ in 0..MAX_RESTARTS {
                shared.ended().await;
                let Shared { listen, ref capability, .. } = *shared;
                let started = Server::start(&self.program, &self.arguments, listen, capability.clone()).await;
                self.restarts += 1;
                if let Ok((server, _)) = started {
                    self.of = Of::Own(Box::new(server));
                    break;
                }
                // Another launcher whose client used the same one may have been faster; then that is found.
                pause(RESTART_PAUSE * self.restarts).await;
            }
        }
        if let Of::Own(server) = &mut self.of {
            server.keep_running().await;
        }
    }

    /// How often one was started in the place of another.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        match &self.of {
            Of::Own(server) => self.restarts + server.restarts.all,
            Of::Home(_) => self.restarts,
        }
    }

    /// Ends the proxy, if it is our own.
    pub async fn stop(self, renewal: Duration) {
        if let Of::Own(server) = self.of {
            server.stop(renewal).await;
        }
    }
}

/// A proxy of our own.
#[derive(Debug)]
struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    /// Where it listens: clients know it by this address.
    listen: SocketAddr,
    capability: Secret,
    child: Child,
    input: Option<ChildStdin>,
    restarts: Restarts,
}

/// How often it was started again.
#[derive(Debug)]
struct Restarts {
    all: u32,
    in_a_row: u32,
    /// Since when the one that runs is ready, until it ends.
    ready: Option<Instant>,
}

impl Restarts {
    fn new(now: Instant) -> Self {
        Self { all: 0, in_a_row: 0, ready: Some(now) }
    }

    /// It has ended: the pause before it is started again, if it is.
    fn pause(&mut self, now: Instant) -> Option<Duration> {
        if self.ready.take().is_some_and(|ready| now.duration_since(ready) >= STEADY) {
            self.in_a_row = 0;
        }
        match self.in_a_row {
            0 => Some(Duration::ZERO),
            MAX_RESTARTS => None,
            in_a_row => Some(RESTART_PAUSE * (1 << in_a_row)),
        }
    }

    /// It is started again.
    fn count(&mut self) {
        self.all += 1;
        self.in_a_row += 1;
    }
}

impl Server {
    async fn start(
        program: &Path,
        arguments: &[String],
        listen: SocketAddr,
        capability: Secret,
    ) -> io::Result<(Self, Ready)> {
        let (child, input, ready) = start(program, arguments, listen, &capability).await?;
        let (program, arguments) = (program.to_owned(), arguments.to_vec());
        let (listen, input) = (ready.listen, Some(input));
        let restarts = Restarts::new(Instant::now());
        Ok((Self { program, arguments, listen, capability, child, input, restarts }, ready))
    }

    /// Resolves when the proxy has crashed and cannot be kept running. Until then it is started again
    /// whenever it ends. May be dropped at any point: a proxy that was about to start is killed then, and
    /// the next call finds that there is none.
    async fn keep_running(&mut self) {
        while self.child.wait().await.is_ok() {
            let Some(time) = self.restarts.pause(Instant::now()) else { return };
            pause(time).await;
            self.restarts.count();
            let started = start(&self.program, &self.arguments, self.listen, &self.capability).await;
            if let Ok((child, input, _)) = started {
                (self.child, self.input) = (child, Some(input));
                self.restarts.ready = Some(Instant::now());
            }
        }
    }

    /// Ends the proxy: asks it to, and does not wait for ever. `renewal` is how long it waits itself for a
    /// token that is being renewed.
    async fn stop(mut self, renewal: Duration) {
        drop(self.input.take());
        if tokio::time::timeout(renewal + END, self.child.wait()).await.is_err() {
            // It is killed now and reaped here; what fails has ended already.
            let _ = self.child.kill().await;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a pause between two starts of a proxy that crashes")]
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

async fn start(
    program: &Path,
    arguments: &[String],
    listen: SocketAddr,
    capability: &Secret,
) -> io::Result<(Child, ChildStdin, Ready)> {
    let mut child = Command::new(program)
        .args(arguments)
        .arg("--listen")
        .arg(listen.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let missing = || io::Error::other("it has no input or output");
    let mut input = child.stdin.take().ok_or_else(missing)?;
    let output = child.stdout.take().ok_or_else(missing)?;
    let line = async {
        input.write_all(format!("{}\n", capability.expose()).as_bytes()).await?;
        BufReader::new(output).lines().next_line().await
    };
    let line = match tokio::time::timeout(START, line).await {
        // A proxy that ends at once may do so before it has read anything.
        Ok(line) => line.unwrap_or_default(),
        Err(_) => return Err(io::Error::other("it was not ready in time")),
    };
    let Some(line) = line else {
        let status = child.wait().await?;
        return Err(io::Error::other(format!("it ended with {status}")));
    };
    let ready = line.strip_prefix("prodex-ready ").and_then(|ready| serde_json::from_str(ready).ok());
    let ready = ready.ok_or_else(|| io::Error::other("it did not say that it is ready"))?;
    Ok((child, input, ready))
}

/// Runs the client in the foreground and waits for its end, with a proxy that is kept running. Signals
/// that end the launcher end the client first.
///
/// # Errors
/// When it cannot be started.
pub async fn run_client(program: &Path, launch: &Launch, server: &mut Behind) -> io::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let variables = launch.environment.iter().map(|(name, value)| (*name, value));
    let mut child = Command::new(program).args(&launch.arguments).envs(variables).spawn()?;
    let mut is_lost = false;
    loop {
        let signal = tokio::select! {
            status = child.wait() => return status,
            () = server.keep_running(), if !is_lost => {
                is_lost = true;
                // Codex would wait for ever and not say for what.
                notice::tell("the proxy ended again and again; end Codex, and see `prodex doctor`");
                continue;
            }
            _ = terminate.recv() => Signal::SIGTERM,
            _ = hangup.recv() => Signal::SIGHUP,
            // At the terminal the client has got it, too, and may well go on; one that was meant for
            // the launcher alone is passed on.
            _ = interrupt.recv() => Signal::SIGINT,
        };
        if let Some(status) = end_client(&mut child, signal).await? {
            return Ok(status);
        }
    }
}

/// Runs a program in the foreground, without a proxy, and waits for its end. Signals that end this process
/// end the program first.
///
/// # Errors
/// When it cannot be started.
pub async fn run_alone(
    program: &Path,
    arguments: &[String],
    variable: (&str, &Path),
) -> io::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut child = Command::new(program).args(arguments).env(variable.0, variable.1).spawn()?;
    loop {
        let signal = tokio::select! {
            status = child.wait() => return status,
            _ = terminate.recv() => Signal::SIGTERM,
            _ = hangup.recv() => Signal::SIGHUP,
            _ = interrupt.recv() => Signal::SIGINT,
        };
        if let Some(status) = end_client(&mut child, signal).await? {
            return Ok(status);
        }
    }
}

/// Passes a signal on. After one that asks for the end, a client that does not end is killed.
async fn end_client(child: &mut Child, signal: Signal) -> io::Result<Option<ExitStatus>> {
    let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) else { return Ok(None) };
    if signal == Signal::SIGINT {
        if let Ok(status) = tokio::time::timeout(Duration::from_millis(300), child.wait()).await {
            return status.map(Some);
        }
        // Best effort: a client that has just ended cannot be signalled.
        let _ = kill(Pid::from_raw(pid), signal);
        return Ok(None);
    }
    let _ = kill(Pid::from_raw(pid), signal);
    if let Ok(status) = tokio::time::timeout(SIGNAL, child.wait()).await {
        return status.map(Some);
    }
    child.kill().await?;
    child.wait().await.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_crashes_at_once_is_given_up_and_who_crashes_once_a_day_is_not() {
        let mut now = Instant::now();
        let mut restarts = Restarts::new(now);
        let mut pauses = Vec::new();
        while let Some(pause) = restarts.pause(now) {
            pauses.push(pause);
            restarts.count();
        }
        assert_eq!((pauses.len(), restarts.all), (8, 8));
        assert!(pauses[0].is_zero() && pauses.is_sorted() && pauses[7] < Duration::from_secs(20));
        let mut restarts = Restarts::new(now);
        for _ in 0..100 {
            now += STEADY;
            assert_eq!(restarts.pause(now), Some(Duration::ZERO));
            restarts.count();
            restarts.ready = Some(now);
        }
        assert_eq!(restarts.all, 100);
        // One that does not get ready again is none that was steady.
        let left = std::iter::from_fn(|| restarts.pause(now).inspect(|_| restarts.count())).count();
        assert_eq!(left, 7);
    }
}
