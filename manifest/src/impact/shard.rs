//! The labels of the shards, as `manifest/tests.toml` lists them, and whose tests are in each.
//!
//! A shard is a filter expression. Which crates it can select tests of is asked of the expression and the
//! names of the binaries, without building one; when the expression leaves it open, the crate counts.

use std::collections::BTreeSet;

use guppy::graph::cargo::BuildPlatform;
use guppy::graph::{BuildTargetId, PackageGraph, PackageMetadata};
use nextest_filtering::{
    BinaryQuery, CompiledExpr, EvalContext, Filterset, FiltersetKind, KnownGroups, ParseContext,
};
use nextest_metadata::{RustBinaryId, RustTestBinaryKind};
use serde::Deserialize;
use toml::Spanned;

use super::mistake::Mistake;
use super::rules::is_id;

/// Where the shards stand in the repository.
pub const FILE: &str = "manifest/tests.toml";

/// A part of the tests that CI runs in a job of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardLabel {
    /// Its name in the matrix.
    pub label: String,
    /// The crates whose tests can be in it.
    pub packages: BTreeSet<String>,
}

/// Reads the labels of the `[[shard]]` entries of the file, in their order.
///
/// # Errors
///
/// The first mistake, with its place: not TOML, no shard at all, a label that needs quoting somewhere, or one
/// given twice.
pub fn labels(text: &str) -> Result<Vec<String>, Box<Mistake>> {
    Ok(read(text)?.into_iter().map(|entry| entry.label.into_inner()).collect())
}

/// Reads the shards, and finds the crates of this workspace that each can hold tests of.
///
/// # Errors
///
/// As [`labels`], or a filter that nextest does not understand.
pub fn shards(text: &str, graph: &PackageGraph) -> Result<Vec<ShardLabel>, Box<Mistake>> {
    let context = ParseContext::new(graph);
    let groups = KnownGroups::Known { custom_groups: Default::default() };
    let shard = |Entry { label, filter }: Entry| {
        let parsed = Filterset::parse(filter.get_ref().clone(), &context, FiltersetKind::Test, &groups);
        let filter = parsed.map_err(|errors| {
            let problems: Vec<_> = errors.errors.iter().map(ToString::to_string).collect();
            let right = "a filter expression of nextest, about crates of this workspace";
            Mistake::new((FILE, text), filter.span(), problems.join("; "), right)
        })?;
        let held = graph.workspace().iter().filter(|package| can_hold(&filter, package));
        let packages = held.map(|package| package.name().to_owned()).collect();
        Ok(ShardLabel { label: label.into_inner(), packages })
    };
    read(text)?.into_iter().map(shard).collect()
}

/// Whether the filter may select a test of one of the crate's binaries.
fn can_hold(filter: &Filterset, package: &PackageMetadata<'_>) -> bool {
    let context = EvalContext { default_filter: &CompiledExpr::ALL };
    package.build_targets().any(|target| {
        let kind = match target.id() {
            BuildTargetId::Library => RustTestBinaryKind::LIB,
            BuildTargetId::Binary(_) => RustTestBinaryKind::BIN,
            BuildTargetId::Example(_) => RustTestBinaryKind::EXAMPLE,
            BuildTargetId::Test(_) => RustTestBinaryKind::TEST,
            BuildTargetId::Benchmark(_) => RustTestBinaryKind::BENCH,
            _ => return false,
        };
        let binary_id = RustBinaryId::from_parts(package.name(), &kind, target.name());
        let query = BinaryQuery {
            package_id: package.id(),
            binary_id: &binary_id,
            binary_name: target.name(),
            kind: &kind,
            platform: BuildPlatform::Target,
        };
        filter.matches_binary(&query, &context) != Some(false)
    })
}

fn read(text: &str) -> Result<Vec<Entry>, Box<Mistake>> {
    let file: File = toml::from_str(text).map_err(|error| Mistake::of_toml((FILE, text), &error))?;
    if file.shards.is_empty() {
        // Without this, a list that is lost by mistake would be a CI without tests.
        return Err(Mistake::new((FILE, text), 0..0, "there is no shard", "at least one `[[shard]]`"));
    }
    let mut seen = BTreeSet::new();
    for label in file.shards.iter().map(|entry| &entry.label) {
        let name = label.get_ref();
        if !is_id(name) {
            let right = "a lower-case letter, then such letters, digits, `-`, `_` and `.`";
            return Err(Mistake::new((FILE, text), label.span(), format!("`{name}` is no label"), right));
        }
        if !seen.insert(name) {
            let problem = format!("the label `{name}` is taken");
            return Err(Mistake::new((FILE, text), label.span(), problem, "a label of its own"));
        }
    }
    Ok(file.shards)
}

#[derive(Deserialize)]
struct File {
    #[serde(default, rename = "shard")]
    shards: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    label: Spanned<String>,
    filter: Spanned<String>,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::crates;
    use super::*;

    fn graph() -> PackageGraph {
        crates::graph(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).expect("cargo knows this workspace")
    }

    fn packages(graph: &PackageGraph, filter: &str) -> String {
        let text = format!("[[shard]]\nlabel = \"a\"\nfilter = {filter:?}\n");
        let shards = shards(&text, graph).expect("the file is right");
        Vec::from_iter(shards[0].packages.iter().map(String::as_str)).join(" ")
    }

    #[test]
    fn labels_are_read_in_their_order_and_all_else_is_left_alone() {
        let text = "version = 1\n[[case]]\nid = 3\n[[shard]]\nlabel = \"b\"\nfilter = \"all()\"\n\
                    [[shard]]\nfilter = \"none()\"\nlabel = \"a\"\n";
        assert_eq!(labels(text).expect("the file is right"), ["b", "a"]);
    }

    #[test]
    fn a_shard_holds_tests_of_the_crates_that_its_filter_can_select() {
        let graph = graph();
        let packages = |filter: &str| packages(&graph, filter);
        assert_eq!(packages("package(wire) | package(=prodex)"), "prodex wire");
        assert_eq!(packages("binary_id(=prodex::it)"), "prodex");
        assert_eq!(packages("package(harness) & test(/^scrub::/)"), "harness");
        assert_eq!(packages("rdeps(=harness)"), "benches harness prodex xtask");
        let all = "benches harness manifest mock-upstream prodex wire xtask";
        assert_eq!(packages("test(sse)"), all, "a test's name says nothing about its crate");
        assert_eq!(packages("all() - package(wire)"), all.replace(" wire", ""));
        assert_eq!(packages("none()"), "");
    }

    #[test]
    fn a_mistake_is_refused_with_its_place() {
        let graph = graph();
        let cases = [
            ("[[shard]]\nlabel = \"$(id)\"\nfilter = \"\"\n", "`$(id)` is no label", "\"$(id)\""),
            (
                "[[shard]]\nlabel = \"a\"\nfilter = \"all()\"\n[[shard]]\nlabel = \"a\"\nfilter = \"all()\"\n",
                "the label `a` is taken",
                "\"a\"",
            ),
            ("[[shard]]\nlabel = 1\nfilter = \"all()\"\n", "invalid type", "1"),
            ("[[shards]]\nlabel = \"a\"\n", "there is no shard", ""),
            ("[[shard]]\nlabel = \"a\"\nfilter = \"pakcage(a)\"\n", "", "\"pakcage(a)\""),
            ("[[shard]]\nlabel = \"a\"\nfilter = \"package(=wier)\"\n", "", "\"package(=wier)\""),
        ];
        for (text, problem, place) in cases {
            let mistake = shards(text, &graph).expect_err(text);
            assert!(mistake.problem.starts_with(problem), "{}", mistake.problem);
            assert_eq!(&text[mistake.place.offset()..][..mistake.place.len()], place);
        }
    }
}
