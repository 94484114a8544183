//! One test in a sandbox of its own: a private home, no variable that is not named, nothing that outlives it.
//!
//! The test keeps the caller's streams and directory, and stays in the caller's process group, so that who
//! kills the group kills the test. On Linux this process takes in the orphans of the test, so even those that
//! left the group are found, ended and named; elsewhere that is left to whoever reads the streams.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Sandbox;
use crate::process::{Exit, Straggler};

/// How a test ended.
#[derive(Debug)]
pub struct Ended {
    /// How its process ended.
    pub exit: Exit,
    /// What it had started and not ended; they have been killed.
    pub left_behind: Vec<Straggler>,
}

/// Variables that a test may see besides those of a [`Sandbox`]: what cargo and the runner tell about the
/// test, and what a person sets to look at one. Tokens of registries begin with `CARGO_` too, so cargo's are
/// named one by one.
const PASSED: &[&str] = &[
    "CARGO",
    "CARGO_CRATE_NAME",
    "CARGO_INCREMENTAL",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_NET_OFFLINE",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_TMPDIR",
    "OUT_DIR",
    "RUSTUP_TOOLCHAIN",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "NEXTEST",
];

/// What the names of further such variables begin with.
const PREFIXES: &[&str] =
    &["CARGO_BIN_EXE_", "CARGO_CFG_", "CARGO_PKG_", "NEXTEST_", "INSTA_", "PROPTEST_", "RUST_TEST_"];

/// How long what is about to end by itself may outlive the test.
const LEAVING: Duration = Duration::from_secs(1);

/// How long the test may take to end once it was asked to.
const STOPPING: Duration = Duration::from_secs(1);

/// A sandbox for a test.
///
/// # Errors
/// When its directories cannot be made.
pub fn sandbox() -> io::Result<Sandbox> {
    let mut sandbox = Sandbox::new("test")?;
    sandbox.pass(|name| PASSED.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
    // The toolchain is found by the home that the test does not get.
    for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(folder));
        let path = std::env::var_os(name).map(Into::into).or_else(home);
        if let Some(path) = path.filter(|path| path.is_dir()) {
            sandbox.set(name, path);
        }
    }
    sandbox.set("PRODEX_RUNTIME_LOG_DIR", sandbox.logs());
    Ok(sandbox)
}

/// Runs a test to its end. A signal that this process gets ends the test, and then this call returns.
///
/// Every child of this process is taken for one of the test's, so there may be no others.
///
/// # Errors
/// When the test cannot be started or waited for.
pub fn run(sandbox: &Sandbox, program: &Path, arguments: &[OsString]) -> io::Result<Ended> {
    orphans::adopt()?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(sandbox.environment()).stdin(Stdio::null());
    let ended = on_signal()?;
    let exit = command.spawn()?.wait()?.into();
    let left_behind = orphans::clear(LEAVING);
    drop(ended);
    Ok(Ended { exit, left_behind })
}

/// Stays alive when a signal comes: the group got it, the test too. A test that does not end is killed.
fn on_signal() -> io::Result<SyncSender<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let (ended, is_ended) = sync_channel::<()>(1);
    thread::spawn(move || {
        if signals.forever().next().is_some() && is_ended.recv_timeout(STOPPING).is_err() {
            orphans::kill();
        }
    });
    Ok(ended)
}

#[cfg(target_os = "linux")]
mod orphans {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io;
    use std::sync::mpsc::sync_channel;
    use std::thread;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, kill as send};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    use crate::process::Straggler;

    /// How often what is left is killed again, and how long each time is waited for its end.
    const ROUNDS: usize = 20;
    const ROUND: Duration = Duration::from_millis(100);

    /// Asks for the orphans of everything this process starts.
    pub(super) fn adopt() -> io::Result<()> {
        Ok(nix::sys::prctl::set_child_subreaper(true)?)
    }

    /// Waits until no child is left, and kills the ones that take longer than `patience`. Those.
    pub(super) fn clear(patience: Duration) -> Vec<Straggler> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return Vec::new(),
            }
        }
        let (gone, is_gone) = sync_channel(1);
        thread::spawn(move || {
            // Reaps; ends with "no child" once the last one is gone.
            while waitpid(None, None).is_ok() {}
            gone.send(())
        });
        let mut killed = BTreeMap::new();
        let mut limit = patience;
        // A killed child's own children become ours, so it may take one round for every generation.
        for _ in 0..ROUNDS {
            if is_gone.recv_timeout(limit).is_ok() {
                break;
            }
            for (pid, name) in kill() {
                killed.entry(pid).or_insert(name);
            }
            limit = ROUND;
        }
        killed.into_iter().map(|(pid, command)| Straggler { pid, command }).collect()
    }

    /// Kills every child, and says which.
    pub(super) fn kill() -> Vec<(i32, String)> {
        let children = children().into_iter().map(|child| {
            let name = fs::read_to_string(format!("/proc/{child}/comm"));
            let name = name.map_or_else(|_| "a process".to_owned(), |name| name.trim_end().to_owned());
            let _ = send(child, Signal::SIGKILL);
            (child.as_raw(), name)
        });
        children.collect()
    }

    /// The children of all threads of this process.
    fn children() -> Vec<Pid> {
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        lists
            .flat_map(|list| list.split_whitespace().map(str::parse).collect::<Vec<_>>())
            .filter_map(Result::ok)
            .map(Pid::from_raw)
            .collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod orphans {
    use std::io;
    use std::time::Duration;

    use crate::process::Straggler;

    /// There is nobody to ask.
    pub(super) fn adopt() -> io::Result<()> {
        Ok(())
    }

    /// Nothing tells what is left.
    pub(super) fn clear(_patience: Duration) -> Vec<Straggler> {
        Vec::new()
    }

    /// The group's signal has to do.
    pub(super) fn kill() -> Vec<(i32, String)> {
        Vec::new()
    }
}
