//! A small project whose CI is right, and everything that can be wrong with it.

use clap::{Arg, ArgAction, Command};

use super::*;
use crate::tidy::project::Member;

const CI: &str = "\
on:
  push:
  pull_request:
permissions:
  contents: read
jobs:
  changes:
    timeout-minutes: 5
    outputs:
      lanes: ${{ steps.impact.outputs.lanes }}
      exclude: ${{ steps.shards.outputs.exclude }}
    steps:
      - id: impact
        run: cargo xtask ci-impact --base \"$BASE\" --event-name push --github-output
      - id: shards
        run: cargo xtask ci-matrix --github-output
  format:
    timeout-minutes: 5
    steps:
      - run: .ci/run --stage format
  deny:
    timeout-minutes: 5
    steps:
      - run: cargo install --locked cargo-deny@1.2.3
      - run: .ci/run --stage deny
  tests:
    needs: changes
    if: ${{ contains(fromJSON(needs.changes.outputs.lanes), 'tests') }}
    timeout-minutes: 5
    strategy:
      matrix:
        label: [wire, rest]
        exclude: ${{ fromJSON(needs.changes.outputs.exclude) }}
    steps:
      - env:
          LABEL: ${{ matrix.label }}
        run: .ci/run --stage tests -- -p \"$LABEL\"
  done:
    needs: [changes, format, deny, tests]
    if: ${{ always() }}
    timeout-minutes: 5
    steps:
      - run: 'true'
";

const NIGHTLY: &str = "\
on:
  schedule:
    - cron: '1 2 * * *'
permissions:
  contents: read
jobs:
  tests:
    timeout-minutes: 5
    strategy:
      matrix:
        label: [wire, rest]
    steps:
      - env:
          LABEL: ${{ matrix.label }}
        run: .ci/run --stage tests -- -p \"$LABEL\"
";

const RUN: &str = "\
stage() {
  \"$@\"
}
stage format cargo fmt --check
on_request deny cargo deny check
stage tests cargo xtask test-fast
";

const LANES: &str = "version = 1\n
[[lane]]\nid = \"format\"\nwhen = \"always\"\nbecause = \"cheap\"\n
[[lane]]\nid = \"deny\"\nwhen = \"always\"\nbecause = \"cheap\"\n
[[lane]]\nid = \"tests\"\nwhen = \"any-crate\"\nsharded = true\nbecause = \"tests\"\n";

const SHARDS: &str =
    "[[shard]]\nlabel = \"wire\"\nfilter = \"a\"\n\n[[shard]]\nlabel = \"rest\"\nfilter = \"b\"\n";

/// The command line that the small project's tasks have.
fn model() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let value = |name: &'static str| Arg::new(name).long(name);
    Command::new("cargo xtask").subcommands([
        Command::new("test-fast").arg(Arg::new("extra").last(true).num_args(..)),
        Command::new("ci-impact").args([value("base"), value("event-name"), flag("github-output")]),
        Command::new("test-shard").arg(value("label")),
        Command::new("ci-matrix").arg(flag("github-output")),
    ])
}

/// What is found when these files replace those of the small project, as `file:line: problem`.
fn found(changed: &[(&str, String)]) -> Vec<String> {
    let files = [
        (".github/workflows/ci.yml", CI),
        (".github/workflows/nightly.yml", NIGHTLY),
        (".ci/run", RUN),
        ("manifest/impact.toml", LANES),
        ("manifest/tests.toml", SHARDS),
    ];
    let text =
        |path, text| changed.iter().find(|(name, _)| *name == path).map_or(text, |(_, new)| new.as_str());
    let files = files.map(|(path, right)| (path, text(path, right)));
    let project = Project::sketch(&files).with(Member::sketch("wire", "wire")).with_model(model());
    let show = |found: Finding| {
        let file = found.path.rsplit('/').next().unwrap_or_default();
        format!("{file}:{}: {}", found.line.unwrap_or(0), found.problem)
    };
    check(&project).into_iter().map(show).collect()
}

/// What is found when a piece of ci.yml is another; the piece is there, or the test is about nothing.
fn with(right: &str, wrong: &str) -> Vec<String> {
    assert!(CI.contains(right), "{right}");
    found(&[(".github/workflows/ci.yml", CI.replacen(right, wrong, 1))])
}

fn with_nightly(right: &str, wrong: &str) -> Vec<String> {
    assert!(NIGHTLY.contains(right), "{right}");
    found(&[(".github/workflows/nightly.yml", NIGHTLY.replacen(right, wrong, 1))])
}

/// What is found when the job `format` has one step more, on line 20.
fn with_step(step: &str) -> Vec<String> {
    with(
        "      - run: .ci/run --stage format\n",
        &format!("      - {step}\n      - run: .ci/run --stage format\n"),
    )
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_small_project_is_right() {
    assert_eq!(found(&[]), NOTHING);
    assert_eq!(with("on:\n  push:\n  pull_request:", "on: [push, pull_request]"), NOTHING);
}

#[test]
fn an_action_is_pinned_by_hash_with_its_tag() {
    let hash = "0123456789abcdef0123456789abcdef01234567";
    let digest = hash.repeat(2);
    let pinned = [
        format!("uses: owner/name@{hash} # v4.2.0"),
        format!("\"uses\": \"owner/name/path@{hash}\"   # v4"),
        "uses: ./.github/actions/own".to_owned(),
        format!("uses: docker://image@sha256:{}", &digest[..64]),
    ];
    for step in &pinned {
        assert_eq!(with_step(step), NOTHING, "{step}");
    }
    let loose = [
        "uses: owner/name@v4 # v4".to_owned(),
        "{ uses: owner/name@main }".to_owned(),
        format!("uses: owner/name@{hash}"),
        format!("uses: owner/name@{}", &hash[..39]),
        "uses: owner/name".to_owned(),
        "uses: docker://image:latest".to_owned(),
    ];
    for step in &loose {
        let found = with_step(step);
        assert!(found.len() == 1 && found[0].starts_with("ci.yml:20: `"), "{step}: {found:?}");
    }
}

#[test]
fn permissions_are_present_and_least() {
    let expected = ["ci.yml:0: the workflow takes whatever permissions the repository gives"];
    assert_eq!(with("permissions:\n  contents: read\n", ""), expected);
    let wholesale = with("permissions:\n  contents: read\n", "permissions: read-all\n");
    assert_eq!(wholesale, ["ci.yml:4: permissions are given wholesale"]);
    let job = with("  format:\n", "  format:\n    permissions:\n      packages: write\n");
    assert_eq!(job, ["ci.yml:19: takes the permission `packages: write`"]);
}

#[test]
fn strangers_get_neither_rights_nor_secrets_nor_a_place_in_a_script() {
    let target =
        ["ci.yml:3: `pull_request_target` runs with the repository's rights for a stranger's change"];
    assert_eq!(with("  pull_request:\n", "  pull_request_target:\n  pull_request:\n"), target);
    let pasted = ["ci.yml:20: an expression is pasted into a script"];
    assert_eq!(with_step("run: echo '${{ github.event.pull_request.title }}'"), pasted);
    assert_eq!(with_step("run: |\n          true\n          echo ${{ matrix.x }}"), pasted);
    let asks = ["ci.yml:20: asks for a secret"];
    assert_eq!(with_step("env: { TOKEN: \"${{ secrets.NPM }}\" }"), ["ci.yml:20: asks for a secret"]);
    assert_eq!(with_step("env: { TOKEN: \"${{ x || secrets['NPM'] }}\" }"), asks);
    assert_eq!(with_step("env: { TOKEN: \"${{ github.token }} and my secrets.\" }"), NOTHING);
    let inherited = with("  format:\n", "  format:\n    secrets: inherit\n");
    assert_eq!(inherited, ["ci.yml:18: asks for a secret"]);
}

#[test]
fn every_job_has_a_limit_of_time() {
    let expected = ["ci.yml:17: the job `format` has no limit of time"];
    for wrong in ["", "    timeout-minutes: soon\n", "    timeout-minutes: 0\n", "    timeout-minutes: 600\n"]
    {
        assert_eq!(with("  format:\n    timeout-minutes: 5\n", &format!("  format:\n{wrong}")), expected);
    }
}

#[test]
fn what_is_installed_is_exact() {
    for wrong in ["--locked cargo-deny", "cargo-deny@1.2.3", "--locked cargo-deny@1", "--locked"] {
        let found = with("--locked cargo-deny@1.2.3", wrong);
        assert_eq!(found, [format!("ci.yml:24: `cargo install {wrong}` installs what is newest")]);
    }
}

#[test]
fn what_a_step_calls_exists_and_takes_its_flags() {
    for call in [
        "run: cargo xtask tset-fast",
        "run: cargo xtask test-fast --jsn",
        "run: |\n          true &&\n            cargo xtask ci-matrix --all",
        "run: bash -c 'cargo xtask ci-matrix --all'",
        "run: .ci/run --stage tests --jsn",
    ] {
        let found = with_step(call);
        let is_refused =
            |found: &String| found.starts_with("ci.yml:20: `cargo xtask ") && found.contains("is refused");
        assert!(found.len() == 1 && found.iter().all(is_refused), "{call}: {found:?}");
    }
    assert_eq!(with_step("run: .ci/run --stage lint"), ["ci.yml:20: `.ci/run` has no stage `lint`"]);
    assert_eq!(
        with_step("run: .ci/run --all"),
        ["ci.yml:20: `.ci/run` takes `--stage` and a name, or nothing"]
    );
    for own in ["cargo test --workspace", "cargo +nightly nextest run", "cargo  'test'"] {
        let expected = ["ci.yml:20: a step runs tests past the command of the README"];
        assert_eq!(with_step(&format!("run: {own}")), expected, "{own}");
    }
}

#[test]
fn every_stage_of_the_script_is_run_for_every_change() {
    let run = |script: &str| found(&[(".ci/run", script.to_owned())]);
    let more = format!("{RUN}stage docs cargo doc\n");
    assert_eq!(run(&more), ["run:7: no workflow for pushes and pull requests runs the stage `docs`"]);
    let all = |script: String| {
        found(&[(".ci/run", script), (".github/workflows/ci.yml", CI.replace("run: 'true'", "run: .ci/run"))])
    };
    assert_eq!(all(more), NOTHING, "the whole script runs all of its stages");
    let asked = all(format!("{RUN}on_request docs cargo doc\n"));
    assert_eq!(asked, ["run:7: no workflow for pushes and pull requests runs the stage `docs`"]);
    let renamed = run(&RUN.replace("stage format", "stage fmt"));
    let expected = [
        "run:4: no workflow for pushes and pull requests runs the stage `fmt`",
        "ci.yml:20: `.ci/run` has no stage `format`",
    ];
    assert_eq!(renamed, expected);
}

#[test]
fn the_tasks_of_the_script_exist_and_take_their_flags() {
    let script = RUN.replace("cargo fmt --check", "cargo xtask test-fast --jsn");
    let found = found(&[(".ci/run", script)]);
    assert_eq!(found, ["run:4: `cargo xtask test-fast --jsn` is refused: unexpected argument '--jsn' found"]);
}

#[test]
fn the_script_runs_the_command_of_the_readme() {
    for wrong in [
        "# stage tests cargo xtask test-fast",
        "cargo xtask test-fast",
        "stage tests cargo xtask test-fast -- -p wire",
        "nocargo xtask test-fast",
    ] {
        let script = RUN.replace("stage tests cargo xtask test-fast", wrong);
        let found = found(&[(".ci/run", script)]);
        let expected = "run:0: does not run `cargo xtask test-fast`, the tests as README.md names them";
        assert!(found.iter().any(|found| found == expected), "{wrong}: {found:?}");
    }
}

#[test]
fn labels_that_are_written_out_equal_the_manifests_both_ways() {
    let renamed = [
        "nightly.yml:11: the manifest has no shard `wires`",
        "nightly.yml:11: the matrix leaves out the shard `wire`",
    ];
    assert_eq!(with_nightly("[wire, rest]", "[wires, rest]"), renamed);
    let left_out = ["nightly.yml:11: the matrix leaves out the shard `rest`"];
    assert_eq!(with_nightly("[wire, rest]", "[wire]"), left_out);
    assert_eq!(
        with_nightly("[wire, rest]", "[wire, rest, wire]"),
        ["nightly.yml:11: the shard `wire` runs twice"]
    );
    let without = [
        "nightly.yml:10: the matrix has no `label` with the labels written out",
        "nightly.yml:11: `shard` of the matrix changes which shards run",
    ];
    assert_eq!(with_nightly("label: [wire, rest]", "shard: [wire, rest]"), without);
    let excluded = with_nightly("[wire, rest]", "[wire, rest]\n        exclude: [{ label: wire }]");
    assert_eq!(excluded, ["nightly.yml:12: `exclude` of the matrix changes which shards run"]);
    let shards = format!("{SHARDS}\n[[shard]]\nlabel = \"new\"\nfilter = \"c\"\n");
    let new = found(&[("manifest/tests.toml", shards)]);
    let expected = [
        "ci.yml:32: the matrix leaves out the shard `new`",
        "nightly.yml:11: the matrix leaves out the shard `new`",
    ];
    assert_eq!(new, expected);
    let mistaken = found(&[("manifest/tests.toml", SHARDS.replace("\"rest\"", "\"wire\""))]);
    assert!(mistaken.contains(&"tests.toml:6: the label `wire` is taken".to_owned()), "{mistaken:?}");
    let computed = with("label: [wire, rest]", "label: ${{ fromJSON(needs.changes.outputs.lanes) }}");
    assert_eq!(computed, ["ci.yml:31: the matrix has no `label` with the labels written out"]);
}

#[test]
fn what_is_left_out_comes_from_the_command_that_renders_it() {
    let expected = ["ci.yml:33: `exclude` of the matrix changes which shards run"];
    for (right, wrong) in [
        ("fromJSON(needs.changes.outputs.exclude)", "fromJSON('[{\"label\":\"wire\"}]')"),
        ("exclude: ${{ steps.shards.outputs.exclude }}", "exclude: '[]'"),
        ("exclude: ${{ steps.shards.outputs.exclude }}", "exclude: ${{ steps.impact.outputs.exclude }}"),
        ("cargo xtask ci-matrix --github-output", "cargo xtask ci-matrix"),
        ("cargo xtask ci-matrix --github-output", "cargo xtask ci-matrix --github-output; echo >> x"),
        ("cargo xtask ci-matrix --github-output", "echo 'exclude=[]' >> \"$GITHUB_OUTPUT\""),
    ] {
        assert_eq!(with(right, wrong), expected, "{wrong}");
    }
    let same = with("LABEL: ${{ matrix.label }}", "LABEL: wire");
    assert_eq!(same, ["ci.yml:31: the job `tests` does the same for every label"]);
}

#[test]
fn jobs_are_lanes_and_lanes_are_jobs() {
    let lanes = |text: String| found(&[("manifest/impact.toml", text)]);
    let more = lanes(format!(
        "{LANES}\n[[lane]]\nid = \"bench\"\nwhen = \"any-crate\"\nbecause = \"it may be slow\"\n"
    ));
    assert_eq!(more, ["impact.toml:0: .github/workflows/ci.yml has no job for the lane `bench`"]);
    let fewer =
        lanes(LANES.replace("\n[[lane]]\nid = \"deny\"\nwhen = \"always\"\nbecause = \"cheap\"\n", ""));
    assert_eq!(fewer, ["ci.yml:21: the job `deny` is no lane of manifest/impact.toml"]);
    let unasked = with("ci-impact --base", "ci-matrix --base");
    assert!(unasked.iter().any(|it| it.ends_with("asks `cargo xtask ci-impact`")), "{unasked:?}");
}

#[test]
fn a_job_runs_when_its_lane_does() {
    let expected = ["ci.yml:26: the job `tests` does not run when its lane does"];
    let gate = "    if: ${{ contains(fromJSON(needs.changes.outputs.lanes), 'tests') }}\n";
    for wrong in ["", "    if: ${{ false }}\n", &gate.replace("'tests'", "'test'")] {
        assert_eq!(with(gate, wrong), expected, "{wrong}");
    }
    let waiting = ["ci.yml:17: the lane `format` always runs, and its job waits for something"];
    assert_eq!(with("  format:\n", "  format:\n    if: ${{ github.actor != 'a' }}\n"), waiting);
    assert_eq!(with("  format:\n", "  format:\n    needs: changes\n"), waiting);
    let sharded = found(&[("manifest/impact.toml", LANES.replace("sharded = true\n", ""))]);
    assert_eq!(sharded, ["ci.yml:26: the job `tests` and its lane differ in whether there are shards"]);
}

#[test]
fn no_job_and_no_step_fails_unseen() {
    let unseen = with("  format:\n", "  format:\n    continue-on-error: true\n");
    assert_eq!(unseen, ["ci.yml:18: a failure here goes unseen"]);
    assert_eq!(with_step("continue-on-error: true"), ["ci.yml:20: a failure here goes unseen"]);
}

#[test]
fn the_shards_together_are_the_stage_of_the_tests() {
    let by_label =
        with(".ci/run --stage tests -- -p \"$LABEL\"", "cargo xtask test-shard --label \"$LABEL\"");
    assert_eq!(by_label, NOTHING);
    let one = with(".ci/run --stage tests -- -p \"$LABEL\"", "echo \"$LABEL\"");
    assert_eq!(one, ["run:6: no workflow for pushes and pull requests runs the stage `tests`"]);
}

#[test]
fn one_job_waits_for_all_others() {
    let expected = ["ci.yml:38: the job `done` does not wait for `deny`"];
    assert_eq!(with("[changes, format, deny, tests]", "[changes, format, tests]"), expected);
    let skipped = ["ci.yml:38: the job `done` is skipped when another fails, and a skipped job is green"];
    assert_eq!(with("    if: ${{ always() }}\n", ""), skipped);
    let (without, _) = CI.split_once("  done:\n").expect("there is such a job");
    let without = found(&[(".github/workflows/ci.yml", without.to_owned())]);
    assert_eq!(without, ["ci.yml:0: there is no job `done` that stands for all"]);
}

#[test]
fn what_is_not_yaml_is_a_finding_with_its_line() {
    let found = found(&[(".github/workflows/nightly.yml", "on: [push\njobs: }\n".to_owned())]);
    assert!(found.len() == 1 && found[0].starts_with("nightly.yml:2: not YAML: "), "{found:?}");
}

#[test]
fn a_step_behind_an_anchor_is_reported_once() {
    let text = NIGHTLY
        .replace("    steps:\n", "    steps:\n      - &own\n        run: cargo xtask tidyy\n      - *own\n");
    let found = found(&[(".github/workflows/nightly.yml", text)]);
    assert_eq!(found, ["nightly.yml:14: `cargo xtask tidyy` is refused: unrecognized subcommand 'tidyy'"]);
}
