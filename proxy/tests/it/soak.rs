//! The same load over and over: what the proxy uses must not grow with time.

use std::time::{Duration, Instant};

use mock_upstream::journal::Limits;
use mock_upstream::script::{Frame, Reply, Rule, Script, Stream, Transport};
use mock_upstream::{Account, Config, Mock, raise_file_limit};

use crate::connection::{begin_turn, user};
use crate::many::status;
use crate::rig::{Proxy, Setting};
use crate::socket::{Socket, create, said};

/// Streams at a time, over HTTP and on WebSockets each.
const WIDTH: usize = 32;

/// How long the load runs: the variable says for how many seconds, where more is wanted than a test takes.
const SECONDS: &str = "PRODEX_SOAK_SECONDS";
const SHORT: Duration = Duration::from_secs(24);

/// How much of the run is warm-up, which may grow: buffers, pools, maps up to their bounds.
/// Threads that looked the first conversations up in the database are gone after ten seconds, which is less.
const WARM_UP: f64 = 0.5;

/// How many parts the rest is cut into; each counts with its least, which is what stays between bursts.
const PARTS: usize = 12;

/// What a run may grow by for certain, in KiB per 1,000 exchanges, and still count as flat: a few bytes each.
const FLAT: f64 = 4.0;

/// The events of every turn. Their id is always the same: each new one is remembered, up to a bound that a
/// test of its own holds, and a map on its way there is not what is looked for.
const EVENTS: [&str; 4] = [
    r#"{"type":"response.created","response":{"id":"resp_1"}}"#,
    r#"{"type":"response.output_text.delta","delta":"a "}"#,
    r#"{"type":"response.output_text.delta","delta":"b"}"#,
    r#"{"type":"response.completed","response":{"id":"resp_1","usage":null}}"#,
];

/// What the proxy uses at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    exchanges: f64,
    kib: f64,
    fds: usize,
    threads: usize,
}

fn sample(proxy: &Proxy, exchanges: usize) -> Sample {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", proxy.server.pid())).unwrap().count();
    let (rss, threads) = (status(proxy, "VmRSS"), status(proxy, "Threads"));
    let count = |count: usize| f64::from(u32::try_from(count).unwrap());
    Sample { exchanges: count(exchanges), kib: count(rss), fds, threads }
}

/// The slope of a line through points, and half the width of its 95 % confidence interval.
fn slope(points: &[(f64, f64)]) -> (f64, f64) {
    let count = f64::from(u32::try_from(points.len()).unwrap());
    let mean = |each: fn(&(f64, f64)) -> f64| points.iter().map(each).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
    let residuals: f64 = points.iter().map(|point| (point.1 - y - slope * (point.0 - x)).powi(2)).sum();
    // Student's t for 95 % and ten degrees of freedom, which is what PARTS leaves.
    (slope, 2.228 * (residuals / (count - 2.0) / spread).sqrt())
}

/// Turns over HTTP, each on a connection of its own as Codex makes them, and turns on WebSockets that stay.
async fn round(proxy: &Proxy, sockets: &mut [Socket]) -> usize {
    let mut clients = Vec::with_capacity(WIDTH);
    for number in 0..WIDTH {
        clients.push(begin_turn(proxy, &format!("session-id: s{number}\r\n"), &user("x")).await);
    }
    for socket in &mut *sockets {
        socket.send(&create("x")).await;
    }
    for client in &mut clients {
        assert_eq!(client.response().await.status(), 200);
    }
    for socket in &mut *sockets {
        assert_eq!(said(&socket.events().await), "a b");
    }
    clients.len() + sockets.len()
}

#[tokio::test]
async fn nothing_grows_with_time() {
    raise_file_limit();
    let seconds = std::env::var(SECONDS).ok().map(|text| Duration::from_secs(text.parse().unwrap()));
    let length = seconds.unwrap_or(SHORT);
    let frames = Reply::Frames(EVENTS.iter().map(|event| Frame::Text((*event).to_owned())).collect());
    let events = Stream::texts(EVENTS.iter().map(|event| format!("data: {event}\n\n")));
    let rules = [Rule::new(frames).transport(Transport::Websocket), Rule::new(events)];
    let script = Script::rules(rules).account(Account::new("one"));
    let mock = Mock::start(Config { journal: Limits::OFF, ..Config::script(script) }).await.unwrap();
    let proxy = Setting::new(&["one"], Script::default()).start_at(mock.base_url()).await;
    let mut sockets = Vec::new();
    for _ in 0..WIDTH {
        sockets.push(Socket::open(&proxy, &[]).await.unwrap());
    }
    let (began, mut exchanges, mut samples) = (Instant::now(), 0, Vec::new());
    while began.elapsed() < length {
        exchanges += round(&proxy, &mut sockets).await;
        if began.elapsed() > length.mul_f64(WARM_UP) {
            samples.push(sample(&proxy, exchanges));
        }
    }
    drop(sockets);
    assert_eq!(mock.metrics().refusals, 0);
    judge(&samples, began.elapsed());
    proxy.stop().await;
}

fn judge(samples: &[Sample], took: Duration) {
    let parts = samples.chunks(samples.len().div_ceil(PARTS));
    let least = |part: &[Sample]| part.iter().copied().min_by(|a, b| a.kib.total_cmp(&b.kib)).unwrap();
    let least: Vec<Sample> = parts.map(least).collect();
    let points: Vec<_> = least.iter().map(|sample| (sample.exchanges / 1000.0, sample.kib)).collect();
    let (slope, margin) = slope(&points);
    let (first, last) = (least[0], least[least.len() - 1]);
    let most = |each: fn(&Sample) -> usize| samples.iter().map(each).max().unwrap();
    let fewest = |each: fn(&Sample) -> usize| samples.iter().map(each).min().unwrap();
    println!(
        "{:.0} exchanges in {} s; {:.0} KiB behind the warm-up, {:.0} KiB at the end; {slope:.2} ± {margin:.2} \
         KiB per 1,000 exchanges; {} to {} files, {} to {} threads",
        last.exchanges,
        took.as_secs(),
        first.kib,
        last.kib,
        fewest(|s| s.fds),
        most(|s| s.fds),
        fewest(|s| s.threads),
        most(|s| s.threads),
    );
    assert!(slope - margin <= FLAT, "memory grows by {slope:.2} ± {margin:.2} KiB per 1,000 exchanges");
    assert_eq!(fewest(|s| s.threads), most(|s| s.threads));
    // Each stream has two; connections that are closing are counted for a moment.
    assert!(most(|s| s.fds) < 8 * WIDTH + 64, "{} files", most(|s| s.fds));
}
