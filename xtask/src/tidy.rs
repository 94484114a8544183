//! `cargo xtask tidy`: the rules of this repository that neither a type nor a lint can hold.
//!
//! A check is a function from the project, read once into memory, to findings. It does no I/O and knows
//! nothing of the other checks. What clippy, rustc or cargo already refuse has no check here.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::exit::Exit;
use crate::terminal;

mod project;

mod source;

mod arrows;

mod manifests;

mod modules;

mod map;

mod top_level;

mod registries;

mod impact;

mod workflows;

mod commands;

mod settings;

use project::Project;

/// Check the rules that neither a type nor a lint can hold.
///
/// Crate arrows, manifests, the first line of every file, ARCHITECTURE.md's map, the top level, registry
/// hosts, the rules of ci-impact, workflows, the commands that the documents name, and
/// the reference of the settings. Each finding names its place and what
/// would be right there.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Rewrite the map in ARCHITECTURE.md and proxy/SETTINGS.md from the files, then check.
    #[arg(long)]
    bless: bool,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    json: bool,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Finding {
    /// The file, from the root of the checkout.
    path: String,
    /// The line, from 1; `None` when the file as a whole is meant.
    line: Option<usize>,
    /// The check that found it.
    check: &'static str,
    /// What is wrong.
    problem: String,
    /// What would be right.
    right: String,
}

/// A check's name and the check.
type Check = (&'static str, fn(&Project) -> Vec<Finding>);

/// The checks, in the order they are counted in the report.
const CHECKS: &[Check] = &[
    (arrows::NAME, arrows::check),
    (manifests::NAME, manifests::check),
    (modules::NAME, modules::check),
    (map::NAME, map::check),
    (top_level::NAME, top_level::check),
    (registries::NAME, registries::check),
    (impact::NAME, impact::check),
    (workflows::NAME, workflows::check),
    (commands::NAME, commands::check),
    (settings::NAME, settings::check),
];

/// What all checks found in a project.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    files: usize,
    checks: Vec<&'static str>,
    findings: Vec<Finding>,
}

/// Runs the checks over the workspace around the current directory.
pub(crate) fn run(args: &Args, model: &clap::Command) -> Result<Exit> {
    let mut project = Project::open(model.clone())?;
    if args.bless {
        for document in bless(&mut project)? {
            terminal::progress(&format!("tidy: rewrote {document}"));
        }
    }
    let report = Report::of(&project);
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { report.text() };
    terminal::result(&text)?;
    Ok(if report.findings.is_empty() { Exit::Good } else { Exit::Findings })
}

/// Rewrites what the files say otherwise than they should. Which documents it rewrote.
fn bless(project: &mut Project) -> Result<Vec<&'static str>> {
    let blessed = [(map::DOCUMENT, map::blessed(project)), (settings::DOCUMENT, settings::blessed(project))];
    let mut rewritten = Vec::new();
    for (document, text) in blessed {
        let Some(text) = text else { continue };
        let path = project.root().join(document);
        fs::write(&path, &text).with_context(|| format!("failed to write {}", path.display()))?;
        project.set(document, text);
        rewritten.push(document);
    }
    Ok(rewritten)
}

impl Report {
    fn of(project: &Project) -> Self {
        let mut findings: Vec<_> = CHECKS.iter().flat_map(|(_, check)| check(project)).collect();
        findings.sort();
        let checks = CHECKS.iter().map(|(name, _)| *name).collect();
        Self { version: 1, files: project.paths().count(), checks, findings }
    }

    /// The report as a person reads it; its last line is the summary.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut counts = BTreeMap::<_, usize>::new();
        for Finding { path, line, check, problem, right } in &self.findings {
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            text += &format!("{path}{line}: {check}: {problem}\n  right: {right}\n");
            *counts.entry(*check).or_default() += 1;
        }
        let (files, checks) = (self.files, self.checks.len());
        let counts: Vec<_> = counts.iter().map(|(check, count)| format!("{check} {count}")).collect();
        text += &match self.findings.len() {
            0 => format!("tidy: no finding by {checks} checks in {files} files\n"),
            1 => format!("tidy: 1 finding in {files} files ({})\n", counts.join(", ")),
            many => format!("tidy: {many} findings in {files} files ({})\n", counts.join(", ")),
        };
        text
    }
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask tidy
  cargo xtask tidy --bless         after adding, moving or renaming a file
  cargo xtask tidy --json | jq '.findings[].path'

Exit codes: 0 no finding; 1 findings; 2 usage; 3 git or cargo could not be asked.";

#[cfg(test)]
mod tests;
