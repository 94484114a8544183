//! The script `.ci/run`: its stages, and that workflows for every change run each of them.

use super::super::Finding;
use super::super::commands::{README, TESTS, refusal};
use super::super::project::Project;
use super::file::Workflow;
use super::finding;
use super::shell::{self, Command};

/// The script that CI runs and anyone else can.
pub(super) const PATH: &str = ".ci/run";

/// The script's stages.
pub(super) struct Script {
    pub(super) stages: Vec<Stage>,
}

/// A stage: its name, its command, and the line it stands in.
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) command: Command,
    pub(super) line: usize,
    /// Whether it runs only when it is named.
    pub(super) is_on_request: bool,
}

impl Script {
    /// Reads the lines `stage NAME COMMAND…` and `on_request NAME COMMAND…`.
    pub(super) fn read(project: &Project) -> Self {
        let text = project.text(PATH).unwrap_or_default();
        let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with(char::is_whitespace));
        let stages = lines.filter_map(|(index, line)| {
            let words = shell::commands(line).into_iter().next()?.0;
            let [kind, name, command @ ..] = words.as_slice() else { return None };
            let is_on_request = kind == "on_request";
            (is_on_request || kind == "stage").then(|| Stage {
                name: name.clone(),
                command: Command(command.to_vec()),
                line: index + 1,
                is_on_request,
            })
        });
        Self { stages: stages.collect() }
    }

    pub(super) fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

/// What is asked of the script: a stage by name with more arguments, or `None` for all of it.
pub(super) enum Asked<'a> {
    All,
    Stage {
        name: &'a str,
        more: &'a [String],
    },
    /// Neither.
    Wrong,
}

/// How a command asks the script, if it does.
pub(super) fn asked(command: &Command) -> Option<Asked<'_>> {
    Some(match command.after(&[PATH]).or_else(|| command.after(&["./.ci/run"]))? {
        [] => Asked::All,
        [flag, name, more @ ..] if flag == "--stage" => Asked::Stage { name, more },
        _ => Asked::Wrong,
    })
}

/// The script tests as the README says, its tasks exist and take their flags, and every stage is run by a workflow for every change.
pub(super) fn check(project: &Project, script: &Script, workflows: &[Workflow<'_>]) -> Vec<Finding> {
    let mut findings = Vec::from_iter(tests(script));
    for stage in &script.stages {
        let Some(words) = stage.command.xtask() else { continue };
        let Some(reason) = refusal(project, words.iter().map(String::as_str)) else { continue };
        let problem = format!("`cargo xtask {}` is refused: {reason}", words.join(" "));
        findings.push(finding(PATH, Some(stage.line), problem, "a command as `cargo xtask --help` shows it"));
    }
    let for_changes = workflows.iter().filter(|workflow| workflow.is_for_changes());
    let commands: Vec<_> = for_changes.flat_map(Workflow::commands).collect();
    let is_sharded = workflows.iter().filter(|workflow| workflow.is_for_changes()).any(Workflow::runs_shards);
    let is_run = |stage: &Stage| {
        // The shards together are the tests.
        if is_sharded && stage.command.0.join(" ") == TESTS {
            return true;
        }
        commands.iter().any(|(_, command)| match asked(command) {
            Some(Asked::All) => !stage.is_on_request,
            Some(Asked::Stage { name, .. }) => name == stage.name,
            Some(Asked::Wrong) | None => false,
        })
    };
    for stage in script.stages.iter().filter(|stage| !is_run(stage)) {
        let problem = format!("no workflow for pushes and pull requests runs the stage `{}`", stage.name);
        let right = format!("a step `run: {PATH} --stage {}`, or no such stage", stage.name);
        findings.push(finding(PATH, Some(stage.line), problem, right));
    }
    findings
}

/// A stage runs the tests with the README's command and nothing added to it.
fn tests(script: &Script) -> Option<Finding> {
    let is_run = script.stages.iter().any(|stage| !stage.is_on_request && stage.command.0.join(" ") == TESTS);
    let problem = format!("does not run `{TESTS}`, the tests as {README} names them");
    (!is_run).then(|| finding(PATH, None, problem, format!("a stage with the command `{TESTS}`")))
}
