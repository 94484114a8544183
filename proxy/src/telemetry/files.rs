//! The files of a run log: the one that is written, and its older parts, within limits for each and for all.
//!
//! Only the thread that writes is here, so nothing of this is ever waited for by a request. A file that has its
//! size becomes a part by a second name, and its own name goes to the next file by a rename: whoever looks for
//! the newest log finds one at every moment. A log that a process writes is locked, and no other deletes it. One
//! that a person deleted, or that a full disk had no room for, is made with the next lines.

#![expect(
    clippy::disallowed_methods,
    reason = "on the log's own thread, but for its first file, which is made before anything listens"
)]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wire::run_event::RunEvent;
use wire::run_event::file::{POINTER, PREFIX, SUFFIX, part_name, part_number};

use super::render;
use crate::profile::Now;

/// How long a log is kept after its last line.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How often old logs are looked for while there is something to write.
const LOOK: Duration = Duration::from_secs(3600);

/// How long a file may be, and all logs of a directory together, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A file; one line that is longer is a file of its own.
    pub file: u64,
    /// All files. Those that were written longest ago go first, but none that a process still writes.
    pub total: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file: 32 << 20, total: 512 << 20 }
    }
}

/// What became of lines.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// How many are lost.
    pub(super) lost: u64,
    /// Why.
    pub(super) error: Option<io::Error>,
}

/// The files of this run.
pub(super) struct Files {
    directory: PathBuf,
    name: String,
    /// The file that is written, unless there is none: its disk has no room, or somebody deleted it.
    output: Option<Output<File>>,
    /// Whether the pointer names it.
    is_pointed: bool,
    /// What the pointer said before.
    before: Option<Vec<u8>>,
    /// How long the file is, and how long it was before the first line that was recorded.
    length: u64,
    fresh: u64,
    /// The number of the last part that was tried.
    part: u32,
    /// How many parts there are.
    pub(super) complete: u32,
    limits: Limits,
    looked: Option<Now>,
}

impl Files {
    /// Makes the file of a new run, and the pointer to it. On a full disk both come later: that one may have
    /// filled up a moment after they were made, too.
    pub(super) fn create(directory: &Path, limits: Limits) -> io::Result<Self> {
        let started = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3f");
        let mut files = Self {
            directory: directory.to_owned(),
            name: format!("{PREFIX}{}-{started}{SUFFIX}", std::process::id()),
            output: None,
            is_pointed: false,
            before: fs::read(directory.join(POINTER)).ok(),
            length: 0,
            fresh: 0,
            part: 0,
            complete: 0,
            limits,
            looked: None,
        };
        match files.make() {
            Err(error) if !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                Err(error)
            }
            _ => Ok(files),
        }
    }

    /// Makes what is missing: the directory, the file, the pointer.
    fn make(&mut self) -> io::Result<()> {
        if self.output.is_none() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
            self.output = Some(Output { to: create(&self.path())?, is_torn: false });
            (self.length, self.fresh, self.is_pointed) = (0, 0, false);
        }
        if !self.is_pointed {
            write_pointer(&self.directory, self.path().as_os_str().as_encoded_bytes())?;
            self.is_pointed = true;
        }
        Ok(())
    }

    /// Deletes the file of a run that came to nothing, so that the log before it is the newest again.
    pub(super) fn abandon(mut self) {
        self.output = None;
        let pointer = self.directory.join(POINTER);
        let is_ours = fs::read(&pointer)
            .is_ok_and(|target| target.trim_ascii() == self.path().as_os_str().as_encoded_bytes());
        // Best effort, as with all logs that are deleted.
        let _ = match self.before.as_deref().filter(|_| is_ours) {
            Some(before) => write_pointer(&self.directory, before.trim_ascii()),
            None if is_ours => fs::remove_file(&pointer),
            None => Ok(()),
        };
        let _ = fs::remove_file(self.path());
    }

    /// The file that is written.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// Writes whole lines, in as many files as they need.
    pub(super) fn write(&mut self, lines: &[u8]) -> Written {
        let mut all = Written::default();
        if lines.is_empty() {
            return all;
        }
        self.let_go_if_gone();
        all.error = self.make().err();
        let mut rest = lines;
        while !rest.is_empty() {
            let room = self.limits.file.saturating_sub(self.length);
            let fitting = whole_lines(rest, usize::try_from(room).unwrap_or(usize::MAX));
            if fitting == 0 && self.length > self.fresh && self.begin_next() {
                continue;
            }
            // A line that is longer than a file may be, or no other file could be made.
            let end = if fitting > 0 { fitting } else { first_line(rest) };
            let (now, later) = rest.split_at(end);
            let Some(output) = &mut self.output else {
                all.lost += count(rest);
                break;
            };
            let written = output.write(now);
            self.length += now.len() as u64;
            all.lost += written.lost;
            all.error = all.error.or(written.error);
            rest = later;
        }
        all
    }

    /// Somebody may have deleted the file, or the whole directory: what is written to it is nowhere.
    fn let_go_if_gone(&mut self) {
        let Some(output) = &self.output else { return };
        let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let named = fs::metadata(self.path()).map(inode);
        let is_other = |named| output.to.metadata().is_ok_and(|meta| inode(meta) != named);
        let is_gone = match named {
            Ok(named) => is_other(named),
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if is_gone {
            self.output = None;
        }
    }

    /// Makes what is in the file a part, and begins the next. Says whether that could be done: where it cannot,
    /// the file becomes longer than it should.
    fn begin_next(&mut self) -> bool {
        self.part += 1;
        let staged = self.directory.join(format!("{}.new", self.name));
        // What an attempt that was killed has left.
        let _ = fs::remove_file(&staged);
        let begun = self.try_begin_next(&staged);
        if begun.is_ok() {
            self.complete += 1;
            self.tidy();
        } else {
            let _ = fs::remove_file(&staged);
        }
        begun.is_ok()
    }

    fn try_begin_next(&mut self, staged: &Path) -> io::Result<()> {
        let path = self.path();
        let part = part_name(&self.name, self.part).ok_or(ErrorKind::InvalidInput)?;
        let part = self.directory.join(part);
        let mut file = create(staged)?;
        let mut header = Vec::new();
        render(&RunEvent::LogContinued { part: self.part }, &mut header);
        file.write_all(&header)?;
        // On a disk without second names a reader may find no file for a moment.
        let linked = fs::hard_link(&path, &part);
        if linked.is_err() {
            fs::rename(&path, &part)?;
        }
        fs::rename(staged, &path).inspect_err(|_| {
            // The name goes back to where it was.
            let _ = if linked.is_ok() { fs::remove_file(&part) } else { fs::rename(&part, &path) };
        })?;
        self.output = Some(Output { to: file, is_torn: false });
        self.fresh = header.len() as u64;
        self.length = self.fresh;
        Ok(())
    }

    /// Deletes logs that are too old or too many, if that was not done for a while.
    pub(super) fn tidy_if_due(&mut self, now: Now) {
        if self.looked.is_none_or(|looked| now.since(looked) >= LOOK) {
            self.looked = Some(now);
            self.tidy();
        }
    }

    /// Deletes logs that were written long ago, and of all others those written first until there is room for
    /// another file. Best effort: what cannot be deleted now is tried again.
    fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let mut logs: Vec<(SystemTime, String, u64)> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let stem = name.strip_suffix(".new").unwrap_or(&name);
                let is_log = stem.starts_with(PREFIX) && stem.ends_with(SUFFIX) && name != self.name;
                let meta = entry.metadata().ok().filter(|meta| is_log && meta.is_file())?;
                Some((meta.modified().ok()?, name, meta.len()))
            })
            .collect();
        logs.sort_unstable();
        let most = self.limits.total.saturating_sub(self.limits.file);
        let mut total: u64 = logs.iter().map(|(_, _, length)| length).sum();
        for (written, name, length) in logs {
            let is_old = written.elapsed().is_ok_and(|age| age > KEPT);
            if (is_old || total > most) && delete(&self.directory.join(name)).is_ok() {
                total -= length;
            }
        }
    }
}

/// Makes a log, for its owner's eyes only, and locks it for as long as it is open.
fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    // Where there are no locks, all that is lost is the care for a log that has been quiet for 30 days.
    let _ = file.lock_shared();
    Ok(file)
}

/// Deletes a log, unless a process writes it.
fn delete(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).open(path)?;
    file.try_lock().map_err(|_| ErrorKind::WouldBlock)?;
    fs::remove_file(path)
}

/// Replaces the pointer in one step, so that a reader never finds half a path. What it names stays the run's
/// newest file to the end.
fn write_pointer(directory: &Path, target: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{POINTER}.{}", std::process::id()));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&[target, b"\n"].concat())?;
        fs::rename(&temporary, directory.join(POINTER))
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// The files of a log in the order in which they were written: its parts, and itself. A file that is a part, or
/// no log, is alone.
///
/// # Errors
/// When its directory cannot be read.
pub fn parts(log: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = log.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = log.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let names = fs::read_dir(directory)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut parts: Vec<_> = names.filter_map(|other| Some((part_number(name, &other)?, other))).collect();
    parts.sort_unstable();
    // For a moment a part has both names.
    let inode = |path: &Path| fs::metadata(path).map(|meta| meta.ino()).ok();
    let parts = parts.into_iter().map(|(_, name)| directory.join(name));
    let parts = parts.filter(|part| inode(part) != inode(log));
    Ok(parts.chain([log.to_owned()]).collect())
}

/// Where lines are written, and whether the last one is only begun: a disk that fills up takes half a line,
/// and the next must not be glued to it.
struct Output<W> {
    to: W,
    is_torn: bool,
}

impl<W: Write> Output<W> {
    /// Writes whole lines.
    fn write(&mut self, lines: &[u8]) -> Written {
        let mut error = None;
        if self.is_torn && !lines.is_empty() {
            error = self.to.write_all(b"\n").err();
            self.is_torn = error.is_some();
        }
        let mut rest = lines;
        while !rest.is_empty() && !self.is_torn {
            match self.to.write(rest) {
                Ok(count @ 1..) => rest = &rest[count..],
                Err(failed) if failed.kind() == ErrorKind::Interrupted => {}
                failed => {
                    error = Some(failed.err().unwrap_or(ErrorKind::WriteZero.into()));
                    let written = &lines[..lines.len() - rest.len()];
                    self.is_torn = written.last().is_some_and(|last| *last != b'\n');
                    break;
                }
            }
        }
        Written { lost: count(rest), error }
    }
}

/// How many lines end in this text.
fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// How much of a text of whole lines fits into so many bytes without tearing one.
fn whole_lines(lines: &[u8], room: usize) -> usize {
    if lines.len() <= room {
        return lines.len();
    }
    memchr::memrchr(b'\n', &lines[..room]).map_or(0, |end| end + 1)
}

/// How long the first line is.
fn first_line(lines: &[u8]) -> usize {
    memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1)
}

#[cfg(test)]
mod tests;
