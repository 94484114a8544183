//! `cargo xtask test-stress`: the tests that load the machine, or that are run again and again, in shards.

use std::num::{NonZeroU32, NonZeroUsize};

use anyhow::Result;
use clap::ValueEnum;
use manifest::case::{Case, Tag};
use manifest::shard::Dealing;

use crate::exit::Exit;
use crate::suite::{self, Part, Suite};
use crate::terminal;

/// Run the tests that load the machine, one at a time, in shards.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which of them.
    #[arg(long, value_enum, default_value = "stress")]
    suite: Which,
    /// Into how many shards they are dealt out.
    #[arg(long, value_name = "N", default_value = "1")]
    shard_count: NonZeroUsize,
    /// Which shard is run, counted from 0.
    #[arg(long, value_name = "K", default_value_t = 0)]
    shard_index: usize,
    /// How they are dealt out.
    #[arg(long, value_enum, default_value = "weighted")]
    shard_strategy: Way,
    #[command(flatten)]
    common: suite::Options,
}

/// The suites of this task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Tests that load the machine on purpose.
    Stress,
    /// Tests that nothing may run beside, twice.
    Serialized,
    /// Tests of conversations that stay with their owner, twice.
    Continuation,
}

/// How tests are dealt out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// The longest first, each to the shard with the least to do.
    Weighted,
    /// In turn, by name.
    Modulo,
}

/// Runs a shard of a suite.
pub(crate) fn run(args: &Args) -> Result<Exit> {
    if args.shard_index >= args.shard_count.get() {
        let (index, count) = (args.shard_index, args.shard_count);
        terminal::progress(&format!("error: there is no shard {index} of {count}; the first is 0"));
        return Ok(Exit::Usage);
    }
    let has: fn(&Case) -> bool = match args.suite {
        Which::Stress => |case| case.tags.contains(&Tag::Stress),
        Which::Serialized => |case| case.tags.contains(&Tag::Serial),
        Which::Continuation => |case| case.tags.contains(&Tag::Continuation),
    };
    let repeats = match args.suite {
        Which::Stress => NonZeroU32::MIN,
        Which::Serialized | Which::Continuation => NonZeroU32::MIN.saturating_add(1),
    };
    let dealing = match args.shard_strategy {
        Way::Weighted => Dealing::Weighted,
        Way::Modulo => Dealing::Modulo,
    };
    let part = Part { index: args.shard_index, count: args.shard_count, dealing };
    let part = (args.shard_count > NonZeroUsize::MIN || args.common.explain).then_some(part);
    let suite = Suite::new("test-stress", has).one_at_a_time();
    suite::run(&Suite { repeats, part, ..suite }, &args.common)
}
