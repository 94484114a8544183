//! Whether the manifest owns every test, and everything that is wrong with how it does.
//!
//! Nothing is run or read here: the facts come from outside, so that a wrong manifest can be shown to be
//! found without a build.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::case::{Tag, TestId};
use crate::file::{Manifest, Mistake, Text, Unowned};

mod matrix;

pub use matrix::{Entry, Workflow};

/// How often a test in quarantine may pass in a row before it has to leave.
pub const PASSES: usize = 10;

/// What the manifest is compared with.
pub struct Facts<'a> {
    /// Every test there is.
    pub tests: &'a [TestId],
    /// For each case, which tests its filter matches, or why it is no filter.
    pub cases: &'a [Matches],
    /// For each shard, which tests its filter matches, or why it is no filter.
    pub shards: &'a [Matches],
    /// The workflows of CI.
    pub workflows: &'a [Workflow],
    /// How many of its newest runs a test passed in a row.
    pub passes: &'a dyn Fn(&TestId) -> usize,
    /// The day.
    pub today: Date,
}

/// The indices of tests that a filter matches, or what is wrong with it.
pub type Matches = Result<Vec<usize>, String>;

/// Everything that is wrong, at once.
#[must_use]
pub fn check(manifest: &Manifest, text: &Text, facts: &Facts<'_>) -> Vec<Mistake> {
    let mut mistakes = filters(manifest, text, facts);
    mistakes.extend(ownership(manifest, text, facts));
    mistakes.extend(suites(manifest, facts));
    mistakes.extend(quarantines(manifest, text, facts));
    mistakes.extend(shards(manifest, text, facts));
    mistakes.extend(matrix::check(manifest, text, facts.workflows));
    mistakes
}

/// Filters that are none, and filters that match nothing.
fn filters(manifest: &Manifest, text: &Text, facts: &Facts<'_>) -> Vec<Mistake> {
    let cases = manifest.cases.iter().map(|case| ("case", &case.id, case.line)).zip(facts.cases);
    let shards = manifest.shards.iter().map(|shard| ("shard", &shard.name, shard.line)).zip(facts.shards);
    let found = cases.chain(shards).filter_map(|((kind, name, line), matches)| match matches {
        Err(reason) => {
            let problem = format!("the filter of {kind} `{name}` is none: {reason}");
            Some(text.mistake_in(line, problem, "a nextest filter expression".to_owned()))
        }
        Ok(tests) if tests.is_empty() => {
            let problem = format!("the filter of {kind} `{name}` matches nothing");
            Some(text.mistake_in(line, problem, "a filter that matches, or no such entry".to_owned()))
        }
        Ok(_) => None,
    });
    found.collect()
}

/// Every test is in exactly one case.
fn ownership(manifest: &Manifest, text: &Text, facts: &Facts<'_>) -> Vec<Mistake> {
    let owners = owners(facts.cases, facts.tests.len());
    let mut mistakes: Vec<Mistake> = without(facts, &owners)
        .into_iter()
        .map(|test| {
            let right = "a case, by hand or by `cargo xtask manifest-check --fix`".to_owned();
            Mistake::new(format!("`{test}` is in no case"), right)
        })
        .collect();
    let mut shared: BTreeMap<&[usize], Vec<&TestId>> = BTreeMap::new();
    for (test, owners) in facts.tests.iter().zip(&owners).filter(|(_, owners)| owners.len() > 1) {
        shared.entry(owners).or_default().push(test);
    }
    for (owners, tests) in shared {
        let cases: Vec<_> = owners.iter().filter_map(|index| manifest.cases.get(*index)).collect();
        let names: Vec<_> = cases.iter().map(|case| format!("`{}`", case.id)).collect();
        let problem = format!("{} is in the cases {}", several(&tests), names.join(" and "));
        let line = cases.last().map_or(1, |case| case.line);
        mistakes.push(text.mistake_in(line, problem, "one case for every test".to_owned()));
    }
    mistakes
}

/// For each test, the cases that own it.
fn owners(cases: &[Matches], tests: usize) -> Vec<Vec<usize>> {
    let mut owners = vec![Vec::new(); tests];
    for (case, matches) in cases.iter().enumerate() {
        for test in matches.iter().flatten() {
            if let Some(owners) = owners.get_mut(*test) {
                owners.push(case);
            }
        }
    }
    owners
}

fn without<'a>(facts: &Facts<'a>, owners: &[Vec<usize>]) -> Vec<&'a TestId> {
    let tests = facts.tests.iter().zip(owners);
    tests.filter(|(_, owners)| owners.is_empty()).map(|(test, _)| test).collect()
}

/// Cases for the tests that have none: a module as a whole where no other case has a part of it.
#[must_use]
pub fn unowned(facts: &Facts<'_>) -> Vec<Unowned> {
    let owners = owners(facts.cases, facts.tests.len());
    let mut modules: BTreeMap<(&str, &str), Vec<&TestId>> = BTreeMap::new();
    for test in without(facts, &owners) {
        let module = test.test.split_once("::").map_or("", |(module, _)| module);
        modules.entry((&test.binary, module)).or_default().push(test);
    }
    let cases = modules.into_iter().map(|((binary, module), tests)| {
        let prefix = format!("{module}::");
        let is_whole = !module.is_empty()
            && facts.tests.iter().zip(&owners).all(|(test, owners)| {
                owners.is_empty() || test.binary != binary || !test.test.starts_with(&prefix)
            });
        let filter = if is_whole {
            format!("binary_id(={binary}) & test(/^{module}::/)")
        } else {
            let names: Vec<_> = tests.iter().map(|test| format!("test(={})", test.test)).collect();
            format!("binary_id(={binary}) & ({})", names.join(" | "))
        };
        let id = format!("{binary} {module}").trim().replace("::", " ").replace([' ', '/'], "-");
        Unowned { id, filter }
    });
    cases.collect()
}

/// Every suite has a test. An empty quarantine is what everyone wants.
fn suites(manifest: &Manifest, facts: &Facts<'_>) -> Vec<Mistake> {
    let tags = manifest.cases.iter().zip(facts.cases).filter(|(_, matches)| {
        // A filter that is none was named already; its case is not the reason for an empty suite.
        matches.as_ref().map_or(true, |tests| !tests.is_empty())
    });
    let used: BTreeSet<Tag> = tags.flat_map(|(case, _)| case.tags.iter().copied()).collect();
    let unused = Tag::ALL.into_iter().filter(|tag| *tag != Tag::Quarantine && !used.contains(tag));
    let found = unused.map(|tag| {
        let right = "a case with the tag, or no such suite in CI".to_owned();
        Mistake::new(format!("no test is tagged `{}`: its suite is empty", tag.name()), right)
    });
    found.collect()
}

/// Quarantines that are over, one way or the other.
fn quarantines(manifest: &Manifest, text: &Text, facts: &Facts<'_>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (case, matches) in manifest.cases.iter().zip(facts.cases) {
        let Some(quarantine) = &case.quarantine else { continue };
        let id = &case.id;
        if quarantine.expires < facts.today {
            let problem = format!("the quarantine of case `{id}` expired on {}", quarantine.expires);
            let right = format!("{} repairs or removes it ({})", quarantine.owner, quarantine.issue);
            mistakes.push(text.mistake_in(case.line, problem, right));
        }
        let tests = matches.iter().flatten().filter_map(|index| facts.tests.get(*index));
        let well: Vec<_> = tests.filter(|test| (facts.passes)(test) >= PASSES).collect();
        if !well.is_empty() {
            let problem = format!("{} keeps passing in the quarantine of case `{id}`", several(&well));
            mistakes.push(text.mistake_in(case.line, problem, "another lane for it".to_owned()));
        }
    }
    mistakes
}

/// Where there are shards, each parallel-safe test is in exactly one, and no other test in any.
fn shards(manifest: &Manifest, text: &Text, facts: &Facts<'_>) -> Vec<Mistake> {
    if manifest.shards.is_empty() || facts.shards.iter().any(Result::is_err) {
        return Vec::new();
    }
    let holders = owners(facts.shards, facts.tests.len());
    let mut safe = vec![false; facts.tests.len()];
    for (case, matches) in manifest.cases.iter().zip(facts.cases) {
        for test in matches.iter().flatten().filter(|_| case.lane() == Some(Tag::ParallelSafe)) {
            if let Some(safe) = safe.get_mut(*test) {
                *safe = true;
            }
        }
    }
    let tests = || facts.tests.iter().zip(&holders).zip(&safe).filter(|(_, safe)| **safe);
    let none: Vec<_> =
        tests().filter(|((_, shards), _)| shards.is_empty()).map(|((test, _), _)| test).collect();
    let mut mistakes = Vec::new();
    if !none.is_empty() {
        let problem = format!("{} is in no shard", several(&none));
        mistakes.push(Mistake::new(problem, "a shard for every parallel-safe test".to_owned()));
    }
    for ((test, shards), _) in tests().filter(|((_, shards), _)| shards.len() > 1) {
        let shards: Vec<_> = shards.iter().filter_map(|index| manifest.shards.get(*index)).collect();
        let names: Vec<_> = shards.iter().map(|shard| format!("`{}`", shard.name)).collect();
        let problem = format!("`{test}` is in the shards {}", names.join(" and "));
        let line = shards.last().map_or(1, |shard| shard.line);
        mistakes.push(text.mistake_in(line, problem, "one shard for every test".to_owned()));
    }
    for (shard, matches) in manifest.shards.iter().zip(facts.shards) {
        let is_dead = |tests: &Vec<usize>| {
            !tests.is_empty() && !tests.iter().any(|test| safe.get(*test).copied().unwrap_or_default())
        };
        if matches.as_ref().is_ok_and(is_dead) {
            let problem = format!("shard `{}` has no parallel-safe test", shard.name);
            let right = "a shard that runs something".to_owned();
            mistakes.push(text.mistake_in(shard.line, problem, right));
        }
    }
    mistakes
}

/// One test by its name, several by their number and the first of them.
fn several(tests: &[&TestId]) -> String {
    match tests {
        [] => "no test".to_owned(),
        [test] => format!("`{test}`"),
        [test, rest @ ..] => format!("`{test}` (and {} more)", rest.len()),
    }
}

#[cfg(test)]
mod tests;
