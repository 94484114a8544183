//! What counting instructions needs beside cargo: valgrind, and gungraun's runner of one version.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// gungraun's version in `Cargo.toml`: its library refuses a runner of any other.
const GUNGRAUN: &str = "0.20.0";

/// The runner's program.
const RUNNER: &str = "gungraun-runner";

/// Both are there.
#[derive(Debug)]
pub(super) struct Tools {
    /// The folder that the runner is in, if that is not on the path.
    folder: Option<PathBuf>,
}

/// Looks for both; says what to do where one is missing.
pub(super) fn find() -> Result<Tools, String> {
    if version("valgrind".as_ref()).is_none() {
        return Err("install valgrind".to_owned());
    }
    let is_right = |program: &Path| {
        version(program).is_some_and(|text| text.split_whitespace().last() == Some(GUNGRAUN))
    };
    if is_right(RUNNER.as_ref()) {
        return Ok(Tools { folder: None });
    }
    let folder =
        env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    match folder.map(|home| home.join("bin")).filter(|folder| is_right(&folder.join(RUNNER))) {
        Some(folder) => Ok(Tools { folder: Some(folder) }),
        None => Err(format!("cargo install --locked {RUNNER}@{GUNGRAUN}")),
    }
}

/// What a program says of its version; `None` where there is no such program.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Tools {
    /// The path on which the runner is found.
    pub(super) fn path(&self) -> OsString {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = self.folder.clone().into_iter().chain(env::split_paths(&path));
        env::join_paths(folders).unwrap_or(path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_is_that_of_the_library() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
        let version = &manifest["workspace"]["dependencies"]["gungraun"];
        assert_eq!(version.as_str(), Some(format!("={GUNGRAUN}").as_str()));
    }

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert_eq!(version("/nonexistent/valgrind".as_ref()), None);
        assert_eq!(version("false".as_ref()), None);
    }
}
