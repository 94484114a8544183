//! When and in what writes a reply is sent.

use std::time::{Duration, Instant};

use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Rule, Script, Stream, Turn, Write};
use mock_upstream::{Config, Exchange, Mock};

use crate::client::{LIMIT, mock, turn, user};

/// The lengths of the writes and the milliseconds between them.
async fn writes(mock: &Mock) -> (Vec<usize>, Vec<u128>) {
    let ended = |all: &[Exchange]| all.last().is_some_and(|exchange| exchange.end.is_some());
    let journal = mock.journal().wait_for("the end", LIMIT, ended).await.unwrap();
    let writes = journal.last().unwrap().answer.clone().unwrap().writes;
    let gaps = writes.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_millis()).collect();
    (writes.iter().map(|(_, length)| *length).collect(), gaps)
}

#[tokio::test]
async fn events_come_with_the_gap_between_them() {
    let pacing = Pacing { head_ms: 30, first_event_ms: 40, gap_ms: 20, ..Pacing::default() };
    let mock = mock(Script::rules([Rule::new(Turn::text("a b c")).pacing(pacing)])).await;
    let started = Instant::now();
    let response = turn(&mock, "", &user("x")).await;
    let count = response.events().len() as u64;
    assert!(started.elapsed() >= Duration::from_millis(70 + 20 * (count - 1)));
    let (lengths, gaps) = writes(&mock).await;
    assert_eq!(lengths.len() as u64, count, "one write per event");
    assert!(gaps.iter().all(|gap| *gap >= 19), "{gaps:?}");
}

#[tokio::test]
async fn everything_goes_in_one_write_or_in_many_small_ones() {
    let mock = mock(Script::rules([
        Rule::new(Turn::text("a b c")).pacing(Pacing::one_write()).times(1),
        Rule::new(Turn::text("a b c")).pacing(Pacing::bytes(7)),
    ]))
    .await;
    let whole = turn(&mock, "", &user("x")).await;
    assert_eq!(writes(&mock).await.0, [whole.body.len()]);
    let split = turn(&mock, "", &user("x")).await;
    let lengths = writes(&mock).await.0;
    assert_eq!(lengths.iter().sum::<usize>(), split.body.len());
    assert!(lengths.iter().rev().skip(1).all(|length| *length == 7));
    assert_eq!(split.said(), whole.said());
}

#[tokio::test]
async fn scripted_pauses_are_kept() {
    let mut stream = Stream::texts(["a", "b"]);
    stream.writes.insert(1, Write::PauseMs(50));
    let mock = mock(Script::rules([Rule::new(stream)])).await;
    turn(&mock, "", &user("x")).await;
    let (lengths, gaps) = writes(&mock).await;
    assert!(lengths == [1, 1] && gaps[0] >= 49, "{gaps:?}");
}

#[tokio::test]
async fn ids_are_made_from_the_seed() {
    let mut ids = Vec::new();
    for seed in [1, 1, 2] {
        let mock = Mock::start(Config { seed, ..Config::default() }).await.unwrap();
        ids.push(turn(&mock, "", &user("x")).await.events()[0]["response"]["id"].clone());
    }
    assert!(ids[0] == ids[1] && ids[0] != ids[2], "{ids:?}");
}
