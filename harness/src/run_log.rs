//! Reading the run log of a proxy: the events that it wrote, found through its pointer file.
//!
//! The format is `wire::run_event`; whose log it is does not matter. A line that is none is counted, so
//! that a log that nobody can read is not taken for an empty one.

use std::path::{Path, PathBuf};

use wire::run_event::RawLine;

/// The file that names the newest log.
pub const POINTER: &str = "prodex-runtime-latest.path";

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

    /// Reads a log.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, RunLogError> {
        let bytes =
            std::fs::read(path).map_err(|source| RunLogError::Log { path: path.to_owned(), source })?;
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
}
