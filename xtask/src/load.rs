//! `cargo xtask load`: a scenario driven through the mock alone, our proxy, or any other; judged and reported.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use harness::load::driver::{self, Measured, Progress};
use harness::load::plan::{DEFAULT_BYTES, Plan, Target};
use harness::load::pressure::Watch;
use harness::load::resources::{self, Process, Sampler};
use harness::load::result::{self, Outcome, Route, Run};
use harness::load::rig;
use harness::load::scenario::{Changes, Limits, Scenario, parse_duration};
use harness::load::{document, hdr, machine, page, slope, table, thresholds};

mod compare;
mod progress;
mod self_test;

use progress::Shown;

use crate::exit::Exit;
use crate::step::Steps;
use crate::terminal;

/// Drive a scenario of load through a proxy, and judge what came of it.
///
/// Every byte of every reply is compared with what was asked for, and response times begin when requests were
/// meant to be sent. What is driven must lead to the bulk mock: that is `--start-mock` alone, our proxy in front of it
/// with `--start-proxy`, or another program with `--target` whose upstream is a `mock-upstream --bulk`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The scenario: baseline, stress, spike, soak, slow-client, slow-upstream, long-stream, websocket,
    /// sessions, or a file.
    #[arg(long, default_value = "baseline", value_name = "NAME|FILE")]
    scenario: String,
    /// Start a bulk mock.
    #[arg(long)]
    start_mock: bool,
    /// The mock's program [default: mock-upstream, built now with optimisation].
    #[arg(long, value_name = "PROGRAM")]
    mock: Option<PathBuf>,
    /// Start our proxy in front of the mock.
    #[arg(long, requires = "start_mock", conflicts_with = "target")]
    start_proxy: bool,
    /// The proxy's program [default: prodex, built now with optimisation].
    #[arg(long, value_name = "PROGRAM")]
    prodex: Option<PathBuf>,
    /// Profiles of the proxy, and accounts of the mock.
    #[arg(long, default_value_t = 3, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    profiles: u16,
    /// A setting for the proxy that is started.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Drive what serves at this base URL; with --compare NAME=URL, and as often as there are targets.
    #[arg(long, value_name = "URL", conflicts_with = "start_mock")]
    target: Vec<String>,
    /// Where the proxy's run logs are, or are to go.
    #[arg(long, value_name = "DIR")]
    runtime_log_dir: Option<PathBuf>,
    /// What all random choices are made from.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
    /// Threads of the driver.
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Requests of each closed stage.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    requests: Option<u64>,
    /// Length of each stage, as in 30s.
    #[arg(long, value_name = "TIME", value_parser = length)]
    duration: Option<Duration>,
    /// Requests at once.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    concurrency: Option<u32>,
    /// Requests per second of each stage with a constant rate.
    #[arg(long, value_name = "NUMBER", value_parser = rate)]
    rate: Option<f64>,
    /// Where requests go.
    #[arg(long, value_name = "ROUTE", value_parser = ["responses", "compact", "websocket"])]
    route: Option<String>,
    /// Every so many requests is a compaction.
    #[arg(long, value_name = "NUMBER")]
    compact_every: Option<u64>,
    /// How long the client waits after each read.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=1000))]
    client_read_delay_ms: Option<u64>,
    /// How long a request may take.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=120_000))]
    request_timeout_ms: Option<u64>,
    /// Most requests that may not end well, as a share of one.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    max_error_rate: Option<f64>,
    /// Longest 95th percentile of the time to the first content event.
    #[arg(long, value_name = "MS", value_parser = rate)]
    max_ttft_p95_ms: Option<f64>,
    /// Most causes of admission pressure, as a share of all requests.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    max_admission_pressure_rate: Option<f64>,
    /// Most that the proxy may add to the 95th percentile of the time to the first content event, against a
    /// run on the mock alone that is made before.
    #[arg(long, value_name = "MS", value_parser = rate, requires = "start_proxy")]
    max_added_ttft_p95_ms: Option<f64>,
    /// End the run after so long.
    #[arg(long, default_value = "2h", value_name = "TIME", value_parser = length)]
    time_limit: Duration,
    /// Start programs that are built without optimisation, and drive from this process: to try a scenario.
    #[arg(long)]
    debug_build: bool,
    /// Write the whole run into this file, as JSON with histograms, to be shown again.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Write the run into this file, as one HTML page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the histograms of the run into this file, as an interval log of HdrHistogram.
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
    #[command(flatten)]
    compare: compare::Args,
    /// Drive the mock alone, and say how many requests a second of CPU time the driver and the mock are good for.
    #[arg(long, conflicts_with_all = [
        "compare", "scenario", "start_mock", "target", "debug_build", "save", "html", "hdr", "runtime_log_dir",
        "requests", "duration", "concurrency", "rate", "route", "compact_every", "client_read_delay_ms",
        "request_timeout_ms", "max_error_rate", "max_ttft_p95_ms", "max_admission_pressure_rate",
    ])]
    self_test: bool,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask load --start-mock
  cargo xtask load --scenario spike --start-mock --start-proxy
  cargo xtask load --scenario sessions --start-mock --start-proxy --profiles 8 --seed 7
  cargo xtask load --target http://127.0.0.1:8080 --runtime-log-dir logs
  cargo xtask load --scenario my.toml --dry-run
  cargo xtask load --scenario soak --start-mock --start-proxy --html soak.html
  cargo xtask load --compare --nginx
  cargo xtask load --self-test

Exit codes: 0 all limits kept; 1 a limit is broken; 2 usage, or a mistake in a scenario;
3 a program does not start; 4 nothing was driven; 124 out of time; 130 interrupted.";

pub(crate) fn run(args: &Args) -> Result<Exit> {
    if let Some(problem) = misuse(args) {
        terminal::progress(&format!("error: {problem}"));
        return Ok(Exit::Usage);
    }
    if args.compare.is_asked_for() {
        return compare::run(args);
    }
    if args.self_test {
        return self_test::run(args);
    }
    if args.target.len() > 1 {
        terminal::progress("error: one --target is driven at a time, except with --compare");
        return Ok(Exit::Usage);
    }
    let scenario = match scenario(args) {
        Ok(scenario) => scenario,
        Err(error) => {
            terminal::progress(&format!("error: {error}"));
            return Ok(Exit::Usage);
        }
    };
    let target = args.target.first().map(|url| Target::of_url("target", url)).transpose();
    let target = match target {
        Ok(target) => target,
        Err(problem) => {
            terminal::progress(&format!("error: {problem}"));
            return Ok(Exit::Usage);
        }
    };
    if args.dry_run {
        let nowhere = || Target::of_url("mock", "http://127.0.0.1:0").map_err(|problem| anyhow!(problem));
        let plan = plan(args, &scenario, target.map_or_else(nowhere, Ok)?);
        terminal::result(&format!("{}{}", plan.outline(), outline(&limits(args, &scenario))))?;
        return Ok(Exit::Good);
    }
    let Prepared { programs, stop, runtime } = match Prepared::of(args)? {
        Ok(prepared) => prepared,
        Err(exit) => return Ok(exit),
    };
    let ended = runtime.block_on(perform(args, &scenario, target, &programs, &stop));
    let Some(run) = ended? else {
        terminal::progress("load: interrupted before anything was driven");
        return Ok(Exit::Interrupted);
    };
    report(args, &run)
}

/// What of the flags makes no sense together, where clap cannot tell.
fn misuse(args: &Args) -> Option<String> {
    let compares = args.compare.is_asked_for();
    let is_given = |files: &[&Option<PathBuf>]| files.iter().any(|file| file.is_some());
    if !(compares || args.self_test || args.start_mock || args.dry_run) && args.target.is_empty() {
        let ways = "give --start-mock, with or without --start-proxy, or --target URL";
        return Some(format!("nothing to drive: {ways}"));
    }
    if !compares && args.target.len() > 1 {
        return Some("one --target is driven; several are compared, with --compare".to_owned());
    }
    if !(args.start_proxy || compares) && (args.prodex.is_some() || !args.settings.is_empty()) {
        return Some("--prodex and --set mean nothing without --start-proxy".to_owned());
    }
    if !(args.start_mock || compares || args.self_test) && args.mock.is_some() {
        return Some("--mock means nothing without --start-mock".to_owned());
    }
    if !args.start_proxy && args.target.is_empty() && is_given(&[&args.runtime_log_dir]) {
        return Some("--runtime-log-dir means nothing without --start-proxy or --target".to_owned());
    }
    // Known before, not behind hours of a run.
    let files = [&args.save, &args.html, &args.hdr].into_iter().flatten();
    let mut directories = files.filter_map(|file| Some((file, std::path::absolute(file).ok()?)));
    let nowhere = directories.find(|(_, path)| path.is_dir() || !path.parent().is_some_and(Path::is_dir));
    nowhere.map(|(file, _)| format!("{} cannot be written: no file can be there", file.display()))
}

/// What comes of some work, unless somebody wants the run to end first; what it had started ends with it then.
pub(crate) async fn unless_stopped<T>(stop: &AtomicBool, work: impl Future<Output = T>) -> Option<T> {
    let stopped = async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        done = work => Some(done),
        () = stopped => None,
    }
}

/// A flag that is set when somebody wants the run to end.
pub(crate) fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("failed to listen for signals")?;
    }
    Ok(stop)
}

/// The scenario as the flags change it.
fn scenario(args: &Args) -> Result<Scenario> {
    let mut scenario = Scenario::load(&args.scenario).map_err(in_words)?;
    let route = args.route.as_deref().map(|route| match route {
        "compact" => Route::Compact,
        "websocket" => Route::Websocket,
        _ => Route::Responses,
    });
    let changes = Changes {
        requests: args.requests,
        duration: args.duration,
        concurrency: args.concurrency.map(|number| number as usize),
        rate: args.rate,
        route,
        compact_every: args.compact_every,
        read_delay: args.client_read_delay_ms.map(Duration::from_millis),
        timeout: args.request_timeout_ms.map(Duration::from_millis),
    };
    scenario.change(&changes).map_err(in_words)?;
    Ok(scenario)
}

fn in_words(error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    anyhow!(error.to_string())
}

fn limits(args: &Args, scenario: &Scenario) -> Limits {
    Limits {
        error_rate: args.max_error_rate.or(scenario.limits.error_rate),
        ttft_p95_ms: args.max_ttft_p95_ms.or(scenario.limits.ttft_p95_ms),
        admission_pressure_rate: args.max_admission_pressure_rate.or(scenario.limits.admission_pressure_rate),
    }
}

fn outline(limits: &Limits) -> String {
    let limit = |name: &str, value: Option<f64>, unit: &str| {
        value.map_or(String::new(), |value| format!("  at most {value}{unit} {name}\n"))
    };
    [
        limit("of the requests in error, in each stage", limits.error_rate.map(|rate| 100.0 * rate), " %"),
        limit("to the first content (p95), in each stage", limits.ttft_p95_ms, " ms"),
        limit("admission pressure", limits.admission_pressure_rate.map(|rate| 100.0 * rate), " %"),
    ]
    .concat()
}

fn plan(args: &Args, scenario: &Scenario, target: Target) -> Plan {
    scenario.plan(target, args.seed, usize::from(args.threads), DEFAULT_BYTES)
}

/// What every kind of run begins with.
struct Prepared {
    programs: Programs,
    stop: Arc<AtomicBool>,
    runtime: tokio::runtime::Runtime,
}

impl Prepared {
    /// Says how the task ends when the programs do not build. Signals ask the run to end from here on.
    fn of(args: &Args) -> Result<std::result::Result<Self, Exit>> {
        Ok(match Programs::build(args)? {
            Ok(programs) => {
                let stop = stop_on_signals()?;
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
                Ok(Self { programs, stop, runtime })
            }
            Err(exit) => Err(exit),
        })
    }
}

/// The programs of a run.
struct Programs {
    mock: PathBuf,
    proxy: PathBuf,
    /// None drives from this process.
    driver: Option<PathBuf>,
}

impl Programs {
    /// Builds what is needed; says how the task ends when it does not build.
    fn build(args: &Args) -> Result<std::result::Result<Self, Exit>> {
        let mut words = vec!["build", "--quiet", "--locked"];
        if !args.debug_build {
            words.extend(["--release", "-p", "harness", "--bin", "load-driver"]);
        }
        let compares = args.compare.is_asked_for();
        if (args.start_mock || compares || args.self_test) && args.mock.is_none() {
            words.extend(["-p", "mock-upstream", "--bin", "mock-upstream"]);
        }
        if (args.start_proxy || compares) && args.prodex.is_none() {
            words.extend(["-p", "prodex", "--bin", "prodex"]);
        }
        if words.contains(&"-p") {
            terminal::progress("building what is driven, and what drives");
            let ended = Steps::new()?.show(crate::cargo::command().args(&words))?;
            if ended.is_interrupted {
                return Ok(Err(Exit::Interrupted));
            }
            if !ended.status.success() {
                return Ok(Err(Exit::Environment));
            }
        }
        let metadata =
            cargo_metadata::MetadataCommand::new().no_deps().exec().context("failed to ask cargo")?;
        let profile = if args.debug_build { "debug" } else { "release" };
        let built = |name: &str| metadata.target_directory.join(profile).join(name).into_std_path_buf();
        // They are started in directories of their own.
        let given = |program: &Option<PathBuf>| program.as_deref().map(std::path::absolute).transpose();
        let proxy = given(&args.prodex)?.unwrap_or_else(|| built("prodex"));
        let driver = (!args.debug_build).then(|| built("load-driver"));
        let mock = given(&args.mock)?.unwrap_or_else(|| built("mock-upstream"));
        Ok(Ok(Self { mock, proxy, driver }))
    }
}

/// Starts what is to be driven, drives it, and ends it. None when it was interrupted before anything was driven.
async fn perform(
    args: &Args,
    scenario: &Scenario,
    target: Option<Target>,
    programs: &Programs,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Run>> {
    let accounts = usize::from(args.profiles);
    if !args.start_mock {
        let target = target.context("failed to find a target")?;
        let pids = served_by(&target)?;
        let pids: Vec<(&str, u32)> = pids.iter().map(|(name, pid)| (name.as_str(), *pid)).collect();
        return drive(args, scenario, target, &pids, Observed::default(), programs, stop).await.map(Some);
    }
    let started = unless_stopped(stop, rig::start_mock(&programs.mock, accounts, 1)).await;
    let Some(mock) = started.transpose().context("failed to start the mock")? else { return Ok(None) };
    let alone = rig::mock_target("mock", &mock).map_err(|problem| anyhow!(problem))?;
    if !args.start_proxy {
        let run = drive(args, scenario, alone, &[("mock", mock.pid())], Observed::default(), programs, stop)
            .await?;
        mock.stop().await?;
        return Ok(Some(run));
    }
    let without = match args.max_added_ttft_p95_ms {
        Some(_) => {
            let observed = Observed { is_quiet: true, ..Observed::default() };
            let run = drive(args, scenario, alone, &[], observed, programs, stop).await?;
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            Some(run)
        }
        None => None,
    };
    let logs = args.runtime_log_dir.as_deref();
    let started = rig::start_proxy(&programs.proxy, &mock.base_url, accounts, logs, &args.settings);
    let started = unless_stopped(stop, started).await.transpose();
    let Some(proxy) = started.context("failed to start the proxy")? else { return Ok(None) };
    let through = Target::of_url("proxy", &proxy.base_url).map_err(|problem| anyhow!(problem))?;
    let observed = Observed { logs: Some(proxy.logs.clone()), is_quiet: false };
    let pids = [("proxy", proxy.pid()), ("mock", mock.pid())];
    let mut run = drive(args, scenario, through, &pids, observed, programs, stop).await?;
    proxy.stop().await?;
    mock.stop().await?;
    if let (Some(without), Some(limit)) = (&without, args.max_added_ttft_p95_ms) {
        run.gates.extend(thresholds::judge_against(&run, without, limit));
    }
    Ok(Some(run))
}

/// The processes of this machine that serve a target, by a name each; none where it is elsewhere, or another user's.
fn served_by(target: &Target) -> Result<Vec<(String, u32)>> {
    if !target.address.ip().is_loopback() {
        return Ok(Vec::new());
    }
    let pids = resources::listeners(target.address.port()).context("failed to look for processes")?;
    let named = pids.into_iter().enumerate().map(|(at, pid)| match at {
        0 => (target.name.clone(), pid),
        _ => (format!("{}-{}", target.name, at + 1), pid),
    });
    Ok(named.collect())
}

/// What is looked at beside the requests.
#[derive(Default)]
struct Observed {
    /// Where the run logs of what was started for this run are.
    logs: Option<PathBuf>,
    /// Whether nothing is said of the progress.
    is_quiet: bool,
}

/// How often a process is looked at.
const SAMPLED: Duration = Duration::from_millis(500);

async fn drive(
    args: &Args,
    scenario: &Scenario,
    target: Target,
    pids: &[(&str, u32)],
    observed: Observed,
    programs: &Programs,
    stop: &Arc<AtomicBool>,
) -> Result<Run> {
    let started = jiff::Timestamp::now();
    let plan = plan(args, scenario, target);
    let begun = Instant::now();
    let mut watch = watch(args, &observed);
    let samplers = pids.iter().map(|(name, pid)| {
        let sampler = Process::open(*pid).and_then(|process| Sampler::start(process, SAMPLED, begun));
        sampler.map(|sampler| ((*name).to_owned(), *pid, sampler))
    });
    let samplers = samplers.collect::<std::io::Result<Vec<_>>>().context("failed to watch a process")?;
    let mut shown = Shown::new(&plan, args.json || observed.is_quiet);
    let mut look = |progress: Option<&Progress>| {
        if let Some(watch) = &mut watch {
            watch.read();
        }
        if let Some(progress) = progress {
            shown.show(progress);
        }
        if stop.load(Ordering::Relaxed) {
            return Some(INTERRUPTED.to_owned());
        }
        (begun.elapsed() > args.time_limit).then(|| OUT_OF_TIME.to_owned())
    };
    let measured: Measured = match &programs.driver {
        Some(driver) => rig::drive(driver, &plan, look).await.context("failed to drive")?,
        None => {
            let plan = plan.clone();
            tokio::task::block_in_place(|| driver::run(&plan, |now| look(Some(now))))
                .context("failed to drive")?
        }
    };
    shown.end();
    let processes = samplers.into_iter().map(|(name, pid, sampler)| {
        let samples = sampler.stop().samples;
        let slopes = if scenario.judges_growth { slope::growths(&samples) } else { Vec::new() };
        result::Process { name, pid, samples, slopes }
    });
    let processes = processes.collect();
    let refusals = measured.cells.iter().filter(|cell| cell.outcome == Outcome::Admission);
    let refusals = refusals.map(|cell| cell.count).sum();
    let pressure = match watch {
        Some(watch) => watch.finish(refusals).await,
        None => result::Pressure { causes: refusals, refusals, ..result::Pressure::default() },
    };
    let build = if programs.driver.is_some() { "release" } else { "debug" };
    let mut run = Run {
        version: result::VERSION,
        scenario: scenario.name.clone(),
        target: plan.target.name.clone(),
        seed: args.seed,
        started: started.to_string(),
        seconds: measured.seconds,
        machine: machine::here(build),
        stages: measured.stages,
        cells: measured.cells,
        tick_seconds: plan.tick_seconds,
        ticks: measured.ticks,
        driver: measured.driver,
        processes,
        pressure,
        gates: Vec::new(),
        cut_short: measured.cut_short,
        examples: measured.examples,
    };
    run.gates = thresholds::judge(&run, &limits(args, scenario), scenario.judges_growth);
    Ok(run)
}

/// A watch on the run logs, if there is a place where they are.
fn watch(args: &Args, observed: &Observed) -> Option<Watch> {
    match (&observed.logs, &args.runtime_log_dir) {
        // In a directory that a person named there may be logs of earlier runs.
        (_, Some(directory)) => Some(Watch::begin(directory)),
        (Some(directory), None) => Some(Watch::of_new(directory)),
        (None, None) => None,
    }
}

const INTERRUPTED: &str = "interrupted";
const OUT_OF_TIME: &str = "out of time";

fn report(args: &Args, run: &Run) -> Result<Exit> {
    // First what needs no file: a disk that is full must not take the result of hours along.
    if args.json {
        terminal::result(&document::of(run).to_string())?;
    } else {
        terminal::result(&table::render(run))?;
    }
    if let Some(path) = &args.save {
        write(path, &serde_json::to_vec(run).context("failed to write the run as JSON")?)?;
    }
    if let Some(path) = &args.html {
        write(path, page::page(run).as_bytes())?;
    }
    if let Some(path) = &args.hdr {
        let mut log = Vec::new();
        hdr::write(run, &mut log)?;
        write(path, &log)?;
    }
    Ok(match run.cut_short.as_deref() {
        Some(INTERRUPTED) => Exit::Interrupted,
        Some(OUT_OF_TIME) => Exit::TimedOut,
        _ if run.requests() == 0 => Exit::NothingSelected,
        _ if run.passed() => Exit::Good,
        _ => Exit::Findings,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))
}

fn setting(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn length(text: &str) -> std::result::Result<Duration, String> {
    parse_duration(text).and_then(|length| {
        let most = harness::load::plan::MAX_DURATION;
        if length.is_zero() || length > most { Err("between 1us and 24h".to_owned()) } else { Ok(length) }
    })
}

fn share(text: &str) -> std::result::Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("a number between 0 and 1".to_owned())
}

fn rate(text: &str) -> std::result::Result<f64, String> {
    let is_good = |rate: &f64| *rate > 0.0 && *rate <= harness::load::plan::MAX_RATE;
    text.parse().ok().filter(is_good).ok_or("a number between 0 and 1000000".to_owned())
}
