//! What changed between two commits, as git knows it: paths, both ends of every rename.
//!
//! Whatever keeps git from knowing it for certain is no error but an answer: it is unknown what changed, and
//! why. An error is only a git that cannot be asked.

use std::ffi::OsStr;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output};

use serde::Serialize;

use super::path::RepoPath;

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These paths, and no other.
    Paths(Vec<Touched>),
    /// Nobody can say, so it may be anything.
    Unknown(Cause),
}

/// A path that was added, removed or rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// The path; not its true spelling when that is not UTF-8.
    pub path: RepoPath,
    /// What makes it no ordinary file, if anything.
    pub oddity: Option<Oddity>,
}

/// What is odd about a path, so that its name says nothing about its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// A symbolic link, which stands for another file.
    Link,
    /// A commit of another repository.
    Submodule,
    /// The name is not UTF-8.
    NotUtf8,
}

/// Why it is unknown what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The event is not about a change: a schedule, or a person's wish.
    Event(String),
    /// There is no base: nobody gave one.
    NoBase,
    /// The branch is new: its base is the zero commit.
    FirstPush,
    /// The checkout lacks this commit.
    Missing(String),
    /// The checkout's history is cut off.
    Shallow,
    /// The two commits have no ancestor in common.
    Unrelated,
    /// What judges the change, the crates and the rules of this checkout, is not that of the head.
    OtherCheckout,
    /// No path differs, and nobody asks about nothing.
    NoPath,
}

/// Why git could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no program `git`.
    #[error("failed to start git, which is not installed")]
    Absent(#[source] std::io::Error),
    /// It could not be started.
    #[error("failed to start git")]
    Start(#[source] std::io::Error),
    /// It ended with an error.
    #[error("`git {command}` failed: {text}")]
    Failed {
        /// What it was asked.
        command: String,
        /// What it said.
        text: String,
    },
    /// Its answer has another form than documented.
    #[error("`git {command}` answered in a form that is not known")]
    Answer {
        /// What it was asked.
        command: String,
    },
}

impl Change {
    /// What differs between the merge base of `base` and `head`, and `head`, in the repository at `root`.
    ///
    /// # Errors
    ///
    /// When git is missing or refuses to work in `root`.
    pub fn between(root: &Path, base: &str, head: &str) -> Result<Self, Error> {
        if base.trim().is_empty() {
            return Ok(Self::Unknown(Cause::NoBase));
        }
        if base.bytes().all(|digit| digit == b'0') {
            return Ok(Self::Unknown(Cause::FirstPush));
        }
        let git = Git { root };
        if git.ask(&["rev-parse", "--is-shallow-repository"])?.trim() == "true" {
            return Ok(Self::Unknown(Cause::Shallow));
        }
        let mut commits = Vec::new();
        for revision in [base, head] {
            match git.commit(revision)? {
                Some(commit) => commits.push(commit),
                None => return Ok(Self::Unknown(Cause::Missing(revision.to_owned()))),
            }
        }
        let [base, head] = [commits[0].as_str(), commits[1].as_str()];
        let Some(ancestor) = git.merge_base(base, head)? else { return Ok(Self::Unknown(Cause::Unrelated)) };
        if !git.is_judge_of(head)? {
            return Ok(Self::Unknown(Cause::OtherCheckout));
        }
        // Plumbing, which no one's configuration changes; a rename is a removal and an addition.
        let listing = git.run(&["diff-tree", "-r", "-z", "--raw", "--no-renames", &ancestor, head])?.stdout;
        let touched =
            parse(&listing).ok_or_else(|| Error::Answer { command: "diff-tree --raw".to_owned() })?;
        Ok(if touched.is_empty() { Self::Unknown(Cause::NoPath) } else { Self::Paths(touched) })
    }

    /// These paths, as a person names them; unknown when there is none.
    pub fn named(paths: impl IntoIterator<Item = RepoPath>) -> Self {
        let touched: Vec<_> = paths.into_iter().map(|path| Touched { path, oddity: None }).collect();
        if touched.is_empty() { Self::Unknown(Cause::NoPath) } else { Self::Paths(touched) }
    }

    /// What is known for an event of CI that is not about a change, such as a schedule; `None` for the others.
    pub fn for_event(event: Option<&str>) -> Option<Self> {
        let event = event.filter(|event| !["push", "pull_request", "merge_group"].contains(event))?;
        Some(Self::Unknown(Cause::Event(event.to_owned())))
    }
}

impl Cause {
    /// The name of the cause, in the place of a rule's id.
    pub fn id(&self) -> &'static str {
        match self {
            Cause::Event(_) => "event",
            Cause::NoBase => "no-base",
            Cause::FirstPush => "first-push",
            Cause::Missing(_) => "missing-commit",
            Cause::Shallow => "shallow-clone",
            Cause::Unrelated => "unrelated",
            Cause::OtherCheckout => "other-checkout",
            Cause::NoPath => "no-path",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Event(event) => {
                write!(formatter, "the event `{}` is not about a change", RepoPath::listed(event))
            }
            Cause::NoBase => formatter.write_str("no base is known"),
            Cause::FirstPush => formatter.write_str("the branch is pushed for the first time"),
            Cause::Missing(revision) => {
                write!(formatter, "the commit `{}` is not in this checkout", RepoPath::listed(revision))
            }
            Cause::Shallow => formatter.write_str("the history of this checkout is cut off"),
            Cause::Unrelated => formatter.write_str("base and head have no ancestor in common"),
            Cause::OtherCheckout => {
                formatter.write_str("the crates and rules here are not those of the head")
            }
            Cause::NoPath => formatter.write_str("no path differs"),
        }
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Oddity::Link => "it is a symbolic link",
            Oddity::Submodule => "it is a commit of another repository",
            Oddity::NotUtf8 => "its name is not UTF-8",
        })
    }
}

impl Serialize for Cause {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// Reads `diff-tree -z --raw`: `:MODE MODE HASH HASH STATUS`, NUL, path, NUL, and so on.
fn parse(listing: &[u8]) -> Option<Vec<Touched>> {
    let mut touched = Vec::new();
    let mut fields = listing.split(|byte| *byte == 0);
    while let Some(meta) = fields.next().filter(|meta| !meta.is_empty()) {
        let modes = std::str::from_utf8(meta).ok()?.strip_prefix(':')?;
        let modes: Vec<_> = modes.split(' ').take(2).collect();
        let path = fields.next().filter(|path| !path.is_empty())?;
        let is = |mode: &str| modes.contains(&mode);
        let oddity = match std::str::from_utf8(path) {
            Err(_) => Some(Oddity::NotUtf8),
            Ok(_) if is("120000") => Some(Oddity::Link),
            Ok(_) if is("160000") => Some(Oddity::Submodule),
            Ok(_) => None,
        };
        touched.push(Touched { path: RepoPath::listed(String::from_utf8_lossy(path)), oddity });
    }
    Some(touched)
}

/// What crates there are and what rules: read from the checkout, so it has to be the head's.
const JUDGES: [&str; 4] = [
    ":(top,glob)**/Cargo.toml",
    ":(top)Cargo.lock",
    ":(top)manifest/impact.toml",
    ":(top)manifest/tests.toml",
];

struct Git<'a> {
    root: &'a Path,
}

impl Git<'_> {
    /// The full hash of a commit; `None` when the checkout does not have it.
    fn commit(&self, revision: &str) -> Result<Option<String>, Error> {
        let name = format!("{revision}^{{commit}}");
        let output = self.start(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name])?;
        let hash = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((output.status.success() && !hash.is_empty()).then_some(hash))
    }

    /// The best common ancestor; `None` when there is none.
    fn merge_base(&self, base: &str, head: &str) -> Result<Option<String>, Error> {
        let output = self.start(&["merge-base", base, head])?;
        match output.status.code() {
            Some(0) => Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())),
            Some(1) => Ok(None),
            _ => Err(failed(&["merge-base"], &output)),
        }
    }

    /// Whether the files that a change is judged by are, in the checkout, those of the commit.
    fn is_judge_of(&self, commit: &str) -> Result<bool, Error> {
        let mut arguments = vec!["diff", "--quiet", "--no-ext-diff", commit, "--"];
        arguments.extend(JUDGES);
        let output = self.start(&arguments)?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(failed(&["diff", "--quiet"], &output)),
        }
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.run(arguments)?.stdout).into_owned())
    }

    fn run(&self, arguments: &[&str]) -> Result<Output, Error> {
        let output = self.start(arguments)?;
        if output.status.success() { Ok(output) } else { Err(failed(arguments, &output)) }
    }

    fn start(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Output, Error> {
        let started = Command::new("git").current_dir(self.root).args(arguments).output();
        started.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::Absent(error),
            _ => Error::Start(error),
        })
    }
}

fn failed(arguments: &[&str], output: &Output) -> Error {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Error::Failed { command: arguments.join(" "), text }
}

#[cfg(test)]
mod tests;
