//! The faults that Codex was measured with, as scenarios of one turn each. Data only.
//!
//! Statuses, broken streams, odd framing, refused upgrades, closed sockets.
//!
//! They are played to a real client so that what it sends and gets can be recorded; how a client takes each
//! of them was measured with Codex 0.140 to 0.169 (November 2026). Retries are switched off, because one
//! request per fault is what a fixture needs; where what matters is whether the client comes back, it may once.

use mock_upstream::script::Rule;

use super::matrix::DIFFERING;
use super::scenario::{Expect, Scenario, Step};
use crate::clients::codex::Mode;

mod events;
mod http;
mod websocket;

/// A fault and the launch mode that it is played in.
#[derive(Debug, Clone)]
pub struct FaultCase {
    /// What is played.
    pub scenario: Scenario,
    /// How the client is launched.
    pub mode: Mode,
}

/// All faults, those over HTTP first.
#[must_use]
pub fn faults() -> Vec<FaultCase> {
    let http = http::faults().map(|(name, rule)| case(name, rule, Mode::Custom));
    let websocket = websocket::faults().map(|(name, rule)| case(name, rule, Mode::ProviderLogin));
    http.chain(websocket).collect()
}

type Named = (&'static str, Rule);

fn case(name: &'static str, rule: Rule, mode: Mode) -> FaultCase {
    let is_differing = DIFFERING.iter().any(|(_, differing)| *differing == name);
    let comes_back = is_differing || name.ends_with("-once");
    let mut settings = if comes_back {
        vec!["model_providers.lab.request_max_retries=1", "model_providers.lab.stream_max_retries=1"]
    } else {
        vec!["model_providers.lab.request_max_retries=0", "model_providers.lab.stream_max_retries=0"]
    };
    // 300 s without it.
    settings.push("model_providers.lab.stream_idle_timeout_ms=1500");
    if name == "upgrade-hang" {
        // 15 s without it.
        settings.push("model_providers.lab.websocket_connect_timeout_ms=1500");
    }
    let step = Step { prompt: "a question", text: "", commands: Vec::new() };
    let scenario = Scenario {
        name,
        rules: vec![rule.named(name)],
        settings,
        model: None,
        steps: vec![step],
        expect: Expect::default(),
    };
    FaultCase { scenario, mode }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mock_upstream::Script;

    #[test]
    fn every_fault_can_be_played_and_has_a_name_of_its_own() {
        let all = faults();
        for fault in &all {
            Script::rules(fault.scenario.rules.clone())
                .check()
                .unwrap_or_else(|error| panic!("{}: {error}", fault.scenario.name));
        }
        let mut names: Vec<_> = all.iter().map(|fault| fault.scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
