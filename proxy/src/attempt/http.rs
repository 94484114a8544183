//! An exchange over HTTP/1.1 up to the head of its response.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncWrite as _, AsyncWriteExt as _};
use tokio::time::Instant;
use wire::http1::{BodyDecoder, BodyLength, HeadError, ResponseHead};

use super::Identity;
use super::breaker;
use super::connection::{Connections, Peer};
use super::headers::{self, Form};
use crate::error::Error;
use crate::exchange::Exchange;
use crate::stream::{Stream, poll_read_scratch, read_and_take, take_front};

/// How long an upstream that stops reading a request has to say why.
const EARLY_RESPONSE: Duration = Duration::from_secs(2);

/// A response whose body has not been read.
#[derive(Debug)]
pub struct Response {
    /// Its head.
    pub head: ResponseHead,
    /// Its body.
    pub body: Body,
}

/// The body of a response, and the connection it comes on.
#[derive(Debug)]
pub struct Body {
    /// The connection.
    pub stream: Stream,
    /// Where it leads.
    pub peer: Peer,
    /// How the body's length was given.
    pub length: BodyLength,
    /// How much of the body is to come.
    pub decoder: BodyDecoder,
    /// Bytes that were read with the head and belong to the body, or to nothing.
    pub read: Vec<u8>,
    /// Whether the connection may be used again when the body has ended.
    pub keeps_alive: bool,
}

/// How soon an upstream that has just ended an idle connection says so when that is used again.
const ENDED: Duration = Duration::from_secs(2);

/// Sends a request and reads the head of its response, on an idle connection if there is a good one, all
/// of it within `limit`.
///
/// # Errors
/// When the upstream cannot be reached, does not answer in time or breaks off.
pub async fn send(
    connections: &Connections,
    exchange: &Exchange,
    identity: &Identity,
    limit: Duration,
) -> Result<Response, Error> {
    let head = headers::request(exchange, identity, Form::Http);
    let time = (Instant::now() + limit, limit);
    if let Some(stream) = connections.reuse(&Peer::of(&identity.origin)) {
        match send_on(stream, &head, exchange, identity, time).await {
            Err(Failed { was_taken: false, .. }) => {}
            result => return result.map_err(|failed| failed.error),
        }
    }
    let stream = connections.open(&identity.origin, patience(exchange)).await?;
    send_on(stream, &head, exchange, identity, time).await.map_err(|failed| failed.error)
}

/// How long a request waits for an upstream that cannot be reached: only a turn does.
pub(super) fn patience(exchange: &Exchange) -> Duration {
    if exchange.routed.call.is_model_call() { breaker::PATIENCE } else { Duration::ZERO }
}

/// An exchange without a response.
struct Failed {
    error: Error,
    /// Whether the upstream may have acted on the request. It may end an idle connection at the very
    /// moment that it is used: then nothing comes back, and that at once.
    was_taken: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, was_taken: true }
    }
}

async fn send_on(
    mut stream: Stream,
    head: &[u8],
    exchange: &Exchange,
    identity: &Identity,
    (deadline, limit): (Instant, Duration),
) -> Result<Response, Failed> {
    let broken = |problem: String| Error::Broken { origin: identity.origin.to_string(), problem };
    let timeout = || Error::Timeout { origin: identity.origin.to_string(), limit };
    let body = exchange.body_for(identity.sees_turn_state);
    let mut read = Vec::new();
    let (mut was_written, mut is_silent) = (false, true);
    let exchanged = async {
        // An upstream may refuse a request before it has read all of it.
        let written = write_request(&mut stream, head, body, &mut read).await;
        was_written = matches!(written, Ok(true));
        let sent = Instant::now();
        let response = match &written {
            Ok(_) => read_head(&mut stream, &mut read).await,
            Err(error) => tokio::time::timeout(EARLY_RESPONSE, read_head(&mut stream, &mut read))
                .await
                .unwrap_or_else(|_| Err(error.to_string())),
        };
        is_silent = read.is_empty() && (!was_written || sent.elapsed() < ENDED);
        response
    };
    let exchanged = tokio::time::timeout_at(deadline, exchanged).await.map_err(|_| timeout())?;
    let head = exchanged.map_err(|problem| Failed { error: broken(problem), was_taken: !is_silent })?;
    if head.status() == 101 {
        return Err(broken("it switched to a protocol that nobody asked for".to_owned()).into());
    }
    let length =
        head.body_length(exchange.head.method() == "HEAD").map_err(|error| broken(error.to_string()))?;
    let body = Body {
        peer: Peer::of(&identity.origin),
        decoder: length.decoder(),
        keeps_alive: was_written && head.keeps_alive(),
        stream,
        length,
        read,
    };
    Ok(Response { head, body })
}

/// Writes a head and the body behind it, in one piece where the socket takes it. Says whether all of it was
/// written: an upstream that answers before that, or ends, has seen enough. What it says is put into `read`.
async fn write_request(
    stream: &mut Stream,
    mut head: &[u8],
    mut body: &[u8],
    read: &mut Vec<u8>,
) -> io::Result<bool> {
    let is_written = std::future::poll_fn(|context| {
        while !head.is_empty() || !body.is_empty() {
            let slices = [IoSlice::new(head), IoSlice::new(body)];
            match Pin::new(&mut *stream).poll_write_vectored(context, &slices) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    let of_head = written.min(head.len());
                    head = &head[of_head..];
                    body = &body[written - of_head..];
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let count = ready!(poll_read_scratch(stream, context, |bytes| {
                        read.extend_from_slice(bytes);
                        bytes.len()
                    }))?;
                    if count == 0 || is_answer(read) {
                        return Poll::Ready(Ok(false));
                    }
                }
            }
        }
        Poll::Ready(Ok(true))
    })
    .await?;
    if is_written {
        stream.flush().await?;
    }
    Ok(is_written)
}

/// Whether what has been read is more than the beginning of a head. Informational ones are dropped: there
/// is no limit to how many may come.
fn is_answer(read: &mut Vec<u8>) -> bool {
    while let Ok(head) = ResponseHead::parse(read) {
        match head {
            Some((head, end)) if is_informational(&head) => drop(read.drain(..end)),
            head => return head.is_some(),
        }
    }
    true
}

/// Whether another head comes behind this one.
fn is_informational(head: &ResponseHead) -> bool {
    head.status() < 200 && head.status() != 101
}

/// Reads the head of the response; what came behind it is left in `read`. Informational responses are
/// skipped, but for the one that switches protocols.
pub(super) async fn read_head(stream: &mut Stream, read: &mut Vec<u8>) -> Result<ResponseHead, String> {
    let mut head = take_front(read, take_head);
    loop {
        head = match head {
            Some(head) => {
                let head = head.map_err(|error| error.to_string())?;
                if !is_informational(&head) {
                    return Ok(head);
                }
                take_front(read, take_head)
            }
            None => match read_and_take(stream, read, take_head).await {
                Ok((0, _)) => return Err("the connection ended".to_owned()),
                Ok((_, taken)) => taken,
                Err(error) => return Err(error.to_string()),
            },
        };
    }
}

/// The head at the front of what was read, or what is wrong with it, once that is known.
fn take_head(bytes: &[u8]) -> Option<(Result<ResponseHead, HeadError>, usize)> {
    match ResponseHead::parse(bytes) {
        Ok(head) => head.map(|(head, end)| (Ok(head), end)),
        Err(error) => Some((Err(error), 0)),
    }
}
