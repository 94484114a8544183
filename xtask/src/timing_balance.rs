//! `cargo xtask timing-balance`: how long tests take, over many runs, and what shards may expect of them.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use anyhow::{Context, Result};
use manifest::timings::{self, Summary};
use serde::Serialize;

use crate::exit::Exit;
use crate::terminal;

/// Show how long tests take, over many runs.
///
/// Reads lines that test tasks printed with `--timings-json`, arrays, and stores of earlier runs; without a
/// file and with a terminal for standard input, the store of this checkout.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file with times; may be given more than once.
    #[arg(long, short, value_name = "F")]
    file: Vec<PathBuf>,
    /// How many of the slowest tests are shown.
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Print everything that is known, as JSON.
    #[arg(long)]
    json: bool,
    /// Print what to expect of each test, as JSON.
    #[arg(long, conflicts_with = "json")]
    weights_json: bool,
    /// Name the tests that are slow enough for the stress lane.
    #[arg(long)]
    stress_hints: bool,
}

/// From which time on a test is worth a lane where it disturbs nobody.
const SLOW_MILLISECONDS: f64 = 5000.0;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Weight<'a> {
    binary: &'a str,
    test: &'a str,
    average_ms: f64,
    max_ms: f64,
    runs: usize,
    weight_ms: f64,
}

/// Reads and shows.
pub(crate) fn run(args: &Args) -> Result<Exit> {
    let mut records = Vec::new();
    for (name, text) in sources(args)? {
        records.extend(timings::parse(&text).with_context(|| format!("failed to read {name}"))?);
    }
    if records.is_empty() {
        terminal::result("timing-balance: no times")?;
        return Ok(Exit::NothingSelected);
    }
    let summaries = timings::summarize(&records);
    if args.json {
        terminal::result(&serde_json::to_string_pretty(&summaries)?)?;
    } else if args.weights_json {
        let weights: Vec<_> = summaries.iter().map(weight).collect();
        terminal::result(&serde_json::to_string_pretty(&weights)?)?;
    } else {
        terminal::result(&table(&summaries, args))?;
    }
    Ok(Exit::Good)
}

/// The texts to read, each with its name.
fn sources(args: &Args) -> Result<Vec<(String, String)>> {
    let mut sources = Vec::new();
    for path in &args.file {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {name}"))?;
        sources.push((name, text));
    }
    let mut input = std::io::stdin();
    if !input.is_terminal() {
        let mut text = String::new();
        input.read_to_string(&mut text).context("failed to read standard input")?;
        sources.push(("standard input".to_owned(), text));
    }
    if sources.iter().all(|(_, text)| text.trim().is_empty()) && args.file.is_empty() {
        let metadata =
            cargo_metadata::MetadataCommand::new().no_deps().exec().context("failed to ask cargo")?;
        let store = metadata.target_directory.join(timings::PATH);
        let text = std::fs::read_to_string(&store).unwrap_or_default();
        sources.push((store.into_string(), text));
    }
    Ok(sources)
}

fn weight(summary: &Summary) -> Weight<'_> {
    Weight {
        binary: &summary.id.binary,
        test: &summary.id.test,
        average_ms: summary.average_milliseconds,
        max_ms: summary.max_milliseconds,
        runs: summary.runs,
        weight_ms: summary.weight_milliseconds,
    }
}

fn table(summaries: &[Summary], args: &Args) -> String {
    let mut text = "  average       p90       max  runs  test\n".to_owned();
    for summary in summaries.iter().take(args.limit) {
        let [average, p90, max] =
            [summary.average_milliseconds, summary.p90_milliseconds, summary.max_milliseconds]
                .map(|milliseconds| format!("{:>8.3}s", milliseconds / 1e3));
        text += &format!("{average} {p90} {max} {:>5}  {}\n", summary.runs, summary.id);
    }
    if args.stress_hints {
        let slow = summaries.iter().filter(|summary| summary.weight_milliseconds >= SLOW_MILLISECONDS);
        for summary in slow {
            text += &format!(
                "slow: binary_id(={}) & test(={}), weight = \"{}ms\"\n",
                summary.id.binary, summary.id.test, summary.weight_milliseconds
            );
        }
    }
    let runs: usize = summaries.iter().map(|summary| summary.runs).sum();
    text + &format!("timing-balance: {} tests in {runs} runs", summaries.len())
}
