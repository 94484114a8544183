//! Logins that are already on the machine: Codex's own, and those of an older tool of the same name.
//!
//! That tool, the peer, may have its home at the very place of ours.
//!
//! The peer keeps `state.json` with `active_profile` and `profiles`, each with its `codex_home`, in which
//! an `auth.json` lies (read in its public source, 2026).

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::Credentials;
use super::store::{self, Store, StoreError};

mod bindings;

pub use bindings::find_bindings;

/// How long a renewal that is under way is waited for: longer than one takes.
const LEASE: Duration = Duration::from_secs(30);

/// A login that could become a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name it would get.
    pub name: String,
    /// Its `auth.json`.
    pub path: PathBuf,
    /// Whether it is the one in use where it was found.
    pub is_current: bool,
}

/// A login that was found, and what becomes of it.
#[derive(Debug)]
pub struct Step {
    /// The login. Its name is that of the profile it becomes, if it becomes one.
    pub found: Found,
    /// What it is a login of, if that can be read.
    pub credentials: Option<Credentials>,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What becomes of a login.
#[derive(Debug)]
pub enum Outcome {
    /// It is a profile now.
    Added,
    /// It is newer than that of the profile with the same account, and has taken its place.
    Renewed {
        /// The profile.
        profile: String,
    },
    /// A profile with the same account is there already.
    Known {
        /// The profile.
        profile: String,
    },
    /// The older tool knows of it, and it is not there any more.
    Gone,
    /// It cannot be used.
    Failed(StoreError),
}

impl Step {
    /// A place that cannot be looked into.
    #[must_use]
    pub fn failed(path: PathBuf, error: StoreError) -> Self {
        let found = Found { name: String::new(), path, is_current: false };
        Self { found, credentials: None, outcome: Outcome::Failed(error) }
    }

    /// The profile that has this login now.
    #[must_use]
    pub fn profile(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Added => Some(&self.found.name),
            Outcome::Renewed { profile } | Outcome::Known { profile } => Some(profile),
            Outcome::Gone | Outcome::Failed(_) => None,
        }
    }

    /// Whether anything of ours changes.
    #[must_use]
    pub fn is_change(&self) -> bool {
        matches!(self.outcome, Outcome::Added | Outcome::Renewed { .. })
    }
}

/// Finds logins at a place: an `auth.json`, a directory with one, or a home of the peer.
///
/// # Errors
/// When the place cannot be read or has nothing of the kind.
pub fn find(place: &Path) -> Result<Vec<Found>, StoreError> {
    let found = look(place)?;
    if !found.is_empty() {
        return Ok(found);
    }
    let path = place.to_owned();
    let problem = if !place.exists() {
        "there is nothing of that name"
    } else if keeps_logins_elsewhere(place) {
        "Codex keeps its login in the keyring of the system, which is not read"
    } else {
        "there is no auth.json in it, and no profile with one"
    };
    Err(StoreError::NoLogin { path, problem })
}

/// The same for a place that need not have anything.
///
/// # Errors
/// When what is there cannot be read.
pub fn look(place: &Path) -> Result<Vec<Found>, StoreError> {
    if place.is_file() {
        let name = place.parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
        let name = suggest_name(name.as_deref().unwrap_or_default());
        return Ok(vec![Found { name, path: place.to_owned(), is_current: true }]);
    }
    let mut found = find_peer(place)?;
    let own = place.join("auth.json");
    if own.is_file() {
        let name = suggest_name(&place.file_name().unwrap_or_default().to_string_lossy());
        found.insert(0, Found { name, path: own, is_current: found.is_empty() });
    }
    Ok(found)
}

/// Whether the Codex of this home is told to keep its login in the keyring: `cli_auth_credentials_store`, which
/// is `file` unless it is set (openai/codex#5792, October 2025).
#[must_use]
pub fn keeps_logins_elsewhere(codex_home: &Path) -> bool {
    let text = fs::read_to_string(codex_home.join("config.toml")).unwrap_or_default();
    let config: toml::Table = text.parse().unwrap_or_default();
    let store = config.get("cli_auth_credentials_store").and_then(toml::Value::as_str);
    matches!(store, Some("keyring" | "auto"))
}

/// The profiles of a home of the peer.
fn find_peer(home: &Path) -> Result<Vec<Found>, StoreError> {
    let path = home.join("state.json");
    let state: Value = match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| StoreError::Broken {
            path,
            problem: format!("line {}, column {}: it is not JSON", error.line(), error.column()),
        })?,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Value::Null,
        Err(source) => return Err(StoreError::Io { action: "read", path, source }),
    };
    let mut homes: Vec<(String, PathBuf)> = Vec::new();
    for (name, profile) in state.get("profiles").and_then(Value::as_object).into_iter().flatten() {
        if let Some(codex_home) = profile.get("codex_home").and_then(Value::as_str) {
            homes.push((name.clone(), home.join(codex_home)));
        }
    }
    let in_state = homes.len();
    for entry in fs::read_dir(home.join("profiles")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // What is a profile of our own already is not found again.
        if !homes.iter().any(|(known, _)| *known == name) && !entry.path().join("profile.toml").exists() {
            homes.push((name, entry.path()));
        }
    }
    let active = state.get("active_profile").and_then(Value::as_str);
    let is_there = |at: usize, path: &Path| at < in_state || path.is_file();
    let mut found: Vec<Found> = homes
        .into_iter()
        .enumerate()
        .map(|(at, (name, home))| (at, name, home.join("auth.json")))
        .filter(|(at, _, path)| is_there(*at, path))
        .map(|(_, name, path)| Found { is_current: active == Some(&name), name: suggest_name(&name), path })
        .collect();
    found.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(found)
}

/// A name for a profile that is as close as possible to what the login is called where it was found.
#[must_use]
pub fn suggest_name(name: &str) -> String {
    let cleaned: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let cleaned: String = cleaned.trim_start_matches(['.', '_', '-']).chars().take(60).collect();
    if cleaned.is_empty() { "codex".to_owned() } else { cleaned }
}

/// An account that is a profile, or will be one.
struct Account {
    credentials: Credentials,
    profile: String,
}

/// Adds each login as a profile, unless its account is there already: then the newer login of the two stays.
/// A name that is taken gets a number. A dry run says what would become of each.
///
/// # Errors
/// When the store itself cannot be read.
pub fn import(store: &Store, found: &[Found], is_dry_run: bool) -> Result<Vec<Step>, StoreError> {
    let mut names = store.names()?;
    let read = |name: &String| {
        let credentials = store.read(name).ok()?.credentials;
        Some(Account { credentials, profile: name.clone() })
    };
    let mut accounts: Vec<Account> = names.iter().filter_map(read).collect();
    let mut steps = Vec::new();
    for login in found {
        let mut found = login.clone();
        let (text, credentials) = match store::read_auth(&found.path) {
            Ok(read) => read,
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                steps.push(Step { found, credentials: None, outcome: Outcome::Gone });
                continue;
            }
            Err(error) => {
                steps.push(Step { found, credentials: None, outcome: Outcome::Failed(error) });
                continue;
            }
        };
        let outcome = match accounts.iter_mut().find(|known| known.credentials.is_same(&credentials)) {
            Some(account) => {
                let outcome = renew(store, account, &text, &credentials, is_dry_run);
                if matches!(outcome, Outcome::Renewed { .. }) {
                    account.credentials = credentials.clone();
                }
                outcome
            }
            None => {
                found.name = free_name(&found.name, &names);
                let added = if is_dry_run {
                    Ok(())
                } else {
                    store.add(&found.name, &text, Some(&found.path)).map(drop)
                };
                if added.is_ok() {
                    let (profile, credentials) = (found.name.clone(), credentials.clone());
                    accounts.push(Account { credentials, profile });
                    names.push(found.name.clone());
                }
                added.map_or_else(Outcome::Failed, |()| Outcome::Added)
            }
        };
        steps.push(Step { found, credentials: Some(credentials), outcome });
    }
    Ok(steps)
}

/// Replaces a profile's login by one of the same account that is good for longer: that is how a login
/// which was revoked comes back.
fn renew(store: &Store, known: &Account, text: &str, found: &Credentials, is_dry_run: bool) -> Outcome {
    let profile = known.profile.clone();
    let expires = |credentials: &Credentials| credentials.login().and_then(|login| login.expires_at);
    if is_dry_run {
        let is_newer = expires(found) > expires(&known.credentials);
        return if is_newer { Outcome::Renewed { profile } } else { Outcome::Known { profile } };
    }
    // A renewal that is under way ends first: what it writes may be newer still.
    let _lease = match store.lease(&profile, LEASE) {
        Ok(lease) => lease,
        Err(error) => return Outcome::Failed(error),
    };
    let stored = store.read_auth(&profile).ok().and_then(|(_, stored)| expires(&stored));
    if expires(found) <= stored {
        return Outcome::Known { profile };
    }
    store.replace_auth(&profile, text).map_or_else(Outcome::Failed, |()| Outcome::Renewed { profile })
}

/// The name, or the name with the first number that makes it nobody else's.
pub(crate) fn free_name(name: &str, taken: &[String]) -> String {
    let is_free = |name: &String| !taken.contains(name);
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_login(directory: &Path, account: &str) {
        fs::create_dir_all(directory).unwrap();
        let text = serde_json::json!({"tokens": {"access_token": "t", "account_id": account}}).to_string();
        fs::write(directory.join("auth.json"), text).unwrap();
    }

    #[test]
    fn the_peers_home_is_taken_over_where_it_is() {
        let home = tempfile::tempdir().unwrap();
        write_login(&home.path().join("profiles/main"), "acct-1");
        write_login(&home.path().join("profiles/second one"), "acct-2");
        write_login(&home.path().join("elsewhere"), "acct-3");
        let state = serde_json::json!({"active_profile": "main", "profiles": {
            "main": {"codex_home": home.path().join("profiles/main"), "managed": true},
            "external": {"codex_home": home.path().join("elsewhere"), "managed": false},
            "gone": {"codex_home": "/nowhere", "managed": true}}});
        fs::write(home.path().join("state.json"), state.to_string()).unwrap();
        let found = find(home.path()).unwrap();
        let names: Vec<_> = found.iter().map(|found| (found.name.as_str(), found.is_current)).collect();
        assert_eq!(names, [("external", false), ("gone", false), ("main", true), ("second-one", false)]);
        let store = Store::new(home.path());
        let steps = import(&store, &found, false).unwrap();
        assert!(matches!(steps[1].outcome, Outcome::Gone), "{steps:?}");
        assert_eq!(steps.iter().filter(|step| matches!(step.outcome, Outcome::Added)).count(), 3);
        assert_eq!(store.names().unwrap(), ["external", "main", "second-one"]);
        let again = import(&store, &found, false).unwrap();
        assert!(!again.iter().any(Step::is_change), "{again:?}");
    }

    #[test]
    fn a_dry_run_writes_nothing_and_names_do_not_clash() {
        let home = tempfile::tempdir().unwrap();
        for (name, account) in [("a/.codex", "1"), ("b/.codex", "2"), ("c/.codex", "1")] {
            write_login(&home.path().join(name), account);
        }
        let found: Vec<Found> = ["a/.codex", "b/.codex", "c/.codex"]
            .iter()
            .flat_map(|p| find(&home.path().join(p)).unwrap())
            .collect();
        let store = Store::new(&home.path().join("prodex"));
        let steps = import(&store, &found, true).unwrap();
        let names: Vec<_> = steps.iter().filter_map(Step::profile).collect();
        assert_eq!(names, ["codex", "codex-2", "codex"]);
        assert!(matches!(&steps[2].outcome, Outcome::Known { .. }));
        assert!(!home.path().join("prodex").exists());
    }

    #[test]
    fn of_two_logins_of_one_account_the_newer_becomes_the_profile() {
        let home = tempfile::tempdir().unwrap();
        let write = |place: &str, expires: i64| {
            let token = crate::profile::credentials::tests::token(&serde_json::json!({ "exp": expires }));
            let login = serde_json::json!({"tokens": {"access_token": token, "account_id": "x"}}).to_string();
            fs::create_dir_all(home.path().join(place)).unwrap();
            fs::write(home.path().join(place).join("auth.json"), &login).unwrap();
            login
        };
        write("older", 1);
        let newer = write("newer", 3);
        write("oldest", 0);
        let found: Vec<Found> = ["older", "newer", "oldest"]
            .iter()
            .flat_map(|place| find(&home.path().join(place)).unwrap())
            .collect();
        let store = Store::new(&home.path().join("prodex"));
        for is_dry_run in [true, false] {
            let steps = import(&store, &found, is_dry_run).unwrap();
            let is_renewed = matches!(&steps[1].outcome, Outcome::Renewed { profile } if profile == "older");
            assert!(is_renewed && matches!(steps[2].outcome, Outcome::Known { .. }), "{steps:?}");
        }
        assert_eq!(store.names().unwrap(), ["older"]);
        assert_eq!(store.read_auth("older").unwrap().0, newer);
    }

    #[test]
    fn a_renewal_that_is_under_way_is_not_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let login = |expires: i64| {
            let token = crate::profile::credentials::tests::token(&serde_json::json!({ "exp": expires }));
            serde_json::json!({"tokens": {"access_token": token, "account_id": "x"}}).to_string()
        };
        fs::write(home.path().join("auth.json"), login(2)).unwrap();
        let found = find(home.path()).unwrap();
        let store = Store::new(&home.path().join("prodex"));
        store.add("x", &login(1), None).unwrap();
        let lease = store.lease("x", Duration::ZERO).unwrap();
        let of_import = store.clone();
        let importing = std::thread::spawn(move || import(&of_import, &found, false).unwrap());
        store.replace_auth("x", &login(3)).unwrap();
        drop(lease);
        let outcomes = importing.join().unwrap();
        assert!(matches!(outcomes[0].outcome, Outcome::Known { .. }), "{outcomes:?}");
        assert_eq!(store.read_auth("x").unwrap().0, login(3));
    }

    #[test]
    fn a_place_without_logins_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        assert!(find(home.path()).unwrap_err().to_string().contains("there is no auth.json in it"));
        fs::write(home.path().join("state.json"), "{").unwrap();
        assert!(find(home.path()).unwrap_err().to_string().contains("state.json is broken"));
        fs::remove_file(home.path().join("state.json")).unwrap();
        fs::write(home.path().join("config.toml"), "cli_auth_credentials_store = \"keyring\"").unwrap();
        assert!(find(home.path()).unwrap_err().to_string().contains("keyring"));
        assert!(find(&home.path().join("none")).unwrap_err().to_string().contains("nothing of that name"));
    }
}
