//! Fixtures: scrubbed captures of real clients, below `fixtures/replay/<client>/`, each with its certificate.
//!
//! A fixture is JSON lines as `wire::capture` has them, its first record saying where it comes from. One
//! whose certificate is missing or does not match its bytes does not load: it may hold somebody's secrets.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use wire::capture::{Entry, Exchange, ExchangeError, Meta, Record, exchanges};

/// Why fixtures cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// A file or directory cannot be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is asked for is no pattern.
    #[error("read {pattern:?} as a pattern of fixtures' names")]
    Pattern {
        /// What was asked for.
        pattern: String,
        /// Why.
        #[source]
        source: globset::Error,
    },
    /// A line is no record.
    #[error("read {path}, line {line}, column {column}, as a record")]
    Record {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Records do not belong together.
    #[error("put {path} together")]
    Exchanges {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ExchangeError,
    },
    /// It does not begin with where it comes from.
    #[error("find where {path} comes from: its first record is not a meta record with a client")]
    Origin {
        /// The file.
        path: PathBuf,
    },
}

/// A fixture.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// Its path below the library, without its ending: `codex/0.169.0/chatgpt-tls-simple`.
    pub name: String,
    /// Where it comes from.
    pub meta: Meta,
    /// What it holds.
    pub exchanges: Vec<Exchange>,
}

/// A directory of fixtures.
#[derive(Debug, Clone)]
pub struct Library {
    root: PathBuf,
    /// The names of its fixtures, in order.
    names: Vec<String>,
}

impl Library {
    /// Finds the fixtures below a directory.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, FixtureError> {
        let root = root.into();
        let mut names = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(directory) = open.pop() {
            let failed = |source| FixtureError::Read { path: directory.clone(), source };
            for entry in std::fs::read_dir(&directory).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|ending| ending == "jsonl")
                    && let Some(name) =
                        path.with_extension("").strip_prefix(&root).ok().and_then(Path::to_str)
                {
                    names.push(name.to_owned());
                }
            }
        }
        names.sort_unstable();
        Ok(Self { root, names })
    }

    /// The names of all fixtures, in order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The names that match one of these patterns; all without a pattern. `*` matches within a part of the
    /// name, `**` over several; a plain name matches itself.
    ///
    /// # Errors
    /// When a pattern is none.
    pub fn select(&self, patterns: &[String]) -> Result<Vec<&str>, FixtureError> {
        let set = pattern(patterns)?;
        let names = self.names.iter().map(String::as_str);
        Ok(names.filter(|name| patterns.is_empty() || set.is_match(name)).collect())
    }

    /// Where a fixture is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.jsonl"))
    }

    /// Loads a fixture.
    ///
    /// # Errors
    /// When it cannot be read, has no valid certificate, or is no capture.
    pub fn load(&self, name: &str) -> Result<Fixture, FixtureError> {
        let path = self.path(name);
        let bytes =
            std::fs::read(&path).map_err(|source| FixtureError::Read { path: path.clone(), source })?;
        let records = records(&path, &bytes)?;
        let meta = match records.first() {
            Some(Record { entry: Entry::Meta(meta), .. }) if meta.client.is_some() => meta.clone(),
            _ => return Err(FixtureError::Origin { path }),
        };
        let exchanges =
            exchanges(&records).map_err(|source| FixtureError::Exchanges { path: path.clone(), source })?;
        Ok(Fixture { name: name.to_owned(), meta, exchanges })
    }
}

/// One matcher for all of these patterns of names.
///
/// # Errors
/// When a pattern is none.
pub fn pattern(patterns: &[String]) -> Result<GlobSet, FixtureError> {
    let failed = |pattern: &str| {
        let pattern = pattern.to_owned();
        move |source| FixtureError::Pattern { pattern, source }
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(failed(pattern))?);
    }
    set.build().map_err(failed(&patterns.join(" ")))
}

fn records(path: &Path, bytes: &[u8]) -> Result<Vec<Record>, FixtureError> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let record = |(at, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|source: serde_json::Error| FixtureError::Record {
            path: path.to_owned(),
            line: at + 1,
            column: source.column(),
            source,
        })
    };
    lines.map(record).collect()
}
