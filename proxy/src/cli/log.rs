//! `prodex log`: the run log as a person reads it.

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::why::Which;
use super::{Exit, Failure, Home, page};
use crate::doctor::line::Entry;
use crate::doctor::log::{Found, LogFile};
use crate::doctor::milliseconds;
use crate::doctor::summary::Summary;
use wire::run_event::file::POINTER;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Longest line that is waited for.
const LONGEST: usize = 1024 * 1024;

/// Print the run log so that a person can read it
///
/// Times are in UTC. Lines that are no events are left out; `prodex doctor` says where they are.
///
/// Exit codes: 0 ok, 2 usage or settings, 3 there is no run log.
///
/// Example: prodex log --follow
/// Example: prodex log --since 1h --event stream_complete
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ShowLog {
    /// Go on with what is logged from now on, also by a proxy that is started later
    #[arg(long)]
    follow: bool,
    /// Only what was logged in this time, such as 30s, 10m, 2h or 7d, by all runs
    /// [default: all of the newest run]
    #[arg(long, value_name = "TIME", value_parser = page::span)]
    since: Option<Duration>,
    /// Only this event; several may be given
    #[arg(long, value_name = "NAME")]
    event: Vec<String>,
    /// Only what is about the request with this number, or about the `last`
    #[arg(long, value_name = "N")]
    request: Option<Which>,
    /// Read this log
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: Home,
}

/// Where lines are printed.
struct Page<'a, W> {
    asked: &'a ShowLog,
    request: Option<i64>,
    since: Option<i64>,
    out: W,
    /// The day of the last line, which is told when it changes.
    day: String,
}

impl ShowLog {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let directory = self.home.config(&Vec::new())?.log_directory();
        let found = match &self.log {
            Some(path) => Found::named(path),
            None => {
                let since = self.since.and_then(|since| std::time::SystemTime::now().checked_sub(since));
                Found::in_directory(&directory, since)
            }
        };
        if found.files.is_empty() {
            return Err(no_log(&directory, &"there is none"));
        }
        let since = self.since.map(|since| jiff::Timestamp::now().as_millisecond() - milliseconds(since));
        let out = std::io::BufWriter::new(std::io::stdout().lock());
        let request = match self.request {
            None => None,
            Some(Which::Number(number)) => i64::try_from(number).ok(),
            Some(Which::Last) => Some(Summary::read(&found, since).latest.request),
        };
        let mut page = Page { asked: &self, request, since, out, day: String::new() };
        match self.print(&found, &directory, &mut page) {
            // A reader that has seen enough, such as `head`.
            Err(Printing::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Ok),
            Err(Printing::Output(error)) => Err(Failure::of(Exit::Environment, &error)),
            Err(Printing::Log(path, error)) => Err(no_log(&path, &error)),
            Ok(()) => Ok(Exit::Ok),
        }
    }

    fn print<W: Write>(
        &self,
        found: &Found,
        directory: &Path,
        page: &mut Page<'_, W>,
    ) -> Result<(), Printing> {
        let (last, earlier) = match found.files.split_last() {
            Some((last, earlier)) if self.follow => (Some(last), earlier),
            _ => (None, &*found.files),
        };
        for file in earlier {
            let log_error = |error| Printing::Log(file.path.clone(), error);
            let mut lines = file.lines().map_err(log_error)?;
            while let Some(line) = lines.next().map_err(log_error)? {
                if let Ok(entry) = &line.entry {
                    page.print(entry, line.bytes)?;
                }
            }
        }
        page.out.flush()?;
        let Some(last) = last else { return Ok(()) };
        self.follow(last, directory, page)
    }

    /// Prints a log and what comes, and goes over to the next when there is one.
    fn follow<W: Write>(
        &self,
        from: &LogFile,
        directory: &Path,
        page: &mut Page<'_, W>,
    ) -> Result<(), Printing> {
        let mut path = from.path.clone();
        loop {
            let mut tail = Tail::open(&path).map_err(|error| Printing::Log(path.clone(), error))?;
            path = loop {
                // A newer log is looked for first, so that what the old one still got is printed before it.
                let newer = self.newer(&path, &tail, directory);
                let count = tail.read(|line| match Entry::parse(line) {
                    Ok(entry) => page.print(&entry, line),
                    Err(_) => Ok(()),
                })?;
                page.out.flush()?;
                match newer {
                    Some(newer) => break newer,
                    None if count == 0 => std::thread::sleep(LOOK),
                    None => {}
                }
            };
        }
    }

    /// The log that a proxy has begun since, or the file in which the same goes on.
    fn newer(&self, path: &Path, tail: &Tail, directory: &Path) -> Option<PathBuf> {
        let pointer = std::fs::read_to_string(directory.join(POINTER)).ok().filter(|_| self.log.is_none());
        let target = pointer.map_or_else(|| path.to_owned(), |pointer| directory.join(pointer.trim()));
        let is_other =
            std::fs::metadata(&target).is_ok_and(|meta| meta.is_file() && meta.ino() != tail.number);
        is_other.then_some(target)
    }
}

/// Why printing ended.
enum Printing {
    Output(std::io::Error),
    Log(PathBuf, std::io::Error),
}

impl From<std::io::Error> for Printing {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

fn no_log(path: &Path, problem: &dyn std::fmt::Display) -> Failure {
    let advice = "`prodex run` and `prodex serve` write one; name another with --log";
    Failure::new(Exit::Environment, format!("no run log: {}: {problem}; {advice}", path.display()))
}

impl<W: Write> Page<'_, W> {
    fn print(&mut self, entry: &Entry, line: &[u8]) -> Result<(), Printing> {
        let asked = self.asked;
        let is_asked_for = self.since.is_none_or(|since| entry.at >= since)
            && (asked.event.is_empty() || asked.event.contains(&entry.event))
            && self.request.is_none_or(|request| entry.number("request") == Some(request));
        if !is_asked_for {
            return Ok(());
        }
        let time = jiff::Timestamp::from_millisecond(entry.at).unwrap_or_default();
        if asked.json {
            if line.trim_ascii_start().starts_with(b"{") {
                self.out.write_all(line)?;
            } else {
                let timestamp = time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
                let line = json!({"timestamp": timestamp, "event": entry.event, "fields": entry.fields});
                write!(self.out, "{line}")?;
            }
            self.out.write_all(b"\n")?;
            return Ok(());
        }
        let day = time.strftime("%Y-%m-%d").to_string();
        if day != self.day {
            writeln!(self.out, "{day}")?;
            self.day = day;
        }
        writeln!(self.out, "{} {}", time.strftime("%H:%M:%S.%3f"), told(entry))?;
        Ok(())
    }
}

/// An event and its fields on one line.
fn told(entry: &Entry) -> String {
    let mut told = entry.event.clone();
    for (key, value) in &entry.fields {
        let value = match value {
            Value::String(text) if text.contains([' ', '=']) => format!("{text:?}"),
            Value::String(text) => text.clone(),
            Value::Array(items) => format!("[{}]", items.len()),
            other => other.to_string(),
        };
        told.push(' ');
        told.push_str(&page::plain(&format!("{key}={value}")));
    }
    told
}

/// A file that grows, line by line: what is begun is waited for.
struct Tail {
    file: File,
    /// The file's number, which it keeps when it gets another name.
    number: u64,
    pending: Vec<u8>,
}

impl Tail {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let number = file.metadata()?.ino();
        Ok(Self { file, number, pending: Vec::new() })
    }

    /// Reads what there is, and tells of each line. Says how many bytes there were.
    fn read(&mut self, mut line: impl FnMut(&[u8]) -> Result<(), Printing>) -> Result<usize, Printing> {
        let mut buffer = [0; 64 * 1024];
        let mut count = 0;
        loop {
            let read = match self.file.read(&mut buffer) {
                Ok(0) => return Ok(count),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Printing::Output(error)),
            };
            count += read;
            self.pending.extend_from_slice(&buffer[..read]);
            let Some(end) = memchr::memrchr(b'\n', &self.pending) else {
                if self.pending.len() > LONGEST {
                    self.pending.clear();
                }
                continue;
            };
            for whole in self.pending[..end].split(|byte| *byte == b'\n') {
                line(whole)?;
            }
            self.pending.drain(..=end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_begun_are_waited_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tail = Tail::open(file.path()).unwrap();
        let mut read = |text: &str| {
            let mut to = File::options().append(true).open(file.path()).unwrap();
            to.write_all(text.as_bytes()).unwrap();
            let mut lines = Vec::new();
            let result = tail.read(|line| {
                lines.push(String::from_utf8(line.to_vec()).unwrap());
                Ok(())
            });
            assert!(result.is_ok());
            lines
        };
        assert_eq!(read("one\ntw"), ["one"]);
        assert_eq!(read(""), [""; 0]);
        assert_eq!(read("o\n\nthree\n"), ["two", "", "three"]);
    }

    #[test]
    fn a_line_obeys_no_terminal() {
        let line = "[2026-03-20 12:00:00.010 +07:00] stream_read_error error=\"a \\u001b[2J b\" n=[]";
        let entry = Entry::parse(line.as_bytes()).unwrap();
        assert_eq!(told(&entry), "stream_read_error error=\"a \\u{1b}[2J b\" n=[]");
    }
}
