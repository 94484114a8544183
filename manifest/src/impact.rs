//! What a change can reach: crates, and the lanes of CI that must run because of it, each with its reason.
//!
//! When in doubt, everything: for a path that no rule knows, and for a change that git cannot name. What a
//! rule means stands in `manifest/impact.toml`; what follows from it is here. Nothing is run from here.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub mod crates;

pub mod git;

pub mod mistake;

pub mod output;

pub mod path;

pub mod rules;

pub mod shard;

use crates::Crates;
use git::{Change, Touched};
use path::RepoPath;
use rules::{Effect, Lane, Rules, When};
use shard::ShardLabel;

/// What a change can reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Impact {
    /// The form of the document.
    pub version: u32,
    /// Whether anything but the lanes that always run is to run.
    pub heavy: bool,
    /// Whether all that changed is known to change no program.
    pub docs_only: bool,
    /// Why everything is reached; empty when it is not.
    pub everything: Vec<Reason>,
    /// The crates reached, and why.
    pub packages: BTreeMap<String, Vec<Reason>>,
    /// The lanes to run, in the order of the file.
    pub lanes: Vec<LaneRun>,
    /// What was made of each path.
    pub paths: Vec<Judged>,
}

/// A lane that is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneRun {
    /// The lane.
    pub id: String,
    /// The labels of its shards that are to run; `None` for a lane that is one job.
    pub shards: Option<Vec<String>>,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// Why something is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Reason {
    /// The path that changed; `None` when it is not known what changed.
    pub path: Option<RepoPath>,
    /// The rule that decided, or the cause of not knowing.
    pub rule: String,
    /// How the one follows from the other.
    pub because: String,
}

/// What was made of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The path.
    pub path: RepoPath,
    /// The rule that decided.
    pub rule: String,
    /// Its reason.
    pub because: String,
    /// What the path reaches.
    pub reach: Reach,
}

/// What a path reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Everything.
    Everything,
    /// These crates, before it is asked what those reach.
    Crates(BTreeSet<String>),
    /// No crate.
    Nothing,
}

/// The id in the place of a rule's, for a path that no rule knows.
pub const UNKNOWN: &str = "unknown";

impl Impact {
    /// What a change can reach, by these rules, in this workspace with these shards.
    pub fn of(change: &Change, rules: &Rules, crates: &Crates, shards: &[ShardLabel]) -> Self {
        let (paths, everything) = match change {
            Change::Unknown(cause) => {
                let reason = Reason { path: None, rule: cause.id().to_owned(), because: cause.to_string() };
                (Vec::new(), vec![reason])
            }
            Change::Paths(touched) => {
                let paths: Vec<_> = touched.iter().map(|touched| judge(touched, rules, crates)).collect();
                let all = paths.iter().filter(|judged| judged.reach == Reach::Everything);
                let reasons = all.map(|judged| judged.reason(judged.because.clone())).collect();
                (paths, reasons)
            }
        };
        let packages = if everything.is_empty() {
            reached(&paths, crates)
        } else {
            crates.names().into_iter().map(|name| (name, everything.clone())).collect()
        };
        let is_everything = !everything.is_empty();
        let runs = rules.lanes().iter().filter_map(|lane| run(lane, &packages, &everything, &paths, shards));
        let lanes: Vec<_> = runs.collect();
        let is_always =
            |id: &str| rules.lanes().iter().any(|lane| lane.id == id && lane.when == When::Always);
        Self {
            version: 1,
            heavy: is_everything || lanes.iter().any(|lane| !is_always(&lane.id)),
            docs_only: !paths.is_empty() && paths.iter().all(|judged| judged.reach == Reach::Nothing),
            everything,
            packages,
            lanes,
            paths,
        }
    }

    /// The labels of all shards that are to run, in the order of the manifest.
    pub fn shards(&self) -> Vec<&str> {
        let sharded = self.lanes.iter().filter_map(|lane| lane.shards.as_ref());
        let mut labels: Vec<_> = sharded.flatten().map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        labels.retain(|label| seen.insert(*label));
        labels
    }
}

impl Judged {
    fn reason(&self, because: String) -> Reason {
        Reason { path: Some(self.path.clone()), rule: self.rule.clone(), because }
    }
}

fn judge(touched: &Touched, rules: &Rules, crates: &Crates) -> Judged {
    let path = &touched.path;
    let judged = |rule: &str, because: String, reach| Judged {
        path: path.clone(),
        rule: rule.to_owned(),
        because,
        reach,
    };
    if let Some(oddity) = touched.oddity {
        return judged(UNKNOWN, format!("{oddity}, so its name says nothing"), Reach::Everything);
    }
    let Some(decision) = rules.decide(path) else {
        return judged(UNKNOWN, "no rule knows this path".to_owned(), Reach::Everything);
    };
    let (because, reach) = match decision.effect {
        Effect::Everything => (decision.because.to_owned(), Reach::Everything),
        Effect::Nothing => (decision.because.to_owned(), Reach::Nothing),
        Effect::Crates(names) => (decision.because.to_owned(), Reach::Crates(names.clone())),
        Effect::Crate => match crates.owner(path) {
            Some(owner) => (decision.because.to_owned(), Reach::Crates(BTreeSet::from([owner.to_owned()]))),
            None => ("it lies in the folder of no crate that cargo knows".to_owned(), Reach::Everything),
        },
    };
    judged(decision.rule, because, reach)
}

/// The crates that the paths reach, with a reason for each path and crate.
fn reached(paths: &[Judged], crates: &Crates) -> BTreeMap<String, Vec<Reason>> {
    let mut packages = BTreeMap::<String, Vec<Reason>>::new();
    for judged in paths {
        let Reach::Crates(changed) = &judged.reach else { continue };
        let direct = changed.iter().map(|name| (name.as_str(), judged.because.clone()));
        let mut found: BTreeMap<_, _> = direct.collect();
        for name in changed {
            for other in crates.reached_by(name) {
                found.entry(other).or_insert_with(|| format!("`{other}` builds on `{name}`"));
            }
        }
        for (name, because) in found {
            packages.entry(name.to_owned()).or_default().push(judged.reason(because));
        }
    }
    packages
}

/// A lane as it is to run; `None` when nothing asks for it.
fn run(
    lane: &Lane,
    packages: &BTreeMap<String, Vec<Reason>>,
    everything: &[Reason],
    paths: &[Judged],
    shards: &[ShardLabel],
) -> Option<LaneRun> {
    let mut reasons: Vec<_> = match &lane.when {
        When::Always => {
            vec![Reason { path: None, rule: "always".to_owned(), because: lane.because.clone() }]
        }
        _ if !everything.is_empty() => everything.to_vec(),
        When::AnyCrate => packages.values().flatten().cloned().collect(),
        When::Crates(names) => {
            names.iter().filter_map(|name| packages.get(name)).flatten().cloned().collect()
        }
    };
    if reasons.is_empty() {
        return None;
    }
    // One line for a path, in the order of the paths, whichever crates it reached.
    let place = |reason: &Reason| paths.iter().position(|judged| Some(&judged.path) == reason.path.as_ref());
    reasons.sort_by_key(place);
    reasons.dedup_by(|one, other| one.path.is_some() && one.path == other.path);
    let shards = lane.is_sharded.then(|| labels(packages, everything, shards));
    if shards.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    Some(LaneRun { id: lane.id.clone(), shards, reasons })
}

/// The shards that hold tests of what is reached; all of them when a reached crate is in none.
fn labels(
    packages: &BTreeMap<String, Vec<Reason>>,
    everything: &[Reason],
    shards: &[ShardLabel],
) -> Vec<String> {
    let holds =
        |shard: &ShardLabel, name: &String| shard.packages.is_empty() || shard.packages.contains(name);
    let is_homeless = |name: &String| !shards.iter().any(|shard| holds(shard, name));
    let is_all = !everything.is_empty() || packages.keys().any(is_homeless);
    let chosen = shards.iter().filter(|shard| is_all || packages.keys().any(|name| holds(shard, name)));
    chosen.map(|shard| shard.label.clone()).collect()
}

#[cfg(test)]
mod tests;
