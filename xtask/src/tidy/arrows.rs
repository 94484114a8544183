//! The arrows between our crates: the table of who may import whom, compared with what cargo knows.
//!
//! The table is the drawing in ARCHITECTURE.md as data. An arrow that the table lacks is a finding, and so is
//! one that nobody uses any more; what a crate's tests import has an upper bound only.

use super::project::{Dependency, Member, Project};
use super::source::{Table, line_at};
use super::{Finding, map};

pub(super) const NAME: &str = "arrows";

/// What a crate of ours may import.
struct Row {
    name: &'static str,
    folder: &'static str,
    /// Crates of ours that the crate imports.
    imports: &'static [&'static str],
    /// Crates of ours that only its tests may import as well.
    tests: &'static [&'static str],
}

/// The crates and their arrows. A row may wait for its crate; a crate may not wait for its row.
const ROWS: &[Row] = &[
    Row { name: "wire", folder: "wire", imports: &[], tests: &[] },
    Row { name: "prodex", folder: "proxy", imports: &["wire"], tests: &["harness", "mock-upstream"] },
    Row { name: "mock-upstream", folder: "mock-upstream", imports: &["wire"], tests: &[] },
    Row { name: "harness", folder: "harness", imports: &["wire", "mock-upstream"], tests: &[] },
    Row { name: "manifest", folder: "manifest", imports: &[], tests: &[] },
    Row { name: "xtask", folder: "xtask", imports: &["harness", "manifest"], tests: &[] },
    // It measures parts of each, and nobody imports it.
    Row {
        name: "benches",
        folder: "benches",
        imports: &["harness", "manifest", "prodex", "wire"],
        tests: &[],
    },
];

/// The folders that hold crates, whether they exist yet or not.
pub(super) fn folders() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.folder)
}

/// Compares every crate's dependencies with its row.
pub(super) fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in project.members() {
        let Some(row) = ROWS.iter().find(|row| row.name == member.name) else {
            findings.push(undeclared(member));
            continue;
        };
        if row.folder != member.folder {
            findings.push(Finding {
                path: member.manifest(),
                line: None,
                check: NAME,
                problem: format!("the crate `{}` lives in `{}/`", member.name, member.folder),
                right: format!("its folder is `{}/`", row.folder),
            });
        }
        findings.extend(forbidden(project, member, row));
        findings.extend(unused(project, member, row));
    }
    findings
}

fn undeclared(member: &Member) -> Finding {
    Finding {
        path: member.manifest(),
        line: None,
        check: NAME,
        problem: format!("the crate `{}` has no row in the table of arrows", member.name),
        right: format!("a row in {TABLE} and in {}, or no new crate: a module", map::DOCUMENT),
    }
}

/// Dependencies on crates of ours that the row does not have.
fn forbidden(project: &Project, member: &Member, row: &Row) -> Vec<Finding> {
    let is_ours = |name: &str| project.members().iter().any(|other| other.name == name);
    let is_allowed = |dependency: &Dependency| {
        let name = dependency.name.as_str();
        row.imports.contains(&name) || (dependency.is_dev && row.tests.contains(&name))
    };
    let ours = member.dependencies.iter().filter(|dependency| is_ours(&dependency.name));
    let found = ours.filter(|dependency| !is_allowed(dependency)).map(|dependency| {
        let tests = if dependency.is_dev { "the tests of " } else { "" };
        Finding {
            path: member.manifest(),
            line: line_of(project, member, &dependency.key),
            check: NAME,
            problem: format!("{tests}`{}` may not import `{}`", member.name, dependency.name),
            right: allowance(row, dependency.is_dev),
        }
    });
    found.collect()
}

/// The sentence that says what a crate may import.
fn allowance(row: &Row, is_dev: bool) -> String {
    let allowed = row.imports.iter().chain(if is_dev { row.tests } else { &[] });
    let allowed: Vec<_> = allowed.map(|name| format!("`{name}`")).collect();
    let allowed = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(" and ") };
    format!("it may import {allowed} (the table is in {TABLE})")
}

/// Arrows of the row that no dependency uses although both crates exist.
fn unused(project: &Project, member: &Member, row: &Row) -> Vec<Finding> {
    let exists = |name: &str| project.members().iter().any(|other| other.name == name);
    let is_used = |name: &str| member.dependencies.iter().any(|found| !found.is_dev && found.name == name);
    let unused = row.imports.iter().filter(|name| exists(name) && !is_used(name));
    let found = unused.map(|name| Finding {
        path: member.manifest(),
        line: None,
        check: NAME,
        problem: format!("`{}` does not import `{name}`, and the table has that arrow", member.name),
        right: format!("the dependency, or the arrow taken out of {TABLE} and {}", map::DOCUMENT),
    });
    found.collect()
}

/// The line of the manifest that names the dependency.
fn line_of(project: &Project, member: &Member, key: &str) -> Option<usize> {
    let text = project.text(&member.manifest())?;
    let document = toml::de::DeTable::parse(text).ok()?;
    let root = Table::new(text, document.get_ref());
    let listed = super::manifests::dependencies(root).into_iter().find(|entry| entry.key == key);
    listed.map(|entry| entry.line).or_else(|| Some(line_at(text, text.find(key)?)))
}

const TABLE: &str = "xtask/src/tidy/arrows.rs";

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(project: &Project) -> Vec<String> {
        check(project).into_iter().map(|finding| finding.problem).collect()
    }

    /// The crates as they are drawn, with a manifest for the one that a test is about.
    fn house() -> Project {
        Project::sketch(&[])
            .with(Member::sketch("wire", "wire"))
            .with(Member::sketch("mock-upstream", "mock-upstream").on("wire", false))
            .with(Member::sketch("harness", "harness").on("wire", false).on("mock-upstream", false))
    }

    #[test]
    fn the_arrows_as_drawn_are_right() {
        let proxy = Member::sketch("prodex", "proxy").on("wire", false).on("harness", true);
        let xtask = Member::sketch("xtask", "xtask").on("harness", false).on("clap", false);
        assert_eq!(problems(&house().with(proxy).with(xtask)), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_against_the_drawing_is_named_with_its_line() {
        let manifest = "[package]\nname = \"prodex\"\n\n[dependencies]\nharness.workspace = true\n";
        let proxy = Member::sketch("prodex", "proxy").on("wire", false).on("harness", false);
        let mut project = house().with(proxy);
        project.set("proxy/Cargo.toml", manifest.to_owned());
        let [finding] = check(&project).try_into().expect("one finding");
        assert_eq!((finding.path.as_str(), finding.line), ("proxy/Cargo.toml", Some(5)));
        assert_eq!(finding.problem, "`prodex` may not import `harness`");
        assert_eq!(finding.right, "it may import `wire` (the table is in xtask/src/tidy/arrows.rs)");
    }

    #[test]
    fn what_tests_import_is_bounded_too() {
        let mock = Member::sketch("manifest", "manifest").on("harness", true);
        assert_eq!(problems(&house().with(mock)), ["the tests of `manifest` may not import `harness`"]);
    }

    #[test]
    fn an_arrow_that_nobody_uses_is_a_finding() {
        let proxy = Member::sketch("prodex", "proxy").on("wire", true);
        let expected = "`prodex` does not import `wire`, and the table has that arrow";
        assert_eq!(problems(&house().with(proxy)), [expected]);
    }

    #[test]
    fn a_crate_outside_the_table_and_a_crate_in_a_wrong_folder_are_findings() {
        let project = house().with(Member::sketch("util", "util")).with(Member::sketch("manifest", "lists"));
        let expected =
            ["the crate `util` has no row in the table of arrows", "the crate `manifest` lives in `lists/`"];
        assert_eq!(problems(&project), expected);
    }
}
