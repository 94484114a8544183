//! `cargo xtask compat-replay`: fixtures replayed through any proxy, and what of them did not arrive as it was.
//!
//! What is judged stands in `harness::diff`; here is which fixtures, through what, and where the report goes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use harness::conformance::{Subject, meanings};
use harness::fixture::Library;
use harness::replay::Target;
use harness::replay::probes::{self, Settings};
use harness::report::{Report, SCHEMA, VERSION, junit, markdown, page};

use crate::compat::build;
use crate::exit::Exit;
use crate::terminal;

mod way;

pub(crate) use way::{Pace, Way};

/// Replay recorded traffic through a proxy, and say what differs.
///
/// The laboratory plays the recorded client before the proxy and the recorded upstream behind it, byte for
/// byte and write for write, and compares what each side got with the record. Besides the fixtures, probes
/// are played that no client was recorded with: big bodies, cuts, refused upgrades, odd statuses.
///
/// With --proxy the program is started for each fixture by its `serve` contract (`serve --upstream URL
/// --listen 127.0.0.1:0 --print-ready`), after `profile add NAME --from auth.json` for each account of a
/// pool. With --target the proxy runs already and forwards to --upstream-listen.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A fixture by its name, with `*` and `**`; may be repeated [default: all that the proxy can serve].
    #[arg(long = "fixture", value_name = "GLOB")]
    fixtures: Vec<String>,
    /// Where fixtures are.
    #[arg(long, value_name = "DIR", default_value = FIXTURES)]
    fixtures_dir: PathBuf,
    /// The proxy's program [default: prodex, built now].
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["target", "direct"])]
    proxy: Option<PathBuf>,
    /// The base URL of a proxy that runs.
    #[arg(long, value_name = "URL", requires = "upstream_listen")]
    target: Option<String>,
    /// Where the recorded upstream is played, to which that proxy forwards.
    #[arg(long, value_name = "ADDRESS", requires = "target")]
    upstream_listen: Option<SocketAddr>,
    /// The certificate of the authority to trust for an https target.
    #[arg(long, value_name = "FILE", requires = "target")]
    ca_cert: Option<PathBuf>,
    /// Put nothing between client and upstream: shows that the laboratory itself changes nothing.
    #[arg(long, conflicts_with = "target")]
    direct: bool,
    /// What the proxy is to be [default: pooled for a program, transparent otherwise].
    #[arg(long, value_enum, value_name = "KIND")]
    expect: Option<Kind>,
    /// Leave the probes out.
    #[arg(long)]
    no_probes: bool,
    /// Keep recorded pauses up to this many milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    max_gap: u64,
    /// Play this many times as fast as it was recorded.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = positive)]
    speed: f64,
    /// Let the slow probe take 30 seconds instead of one.
    #[arg(long)]
    patient: bool,
    /// Write report.html, report.json, its schema, junit.xml and summary.md into this directory.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask compat-replay --report target/replay
  cargo xtask compat-replay --fixture 'codex/**/status-429-*'
  cargo xtask compat-replay --target http://127.0.0.1:8080 --upstream-listen 127.0.0.1:9090

Exit codes: 0 the proxy conforms; 1 it does not; 2 usage; 3 the proxy does not start;
4 no fixture is selected.";

/// Where the project keeps its fixtures.
pub(crate) const FIXTURES: &str = "fixtures/replay";

/// The client of a recording that does not say whose it is.
const UNNAMED: &str = "unnamed";

/// What a proxy is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nothing changes but what belongs to a connection.
    Transparent,
    /// The fields of an account stand in place of the client's.
    Pooled,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Transparent => "transparent",
            Self::Pooled => "pooled",
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if factor.is_finite() && factor > 0.0 { Ok(factor) } else { Err(format!("{text} is not above 0")) }
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let Some(way) = way(args)? else { return Ok(Exit::Findings) };
    let kind =
        args.expect.unwrap_or(if matches!(way, Way::Program(_)) { Kind::Pooled } else { Kind::Transparent });
    let library = open(&args.fixtures_dir)?;
    let mut subjects = load(&library, &args.fixtures, &way)?;
    if !args.no_probes {
        let slow = if args.patient { Duration::from_secs(30) } else { Duration::from_secs(1) };
        subjects.extend(probes(&args.fixtures, kind, slow)?);
    }
    if subjects.is_empty() {
        let names = library.names().len();
        terminal::progress(&format!("no fixture matches; {names} are below {}", args.fixtures_dir.display()));
        return Ok(Exit::NothingSelected);
    }
    let pace = Pace { speed: args.speed, max_gap: Duration::from_millis(args.max_gap) };
    let Some(report) = replay(&way, kind, &subjects, pace, args.json)? else { return Ok(Exit::Interrupted) };
    if let Some(place) = &args.report {
        write(&report, place)?;
    }
    let text = if args.json { serde_json::to_string(&report)? } else { report.table() };
    terminal::result(&text)?;
    Ok(if report.passed() { Exit::Good } else { Exit::Findings })
}

/// What stands between. None when the proxy does not compile: cargo has said why.
fn way(args: &Args) -> Result<Option<Way>> {
    if args.direct {
        return Ok(Some(Way::Nothing));
    }
    if let (Some(url), Some(listen)) = (&args.target, args.upstream_listen) {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
        };
        let ca_pem = args.ca_cert.as_ref().map(read).transpose()?;
        return Ok(Some(Way::Running { target: Target { base_url: url.clone(), ca_pem }, listen }));
    }
    let program = match &args.proxy {
        Some(program) => Some(program.clone()),
        None => build()?,
    };
    Ok(program.map(Way::Program))
}

pub(crate) fn open(place: &Path) -> Result<Library> {
    Library::open(place).with_context(|| format!("failed to open the fixtures in {}", place.display()))
}

/// The fixtures that were asked for; without a wish, those that can go this way.
pub(crate) fn load(library: &Library, wanted: &[String], way: &Way) -> Result<Vec<Subject>> {
    let names = library.select(wanted)?;
    let mut subjects = Vec::new();
    for name in names {
        let fixture = library.load(name).with_context(|| format!("failed to load fixture {name}"))?;
        let client = fixture.meta.client.unwrap_or_else(|| UNNAMED.to_owned());
        // prodex serves no other client yet, and says so with a 404 of its own.
        let is_served = !matches!(way, Way::Program(_)) || client == "codex" || client == UNNAMED;
        if is_served || !wanted.is_empty() {
            let mode = fixture.meta.rest.get("mode").and_then(serde_json::Value::as_str).map(str::to_owned);
            let (version, exchanges) = (fixture.meta.version, fixture.exchanges);
            subjects.push(Subject { name: fixture.name, client, version, mode, exchanges });
        }
    }
    Ok(subjects)
}

/// The probes as subjects; of a wish for fixtures, those that it names.
pub(crate) fn probes(wanted: &[String], kind: Kind, slow: Duration) -> Result<Vec<Subject>> {
    let settings = Settings { slow, odd: kind == Kind::Transparent, ..Settings::default() };
    let subject = |probe: probes::Probe| Subject {
        name: format!("probe/{}", probe.name),
        client: "probe".into(),
        version: None,
        mode: None,
        exchanges: probe.exchanges,
    };
    let all: Vec<Subject> = probes::all(&settings).into_iter().map(subject).collect();
    let matches = harness::fixture::pattern(wanted)?;
    Ok(all.into_iter().filter(|subject| wanted.is_empty() || matches.is_match(&subject.name)).collect())
}

/// Replays all subjects, and says what came of them. None when it was interrupted.
pub(crate) fn replay(
    way: &Way,
    kind: Kind,
    subjects: &[Subject],
    pace: Pace,
    quiet: bool,
) -> Result<Option<Report>> {
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fixtures = runtime.block_on(async {
        tokio::select! {
            fixtures = way.replay(kind, subjects, pace, quiet) => fixtures.map(Some),
            // What was started is ended by its drop.
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    })?;
    let Some(fixtures) = fixtures else { return Ok(None) };
    Ok(Some(Report {
        version: VERSION,
        target: way.name(),
        expect: kind.name().to_owned(),
        at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        seconds: begun.elapsed().as_secs_f64(),
        checks: meanings(),
        fixtures,
    }))
}

/// Writes a report in every form.
pub(crate) fn write(report: &Report, place: &Path) -> Result<()> {
    std::fs::create_dir_all(place).with_context(|| format!("failed to make {}", place.display()))?;
    let files = [
        ("report.html", page(report)),
        ("report.json", serde_json::to_string_pretty(report)?),
        ("report.schema.json", SCHEMA.to_owned()),
        ("junit.xml", junit(report)),
        ("summary.md", markdown(report)),
    ];
    for (name, text) in files {
        let path = place.join(name);
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    terminal::progress(&format!("the report is in {}", place.join("report.html").display()));
    Ok(())
}
