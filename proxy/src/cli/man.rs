//! `prodex man`: the manual pages, for packagers.

use std::path::PathBuf;

use super::{Exit, Failure, terminal};

/// Write the manual pages into a directory
///
/// Example: prodex man ~/.local/share/man/man1
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct Man {
    /// The directory, which is made if it is missing
    directory: PathBuf,
}

impl Man {
    pub(super) fn execute(self, command: clap::Command) -> Result<Exit, Failure> {
        let directory = &self.directory;
        let written =
            std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory));
        written.map_err(|error| {
            let problem = format!("cannot write the manual pages to {}: {error}", directory.display());
            Failure::new(Exit::Environment, format!("{problem}; name another directory"))
        })?;
        terminal::print(format_args!("the manual pages are in {}", directory.display()))?;
        Ok(Exit::Ok)
    }
}
