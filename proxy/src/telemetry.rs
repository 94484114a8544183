//! The run log: typed events as JSON lines, written by a thread of its own.
//!
//! Recording an event never blocks and never fails: lines wait in a bounded queue, and those that find
//! it full are counted and the count is logged. The thread sleeps while there is nothing to write, so an
//! idle proxy is not woken by its log.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wire::run_event::{Line, RunEvent};

/// How many lines may wait for the disk.
const QUEUE: usize = 8192;

/// How long the first line of a burst waits for others, so that they share one write.
const GATHER: Duration = Duration::from_millis(25);

/// The file that names the newest run log of its directory.
pub const POINTER: &str = "prodex-runtime-latest.path";

/// The run log of this process.
#[derive(Debug)]
pub struct RunLog {
    path: Option<PathBuf>,
    sender: Mutex<Option<SyncSender<Vec<u8>>>>,
    dropped: Arc<AtomicU64>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl RunLog {
    /// Creates the log file and the pointer to it in `directory`, which is made if it is missing.
    ///
    /// # Errors
    /// When the directory or the files cannot be created.
    pub fn open(directory: &Path) -> std::io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let started = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3f");
        let path = directory.join(format!("prodex-runtime-{}-{started}.jsonl", std::process::id()));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        write_pointer(directory, &path)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer_dropped = Arc::clone(&dropped);
        let writer = std::thread::Builder::new()
            .name("run-log".to_owned())
            .spawn(move || write_lines(file, &receiver, &writer_dropped))?;
        let (sender, writer) = (Mutex::new(Some(sender)), Mutex::new(Some(writer)));
        Ok(Self { path: Some(path), sender, dropped, writer })
    }

    /// A log that keeps nothing, for tests.
    #[must_use]
    pub fn none() -> Self {
        let dropped = Arc::new(AtomicU64::new(0));
        Self { path: None, sender: Mutex::new(None), dropped, writer: Mutex::new(None) }
    }

    /// The log file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Appends an event.
    pub fn record(&self, event: &RunEvent<'_>) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = sender.as_ref() else { return };
        if sender.try_send(render(event)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what is waiting and ends the log.
    pub fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // A writer that panicked has nothing left to write.
            let _ = writer.join();
        }
    }
}

impl Drop for RunLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn render(event: &RunEvent<'_>) -> Vec<u8> {
    let timestamp = format!("{:.3}", jiff::Timestamp::now());
    let mut line = Vec::with_capacity(256);
    // Events are plain data: they always serialise.
    let _ = serde_json::to_writer(&mut line, &Line { timestamp: &timestamp, event });
    line.push(b'\n');
    line
}

/// Takes lines until all senders are gone. Bursts share a write.
fn write_lines(mut file: File, lines: &Receiver<Vec<u8>>, dropped: &AtomicU64) {
    while let Ok(mut batch) = lines.recv() {
        let deadline = Instant::now() + GATHER;
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            batch.extend_from_slice(&line);
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            batch.extend_from_slice(&render(&RunEvent::LogDropped { lines: lost }));
        }
        if file.write_all(&batch).is_err() {
            // A full disk must not stop the proxy; what was lost is told when there is room again.
            dropped.fetch_add(
                lost + batch.iter().filter(|byte| **byte == b'\n').count() as u64,
                Ordering::Relaxed,
            );
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "written once, before anything listens")]
/// Replaces the pointer in one step, so that a reader never finds half a path.
fn write_pointer(directory: &Path, log: &Path) -> std::io::Result<()> {
    let temporary = directory.join(format!("{POINTER}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(log.as_os_str().as_encoded_bytes())?;
    file.write_all(b"\n")?;
    std::fs::rename(&temporary, directory.join(POINTER))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests may touch the disk")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use wire::run_event::RawLine;

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
}
