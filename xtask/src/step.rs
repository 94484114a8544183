//! A step of a task: one program in a process group of its own, as a compiler is.
//!
//! An interrupt is passed on to the group and followed by a kill. One step runs at a time. Tests are not
//! steps: each has a sandbox (`harness::sandbox::isolation`).

use std::io::{BufRead, BufReader, PipeReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long a step may take to stop when it was asked to, before it is killed.
const STOPPING: Duration = Duration::from_secs(5);

/// How long a kill may take before it is repeated.
const KILLING: Duration = Duration::from_millis(100);

/// How long something that a program left may hold its standard output open.
const LEAVING: Duration = Duration::from_secs(1);

/// Runs steps, one after the other, and passes interrupts on to them.
pub(crate) struct Steps {
    events: Receiver<Event>,
    sender: SyncSender<Event>,
}

/// How a step ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What the program ended with.
    pub(crate) status: ExitStatus,
    /// Whether this process was asked to stop meanwhile.
    pub(crate) is_interrupted: bool,
}

enum Event {
    Line(String),
    Closed,
    Exited(std::io::Result<ExitStatus>),
    Interrupt(Signal),
}

impl Steps {
    /// From here on interrupts end the running step, or the next one, instead of this process.
    pub(crate) fn new() -> Result<Self> {
        let (sender, events) = sync_channel(1024);
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("failed to listen for signals")?;
        let interrupts = sender.clone();
        thread::spawn(move || {
            let signals = signals.forever().filter_map(|signal| Signal::try_from(signal).ok());
            // Ends when nobody runs steps any more.
            signals.map(|signal| interrupts.send(Event::Interrupt(signal))).find(Result::is_err)
        });
        Ok(Self { events, sender })
    }

    /// Runs a program whose standard error is this process's, and whose standard output is dropped.
    ///
    /// What it starts to stay stays, as a compiler cache's server does; only an interrupt ends its whole group.
    pub(crate) fn show(&self, command: &mut Command) -> Result<Ended> {
        let mut drop_line = |_: &str| {};
        let mut running = self.start(command.stdout(Stdio::null()), None, &mut drop_line)?;
        let status = running.until_exit()?;
        if running.interrupted.is_some() {
            running.signal(Signal::SIGKILL);
        }
        Ok(running.ended(status))
    }

    /// Runs a program and hands over every line of its standard output; its standard error is this process's.
    ///
    /// What it starts to stay stays, as with [`Steps::show`].
    pub(crate) fn read(&self, command: &mut Command, mut line: impl FnMut(&str)) -> Result<Ended> {
        let (reader, writer) = std::io::pipe().context("failed to make a pipe")?;
        let mut running = self.start(command.stdout(writer), Some(reader), &mut line)?;
        let status = running.until_exit()?;
        if running.interrupted.is_some() {
            running.signal(Signal::SIGKILL);
        }
        running.until_closed();
        Ok(running.ended(status))
    }

    fn start<'a>(
        &'a self,
        command: &mut Command,
        pipe: Option<PipeReader>,
        line: &'a mut dyn FnMut(&str),
    ) -> Result<Running<'a>> {
        let started = command.stdin(Stdio::null()).process_group(0).spawn();
        let child =
            started.with_context(|| format!("failed to start {}", command.get_program().display()))?;
        let group = Pid::from_raw(child.id().cast_signed());
        let is_open = pipe.is_some();
        if let Some(pipe) = pipe {
            // The command holds the writing end of the pipe, which would keep it open for ever.
            command.stdout(Stdio::null());
            let sender = self.sender.clone();
            thread::spawn(move || forward(pipe, &sender));
        }
        let sender = self.sender.clone();
        thread::spawn(move || wait(child, &sender));
        Ok(Running { group, events: &self.events, is_open, interrupted: None, has_exited: false, line })
    }
}

/// A step between its start and its end.
struct Running<'a> {
    group: Pid,
    events: &'a Receiver<Event>,
    is_open: bool,
    /// When the first interrupt came.
    interrupted: Option<Instant>,
    has_exited: bool,
    line: &'a mut dyn FnMut(&str),
}

impl Running<'_> {
    /// Handles events until the program has exited.
    fn until_exit(&mut self) -> Result<ExitStatus> {
        loop {
            let limit = self.interrupted.map(|since| STOPPING.saturating_sub(since.elapsed()).max(KILLING));
            match self.next(limit) {
                Some(Event::Exited(status)) => {
                    self.has_exited = true;
                    return status.context("failed to wait for the program");
                }
                Some(Event::Interrupt(signal)) if self.interrupted.is_none() => {
                    self.interrupted = Some(Instant::now());
                    self.signal(signal);
                }
                // A second interrupt, or none of the patience left.
                Some(Event::Interrupt(_)) | None => self.signal(Signal::SIGKILL),
                Some(Event::Line(line)) => (self.line)(&line),
                Some(Event::Closed) => self.is_open = false,
            }
        }
    }

    /// Hands over the lines that were written but not read when the program exited.
    fn until_closed(&mut self) {
        while self.is_open {
            match self.next(Some(LEAVING)) {
                Some(Event::Line(line)) => (self.line)(&line),
                Some(Event::Interrupt(_)) => self.interrupted = Some(Instant::now()),
                Some(Event::Closed | Event::Exited(_)) | None => self.is_open = false,
            }
        }
    }

    /// The next event, or `None` when the limit has passed first.
    fn next(&self, limit: Option<Duration>) -> Option<Event> {
        let event = match limit {
            Some(limit) => self.events.recv_timeout(limit),
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        event.ok()
    }

    fn ended(&self, status: ExitStatus) -> Ended {
        Ended { status, is_interrupted: self.interrupted.is_some() }
    }

    fn signal(&self, signal: Signal) {
        // An error means that the group is gone already, which is what a signal is to bring about.
        let _ = killpg(self.group, signal);
    }
}

impl Drop for Running<'_> {
    /// A step that is given up half-way, because what handles its lines panicked, ends as well.
    fn drop(&mut self) {
        if !self.has_exited {
            self.signal(Signal::SIGKILL);
        }
    }
}

/// Sends every line of `pipe`; bytes that are not UTF-8 become U+FFFD.
fn forward(pipe: PipeReader, events: &SyncSender<Event>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
        if events.send(Event::Line(text)).is_err() {
            return;
        }
        line.clear();
    }
    let _ = events.send(Event::Closed);
}

fn wait(mut child: Child, events: &SyncSender<Event>) {
    let _ = events.send(Event::Exited(child.wait()));
}
