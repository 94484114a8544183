//! `cargo xtask ci-impact` and `ci-matrix` over a small workspace with a history.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const RULES: &str = r#"version = 1

[[rule]]
id = "crates"
paths = ["one/**", "two/**"]
effect = "crate"
because = "a file of the crate"

[[rule]]
id = "documents"
paths = ["*.md", "docs/**/*.md"]
effect = "nothing"
because = "prose"

[[lane]]
id = "format"
when = "always"
because = "cheap"

[[lane]]
id = "tests"
when = "any-crate"
sharded = true
because = "tests"
"#;

const SHARDS: &str = "[[shard]]\nlabel = \"one\"\nfilter = \"package(=one)\"\n\n[[shard]]\nlabel = \"two\"\nfilter = \"package(=two)\"\n";

const LOCK: &str = "version = 4\n\n[[package]]\nname = \"one\"\nversion = \"1.0.0\"\n\n\
    [[package]]\nname = \"two\"\nversion = \"1.0.0\"\n";

const SOURCE: &str =
    "//! Long enough for git to know it again after a move.\n\npub fn one() {}\n\npub fn two() {}\n";

/// A workspace of two crates that know nothing of each other, with one commit.
struct Checkout(TempDir);

impl Checkout {
    fn new() -> Self {
        let checkout = Self(tempfile::tempdir().expect("there is room for a folder"));
        let package =
            |name| format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n");
        checkout.write("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"one\", \"two\"]\n");
        checkout.write("Cargo.lock", LOCK);
        for name in ["one", "two"] {
            checkout.write(&format!("{name}/Cargo.toml"), &package(name));
            checkout.write(&format!("{name}/src/lib.rs"), SOURCE);
        }
        checkout.write("manifest/impact.toml", RULES);
        checkout.write("manifest/tests.toml", SHARDS);
        checkout.write("README.md", "a\n");
        checkout.git(&["init", "--quiet", "--initial-branch=main", "."]);
        checkout.commit();
        checkout
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, text: &str) {
        let place = self.root().join(path);
        fs::create_dir_all(place.parent().expect("a file has a folder")).expect("the folder is made");
        fs::write(place, text).expect("the file is written");
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.current_dir(self.root()).args(["-c", "user.name=a", "-c", "user.email=a@example.com"]);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").args(arguments);
        assert!(command.status().expect("git starts").success(), "{arguments:?}");
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "a"]);
    }

    fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.current_dir(self.root()).env_remove("GITHUB_OUTPUT").args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.xtask(arguments).output().expect("the program runs")
    }

    /// The outputs of a step that asks about the last commit, behind what another step left there.
    fn outputs(&self, command: &str, base: &str) -> String {
        let file = self.root().join("target-outputs");
        fs::write(&file, "before=1\n").expect("the file is written");
        let mut asked = self.xtask(&[command, "--base", base, "--event-name", "push", "--github-output"]);
        let output = asked.env("GITHUB_OUTPUT", &file).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        fs::read_to_string(file).expect("the outputs are text")
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_document_is_light_and_its_outputs_stand_behind_those_of_others() {
    let checkout = Checkout::new();
    checkout.write("README.md", "b\n");
    checkout.commit();
    let expected = "before=1\nheavy=false\ndocs_only=true\nlanes=[\"format\"]\npackages=[]\nshards=[]\n\
                    reason=no path that changed can change a program\n";
    assert_eq!(checkout.outputs("ci-impact", "HEAD~1"), expected);
    assert_eq!(
        checkout.outputs("ci-matrix", "HEAD~1"),
        "before=1\nexclude=[{\"label\":\"one\"},{\"label\":\"two\"}]\n"
    );
}

#[test]
fn a_crate_brings_its_own_shard_and_no_other() {
    let checkout = Checkout::new();
    checkout.write("one/src/lib.rs", "//! New.\n");
    checkout.commit();
    let outputs = checkout.outputs("ci-impact", "HEAD~1");
    assert!(outputs.contains("\nheavy=true\n") && outputs.contains("\nshards=[\"one\"]\n"), "{outputs}");
    assert_eq!(checkout.outputs("ci-matrix", "HEAD~1"), "before=1\nexclude=[{\"label\":\"two\"}]\n");
}

#[test]
fn a_source_file_moved_among_the_documents_is_caught() {
    let checkout = Checkout::new();
    checkout.write("docs/page.md", "a\n");
    checkout.commit();
    checkout.git(&["mv", "one/src/lib.rs", "docs/lib.rs"]);
    checkout.write("one/src/lib.rs", "//! What is left.\n");
    checkout.commit();
    let outputs = checkout.outputs("ci-impact", "HEAD~1");
    assert!(outputs.contains("\nheavy=true\ndocs_only=false\n"), "{outputs}");
    assert!(outputs.contains("\nshards=[\"one\",\"two\"]\n"), "{outputs}");
    assert!(outputs.contains("reason=everything: docs/lib.rs: no rule knows this path"), "{outputs}");
}

#[test]
fn a_name_with_a_line_end_sets_no_output() {
    let checkout = Checkout::new();
    checkout.write("one/a\nheavy=false\nlanes=[]", "a\n");
    checkout.write("surprise\nheavy=false", "a\n");
    checkout.commit();
    let outputs = checkout.outputs("ci-impact", "HEAD~1");
    assert_eq!(outputs.lines().filter(|line| line.starts_with("heavy=")).count(), 1, "{outputs}");
    assert_eq!(outputs.lines().count(), 7, "{outputs}");
}

#[test]
fn not_knowing_what_changed_is_everything_and_no_error() {
    let checkout = Checkout::new();
    let zero = "0".repeat(40);
    for (arguments, reason) in [
        (["--base", zero.as_str()], "pushed for the first time"),
        (["--base", "0123456789abcdef0123456789abcdef01234567"], "is not in this checkout"),
        (["--base", "HEAD"], "no path differs"),
        (["--event-name", "schedule"], "`schedule` is not about a change"),
        (["--event-name", "workflow_dispatch"], "`workflow_dispatch` is not about a change"),
        (["--event-name", "push"], "no base is known"),
    ] {
        let output = checkout.run(&[&["ci-impact"], &arguments[..]].concat());
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(text.contains(reason) && text.contains("lane tests (one, two)"), "{arguments:?}: {text}");
    }
}

#[test]
fn paths_are_judged_by_what_they_name() {
    let checkout = Checkout::new();
    let output = checkout.run(&["ci-impact", "--path", "docs/../two/x.rs", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(document["docs_only"], false);
    assert_eq!(document["lanes"][1]["shards"], serde_json::json!(["two"]));
    for (event, verdict) in [("push", "ci-impact: light: "), ("schedule", "ci-impact: heavy: everything: ")] {
        let output = checkout.run(&["ci-impact", "--path", "README.md", "--event-name", event]);
        assert!(stdout(&output).contains(verdict), "{output:?}");
    }
    let output = checkout.run(&["ci-impact", "--explain", "docs/a/../page.md"]);
    assert!(stdout(&output).starts_with("docs/page.md: changes nothing by the rule `documents`: prose\n"));
}

#[test]
fn what_makes_no_sense_is_an_error_of_usage() {
    let checkout = Checkout::new();
    for arguments in [
        &["ci-impact"][..],
        &["ci-impact", "--path", "../elsewhere"],
        &["ci-impact", "--path", "/etc/passwd"],
        &["ci-impact", "--path", "a", "--base", "HEAD"],
        &["ci-impact", "--path", "a", "--github-output"],
        &["ci-matrix", "--github-output"],
    ] {
        assert_eq!(checkout.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_mistake_in_the_rules_is_shown_with_its_line() {
    let checkout = Checkout::new();
    checkout.write("manifest/impact.toml", &RULES.replace("\"nothing\"", "\"light\""));
    let output = checkout.run(&["ci-impact", "--path", "README.md"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(
        shown.contains("unknown variant `light`") && shown.contains("manifest/impact.toml:12:10"),
        "{shown}"
    );
}

#[test]
fn without_git_nobody_can_say() {
    let checkout = Checkout::new();
    let cargo = PathBuf::from(env!("CARGO"));
    let mut asked = checkout.xtask(&["ci-impact", "--base", "HEAD"]);
    // Where cargo is, rustc is; git is not.
    let output = asked.env("PATH", cargo.parent().expect("cargo is in a folder")).output();
    let output = output.expect("the program runs");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("git, which is not installed"), "{output:?}");
}

#[test]
fn the_matrix_of_all_shards_needs_no_change() {
    let checkout = Checkout::new();
    let output = checkout.run(&["ci-matrix"]);
    assert_eq!(
        (output.status.code(), stdout(&output).trim()),
        (Some(0), r#"{"label":["one","two"],"exclude":[]}"#)
    );
    checkout.write("README.md", "b\n");
    checkout.commit();
    assert_eq!(
        checkout.run(&["ci-matrix", "--base", "HEAD~1"]).status.code(),
        Some(4),
        "nothing is selected"
    );
}
