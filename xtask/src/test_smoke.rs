//! `cargo xtask test-smoke`: the minute that is worth running before anything else.

use std::time::Duration;

use anyhow::Result;
use manifest::case::Tag;

use crate::exit::Exit;
use crate::suite::{self, Suite};

/// Run the tests that are worth a minute before anything else.
///
/// When they take longer than they may, the command fails, so that the suite cannot grow without notice.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long the tests may take, without the build.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    max_seconds: u64,
    #[command(flatten)]
    common: suite::Options,
}

/// Runs the suite.
pub(crate) fn run(args: &Args) -> Result<Exit> {
    let limit = Some(Duration::from_secs(args.max_seconds));
    let suite = Suite::new("test-smoke", |case| case.tags.contains(&Tag::Smoke));
    suite::run(&Suite { limit, ..suite }, &args.common)
}
