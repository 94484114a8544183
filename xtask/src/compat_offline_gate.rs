//! `cargo xtask compat-offline-gate`: every fixture, with nothing in between and through our proxy.
//!
//! With nothing in between, whatever is found is the laboratory's own mistake; through the proxy it is the
//! proxy's. No network, no client and no account is needed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::compat::build;
use crate::compat_replay::{FIXTURES, Kind, Pace, Way, load, open, probes, replay, write};
use crate::exit::Exit;
use crate::terminal;

/// Replay every fixture, with nothing in between and through the proxy.
///
/// The first run shows that the laboratory finds nothing where nothing is wrong, the second that the proxy
/// conforms.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The proxy's program [default: prodex, built now].
    #[arg(long, value_name = "PROGRAM")]
    proxy: Option<PathBuf>,
    /// Fail when the replay takes longer than this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    max_seconds: u64,
    /// Write the two reports into `direct` and `proxy` in this directory.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask compat-offline-gate
  cargo xtask compat-offline-gate --report target/replay

Exit codes: 0 everything holds; 1 something does not, or it took too long; 3 the proxy does
not start.";

/// How long the slow probe takes to begin: the full 30 seconds are `compat-replay --patient`.
const SLOW: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let program = match &args.proxy {
        Some(program) => Some(program.clone()),
        None => build()?,
    };
    let Some(program) = program else { return Ok(Exit::Findings) };
    let begun = Instant::now();
    let library = open(FIXTURES.as_ref())?;
    let pace = Pace { speed: 1.0, max_gap: Duration::from_millis(20) };
    let mut reports = Vec::new();
    for (name, way, kind) in
        [("direct", Way::Nothing, Kind::Transparent), ("proxy", Way::Program(program), Kind::Pooled)]
    {
        let mut subjects = load(&library, &[], &way)?;
        subjects.extend(probes(&[], kind, SLOW)?);
        let Some(report) = replay(&way, kind, &subjects, pace, args.json)? else {
            return Ok(Exit::Interrupted);
        };
        if let Some(place) = &args.report {
            write(&report, &place.join(name))?;
        }
        if !args.json {
            terminal::result(&if report.passed() { report.verdict() } else { report.table() })?;
        }
        reports.push(report);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let is_quick = seconds <= args.max_seconds as f64;
    let passed = is_quick && reports.iter().all(harness::report::Report::passed);
    if args.json {
        let document =
            serde_json::json!({ "version": 1, "passed": passed, "seconds": seconds, "reports": reports });
        terminal::result(&document.to_string())?;
    } else {
        let verdict = match (passed, is_quick) {
            (true, _) => "everything holds".to_owned(),
            (false, true) => "NOT everything holds".to_owned(),
            (false, false) => format!("took longer than {} s", args.max_seconds),
        };
        let fixtures = library.names().len();
        terminal::result(&format!("compat-offline-gate: {verdict}: {fixtures} fixtures in {seconds:.1} s"))?;
    }
    Ok(if passed { Exit::Good } else { Exit::Findings })
}
