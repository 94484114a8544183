//! What the run log tells of requests, and how little that is.

use std::collections::BTreeMap;
use std::sync::Arc;

use mock_upstream::script::{Rule, Script, Stream, Turn};

use crate::connection::{turn, user};
use crate::rig::Setting;
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
