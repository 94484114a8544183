//! Scenarios as data, run for every client version and launch mode: does a client notice the proxy?
//!
//! They are run against the mock itself or through any proxy.
//!
//! A result says what was checked and what was seen, so that a pass can be doubted and a failure
//! understood without running it again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mock_upstream::script::{Continuation, Script};
use mock_upstream::tls::Authority;
use mock_upstream::{Account, Config, Mock};

use crate::clients::codex::{Endpoint, Mode, Reach};
use crate::clients::{Client, ClientError, DriveError};

mod continuity;
mod evidence;
mod fault;
mod matrix;
mod record;
mod report;
mod run;
mod scenario;
mod session;

pub use continuity::{Between, Story, outlives_a_kill, stories, two_turns};
pub use evidence::{Check, Evidence};
pub use fault::{FaultCase, faults};
pub use matrix::{DIFFERING, MATRICES, Matrix};
pub use record::{record, record_session, write_capture};
pub use report::{CaseResult, Report, Verdict};
pub use run::{Player, Runner};
pub use scenario::{Expect, Scenario, Step, scenarios};
pub use session::{Session, sessions};

/// Longest time that one run of a client may take. A healthy one takes half a second; what hangs does so
/// for ever (`wire-facts` 7), and a machine under load is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Why the laboratory itself did not work.
#[derive(Debug, thiserror::Error)]
pub enum CompatError {
    /// A mock did not start.
    #[error("start the mock")]
    Mock(#[from] mock_upstream::StartError),
    /// A scenario's rules were refused.
    #[error("play a scenario")]
    Script(#[from] mock_upstream::script::ScriptError),
    /// A client is not there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A client could not be driven.
    #[error("drive {client}")]
    Drive {
        /// The client.
        client: Client,
        /// Why.
        #[source]
        source: DriveError,
    },
    /// A file could not be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The upstream side: a plain mock and one with TLS, which know the same accounts.
///
/// A proxy is started with the address of one of them and the logins of the accounts. The client itself is
/// logged in as [`Upstream::client_account`], which the mocks only know when no accounts are given: behind a
/// proxy that swaps credentials, the client's own must never arrive.
#[derive(Debug)]
pub struct Upstream {
    /// Without TLS.
    pub plain: Mock,
    /// With TLS.
    pub tls: Mock,
    /// Where the certificate of both is.
    certificate: tempfile::NamedTempFile,
    accounts: Vec<Account>,
}

impl Upstream {
    /// Starts both mocks with these accounts; without any, with the client's own.
    ///
    /// # Errors
    /// When a mock does not start or the certificate cannot be written.
    pub async fn start(accounts: Vec<Account>) -> Result<Self, CompatError> {
        let declared = if accounts.is_empty() { vec![Self::client_account()] } else { accounts.clone() };
        let authority = Authority::generate().map_err(mock_upstream::StartError::Tls)?;
        let authority = Arc::new(authority);
        let config = |tls| Config {
            tls,
            script: Script {
                accounts: declared.clone(),
                continuation: Continuation::Connection,
                ..Script::default()
            },
            ..Config::default()
        };
        let plain = Mock::start(config(None)).await?;
        let tls = Mock::start(config(Some(Arc::clone(&authority)))).await?;
        let certificate = write_certificate(authority.pem())?;
        Ok(Self { plain, tls, certificate, accounts })
    }

    /// The account that clients are logged in as.
    #[must_use]
    pub fn client_account() -> Account {
        Account::new(CLIENT).api_key(format!("key-of-{CLIENT}"))
    }

    /// The accounts that were given.
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Where the certificate is that a client of [`Upstream::tls`] must trust.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.certificate.path().to_owned()
    }

    /// The clients' way when nothing stands between: each mode straight to a mock.
    #[must_use]
    pub fn direct(&self) -> Vec<Lane<'_>> {
        let lane = |mode: Mode| {
            let (mock, certificate) =
                if mode.needs_tls() { (&self.tls, Some(self.certificate())) } else { (&self.plain, None) };
            Lane { mode, mock, reach: Reach::Endpoint(Endpoint::at(mock.base_url(), certificate)) }
        };
        Mode::ALL.map(lane).into()
    }
}

/// The id of the account that clients are logged in as.
const CLIENT: &str = "acct-client";

fn write_certificate(pem: &str) -> Result<tempfile::NamedTempFile, CompatError> {
    let write = || -> std::io::Result<tempfile::NamedTempFile> {
        let file = tempfile::Builder::new().prefix("lab-ca-").suffix(".pem").tempfile()?;
        std::fs::write(file.path(), pem)?;
        Ok(file)
    };
    write().map_err(|source| CompatError::Write { path: std::env::temp_dir(), source })
}

/// One launch mode and the way from the client to the mock that is behind it.
#[derive(Debug, Clone)]
pub struct Lane<'a> {
    /// The launch mode.
    pub mode: Mode,
    /// The mock that its requests arrive at in the end.
    pub mock: &'a Mock,
    /// How the client gets there.
    pub reach: Reach,
}
