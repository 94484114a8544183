//! Whether anybody has committed: a count that every commit of every process raises by one.
//!
//! It stands in the index of the write-ahead log, the file `state.db-shm` that SQLite shares between processes, in
//! native byte order behind eight other bytes (<https://sqlite.org/walformat.html>, section 2.1, `iChange`). A
//! commit is seen by others from the moment that its header is written there. To read it costs one call of the
//! system for bytes that are in memory, and no lock.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Where the count stands.
const PLACE: u64 = 8;

/// The count, as this process reads it.
#[derive(Debug)]
pub(super) struct ChangeCounter(File);

impl ChangeCounter {
    /// Opens the count of a database that is open.
    #[expect(clippy::disallowed_methods, reason = "the disk of the state, before anything listens")]
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push("-shm");
        File::open(path).map(Self)
    }

    /// The count now.
    pub(super) fn read(&self) -> Option<u32> {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, PLACE).ok()?;
        Some(u32::from_ne_bytes(bytes))
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
        let count = ChangeCounter::open(ours.path()).unwrap();
        let row = |id: &str| Row { tie: Tie::Response, id: digest(id), profile: "one".into(), at: 1 };
        let batch = |id: &str| Batch { rows: vec![row(id)], ..Batch::default() };
        let start = count.read().unwrap();
        let mut expected = start;
        for number in 0..20 {
            let written = ours.write(&batch(&format!("ours {number}")), 0, |_| {}).unwrap();
            expected += 1;
            assert_eq!((written.change, count.read()), (Some(expected), Some(expected)));
            let _ = theirs.write(&batch(&format!("theirs {number}")), 0, |_| {}).unwrap();
            expected += 1;
            assert_eq!(count.read(), Some(expected));
            super::super::database::checkpoint(ours.path()).unwrap();
            assert!(ours.has_changed().unwrap(), "and a look or a checkpoint is no commit");
            assert_eq!(count.read(), Some(expected));
        }
    }
}
