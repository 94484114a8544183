//! `cargo xtask test-fast` over a small workspace whose tests pass, fail, break off, leak and wait.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sample::{closing_line, program, run, stderr, stdout, workspace};

fn is_gone(process: i32) -> bool {
    kill(Pid::from_raw(process), None) == Err(Errno::ESRCH)
}

#[test]
fn tests_that_pass_are_one_line_on_standard_output() {
    let output = run("test-fast", &["--", "-p", "sample", "passes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(closing_line(&output), "test-fast: 2 passed, 0 failed, 0 ignored (1 binary)");
    assert_eq!(stdout(&output).lines().count(), 1, "{output:?}");
    assert!(stderr(&output).contains("sample: 2 passed"), "{output:?}");
}

#[test]
fn a_failure_is_shown_with_its_words_and_the_command_that_repeats_it() {
    let output = run("test-fast", &["--", "-p", "sample", "fails", "--", "passes"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(closing_line(&output), "test-fast: 2 passed, 1 failed, 0 ignored (1 binary)");
    let shown = stdout(&output);
    assert!(shown.contains("the words of the failure"), "{shown}");
    let rerun = "cargo xtask test-full --no-prebuild -- -p sample --lib -- --exact fails_with_words";
    assert!(shown.contains(&format!("rerun: {rerun}\n")), "{shown}");
    let words: Vec<_> = rerun.split(' ').skip(3).collect();
    let again = run("test-full", &words);
    assert_eq!(closing_line(&again), "test-full: 0 passed, 1 failed, 0 ignored (1 binary)");

    let folder = workspace("sample").join("target/test-runs/test-full");
    let kept = folder.join("failed/sample/fails_with_words");
    assert!(fs::read_to_string(kept.join("output.txt")).unwrap().contains("the words of the failure"));
    assert!(kept.join("logs").is_dir(), "the sandbox is kept");
    let junit = fs::read_to_string(folder.join("junit.xml")).unwrap();
    assert!(junit.contains("name=\"fails_with_words\" classname=\"sample\""), "{junit}");
    let events = fs::read_to_string(folder.join("events.jsonl")).unwrap();
    assert!(
        events.lines().any(|line| line.starts_with("{\"event\":\"finished\",\"binary\":\"sample\"")),
        "{events}"
    );
}

#[test]
fn json_is_one_document_on_standard_output() {
    let output = run("test-fast", &["--json", "--", "-p", "sample", "fails"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(report["outcome"], "failed");
    assert_eq!(report["binaries"][0]["failures"][0]["test"], "fails_with_words");
    let said = stderr(&output);
    assert!(
        said.contains("the words of the failure") && said.contains("test-fast: 0 passed, 1 failed"),
        "{said}"
    );
}

#[test]
fn a_test_that_ends_the_process_does_not_pass_for_success() {
    let output = run("test-fast", &["--", "-p", "sample", "ends_the_process"]);
    assert_eq!(closing_line(&output), "test-fast: 0 passed, 1 failed, 0 ignored (1 binary)");
    assert!(stdout(&output).contains("ended its process before its result was known"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_pass_behind_a_failure_is_flaky_and_fails() {
    let output = run("test-fast", &["--", "-p", "sample", "flaps"]);
    let expected = "test-fast: 0 passed, 1 failed, 0 ignored (1 binary); flaky: sample flaps";
    assert_eq!((output.status.code(), closing_line(&output).as_str()), (Some(1), expected));
}

#[test]
fn a_test_sees_a_home_of_its_own_and_no_secret_of_the_caller() {
    let output = run("test-fast", &["--", "-p", "sample", "sees_only"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn nothing_selected_is_an_error_of_its_own() {
    let output = run("test-fast", &["--", "-p", "sample", "no_such_test"]);
    let expected = "test-fast: 0 passed, 0 failed, 0 ignored (0 binaries); no test was selected";
    assert_eq!((output.status.code(), closing_line(&output).as_str()), (Some(4), expected));
}

#[test]
fn a_build_that_fails_is_told_from_arguments_that_are_refused() {
    let output = run("test-fast", &["--", "-p", "broken", "--features", "wrong"]);
    let expected = "test-fast: 0 passed, 0 failed, 0 ignored (0 binaries); the build failed";
    assert_eq!((output.status.code(), closing_line(&output).as_str()), (Some(1), expected));
    assert!(stderr(&output).contains("mismatched types"), "{output:?}");
    let output = run("test-fast", &["--", "--no-such-flag"]);
    let expected = "test-fast: 0 passed, 0 failed, 0 ignored (0 binaries); cargo refused its arguments";
    assert_eq!((output.status.code(), closing_line(&output).as_str()), (Some(2), expected));
    let output = run("test-fast", &["--", "passes", "--", "--no-such-flag"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_a_test_leaves_behind_is_killed_and_fails_the_test() {
    let output = run("test-fast", &["--", "-p", "sample", "leaves_a_process"]);
    let line = closing_line(&output);
    let process =
        line.strip_prefix("test-fast: 0 passed, 1 failed, 0 ignored (1 binary); left behind: sleep (");
    let process = process.and_then(|rest| rest.strip_suffix(')')?.parse().ok());
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(is_gone(process.unwrap_or_else(|| panic!("a process id in {line}"))));
    assert!(stdout(&output).contains("FAILED sample leaves_a_process"), "{output:?}");
}

#[test]
fn an_interrupt_ends_the_tests_and_everything_they_started() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let mut command = program("sample", "test-fast", &["--", "-p", "sample", "waits_to_be_interrupted"]);
    command.env("RUST_TEST_SOCKET", &socket).stdout(Stdio::piped()).stderr(Stdio::null());
    let program = command.spawn().expect("the program starts");

    let (sender, processes) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the test connects");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the test says who it is");
        sender.send(text)
    });
    let processes = processes.recv_timeout(Duration::from_secs(120)).expect("the test runs");
    let id = Pid::from_raw(i32::try_from(program.id()).expect("an id"));
    kill(id, Signal::SIGINT).expect("the program is interrupted");

    let output = program.wait_with_output().expect("the program ends");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(closing_line(&output).ends_with("; interrupted"), "{output:?}");
    for process in processes.split_whitespace() {
        assert!(is_gone(process.parse().expect("an id")), "{process} still runs");
    }
}
