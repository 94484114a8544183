//! The run log: typed events as JSON lines, written by a thread of its own.
//!
//! Recording an event never waits for the disk and never fails: lines gather in bounded memory, and those
//! that find it full are counted and the count is logged. The thread is woken once per burst and sleeps
//! while there is nothing to write, so a line costs no system call and an idle proxy is not woken.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wire::run_event::{Line, RunEvent};

use crate::notice;
use crate::profile::Now;

mod files;

use files::Files;
pub use files::{Limits, parts};

/// How many bytes may wait for the disk.
const MAX_WAITING: usize = 4 * 1024 * 1024;

/// How long the first line of a burst waits for others, so that they share one write. It is also how
/// much of the log a killed process loses.
const GATHER: Duration = Duration::from_millis(40);

/// The run log of this process.
#[derive(Debug)]
pub struct RunLog {
    path: Option<PathBuf>,
    shared: Arc<Shared>,
    /// It gives back the files at the end.
    writer: Mutex<Option<JoinHandle<Files>>>,
}

/// What the threads that record and the one that writes have in common.
#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told when the first line of a burst comes, and at the end.
    changed: Condvar,
    /// How many parts of the log are complete.
    parts: AtomicU32,
    /// How many lines are lost, in all.
    lost: AtomicU64,
}

/// Lines on their way to the disk.
#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    dropped: u64,
    is_closed: bool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Lines are appended whole, so a panic elsewhere cannot have left half of one.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunLog {
    /// Creates the log file and the pointer to it in `directory`, which is made if it is missing. On a full disk
    /// they are made when there is room.
    ///
    /// # Errors
    /// When the directory or the files cannot be created for another reason.
    pub fn open(directory: &Path) -> std::io::Result<Self> {
        Self::within(directory, Limits::default())
    }

    /// The same with limits of its own for the length of a file, and of all files.
    ///
    /// # Errors
    /// When the directory or the files cannot be created.
    pub fn within(directory: &Path, limits: Limits) -> std::io::Result<Self> {
        let files = Files::create(directory, limits)?;
        let path = files.path();
        let shared = Arc::new(Shared::default());
        let of_writer = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("run-log".to_owned())
            .spawn(move || write_lines(files, &of_writer))?;
        Ok(Self { path: Some(path), shared, writer: Mutex::new(Some(writer)) })
    }

    /// A log that keeps nothing, for commands that say what they do, and for tests.
    #[must_use]
    pub fn none() -> Self {
        let shared = Arc::new(Shared::default());
        shared.waiting().is_closed = true;
        Self { path: None, shared, writer: Mutex::new(None) }
    }

    /// The log file. The newest lines are in it at every moment.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// How many parts of the log are complete. What is needed to read a part must be in it once this grows.
    #[must_use]
    pub fn parts(&self) -> u32 {
        self.shared.parts.load(Ordering::Relaxed)
    }

    /// How many lines did not get to the disk.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Appends an event.
    pub fn record(&self, event: &RunEvent<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            render(event, line);
            let mut waiting = self.shared.waiting();
            if waiting.is_closed {
                return;
            }
            if waiting.lines.len() + line.len() > MAX_WAITING {
                waiting.dropped += 1;
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let is_first = waiting.lines.is_empty();
            waiting.lines.extend_from_slice(line);
            drop(waiting);
            // Only the first line of a burst wakes the writer.
            if is_first {
                self.shared.changed.notify_one();
            }
        });
    }

    /// Writes what is waiting and ends the log.
    pub fn close(&self) {
        self.end();
    }

    /// Ends the log of a run that came to nothing and deletes it: the one before is the newest again.
    pub fn abandon(&self) {
        if let Some(files) = self.end() {
            files.abandon();
        }
    }

    fn end(&self) -> Option<Files> {
        self.shared.waiting().is_closed = true;
        self.shared.changed.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A writer that panicked has nothing left to write.
        writer.and_then(|writer| writer.join().ok())
    }
}

impl Drop for RunLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn render(event: &RunEvent<'_>, line: &mut Vec<u8>) {
    with_timestamp(|timestamp| {
        // Events are plain data: they always serialise.
        let _ = serde_json::to_writer(&mut *line, &Line { timestamp, event });
    });
    line.push(b'\n');
}

/// The time as RFC 3339 with milliseconds. A second's text is made once: lines come by the thousand.
fn with_timestamp(write: impl FnOnce(&str)) {
    thread_local! {
        static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    let now = jiff::Timestamp::now();
    let (second, milliseconds) = (now.as_second(), now.subsec_millisecond().unsigned_abs());
    SECOND.with_borrow_mut(|(known, text)| {
        if *known != second {
            *known = second;
            *text = now.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        let length = text.len();
        text.push('.');
        let digits = [100, 10, 1].map(|place| char::from_digit(milliseconds / place % 10, 10));
        text.extend(digits.into_iter().flatten());
        text.push('Z');
        write(text);
        text.truncate(length);
    });
}

/// Writes what comes until the log is closed. Bursts share a write; while nothing comes nothing wakes
/// this thread.
fn write_lines(mut files: Files, shared: &Shared) -> Files {
    let mut batch = Vec::new();
    let mut fails = false;
    loop {
        files.tidy_if_due(Now::read());
        let waiting = shared.waiting();
        let is_quiet = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.is_closed;
        let waiting = shared.changed.wait_while(waiting, is_quiet).unwrap_or_else(PoisonError::into_inner);
        let gathering = shared.changed.wait_timeout_while(waiting, GATHER, |waiting| !waiting.is_closed);
        let mut waiting = gathering.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::swap(&mut batch, &mut waiting.lines);
        let (dropped, is_closed) = (std::mem::take(&mut waiting.dropped), waiting.is_closed);
        drop(waiting);
        if dropped > 0 {
            render(&RunEvent::LogDropped { lines: dropped }, &mut batch);
        }
        let written = files.write(&batch);
        shared.parts.store(files.complete, Ordering::Relaxed);
        if written.lost > 0 {
            // A full disk must not stop the proxy; what was lost is told when there is room again. The line
            // that would have told of earlier losses is the last, so it is among them.
            shared.waiting().dropped += written.lost + dropped;
            // Those that had been dropped before are counted already, and the line that told so is no loss.
            shared.lost.fetch_add(written.lost - u64::from(dropped > 0), Ordering::Relaxed);
        }
        let failed = std::mem::replace(&mut fails, written.error.is_some());
        if let Some(error) = written.error.filter(|_| !failed) {
            let path = files.path();
            notice::tell(format_args!(
                "the run log {} cannot be written: {error}; requests are served all the same, and what \
                 is lost of the log is counted in it when its disk has room again",
                path.display()
            ));
        }
        batch.clear();
        if is_closed {
            return files;
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests may touch the disk")]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt as _;
    use wire::run_event::RawLine;
    use wire::run_event::file::POINTER;

    #[test]
    fn events_are_found_through_the_pointer() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("logs");
        let log = RunLog::open(&directory).unwrap();
        for request in 0..100 {
            log.record(&RunEvent::RequestRefused { request, status: 401, reason: "x".into() });
        }
        log.close();
        log.record(&RunEvent::DrainStarted { active: 0 });
        let path = std::fs::read_to_string(directory.join(POINTER)).unwrap();
        assert_eq!(Path::new(path.trim_end()), log.path().unwrap());
        let text = std::fs::read_to_string(path.trim_end()).unwrap();
        let lines: Vec<RawLine> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 100);
        assert_eq!((lines[99].event.as_str(), &lines[99].fields["request"]), ("request_refused", &99.into()));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(log.path().unwrap())), (0o700, 0o600));
    }

    #[test]
    fn a_run_that_came_to_nothing_leaves_the_log_before_it_the_newest() {
        let home = tempfile::tempdir().unwrap();
        let pointer = || std::fs::read_to_string(home.path().join(POINTER)).ok();
        // A process has one log; two within a millisecond would have one name.
        let begin = || std::iter::repeat_with(|| RunLog::open(home.path())).find_map(Result::ok).unwrap();
        let first = begin();
        first.abandon();
        assert_eq!((pointer(), first.path().unwrap().exists()), (None, false));
        let running = begin();
        let pointed = pointer();
        let (failed, late) = (begin(), begin());
        failed.record(&RunEvent::DrainStarted { active: 0 });
        // Who was faster has the pointer.
        let of_late = pointer();
        failed.abandon();
        assert_eq!((pointer(), failed.path().unwrap().exists()), (of_late, false));
        drop(late);
        let failed = begin();
        std::fs::write(home.path().join(POINTER), pointed.as_ref().unwrap()).unwrap();
        failed.abandon();
        let failed = begin();
        failed.abandon();
        assert_eq!(pointer(), pointed);
        assert!(running.path().unwrap().exists());
    }

    #[test]
    fn logs_are_kept_for_30_days() {
        let home = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(60 * 24 * 3600);
        for (name, is_old) in
            [("prodex-runtime-1-x.jsonl", true), ("prodex-runtime-2-x.jsonl", false), ("notes.jsonl", true)]
        {
            let file = File::create(home.path().join(name)).unwrap();
            if is_old {
                file.set_modified(old).unwrap();
            }
        }
        let log = RunLog::open(home.path()).unwrap();
        log.close();
        assert!(log.path().unwrap().exists() && !home.path().join("prodex-runtime-1-x.jsonl").exists());
        for kept in ["prodex-runtime-2-x.jsonl", "notes.jsonl", POINTER] {
            assert!(home.path().join(kept).exists(), "{kept}");
        }
    }
}
