//! Which account owns which conversation, as the peer had it: taken over with the accounts.
//!
//! `state.json` has `response_profile_bindings` and `session_profile_bindings`, each from an id to
//! `{"profile_name","bound_at"}` with seconds since the epoch; `runtime-continuations.json`, which a run keeps
//! beside it, has these, `turn_state_bindings` and `session_id_bindings`, in newer versions within `value`.
//! Keys that begin with `__` are the peer's own (read in its public source, 2026).

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::{Step, StoreError};
use crate::state::{Binding, Tie};

/// What the peer calls the tables, and what their ids are.
const TABLES: [(&str, Tie); 4] = [
    ("response_profile_bindings", Tie::Response),
    ("turn_state_bindings", Tie::TurnState),
    ("session_profile_bindings", Tie::Session),
    ("session_id_bindings", Tie::Session),
];

/// The bindings in a home of the peer whose profiles are ours by now, the oldest first. None for any other
/// place.
///
/// # Errors
/// When one of the two files is there and cannot be read.
pub fn find_bindings(home: &Path, steps: &[Step]) -> Result<Vec<Binding>, StoreError> {
    let (state, run) = (read(home, "state.json")?, read(home, "runtime-continuations.json")?);
    let names = our_names(home, &state, steps);
    let mut bindings: HashMap<(Tie, &str), Binding> = HashMap::new();
    for place in [&state, &run, &run["value"]] {
        for (table, tie) in TABLES {
            let entries = place[table].as_object().into_iter().flatten();
            for (id, binding) in entries.filter(|(id, _)| !id.starts_with("__")) {
                let (name, at) = (binding["profile_name"].as_str(), binding["bound_at"].as_i64());
                let Some(profile) = name.and_then(|name| names.get(name)) else { continue };
                let at = at.unwrap_or_default();
                let known = bindings.get(&(tie, &**id));
                if known.is_none_or(|known| known.at < at) {
                    let profile = Arc::clone(profile);
                    bindings.insert((tie, id), Binding { tie, id: id.clone(), profile, at });
                }
            }
        }
    }
    let mut bindings: Vec<_> = bindings.into_values().collect();
    bindings.sort_by(|one, two| (one.at, &one.id).cmp(&(two.at, &two.id)));
    Ok(bindings)
}

/// A file of the peer's; null if it is not there.
fn read(home: &Path, name: &str) -> Result<Value, StoreError> {
    let path = home.join(name);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| StoreError::Broken { path, problem: format!("it is not JSON: {error}") }),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Value::Null)
        }
        Err(error) => Err(StoreError::Broken { path, problem: error.to_string() }),
    }
}

/// What we call the peer's profiles.
fn our_names(home: &Path, state: &Value, steps: &[Step]) -> HashMap<String, Arc<str>> {
    let mut by_path: HashMap<&PathBuf, Arc<str>> = HashMap::new();
    for step in steps {
        if let Some(profile) = step.profile() {
            by_path.insert(&step.found.path, profile.into());
        }
    }
    let profiles = state["profiles"].as_object().into_iter().flatten();
    profiles
        .filter_map(|(name, profile)| {
            let login = home.join(profile["codex_home"].as_str()?).join("auth.json");
            Some((name.clone(), Arc::clone(by_path.get(&login)?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Found, Outcome};
    use super::*;

    #[test]
    fn the_peers_bindings_come_with_its_profiles() {
        let home = tempfile::tempdir().unwrap();
        let bound = |profile: &str, at: i64| json!({"profile_name": profile, "bound_at": at});
        let state = json!({
            "profiles": {
                "main": {"codex_home": "profiles/main"},
                "renamed": {"codex_home": "/elsewhere"},
                "left out": {"codex_home": "profiles/none"},
            },
            "response_profile_bindings": {"r1": bound("main", 5), "r2": bound("left out", 6), "__own": bound("main", 7)},
            "session_profile_bindings": {"s1": bound("renamed", 3), "s2": {"profile_name": 7}},
        });
        let run = json!({"generation": 2, "value": {
            "response_profile_bindings": {"r1": bound("renamed", 9)},
            "turn_state_bindings": {"t1": bound("main", 1)},
            "session_id_bindings": {"s1": bound("main", 2)},
        }});
        fs::write(home.path().join("state.json"), state.to_string()).unwrap();
        fs::write(home.path().join("runtime-continuations.json"), run.to_string()).unwrap();
        let step = |name: &str, path: PathBuf, outcome: Outcome| {
            let found = Found { name: name.to_owned(), path, is_current: false };
            Step { found, credentials: None, outcome }
        };
        let steps = [
            step("main", home.path().join("profiles/main/auth.json"), Outcome::Added),
            step("x", "/elsewhere/auth.json".into(), Outcome::Known { profile: "ours".to_owned() }),
        ];
        let bindings = find_bindings(home.path(), &steps).unwrap();
        let shown: Vec<_> =
            bindings.iter().map(|one| (one.tie.name(), &*one.id, &*one.profile, one.at)).collect();
        assert_eq!(
            shown,
            [("turn_state", "t1", "main", 1), ("session", "s1", "ours", 3), ("response_id", "r1", "ours", 9)]
        );
        assert!(find_bindings(&home.path().join("other"), &steps).unwrap().is_empty());
        fs::write(home.path().join("runtime-continuations.json"), "{").unwrap();
        assert!(find_bindings(home.path(), &steps).unwrap_err().to_string().contains("not JSON"));
    }
}
