//! `cargo xtask test-shard`: one of the parts that CI runs the parallel-safe tests in.

use anyhow::Result;
use manifest::run::Workspace;

use crate::exit::Exit;
use crate::suite::{self, Suite};
use crate::terminal;

/// Run one of the parts that CI runs the parallel-safe tests in.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shard, as the manifest labels it.
    #[arg(long, value_name = "LABEL")]
    label: String,
    #[command(flatten)]
    common: suite::Options,
}

/// Runs the shard.
pub(crate) fn run(args: &Args) -> Result<Exit> {
    let workspace = Workspace::open(&crate::cargo::program())?;
    let Some(manifest) = suite::manifest(&workspace)? else { return Ok(Exit::Usage) };
    let Some(shard) = manifest.shards.iter().find(|shard| shard.name == args.label) else {
        let labels: Vec<_> = manifest.shards.iter().map(|shard| shard.name.as_str()).collect();
        let (label, labels) = (&args.label, labels.join(", "));
        terminal::progress(&format!("error: no shard `{label}`; the manifest has {labels}"));
        return Ok(Exit::Usage);
    };
    let filter = Some(shard.filter.clone());
    suite::run(&Suite { filter, ..Suite::new("test-shard", suite::is_safe) }, &args.common)
}
