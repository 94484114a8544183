//! The faulty proxy's exchanges: the request on, the response back, both at once, and how they end.

use std::io;
use std::time::Duration;

use bytes::Buf as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use wire::http1::{BodyDecoder, RequestHead, ResponseHead};

use super::link::{Link, Reader};
use super::message::{self, Head};
use super::stream::{Keeper, takes_stream};
use super::{Defect, Setup, websocket};

/// How an exchange ends for its connections.
enum Next {
    Again,
    Upgraded,
    Close,
    Reset,
}

/// Serves a client's connection, with one of its own to the upstream.
pub(crate) async fn serve(setup: &Setup, client: TcpStream) {
    let Ok(upstream) = TcpStream::connect(setup.upstream).await else { return };
    let (mut client, mut upstream) = (Link::new(client), Link::new(upstream));
    loop {
        match exchange(setup, &mut client, &mut upstream).await {
            Ok(Next::Again) => {}
            Ok(Next::Upgraded) => return websocket::relay(setup.defect, client, upstream).await,
            Ok(Next::Close) => return,
            // What breaks on one side is broken on the other.
            Ok(Next::Reset) | Err(_) => return client.reset(),
        }
    }
}

async fn exchange(setup: &Setup, client: &mut Link, upstream: &mut Link) -> io::Result<Next> {
    let Some(bytes) = client.read.head().await? else { return Ok(Next::Close) };
    let parsed = RequestHead::parse(&bytes).unwrap().unwrap().0;
    let mut head = Head::parse(&bytes);
    if setup.has(Defect::AnswersItself) {
        client.write.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
        return Ok(Next::Close);
    }
    message::request(&mut head, setup);
    let mut decoder = parsed.body_length().unwrap().decoder();
    let mut sent = Vec::new();
    if let Some(defect) = setup.defect.filter(|defect| message::takes_body(*defect)) {
        let body = collect(&mut client.read, &mut decoder).await?;
        let body = message::request_body(&mut head, body, defect);
        sent = [head.bytes(), body].concat();
        upstream.write.write_all(&sent).await?;
    } else {
        // As it came where nothing is changed: a head is more than its fields.
        let same = setup.defect.is_none() && setup.accounts.is_empty();
        upstream.write.write_all(&if same { bytes } else { head.bytes() }).await?;
    }
    match setup.defect {
        Some(Defect::SendsTwice) => again(setup, &sent).await?,
        Some(Defect::AsksOnItsOwn) => again(setup, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await?,
        _ => {}
    }
    let is_head = parsed.method() == "HEAD";
    let next = {
        let downloading = download(setup, is_head, &mut upstream.read, &mut client.write);
        let uploading = upload(setup, &mut client.read, &mut upstream.write, decoder);
        tokio::pin!(downloading, uploading);
        tokio::select! {
            next = &mut downloading => next,
            gone = &mut uploading => match gone {
                Ok(()) => Ok(Next::Close),
                Err(error) => Err(error),
            },
        }
    };
    if setup.has(Defect::AsksAgainAfterCut) && matches!(next, Ok(Next::Close | Next::Reset) | Err(_)) {
        again(setup, &sent).await?;
    }
    next
}

/// Sends a request once more, on a connection of its own, and reads the beginning of what is answered.
async fn again(setup: &Setup, request: &[u8]) -> io::Result<()> {
    let mut link = Link::new(TcpStream::connect(setup.upstream).await?);
    link.write.write_all(request).await?;
    link.read.head().await.map(drop)
}

async fn collect(reader: &mut Reader, decoder: &mut BodyDecoder) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    while !decoder.is_done() {
        if reader.ahead.is_empty() && reader.more().await? == 0 {
            if decoder.may_end_at_close() {
                break;
            }
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let decoded = decoder.decode(&reader.ahead, |payload| body.extend_from_slice(payload)).unwrap();
        reader.ahead.advance(decoded.consumed);
    }
    Ok(body)
}

/// Sends the body on, and passes on that the client has ended its side. Comes back only when it is gone.
async fn upload(
    setup: &Setup,
    client: &mut Reader,
    upstream: &mut OwnedWriteHalf,
    mut decoder: BodyDecoder,
) -> io::Result<()> {
    while !decoder.is_done() {
        if client.ahead.is_empty() && client.more().await? == 0 {
            // What is broken off here is broken off there.
            return Ok(());
        }
        let consumed = decoder.decode(&client.ahead, |_| ()).unwrap().consumed;
        let piece = client.ahead.split_to(consumed);
        upstream.write_all(&piece).await?;
    }
    let ended = client.more().await;
    match ended {
        _ if setup.has(Defect::KeepsUpstream) => std::future::pending().await,
        Ok(0) if setup.has(Defect::TakesHalfCloseForLeaving) => return Ok(()),
        Ok(0) => upstream.shutdown().await?,
        // The next request; nobody sends it before this one is answered, and nothing is lost of it.
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    std::future::pending().await
}

async fn download(
    setup: &Setup,
    is_head: bool,
    upstream: &mut Reader,
    client: &mut OwnedWriteHalf,
) -> io::Result<Next> {
    let bytes = if setup.has(Defect::LosesPatience) {
        let limit = Duration::from_millis(300);
        let Ok(head) = tokio::time::timeout(limit, upstream.head()).await else {
            client.write_all(b"HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n").await?;
            return Ok(Next::Close);
        };
        head?
    } else {
        upstream.head().await?
    };
    let Some(bytes) = bytes else { return Ok(Next::Close) };
    let parsed = ResponseHead::parse(&bytes).unwrap().unwrap().0;
    if setup.has(Defect::DelaysFirstByte) {
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    let mut head = Head::parse(&bytes);
    message::response(&mut head, setup);
    if let Some(defect) = setup.defect {
        websocket::handshake(&mut head, defect);
    }
    let mut decoder = parsed.body_length(is_head).unwrap().decoder();
    let defect = setup.defect;
    if let Some(defect) = defect.filter(|defect| message::takes_response(*defect)) {
        let body = collect(upstream, &mut decoder).await?;
        let body = message::response_body(&mut head, body, defect);
        client.write_all(&[head.bytes(), body].concat()).await?;
        let is_short = defect == Defect::PromisesTooMuch;
        return Ok(if is_short { Next::Close } else { Next::Again });
    }
    if let Some(defect) = defect.filter(|defect| takes_stream(*defect) && head.is_stream()) {
        return restream(defect, &head, decoder, upstream, client).await;
    }
    let same = setup.defect.is_none() && setup.accounts.is_empty();
    client.write_all(&if same { bytes } else { head.bytes() }).await?;
    if parsed.status() == 101 {
        return Ok(Next::Upgraded);
    }
    relay(setup, decoder, upstream, client, parsed.keeps_alive()).await
}

/// Sends a body on as it comes.
async fn relay(
    setup: &Setup,
    mut decoder: BodyDecoder,
    upstream: &mut Reader,
    client: &mut OwnedWriteHalf,
    keeps_alive: bool,
) -> io::Result<Next> {
    while !decoder.is_done() {
        if upstream.ahead.is_empty() {
            match upstream.more().await {
                Ok(0) => return Ok(Next::Close),
                Ok(_) => {}
                Err(_) if setup.has(Defect::EndsResetWell) => return Ok(Next::Close),
                Err(_) => return Ok(Next::Reset),
            }
        }
        let consumed = decoder.decode(&upstream.ahead, |_| ()).unwrap().consumed;
        let piece = upstream.ahead.split_to(consumed);
        let written = client.write_all(&piece).await;
        if setup.has(Defect::KeepsUpstream) {
            continue;
        }
        written?;
    }
    Ok(if keeps_alive { Next::Again } else { Next::Close })
}

/// Sends a stream on in other pieces, or with other bytes.
async fn restream(
    defect: Defect,
    head: &Head,
    mut decoder: BodyDecoder,
    upstream: &mut Reader,
    client: &mut OwnedWriteHalf,
) -> io::Result<Next> {
    let mut keeper = Keeper::default();
    let mut out = head.bytes();
    let holds = matches!(defect, Defect::GathersStream | Defect::HoldsHead);
    if !holds {
        client.write_all(&std::mem::take(&mut out)).await?;
    }
    while !decoder.is_done() {
        if upstream.ahead.is_empty() && upstream.more().await? == 0 {
            if defect == Defect::EndsCutWell {
                client.write_all(b"0\r\n\r\n").await?;
            }
            return Ok(Next::Close);
        }
        let mut pieces = Vec::new();
        let consumed =
            decoder.decode(&upstream.ahead, |payload| pieces.push(payload.to_vec())).unwrap().consumed;
        upstream.ahead.advance(consumed);
        for piece in pieces {
            let piece = keeper.piece(&piece, defect);
            if !piece.is_empty() {
                out.extend(chunk(&piece));
                client.write_all(&std::mem::take(&mut out)).await?;
            }
        }
    }
    let rest = keeper.end(defect);
    if !rest.is_empty() {
        out.extend(chunk(&rest));
    }
    if defect == Defect::CutsCleanEnd {
        return Ok(Next::Close);
    }
    out.extend(b"0\r\n\r\n");
    client.write_all(&out).await?;
    Ok(Next::Again)
}

fn chunk(piece: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
}
