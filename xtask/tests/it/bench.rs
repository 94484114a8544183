//! `cargo xtask bench-check` and `bench-calibrate` over a small workspace whose one case can be made slower.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"benches\"]\n"),
    ("Cargo.lock", "version = 4\n\n[[package]]\nname = \"benches\"\nversion = \"1.0.0\"\n"),
    (
        "benches/Cargo.toml",
        "[package]\nname = \"benches\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n\
         [[bench]]\nname = \"gate\"\nharness = false\n",
    ),
    ("benches/src/lib.rs", ""),
    ("benches/benches/gate.rs", GATE),
];

/// What the real one prints, with times that a variable stretches.
const GATE: &str = r###"
fn main() {
    let slower: f64 = std::env::var("SAMPLE_SLOWER").map_or(1.0, |text| text.parse().unwrap());
    for (case, ratio) in [("one/case", 2.0 * slower), ("two/case", 0.5)] {
        if std::env::args().skip(1).all(|word| word == "--bench" || case.starts_with(&word)) {
            println!(r##"{{"case":"{case}","ratio":{ratio},"p90":9.5,"nanoseconds":1.5,"reference":1.0,"pairs":5}}"##);
        }
    }
}
"###;

const THRESHOLDS: &str = "\
# Kept.
version = 1

[policy]
basis = \"max\"
percentile = 90
margin = 25
min_headroom = 15
min_scale = 50
min_change = 5
instruction_margin = 5
";

/// The workspace, with thresholds of its own for one test.
struct Sample {
    root: PathBuf,
    thresholds: tempfile::NamedTempFile,
}

impl Sample {
    /// One whose cases were calibrated as they are.
    fn calibrated() -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("benches-sample");
        for (path, text) in FILES {
            let path = root.join(path);
            if fs::read_to_string(&path).is_ok_and(|old| old == *text) {
                continue;
            }
            let folder = path.parent().expect("the file has a folder");
            fs::create_dir_all(folder).expect("the folder is made");
            // Other tests write the same file at the same time: whole or not at all.
            let part = tempfile::NamedTempFile::new_in(folder).expect("a temporary file");
            fs::write(part.path(), text).expect("the file is written");
            part.persist(&path).expect("the file is put in place");
        }
        let thresholds = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(thresholds.path(), THRESHOLDS).expect("the file is written");
        let sample = Self { root, thresholds };
        let measured = sample.check(&["--json"], "1");
        // Nothing has a threshold yet.
        assert_eq!(measured.status.code(), Some(1), "{}", stderr(&measured));
        let runs = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(runs.path(), &measured.stdout).expect("the file is written");
        let runs = runs.path().to_str().expect("it is text");
        assert_eq!(sample.run("bench-calibrate", &[runs, "--apply"], "1").status.code(), Some(0));
        sample
    }

    fn run(&self, task: &str, args: &[&str], slower: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", self.root.join("target"));
        command.env("SAMPLE_SLOWER", slower).stdin(Stdio::null());
        command.arg(task).arg("--thresholds").arg(self.thresholds.path()).args(args);
        command.output().expect("the program runs")
    }

    fn check(&self, args: &[&str], slower: &str) -> Output {
        self.run("bench-check", &[&["--time"], args].concat(), slower)
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_case_that_is_made_twice_as_slow_is_found_and_noise_is_not() {
    let sample = Sample::calibrated();
    for slower in ["0.7", "1", "1.2"] {
        let output = sample.check(&[], slower);
        assert_eq!(output.status.code(), Some(0), "{slower}: {}", stdout(&output));
        assert!(stdout(&output).ends_with("bench-check: 2 cases within their thresholds\n"));
    }
    let output = sample.check(&[], "2");
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("\none/case: takes 4.00 times as long as the reference"), "{text}");
    assert!(text.ends_with("bench-check: NOT within their thresholds: one/case\n"), "{text}");
    assert_eq!(sample.check(&["--bench", "two"], "2").status.code(), Some(0));
}

#[test]
fn calibration_writes_what_the_next_check_passes_and_keeps_comments() {
    let sample = Sample::calibrated();
    let text = fs::read_to_string(sample.thresholds.path()).expect("it is there");
    let one = "[case.\"one/case\"]\nratio = 2.0\nscale = 125\n";
    assert!(text.starts_with(THRESHOLDS) && text.contains(one), "{text}");
    fs::write(sample.thresholds.path(), text.replace(one, "")).expect("the file is written");
    let output = sample.check(&[], "1");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("one/case: there is no threshold for its time"), "{}", stdout(&output));
}

#[test]
fn a_mistake_in_the_thresholds_is_shown_where_it_is() {
    let sample = Sample::calibrated();
    fs::write(sample.thresholds.path(), THRESHOLDS.replace("margin = 25", "margin = -3"))
        .expect("it is written");
    for task in ["bench-check", "bench-calibrate"] {
        let output = sample.run(task, &[], "1");
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        assert!(text.contains("`margin` is -3") && text.contains("margin = -3"), "{text}");
    }
}

#[test]
fn instructions_that_were_asked_for_are_never_skipped_in_silence() {
    let sample = Sample::calibrated();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.current_dir(&sample.root).env("PATH", "/nonexistent").arg("bench-check").arg("--thresholds");
    let output =
        command.arg(sample.thresholds.path()).arg("--instructions").output().expect("the program runs");
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("instructions cannot be counted: install valgrind"),
        "{}",
        stderr(&output)
    );
}
