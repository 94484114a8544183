//! A thousand slow streams at once.

use std::time::Duration;

use mock_upstream::journal::Limits;
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Rule, Script, Stream};
use mock_upstream::{Config, Mock, raise_file_limit};
use tokio::task::JoinSet;

use crate::client::Client;

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
