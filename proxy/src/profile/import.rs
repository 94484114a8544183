//! Logins that are already on the machine: Codex's own, and those of an older tool of the same name.
//!
//! That tool, the peer, may have its home at the very place of ours.
//!
//! The peer keeps `state.json` with `active_profile` and `profiles`, each with its `codex_home`, in which
//! an `auth.json` lies (read in its public source, 2026).

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::fs;
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

/// What became of a login.
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
    /// It cannot be used.
    Failed(StoreError),
}

/// Finds logins at a place: an `auth.json`, a directory with one, or a home of the peer.
///
/// # Errors
/// When the place cannot be read or has nothing of the kind.
pub fn find(place: &Path) -> Result<Vec<Found>, StoreError> {
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
    if found.is_empty() {
        let problem = "there is no auth.json in it, and no profile with one".to_owned();
        return Err(StoreError::Broken { path: place.to_owned(), problem });
    }
    Ok(found)
}

/// The profiles of a home of the peer.
fn find_peer(home: &Path) -> Result<Vec<Found>, StoreError> {
    let path = home.join("state.json");
    let state: Value = match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| StoreError::Broken {
            path,
            problem: format!("line {}, column {}: it is not JSON", error.line(), error.column()),
        })?,
        Err(_) => Value::Null,
    };
    let mut homes: Vec<(String, PathBuf)> = Vec::new();
    for (name, profile) in state.get("profiles").and_then(Value::as_object).into_iter().flatten() {
        if let Some(codex_home) = profile.get("codex_home").and_then(Value::as_str) {
            homes.push((name.clone(), home.join(codex_home)));
        }
    }
    for entry in fs::read_dir(home.join("profiles")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // What is a profile of our own already is not found again.
        if !homes.iter().any(|(known, _)| *known == name) && !entry.path().join("profile.toml").exists() {
            homes.push((name, entry.path()));
        }
    }
    let active = state.get("active_profile").and_then(Value::as_str);
    let mut found: Vec<Found> = homes
        .into_iter()
        .map(|(name, home)| Found {
            is_current: active == Some(&name),
            name: suggest_name(&name),
            path: home.join("auth.json"),
        })
        .filter(|found| found.path.is_file())
        .collect();
    found.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(found)
}

/// A name for a profile that is as close as possible to what the login is called where it was found.
fn suggest_name(name: &str) -> String {
    let cleaned: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let cleaned: String = cleaned.trim_start_matches(['.', '_', '-']).chars().take(64).collect();
    if cleaned.is_empty() { "codex".to_owned() } else { cleaned }
}

/// Adds each login as a profile, unless its account is there already. A name that is taken gets a number.
///
/// # Errors
/// When the store itself cannot be read.
pub fn import(store: &Store, found: &[Found], is_dry_run: bool) -> Result<Vec<(Found, Outcome)>, StoreError> {
    let mut accounts: Vec<(String, String)> = Vec::new();
    let mut names = store.names()?;
    for name in &names {
        if let Ok(stored) = store.read(name) {
            accounts.push((account_key(&stored.credentials), name.clone()));
        }
    }
    let mut outcomes = Vec::new();
    for login in found {
        let mut login = login.clone();
        let outcome = match store::read_auth(&login.path) {
            Err(error) => Outcome::Failed(error),
            Ok((text, credentials)) => {
                let key = account_key(&credentials);
                if let Some((_, profile)) = accounts.iter().find(|(known, _)| *known == key) {
                    renew(store, profile, &text, &credentials, is_dry_run)
                } else {
                    login.name = free_name(&login.name, &names);
                    let added = if is_dry_run {
                        Ok(())
                    } else {
                        store.add(&login.name, &text, Some(&login.path)).map(drop)
                    };
                    accounts.push((key, login.name.clone()));
                    names.push(login.name.clone());
                    added.map_or_else(Outcome::Failed, |()| Outcome::Added)
                }
            }
        };
        outcomes.push((login, outcome));
    }
    Ok(outcomes)
}

/// Replaces a profile's login by one of the same account that is good for longer: that is how a login
/// which was revoked comes back.
fn renew(store: &Store, profile: &str, text: &str, found: &Credentials, is_dry_run: bool) -> Outcome {
    let profile = profile.to_owned();
    // A renewal that is under way ends first: what it writes may be newer still.
    let lease = if is_dry_run { Ok(None) } else { store.lease(&profile, LEASE).map(Some) };
    let _lease = match lease {
        Ok(lease) => lease,
        Err(error) => return Outcome::Failed(error),
    };
    let expires = |credentials: &Credentials| credentials.login().and_then(|login| login.expires_at);
    let stored = store.read_auth(&profile).ok().and_then(|(_, stored)| expires(&stored));
    if expires(found) <= stored {
        return Outcome::Known { profile };
    }
    let replaced = if is_dry_run { Ok(()) } else { store.replace_auth(&profile, text) };
    replaced.map_or_else(Outcome::Failed, |()| Outcome::Renewed { profile })
}

/// What makes two logins the same: the account and the person for a login, the key for a key.
fn account_key(credentials: &Credentials) -> String {
    match credentials.login() {
        Some(login) => format!("{} {}", login.account_id, login.email.as_deref().unwrap_or_default()),
        None => credentials.bearer().expose().to_owned(),
    }
}

fn free_name(name: &str, taken: &[String]) -> String {
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
        assert_eq!(names, [("external", false), ("main", true), ("second-one", false)]);
        let store = Store::new(home.path());
        let outcomes = import(&store, &found, false).unwrap();
        assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Added)), "{outcomes:?}");
        assert_eq!(store.names().unwrap(), ["external", "main", "second-one"]);
        let again = import(&store, &found, false).unwrap();
        assert!(again.iter().all(|(_, outcome)| matches!(outcome, Outcome::Known { .. })), "{again:?}");
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
        let outcomes = import(&store, &found, true).unwrap();
        let names: Vec<_> = outcomes.iter().map(|(found, _)| found.name.as_str()).collect();
        assert_eq!(names, ["codex", "codex-2", "codex"]);
        assert!(matches!(&outcomes[2].1, Outcome::Known { profile } if profile == "codex"));
        assert!(!home.path().join("prodex").exists());
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
        assert!(matches!(outcomes[0].1, Outcome::Known { .. }), "{outcomes:?}");
        assert_eq!(store.read_auth("x").unwrap().0, login(3));
    }

    #[test]
    fn a_place_without_logins_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        assert!(find(home.path()).unwrap_err().to_string().contains("there is no auth.json in it"));
        fs::write(home.path().join("state.json"), "{").unwrap();
        assert!(find(home.path()).is_err());
    }
}
