//! The report as a whole, and a project read from a real checkout.

use std::path::Path;
use std::process::Command;

use super::project::Member;
use super::*;

/// A small project with one thing wrong for every check.
fn untidy() -> Project {
    let files = [
        (
            "wire/Cargo.toml",
            "[package]\nname = \"wire\"\nversion.workspace = true\nedition = \"2021\"\n\
            rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n\
            [dependencies]\nprodex.workspace = true\n[lints]\nworkspace = true\n",
        ),
        ("wire/src/lib.rs", "//! Names and\n//! shapes.\n"),
        ("proxy/src/lib.rs", "//! A proxy that has one setting.\n\nmod config;\n"),
        ("proxy/src/config.rs", "//! The one setting of a proxy.\n\nsettings! {\n    workers;\n}\n"),
        ("scripts/test.sh", "cargo test\n"),
        ("README.md", "`cargo xtask compat`\n"),
        (".ci/run", "cargo test\n"),
    ];
    let npmrc = (".npmrc", concat!("registry=https://registry.npmjs", ".org/\n"));
    let files: Vec<_> = files.into_iter().chain([npmrc]).collect();
    let wire = Member::sketch("wire", "wire").on("prodex", false);
    Project::sketch(&files).with(wire).with(Member::sketch("prodex", "proxy").on("wire", false))
}

#[test]
fn every_finding_names_its_place_and_what_would_be_right() {
    // The report quotes the host, which this file may not.
    let text = Report::of(&untidy()).text().replace(concat!("npmjs", ".org"), "[host]");
    insta::assert_snapshot!(text, @r#"
    .ci/run: workflows: does not run `cargo xtask test-fast`, the tests as README.md names them
      right: a stage with the command `cargo xtask test-fast`
    .npmrc: top level: does not belong to the top level
      right: a place in a crate's folder or in `fixtures/`; nothing else at the top
    .npmrc:1: registries: names the registry host `[host]`
      right: the tool's own configuration decides where packages come from
    ARCHITECTURE.md: map: there is no map of the project
      right: a document with the lines `<!-- map: written by `cargo xtask tidy --bless` -->` and `<!-- end of the map -->`, then `cargo xtask tidy --bless`
    README.md: commands: does not open with the two commands
      right: the first block of code is `cargo xtask compat` and `cargo xtask test-fast`, a line each
    README.md:1: commands: `cargo xtask compat` is refused: unexpected argument 'compat' found
      right: a command as `cargo xtask --help` shows it
    manifest/impact.toml: impact: there are no rules that say what a change can reach
      right: rules as `manifest::impact::rules` reads them
    proxy/Cargo.toml: manifests: git ignores the manifest
      right: a crate's manifest is committed with it: `git status --ignored` says why it is not
    proxy/src/config.rs:4: settings: a setting that is not understood: workers;
      right: `name: Type = "default", "VARIABLE", "range";` below its doc lines
    scripts: top level: does not belong to the top level
      right: a place in a crate's folder or in `fixtures/`; nothing else at the top
    wire/Cargo.toml:4: manifests: `edition` of `[package]` is not the workspace's
      right: `edition.workspace = true`
    wire/Cargo.toml:9: arrows: `wire` may not import `prodex`
      right: it may import nothing of ours (the table is in xtask/src/tidy/arrows.rs)
    wire/src/lib.rs:1: modules: the first line is not one whole sentence
      right: `//! ` and a sentence that fits the line and says what lives here
    tidy: 13 findings in 8 files (arrows 1, commands 2, impact 1, manifests 2, map 1, modules 1, registries 1, settings 1, top level 2, workflows 1)
    "#);
}

#[test]
fn every_check_can_fail() {
    let report = Report::of(&untidy());
    for check in &report.checks {
        assert!(report.findings.iter().any(|finding| finding.check == *check), "{check} found nothing");
    }
}

#[test]
fn the_json_report_has_the_findings_as_values() {
    let mut report = Report::of(&untidy());
    report.findings.retain(|finding| finding.path == "wire/src/lib.rs");
    let json = serde_json::to_string_pretty(&report).expect("a report is JSON");
    insta::assert_snapshot!(json, @r#"
    {
      "version": 1,
      "files": 8,
      "checks": [
        "arrows",
        "manifests",
        "modules",
        "map",
        "top level",
        "registries",
        "impact",
        "workflows",
        "commands",
        "settings"
      ],
      "findings": [
        {
          "path": "wire/src/lib.rs",
          "line": 1,
          "check": "modules",
          "problem": "the first line is not one whole sentence",
          "right": "`//! ` and a sentence that fits the line and says what lives here"
        }
      ]
    }
    "#);
}

/// Writes files below `root`, with the folders they need.
fn write(root: &Path, files: &[(&str, &[u8])]) {
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("the file has a folder")).expect("the folder is made");
        fs::write(path, bytes).expect("the file is written");
    }
}

fn git(root: &Path, args: &[&str]) {
    let status = Command::new("git").current_dir(root).args(args).status().expect("git starts");
    assert!(status.success(), "git {args:?}");
}

const WORKSPACE: &[u8] = b"[workspace]\nresolver = \"3\"\nmembers = [\"wire\"]\n";
const WIRE: &[u8] = b"[package]\nname = \"wire\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n\
    [dependencies]\nother = { package = \"prodex\", version = \"1\" }\n[dev-dependencies]\ninsta = \"1\"\n";

#[test]
fn a_checkout_is_read_as_git_and_cargo_see_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    write(root, &[("Cargo.toml", WORKSPACE), ("wire/Cargo.toml", WIRE), ("wire/src/lib.rs", b"")]);
    write(root, &[(".gitignore", b"/target/\n"), ("target/a.rs", b""), ("gone.md", b""), ("x.bin", b"\xff")]);
    git(root, &["init", "--quiet"]);
    git(root, &["add", "--all"]);
    fs::remove_file(root.join("gone.md")).expect("the file is removed");
    write(root, &[("new.md", b"not added yet\n")]);

    let project = Project::open_at(&root.join("wire"), clap::Command::new("x")).expect("the project opens");
    let paths: Vec<_> = project.paths().collect();
    let expected = [".gitignore", "Cargo.toml", "new.md", "wire/Cargo.toml", "wire/src/lib.rs", "x.bin"];
    assert_eq!(paths, expected);
    assert_eq!((project.text("new.md"), project.text("x.bin")), (Some("not added yet\n"), None));

    let [wire] = project.members() else { panic!("one crate: {:?}", project.members()) };
    assert_eq!((wire.name.as_str(), wire.folder.as_str()), ("wire", "wire"));
    assert_eq!(wire.targets, ["wire/src/lib.rs"]);
    let dependencies = wire.dependencies.iter().map(|it| (it.name.as_str(), it.key.as_str(), it.is_dev));
    assert_eq!(dependencies.collect::<Vec<_>>(), [("prodex", "other", false), ("insta", "insta", true)]);
}

#[test]
fn a_blessed_map_is_written_and_then_right() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    let document =
        b"# Map\n\n<!-- map: written by `cargo xtask tidy --bless` -->\n<!-- end of the map -->\n\nMore.\n";
    write(root, &[("Cargo.toml", WORKSPACE), ("wire/Cargo.toml", WIRE), (map::DOCUMENT, document)]);
    write(root, &[("wire/src/lib.rs", b"//! Names and shapes.\n")]);
    git(root, &["init", "--quiet"]);

    let mut project = Project::open_at(root, clap::Command::new("x")).expect("the project opens");
    assert_eq!(map::check(&project).len(), 1);
    assert_eq!(bless(&mut project).expect("the map is written"), ["ARCHITECTURE.md"]);
    assert_eq!(map::check(&project), []);
    assert!(bless(&mut project).expect("nothing is left to write").is_empty());

    let text = fs::read_to_string(root.join(map::DOCUMENT)).expect("the document is read");
    assert!(text.contains("- `wire/src/lib.rs`: Names and shapes.\n"), "{text}");
    assert!(text.starts_with("# Map\n") && text.ends_with("\n\nMore.\n"), "{text}");
}

#[test]
fn a_folder_without_git_or_cargo_cannot_be_checked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    let open =
        || Project::open_at(root, clap::Command::new("x")).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(open(), Err("failed to ask cargo for the workspace".to_owned()));
    write(root, &[("Cargo.toml", WORKSPACE), ("wire/Cargo.toml", WIRE), ("wire/src/lib.rs", b"")]);
    let error = open().expect_err("there is no repository");
    assert!(error.starts_with("git could not list the files: "), "{error}");
}
