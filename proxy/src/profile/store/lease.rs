//! The lease on a profile's credentials: who has it changes them, in this process or another.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{AUTH_FILE, LOCK_FILE, Store, StoreError, io_error, read_auth};

/// How often it is looked whether somebody else's lease has ended. A lock that is waited for has no limit.
const PAUSE: Duration = Duration::from_millis(20);

/// Longest note that is read.
const MAX_NOTE: usize = 4096;

/// The right to change a profile's credentials.
///
/// Its file holds a note for those who have it next. It is no longer than a line and not forced to the disk:
/// without it a question is asked once more.
#[derive(Debug)]
pub struct Lease {
    file: File,
    path: PathBuf,
}

impl Lease {
    /// What the last one who had it left for the next; nothing if it cannot be read.
    #[must_use]
    pub fn note(&self) -> String {
        let mut bytes = vec![0; MAX_NOTE];
        let count = self.file.read_at(&mut bytes, 0).unwrap_or_default();
        bytes.truncate(count);
        String::from_utf8(bytes).unwrap_or_default()
    }

    /// Leaves a note.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn set_note(&self, note: &str) -> Result<(), StoreError> {
        let write = || {
            self.file.set_len(0)?;
            self.file.write_all_at(note.as_bytes(), 0)
        };
        write().map_err(io_error("write", &self.path))
    }
}

impl Store {
    /// Puts a login in place that a process wrote and did not live to put there: the only good tokens may
    /// be in it. Of those that are older than what is there, or another account's, nothing stays. Only under
    /// the lease: whoever else writes has that.
    ///
    /// # Errors
    /// When what is in place cannot be used, or the disk refuses.
    pub fn recover_auth(&self, name: &str) -> Result<(), StoreError> {
        let path = self.directory(name)?.join(AUTH_FILE);
        let (mut text, mut stored) = read_auth(&path)?;
        for staged in staged(&path) {
            let found = read_auth(&staged).ok().filter(|(found, credentials)| {
                stored.is_same_account(credentials) && last_refresh(found) > last_refresh(&text)
            });
            match found {
                Some(found) => {
                    fs::rename(&staged, &path).map_err(io_error("replace", &path))?;
                    (text, stored) = found;
                }
                // What cannot be deleted is no login either.
                None => drop(fs::remove_file(&staged)),
            }
        }
        Ok(())
    }

    /// Waits until nobody else, in this process or another, changes this profile's credentials, and keeps
    /// it so until the lease is dropped (also when the process dies).
    ///
    /// # Errors
    /// When the disk refuses, or somebody else has it for longer than `limit`.
    pub fn lease(&self, name: &str, limit: Duration) -> Result<Lease, StoreError> {
        let path = self.directory(name)?.join(LOCK_FILE);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(io_error("open", &path))?;
        let deadline = Instant::now() + limit;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lease { file, path }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(StoreError::Leased(name.to_owned())),
                Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
            }
        }
    }
}

/// When the tokens of an `auth.json` were renewed.
fn last_refresh(auth: &str) -> Option<jiff::Timestamp> {
    let file: serde_json::Value = serde_json::from_str(auth).ok()?;
    file["last_refresh"].as_str()?.parse().ok()
}

/// The files that were to replace `path`.
fn staged(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    let prefix = format!("{name}.new-");
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_staged = |name: &str| name.starts_with(&prefix);
    let staged = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_staged));
    staged.map(|entry| entry.path()).collect()
}
