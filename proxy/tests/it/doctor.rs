//! `prodex doctor` and `prodex log`: what a person sees of a run, and what a hostile neighbour gets.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use harness::process::{Finished, Program};
use mock_upstream::Account;
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Rule, Script, Turn};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::connection::{begin_turn, turn, user};
use crate::rig::{LIMIT, Proxy, Setting, add_profile, code, prodex, program, sandbox, start, until};
use crate::socket::{Socket, create};

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

fn validate(report: &Value, schema: &Finished) {
    let schema = json(schema);
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(report).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{report:#}");
}

fn failed(report: &Value) -> Vec<&str> {
    let probes = report["attack"]["probes"].as_array().unwrap().iter();
    probes.filter(|probe| probe["passed"] == false).map(|probe| probe["probe"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_proxy_refuses_every_probe_and_asks_no_upstream() {
    let (mock, proxy) = start(&["one"], Script::rules([])).await;
    let attacked = prodex(&proxy.sandbox, &["doctor", "--attack"]).await;
    assert_eq!(code(&attacked), Some(0), "{attacked:?}");
    assert!(attacked.stdout.contains("refused all"), "{}", attacked.stdout);
    assert!(attacked.stdout.lines().all(|line| line.chars().count() <= 80), "{}", attacked.stdout);
    let again = prodex(&proxy.sandbox, &["doctor", "--attack", "--json", "--url", proxy.base_url()]).await;
    let report = json(&again);
    validate(&report, &prodex(&proxy.sandbox, &["doctor", "--json-schema"]).await);
    assert!(report["attack"]["probes"].as_array().unwrap().len() > 50);
    assert!(
        !again.stdout.contains(proxy.prefix().trim_start_matches("/k/")),
        "the capability is not printed"
    );
    assert!(mock.journal().exchanges().is_empty(), "{:?}", mock.journal().exchanges());
    drop(proxy.stop().await);
}

#[tokio::test]
async fn a_proxy_with_tls_is_tried_too() {
    let setting = Setting::new(&["one"], Script::rules([])).argument("--tls");
    let (mock, proxy) = setting.start().await;
    let attacked = prodex(&proxy.sandbox, &["doctor", "--attack", "--json"]).await;
    assert_eq!(failed(&json(&attacked)), [""; 0], "{attacked:?}");
    assert!(mock.journal().exchanges().is_empty());
}

#[tokio::test]
async fn a_proxy_that_asks_for_no_capability_is_found_out() {
    let setting = Setting::new(&["one"], Script::rules([])).argument("--no-auth");
    let (_mock, proxy) = setting.start().await;
    let attacked = prodex(&proxy.sandbox, &["doctor", "--attack", "--json"]).await;
    assert_eq!(code(&attacked), Some(1));
    let report = json(&attacked);
    let about = |probe: &&Value| probe["passed"] == false;
    let probes = report["attack"]["probes"].as_array().unwrap();
    assert!(probes.iter().filter(about).all(|probe| probe["about"] == "capability"), "{report:#}");
    assert_eq!(failed(&report).len(), 5, "an empty one is an empty segment, too: {report:#}");
}

/// A proxy that lets everything through, one client after the other, on every address of the machine.
fn naive() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut end, mut method, mut buffer) = (Vec::new(), None, [0; 64 * 1024]);
            while !end.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Err(error) if error.kind() != ErrorKind::Interrupted => break,
                    Err(_) => {}
                    Ok(count) => {
                        method.get_or_insert(buffer[0]);
                        // Only what may be the end of the head is looked at again.
                        end.drain(..end.len().saturating_sub(3));
                        end.extend_from_slice(&buffer[..count]);
                    }
                }
            }
            let open = if method == Some(b'O') { "Access-Control-Allow-Origin: *\r\n" } else { "" };
            let answer = format!("HTTP/1.1 200 OK\r\n{open}Content-Length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

#[tokio::test]
async fn a_proxy_that_lets_everything_through_fails_every_probe() {
    let port = naive();
    let sandbox = sandbox();
    let url = format!("http://127.0.0.1:{port}/k/{}", "a".repeat(32));
    let attacked = prodex(&sandbox, &["doctor", "--attack", "--json", "--url", &url]).await;
    assert_eq!(code(&attacked), Some(1), "{attacked:?}");
    let report = json(&attacked);
    let passed: Vec<&Value> = report["attack"]["probes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|probe| probe["passed"] == true)
        .collect();
    assert!(passed.is_empty(), "{passed:#?}");
    let mut long = report["attack"]["probes"].as_array().unwrap().iter();
    let long = long.rfind(|probe| probe["probe"] == "a body of 1 TiB").unwrap();
    assert!(long["seen"].as_str().unwrap().starts_with("not tried"), "{long}");
    let text = prodex(&sandbox, &["doctor", "--attack", "--url", &url]).await;
    assert!(text.stdout.contains("FAIL the Host of another machine: 200; right is 403"), "{}", text.stdout);
}

#[tokio::test]
async fn nobody_to_try_is_told() {
    let sandbox = sandbox();
    let none = prodex(&sandbox, &["doctor", "--attack"]).await;
    assert_eq!(code(&none), Some(3));
    assert!(none.stderr.contains("start one with `prodex serve`"), "{}", none.stderr);
    let remote = prodex(&sandbox, &["doctor", "--attack", "--url", "http://192.0.2.1:80/"]).await;
    assert_eq!(code(&remote), Some(2));
    assert!(remote.stderr.contains("not on this machine"), "{}", remote.stderr);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(code(&prodex(&sandbox, &["doctor", "--attack", "--url", &url]).await), Some(3));
}

#[tokio::test]
async fn a_run_without_trouble_is_healthy() {
    let (_mock, proxy) = start(&["one"], Script::rules([Rule::new(Turn::text("a"))])).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    let sandbox = std::sync::Arc::clone(&proxy.sandbox);
    let running = prodex(&sandbox, &["doctor", "--json"]).await;
    let report = json(&running);
    assert_eq!(report["home"]["running"][0], proxy.ready["pid"], "{report:#}");
    assert_eq!((&report["home"]["profiles"], &report["log"]["skipped"]), (&1.into(), &0.into()));
    let log = proxy.stop().await;
    let doctor = prodex(&sandbox, &["doctor", "--runtime"]).await;
    assert_eq!(code(&doctor), Some(0), "{}", doctor.stdout);
    assert!(doctor.stdout.starts_with("Nothing is wrong.\nLog: prodex-runtime-"), "{}", doctor.stdout);
    let report = json(&prodex(&sandbox, &["doctor", "--runtime", "--json"]).await);
    validate(&report, &prodex(&sandbox, &["doctor", "--json-schema"]).await);
    assert_eq!(report["events"]["profile_commit"]["count"], log.events("profile_commit").count());
    assert_eq!(report["latest_request"]["request"], 1);
}

/// A day with all that is no trouble: turns at once, on WebSockets too, clients that leave, a replacement, a drain.
#[tokio::test]
async fn a_busy_day_without_trouble_is_healthy() {
    let slow =
        Rule::new(Turn::text("a b c")).user_text("slow").pacing(Pacing::gap(Duration::from_millis(100)));
    let script = Script::rules([slow, Rule::new(Turn::text("a b c"))]);
    let (_mock, proxy) = Setting::new(&["one", "two", "three"], script).start().await;
    let turns = (0..60).map(|n| {
        let proxy = &proxy;
        async move { turn(proxy, &format!("session-id: s{}\r\n", n % 20), &user("x")).await.status() }
    });
    assert!(futures_util::future::join_all(turns).await.iter().all(|status| *status == 200));
    let mut socket = Socket::open(&proxy, &[("session-id", "s1")]).await.unwrap();
    for _ in 0..3 {
        socket.turn(&create("x")).await;
    }
    let mut leaving = begin_turn(&proxy, "", &user("slow")).await;
    leaving.read_through("output_item.added\"").await;
    drop(leaving);
    drop(begin_turn(&proxy, "", &user("slow")).await);
    let next = proxy.another_that("PRODEX_WORKERS", "1", &["--replace"]).await;
    drop(socket);
    drop(proxy.ended().await);
    assert_eq!(turn(&next, "session-id: s1\r\n", &user("x")).await.status(), 200);
    let sandbox = std::sync::Arc::clone(&next.sandbox);
    drop(next.stop().await);
    let doctor = prodex(&sandbox, &["doctor", "--runtime", "--since", "1h"]).await;
    assert!(doctor.stdout.starts_with("Nothing is wrong.\nLog: 2 files"), "{}", doctor.stdout);
    assert_eq!(code(&doctor), Some(0));
}

#[tokio::test]
async fn a_start_that_fails_leaves_the_log_of_the_proxy_that_runs_the_newest() {
    let (_mock, proxy) = start(&["one"], Script::default()).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    until("it is logged", || proxy.log().events("stream_complete").count() == 1).await;
    let listen = format!("127.0.0.1:{}", proxy.port());
    let failed = prodex(&proxy.sandbox, &["serve", "--listen", &listen]).await;
    assert_eq!(code(&failed), Some(3), "{}", failed.stderr);
    let last = prodex(&proxy.sandbox, &["why", "last"]).await;
    assert_eq!(code(&last), Some(0), "{}", last.stderr);
    let doctor = prodex(&proxy.sandbox, &["doctor", "--runtime", "--since", "1h"]).await;
    assert!(doctor.stdout.starts_with("Nothing is wrong."), "{}", doctor.stdout);
}

#[tokio::test]
async fn whoever_watches_sees_what_changes_around_the_proxy() {
    let (_mock, proxy) = start(&["one"], Script::default()).await;
    let watch =
        Program::new(program()).args(["doctor", "--watch", "--json"]).envs(proxy.sandbox.environment());
    let mut watch = watch.start().unwrap();
    let looked = |profiles: u64| {
        let text = watch.stdout();
        let mut looks = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        looks.next_back().is_some_and(|look| look["home"]["profiles"] == profiles)
    };
    until("the first look", || looked(1)).await;
    add_profile(&proxy.sandbox, "two", &Account::new("two").auth_json().to_string()).await;
    until("another look", || looked(2)).await;
    watch.signal(Signal::SIGTERM);
    watch.wait(LIMIT).await.unwrap();
}

#[tokio::test]
async fn an_upstream_that_nobody_listens_at_is_told_as_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let proxy = Setting::new(&["one"], Script::rules([])).start_at(&upstream).await;
    for _ in 0..3 {
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 503);
    }
    let sandbox = std::sync::Arc::clone(&proxy.sandbox);
    drop(proxy.stop().await);
    let doctor = prodex(&sandbox, &["doctor", "--runtime", "--json"]).await;
    assert_eq!(code(&doctor), Some(1));
    let report = json(&doctor);
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings[0]["rule"], "connect_error", "{report:#}");
    assert!(findings.len() > 1);
    for finding in &findings[1..] {
        assert_eq!(finding["because_of"], "connect_error", "{finding:#}");
    }
    assert_eq!(report["pressures"]["transport"]["level"], "elevated");
}

#[tokio::test]
async fn without_a_log_or_with_a_wrong_argument_the_exit_code_says_so() {
    let sandbox = sandbox();
    let none = prodex(&sandbox, &["doctor"]).await;
    assert_eq!(code(&none), Some(3), "{none:?}");
    assert!(none.stdout.contains("There is no run log") && none.stdout.contains("prodex login"));
    assert_eq!(code(&prodex(&sandbox, &["log"]).await), Some(3));
    for arguments in [&["doctor", "--since", "soon"][..], &["doctor", "--log"], &["doctor", "--pid", "1"]] {
        assert_eq!(code(&prodex(&sandbox, arguments).await), Some(2), "{arguments:?}");
    }
    let missing = prodex(&sandbox, &["doctor", "--log", "/nowhere/x.jsonl"]).await;
    assert_eq!(code(&missing), Some(3), "{missing:?}");
    assert!(missing.stdout.contains("A log cannot be read"), "{}", missing.stdout);
}

#[tokio::test]
async fn the_log_is_printed_for_people_and_as_it_is() {
    let (_mock, proxy) = start(&["one"], Script::rules([Rule::new(Turn::text("a"))])).await;
    for _ in 0..2 {
        turn(&proxy, "", &user("x")).await;
    }
    let sandbox = std::sync::Arc::clone(&proxy.sandbox);
    let log = proxy.stop().await;
    let commits = prodex(&sandbox, &["log", "--event", "profile_commit"]).await;
    let lines: Vec<&str> = commits.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "the day and two lines: {}", commits.stdout);
    assert!(
        lines[1].contains(" profile_commit request=1 route=responses profile=one status=200"),
        "{}",
        lines[1]
    );
    let raw = prodex(&sandbox, &["log", "--json", "--since", "1h"]).await;
    assert_eq!(raw.stdout, std::fs::read_to_string(&log.path).unwrap());
    let last = prodex(&sandbox, &["log", "--request", "last"]).await;
    assert!(last.stdout.contains("request=2") && !last.stdout.contains("request=1"), "{}", last.stdout);
}

#[tokio::test]
async fn a_log_that_is_followed_goes_on_with_the_next_run() {
    let sandbox = std::sync::Arc::new(sandbox());
    add_profile(&sandbox, "one", &Account::new("one").auth_json().to_string()).await;
    let arguments = || vec!["--upstream".to_owned(), "http://127.0.0.1:9".to_owned()];
    let proxy = Proxy::start(std::sync::Arc::clone(&sandbox), arguments()).await;
    let follow = Program::new(program()).args(["log", "--follow"]).envs(sandbox.environment());
    let mut follow = follow.start().unwrap();
    let started = |count| move |text: String| text.matches("runtime_proxy_started").count() == count;
    until("the beginning", || started(1)(follow.stdout())).await;
    let proxy = proxy.restarted().await;
    until("the next run", || started(2)(follow.stdout())).await;
    assert!(follow.stdout().contains("drain_finished"), "the old log was read to its end");
    drop(proxy.stop().await);
    until("its end", || follow.stdout().matches("drain_finished").count() == 2).await;
    follow.signal(Signal::SIGTERM);
    follow.wait(LIMIT).await.unwrap();
}

/// A log that is longer than all the memory that the program may have: many events with ever new names, and a line
/// without an end.
#[tokio::test]
async fn a_log_that_is_longer_than_memory_is_read() {
    const MEMORY: u64 = 48 << 10;
    let sandbox = sandbox();
    let path = sandbox.root().join("long.jsonl");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    for request in 0..8000 {
        let (event, time) =
            (["upstream_connect_error", "first_upstream_chunk"][request % 2], "2026-11-20T06:00:00Z");
        let fields = format!("\"request\":{request},\"profile\":\"p{request}\",\"reason\":\"r{request}\"");
        writeln!(out, "{{\"timestamp\":\"{time}\",\"event\":\"{event}\",\"fields\":{{{fields}}}}}").unwrap();
    }
    let long = "n".repeat(120 << 10);
    for number in 0..500 {
        let fields = format!("request=9{number} profile={long}{number} reason=auth until=1795154400");
        writeln!(out, "[2026-03-20 12:00:00.010 +07:00] profile_retry_backoff {fields}").unwrap();
    }
    for _ in 0..64 {
        out.write_all(&[b'x'; 1 << 20]).unwrap();
    }
    writeln!(out, "\n[2026-03-20 12:00:00.010 +07:00] log_dropped lines=7").unwrap();
    drop(out);
    let limited = |kib: u64| {
        let limit = format!("ulimit -v {kib}; exec \"$0\" doctor --runtime --json --log \"$1\"");
        let program = Program::new("/bin/sh").args(["-c".into(), limit, program().display().to_string()]);
        program.args([path.display().to_string()]).envs(sandbox.environment())
    };
    let doctor = limited(MEMORY).run(LIMIT).await.unwrap();
    let report = json(&doctor);
    assert_eq!((&report["log"]["lines"], &report["log"]["skipped"]), (&8502.into(), &1.into()), "{doctor:?}");
    assert_eq!(report["events"]["log_dropped"]["fields"]["lines"], "7");
    let too_little = limited(8 << 10).run(LIMIT).await.unwrap();
    assert_ne!(code(&too_little), Some(1), "the limit holds: {too_little:?}");
}
