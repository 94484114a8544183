//! Processes that outlive the program that started them: found by their group and a mark, and ended.
//!
//! The mark is a variable that every descendant inherits.
//! A shell that a client starts in a session of its own leaves the group but not the environment. The mark
//! is read from `/proc`; where there is none, only the group is looked at.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill as send, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process that was left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Straggler {
    /// Its id.
    pub pid: i32,
    /// Its command line, cut.
    pub command: String,
}

/// A variable with a value of its own that every descendant of a program has in its environment.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    value: String,
}

impl Mark {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        Self { value: format!("{}-{count}-{time:x}", std::process::id()) }
    }

    #[expect(clippy::unused_self, reason = "name and value belong together")]
    pub(super) fn name(&self) -> &'static str {
        "LABORATORY_PROCESS"
    }

    pub(super) fn value(&self) -> &str {
        &self.value
    }
}

/// How long what is about to end by itself may take, once the program has ended.
const GRACE: Duration = Duration::from_millis(500);

/// How often it is looked whether anything is left.
const LOOK: Duration = Duration::from_millis(20);

/// Waits shortly for everything that the program started; kills and names what is still there.
pub(super) async fn end(group: Pid, mark: &Mark) -> Vec<Straggler> {
    let started = Instant::now();
    loop {
        let left = find(group, mark);
        if left.is_empty() {
            return left;
        }
        if started.elapsed() >= GRACE {
            kill(group, mark);
            return left;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Kills everything that the program started.
pub(super) fn kill(group: Pid, mark: &Mark) {
    let _ = killpg(group, Signal::SIGKILL);
    // What is killed may just have started something: it is looked again until nothing is found.
    for _ in 0..3 {
        let left = find(group, mark);
        if left.is_empty() {
            return;
        }
        for straggler in left {
            let _ = send(Pid::from_raw(straggler.pid), Signal::SIGKILL);
        }
    }
}

/// The living processes of the group, and those that carry the mark.
fn find(group: Pid, mark: &Mark) -> Vec<Straggler> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        let is_there = killpg(group, None).is_ok();
        let rest = Straggler { pid: group.as_raw(), command: "the program's process group".into() };
        return is_there.then_some(rest).into_iter().collect();
    };
    let marked = format!("{}={}", mark.name(), mark.value());
    let mut found: Vec<Straggler> = processes
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<i32>().ok()?, entry.path())))
        .filter(|(_, path)| is_ours(path, group, marked.as_bytes()))
        .map(|(pid, path)| Straggler { pid, command: command_line(&path) })
        .collect();
    found.sort_by_key(|straggler| straggler.pid);
    found
}

/// Whether the process at this path of `/proc` lives and belongs to the group or carries the mark.
fn is_ours(path: &Path, group: Pid, marked: &[u8]) -> bool {
    let Some((state, its_group)) =
        std::fs::read_to_string(path.join("stat")).ok().and_then(|stat| parse(&stat))
    else {
        return false;
    };
    // One that has ended and waits to be reaped by its parent is no longer running.
    if matches!(state, 'Z' | 'X') {
        return false;
    }
    its_group == group.as_raw()
        || std::fs::read(path.join("environ"))
            .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == marked))
}

/// State and process group out of a line of `/proc/PID/stat`. The name in it may hold anything, so the line
/// is read from its last parenthesis on.
fn parse(stat: &str) -> Option<(char, i32)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    Some((state, group))
}

fn command_line(path: &Path) -> String {
    let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&line).replace('\0', " ");
    text.trim().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_name() {
        assert_eq!(parse("12 (a) b) (c) S 1 77 77 0 -1"), Some(('S', 77)));
        assert_eq!(parse("12 (sh) Z 1 5"), Some(('Z', 5)));
        for line in ["", "12 sh", "12 (sh)", "12 (sh) S", "12 (sh) S 1 x"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
