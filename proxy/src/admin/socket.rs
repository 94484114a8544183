//! The sockets of the proxies of a home: `run/<pid>.sock`, a directory for its owner's eyes only.
//!
//! A process that was killed leaves its socket; whoever comes across one removes it. Its name says which
//! process it was, so one that is just about to listen is not taken for dead.

#![expect(clippy::disallowed_methods, reason = "this module owns the sockets' directory")]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::profile::store::make_directory;

/// Longest path that a socket's address can hold: `sun_path` has 108 bytes on Linux, 104 elsewhere, and ends
/// with a zero.
const MAX_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// How many processes with one id may share a home: in containers there is a first process in each.
const MAX_SAME: usize = 16;

const SUFFIX: &str = ".sock";

/// Where the sockets of a home are.
#[must_use]
pub fn directory(home: &Path) -> PathBuf {
    home.join("run")
}

/// A socket that is there for as long as this is.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Should it fail, the next one to come across it does it.
        let _ = fs::remove_file(&self.path);
    }
}

/// A socket's path as an address: for one that is too long, by way of its open directory.
struct Address {
    path: PathBuf,
    /// Open while the path is used.
    _directory: Option<File>,
}

impl Address {
    fn of(directory: &Path, name: &str) -> io::Result<Self> {
        let path = directory.join(name);
        if path.as_os_str().len() <= MAX_PATH {
            return Ok(Self { path, _directory: None });
        }
        if !cfg!(target_os = "linux") {
            let (length, path) = (path.as_os_str().len(), path.display());
            let problem = format!("{path} has {length} bytes, and a socket's path may have {MAX_PATH}");
            return Err(io::Error::other(format!("{problem}; use a shorter home")));
        }
        let directory = File::open(directory)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
        Ok(Self { path, _directory: Some(directory) })
    }
}

/// Listens on the socket of this process.
///
/// # Errors
/// When the directory cannot be made or written.
pub fn bind(home: &Path) -> io::Result<(tokio::net::UnixListener, Bound)> {
    let directory = directory(home);
    make_directory(&directory).map_err(|error| io::Error::other(crate::control::describe(&error)))?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
    let pid = std::process::id();
    for number in 0..MAX_SAME {
        let name = if number == 0 { format!("{pid}{SUFFIX}") } else { format!("{pid}-{number}{SUFFIX}") };
        let address = Address::of(&directory, &name)?;
        let path = directory.join(&name);
        let mut bound = UnixListener::bind(&address.path);
        if matches!(&bound, Err(error) if error.kind() == io::ErrorKind::AddrInUse) && is_dead(&address) {
            // Of an earlier process with this id: this one has not listened yet.
            fs::remove_file(&path)?;
            bound = UnixListener::bind(&address.path);
        }
        match bound {
            Ok(listener) => {
                let bound = Bound { path };
                fs::set_permissions(&bound.path, fs::Permissions::from_mode(0o600))?;
                listener.set_nonblocking(true)?;
                return Ok((tokio::net::UnixListener::from_std(listener)?, bound));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn is_dead(address: &Address) -> bool {
    UnixStream::connect(&address.path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The sockets of a home: the process by its name, and the path. Those of dead processes are removed.
#[must_use]
pub fn find(home: &Path) -> Vec<(u32, PathBuf)> {
    let directory = directory(home);
    let Ok(entries) = fs::read_dir(&directory) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        let Ok(pid) = name.split('-').next().unwrap_or_default().parse::<u32>() else { continue };
        match connect(&entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if is_gone(pid) {
                    let _ = fs::remove_file(entry.path());
                }
            }
            _ => found.push((pid, entry.path())),
        }
    }
    found.sort_unstable();
    found
}

/// Whether there is no such process.
pub(super) fn is_gone(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

/// Connects to a socket.
///
/// # Errors
/// When nobody listens there.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::ErrorKind::NotFound.into());
    };
    UnixStream::connect(&Address::of(directory, name)?.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_owners_and_goes_with_it() {
        let home = tempfile::tempdir().unwrap();
        let (_listener, bound) = bind(home.path()).unwrap();
        let (listener, second) = bind(home.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory(home.path())), mode(&bound.path)), (0o700, 0o600));
        assert_eq!(find(home.path()).len(), 2);
        drop((listener, second));
        assert_eq!(find(home.path()), [(std::process::id(), bound.path.clone())]);
    }

    #[tokio::test]
    async fn a_home_with_a_long_name_has_a_socket_as_well() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("h".repeat(200));
        let (_listener, bound) = bind(&home).unwrap();
        assert_eq!(find(&home), [(std::process::id(), bound.path.clone())]);
        assert!(connect(&bound.path).is_ok());
    }

    #[tokio::test]
    async fn the_sockets_of_dead_processes_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let directory = directory(home.path());
        fs::create_dir_all(&directory).unwrap();
        let gone = directory.join("2147483646.sock");
        let own = directory.join(format!("{}{SUFFIX}", std::process::id()));
        let alive = directory.join("1.sock");
        for path in [&gone, &own, &alive] {
            drop(UnixListener::bind(path).unwrap());
        }
        fs::write(directory.join("note.txt"), "").unwrap();
        assert_eq!(find(home.path()), []);
        assert_eq!(
            (gone.exists(), alive.exists()),
            (false, true),
            "one that is alive may be about to listen"
        );
        let (_listener, bound) = bind(home.path()).unwrap();
        assert_eq!(bound.path, own, "it was an earlier process with this id");
    }
}
