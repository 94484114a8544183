//! The heads that are sent on: the account's in place of the client's own, nothing of a connection.
//!
//! What happens to a field stands in `wire::header`; lines that are kept are copied as bytes, in their
//! order, so that spelling and duplicates survive.

use wire::header::{Action, lookup};
use wire::http1::{BodyLength, Field, ResponseHead};
use wire::responses::TURN_STATE;

use super::Identity;
use crate::exchange::Exchange;

/// What a request asks for, apart from the request itself.
#[derive(Debug, Clone, Copy)]
pub enum Form<'a> {
    /// An exchange over HTTP.
    Http,
    /// A WebSocket, with this `Sec-WebSocket-Key`.
    Websocket {
        /// The key of this hop.
        key: &'a str,
    },
}

/// The head of a request as it goes upstream.
#[must_use]
pub fn request(exchange: &Exchange, identity: &Identity, form: Form<'_>) -> Vec<u8> {
    let head = &exchange.head;
    let mut out = Vec::with_capacity(head.as_bytes().len() + 512);
    for part in [head.method(), " ", identity.origin.path(), &exchange.target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut writer =
        Writer { out, has_authorization: false, has_account: false, has_length: false, has_routing: false };
    let named = named_by_connection(head.fields());
    let is_stripped = exchange.stripped_for(identity.sees_turn_state).is_some();
    for field in head.fields() {
        let entry = lookup(field.name);
        match entry.request {
            Action::Drop if field.is("connection") && matches!(form, Form::Websocket { .. }) => {
                writer.field(field.name, "Upgrade");
            }
            Action::Drop => {}
            // A client's connection may name any field; those that matter are not its to drop.
            Action::Keep if named.contains(field.name) => {}
            Action::Keep if field.is(TURN_STATE) && !identity.sees_turn_state => {}
            // A body from which the turn state was taken is sent as plain text.
            Action::Keep if is_stripped && field.is("content-encoding") => {}
            Action::Keep => writer.out.extend_from_slice(field.line),
            Action::Replace => writer.replace(entry.name, &field, exchange, identity, form),
        }
    }
    writer.complete(exchange, identity, form);
    writer.out.extend_from_slice(b"\r\n");
    writer.out
}

/// A head being written, and which of the account's fields it has by now.
struct Writer {
    out: Vec<u8>,
    has_authorization: bool,
    has_account: bool,
    has_length: bool,
    has_routing: bool,
}

impl Writer {
    fn field(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, "\r\n"] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    fn bearer(&mut self, name: &str, identity: &Identity) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": Bearer ");
        self.out.extend_from_slice(identity.credentials.bearer().expose().as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self.has_authorization = true;
    }

    /// Writes a value of our own in the place of the client's; fields that the account has no value for
    /// are left out.
    fn replace(
        &mut self,
        known: &str,
        field: &Field<'_>,
        exchange: &Exchange,
        identity: &Identity,
        form: Form<'_>,
    ) {
        let name = field.name;
        match known {
            "authorization" if !self.has_authorization => self.bearer(name, identity),
            "chatgpt-account-id" if !self.has_account => {
                if let Some(login) = identity.credentials.login() {
                    self.field(name, &login.account_id);
                    self.has_account = true;
                }
            }
            "x-openai-account-routing-override" if !self.has_routing => {
                if let Some(routing) = &identity.routing {
                    self.field(name, routing);
                    self.has_routing = true;
                }
            }
            "host" => self.field(name, identity.origin.authority()),
            "content-length" => self.length(name, exchange, identity),
            "transfer-encoding" => self.length("content-length", exchange, identity),
            "upgrade" if matches!(form, Form::Websocket { .. }) => self.out.extend_from_slice(field.line),
            "sec-websocket-version" if matches!(form, Form::Websocket { .. }) => self.field(name, "13"),
            "sec-websocket-key" => {
                if let Form::Websocket { key } = form {
                    self.field(name, key);
                }
            }
            _ => {}
        }
    }

    fn length(&mut self, name: &str, exchange: &Exchange, identity: &Identity) {
        if !self.has_length {
            let body = exchange.body_for(identity.sees_turn_state);
            self.field(name, &body.len().to_string());
            self.has_length = true;
        }
    }

    /// Adds what the account needs and the client did not send: Codex without a login sends no
    /// authorization. Calls that no turn depends on get nothing that the client did not send.
    fn complete(&mut self, exchange: &Exchange, identity: &Identity, form: Form<'_>) {
        if matches!(form, Form::Http) && !exchange.body.is_empty() {
            self.length("content-length", exchange, identity);
        }
        if !exchange.routed.call.is_model_call() {
            return;
        }
        if !self.has_authorization {
            self.bearer("authorization", identity);
        }
        if let Some(login) = identity.credentials.login()
            && !self.has_account
        {
            self.field("chatgpt-account-id", &login.account_id);
        }
        if let Some(routing) = &identity.routing
            && !self.has_routing
        {
            self.field("x-openai-account-routing-override", routing);
        }
    }
}

/// The head of a response as it goes to an HTTP/1.1 client, whose body is forwarded with the framing it
/// came in.
#[must_use]
pub fn response(head: &ResponseHead, length: BodyLength, keep_alive: bool) -> Vec<u8> {
    let bytes = head.as_bytes();
    let mut out = Vec::with_capacity(bytes.len() + 32);
    let line = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if head.is_http11() {
        out.extend_from_slice(&bytes[..line]);
    } else {
        // This hop speaks HTTP/1.1, whatever the other one does.
        out.extend_from_slice(b"HTTP/1.1");
        out.extend_from_slice(&bytes[b"HTTP/1.1".len().min(line)..line]);
    }
    for field in forwarded(head) {
        out.extend_from_slice(field.line);
    }
    if !keep_alive || length == BodyLength::UntilClose {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The fields of a response that are forwarded over HTTP/1.1: all but those of the connection.
pub fn forwarded(head: &ResponseHead) -> impl Iterator<Item = Field<'_>> {
    let named = named_by_connection(head.fields());
    head.fields().filter(move |field| match lookup(field.name).response {
        Action::Drop => false,
        Action::Keep => !named.contains(field.name),
        Action::Replace => field.is("content-length") || field.is("transfer-encoding"),
    })
}

/// The fields that `Connection` names: they belong to this hop (RFC 9110 §7.6.1).
struct Named(Vec<String>);

impl Named {
    fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|named| named.eq_ignore_ascii_case(name))
    }
}

fn named_by_connection<'a>(fields: impl Iterator<Item = Field<'a>>) -> Named {
    let connection = fields.filter(|field| field.is("connection"));
    let values = connection.filter_map(|field| field.text().map(str::to_owned));
    let tokens =
        values.flat_map(|value| value.split(',').map(|token| token.trim().to_owned()).collect::<Vec<_>>());
    Named(tokens.filter(|token| !token.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use crate::exchange::Ties;
    use crate::metrics::{Meter, Series, Transport};
    use crate::profile::credentials::Credentials;
    use crate::route::Routed;
    use bytes::Bytes;
    use std::sync::Arc;
    use std::time::Instant;
    use wire::http1::RequestHead;

    fn exchange(text: &str, body: &'static [u8]) -> Exchange {
        let (head, _) = RequestHead::parse(text.replace('\n', "\r\n").as_bytes()).unwrap().unwrap();
        let routed = Routed::find(&head, head.target()).unwrap();
        Exchange {
            id: 1,
            started: Instant::now(),
            target: head.target().to_owned(),
            ties: Ties::default(),
            stripped: tokio::sync::OnceCell::new(),
            body: Bytes::from_static(body),
            meter: Meter::new(&Arc::default(), Series::of(routed, Transport::Http1)),
            routed,
            head,
        }
    }

    fn identity(auth: &str) -> Identity {
        Identity {
            credentials: Arc::new(Credentials::parse(auth).unwrap()),
            origin: Origin::parse("https://upstream.example/base").unwrap(),
            routing: None,
            sees_turn_state: true,
        }
    }

    fn login() -> Identity {
        identity(r#"{"tokens":{"access_token":"pool","account_id":"acct-pool"}}"#)
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap().replace('\r', "")
    }

    #[test]
    fn the_account_is_replaced_in_place_and_the_rest_is_kept() {
        let exchange = exchange(
            "POST /backend-api/codex/responses?x=%41 HTTP/1.1\nVersion: 0.169.0\nx-DUP:  a \nX-Dup: b\n\
             x-codex-turn-state: ts\nAuthorization: Bearer own\nchatgpt-account-id: acct-own\n\
             Origin: http://localhost\nCookie: c=d\nConnection: keep-alive, X-Hop\nX-Hop: 1\nTE: trailers\n\
             Proxy-Features: x\n\
             host: localhost:1\ncontent-length: 2\nx-openai-fedramp: true\n\n",
            b"{}",
        );
        insta::assert_snapshot!(text(&request(&exchange, &login(), Form::Http)), @r"
        POST /base/backend-api/codex/responses?x=%41 HTTP/1.1
        Version: 0.169.0
        x-DUP:  a 
        X-Dup: b
        x-codex-turn-state: ts
        Authorization: Bearer pool
        chatgpt-account-id: acct-pool
        host: upstream.example
        content-length: 2
        ");
        let stranger = Identity { sees_turn_state: false, ..login() };
        assert!(!text(&request(&exchange, &stranger, Form::Http)).contains("x-codex-turn-state"));
    }

    #[test]
    fn what_the_account_needs_is_added_to_model_calls_only() {
        let body = exchange(
            "POST /backend-api/codex/responses HTTP/1.1\nhost: x\ntransfer-encoding: chunked\n\n",
            b"abc",
        );
        let bound = Identity { routing: Some("us".into()), ..login() };
        insta::assert_snapshot!(text(&request(&body, &bound, Form::Http)), @r"
        POST /base/backend-api/codex/responses HTTP/1.1
        host: upstream.example
        content-length: 3
        authorization: Bearer pool
        chatgpt-account-id: acct-pool
        x-openai-account-routing-override: us
        ");
        let side = exchange("GET /backend-api/wham/settings/user HTTP/1.1\nhost: x\n\n", b"");
        assert!(!text(&request(&side, &bound, Form::Http)).contains("pool"));
    }

    #[test]
    fn a_key_takes_the_place_of_a_login() {
        let exchange = exchange(
            "POST /v1/responses HTTP/1.1\nHost: x\nchatgpt-account-id: a\nauthorization: Bearer local\n\
             x-api-key: k\nOpenAI-Organization: o\n\n",
            b"",
        );
        insta::assert_snapshot!(text(&request(&exchange, &identity(r#"{"OPENAI_API_KEY":"sk"}"#), Form::Http)), @r"
        POST /base/v1/responses HTTP/1.1
        Host: upstream.example
        authorization: Bearer sk
        ");
    }

    #[test]
    fn an_upgrade_is_this_hops_own() {
        let exchange = exchange(
            "GET /v1/responses HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n\
             Sec-WebSocket-Version: 13\nSec-WebSocket-Key: client\nauthorization: Bearer local\n\
             sec-websocket-extensions: permessage-deflate\n\n",
            b"",
        );
        let form = Form::Websocket { key: "hop" };
        insta::assert_snapshot!(text(&request(&exchange, &identity(r#"{"OPENAI_API_KEY":"sk"}"#), form)), @r"
        GET /base/v1/responses HTTP/1.1
        Host: upstream.example
        Connection: Upgrade
        Upgrade: websocket
        Sec-WebSocket-Version: 13
        Sec-WebSocket-Key: hop
        authorization: Bearer sk
        ");
    }

    #[test]
    fn a_response_keeps_its_framing_and_loses_its_connection() {
        let head = "HTTP/1.1 200 Fine\r\nX-a:1\r\nx-A: 2\r\nTransfer-Encoding: chunked\r\nSet-Cookie: s\r\n\
            Connection: close, x-hop\r\nx-hop: 1\r\nKeep-Alive: 5\r\nAlt-Svc: h3\r\n\r\n";
        let (head, _) = ResponseHead::parse(head.as_bytes()).unwrap().unwrap();
        insta::assert_snapshot!(text(&response(&head, BodyLength::Chunked, true)), @r"
        HTTP/1.1 200 Fine
        X-a:1
        x-A: 2
        Transfer-Encoding: chunked
        ");
        let (old, _) = ResponseHead::parse(b"HTTP/1.0 200 OK\r\n\r\n").unwrap().unwrap();
        assert_eq!(
            text(&response(&old, BodyLength::UntilClose, true)),
            "HTTP/1.1 200 OK\nconnection: close\n\n"
        );
    }
}
