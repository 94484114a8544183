//! What the run log tells of requests, and how little that is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mock_upstream::script::{Rule, Script, Stream, Turn};

use wire::run_event::RawLine;

use crate::connection::{CODEX, request, turn, user};
use crate::rig::{Proxy, Setting, asked, until};
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

#[tokio::test]
async fn every_kind_of_request_keeps_the_budget_with_all_that_comes_by_the_way() {
    let limits = [("x-codex-primary-used-percent", "42.0"), ("x-codex-primary-window-minutes", "300")];
    let update = limits.into_iter().fold(Turn::text("x"), |turn, (name, value)| turn.header(name, value));
    let script = Script::rules([Rule::new(update).user_text("update")]);
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
        // What time brings, not requests: once a run, or at most every few seconds and minutes.
        let by_time = |event: &str| {
            ["runtime_proxy_", "profile_probe_", "state_save_"].iter().any(|begin| event.starts_with(begin))
        };
        let counted = || text.lines().skip(before).zip(&all).filter(|(_, line)| !by_time(&line.event));
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
