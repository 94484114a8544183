//! Running the cases: one after the other on each mock, because a mock plays one scenario at a time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mock_upstream::{Exchange, Mock};

use super::report::{CaseResult, Report};
use super::{CompatError, Evidence, Lane, PATIENCE, Scenario, Upstream};
use crate::clients::Client;
use crate::clients::codex::{Codex, Outcome};

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
        program: &Path,
        lane: &Lane<'_>,
        scenario: &Scenario,
    ) -> Result<CaseResult, CompatError> {
        let conversation = converse(client, program, lane, scenario, self.patience).await?;
        let mut evidence = Evidence::default();
        conversation.outcomes.iter().for_each(|outcome| evidence.add_outcome(outcome));
        evidence.add_journal(&settled(lane.mock, conversation.begun, self.patience).await);
        evidence.tripwire = conversation.tripwire;
        let checks = evidence.judge(scenario, lane.mode);
        if checks.iter().any(|check| !check.ok) {
            let stderr: String =
                conversation.outcomes.iter().map(|outcome| outcome.stderr.as_str()).collect();
            evidence.stderr = tail(&stderr);
        }
        Ok(CaseResult::new(client, lane.mode, scenario.name, checks, evidence))
    }
}

/// A client's side of a scenario.
pub(super) struct Conversation {
    /// When it began, since the mock started.
    pub(super) begun: Duration,
    /// What came of each step, up to the first that left no thread to continue.
    pub(super) outcomes: Vec<Outcome>,
    /// The attempts to reach any other address.
    pub(super) tripwire: Vec<String>,
}

/// Lets a client in a place of its own go through the steps of a scenario.
pub(super) async fn converse(
    client: &Client,
    program: &Path,
    lane: &Lane<'_>,
    scenario: &Scenario,
    patience: Duration,
) -> Result<Conversation, CompatError> {
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
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut thread: Option<String> = None;
    for step in &scenario.steps {
        let outcome = match &thread {
            None => codex.exec(step.prompt, patience).await,
            Some(thread) => codex.resume(thread, step.prompt, patience).await,
        }
        .map_err(drive)?;
        thread = thread.or_else(|| outcome.said.thread.clone());
        outcomes.push(outcome);
        if thread.is_none() {
            break;
        }
    }
    Ok(Conversation { begun, outcomes, tripwire: codex.tripwire_hits() })
}

/// The exchanges since then, once none is running any more: the client is gone, so all of them end.
pub(super) async fn settled(mock: &Mock, begun: Duration, patience: Duration) -> Vec<Exchange> {
    let journal = mock.journal();
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
