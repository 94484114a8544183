//! Room on the disk that is given up to open the database when the disk is full.
//!
//! SQLite makes a file of 32 KiB to open a database. What is learnt then waits in memory until the disk takes it, as
//! where the disk fills up later. It stays away until the next start that finds room.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The file's name in the directory of the state.
const NAME: &str = "state.ballast";

/// Its size in bytes: some times as much as is needed, since others may be faster.
const SIZE: usize = 128 * 1024;

/// Takes the room, unless it is taken.
pub(super) fn take(directory: &Path) -> io::Result<()> {
    let path = directory.join(NAME);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() >= SIZE as u64) {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(&[0; SIZE])
}

/// Gives it up.
pub(super) fn drop(directory: &Path) -> io::Result<()> {
    fs::remove_file(directory.join(NAME))
}
