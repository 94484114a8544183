//! CI: what workflows may do, whose code they run, and that they test with the command the README names.
//!
//! Workflows are read as YAML, so neither quoting nor layout can hide a step from this file. The tests are
//! `.ci/run`'s business and a workflow only calls it: what CI does, a person can do with the same command.

use saphyr::{LoadableYamlNode, MarkedYaml};

use super::commands::TESTS;
use super::project::Project;
use super::{Finding, commands};

pub(super) const NAME: &str = "workflows";

/// The script that CI runs and anyone else can.
const SCRIPT: &str = ".ci/run";

/// Reads every workflow, and the script behind them.
pub(super) fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_script_run = false;
    for (path, text) in project.texts().filter(|(path, _)| is_workflow(path)) {
        match MarkedYaml::load_from_str(text) {
            Ok(documents) => {
                let workflow = Workflow { path, text, documents: &documents };
                findings.extend(workflow.permissions());
                findings.extend(workflow.actions());
                findings.extend(workflow.tests());
                is_script_run |= workflow.runs_script();
            }
            Err(error) => {
                let right = "a workflow in YAML".to_owned();
                let line = Some(error.marker().line());
                findings.push(finding(path, line, format!("not YAML: {}", error.info()), right));
            }
        }
    }
    if !is_script_run {
        let problem = format!("no workflow for pushes and pull requests runs `{SCRIPT}`");
        let right = format!("a workflow on `push` and `pull_request` with the step `run: {SCRIPT}`");
        findings.push(finding(".github/workflows", None, problem, right));
    }
    findings.extend(script(project));
    findings
}

fn is_workflow(path: &str) -> bool {
    path.starts_with(".github/workflows/") && (path.ends_with(".yml") || path.ends_with(".yaml"))
}

/// One workflow file.
struct Workflow<'a> {
    path: &'a str,
    text: &'a str,
    documents: &'a [MarkedYaml<'a>],
}

impl Workflow<'_> {
    /// The workflow starts with the right to read the contents and no other, and no job takes more.
    fn permissions(&self) -> Vec<Finding> {
        let right = "`permissions:` with `contents: read` and nothing else";
        let at_top = self.documents.iter().find_map(|document| document.data.as_mapping_get("permissions"));
        if at_top.is_none() {
            let problem = "the workflow takes whatever permissions the repository gives".to_owned();
            return vec![finding(self.path, None, problem, right.to_owned())];
        }
        let mut findings = Vec::new();
        for (_, granted) in self.values("permissions") {
            let Some(rights) = granted.data.as_mapping() else {
                let problem = "permissions are given wholesale".to_owned();
                findings.push(finding(self.path, Some(granted.span.start.line()), problem, right.to_owned()));
                continue;
            };
            for (scope, level) in rights {
                let name = scope.data.as_str().unwrap_or("?");
                let level = level.data.as_str().unwrap_or("?");
                if (name, level) != ("contents", "read") && level != "none" {
                    let problem = format!("takes the permission `{name}: {level}`");
                    let line = Some(scope.span.start.line());
                    findings.push(finding(self.path, line, problem, right.to_owned()));
                }
            }
        }
        findings
    }

    /// Every action is the workspace's own, or named by the hash of a commit with its tag beside it.
    fn actions(&self) -> Vec<Finding> {
        let used =
            self.values("uses").into_iter().filter_map(|(line, value)| Some((line, value.data.as_str()?)));
        let loose = used.filter(|(line, action)| !is_pinned(action, self.text.lines().nth(line - 1)));
        let found = loose.map(|(line, action)| {
            let problem = format!("`{action}` is not pinned");
            let right = "`uses: owner/name@` and the 40 digits of the commit, then `# ` and its tag";
            finding(self.path, Some(line), problem, right.to_owned())
        });
        found.collect()
    }

    /// No step tests in a way of its own.
    fn tests(&self) -> Vec<Finding> {
        let steps =
            self.values("run").into_iter().filter_map(|(line, value)| Some((line, value.data.as_str()?)));
        let own = steps.filter(|(_, run)| run.contains("cargo test") || run.contains("cargo nextest"));
        let found = own.map(|(line, _)| {
            let problem = "a step runs tests past the command of the README".to_owned();
            finding(self.path, Some(line), problem, format!("`{SCRIPT}`, which runs `{TESTS}`"))
        });
        found.collect()
    }

    /// Whether a step of a workflow for pushes and pull requests runs the script.
    fn runs_script(&self) -> bool {
        let is_triggered = |event: &str| {
            self.documents.iter().filter_map(|document| document.data.as_mapping_get("on")).any(|on| {
                let listed = on
                    .data
                    .as_sequence()
                    .is_some_and(|events| events.iter().any(|listed| listed.data.as_str() == Some(event)));
                listed || on.data.as_mapping_get(event).is_some()
            })
        };
        let is_run = |run: &str| run.lines().any(|line| line.trim() == SCRIPT);
        is_triggered("push")
            && is_triggered("pull_request")
            && self.values("run").into_iter().any(|(_, value)| value.data.as_str().is_some_and(is_run))
    }

    /// The values of every entry with this key, anywhere in the file, with the line of the key.
    fn values(&self, key: &str) -> Vec<(usize, &MarkedYaml<'_>)> {
        let mut found = Vec::new();
        let mut open: Vec<_> = self.documents.iter().rev().collect();
        while let Some(node) = open.pop() {
            open.extend(node.data.as_sequence().into_iter().flatten().rev());
            for (name, value) in node.data.as_mapping().into_iter().flatten() {
                if name.data.as_str() == Some(key) {
                    found.push((name.span.start.line(), value));
                }
                open.push(value);
            }
        }
        found.sort_by_key(|(line, _)| *line);
        found
    }
}

/// Whether an action is ours, an image by digest, or a commit by hash with a comment that names its tag.
fn is_pinned(action: &str, line: Option<&str>) -> bool {
    let is_hex =
        |digits: &str, count| digits.len() == count && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if action.starts_with("./") {
        return true;
    }
    if let Some(image) = action.strip_prefix("docker://") {
        return image.split_once("@sha256:").is_some_and(|(_, digest)| is_hex(digest, 64));
    }
    let is_by_hash = action.split_once('@').is_some_and(|(_, commit)| is_hex(commit, 40));
    let tag = line.and_then(|line| line.split_once(action)?.1.split_once("# "));
    is_by_hash && tag.is_some_and(|(_, tag)| !tag.trim().is_empty())
}

/// The script exists and runs the tests with the README's command and nothing added to it.
fn script(project: &Project) -> Option<Finding> {
    let text = project.text(SCRIPT).unwrap_or_default();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let is_run = lines.any(|line| {
        line.strip_suffix(TESTS).is_some_and(|before| before.is_empty() || before.ends_with(' '))
    });
    let problem = format!("does not run `{TESTS}`, the tests as {} names them", commands::README);
    (!is_run).then(|| finding(SCRIPT, None, problem, format!("a line that ends with `{TESTS}`")))
}

fn finding(path: &str, line: Option<usize>, problem: String, right: String) -> Finding {
    Finding { path: path.to_owned(), line, check: NAME, problem, right }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CI: &str = "\
on:
  push:
  pull_request:
permissions:
  contents: read
jobs:
  all:
    runs-on: ubuntu-latest
    steps:
      - name: check out
        run: git init .
      - run: |
          cd there
          .ci/run
";

    fn found(workflow: &str) -> Vec<String> {
        let files = [(".github/workflows/ci.yml", workflow), (SCRIPT, "stage tests cargo xtask test-fast\n")];
        let findings = check(&Project::sketch(&files)).into_iter();
        findings.map(|found| format!("{}: {}", found.line.unwrap_or(0), found.problem)).collect()
    }

    fn with_step(step: &str) -> Vec<String> {
        found(&CI.replace("      - name: check out\n", &format!("      - {step}\n      - name: check out\n")))
    }

    #[test]
    fn a_workflow_that_reads_and_calls_the_script_is_right() {
        assert_eq!(found(CI), Vec::<String>::new());
        assert_eq!(
            found(&CI.replace("on:\n  push:\n  pull_request:", "on: [push, pull_request]")),
            Vec::<String>::new()
        );
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
            assert_eq!(with_step(step), Vec::<String>::new(), "{step}");
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
            assert!(found.len() == 1 && found[0].starts_with("10: `"), "{step}: {found:?}");
        }
    }

    #[test]
    fn permissions_are_present_and_least() {
        let without = CI.replace("permissions:\n  contents: read\n", "");
        assert_eq!(found(&without), ["0: the workflow takes whatever permissions the repository gives"]);
        let wholesale = CI.replace("permissions:\n  contents: read\n", "permissions: read-all\n");
        assert_eq!(found(&wholesale), ["4: permissions are given wholesale"]);
        let job = CI.replace("    runs-on", "    permissions:\n      packages: write\n    runs-on");
        assert_eq!(found(&job), ["9: takes the permission `packages: write`"]);
    }

    #[test]
    fn the_script_is_run_on_pushes_and_pull_requests_and_is_the_only_way_to_test() {
        let expected = ["0: no workflow for pushes and pull requests runs `.ci/run`"];
        assert_eq!(found(&CI.replace("          .ci/run\n", "")), expected);
        assert_eq!(found(&CI.replace("  pull_request:\n", "  workflow_dispatch:\n")), expected);
        let own = ["10: a step runs tests past the command of the README"];
        assert_eq!(with_step("run: cargo test --workspace"), own);
    }

    #[test]
    fn the_script_runs_the_command_of_the_readme() {
        for text in [
            "",
            "# cargo xtask test-fast\n",
            "cargo xtask test-fast --jobs 1\n",
            "echo nocargo xtask test-fast",
        ] {
            let files = [(".github/workflows/ci.yml", CI), (SCRIPT, text)];
            assert_eq!(check(&Project::sketch(&files)).len(), 1, "{text:?}");
        }
        assert_eq!(check(&Project::sketch(&[(".github/workflows/ci.yml", CI)])).len(), 1);
    }

    #[test]
    fn what_is_not_yaml_is_a_finding_with_its_line() {
        let found = found("on: [push\njobs: }\n");
        assert!(found[0].starts_with("2: not YAML: "), "{found:?}");
    }
}
