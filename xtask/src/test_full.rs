//! `cargo xtask test-full`: every test in every lane, and the examples of the documentation.

use anyhow::Result;

use crate::exit::Exit;
use crate::step::Steps;
use crate::suite::{self, Suite};
use crate::terminal;

/// Run every test in every lane, and the examples of the documentation.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: suite::Options,
}

/// Runs everything; what may not run beside others waits until it is alone.
pub(crate) fn run(args: &Args) -> Result<Exit> {
    if args.common.extra.is_empty() && !args.common.explain {
        terminal::progress("the examples of the documentation");
        let mut cargo = crate::cargo::command();
        let ended =
            Steps::new()?.show(cargo.args(["test", "--locked", "--workspace", "--doc", "--quiet"]))?;
        if ended.is_interrupted {
            return Ok(Exit::Interrupted);
        }
        if !ended.status.success() {
            terminal::result("test-full: an example of the documentation failed: cargo test --doc")?;
            return Ok(Exit::Findings);
        }
    }
    let suite = Suite { takes_unowned: true, ..Suite::new("test-full", |_| true) };
    suite::run(&suite, &args.common)
}
