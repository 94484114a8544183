//! The suite against proxies whose defects are known: each is found by name, and none in the faithful one.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::diff::{Account, Check, Expect, Finding, Severity, judge};
use harness::mock::playback::{Config, Playback};
use harness::replay::probes::{Probe, Settings, all, joined};
use harness::replay::{Options, Target, replay};
use wire::capture::Exchange;

use crate::faulty_proxy::{DEFECTS, Defect, FaultyProxy};

/// Proxies that are judged at the same time: what is found must not depend on a machine that is idle.
const AT_ONCE: usize = 12;

fn probes() -> Vec<Probe> {
    all(&Settings { slow: Duration::from_millis(900), ..Settings::default() })
}

/// The same with bodies that are only just called big.
fn smaller_probes() -> Vec<Probe> {
    all(&Settings { slow: Duration::from_millis(300), big: 8 << 20, ..Settings::default() })
}

fn accounts() -> Vec<(String, String)> {
    ["a", "b", "c"].map(|name| (format!("token-of-{name}"), format!("account-id-{name}"))).to_vec()
}

/// What is found in a replay of these exchanges through a proxy with this defect.
async fn found(exchanges: &[Exchange], defect: Option<Defect>, is_pooled: bool) -> Vec<Finding> {
    let config = Config {
        meet: Some(Duration::from_millis(250)),
        patience: Duration::from_millis(2500),
        ..Config::default()
    };
    let options =
        Options { timeout: Duration::from_secs(15), patience: Duration::from_secs(2), ..Options::default() };
    let accounts = if is_pooled { accounts() } else { Vec::new() };
    let playback = Playback::start(exchanges.to_vec(), config).await.unwrap();
    let proxy = FaultyProxy::start(playback.address(), defect, accounts.clone());
    let target = Target::plain(format!("http://{}", proxy.address));
    let recording = replay(exchanges, &target, &playback, &options).await.unwrap();
    let expect = if is_pooled {
        let account =
            |(token, id): (String, String)| Account { name: id.clone(), credentials: vec![token, id] };
        Expect::Pooled { accounts: accounts.into_iter().map(account).collect() }
    } else {
        Expect::Transparent
    };
    judge(exchanges, &recording, &expect)
}

fn told(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        format!(
            "  {:?} {} in {:?}: {} | {:?} | {:?}\n",
            finding.severity,
            finding.check,
            finding.exchange,
            finding.problem,
            String::from_utf8_lossy(&finding.expected.bytes.0),
            String::from_utf8_lossy(&finding.seen.bytes.0),
        )
    };
    findings.iter().map(line).collect()
}

#[tokio::test]
async fn nothing_is_found_in_the_faithful_proxy_ten_times_in_a_row() {
    let (all, smaller) = (joined(&probes()), joined(&smaller_probes()));
    for round in 1..=10 {
        let exchanges = if round == 1 { &all } else { &smaller };
        let begun = Instant::now();
        let findings = found(exchanges, None, false).await;
        assert!(findings.is_empty(), "round {round}, {:?}:\n{}", begun.elapsed(), told(&findings));
    }
}

#[tokio::test]
async fn nothing_is_found_in_the_faithful_pool() {
    let findings = found(&joined(&smaller_probes()), None, true).await;
    assert!(findings.is_empty(), "{}", told(&findings));
}

#[tokio::test]
async fn every_defect_is_found_by_its_name_and_only_unlawful_ones_are_held_against_a_proxy() {
    let probes = probes();
    let one = async |(defect, check, name): &(Defect, Check, &str)| {
        let probe: Vec<&Probe> = probes.iter().filter(|probe| probe.name == *name).collect();
        assert_eq!(probe.len(), 1, "one probe is called {name}");
        let findings = found(&joined(probe), Some(*defect), defect.is_pools()).await;
        let is_broken = findings.iter().any(|finding| finding.severity == Severity::Broken);
        let is_found =
            findings.iter().any(|finding| finding.check == *check) && is_broken != defect.is_lawful();
        let missed = format!("{defect:?} is not found as {check} in {name}, but as:\n{}", told(&findings));
        (!is_found).then_some(missed)
    };
    let mut missed = Vec::new();
    for some in DEFECTS.chunks(AT_ONCE) {
        missed.extend(join_all(some.iter().map(one)).await.into_iter().flatten());
    }
    assert!(missed.is_empty(), "{}", missed.concat());
}

#[tokio::test]
async fn a_finding_shows_both_sides_around_the_first_difference() {
    let probes = probes();
    let probe: Vec<&Probe> = probes.iter().filter(|probe| probe.name == "odd-json").collect();
    let findings = found(&joined(probe), Some(Defect::ChangesEscapes), false).await;
    let body = findings.iter().find(|finding| finding.check == Check::RequestBody).unwrap();
    insta::assert_json_snapshot!(body);
}

#[test]
fn there_are_more_defects_than_asked_for_and_every_kind_of_check_is_needed() {
    assert!(DEFECTS.len() >= 30, "{}", DEFECTS.len());
    let untested: Vec<_> =
        Check::ALL.iter().filter(|check| !DEFECTS.iter().any(|(_, by, _)| by == *check)).collect();
    assert!(untested.is_empty(), "{untested:?}");
}
