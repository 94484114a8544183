//! A recorded WebSocket: the opening handshake (RFC 6455 §4.1), and the client's side of what was said.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use mock_upstream::playback::{Over, Side, leaves_with_reset, now, talk};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::AsyncWriteExt as _;
use wire::capture::{Direction, Exchange, MessageKind};

use super::request::{self, Leave};
use super::{Play, Progress, SeenEnd, http1};

/// The key of RFC 6455's example: what it is does not matter, but it must be one.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Plays an exchange that asks for a WebSocket.
pub(super) async fn run(play: &Play<'_>, exchange: &Exchange, progress: &mut Progress<'_>) {
    let mut stream = match play.target.connect(http1::ALPN).await {
        Ok(stream) => stream,
        Err(error) => return progress.end(SeenEnd::NoConnection, Some(error.to_string())),
    };
    let head = request::head(exchange, play.target, Some(KEY));
    progress.seen.started = now();
    if let Err(error) = stream.write_all(&head).await {
        return progress.end(SeenEnd::Cut, Some(error.to_string()));
    }
    progress.seen.sent = Some(now());
    let mut ahead = BytesMut::new();
    let leave = Leave::of(exchange, play.playback.config().holds_beginning);
    let read = tokio::select! {
        read = http1::read_head(&mut stream, &mut ahead, progress) => Some(read),
        () = http1::leaves(play, exchange, leave) => None,
    };
    let head = match read {
        Some(Ok(head)) => head,
        Some(Err(over)) => return progress.end(over.end, over.problem),
        None => return progress.end(SeenEnd::Left, None),
    };
    if head.status() != 101 {
        let over = http1::receive_body(exchange, &head, Leave::Never, &mut stream, ahead, progress).await;
        return progress.end(over.end, over.problem);
    }
    let accepted = head.get_str("sec-websocket-accept");
    if accepted != Some(&accept(KEY)) {
        let problem = format!("sec-websocket-accept is {accepted:?}, which is not the answer to the key");
        return progress.end(SeenEnd::Garbled, Some(problem));
    }
    let (pace, patience) = (play.pace(exchange), play.options.patience);
    let holds_beginning = play.playback.config().holds_beginning;
    let side = Side { direction: Direction::ClientToUpstream, pace, patience, holds_beginning };
    let seen = std::sync::Mutex::new((&mut progress.seen.messages, 0));
    let note = |heard: mock_upstream::playback::Heard| {
        let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_data = matches!(heard.kind, MessageKind::Text | MessageKind::Binary);
        if heard.direction == Direction::UpstreamToClient && is_data {
            seen.1 += 1;
            play.playback.arrived(exchange.id, seen.1);
        }
        seen.0.push(heard);
    };
    let (over, stream) = talk(stream, &ahead, &exchange.messages, side, note, async |_| ()).await;
    if leaves_with_reset(exchange) {
        stream.reset();
    }
    match over {
        Over::Done => progress.end(SeenEnd::Clean, None),
        Over::Gone => progress.end(SeenEnd::Cut, None),
        Over::Patience => progress.end(SeenEnd::Timeout, Some("the next message did not come".into())),
        Over::Broken => progress.end(SeenEnd::Garbled, Some("the bytes are no frames".into())),
    }
}

fn accept(key: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_standards_example() {
        assert_eq!(accept(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
