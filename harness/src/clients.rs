//! Real clients: which there are, where they are kept, and how an exact version is fetched.
//!
//! Clients come from the registry that `npm` is configured for, into a cache outside the repository. A
//! version is installed beside its place and moved there whole, under a lock, so that two runs at once get
//! one good copy. How a client is driven is in the modules below.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::{self, Exit, ProcessError, Program};

pub mod claude;
pub mod codex;
pub mod gemini;

/// Which program a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Codex CLI.
    Codex,
    /// Claude Code.
    Claude,
    /// Gemini CLI.
    Gemini,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Codex, Self::Claude, Self::Gemini];

    /// The name in `codex@1.2.3`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Codex => "codex",
            Self::Claude => "claude",
            Self::Gemini => "gemini",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Codex => "@openai/codex",
            Self::Claude => "@anthropic-ai/claude-code",
            Self::Gemini => "@google/gemini-cli",
        }
    }

    /// The program in an installed package.
    fn program_in(self, place: &Path) -> Option<PathBuf> {
        match self {
            Self::Codex => codex::program_in(place),
            Self::Claude => claude::program_in(place),
            Self::Gemini => gemini::program_in(place),
        }
    }
}

/// A client at an exact version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Client {
    /// Which program.
    pub kind: Kind,
    /// Which version.
    pub version: String,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.kind.name(), self.version)
    }
}

/// Not the name of a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read {0:?} as a client: it is written name@version, as in codex@0.169.0")]
pub struct BadName(String);

impl FromStr for Client {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName(text.to_owned());
        let (name, version) = text.split_once('@').ok_or_else(bad)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(bad)?;
        let starts_with_digit = version.starts_with(|first: char| first.is_ascii_digit());
        // A version becomes part of a path and of a package's name.
        let is_plain = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        if starts_with_digit && is_plain && !version.contains("..") {
            Ok(Self { kind, version: version.to_owned() })
        } else {
            Err(bad())
        }
    }
}

/// Why a client cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It is not in the cache.
    #[error(
        "find {client} in {cache}; install it with `cargo xtask compat-clients --install --client {client}`"
    )]
    Missing {
        /// The client.
        client: Client,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// There is no cache directory to be named.
    #[error("name the cache: set PRODEX_LAB_CACHE, XDG_CACHE_HOME or HOME")]
    NoCache,
    /// There is no `npm`.
    #[error("find npm in PATH; it fetches the clients")]
    NoNpm,
    /// A file or directory of the cache.
    #[error("use {path} in the cache")]
    Cache {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `npm` could not be run.
    #[error("run npm")]
    Npm(#[from] ProcessError),
    /// `npm` did not install it.
    #[error("install {client}: npm ended with {exit}: {stderr}")]
    Install {
        /// The client.
        client: Client,
        /// How npm ended.
        exit: String,
        /// Its last words.
        stderr: String,
    },
    /// What was installed is not what is known of this client.
    #[error("find the program of {client} in {path}; its package has another layout")]
    Layout {
        /// The client.
        client: Client,
        /// Where it was installed.
        path: PathBuf,
    },
}

/// Why a client could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Its place could not be made, or nothing said to it.
    #[error("make a place for the client, or speak with it")]
    Place(#[from] std::io::Error),
    /// It could not be run.
    #[error("run the client")]
    Run(#[from] ProcessError),
}

/// Where clients are kept.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    /// The `npm` to be used; the one in `PATH` without it.
    npm: Option<PathBuf>,
}

/// Longest time that an installation may take: a client is 100 MB and more.
const INSTALL: Duration = Duration::from_secs(600);

impl Cache {
    /// The cache of this user: `$PRODEX_LAB_CACHE`, else `$XDG_CACHE_HOME/prodex-lab`, else
    /// `~/.cache/prodex-lab`.
    ///
    /// # Errors
    /// When none of them can be named.
    pub fn of_user() -> Result<Self, ClientError> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = variable("PRODEX_LAB_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("prodex-lab")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/prodex-lab")));
        root.map(Self::at).ok_or(ClientError::NoCache)
    }

    /// A cache in this directory.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), npm: None }
    }

    /// Fetches with this `npm` instead of the one in `PATH`.
    #[must_use]
    pub fn with_npm(mut self, npm: impl Into<PathBuf>) -> Self {
        self.npm = Some(npm.into());
        self
    }

    /// Its directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The program of a client that is installed.
    ///
    /// # Errors
    /// When it is not.
    pub fn program(&self, client: &Client) -> Result<PathBuf, ClientError> {
        let place = self.place(client);
        if !place.is_dir() {
            return Err(ClientError::Missing { client: client.clone(), cache: self.root.clone() });
        }
        client
            .kind
            .program_in(&place)
            .ok_or_else(|| ClientError::Layout { client: client.clone(), path: place })
    }

    /// The versions of a client that are installed, in the order of their numbers.
    #[must_use]
    pub fn installed(&self, kind: Kind) -> Vec<Client> {
        let entries = std::fs::read_dir(self.root.join(kind.name())).into_iter().flatten();
        let mut clients: Vec<Client> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| format!("{}@{}", kind.name(), entry.file_name().to_str()?).parse().ok())
            .filter(|client| self.program(client).is_ok())
            .collect();
        clients.sort_by_key(|client| version_key(&client.version));
        clients
    }

    /// Installs a client unless it is there, and gives its program.
    ///
    /// # Errors
    /// When `npm` is missing or fails, or the cache cannot be written.
    pub async fn install(&self, client: &Client) -> Result<PathBuf, ClientError> {
        let parent = self.root.join(client.kind.name());
        create_dir(&parent)?;
        let lock = parent.join(format!(".{}.lock", client.version));
        let _held = hold(&lock).await?;
        if let Ok(program) = self.program(client) {
            return Ok(program);
        }
        let staging = tempfile::Builder::new()
            .prefix(".installing-")
            .tempdir_in(&parent)
            .map_err(|source| ClientError::Cache { path: parent.clone(), source })?;
        self.fetch(client, staging.path()).await?;
        let found = client.kind.program_in(staging.path());
        let place = self.place(client);
        if found.is_none() {
            return Err(ClientError::Layout { client: client.clone(), path: place });
        }
        // Only a broken installation can be in the way: a good one was returned above.
        if place.exists() {
            std::fs::remove_dir_all(&place)
                .map_err(|source| ClientError::Cache { path: place.clone(), source })?;
        }
        let staged = staging.keep();
        std::fs::rename(&staged, &place).map_err(|source| ClientError::Cache { path: place, source })?;
        self.program(client)
    }

    /// Fetches a client's package and what it depends on into a directory.
    async fn fetch(&self, client: &Client, directory: &Path) -> Result<(), ClientError> {
        let path = std::env::var_os("PATH");
        let in_path = || process::find(Path::new("npm"), path.as_deref());
        let npm = self.npm.clone().or_else(in_path).ok_or(ClientError::NoNpm)?;
        // npm is the user's own: its configuration says where packages come from.
        let program = Program::new(npm)
            .args(["install", "--no-audit", "--no-fund", "--no-save", "--loglevel", "error", "--prefix"])
            .args([directory])
            .args([format!("{}@{}", client.kind.package(), client.version)])
            .envs(std::env::vars_os())
            .directory(directory);
        let finished = program.run(INSTALL).await?;
        if finished.exit == Some(Exit::Code(0)) {
            return Ok(());
        }
        let exit =
            finished.exit.map_or_else(|| format!("nothing within {INSTALL:?}"), |exit| exit.to_string());
        let stderr = finished.stderr.trim().chars().take(2000).collect();
        Err(ClientError::Install { client: client.clone(), exit, stderr })
    }

    fn place(&self, client: &Client) -> PathBuf {
        self.root.join(client.kind.name()).join(&client.version)
    }
}

/// Takes a lock that other processes respect, as long as the file returned is open.
async fn hold(path: &Path) -> Result<File, ClientError> {
    let error = |source| ClientError::Cache { path: path.to_owned(), source };
    let file = File::create(path).map_err(error)?;
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    locked.map_err(std::io::Error::other).and_then(|locked| locked).map_err(error)
}

fn create_dir(path: &Path) -> Result<(), ClientError> {
    std::fs::create_dir_all(path).map_err(|source| ClientError::Cache { path: path.to_owned(), source })
}

/// Numbers compare as numbers: 0.99 comes before 0.100.
fn version_key(version: &str) -> Vec<(u64, String)> {
    version.split(['.', '-']).map(|part| (part.parse().unwrap_or(u64::MAX), part.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_named_with_its_version() {
        let client: Client = "codex@0.169.0".parse().unwrap();
        assert_eq!(client.to_string(), "codex@0.169.0");
        for text in ["codex", "codex@", "codex@latest", "other@1.0.0", "codex@1.0/../..", "codex@1..0", "@1"]
        {
            assert!(text.parse::<Client>().is_err(), "{text}");
        }
    }

    #[test]
    fn versions_are_in_the_order_of_their_numbers() {
        let mut versions = ["0.169.0", "0.99.1", "0.149.1", "0.149.1-alpha.2"];
        versions.sort_by_key(|version| version_key(version));
        assert_eq!(versions, ["0.99.1", "0.149.1", "0.149.1-alpha.2", "0.169.0"]);
    }

    #[test]
    fn a_missing_client_says_how_it_is_installed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path());
        let error = cache.program(&"codex@1.0.0".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("compat-clients --install --client codex@1.0.0"), "{error}");
        assert!(cache.installed(Kind::Codex).is_empty());
        std::fs::create_dir_all(directory.path().join("codex/1.0.0/node_modules")).unwrap();
        let error = cache.program(&"codex@1.0.0".parse().unwrap()).unwrap_err();
        assert!(matches!(error, ClientError::Layout { .. }));
    }
}
