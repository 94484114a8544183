//! Profiles on disk: a directory each under `profiles`, with `profile.toml` and `auth.json`.
//!
//! Everything is put in place by one rename, so an interruption leaves the old state or the new one.
//! Directories are 0700 and files 0600. Only files of our own are ever moved or replaced: a directory
//! that another tool shares keeps whatever else is in it.

#![expect(
    clippy::disallowed_methods,
    reason = "this module owns the profiles' files; callers are off the request path"
)]

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::credentials::{Credentials, CredentialsError};
use crate::state::crash;

mod about;

mod lease;

mod login;

mod trash;

pub use about::{About, Pause};
pub use lease::Lease;
pub use login::{LoggedIn, LoggedOut};
pub use trash::Trashed;

/// What the directory of a profile begins with while it is made, and when one is left from a crash.
const UNFINISHED: &str = ".new-";
const UNFINISHED_AGE: Duration = Duration::from_secs(3600);

const PROFILE_FILE: &str = "profile.toml";
const AUTH_FILE: &str = "auth.json";
const CURRENT_FILE: &str = "current";
const LOCK_FILE: &str = "auth.json.lock";

/// What went wrong with a profile's files. Each says which, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name cannot be that of a profile.
    #[error(
        "{0:?} cannot be a profile's name: use 1 to 64 letters, digits, `.`, `_` or `-`, beginning with \
         a letter or digit"
    )]
    Name(String),
    /// There is no such profile.
    #[error("there is no profile {0:?}; `prodex profile list` shows those there are")]
    Missing(String),
    /// There is one already.
    #[error("there is a profile {0:?} already; choose another name, or remove it first")]
    Exists(String),
    /// It is there, and without credentials.
    #[error("profile {0:?} has no login; `prodex login {0}` logs it in again")]
    LoggedOut(String),
    /// The trash has nothing of that name.
    #[error("the trash has no profile {0:?}; `prodex profile restore --list` shows what it has")]
    NotInTrash(String),
    /// Its login is another tool's, too.
    #[error(
        "the login of profile {name:?} is another tool's, too, in {path}; `prodex profile remove {name}` \
         takes it out of the pool and leaves it there"
    )]
    Shared {
        /// The profile.
        name: String,
        /// The directory.
        path: PathBuf,
    },
    /// A login is somebody else's than that of the profile it was meant for.
    #[error(
        "that login is of another account than profile {name:?}, and conversations of one are not the other's; \
         choose another name, or run `prodex profile remove {name}` first"
    )]
    OtherAccount {
        /// The profile.
        name: String,
    },
    /// Another profile has the same account.
    #[error(
        "profile {profile:?} has the same account already; `prodex profile show {profile}` shows it, and \
         `prodex profile remove {profile}` makes room"
    )]
    SameAccount {
        /// That profile.
        profile: String,
    },
    /// Somebody else changes its credentials, and takes too long.
    #[error("another process is renewing the login of profile {0:?}; try again")]
    Leased(String),
    /// A file or directory cannot be read or written.
    #[error("failed to {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A profile's own file is broken.
    #[error(
        "{path} is broken: {problem}; nothing was changed: correct it, or use the newer prodex that may have \
         written it"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is no login at a place where one was looked for.
    #[error("{path}: {problem}; log in with `prodex login`, or say where the login is")]
    NoLogin {
        /// The place.
        path: PathBuf,
        /// What is there instead.
        problem: &'static str,
    },
    /// The credentials are broken.
    #[error("{path} cannot be used")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: CredentialsError,
    },
}

/// A profile as it is on disk.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Its public part.
    pub about: About,
    /// Its credentials.
    pub credentials: Credentials,
}

/// The profiles of a home.
#[derive(Debug, Clone)]
pub struct Store {
    home: PathBuf,
}

impl Store {
    /// The store in `home`, which need not exist yet.
    #[must_use]
    pub fn new(home: &Path) -> Self {
        Self { home: home.to_owned() }
    }

    /// The names of the profiles, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let directory = self.home.join("profiles");
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StoreError::Io { action: "read", path: directory, source }),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_name(name) && directory.join(name).join(PROFILE_FILE).exists())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// When there is none with this name, or its files cannot be used.
    pub fn read(&self, name: &str) -> Result<Stored, StoreError> {
        let about = self.read_about(name)?;
        let path = self.directory(name)?.join(AUTH_FILE);
        if !path.exists() {
            return Err(StoreError::LoggedOut(name.to_owned()));
        }
        let (_, credentials) = read_auth(&path)?;
        Ok(Stored { name: name.to_owned(), about, credentials })
    }

    /// Reads the public part of a profile.
    ///
    /// # Errors
    /// When there is none with this name, or its file cannot be used.
    pub fn read_about(&self, name: &str) -> Result<About, StoreError> {
        let path = self.directory(name)?.join(PROFILE_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => About::parse(&text).map_err(|problem| StoreError::Broken { path, problem }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Missing(name.to_owned()))
            }
            Err(source) => Err(StoreError::Io { action: "read", path, source }),
        }
    }

    /// Pauses a profile, or changes its pause; none resumes it. Proxies that run take it up when they are told
    /// to reload.
    ///
    /// # Errors
    /// When there is no such profile, or the disk refuses.
    pub fn set_pause(&self, name: &str, pause: Option<&Pause>) -> Result<About, StoreError> {
        self.change_about(name, |about| {
            about.paused = pause.is_some();
            let until = pause.and_then(|pause| jiff::Timestamp::from_second(pause.until?).ok());
            about.paused_until = until.map(about::time);
            about.paused_reason = pause.and_then(|pause| pause.reason.clone());
        })
    }

    /// Prefers one profile to all others, or none.
    ///
    /// # Errors
    /// When there is no such profile, or the disk refuses.
    pub fn set_preferred(&self, name: Option<&str>) -> Result<(), StoreError> {
        if let Some(name) = name {
            self.change_about(name, |about| about.preferred = true)?;
        }
        for other in self.names()?.iter().filter(|other| Some(&***other) != name) {
            // One whose file cannot be read is told of where profiles are listed, and is not in use.
            if self.read_about(other).is_ok_and(|about| about.preferred) {
                self.change_about(other, |about| about.preferred = false)?;
            }
        }
        Ok(())
    }

    fn change_about(&self, name: &str, change: impl FnOnce(&mut About)) -> Result<About, StoreError> {
        let mut about = self.read_about(name)?;
        let before = about.clone();
        change(&mut about);
        if about != before {
            let path = self.directory(name)?.join(PROFILE_FILE);
            replace(&path, about.to_text(&path)?.as_bytes())?;
        }
        Ok(about)
    }

    /// Adds a profile with the text of an `auth.json`.
    ///
    /// # Errors
    /// When the name is taken or none, the credentials cannot be used, or the disk refuses.
    pub fn add(&self, name: &str, auth: &str, source: Option<&Path>) -> Result<Stored, StoreError> {
        let directory = self.directory(name)?;
        let credentials = Credentials::parse(auth).map_err(|error| StoreError::Credentials {
            path: source.map_or_else(|| PathBuf::from("the given key"), Path::to_owned),
            source: error,
        })?;
        let about = About {
            added: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            source: source.map(Path::to_owned),
            ..About::default()
        };
        let text = about.to_text(&directory.join(PROFILE_FILE))?;
        if directory.join(PROFILE_FILE).exists() {
            return Err(StoreError::Exists(name.to_owned()));
        }
        if directory.exists() {
            // Another tool's: its credentials become a profile where they are, and no others replace them.
            if source != Some(&directory.join(AUTH_FILE)) {
                return Err(StoreError::Exists(name.to_owned()));
            }
            replace(&directory.join(PROFILE_FILE), text.as_bytes())?;
        } else {
            self.put_in_place(&directory, &text, auth)?;
        }
        Ok(Stored { name: name.to_owned(), about, credentials })
    }

    /// Puts the two files of a new profile in place with one rename of their directory.
    fn put_in_place(&self, directory: &Path, about: &str, auth: &str) -> Result<(), StoreError> {
        let profiles = self.home.join("profiles");
        make_directory(&profiles)?;
        remove_old(&profiles, UNFINISHED, UNFINISHED_AGE);
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let staging = profiles.join(format!("{UNFINISHED}{name}-{}", std::process::id()));
        make_directory(&staging)?;
        let put = || {
            replace(&staging.join(AUTH_FILE), auth.as_bytes())?;
            replace(&staging.join(PROFILE_FILE), about.as_bytes())?;
            fs::rename(&staging, directory).map_err(io_error("create", directory))
        };
        put().inspect_err(|_| drop(fs::remove_dir_all(&staging)))
    }

    /// Deletes what went to the trash 30 days ago, and what an interruption has left. Best effort.
    pub fn tidy(&self) {
        self.prune_trash();
        remove_old(&self.home.join("profiles"), UNFINISHED, UNFINISHED_AGE);
    }

    /// The profile that the person chose.
    ///
    /// # Errors
    /// When the choice cannot be read.
    pub fn current(&self) -> Result<Option<String>, StoreError> {
        let path = self.home.join(CURRENT_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|name| is_name(name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { action: "read", path, source }),
        }
    }

    /// Chooses a profile.
    ///
    /// # Errors
    /// When there is no such profile, or the disk refuses.
    pub fn set_current(&self, name: &str) -> Result<(), StoreError> {
        self.read(name)?;
        replace(&self.home.join(CURRENT_FILE), format!("{name}\n").as_bytes())
    }

    /// Reads the text of a profile's `auth.json` and what is in it.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn read_auth(&self, name: &str) -> Result<(String, Credentials), StoreError> {
        read_auth(&self.directory(name)?.join(AUTH_FILE))
    }

    /// Replaces a profile's `auth.json`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn replace_auth(&self, name: &str, text: &str) -> Result<(), StoreError> {
        replace(&self.directory(name)?.join(AUTH_FILE), text.as_bytes())
    }

    fn directory(&self, name: &str) -> Result<PathBuf, StoreError> {
        if is_name(name) {
            Ok(self.home.join("profiles").join(name))
        } else {
            Err(StoreError::Name(name.to_owned()))
        }
    }
}

/// Deletes entries of a directory whose names begin so and that are older than that. Best effort: what
/// cannot be deleted now is tried again at the next occasion.
pub(crate) fn remove_old(directory: &Path, prefix: &str, age: Duration) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_one = entry.file_name().to_string_lossy().starts_with(prefix);
        let written = entry.metadata().and_then(|meta| meta.modified()).map(|at| at.elapsed());
        if is_one && written.is_ok_and(|written| written.is_ok_and(|written| written > age)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether this can be the name of a profile.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Reads an `auth.json`, wherever it is.
///
/// # Errors
/// When it cannot be read or used.
pub fn read_auth(path: &Path) -> Result<(String, Credentials), StoreError> {
    let text = fs::read_to_string(path).map_err(io_error("read", path))?;
    let credentials = Credentials::parse(&text)
        .map_err(|source| StoreError::Credentials { path: path.to_owned(), source })?;
    Ok((text, credentials))
}

/// Makes a directory that only its owner may look into, and those above it.
///
/// # Errors
/// When the disk refuses.
pub fn make_directory(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create", path))
}

/// Puts a file in place in one step: a reader finds the old content or the new one.
///
/// # Errors
/// When the disk refuses; the old content stays.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let temporary = PathBuf::from(name);
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        crash::point("file.written");
        fs::rename(&temporary, path)?;
        crash::point("file.replaced");
        Ok(())
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        StoreError::Io { action: "write", path: path.to_owned(), source }
    })
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const KEY: &str = r#"{"OPENAI_API_KEY":"key"}"#;

    #[test]
    fn a_profile_is_added_used_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(&home.path().join("new"));
        assert_eq!(store.names().unwrap(), Vec::<String>::new());
        store.add("work", KEY, None).unwrap();
        store.add("home", KEY, Some(Path::new("/x/auth.json"))).unwrap();
        assert_eq!(store.names().unwrap(), ["home", "work"]);
        assert_eq!(store.read("home").unwrap().about.source.unwrap(), Path::new("/x/auth.json"));
        store.set_current("work").unwrap();
        assert_eq!(store.current().unwrap().as_deref(), Some("work"));
        let trash = store.remove("work").unwrap();
        assert_eq!(fs::read_to_string(trash.join(AUTH_FILE)).unwrap(), KEY);
        assert_eq!((store.names().unwrap(), store.current().unwrap()), (vec!["home".to_owned()], None));
    }

    #[test]
    fn a_pause_and_a_preference_are_kept_with_the_profile() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        let now = jiff::Timestamp::from_second(1_000_000).unwrap();
        for name in ["a", "b"] {
            store.add(name, KEY, None).unwrap();
        }
        let pause = Pause { until: Some(1_000_060), reason: Some("an \"invoice\"".to_owned()) };
        store.set_pause("a", Some(&pause)).unwrap();
        let about = store.read("a").unwrap().about;
        assert_eq!(about.pause(now), Some(pause));
        assert_eq!(about.pause(jiff::Timestamp::from_second(1_000_060).unwrap()), None);
        store.set_pause("a", Some(&Pause::default())).unwrap();
        assert_eq!(store.read_about("a").unwrap().pause(jiff::Timestamp::MAX), Some(Pause::default()));
        store.set_pause("a", None).unwrap();
        assert_eq!(store.read_about("a").unwrap().pause(now), None);
        let preferred = || ["a", "b"].map(|name| store.read_about(name).unwrap().preferred);
        store.set_preferred(Some("a")).unwrap();
        store.set_preferred(Some("b")).unwrap();
        assert_eq!(preferred(), [false, true]);
        assert!(matches!(store.set_preferred(Some("c")), Err(StoreError::Missing(_))));
        store.set_preferred(None).unwrap();
        assert_eq!(preferred(), [false, false]);
        assert!(matches!(store.set_pause("c", None), Err(StoreError::Missing(_))));
    }

    #[test]
    fn only_the_owner_may_read() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(&home.path().join("new"));
        store.add("a", KEY, None).unwrap();
        let directory = home.path().join("new/profiles/a");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for path in [&home.path().join("new"), &directory] {
            assert_eq!(mode(path), 0o700, "{}", path.display());
        }
        for file in [AUTH_FILE, PROFILE_FILE] {
            assert_eq!(mode(&directory.join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let store = Store::new(Path::new("/nonexistent"));
        for name in ["", ".", "..", "../x", "a/b", "-x", "a b", "é", &"x".repeat(65)] {
            assert!(matches!(store.read(name), Err(StoreError::Name(_))), "{name:?}");
        }
        assert!(matches!(store.read("work"), Err(StoreError::Missing(_))));
    }

    #[test]
    fn the_files_of_other_tools_stay() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("profiles/shared");
        fs::create_dir_all(directory.join("sessions")).unwrap();
        fs::write(directory.join(AUTH_FILE), KEY).unwrap();
        let store = Store::new(home.path());
        assert_eq!(store.names().unwrap(), Vec::<String>::new(), "not ours yet");
        assert!(matches!(
            store.add("shared", "{\"OPENAI_API_KEY\":\"b\"}", None),
            Err(StoreError::Exists(_))
        ));
        store.add("shared", KEY, Some(&directory.join(AUTH_FILE))).unwrap();
        store.remove("shared").unwrap();
        assert!(directory.join("sessions").exists());
    }

    #[test]
    fn broken_files_are_named() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        store.add("a", KEY, None).unwrap();
        fs::write(home.path().join("profiles/a/auth.json"), "{").unwrap();
        let error = crate::control::describe(&store.read("a").unwrap_err());
        assert!(error.ends_with("a/auth.json cannot be used: it is not JSON: line 1, column 1; `prodex login` makes a new login"), "{error}");
        fs::write(home.path().join("profiles/a/profile.toml"), "x = 1").unwrap();
        assert!(matches!(store.read("a"), Err(StoreError::Broken { .. })));
        assert!(matches!(store.add("b", "{}", None), Err(StoreError::Credentials { .. })));
        assert!(!home.path().join("profiles/b").exists(), "nothing half-written");
    }
}
