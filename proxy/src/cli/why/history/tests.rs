//! Logs as a proxy writes them, and what `prodex why` makes of each.

use super::super::report;
use super::super::what_if::{self, WhatIf};
use super::*;
use crate::selection::trace::{Trace, basis};
use crate::telemetry::RunLog;
use wire::route::Api;
use wire::run_event::{Line, OpenCircuit, QuotaWindow, RunEvent, Source};

/// 2026-11-20 12:00 UTC.
const NOON: i64 = 1_795_176_000;

/// A log that is put together by hand.
#[derive(Default)]
struct Log(String);

impl Log {
    fn add(&mut self, second: u32, event: &RunEvent<'_>) -> &mut Self {
        let timestamp = format!("2026-11-20T12:00:{second:02}.250Z");
        self.0 += &serde_json::to_string(&Line { timestamp: &timestamp, event }).unwrap();
        self.0.push('\n');
        self
    }

    fn snapshot(&mut self, id: u64, base: Option<u64>, candidates: Vec<Standing>) -> &mut Self {
        let candidates = candidates.into_iter().map(Arc::new).collect();
        let (api, current) = ("chatgpt".into(), Some("work".into()));
        self.add(0, &RunEvent::SelectionSnapshot(SnapshotFields { id, base, api, current, candidates }))
    }

    fn pick(&mut self, request: u64, profile: &str, reason: &str, basis: Basis<'_>) -> &mut Self {
        let (route, profile, reason) = ("responses".into(), profile.into(), reason.into());
        self.add(1, &RunEvent::SelectionPick { request, route, profile, reason, candidates: 3, basis })
    }

    fn read(&self, wanted: Option<u64>) -> Result<History, HistoryError> {
        History::read(self.0.as_bytes(), wanted)
    }
}

fn standing(name: &str, remaining: f64) -> Standing {
    let window = QuotaWindow {
        seconds: Some(18_000),
        remaining,
        resets_at: Some(NOON + 3600),
        source: Source::Response,
        observed_at: NOON - 90,
    };
    Standing { windows: vec![window], ..Standing::new(name.into()) }
}

fn of(snapshot: u64) -> Basis<'static> {
    Basis { snapshot, at: NOON + 1, in_flight: vec![0, 2], ..Basis::default() }
}

/// A request that was refused by one profile and served by another.
fn rotated() -> Log {
    let circuit = OpenCircuit {
        of: CircuitOf::Credentials,
        since: NOON - 30,
        until: NOON + 90,
        forgotten_at: NOON + 5000,
        probing_until: None,
    };
    let blocked = Standing { circuits: vec![circuit], ..standing("a-profile-with-a-very-long-name", 70.0) };
    let mut log = Log::default();
    let unknown = Standing::new("spare".into());
    log.snapshot(1, None, vec![standing("work", 4.0), standing("home", 62.5), blocked, unknown]);
    log.pick(17, "home", "ranked", of(1));
    let (code, until) = ("usage_limit_reached".into(), NOON + 7200);
    log.add(3, &RunEvent::ProfileQuotaQuarantine { request: 17, profile: "home".into(), code, until });
    log.snapshot(2, Some(1), vec![Standing { exhausted_until: Some(until), ..standing("home", 0.0) }]);
    let again = Basis { tried: vec!["home".into()], reset: Some(until), ..of(2) };
    log.pick(17, "spare", "ranked", again);
    let route = "responses".into();
    let served = RunEvent::ProfileCommit {
        request: 17,
        route,
        profile: "spare".into(),
        status: 200,
        attempts: 2,
        ms: 2650,
    };
    log.add(4, &served);
    log
}

fn page(log: &Log, changes: &[&str]) -> String {
    let history = log.read(None).unwrap();
    let changes: Vec<WhatIf> = changes.iter().map(|change| change.parse().unwrap()).collect();
    let what_if = what_if::ask(&history, &changes).unwrap();
    let page = report::text("prodex-runtime-1-x.jsonl", &history, &changes, what_if.as_ref());
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    page
}

#[test]
fn a_rotation_is_told() {
    insta::assert_snapshot!(page(&rotated(), &[]));
}

#[test]
fn what_could_have_been_is_told() {
    let page = page(&rotated(), &["pause=home", "remaining=spare:2"]);
    let paragraph = page.split("\n\n").find(|paragraph| paragraph.starts_with("  If ")).unwrap();
    insta::assert_snapshot!(paragraph);
    let history = rotated().read(None).unwrap();
    let error = what_if::ask(&history, &["pause=nobody".parse().unwrap()]).unwrap_err();
    insta::assert_snapshot!(error.message, @"there was no profile `nobody` to choose; there were: work, home, a-profile-with-a-very-long-name, spare");
}

#[test]
fn the_json_has_a_version_and_says_the_same() {
    let history = rotated().read(None).unwrap();
    let changes = ["exhausted=home".parse().unwrap()];
    let what_if = what_if::ask(&history, &changes).unwrap();
    let json = report::json(std::path::Path::new("log"), &history, &changes, what_if.as_ref());
    insta::assert_json_snapshot!(json);
}

#[test]
fn each_tie_is_known_and_explained() {
    for tie in Tie::ALL {
        let mut log = Log::default();
        log.snapshot(1, None, vec![standing("work", 64.0), standing("home", 62.5)]);
        let (route, profile, affinity) = ("responses".into(), "work".into(), tie.name().into());
        log.add(1, &RunEvent::SelectionKeepAffinity { request: 1, route, profile, affinity, basis: of(1) });
        let left = Basis { owner: Some("home".into()), tie: Some(tie.name().into()), ..of(1) };
        log.pick(2, "work", "ranked", Basis { tried: vec!["home".into()], ..left });
        for request in [1, 2] {
            let history = log.read(Some(request)).unwrap();
            assert_eq!(history.decisions[0].owner.as_ref().unwrap().tie, tie);
        }
        let page = report::text("log", &log.read(Some(1)).unwrap(), &[], None);
        assert!(page.contains("because it owns"), "{page}");
    }
}

#[test]
fn a_choice_by_other_rules_is_told_to_be_one() {
    let mut log = Log::default();
    log.snapshot(1, None, vec![standing("work", 4.0), standing("home", 62.5)]);
    log.pick(3, "work", "ranked", of(1));
    let page = page(&log, &[]);
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("the log is of another. By its rules: Chosen: home"), "{page}");
    log.pick(4, "home", "ranked", of(1));
    assert!(!self::page(&log, &[]).contains("another"));
}

#[test]
fn what_the_log_does_not_tell_is_said() {
    let error = |log: &Log, wanted| log.read(wanted).unwrap_err().to_string();
    let mut log = rotated();
    insta::assert_snapshot!(error(&log, Some(18)), @"the log does not tell of request 18; it has requests 17 to 17; `prodex why last` tells of the last");
    let end = log.0.find('\n').unwrap() + 1;
    log.0.drain(..end);
    insta::assert_snapshot!(error(&log, None), @"request 17 was decided on snapshot 1, which the log does not have: it is truncated, or lines of it were lost; `prodex why last` tells of the last request");
    insta::assert_snapshot!(error(&Log::default(), None), @"the log tells of no request for which a profile was chosen (0 lines that can be read); `prodex run` makes requests, and --log names another log");
    let mut odd = Log("{\"timest\nnot a line\n".to_owned());
    odd.0 += r#"{"timestamp":"t","event":"selection_pick","fields":{"request":1,"route":"responses"}}"#;
    insta::assert_snapshot!(error(&odd, None), @"a line about request 1 cannot be read; it may be of another version: missing field `snapshot`; read it with the prodex that wrote it");
}

#[test]
fn a_log_whose_end_is_being_written_is_read() {
    let mut log = rotated();
    log.0 += "{\"timestamp\":\"2026-11-2";
    assert_eq!(log.read(None).unwrap().decisions.len(), 2);
}

#[test]
fn what_a_proxy_logs_is_chosen_again() {
    let directory = tempfile::tempdir().unwrap();
    let log = RunLog::open(directory.path()).unwrap();
    let trace = Trace::default();
    let mut expected = Vec::new();
    let mut snapshot =
        Snapshot::new(NOON, vec![standing("a", 50.0), standing("b", 60.0), standing("c", 2.0)], None);
    for request in 1..200_u64 {
        let count = (request % 5) as usize;
        snapshot.in_flight = vec![count, 2, 0];
        snapshot.at += 7;
        let changed = &mut Arc::make_mut(&mut snapshot.standings)[request as usize % 3];
        let changed = Arc::make_mut(changed);
        match request % 7 {
            0 => changed.windows[0].remaining = (request % 100) as f64,
            1 => changed.exhausted_until = Some(snapshot.at + 20),
            // Evidence alone is nothing new for a minute.
            2 | 3 => changed.windows[0].observed_at = snapshot.at,
            4 => snapshot.current = Some("b".into()),
            _ => snapshot.current = None,
        }
        let owner = Owner { profile: "a".into(), tie: Tie::Session };
        let owner = Some(&owner).filter(|_| request % 4 == 0);
        let tried = [Arc::from("a")];
        let tried = if request % 3 == 0 { &tried[..] } else { &[] };
        let route = CircuitOf::Responses;
        let wanted = Wanted { route, owner, may_move: request % 8 == 0, tried, reset: None };
        let result = choose(&snapshot, &wanted);
        let number = trace.write(&log, Api::Chatgpt, &snapshot);
        let basis = basis(number, &snapshot, &wanted, &result);
        let route = "responses".into();
        log.record(&match &result {
            Ok(Choice { profile, reason: crate::selection::Reason::Affinity(tie) }) => {
                let (profile, affinity) = ((&**profile).into(), tie.name().into());
                RunEvent::SelectionKeepAffinity { request, route, profile, affinity, basis }
            }
            Ok(Choice { profile, reason }) => {
                let (profile, reason) = ((&**profile).into(), reason.name().into());
                RunEvent::SelectionPick { request, route, profile, reason, candidates: 3, basis }
            }
            Err(none) => RunEvent::SelectionNone { request, route, reason: none.name().into(), basis },
        });
        expected.push(Outcome::from(result));
    }
    log.close();
    let bytes = std::fs::read(log.path().unwrap()).unwrap();
    for (request, expected) in (1..).zip(expected) {
        let history = History::read(&bytes, Some(request)).unwrap();
        let [decision] = &history.decisions[..] else { panic!("{history:?}") };
        assert_eq!(decision.logged, expected, "request {request}");
        assert_eq!(decision.remake(&decision.snapshot), expected, "request {request}");
    }
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("selection_snapshot")).collect();
    assert!(lines.len() < 190, "evidence alone is nothing new");
    let full = lines.iter().filter(|line| !line.contains("\"base\"")).count();
    assert!((2..=4).contains(&full), "{full} full ones of {}", lines.len());
}

#[test]
fn what_is_known_of_one_api_is_not_forgotten_for_the_news_of_another() {
    let mut log = Log::default();
    let key = vec![Arc::new(standing("key", 50.0))];
    let openai = SnapshotFields { id: 1, base: None, api: "openai".into(), current: None, candidates: key };
    log.add(0, &RunEvent::SelectionSnapshot(openai));
    for id in 2..2000 {
        log.snapshot(id, None, vec![standing("work", 50.0)]);
    }
    log.pick(7, "key", "ranked", of(1));
    let history = log.read(None).unwrap();
    assert_eq!(history.decisions[0].snapshot.standings[0].name, "key".into());
}
