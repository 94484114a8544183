//! Model requests: turns over SSE and WebSocket, warm-ups, compactions.
//!
//! Here is what an account may and owns: its quota, its responses, its turn states, its encrypted content.

use bytes::Bytes;
use serde_json::{Value, json};
use wire::responses::{RequestView, TURN_STATE};

use super::events::{self, Context, Event};
use super::refusal::quota_headers;
use super::{Backend, Body, Incoming, ModelRequest, Plan, Refusal, ShellTool, catalogue};
use crate::accounts::responses::Issued;
use crate::accounts::{AccountState, Accounts, sealed, unix_now};
use crate::journal::Violation;
use crate::pacing::Piece;
use crate::script::select::{Active, Asked};
use crate::script::{CallName, Continuation, Framing, Item, Transport, Turn};

/// A request that its account may not make, and what was wrong about asking.
struct Denied {
    refusal: Refusal,
    violation: Option<Violation>,
}

impl Denied {
    fn new(refusal: Refusal, violation: Option<Violation>) -> Box<Self> {
        Box::new(Self { refusal, violation })
    }

    fn into_plan(self, on_socket: bool) -> Plan {
        let Self { refusal, violation } = self;
        let mut plan = if on_socket { refusal.into_message() } else { refusal.into_response() };
        plan.violations.extend(violation);
        plan
    }
}

impl Backend {
    /// What a call is answered with: a scripted turn, or the built-in answer.
    pub(super) fn call(
        &self,
        incoming: &Incoming<'_>,
        asked: &Asked<'_>,
        turn: Option<&Turn>,
        active: &Active,
    ) -> Plan {
        match (incoming.call, incoming.transport) {
            (CallName::Responses, Some(Transport::Upgrade)) => self.upgrade(asked),
            (CallName::Responses, _) => self.turn(incoming, asked, turn, active.script.continuation),
            (CallName::Compact, _) => self.compact(incoming, asked, turn, active.script.continuation),
            _ => self.side(incoming, asked),
        }
    }

    /// The handshake of a WebSocket is accepted.
    fn upgrade(&self, asked: &Asked<'_>) -> Plan {
        let mut plan = Plan::of(101, Body::Upgrade);
        let account = asked.account.unwrap_or_default();
        plan.headers = vec![
            (TURN_STATE.into(), sealed::seal(sealed::Kind::TurnState, account, self.number())),
            ("x-models-etag".into(), catalogue::ETAG.into()),
        ];
        plan
    }

    fn turn(
        &self,
        incoming: &Incoming<'_>,
        asked: &Asked<'_>,
        turn: Option<&Turn>,
        continuation: Continuation,
    ) -> Plan {
        let request = asked.model();
        let account = asked.account.unwrap_or_default();
        let on_socket = incoming.transport == Some(Transport::Websocket);
        let state = match self.admit(incoming, request, account, continuation) {
            Ok(state) => state,
            Err(denied) => return denied.into_plan(on_socket),
        };
        let built_in;
        let turn = match turn {
            Some(turn) => turn,
            None => {
                built_in = built_in_turn(request);
                &built_in
            }
        };
        let id = self.issue(incoming, request, account, turn.id.as_deref());
        let events = self.render(turn, request, account, &id);
        if on_socket {
            let turn_state = self.turn_state(incoming, account);
            return on_websocket(&state, turn, request, &turn_state, &events);
        }
        self.as_stream(incoming, &state, turn, request, &events)
    }

    /// Whether the account may have this turn, and in what state it is then.
    fn admit(
        &self,
        incoming: &Incoming<'_>,
        request: &ModelRequest,
        account: &str,
        continuation: Continuation,
    ) -> Result<AccountState, Box<Denied>> {
        let mut accounts = self.accounts();
        check_continuation(&accounts, incoming, request, account, continuation)?;
        check_encrypted(&accounts, request, account)?;
        if !request.is_warm_up {
            accounts.take_turn(account).map_err(|state| Denied::new(Refusal::usage_limit(&state), None))?;
        }
        Ok(accounts.state_or_fresh(account))
    }

    /// Makes up the id of a response and remembers whose it is.
    fn issue(
        &self,
        incoming: &Incoming<'_>,
        request: &ModelRequest,
        account: &str,
        id: Option<&str>,
    ) -> String {
        let made_up = || format!("resp_{:04x}{:08x}", self.seed & 0xFFFF, self.number());
        let id = id.map_or_else(made_up, str::to_owned);
        let issued = Issued {
            account: account.into(),
            connection: incoming.connection,
            user_text: request.user_text.as_deref().unwrap_or_default().into(),
            shell: request.shell,
        };
        self.accounts().responses.issue(&id, issued);
        id
    }

    fn render(&self, turn: &Turn, request: &ModelRequest, account: &str, id: &str) -> Vec<Event> {
        let first = self.number() << 8;
        let encrypt = |index: usize| sealed::seal(sealed::Kind::Content, account, first + index as u64);
        let context = Context {
            response_id: id,
            model: &request.model,
            created_at: unix_now(),
            shell: request.shell.unwrap_or(ShellTool::ExecCommand),
            encrypt: &encrypt,
        };
        if request.is_warm_up && turn.output.is_empty() {
            return events::warm_up(&context);
        }
        events::render(turn, &context)
    }

    /// The turn state of an answer: the one that came with the request if it is the account's own.
    fn turn_state(&self, incoming: &Incoming<'_>, account: &str) -> String {
        let came = came_turn_state(incoming);
        let own = |value: &String| {
            sealed::open(sealed::Kind::TurnState, value).is_some_and(|owner| owner == account)
        };
        came.filter(own).unwrap_or_else(|| sealed::seal(sealed::Kind::TurnState, account, self.number()))
    }

    /// What is wrong with the turn state of a request.
    pub(super) fn turn_state_violation(
        &self,
        incoming: &Incoming<'_>,
        asked: &Asked<'_>,
    ) -> Option<Violation> {
        let came = came_turn_state(incoming)?;
        match sealed::open(sealed::Kind::TurnState, &came) {
            Some(owner) if asked.account == Some(&owner) => None,
            Some(owner) => Some(Violation::ForeignTurnState { owner }),
            None => Some(Violation::UnknownTurnState),
        }
    }

    fn as_stream(
        &self,
        incoming: &Incoming<'_>,
        state: &AccountState,
        turn: &Turn,
        request: &ModelRequest,
        events: &[Event],
    ) -> Plan {
        let pieces = pack(events, encode);
        let mut plan = Plan::of(200, Body::Pieces(pieces));
        plan.framing = Framing::Chunked;
        plan.headers = vec![
            ("content-type".into(), "text/event-stream".into()),
            ("cache-control".into(), "no-store".into()),
            (TURN_STATE.into(), self.turn_state(incoming, &state.id)),
            ("x-request-id".into(), format!("req_{:08x}", self.number())),
            ("openai-model".into(), request.model.clone()),
            ("x-models-etag".into(), catalogue::ETAG.into()),
        ];
        plan.headers.extend(quota_headers(state));
        plan.headers.extend(turn.headers.iter().cloned());
        plan
    }

    /// `POST …/responses/compact`: the output items of a turn as one JSON.
    fn compact(
        &self,
        incoming: &Incoming<'_>,
        asked: &Asked<'_>,
        turn: Option<&Turn>,
        continuation: Continuation,
    ) -> Plan {
        let request = asked.model();
        let account = asked.account.unwrap_or_default();
        let state = match self.admit(incoming, request, account, continuation) {
            Ok(state) => state,
            Err(denied) => return denied.into_plan(false),
        };
        let built_in = Turn::of([Item::Compaction {}]);
        let events = self.render(turn.unwrap_or(&built_in), request, account, "cmp");
        let done = |event: &Event| match event {
            Event::Json(event) if event["type"] == "response.output_item.done" => Some(event["item"].clone()),
            Event::Json(_) | Event::Comment(_) => None,
        };
        let output: Vec<Value> = events.iter().filter_map(done).collect();
        let mut plan = Plan::json(200, &json!({ "output": output }));
        plan.headers.extend(quota_headers(&state));
        plan
    }
}

/// What a request is answered with that no rule is for.
fn built_in_turn(request: &ModelRequest) -> Turn {
    if request.is_warm_up {
        Turn::default()
    } else if request.is_compaction() {
        Turn::of([Item::Compaction {}])
    } else {
        Turn::text("Hello from the mock.")
    }
}

/// The turn state of a request: a header over HTTP, a field of the message on a WebSocket.
fn came_turn_state(incoming: &Incoming<'_>) -> Option<String> {
    if incoming.transport == Some(Transport::Websocket) {
        return RequestView::new(incoming.body).turn_state().map(Into::into);
    }
    incoming.head.get_str(TURN_STATE).map(str::to_owned)
}

fn check_continuation(
    accounts: &Accounts,
    incoming: &Incoming<'_>,
    request: &ModelRequest,
    account: &str,
    continuation: Continuation,
) -> Result<(), Box<Denied>> {
    let Some(previous) = &request.previous else { return Ok(()) };
    let issued = accounts.responses.get(previous);
    let violation = issued
        .filter(|issued| *issued.account != *account)
        .map(|issued| Violation::ForeignResponse { owner: issued.account.to_string() });
    let is_here = issued.is_some_and(|issued| {
        continuation == Continuation::Account || issued.connection == incoming.connection
    });
    if violation.is_none() && is_here {
        return Ok(());
    }
    Err(Denied::new(Refusal::previous_response_not_found(previous), violation))
}

fn check_encrypted(accounts: &Accounts, request: &ModelRequest, account: &str) -> Result<(), Box<Denied>> {
    for content in &request.encrypted {
        match sealed::open(sealed::Kind::Content, content) {
            Some(owner) if owner == account => {}
            Some(owner) => {
                let violation = Violation::ForeignEncryptedContent { owner };
                return Err(Denied::new(Refusal::invalid_encrypted_content(), Some(violation)));
            }
            // Scripts without accounts may invent content of their own.
            None if accounts.is_open() => {}
            None => return Err(Denied::new(Refusal::invalid_encrypted_content(), None)),
        }
    }
    Ok(())
}

/// An event as the bytes of an event stream.
fn encode(event: &Event, out: &mut Vec<u8>) {
    match event {
        Event::Json(event) => {
            let name = event["type"].as_str().filter(|name| !name.contains(['\r', '\n']));
            let encoded = wire::sse::encode_event(name, None, &event.to_string(), out);
            encoded.expect("a name without line ends can be written");
        }
        Event::Comment(text) => {
            wire::sse::encode_comment(text, out);
            out.push(b'\n');
        }
    }
}

/// Pieces in one allocation: a thousand paced streams hold all their events at once.
fn pack<T>(parts: impl IntoIterator<Item = T>, write: impl Fn(T, &mut Vec<u8>)) -> Vec<Piece> {
    let (mut buffer, mut ends) = (Vec::new(), Vec::new());
    for part in parts {
        write(part, &mut buffer);
        ends.push(buffer.len());
    }
    buffer.shrink_to_fit();
    let buffer = Bytes::from(buffer);
    let mut start = 0;
    let piece = |end| Piece::Data(buffer.slice(std::mem::replace(&mut start, end)..end));
    ends.into_iter().map(piece).collect()
}

/// The events as messages, behind those that only a WebSocket has.
fn on_websocket(
    state: &AccountState,
    turn: &Turn,
    request: &ModelRequest,
    turn_state: &str,
    events: &[Event],
) -> Plan {
    let mut messages = Vec::with_capacity(events.len() + 2);
    if !request.is_warm_up {
        messages.push(rate_limits(state));
        let mut headers = json!({ TURN_STATE: turn_state, "openai-model": request.model });
        for (name, value) in &turn.headers {
            headers[name] = value.as_str().into();
        }
        messages.push(json!({ "type": "response.metadata", "headers": headers }));
    }
    let messages = messages.iter().chain(events.iter().filter_map(|event| match event {
        Event::Json(event) => Some(event),
        Event::Comment(_) => None,
    }));
    let write = |message: &Value, out: &mut Vec<u8>| out.extend_from_slice(message.to_string().as_bytes());
    let pieces = pack(messages, write);
    Plan::of(200, Body::Pieces(pieces))
}

/// The event that states the account's windows.
fn rate_limits(state: &AccountState) -> Value {
    let now = unix_now();
    let window = |at: usize| {
        let window = state.windows.get(at)?;
        Some(json!({
            "used_percent": window.used_percent.round() as u64,
            "window_minutes": window.seconds / 60,
            "reset_after_seconds": window.resets_at.saturating_sub(now),
            "reset_at": window.resets_at,
        }))
    };
    let is_exhausted = state.is_exhausted();
    json!({
        "type": "codex.rate_limits",
        "plan_type": state.plan,
        "rate_limits": {
            "allowed": !is_exhausted, "limit_reached": is_exhausted,
            "primary": window(0), "secondary": window(1),
        },
        "credits": { "has_credits": false, "unlimited": false, "balance": null },
    })
}
