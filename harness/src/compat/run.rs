//! Running the cases: one after the other on each mock, because a mock plays one scenario at a time.

use std::path::PathBuf;
use std::time::Duration;

use mock_upstream::Exchange;

use super::report::{CaseResult, Report};
use super::{CompatError, Evidence, Lane, PATIENCE, Scenario, Upstream};
use crate::clients::Client;
use crate::clients::codex::Codex;

/// Runs scenarios.
#[derive(Debug)]
pub struct Runner<'a> {
    lanes: Vec<Lane<'a>>,
    /// What stands between client and mock, for the report.
    target: String,
    patience: Duration,
}

impl<'a> Runner<'a> {
    /// A runner for these ways; `target` names what they lead through.
    #[must_use]
    pub fn new(target: impl Into<String>, lanes: Vec<Lane<'a>>) -> Self {
        Self { lanes, target: target.into(), patience: PATIENCE }
    }

    /// Gives each run of a client this long instead of [`PATIENCE`].
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs every scenario with every client in every lane. `each` is told every result as it comes.
    ///
    /// # Errors
    /// When the laboratory itself does not work. A client that fails is a result.
    pub async fn run(
        &self,
        clients: &[(Client, PathBuf)],
        scenarios: &[Scenario],
        mut each: impl FnMut(&CaseResult),
    ) -> Result<Report, CompatError> {
        let mut results = Vec::new();
        for (client, program) in clients {
            for lane in &self.lanes {
                for scenario in scenarios {
                    let result = self.case(client, program, lane, scenario).await?;
                    each(&result);
                    results.push(result);
                }
            }
        }
        Ok(Report { target: self.target.clone(), results })
    }

    async fn case(
        &self,
        client: &Client,
        program: &std::path::Path,
        lane: &Lane<'_>,
        scenario: &Scenario,
    ) -> Result<CaseResult, CompatError> {
        let drive = |source| CompatError::Drive { client: client.clone(), source };
        let account = Upstream::client_account();
        lane.mock.set_rules(scenario.rules.clone())?;
        // What came before stays in the journal: a proxy may go on using a connection from then.
        let begun = lane.mock.journal().elapsed();
        let mut codex = Codex::new(program, lane.mode, lane.reach.clone(), &account).await.map_err(drive)?;
        scenario.settings.iter().for_each(|setting| codex.set(*setting));
        if let Some(model) = scenario.model {
            codex.set_model(model);
        }
        let mut evidence = Evidence::default();
        let mut stderr = String::new();
        let mut thread: Option<String> = None;
        for step in &scenario.steps {
            let outcome = match &thread {
                None => codex.exec(step.prompt, self.patience).await,
                Some(thread) => codex.resume(thread, step.prompt, self.patience).await,
            }
            .map_err(drive)?;
            thread = thread.or_else(|| outcome.said.thread.clone());
            evidence.add_outcome(&outcome);
            stderr.push_str(&outcome.stderr);
            if thread.is_none() {
                break;
            }
        }
        evidence.add_journal(&settled(lane, begun, self.patience).await);
        evidence.tripwire = codex.tripwire_hits();
        let checks = evidence.judge(scenario, lane.mode);
        if checks.iter().any(|check| !check.ok) {
            evidence.stderr = tail(&stderr);
        }
        Ok(CaseResult::new(client, lane.mode, scenario.name, checks, evidence))
    }
}

/// The exchanges since then, once none is running any more: the client is gone, so all of them end.
async fn settled(lane: &Lane<'_>, begun: Duration, patience: Duration) -> Vec<Exchange> {
    let journal = lane.mock.journal();
    // A proxy may keep a WebSocket open for the next client; what was asked on it has been answered.
    let over = |exchange: &Exchange| exchange.end.is_some() || exchange.is_websocket();
    let done = journal.wait_for("all exchanges to end", patience, |all| all.iter().all(over)).await;
    // What is still open then shows in what is missing.
    drop(done);
    journal.since(begun)
}

/// The last lines of a client's stderr.
fn tail(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
