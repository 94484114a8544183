//! `prodex why`: why a request got the profile that it got, told from the run log.

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::terminal::print;
use super::{Exit, Failure, Home};
use crate::telemetry::parts;
use wire::run_event::file::{POINTER, PREFIX, SUFFIX};

use history::{History, HistoryError};

mod history;

mod report;

mod what_if;

use what_if::WhatIf;

/// Say why a request got the profile that it got
///
/// Every choice is made again from what the run log says was known at the time, by the same rules.
///
/// Example: prodex why last --what-if pause=work
#[derive(Debug, clap::Args)]
pub(super) struct Why {
    /// The request by its number in the log, or `last`
    request: Which,
    /// The run log to read [default: the newest]
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    log: Option<PathBuf>,
    /// Read the newest run log of the process with this id
    #[arg(long, value_name = "N")]
    pid: Option<u32>,
    /// Say what would have been chosen if one thing had been different; several may be given
    ///
    /// pause=NAME, exhausted=NAME, or remaining=NAME:PERCENT
    #[arg(long, value_name = "CHANGE")]
    what_if: Vec<WhatIf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: Home,
}

/// Which request is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Last,
    Number(u64),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "last" => Ok(Self::Last),
            number => number
                .parse()
                .map(Self::Number)
                .map_err(|_| "it is the number of a request in the run log, or `last`".to_owned()),
        }
    }
}

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Self {
        Self::of(Exit::Failure, &error)
    }
}

impl Why {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let path = self.log_path()?;
        let wanted = match self.request {
            Which::Last => None,
            Which::Number(number) => Some(number),
        };
        let history = History::read(&read(&path, wanted)?, wanted)?;
        let what_if = what_if::ask(&history, &self.what_if)?;
        if self.json {
            print(report::json(&path, &history, &self.what_if, what_if.as_ref()))?;
        } else {
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            print(report::text(&name, &history, &self.what_if, what_if.as_ref()))?;
        }
        Ok(Exit::Ok)
    }

    /// The log to read.
    fn log_path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.log {
            return Ok(path.clone());
        }
        let directory = self.home.config(&Vec::new())?.log_directory();
        if let Some(pid) = self.pid {
            return newest_of(&directory, pid);
        }
        let pointer = directory.join(POINTER);
        let path = std::fs::read_to_string(&pointer).map_err(|error| no_log(&pointer, &error))?;
        Ok(directory.join(path.trim()))
    }
}

/// What a log says that matters for a request: of its parts those that tell of it, and the one before them, which
/// has what the first choice may have been made from.
fn read(path: &Path, wanted: Option<u64>) -> Result<Vec<u8>, Failure> {
    let parts = parts(path).map_err(|error| no_log(path, &error))?;
    let read = |part: &PathBuf| std::fs::read(part).map_err(|error| no_log(part, &error));
    let Some(number) = wanted.filter(|_| parts.len() > 1) else {
        let mut all = Vec::new();
        for part in parts.get(parts.len().saturating_sub(2)..).unwrap_or_default() {
            let read = File::open(part).and_then(|mut file| file.read_to_end(&mut all));
            read.map_err(|error| no_log(part, &error))?;
        }
        return Ok(all);
    };
    let patterns = [",", "}"].map(|end| format!("\"request\":{number}{end}"));
    let tells_of_it =
        |text: &[u8]| patterns.iter().any(|pattern| memchr::memmem::find(text, pattern.as_bytes()).is_some());
    let (mut all, mut before, mut found) = (Vec::new(), Vec::new(), false);
    let mut ends = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let text = read(part)?;
        if at == 0 || at + 1 == parts.len() {
            ends.extend_from_slice(&text);
        }
        if tells_of_it(&text) {
            // In between there may be nothing of it for hours.
            all.append(&mut before);
            all.extend_from_slice(&text);
            before.clear();
            found = true;
        } else {
            before = text;
        }
    }
    // Of a request that is nowhere the first and the last part say which there are.
    Ok(if found { all } else { ends })
}

/// The newest log of a process: the names of its logs differ in the time only.
fn newest_of(directory: &Path, pid: u32) -> Result<PathBuf, Failure> {
    let entries = std::fs::read_dir(directory).map_err(|error| no_log(directory, &error))?;
    let prefix = format!("{PREFIX}{pid}-");
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let logs = names.filter(|name| name.starts_with(&prefix) && name.ends_with(SUFFIX));
    let newest = logs.max().ok_or_else(|| no_log(directory, &format!("there is none of process {pid}")))?;
    Ok(directory.join(newest))
}

fn no_log(path: &Path, problem: &dyn fmt::Display) -> Failure {
    let advice = "`prodex run` and `prodex serve` write one; name another with --log";
    Failure::new(Exit::Environment, format!("no run log: {}: {problem}; {advice}", path.display()))
}
