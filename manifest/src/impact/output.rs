//! What was found, for those who ask: a person, and the next step of a workflow.
//!
//! What goes to a workflow is one line for each name, whatever the paths are called: a value with a line end
//! could set another output.

use std::fmt::Write;

use serde_json::json;

use super::shard::ShardLabel;
use super::{Impact, Reach, Reason};

/// How many reasons are shown for one thing, unless all are asked for.
const SHOWN: usize = 3;

/// The outputs of the step that asked, in the form of `$GITHUB_OUTPUT`.
pub fn github(impact: &Impact) -> String {
    let lanes: Vec<_> = impact.lanes.iter().map(|lane| &lane.id).collect();
    let packages: Vec<_> = impact.packages.keys().collect();
    assignments(&[
        ("heavy", impact.heavy.to_string()),
        ("docs_only", impact.docs_only.to_string()),
        ("lanes", json!(lanes).to_string()),
        ("packages", json!(packages).to_string()),
        ("shards", json!(impact.shards()).to_string()),
        ("reason", reason(impact)),
    ])
}

/// The matrix of the jobs that run shards, as GitHub reads it: all labels, less those that are not to run.
pub fn matrix(all: &[ShardLabel], chosen: &[&str]) -> String {
    let labels: Vec<_> = all.iter().map(|shard| &shard.label).collect();
    json!({ "label": labels, "exclude": excluded(all, chosen) }).to_string()
}

/// The output of the step that asked for the matrix: what is left out of the labels that the workflow has.
pub fn github_matrix(all: &[ShardLabel], chosen: &[&str]) -> String {
    assignments(&[("exclude", json!(excluded(all, chosen)).to_string())])
}

fn excluded(all: &[ShardLabel], chosen: &[&str]) -> Vec<serde_json::Value> {
    let out = all.iter().filter(|shard| !chosen.contains(&shard.label.as_str()));
    out.map(|shard| json!({ "label": shard.label })).collect()
}

/// Lines of `name=value`, no more of them than there are names.
fn assignments(outputs: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in outputs {
        let value = value.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
        text.extend([name, "="]);
        text.extend(value);
        text.push('\n');
    }
    text
}

/// Why so much is to run, or so little, in one line.
fn reason(impact: &Impact) -> String {
    match impact.everything.first() {
        Some(reason) => format!("everything: {}", line(reason)),
        None if impact.docs_only => "no path that changed can change a program".to_owned(),
        None => format!("crates reached: {}", impact.packages.keys().cloned().collect::<Vec<_>>().join(", ")),
    }
}

/// The report as a person reads it; its last line is the summary.
pub fn text(impact: &Impact, is_explaining: bool) -> String {
    let shown = if is_explaining { usize::MAX } else { SHOWN };
    let mut text = String::new();
    if is_explaining {
        for judged in &impact.paths {
            let reach = match &judged.reach {
                Reach::Everything => "everything".to_owned(),
                Reach::Crates(names) => names.iter().cloned().collect::<Vec<_>>().join(", "),
                Reach::Nothing => "nothing".to_owned(),
            };
            let (path, rule, because) = (&judged.path, &judged.rule, &judged.because);
            let _ = writeln!(text, "{path}: changes {reach} by the rule `{rule}`: {because}");
        }
    }
    section(&mut text, "everything", &impact.everything, shown);
    if impact.everything.is_empty() {
        for (name, reasons) in &impact.packages {
            section(&mut text, &format!("crate {name}"), reasons, shown);
        }
    }
    for lane in &impact.lanes {
        let shards =
            lane.shards.as_ref().map(|labels| format!(" ({})", labels.join(", "))).unwrap_or_default();
        // When everything is reached, the reasons stand above, once.
        let reasons = if impact.everything == lane.reasons { &[][..] } else { &lane.reasons };
        section(&mut text, &format!("lane {}{shards}", lane.id), reasons, shown);
        if reasons.is_empty() {
            let _ = writeln!(text, "lane {}{shards}", lane.id);
        }
    }
    let weight = if impact.heavy { "heavy" } else { "light" };
    let lanes: Vec<_> = impact.lanes.iter().map(|lane| lane.id.as_str()).collect();
    let _ = writeln!(text, "ci-impact: {weight}: {} ({})", reason(impact), lanes.join(", "));
    text
}

fn section(text: &mut String, title: &str, reasons: &[Reason], shown: usize) {
    if reasons.is_empty() {
        return;
    }
    let _ = writeln!(text, "{title}");
    for reason in reasons.iter().take(shown) {
        let _ = writeln!(text, "  {}", line(reason));
    }
    if let Some(more) = reasons.len().checked_sub(shown).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {more} more");
    }
}

fn line(reason: &Reason) -> String {
    let Reason { path, rule, because } = reason;
    match path {
        Some(path) => format!("{path}: {because} (`{rule}`)"),
        None => format!("{because} (`{rule}`)"),
    }
}
