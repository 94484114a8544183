//! The screen as it was reviewed, and that it never is wider than a terminal.

use super::*;
use crate::admin::status::{LaneStatus, Longest, Waiting, WindowStatus};

const NOW: i64 = 1_000_000;

fn profile(name: &str, state: &str) -> ProfileStatus {
    ProfileStatus {
        name: name.to_owned(),
        kind: "chatgpt".to_owned(),
        state: state.to_owned(),
        until: None,
        reason: None,
        current: false,
        preferred: false,
        in_flight: 0,
        waiting: 0,
        band: "ready".to_owned(),
        remaining_percent: None,
        windows: Vec::new(),
        circuits: Vec::new(),
    }
}

fn window(seconds: u64, remaining: f64) -> WindowStatus {
    WindowStatus {
        limit: None,
        seconds: Some(seconds),
        remaining_percent: Some(remaining),
        resets_at: None,
        band: "ready".to_owned(),
        source: "usage".to_owned(),
        observed_at: NOW,
    }
}

fn turn(request: u64, ago: i64, profile: &str, outcome: &str) -> TurnStatus {
    TurnStatus {
        request,
        at: NOW - ago,
        route: "websocket".to_owned(),
        profile: profile.to_owned(),
        outcome: outcome.to_owned(),
        ms: 12_345,
        first_byte_ms: 840,
        conversation: Some("a3f9c1".to_owned()),
    }
}

fn status() -> Status {
    let lane = |name: &str, in_flight| LaneStatus { name: name.to_owned(), in_flight, limit: 9, waiting: 0 };
    let both = vec![window(18_000, 62.0), window(604_800, 91.0)];
    let work = ProfileStatus { current: true, in_flight: 3, windows: both, ..profile("work", "ready") };
    let none = vec![window(18_000, 0.0), window(604_800, 40.2)];
    let home = ProfileStatus { until: Some(NOW + 7000), windows: none, ..profile("home", "exhausted") };
    let reason = Some("its login is no longer good (expired); log in again with `codex login`".to_owned());
    let old = ProfileStatus { reason, ..profile("old-account-with-a-long-name", "parked") };
    let thin = ProfileStatus {
        band: "thin".to_owned(),
        waiting: 2,
        preferred: true,
        windows: vec![window(18_000, 12.0)],
        ..profile("thin", "ready")
    };
    let longest = Longest { request: 812, place: "responses".to_owned(), position: 2, waited_ms: 1234 };
    Status {
        version: 1,
        pid: 4711,
        program: "0.1.0".to_owned(),
        state: Phase::Serving,
        started_at: NOW - 7300,
        uptime_s: 7300,
        listen: "127.0.0.1:8080".to_owned(),
        tls: true,
        auth: true,
        launched: true,
        log: None,
        scope: Some(vec!["work".to_owned(), "home".to_owned()]),
        in_flight: 3,
        lanes: vec![lane("responses", 2), lane("compact", 0), lane("websocket", 1)],
        websockets: 4,
        waiting: Waiting { count: 3, longest: Some(longest) },
        profiles: vec![home, old, thin, work],
        recent: vec![turn(3, 5, "work", "complete"), turn(2, 4000, "home", "upstream_error")],
        unreachable: vec!["https://chatgpt.com:443".to_owned()],
    }
}

fn report(running: Vec<Status>) -> Report {
    let first_profile = "`prodex login` logs in an account";
    Report { running, silent: Vec::new(), profiles: Vec::new(), broken: Vec::new(), first_profile }
}

#[test]
fn a_busy_proxy_fits_the_screen() {
    let text = render(&report(vec![status()]), NOW);
    assert!(text.lines().filter(|line| !line.contains("codex login")).all(|line| line.chars().count() <= 80));
    insta::assert_snapshot!(text);
}

#[test]
fn an_idle_proxy_and_none_are_told_in_few_lines() {
    let idle = Status {
        tls: false,
        launched: false,
        scope: None,
        in_flight: 0,
        lanes: Vec::new(),
        waiting: Waiting::default(),
        profiles: vec![profile("work", "ready")],
        recent: Vec::new(),
        unreachable: Vec::new(),
        state: Phase::Draining,
        ..status()
    };
    let nobody = report(Vec::new());
    let known = Report { profiles: vec![profile("work", "paused")], ..report(Vec::new()) };
    let broken = Report {
        broken: vec![("bad".to_owned(), "auth.json cannot be used".to_owned())],
        silent: vec!["the proxy with process id 7 does not answer: timed out".to_owned()],
        ..report(Vec::new())
    };
    let all = [report(vec![idle]), nobody, known, broken].map(|report| render(&report, NOW));
    insta::assert_snapshot!(all.join("----\n"));
}
