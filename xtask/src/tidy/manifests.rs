//! Manifests: the workspace decides lints, package fields and versions; a crate only says which it takes.

use toml::de::DeTable;

use super::Finding;
use super::project::{Member, Project};
use super::source::{Entry, Table, line_at};

pub(super) const NAME: &str = "manifests";

/// The fields of `[package]` that every crate inherits.
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "publish"];

/// The tables that hold dependencies, at the root of a manifest or below `[target.'…']`.
const DEPENDENCIES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// Reads every crate's manifest.
pub(super) fn check(project: &Project) -> Vec<Finding> {
    project.members().iter().flat_map(|member| check_member(project, member)).collect()
}

/// Every dependency that a manifest lists, of every kind and for every platform.
pub(super) fn dependencies(root: Table<'_>) -> Vec<Entry<'_>> {
    let platforms = root.table("target").into_iter().flat_map(Table::entries).filter_map(Entry::table);
    let tables = std::iter::once(root).chain(platforms);
    tables
        .flat_map(|table| DEPENDENCIES.iter().filter_map(move |name| table.table(name)))
        .flat_map(Table::entries)
        .collect()
}

fn check_member(project: &Project, member: &Member) -> Vec<Finding> {
    let path = member.manifest();
    let finding = |line, problem: String, right: &str| {
        let right = right.to_owned();
        Finding { path: path.clone(), line, check: NAME, problem, right }
    };
    let Some(text) = project.text(&path) else {
        let right = "a crate's manifest is committed with it: `git status --ignored` says why it is not";
        return vec![finding(None, "git ignores the manifest".to_owned(), right)];
    };
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map(|span| line_at(text, span.start));
            return vec![finding(line, format!("not TOML: {}", error.message()), "a manifest cargo reads")];
        }
    };
    let root = Table::new(text, document.get_ref());
    let mut findings = Vec::new();
    if !root.entry("lints").is_some_and(Entry::is_inherited) {
        let line = root.entry("lints").map(|entry| entry.line);
        let problem = "the crate does not take the workspace's lints".to_owned();
        findings.push(finding(line, problem, "`[lints]` with `workspace = true` and nothing else"));
    }
    for field in INHERITED {
        let entry = root.table("package").and_then(|package| package.entry(field));
        if !entry.is_some_and(Entry::is_inherited) {
            let line = entry.or(root.entry("package")).map(|entry| entry.line);
            let problem = format!("`{field}` of `[package]` is not the workspace's");
            findings.push(finding(line, problem, &format!("`{field}.workspace = true`")));
        }
    }
    for entry in dependencies(root).into_iter().filter(|entry| !entry.is_inherited()) {
        let problem = format!("the dependency `{}` does not come from the workspace", entry.key);
        let right = "its version in `[workspace.dependencies]` of the root manifest, `workspace = true` here";
        findings.push(finding(Some(entry.line), problem, right));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"[package]
name = "wire"
description = "Names and shapes."
version.workspace = true
edition = { workspace = true }
rust-version.workspace = true
license.workspace = true
publish.workspace = true

[dependencies]
serde = { workspace = true, features = ["rc"] }

[target.'cfg(unix)'.dependencies]
nix.workspace = true

[lints]
workspace = true
"#;

    fn found(manifest: &str) -> Vec<String> {
        let project = Project::sketch(&[("wire/Cargo.toml", manifest)]).with(Member::sketch("wire", "wire"));
        let findings = check(&project).into_iter();
        findings.map(|found| format!("{}: {}", found.line.unwrap_or(0), found.problem)).collect()
    }

    #[test]
    fn a_manifest_that_takes_everything_from_the_workspace_is_right() {
        assert_eq!(found(GOOD), Vec::<String>::new());
    }

    #[test]
    fn a_version_beside_the_workspace_is_found_in_every_kind_of_table() {
        let manifest = format!(
            "{GOOD}\n[dev-dependencies]\ninsta = \"1\"\n[build-dependencies.cc]\nversion = \"1\"\n\
             [target.'cfg(windows)'.dependencies]\nwinapi = {{ git = \"…\" }}\n"
        );
        let expected = [
            "20: the dependency `insta` does not come from the workspace",
            "21: the dependency `cc` does not come from the workspace",
            "24: the dependency `winapi` does not come from the workspace",
        ];
        assert_eq!(found(&manifest), expected);
    }

    #[test]
    fn a_field_or_lints_of_its_own_are_findings() {
        let manifest = GOOD.replace("version.workspace = true\nedition", "version = \"0.2.0\"\nedition");
        assert_eq!(found(&manifest), ["4: `version` of `[package]` is not the workspace's"]);
        let manifest = GOOD.replace("publish.workspace = true\n", "");
        assert_eq!(found(&manifest), ["1: `publish` of `[package]` is not the workspace's"]);
        let manifest = GOOD.replace("workspace = true\n\n[dep", "workspace = true\n[lints.rust]\n[dep");
        let manifest = manifest.replace("[lints]\nworkspace = true\n", "");
        assert_eq!(found(&manifest), ["9: the crate does not take the workspace's lints"]);
    }

    #[test]
    fn a_manifest_that_is_ignored_or_broken_is_a_finding() {
        assert_eq!(found("[package\n"), ["1: not TOML: unclosed table, expected `]`"]);
        let project = Project::sketch(&[]).with(Member::sketch("wire", "wire"));
        assert_eq!(check(&project).len(), 1);
    }
}
