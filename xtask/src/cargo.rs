//! Cargo, called by a program that cargo itself has started.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Cargo's program: the one that runs this program, or the one on the path.
pub(crate) fn program() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Cargo, as if a person had called it.
///
/// What `cargo run` tells a program about its own package would reach the build scripts, and those that
/// ask to be run again when it changes (ring's does) would be built anew, with all that stands on them, each
/// time that a person and this program take turns.
pub(crate) fn command() -> Command {
    let mut command = Command::new(program());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_a_package)) {
        command.env_remove(name);
    }
    command
}

/// Whether cargo sets this variable for the programs of one package.
fn is_of_a_package(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_BIN_")
        || matches!(
            name,
            "CARGO_MANIFEST_DIR"
                | "CARGO_MANIFEST_PATH"
                | "CARGO_MANIFEST_LINKS"
                | "CARGO_CRATE_NAME"
                | "CARGO_PRIMARY_PACKAGE"
                | "OUT_DIR"
        )
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn cargo_is_not_told_about_the_package_that_calls_it() {
        // This test is run by cargo, which says so.
        assert!(env::var_os("CARGO_PKG_NAME").is_some());
        let command = command();
        let removed = |name: &str| command.get_envs().any(|each| each == (OsStr::new(name), None));
        assert!(removed("CARGO_PKG_NAME") && removed("CARGO_MANIFEST_DIR"));
        assert!(!removed("CARGO") && !removed("CARGO_HOME") && !removed("PATH"));
    }
}
