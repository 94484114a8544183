//! `cargo xtask ci-matrix`: the matrix of CI's test jobs, rendered from the manifest's shards.

use anyhow::Result;
use manifest::impact::output;

use crate::ci_impact::{Project, Range, append, outputs, root};
use crate::exit::Exit;
use crate::terminal;

/// Print the matrix of CI's test jobs, from the manifest's shards.
///
/// All labels of manifest/tests.toml; with `--base` or `--event-name`, the shards that the change cannot reach,
/// as `ci-impact` judges it, are excluded.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    range: Range,
    /// Append the output `exclude`, for the matrix of that name, to the file that $GITHUB_OUTPUT names.
    #[arg(long)]
    github_output: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask ci-matrix
  cargo xtask ci-matrix --base origin/main

Exit codes: 0 the matrix is printed; 2 usage, or a mistake in the manifest; 3 git or cargo
could not be asked; 4 the change reaches no shard, and the matrix is empty.";

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let outputs = match outputs(args.github_output) {
        Ok(outputs) => outputs,
        Err(exit) => return Ok(exit),
    };
    let root = root()?;
    let Some(project) = Project::open(&root)? else { return Ok(Exit::Usage) };
    let change = args.range.change(&root)?;
    let impact = change.map(|change| project.impact(&change));
    let labels = match &impact {
        Some(impact) => impact.shards(),
        None => project.shards.iter().map(|shard| shard.label.as_str()).collect(),
    };
    if let Some(outputs) = outputs {
        append(&outputs, &output::github_matrix(&project.shards, &labels))?;
    }
    terminal::result(&output::matrix(&project.shards, &labels))?;
    // To a workflow that light changes go through, an empty matrix is an answer like any other.
    Ok(if labels.is_empty() && !args.github_output { Exit::NothingSelected } else { Exit::Good })
}
