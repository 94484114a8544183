//! Whether anybody has committed: a mark that every commit of every process changes.
//!
//! It is made of the header of the index of the write-ahead log, the file `state.db-shm` that SQLite shares between
//! processes (<https://sqlite.org/walformat.html>, section 2.1), in native byte order: `iChange`, which a commit
//! raises by one, and `aFrameCksum`, since the count begins anew when a process that was killed while it wrote the
//! header is recovered from. A commit is seen by others from the moment that its header is written there. To read it
//! costs one call of the system for bytes that are in memory, and no lock.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Where the count stands, and behind it, 16 bytes further, the sum.
const PLACE: u64 = 8;

/// What stands there between two commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    count: u32,
    sum: u32,
}

impl Change {
    /// Whether this is one commit behind `before`.
    pub(super) fn follows(self, before: Self) -> bool {
        self.count == before.count.wrapping_add(1)
    }
}

impl From<Change> for u64 {
    fn from(change: Change) -> Self {
        Self::from(change.count) << 32 | Self::from(change.sum)
    }
}

/// The file with the mark.
#[derive(Debug)]
pub(super) struct ChangeMark(File);

impl ChangeMark {
    /// Opens the mark of a database that is open.
    #[expect(clippy::disallowed_methods, reason = "the disk of the state, before anything listens")]
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push("-shm");
        File::open(path).map(Self)
    }

    /// The mark now.
    pub(super) fn read(&self) -> Option<Change> {
        let mut bytes = [0; 20];
        self.0.read_exact_at(&mut bytes, PLACE).ok()?;
        let number = |bytes: Option<&[u8; 4]>| bytes.copied().map(u32::from_ne_bytes);
        Some(Change { count: number(bytes.first_chunk())?, sum: number(bytes.last_chunk())? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Durability;
    use super::super::database::{Batch, Database, Row};
    use super::*;
    use crate::state::{Tie, digest};

    #[test]
    fn each_commit_of_anybody_counts_one_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ours, _) = Database::open(directory.path(), Durability::Normal).unwrap();
        let (mut theirs, _) = Database::open(directory.path(), Durability::Normal).unwrap();
        let mark = ChangeMark::open(ours.path()).unwrap();
        let now = || mark.read().unwrap();
        let row = |id: &str| Row { tie: Tie::Response, id: digest(id), profile: "one".into(), at: 1 };
        let batch = |id: &str| Batch { rows: vec![row(id)], ..Batch::default() };
        let mut last = now();
        for number in 0..20 {
            let written = ours.write(&batch(&format!("ours {number}")), 0, |_| {}).unwrap();
            assert_eq!(written.change, Some(now()));
            assert!(now().follows(last));
            last = now();
            let _ = theirs.write(&batch(&format!("theirs {number}")), 0, |_| {}).unwrap();
            assert!(now().follows(last) && now().sum != last.sum);
            last = now();
            super::super::database::checkpoint(ours.path()).unwrap();
            assert!(ours.has_changed().unwrap(), "and a look or a checkpoint is no commit");
            assert_eq!(now(), last);
        }
    }
}
