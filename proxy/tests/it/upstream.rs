//! An upstream written by hand, for what the mock does not do: each connection shows its bytes to the test.

use tokio::net::TcpListener;

use crate::connection::{Connection, Request};
use crate::rig::LIMIT;

/// A listener that the proxy is pointed at.
pub(crate) struct Upstream {
    listener: TcpListener,
    url: String,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The next connection, of which nothing has been read.
    pub(crate) async fn connection(&self) -> Connection {
        let accepted = tokio::time::timeout(LIMIT, self.listener.accept()).await;
        Connection::over(accepted.expect("a connection in time").unwrap().0)
    }

    /// The next connection and its first request. The question where an account's traffic goes, which
    /// comes first on a connection of its own, is answered here.
    pub(crate) async fn accept(&self) -> (Connection, Request) {
        loop {
            let mut connection = self.connection().await;
            let request = connection.request().await;
            if !request.head.contains("/wham/accounts/check ") {
                return (connection, request);
            }
            connection.send("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
    }

    /// Accepts a request and answers it with these bytes; the connection stays open.
    pub(crate) async fn answer(&self, bytes: impl AsRef<[u8]>) -> (Connection, Request) {
        let (mut connection, request) = self.accept().await;
        connection.send(bytes).await;
        (connection, request)
    }
}
