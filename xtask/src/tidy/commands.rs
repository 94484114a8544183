//! Documents and the command line: what they tell people to type is what `cargo xtask` understands.
//!
//! The README opens with two commands, and those two only; wherever a document names a task, the line is
//! given to the parser that would get it from a person. CHANGELOG.md tells of the past and is left alone.

use clap::error::ErrorKind;

use super::Finding;
use super::project::Project;

pub(super) const NAME: &str = "commands";

/// The document that opens with the two commands.
pub(super) const README: &str = "README.md";

/// The command that shows what the project is about.
const SHOW: &str = "cargo xtask compat";

/// The command that runs the tests.
pub(super) const TESTS: &str = "cargo xtask test-fast";

/// The documents that tell people what to type.
const DOCUMENTS: &[&str] = &[README, "ARCHITECTURE.md", "CONTRIBUTING.md"];

/// Gives every command of the documents to the parser, and reads the README's opening.
pub(super) fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::from_iter(opening(project));
    for path in DOCUMENTS {
        let commands = project.text(path).into_iter().flat_map(commands);
        findings.extend(commands.filter_map(|command| refused(project, path, command)));
    }
    findings
}

/// A command that a document names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Named<'a> {
    line: usize,
    command: &'a str,
    /// The fenced block it stands in, counted from 0; `None` for a code span in a sentence.
    block: Option<usize>,
}

/// The README's first block of code is the two commands.
fn opening(project: &Project) -> Option<Finding> {
    let text = project.text(README).unwrap_or_default();
    let named: Vec<_> = commands(text).filter(|named| named.block == Some(0)).collect();
    let texts: Vec<_> = named.iter().map(|named| named.command).collect();
    (texts != [SHOW, TESTS]).then(|| Finding {
        path: README.to_owned(),
        line: named.first().map(|named| named.line),
        check: NAME,
        problem: "does not open with the two commands".to_owned(),
        right: format!("the first block of code is `{SHOW}` and `{TESTS}`, a line each"),
    })
}

/// What the parser has against a command of a document.
fn refused(project: &Project, path: &str, named: Named<'_>) -> Option<Finding> {
    // A text may name a command without saying all that it needs; the help is asked of each just so.
    let reason = refusal(project, named.command.split_whitespace().skip(2))
        .filter(|_| refusal(project, named.command.split_whitespace().skip(2).chain(["--help"])).is_some())?;
    Some(Finding {
        path: path.to_owned(),
        line: Some(named.line),
        check: NAME,
        problem: format!("`{}` is refused: {reason}", named.command),
        right: "a command as `cargo xtask --help` shows it".to_owned(),
    })
}

/// What the parser has against `cargo xtask` with these words.
pub(super) fn refusal<'a>(project: &Project, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let words = ["xtask"].into_iter().chain(words);
    let error = project.model().clone().try_get_matches_from(words).err()?;
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return None;
    }
    let reason = error.to_string();
    Some(reason.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned())
}

/// Every `cargo xtask …` of a document: lines of fenced blocks, and code spans elsewhere.
fn commands(text: &str) -> impl Iterator<Item = Named<'_>> {
    let mut found = Vec::new();
    let (mut is_fenced, mut blocks) = (false, 0);
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        if line.trim_start().starts_with("```") {
            blocks += usize::from(is_fenced);
            is_fenced = !is_fenced;
        } else if is_fenced {
            let command = line.split(" #").next().unwrap_or_default().trim();
            let command = command.strip_prefix("$ ").unwrap_or(command);
            found.push(Named { line: line_number, command, block: Some(blocks) });
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(spans.map(|command| Named { line: line_number, command, block: None }));
        }
    }
    found.into_iter().filter(|named| is_task(named.command))
}

/// Whether a piece of code is a task with a name.
fn is_task(command: &str) -> bool {
    command.strip_prefix("cargo xtask ").is_some_and(|rest| !rest.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, Command};

    use super::*;

    const OPENING: &str =
        "# prodex\n\n```sh\ncargo xtask compat      # shows it\ncargo xtask test-fast\n```\n";

    fn found(readme: &str) -> Vec<String> {
        let compat = Command::new("compat").arg(Arg::new("json").long("json").action(ArgAction::SetTrue));
        let model = Command::new("cargo xtask").subcommand(compat).subcommand(Command::new("test-fast"));
        let project = Project::sketch(&[(README, readme)]).with_model(model);
        let findings = check(&project).into_iter();
        findings.map(|found| format!("{}: {}", found.line.unwrap_or(0), found.problem)).collect()
    }

    #[test]
    fn commands_that_the_parser_takes_are_right() {
        let more = "`cargo xtask` alone; `cargo xtask compat --json`, `cargo xtask compat --help`.\n";
        assert_eq!(found(&format!("{OPENING}{more}")), Vec::<String>::new());
    }

    #[test]
    fn a_task_or_a_flag_that_does_not_exist_is_named_with_its_line() {
        let more = "`cargo xtask compt`\n\n```\n$ cargo xtask test-fast --jsn\n```\n";
        let expected = [
            "7: `cargo xtask compt` is refused: unrecognized subcommand 'compt'",
            "10: `cargo xtask test-fast --jsn` is refused: unexpected argument '--jsn' found",
        ];
        assert_eq!(found(&format!("{OPENING}{more}")), expected);
    }

    #[test]
    fn the_readme_opens_with_the_two_commands() {
        let readmes = [
            String::new(),
            OPENING.replace("compat", "test-fast"),
            OPENING.replace("cargo xtask test-fast\n", ""),
            OPENING.replace("test-fast\n", "test-fast\ncargo xtask compat --json\n"),
            format!("```\ncargo build\n```\n{OPENING}"),
        ];
        for readme in &readmes {
            let found = found(readme);
            assert!(found.len() == 1 && found[0].ends_with("the two commands"), "{readme:?}: {found:?}");
        }
    }
}
