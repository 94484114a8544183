//! The trash: what was removed or logged out can be taken back for 30 days.
//!
//! Only files of ours ever get there: `profile.toml`, `auth.json` and its lock. Each entry is a directory
//! below `trash` whose name is the profile's and when it went there.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;

use super::{
    AUTH_FILE, CURRENT_FILE, LOCK_FILE, LoggedOut, PROFILE_FILE, Store, StoreError, io_error, is_name,
    make_directory, read_auth,
};

/// How long something can be taken back.
const AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a renewal that is under way is waited for: longer than one takes.
const LEASE: Duration = Duration::from_secs(30);

/// How the name of an entry ends: to the millisecond, in UTC.
const STAMP: &str = "%Y%m%dT%H%M%S%3f";

/// Something in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// The profile's name.
    pub name: String,
    /// When it went there.
    pub at: Timestamp,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is only the login of a profile that was logged out.
    pub is_login: bool,
}

impl Trashed {
    /// Until when it can be taken back.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.at.saturating_add(AGE).unwrap_or(Timestamp::MAX)
    }

    fn read(path: PathBuf) -> Option<Self> {
        let (name, stamp) = path.file_name()?.to_str()?.rsplit_once('-')?;
        let (name, at) = (name.to_owned(), time_of(stamp)?);
        let is_login = !path.join(PROFILE_FILE).exists();
        is_name(&name).then_some(Self { name, at, path, is_login })
    }
}

impl Store {
    /// Moves a profile to the trash, where it stays for 30 days. Says where it is. Of a directory that
    /// another tool shares, only what makes it a profile.
    ///
    /// # Errors
    /// When there is no such profile, or the disk refuses.
    pub fn remove(&self, name: &str) -> Result<PathBuf, StoreError> {
        let directory = self.directory(name)?;
        if !directory.join(PROFILE_FILE).exists() {
            return Err(StoreError::Missing(name.to_owned()));
        }
        let trash = self.trash_entry(name);
        if holds_only_ours(&directory)? {
            make_directory(&self.home.join("trash"))?;
            fs::rename(&directory, &trash).map_err(io_error("move to the trash", &directory))?;
        } else {
            // The rest, the credentials among it, is another tool's.
            make_directory(&trash)?;
            let file = directory.join(PROFILE_FILE);
            fs::rename(&file, trash.join(PROFILE_FILE)).map_err(io_error("move to the trash", &file))?;
        }
        self.forget_current(name)?;
        self.prune_trash();
        Ok(trash)
    }

    /// Moves the login of a profile to the trash. The profile stays, and only the same account may come
    /// back to it. Says where the login is.
    ///
    /// # Errors
    /// When there is no such profile or it has no login, its directory is another tool's, too, or the disk
    /// refuses.
    pub fn log_out(&self, name: &str) -> Result<PathBuf, StoreError> {
        let directory = self.directory(name)?;
        self.read_about(name)?;
        let auth = directory.join(AUTH_FILE);
        if !auth.exists() {
            return Err(StoreError::LoggedOut(name.to_owned()));
        }
        if !holds_only_ours(&directory)? {
            return Err(StoreError::Shared { name: name.to_owned(), path: directory });
        }
        // A renewal that is under way ends first: it would bring a login back.
        let _lease = self.lease(name, LEASE)?;
        let whose = read_auth(&auth).ok().map(|(_, credentials)| LoggedOut::from(&credentials));
        self.change_about(name, |about| about.logged_out = whose)?;
        let trash = self.trash_entry(name);
        make_directory(&trash)?;
        fs::rename(&auth, trash.join(AUTH_FILE)).map_err(io_error("move to the trash", &auth))?;
        self.prune_trash();
        Ok(trash)
    }

    /// What is in the trash, the newest first.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn trash(&self) -> Result<Vec<Trashed>, StoreError> {
        self.prune_trash();
        let path = self.home.join("trash");
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let mut trashed: Vec<_> = entries.flatten().filter_map(|entry| Trashed::read(entry.path())).collect();
        trashed.sort_by(|one, two| (two.at, &one.name).cmp(&(one.at, &two.name)));
        Ok(trashed)
    }

    /// Takes back what went to the trash last under this name: a profile, or the login of one.
    ///
    /// # Errors
    /// When the trash has no such thing, its place or its account is taken, or the disk refuses.
    pub fn restore(&self, name: &str) -> Result<Trashed, StoreError> {
        let directory = self.directory(name)?;
        let found = self.trash()?.into_iter().find(|trashed| trashed.name == name);
        let trashed = found.ok_or_else(|| StoreError::NotInTrash(name.to_owned()))?;
        let has_login = trashed.path.join(AUTH_FILE).exists();
        if has_login {
            let (_, credentials) = read_auth(&trashed.path.join(AUTH_FILE))?;
            if let Some(profile) = self.account_holder(&credentials)? {
                return Err(StoreError::SameAccount { profile });
            }
        }
        if trashed.is_login {
            self.restore_login(name, &trashed)?;
        } else if directory.join(PROFILE_FILE).exists() {
            return Err(StoreError::Exists(name.to_owned()));
        } else if !directory.exists() {
            make_directory(&self.home.join("profiles"))?;
            fs::rename(&trashed.path, &directory).map_err(io_error("restore", &directory))?;
        } else if has_login {
            // Something else has the place by now.
            return Err(StoreError::Exists(name.to_owned()));
        } else {
            let file = directory.join(PROFILE_FILE);
            fs::rename(trashed.path.join(PROFILE_FILE), &file).map_err(io_error("restore", &file))?;
            // Empty by now; if not, it is pruned in its time.
            let _ = fs::remove_dir(&trashed.path);
        }
        Ok(trashed)
    }

    fn restore_login(&self, name: &str, trashed: &Trashed) -> Result<(), StoreError> {
        let from = trashed.path.join(AUTH_FILE);
        let (text, _) = read_auth(&from)?;
        if self.directory(name)?.join(AUTH_FILE).exists() {
            return Err(StoreError::Exists(name.to_owned()));
        }
        self.log_in(name, &text)?;
        fs::remove_dir_all(&trashed.path).map_err(io_error("remove", &trashed.path))
    }

    /// Deletes what went to the trash so long ago that nobody takes it back. Its name says when: a
    /// directory that is moved keeps the time it was last written, which may be years back. What has no such
    /// name is not ours. What cannot be deleted now is tried again at the next occasion.
    pub fn prune_trash(&self) {
        let now = Timestamp::now();
        for entry in fs::read_dir(self.home.join("trash")).into_iter().flatten().flatten() {
            if Trashed::read(entry.path()).is_some_and(|trashed| trashed.until() < now) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn trash_entry(&self, name: &str) -> PathBuf {
        self.home.join("trash").join(format!("{name}-{}", Timestamp::now().strftime(STAMP)))
    }

    /// A profile that is gone is nobody's choice.
    fn forget_current(&self, name: &str) -> Result<(), StoreError> {
        if self.current()?.as_deref() != Some(name) {
            return Ok(());
        }
        let path = self.home.join(CURRENT_FILE);
        fs::remove_file(&path).map_err(io_error("remove", &path))
    }

    /// Puts a copy of a profile's `auth.json` where there is no file yet, for its owner's eyes only.
    ///
    /// # Errors
    /// When there is no such profile or it has no login, the place is taken, or the disk refuses.
    pub fn export(&self, name: &str, to: &Path) -> Result<(), StoreError> {
        self.read(name)?;
        let (text, _) = self.read_auth(name)?;
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(io_error("create", to))
    }
}

fn time_of(stamp: &str) -> Option<Timestamp> {
    let (whole, thousandths) = stamp.split_at_checked(15)?;
    let thousandths = Some(thousandths).filter(|text| text.len() == 3)?.parse::<u16>().ok()?;
    let at = DateTime::strptime("%Y%m%dT%H%M%S", whole).ok()?;
    let at = at.with().millisecond(i16::try_from(thousandths).ok()?).build().ok()?;
    Some(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

/// Whether a profile's directory holds nothing of anybody else's.
fn holds_only_ours(directory: &Path) -> Result<bool, StoreError> {
    let entries = fs::read_dir(directory).map_err(io_error("read", directory))?;
    let is_ours = |name: &str| [PROFILE_FILE, AUTH_FILE, LOCK_FILE].iter().any(|ours| name.starts_with(ours));
    Ok(entries.flatten().all(|entry| is_ours(&entry.file_name().to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = r#"{"OPENAI_API_KEY":"key"}"#;

    fn login(account: &str) -> String {
        serde_json::json!({"tokens": {"access_token": "t", "account_id": account}}).to_string()
    }

    #[test]
    fn a_removed_profile_stays_in_the_trash_for_30_days_however_old_it_was() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        let trash = home.path().join("trash");
        let old = std::time::SystemTime::now() - 2 * AGE;
        let make_old = |path: &Path| fs::File::open(path).unwrap().set_modified(old).unwrap();
        for kept in ["by-hand", "kept-29991231T000000000", "kept-20200101"] {
            make_directory(&trash.join(kept)).unwrap();
            make_old(&trash.join(kept));
        }
        make_directory(&trash.join("past-20200101T000000000")).unwrap();
        store.add("work", KEY, None).unwrap();
        make_old(&home.path().join("profiles/work"));
        let moved = store.remove("work").unwrap();
        assert_eq!(fs::read_to_string(moved.join(AUTH_FILE)).unwrap(), KEY);
        assert!(!trash.join("past-20200101T000000000").exists());
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 4, "what has no stamp is not ours to delete");
    }

    #[test]
    fn a_profile_comes_back_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        let added = store.add("work", &login("a"), None).unwrap();
        assert!(matches!(store.restore("work"), Err(StoreError::NotInTrash(_))));
        store.remove("work").unwrap();
        let trashed = store.trash().unwrap();
        assert_eq!((trashed.len(), &*trashed[0].name, trashed[0].is_login), (1, "work", false));
        store.restore("work").unwrap();
        assert_eq!(store.read("work").unwrap().about, added.about);
        assert!(store.trash().unwrap().is_empty());
    }

    #[test]
    fn nothing_comes_back_over_what_is_there() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        store.add("work", &login("a"), None).unwrap();
        store.remove("work").unwrap();
        store.add("work", &login("b"), None).unwrap();
        assert!(matches!(store.restore("work"), Err(StoreError::Exists(_))));
        store.add("other", &login("a"), None).unwrap();
        let error = store.restore("work").unwrap_err();
        assert!(matches!(&error, StoreError::SameAccount { profile } if profile == "other"), "{error}");
        assert_eq!(store.trash().unwrap().len(), 1, "it is still there");
    }

    #[test]
    fn a_profile_that_is_logged_out_takes_only_its_own_account_back() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        store.add("work", &login("a"), None).unwrap();
        store.log_out("work").unwrap();
        assert!(matches!(store.read("work"), Err(StoreError::LoggedOut(_))));
        assert!(matches!(store.log_out("work"), Err(StoreError::LoggedOut(_))));
        assert_eq!(store.names().unwrap(), ["work"], "it is still known");
        assert!(matches!(store.log_in("work", &login("b")), Err(StoreError::OtherAccount { .. })));
        assert!(store.restore("work").unwrap().is_login);
        assert_eq!(store.read("work").unwrap().about.logged_out, None);
        store.log_out("work").unwrap();
        assert_eq!(store.log_in("work", &login("a")).unwrap(), super::super::LoggedIn::Renewed);
    }

    #[test]
    fn a_directory_of_another_tool_keeps_its_login() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("profiles/shared");
        fs::create_dir_all(directory.join("sessions")).unwrap();
        fs::write(directory.join(AUTH_FILE), KEY).unwrap();
        let store = Store::new(home.path());
        store.add("shared", KEY, Some(&directory.join(AUTH_FILE))).unwrap();
        assert!(matches!(store.log_out("shared"), Err(StoreError::Shared { .. })));
        store.remove("shared").unwrap();
        assert!(directory.join(AUTH_FILE).exists());
        store.restore("shared").unwrap();
        assert_eq!(store.names().unwrap(), ["shared"]);
    }

    #[test]
    fn an_export_replaces_nothing_and_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        store.add("work", KEY, None).unwrap();
        let file = home.path().join("copy.json");
        store.export("work", &file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), KEY);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        for taken in [file.as_path(), Path::new("/dev/stdout"), Path::new("/dev/null")] {
            assert!(matches!(store.export("work", taken), Err(StoreError::Io { .. })), "{}", taken.display());
        }
    }
}
