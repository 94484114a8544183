//! Changes to a small workspace, and what they reach.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::git::{Cause, Oddity};
use super::*;

const RULES: &str = r#"
version = 1

[[rule]]
id = "crates"
paths = ["wire/**", "proxy/**", "harness/**", "gone/**"]
effect = "crate"
because = "a crate's own file"

[[rule]]
id = "documents"
paths = ["*.md", "docs/**/*.md"]
effect = "nothing"
because = "prose for people"

[[rule]]
id = "fixtures"
paths = ["fixtures/**"]
effect = { crates = ["harness", "prodex"] }
because = "their tests read it"

[[rule]]
id = "runner"
paths = ["xtask/src/step.rs"]
effect = "everything"
because = "it runs every lane"

[[lane]]
id = "format"
when = "always"
because = "it is cheap"

[[lane]]
id = "lint"
when = "any-crate"
because = "it compiles"

[[lane]]
id = "tests"
when = "any-crate"
sharded = true
because = "tests"

[[lane]]
id = "compat"
when = { crates = ["prodex"] }
because = "real clients drive the proxy"

[[lane]]
id = "nightly"
when = { crates = ["xtask"] }
because = "only the tasks ask for it"
"#;

fn crates() -> Crates {
    Crates::sketch(&[
        ("wire", "wire", &["wire", "prodex", "harness"]),
        ("prodex", "proxy", &["prodex"]),
        ("harness", "harness", &["harness", "prodex"]),
        ("xtask", "xtask", &["xtask"]),
    ])
}

fn shards() -> Vec<ShardLabel> {
    let shard = |label: &str, packages: &[&str]| ShardLabel {
        label: label.to_owned(),
        packages: packages.iter().map(|name| (*name).to_owned()).collect(),
    };
    vec![shard("wire", &["wire"]), shard("proxy", &["prodex"]), shard("laboratory", &["harness", "xtask"])]
}

fn rules() -> &'static Rules {
    static PARSED: LazyLock<Rules> =
        LazyLock::new(|| Rules::parse(RULES, &crates().names()).expect("the rules are right"));
    &PARSED
}

fn of(change: &Change) -> Impact {
    Impact::of(change, rules(), &crates(), &shards())
}

fn of_paths(paths: &[&str]) -> Impact {
    of(&Change::named(paths.iter().map(|path| RepoPath::parse(path).expect("a path of the repository"))))
}

fn lanes(impact: &Impact) -> String {
    impact.lanes.iter().map(|lane| lane.id.as_str()).collect::<Vec<_>>().join(" ")
}

fn packages(impact: &Impact) -> String {
    impact.packages.keys().cloned().collect::<Vec<_>>().join(" ")
}

const EVERYTHING: &str = "format lint tests compat nightly";

#[test]
fn a_crate_reaches_those_that_build_on_it_and_the_lanes_that_ask_for_them() {
    let impact = of_paths(&["proxy/src/lib.rs"]);
    assert_eq!((packages(&impact).as_str(), lanes(&impact).as_str()), ("prodex", "format lint tests compat"));
    assert_eq!(impact.shards(), ["proxy"]);
    let impact = of_paths(&["wire/src/lib.rs"]);
    assert_eq!(packages(&impact), "harness prodex wire");
    assert_eq!(impact.shards(), ["wire", "proxy", "laboratory"]);
    assert!(impact.heavy && !impact.docs_only && impact.everything.is_empty());
}

#[test]
fn documents_reach_only_the_lanes_that_always_run() {
    let impact = of_paths(&["README.md", "docs/a/b.md"]);
    assert_eq!((packages(&impact).as_str(), lanes(&impact).as_str()), ("", "format"));
    assert!(impact.docs_only && !impact.heavy);
    assert!(impact.shards().is_empty());
}

#[test]
fn a_path_that_no_rule_knows_is_everything() {
    for path in ["surprise.bin", "docs/page.html", "xtask/src/main.rs"] {
        let impact = of_paths(&["README.md", path]);
        assert_eq!(
            (lanes(&impact).as_str(), impact.heavy, impact.docs_only),
            (EVERYTHING, true, false),
            "{path}"
        );
        let [reason] = impact.everything.as_slice() else { panic!("{:?}", impact.everything) };
        let shown = (reason.path.as_ref().map(RepoPath::as_str), reason.rule.as_str());
        assert_eq!(shown, (Some(path), UNKNOWN));
    }
}

#[test]
fn a_source_file_moved_among_the_documents_is_caught_at_both_ends() {
    let impact = of_paths(&["wire/src/sse.rs", "docs/sse.rs"]);
    assert_eq!(lanes(&impact), EVERYTHING);
    // Even where all of docs/ counts as prose, the end that it left counts.
    let lax = RULES.replace("docs/**/*.md", "docs/**");
    let rules = Rules::parse(&lax, &crates().names()).expect("the rules are right");
    let paths = ["wire/src/sse.rs", "docs/sse.rs"].map(RepoPath::listed);
    let impact = Impact::of(&Change::named(paths), &rules, &crates(), &shards());
    assert_eq!((packages(&impact).as_str(), impact.docs_only), ("harness prodex wire", false));
}

#[test]
fn a_detour_through_the_documents_does_not_hide_a_source_file() {
    let impact = of_paths(&["docs/../proxy/x.rs"]);
    assert_eq!((packages(&impact).as_str(), impact.docs_only), ("prodex", false));
}

#[test]
fn the_classifier_cannot_exempt_itself() {
    for path in ["manifest/impact.toml", "manifest/src/impact.rs", ".github/workflows/ci.yml", "Cargo.lock"] {
        let impact = of_paths(&[path]);
        assert_eq!(
            (lanes(&impact).as_str(), impact.everything[0].rule.as_str()),
            (EVERYTHING, rules::GUARDED)
        );
    }
}

#[test]
fn a_rule_for_a_crate_that_cargo_does_not_know_is_everything() {
    assert_eq!(lanes(&of_paths(&["gone/src/lib.rs"])), EVERYTHING);
}

#[test]
fn a_file_that_is_none_is_everything() {
    for oddity in [Oddity::Link, Oddity::Submodule, Oddity::NotUtf8] {
        let touched = Touched { path: RepoPath::listed("docs/a.md"), oddity: Some(oddity) };
        assert_eq!(lanes(&of(&Change::Paths(vec![touched]))), EVERYTHING, "{oddity}");
    }
}

#[test]
fn not_knowing_what_changed_is_everything_with_the_cause() {
    let causes = [
        Cause::Event("schedule".to_owned()),
        Cause::NoBase,
        Cause::FirstPush,
        Cause::Missing("abc".to_owned()),
        Cause::Shallow,
        Cause::Unrelated,
        Cause::OtherCheckout,
        Cause::NoPath,
    ];
    for cause in causes {
        let impact = of(&Change::Unknown(cause.clone()));
        assert_eq!(lanes(&impact), EVERYTHING);
        assert_eq!(packages(&impact), "harness prodex wire xtask");
        assert_eq!(impact.shards(), ["wire", "proxy", "laboratory"]);
        assert!(impact.heavy && !impact.docs_only);
        let reason = &impact.everything[0];
        assert_eq!((reason.rule.as_str(), &reason.because), (cause.id(), &cause.to_string()));
    }
}

#[test]
fn every_lane_and_crate_has_a_reason_that_is_a_path_of_the_change() {
    let paths = ["wire/src/lib.rs", "fixtures/a.jsonl", "README.md"];
    let impact = of_paths(&paths);
    let reasons =
        impact.lanes.iter().flat_map(|lane| &lane.reasons).chain(impact.packages.values().flatten());
    for reason in reasons.filter(|reason| reason.rule != "always") {
        let path = reason.path.as_ref().expect("a path of the change");
        assert!(paths[..2].contains(&path.as_str()), "{reason:?}");
    }
    assert!(impact.lanes.iter().all(|lane| !lane.reasons.is_empty()));
}

#[test]
fn a_crate_without_a_shard_brings_all_of_them() {
    let labels = |path: &str, shards: &[ShardLabel]| {
        let change = Change::named([RepoPath::listed(path)]);
        Impact::of(&change, rules(), &crates(), shards).shards().join(" ")
    };
    let [_, proxy, _] = shards().try_into().expect("three shards");
    let tasks = ShardLabel { label: "tasks".to_owned(), packages: BTreeSet::from(["xtask".to_owned()]) };
    assert_eq!(labels("proxy/a", &[proxy.clone(), tasks.clone()]), "proxy");
    assert_eq!(labels("wire/a", &[proxy, tasks]), "proxy tasks", "nobody holds the tests of wire");
}

proptest! {
    /// What a part of a change asks for, the whole change asks for too: nothing can be added to a change to
    /// have less run.
    #[test]
    fn more_paths_never_reach_less(
        paths in proptest::collection::vec(
            "(wire|proxy|harness|xtask|docs|gone|fixtures|manifest)/(src/)?(a|b|step|impact)[.](rs|md|toml)", 1..6,
        ),
        count in 1..6_usize,
    ) {
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        let (whole, part) = (of_paths(&paths), of_paths(&paths[..count.min(paths.len())]));
        let lanes = |impact: &Impact| impact.lanes.iter().map(|lane| lane.id.clone()).collect::<BTreeSet<_>>();
        prop_assert!(lanes(&part).is_subset(&lanes(&whole)));
        prop_assert!(part.packages.keys().all(|name| whole.packages.contains_key(name)));
        prop_assert!(part.shards().iter().all(|label| whole.shards().contains(label)));
        prop_assert!(whole.heavy || !part.heavy);
        prop_assert!(part.docs_only || !whole.docs_only);
        prop_assert!(whole.docs_only != whole.heavy, "here every crate has a lane");
    }
}

#[test]
fn the_report_says_what_runs_and_why() {
    let paths = ["proxy/src/lib.rs", "fixtures/a.jsonl", "README.md"];
    insta::assert_snapshot!(output::text(&of_paths(&paths), false), @r"
    crate harness
      fixtures/a.jsonl: their tests read it (`fixtures`)
    crate prodex
      proxy/src/lib.rs: a crate's own file (`crates`)
      fixtures/a.jsonl: their tests read it (`fixtures`)
    lane format
      it is cheap (`always`)
    lane lint
      proxy/src/lib.rs: a crate's own file (`crates`)
      fixtures/a.jsonl: their tests read it (`fixtures`)
    lane tests (proxy, laboratory)
      proxy/src/lib.rs: a crate's own file (`crates`)
      fixtures/a.jsonl: their tests read it (`fixtures`)
    lane compat
      proxy/src/lib.rs: a crate's own file (`crates`)
      fixtures/a.jsonl: their tests read it (`fixtures`)
    ci-impact: heavy: crates reached: harness, prodex (format, lint, tests, compat)
    ");
    insta::assert_snapshot!(output::text(&of_paths(&["README.md"]), false), @r"
    lane format
      it is cheap (`always`)
    ci-impact: light: no path that changed can change a program (format)
    ");
    insta::assert_snapshot!(output::text(&of(&Change::Unknown(Cause::FirstPush)), false), @r"
    everything
      the branch is pushed for the first time (`first-push`)
    lane format
      it is cheap (`always`)
    lane lint
    lane tests (wire, proxy, laboratory)
    lane compat
    lane nightly
    ci-impact: heavy: everything: the branch is pushed for the first time (`first-push`) (format, lint, tests, compat, nightly)
    ");
    insta::assert_snapshot!(output::text(&of_paths(&["wire/a", "surprise"]), true), @r"
    wire/a: changes wire by the rule `crates`: a crate's own file
    surprise: changes everything by the rule `unknown`: no rule knows this path
    everything
      surprise: no rule knows this path (`unknown`)
    lane format
      it is cheap (`always`)
    lane lint
    lane tests (wire, proxy, laboratory)
    lane compat
    lane nightly
    ci-impact: heavy: everything: surprise: no rule knows this path (`unknown`) (format, lint, tests, compat, nightly)
    ");
}

#[test]
fn the_document_has_what_was_found_as_values() {
    let json = serde_json::to_string_pretty(&of_paths(&["harness/a.rs"])).expect("an impact is JSON");
    insta::assert_snapshot!(json, @r#"
    {
      "version": 1,
      "heavy": true,
      "docs_only": false,
      "everything": [],
      "packages": {
        "harness": [
          {
            "path": "harness/a.rs",
            "rule": "crates",
            "because": "a crate's own file"
          }
        ],
        "prodex": [
          {
            "path": "harness/a.rs",
            "rule": "crates",
            "because": "`prodex` builds on `harness`"
          }
        ]
      },
      "lanes": [
        {
          "id": "format",
          "shards": null,
          "reasons": [
            {
              "path": null,
              "rule": "always",
              "because": "it is cheap"
            }
          ]
        },
        {
          "id": "lint",
          "shards": null,
          "reasons": [
            {
              "path": "harness/a.rs",
              "rule": "crates",
              "because": "a crate's own file"
            }
          ]
        },
        {
          "id": "tests",
          "shards": [
            "proxy",
            "laboratory"
          ],
          "reasons": [
            {
              "path": "harness/a.rs",
              "rule": "crates",
              "because": "a crate's own file"
            }
          ]
        },
        {
          "id": "compat",
          "shards": null,
          "reasons": [
            {
              "path": "harness/a.rs",
              "rule": "crates",
              "because": "`prodex` builds on `harness`"
            }
          ]
        }
      ],
      "paths": [
        {
          "path": "harness/a.rs",
          "rule": "crates",
          "because": "a crate's own file",
          "reach": {
            "crates": [
              "harness"
            ]
          }
        }
      ]
    }
    "#);
}

#[test]
fn the_outputs_are_one_line_each_whatever_a_path_is_called() {
    insta::assert_snapshot!(output::github(&of_paths(&["proxy/src/lib.rs"])), @r#"
heavy=true
docs_only=false
lanes=["format","lint","tests","compat"]
packages=["prodex"]
shards=["proxy"]
reason=crates reached: prodex
"#);
    let touched = Touched { path: RepoPath::listed("a\nheavy=false\r\nlanes=[]"), oddity: None };
    let text = output::github(&of(&Change::Paths(vec![touched])));
    let names: Vec<_> = text.lines().map(|line| line.split('=').next().unwrap_or_default()).collect();
    assert_eq!(names, ["heavy", "docs_only", "lanes", "packages", "shards", "reason"], "{text}");
    assert!(text.starts_with("heavy=true\n") && !text.contains('\r'), "{text}");
}

#[test]
fn the_matrix_is_all_labels_less_those_that_are_not_to_run() {
    let all = shards();
    let expected = r#"{"label":["wire","proxy","laboratory"],"exclude":[{"label":"wire"}]}"#;
    assert_eq!(output::matrix(&all, &["laboratory", "proxy"]), expected);
    assert_eq!(output::github_matrix(&all, &["proxy", "wire"]), "exclude=[{\"label\":\"laboratory\"}]\n");
    assert_eq!(output::github_matrix(&all, &["laboratory", "proxy", "wire"]), "exclude=[]\n");
}
