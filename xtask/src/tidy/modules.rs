//! Source files: each opens with one sentence that says what lives there, and each is some crate's module.
//!
//! A file that no `mod` declares is never compiled: its tests vanish and nobody hears of it. The way from a
//! crate's targets to its files is also the order in which ARCHITECTURE.md lists them.

use std::collections::BTreeSet;

use super::Finding;
use super::project::{Member, Project};

pub(super) const NAME: &str = "modules";

/// Reads the first line of every source file, and finds the files that no crate declares.
pub(super) fn check(project: &Project) -> Vec<Finding> {
    let mut reached = BTreeSet::new();
    for member in project.members() {
        reached.extend(in_reading_order(project, member));
    }
    let sources = project.paths().filter(|path| is_source(path));
    sources.flat_map(|path| [opening(project, path), stray(path, &reached)]).flatten().collect()
}

/// The sentence that a source file opens with.
pub(super) fn sentence<'a>(project: &'a Project, path: &str) -> Option<&'a str> {
    let line = project.text(path)?.lines().next()?;
    line.strip_prefix("//! ").map(str::trim).filter(|line| is_sentence(line))
}

/// Every source file that the crate's targets lead to, in the order in which its modules are declared.
pub(super) fn in_reading_order(project: &Project, member: &Member) -> Vec<String> {
    let mut files = Vec::new();
    for target in &member.targets {
        let folder = target.rsplit_once('/').map_or("", |(folder, _)| folder);
        descend(project, target, folder, &mut files);
    }
    files
}

/// Whether this is a source file of ours: any `.rs` file.
pub(super) fn is_source(path: &str) -> bool {
    path.ends_with(".rs")
}

/// Adds the file at `path` and the modules it declares, whose files lie in `folder`.
fn descend(project: &Project, path: &str, folder: &str, files: &mut Vec<String>) {
    let Some(text) = project.text(path) else { return };
    if files.iter().any(|file| file == path) {
        return;
    }
    files.push(path.to_owned());
    for name in text.lines().filter_map(declared) {
        let inside = format!("{folder}/{name}");
        descend(project, &format!("{inside}.rs"), &inside, files);
        descend(project, &format!("{inside}/mod.rs"), &inside, files);
    }
}

/// The module that a line such as `pub(crate) mod name;` declares.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1,
        Some(rest) => rest,
        None => line,
    };
    line.trim_start().strip_prefix("mod ")?.split_once(';').map(|(name, _)| name.trim())
}

/// A sentence: it begins like one, has three words at least, and ends with a full stop.
fn is_sentence(line: &str) -> bool {
    let begins = line.starts_with(|first: char| first == '`' || first.is_uppercase() || first.is_numeric());
    begins && line.ends_with(['.', '!', '?']) && line.split_whitespace().count() >= 3
}

fn opening(project: &Project, path: &str) -> Option<Finding> {
    if sentence(project, path).is_some() {
        return None;
    }
    let problem = match project.text(path).and_then(|text| text.lines().next()) {
        Some(first) if first.starts_with("//!") => "the first line is not one whole sentence",
        _ => "the file does not open with `//!`",
    };
    Some(Finding {
        path: path.to_owned(),
        line: Some(1),
        check: NAME,
        problem: problem.to_owned(),
        right: "`//! ` and a sentence that fits the line and says what lives here".to_owned(),
    })
}

fn stray(path: &str, reached: &BTreeSet<String>) -> Option<Finding> {
    let finding = || Finding {
        path: path.to_owned(),
        line: None,
        check: NAME,
        problem: "no `mod` leads to this file, so it is never compiled".to_owned(),
        right: "a `mod` line in its parent, or the file deleted".to_owned(),
    };
    (!reached.contains(path)).then(finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        let project = Project::sketch(files).with(Member::sketch("wire", "wire"));
        check(&project).into_iter().map(|found| format!("{}: {}", found.path, found.problem)).collect()
    }

    #[test]
    fn files_that_open_with_a_sentence_and_are_declared_are_right() {
        let files = [
            ("wire/src/lib.rs", "//! Names and shapes.\n\npub mod sse;\npub(crate) mod route;\n"),
            ("wire/src/sse.rs", "//! `data:` lines as bytes.\n#[cfg(test)]\nmod tests;\n"),
            ("wire/src/sse/tests.rs", "//! The decoder against the standard.\n"),
            ("wire/src/route.rs", "//! The calls that Codex makes.\n"),
            ("wire/README.md", "no rule here\n"),
        ];
        assert_eq!(problems(&files), Vec::<String>::new());
    }

    #[test]
    fn an_opening_that_is_no_sentence_is_a_finding() {
        let openings = [
            "// A comment is not documentation.",
            "//! half a sentence that goes on in the next line, and",
            "//! Breaks off and",
            "//! Stub.",
            "//!",
            "use std::fmt;",
            "",
        ];
        for opening in openings {
            let found = problems(&[("wire/src/lib.rs", opening)]);
            assert_eq!(found.len(), 1, "{opening:?}: {found:?}");
        }
    }

    #[test]
    fn a_file_that_no_module_declares_is_a_finding() {
        let files = [
            ("wire/src/lib.rs", "//! Names and shapes.\n// mod gone;\n"),
            ("wire/src/gone.rs", "//! What was declared once.\n"),
        ];
        let expected = ["wire/src/gone.rs: no `mod` leads to this file, so it is never compiled"];
        assert_eq!(problems(&files), expected);
    }

    #[test]
    fn files_come_in_the_order_of_their_declarations() {
        let files = [
            ("wire/src/lib.rs", "//! It.\nmod sse;\nmod head;\n"),
            ("wire/src/head.rs", ""),
            ("wire/src/sse.rs", "mod encode;\n"),
            ("wire/src/sse/encode.rs", ""),
            ("wire/tests/it/main.rs", "mod sse;\n"),
            ("wire/tests/it/sse.rs", ""),
        ];
        let mut member = Member::sketch("wire", "wire");
        member.targets.push("wire/tests/it/main.rs".to_owned());
        let expected = [
            "wire/src/lib.rs",
            "wire/src/sse.rs",
            "wire/src/sse/encode.rs",
            "wire/src/head.rs",
            "wire/tests/it/main.rs",
            "wire/tests/it/sse.rs",
        ];
        assert_eq!(in_reading_order(&Project::sketch(&files), &member), expected);
    }
}
