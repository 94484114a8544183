//! `cargo xtask test-serial`: the tests that nothing may run beside, one at a time.

use std::num::NonZeroU32;

use anyhow::Result;
use clap::ValueEnum;
use manifest::case::{Case, Tag};

use crate::exit::Exit;
use crate::suite::{self, Suite};

/// Run the tests that nothing may run beside, one at a time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which of them.
    #[arg(long, value_enum, default_value = "all")]
    suite: Which,
    #[command(flatten)]
    common: suite::Options,
}

/// The suites of this task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// All of the others.
    All,
    /// Tests that need something of the machine.
    Env,
    /// Tests tagged serial: a running proxy or mock that nothing may disturb.
    Runtime,
    /// Tests of conversations that stay with their owner, twice.
    Continuation,
    /// Tests known to fail; they decide only when they fail in another way.
    Quarantine,
}

/// Runs a suite.
pub(crate) fn run(args: &Args) -> Result<Exit> {
    let has: fn(&Case) -> bool = match args.suite {
        Which::All => |case| {
            [Tag::Env, Tag::Serial, Tag::Continuation, Tag::Quarantine]
                .iter()
                .any(|tag| case.tags.contains(tag))
        },
        Which::Env => |case| case.tags.contains(&Tag::Env),
        Which::Runtime => |case| case.tags.contains(&Tag::Serial),
        Which::Continuation => |case| case.tags.contains(&Tag::Continuation),
        Which::Quarantine => |case| case.tags.contains(&Tag::Quarantine),
    };
    let suite = Suite::new("test-serial", has).one_at_a_time();
    let repeats = match args.suite {
        Which::Continuation => NonZeroU32::MIN.saturating_add(1),
        Which::All | Which::Env | Which::Runtime | Which::Quarantine => NonZeroU32::MIN,
    };
    suite::run(&Suite { repeats, ..suite }, &args.common)
}
