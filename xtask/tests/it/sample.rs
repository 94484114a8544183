//! A small workspace whose tests pass, fail, flap, break off, leak, wait and meddle, and the program on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MANIFEST: &str = "[workspace]\nresolver = \"3\"\nmembers = [\"sample\", \"broken\"]\n";

const LOCK: &str = "version = 4\n\n[[package]]\nname = \"broken\"\nversion = \"1.0.0\"\n\n\
    [[package]]\nname = \"sample\"\nversion = \"1.0.0\"\n";

const SAMPLE: &str = r#"
//! Tests that end in every way a test can.
#![cfg(test)]
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
fn is_in_quarantine() {
    panic!("the words of the quarantine");
}

#[test]
fn flaps() {
    assert_ne!(env::var("NEXTEST_ATTEMPT").unwrap(), "1");
}

#[test]
fn ends_the_process() {
    exit(0);
}

#[test]
fn sees_only_what_it_is_given() {
    let home = env::var("HOME").unwrap();
    assert!(env::var_os("SAMPLE_SECRET").is_none());
    for variable in ["TMPDIR", "PRODEX_RUNTIME_LOG_DIR"] {
        let root = home.strip_suffix("home").unwrap();
        assert!(env::var(variable).unwrap().starts_with(root), "{variable}");
    }
}

#[test]
fn leaves_a_process() {
    // A group of its own, as a program has that was started to outlive its parent.
    Command::new("sleep").arg("600").process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
}

#[test]
fn takes_too_long() {
    let _ = Command::new("sleep").arg("600").status();
}

#[test]
fn waits_to_be_interrupted() {
    let mut socket = UnixStream::connect(env::var_os("RUST_TEST_SOCKET").unwrap()).unwrap();
    let child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
    writeln!(socket, "{} {}", id(), child.id()).unwrap();
    drop(socket);
    let _ = Command::new("sleep").arg("600").status();
}

mod shared {
    #[test]
    fn leaves_it_alone() {}

    #[test]
    fn sets_the_path() {
        // SAFETY: it is not safe, which is what the test is about.
        unsafe { std::env::set_var("PATH", "/nowhere") };
    }
}

mod fresh {
    #[test]
    fn has_no_case() {}
}
"#;

const CASES: &str = r#"
[[case]]
id = "sample"
filter = "package(sample) - test(/^fresh::/) - test(=takes_too_long) - test(=is_in_quarantine)"
tags = ["parallel-safe"]

[[case]]
id = "slow"
filter = "test(=takes_too_long)"
tags = ["serial", "smoke"]
reason = "takes all the time it gets"
timeout = "2s"

[[case]]
id = "quarantine"
filter = "test(=is_in_quarantine)"
tags = ["quarantine"]
reason = "fails"
quarantine = { owner = "ann", issue = "7", since = "2026-01-01", expires = "2026-01-31", fails-with = "the words of" }

[[case]]
id = "gone"
filter = "test(=no_such_test)"
tags = ["env"]
reason = "matches nothing"
"#;

/// The workspace, below cargo's folder for such things, so that it is compiled once and not for every test.
pub(crate) fn workspace(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let package = |name| format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n");
    let broken = "#[cfg(feature = \"wrong\")]\n#[test]\nfn has_a_wrong_type() { let _: u8 = \"\"; }\n";
    let files = [
        ("Cargo.toml", MANIFEST.to_owned()),
        ("Cargo.lock", LOCK.to_owned()),
        ("sample/Cargo.toml", package("sample")),
        ("sample/src/lib.rs", SAMPLE.to_owned()),
        ("broken/Cargo.toml", package("broken") + "\n[features]\nwrong = []\n"),
        ("broken/src/lib.rs", broken.to_owned()),
        ("manifest/tests.toml", CASES.to_owned()),
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

/// The program in such a workspace, with a target directory that other runs use too.
pub(crate) fn program(name: &str, task: &str, args: &[&str]) -> Command {
    let root = workspace(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.current_dir(&root).env("CARGO_TARGET_DIR", root.join("target")).env("CI", "true");
    command.env("SAMPLE_SECRET", "sk-1").stdin(std::process::Stdio::null()).arg(task).args(args);
    command
}

pub(crate) fn run(task: &str, args: &[&str]) -> Output {
    program("sample", task, args).output().expect("the program runs")
}

/// The last line of standard output, with the seconds taken out.
pub(crate) fn closing_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let (before, after) = line.split_once(" in ").unwrap_or((line, ""));
    format!("{before}{}", after.split_once('s').map_or("", |(_, rest)| rest))
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
