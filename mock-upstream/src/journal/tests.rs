//! The journal's bounds, its records, and waiting on it.

use super::*;

fn exchange(id: u64, body: &'static [u8]) -> Exchange {
    Exchange {
        id,
        connection: 1,
        at: Duration::from_millis(id),
        method: "POST".into(),
        target: "/v1/responses".into(),
        call: CallName::Responses,
        head: Bytes::from_static(b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\n\r\n"),
        body: Bytes::from_static(body),
        account: Some("a".into()),
        rule: None,
        answer: None,
        messages: Vec::new(),
        violations: Vec::new(),
        end: None,
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let journal = Journal::new(Limits { exchanges: 2, bytes: 10_000 });
    (1..=5).for_each(|id| journal.begin(exchange(id, b"{}")));
    let kept: Vec<u64> = journal.exchanges().iter().map(|exchange| exchange.id).collect();
    assert_eq!((kept, journal.dropped()), (vec![4, 5], 3));

    let journal = Journal::new(Limits { exchanges: 100, bytes: 200 });
    (1..=9).for_each(|id| journal.begin(exchange(id, b"0123456789")));
    let inner = journal.lock();
    assert!(inner.bytes <= 200 && inner.dropped > 0);
    assert_eq!(inner.bytes, inner.exchanges.iter().map(Exchange::size).sum::<usize>());
}

#[test]
fn a_journal_that_is_off_keeps_nothing() {
    let journal = Journal::new(Limits::OFF);
    journal.begin(exchange(1, b""));
    journal.update(1, |_| unreachable!("there is nothing to change"));
    assert!(journal.exchanges().is_empty());
}

#[test]
fn records_say_what_happened() {
    let journal = Journal::new(Limits::default());
    journal.begin(exchange(1, b"{\"a\":1}"));
    journal.begin(exchange(2, &[0xFF]));
    journal.update(1, |exchange| {
        exchange.violations.push(Violation::ForeignTurnState { owner: "b".into() });
        exchange.answer = Some(Answer {
            at: Duration::from_millis(3),
            status: 200,
            head: Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"),
            body: b"data: x\n\n".to_vec(),
            writes: vec![(Duration::from_millis(3), 4), (Duration::from_millis(5), 5)],
            is_stream: true,
        });
        exchange.end = Some(End { at: Duration::from_millis(9), how: HowEnded::ClientGone });
    });
    let mut records = journal.records(0);
    records.iter_mut().for_each(|record| record.ts = "TIME".into());
    let lines: Vec<String> = records.iter().map(|record| serde_json::to_string(record).unwrap()).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    {"ts":"TIME","t_ms":1.0,"type":"request","direction":"client_to_upstream","id":1,"connection":1,"method":"POST","url":"/v1/responses","http_version":"1.1","headers":[["Host","x"],["X-A","1"],["x-a","2"]],"head":"POST /v1/responses HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\n\r\n","body":"{\"a\":1}","wire_len":7,"account":"a","violations":["turn state of b"]}
    {"ts":"TIME","t_ms":2.0,"type":"request","direction":"client_to_upstream","id":2,"connection":1,"method":"POST","url":"/v1/responses","http_version":"1.1","headers":[["Host","x"],["X-A","1"],["x-a","2"]],"head":"POST /v1/responses HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\n\r\n","body":{"base64":"/w=="},"wire_len":1,"account":"a"}
    {"ts":"TIME","t_ms":3.0,"type":"sse_stream","direction":"upstream_to_client","id":1,"status":200,"headers":[["content-type","text/event-stream"]],"head":"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n","stream":"data: x\n\n","writes":[[3.0,4],[5.0,5]],"end":"client_gone"}
    {"ts":"TIME","t_ms":9.0,"type":"client_disconnect","id":1}
    "#);
    assert_eq!(journal.records(1).len(), 1);
}

#[test]
fn a_later_message_of_an_earlier_exchange_is_seen() {
    let journal = Journal::new(Limits::default());
    let message = |at| Message {
        at: Duration::from_millis(at),
        direction: Direction::ClientToUpstream,
        kind: Kind::Text,
        payload: Bytes::from_static(b"{}"),
        frames: Vec::new(),
        rule: None,
    };
    (1..=3).for_each(|id| journal.begin(exchange(id, b"")));
    journal.update(1, |exchange| exchange.messages.extend([message(1), message(9)]));
    journal.update(2, |exchange| exchange.messages.push(message(2)));
    let since = journal.since(Duration::from_millis(3));
    let seen: Vec<_> = since.iter().map(|exchange| (exchange.id, exchange.messages.len())).collect();
    assert_eq!(seen, [(1, 1), (3, 0)]);
}

#[tokio::test]
async fn waiting_ends_with_the_condition_or_the_limit() {
    let journal = Journal::new(Limits::default());
    let writer = journal.clone();
    let task = tokio::spawn(async move { writer.begin(exchange(1, b"")) });
    let limit = Duration::from_secs(5);
    let seen = journal.wait_for("an exchange", limit, |all| !all.is_empty()).await.unwrap();
    assert_eq!(seen.len(), 1);
    task.await.unwrap();
    let limit = Duration::from_millis(10);
    let error = journal.wait_for("two exchanges", limit, |all| all.len() > 1).await.unwrap_err();
    insta::assert_snapshot!(error, @r"
    expected two exchanges within 10ms; the journal holds 
      1: POST /v1/responses -> -, open
    ");
}
