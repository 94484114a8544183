//! The state looked at without changing it: whether it can be used, and how much is in it.

use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::database::{NAME, StateError, check};
use super::schema;

/// Looks at the database in a directory. Says how many bindings it holds; none if there is no database yet.
///
/// # Errors
/// When a proxy could not use it, or it is damaged.
pub(crate) fn inspect(directory: &Path) -> Result<Option<u64>, StateError> {
    let path = directory.join(NAME);
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::File { path, source }),
        // One that is just being made.
        Ok(meta) if meta.len() == 0 => return Ok(None),
        Ok(_) => {}
    }
    let failed = |error| StateError::of(&path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
    connection.busy_timeout(std::time::Duration::from_secs(2)).map_err(failed)?;
    let found = schema::version(&connection).map_err(failed)?;
    if found > schema::STEPS.len() {
        return Err(StateError::Newer { path, found, known: schema::STEPS.len() });
    }
    check(&connection, &path)?;
    if found == 0 {
        return Ok(None);
    }
    let bindings = connection.query_row("SELECT count(*) FROM binding", [], |row| row.get(0));
    bindings.map(Some).map_err(failed)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests may touch the disk")]
mod tests {
    use super::*;
    use crate::state::{Durability, State, Tie};
    use crate::telemetry::RunLog;
    use std::sync::Arc;

    #[test]
    fn a_state_is_looked_at_and_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(inspect(home.path()).unwrap(), None);
        assert!(std::fs::read_dir(home.path()).unwrap().next().is_none(), "nothing was made");
        let log = Arc::new(RunLog::none());
        let (state, _) = State::open(home.path(), Durability::Normal, &log).unwrap();
        let profile: Arc<str> = "work".into();
        state.bind(Tie::Session, "s", &profile);
        assert!(inspect(home.path()).is_ok(), "while a proxy runs, too");
        state.close();
        assert_eq!(inspect(home.path()).unwrap(), Some(1));
        let path = home.path().join(NAME);
        std::fs::write(&path, [b'x'; 4096]).unwrap();
        assert!(matches!(inspect(home.path()), Err(StateError::Damaged { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), [b'x'; 4096]);
    }
}
