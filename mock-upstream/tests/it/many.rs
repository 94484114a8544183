//! Thousands of slow streams at once.

use std::time::Duration;

use mock_upstream::content::{Ask, NONCE, Shape};
use mock_upstream::journal::Limits;
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Rule, Script, Stream};
use mock_upstream::{Config, Mock, raise_file_limit};
use tokio::task::JoinSet;

use crate::bulk::{SHAPE, body, bulk};
use crate::client::{CHATGPT, Client};

#[tokio::test]
async fn a_thousand_slow_streams_are_served_at_once() {
    raise_file_limit();
    let stream = Stream::texts((0..5).map(|n| format!("data: {n}\n\n")));
    let rule = Rule::new(stream).pacing(Pacing::gap(Duration::from_millis(300)));
    let config = Config { journal: Limits::OFF, ..Config::script(Script::rules([rule])) };
    let mock = Mock::start(config).await.unwrap();
    let mut clients = JoinSet::new();
    for _ in 0..1000 {
        let address = mock.address();
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            client.request("POST", "/v1/responses", "", b"{}").await.text()
        });
    }
    let expected: String = (0..5).map(|n| format!("data: {n}\n\n")).collect();
    while let Some(text) = clients.join_next().await {
        assert_eq!(text.unwrap(), expected);
    }
    let metrics = mock.metrics();
    assert_eq!((metrics.peak_exchanges, metrics.refusals), (1000, 0));
}

#[tokio::test]
async fn four_thousand_paced_streams_run_at_once() {
    raise_file_limit();
    const STREAMS: usize = 4_000;
    let mock = bulk(Script::default());
    let address = mock.address();
    let mut clients = JoinSet::new();
    for _ in 0..STREAMS {
        clients.spawn(async move {
            let shape = Shape { events: 2, ..SHAPE };
            let ask = Ask { gap: Duration::from_millis(1_500), ..Ask::new(shape, [b'a'; NONCE]) };
            let mut client = Client::connect(address).await;
            client.request("POST", CHATGPT, "", &body(&ask)).await.events().len()
        });
    }
    while let Some(events) = clients.join_next().await {
        assert_eq!(events.unwrap(), 4);
    }
    let counts = mock.metrics();
    assert_eq!((counts.all.streams, counts.all.client_gone), (STREAMS as u64, 0));
}
