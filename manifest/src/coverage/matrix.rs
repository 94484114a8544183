//! The matrix of CI against the shards of the manifest, in both directions.
//!
//! The workflow is read as YAML and as written: a matrix that a job computes from the manifest would be the
//! manifest compared with itself, and says nothing about what CI runs.

use saphyr::{LoadableYamlNode, MarkedYaml};

use crate::file::{Manifest, Mistake, Text};

/// The command that a shard's job runs.
const COMMAND: &str = "test-shard";

/// A workflow of CI, as far as it runs shards.
#[derive(Debug, Clone)]
pub struct Workflow {
    text: Text,
    /// The entries of the matrices of all jobs that run shards.
    entries: Vec<Entry>,
    /// The lines of such jobs without a matrix that can be read.
    opaque: Vec<usize>,
}

/// One entry of a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The label of the shard.
    pub label: String,
    /// Its filter, if the matrix says it.
    pub filter: Option<String>,
    /// Where it stands, counted from 1.
    pub line: usize,
}

impl Workflow {
    /// Reads a workflow. What is not YAML runs nothing; `cargo xtask tidy` has more to say about it.
    #[must_use]
    pub fn read(name: &str, content: &str) -> Self {
        let mut workflow = Self { text: Text::new(name, content), entries: Vec::new(), opaque: Vec::new() };
        let documents = MarkedYaml::load_from_str(content).unwrap_or_default();
        for document in &documents {
            let jobs = document.data.as_mapping_get("jobs").and_then(|jobs| jobs.data.as_mapping());
            for (_, job) in jobs.into_iter().flatten().filter(|(_, job)| runs_shards(job)) {
                match entries(job) {
                    Some(entries) => workflow.entries.extend(entries),
                    None => workflow.opaque.push(job.span.start.line()),
                }
            }
        }
        workflow
    }

    /// Whether any job runs shards.
    #[must_use]
    pub fn has_shards(&self) -> bool {
        !self.entries.is_empty() || !self.opaque.is_empty()
    }
}

fn runs_shards(job: &MarkedYaml<'_>) -> bool {
    let steps = job.data.as_mapping_get("steps").and_then(|steps| steps.data.as_sequence());
    steps.into_iter().flatten().any(|step| {
        let run = step.data.as_mapping_get("run").and_then(|run| run.data.as_str());
        run.is_some_and(|run| run.split_whitespace().any(|word| word == COMMAND))
    })
}

/// The entries of a job's matrix: `include` with `label` and `filter`, or a list `label`.
fn entries(job: &MarkedYaml<'_>) -> Option<Vec<Entry>> {
    let matrix = job.data.as_mapping_get("strategy")?.data.as_mapping_get("matrix")?;
    if let Some(include) = matrix.data.as_mapping_get("include") {
        let entry = |node: &MarkedYaml<'_>| {
            let label = node.data.as_mapping_get("label")?.data.as_str()?.to_owned();
            let filter = node.data.as_mapping_get("filter").and_then(|filter| filter.data.as_str());
            let line = node.span.start.line();
            Some(Entry { label, filter: filter.map(str::to_owned), line })
        };
        return include.data.as_sequence()?.iter().map(entry).collect();
    }
    let label = |node: &MarkedYaml<'_>| {
        let label = node.data.as_str()?.to_owned();
        Some(Entry { label, filter: None, line: node.span.start.line() })
    };
    matrix.data.as_mapping_get("label")?.data.as_sequence()?.iter().map(label).collect()
}

/// Shards that CI does not run, and entries of CI that are no shard. A CI without shards runs all in one.
pub(super) fn check(manifest: &Manifest, text: &Text, workflows: &[Workflow]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for workflow in workflows {
        for line in &workflow.opaque {
            let problem = format!("a job runs `{COMMAND}` and its matrix cannot be read");
            let right = "`strategy.matrix.include` with `label` and `filter`, as it is run".to_owned();
            mistakes.push(workflow.text.mistake_in(*line, problem, right));
        }
        for entry in &workflow.entries {
            let shard = manifest.shards.iter().find(|shard| shard.name == entry.label);
            let problem = match (shard, &entry.filter) {
                (None, _) => format!("`{}` is no shard of the manifest", entry.label),
                (Some(shard), Some(filter)) if *filter != shard.filter => {
                    format!("shard `{}` has another filter in the manifest: {}", entry.label, shard.filter)
                }
                _ => continue,
            };
            let right = "label and filter as the manifest has them".to_owned();
            mistakes.push(workflow.text.mistake_in(entry.line, problem, right));
        }
    }
    if workflows.iter().any(Workflow::has_shards) {
        let run = |name: &str| {
            let entries = workflows.iter().flat_map(|workflow| &workflow.entries);
            entries.filter(|entry| entry.label == name).count()
        };
        for shard in &manifest.shards {
            let problem = match run(&shard.name) {
                1 => continue,
                0 => format!("no workflow runs shard `{}`", shard.name),
                times => format!("shard `{}` is run by {times} entries of CI", shard.name),
            };
            let right = "one entry in the matrix of CI".to_owned();
            mistakes.push(text.mistake_in(shard.line, problem, right));
        }
    }
    mistakes
}
