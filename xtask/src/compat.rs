//! `cargo xtask compat`: recorded traffic and real clients through the proxy; tables say what holds.
//!
//! First every fixture that the proxy can serve is replayed. Then the sections: clients that are told the proxy's
//! address, clients that `prodex run` starts, a pool of three accounts of which one is used up and one has an
//! expired token, conversations that outlive something, and a proxy that is killed under its client. What a case
//! checks stands in `harness::compat`; here is what is put together, and the verdict.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::clients::{self, Cache, Client};
use harness::compat::{CaseResult, Check, Report, Verdict};
use serde::Serialize;

use crate::compat_replay::{self, FIXTURES, Kind, Pace, Way, load, open, probes};
use crate::exit::Exit;
use crate::step::Steps;
use crate::terminal;

mod killed;

pub(crate) mod proxy;

mod section;

use section::Section;

/// Replay recorded traffic and drive real clients through the proxy.
///
/// Builds the proxy, replays every fixture through it, then starts a mock upstream and lets every installed
/// client finish real turns. The report is written to `target/compat`. No network and no account is needed;
/// clients are fetched once by `cargo xtask compat-clients --install`, and skipped when none is there.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A client to drive; may be repeated [default: all that are installed].
    #[arg(long = "client", value_name = "CLIENT@VERSION")]
    clients: Vec<Client>,
    /// The proxy program [default: prodex, built now].
    #[arg(long, value_name = "PROGRAM")]
    prodex: Option<PathBuf>,
    /// Leave the fixtures out.
    #[arg(long)]
    clients_only: bool,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask compat
  cargo xtask compat --client codex@0.169.0 --json

Exit codes: 0 everything holds; 1 something does not; 3 a client or npm is missing;
4 with --clients-only, no client is installed.";

/// What came of all sections.
#[derive(Debug, Serialize)]
struct Document {
    version: u32,
    passed: bool,
    /// What came of the fixtures.
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<harness::report::Report>,
    /// Why no client was driven.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'static str>,
    sections: Vec<Outcome>,
}

/// What came of a section: its cases, and what was checked once for all of them.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) checks: Vec<Check>,
}

impl Outcome {
    fn passed(&self) -> bool {
        self.report.passed() && self.checks.iter().all(|check| check.ok)
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    only_codex(&args.clients)?;
    let clients = find_clients(&args.clients)?;
    if clients.is_empty() && args.clients_only {
        terminal::progress(NO_CLIENT);
        return Ok(Exit::NothingSelected);
    }
    let program = match &args.prodex {
        Some(program) => program.clone(),
        None => match build()? {
            Some(program) => program,
            None => return Ok(Exit::Findings),
        },
    };
    let replay = match args.clients_only {
        true => None,
        false => match replay_fixtures(&program, args.json)? {
            Some(report) => Some(report),
            None => return Ok(Exit::Interrupted),
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sections = runtime.block_on(async {
        tokio::select! {
            sections = drive(&program, &clients) => sections.map(Some),
            // What was started is ended by its drop.
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    })?;
    let Some(sections) = sections else { return Ok(Exit::Interrupted) };
    let skipped = clients.is_empty().then_some(NO_CLIENT);
    let sections = if clients.is_empty() { Vec::new() } else { sections };
    let is_transparent = replay.as_ref().is_none_or(harness::report::Report::passed);
    let passed = is_transparent && sections.iter().all(Outcome::passed);
    let document = Document { version: 2, passed, replay, skipped, sections };
    if args.json {
        terminal::result(&serde_json::to_string(&document)?)?;
    } else {
        terminal::result(&render(&document))?;
    }
    Ok(if passed { Exit::Good } else { Exit::Findings })
}

const NO_CLIENT: &str = "no client is installed; `cargo xtask compat-clients --install` fetches some";

/// Replays what fixtures there are and writes the report. None when it was interrupted.
fn replay_fixtures(program: &Path, quiet: bool) -> Result<Option<harness::report::Report>> {
    terminal::progress("replaying the fixtures");
    let way = Way::Program(program.to_owned());
    let mut subjects = load(&open(FIXTURES.as_ref())?, &[], &way)?;
    subjects.extend(probes(&[], Kind::Pooled, SLOW)?);
    let pace = Pace { speed: 1.0, max_gap: Duration::from_millis(20) };
    let report = compat_replay::replay(&way, Kind::Pooled, &subjects, pace, quiet)?;
    if let Some(report) = &report {
        compat_replay::write(report, "target/compat".as_ref())?;
    }
    Ok(report)
}

/// How long the slow probe takes to begin: the full 30 seconds are `compat-replay --patient`.
const SLOW: Duration = Duration::from_secs(1);

/// Runs every section, with a life sign for each case.
async fn drive(program: &Path, clients: &[(Client, PathBuf)]) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for section in Section::ALL {
        outcomes.push(section.run(program, clients, &mut life_sign).await?);
    }
    Ok(outcomes)
}

pub(crate) fn life_sign(result: &CaseResult) {
    let verdict = if result.verdict == Verdict::Pass { "ok" } else { "FAILED" };
    let CaseResult { client, mode, scenario, .. } = result;
    let milliseconds = result.wall_ms();
    terminal::progress(&format!("{verdict:6} {client} {} {scenario} ({milliseconds} ms)", mode.name()));
}

/// The clients that were asked for, or all that are there.
pub(crate) fn find_clients(asked: &[Client]) -> Result<Vec<(Client, PathBuf)>> {
    let cache = Cache::of_user()?;
    let clients = if asked.is_empty() { cache.installed(clients::Kind::Codex) } else { asked.to_vec() };
    let find = |client: Client| {
        let program = cache.program(&client).with_context(|| {
            format!(
                "{client} is not installed; `cargo xtask compat-clients --install --client {client}` does it"
            )
        })?;
        Ok((client, program))
    };
    clients.into_iter().map(find).collect()
}

/// Refuses clients that are only recorded so far.
pub(crate) fn only_codex(clients: &[Client]) -> Result<()> {
    match clients.iter().find(|client| client.kind != clients::Kind::Codex) {
        Some(other) => bail!("{other} is not driven through a proxy yet; of the clients, codex is"),
        None => Ok(()),
    }
}

/// Builds the proxy. None when it does not compile: cargo has said why.
pub(crate) fn build() -> Result<Option<PathBuf>> {
    terminal::progress("building prodex");
    let steps = Steps::new()?;
    let mut cargo = crate::cargo::command();
    let ended = steps.show(cargo.args(["build", "--quiet", "--locked", "-p", "prodex"]))?;
    if ended.is_interrupted {
        bail!("interrupted while building");
    }
    if !ended.status.success() {
        return Ok(None);
    }
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec().context("failed to ask cargo")?;
    Ok(Some(metadata.target_directory.join("debug").join("prodex").into()))
}

/// The tables, one after the other, and the verdict in one line.
fn render(document: &Document) -> String {
    let mut text = String::new();
    if let Some(report) = &document.replay {
        text.push_str(&report.table());
        text.push_str("\n\n");
    }
    for outcome in &document.sections {
        text.push_str(&render_outcome(outcome));
        text.push('\n');
    }
    let cases: usize = document.sections.iter().map(|outcome| outcome.report.results.len()).sum();
    let failed: usize = document.sections.iter().map(|outcome| outcome.report.failures().count()).sum();
    let checks = document.sections.iter().flat_map(|outcome| &outcome.checks);
    let (checks, broken) = (checks.clone().count(), checks.filter(|check| !check.ok).count());
    let verdict = if document.passed { "compat: everything holds" } else { "compat: NOT everything holds" };
    let passed = cases - failed;
    if let Some(why) = document.skipped {
        return text + &format!("real clients: skipped: {why}\n{verdict}");
    }
    text + &format!(
        "{verdict}: {passed} of {cases} cases, {} of {checks} checks of the proxy",
        checks - broken
    )
}

pub(crate) fn render_outcome(outcome: &Outcome) -> String {
    let mut text = outcome.report.table();
    for check in outcome.checks.iter().filter(|check| !check.ok) {
        text.push_str(&format!("not: {}\n  seen: {}\n", check.what, check.seen));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness::clients::codex::Mode;
    use harness::compat::Evidence;

    fn outcome(target: &str, verdict: Verdict, check: bool) -> Outcome {
        let mut evidence = Evidence::default();
        evidence.wall_ms.push(400);
        let result = CaseResult {
            client: "codex@0.169.0".into(),
            mode: Mode::ChatgptSplit,
            scenario: "simple".into(),
            verdict,
            checks: Vec::new(),
            evidence,
        };
        let checks =
            vec![Check { what: "the proxy ends by itself".into(), ok: check, seen: "killed".into() }];
        Outcome { report: Report { target: target.into(), results: vec![result] }, checks }
    }

    #[test]
    fn the_tables_end_with_a_verdict() {
        let sections = vec![outcome("one", Verdict::Pass, true), outcome("two", Verdict::Pass, false)];
        let passed = sections.iter().all(Outcome::passed);
        assert!(!passed, "a check of a section counts");
        insta::assert_snapshot!(render(&Document {
            version: 2,
            passed,
            replay: None,
            skipped: None,
            sections
        }));
    }
}
