//! The tables of the database, as the steps that lead to them.
//!
//! `PRAGMA user_version` says how many steps a database has taken. All that it lacks are taken in one
//! transaction, so an interruption leaves the old version or the new one; a copy is kept beside it first.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use super::crash;
use super::database::StateError;

/// Every step, the oldest first. One that was ever released is never changed: a further one follows.
pub(super) const STEPS: &[&str] = &[
    // Which profile owns which conversation. `sequence` grows with every write, so that another process
    // finds what is new by it. `tie` is 1 for a response, 2 for a turn state, 3 for a session, 4 for a thread,
    // 5 for an encrypted item; `id` is the first half of the id's SHA-256; `at` is in seconds since the epoch.
    "CREATE TABLE binding (
        sequence INTEGER PRIMARY KEY,
        tie INTEGER NOT NULL CHECK (tie BETWEEN 1 AND 5),
        id BLOB NOT NULL CHECK (typeof(id) = 'blob' AND length(id) = 16),
        profile TEXT NOT NULL,
        at INTEGER NOT NULL,
        UNIQUE (tie, id)
    );",
    // What is known of profiles, as JSON.
    "CREATE TABLE fact (
        kind TEXT NOT NULL,
        profile TEXT NOT NULL,
        value TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (kind, profile)
    ) WITHOUT ROWID;",
];

/// Brings a database to the newest version. Says which version it had.
pub(super) fn migrate(connection: &mut Connection, path: &Path, steps: &[&str]) -> Result<usize, StateError> {
    let failed = |error| StateError::of(path, error);
    let known = steps.len();
    let found = version(connection).map_err(failed)?;
    if found > known {
        return Err(StateError::Newer { path: path.to_owned(), found, known });
    }
    if found == known {
        return Ok(found);
    }
    if found > 0 {
        keep_copy(connection, path, found)?;
    }
    crash::point("migration.begin");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Another process may have been faster.
    let here = version(&transaction).map_err(failed)?;
    for step in steps.iter().skip(here) {
        transaction.execute_batch(step).map_err(failed)?;
        crash::point("migration.step");
    }
    transaction.pragma_update(None, "user_version", known).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    crash::point("migration.end");
    Ok(found)
}

pub(super) fn version(connection: &Connection) -> rusqlite::Result<usize> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Keeps what the database was before a migration, as `state.db.version-N` beside it. One that an
/// interrupted migration has left is made anew.
fn keep_copy(connection: &Connection, path: &Path, version: usize) -> Result<(), StateError> {
    let mut copy = path.as_os_str().to_owned();
    copy.push(format!(".version-{version}"));
    let copy = PathBuf::from(copy);
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&copy);
    made.map_err(|source| StateError::File { path: copy.clone(), source })?;
    // Into an empty file it may write; the file is there first so that nobody else can read it.
    let text = copy.to_string_lossy();
    connection.execute("VACUUM INTO ?1", [&text]).map_err(|error| StateError::of(&copy, error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_keeps_a_copy_and_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let mut connection = Connection::open(&path).unwrap();
        assert_eq!(migrate(&mut connection, &path, &STEPS[..1]).unwrap(), 0);
        let insert = "INSERT INTO binding (tie, id, profile, at) VALUES (1, randomblob(16), 'one', 7)";
        connection.execute(insert, []).unwrap();
        assert_eq!(migrate(&mut connection, &path, STEPS).unwrap(), 1);
        let count = |connection: &Connection| -> i64 {
            connection.query_row("SELECT count(*) FROM binding", [], |row| row.get(0)).unwrap()
        };
        assert_eq!((count(&connection), version(&connection).unwrap()), (1, STEPS.len()));
        let copy = Connection::open(directory.path().join("state.db.version-1")).unwrap();
        assert_eq!((count(&copy), version(&copy).unwrap()), (1, 1));
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let mut connection = Connection::open(&path).unwrap();
        migrate(&mut connection, &path, &STEPS[..1]).unwrap();
        let steps = [STEPS[0], "CREATE TABLE other (a)", "this is no SQL"];
        migrate(&mut connection, &path, &steps).unwrap_err();
        assert_eq!(version(&connection).unwrap(), 1);
        assert!(connection.prepare("SELECT * FROM other").is_err());
    }
}
