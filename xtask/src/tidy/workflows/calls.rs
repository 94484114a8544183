//! What steps call: tasks and stages that exist, with flags that they take, and tests only by these.

use super::super::Finding;
use super::super::commands::{TESTS, refusal};
use super::super::project::Project;
use super::file::Workflow;
use super::script::{self, Asked, Script};
use super::shell::Command;

/// Gives every call of a workflow to what it calls.
pub(super) fn check(project: &Project, script: &Script, workflow: &Workflow<'_>) -> Vec<Finding> {
    let calls = workflow.commands().into_iter();
    calls.filter_map(|(line, command)| call(project, script, workflow, line, &command)).collect()
}

fn call(
    project: &Project,
    script: &Script,
    workflow: &Workflow<'_>,
    line: usize,
    command: &Command,
) -> Option<Finding> {
    if command
        .cargo()
        .and_then(<[_]>::first)
        .is_some_and(|first| ["test", "nextest", "t"].contains(&first.as_str()))
    {
        let problem = "a step runs tests past the command of the README".to_owned();
        return Some(workflow.finding(line, problem, format!("`{}`, which runs `{TESTS}`", script::PATH)));
    }
    let refused = |words: &[String]| {
        let reason = refusal(project, words.iter().map(String::as_str))?;
        let problem = format!("`cargo xtask {}` is refused: {reason}", words.join(" "));
        Some(workflow.finding(line, problem, "a command as `cargo xtask --help` shows it"))
    };
    match script::asked(command) {
        Some(Asked::Stage { name, more }) => match script.stage(name) {
            // What is wrong without more words is the script's own finding.
            Some(_) if more.is_empty() => None,
            Some(stage) => refused(&[stage.command.xtask()?, more].concat()),
            None => {
                let names: Vec<_> = script.stages.iter().map(|stage| stage.name.as_str()).collect();
                let problem = format!("`{}` has no stage `{name}`", script::PATH);
                Some(workflow.finding(line, problem, format!("one of {}", names.join(", "))))
            }
        },
        Some(Asked::Wrong) => {
            let problem = format!("`{}` takes `--stage` and a name, or nothing", script::PATH);
            Some(workflow.finding(line, problem, format!("`{} --stage NAME`", script::PATH)))
        }
        Some(Asked::All) => None,
        None => refused(command.xtask()?),
    }
}
