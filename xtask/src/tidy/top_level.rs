//! The top level of the checkout: the crates, the data, and the files that tools and readers expect there.
//!
//! Everything else has a home inside a crate: no folder for scripts, tools, documents or utilities.

use std::collections::BTreeSet;

use super::project::Project;
use super::{Finding, arrows};

pub(super) const NAME: &str = "top level";

/// What may stand at the top beside the crates' folders.
const ALLOWED: &[&str] = &[
    ".cargo",
    ".ci",
    ".github",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "fixtures",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// Compares what stands at the top with what may.
pub(super) fn check(project: &Project) -> Vec<Finding> {
    let tops: BTreeSet<_> = project.paths().filter_map(|path| path.split('/').next()).collect();
    let strangers =
        tops.into_iter().filter(|top| !ALLOWED.contains(top) && !arrows::folders().any(|it| it == *top));
    let found = strangers.map(|top| Finding {
        path: top.to_owned(),
        line: None,
        check: NAME,
        problem: "does not belong to the top level".to_owned(),
        right: "a place in a crate's folder or in `fixtures/`; nothing else at the top".to_owned(),
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_data_and_the_known_files_may_stand_at_the_top() {
        let files =
            ["README.md", ".ci/run", "proxy/src/lib.rs", "fixtures/codex/a.jsonl", "benches/Cargo.toml"];
        let files: Vec<_> = files.iter().map(|path| (*path, "")).collect();
        assert_eq!(check(&Project::sketch(&files)), Vec::new());
    }

    #[test]
    fn each_stranger_is_named_once() {
        let files = [("scripts/a.sh", ""), ("scripts/b.sh", ""), ("NOTES.md", ""), ("prodex/src/lib.rs", "")];
        let found: Vec<_> = check(&Project::sketch(&files)).into_iter().map(|found| found.path).collect();
        assert_eq!(found, ["NOTES.md", "prodex", "scripts"]);
    }
}
