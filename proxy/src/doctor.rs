//! What is wrong: the run log, the home and a running proxy looked at, and findings with one next step each.
//!
//! A finding is a rule that holds. `rules` has those about a log's lines, one entry each; `whole` those about
//! a log as such; `home` those about what stands around the proxy. `attack` tries what a hostile neighbour
//! would. What is found is data; `cli::doctor` tells it.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) mod line;

pub(crate) mod log;

pub(crate) mod evidence;

pub(crate) mod finding;

pub(crate) mod rules;

pub(crate) mod summary;

pub(crate) mod pressure;

pub(crate) mod whole;

pub(crate) mod home;

pub(crate) mod attack;

#[cfg(test)]
mod tests;

use finding::{Finding, Ranked, rank};
use log::{Found, Pointer};
use pressure::{Backlog, Pressure, backlogs, pressures};
use summary::Summary;

/// Where logs are looked for.
#[derive(Debug, Clone)]
pub(crate) enum Logs {
    /// This one alone.
    File(PathBuf),
    /// Those of a directory: the newest run, or all since a time.
    Directory(PathBuf),
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Examination {
    /// When, in milliseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) logs: Logs,
    pub(crate) since: Option<Duration>,
    pub(crate) pointer: Pointer,
    pub(crate) summary: Summary,
    pub(crate) findings: Vec<Ranked>,
    pub(crate) pressures: Vec<Pressure>,
    pub(crate) backlogs: Vec<Backlog>,
}

impl Examination {
    /// Looks at the logs. `around` is what was found elsewhere; `now` is in milliseconds since the epoch.
    pub(crate) fn of(
        logs: Logs,
        since: Option<Duration>,
        around: Vec<Finding>,
        now: i64,
        is_alive: &dyn Fn(u32) -> bool,
    ) -> Self {
        let found = match &logs {
            Logs::File(path) => Found::named(path),
            Logs::Directory(directory) => {
                let since = since.and_then(|since| std::time::SystemTime::now().checked_sub(since));
                Found::in_directory(directory, since)
            }
        };
        let since_at = since.map(|since| now.saturating_sub(milliseconds(since)));
        let summary = Summary::read(&found, since_at);
        let mut findings = around;
        findings.extend(summary.findings(now));
        findings.extend(whole::findings(&found, &summary, now, is_alive));
        let findings = rank(findings, now);
        let (pressures, backlogs) = (pressures(&summary, &findings), backlogs(&summary));
        Self { at: now, logs, since, pointer: found.pointer, summary, findings, pressures, backlogs }
    }

    /// Whether there was a log at all.
    pub(crate) fn has_log(&self) -> bool {
        self.summary.files.iter().any(|read| read.problem.is_none())
    }
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Whether there is such a process. One of somebody else's counts.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    let signalled = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None);
    signalled != Err(nix::errno::Errno::ESRCH)
}
