//! A place for one program to live in: its own home, temporary directory, logs, work, and environment.
//!
//! Nothing of the caller's environment gets in but what is named here, and nothing is left when it is
//! dropped unless it is kept.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub mod isolation;

/// A private place. Dropping it removes it.
#[derive(Debug)]
pub struct Sandbox {
    root: TempDir,
    variables: Vec<(OsString, OsString)>,
}

/// Variables of the caller that a program may need to run at all.
const INHERITED: &[&str] = &["PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "NIX_SSL_CERT_FILE"];

impl Sandbox {
    /// Makes a place; the label is part of its path.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn new(label: &str) -> std::io::Result<Self> {
        let root = tempfile::Builder::new().prefix(&format!("lab-{label}-")).tempdir()?;
        let sandbox = Self { root, variables: Vec::new() };
        let directories =
            [sandbox.home(), sandbox.temporary(), sandbox.logs(), sandbox.work(), sandbox.programs()];
        for directory in directories {
            std::fs::create_dir(directory)?;
        }
        Ok(sandbox)
    }

    /// Everything below is in here.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// `HOME`.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root().join("home")
    }

    /// `TMPDIR`.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.root().join("tmp")
    }

    /// For logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root().join("logs")
    }

    /// The directory to work in.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.root().join("work")
    }

    /// First in `PATH`: for programs that are to be found by their name.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.root().join("bin")
    }

    /// Adds a variable to the environment; of two with one name the later counts.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.variables.push((name.into(), value.into()));
    }

    /// Lets those of the caller's variables in whose names are wanted.
    pub fn pass(&mut self, is_wanted: impl Fn(&str) -> bool) {
        let wanted = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(&is_wanted));
        self.variables.extend(wanted);
    }

    /// Lets `program` be found as `name`.
    ///
    /// # Errors
    /// When the link cannot be made.
    pub fn link(&self, program: &Path, name: &str) -> std::io::Result<()> {
        std::os::unix::fs::symlink(program, self.programs().join(name))
    }

    /// The whole environment of a program that lives here.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let inherited = INHERITED.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
        let mut variables: Vec<(OsString, OsString)> = inherited.collect();
        let mut path = vec![self.programs()];
        path.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
        // Only a directory with a colon in its name cannot be joined; the inherited path stays then.
        variables.extend(std::env::join_paths(path).ok().map(|path| ("PATH".into(), path)));
        variables.push(("HOME".into(), self.home().into()));
        variables.push(("TMPDIR".into(), self.temporary().into()));
        variables.push(("TERM".into(), "xterm".into()));
        variables.extend(self.variables.iter().cloned());
        variables
    }

    /// Moves everything to `folder`, which takes the place of one that was there.
    ///
    /// # Errors
    /// When it cannot be moved. Links, sockets and the like stay behind where `folder` is on another disk.
    pub fn keep_in(self, folder: &Path) -> std::io::Result<()> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        if let Some(parent) = folder.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if std::fs::rename(self.root(), folder).is_ok() {
            return Ok(());
        }
        copy(self.root(), folder)
    }

    /// Leaves everything where it is, and says where.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.root.keep()
    }
}

/// Copies files and folders.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A port of the loopback that was free a moment ago. Prefer port 0 wherever a program can say what it got.
///
/// # Errors
/// When there is none.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_private_and_goes_away() {
        let mut sandbox = Sandbox::new("test").unwrap();
        sandbox.set("HOME", "/elsewhere");
        let environment = sandbox.environment();
        let last = |name: &str| {
            let entry = environment.iter().rev().find(|(variable, _)| variable == name);
            entry.map(|(_, value)| value.to_string_lossy().into_owned())
        };
        assert_eq!(last("HOME").as_deref(), Some("/elsewhere"));
        assert!(last("PATH").unwrap().starts_with(&*sandbox.programs().to_string_lossy()));
        assert!(environment.iter().all(|(name, _)| !name.to_string_lossy().starts_with("CARGO")));
        let root = sandbox.root().to_owned();
        assert!(root.join("work").is_dir());
        drop(sandbox);
        assert!(!root.exists());
    }

    #[test]
    fn what_is_kept_elsewhere_replaces_what_was_there() {
        let elsewhere = tempfile::tempdir().unwrap();
        let folder = elsewhere.path().join("a/b");
        for text in ["one", "two"] {
            let sandbox = Sandbox::new("kept").unwrap();
            let root = sandbox.root().to_owned();
            std::fs::write(sandbox.logs().join("log"), text).unwrap();
            sandbox.keep_in(&folder).unwrap();
            assert!(!root.exists());
            assert_eq!(std::fs::read_to_string(folder.join("logs/log")).unwrap(), text);
        }
        copy(&folder, &elsewhere.path().join("c")).unwrap();
        assert!(elsewhere.path().join("c/logs/log").is_file());
    }

    #[test]
    fn a_variable_gets_in_by_its_name_only() {
        let mut sandbox = Sandbox::new("test").unwrap();
        sandbox.pass(|name| name == "CARGO_MANIFEST_DIR");
        let named =
            |name: &str| sandbox.environment().iter().filter(|(variable, _)| variable == name).count();
        assert_eq!((named("CARGO_MANIFEST_DIR"), named("CARGO_PKG_NAME")), (1, 0));
    }

    #[test]
    fn a_kept_place_stays() {
        let root = Sandbox::new("kept").unwrap().keep();
        assert!(root.join("home").is_dir());
        std::fs::remove_dir_all(root).unwrap();
    }
}
