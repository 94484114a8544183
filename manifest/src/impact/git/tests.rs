//! Small repositories, made with git, and what it says about their commits.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A repository that is gone when the test ends.
struct Repository(TempDir);

impl Repository {
    fn new() -> Self {
        let repository = Self(tempfile::tempdir().expect("there is room for a folder"));
        repository.git(&["init", "--quiet", "--initial-branch=main", "."]);
        repository
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn git(&self, arguments: &[&str]) -> String {
        let name = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
        let mut command = Command::new("git");
        command.current_dir(self.root()).args(name).args(arguments);
        // What the machine's owner configured is not the test's business.
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let output = command.output().expect("git starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("git speaks UTF-8").trim().to_owned()
    }

    fn write(&self, path: &str, text: &str) {
        let place = self.root().join(path);
        fs::create_dir_all(place.parent().expect("a file has a folder")).expect("the folder is made");
        fs::write(place, text).expect("the file is written");
    }

    /// Commits all there is; its hash.
    fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "a"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn between(&self, base: &str, head: &str) -> Change {
        Change::between(self.root(), base, head).expect("git can be asked")
    }

    fn paths(&self, base: &str, head: &str) -> Vec<String> {
        match self.between(base, head) {
            Change::Paths(touched) => touched.into_iter().map(|it| it.path.as_str().to_owned()).collect(),
            Change::Unknown(cause) => panic!("{cause}"),
        }
    }
}

const SOURCE: &str =
    "//! A file long enough that git takes it for the same after a move.\nfn a() {}\nfn b() {}\n";

#[test]
fn both_ends_of_a_rename_count() {
    let repository = Repository::new();
    repository.git(&["config", "diff.renames", "copies"]);
    repository.write("wire/src/a.rs", SOURCE);
    let base = repository.commit();
    repository.git(&["mv", "wire/src/a.rs", "a.rs"]);
    let head = repository.commit();
    assert_eq!(repository.paths(&base, &head), ["a.rs", "wire/src/a.rs"]);
}

#[test]
fn what_the_base_branch_did_meanwhile_does_not_count() {
    let repository = Repository::new();
    repository.write("a", "1");
    repository.commit();
    repository.git(&["checkout", "--quiet", "-b", "mine"]);
    repository.write("mine.md", "1");
    repository.commit();
    repository.git(&["checkout", "--quiet", "main"]);
    repository.write("theirs.rs", "1");
    repository.commit();
    assert_eq!(repository.paths("main", "mine"), ["mine.md"]);
}

#[test]
fn names_are_taken_as_they_are() {
    let repository = Repository::new();
    let base = repository.commit();
    for path in ["docs/ä.md", "a\nheavy=false", "a b", "\"quoted\""] {
        repository.write(path, "1");
    }
    let head = repository.commit();
    assert_eq!(repository.paths(&base, &head), ["\"quoted\"", "a\nheavy=false", "a b", "docs/ä.md"]);
}

#[cfg(target_os = "linux")]
#[test]
fn links_and_names_that_are_no_text_are_odd() {
    use std::os::unix::ffi::OsStrExt;
    let repository = Repository::new();
    let base = repository.commit();
    let name = OsStr::from_bytes(b"b\xff.md");
    fs::write(repository.root().join(name), "1").expect("the file is written");
    std::os::unix::fs::symlink("b", repository.root().join("a.md")).expect("the link is made");
    let head = repository.commit();
    let Change::Paths(touched) = repository.between(&base, &head) else { panic!("two paths differ") };
    let oddities: Vec<_> = touched.iter().map(|touched| touched.oddity).collect();
    assert_eq!(oddities, [Some(Oddity::Link), Some(Oddity::NotUtf8)]);
}

#[test]
fn a_link_that_becomes_a_file_is_odd_too() {
    let listing = b":120000 100644 1 2 T\0a.md\0:100644 160000 1 2 T\0b\0:100644 100644 1 2 M\0c\0";
    let touched = parse(listing).expect("the form is known");
    let oddities: Vec<_> = touched.iter().map(|touched| touched.oddity).collect();
    assert_eq!(oddities, [Some(Oddity::Link), Some(Oddity::Submodule), None]);
}

#[test]
fn an_answer_of_another_form_is_no_answer() {
    for listing in [&b"a.md\0"[..], b":100644 100644 1 2 M\0", b":100644 100644 1 2 M\0\0"] {
        assert_eq!(parse(listing), None, "{:?}", String::from_utf8_lossy(listing));
    }
    assert_eq!(parse(b""), Some(Vec::new()));
}

#[test]
fn what_git_cannot_know_is_unknown_with_its_cause() {
    let repository = Repository::new();
    let first = repository.commit();
    repository.write("a", "1");
    let second = repository.commit();
    let unknown = |base: &str, head: &str| match repository.between(base, head) {
        Change::Unknown(cause) => cause,
        Change::Paths(paths) => panic!("{paths:?}"),
    };
    let gone = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(unknown(&"0".repeat(40), &second), Cause::FirstPush);
    assert_eq!(unknown(&"0".repeat(64), &second), Cause::FirstPush);
    assert_eq!(unknown("", &second), Cause::NoBase);
    assert_eq!(unknown(gone, &second), Cause::Missing(gone.to_owned()));
    assert_eq!(unknown(&first, "nowhere"), Cause::Missing("nowhere".to_owned()));
    assert_eq!(unknown("--all", &second), Cause::Missing("--all".to_owned()));
    assert_eq!(unknown(&second, &second), Cause::NoPath);
    repository.git(&["checkout", "--quiet", "--orphan", "other"]);
    repository.commit();
    assert_eq!(unknown(&second, "other"), Cause::Unrelated);
}

#[test]
fn a_head_with_other_crates_or_rules_than_the_checkout_is_not_judged_by_these() {
    for judge in ["Cargo.lock", "wire/Cargo.toml", "manifest/impact.toml", "manifest/tests.toml"] {
        let repository = Repository::new();
        repository.write(judge, "1");
        let base = repository.commit();
        repository.write("a.md", "1");
        let head = repository.commit();
        assert_eq!(repository.paths(&base, &head), ["a.md"]);
        repository.write(judge, "2");
        assert_eq!(repository.between(&base, &head), Change::Unknown(Cause::OtherCheckout), "{judge}");
    }
}

proptest! {
    #[test]
    fn a_listing_never_panics(listing in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = parse(&listing);
    }

    #[test]
    fn every_path_of_a_listing_is_found(paths in proptest::collection::vec("[ -~\n]{1,9}", 0..5)) {
        let listing: String = paths.iter().map(|path| format!(":100644 100644 1 2 M\0{path}\0")).collect();
        let touched = parse(listing.as_bytes()).expect("the form is known");
        let found: Vec<_> = touched.iter().map(|touched| touched.path.as_str()).collect();
        prop_assert_eq!(found, paths);
    }
}

#[test]
fn a_history_that_is_cut_off_is_not_trusted() {
    let origin = Repository::new();
    origin.write("a", "1");
    origin.commit();
    origin.write("a", "2");
    origin.commit();
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let url = format!("file://{}", origin.root().display());
    let place = folder.path().join("clone");
    origin.git(&["clone", "--quiet", "--depth=1", &url, place.to_str().expect("the path is text")]);
    assert_eq!(
        Change::between(&place, "HEAD", "HEAD").expect("git can be asked"),
        Change::Unknown(Cause::Shallow)
    );
}

#[test]
fn a_folder_without_a_repository_is_an_error() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let error = Change::between(folder.path(), "a", "b").expect_err("there is no repository");
    assert!(matches!(error, Error::Failed { .. }), "{error}");
}

#[test]
fn events_that_are_not_about_a_change_are_unknown() {
    for event in ["schedule", "workflow_dispatch", "release", "something new"] {
        let expected = Change::Unknown(Cause::Event(event.to_owned()));
        assert_eq!(Change::for_event(Some(event)), Some(expected));
    }
    for event in [None, Some("push"), Some("pull_request"), Some("merge_group")] {
        assert_eq!(Change::for_event(event), None);
    }
}
