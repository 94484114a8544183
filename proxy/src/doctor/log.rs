//! Run logs on disk: which there are, and their lines one after the other in bounded memory.

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::line::{Entry, Unread};
use wire::run_event::file::{POINTER, PREFIX};

/// Longest line that is looked at. An event has a few hundred bytes, a snapshot of a hundred profiles 30 KiB.
const LONGEST: usize = 256 * 1024;

/// How much of a file is looked at for the time of its first event.
const GLANCE: u64 = 512 * 1024;

/// A line of a log that is not empty.
pub(crate) struct Line<'a> {
    /// Counted from one.
    pub(crate) number: u64,
    /// Without its end; nothing of one that is too long.
    pub(crate) bytes: &'a [u8],
    /// What it says.
    pub(crate) entry: Result<Entry, Unread>,
}

/// The lines of a log.
pub(crate) struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, line: Vec::new(), number: 0 }
    }

    /// The next line.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            self.line.clear();
            let taken = (&mut self.input).take(LONGEST as u64 + 1).read_until(b'\n', &mut self.line)?;
            if taken == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.line.len() > LONGEST && self.line.last() != Some(&b'\n') {
                self.skip_rest()?;
                return Ok(Some(Line { number: self.number, bytes: &[], entry: Err(Unread::TooLong) }));
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let bytes = self.line.trim_ascii();
        Ok(Some(Line { number: self.number, bytes, entry: Entry::parse(bytes) }))
    }

    /// Passes over the rest of a line, however long that is.
    fn skip_rest(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.input.fill_buf()?;
            let (used, is_end) = match memchr::memchr(b'\n', bytes) {
                Some(at) => (at + 1, true),
                None => (bytes.len(), bytes.is_empty()),
            };
            self.input.consume(used);
            if is_end {
                return Ok(());
            }
        }
    }
}

/// What the pointer file of a directory says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pointer {
    /// Nobody looked: a log was named.
    Unasked,
    /// There is none.
    Missing,
    /// It names a log that is not there.
    Dangling(PathBuf),
    /// It names this log.
    To(PathBuf),
}

/// A file of a run log. A run may have several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFile {
    pub(crate) path: PathBuf,
    /// The process and its start, as the name says: what the files of a run have in common.
    pub(crate) run: String,
    /// The process, if the name is in our form.
    pub(crate) pid: Option<u32>,
    /// When its first event was, in milliseconds since the epoch.
    first: Option<i64>,
}

impl LogFile {
    fn new(path: PathBuf) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let run = name.strip_prefix(PREFIX).unwrap_or(&name);
        let run = run.split('.').next().unwrap_or_default().to_owned();
        let pid = run.split('-').next().filter(|_| run.contains('-')).and_then(|pid| pid.parse().ok());
        Self { path, run, pid, first: None }
    }

    /// Its lines.
    pub(crate) fn lines(&self) -> io::Result<Lines<BufReader<File>>> {
        Ok(Lines::new(BufReader::with_capacity(128 * 1024, File::open(&self.path)?)))
    }

    /// Looks for the time of the first event.
    fn glance(&mut self) {
        let Ok(file) = File::open(&self.path) else { return };
        let mut lines = Lines::new(BufReader::new(file.take(GLANCE)));
        while let Ok(Some(line)) = lines.next() {
            if let Ok(entry) = line.entry {
                self.first = Some(entry.at);
                return;
            }
        }
    }
}

/// The logs to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) pointer: Pointer,
    /// In the order in which they were written.
    pub(crate) files: Vec<LogFile>,
}

impl Found {
    /// This log alone.
    pub(crate) fn named(path: &Path) -> Self {
        Self { pointer: Pointer::Unasked, files: vec![LogFile::new(path.to_owned())] }
    }

    /// The logs of a directory: of the newest run, or, with a time, of all runs that wrote since then.
    pub(crate) fn in_directory(directory: &Path, since: Option<SystemTime>) -> Self {
        let target = std::fs::read_to_string(directory.join(POINTER));
        let pointer = match target.map(|target| directory.join(target.trim())) {
            Err(_) => Pointer::Missing,
            Ok(target) if target.is_file() => Pointer::To(target),
            Ok(target) => Pointer::Dangling(target),
        };
        let mut all: Vec<(LogFile, SystemTime)> = log_files(directory).collect();
        if let Pointer::To(target) = &pointer
            && all.iter().all(|(file, _)| file.path != *target)
        {
            let written = std::fs::metadata(target).and_then(|meta| meta.modified());
            all.push((LogFile::new(target.clone()), written.unwrap_or(SystemTime::UNIX_EPOCH)));
        }
        let files: Vec<LogFile> = if let Some(since) = since {
            all.into_iter().filter(|(_, written)| *written >= since).map(|(file, _)| file).collect()
        } else {
            let newest = match &pointer {
                Pointer::To(target) => Some(LogFile::new(target.clone()).run),
                _ => all.iter().max_by_key(|(_, written)| *written).map(|(file, _)| file.run.clone()),
            };
            all.into_iter().map(|(file, _)| file).filter(|file| Some(&file.run) == newest.as_ref()).collect()
        };
        Self { pointer, files: in_order(files) }
    }
}

/// The logs in a directory, with the time of the last write.
fn log_files(directory: &Path) -> impl Iterator<Item = (LogFile, SystemTime)> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let path = entry.path();
        let name = path.file_name()?.to_str()?;
        let is_log = name.starts_with(PREFIX) && (name.contains(".jsonl") || name.contains(".log"));
        let meta = entry.metadata().ok().filter(|meta| is_log && meta.is_file())?;
        Some((LogFile::new(path), meta.modified().ok()?))
    })
}

/// The runs as they began, and of each run the files as they were written.
fn in_order(mut files: Vec<LogFile>) -> Vec<LogFile> {
    files.iter_mut().for_each(LogFile::glance);
    let mut began: HashMap<String, i64> = HashMap::new();
    for file in &files {
        let first = file.first.unwrap_or(i64::MAX);
        began.entry(file.run.clone()).and_modify(|at| *at = first.min(*at)).or_insert(first);
    }
    files.sort_by_key(|file| {
        (began[&file.run], file.run.clone(), file.first.unwrap_or(i64::MAX), file.path.clone())
    });
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn line(second: u32) -> String {
        format!("{{\"timestamp\":\"2026-11-20T05:56:{second:02}.000Z\",\"event\":\"a\",\"fields\":{{}}}}\n")
    }

    fn seen(bytes: &[u8]) -> Vec<(u64, Result<(), Unread>)> {
        let mut lines = Lines::new(bytes);
        let mut seen = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            seen.push((line.number, line.entry.map(drop)));
        }
        seen
    }

    #[test]
    fn long_torn_and_empty_lines_spoil_no_other() {
        let long = format!("{{\"{}\"}}", "x".repeat(3 * LONGEST));
        let text = format!("{}\n\n{long}\n{}{{\"timest", line(1), line(2));
        let no_form = Err(Unread::NoForm);
        assert_eq!(
            seen(text.as_bytes()),
            [(1, Ok(())), (4, Err(Unread::TooLong)), (5, Ok(())), (6, no_form)]
        );
        let endless = vec![b'x'; 3 * LONGEST];
        assert_eq!(seen(&endless), [(1, Err(Unread::TooLong))]);
    }

    #[test]
    fn the_newest_run_is_read_or_all_since_a_time() {
        let home = tempfile::tempdir().unwrap();
        let names = |since| -> Vec<String> {
            let found = Found::in_directory(home.path(), since);
            let name = |file: LogFile| file.path.file_name().unwrap().to_string_lossy().into_owned();
            found.files.into_iter().map(name).collect()
        };
        assert_eq!(names(None), [""; 0]);
        let now = SystemTime::now();
        for (name, second, age) in [
            ("prodex-runtime-9-20261120T055601000.jsonl", 1, 50),
            ("prodex-runtime-7-20261120T055602000.jsonl", 9, 10),
            ("prodex-runtime-7-20261120T055602000.1.jsonl", 2, 20),
            ("prodex-runtime-1795154200.log", 0, 5000),
            ("notes.jsonl", 0, 0),
        ] {
            let path = home.path().join(name);
            std::fs::write(&path, line(second)).unwrap();
            File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .set_modified(now - Duration::from_secs(age))
                .unwrap();
        }
        let newest =
            ["prodex-runtime-7-20261120T055602000.1.jsonl", "prodex-runtime-7-20261120T055602000.jsonl"];
        assert_eq!(names(None), newest, "the last that was written is of run 7");
        let older = "prodex-runtime-9-20261120T055601000.jsonl";
        std::fs::write(home.path().join(POINTER), older).unwrap();
        assert_eq!(names(None), [older]);
        assert_eq!(names(Some(now - Duration::from_secs(100))), [older, newest[0], newest[1]]);
        std::fs::write(home.path().join(POINTER), "gone.jsonl\n").unwrap();
        let found = Found::in_directory(home.path(), None);
        assert_eq!(found.pointer, Pointer::Dangling(home.path().join("gone.jsonl")));
        assert_eq!((found.files.len(), found.files[0].pid), (2, Some(7)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
            prop_assert_eq!(seen(&bytes).len(), lines);
        }
    }
}
