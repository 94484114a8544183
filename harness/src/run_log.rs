//! Reading the run log of a proxy: the events that it wrote, found through its pointer file.
//!
//! The format is `wire::run_event`; whose log it is does not matter. A line that is none is counted, so
//! that a log that nobody can read is not taken for an empty one.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use wire::run_event::RawLine;
pub use wire::run_event::file::POINTER;
use wire::run_event::file::part_number;

/// The variable that tells a proxy where its logs go.
pub const DIRECTORY_VARIABLE: &str = "PRODEX_RUNTIME_LOG_DIR";

/// Why there is no log to read.
#[derive(Debug, thiserror::Error)]
pub enum RunLogError {
    /// No pointer file.
    #[error("read the pointer {path}")]
    Pointer {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No log where the pointer points.
    #[error("read the log {path}")]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A run log as it was when it was read.
#[derive(Debug, Clone)]
pub struct RunLog {
    /// The file.
    pub path: PathBuf,
    /// Its events, in order.
    pub lines: Vec<RawLine>,
    /// How many lines are no events. The last line may be one that is still being written.
    pub skipped: usize,
}

impl RunLog {
    /// Reads the newest log of a directory.
    ///
    /// # Errors
    /// When there is no pointer file, or no log where it points.
    pub fn latest(directory: &Path) -> Result<Self, RunLogError> {
        let pointer = directory.join(POINTER);
        let path = std::fs::read_to_string(&pointer)
            .map_err(|source| RunLogError::Pointer { path: pointer, source })?;
        // The pointer holds a path, absolute or relative to its own directory.
        Self::read(&directory.join(path.trim()))
    }

    /// Reads a log, its older parts first.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(path: &Path) -> Result<Self, RunLogError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| RunLogError::Log { path: path.to_owned(), source })
        };
        // What becomes a part meanwhile is looked for again: nothing is to be missed or be there twice.
        let bytes = loop {
            let parts = parts(path);
            let mut bytes = Vec::new();
            for part in &parts {
                bytes.extend(read(part)?);
            }
            bytes.extend(read(path)?);
            if parts == self::parts(path) {
                break bytes;
            }
        };
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let parsed: Vec<Option<RawLine>> = lines.map(|line| serde_json::from_slice(line).ok()).collect();
        let skipped = parsed.iter().filter(|line| line.is_none()).count();
        Ok(Self { path: path.to_owned(), lines: parsed.into_iter().flatten().collect(), skipped })
    }

    /// The events of one name.
    pub fn events(&self, name: &str) -> impl Iterator<Item = &RawLine> {
        self.lines.iter().filter(move |line| line.event == name)
    }
}

/// The older parts of a log, in order. None if there is no directory to look into: the log is not there either.
fn parts(log: &Path) -> Vec<PathBuf> {
    let directory = log.parent().unwrap_or(Path::new("."));
    let name = log.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut parts: Vec<_> = names.filter_map(|other| Some((part_number(name, &other)?, other))).collect();
    parts.sort_unstable();
    // While the file becomes a part it has both names.
    let inode = |path: &Path| std::fs::metadata(path).map(|meta| meta.ino()).ok();
    let parts = parts.into_iter().map(|(_, name)| directory.join(name));
    parts.filter(|part| inode(part) != inode(log)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_log_is_read_and_odd_lines_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(RunLog::latest(directory.path()), Err(RunLogError::Pointer { .. })));
        std::fs::write(directory.path().join(POINTER), "a.jsonl\n").unwrap();
        assert!(matches!(RunLog::latest(directory.path()), Err(RunLogError::Log { .. })));
        let line = r#"{"timestamp":"t","event":"profile_commit","fields":{"profile":"a"}}"#;
        let text = format!("{line}\nnot an event\n\n{line}\n{{\"timest");
        std::fs::write(directory.path().join("a.jsonl"), text).unwrap();
        let log = RunLog::latest(directory.path()).unwrap();
        assert_eq!((log.lines.len(), log.skipped), (2, 2));
        assert_eq!(log.events("profile_commit").count(), 2);
        assert_eq!(log.events("other").count(), 0);
    }

    #[test]
    fn older_parts_come_first() {
        let directory = tempfile::tempdir().unwrap();
        for (name, event) in
            [("a.jsonl", "c"), ("a.000002.jsonl", "b"), ("a.000001.jsonl", "a"), ("b.jsonl", "x")]
        {
            let line = format!(r#"{{"timestamp":"t","event":"{event}"}}"#);
            std::fs::write(directory.path().join(name), line + "\n").unwrap();
        }
        let log = RunLog::read(&directory.path().join("a.jsonl")).unwrap();
        let events: Vec<&str> = log.lines.iter().map(|line| &*line.event).collect();
        assert_eq!((events, log.skipped), (vec!["a", "b", "c"], 0));
    }
}
