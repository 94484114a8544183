//! What the mock tells about itself over HTTP.

use mock_upstream::journal::Limits;
use mock_upstream::script::{Rule, Script, Turn};
use mock_upstream::{Config, Mock};
use wire::capture::{Entry, Record};

use crate::client::{Client, mock, request, turn, user};

#[tokio::test]
async fn the_journal_is_read_as_capture_records() {
    let mock = mock(Script::default()).await;
    turn(&mock, "X-Mine: 1\r\n", &user("one")).await;
    let read = async |query: &str| request(&mock, "GET", &format!("/__mock/journal{query}"), "", b"").await;
    let response = read("").await;
    let records: Vec<Record> =
        response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [first, second] = records.as_slice() else { panic!("{records:?}") };
    let Entry::Request(asked) = &first.entry else { panic!("{first:?}") };
    assert!(asked.headers.contains(&("X-Mine".into(), "1".into())));
    assert!(asked.head.as_ref().unwrap().0.starts_with(b"POST /backend-api/codex/responses HTTP/1.1\r\n"));
    let Entry::SseStream(stream) = &second.entry else { panic!("{second:?}") };
    assert_eq!(
        stream.writes.iter().map(|(_, length)| *length as usize).sum::<usize>(),
        stream.stream.0.len()
    );
    let last = response.header("x-journal-last").unwrap().to_owned();
    assert_eq!(response.header("x-journal-dropped"), Some("0"));

    turn(&mock, "", &user("two")).await;
    let since = read(&format!("?since={last}")).await;
    assert_eq!(since.text().lines().count(), 2);
    assert_eq!(read("?since=x").await.status, 400);
    assert_eq!(request(&mock, "DELETE", "/__mock/journal", "", b"").await.status, 200);
    assert_eq!(read("").await.text(), "");
}

#[tokio::test]
async fn a_script_is_taken_in_both_languages_and_a_bad_one_changes_nothing() {
    let mock = mock(Script::default()).await;
    let post = async |text: &str| request(&mock, "POST", "/__mock/script", "", text.as_bytes()).await;
    assert_eq!(post("[[rule]]\nreply.turn.output = [{ text = \"toml\" }]").await.status, 200);
    assert_eq!(turn(&mock, "", &user("x")).await.said(), "toml");
    let json = r#" {"rule":[{"reply":{"turn":{"output":[{"text":"json"}]}}}]}"#;
    assert_eq!(post(json).await.status, 200);
    assert_eq!(turn(&mock, "", &user("x")).await.said(), "json");
    let refused = post("[[rule]]\nreplay = 1").await;
    assert_eq!(refused.status, 400);
    assert!(refused.json()["detail"].as_str().unwrap().contains("line 2"), "{}", refused.text());
    assert_eq!(turn(&mock, "", &user("x")).await.said(), "json");
    assert_eq!(request(&mock, "GET", "/__mock/other", "", b"").await.status, 404);
    assert!(mock.set_rules(vec![Rule::new(Turn::text("typed"))]).is_ok());
    assert_eq!(turn(&mock, "", &user("x")).await.said(), "typed");
}

#[tokio::test]
async fn counters_run_without_a_journal() {
    let config = Config { journal: Limits::OFF, ..Config::default() };
    let mock = Mock::start(config).await.unwrap();
    let mut client = Client::connect(mock.address()).await;
    for _ in 0..3 {
        client.request("POST", "/v1/responses", "", b"{}").await;
    }
    let metrics = client.request("GET", "/__mock/metrics", "", b"").await.json();
    assert_eq!((metrics["requests"].as_u64(), metrics["model_requests"].as_u64()), (Some(3), Some(3)));
    assert_eq!(
        (metrics["open_connections"].as_u64(), metrics["open_exchanges"].as_u64()),
        (Some(1), Some(0))
    );
    assert!(mock.journal().exchanges().is_empty());
}
