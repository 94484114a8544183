//! Programs for the tests: shell scripts, written where the test wants them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use harness::process::Program;

/// Writes a script that `sh` runs.
pub(crate) fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A program that runs this text.
pub(crate) fn shell(text: &str) -> Program {
    Program::new("/bin/sh").args(["-c", text]).envs([("PATH", std::env::var_os("PATH").unwrap())])
}
