//! The profiles of a home as they are on disk, and a pool that is brought to that: at the start, and while it serves.
//!
//! Who was removed is asked by nobody any more and finishes what it serves. One that was removed and added anew
//! is another profile, whatever its name. A profile whose files cannot be read any more goes on with what it has.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::run_event::{RunEvent, Standing};

use super::refresh::{self, Adopted};
use super::store::{About, Store, StoreError, Stored};
use super::{Pool, Profile};
use crate::config::Config;
use crate::control::{Control, describe};

/// The profiles of a home.
#[derive(Debug)]
pub struct Roster {
    /// Those that can be used, by name.
    pub profiles: Vec<Stored>,
    /// Those that cannot, and why.
    pub broken: Vec<(String, StoreError)>,
    /// The one that the person chose for fresh conversations.
    pub chosen: Option<String>,
}

/// What a reload changed: names of profiles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// New ones, and those that were removed and added anew.
    pub added: Vec<String>,
    /// Those that are not there any more.
    pub removed: Vec<String>,
    /// Those whose login is a newer one.
    pub renewed: Vec<String>,
    /// Those that were paused, or whose pause has another end.
    pub paused: Vec<String>,
    /// Those that were resumed.
    pub resumed: Vec<String>,
    /// Those that are preferred now.
    pub preferred: Vec<String>,
    /// Those that are not preferred any more.
    pub unpreferred: Vec<String>,
    /// Those that were left as they were, and why.
    pub failed: Vec<(String, String)>,
}

impl Changes {
    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Roster {
    /// Reads the profiles.
    ///
    /// # Errors
    /// When the directory, or the person's choice, cannot be read.
    pub fn read(store: &Store) -> Result<Self, StoreError> {
        let (mut profiles, mut broken) = (Vec::new(), Vec::new());
        for name in store.names()? {
            match store.read(&name) {
                Ok(stored) => profiles.push(stored),
                // It was removed meanwhile.
                Err(StoreError::Missing(_)) => {}
                Err(error) => broken.push((name, error)),
            }
        }
        Ok(Self { profiles, broken, chosen: store.current()? })
    }

    /// A pool of these profiles, of which `scope` names the only ones that may be used.
    #[must_use]
    pub fn pool(self, config: &Config, scope: Option<Box<[String]>>) -> Pool {
        let pool = Pool::scoped(scope);
        let preferred = self.profiles.iter().find(|stored| stored.about.preferred);
        let preferred = preferred.map(|stored| stored.name.clone());
        for stored in self.profiles {
            let said = said(&stored.about);
            pool.add(profile(stored, config), &said, usize::MAX);
        }
        pool.choose(self.chosen);
        if let Some(preferred) = preferred.and_then(|name| pool.get(&name)) {
            pool.set_current(&preferred);
        }
        pool
    }
}

/// A profile that was not in the pool before.
fn profile(stored: Stored, config: &Config) -> Profile {
    let Stored { name, about, credentials } = stored;
    Profile { added: about.added.into(), ..Profile::new(&name, credentials).limited(config) }
}

/// What its person says of a profile.
fn said(about: &About) -> Standing {
    let mut said = Standing::new("".into());
    about.describe(&mut said);
    said
}

/// Reads the profiles anew and brings the pool to what is there. Says what that changed.
///
/// # Errors
/// When they cannot be read; then nothing has changed.
pub async fn reload(control: &Arc<Control>, pool: &Pool) -> Result<Changes, String> {
    let of_read = Arc::clone(control);
    let read = tokio::task::spawn_blocking(move || Roster::read(&of_read.store)).await;
    let roster = read.map_err(|_| "the disk work was aborted".to_owned())?;
    let roster = roster.map_err(|error| describe(&error))?;
    // What other processes know of those that are new here.
    control.state.reread().await;
    let mut changes = Changes::default();
    for (name, error) in roster.broken.iter().filter(|(_, error)| !matches!(error, StoreError::LoggedOut(_)))
    {
        changes.failed.push((name.clone(), describe(error)));
    }
    for profile in pool.profiles() {
        let is_there =
            |stored: &Stored| *stored.name == *profile.name && *stored.about.added == *profile.added;
        let is_broken = roster
            .broken
            .iter()
            // Who was logged out serves no more; what cannot be read may be half of an edit.
            .any(|(name, error)| **name == *profile.name && !matches!(error, StoreError::LoggedOut(_)));
        if !is_broken && !roster.profiles.iter().any(is_there) {
            pool.remove(control, &profile);
            changes.removed.push(profile.name.to_string());
        }
    }
    let mut start = None;
    for stored in roster.profiles {
        let (name, said) = (stored.name.clone(), said(&stored.about));
        if let Some(profile) = pool.get(&name) {
            adopt(control, &profile, &stored, &mut changes).await;
            if pool.take_said(&profile, &said, &mut changes) {
                start = Some(profile);
            }
        } else {
            let profile = profile(stored, &control.config);
            profile.recall(&control.state);
            let at = pool.of(profile.kind.api()).partition_point(|other| *other.name < *name);
            pool.add(profile, &said, at);
            start = start.or_else(|| pool.get(&name).filter(|_| said.is_preferred));
            changes.added.push(name);
        }
    }
    // What the person has just said is for the next fresh conversation.
    pool.choose(roster.chosen);
    if let Some(start) = start {
        pool.set_current(&start);
    }
    changes.removed.retain(|name| !changes.added.contains(name));
    if !changes.is_empty() {
        control.log.record(&RunEvent::ProfilesReloaded {
            added: changes.added.len(),
            removed: changes.removed.len(),
            renewed: changes.renewed.len(),
            paused: changes.paused.len(),
            resumed: changes.resumed.len(),
            failed: changes.failed.len(),
        });
    }
    Ok(changes)
}

/// Takes a newer login of a profile.
async fn adopt(control: &Arc<Control>, profile: &Arc<Profile>, stored: &Stored, changes: &mut Changes) {
    if *profile.credentials() == stored.credentials {
        return;
    }
    let name = stored.name.clone();
    match refresh::adopt_stored(control, profile).await {
        Ok(Adopted::Newer) => changes.renewed.push(name),
        Ok(Adopted::Nothing) => {}
        Err(error) => changes.failed.push((name, error.to_string())),
    }
}

impl Pool {
    /// Takes a profile off: nobody asks it any more.
    fn remove(&self, control: &Control, profile: &Arc<Profile>) {
        profile.keep(&control.state);
        self.board(profile.kind.api()).remove(&profile.name);
    }

    /// Takes what its person says of a profile. Says whether it is preferred since.
    fn take_said(&self, profile: &Profile, said: &Standing, changes: &mut Changes) -> bool {
        let mut is_new = false;
        self.board(profile.kind.api()).publish(&profile.name, |standing| {
            let name = || standing.name.to_string();
            let pause = |standing: &Standing| standing.is_paused.then_some(standing.paused_until);
            if pause(standing) != pause(said) {
                let list = if said.is_paused { &mut changes.paused } else { &mut changes.resumed };
                list.push(name());
            }
            if standing.is_preferred != said.is_preferred {
                is_new = said.is_preferred;
                let list = if is_new { &mut changes.preferred } else { &mut changes.unpreferred };
                list.push(name());
            }
            standing.is_paused = said.is_paused;
            standing.paused_until = said.paused_until;
            standing.is_preferred = said.is_preferred;
        });
        is_new
    }
}
