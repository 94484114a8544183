//! Matrices: their labels are the manifest's shards, all of them and no other, or what `ci-matrix` renders.
//!
//! A matrix that is rendered cannot drift from the manifest, so for that form the way of the value is checked,
//! from the step that renders it to the job that takes it. Labels that are written out are compared.

use std::collections::BTreeSet;

use manifest::impact::shard;
use saphyr::MarkedYaml;

use super::super::Finding;
use super::super::project::Project;
use super::super::source::line_at;
use super::file::{Job, Workflow, entries, entry, expression, step_commands};
use super::finding;

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
        match matrix.data.as_str() {
            Some(text) => findings.extend(rendered(workflow, job, line, text)),
            None => findings.extend(written(workflow, line, matrix, shards)),
        }
        if !job.texts().iter().any(|(_, text)| expression(text) == Some("matrix.label")) {
            let problem = format!("the job `{}` does the same for every label", job.id);
            let right = "an entry of `env:` that is `${{ matrix.label }}`, and its name in the script";
            findings.push(workflow.finding(line, problem, right));
        }
    }
    findings
}

/// Labels that are written out equal the manifest's, both ways.
fn written(
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
    let Some((line, labels)) = entry(matrix, "label") else {
        let problem = "the matrix has no `label`".to_owned();
        return vec![workflow.finding(line, problem, right)];
    };
    let mut findings = Vec::new();
    for (key, line, _) in entries(matrix).iter().filter(|(key, ..)| *key != "label") {
        let problem = format!("`{key}` beside `label` changes which shards run");
        findings.push(workflow.finding(*line, problem, "`label` alone"));
    }
    let mut seen = BTreeSet::new();
    for item in labels.data.as_sequence().into_iter().flatten() {
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

/// A rendered matrix comes from a step of a needed job that runs `cargo xtask ci-matrix`.
fn rendered(workflow: &Workflow<'_>, job: Job<'_>, line: usize, text: &str) -> Option<Finding> {
    let jobs = workflow.jobs();
    let source = || {
        let inner = expression(text)?.strip_prefix("fromJSON(needs.")?.strip_suffix(".outputs.matrix)")?;
        let source = jobs.iter().find(|other| other.id == inner && job.needs().contains(&inner))?;
        let step = source.step_of_output("matrix")?;
        let commands = step_commands(step);
        let asked: Vec<_> = commands.iter().filter_map(|command| command.xtask()).collect();
        let is_rendering = |words: &[String]| {
            words.first().is_some_and(|task| task == "ci-matrix")
                && words.iter().any(|word| word == "--github-output")
        };
        (asked.len() == 1 && asked.iter().all(|words| is_rendering(words))).then_some(())
    };
    if source().is_some() {
        return None;
    }
    let problem = format!("the matrix of `{}` is not what `cargo xtask ci-matrix` renders", job.id);
    let right = "`${{ fromJSON(needs.JOB.outputs.matrix) }}` of a needed job whose output `matrix` is that of a \
                 step which runs `cargo xtask ci-matrix --github-output`";
    Some(workflow.finding(line, problem, right))
}
