//! Mistakes in the rules, each refused with its place, and the order in which rules decide.

use super::*;

const RULES: &str = r#"
version = 1

[[rule]]
id = "crates"
paths = ["wire/**", "proxy/**"]
effect = "crate"
because = "the crate's own files"

[[rule]]
id = "documents"
paths = ["*.md", "docs/**/*.md"]
effect = "nothing"
because = "prose"

[[rule]]
id = "fixtures"
paths = ["fixtures/**"]
effect = { crates = ["prodex"] }
because = "the proxy's tests read them"

[[lane]]
id = "lint"
when = "any-crate"
because = "it compiles"
"#;

fn parse(text: &str) -> Result<Rules, Box<Mistake>> {
    Rules::parse(text, &BTreeSet::from(["wire".to_owned(), "prodex".to_owned()]))
}

fn rule_for(path: &str) -> Option<String> {
    let rules = parse(RULES).expect("the rules are right");
    rules.decide(&RepoPath::listed(path)).map(|decision| decision.rule.to_owned())
}

#[test]
fn the_first_rule_that_matches_decides() {
    assert_eq!(rule_for("wire/README.md").as_deref(), Some("crates"));
    assert_eq!(rule_for("README.md").as_deref(), Some("documents"));
    assert_eq!(rule_for("docs/a/b.md").as_deref(), Some("documents"));
    assert_eq!(rule_for("fixtures/codex/a.jsonl").as_deref(), Some("fixtures"));
}

#[test]
fn a_star_stays_in_its_folder() {
    assert_eq!(rule_for("elsewhere/README.md"), None);
    assert_eq!(rule_for("docs/a.rs"), None, "a source file among documents is not a document");
}

#[test]
fn no_data_can_exempt_what_decides() {
    let everything = RULES.replace("\"*.md\"", "\"**\"").replace("\"wire/**\", ", "");
    let rules = parse(&everything).expect("the rules are right");
    let deciding = [
        "manifest/impact.toml",
        "manifest/tests.toml",
        "manifest/src/impact.rs",
        "manifest/src/impact/rules/tests.rs",
        "xtask/src/ci_impact.rs",
        "xtask/src/ci_matrix.rs",
        ".ci/run",
        ".github/workflows/ci.yml",
        ".cargo/config.toml",
        "Cargo.toml",
        "Cargo.lock",
        "wire/Cargo.toml",
        "wire/build.rs",
        "clippy.toml",
        "proxy/clippy.toml",
        "proxy/.clippy.toml",
        "deny.toml",
        "rust-toolchain.toml",
        "rust-toolchain",
    ];
    for path in deciding {
        let decision = rules.decide(&RepoPath::listed(path)).expect(path);
        assert_eq!((decision.rule, decision.effect), (GUARDED, &Effect::Everything), "{path}");
    }
    let decision = rules.decide(&RepoPath::listed("wire/src/lib.rs")).expect("a rule for all matches");
    assert_eq!(decision.effect, &Effect::Nothing);
}

#[test]
fn the_guarded_files_of_the_classifier_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let is_plain = |pattern: &&&str| !pattern.contains(['*', '{']);
    for path in ALWAYS_EVERYTHING.iter().filter(is_plain) {
        assert!(root.join(path).exists(), "{path} is guarded and does not exist: was it moved?");
    }
}

#[test]
fn a_mistake_is_refused_with_its_place() {
    let cases = [
        ("version = 1", "version = 2", "version 2 is not known", "2"),
        ("id = \"documents\"", "id = \"crates\"", "the id `crates` is taken", "\"crates\""),
        ("id = \"documents\"", "id = \"guarded\"", "the id `guarded` is taken", "\"guarded\""),
        ("id = \"documents\"", "id = \"a b\"", "`a b` is no id", "\"a b\""),
        ("\"nothing\"", "\"light\"", "unknown variant `light`", "\"light\""),
        ("[\"prodex\"]", "[\"proxy\"]", "there is no crate `proxy`", "[\"proxy\"]"),
        ("[\"prodex\"]", "[]", "no crate is named", "[]"),
        ("\"prose\"", "\" \"", "there is no reason", "\" \""),
        ("[\"fixtures/**\"]", "[]", "the rule has no path", "[]"),
        ("[\"fixtures/**\"]", "[\"fixtures/{\"]", "error parsing glob", "[\"fixtures/{\"]"),
        ("because = \"prose\"", "why = \"prose\"", "unknown field `why`", "why"),
        ("when = \"any-crate\"", "when = \"sometimes\"", "unknown variant `sometimes`", "\"sometimes\""),
    ];
    for (right, wrong, problem, place) in cases {
        let text = RULES.replace(right, wrong);
        let error = parse(&text).expect_err(wrong);
        assert!(error.problem.starts_with(problem), "{wrong}: {}", error.problem);
        let (from, length) = (error.place.offset(), error.place.len());
        assert_eq!(&text[from..from + length], place, "{wrong}");
    }
}

#[test]
fn a_rule_and_a_lane_may_share_a_name_and_two_lanes_may_not() {
    let shared = RULES.replace("id = \"lint\"", "id = \"crates\"");
    assert!(parse(&shared).is_ok());
    let twice = format!("{RULES}\n[[lane]]\nid = \"lint\"\nwhen = \"always\"\nbecause = \"cheap\"\n");
    assert_eq!(parse(&twice).expect_err("two lanes of a name").problem, "the id `lint` is taken");
}
