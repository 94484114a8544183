//! Matrices: their labels are the manifest's shards, all of them and no other.
//!
//! The labels are written out, so that there is something to compare: a matrix that is computed from the
//! manifest equals it whatever CI runs. What may be computed is which of them are left out, and then the way
//! of that value is followed back to `ci-matrix`.

use std::collections::BTreeSet;

use manifest::impact::shard;
use saphyr::MarkedYaml;

use super::super::Finding;
use super::super::project::Project;
use super::super::source::line_at;
use super::file::{Job, Workflow, entries, entry, expression, step_commands};
use super::finding;
use super::shell::Command;

/// The labels of the manifest's shards, or what is wrong with them.
pub(super) fn labels(project: &Project) -> Result<BTreeSet<String>, Finding> {
    let Some(text) = project.text(shard::FILE) else { return Ok(BTreeSet::new()) };
    let labels = shard::labels(text).map_err(|mistake| {
        let line = Some(line_at(text, mistake.offset()));
        finding(shard::FILE, line, mistake.to_string(), mistake.right())
    })?;
    Ok(labels.into_iter().collect())
}

/// Looks at the matrix of every job.
pub(super) fn check(workflow: &Workflow<'_>, shards: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for job in workflow.jobs() {
        let matrix = job.entry("strategy").and_then(|(_, strategy)| entry(strategy, "matrix"));
        let Some((line, matrix)) = matrix else { continue };
        findings.extend(labels_of(workflow, line, matrix, shards));
        for (key, line, value) in entries(matrix).into_iter().filter(|(key, ..)| *key != "label") {
            let text = value.data.as_str().unwrap_or_default();
            if key != "exclude" || !is_rendered(workflow, job, text) {
                let problem = format!("`{key}` of the matrix changes which shards run");
                findings.push(workflow.finding(line, problem, EXCLUDE));
            }
        }
        if !job.texts().iter().any(|(_, text)| expression(text) == Some("matrix.label")) {
            let problem = format!("the job `{}` does the same for every label", job.id);
            let right = "an entry of `env:` that is `${{ matrix.label }}`, and its name in the script";
            findings.push(workflow.finding(line, problem, right));
        }
    }
    findings
}

/// The labels equal the manifest's, both ways.
fn labels_of(
    workflow: &Workflow<'_>,
    line: usize,
    matrix: &MarkedYaml<'_>,
    shards: &BTreeSet<String>,
) -> Vec<Finding> {
    let right = format!(
        "the labels of {}: {}",
        shard::FILE,
        Vec::from_iter(shards.iter().map(String::as_str)).join(", ")
    );
    let labels = entry(matrix, "label").and_then(|(line, labels)| Some((line, labels.data.as_sequence()?)));
    let Some((line, labels)) = labels else {
        let problem = "the matrix has no `label` with the labels written out".to_owned();
        return vec![workflow.finding(line, problem, right)];
    };
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for item in labels {
        let label = item.data.as_str().unwrap_or_default();
        let problem = match (shards.contains(label), seen.insert(label)) {
            (false, _) => format!("the manifest has no shard `{label}`"),
            (true, false) => format!("the shard `{label}` runs twice"),
            (true, true) => continue,
        };
        findings.push(workflow.finding(item.span.start.line(), problem, right.clone()));
    }
    for missing in shards.iter().filter(|shard| !seen.contains(shard.as_str())) {
        let problem = format!("the matrix leaves out the shard `{missing}`");
        findings.push(workflow.finding(line, problem, right.clone()));
    }
    findings
}

/// Whether a value is the output `exclude` of a step, in a needed job, that only runs `cargo xtask ci-matrix`.
fn is_rendered(workflow: &Workflow<'_>, job: Job<'_>, text: &str) -> bool {
    let jobs = workflow.jobs();
    let step = || {
        let source = expression(text)?.strip_prefix("fromJSON(needs.")?.strip_suffix(".outputs.exclude)")?;
        let source = jobs.iter().find(|other| other.id == source && job.needs().contains(&source))?;
        source.step_of_output("exclude")
    };
    let is_rendering = |command: &Command| {
        let words = command.xtask().unwrap_or_default();
        words.first().is_some_and(|task| task == "ci-matrix")
            && words.iter().any(|word| word == "--github-output")
    };
    let commands = step().map(step_commands).unwrap_or_default();
    commands.len() == 1 && commands.iter().all(is_rendering)
}

const EXCLUDE: &str = "`label`, and beside it only `exclude: ${{ fromJSON(needs.JOB.outputs.exclude) }}` of a needed \
                       job, from a step that runs `cargo xtask ci-matrix --github-output` and nothing else";
