//! The database in the home: opened, checked, read and written. Everything here blocks on the disk.
//!
//! SQLite in WAL mode: several processes share it, and what is committed survives a kill of the process,
//! whether it is synced or not; [`Durability`] says what a loss of power may take.

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params,
};

use super::change::{Change, ChangeMark};
use super::memory::Digest;
use super::{Fact, Facts, Tie, ballast, crash, schema};
use crate::profile::Now;

/// The database's name in its directory.
pub(super) const NAME: &str = "state.db";

/// The lock that tells how many processes have the database open.
const LOCK: &str = "state.lock";

/// How long another process's write is waited for. Ours take less than a millisecond each.
const BUSY: Duration = Duration::from_secs(1);

/// How long a binding is kept that nobody uses: in seconds.
pub(super) const KEPT: i64 = 30 * 24 * 3600;

/// Most rows that are pruned in one transaction.
const PRUNED: usize = 256;

/// By which part of their capacity bindings of a kind may be too many before they are counted: a count goes
/// through all of them.
const SLACK: usize = 8;

/// What a SQLite database begins with (<https://sqlite.org/fileformat2.html>, section 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";

/// What is on its way to the disk for sure when a commit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the operating system has it. A killed process loses nothing; a loss of power may take the
    /// last commits, and leaves what was before.
    Normal,
    /// All of it: each commit waits for the disk.
    Full,
}

/// Why the state cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or directory of the state cannot be made or read.
    #[error("failed to open {path}; it must be its owner's, on a disk that can be written")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else has the database's name.
    #[error("{path} is no database; nothing was changed: move it away, and an empty one takes its place")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of this program has written it.
    #[error(
        "{path} is of version {found}, and this program knows {known}; nothing was changed: use the newer \
         prodex, or move the file away, and an empty one takes its place"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest that is known here.
        known: usize,
    },
    /// It is damaged.
    #[error(
        "{path} is damaged; nothing was changed: move it and what begins with its name away, and put a copy in \
         its place, or let an empty one take it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rusqlite::Error,
    },
    /// It cannot be read or written.
    #[error("failed to use {path}; see that its disk has room and can be written, and no process locks it")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

impl StateError {
    /// Whether the disk is one that cannot be written at all: then there is nothing to wait for.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::File { source, .. } => source.kind() == io::ErrorKind::ReadOnlyFilesystem,
            Self::Database { source, .. } => source.sqlite_error_code() == Some(ErrorCode::ReadOnly),
            _ => false,
        }
    }

    /// Whether the disk failed, as a full one does: SQLite names some of its failures by what it was about to do.
    fn is_of_disk(&self) -> bool {
        match self {
            Self::File { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Database { source, .. } => {
                matches!(source.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
            }
            _ => false,
        }
    }

    pub(super) fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            // What begins like none is told apart before it is opened.
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged { path, source },
            _ => Self::Database { path, source },
        }
    }
}

/// What was found behind a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Pages in the write-ahead log that a killed run had left, now part of the database; 0 if it ended by
    /// itself, or if another process is running.
    pub frames: u64,
    /// How many bindings there are.
    pub bindings: u64,
    /// How many were too old and are gone.
    pub pruned: u64,
}

/// A binding on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) tie: Tie,
    pub(super) id: Digest,
    pub(super) profile: Arc<str>,
    /// When it was made or used, in seconds since the epoch.
    pub(super) at: i64,
}

/// The key and text of a fact.
pub(super) type FactRow = ((Fact, Arc<str>), Arc<str>);

/// The database, open for writing.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    path: PathBuf,
    /// Profiles' names, each in memory once.
    names: HashSet<Arc<str>>,
    /// What `PRAGMA data_version` said last: it changes when another process commits.
    version: i64,
    population: Population,
    change: Option<ChangeMark>,
    /// Held as long as the database is open.
    _lock: File,
}

impl Database {
    /// Opens the database in a directory, and makes what is missing.
    ///
    /// # Errors
    /// See [`StateError`]. The file is left as it is.
    pub fn open(directory: &Path, durability: Durability) -> Result<(Self, Recovery), StateError> {
        let opened = match Self::try_open(directory, durability) {
            Err(error) if error.is_of_disk() && ballast::drop(directory).is_ok() => {
                Self::try_open(directory, durability)?
            }
            opened => opened?,
        };
        // Without it the next start on a full disk fails, and says so.
        let _ = ballast::take(directory);
        Ok(opened)
    }

    fn try_open(directory: &Path, durability: Durability) -> Result<(Self, Recovery), StateError> {
        let path = directory.join(NAME);
        let _opening = prepare(directory, &path)?;
        let (lock, frames) = lock(directory, &path)?;
        let mut connection = connect(&path, durability).map_err(|error| StateError::of(&path, error))?;
        if frames > 0 {
            check(&connection, &path)?;
        }
        schema::migrate(&mut connection, &path, schema::STEPS)?;
        let (names, population) = (HashSet::new(), Population::default());
        let mut database =
            Self { connection, path, names, version: 0, population, change: None, _lock: lock };
        let recovery = database.recover(frames).map_err(|error| database.failed(error))?;
        Ok((database, recovery))
    }

    fn recover(&mut self, frames: u64) -> rusqlite::Result<Recovery> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let pruned = prune_old(&transaction)? as u64;
        let mut bindings = 0;
        for tie in Tie::ALL {
            let kind = self.population.of(tie);
            kind.at_most = count(&transaction, tie)?;
            bindings += kind.at_most as u64;
        }
        transaction.commit()?;
        self.version = self.connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        // Without it everything is as well, but slower.
        self.change = ChangeMark::open(&self.path).ok();
        Ok(Recovery { frames, bindings, pruned })
    }

    fn failed(&self, error: rusqlite::Error) -> StateError {
        StateError::of(&self.path, error)
    }

    /// The database's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The facts.
    pub(super) fn facts(&self) -> Result<Facts, StateError> {
        facts(&self.connection).map_err(|error| self.failed(error))
    }

    /// Reads the bindings behind `seen` in the order in which they were written. Returns the last one's place.
    pub(super) fn rows_after(&mut self, seen: i64, each: impl FnMut(Row)) -> Result<i64, StateError> {
        let Self { connection, names, path, .. } = self;
        rows_after(connection, names, seen, each).map_err(|error| StateError::of(path, error))
    }

    /// What tells when somebody commits; none if that cannot be read.
    pub(super) fn change(&self) -> Option<&ChangeMark> {
        self.change.as_ref()
    }

    /// Whether another process has committed since this was asked last.
    pub(super) fn has_changed(&mut self) -> rusqlite::Result<bool> {
        let version = self.connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        Ok(std::mem::replace(&mut self.version, version) != version)
    }

    /// Writes bindings and facts in one commit, and prunes if asked to. What other processes wrote behind
    /// `seen` is told first.
    pub(super) fn write(
        &mut self,
        batch: &Batch,
        seen: i64,
        mut foreign: impl FnMut(Row),
    ) -> rusqlite::Result<Written> {
        crash::point("write.begin");
        let Self { connection, names, population, change, .. } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        crash::point("write.begun");
        // Nobody else commits from here on.
        let before = change.as_ref().and_then(ChangeMark::read);
        // Kept when all of it is committed.
        let mut grown = population.clone();
        let mut seen = if last(&transaction)? > seen {
            let each = |row: Row| {
                grown.of(row.tie).at_most += 1;
                foreign(row);
            };
            rows_after(&transaction, names, seen, each)?
        } else {
            seen
        };
        let mut insert = transaction.prepare_cached(
            "INSERT OR REPLACE INTO binding (tie, id, profile, at) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for Row { tie, id, profile, at } in &batch.rows {
            seen = insert.insert(params![code(*tie), id, profile, at])?;
            grown.of(*tie).at_most += 1;
            crash::point("write.inserted");
        }
        drop(insert);
        let mut put = transaction.prepare_cached(
            "INSERT OR REPLACE INTO fact (kind, profile, value, at) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut get =
            transaction.prepare_cached("SELECT value FROM fact WHERE kind = ?1 AND profile = ?2")?;
        for ((fact, profile), value) in &batch.facts {
            let stored: Option<String> =
                get.query_row(params![fact.name(), profile], |row| row.get(0)).optional()?;
            // Other processes may know what this one does not.
            let merged = stored.and_then(|stored| fact.merge(value, &stored));
            let value = merged.as_deref().unwrap_or(value);
            put.execute(params![fact.name(), profile, value, Now::unix()])?;
        }
        drop((put, get));
        let pruned = if batch.prunes { prune(&transaction, &mut grown)? } else { 0 };
        crash::point("write.commit");
        transaction.commit()?;
        crash::point("write.committed");
        *population = grown;
        // One that somebody else has made meanwhile is told with the next look.
        let after = change.as_ref().and_then(ChangeMark::read);
        let ours = after.filter(|after| before.is_some_and(|before| after.follows(before)));
        Ok(Written { seen, pruned, change: ours })
    }

    /// Copies the write-ahead log into the database while nothing is written by this process.
    pub(super) fn checkpoint(&self) -> rusqlite::Result<()> {
        copy_log(&self.connection).map(drop)
    }

    /// Adds bindings that are not there yet. Says how many.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub(super) fn import(&mut self, rows: &[Row]) -> Result<usize, StateError> {
        let import = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut insert = transaction
                .prepare("INSERT OR IGNORE INTO binding (tie, id, profile, at) VALUES (?1, ?2, ?3, ?4)")?;
            let mut count = 0;
            for Row { tie, id, profile, at } in rows {
                count += insert.execute(params![code(*tie), id, profile, at])?;
            }
            drop(insert);
            transaction.commit()?;
            Ok(count)
        };
        import(&mut self.connection).map_err(|error| StateError::of(&self.path, error))
    }
}

#[cfg(test)]
impl Database {
    /// Lets another process's write be waited for as long as it takes, as a disk that hangs is.
    pub(super) fn hang(&self) {
        assert!(self.connection.busy_timeout(Duration::from_secs(3600)).is_ok());
    }

    /// Lets the database grow by no more than so many pages from now on, as a full disk does.
    pub(super) fn limit(&self, pages: i64) {
        let count: i64 =
            self.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap_or_default();
        let set = self.connection.pragma_update_and_check(None, "max_page_count", count + pages, |_| Ok(()));
        assert!(set.is_ok(), "{set:?}");
    }
}

/// What goes to the disk in one commit.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    pub(super) facts: Vec<FactRow>,
    /// Whether to look for rows that are too old or too many.
    pub(super) prunes: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.facts.is_empty()
    }
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Written {
    /// The place of the last binding.
    pub(super) seen: i64,
    /// How many rows were pruned.
    pub(super) pruned: usize,
    /// The mark of this commit, if it is the last. What was committed before it has been told.
    pub(super) change: Option<Change>,
}

impl Written {
    /// Whether there may be more to prune than one transaction takes.
    pub(super) fn has_more(&self) -> bool {
        self.pruned >= PRUNED
    }
}

/// Reads all of a database on a disk that cannot be written, and nobody else writes. What is in a write-ahead log
/// that a killed run has left is not read: that would take a file beside it.
pub(super) fn read_only(directory: &Path, mut each: impl FnMut(Row)) -> Result<Facts, StateError> {
    let path = directory.join(NAME);
    if !path.exists() {
        return Ok(Facts::new());
    }
    let failed = |error| StateError::of(&path, error);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let escape =
        |byte: &u8| if is_plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
    let escaped: String = path.as_os_str().as_encoded_bytes().iter().map(escape).collect();
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags);
    let connection = connection.map_err(failed)?;
    let (found, known) = (schema::version(&connection).map_err(failed)?, schema::STEPS.len());
    match found {
        // Made, and never written.
        0 => return Ok(Facts::new()),
        found if found > known => return Err(StateError::Newer { path: path.clone(), found, known }),
        _ => {}
    }
    rows_after(&connection, &mut HashSet::new(), 0, &mut each).map_err(failed)?;
    // An older version may not have them.
    Ok(facts(&connection).unwrap_or_default())
}

/// Looks up bindings beside the writer, on a connection of its own.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Connection,
}

impl Reader {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(path, FLAGS)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "cache_size", -256)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(Self { connection })
    }

    pub(super) fn facts(&self) -> rusqlite::Result<Facts> {
        facts(&self.connection)
    }

    pub(super) fn find(&self, tie: Tie, id: &Digest) -> rusqlite::Result<Option<Row>> {
        let mut select =
            self.connection.prepare_cached("SELECT profile, at FROM binding WHERE tie = ?1 AND id = ?2")?;
        let mut rows = select.query(params![code(tie), id])?;
        let row = rows.next()?;
        row.map(|row| Ok(Row { tie, id: *id, profile: row.get(0)?, at: row.get(1)? })).transpose()
    }
}

/// Copies what is in the write-ahead log of a database into its file, beside whoever writes. Says how many pages
/// are in the log: it begins anew only when all of it was copied before the next is written.
pub(super) fn checkpoint(path: &Path) -> rusqlite::Result<u64> {
    let connection = Connection::open_with_flags(path, FLAGS)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    copy_log(&connection)
}

fn copy_log(connection: &Connection) -> rusqlite::Result<u64> {
    crash::point("checkpoint.begin");
    let pages: i64 = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
    crash::point("checkpoint.end");
    Ok(u64::try_from(pages).unwrap_or(0))
}

const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// The number of a tie in the database.
fn code(tie: Tie) -> i64 {
    match tie {
        Tie::Response => 1,
        Tie::TurnState => 2,
        Tie::Session => 3,
        Tie::Thread => 4,
        Tie::Content => 5,
    }
}

/// Makes the directory and the file, for their owner alone; SQLite gives its other files the same mode. While
/// what is returned is there no other process gets here: two that make one database are in each other's way.
fn prepare(directory: &Path, path: &Path) -> Result<File, StateError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| StateError::File { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
    std::fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(failed(directory))?;
    let opening = OpenOptions::new().read(true).open(directory).map_err(failed(directory))?;
    opening.lock().map_err(failed(directory))?;
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    let mut magic = Vec::new();
    let read = file.and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut magic));
    read.map_err(failed(path))?;
    // SQLite says so too, but not of a file that is shorter than a page.
    if magic.is_empty() || magic == MAGIC {
        Ok(opening)
    } else {
        Err(StateError::Foreign { path: path.to_owned() })
    }
}

/// Takes the lock. Says how many pages a killed run has left in the write-ahead log: what is in it while
/// another process runs is that one's.
fn lock(directory: &Path, database: &Path) -> Result<(File, u64), StateError> {
    let path = directory.join(LOCK);
    let failed = |source| StateError::File { path: path.clone(), source };
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = open.map_err(failed)?;
    let is_alone = lock.try_lock().is_ok();
    let frames = if is_alone { frames(database) } else { 0 };
    lock.lock_shared().map_err(failed)?;
    Ok((lock, frames))
}

/// How many pages are in the write-ahead log (<https://sqlite.org/fileformat2.html>, section 4.1): behind a
/// header of 32 bytes, which says how long they are, each with one of 24.
#[expect(clippy::disallowed_methods, reason = "everything here blocks on the disk")]
fn frames(database: &Path) -> u64 {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let mut header = [0; 32];
    let Ok(length) = File::open(log).and_then(|mut log| {
        log.read_exact(&mut header)?;
        Ok(log.metadata()?.len())
    }) else {
        return 0;
    };
    let [.., a, b, c, d] = *header.first_chunk::<12>().unwrap_or(&[0; 12]);
    let page = u64::from(u32::from_be_bytes([a, b, c, d]));
    length.saturating_sub(32) / (page + 24)
}

fn connect(path: &Path, durability: Durability) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, FLAGS)?;
    connection.busy_timeout(BUSY)?;
    // Ids are digests, so each binding changes a page of its own, which is written whole. One that exists keeps its
    // pages' size.
    connection.pragma_update(None, "page_size", 1024)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    let sync = match durability {
        Durability::Normal => "normal",
        Durability::Full => "full",
    };
    connection.pragma_update(None, "synchronous", sync)?;
    // Checkpoints are made beside the writer (`writer`), not by whichever commit meets the limit.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", 4 * 1024 * 1024)?;
    connection.pragma_update(None, "cache_size", -1024)?;
    Ok(connection)
}

/// Looks through all of a database that a killed run has left.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), StateError> {
    let answer: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| StateError::of(path, error))?;
    if answer == "ok" {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    let source = rusqlite::Error::SqliteFailure(code, Some(answer));
    Err(StateError::Damaged { path: path.to_owned(), source })
}

fn facts(connection: &Connection) -> rusqlite::Result<Facts> {
    let mut facts = HashMap::new();
    let mut select = connection.prepare("SELECT kind, profile, value FROM fact")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let kind: String = row.get(0)?;
        // A kind that an older version wrote and nobody reads any more stays for that version.
        if let Some(fact) = Fact::ALL.into_iter().find(|fact| fact.name() == kind) {
            facts.insert((fact, row.get(1)?), row.get(2)?);
        }
    }
    Ok(facts)
}

fn last(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(sequence), 0) FROM binding")?
        .query_row([], |row| row.get(0))
}

fn rows_after(
    connection: &Connection,
    names: &mut HashSet<Arc<str>>,
    mut seen: i64,
    mut each: impl FnMut(Row),
) -> rusqlite::Result<i64> {
    let mut select = connection.prepare_cached(
        "SELECT sequence, tie, id, profile, at FROM binding WHERE sequence > ?1 ORDER BY sequence",
    )?;
    let mut rows = select.query([seen])?;
    while let Some(row) = rows.next()? {
        seen = row.get(0)?;
        let number: i64 = row.get(1)?;
        let Some(tie) = Tie::ALL.into_iter().find(|tie| code(*tie) == number) else { continue };
        let name = row.get_ref(3)?.as_str()?;
        let profile = match names.get(name) {
            Some(name) => Arc::clone(name),
            None => {
                let name: Arc<str> = name.into();
                names.insert(Arc::clone(&name));
                name
            }
        };
        each(Row { tie, id: row.get(2)?, profile, at: row.get(4)? });
    }
    Ok(seen)
}

/// How many bindings of each kind there are.
#[derive(Debug, Clone, Default)]
struct Population([Kind; Tie::ALL.len()]);

#[derive(Debug, Clone, Default)]
struct Kind {
    /// Those that were counted and what has been written since; some of it took another's place.
    at_most: usize,
    /// How many of those that were counted are too many.
    surplus: usize,
    /// The place of the last one that was pruned: there are none before it.
    pruned: i64,
}

impl Population {
    fn of(&mut self, tie: Tie) -> &mut Kind {
        &mut self.0[tie as usize]
    }
}

fn count(transaction: &Transaction<'_>, tie: Tie) -> rusqlite::Result<usize> {
    transaction
        .prepare_cached("SELECT count(*) FROM binding WHERE tie = ?1")?
        .query_row([code(tie)], |row| row.get(0))
}

/// Forgets bindings that are too many or too old, those written first before others, as many as one
/// transaction takes. Says how many.
fn prune(transaction: &Transaction<'_>, population: &mut Population) -> rusqlite::Result<usize> {
    let mut pruned = prune_old(transaction)?;
    crash::point("prune");
    // The table is in the order of writing, and most of what stands in it before is gone. (The plus keeps SQLite
    // from reading all of a kind by the other index, and sorting it.)
    let mut select = transaction.prepare_cached(
        "SELECT sequence FROM binding WHERE sequence > ?1 AND +tie = ?2 ORDER BY sequence LIMIT ?3",
    )?;
    let mut delete = transaction.prepare_cached("DELETE FROM binding WHERE sequence = ?1")?;
    for tie in Tie::ALL {
        let capacity = tie.capacity();
        let kind = population.of(tie);
        if kind.surplus == 0 && kind.at_most > capacity + capacity / SLACK {
            kind.at_most = count(transaction, tie)?;
            kind.surplus = kind.at_most.saturating_sub(capacity);
        }
        let most = kind.surplus.min(PRUNED.saturating_sub(pruned));
        if most == 0 {
            continue;
        }
        let first = select.query_map(params![kind.pruned, code(tie), most], |row| row.get(0))?;
        let first = first.collect::<rusqlite::Result<Vec<i64>>>()?;
        for sequence in &first {
            delete.execute([sequence])?;
        }
        kind.pruned = first.last().copied().unwrap_or(kind.pruned);
        kind.at_most = kind.at_most.saturating_sub(first.len());
        // Another process may have been there before.
        kind.surplus = if first.len() < most { 0 } else { kind.surplus - most };
        pruned += first.len();
    }
    Ok(pruned)
}

/// Forgets those that are too old among the first in the table. The last one written stays, so that its place
/// is never given to another.
fn prune_old(transaction: &Transaction<'_>) -> rusqlite::Result<usize> {
    transaction
        .prepare_cached(
            "DELETE FROM binding WHERE at < ?1 AND sequence < (SELECT max(sequence) FROM binding) AND sequence IN
                (SELECT sequence FROM binding ORDER BY sequence LIMIT ?2)",
        )?
        .execute(params![Now::unix() - KEPT, PRUNED])
}
