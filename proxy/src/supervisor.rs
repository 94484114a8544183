//! The processes of `prodex run`: a proxy of its own, and the client in the foreground.
//!
//! The proxy ends when its standard input does, so it goes also when the launcher is killed. It has a
//! process group of its own: an interrupt at the terminal is for the client.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::launch::{Launch, Ready};

/// How long a proxy may take to be ready.
const START: Duration = Duration::from_secs(20);

/// How long a proxy may take to end when its client has.
const END: Duration = Duration::from_secs(5);

/// How long a client may take to end after each signal, before the next stronger one.
const SIGNAL: Duration = Duration::from_secs(3);

/// A proxy of our own.
#[derive(Debug)]
pub struct Server {
    child: Child,
    input: Option<ChildStdin>,
}

impl Server {
    /// Starts a proxy and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; what it says about that is on standard error.
    pub async fn start(program: &Path, arguments: &[String]) -> io::Result<(Self, Ready)> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
        let mut server = Self { child, input };
        let mut lines = BufReader::new(output).lines();
        let line = tokio::time::timeout(START, lines.next_line()).await;
        let line = match line {
            Ok(line) => line?,
            Err(_) => return Err(io::Error::other("it was not ready in time")),
        };
        let Some(line) = line else {
            let status = server.child.wait().await?;
            return Err(io::Error::other(format!("it ended with {status}")));
        };
        let ready = line.strip_prefix("prodex-ready ").and_then(|ready| serde_json::from_str(ready).ok());
        let ready = ready.ok_or_else(|| io::Error::other("it did not say that it is ready"))?;
        Ok((server, ready))
    }

    /// Ends the proxy: asks it to, and does not wait for ever.
    pub async fn stop(mut self) {
        drop(self.input.take());
        if tokio::time::timeout(END, self.child.wait()).await.is_err() {
            // It is killed now and reaped here; what fails has ended already.
            let _ = self.child.kill().await;
        }
    }
}

/// Runs the client in the foreground and waits for its end. Signals that end the launcher end the client
/// first.
///
/// # Errors
/// When it cannot be started.
pub async fn run_client(program: &Path, launch: &Launch) -> io::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let variables = launch.environment.iter().map(|(name, value)| (*name, value));
    let mut child = Command::new(program).args(&launch.arguments).envs(variables).spawn()?;
    loop {
        let signal = tokio::select! {
            status = child.wait() => return status,
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
