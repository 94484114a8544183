//! What fixtures are replayed through: a program that is started for each, a proxy that runs, or nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use harness::conformance::{Manner, Stage, Subject};
use harness::diff;
use harness::mock::Account;
use harness::replay::{Options, Target};
use harness::report::FixtureReport;

use super::Kind;
use crate::compat::proxy::Home;
use crate::terminal;

/// What stands between client and upstream.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// A program with the `serve` contract.
    Program(PathBuf),
    /// A proxy that runs, and the address that it forwards to.
    Running {
        /// Where it is.
        target: Target,
        /// What it forwards to.
        listen: SocketAddr,
    },
    /// Nothing.
    Nothing,
}

/// How fast a record is played.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How many times as fast as recorded.
    pub(crate) speed: f64,
    /// Longest pause, whatever was recorded.
    pub(crate) max_gap: Duration,
}

/// How many fixtures are replayed at once. They wait more than they work: for pauses, and for what a proxy
/// might still do.
const AT_ONCE: usize = 6;

impl Way {
    /// What a report calls it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Program(program) => {
                program.file_name().unwrap_or(program.as_os_str()).display().to_string()
            }
            Self::Running { target, .. } => target.base_url.clone(),
            Self::Nothing => "nothing in between".to_owned(),
        }
    }

    /// Replays all subjects, those for TLS over HTTP/2 as well.
    pub(super) async fn replay(
        &self,
        kind: Kind,
        subjects: &[Subject],
        pace: Pace,
        quiet: bool,
    ) -> Result<Vec<FixtureReport>> {
        let accounts = ["first", "second"].map(|name| {
            // A profile's name may be shown to the client; what its account is called may not.
            Account::new(format!("account-of-{name}-profile")).api_key(format!("key-of-{name}-profile"))
        });
        let home = match self {
            Self::Program(program) => Some(Home::named(program, ["first", "second"], &accounts).await?),
            Self::Running { .. } | Self::Nothing => None,
        };
        let manner = self.manner(kind, &accounts, pace);
        let over_tls = manner.clone().over_http2();
        let has_tls = matches!(self, Self::Program(_));
        let plain = subjects.iter().map(|subject| (subject, &manner));
        let tls = subjects.iter().filter(|subject| has_tls && subject.mode.as_deref() == Some("chatgpt-tls"));
        let plays: Vec<_> = plain.chain(tls.map(|subject| (subject, &over_tls))).collect();
        let plays = plays.into_iter().map(|(subject, manner)| {
            let is_tls = std::ptr::eq(manner, &raw const over_tls);
            self.play(home.as_ref(), subject, manner, is_tls, quiet)
        });
        // A proxy that runs has one upstream, so its fixtures follow each other.
        let at_once = if matches!(self, Self::Running { .. }) { 1 } else { AT_ONCE };
        stream::iter(plays).buffered(at_once).try_collect().await
    }

    fn manner(&self, kind: Kind, accounts: &[Account], pace: Pace) -> Manner {
        let credentials = |account: &Account| diff::Account {
            name: account.id.clone(),
            credentials: [account.access_token(), account.id.clone()]
                .into_iter()
                .chain(account.api_key.clone())
                .collect(),
        };
        let expect = match kind {
            Kind::Transparent => diff::Expect::Transparent,
            Kind::Pooled => diff::Expect::Pooled { accounts: accounts.iter().map(credentials).collect() },
        };
        let mut manner = Manner::new(expect);
        manner.options = Options { speed: pace.speed, max_gap: pace.max_gap, ..manner.options };
        if let Self::Running { listen, .. } = self {
            manner.listen = *listen;
        }
        manner
    }

    async fn play(
        &self,
        home: Option<&Home>,
        subject: &Subject,
        manner: &Manner,
        tls: bool,
        quiet: bool,
    ) -> Result<FixtureReport> {
        let stage =
            Stage::set(subject, manner).await.with_context(|| format!("failed to play {}", subject.name))?;
        let upstream = format!("http://{}", stage.upstream());
        let again = self.again(subject);
        let report = match (self, home) {
            (Self::Program(_), Some(home)) => {
                // A proxy and a home of its own for each, so that what one has learnt does not decide the next:
                // the fixtures have the same placeholders for their ids.
                let home = home.copy()?;
                let serving = home.serve(&upstream, tls).await?;
                let read = |path: &PathBuf| std::fs::read_to_string(path);
                let ca_pem = serving.endpoint.ca_cert.as_ref().map(read).transpose()?;
                let target = Target { base_url: serving.base_url.clone(), ca_pem };
                let report = stage.play(&target, again).await?;
                serving.stop().await?;
                report
            }
            (Self::Running { target, .. }, _) => stage.play(target, again).await?,
            (Self::Nothing | Self::Program(_), _) => stage.play(&Target::plain(upstream), again).await?,
        };
        if !quiet && !report.passed() {
            terminal::progress(&format!("BROKEN {} ({})", report.name, report.protocol));
        }
        Ok(report)
    }

    /// The command that replays a subject alone.
    fn again(&self, subject: &Subject) -> String {
        let way = match self {
            Self::Program(_) => String::new(),
            Self::Running { target, listen } => {
                format!(" --target {} --upstream-listen {listen}", target.base_url)
            }
            Self::Nothing => " --direct".to_owned(),
        };
        format!("cargo xtask compat-replay --fixture '{}'{way}", subject.name)
    }
}
