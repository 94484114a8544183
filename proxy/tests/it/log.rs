//! What the run log tells of requests, and how little that is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Rule, Script, Stream, Turn};

use wire::run_event::RawLine;

use crate::connection::{CODEX, begin_turn, request, turn, user};
use crate::rig::{LIMIT, Proxy, Setting, asked, until};
use crate::socket::{Socket, create};

#[tokio::test]
async fn a_healthy_request_takes_at_most_six_lines_and_a_kilobyte_of_the_log() {
    let (_mock, proxy) =
        Setting::new(&["one"], Script::rules([Rule::new(Turn::text("a b c"))])).start().await;
    for n in 0..10 {
        turn(&proxy, "session-id: s\r\n", &user(&format!("{n}"))).await;
    }
    let mut socket = Socket::open(&proxy, &[("session-id", "s")]).await.unwrap();
    for _ in 0..10 {
        socket.turn(&create("x")).await;
    }
    drop(socket);
    let kept = Arc::clone(&proxy.sandbox);
    let log = proxy.stop().await;
    let text = std::fs::read_to_string(&log.path).unwrap();
    let mut by_request: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(request) = parsed["fields"]["request"].as_u64() {
            by_request.entry(request).or_default().push(line);
        }
    }
    assert!(by_request.len() >= 20);
    let snapshots = text.lines().filter(|line| line.contains("selection_snapshot")).count();
    assert!(snapshots <= 4, "{snapshots}: what is known is told once, not with every request");
    for (request, lines) in by_request {
        let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
        assert!(
            lines.len() <= 6 && bytes <= 1024,
            "{request}: {} lines, {bytes} bytes: {lines:#?}",
            lines.len()
        );
    }
    drop(kept);
}

/// The lines that a run log has more than before, once those of a request's end are there.
async fn lines_of(proxy: &Proxy, before: usize, ends: usize) -> Vec<RawLine> {
    until("the end of the request is logged", || proxy.log().events("stream_complete").count() == ends).await;
    // What comes by the way is written with it, or within a burst of it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.log().lines.split_off(before)
}

/// Whether time brings it, not a request: once a run, or at most every few seconds and minutes.
fn by_time(line: &RawLine) -> bool {
    ["runtime_proxy_", "profile_probe_", "state_save_"].iter().any(|begin| line.event.starts_with(begin))
}

#[tokio::test]
async fn every_kind_of_request_keeps_the_budget_with_all_that_comes_by_the_way() {
    let script = Script::rules([Rule::new(update(42)).user_text("update")]);
    let setting = Setting::new(&["work-account", "private-one", "other"], script);
    let (mock, proxy) = setting.start().await;
    let (mut before, mut ends, mut table) = (proxy.log().lines.len(), 0, String::new());
    let (mut sockets, mut current) = (Vec::new(), String::new());
    let side = "authorization: Bearer x\r\n";
    let (session, compaction) = ("session-id: s\r\n", user("a long conversation"));
    for kind in [
        "the first of a run",
        "a turn of a new conversation",
        "a turn of a conversation",
        "with a quota update",
        "a turn behind it",
        "another behind that",
        "with a renewal",
        "a compaction",
        "a list of models",
        "a setting",
        "the opening of a WebSocket",
        "a turn on it",
    ] {
        match kind {
            "the first of a run" => {
                assert_eq!(turn(&proxy, session, &user("x")).await.status(), 200);
                current = asked(&mock).pop().unwrap();
            }
            "a turn of a new conversation" => {
                assert_eq!(turn(&proxy, "session-id: other\r\n", &user("x")).await.status(), 200);
            }
            "a turn of a conversation" | "a turn behind it" | "another behind that" => {
                assert_eq!(turn(&proxy, session, &user("x")).await.status(), 200);
            }
            "with a quota update" => assert_eq!(turn(&proxy, session, &user("update")).await.status(), 200),
            "with a renewal" => {
                mock.expire(current.as_str());
                assert_eq!(turn(&proxy, session, &user("x")).await.status(), 200);
            }
            "a compaction" => {
                let path = "/backend-api/codex/responses/compact";
                let fields = format!("{CODEX}{session}");
                let response = request(&proxy, "POST", path, &fields, compaction.as_bytes()).await;
                assert_eq!(response.status(), 200, "{}", response.text());
            }
            "a list of models" => {
                let path = "/backend-api/codex/models?client_version=0.169.0";
                assert_eq!(request(&proxy, "GET", path, side, b"").await.status(), 200);
            }
            "a setting" => {
                let path = "/backend-api/wham/usage";
                assert_eq!(request(&proxy, "GET", path, side, b"").await.status(), 200);
            }
            "the opening of a WebSocket" => {
                sockets.push(Socket::open(&proxy, &[("session-id", "s")]).await.unwrap());
                // It has no end of its own.
                ends -= 1;
            }
            _ => {
                let events = sockets[0].turn(&create("x")).await;
                assert_eq!(events.last().unwrap()["type"], "response.completed");
            }
        }
        ends += 1;
        let all = lines_of(&proxy, before, ends).await;
        let text = std::fs::read_to_string(proxy.ready["log"].as_str().unwrap()).unwrap();
        let counted = || text.lines().skip(before).zip(&all).filter(|(_, line)| !by_time(line));
        let bytes: usize = counted().map(|(text, _)| text.len() + 1).sum();
        let mut names: Vec<&str> = counted().map(|(_, line)| &*line.event).collect();
        // What comes in one read may be told in either order.
        names.sort_unstable();
        before += all.len();
        assert!(names.len() <= 6 && bytes <= 1024, "{kind}: {} lines, {bytes} bytes: {names:?}", names.len());
        table += &format!("{kind}: {}\n", names.join(" "));
    }
    insta::assert_snapshot!(table);
}

/// How a turn is answered that says what is left of an account, in two windows.
fn update(percent: usize) -> Turn {
    let reset = 1_795_154_400 + 3600 * 24 * 365;
    let fields = [
        ("x-codex-primary-used-percent", percent.to_string()),
        ("x-codex-primary-window-minutes", "300".to_owned()),
        ("x-codex-primary-reset-at", (reset + 1).to_string()),
        ("x-codex-secondary-used-percent", (percent / 2).to_string()),
        ("x-codex-secondary-window-minutes", "10080".to_owned()),
        ("x-codex-secondary-reset-at", reset.to_string()),
    ];
    fields.into_iter().fold(Turn::text("x"), |turn, (name, value)| turn.header(name, value))
}

/// What 120 turns of five accounts log, all of which state their quota anew with every turn; names of accounts are so
/// long. The most that a request logs under its number, in lines and bytes, and what all log on average, in bytes.
async fn logged_by_turns(name: usize) -> (usize, usize, usize) {
    const ROUNDS: usize = 24;
    let accounts = ["a", "b", "c", "d", "e"].map(|letter| format!("{letter:-<name$}"));
    let mut rules = vec![Rule::new(Turn::text("a b c")).user_text("first").pacing(Pacing::gap(LIMIT / 200))];
    rules.extend((0..ROUNDS).map(|round| Rule::new(update(round + 10)).user_text(format!("round {round}."))));
    let ids: Vec<&str> = accounts.iter().map(String::as_str).collect();
    let setting = Setting::new(&ids, Script::rules(rules)).set("PRODEX_PROFILE_SOFT_LIMIT", "1");
    let (mock, proxy) = setting.start().await;
    // Each is begun while those before it run, so that it gets an account of its own.
    let mut first = Vec::new();
    for session in 0..accounts.len() {
        first.push(begin_turn(&proxy, &format!("session-id: s{session}\r\n"), &user("first")).await);
        until("it is asked", || asked(&mock).len() == session + 1).await;
    }
    for mut first in first {
        assert_eq!(first.response().await.status(), 200);
    }
    assert_eq!(asked(&mock).into_iter().collect::<BTreeSet<_>>(), accounts.iter().cloned().collect());
    until("the first turns are logged", || proxy.log().events("stream_complete").count() == accounts.len())
        .await;
    let first = proxy.log().lines.len();
    for round in 0..ROUNDS {
        let text = user(&format!("round {round}."));
        let turns = (0..accounts.len()).map(|session| {
            let (proxy, text, fields) = (&proxy, &text, format!("session-id: s{session}\r\n"));
            async move { turn(proxy, &fields, text).await.status() }
        });
        assert_eq!(futures_util::future::join_all(turns).await, [200; 5]);
    }
    let requests = ROUNDS * accounts.len();
    assert_eq!(asked(&mock).len(), accounts.len() + requests, "nobody was asked in vain");
    let _kept = Arc::clone(&proxy.sandbox);
    let log = proxy.stop().await;
    let text = std::fs::read_to_string(&log.path).unwrap();
    let counted = || {
        text.lines()
            .zip(&log.lines)
            .skip(first)
            .filter(|(_, line)| !by_time(line) && !line.event.starts_with("drain"))
    };
    let own = |line: &RawLine| line.fields.contains_key("request");
    let (mut lines, mut bytes) = (BTreeMap::<u64, (usize, usize)>::new(), 0);
    for (text, line) in counted() {
        bytes += text.len() + 1;
        if own(line) {
            let of = lines.entry(line.fields["request"].as_u64().unwrap()).or_default();
            *of = (of.0 + 1, of.1 + text.len() + 1);
        }
    }
    assert_eq!(lines.len(), requests);
    let most = |of: fn(&(usize, usize)) -> usize| lines.values().map(of).max().unwrap();
    (most(|of| of.0), most(|of| of.1), bytes / requests)
}

/// What is learnt of accounts is told once, by whichever request comes next: one that comes behind several has their
/// news to tell, and those have none.
#[tokio::test]
async fn turns_that_learn_of_many_accounts_keep_the_budget_on_average_and_their_own_lines_always() {
    let (lines, own, average) = logged_by_turns(12).await;
    assert!(lines <= 5 && own <= 1024 && average <= 1024, "{lines} lines, {own} bytes, {average} on average");
    let (lines, own, _) = logged_by_turns(64).await;
    assert!(lines <= 5 && own <= 1024, "{lines} lines, {own} bytes of the longest names");
}

#[tokio::test]
async fn a_very_long_end_of_a_stream_is_read() {
    let text = "x".repeat(3 << 20);
    let end = serde_json::json!({ "type": "response.completed", "response": { "id": "r", "output": [text],
        "usage": { "input_tokens": 7, "output_tokens": 8, "total_tokens": 15 } } });
    let stream = Stream::texts([format!("data: {end}\n\n")]);
    let (_mock, proxy) = Setting::new(&["one"], Script::rules([Rule::new(stream)])).start().await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    let log = proxy.stop().await;
    assert_eq!(log.events("token_usage").next().unwrap().fields["total"], 15);
}
