//! `cargo xtask load-smoke`: a few dozen requests with every byte checked, before anybody asks for thousands.
//!
//! The proxy is judged by what it adds to the time of the mock alone, measured in turns with it in the same
//! run: a slow machine is slow for both. What counts is the median of the rounds, so that neither one bad round
//! breaks the limit nor one good round keeps it; where the limit is broken there are more rounds before that is said,
//! because what else the machine does comes and goes, and what a proxy adds stays.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use harness::load::compare::Spread;
use harness::load::driver::{self, Measured};
use harness::load::plan::{Pace, Plan, Stage, Target, Traffic};
use harness::load::pressure::Watch;
use harness::load::result::{Cell, Outcome, Route, Times};
use harness::load::rig;
use harness::mock::bulk::{Bulk, BulkConfig};
use harness::mock::{Account, Script};
use serde::Serialize;

use crate::compat::build;
use crate::exit::Exit;
use crate::load::{stop_on_signals, unless_stopped};
use crate::terminal;

/// Send some requests through the proxy, and judge every byte.
///
/// Over SSE, as one unary reply and on a WebSocket. Nothing may go wrong, nothing may be refused, and the
/// proxy may add a little to the time of the first content event.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What is driven: the mock alone, or the mock and the proxy before it in turns.
    #[arg(long, value_enum, default_value_t = Mode::Proxy)]
    mode: Mode,
    /// The proxy's program [default: prodex, built now].
    #[arg(long, value_name = "PROGRAM")]
    prodex: Option<PathBuf>,
    /// Requests on each route in each round.
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    requests: u64,
    /// Requests at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=256))]
    concurrency: u64,
    /// How long all of it may take, the build not counted.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1_000..=600_000))]
    timeout_ms: u64,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    json: bool,
}

/// What is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// The mock alone.
    Mock,
    /// The mock and the proxy.
    Proxy,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask load-smoke
  cargo xtask load-smoke --mode mock
  cargo xtask load-smoke --prodex target/release/prodex --json

Exit codes: 0 all is well; 1 something is not; 3 the proxy does not start; 124 it took too
long; 130 interrupted.";

/// How often mock and proxy are driven in turns.
const ROUNDS: usize = 5;

/// How often at most, where the limit is broken.
const MOST_ROUNDS: usize = 15;

/// How many accounts the proxy has.
const PROFILES: usize = 2;

/// What the proxy may add to the 95th percentile of the time to the first content event, in milliseconds.
const MOST_ADDED: f64 = 25.0;

/// What was seen of one target.
#[derive(Debug, Clone, Default, Serialize)]
struct Side {
    requests: u64,
    not_ok: u64,
    events: u64,
    /// The 95th percentile of the time to the first content event in each round, in milliseconds.
    ttft_p95_ms: Vec<f64>,
    examples: Vec<String>,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Verdict {
    version: u32,
    passed: bool,
    seconds: f64,
    mock: Side,
    proxy: Option<Side>,
    /// Causes of admission pressure.
    pressure: u64,
    /// What the proxy added, in milliseconds: the median over the rounds, with the least and the greatest.
    added_ms: Option<Spread>,
    failures: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    if args.dry_run {
        terminal::result(&plan_in_words(args))?;
        return Ok(Exit::Good);
    }
    let program = match (args.mode, &args.prodex) {
        (Mode::Mock, _) => None,
        (Mode::Proxy, Some(program)) => Some(program.clone()),
        (Mode::Proxy, None) => match build()? {
            Some(program) => Some(program),
            None => return Ok(Exit::Findings),
        },
    };
    let limit = Duration::from_millis(args.timeout_ms);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = stop_on_signals()?;
    // What was started is ended by its drop.
    let smoke = async { tokio::time::timeout(limit, smoke(args, program)).await };
    let verdict = runtime.block_on(unless_stopped(&stop, smoke));
    // A driver that is still at it must not be waited for.
    runtime.shutdown_background();
    let verdict = match verdict {
        None => {
            terminal::progress("load-smoke: interrupted");
            return Ok(Exit::Interrupted);
        }
        Some(Err(_)) => {
            terminal::progress(&format!("load-smoke: NOT over within {:.1} s", limit.as_secs_f64()));
            return Ok(Exit::TimedOut);
        }
        Some(Ok(verdict)) => verdict?,
    };
    terminal::result(&if args.json { serde_json::to_string(&verdict)? } else { table(&verdict) })?;
    Ok(if verdict.passed { Exit::Good } else { Exit::Findings })
}

fn plan_in_words(args: &Args) -> String {
    let targets = if args.mode == Mode::Mock { "the mock" } else { "the mock and the proxy in turns" };
    format!(
        "load-smoke: {ROUNDS} rounds of {targets}, in each {} requests over SSE, as unary replies and on \
         WebSockets, {} at once",
        args.requests, args.concurrency
    )
}

async fn smoke(args: &Args, program: Option<PathBuf>) -> Result<Verdict> {
    let begun = Instant::now();
    let accounts: Vec<Account> = rig::accounts(PROFILES);
    let script = accounts.iter().cloned().fold(Script::default(), Script::account);
    let mock = Bulk::start(BulkConfig { script, ..BulkConfig::default() })?;
    let direct = Target::of_url("mock", &mock.base_url()).map_err(|error| anyhow!(error))?;
    let mut sides = vec![(direct.with_account(&accounts[0]), Side::default())];
    let mut proxy = None;
    if let Some(program) = program {
        let started = rig::start_proxy(&program, &mock.base_url(), PROFILES, None, &[]).await?;
        let watch = Watch::of_new(&started.logs);
        let target = Target::of_url("proxy", &started.base_url).map_err(|error| anyhow!(error))?;
        sides.push((target, Side::default()));
        proxy = Some((started, watch));
    }
    // Connections, templates and the quota of the accounts: what is asked for once is not measured.
    for (target, _) in &sides {
        drive(plan(target, args.concurrency.max(8), args.concurrency, 0)).await?;
    }
    let mut admission = 0;
    for round in 0..MOST_ROUNDS {
        for (target, side) in &mut sides {
            let measured = drive(plan(target, args.requests, args.concurrency, round as u64)).await?;
            admission += side.add(&measured);
        }
        let is_kept = added(&sides).is_none_or(|added| added.median <= MOST_ADDED);
        if (round + 1) % ROUNDS == 0 && is_kept {
            break;
        }
    }
    let added_ms = added(&sides);
    let mut failures = Vec::new();
    let mut pressure = admission;
    if let Some((proxy, watch)) = proxy {
        // The logs go with the proxy.
        pressure = watch.finish(admission).await.causes;
        proxy.stop().await?;
    }
    let misplaced = mock.metrics().all.misplaced;
    if misplaced > 0 {
        failures.push(format!("{misplaced} requests brought one account what is another's"));
    }
    let mut sides = sides.into_iter().map(|(_, side)| side);
    let (mock_side, proxy_side) = (sides.next().unwrap_or_default(), sides.next());
    Ok(judge(mock_side, proxy_side, added_ms, pressure, failures, begun.elapsed()))
}

/// What the second target adds to the first one's times, over the rounds; none without a second.
fn added(sides: &[(Target, Side)]) -> Option<Spread> {
    let [(_, mock), (_, proxy)] = sides else { return None };
    added_by(mock, proxy)
}

fn added_by(mock: &Side, proxy: &Side) -> Option<Spread> {
    Spread::of(proxy.ttft_p95_ms.iter().zip(&mock.ttft_p95_ms).map(|(proxy, mock)| proxy - mock))
}

/// One closed stage on each route.
fn plan(target: &Target, requests: u64, concurrency: u64, seed: u64) -> Plan {
    let stage = |route: Route| Stage {
        name: route.name().to_owned(),
        executor: "closed".to_owned(),
        pace: Pace::Closed { requests: Some(requests), seconds: None },
        concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX),
        traffic: Traffic { route, timeout: 10.0, ..Traffic::default() },
    };
    Plan {
        scenario: "smoke".to_owned(),
        seed,
        threads: 1,
        target: target.clone(),
        stages: Route::ALL.map(stage).to_vec(),
        max_bytes: 1 << 30,
        tick_seconds: 1.0,
    }
}

async fn drive(plan: Plan) -> Result<Measured> {
    let measured = tokio::task::spawn_blocking(move || driver::run(&plan, |_| None)).await;
    measured.context("failed to see the driver to its end")?.context("failed to drive")
}

impl Side {
    /// Adds a round. Says how many refusals for want of room there were.
    fn add(&mut self, measured: &Measured) -> u64 {
        let of = |outcome| measured.cells.iter().filter(move |cell| cell.outcome == outcome);
        let all: u64 = measured.cells.iter().map(|cell| cell.count).sum();
        self.requests += all;
        self.not_ok += all - of(Outcome::Ok).map(|cell| cell.count).sum::<u64>();
        self.events += measured.cells.iter().map(|cell| cell.events).sum::<u64>();
        let mut first = Times::default();
        // A unary reply has no content events.
        of(Outcome::Ok).for_each(|cell: &Cell| first.add(&cell.first_content));
        self.ttft_p95_ms.extend(first.millis(0.95));
        self.examples.extend(measured.examples.iter().map(|example| example.text.clone()));
        of(Outcome::Admission).map(|cell| cell.count).sum()
    }
}

fn judge(
    mock: Side,
    proxy: Option<Side>,
    added_ms: Option<Spread>,
    pressure: u64,
    mut failures: Vec<String>,
    took: Duration,
) -> Verdict {
    let named = [("mock", Some(&mock)), ("proxy", proxy.as_ref())];
    for (name, side) in named.into_iter().filter_map(|(name, side)| Some((name, side?))) {
        if side.requests == 0 || side.ttft_p95_ms.len() < ROUNDS {
            failures.push(format!("{name}: nothing was measured in a round"));
        }
        if side.not_ok > 0 {
            let first = side.examples.first().map_or("", String::as_str);
            failures.push(format!("{name}: {} of {} requests failed: {first}", side.not_ok, side.requests));
        }
    }
    if pressure > 0 {
        failures.push(format!("{pressure} requests were refused, or waited too long, for want of room"));
    }
    if let Some(added) = added_ms.filter(|added| added.median > MOST_ADDED) {
        let Spread { median, least, greatest } = added;
        failures.push(format!(
            "the proxy adds {median:.1} ms ({least:.1} to {greatest:.1}) to the p95 of the first content event, {MOST_ADDED} ms are allowed"
        ));
    }
    let (passed, seconds) = (failures.is_empty(), took.as_secs_f64());
    Verdict { version: 1, passed, seconds, mock, proxy, pressure, added_ms, failures }
}

fn table(verdict: &Verdict) -> String {
    let mut text = String::new();
    let named = [("mock", Some(&verdict.mock)), ("proxy", verdict.proxy.as_ref())];
    for (name, side) in named.into_iter().filter_map(|(name, side)| Some((name, side?))) {
        let p95 = Spread::of(side.ttft_p95_ms.iter().copied()).map_or(0.0, |p95| p95.median);
        text.push_str(&format!(
            "{name:<6} {:>6} requests, {} not ok, {} events, first content event p95 {p95:.2} ms\n",
            side.requests, side.not_ok, side.events
        ));
    }
    for failure in &verdict.failures {
        text.push_str(&format!("not: {failure}\n"));
    }
    let word = if verdict.passed { "all is well" } else { "NOT all is well" };
    let added =
        verdict.added_ms.map_or(String::new(), |added| format!(", the proxy adds {:.2} ms", added.median));
    text + &format!("load-smoke: {word}{added}, in {:.1} s", verdict.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(p95: [f64; ROUNDS]) -> Side {
        Side { requests: 288, events: 4_000, ttft_p95_ms: p95.to_vec(), ..Side::default() }
    }

    fn verdict(mock: Side, proxy: Side, pressure: u64) -> Verdict {
        let added = added_by(&mock, &proxy);
        judge(mock, Some(proxy), added, pressure, Vec::new(), Duration::from_millis(1_500))
    }

    #[test]
    fn a_slow_machine_is_slow_for_both_and_most_rounds_decide() {
        let busy = side([915.0, 2_000.0, 1_100.0, 905.0, 955.0]);
        let good = verdict(side([900.0, 910.0, 905.0, 900.0, 950.0]), busy, 0);
        assert!(good.passed, "{:?}", good.failures);
        let slow = verdict(side([1.0; ROUNDS]), side([27.0, 26.5, 90.0, 28.0, 1.0]), 0);
        assert!(!slow.passed);
        insta::assert_snapshot!(table(&slow), @"
        mock      288 requests, 0 not ok, 4000 events, first content event p95 1.00 ms
        proxy     288 requests, 0 not ok, 4000 events, first content event p95 27.00 ms
        not: the proxy adds 26.0 ms (0.0 to 89.0) to the p95 of the first content event, 25 ms are allowed
        load-smoke: NOT all is well, the proxy adds 26.00 ms, in 1.5 s
        ");
    }

    #[test]
    fn one_failure_one_refusal_and_an_empty_round_are_too_much() {
        let failed = Side { not_ok: 1, examples: vec!["503".into()], ..side([1.0; ROUNDS]) };
        assert_eq!(
            verdict(side([1.0; ROUNDS]), failed, 0).failures,
            ["proxy: 1 of 288 requests failed: 503"]
        );
        assert!(!verdict(side([1.0; ROUNDS]), side([1.0; ROUNDS]), 1).passed);
        let empty = Side { ttft_p95_ms: vec![1.0], ..side([1.0; ROUNDS]) };
        assert!(!verdict(empty, side([1.0; ROUNDS]), 0).passed);
    }

    #[test]
    fn the_mock_alone_is_driven_to_a_verdict() {
        let args = Args {
            mode: Mode::Mock,
            prodex: None,
            requests: 8,
            concurrency: 2,
            timeout_ms: 30_000,
            dry_run: false,
            json: true,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let verdict = runtime.block_on(smoke(&args, None)).unwrap();
        assert!(verdict.passed, "{:?}", verdict.failures);
        assert_eq!(verdict.mock.requests, 8 * 3 * ROUNDS as u64);
    }
}
