//! `cargo xtask load`: what it refuses, and what it plans. What it measures is tried in `harness/tests`.

use std::process::{Command, Output};

fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("load")
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_makes_no_sense_is_an_error_of_usage_and_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mine.toml");
    std::fs::write(&file, "about = \"x\"\n[[stage]]\nname = \"a\"\nexecutor = \"closed\"\nrequests = 0\n")
        .unwrap();
    let file = file.to_str().unwrap();
    for (arguments, says) in [
        (vec!["--start-mock", "--max-error-rte", "0"], "--max-error-rte"),
        (vec!["--start-mock", "--max-error-rate", "1.5"], "between 0 and 1"),
        (vec!["--start-proxy"], "--start-mock"),
        (vec![], "nothing to drive"),
        (vec!["--dry-run", "--scenario", "nothing"], "baseline, stress"),
        (vec!["--dry-run", "--scenario", file], "mine.toml:5"),
        (vec!["--dry-run", "--scenario", "sessions", "--requests", "3"], "--requests means nothing here"),
        (vec!["--target", "https://127.0.0.1:1"], "no TLS"),
    ] {
        let output = load(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_dry_run_says_what_would_be_done() {
    let output = load(&["--dry-run", "--scenario", "spike", "--seed", "7", "--max-error-rate", "0.5"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("crowd peak (spike): 250/s") && text.contains("seed 7"), "{text}");
    assert!(text.contains("50 %"), "{text}");
}
