//! The crates of the workspace: whose folder a path is in, and which crates a change to one reaches.
//!
//! `determinator` says what is reached, by simulating cargo's builds with the tests of each crate: what only
//! the tests of a crate import reaches that crate and not those that import it in turn. The graph is the
//! checkout's. No older one is needed, because a change to a manifest or to the lock file is everything
//! before this is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use camino::{Utf8Path, Utf8PathBuf};
use determinator::Determinator;
use determinator::rules::DeterminatorRules;
use guppy::MetadataCommand;
use guppy::graph::PackageGraph;
use guppy::graph::cargo::{CargoOptions, CargoResolverVersion};
use guppy::platform::PlatformSpec;

use super::path::RepoPath;

/// The crates of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crates {
    /// The name of the crate in each folder.
    folders: BTreeMap<Utf8PathBuf, String>,
    /// What a change to a crate reaches: itself, and all that would be built anew or tested otherwise.
    reached: BTreeMap<String, BTreeSet<String>>,
}

/// Why the crates are not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Cargo did not describe the workspace.
    #[error("failed to ask cargo for the workspace")]
    Cargo(#[source] Box<guppy::Error>),
    /// The simulation's settings were refused.
    #[error("failed to set up the simulation of builds")]
    Simulation(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Asks cargo for the workspace at `root`.
///
/// # Errors
///
/// When cargo cannot describe it.
pub fn graph(root: &Path) -> Result<PackageGraph, Error> {
    let mut command = MetadataCommand::new();
    command.current_dir(root).other_options(["--locked"]);
    command.build_graph().map_err(|error| Error::Cargo(Box::new(error)))
}

impl Crates {
    /// Simulates the builds of a workspace.
    ///
    /// # Errors
    ///
    /// When the simulation cannot be set up.
    pub fn of(graph: &PackageGraph) -> Result<Self, Error> {
        // Paths are judged by our rules; here crates alone are asked for.
        let rules = DeterminatorRules::parse("use-default-rules = false")
            .map_err(|error| Error::Simulation(Box::new(error)))?;
        let mut options = CargoOptions::new();
        options.set_resolver(CargoResolverVersion::V3).set_include_dev(true).set_platform(PlatformSpec::Any);
        let (mut folders, mut reached) = (BTreeMap::new(), BTreeMap::new());
        for (folder, package) in graph.workspace().iter_by_path() {
            let mut determinator = Determinator::new(graph, graph);
            determinator.set_rules(&rules).map_err(|error| Error::Simulation(Box::new(error)))?;
            determinator.set_cargo_options(&options).add_changed_paths([folder]);
            let affected = determinator.compute().affected_set;
            let names = affected.packages(guppy::graph::DependencyDirection::Forward);
            let names = names.filter(|found| found.in_workspace()).map(|found| found.name().to_owned());
            folders.insert(folder.to_owned(), package.name().to_owned());
            reached.insert(package.name().to_owned(), names.collect());
        }
        Ok(Self { folders, reached })
    }

    /// The names of all crates.
    pub fn names(&self) -> BTreeSet<String> {
        self.reached.keys().cloned().collect()
    }

    /// The crate in whose folder a path lies.
    pub fn owner(&self, path: &RepoPath) -> Option<&str> {
        let folders = Utf8Path::new(path.as_str()).ancestors().skip(1);
        folders
            .filter(|folder| !folder.as_str().is_empty())
            .find_map(|folder| self.folders.get(folder))
            .map(String::as_str)
    }

    /// The crates that a change to `name` reaches, itself included.
    pub fn reached_by(&self, name: &str) -> impl Iterator<Item = &str> {
        self.reached.get(name).into_iter().flatten().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This repository's crates.
    fn ours() -> Crates {
        let graph =
            graph(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).expect("cargo knows this workspace");
        Crates::of(&graph).expect("builds are simulated")
    }

    #[test]
    fn a_change_reaches_what_imports_the_crate_and_what_its_tests_import() {
        let crates = ours();
        let reached = |name: &str| crates.reached_by(name).collect::<Vec<_>>().join(" ");
        assert_eq!(reached("wire"), "benches harness mock-upstream prodex wire xtask");
        // The proxy's tests import the harness; of the others only the benches import the proxy.
        assert_eq!(reached("harness"), "benches harness prodex xtask");
        assert_eq!(reached("prodex"), "benches prodex");
        assert_eq!(reached("manifest"), "benches manifest xtask");
        assert_eq!(reached("nobody"), "");
    }

    #[test]
    fn a_path_belongs_to_the_crate_whose_folder_it_is_in() {
        let crates = ours();
        let owner = |path: &str| crates.owner(&RepoPath::listed(path)).map(str::to_owned);
        assert_eq!(owner("proxy/tests/it/main.rs").as_deref(), Some("prodex"));
        assert_eq!(owner("wire/src/lib.rs").as_deref(), Some("wire"));
        for path in ["README.md", "wirey/src/lib.rs", "wire", "docs/wire/src/lib.rs"] {
            assert_eq!(owner(path), None, "{path}");
        }
    }
}

#[cfg(test)]
pub(super) mod sketch {
    //! Workspaces drawn in a test.

    use super::*;

    impl Crates {
        /// Crates as (name, folder, what a change reaches).
        pub(in crate::impact) fn sketch(crates: &[(&str, &str, &[&str])]) -> Self {
            let folders = crates.iter().map(|(name, folder, _)| ((*folder).into(), (*name).to_owned()));
            let reached = crates.iter().map(|(name, _, reached)| {
                ((*name).to_owned(), reached.iter().map(|name| (*name).to_owned()).collect())
            });
            Self { folders: folders.collect(), reached: reached.collect() }
        }
    }
}
