//! `prodex profile scope`: which profiles may serve what runs in a directory.

use std::path::PathBuf;

use serde_json::json;

use super::super::terminal::{columns, print, short};
use super::super::{Exit, Failure, Home};
use crate::profile::scopes::{Scope, ScopeError, Scopes};
use crate::profile::store::Store;

/// Tie a directory to some profiles, so that no other serves what runs there
///
/// `prodex run` looks for the nearest scope of the directory that Codex works in. A scope that names a
/// profile that is not there is an error, and never means all profiles. Without --only, --clear or --list
/// the scope of the directory is shown.
///
/// Example: prodex profile scope ~/work --only work,work-2
#[derive(Debug, clap::Args)]
pub(super) struct ScopeOf {
    /// The directory [default: the current one]
    directory: Option<PathBuf>,
    /// The profiles, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with_all = ["clear", "list"])]
    only: Vec<String>,
    /// Untie the directory
    #[arg(long, conflicts_with = "list")]
    clear: bool,
    /// Show all scopes
    #[arg(long, conflicts_with = "directory")]
    list: bool,
    /// Print JSON
    #[arg(long, conflicts_with_all = ["only", "clear"])]
    json: bool,
    #[command(flatten)]
    home: Home,
}

impl From<ScopeError> for Failure {
    fn from(error: ScopeError) -> Self {
        match error {
            ScopeError::Store(error) => error.into(),
            ScopeError::Broken { .. } => Self::of(Exit::Usage, &error),
            ScopeError::Missing { .. } => Self::of(Exit::NoProfile, &error),
            ScopeError::Directory { .. } => Self::of(Exit::Environment, &error),
        }
    }
}

impl ScopeOf {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let config = self.home.config(&Vec::new())?;
        let store = Store::new(&config.home);
        let mut scopes = Scopes::read(&config.home)?;
        let directory = self.directory.clone().unwrap_or_else(|| PathBuf::from("."));
        if self.list {
            print(self.list(scopes.all()))?;
        } else if self.clear {
            let said = if scopes.clear(&directory)? { "is not tied any more" } else { "was not tied" };
            print(format_args!("{} {said}", directory.display()))?;
        } else if self.only.is_empty() {
            print(self.show(scopes.of(&directory)?))?;
        } else {
            let scope = scopes.set(&directory, &self.only, &store)?;
            print(format_args!(
                "in {} only {} may serve",
                short(&scope.directory),
                scope.profiles.join(", ")
            ))?;
        }
        Ok(Exit::Ok)
    }

    fn list(&self, scopes: &[Scope]) -> String {
        if self.json {
            let rows: Vec<_> = scopes.iter().map(row).collect();
            return json!({"version": 1, "scopes": rows}).to_string();
        }
        if scopes.is_empty() {
            return "No directory is tied. `prodex profile scope DIR --only NAMES` ties one.".to_owned();
        }
        let rows = scopes.iter().map(|scope| [short(&scope.directory), scope.profiles.join(", ")]);
        columns(&rows.collect::<Vec<_>>())
    }

    fn show(&self, scope: Option<&Scope>) -> String {
        match (scope, self.json) {
            (scope, true) => json!({"version": 1, "scope": scope.map(row)}).to_string(),
            (None, false) => "All profiles may serve here.".to_owned(),
            (Some(scope), false) => {
                let (profiles, directory) = (scope.profiles.join(", "), short(&scope.directory));
                format!("Only {profiles} may serve here: {directory} is tied.")
            }
        }
    }
}

fn row(scope: &Scope) -> serde_json::Value {
    json!({"directory": scope.directory, "profiles": scope.profiles})
}
