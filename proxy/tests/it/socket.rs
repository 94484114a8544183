//! A WebSocket client of an implementation of its own, and frames written by hand.

use futures_util::{SinkExt as _, StreamExt as _};
use mock_upstream::Mock;
use mock_upstream::journal::Kind;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::connection::TURN;
use crate::rig::{LIMIT, Proxy};

/// A client's WebSocket through the proxy.
pub(crate) struct Socket<S = TcpStream> {
    pub(crate) stream: WebSocketStream<S>,
}

impl Socket {
    /// Opens one as Codex does.
    pub(crate) async fn open(proxy: &Proxy, fields: &[(&'static str, &str)]) -> Result<Self, Error> {
        Self::open_at(&format!("{}{TURN}", proxy.base_url()), fields).await
    }

    /// Opens one at a URL of a proxy's.
    pub(crate) async fn open_at(url: &str, fields: &[(&'static str, &str)]) -> Result<Self, Error> {
        let port = url.split('/').nth(2).and_then(|authority| authority.rsplit(':').next()?.parse().ok());
        let tcp = TcpStream::connect(("127.0.0.1", port.unwrap())).await?;
        let url = url.replacen("http", "ws", 1);
        let mut request = url.into_client_request().unwrap();
        let codex = ("user-agent", "codex_exec/0.169.0 (Linux)");
        let deflate = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
        for (name, value) in [codex, deflate].iter().chain(fields) {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let config =
            WebSocketConfig::default().max_message_size(Some(64 << 20)).max_frame_size(Some(64 << 20));
        let opening = client_async_with_config(request, tcp, Some(config));
        let (stream, response) = tokio::time::timeout(LIMIT, opening).await.expect("an answer in time")?;
        assert!(!response.headers().contains_key("sec-websocket-extensions"), "no extension is agreed to");
        Ok(Self { stream })
    }

    /// Opens one for the session `s`.
    pub(crate) async fn of_session(proxy: &Proxy) -> Self {
        Self::open(proxy, &[("session-id", "s")]).await.unwrap()
    }

    /// The response with which an upgrade is refused.
    pub(crate) async fn refusal(
        proxy: &Proxy,
    ) -> tokio_tungstenite::tungstenite::handshake::client::Response {
        match Self::open(proxy, &[]).await {
            Err(Error::Http(response)) => *response,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("the upgrade was accepted"),
        }
    }

    /// Goes away without a word.
    pub(crate) fn vanish(self) {
        drop(self.stream.into_inner());
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub(crate) async fn send(&mut self, message: &Value) {
        self.put(Message::text(message.to_string())).await;
    }

    pub(crate) async fn put(&mut self, message: Message) {
        tokio::time::timeout(LIMIT, self.stream.send(message)).await.expect("a message in time").unwrap();
    }

    pub(crate) async fn next(&mut self) -> Option<Result<Message, Error>> {
        tokio::time::timeout(LIMIT, self.stream.next()).await.expect("a message in time")
    }

    /// The next message, which is an event.
    pub(crate) async fn event(&mut self) -> Value {
        match self.next().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} is no event"),
        }
    }

    /// The events of a turn up to the last.
    pub(crate) async fn events(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.event().await;
            let is_last = matches!(
                event["type"].as_str(),
                Some("response.completed" | "response.failed" | "response.incomplete" | "error")
            );
            events.push(event);
            if is_last {
                return events;
            }
        }
    }

    /// Asks for a turn and reads its events.
    pub(crate) async fn turn(&mut self, message: &Value) -> Vec<Value> {
        self.send(message).await;
        self.events().await
    }

    /// All messages up to the end, and the error that it ended with.
    pub(crate) async fn rest(&mut self) -> (Vec<Message>, Option<Error>) {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                Some(Ok(message)) => messages.push(message),
                Some(Err(error)) => return (messages, Some(error)),
                None => return (messages, None),
            }
        }
    }
}

/// The request of a turn in which the user says `text`.
pub(crate) fn create(text: &str) -> Value {
    let content = json!([{ "type": "input_text", "text": text }]);
    json!({
        "type": "response.create", "model": "gpt-5.5", "store": false,
        "input": [{ "type": "message", "role": "user", "content": content }],
    })
}

/// The same as the continuation of a response.
pub(crate) fn create_behind(text: &str, response: &Value) -> Value {
    let mut message = create(text);
    message["previous_response_id"] = response.clone();
    message
}

/// The id of the response that these events end.
pub(crate) fn response_id(events: &[Value]) -> Value {
    events.last().unwrap()["response"]["id"].clone()
}

/// The text that these events put out.
pub(crate) fn said(events: &[Value]) -> String {
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    deltas.map(|event| event["delta"].as_str().unwrap()).collect()
}

/// The messages that the mock sent on its newest WebSocket.
pub(crate) fn sent_last(mock: &Mock) -> Vec<Value> {
    let turns = mock.journal().responses();
    turns.last().unwrap().sent().filter(|message| message.kind == Kind::Text).map(|m| m.json()).collect()
}

/// A frame as a client or a server writes it (RFC 6455 §5.2).
pub(crate) fn frame(is_final: bool, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(is_final) << 7 | opcode];
    let masked = u8::from(mask.is_some()) << 7;
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => frame.push(masked | u8::try_from(length).unwrap()),
        Ok(length) => {
            frame.push(masked | 126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(masked | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}
