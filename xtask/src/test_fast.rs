//! `cargo xtask test-fast`: the tests that run beside anything, as many at a time as there are jobs.

use anyhow::Result;

use crate::exit::Exit;
use crate::suite::{self, Suite};

/// Run the tests that run beside anything.
///
/// One build, one list, a process with a sandbox for every test. Failures are shown as they come; the last
/// line says how many passed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    common: suite::Options,
}

/// Runs the parallel-safe tests, and those that no case knows yet.
pub(crate) fn run(args: &Args) -> Result<Exit> {
    let suite = Suite { takes_unowned: true, ..Suite::new("test-fast", suite::is_safe) };
    suite::run(&suite, &args.common)
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask test-fast
  cargo xtask test-fast -- -p wire              one crate
  cargo xtask test-fast -- --test it owner      one target, tests with a word
  cargo xtask test-fast -- sse -- --nocapture   as test binaries take them

Exit codes: 0 all passed; 1 a test or the build failed; 2 usage; 3 environment;
4 no test was selected; 130 interrupted.";
