//! An exchange over HTTP/1.1 on a socket of our own: the recorded bytes out, and what came with its times.

use std::io;

use bytes::{Buf as _, BytesMut};
use mock_upstream::playback::{half_closes, leaves_with_reset, now};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use wire::capture::Exchange;
use wire::http1::ResponseHead;

use super::request::{self, Leave};
use super::stream::Stream;
use super::{Play, Progress, SeenEnd};

/// The protocol's name in ALPN.
pub(super) const ALPN: &[u8] = b"http/1.1";

/// Bytes that one read takes at most.
const READ: usize = 128 * 1024;

/// Plays an exchange.
pub(super) async fn run(play: &Play<'_>, exchange: &Exchange, progress: &mut Progress<'_>) {
    let stream = match connection(play, exchange).await {
        Ok(stream) => stream,
        Err(error) => return progress.end(SeenEnd::NoConnection, Some(error.to_string())),
    };
    let head = request::head(exchange, play.target, None);
    let leave = Leave::of(exchange, play.playback.config().holds_beginning);
    let (mut reader, mut writer) = tokio::io::split(stream);
    progress.seen.started = now();
    let sent = std::cell::Cell::new(None);
    let over = {
        let sending = send(play, exchange, &head, &mut writer, &sent);
        let leaving = leaves(play, exchange, leave);
        let receiving = receive(exchange, leave, &mut reader, BytesMut::new(), progress);
        tokio::pin!(sending, leaving, receiving);
        let mut is_sent = false;
        loop {
            tokio::select! {
                over = &mut receiving => break over,
                result = &mut sending, if !is_sent => {
                    is_sent = true;
                    // An upload that is refused has an answer: what the other side said is what counts.
                    if result.is_ok() && leave == Leave::InRequest {
                        break Over { end: SeenEnd::Left, problem: None, keeps: false };
                    }
                }
                () = &mut leaving => break Over { end: SeenEnd::Left, problem: None, keeps: false },
            }
        }
    };
    progress.seen.sent = sent.get();
    let stream = reader.unsplit(writer);
    let is_sent = progress.seen.sent.is_some();
    progress.end(over.end, over.problem);
    if over.keeps && is_sent && !half_closes(exchange) {
        if let Some(lanes) = play.lanes(exchange) {
            lanes.idle.lock().await.push(stream);
        }
    } else if over.end == SeenEnd::Left && leaves_with_reset(exchange) {
        stream.reset();
    }
}

/// The connection that the exchange was recorded on, or another one in its place.
async fn connection(play: &Play<'_>, exchange: &Exchange) -> io::Result<Stream> {
    if let Some(lanes) = play.lanes(exchange) {
        while let Some(stream) = lanes.idle.lock().await.pop() {
            if !stream.is_stale() {
                return Ok(stream);
            }
        }
    }
    play.target.connect(ALPN).await
}

async fn send(
    play: &Play<'_>,
    exchange: &Exchange,
    head: &[u8],
    writer: &mut (impl AsyncWrite + Unpin),
    sent: &std::cell::Cell<Option<f64>>,
) -> io::Result<()> {
    let (pace, is_chunked) = (play.pace(exchange), request::is_chunked(exchange));
    let mut buffer = head.to_vec();
    let mut last = None;
    for (at, piece) in request::pieces(exchange) {
        // The head goes with the first piece, as clients write it.
        if let Some(last) = last.replace(at) {
            pace.pause(last, at).await;
        }
        if is_chunked {
            buffer.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        }
        buffer.extend_from_slice(piece);
        if is_chunked {
            buffer.extend_from_slice(b"\r\n");
        }
        writer.write_all(&buffer).await?;
        buffer.clear();
    }
    if is_chunked {
        buffer.extend_from_slice(b"0\r\n\r\n");
    }
    writer.write_all(&buffer).await?;
    writer.flush().await?;
    sent.set(Some(now()));
    if half_closes(exchange) {
        writer.shutdown().await?;
    }
    Ok(())
}

/// Comes back when the client leaves before the response has begun.
pub(super) async fn leaves(play: &Play<'_>, exchange: &Exchange, leave: Leave) {
    if leave != Leave::BeforeHead {
        std::future::pending::<()>().await;
    }
    play.playback.asked(exchange.id, play.options.patience).await;
}

/// How a response was over.
pub(super) struct Over {
    pub(super) end: SeenEnd,
    pub(super) problem: Option<String>,
    /// Whether the connection can serve the next request.
    pub(super) keeps: bool,
}

impl Over {
    fn without(end: SeenEnd, problem: Option<String>) -> Self {
        Self { end, problem, keeps: false }
    }

    fn broken(error: &io::Error) -> Self {
        let end = match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => SeenEnd::Reset,
            // TLS that ends without its own goodbye.
            _ => SeenEnd::Cut,
        };
        Self::without(end, Some(error.to_string()))
    }
}

/// Reads the head of the final response; `None` with how it was over.
pub(super) async fn read_head(
    reader: &mut (impl AsyncRead + Unpin),
    ahead: &mut BytesMut,
    progress: &mut Progress<'_>,
) -> Result<ResponseHead, Over> {
    loop {
        match ResponseHead::parse(ahead) {
            Err(error) => return Err(Over::without(SeenEnd::Garbled, Some(error.to_string()))),
            Ok(Some((head, length))) => {
                ahead.advance(length);
                if matches!(head.status(), 100 | 102..=199) {
                    progress.seen.interim.push(head.status());
                    continue;
                }
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let fields = head.fields().map(|field| (field.name.to_owned(), text(field.value)));
                progress.head(head.status(), head.as_bytes(), fields.collect());
                return Ok(head);
            }
            Ok(None) => {
                ahead.reserve(READ);
                match reader.read_buf(ahead).await {
                    Ok(0) => return Err(Over::without(SeenEnd::Cut, None)),
                    Ok(_) => {}
                    Err(error) => return Err(Over::broken(&error)),
                }
            }
        }
    }
}

async fn receive(
    exchange: &Exchange,
    leave: Leave,
    reader: &mut (impl AsyncRead + Unpin),
    mut ahead: BytesMut,
    progress: &mut Progress<'_>,
) -> Over {
    match read_head(reader, &mut ahead, progress).await {
        Ok(head) => receive_body(exchange, &head, leave, reader, ahead, progress).await,
        Err(over) => over,
    }
}

/// Reads the body that this head promises.
pub(super) async fn receive_body(
    exchange: &Exchange,
    head: &ResponseHead,
    leave: Leave,
    reader: &mut (impl AsyncRead + Unpin),
    mut ahead: BytesMut,
    progress: &mut Progress<'_>,
) -> Over {
    let length = match head.body_length(exchange.request.method == "HEAD") {
        Ok(length) => length,
        Err(error) => return Over::without(SeenEnd::Garbled, Some(error.to_string())),
    };
    let mut decoder = length.decoder();
    loop {
        match decoder.decode(&ahead, |payload| progress.body(payload)) {
            Ok(decoded) => ahead.advance(decoded.consumed),
            Err(error) => {
                progress.arrived();
                return Over::without(SeenEnd::Garbled, Some(error.to_string()));
            }
        }
        progress.arrived();
        if let Leave::Behind(bytes) = leave
            && progress.seen.body.0.len() as u64 >= bytes
        {
            return Over::without(SeenEnd::Left, None);
        }
        if decoder.is_done() {
            let problem = (!ahead.is_empty()).then(|| format!("{} bytes behind the body", ahead.len()));
            let end = if ahead.is_empty() { SeenEnd::Clean } else { SeenEnd::Garbled };
            return Over { end, keeps: head.keeps_alive() && problem.is_none(), problem };
        }
        ahead.reserve(READ);
        match reader.read_buf(&mut ahead).await {
            Ok(0) if decoder.may_end_at_close() => return Over::without(SeenEnd::Clean, None),
            Ok(0) => return Over::without(SeenEnd::Cut, None),
            Ok(_) => {}
            Err(error) => return Over::broken(&error),
        }
    }
}
