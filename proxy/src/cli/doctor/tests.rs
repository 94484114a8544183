//! What is found in golden logs and in none, and how it is told.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Parser as _;

use super::report;
use crate::cli::{Arguments, page};
use crate::doctor::attack::{Outcome, Target};
use crate::doctor::home::{DISK_FULL, Facts};
use crate::doctor::rules::RULES;
use crate::doctor::{Examination, Logs};
use wire::run_event::file::POINTER;

mod golden;

use golden::{START, logs, ours, theirs};

/// Ten minutes after the golden logs begin, in milliseconds since the epoch.
const NOW: i64 = (START + 600) * 1000;

const NAME: &str = "prodex-runtime-7-20261120T060000000.jsonl";

fn directory(lines: &[String]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(directory.path().join(NAME), text).unwrap();
    std::fs::write(directory.path().join(POINTER), NAME).unwrap();
    directory
}

fn examine(directory: &Path) -> Examination {
    Examination::of(Logs::Directory(directory.to_owned()), None, Vec::new(), NOW, &|_| true)
}

/// The page, without the path of the test's directory.
fn page_of(directory: &Path) -> String {
    report::of(&examine(directory), None, false).replace(&directory.display().to_string(), "LOGS")
}

#[test]
fn every_rule_is_found_in_its_golden_log() {
    let mut pages = String::new();
    let mut shown = BTreeSet::new();
    for golden in logs() {
        let directory = directory(&golden.lines);
        let found = examine(directory.path());
        let names: Vec<&str> = found.findings.iter().map(|ranked| ranked.finding.name).collect();
        assert!(names.contains(&golden.rule), "{}: {names:?}", golden.rule);
        shown.insert(golden.rule);
        let page = page_of(directory.path());
        let findings = page.split_once("\n\n").map_or("", |(_, findings)| findings);
        pages.push_str(&format!("--- {}\n{findings}\n", golden.rule));
    }
    for rule in RULES.iter() {
        assert!(shown.contains(rule.name), "`{}` has no golden log", rule.name);
    }
    assert_eq!(shown.len(), RULES.len(), "two rules have one name, or a golden log has no rule");
    let wide: Vec<&str> = pages
        .lines()
        .filter(|line| line.chars().count() > page::WIDTH && !line.starts_with("    > "))
        .collect();
    assert!(wide.is_empty(), "{wide:#?}");
    insta::assert_snapshot!("golden", pages);
}

#[test]
fn a_command_that_is_recommended_is_one() {
    let mut seen = 0;
    for golden in logs() {
        let directory = directory(&golden.lines);
        for ranked in examine(directory.path()).findings {
            for command in ranked.finding.next.split(" && ") {
                assert!(!command.contains(['{', '}']) || command.starts_with("curl"), "{command}");
                let words = command.split(' ').filter(|word| !word.starts_with("PRODEX_"));
                if command.contains("prodex ") {
                    seen += 1;
                    if let Err(error) = Arguments::try_parse_from(words) {
                        panic!("{}: {command}: {error}", ranked.finding.name);
                    }
                }
            }
        }
    }
    assert!(seen > 30);
}

#[test]
fn causes_name_rules_that_there_are() {
    let names: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).chain([DISK_FULL]).collect();
    for rule in RULES.iter() {
        for cause in rule.because_of {
            assert!(names.contains(cause), "{} because of {cause}", rule.name);
        }
        assert!(!rule.title.ends_with('.') && rule.title.len() <= 48, "{}", rule.title);
    }
}

/// What goes well: a log in which nothing is wrong.
fn healthy() -> Vec<String> {
    use wire::run_event::{Basis, RunEvent};
    let (profile, route) = (|| "work".into(), || "responses".into());
    let basis = Basis { snapshot: 1, at: START, ..Basis::default() };
    vec![
        ours(
            0,
            &RunEvent::RuntimeProxyStarted {
                version: "0.1.0".into(),
                listen: "127.0.0.1:80".into(),
                tls: false,
                profiles: 1,
                workers: 2,
            },
        ),
        ours(
            1,
            &RunEvent::SelectionPick {
                request: 1,
                route: route(),
                profile: profile(),
                reason: "ranked".into(),
                candidates: 1,
                basis,
            },
        ),
        ours(1, &RunEvent::ProfileProbeRefreshStart { profile: profile() }),
        ours(
            2,
            &RunEvent::ProfileCommit {
                request: 1,
                route: route(),
                profile: profile(),
                status: 200,
                attempts: 1,
                ms: 3,
            },
        ),
        ours(
            2,
            &RunEvent::ProfileProbeRefreshOk { profile: profile(), windows: 2, remaining: Some(80.0), ms: 9 },
        ),
        ours(
            3,
            &RunEvent::StreamComplete {
                request: 1,
                profile: profile(),
                outcome: "complete".into(),
                leg: None,
                bytes: 9,
                events: 3,
                ms: 4,
            },
        ),
        ours(4, &RunEvent::StateSaveOk { rows: 3, commits: 1, backlog: 0, lag_ms: 4 }),
        ours(5, &RunEvent::DrainStarted { active: 0 }),
        ours(5, &RunEvent::DrainFinished { aborted: 0, ms: 1 }),
    ]
}

#[test]
fn a_healthy_log_has_no_finding_and_no_pressure() {
    let directory = directory(&healthy());
    let found = examine(directory.path());
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    let levels: Vec<&str> = found.pressures.iter().map(|pressure| pressure.level).collect();
    assert_eq!(levels, ["low", "low", "low", "active", "low"]);
    insta::assert_snapshot!(page_of(directory.path()), @r"
    Nothing is wrong.
    Log: prodex-runtime-7-20261120T060000000.jsonl, 9 lines, 2026-11-20 06:00:00 to
         2026-11-20 06:00:05
    ");
}

#[test]
fn logs_that_are_missing_empty_torn_or_broken_off_are_told() {
    let mut pages = String::new();
    let mut tell = |name: &str, text: String| pages.push_str(&format!("--- {name}\n{text}\n"));
    let none = tempfile::tempdir().unwrap();
    assert!(!examine(none.path()).has_log());
    tell("no log", page_of(none.path()));
    let no_pointer = directory(&healthy());
    std::fs::remove_file(no_pointer.path().join(POINTER)).unwrap();
    tell("no pointer", page_of(no_pointer.path()));
    let dangling = directory(&healthy());
    std::fs::write(dangling.path().join(POINTER), "prodex-runtime-1-x.jsonl").unwrap();
    // Where its lines break depends on how long the directory's name is.
    let page = page_of(dangling.path());
    tell("a pointer to nothing", page.split_whitespace().collect::<Vec<_>>().join(" "));
    tell("an empty log", page_of(directory(&[]).path()));
    let torn = directory(&healthy());
    let log = torn.path().join(NAME);
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.clone() + "{\"timestamp\":\"2026-").unwrap();
    tell("the last line is being written", page_of(torn.path()));
    std::fs::write(&log, format!("\u{1b}[2J hello\n{text}\u{fffd}\n")).unwrap();
    tell("lines that are none", page_of(torn.path()));
    let crashed = directory(&healthy()[..4]);
    let gone = Examination::of(Logs::Directory(crashed.path().to_owned()), None, Vec::new(), NOW, &|_| false);
    let page = report::of(&gone, None, false).replace(&crashed.path().display().to_string(), "LOGS");
    tell("a run that was killed", page);
    let future = directory(&[theirs(3000, "state_save_ok lag_ms=3")]);
    tell("a log from the future", page_of(future.path()));
    insta::assert_snapshot!("logs", pages);
}

/// Whether a finding is there, and whether it is over.
fn state_of(lines: &[String], rule: &str) -> Option<bool> {
    let directory = directory(lines);
    let findings = examine(directory.path()).findings;
    findings.iter().find(|ranked| ranked.finding.name == rule).map(|ranked| ranked.finding.is_over)
}

#[test]
fn what_is_well_with_one_kind_of_call_ends_no_trouble_of_another() {
    let until = START + 3600;
    let open =
        |route: &str| theirs(0, &format!("profile_circuit_open profile=work route={route} until={until}"));
    let backoff = theirs(0, &format!("profile_retry_backoff profile=work reason=auth until={until}"));
    let closed = |route: &str| theirs(9, &format!("profile_health profile=work route={route} state=closed"));
    let both = [open("compact"), open("responses")];
    for (lines, rule, is_over) in [
        ([&both[..], &[closed("responses")]].concat(), "circuit_open", false),
        ([&both[..], &[closed("responses"), closed("compact")]].concat(), "circuit_open", true),
        (vec![backoff.clone(), closed("compact")], "profile_backoff", false),
        (vec![backoff.clone(), closed("credentials")], "profile_backoff", true),
    ] {
        assert_eq!(state_of(&lines, rule), Some(is_over), "{lines:#?}");
    }
}

#[test]
fn accounts_are_used_up_until_one_serves_a_turn_or_comes_back() {
    let nobody =
        |reset: i64| theirs(0, &format!("selection_none reason=all_refused route=responses reset={reset}"));
    let served = |route: &str, status: u16| {
        theirs(9, &format!("profile_commit route={route} profile=work status={status}"))
    };
    let later = START + 3600;
    for (lines, is_over) in [
        (vec![nobody(later)], false),
        (vec![nobody(START + 60)], true),
        (vec![nobody(later), served("models", 200)], false),
        (vec![nobody(later), served("responses", 429)], false),
        (vec![nobody(later), served("responses", 200)], true),
        (vec![nobody(later), served("websocket", 101)], true),
    ] {
        assert_eq!(state_of(&lines, "quota_everywhere"), Some(is_over), "{lines:#?}");
    }
}

#[test]
fn what_a_run_left_when_it_ended_is_not_under_way_in_the_next() {
    let [one, other] = [7, 8].map(|pid| format!("prodex-runtime-{pid}-20261120T060000000.jsonl"));
    let home = tempfile::tempdir().unwrap();
    let first = [
        theirs(0, "profile_probe_refresh_start profile=work"),
        theirs(0, "request=1 first_upstream_chunk profile=work"),
        theirs(1, "drain_finished aborted=0"),
    ];
    std::fs::write(home.path().join(one), first.join("\n")).unwrap();
    std::fs::write(home.path().join(other), theirs(500, "profile_commit request=2 status=200")).unwrap();
    let day = Some(std::time::Duration::from_secs(86_400));
    let logs = Logs::Directory(home.path().to_owned());
    let found = Examination::of(logs, day, Vec::new(), NOW, &|_| true);
    assert_eq!(found.summary.files.len(), 2);
    let names: Vec<&str> = found.findings.iter().map(|ranked| ranked.finding.name).collect();
    assert_eq!(names, ["no_pointer"]);
}

#[test]
fn a_path_in_a_command_is_one_word_to_a_shell() {
    let root = tempfile::tempdir().unwrap();
    let logs = root.path().join("it's $(mine) & yours");
    std::fs::create_dir(&logs).unwrap();
    std::fs::write(logs.join(NAME), "no event\nnone\n").unwrap();
    std::fs::write(logs.join(POINTER), NAME).unwrap();
    let found = examine(&logs);
    let unread = found.findings.iter().find(|ranked| ranked.finding.name == "unread_lines").unwrap();
    let printed = std::process::Command::new("sh").args(["-c", &unread.finding.next]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&printed.stdout), "no event$\n", "{}", unread.finding.next);
}

#[test]
fn several_runs_are_looked_at_together() {
    let home = directory(&healthy());
    let other = "prodex-runtime-8-20261120T060100000.jsonl";
    let lines = logs().into_iter().find(|golden| golden.rule == "connect_error").unwrap().lines;
    std::fs::write(home.path().join(other), lines.join("\n")).unwrap();
    let since = std::time::Duration::from_secs(3600);
    let of =
        |since| Examination::of(Logs::Directory(home.path().to_owned()), since, Vec::new(), NOW, &|_| true);
    assert_eq!(of(None).summary.files.len(), 1);
    let both = of(Some(since));
    assert_eq!((both.summary.files.len(), both.summary.lines), (2, 15));
    assert_eq!(both.findings[0].finding.name, "connect_error");
    let late = of(Some(std::time::Duration::from_secs(598)));
    assert_eq!((late.summary.lines, late.summary.older), (15, 6));
}

/// All trouble at once, in the forms of both tools.
fn everything() -> Vec<String> {
    let mut lines: Vec<String> = logs().into_iter().flat_map(|golden| golden.lines).collect();
    lines.push("no event".to_owned());
    lines
}

#[test]
fn the_json_is_as_its_schema_says() {
    let schema: serde_json::Value = serde_json::from_str(super::SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let check = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?}\n{value:#}");
        value
    };
    let facts = Facts {
        client: Some(("/usr/bin/codex".into(), Some("codex-cli 0.169.0".to_owned()))),
        login: Some("a ChatGPT login"),
        profiles: 2,
        bindings: Some(7),
        running: vec![7],
    };
    let directory = directory(&everything());
    check(&report::of(&examine(directory.path()), Some(&facts), true));
    check(&report::of(&examine(tempfile::tempdir().unwrap().path()), None, true));
    for golden in logs() {
        check(&report::of(&examine(self::directory(&golden.lines).path()), Some(&Facts::default()), true));
    }
    let target = Target::parse("http://127.0.0.1:80/", || None).unwrap();
    let outcome = Outcome {
        about: "page",
        name: "no Host",
        expected: "400".to_owned(),
        seen: "200".to_owned(),
        passed: false,
    };
    check(&report::attack(&target, &[outcome], true));
    let wrong = serde_json::json!({"version": 1, "at": null, "healthy": true});
    assert!(!validator.is_valid(&wrong), "a schema that takes anything says nothing");
    let golden = self::directory(&logs().remove(1).lines);
    let json = check(&report::of(&examine(golden.path()), None, true));
    let text = format!("{json:#}").replace(&golden.path().display().to_string(), "LOGS");
    insta::assert_snapshot!("json", text);
}

#[test]
fn all_trouble_at_once_is_told_in_order() {
    let directory = directory(&everything());
    let page = page_of(directory.path());
    let heads: Vec<&str> = page.lines().filter(|line| line.get(2..4) == Some(". ")).collect();
    insta::assert_snapshot!("order", heads.join("\n"));
}

#[test]
fn hostile_values_reach_no_terminal_and_no_shell() {
    let evil = theirs(0, "profile_inflight_saturated request=7 profile=\"\\u001b[2J;rm -rf ~\" limit=1");
    let circuit = theirs(1, "profile_circuit_open request=\"7;rm\" profile=x route=responses");
    let directory = directory(&[evil, circuit]);
    let page = page_of(directory.path());
    assert!(!page.contains('\u{1b}') && page.contains("> prodex why last\n"), "{page}");
}
