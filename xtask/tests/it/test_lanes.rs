//! The other lanes over the same small workspace: one at a time, in time, in quarantine, in one process.

use std::io::Write as _;
use std::process::Stdio;

use crate::sample::{closing_line, program, run, stderr, stdout};

#[test]
fn a_test_that_takes_longer_than_its_case_says_is_ended() {
    let output = run("test-serial", &["--suite", "runtime"]);
    assert_eq!(closing_line(&output), "test-serial: 0 passed, 1 failed, 0 ignored (1 binary)");
    assert!(stdout(&output).contains("FAILED sample takes_too_long: took too long"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_smoke_suite_that_takes_longer_than_it_may_fails() {
    let output = run("test-smoke", &["--max-seconds", "1"]);
    assert!(closing_line(&output).ends_with("; out of time"), "{output:?}");
    assert_eq!(output.status.code(), Some(124));
}

#[test]
fn a_failure_that_a_quarantine_names_does_not_decide() {
    let output = run("test-serial", &["--suite", "quarantine"]);
    let expected = "test-serial: 0 passed, 0 failed, 0 ignored (1 binary); \
        failed as its quarantine says: sample is_in_quarantine";
    assert_eq!((output.status.code(), closing_line(&output).as_str()), (Some(0), expected), "{output:?}");
}

#[test]
fn a_suite_without_tests_and_a_shard_without_a_label_are_errors() {
    let output = run("test-stress", &["--suite", "stress"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let output = run("test-shard", &["--label", "nowhere"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = run("test-stress", &["--shard-count", "2", "--shard-index", "2"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn each_shard_runs_its_part_and_all_of_them_everything() {
    let args = |index| ["--suite", "serialized", "--shard-count", "2", "--shard-index", index];
    // One test, twice: the first shard has it, and the second has nothing to run.
    let first = run("test-stress", &args("0"));
    assert_eq!(closing_line(&first), "test-stress: 0 passed, 2 failed, 0 ignored (1 binary)");
    let second = run("test-stress", &args("1"));
    assert_eq!(second.status.code(), Some(4), "{second:?}");
}

#[test]
fn a_plan_is_explained_without_a_run() {
    let output = run("test-fast", &["--explain", "--jobs", "2", "--", "-p", "sample", "passes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    assert!(text.starts_with("shard 0: 1 tests") && text.contains("imbalance"), "{text}");
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn a_parallel_safe_test_that_sets_the_path_is_caught() {
    let args = ["--runs", "1", "--test-threads", "1", "--", "-p", "sample", "shared"];
    let output = run("test-env-parallel", &args);
    let text = stdout(&output);
    assert!(text.contains("the variable PATH was changed while `shared::sets_the_path`"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let args = ["--runs", "2", "--", "-p", "sample", "leaves_it_alone"];
    let output = run("test-env-parallel", &args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn times_are_printed_and_balanced() {
    let output = run("test-fast", &["--timings-json", "--timings", "--", "-p", "sample", "passes"]);
    let text = stdout(&output);
    assert!(text.contains("test-fast: timings-json [{\"binary\":\"sample\""), "{text}");
    let mut command = program("sample", "timing-balance", &["--weights-json"]);
    let mut balance =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    balance.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = balance.wait_with_output().expect("the program ends");
    let weights: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(weights.as_array().map(Vec::len), Some(2), "{weights}");
    assert!(weights[0]["weightMs"].as_f64().is_some_and(|weight| weight > 0.0), "{weights}");
    let malformed = program("sample", "timing-balance", &["--file", "Cargo.lock"]).output().expect("it runs");
    assert_eq!(malformed.status.code(), Some(4), "{}", stderr(&malformed));
}
