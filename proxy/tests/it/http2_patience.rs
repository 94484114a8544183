//! What a client over HTTP/2 may not do for ever: send, say nothing, not read.

use mock_upstream::Exchange;
use mock_upstream::script::{Rule, Script, Stream};

use crate::connection::{Connection, TURN};
use crate::http2::{Http2, connect, data};
use crate::rig::{LIMIT, Setting};

#[tokio::test]
async fn a_request_that_does_not_come_to_its_end_is_given_up() {
    let setting = Setting::new(&["one"], Script::default()).set("PRODEX_REQUEST_TIMEOUT", "200ms");
    let (_mock, proxy) = setting.argument("--tls").start().await;
    let mut client = Http2::open(&proxy).await;
    let answer = client.begin(&format!("{}{TURN}", proxy.prefix())).await;
    assert_eq!(answer.unwrap().status(), 408);
    drop(client);
    let log = proxy.stop().await;
    let told: Vec<_> = log.events("request_refused").map(|line| line.fields["status"].clone()).collect();
    assert_eq!(told, [408]);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let setting = Setting::new(&["one"], Script::default()).set("PRODEX_KEEP_ALIVE", "200ms");
    let (_mock, proxy) = setting.argument("--tls").start().await;
    let mut silent = Connection::over(connect(&proxy, "h2").await);
    // A preface and empty settings, and then nothing.
    silent.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    silent.read_to_end().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up() {
    let rule = Rule::new(Stream::texts(vec![format!("data: {}\n\n", "x".repeat(1 << 20)); 64]));
    let setting = Setting::new(&["one"], Script::rules([rule])).set("PRODEX_WRITE_TIMEOUT", "300ms");
    let (mock, proxy) = setting.argument("--tls").start().await;
    let mut client = Http2::open(&proxy).await;
    let target = format!("{}{TURN}", proxy.prefix());
    let mut response = client.send("POST", &target, &[], "{}").await.unwrap();
    data(response.body_mut()).await.unwrap().unwrap();
    let gone = |all: &[Exchange]| all.iter().any(Exchange::client_gone);
    mock.journal().wait_for("the upstream to be told", LIMIT, gone).await.unwrap();
    drop((client, response));
    let log = proxy.stop().await;
    let ended = &log.events("stream_complete").next().unwrap().fields;
    assert_eq!((&ended["outcome"], &ended["leg"]), (&"slow_client".into(), &"client".into()));
    assert_eq!(log.events("stream_read_error").count(), 0, "the upstream is not to blame");
}
