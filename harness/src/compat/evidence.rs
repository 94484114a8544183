//! What was seen in a case, and what it was checked for.
//!
//! Evidence is gathered whole before anything is judged; a check is a sentence and whether it held.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mock_upstream::Exchange;
use mock_upstream::journal::Kind;
use mock_upstream::script::CallName;
use serde::{Deserialize, Serialize};
use wire::capture::Direction;
use wire::responses::RequestView;

use super::scenario::{Scenario, Step};
use crate::clients::codex::{Mode, Outcome};

/// Something that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What must hold.
    pub what: String,
    /// Whether it held.
    pub ok: bool,
    /// What was seen instead; empty when it held.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub seen: String,
}

/// What was seen in a case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The exit code of each run; none for one that had to be killed.
    pub exit_codes: Vec<Option<i32>>,
    /// The last message of each run.
    pub texts: Vec<Option<String>>,
    /// How long each run took, in milliseconds.
    pub wall_ms: Vec<u64>,
    /// The errors that the client told, recovered or not.
    pub errors: Vec<String>,
    /// How many requests of each call arrived at the mock.
    pub requests: BTreeMap<String, usize>,
    /// How many model requests came over HTTP.
    pub over_http: usize,
    /// How many came over WebSocket, warm-ups not counted.
    pub over_websocket: usize,
    /// The accounts that served model requests, per thread.
    pub owners: BTreeMap<String, BTreeSet<String>>,
    /// The refusals that the mock answered: status and account.
    pub refusals: Vec<String>,
    /// What arrived at the mock and no honest caller sends.
    pub violations: Vec<String>,
    /// Attempts of the client to reach another address.
    pub tripwire: Vec<String>,
    /// Processes that the client left behind.
    pub stragglers: Vec<String>,
    /// The end of the client's stderr, when something failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// How many model requests were served, over HTTP and over WebSocket, only for the checks.
    #[serde(skip)]
    pub(super) served: [usize; 2],
    /// The texts of the model requests, only for the checks.
    #[serde(skip)]
    pub(super) bodies: Vec<String>,
    /// What the commands printed, per run, only for the checks.
    #[serde(skip)]
    pub(super) printed: Vec<Vec<String>>,
    /// Whether each run named its thread, and the same as the first, only for the checks.
    #[serde(skip)]
    pub(super) threads: Vec<Option<String>>,
}

impl Evidence {
    /// What arrived at a mock, for who drives a client by other means than a [`Player`](super::Player).
    #[must_use]
    pub fn of_journal(exchanges: &[Exchange]) -> Self {
        let mut evidence = Self::default();
        evidence.add_journal(exchanges);
        evidence
    }

    /// Adds what a run of the client gave.
    pub(super) fn add_outcome(&mut self, outcome: &Outcome) {
        self.exit_codes.push(outcome.exit.and_then(crate::process::Exit::code));
        self.texts.push(outcome.said.final_text().map(str::to_owned));
        self.wall_ms.push(milliseconds(outcome.wall));
        self.errors.extend(outcome.said.errors.iter().cloned());
        self.stragglers.extend(outcome.stragglers.iter().map(|straggler| straggler.command.clone()));
        self.printed.push(outcome.said.commands.iter().map(|run| run.output.clone()).collect());
        self.threads.push(outcome.said.thread.clone());
    }

    /// Adds what arrived at the mock.
    pub(super) fn add_journal(&mut self, exchanges: &[Exchange]) {
        for exchange in exchanges {
            *self.requests.entry(call_name(exchange.call)).or_default() += 1;
            self.violations.extend(exchange.violations.iter().map(ToString::to_string));
            if let Some(status) = exchange.status().filter(|status| *status >= 400) {
                let account = exchange.account.as_deref().unwrap_or("unknown account");
                self.refusals.push(format!("{status} {} {account}", exchange.target));
            }
            if exchange.call == CallName::Responses {
                self.add_model_request(exchange);
            }
        }
    }

    fn add_model_request(&mut self, exchange: &Exchange) {
        if !exchange.is_websocket() {
            if exchange.method == "POST" {
                let body = exchange.decoded_body().unwrap_or_default();
                let is_served = exchange.status().unwrap_or_default() < 400;
                self.over_http += 1;
                self.served[0] += usize::from(is_served);
                self.add_body(exchange, &body, is_served);
            }
            return;
        }
        // The answer to a message is what the mock sends next.
        let mut asked: Option<&[u8]> = None;
        for message in exchange.messages.iter().filter(|message| message.kind == Kind::Text) {
            match message.direction {
                Direction::ClientToUpstream => asked = Some(&message.payload),
                Direction::UpstreamToClient => {
                    let Some(body) = asked.take() else { continue };
                    let refusal =
                        message.json()["status"].as_u64().filter(|_| message.json()["type"] == "error");
                    if let Some(status) = refusal {
                        let account = exchange.account.as_deref().unwrap_or("unknown account");
                        self.refusals.push(format!("{status} {} {account}", exchange.target));
                    }
                    if !RequestView::new(body).is_warm_up() {
                        self.over_websocket += 1;
                        self.served[1] += usize::from(refusal.is_none());
                        self.add_body(exchange, body, refusal.is_none());
                    }
                }
            }
        }
    }

    fn add_body(&mut self, exchange: &Exchange, body: &[u8], served: bool) {
        self.bodies.push(String::from_utf8_lossy(body).into_owned());
        if let (true, Some(account)) = (served, exchange.account.as_deref()) {
            let thread = exchange.header("thread-id").unwrap_or_else(|| "no thread".into());
            self.owners.entry(thread).or_default().insert(account.to_owned());
        }
    }

    /// The checks of a scenario.
    pub(super) fn judge(&self, scenario: &Scenario, mode: Mode) -> Vec<Check> {
        let last = scenario.steps.len().saturating_sub(1);
        let judge_step = |(at, step)| {
            let is_limited = scenario.expect.ends_at_limit && at == last;
            if is_limited { self.judge_limited(at) } else { self.judge_step(at, step) }
        };
        let mut checks: Vec<Check> = scenario.steps.iter().enumerate().flat_map(judge_step).collect();
        let threads: BTreeSet<_> = self.threads.iter().collect();
        let one_thread = threads.len() == 1 && self.threads.iter().all(Option::is_some);
        checks.push(check("all runs are of one thread", one_thread, || format!("{:?}", self.threads)));
        checks.extend(self.judge_journal(scenario, mode));
        checks.push(none("no request to any other address", &self.tripwire));
        checks.push(none("nothing left behind", &self.stragglers));
        checks
    }

    fn judge_step(&self, at: usize, step: &Step) -> Vec<Check> {
        let name = |what: &str| format!("run {}: {what}", at + 1);
        let exit = self.exit_codes.get(at).copied().flatten();
        let text = self.texts.get(at).and_then(Option::as_deref);
        let mut printed = self.printed.get(at).cloned().unwrap_or_default();
        let mut expected: Vec<String> = step.commands.iter().map(|line| format!("{line}\n")).collect();
        printed.sort();
        expected.sort();
        vec![
            check(&name("exit code 0"), exit == Some(0), || format!("{exit:?}")),
            check(&name(&format!("the last message is {:?}", step.text)), text == Some(step.text), || {
                format!("{text:?}")
            }),
            check(&name(&format!("its commands print {expected:?}")), printed == expected, || {
                format!("{printed:?}")
            }),
        ]
    }

    /// The checks of a run that ends with a usage limit.
    fn judge_limited(&self, at: usize) -> Vec<Check> {
        let exit = self.exit_codes.get(at).copied().flatten();
        let is_told = self.errors.iter().any(|error| error.contains("hit your usage limit"));
        vec![
            check(&format!("run {}: exit code 1", at + 1), exit == Some(1), || format!("{exit:?}")),
            check("the client tells of the usage limit", is_told, || format!("{:?}", self.errors)),
        ]
    }

    fn judge_journal(&self, scenario: &Scenario, mode: Mode) -> Vec<Check> {
        let expect = &scenario.expect;
        let [over_http, over_websocket] = self.served;
        let (served, other) =
            if mode.uses_websocket() { (over_websocket, over_http) } else { (over_http, over_websocket) };
        let transport = if mode.uses_websocket() { "WebSocket" } else { "SSE" };
        let what = format!("{} model requests served, all over {transport}", expect.requests);
        let mut checks = vec![check(&what, served == expect.requests && other == 0, || {
            format!("{served} and {other} over the other transport")
        })];
        for part in expect.bodies.iter().chain(expect.compaction_items(mode)) {
            let arrived = self.bodies.iter().any(|body| body.contains(part));
            checks.push(check(&format!("a request carries {part}"), arrived, || "none does".into()));
        }
        let (what, count) = if expect.moves {
            ("each thread is served by one account after the other", 2)
        } else {
            ("each thread is served by one account", 1)
        };
        let owners: Vec<_> = self.owners.values().filter(|accounts| accounts.len() != count).collect();
        checks.push(check(what, owners.is_empty(), || format!("{owners:?}")));
        checks.push(none("nothing of one account reaches another", &self.violations));
        checks.push(none("no account is asked again that has reached its limit", &self.asked_again()));
        checks
    }

    /// The refusals for a limit that are not the account's first.
    fn asked_again(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let limits = self.refusals.iter().filter(|refusal| refusal.starts_with("429 "));
        limits.filter(|refusal| !seen.insert(refusal.rsplit(' ').next())).cloned().collect()
    }
}

fn check(what: &str, ok: bool, seen: impl FnOnce() -> String) -> Check {
    Check { what: what.to_owned(), ok, seen: if ok { String::new() } else { seen() } }
}

fn none(what: &str, seen: &[String]) -> Check {
    check(what, seen.is_empty(), || seen.join("; "))
}

fn call_name(call: CallName) -> String {
    // A unit variant serialises as its name.
    serde_json::to_value(call).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn milliseconds(wall: Duration) -> u64 {
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}
