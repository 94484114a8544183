//! `cargo xtask test-fast` over a small workspace whose tests pass, fail, break off, leak and wait.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MANIFEST: &str = "[workspace]\nresolver = \"3\"\nmembers = [\"sample\", \"broken\"]\n";

const LOCK: &str = "version = 4\n\n[[package]]\nname = \"broken\"\nversion = \"1.0.0\"\n\n\
    [[package]]\nname = \"sample\"\nversion = \"1.0.0\"\n";

const SAMPLE: &str = r#"
//! Tests that end in every way a test can.
use std::{env, io::Write, os::unix::{net::UnixStream, process::CommandExt}, process::{Command, Stdio, exit, id}};

#[test]
fn passes() {}

#[test]
fn passes_too() {}

#[test]
fn fails_with_words() {
    println!("the words of the failure");
    assert_eq!(1, 2);
}

#[test]
fn ends_the_process() {
    exit(0);
}

#[test]
fn leaves_a_process() {
    // A group of its own, as a program has that was started to outlive its parent.
    Command::new("sleep").arg("600").process_group(0).stdout(Stdio::null()).spawn().unwrap();
}

#[test]
fn waits_to_be_interrupted() {
    let mut socket = UnixStream::connect(env::var_os("SAMPLE_SOCKET").unwrap()).unwrap();
    let child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
    writeln!(socket, "{} {}", id(), child.id()).unwrap();
    drop(socket);
    let _ = Command::new("sleep").arg("600").status();
}
"#;

/// The workspace, below cargo's folder for such things, so that it is compiled once and not for every test.
fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("test-fast");
    let package = |name| format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n");
    let files = [
        ("Cargo.toml", MANIFEST.to_owned()),
        ("Cargo.lock", LOCK.to_owned()),
        ("sample/Cargo.toml", package("sample")),
        ("sample/src/lib.rs", SAMPLE.to_owned()),
        ("broken/Cargo.toml", package("broken")),
        ("broken/src/lib.rs", "#[test]\nfn has_a_wrong_type() { let _: u8 = \"\"; }\n".to_owned()),
    ];
    for (path, text) in files {
        let path = root.join(path);
        if fs::read_to_string(&path).ok().as_ref() == Some(&text) {
            continue;
        }
        let folder = path.parent().expect("the file has a folder");
        fs::create_dir_all(folder).expect("the folder is made");
        // Other tests write the same file at the same time: whole or not at all.
        let part = tempfile::NamedTempFile::new_in(folder).expect("a temporary file");
        fs::write(part.path(), &text).expect("the file is written");
        part.persist(&path).expect("the file is put in place");
    }
    root
}

fn test_fast(args: &[&str]) -> Command {
    let root = workspace();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.current_dir(&root).env("CARGO_TARGET_DIR", root.join("target")).arg("test-fast").args(args);
    command
}

fn run(args: &[&str]) -> Output {
    test_fast(args).output().expect("the program runs")
}

/// The last line of standard output, with the seconds taken out.
fn closing_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let (before, after) = line.split_once(" in ").unwrap_or((line, ""));
    format!("{before}{}", after.split_once('s').map_or("", |(_, rest)| rest))
}

fn is_gone(process: i32) -> bool {
    kill(Pid::from_raw(process), None) == Err(Errno::ESRCH)
}

#[test]
fn tests_that_pass_are_one_line_on_standard_output() {
    let output = run(&["--", "-p", "sample", "passes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(closing_line(&output), "test-fast: 2 passed, 0 failed, 0 ignored (1 binary)");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1, "{output:?}");
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(progress.contains("sample src/lib.rs: 2 passed"), "{progress}");
}

#[test]
fn a_failure_is_shown_with_its_words_and_fails_the_command() {
    let output = run(&["--", "-p", "sample", "fails", "passes"]);
    assert_eq!(output.status.code(), Some(2), "cargo takes one name only: {output:?}");
    let output = run(&["--", "-p", "sample", "--", "fails", "passes"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(closing_line(&output), "test-fast: 2 passed, 1 failed, 0 ignored (1 binary)");
    let output = run(&["--", "-p", "sample", "fails"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("the words of the failure"), "{shown}");
}

#[test]
fn json_is_one_document_on_standard_output() {
    let output = run(&["--json", "--", "-p", "sample", "fails"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(report["outcome"], "failed");
    assert_eq!(report["binaries"][0]["failures"][0], "fails_with_words");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("the words of the failure") && said.contains("test-fast: 0 passed, 1 failed"),
        "{said}"
    );
}

#[test]
fn a_test_that_ends_the_process_does_not_pass_for_success() {
    let output = run(&["--", "-p", "sample", "ends_the_process"]);
    let expected = "test-fast: 0 passed, 0 failed, 0 ignored (1 binary); broke off: sample src/lib.rs";
    assert_eq!((output.status.code(), closing_line(&output).as_str()), (Some(1), expected));
}

#[test]
fn nothing_selected_is_an_error_of_its_own() {
    let output = run(&["--", "-p", "sample", "no_such_test"]);
    let expected = "test-fast: 0 passed, 0 failed, 0 ignored (0 binaries); no test was selected";
    assert_eq!((output.status.code(), closing_line(&output).as_str()), (Some(4), expected));
}

#[test]
fn a_build_that_fails_is_told_from_arguments_that_are_refused() {
    let output = run(&["--", "-p", "broken"]);
    let expected = "test-fast: 0 passed, 0 failed, 0 ignored (0 binaries); the build failed";
    assert_eq!((output.status.code(), closing_line(&output).as_str()), (Some(1), expected));
    assert!(String::from_utf8_lossy(&output.stderr).contains("mismatched types"), "{output:?}");
    let output = run(&["--", "--no-such-flag"]);
    let expected = "test-fast: 0 passed, 0 failed, 0 ignored (0 binaries); cargo refused its arguments";
    assert_eq!((output.status.code(), closing_line(&output).as_str()), (Some(2), expected));
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_a_test_leaves_behind_is_killed_and_fails_the_run() {
    let output = run(&["--", "-p", "sample", "leaves_a_process"]);
    let line = closing_line(&output);
    let process =
        line.strip_prefix("test-fast: 1 passed, 0 failed, 0 ignored (1 binary); left behind: sleep (");
    let process = process.and_then(|rest| rest.strip_suffix(')')?.parse().ok());
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(is_gone(process.unwrap_or_else(|| panic!("a process id in {line}"))));
}

#[test]
fn an_interrupt_ends_the_tests_and_everything_they_started() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let mut command = test_fast(&["--", "-p", "sample", "waits_to_be_interrupted"]);
    command.env("SAMPLE_SOCKET", &socket).stdout(Stdio::piped()).stderr(Stdio::null());
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
    let expected = "(1 binary); broke off: sample src/lib.rs; interrupted";
    assert!(closing_line(&output).ends_with(expected), "{output:?}");
    for process in processes.split_whitespace() {
        assert!(is_gone(process.parse().expect("an id")), "{process} still runs");
    }
}
