//! What a proxy counts, read as strictly as Prometheus' documentation has it ("Exposition formats", 0.0.4).

use std::collections::{BTreeMap, BTreeSet};

use mock_upstream::Account;
use mock_upstream::script::{Http, Rule, Script, Turn};
use prodex::metrics::exposition::{Kind, Page};
use proptest::prelude::*;
use serde_json::json;

use crate::admin::only;
use crate::connection::{head, request, turn, user};
use crate::rig::{Proxy, Setting, prodex};
use crate::socket::{Socket, create};

/// Labels in their order.
type Labels = Vec<(String, String)>;

/// A sample: its name and its labels.
type Key = (String, Labels);

/// A text of metrics.
#[derive(Debug, Default)]
struct Metrics {
    /// The type of each family.
    families: BTreeMap<String, String>,
    samples: BTreeMap<Key, f64>,
}

impl Metrics {
    /// Reads a text; panics at the first thing that is not as it has to be.
    fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        let (mut family, mut helped) = (String::new(), BTreeSet::new());
        assert!(text.ends_with('\n'), "the last line has an end");
        for line in text.trim_end_matches('\n').split('\n') {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a text");
                assert!(helped.insert(name.to_owned()), "{name} has one HELP");
                assert!(!help.is_empty() && is_name(name, ":"), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(helped.contains(name), "HELP comes first: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(metrics.families.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
                let is_total = name.ends_with("_total");
                assert_eq!(is_total, kind == "counter", "counters are totals: {name}");
                family = name.to_owned();
            } else {
                let (key, value) = sample(line);
                let kind = &metrics.families[&family];
                let suffix = key.0.strip_prefix(&family).unwrap_or_else(|| panic!("{line} in {family}"));
                let suffixes: &[&str] =
                    if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(suffixes.contains(&suffix), "{line}");
                assert!(kind != "counter" || value >= 0.0, "{line}");
                assert!(metrics.samples.insert(key, value).is_none(), "twice: {line}");
            }
        }
        metrics.check_histograms();
        metrics
    }

    /// Buckets grow, and the last one holds all.
    fn check_histograms(&self) {
        for (family, _) in self.families.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut series = BTreeMap::<Labels, Vec<(f64, f64)>>::new();
            for ((_, labels), value) in
                self.samples.iter().filter(|((name, _), _)| *name == format!("{family}_bucket"))
            {
                let (le, rest) = labels.split_last().expect("a bound");
                assert_eq!(le.0, "le");
                let bound = if le.1 == "+Inf" { f64::INFINITY } else { le.1.parse().unwrap() };
                series.entry(rest.to_vec()).or_default().push((bound, *value));
            }
            for (labels, mut buckets) in series {
                buckets.sort_by(|one, two| one.0.total_cmp(&two.0));
                assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{family} {labels:?}");
                let count = self.samples[&(format!("{family}_count"), labels)];
                assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{family}");
            }
        }
    }

    /// The value of a sample with these labels among its own, summed over those that differ in others.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |all: &[(String, String)]| {
            labels.iter().all(|(name, value)| all.iter().any(|(own, is)| own == name && is == value))
        };
        self.samples.iter().filter(|((own, all), _)| own == name && has(all)).map(|(_, value)| value).sum()
    }
}

fn is_name(name: &str, also: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || also.contains(c))
}

fn sample(line: &str) -> (Key, f64) {
    let name_end = line.find(['{', ' ']).expect("a value");
    let (name, mut rest) = line.split_at(name_end);
    assert!(is_name(name, ":"), "{line}");
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, value) = rest.split_once("=\"").expect("a label");
            assert!(is_name(label, ""), "{line}");
            let mut text = String::new();
            let mut characters = value.char_indices();
            let end = loop {
                let (at, c) = characters.next().expect("an end of the value");
                match c {
                    '"' => break at,
                    '\\' => match characters.next().expect("what is escaped").1 {
                        'n' => text.push('\n'),
                        c @ ('\\' | '"') => text.push(c),
                        other => panic!("\\{other} in {line}"),
                    },
                    c => text.push(c),
                }
            };
            assert!(labels.iter().all(|(own, _)| own != label), "{line}");
            labels.push((label.to_owned(), text));
            rest = &value[end + 1..];
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').expect("an end of the labels");
    }
    let value =
        rest.strip_prefix(' ').expect("a space").parse().unwrap_or_else(|_| panic!("a number: {line}"));
    ((name.to_owned(), labels), value)
}

fn metrics(proxy: &Proxy) -> Metrics {
    Metrics::parse(&String::from_utf8(only(proxy).get("/metrics").unwrap()).unwrap())
}

proptest! {
    #[test]
    fn whatever_a_label_says_can_be_read_again(value in "\\PC*|[\\\\\"\n{},= ]*", number in any::<f64>()) {
        let mut page = Page::default();
        let mut family = page.family("a_b", Kind::Gauge, "back\\slash\nand line");
        family.sample(&[("one", &value), ("two", "x")], number);
        let text = page.into_text();
        let metrics = Metrics::parse(&text);
        let key = ("a_b".to_owned(), vec![("one".to_owned(), value), ("two".to_owned(), "x".to_owned())]);
        let read = metrics.samples[&key];
        prop_assert!(read == number || read.is_nan() && number.is_nan(), "{}", text);
    }
}

#[tokio::test]
async fn what_happens_is_counted_where_it_belongs() {
    let used_up =
        json!({"error": {"type": "usage_limit_reached", "message": "x", "resets_in_seconds": 3600}});
    let refusal = Rule::new(Http::json(429, used_up)).account("one");
    let broken = Rule::new(Http::json(500, json!({"error": {"message": "oops"}}))).user_text("fail");
    let script = Script::rules([broken, refusal, Rule::new(Turn::text("a b"))]).account(Account::new("two"));
    let (_mock, proxy) = Setting::new(&["one", "two"], script).start().await;
    let before = metrics(&proxy);
    assert_eq!(before.sum("prodex_requests_total", &[]), 0.0);
    assert_eq!(before.sum("prodex_profile_state", &[("state", "ready")]), 2.0);
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(turn(&proxy, "", &user("fail")).await.status(), 500);
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    socket.turn(&create("x")).await;
    assert_eq!(request(&proxy, "GET", "/nothing", "", b"").await.status(), 404);
    let mut foreign = proxy.connect().await;
    foreign.send("GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    foreign.read_to_end().await;
    let mut gone = proxy.connect().await;
    gone.send(head(&proxy, "POST", "/backend-api/codex/responses", "", 10)).await;
    drop(gone);
    let counted = async {
        while metrics(&proxy).sum("prodex_requests_total", &[("outcome", "client_gone")]) < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::rig::LIMIT, counted).await.unwrap();
    let now = metrics(&proxy);
    let requests = |labels: &[(&str, &str)]| now.sum("prodex_requests_total", labels);
    assert_eq!(
        requests(&[
            ("route", "responses"),
            ("transport", "http1"),
            ("client", "codex"),
            ("outcome", "complete")
        ]),
        1.0
    );
    assert_eq!(requests(&[("route", "responses"), ("outcome", "upstream_error"), ("client", "codex")]), 1.0);
    assert_eq!(requests(&[("route", "responses"), ("outcome", "client_gone"), ("client", "other")]), 1.0);
    assert_eq!(requests(&[("route", "responses"), ("transport", "websocket"), ("outcome", "complete")]), 1.0);
    assert_eq!(requests(&[("route", "upgrade"), ("transport", "http1"), ("outcome", "complete")]), 1.0);
    assert_eq!(requests(&[("route", "none"), ("outcome", "invalid")]), 2.0);
    assert_eq!(requests(&[]), 7.0, "each once");
    assert_eq!(now.sum("prodex_upstream_refusals_total", &[("reason", "quota")]), 1.0);
    assert_eq!(now.sum("prodex_rotations_total", &[("reason", "quota")]), 1.0);
    assert_eq!(now.sum("prodex_profile_state", &[("profile", "one"), ("state", "exhausted")]), 1.0);
    assert_eq!(now.sum("prodex_profile_state", &[("profile", "two"), ("state", "ready")]), 1.0);
    let lane = |name: &'static str| [("lane", name)];
    assert_eq!(now.sum("prodex_time_to_first_byte_seconds_count", &lane("responses")), 2.0);
    assert_eq!(now.sum("prodex_request_duration_seconds_count", &lane("websocket")), 1.0);
    assert_eq!(now.sum("prodex_requests_in_flight", &[]), 0.0);
    assert_eq!(
        (
            now.sum("prodex_websockets_open", &[]),
            now.sum("prodex_requests_in_flight_limit", &lane("compact")) > 0.0
        ),
        (1.0, true)
    );
    assert!(now.sum("prodex_tokens_total", &[("kind", "output")]) > 0.0);
    assert!(now.sum("process_resident_memory_bytes", &[]) > 1e6);
    assert!(now.sum("process_open_fds", &[]) > 5.0);
    assert_eq!(now.sum("prodex_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    let before = now.sum("prodex_connections_open", &[]);
    let _held = proxy.connect().await;
    let opened = async { while metrics(&proxy).sum("prodex_connections_open", &[]) <= before {} };
    tokio::time::timeout(crate::rig::LIMIT, opened).await.unwrap();
}

#[tokio::test]
async fn what_there_is_no_place_for_is_counted_by_lane_and_cause() {
    let slow = Rule::new(Turn::text("a"))
        .fault(mock_upstream::fault::Fault::after_events(4, mock_upstream::fault::End::Hang));
    let setting = Setting::new(&["one"], Script::rules([slow])).set("PRODEX_MAX_RESPONSES", "1");
    let setting = setting.set("PRODEX_MAX_WAITING", "1").set("PRODEX_DRAIN_TIMEOUT", "0s");
    let (_mock, proxy) = setting.start().await;
    let mut held = crate::connection::begin_turn(&proxy, "", &user("x")).await;
    held.read_through("output_item.added\"").await;
    let _waits = crate::connection::begin_turn(&proxy, "", &user("y")).await;
    let waits =
        async { while metrics(&proxy).sum("prodex_requests_waiting", &[("lane", "responses")]) < 1.0 {} };
    tokio::time::timeout(crate::rig::LIMIT, waits).await.unwrap();
    let status = crate::admin::status(&proxy);
    assert_eq!(
        (&status["waiting"]["count"], &status["waiting"]["longest"]["position"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(turn(&proxy, "", &user("z")).await.status(), 503);
    let now = metrics(&proxy);
    assert_eq!(
        now.sum("prodex_admission_refusals_total", &[("place", "responses"), ("cause", "queue")]),
        1.0
    );
    assert_eq!(now.sum("prodex_requests_total", &[("outcome", "busy")]), 1.0);
    assert_eq!(now.sum("prodex_requests_in_flight", &[("lane", "responses")]), 1.0);
    let shown = prodex(&proxy.sandbox, &["status"]).await;
    assert!(
        shown.stdout.contains("in flight 1 (1 responses), open WebSockets 0, waiting 1"),
        "{}",
        shown.stdout
    );
    assert!(shown.stdout.contains("longest: request 2 for responses"), "{}", shown.stdout);
}
