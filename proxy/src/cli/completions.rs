//! `prodex completions`: a script that completes commands in a shell.

use super::terminal::print;
use super::{Exit, Failure};

/// Print a completion script for a shell
///
/// Example: prodex completions bash > ~/.local/share/bash-completion/completions/prodex
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn execute(self, mut command: clap::Command) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "prodex", &mut script);
        print(String::from_utf8_lossy(&script))?;
        Ok(Exit::Ok)
    }
}
