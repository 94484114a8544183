//! `cargo xtask ci-impact`: what a change can reach, for the workflow that asks first and for people.
//!
//! The judgement is `manifest::impact`'s. Here is where it gets its change, its rules and its crates from,
//! and what is said when they cannot be had. `ci_matrix` asks in the same way.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use manifest::impact::crates::{self, Crates};
use manifest::impact::git::{Cause, Change};
use manifest::impact::path::RepoPath;
use manifest::impact::rules::Rules;
use manifest::impact::shard::ShardLabel;
use manifest::impact::{Impact, output, rules, shard};
use miette::{GraphicalReportHandler, GraphicalTheme};

use crate::exit::Exit;
use crate::terminal;

/// Say which crates and which lanes of CI a change can reach.
///
/// What changed is what differs between the merge base of two commits and the second, both ends of a rename
/// included, or the paths given. Rules: manifest/impact.toml. A path that no rule knows, and a change that
/// git cannot name, reach everything.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true).args(["base", "event_name", "paths", "explain"])))]
pub(crate) struct Args {
    #[command(flatten)]
    range: Range,
    /// A path that changed, from the root of the checkout; may be repeated.
    #[arg(long = "path", value_name = "PATH", conflicts_with = "base")]
    paths: Vec<RepoPathArg>,
    /// Say all about one path: the rule that decides and everything it reaches.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["base", "paths", "event_name"])]
    explain: Option<RepoPathArg>,
    /// Append the outputs `heavy`, `docs_only`, `lanes`, `packages`, `shards` and `reason` to the file that
    /// $GITHUB_OUTPUT names.
    #[arg(long)]
    github_output: bool,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    json: bool,
}

/// Two commits, and why CI looks at them.
#[derive(Debug, clap::Args)]
pub(crate) struct Range {
    /// The commit before the change; empty or zero: there is none, so it is everything.
    #[arg(long, value_name = "REV")]
    base: Option<String>,
    /// The commit with the change; it is to be checked out.
    #[arg(long, value_name = "REV", default_value = "HEAD")]
    head: String,
    /// The event that CI runs for; `schedule`, `workflow_dispatch` and other events that are not about a
    /// change are everything.
    #[arg(long, value_name = "EVENT")]
    event_name: Option<String>,
}

/// A path of the repository, read from the command line.
#[derive(Debug, Clone)]
struct RepoPathArg(RepoPath);

impl std::str::FromStr for RepoPathArg {
    type Err = manifest::impact::path::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        RepoPath::parse(text).map(Self)
    }
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask ci-impact --base origin/main
  cargo xtask ci-impact --path proxy/src/relay.rs --path README.md --json
  cargo xtask ci-impact --explain fixtures/codex/simple.jsonl

Exit codes: 0 the change was judged, however much it reaches; 2 usage, or a mistake
in the rules; 3 git or cargo could not be asked.";

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let outputs = match outputs(args.github_output) {
        Ok(outputs) => outputs,
        Err(exit) => return Ok(exit),
    };
    let root = root()?;
    let Some(project) = Project::open(&root)? else { return Ok(Exit::Usage) };
    let paths: Vec<_> = args.paths.iter().chain(&args.explain).map(|path| path.0.clone()).collect();
    let change = if paths.is_empty() {
        args.range.change(&root)?.unwrap_or(Change::Unknown(Cause::NoBase))
    } else {
        Change::for_event(args.range.event_name.as_deref()).unwrap_or_else(|| Change::named(paths))
    };
    let impact = project.impact(&change);
    if let Some(outputs) = outputs {
        append(&outputs, &output::github(&impact))?;
    }
    let text = match args.json {
        true => serde_json::to_string_pretty(&impact)?,
        false => output::text(&impact, args.explain.is_some()),
    };
    terminal::result(&text)?;
    Ok(Exit::Good)
}

impl Range {
    /// What changed; `None` when no commit was given and the event says nothing.
    pub(crate) fn change(&self, root: &Path) -> Result<Option<Change>> {
        if let Some(change) = Change::for_event(self.event_name.as_deref()) {
            return Ok(Some(change));
        }
        match (&self.base, &self.event_name) {
            (None, None) => Ok(None),
            (base, _) => Ok(Some(Change::between(root, base.as_deref().unwrap_or_default(), &self.head)?)),
        }
    }
}

/// What a change is judged by.
pub(crate) struct Project {
    rules: Rules,
    crates: Crates,
    pub(crate) shards: Vec<ShardLabel>,
}

impl Project {
    /// Reads the rules, the shards and the crates. `None` when a file has a mistake, which has been shown.
    pub(crate) fn open(root: &Path) -> Result<Option<Self>> {
        let graph = crates::graph(root)?;
        let crates = Crates::of(&graph)?;
        let Some(rules) = rules(root, &crates.names())? else { return Ok(None) };
        let shards = match shard::shards(&text(root, shard::FILE)?, &graph) {
            Ok(shards) => shards,
            Err(mistake) => return Ok(show(&*mistake)),
        };
        Ok(Some(Self { rules, crates, shards }))
    }

    pub(crate) fn impact(&self, change: &Change) -> Impact {
        Impact::of(change, &self.rules, &self.crates, &self.shards)
    }
}

fn rules(root: &Path, crates: &BTreeSet<String>) -> Result<Option<Rules>> {
    match Rules::parse(&text(root, rules::FILE)?, crates) {
        Ok(rules) => Ok(Some(rules)),
        Err(mistake) => Ok(show(&*mistake)),
    }
}

fn text(root: &Path, file: &str) -> Result<String> {
    let path = root.join(file);
    fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

/// Shows a mistake in a file with its line.
fn show<T>(mistake: &dyn miette::Diagnostic) -> Option<T> {
    let mut shown = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
    if handler.render_report(&mut shown, mistake).is_err() {
        shown = mistake.to_string();
    }
    terminal::progress(&shown);
    None
}

/// The root of the checkout around the current directory, which is the workspace's.
pub(crate) fn root() -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec();
    Ok(metadata.context("failed to ask cargo for the workspace")?.workspace_root.into())
}

/// The file for a step's outputs, when it is asked for.
pub(crate) fn outputs(is_asked: bool) -> Result<Option<PathBuf>, Exit> {
    match env::var_os("GITHUB_OUTPUT") {
        _ if !is_asked => Ok(None),
        Some(path) if !path.is_empty() => Ok(Some(path.into())),
        _ => {
            terminal::progress("error: --github-output needs $GITHUB_OUTPUT, the file that takes them");
            Err(Exit::Usage)
        }
    }
}

/// Adds a step's outputs to those that are in the file.
pub(crate) fn append(path: &Path, outputs: &str) -> Result<()> {
    if !outputs.ends_with('\n') {
        bail!("an output without its line end would run into the next one");
    }
    let file = OpenOptions::new().append(true).create(true).open(path);
    let written = file.and_then(|mut file| file.write_all(outputs.as_bytes()));
    written.with_context(|| format!("failed to write to {}", path.display()))
}
