//! Manifests that do not own the tests they should, in every way there is.

use super::*;

const TEXT: &str = r#"
[[case]]
id = "wire"
filter = "package(wire)"
tags = ["parallel-safe", "smoke", "continuation"]

[[case]]
id = "rest"
filter = "package(rest)"
tags = ["serial"]
reason = "one port"

[[case]]
id = "tools"
filter = "package(tools)"
tags = ["env"]
reason = "needs cargo"

[[case]]
id = "many"
filter = "test(many)"
tags = ["stress"]
reason = "load"

[[case]]
id = "late"
filter = "test(late)"
tags = ["quarantine"]
reason = "flaps"
quarantine = { owner = "ann", issue = "7", since = "2026-11-01", expires = "2026-12-01", fails-with = "x" }

[[shard]]
label = "wire"
filter = "package(wire)"
"#;

const CI: &str = "\
jobs:
  test:
    strategy:
      matrix:
        include:
          - { label: wire, filter: package(wire) }
    steps:
      - run: cargo xtask test-shard --label ${{ matrix.label }}
";

/// What a test changes about facts that are right.
struct House {
    tests: Vec<TestId>,
    cases: Vec<Matches>,
    shards: Vec<Matches>,
    ci: String,
    passes: usize,
    today: Date,
}

fn house() -> House {
    let ids = [("wire", "a::one"), ("rest", "b::two"), ("tools", "c"), ("rest", "many"), ("rest", "late")];
    let tests = ids.map(|(binary, test)| TestId { binary: binary.into(), test: test.into() });
    House {
        tests: tests.to_vec(),
        cases: (0..5).map(|index| Ok(vec![index])).collect(),
        shards: vec![Ok(vec![0])],
        ci: CI.to_owned(),
        passes: 0,
        today: jiff::civil::date(2026, 11, 20),
    }
}

impl House {
    fn with<T>(self, look: impl FnOnce(&Manifest, &Text, &Facts<'_>) -> T) -> T {
        let text = Text::new("tests.toml", TEXT);
        let (manifest, mistakes) = Manifest::read(&text);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let facts = Facts {
            tests: &self.tests,
            cases: &self.cases,
            shards: &self.shards,
            workflows: &[Workflow::read("ci.yml", &self.ci)],
            passes: &|_| self.passes,
            today: self.today,
        };
        look(&manifest, &text, &facts)
    }

    fn problems(self) -> Vec<String> {
        self.with(check).into_iter().map(|mistake| mistake.problem).collect()
    }

    fn test(mut self, binary: &str, test: &str) -> Self {
        self.tests.push(TestId { binary: binary.into(), test: test.into() });
        self
    }
}

#[test]
fn a_manifest_that_owns_everything_is_right() {
    assert_eq!(house().problems(), Vec::<String>::new());
}

#[test]
fn a_test_in_no_case_and_a_test_in_two_are_found() {
    let mut house = house().test("wire", "a::new");
    house.cases[1] = Ok(vec![0, 1]);
    assert_eq!(
        house.problems(),
        ["`wire a::new` is in no case", "`wire a::one` is in the cases `wire` and `rest`"]
    );
}

#[test]
fn a_filter_that_matches_nothing_empties_its_suite() {
    let mut house = house();
    house.cases[3] = Ok(vec![]);
    house.cases[2] = Err("expected close paren".to_owned());
    let expected = [
        "the filter of case `tools` is none: expected close paren",
        "the filter of case `many` matches nothing",
        "`tools c` is in no case",
        "`rest many` is in no case",
        "no test is tagged `stress`: its suite is empty",
    ];
    assert_eq!(house.problems(), expected);
}

#[test]
fn a_quarantine_ends_by_its_date_or_by_passing() {
    let last = House { today: jiff::civil::date(2026, 12, 1), ..house() };
    assert_eq!(last.problems(), Vec::<String>::new());
    let over = House { today: jiff::civil::date(2026, 12, 2), ..house() };
    assert_eq!(over.problems(), ["the quarantine of case `late` expired on 2026-12-01"]);
    let well = House { passes: PASSES, ..house() };
    assert_eq!(well.problems(), ["`rest late` keeps passing in the quarantine of case `late`"]);
}

#[test]
fn a_shard_that_is_renamed_in_the_workflow_is_found_on_both_sides() {
    let renamed = House { ci: CI.replace("label: wire", "label: wires"), ..house() };
    assert_eq!(renamed.problems(), ["`wires` is no shard of the manifest", "no workflow runs shard `wire`"]);
    let other = House { ci: CI.replace("package(wire)", "package(wired)"), ..house() };
    assert_eq!(other.problems(), ["shard `wire` has another filter in the manifest: package(wire)"]);
}

#[test]
fn a_matrix_is_read_as_a_list_too_and_one_that_is_computed_proves_nothing() {
    let list =
        CI.replace("include:\n          - { label: wire, filter: package(wire) }", "label: [wire, wire]");
    assert_eq!(House { ci: list, ..house() }.problems(), ["shard `wire` is run by 2 entries of CI"]);
    let computed = CI.replace(
        "        include:\n          - { label: wire, filter: package(wire) }\n",
        "        ${{ fromJSON(needs.plan.outputs.matrix) }}\n",
    );
    let found = House { ci: computed, ..house() }.problems();
    assert_eq!(found[0], "a job runs `test-shard` and its matrix cannot be read");
    let none = House { ci: "jobs: {}".to_owned(), ..house() };
    assert_eq!(none.problems(), Vec::<String>::new());
}

#[test]
fn every_parallel_safe_test_is_in_one_shard() {
    let mut house = house().test("wire", "a::new");
    house.cases[0] = Ok(vec![0, 5]);
    assert_eq!(house.problems(), ["`wire a::new` is in no shard"]);
}

#[test]
fn what_has_no_case_is_given_one_that_matches_nothing_else() {
    let house = house().test("wire", "a::new").test("rest", "fresh::x").test("rest", "fresh::y");
    let fixed = house.with(|_, _, facts| unowned(facts));
    let expected = [
        ("rest-fresh", "binary_id(=rest) & test(/^fresh::/)"),
        ("wire-a", "binary_id(=wire) & (test(=a::new))"),
    ];
    assert_eq!(fixed.iter().map(|it| (it.id.as_str(), it.filter.as_str())).collect::<Vec<_>>(), expected);
}
