//! The tripwire notices who leaves the loopback.

use std::time::Duration;

use harness::tripwire::Tripwire;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn every_attempt_is_written_down_and_refused() {
    let tripwire = Tripwire::start().await.unwrap();
    let address = tripwire.url().strip_prefix("http://").unwrap().to_owned();
    for line in ["CONNECT example.invalid:443 HTTP/1.1", "GET http://example.invalid/ HTTP/1.1"] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(format!("{line}\r\nHost: example.invalid\r\n\r\n").as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    }
    drop(TcpStream::connect(&address).await.unwrap());
    let all = async {
        while tripwire.hits().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), all).await.expect("all attempts are seen in time");
    let hits = tripwire.hits();
    assert_eq!(hits[..2], ["CONNECT example.invalid:443 HTTP/1.1", "GET http://example.invalid/ HTTP/1.1"]);
    assert_eq!(hits[2], "", "a connection alone is an attempt too");
    let variables = tripwire.variables();
    assert!(variables.contains(&("HTTPS_PROXY", tripwire.url())));
}
