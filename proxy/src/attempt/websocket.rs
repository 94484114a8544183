//! The opening of a WebSocket to an upstream (RFC 6455 §4.1).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncWriteExt as _;
use wire::http1::{BodyLength, ResponseHead};

use super::Identity;
use super::connection::{Connections, Peer};
use super::headers::{self, Form};
use super::http::{Body, Response, patience, read_head};
use crate::error::Error;
use crate::exchange::Exchange;
use crate::profile::Credentials;
use crate::stream::Stream;

/// An open WebSocket.
#[derive(Debug)]
pub struct Opened {
    /// The upstream's response to the upgrade.
    pub head: ResponseHead,
    /// The connection.
    pub stream: Stream,
    /// Frames that came with the response.
    pub read: Vec<u8>,
    /// The credentials that it was opened with.
    pub credentials: Arc<Credentials>,
}

/// What an upstream says to an upgrade.
#[derive(Debug)]
pub enum Answer {
    /// It agrees.
    Opened(Opened),
    /// It answers over HTTP instead.
    Refused(Box<Response>),
}

/// Asks an upstream for a WebSocket, on a connection of its own.
///
/// # Errors
/// When the upstream cannot be reached, does not answer in time, or agrees to something else.
pub async fn open(
    connections: &Connections,
    exchange: &Exchange,
    identity: &Identity,
    limit: Duration,
) -> Result<Answer, Error> {
    let broken = |problem: String| Error::Broken { origin: identity.origin.to_string(), problem };
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| broken(error.to_string()))?;
    let key = STANDARD.encode(nonce);
    let request = headers::request(exchange, identity, Form::Websocket { key: &key });
    let mut stream = connections.open(&identity.origin, patience(exchange)).await?;
    let mut read = Vec::new();
    let upgrade = async {
        stream.write_all(&request).await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        read_head(&mut stream, &mut read).await
    };
    let head = tokio::time::timeout(limit, upgrade)
        .await
        .map_err(|_| Error::Timeout { origin: identity.origin.to_string(), limit })?
        .map_err(broken)?;
    if head.status() == 101 {
        if head.get_str("sec-websocket-accept") != Some(&*accept_key(&key)) {
            return Err(broken("the upgrade was accepted with a wrong key".to_owned()));
        }
        if head.get("sec-websocket-extensions").is_some_and(|value| !value.is_empty()) {
            return Err(broken("the upgrade was accepted with an extension nobody offered".to_owned()));
        }
        let credentials = Arc::clone(&identity.credentials);
        return Ok(Answer::Opened(Opened { head, stream, read, credentials }));
    }
    let length = head.body_length(false).map_err(|error| broken(error.to_string()))?;
    let body = Body {
        peer: Peer::of(&identity.origin),
        decoder: length.decoder(),
        keeps_alive: head.keeps_alive() && length != BodyLength::UntilClose,
        stream,
        length,
        read,
    };
    Ok(Answer::Refused(Box::new(Response { head, body })))
}

/// The value that proves that a key was understood.
#[must_use]
pub fn accept_key(key: &str) -> String {
    /// The constant of RFC 6455 §1.3.
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID.as_bytes());
    STANDARD.encode(context.finish())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(super::accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
