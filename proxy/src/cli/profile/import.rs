//! `prodex profile import`: what logins there are on this machine, what would become of each, and the doing.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::terminal::{ask, is_interactive, print, short, shown, tell, wrapped};
use super::super::{Exit, Failure, Home};
use super::{codex_home, tell_running};
use crate::config::{Config, process_environment};
use crate::control::describe;
use crate::profile::credentials::Credentials;
use crate::profile::import::{Outcome, Step, find, find_bindings, import, keeps_logins_elsewhere, look};
use crate::profile::store::{Store, StoreError};
use crate::state::{self, Binding};

/// Take over logins that are on this machine
///
/// Looks in the given places: an auth.json, a directory with one, or the home of an older prodex. Without
/// any it looks where Codex has its login, and in prodex's own home. It shows what it would do and asks; a
/// script, or --yes, is not asked. A newer login of an account that is a profile already takes the place of
/// its old one.
///
/// Example: prodex profile import ~/.codex --dry-run
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// Where to look
    places: Vec<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON, and do not ask
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: Home,
}

impl Import {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let config = self.home.config(&Vec::new())?;
        let store = Store::new(&config.home);
        let places = if self.places.is_empty() { usual_places(&config) } else { self.places.clone() };
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for place in &places {
            let looked = if self.places.is_empty() { look(place) } else { find(place) };
            // Both read what an older tool left; what is wrong with that is told once.
            match looked.and_then(|logins| find_bindings(place, &[]).map(|_| logins)) {
                Ok(logins) => found.extend(logins),
                Err(error) => failed.push(Step::failed(place.clone(), error)),
            }
        }
        let plan = |is_dry_run| -> Result<(Vec<Step>, Vec<Binding>), Failure> {
            let steps = import(&store, &found, is_dry_run)?;
            let mut bindings = Vec::new();
            for place in places.iter().filter(|place| failed.iter().all(|step| step.found.path != **place)) {
                bindings.extend(find_bindings(place, &steps)?);
            }
            Ok((steps, bindings))
        };
        let (mut steps, mut bindings) = plan(true)?;
        let is_work = steps.iter().any(Step::is_change) || !bindings.is_empty();
        let asks = !self.yes && !self.dry_run && !self.json && is_work && is_interactive();
        if asks {
            print(text(&steps, &failed, bindings.len(), Tense::Plan))?;
            if !ask("Take these over?") {
                tell("nothing was taken over; `prodex profile import PLACE` takes over one place alone");
                return Ok(Exit::Failure);
            }
        }
        let mut binding_count = bindings.len();
        if !self.dry_run && is_work {
            (steps, bindings) = plan(false)?;
            binding_count = take_bindings(&config, bindings)?;
            choose(&store, &steps)?;
            tell_running(&self.home)?;
        }
        let has_failed =
            !failed.is_empty() || steps.iter().any(|step| matches!(step.outcome, Outcome::Failed(_)));
        let is_nothing = steps.is_empty();
        if self.json {
            print(report(&steps, &failed, self.dry_run, binding_count))?;
        } else {
            let tense = if self.dry_run { Tense::Plan } else { Tense::Done };
            print(text(&steps, &failed, binding_count, tense))?;
            if is_nothing && failed.is_empty() {
                print(nothing_found())?;
            }
        }
        Ok(if is_nothing || has_failed { Exit::Failure } else { Exit::Ok })
    }
}

/// Where logins usually are: Codex's home, the place where that is by default, our own home, and the place
/// where that is by default, which an older tool of the same name uses, too.
fn usual_places(config: &Config) -> Vec<PathBuf> {
    let home = process_environment("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let below_home = |name: &str| home.as_ref().map(|home| home.join(name));
    let places = [codex_home(), below_home(".codex"), Some(config.home.clone()), below_home(".prodex")];
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut usual = Vec::new();
    for place in places.into_iter().flatten() {
        let real = place.canonicalize().unwrap_or_else(|_| place.clone());
        if !seen.contains(&real) {
            seen.push(real);
            usual.push(place);
        }
    }
    usual
}

/// What makes the first profile of a home: taking over a login that is on this machine, or a new one.
pub(in super::super) fn first_profile(config: &Config) -> &'static str {
    if logins(config).is_empty() {
        "`prodex login` logs in an account"
    } else {
        "`prodex profile import` takes over the login that is here"
    }
}

/// The logins where they usually are. A place that cannot be read has none; importing says why.
pub(in super::super) fn logins(config: &Config) -> Vec<PathBuf> {
    let found = usual_places(config).into_iter().filter_map(|place| look(&place).ok()).flatten();
    found.map(|found| found.path).filter(|path| path.is_file()).collect()
}

/// Takes over which account owns which conversation. Says how many ids are new.
fn take_bindings(config: &Config, bindings: Vec<Binding>) -> Result<usize, Failure> {
    if bindings.is_empty() {
        return Ok(0);
    }
    let imported = state::import(&config.state_directory(), config.state_sync, bindings);
    imported.map_err(|error| Failure::of(Exit::Environment, &error))
}

/// Without a choice of the person's, the login that was in use is the one to start with.
fn choose(store: &Store, steps: &[Step]) -> Result<(), Failure> {
    let mut added = steps.iter().filter(|step| matches!(step.outcome, Outcome::Added));
    let first = added.clone().next();
    let chosen = added.find(|step| step.found.is_current).or(first);
    if let Some(step) = chosen
        && store.current()?.is_none()
    {
        store.set_current(&step.found.name)?;
    }
    Ok(())
}

/// What to do where there is no login to take over.
fn nothing_found() -> String {
    let in_keyring = codex_home().is_some_and(|home| keeps_logins_elsewhere(&home));
    let why = if in_keyring {
        "Codex keeps its login in the keyring of the system, which is not read."
    } else {
        "Nothing was found: Codex has no login here."
    };
    format!("{why}\nNext: `prodex login` logs in an account, for prodex alone.")
}

/// Whether a thing is told before it is done or afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tense {
    Plan,
    Done,
}

/// Every login with what becomes of it: two lines each, so that no path is cut.
fn text(steps: &[Step], failed: &[Step], bindings: usize, tense: Tense) -> String {
    let mut text = String::new();
    for step in steps.iter().chain(failed) {
        let (what, profile, note) = said(step, tense);
        // A place that cannot be looked into has no name.
        let place = short(&step.found.path);
        if step.found.name.is_empty() {
            text += &format!("{what:<15} {place}\n");
        } else {
            text += &format!("{what:<15} {}\n                from {place}\n", described(step, profile));
        }
        if let Some(note) = note {
            text += &format!("{}\n", wrapped(&note, 16));
        }
    }
    if bindings > 0 {
        let verb = if tense == Tense::Plan { "would also learn" } else { "also learnt" };
        text += &format!("{verb} which profile owns which conversation: {bindings} ids\n");
    }
    if tense == Tense::Done && steps.iter().any(Step::is_change) {
        text += "Next: `prodex run` starts Codex behind the proxy.\n";
    }
    text
}

/// What becomes of a login, the profile it belongs to, and what else there is to say.
fn said(step: &Step, tense: Tense) -> (&'static str, Option<&str>, Option<String>) {
    let planned = tense == Tense::Plan;
    let (what, note) = match &step.outcome {
        Outcome::Added => (if planned { "would add" } else { "added" }, None),
        Outcome::Renewed { .. } => (if planned { "would renew" } else { "renewed" }, None),
        Outcome::Known { .. } => ("there already", None),
        Outcome::Gone => ("no login there", Some("`prodex login` logs an account in again".to_owned())),
        // Where it was found stands above.
        Outcome::Failed(StoreError::Credentials { source, .. }) => {
            ("cannot be used", Some(source.to_string()))
        }
        Outcome::Failed(StoreError::NoLogin { problem, .. }) => {
            let advice = "log in with `prodex login`, or say where the login is";
            ("cannot be used", Some(format!("{problem}; {advice}")))
        }
        Outcome::Failed(error) => ("cannot be used", Some(describe(error))),
    };
    (what, step.profile(), note)
}

/// The profile and the account of a login, in a few words.
fn described(step: &Step, profile: Option<&str>) -> String {
    let name = profile.unwrap_or(&step.found.name);
    match &step.credentials {
        Some(credentials) => format!("{name:<16}  {}", masked_account(credentials)),
        None => name.to_owned(),
    }
}

/// An account so that its person knows it and nobody else reads who that is.
fn masked_account(credentials: &Credentials) -> String {
    let kind = credentials.kind().name();
    let Some(login) = credentials.login() else { return kind.to_owned() };
    let who = match &login.email {
        Some(email) => masked(&shown(email)),
        None => format!("account {}…", login.account_id.chars().take(6).collect::<String>()),
    };
    let plan = login.plan.as_deref().map(|plan| format!(", {}", shown(plan))).unwrap_or_default();
    format!("{kind} {who}{plan}")
}

/// An address of which the first letters and the domain are left.
fn masked(email: &str) -> String {
    let Some((name, domain)) = email.rsplit_once('@') else { return "***".to_owned() };
    let kept = if name.chars().count() > 3 { 2 } else { 1 };
    format!("{}***@{domain}", name.chars().take(kept).collect::<String>())
}

fn report(steps: &[Step], failed: &[Step], is_dry_run: bool, bindings: usize) -> Value {
    let rows: Vec<Value> = steps.iter().chain(failed).map(row).collect();
    json!({"version": 1, "dry_run": is_dry_run, "found": rows, "bindings": bindings})
}

fn row(step: &Step) -> Value {
    let login = step.credentials.as_ref().and_then(Credentials::login);
    let result = match &step.outcome {
        Outcome::Added => json!("added"),
        Outcome::Renewed { profile } => json!({"renewed": profile}),
        Outcome::Known { profile } => json!({"known": profile}),
        Outcome::Gone => json!("gone"),
        Outcome::Failed(error) => json!({"failed": describe(error)}),
    };
    json!({
        "name": step.found.name,
        "path": path_text(&step.found.path),
        "kind": step.credentials.as_ref().map(|credentials| credentials.kind().name()),
        "account": step.credentials.as_ref().map(masked_account),
        "account_id": login.map(|login| &login.account_id),
        "plan": login.and_then(|login| login.plan.as_ref()),
        "result": result,
    })
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_to_its_person_only() {
        for (email, expected) in
            [("jane.doe@firm.example", "ja***@firm.example"), ("joe@x.y", "j***@x.y"), ("odd", "***")]
        {
            assert_eq!(masked(email), expected);
        }
    }
}
