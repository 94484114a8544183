//! Lanes: the jobs of the workflow that asks `ci-impact` are the lanes of `manifest/impact.toml`, gated by its answer.

use manifest::impact::rules::{self, Lane, Rules, When};

use super::super::Finding;
use super::super::project::Project;
use super::file::{Job, Workflow, expression, step_commands};
use super::finding;

/// The job that gives the verdict over all others.
const VERDICT: &str = "done";

/// Compares jobs and lanes, both ways.
pub(super) fn check(project: &Project, workflows: &[Workflow<'_>]) -> Vec<Finding> {
    // That there are none, or a mistake in them, is the check `impact`'s to report.
    let Some(Ok(rules)) = project.rules() else { return Vec::new() };
    let mut asking = workflows.iter().filter(|workflow| workflow.is_for_changes()).filter_map(|workflow| {
        let source = workflow.jobs().into_iter().find(|job| is_asking(*job))?.id.to_owned();
        Some((workflow, source))
    });
    let Some((workflow, source)) = asking.next() else {
        let problem = "no workflow for pushes and pull requests asks `cargo xtask ci-impact`".to_owned();
        let right = "a job whose output `lanes` is that of a step which runs `cargo xtask ci-impact --base REV \
                     --event-name EVENT --github-output`";
        return vec![finding(".github/workflows", None, problem, right)];
    };
    let mut findings: Vec<_> = asking
        .map(|(other, _)| {
            let problem = format!("asks for the lanes that {} runs", workflow.path);
            finding(other.path, None, problem, "one workflow that is gated")
        })
        .collect();
    findings.extend(jobs(workflow, &source, &rules));
    findings.extend(verdict(workflow));
    findings
}

/// Whether the job's output `lanes` is what `ci-impact` says of the event at hand.
fn is_asking(job: Job<'_>) -> bool {
    let Some(step) = job.step_of_output("lanes") else { return false };
    let commands = step_commands(step);
    let is_asked = |words: &[String]| {
        let has = |flag: &str| words.iter().any(|word| word == flag);
        words.first().is_some_and(|task| task == "ci-impact")
            && ["--base", "--event-name", "--github-output"].iter().all(|flag| has(flag))
    };
    commands.iter().filter_map(|command| command.xtask()).any(is_asked)
}

/// Every lane is a job with its gate, and every other job is no lane by mistake.
fn jobs(workflow: &Workflow<'_>, source: &str, rules: &Rules) -> Vec<Finding> {
    let jobs = workflow.jobs();
    let mut findings = Vec::new();
    for lane in rules.lanes() {
        match jobs.iter().find(|job| job.id == lane.id) {
            Some(job) => findings.extend(gate(workflow, *job, source, lane)),
            None => {
                let problem = format!("{} has no job for the lane `{}`", workflow.path, lane.id);
                findings.push(finding(rules::FILE, None, problem, "a job of that name, or no such lane"));
            }
        }
    }
    let is_lane = |job: &&Job<'_>| rules.lanes().iter().any(|lane| lane.id == job.id);
    for job in jobs.iter().filter(|job| !is_lane(job) && job.id != source && job.id != VERDICT) {
        let problem = format!("the job `{}` is no lane of {}", job.id, rules::FILE);
        findings.push(workflow.finding(job.line, problem, "a lane of that name, which says when it runs"));
    }
    findings
}

/// The job runs when its lane does.
fn gate(workflow: &Workflow<'_>, job: Job<'_>, source: &str, lane: &Lane) -> Vec<Finding> {
    let gate = format!("contains(fromJSON(needs.{source}.outputs.lanes), '{}')", lane.id);
    let mut findings = Vec::new();
    let condition = job.text("if").map(|text| expression(text).unwrap_or(text));
    if lane.when == When::Always {
        if job.entry("if").is_some() || !job.needs().is_empty() {
            let problem = format!("the lane `{}` always runs, and its job waits for something", lane.id);
            findings.push(workflow.finding(job.line, problem, "a job without `if` and `needs`"));
        }
    } else if condition != Some(&gate) || job.needs() != [source] {
        let problem = format!("the job `{}` does not run when its lane does", lane.id);
        let right = format!("`needs: {source}` and `if: ${{{{ {gate} }}}}`");
        findings.push(workflow.finding(job.line, problem, right));
    }
    if job.entry("strategy").is_some() != lane.is_sharded {
        let problem = format!("the job `{}` and its lane differ in whether there are shards", lane.id);
        findings.push(workflow.finding(job.line, problem, "`strategy` and `sharded = true`, or neither"));
    }
    findings
}

/// One job waits for all others, whatever they end with.
fn verdict(workflow: &Workflow<'_>) -> Vec<Finding> {
    let jobs = workflow.jobs();
    let Some(verdict) = jobs.iter().find(|job| job.id == VERDICT) else {
        let problem = format!("there is no job `{VERDICT}` that stands for all");
        return vec![finding(workflow.path, None, problem, "a job that needs every other and always runs")];
    };
    let mut findings = Vec::new();
    if verdict.text("if").and_then(expression) != Some("always()") {
        let problem =
            format!("the job `{VERDICT}` is skipped when another fails, and a skipped job is green");
        findings.push(workflow.finding(verdict.line, problem, "`if: ${{ always() }}`"));
    }
    for job in jobs.iter().filter(|job| job.id != VERDICT && !verdict.needs().contains(&job.id)) {
        let problem = format!("the job `{VERDICT}` does not wait for `{}`", job.id);
        findings.push(workflow.finding(verdict.line, problem, "`needs` with every other job"));
    }
    findings
}
