//! The `mock-upstream` program: arguments, one ready line, and an orderly end on a signal.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use mock_upstream::bulk::{Bulk, BulkConfig};
use mock_upstream::journal::Limits;
use mock_upstream::tls::Authority;
use mock_upstream::{Config, Mock, Script, raise_file_limit};
use tokio::signal::unix::{SignalKind, signal};

/// A stateful mock of the backends that coding agents talk to.
///
/// It answers what a script says, keeps a journal of every byte, and knows accounts with quotas and
/// expiring tokens. Without a script it answers every turn with one sentence.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Serve TLS (HTTP/1.1 only) with a certificate of an authority made for this run.
    #[arg(long)]
    tls: bool,
    /// Where to write the authority's certificate; a temporary file without it.
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca_cert: Option<PathBuf>,
    /// The script: TOML, or JSON if the name ends in .json.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// What jitter and ids are made from.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    seed: u64,
    /// Keep no journal, for load.
    #[arg(long)]
    no_journal: bool,
    /// Record every exchange in this directory, byte for byte, one file each.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Answer model calls from ready replies, for load: what a reply is, its request says (`load/1 …`). A
    /// script gives the accounts and the calls beside the model's.
    #[arg(long, conflicts_with_all = ["tls", "record", "no_journal"])]
    bulk: bool,
    /// How many threads serve with --bulk.
    #[arg(long, default_value_t = 1, value_name = "NUMBER", requires = "bulk",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Print one line when the mock listens: mock-upstream-ready {"base_url":…,"journal_url":…}.
    #[arg(long)]
    print_ready: bool,
}

const EXAMPLES: &str = "Examples:
  mock-upstream --print-ready
  mock-upstream --tls --script two-accounts.toml --print-ready
  mock-upstream --record recordings
  mock-upstream --bulk --script accounts.toml --print-ready
  curl http://127.0.0.1:PORT/__mock/journal?since=12
  curl -X POST http://127.0.0.1:PORT/__mock/freeze?ms=3000     (--bulk: nothing moves for 3 s)
  curl --data-binary @other.toml http://127.0.0.1:PORT/__mock/script

Exit codes: 0 ended by SIGTERM or SIGINT, 1 could not start, 2 wrong arguments.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mock-upstream: failed to {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// The error and what it came from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    raise_file_limit();
    let script = match &arguments.script {
        Some(path) => Script::from_file(path)?,
        None => Script::default(),
    };
    let authority = if arguments.tls { Some(Arc::new(Authority::generate()?)) } else { None };
    let certificate =
        authority.as_deref().map(|authority| Certificate::write(authority, arguments)).transpose()?;
    if arguments.bulk {
        return run_bulk(arguments, script);
    }
    let config = Config {
        listen: arguments.listen,
        tls: authority,
        script,
        seed: arguments.seed,
        journal: if arguments.no_journal { Limits::OFF } else { Limits::default() },
        record: arguments.record.clone(),
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Signals are taken before the ready line, so that whoever reads it may send one.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mock = Mock::start(config).await?;
        if arguments.print_ready {
            print_ready(mock.base_url(), certificate.as_ref())?;
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        mock.stop().await;
        Ok(())
    })
}

fn run_bulk(arguments: &Arguments, script: Script) -> Result<(), Box<dyn std::error::Error>> {
    let (listen, seed) = (arguments.listen, arguments.seed);
    let config = BulkConfig { listen, script, seed, threads: usize::from(arguments.threads) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // As above: signals first.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mock = Bulk::start(config)?;
        if arguments.print_ready {
            print_ready(&mock.base_url(), None)?;
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        mock.stop();
        Ok(())
    })
}

fn print_ready(base_url: &str, certificate: Option<&Certificate>) -> std::io::Result<()> {
    let mut ready = serde_json::json!({
        "base_url": base_url,
        "journal_url": format!("{base_url}/__mock/journal"),
        "pid": std::process::id(),
    });
    if let Some(certificate) = certificate {
        ready["ca_cert"] = certificate.path().to_string_lossy().into();
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "mock-upstream-ready {ready}")?;
    out.flush()
}

/// The file that the authority's certificate is in while the mock runs.
enum Certificate {
    /// Where it was asked for; it stays.
    Named(PathBuf),
    /// A temporary one; it goes with the mock.
    Temporary(tempfile::NamedTempFile),
}

impl Certificate {
    fn write(authority: &Authority, arguments: &Arguments) -> std::io::Result<Self> {
        if let Some(path) = &arguments.ca_cert {
            std::fs::write(path, authority.pem())?;
            return Ok(Self::Named(path.clone()));
        }
        let mut file = tempfile::Builder::new().prefix("mock-upstream-ca-").suffix(".pem").tempfile()?;
        file.write_all(authority.pem().as_bytes())?;
        Ok(Self::Temporary(file))
    }

    fn path(&self) -> &std::path::Path {
        match self {
            Self::Named(path) => path,
            Self::Temporary(file) => file.path(),
        }
    }
}
