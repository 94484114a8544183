//! The project as the checks see it: every file git tracks or would add, and the crates cargo knows.
//!
//! Everything is read once, here. Ignored files do not exist for a check, and a file that is not UTF-8 has
//! a path and no text.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::camino::Utf8Path;
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// A checkout, in memory.
#[derive(Debug)]
pub(super) struct Project {
    root: PathBuf,
    files: BTreeMap<String, Option<String>>,
    members: Vec<Member>,
    model: clap::Command,
}

/// A crate of the workspace.
#[derive(Debug)]
pub(super) struct Member {
    /// The crate's name.
    pub(super) name: String,
    /// Its folder, from the root.
    pub(super) folder: String,
    /// The files that cargo hands to the compiler, from the root: one per target, the library first.
    pub(super) targets: Vec<String>,
    /// What it depends on, in every kind and for every platform.
    pub(super) dependencies: Vec<Dependency>,
}

/// One dependency of a crate, as its manifest declares it.
#[derive(Debug)]
pub(super) struct Dependency {
    /// The name of the crate depended on.
    pub(super) name: String,
    /// The key in the manifest, which differs from the name when renamed.
    pub(super) key: String,
    /// Whether only tests, examples and benchmarks see it.
    pub(super) is_dev: bool,
}

impl Project {
    /// Reads the workspace around the current directory. `model` is the command line of `cargo xtask`.
    pub(super) fn open(model: clap::Command) -> Result<Self> {
        Self::open_at(Path::new("."), model)
    }

    /// Reads the workspace around `folder`.
    pub(super) fn open_at(folder: &Path, model: clap::Command) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .current_dir(folder)
            .no_deps()
            .exec()
            .context("failed to ask cargo for the workspace")?;
        let root = &metadata.workspace_root;
        let members = metadata.workspace_packages().into_iter().map(|package| Member::of(package, root));
        let members = members.collect::<Result<_>>()?;
        let files = read(root.as_std_path())?;
        Ok(Self { root: root.clone().into(), files, members, model })
    }

    /// The root of the checkout.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The paths of all files, sorted, from the root, separated by `/`.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The paths and texts of all files that are text.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// The text of one file; `None` when there is no such file, or it is not text.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// The crates of the workspace.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The command line of `cargo xtask`.
    pub(super) fn model(&self) -> &clap::Command {
        &self.model
    }

    /// Replaces the text of one file, in memory only.
    pub(super) fn set(&mut self, path: &str, text: String) {
        self.files.insert(path.to_owned(), Some(text));
    }
}

impl Member {
    fn of(package: &Package, root: &Utf8Path) -> Result<Self> {
        let inside = |path: &Utf8Path| -> Result<String> {
            let path = path.strip_prefix(root).with_context(|| format!("{path} lies outside {root}"))?;
            Ok(path.as_str().replace('\\', "/"))
        };
        let manifest = &package.manifest_path;
        let folder = manifest.parent().with_context(|| format!("{manifest} has no folder"))?;
        let targets = package.targets.iter().map(|target| inside(&target.src_path));
        let dependencies = package.dependencies.iter().map(|dependency| Dependency {
            name: dependency.name.clone(),
            key: dependency.rename.clone().unwrap_or_else(|| dependency.name.clone()),
            is_dev: dependency.kind == DependencyKind::Development,
        });
        Ok(Self {
            name: package.name.to_string(),
            folder: inside(folder)?,
            targets: targets.collect::<Result<_>>()?,
            dependencies: dependencies.collect(),
        })
    }

    /// The path of the crate's manifest.
    pub(super) fn manifest(&self) -> String {
        format!("{}/Cargo.toml", self.folder)
    }
}

/// Every file below `root` that git tracks or would add, with its text.
fn read(root: &Path) -> Result<BTreeMap<String, Option<String>>> {
    let listing = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("failed to start git, which lists the files to check")?;
    if !listing.status.success() {
        bail!("git could not list the files: {}", String::from_utf8_lossy(&listing.stderr).trim());
    }
    let listed = String::from_utf8(listing.stdout).context("a file's name is not UTF-8")?;
    let mut files = BTreeMap::new();
    for path in listed.split_terminator('\0') {
        let place = root.join(path);
        // Tracked and deleted, but the deletion is not committed yet: gone already for a check.
        if !place.is_file() {
            continue;
        }
        let bytes = fs::read(&place).with_context(|| format!("failed to read {}", place.display()))?;
        files.insert(path.to_owned(), String::from_utf8(bytes).ok());
    }
    Ok(files)
}

#[cfg(test)]
pub(super) mod sketch {
    //! Projects drawn in a test: files and crates as values, nothing on disk.

    use super::*;

    impl Project {
        /// A project of these files and no crate.
        pub(in crate::tidy) fn sketch(files: &[(&str, &str)]) -> Self {
            let files = files.iter().map(|(path, text)| ((*path).to_owned(), Some((*text).to_owned())));
            let model = clap::Command::new("cargo xtask");
            Self { root: PathBuf::new(), files: files.collect(), members: Vec::new(), model }
        }

        /// The same with one crate more, of these targets and dependencies.
        pub(in crate::tidy) fn with(mut self, member: Member) -> Self {
            self.members.push(member);
            self
        }

        /// The same with this command line.
        pub(in crate::tidy) fn with_model(mut self, model: clap::Command) -> Self {
            self.model = model;
            self
        }
    }

    impl Member {
        /// A crate in a folder, with a library for target.
        pub(in crate::tidy) fn sketch(name: &str, folder: &str) -> Self {
            let targets = vec![format!("{folder}/src/lib.rs")];
            Self { name: name.into(), folder: folder.into(), targets, dependencies: Vec::new() }
        }

        /// The same with one dependency more.
        pub(in crate::tidy) fn on(mut self, name: &str, is_dev: bool) -> Self {
            self.dependencies.push(Dependency { name: name.into(), key: name.into(), is_dev });
            self
        }
    }
}
