//! CI: what workflows may do, whose code they run, and whether they run the stages, lanes and shards there are.
//!
//! Workflows are read as YAML, so neither quoting nor layout can hide a step from these checks. The work of a
//! job is a stage of `.ci/run`: what CI does, a person can do with the same command.

use std::collections::BTreeSet;

use super::Finding;
use super::project::Project;

mod file;

mod shell;

mod trust;

mod script;

mod calls;

mod lanes;

mod shards;

use file::Workflow;

pub(super) const NAME: &str = "workflows";

/// Reads every workflow, and the script behind them.
pub(super) fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut workflows = Vec::new();
    for (path, text) in project.texts().filter(|(path, _)| file::is_workflow(path)) {
        match Workflow::parse(path, text) {
            Ok(workflow) => workflows.push(workflow),
            Err(finding) => findings.push(finding),
        }
    }
    let script = script::Script::read(project);
    let labels = shards::labels(project).unwrap_or_else(|finding| {
        findings.push(finding);
        BTreeSet::new()
    });
    for workflow in &workflows {
        findings.extend(trust::check(workflow));
        findings.extend(calls::check(project, &script, workflow));
        findings.extend(shards::check(workflow, &labels));
    }
    findings.extend(script::check(project, &script, &workflows));
    findings.extend(lanes::check(project, &workflows));
    // An anchor's step stands once and is run by many jobs.
    let found: BTreeSet<_> = findings.into_iter().collect();
    found.into_iter().collect()
}

fn finding(path: &str, line: Option<usize>, problem: String, right: impl Into<String>) -> Finding {
    Finding { path: path.to_owned(), line, check: NAME, problem, right: right.into() }
}

#[cfg(test)]
mod tests;
