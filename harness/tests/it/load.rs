//! The load driver against the bulk mock and against servers that misbehave: what it says of them is true.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::load::driver::{self, Measured};
use harness::load::plan::{Habits, Pace, Plan, Stage, Target, Traffic};
use harness::load::result::{Cell, Outcome, Route};
use harness::load::rig;
use mock_upstream::bulk::{Bulk, BulkConfig};
use mock_upstream::{Account, Script};
use nix::sys::signal::Signal;

/// A bulk mock with one account, and the target that it is.
fn mock() -> (Bulk, Target) {
    let account = Account::new("load-000");
    let script = Script::default().account(account.clone());
    // It takes its listener from a runtime, and then has its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let bulk = Bulk::start(BulkConfig { script, ..BulkConfig::default() }).unwrap();
    let target = Target::of_url("mock", &bulk.base_url()).unwrap().with_account(&account);
    (bulk, target)
}

fn stage(pace: Pace, concurrency: usize, traffic: Traffic) -> Stage {
    Stage { name: "only".into(), executor: "test".into(), pace, concurrency, traffic }
}

fn closed(requests: u64, concurrency: usize, traffic: Traffic) -> Stage {
    stage(Pace::Closed { requests: Some(requests), seconds: None }, concurrency, traffic)
}

fn drive(target: &Target, stages: Vec<Stage>) -> Measured {
    let (scenario, target) = ("test".to_owned(), target.clone());
    let plan = Plan { scenario, seed: 1, threads: 1, target, stages, max_bytes: 1 << 30, tick_seconds: 0.1 };
    driver::run(&plan, |_| None).unwrap()
}

fn small() -> Traffic {
    Traffic { events: 5, bytes: 40, timeout: 0.3, ..Traffic::default() }
}

fn count(measured: &Measured, outcome: Outcome) -> u64 {
    measured.cells.iter().filter(|cell| cell.outcome == outcome).map(|cell| cell.count).sum()
}

fn cell(measured: &Measured, outcome: Outcome) -> &Cell {
    measured.cells.iter().find(|cell| cell.outcome == outcome).unwrap_or_else(|| {
        panic!("no {outcome:?}: {:?}", measured.examples);
    })
}

#[test]
fn good_replies_are_ok_on_every_route() {
    let (_mock, target) = mock();
    let stages = [Route::Responses, Route::Compact, Route::Websocket]
        .map(|route| closed(40, 4, Traffic { route, turns_per_socket: 3, ..small() }));
    let compressed = closed(10, 2, Traffic { compressed: true, in_one_write: true, crlf: false, ..small() });
    let measured = drive(&target, stages.into_iter().chain([compressed]).collect());
    assert_eq!(count(&measured, Outcome::Ok), 130, "{:?}", measured.examples);
    assert_eq!(measured.cells.len(), 4);
    let responses = &measured.cells[0];
    assert_eq!((responses.events, responses.gap.0.len()), (40 * 7, 40 * 6));
    assert_eq!((responses.added.0.len(), responses.first_content.0.len()), (40, 40));
}

#[test]
fn what_is_wrong_is_called_by_its_name() {
    let (_mock, target) = mock();
    for (letter, outcome) in [
        ('u', Outcome::UpstreamError),
        ('r', Outcome::UpstreamError),
        ('q', Outcome::UpstreamError),
        ('f', Outcome::UpstreamError),
        ('i', Outcome::UpstreamError),
        ('c', Outcome::Truncated),
        ('x', Outcome::Truncated),
        ('w', Outcome::WrongContent),
        ('t', Outcome::Truncated),
        ('s', Outcome::Timeout),
        ('d', Outcome::ProtocolViolation),
    ] {
        for route in [Route::Responses, Route::Websocket] {
            let measured =
                drive(&target, vec![closed(4, 2, Traffic { route, faults: vec![(letter, 1.0)], ..small() })]);
            // A WebSocket has no end of a reply but its terminal event: without it there is only silence.
            let is_silent = letter == 't' && route == Route::Websocket;
            let outcome = if is_silent { Outcome::Timeout } else { outcome };
            assert_eq!(count(&measured, outcome), 4, "{letter} {route:?}: {:?}", measured.examples);
        }
    }
}

#[test]
fn a_server_that_stands_still_shows_in_the_response_times_of_all_who_waited() {
    let (_mock, target) = mock();
    let freeze = target.clone();
    let freezer = thread::spawn(move || {
        // Some requests are over by then, and most are still to come.
        let (_never, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let _ = wait.recv_timeout(Duration::from_millis(300));
        control(freeze.address, "/__mock/freeze?ms=800");
    });
    let pace = Pace::Open { from: 200.0, to: 200.0, seconds: 1.5, poisson: false };
    // Few callers: most of those who are due meanwhile are not even sent.
    let measured = drive(&target, vec![stage(pace, 4, Traffic { timeout: 5.0, ..small() })]);
    freezer.join().unwrap();
    let ok = cell(&measured, Outcome::Ok);
    assert_eq!(ok.count, 300, "{:?}", measured.examples);
    let (response, service) = (ok.response.millis(0.95).unwrap(), ok.service.millis(0.95).unwrap());
    assert!(response > 500.0, "p95 of the response times: {response} ms");
    assert!(service < 100.0, "p95 of the service times: {service} ms");
    let late = measured.ticks.iter().map(|tick| tick.late).max().unwrap();
    assert!(late > 50, "{late} were late at once");
}

#[test]
fn an_open_stage_keeps_its_rate_and_its_successor_its_time() {
    let (_mock, target) = mock();
    let open = |from, to, seconds| Pace::Open { from, to, seconds, poisson: true };
    let stages = [open(100.0, 300.0, 0.5), open(300.0, 300.0, 0.5)].map(|pace| stage(pace, 50, small()));
    let measured = drive(&target, stages.into());
    let sent: u64 = measured.ticks.iter().map(|tick| tick.sent).sum();
    assert!((180..330).contains(&sent), "{sent}");
    let between = measured.stages[1].from - measured.stages[0].from;
    assert!((between - 0.5).abs() < 1e-6, "{between}");
    assert_eq!(count(&measured, Outcome::Ok), sent, "{:?}", measured.examples);
}

#[test]
fn agents_have_conversations() {
    let (mock, target) = mock();
    let habits = Habits {
        turns: 5,
        tool_rounds: 1.0,
        think_seconds: 0.005,
        think_spread: 0.5,
        tool_seconds: 0.001,
        compact_every: 2,
        unary_compact_share: 0.5,
        turn_bytes: 300,
        websocket_share: 0.5,
    };
    let measured = drive(&target, vec![stage(Pace::Sessions { seconds: 0.6, habits }, 12, small())]);
    let routes: Vec<Route> = measured.cells.iter().map(|cell| cell.route).collect();
    assert_eq!(routes, [Route::Responses, Route::Compact, Route::Websocket], "{:?}", measured.examples);
    assert!(measured.cells.iter().all(|cell| cell.outcome == Outcome::Ok), "{:?}", measured.examples);
    // Old clients compact by a call of its own, new ones within the ordinary route.
    let counts = mock.metrics().all;
    assert!(counts.compactions > 0 && counts.unary > 0, "{counts:?}");
}

#[test]
fn agents_compact_on_whatever_they_are_on() {
    for websocket_share in [0.0, 1.0] {
        let (mock, target) = mock();
        let habits = Habits {
            turns: 20,
            tool_rounds: 0.0,
            think_seconds: 0.002,
            think_spread: 0.1,
            tool_seconds: 0.001,
            compact_every: 1,
            unary_compact_share: 0.0,
            turn_bytes: 100,
            websocket_share,
        };
        let measured = drive(&target, vec![stage(Pace::Sessions { seconds: 0.3, habits }, 3, small())]);
        assert!(measured.cells.iter().all(|cell| cell.outcome == Outcome::Ok), "{:?}", measured.examples);
        let counts = mock.metrics().all;
        let turns = if websocket_share > 0.0 { counts.messages } else { counts.streams };
        assert!(counts.compactions > 5 && turns > counts.compactions, "{counts:?}");
        assert_eq!(counts.unary, 0);
    }
}

#[test]
fn a_connection_that_cannot_be_had_is_said_to_be_that() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let target = Target::of_url("nobody", &url).unwrap();
    let measured = drive(&target, vec![closed(3, 1, small())]);
    assert_eq!(count(&measured, Outcome::Connect), 3);
}

/// A server that answers every request with these bytes and closes.
fn server(answer: &'static [u8]) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 64 * 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
        }
    });
    Target::of_url("server", &url).unwrap()
}

#[test]
fn what_is_no_reply_of_the_mock_is_judged_by_its_form() {
    let busy = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 83\r\n\r\n\
        {\"error\":{\"type\":\"service_unavailable\",\"message\":\"8 turns are in flight, and 7 may\"}}";
    let unreachable = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 71\r\n\r\n\
        {\"error\":{\"type\":\"service_unavailable\",\"message\":\"cannot reach it now\"}}";
    let cases: [(&'static [u8], Outcome); 7] = [
        (busy, Outcome::Admission),
        (unreachable, Outcome::ProxyError),
        (b"HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Outcome::ProxyError),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Outcome::ProtocolViolation),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", Outcome::ProtocolViolation),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello", Outcome::WrongContent),
        (b"", Outcome::Truncated),
    ];
    for (answer, outcome) in cases {
        let measured = drive(&server(answer), vec![closed(2, 1, small())]);
        assert_eq!(count(&measured, outcome), 2, "{outcome:?}: {:?}", measured.examples);
    }
}

#[test]
fn no_thread_is_without_a_caller() {
    let (_mock, target) = mock();
    let scenario = "test".to_owned();
    let pace = Pace::Open { from: 100.0, to: 100.0, seconds: 0.3, poisson: false };
    let stages = vec![stage(pace, 1, small())];
    let plan = Plan { scenario, seed: 1, threads: 3, target, stages, max_bytes: 1 << 30, tick_seconds: 0.1 };
    let measured = driver::run(&plan, |now| (now.seconds > 10.0).then(|| "it hangs".to_owned())).unwrap();
    assert_eq!((measured.cut_short.as_deref(), count(&measured, Outcome::Ok)), (None, 30));
}

#[test]
fn what_is_in_flight_when_a_run_is_cut_short_is_told() {
    let (_mock, target) = mock();
    let scenario = "test".to_owned();
    let slow = Traffic { first_byte: 20.0, timeout: 30.0, ..small() };
    let stages = vec![closed(100, 4, slow)];
    let plan = Plan { scenario, seed: 1, threads: 1, target, stages, max_bytes: 1 << 30, tick_seconds: 0.1 };
    let measured = driver::run(&plan, |now| (now.sent == 4).then(|| "interrupted".to_owned())).unwrap();
    assert_eq!((measured.stages[0].unfinished, measured.cells.len()), (4, 0));
}

/// The driver as a program of its own.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_load-driver"))
}

#[test]
fn the_driver_as_a_program_leaves_the_same_result() {
    let (_mock, target) = mock();
    let scenario = "test".to_owned();
    let stages = vec![closed(50, 4, small())];
    let plan = Plan { scenario, seed: 1, threads: 2, target, stages, max_bytes: 1 << 30, tick_seconds: 0.1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let measured = runtime.block_on(rig::drive(program(), &plan, |_| None)).unwrap();
    assert_eq!((count(&measured, Outcome::Ok), measured.cut_short), (50, None));
    assert_eq!(measured.driver.requests, 50);
}

#[test]
fn the_driver_as_a_program_ends_on_a_signal_and_leaves_what_it_has() {
    let (_mock, target) = mock();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = tempfile::tempdir().unwrap();
        let pace = Pace::Open { from: 50.0, to: 50.0, seconds: 60.0, poisson: false };
        let (scenario, target) = ("test".to_owned(), target.clone());
        let stages = vec![stage(pace, 4, small())];
        let plan =
            Plan { scenario, seed: 1, threads: 1, target, stages, max_bytes: 1 << 30, tick_seconds: 1.0 };
        let [of_plan, progress, result] = ["plan", "progress", "result"].map(|name| place.path().join(name));
        std::fs::write(&of_plan, serde_json::to_vec(&plan).unwrap()).unwrap();
        let mut driver = Command::new(program()).args([&of_plan, &progress, &result]).spawn().unwrap();
        let begun = Instant::now();
        let has_begun = || {
            let progress = std::fs::read(&progress).ok();
            let progress = progress.and_then(|bytes| serde_json::from_slice::<driver::Progress>(&bytes).ok());
            progress.is_some_and(|progress| progress.ok > 0)
        };
        while !has_begun() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            thread::yield_now();
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(driver.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        assert!(driver.wait().unwrap().success());
        let measured: Measured = serde_json::from_slice(&std::fs::read(&result).unwrap()).unwrap();
        assert_eq!(measured.cut_short.as_deref(), Some("interrupted"));
        assert!(count(&measured, Outcome::Ok) > 0 && measured.stages[0].unsent > 2_000);
    }
}

#[test]
fn a_run_ends_when_it_is_told_to_and_says_why() {
    let (_mock, target) = mock();
    let scenario = "test".to_owned();
    let pace = Pace::Open { from: 50.0, to: 50.0, seconds: 60.0, poisson: false };
    let stages = vec![stage(pace, 4, small())];
    let plan = Plan { scenario, seed: 1, threads: 2, target, stages, max_bytes: 1 << 30, tick_seconds: 1.0 };
    let begun = Instant::now();
    let measured = driver::run(&plan, |now| (now.ok > 5).then(|| "interrupted".to_owned())).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(measured.cut_short.as_deref(), Some("interrupted"));
    assert!(measured.stages[0].unsent > 2_000, "{}", measured.stages[0].unsent);
}

/// Asks the mock for something.
fn control(address: SocketAddr, path: &str) {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "POST {path} HTTP/1.1\r\nhost: mock\r\ncontent-length: 0\r\n\r\n").unwrap();
    let mut answer = [0; 512];
    let length = stream.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
}
