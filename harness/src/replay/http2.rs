//! An exchange over HTTP/2, on one connection for all that were recorded on one.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mock_upstream::playback::now;
use wire::capture::Exchange;

use super::request::{self, Leave};
use super::{Play, Progress, SeenEnd};

/// What sends requests on a connection.
pub(super) type Sender = SendRequest<Upload>;

const ALPN: &[u8] = b"h2";

/// A body in its recorded pieces.
#[derive(Debug)]
pub(super) struct Upload {
    pieces: VecDeque<Bytes>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// Plays an exchange.
pub(super) async fn run(play: &Play<'_>, exchange: &Exchange, progress: &mut Progress<'_>) {
    progress.seen.http2 = true;
    let sender = match play.lanes(exchange) {
        Some(lanes) => lanes.http2.get_or_init(|| open(play)).await.clone(),
        None => open(play).await,
    };
    let (Some(mut sender), Some(request)) = (sender, request(play, exchange)) else {
        return progress.end(SeenEnd::NoConnection, Some("no HTTP/2 connection".into()));
    };
    progress.seen.started = now();
    let leave = Leave::of(exchange, play.playback.config().holds_beginning);
    let receiving = receive(&mut sender, request, leave, progress);
    let leaving = async {
        if leave != Leave::BeforeHead {
            std::future::pending::<()>().await;
        }
        play.playback.asked(exchange.id, play.options.patience).await;
    };
    let (end, problem) = tokio::select! {
        over = receiving => over,
        () = leaving => (SeenEnd::Left, None),
    };
    progress.end(end, problem);
}

async fn open(play: &Play<'_>) -> Option<Sender> {
    let stream = play.target.connect(ALPN).await.ok().filter(|stream| stream.speaks(ALPN))?;
    let io = TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.ok()?;
    // It ends with its last sender.
    tokio::spawn(connection);
    Some(sender)
}

/// The request without the fields of an HTTP/1.1 connection (RFC 9113 §8.2.2).
fn request(play: &Play<'_>, exchange: &Exchange) -> Option<http::Request<Upload>> {
    let target = request::target(exchange, play.target);
    let mut request = http::Request::builder()
        .method(&*exchange.request.method)
        .uri(format!("https://{}{target}", play.target.authority));
    for (name, value) in &exchange.request.headers {
        let is_hop = CONNECTION.iter().any(|field| name.eq_ignore_ascii_case(field));
        if !is_hop && !name.starts_with(':') {
            request = request.header(&**name, &**value);
        }
    }
    let pieces = request::pieces(exchange).into_iter();
    let pieces = pieces.map(|(_, piece)| Bytes::copy_from_slice(piece)).collect();
    request.body(Upload { pieces }).ok()
}

const CONNECTION: &[&str] =
    &["connection", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

async fn receive(
    sender: &mut Sender,
    request: http::Request<Upload>,
    leave: Leave,
    progress: &mut Progress<'_>,
) -> (SeenEnd, Option<String>) {
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => return (ended_by(&error), Some(error.to_string())),
    };
    let (parts, mut body) = response.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    progress.head(parts.status.as_u16(), &[], fields.collect());
    loop {
        if let Leave::Behind(bytes) = leave
            && progress.seen.body.0.len() as u64 >= bytes
        {
            return (SeenEnd::Left, None);
        }
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        match frame {
            None => return (SeenEnd::Clean, None),
            Some(Err(error)) => return (ended_by(&error), Some(error.to_string())),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    progress.body(data);
                    progress.arrived();
                }
            }
        }
    }
}

/// A stream that is reset is HTTP/2's cut; only a connection that goes is a reset.
fn ended_by(error: &hyper::Error) -> SeenEnd {
    if error.is_closed() { SeenEnd::Reset } else { SeenEnd::Cut }
}
