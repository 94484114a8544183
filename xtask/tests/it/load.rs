//! `cargo xtask load`: what it refuses, and what it plans. What it measures is tried in `harness/tests`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::load::rig;
use harness::mock::Script;
use harness::mock::bulk::{Bulk, BulkConfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
        (vec!["--target", "http://127.0.0.1:1", "--target", "http://127.0.0.1:2"], "one --target is driven"),
        (vec!["--start-mock", "--prodex", "p"], "without --start-proxy"),
        (vec!["--start-mock", "--set", "A=b"], "without --start-proxy"),
        (vec!["--start-mock", "--runtime-log-dir", "logs"], "--runtime-log-dir means nothing"),
        (vec!["--start-mock", "--html", "/nowhere/a.html"], "/nowhere/a.html cannot be written"),
        (vec!["--target", "http://127.0.0.1:1", "--mock", "m"], "--mock means nothing"),
        (vec!["--compare", "--requests", "3"], "--requests"),
        (vec!["--compare", "--max-error-rate", "0"], "--max-error-rate"),
        (vec!["--self-test", "--debug-build"], "--debug-build"),
        (vec!["--dry-run", "--scenario", "sessions", "--route", "compact"], "agents decide by themselves"),
        (vec!["--dry-run", "--scenario", "nothing"], "baseline, stress"),
        (vec!["--dry-run", "--scenario", file], "mine.toml:5: requests: 0 is not between 1 and 100000000"),
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

/// A place for a run: where temporary homes go, and programs that stand in for the mock and the proxy. Each says
/// where the mock of this process is, and lives until it is ended; both write down who they are.
struct Stage {
    place: tempfile::TempDir,
    _mock: Bulk,
}

impl Stage {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("the place of the test is there");
        std::fs::create_dir(place.path().join("tmp")).expect("the place of the test is there");
        let script = rig::accounts(3).into_iter().fold(Script::default(), Script::account);
        let mock = Bulk::start(BulkConfig { script, ..BulkConfig::default() }).expect("the mock starts");
        let url = mock.base_url();
        let stage = Self { place, _mock: mock };
        stage.program("mock", &format!("echo 'mock-upstream-ready {{\"base_url\":\"{url}\"}}'"));
        stage.program(
            "proxy",
            &format!("[ $1 = serve ] || exit 0\necho 'prodex-ready {{\"base_url\":\"{url}\"}}'"),
        );
        stage.program("slow", "");
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn program(&self, name: &str, does: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let pids = self.path("pids");
        let text = format!("#!/bin/sh\n{does}\necho $$ >> {}\nexec sleep 600\n", pids.display());
        std::fs::write(self.path(name), text).expect("the place of the test is there");
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o700))
            .expect("the place of the test is there");
    }

    fn start(&self, task: &str, words: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg(task).args(words).env("TMPDIR", self.path("tmp"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    fn pids(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.path("pids")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Sends the signal when so many programs run, and gives what the task said.
    fn interrupt(&self, task: Child, programs: usize, signal: Signal) -> Output {
        let begun = Instant::now();
        while self.pids().len() < programs {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", self.pids());
            std::thread::park_timeout(Duration::from_millis(10));
        }
        kill(Pid::from_raw(i32::try_from(task.id()).expect("a pid is small")), signal)
            .expect("the task runs");
        let output = task.wait_with_output().expect("the task ends");
        for pid in self.pids() {
            assert!(!lives(pid), "{pid} was left behind");
        }
        let left: Vec<_> = std::fs::read_dir(self.path("tmp"))
            .expect("the place of the test is there")
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(left.is_empty(), "{left:?} were left behind");
        output
    }
}

/// Whether a process runs. One that has ended and was not waited for does not.
fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

#[test]
fn a_signal_ends_a_run_with_its_report_and_leaves_nothing_behind() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let stage = Stage::new();
        let (mock, proxy) = (stage.path("mock"), stage.path("proxy"));
        let words =
            ["--debug-build", "--duration", "60s", "--start-mock", "--start-proxy", "--json", "--mock"];
        let words = [&words[..], &[mock.to_str().unwrap(), "--prodex", proxy.to_str().unwrap()]].concat();
        let output = stage.interrupt(stage.start("load", &words), 2, signal);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a document");
        assert_eq!((&report["cut_short"], &report["passed"]), (&"interrupted".into(), &false.into()));
    }
}

#[test]
fn a_signal_ends_a_run_whose_programs_are_not_ready_yet() {
    for (task, words, programs) in [
        ("load", vec!["--debug-build", "--start-mock", "--mock", "slow"], 1),
        (
            "load",
            vec!["--debug-build", "--start-mock", "--mock", "mock", "--start-proxy", "--prodex", "slow"],
            2,
        ),
        ("load", vec!["--debug-build", "--compare", "--mock", "mock", "--prodex", "slow"], 2),
        ("load-smoke", vec!["--prodex", "slow"], 1),
    ] {
        let stage = Stage::new();
        let names = ["slow", "mock"].map(|name| (name, stage.path(name).to_str().unwrap().to_owned()));
        let path =
            |word| names.iter().find(|(name, _)| *name == word).map_or(word, |(_, path)| path.as_str());
        let words: Vec<&str> = words.iter().map(|word| path(word)).collect();
        let output = stage.interrupt(stage.start(task, &words), programs, Signal::SIGTERM);
        assert_eq!(output.status.code(), Some(130), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("interrupted"), "{words:?}: {}", stderr(&output));
    }
}
