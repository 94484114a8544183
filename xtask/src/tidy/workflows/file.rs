//! One workflow file as its checks see it: entries with their lines, jobs, steps, and the commands they run.

use saphyr::{LoadableYamlNode, MarkedYaml};

use super::shell::{self, Command};
use super::{Finding, finding};

/// A value with the line of its key, from 1.
pub(super) type Entry<'a> = (usize, &'a MarkedYaml<'a>);

/// One workflow file.
pub(super) struct Workflow<'a> {
    pub(super) path: &'a str,
    pub(super) text: &'a str,
    documents: Vec<MarkedYaml<'a>>,
}

/// One job of a workflow.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) id: &'a str,
    pub(super) line: usize,
    node: &'a MarkedYaml<'a>,
}

/// Whether a path is where GitHub looks for workflows.
pub(super) fn is_workflow(path: &str) -> bool {
    path.starts_with(".github/workflows/") && (path.ends_with(".yml") || path.ends_with(".yaml"))
}

impl<'a> Workflow<'a> {
    pub(super) fn parse(path: &'a str, text: &'a str) -> Result<Self, Finding> {
        match MarkedYaml::load_from_str(text) {
            Ok(documents) => Ok(Self { path, text, documents }),
            Err(error) => {
                let problem = format!("not YAML: {}", error.info());
                Err(finding(path, Some(error.marker().line()), problem, "a workflow in YAML"))
            }
        }
    }

    pub(super) fn finding(&self, line: usize, problem: String, right: impl Into<String>) -> Finding {
        finding(self.path, Some(line), problem, right)
    }

    /// An entry at the top of the file.
    pub(super) fn top(&self, key: &str) -> Option<Entry<'_>> {
        self.documents.iter().find_map(|document| entry(document, key))
    }

    /// The events that start the workflow, each with its line.
    pub(super) fn events(&self) -> Vec<(usize, &str)> {
        let Some((line, on)) = self.top("on") else { return Vec::new() };
        let listed = on.data.as_sequence().into_iter().flatten();
        let listed = listed.filter_map(|event| Some((event.span.start.line(), event.data.as_str()?)));
        let keyed = entries(on).into_iter().map(|(name, line, _)| (line, name));
        on.data.as_str().map(|event| (line, event)).into_iter().chain(listed).chain(keyed).collect()
    }

    /// Whether it runs for every push and every pull request.
    pub(super) fn is_for_changes(&self) -> bool {
        ["push", "pull_request"].iter().all(|event| self.events().iter().any(|(_, found)| found == event))
    }

    pub(super) fn jobs(&self) -> Vec<Job<'_>> {
        let jobs = self.top("jobs").map(|(_, jobs)| entries(jobs)).unwrap_or_default();
        jobs.into_iter().map(|(id, line, node)| Job { id, line, node }).collect()
    }

    /// The values of every entry with this key, anywhere in the file.
    pub(super) fn values(&self, key: &str) -> Vec<Entry<'_>> {
        let mut found: Vec<_> = self.documents.iter().flat_map(|document| values(document, key)).collect();
        found.sort_by_key(|(line, _)| *line);
        found
    }

    /// Every text that is a value, with its line.
    pub(super) fn texts(&self) -> Vec<(usize, &str)> {
        self.documents.iter().flat_map(|document| texts(document, 1)).collect()
    }

    /// Whether a job with a matrix runs the shard that each label names.
    pub(super) fn runs_shards(&self) -> bool {
        self.jobs().into_iter().filter(|job| job.entry("strategy").is_some()).any(|job| {
            let mut commands = job.steps().flat_map(step_commands);
            commands.any(|command| {
                command.xtask().and_then(<[_]>::first).is_some_and(|task| task == "test-shard")
            })
        })
    }

    /// Every command of every step, with the line of its `run`.
    pub(super) fn commands(&self) -> Vec<(usize, Command)> {
        let runs = self.values("run").into_iter();
        let runs = runs.filter_map(|(line, run)| Some((line, run.data.as_str()?)));
        runs.flat_map(|(line, run)| shell::commands(run).into_iter().map(move |it| (line, it))).collect()
    }
}

impl<'a> Job<'a> {
    pub(super) fn entry(&self, key: &str) -> Option<Entry<'a>> {
        entry(self.node, key)
    }

    /// The text of an entry.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.entry(key)?.1.data.as_str()
    }

    /// The jobs it waits for.
    pub(super) fn needs(&self) -> Vec<&'a str> {
        let Some((_, needs)) = self.entry("needs") else { return Vec::new() };
        let listed = needs.data.as_sequence().into_iter().flatten().filter_map(|need| need.data.as_str());
        needs.data.as_str().into_iter().chain(listed).collect()
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = &'a MarkedYaml<'a>> {
        self.entry("steps").and_then(|(_, steps)| steps.data.as_sequence()).into_iter().flatten()
    }

    /// The step whose output `name` of this job's outputs is taken from, under the same name.
    pub(super) fn step_of_output(&self, name: &str) -> Option<&'a MarkedYaml<'a>> {
        let (_, value) = entry(self.entry("outputs")?.1, name)?;
        let id = expression(value.data.as_str()?)?.strip_prefix("steps.")?;
        let id = id.strip_suffix(&format!(".outputs.{name}"))?;
        self.steps().find(|step| entry(step, "id").and_then(|(_, found)| found.data.as_str()) == Some(id))
    }

    /// Every text that is a value in it.
    pub(super) fn texts(&self) -> Vec<(usize, &'a str)> {
        texts(self.node, self.line)
    }
}

/// The commands of one step.
pub(super) fn step_commands(step: &MarkedYaml<'_>) -> Vec<Command> {
    let run = entry(step, "run").and_then(|(_, run)| run.data.as_str());
    run.map(shell::commands).unwrap_or_default()
}

/// What stands between `${{` and `}}`, when the text is one expression and nothing else.
pub(super) fn expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("${{")?.strip_suffix("}}")?;
    (!inner.contains("${{")).then_some(inner.trim())
}

/// The entries of a mapping: key, line of the key, value.
pub(super) fn entries<'a>(node: &'a MarkedYaml<'a>) -> Vec<(&'a str, usize, &'a MarkedYaml<'a>)> {
    let entries = node.data.as_mapping().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.data.as_str()?, key.span.start.line(), value))).collect()
}

/// The entry of a mapping with this key.
pub(super) fn entry<'a>(node: &'a MarkedYaml<'a>, key: &str) -> Option<Entry<'a>> {
    entries(node).into_iter().find(|(name, ..)| *name == key).map(|(_, line, value)| (line, value))
}

fn values<'a>(node: &'a MarkedYaml<'a>, key: &str) -> Vec<Entry<'a>> {
    let mut found = Vec::new();
    for item in node.data.as_sequence().into_iter().flatten() {
        found.extend(values(item, key));
    }
    for (name, line, value) in entries(node) {
        if name == key {
            found.push((line, value));
        }
        found.extend(values(value, key));
    }
    found
}

fn texts<'a>(node: &'a MarkedYaml<'a>, line: usize) -> Vec<(usize, &'a str)> {
    let own = node.data.as_str().map(|text| (line, text));
    let items = node.data.as_sequence().into_iter().flatten();
    let items = items.flat_map(|item| texts(item, item.span.start.line()));
    let entries = entries(node).into_iter().flat_map(|(_, line, value)| texts(value, line));
    own.into_iter().chain(items).chain(entries).collect()
}
