//! A thousand slow streams at once: none is refused, none has a thread, and each costs little memory.

use std::time::Duration;

use harness::process::Program;
use mock_upstream::fault::{At, End, Fault};
use mock_upstream::journal::Limits;
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Rule, Script, Stream};
use mock_upstream::{Account, Config, Mock, raise_file_limit};

use crate::connection::{Connection, begin_turn};
use crate::rig::{LIMIT, Proxy, Setting, add_profile, program, sandbox, until};
use crate::socket::{Socket, create, said};

const STREAMS: usize = 1000;

/// Most memory of one stream of the debug build, in KiB. The release build's share is a matter of
/// measurements, not of a test.
const MOST: usize = 48;

fn event(n: usize) -> String {
    format!("data: {{\"type\":\"response.output_text.delta\",\"delta\":\"{n}\"}}\n\n")
}

/// A number out of `/proc/PID/status`.
fn status(proxy: &Proxy, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A mock that sends five events with pauses, goes silent, and remembers nothing.
async fn slow() -> Mock {
    raise_file_limit();
    let rule = Rule::new(Stream::texts((0..5).map(event))).pacing(Pacing::gap(Duration::from_millis(300)));
    let rule = rule.fault(Fault { at: At::End, end: End::Hang });
    let script = Script::rules([rule]).account(Account::new("one"));
    Mock::start(Config { journal: Limits::OFF, ..Config::script(script) }).await.unwrap()
}

async fn all_read(clients: &mut [Connection], n: usize) {
    for client in clients {
        client.read_through(event(n)).await;
    }
}

#[tokio::test]
async fn a_thousand_slow_streams_are_served_at_once() {
    let mock = slow().await;
    let proxy = Setting::new(&["one"], Script::default()).start_at(mock.base_url()).await;
    begin_turn(&proxy, "", "{}").await.read_through(event(4)).await;
    let (threads, memory) = (status(&proxy, "Threads"), status(&proxy, "VmRSS"));
    let mut clients = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        clients.push(begin_turn(&proxy, "", "{}").await);
    }
    all_read(&mut clients, 0).await;
    let held = status(&proxy, "VmRSS");
    // One that copies the log of the state, or that looks something up there, ends soon.
    until("no thread is for a stream", || status(&proxy, "Threads") <= threads).await;
    all_read(&mut clients, 4).await;
    let later = status(&proxy, "VmRSS");
    let each = (held - memory) * 1024 / STREAMS;
    println!("{each} bytes of memory for a stream; {memory} KiB before, {held} KiB held, {later} KiB later");
    assert!(each < MOST * 1024, "{each} bytes for a stream");
    assert!(later < held + held / 20, "{held} KiB grew to {later} KiB");
    let metrics = mock.metrics();
    assert_eq!((metrics.peak_exchanges, metrics.refusals), (STREAMS as u64, 0));
    drop(clients);
    let log = proxy.stop().await;
    assert_eq!(log.events("stream_complete").count(), STREAMS + 1);
    assert_eq!((log.events("log_dropped").count(), log.skipped), (0, 0));
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised() {
    let sandbox = sandbox();
    add_profile(&sandbox, "one", &Account::new("one").auth_json().to_string()).await;
    let script = format!("ulimit -Sn 1024; exec {} serve --print-ready", program().display());
    let shell = Program::new("/bin/sh").args(["-c", &script]).envs(sandbox.environment());
    let (running, _) = shell.start_ready("prodex-ready ", LIMIT).await.unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft > 1024, "{line}");
}

#[tokio::test]
async fn five_hundred_websockets_are_served_at_once() {
    raise_file_limit();
    let script = Script::default().account(Account::new("one"));
    let mock = Mock::start(Config { journal: Limits::OFF, ..Config::script(script) }).await.unwrap();
    let proxy = Setting::new(&["one"], Script::default()).start_at(mock.base_url()).await;
    Socket::open(&proxy, &[]).await.unwrap().turn(&create("x")).await;
    let (threads, memory) = (status(&proxy, "Threads"), status(&proxy, "VmRSS"));
    let mut sockets = Vec::with_capacity(STREAMS / 2);
    for _ in 0..STREAMS / 2 {
        let mut socket = Socket::open(&proxy, &[]).await.unwrap();
        assert_eq!(said(&socket.turn(&create("x")).await), "Hello from the mock.");
        sockets.push(socket);
    }
    let held = status(&proxy, "VmRSS");
    let each = (held - memory) * 1024 / sockets.len();
    println!("{each} bytes of memory for a WebSocket");
    assert!(each < MOST * 1024, "{each} bytes for a WebSocket");
    // One that copies the log of the state, or that looks something up there, ends soon.
    until("no thread is for a WebSocket", || status(&proxy, "Threads") <= threads).await;
    drop(sockets);
    proxy.stop().await;
}
