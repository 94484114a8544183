//! `cargo xtask manifest-check` over a workspace whose manifest is wrong in several ways.

use std::fs;

use crate::sample::{program, run, stderr, stdout, workspace};

#[test]
fn a_test_without_a_case_fails_the_tests() {
    let output = run("test-fast", &["--", "-p", "sample", "has_no_case"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = stdout(&output);
    assert!(line.trim_end().ends_with("in no case of the manifest: sample fresh::has_no_case"), "{line}");
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_what_can_be_added_is() {
    // A workspace of its own, because its manifest is rewritten.
    let check = |args: &[&str]| {
        let mut command = program("manifest-check", "manifest-check", args);
        command.output().expect("the program runs")
    };
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = stderr(&output);
    let expected = [
        "the filter of case `gone` matches nothing",
        "`sample fresh::has_no_case` is in no case",
        "no test is tagged `stress`: its suite is empty",
        "the quarantine of case `quarantine` expired on 2026-01-31",
    ];
    for expected in expected {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(said.contains("manifest/tests.toml:"), "mistakes point at their lines: {said}");

    let path = workspace("manifest-check").join("manifest/tests.toml");
    let before = fs::read_to_string(&path).expect("the manifest");
    let command = program("manifest-check", "manifest-check", &["--fix", "--json"]).output();
    let output = command.expect("the program runs");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(document["added"], 1, "{document}");
    let after = fs::read_to_string(&path).expect("the manifest");
    let added = after.strip_prefix(&before).expect("nothing else changes");
    assert!(added.contains("filter = \"binary_id(=sample) & test(/^fresh::/)\""), "{added}");
    assert!(!document.to_string().contains("has_no_case"), "{document}");
}

#[test]
fn a_manifest_with_a_mistake_runs_nothing_and_points_at_the_line() {
    let root = workspace("mistaken");
    let path = root.join("manifest/tests.toml");
    let mut command = program("mistaken", "test-fast", &[]);
    let text = fs::read_to_string(&path).expect("the manifest");
    fs::write(&path, text.replace("[\"parallel-safe\"]", "[\"parallel-safe\", \"serial\"]"))
        .expect("written");
    let output = command.output().expect("the program runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("contradicts itself: parallel-safe and serial"), "{output:?}");
}
