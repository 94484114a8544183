//! Running the cases: one after the other on each mock, because a mock plays one scenario at a time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mock_upstream::{Exchange, Mock};

use super::report::{CaseResult, Report};
use super::{CompatError, Evidence, Lane, PATIENCE, Scenario, Upstream};
use crate::clients::Client;
use crate::clients::codex::{Codex, Endpoint, Outcome};

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
        let mut player = Player::begin(client, program, lane, scenario, self.patience).await?;
        while player.step().await? {}
        Ok(player.judge().await)
    }
}

/// A client of its own that goes through the steps of a scenario, one at a time.
#[derive(Debug)]
pub struct Player<'a> {
    client: &'a Client,
    lane: &'a Lane<'a>,
    scenario: &'a Scenario,
    patience: Duration,
    codex: Codex,
    /// When it began, since the mock started.
    pub(super) begun: Duration,
    /// What came of each step so far.
    outcomes: Vec<Outcome>,
    thread: Option<String>,
}

impl<'a> Player<'a> {
    /// Makes a place for the client, and tells the mock what to say.
    ///
    /// # Errors
    /// When the rules are refused or the place cannot be made.
    pub async fn begin(
        client: &'a Client,
        program: &Path,
        lane: &'a Lane<'a>,
        scenario: &'a Scenario,
        patience: Duration,
    ) -> Result<Self, CompatError> {
        lane.mock.set_rules(scenario.rules.clone())?;
        // What came before stays in the journal: a proxy may go on using a connection from then.
        let begun = lane.mock.journal().elapsed();
        let (reach, account) = (lane.reach.clone(), Upstream::client_account());
        let codex = Codex::new(program, lane.mode, reach, &account).await;
        let mut codex = codex.map_err(|source| CompatError::Drive { client: client.clone(), source })?;
        scenario.settings.iter().for_each(|setting| codex.set(*setting));
        if let Some(model) = scenario.model {
            codex.set_model(model);
        }
        let (outcomes, thread) = (Vec::new(), None);
        Ok(Self { client, lane, scenario, patience, codex, begun, outcomes, thread })
    }

    /// Lets the client go through the next step. Says whether there was one: none follows one that left no
    /// thread to continue.
    ///
    /// # Errors
    /// When the client cannot be run. That it fails is an outcome.
    pub async fn step(&mut self) -> Result<bool, CompatError> {
        let Some(step) = self.scenario.steps.get(self.outcomes.len()) else { return Ok(false) };
        let outcome = match &self.thread {
            None if !self.outcomes.is_empty() => return Ok(false),
            None => self.codex.exec(step.prompt, self.patience).await,
            Some(thread) => self.codex.resume(thread, step.prompt, self.patience).await,
        };
        let drive = |source| CompatError::Drive { client: self.client.clone(), source };
        let outcome = outcome.map_err(drive)?;
        self.thread = self.thread.take().or_else(|| outcome.said.thread.clone());
        self.outcomes.push(outcome);
        Ok(true)
    }

    /// From here on the client finds its backend there: the proxy was started again.
    pub fn move_to(&mut self, endpoint: Endpoint) {
        self.codex.move_to(endpoint);
    }

    /// Looks at everything that was seen.
    pub async fn judge(self) -> CaseResult {
        let mut evidence = Evidence::default();
        self.outcomes.iter().for_each(|outcome| evidence.add_outcome(outcome));
        evidence.add_journal(&settled(self.lane.mock, self.begun, self.patience).await);
        evidence.tripwire = self.codex.tripwire_hits();
        let checks = evidence.judge(self.scenario, self.lane.mode);
        if checks.iter().any(|check| !check.ok) {
            let stderr: String = self.outcomes.iter().map(|outcome| outcome.stderr.as_str()).collect();
            evidence.stderr = tail(&stderr);
        }
        CaseResult::new(self.client, self.lane.mode, self.scenario.name, checks, evidence)
    }
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
