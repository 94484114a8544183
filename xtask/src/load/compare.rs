//! `cargo xtask load --compare`: no proxy, our proxy and any others under the same load, in turns.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use harness::load::compare::{Comparison, Turn, Workload, workloads};
use harness::load::driver;
use harness::load::machine;
use harness::load::plan::{Plan, Target};
use harness::load::resources::{self, Process};
use harness::load::rig::{self, Started};
use harness::process::{Program, Running};

use super::{Prepared, Programs};
use crate::exit::Exit;
use crate::terminal;

/// Flags of a comparison.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Compare what requests cost: no proxy, our proxy, and each --target, in alternating rounds. The bulk mock is
    /// started, and so is our proxy; what a --target names must forward to --upstream-listen.
    #[arg(long, conflicts_with_all = [
        "scenario", "start_mock", "save", "html", "hdr", "runtime_log_dir", "threads", "requests", "duration",
        "concurrency", "rate", "route", "compact_every", "client_read_delay_ms", "request_timeout_ms",
        "max_error_rate", "max_ttft_p95_ms", "max_admission_pressure_rate",
    ])]
    compare: bool,
    /// With --compare: start nginx as another target, one worker without buffering.
    #[arg(long, requires = "compare")]
    nginx: bool,
    /// With --compare: where the mock listens.
    #[arg(long, requires = "compare", value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    upstream_listen: SocketAddr,
    /// With --compare: a process of a --target, as NAME=PID [default: those that listen on its port].
    #[arg(long = "pid", requires = "compare", value_name = "NAME=PID", value_parser = named_pid)]
    pids: Vec<(String, u32)>,
    /// With --compare: how many rounds are counted, behind one that is not.
    #[arg(long, requires = "compare", value_name = "NUMBER", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// With --compare: only this workload; unary, sse, sse-once, long-once, websocket.
    #[arg(long = "workload", requires = "compare", value_name = "NAME")]
    workloads: Vec<String>,
    /// With --compare: how many of a workload's requests a round has, as a share of one.
    #[arg(long, requires = "compare", value_name = "SHARE", default_value_t = 1.0, value_parser = super::rate)]
    scale: f64,
    /// With --compare: the target that costs are ratios to [default: the first that is not ours].
    #[arg(long, requires = "compare", value_name = "NAME")]
    base: Option<String>,
}

impl Args {
    pub(crate) fn is_asked_for(&self) -> bool {
        self.compare
    }
}

/// A target, and the processes that serve it.
struct Contender {
    target: Target,
    processes: Vec<Process>,
}

impl Contender {
    /// CPU seconds of all its processes so far. None where there is no process.
    fn cpu(&self) -> Result<Option<f64>> {
        let mut sum = None;
        for process in &self.processes {
            let cpu = process.cpu().with_context(|| format!("failed to see {} at work", self.target.name))?;
            *sum.get_or_insert(0.0) += cpu.as_secs_f64();
        }
        Ok(sum)
    }
}

pub(super) fn run(args: &super::Args) -> Result<Exit> {
    let chosen = match choose(&args.compare.workloads) {
        Ok(chosen) => chosen,
        Err(problem) => {
            terminal::progress(&format!("error: {problem}"));
            return Ok(Exit::Usage);
        }
    };
    if args.dry_run {
        let names: Vec<&str> = chosen.iter().map(|workload| workload.name).collect();
        let others = others(args)?.into_iter().map(|target| target.name).collect::<Vec<_>>();
        let nginx = if args.compare.nginx { ", nginx" } else { "" };
        terminal::result(&format!(
            "compare: none, prodex{nginx}{}{} under {} in {} rounds",
            if others.is_empty() { "" } else { ", " },
            others.join(", "),
            names.join(", "),
            args.compare.rounds
        ))?;
        return Ok(Exit::Good);
    }
    let Prepared { programs, stop, runtime } = match Prepared::of(args)? {
        Ok(prepared) => prepared,
        Err(exit) => return Ok(exit),
    };
    runtime.block_on(perform(args, &chosen, &programs, &stop))
}

/// The workloads with these names; all without any.
fn choose(names: &[String]) -> Result<Vec<Workload>, String> {
    let all = workloads();
    let known: Vec<&str> = all.iter().map(|workload| workload.name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("`{unknown}` is no workload; there are {}", known.join(", ")));
    }
    let is_chosen = |workload: &Workload| names.is_empty() || names.iter().any(|name| name == workload.name);
    Ok(all.into_iter().filter(is_chosen).collect())
}

/// The targets that the command line names.
fn others(args: &super::Args) -> Result<Vec<Target>> {
    let account = rig::accounts(1).remove(0);
    let target = |text: &String| {
        let (name, url) = text.split_once('=').context("write --target NAME=URL with --compare")?;
        let target = Target::of_url(name, url).map_err(|problem| anyhow!(problem))?;
        Ok(target.with_account(&account))
    };
    args.target.iter().map(target).collect()
}

async fn perform(
    args: &super::Args,
    chosen: &[Workload],
    programs: &Programs,
    stop: &Arc<AtomicBool>,
) -> Result<Exit> {
    let others = others(args)?;
    if !others.is_empty() && args.compare.upstream_listen.port() == 0 {
        bail!("say with --upstream-listen where {} forwards to", others[0].name);
    }
    let known = others.iter().map(|target| target.name.as_str()).chain(args.compare.nginx.then_some("nginx"));
    let known: Vec<&str> = known.collect();
    if let Some((name, _)) = args.compare.pids.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        bail!("--pid names {name}, and the targets are {}", known.join(", "));
    }
    let accounts = usize::from(args.profiles);
    let starting = start(args, programs, accounts);
    let Some(started) = super::unless_stopped(stop, starting).await else { return Ok(interrupted()) };
    let (mock, proxy, nginx) = started?;
    let alone = rig::mock_target("none", &mock).map_err(|problem| anyhow!(problem))?;
    let ours = Target::of_url("prodex", &proxy.base_url).map_err(|problem| anyhow!(problem))?;
    let mut contenders = vec![
        Contender { target: alone, processes: Vec::new() },
        Contender { target: ours, processes: vec![Process::open(proxy.pid())?] },
    ];
    for target in nginx.iter().map(|nginx| nginx.target.clone()).chain(others) {
        contenders.push(contender(args, target)?);
    }
    let base = base(args, &contenders)?;
    let mut comparisons = Vec::new();
    for workload in chosen {
        let Some(comparison) = compare(args, workload, &contenders, programs, stop).await? else {
            return Ok(interrupted());
        };
        if !args.json {
            terminal::result(&comparison.table(base))?;
        }
        comparisons.push(comparison);
    }
    report(args, &comparisons, base)?;
    drop(nginx);
    proxy.stop().await?;
    mock.stop().await?;
    Ok(if comparisons.iter().all(Comparison::passed) { Exit::Good } else { Exit::Findings })
}

fn interrupted() -> Exit {
    terminal::progress("compare: interrupted; a workload that was not driven to its end is not told of");
    Exit::Interrupted
}

/// Starts what is ours to start.
async fn start(
    args: &super::Args,
    programs: &Programs,
    accounts: usize,
) -> Result<(Started, Started, Option<Nginx>)> {
    let mock = rig::start_mock_at(&programs.mock, accounts, 1, args.compare.upstream_listen)
        .await
        .context("failed to start the mock")?;
    let proxy = rig::start_proxy(&programs.proxy, &mock.base_url, accounts, None, &args.settings)
        .await
        .context("failed to start the proxy")?;
    let nginx = match args.compare.nginx {
        true => Some(Nginx::start(&mock.base_url).await.context("failed to start nginx")?),
        false => None,
    };
    Ok((mock, proxy, nginx))
}

fn contender(args: &super::Args, target: Target) -> Result<Contender> {
    let named = args.compare.pids.iter().filter(|(name, _)| *name == target.name);
    let mut pids: Vec<u32> = named.map(|(_, pid)| *pid).collect();
    if pids.is_empty() {
        pids = resources::listeners(target.address.port()).context("failed to look for processes")?;
    }
    if pids.is_empty() {
        bail!(
            "nobody that can be looked at listens at {}; name it with --pid {}=PID",
            target.address,
            target.name
        );
    }
    let processes = pids.into_iter().map(Process::open).collect::<std::io::Result<_>>();
    Ok(Contender { processes: processes.context("failed to look at a process")?, target })
}

/// The place of the target that costs are ratios to.
fn base(args: &super::Args, contenders: &[Contender]) -> Result<usize> {
    match &args.compare.base {
        Some(name) => contenders
            .iter()
            .position(|contender| contender.target.name == *name && !contender.processes.is_empty())
            .with_context(|| format!("there is no target {name} with a process")),
        None => Ok(if contenders.len() > 2 { 2 } else { 1 }),
    }
}

async fn compare(
    args: &super::Args,
    workload: &Workload,
    contenders: &[Contender],
    programs: &Programs,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Comparison>> {
    let mut rounds = Vec::new();
    // The first is not counted: connections are opened and caches filled in it.
    for round in 0..=usize::from(args.compare.rounds) {
        let mut turns = vec![Turn::default(); contenders.len()];
        for at in Comparison::order(contenders.len(), round) {
            let contender = &contenders[at];
            let plan =
                workload.plan(&contender.target, args.compare.scale, args.seed.wrapping_add(round as u64));
            let before = contender.cpu()?;
            let measured = drive(programs, &plan, stop).await?;
            let after = contender.cpu()?;
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let used = before.zip(after).map(|(before, after)| after - before);
            turns[at] = Turn::new(&measured, used);
        }
        if round > 0 {
            rounds.push(turns);
        }
    }
    let targets = contenders.iter().map(|contender| contender.target.name.clone()).collect();
    let (workload, about) = (workload.name.to_owned(), workload.about.to_owned());
    Ok(Some(Comparison { workload, about, targets, rounds }))
}

/// Drives one plan, quietly.
pub(super) async fn drive(
    programs: &Programs,
    plan: &Plan,
    stop: &Arc<AtomicBool>,
) -> Result<driver::Measured> {
    let wish = || stop.load(Ordering::Relaxed).then(|| "interrupted".to_owned());
    match &programs.driver {
        Some(program) => rig::drive(program, plan, |_| wish()).await.context("failed to drive"),
        None => tokio::task::block_in_place(|| driver::run(plan, |_| wish())).context("failed to drive"),
    }
}

fn report(args: &super::Args, comparisons: &[Comparison], base: usize) -> Result<()> {
    let passed = comparisons.iter().all(Comparison::passed);
    if args.json {
        let rows: Vec<_> = comparisons
            .iter()
            .map(|comparison| serde_json::json!({ "workload": comparison.workload, "rows": comparison.rows(base) }))
            .collect();
        let build = if args.debug_build { "debug" } else { "release" };
        let document = serde_json::json!({
            "version": 1, "passed": passed, "machine": machine::here(build), "summary": rows,
            "comparisons": comparisons,
        });
        return terminal::result(&document.to_string());
    }
    let base = comparisons.first().map_or("", |comparison| comparison.targets[base].as_str());
    let word = if passed { "every reply was right" } else { "NOT every reply was right" };
    terminal::result(&format!(
        "compare: {word}; CPU is of the target's processes for a request, ratios are to {base} in the same \
         round,\ntimes are added to those without a proxy, in ms; each the median of the rounds"
    ))
}

/// An nginx that forwards everything to the mock.
struct Nginx {
    target: Target,
    // Ended, and removed, when this goes.
    _running: Running,
    _directory: tempfile::TempDir,
}

/// How long nginx may take to listen.
const READY: Duration = Duration::from_secs(10);

impl Nginx {
    async fn start(upstream: &str) -> Result<Self> {
        let program = find("nginx").context("failed to find nginx, which Debian has in nginx-light")?;
        let directory = tempfile::Builder::new().prefix("load-nginx-").tempdir()?;
        let port = harness::sandbox::free_port()?;
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, configuration(directory.path(), upstream, port))?;
        let words = [
            "-c".into(),
            file.into_os_string(),
            "-p".into(),
            directory.path().into(),
            "-e".into(),
            "stderr".into(),
        ];
        let mut running = Program::new(program).args(words).directory(directory.path()).start()?;
        let begun = std::time::Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let ended = running.wait(Duration::from_millis(20)).await?;
            if let Some(exit) = ended {
                bail!("it ended with {exit}: {}", running.stderr().trim());
            }
            if begun.elapsed() > READY {
                bail!("it does not listen: {}", running.stderr().trim());
            }
        }
        let account = rig::accounts(1).remove(0);
        let target = Target::of_url("nginx", &format!("http://127.0.0.1:{port}"));
        let target = target.map_err(|problem| anyhow!(problem))?.with_account(&account);
        Ok(Self { target, _running: running, _directory: directory })
    }
}

/// One worker, nothing buffered, connections to the upstream kept: as fast as it is without holding a stream back.
fn configuration(directory: &Path, upstream: &str, port: u16) -> String {
    let address = upstream.trim_start_matches("http://");
    let place = directory.display();
    // A worker of root's would be another user's, who may not enter the directory.
    let is_roots = std::fs::metadata(directory).is_ok_and(|directory| directory.uid() == 0);
    let user = if is_roots { "user root;" } else { "" };
    format!(
        "{user} worker_processes 1; daemon off; pid {place}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 128k; keepalive_requests 1000000000;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream mock {{ server {address}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 1h;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"
    )
}

/// A program on the search path, or where Debian keeps those of the system.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    places.map(|place: PathBuf| place.join(name)).find(|program| program.is_file())
}

fn named_pid(text: &str) -> std::result::Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("write NAME=PID")?;
    Ok((name.to_owned(), pid.parse().map_err(|_| format!("`{pid}` is no pid"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_workloads_that_there_are_can_be_chosen() {
        assert_eq!(choose(&[]).map(|all| all.len()), Ok(5));
        assert_eq!(choose(&["sse".into()]).map(|chosen| chosen[0].name), Ok("sse"));
        assert!(choose(&["see".into()]).is_err_and(|error| error.contains("unary, sse,")));
    }

    #[test]
    fn a_pid_has_the_name_of_its_target() {
        assert_eq!(named_pid("haproxy=17"), Ok(("haproxy".into(), 17)));
        assert!(named_pid("17").is_err() && named_pid("a=b").is_err());
    }
}
