//! `cargo xtask compat-clients`: real clients, fetched into a cache, and driven through any proxy.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use harness::clients::codex::{Endpoint, Mode, Reach};
use harness::clients::{Cache, Client, Kind};
use harness::compat::{
    Lane, Report, Runner, Upstream, faults, record, record_session, scenarios, sessions, write_capture,
};
use harness::mock::script::Script;
use harness::mock::{Config, Mock};

use crate::compat::{find_clients, life_sign, only_codex};
use crate::exit::Exit;
use crate::terminal;

/// Fetch real clients, or drive them through a proxy that runs already.
///
/// With --install the clients are fetched once from the npm registry into a cache outside the repository.
/// With --target they are driven through the proxy at URL, which must forward to the address given with
/// --upstream-listen: the mock upstream listens there and accepts any credential. With --record they are
/// driven straight at a mock, and captures are written that hold everything the client sent; pass them
/// through `cargo xtask compat-capture` before you show them to anyone. Without any of these, the clients
/// that are installed are listed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Fetch the clients.
    #[arg(long, conflicts_with = "target")]
    install: bool,
    /// A client; may be repeated [default: codex@0.169.0 and codex@0.149.1, or every codex that is installed].
    #[arg(long = "client", value_name = "CLIENT@VERSION")]
    clients: Vec<Client>,
    /// The base URL of a proxy that runs, in front of /backend-api and /v1.
    #[arg(long, value_name = "URL", requires = "upstream_listen")]
    target: Option<String>,
    /// Where the mock upstream listens, to which that proxy forwards.
    #[arg(long, value_name = "ADDRESS", requires = "target")]
    upstream_listen: Option<SocketAddr>,
    /// A certificate that clients must trust to reach an https target.
    #[arg(long, value_name = "FILE", requires = "target")]
    ca_cert: Option<PathBuf>,
    /// Record what the clients send and get, straight at a mock, as one capture per scenario and fault.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["install", "target"])]
    record: Option<PathBuf>,
    /// Record only what has this word in its name; may be repeated.
    #[arg(long, value_name = "WORD", requires = "record")]
    only: Vec<String>,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask compat-clients --install --client codex@0.169.0
  cargo xtask compat-clients --record target/captures --only simple --only status-429
  cargo xtask compat-clients --target http://127.0.0.1:8080 --upstream-listen 127.0.0.1:9090

Exit codes: 0 good; 1 a client noticed the proxy; 3 npm or a client is missing;
4 no client is installed.";

/// What is fetched when nothing is asked for: the newest release that was measured, and an older one whose
/// behaviour differs in what matters to a proxy.
const DEFAULT: [&str; 2] = ["codex@0.169.0", "codex@0.149.1"];

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            exit = execute(args) => exit,
            // What was started is ended by its drop.
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    })
}

async fn execute(args: &Args) -> Result<Exit> {
    if args.install {
        return install(args).await;
    }
    let clients = find_clients(&args.clients)?;
    if let Some(place) = &args.record {
        return record_all(args, place, &clients).await;
    }
    let (Some(target), Some(listen)) = (&args.target, args.upstream_listen) else {
        return list(args, &clients);
    };
    only_codex(&args.clients)?;
    if clients.is_empty() {
        terminal::progress("no client is installed; `cargo xtask compat-clients --install` fetches some");
        return Ok(Exit::NothingSelected);
    }
    let report = drive(args, target, listen, &clients).await?;
    let text = if args.json { serde_json::to_string(&report)? } else { report.table() };
    terminal::result(&text)?;
    Ok(if report.passed() { Exit::Good } else { Exit::Findings })
}

async fn install(args: &Args) -> Result<Exit> {
    let cache = Cache::of_user()?;
    let default = DEFAULT.map(str::parse::<Client>).into_iter().collect::<Result<Vec<_>, _>>()?;
    let asked = if args.clients.is_empty() { &default } else { &args.clients };
    let mut installed = Vec::new();
    for client in asked {
        terminal::progress(&format!("installing {client} into {}", cache.root().display()));
        installed.push((client.clone(), cache.install(client).await?));
    }
    list(args, &installed)
}

fn list(args: &Args, clients: &[(Client, PathBuf)]) -> Result<Exit> {
    if args.json {
        let rows = clients
            .iter()
            .map(|(client, program)| serde_json::json!({"client": client.to_string(), "program": program}));
        terminal::result(&serde_json::json!({"clients": rows.collect::<Vec<_>>()}).to_string())?;
    } else if clients.is_empty() {
        terminal::result("no client is installed; `cargo xtask compat-clients --install` fetches some")?;
    } else {
        let lines = clients.iter().map(|(client, program)| format!("{client}  {}", program.display()));
        terminal::result(&lines.collect::<Vec<_>>().join("\n"))?;
    }
    Ok(if clients.is_empty() { Exit::NothingSelected } else { Exit::Good })
}

/// Drives clients through a proxy that runs, in each mode that its URL allows.
async fn drive(
    args: &Args,
    target: &str,
    listen: SocketAddr,
    clients: &[(Client, PathBuf)],
) -> Result<Report> {
    // Without accounts any credential is accepted: a proxy may swap the client's or leave it.
    let script =
        Script { continuation: harness::mock::script::Continuation::Connection, ..Script::default() };
    let config = Config { listen, ..Config::script(script) };
    let mock = Mock::start(config).await.with_context(|| format!("failed to listen on {listen}"))?;
    let endpoint = Endpoint::at(target, args.ca_cert.clone());
    let is_tls = target.starts_with("https://");
    let modes = Mode::ALL.into_iter().filter(|mode| mode.needs_tls() == is_tls);
    let lanes = modes.map(|mode| Lane { mode, mock: &mock, reach: Reach::Endpoint(endpoint.clone()) });
    let runner = Runner::new(target, lanes.collect());
    Ok(runner.run(clients, &scenarios(), life_sign).await?)
}

/// How long a client may take in a recording; the slowest fault takes four seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Records every scenario in every mode and every fault in the mode it is for, one file each.
async fn record_all(args: &Args, place: &Path, clients: &[(Client, PathBuf)]) -> Result<Exit> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(place)
        .with_context(|| format!("failed to make {}", place.display()))?;
    let scenarios = scenarios();
    let faults = faults();
    let turns = Mode::ALL.into_iter().flat_map(|mode| scenarios.iter().map(move |scenario| (mode, scenario)));
    let cases: Vec<_> = turns.chain(faults.iter().map(|fault| (fault.mode, &fault.scenario))).collect();
    let is_asked = |name: &str| args.only.is_empty() || args.only.iter().any(|word| name.contains(word));
    let mut written = Vec::new();
    let mut keep = |name: String, records: &[_]| -> Result<()> {
        let path = place.join(format!("{name}.jsonl"));
        write_capture(&path, records)?;
        terminal::progress(&format!("{name}: {} records", records.len()));
        written.push(path);
        Ok(())
    };
    for (client, program) in clients {
        let (kind, version) = (client.kind, &client.version);
        for session in sessions(kind) {
            let name = format!("{}-{version}-{}-{}", kind.name(), session.mode, session.name);
            if is_asked(&name) {
                keep(name, &record_session(client, program, &session, PATIENCE).await?)?;
            }
        }
        for (mode, scenario) in cases.iter().filter(|_| kind == Kind::Codex) {
            let name = format!("{}-{version}-{}-{}", kind.name(), mode.name(), scenario.name);
            if !is_asked(&name) {
                continue;
            }
            // A mock of its own for each, so that ids, times and connections begin anew.
            let upstream = Upstream::start(Vec::new()).await?;
            let lanes = upstream.direct();
            let lane = lanes.iter().find(|lane| lane.mode == *mode).context("no way to this mode")?;
            keep(name, &record(client, program, lane, scenario, PATIENCE).await?)?;
        }
    }
    if written.is_empty() {
        terminal::progress("nothing has all of these words in its name");
        return Ok(Exit::NothingSelected);
    }
    if args.json {
        terminal::result(&serde_json::json!({ "captures": written }).to_string())?;
    } else {
        terminal::result(&format!("recorded {} captures in {}", written.len(), place.display()))?;
    }
    Ok(Exit::Good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_clients_are_names_of_clients() {
        for name in DEFAULT {
            assert_eq!(name.parse::<Client>().map(|client| client.to_string()).ok().as_deref(), Some(name));
        }
    }
}
