//! `cargo xtask compat`: real clients through the proxy, against a mock upstream; one table says what holds.
//!
//! Three sections: clients that are told the proxy's address, clients that `prodex run` starts, and a pool
//! of three accounts of which one is used up and one has an expired token. What a case checks stands in
//! `harness::compat`; here is what is put together, and the verdict.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use harness::clients::{Cache, Client, Kind};
use harness::compat::{CaseResult, Check, Report, Verdict};
use serde::Serialize;

use crate::exit::Exit;
use crate::step::Steps;
use crate::terminal;

pub(crate) mod proxy;

mod section;

use section::Section;

/// Drive real clients through the proxy.
///
/// Builds the proxy, starts a mock upstream and the proxy in front of it, and lets every installed client
/// finish real turns through it. No network and no account is needed; clients are fetched once by
/// `cargo xtask compat-clients --install`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A client to drive; may be repeated [default: all that are installed].
    #[arg(long = "client", value_name = "CLIENT@VERSION")]
    clients: Vec<Client>,
    /// The proxy program [default: prodex, built now].
    #[arg(long, value_name = "PROGRAM")]
    prodex: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask compat
  cargo xtask compat --client codex@0.169.0 --json

Exit codes: 0 everything holds; 1 something does not; 3 a client or npm is missing;
4 no client is installed.";

/// What came of all sections.
#[derive(Debug, Serialize)]
struct Document {
    version: u32,
    passed: bool,
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
    let clients = match find_clients(&args.clients)? {
        clients if clients.is_empty() => return skipped(args.json),
        clients => clients,
    };
    let program = match &args.prodex {
        Some(program) => program.clone(),
        None => match build()? {
            Some(program) => program,
            None => return Ok(Exit::Findings),
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
    let passed = sections.iter().all(Outcome::passed);
    let document = Document { version: 1, passed, sections };
    if args.json {
        terminal::result(&serde_json::to_string(&document)?)?;
    } else {
        terminal::result(&render(&document))?;
    }
    Ok(if passed { Exit::Good } else { Exit::Findings })
}

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
    let clients = if asked.is_empty() { cache.installed(Kind::Codex) } else { asked.to_vec() };
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
    match clients.iter().find(|client| client.kind != Kind::Codex) {
        Some(other) => bail!("{other} is not driven through a proxy yet; of the clients, codex is"),
        None => Ok(()),
    }
}

fn skipped(json: bool) -> Result<Exit> {
    let advice = "no client is installed; `cargo xtask compat-clients --install` fetches some";
    if json {
        terminal::result(&serde_json::json!({"version": 1, "passed": false, "skipped": advice}).to_string())?;
    } else {
        terminal::result(&format!("compat: skipped: {advice}"))?;
    }
    Ok(Exit::NothingSelected)
}

/// Builds the proxy. None when it does not compile: cargo has said why.
pub(crate) fn build() -> Result<Option<PathBuf>> {
    terminal::progress("building prodex");
    let steps = Steps::new()?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
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
        insta::assert_snapshot!(render(&Document { version: 1, passed, sections }));
    }
}
