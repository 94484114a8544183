//! The ChatGPT and OpenAI backends that Codex talks to: what each call is answered with.
//!
//! A request becomes a plan: head, pieces, pacing and fault. Who plays it over which connection is not
//! known here, so that everything that is decided is decided in one place and before anything is sent.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use serde_json::Value;
use wire::http1::RequestHead;
use wire::route::{Call, Route};

use crate::accounts::{Accounts, Unauthorized};
use crate::fault::Fault;
use crate::journal::{Journal, Violation};
use crate::metrics::Metrics;
use crate::pacing::{Pacing, Piece};
use crate::script::select::{Active, Asked};
use crate::script::{CallName, Frame, Framing, Http, Reply, Rule, Script, Stream, Transport, Write};

mod catalogue;
mod events;
mod model;
mod oauth;
mod refusal;
mod request;
mod side;

pub(crate) use refusal::Refusal;
pub(crate) use request::{ModelRequest, ShellTool};

/// Everything that the connections of a mock share.
pub(crate) struct Backend {
    active: RwLock<Arc<Active>>,
    accounts: Mutex<Accounts>,
    pub(crate) journal: Journal,
    pub(crate) metrics: Metrics,
    pub(crate) seed: u64,
    /// The origin of this mock, for `accounts/check`.
    origin: String,
    /// Numbers the responses.
    responses: AtomicU64,
    /// Numbers the exchanges.
    exchanges: AtomicU64,
}

/// What is sent in answer to a request, before it is paced.
pub(crate) struct Plan {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) framing: Framing,
    pub(crate) body: Body,
    pub(crate) pacing: Pacing,
    pub(crate) fault: Option<Fault>,
    pub(crate) account: Option<Arc<str>>,
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) violations: Vec<Violation>,
}

/// What a plan sends behind its head.
pub(crate) enum Body {
    /// Pieces of a body; on a WebSocket, text messages.
    Pieces(Vec<Piece>),
    /// Frames, only on a WebSocket.
    Frames(Vec<Frame>),
    /// A WebSocket: the handshake is accepted.
    Upgrade,
}

/// A request as it was read.
pub(crate) struct Incoming<'a> {
    pub(crate) call: CallName,
    pub(crate) transport: Option<Transport>,
    pub(crate) head: &'a RequestHead,
    /// The body, or the message, with its content coding undone.
    pub(crate) body: &'a [u8],
    pub(crate) connection: u64,
}

impl Incoming<'_> {
    fn bearer(&self) -> Option<&str> {
        self.head.get_str("authorization").and_then(|value| value.strip_prefix("Bearer "))
    }
}

/// What a request calls, by method and target.
pub(crate) fn call_of(method: &str, target: &str) -> CallName {
    let path = target.split('?').next().unwrap_or_default();
    if path == "/oauth/token" {
        return CallName::Token;
    }
    match Route::find(method, target).map(|route| route.call) {
        Ok(Call::Responses) => CallName::Responses,
        Ok(Call::Compact) => CallName::Compact,
        Ok(Call::Models) => CallName::Models,
        Ok(Call::AccountsCheck) => CallName::AccountsCheck,
        Ok(Call::Usage) => CallName::Usage,
        Ok(Call::Settings) => CallName::Settings,
        Ok(Call::Plugins) => CallName::Plugins,
        Ok(Call::Mcp) => CallName::Mcp,
        Ok(Call::Analytics) => CallName::Analytics,
        Ok(Call::Auxiliary) => CallName::Auxiliary,
        Err(_) => CallName::Unknown,
    }
}

impl Backend {
    pub(crate) fn new(script: Script, journal: Journal, seed: u64, origin: String) -> Self {
        Self {
            accounts: Mutex::new(Accounts::new(&script.accounts)),
            active: RwLock::new(Arc::new(Active::new(script))),
            journal,
            metrics: Metrics::default(),
            seed,
            origin,
            responses: AtomicU64::new(1),
            exchanges: AtomicU64::new(1),
        }
    }

    /// Starts a script: its accounts are as new, nothing issued before is known.
    pub(crate) fn set_script(&self, script: Script) {
        *self.accounts() = Accounts::new(&script.accounts);
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Active::new(script));
    }

    /// Replaces the rules and leaves the accounts as they are.
    pub(crate) fn set_rules(&self, rules: Vec<Rule>) {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        let script = Script { rules, ..active.script.clone() };
        *active = Arc::new(Active::new(script));
    }

    pub(crate) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number that no other response has.
    fn number(&self) -> u64 {
        self.responses.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of the next exchange.
    pub(crate) fn next_exchange(&self) -> u64 {
        self.exchanges.fetch_add(1, Ordering::Relaxed)
    }

    /// What a request is answered with.
    pub(crate) fn answer(&self, incoming: &Incoming<'_>) -> Plan {
        let active = self.active();
        let named = incoming.head.get_str("chatgpt-account-id");
        let identity = self.accounts().identify(incoming.bearer(), named);
        let account = identity.as_ref().map_or_else(Unauthorized::account, |id| Some(Arc::clone(id)));
        let read = |body: &[u8]| self.read_model(body);
        let asked = Asked {
            call: incoming.call,
            transport: incoming.transport,
            target: incoming.head.target(),
            account: account.as_deref(),
            body: incoming.body,
            model: OnceCell::new(),
            read: &read,
        };
        let mut plan = match identity {
            Err(why) if needs_account(incoming.call) => unauthorized(&why),
            _ => self.answer_as(incoming, &asked, &active),
        };
        plan.account = account;
        plan
    }

    fn answer_as(&self, incoming: &Incoming<'_>, asked: &Asked<'_>, active: &Active) -> Plan {
        let (rule, name) = active.select(asked).unzip();
        let mut plan = match rule.map_or(&Reply::Default, |rule| &rule.reply) {
            Reply::Http(http) if incoming.transport == Some(Transport::Websocket) => {
                Refusal::from(http).into_message()
            }
            Reply::Http(http) => Plan::from_http(http),
            Reply::Stream(stream) => self.stream(stream, asked),
            Reply::Frames(frames) => Plan::of(200, Body::Frames(frames.clone())),
            Reply::Turn(turn) => self.call(incoming, asked, Some(turn), active),
            Reply::Default => self.call(incoming, asked, None, active),
        };
        plan.pacing = rule.and_then(|rule| rule.pacing).unwrap_or(active.script.pacing);
        plan.fault = rule.and_then(|rule| rule.fault.clone());
        plan.rule = name;
        if incoming.call == CallName::Responses {
            plan.violations.extend(self.turn_state_violation(incoming, asked));
        }
        plan
    }

    /// A raw body, if the account has a turn left for it.
    fn stream(&self, stream: &Stream, asked: &Asked<'_>) -> Plan {
        if stream.status < 300
            && let Some(account) = asked.account
            && let Err(state) = self.accounts().take_turn(account)
        {
            return Refusal::usage_limit(&state).into_response();
        }
        Plan::from_stream(stream)
    }

    /// The request in a body, with what it leaves to the response that it continues.
    fn read_model(&self, body: &[u8]) -> ModelRequest {
        let mut request = ModelRequest::read(body);
        if let Some(previous) = &request.previous
            && let Some(issued) = self.accounts().responses.get(previous)
        {
            request.user_text.get_or_insert_with(|| issued.user_text.to_string());
            request.shell = request.shell.or(issued.shell);
        }
        request
    }
}

/// Whether a call is refused without a valid token. The hosted MCP server is asked without one, telemetry
/// and the refresh have their own rules.
fn needs_account(call: CallName) -> bool {
    !matches!(call, CallName::Mcp | CallName::Analytics | CallName::Token | CallName::Unknown)
}

fn unauthorized(why: &Unauthorized) -> Plan {
    let mut plan = Refusal::unauthorized(why).into_response();
    if matches!(why, Unauthorized::Mismatch(_)) {
        plan.violations.push(Violation::AccountMismatch);
    }
    plan
}

impl Plan {
    pub(crate) fn of(status: u16, body: Body) -> Self {
        Self {
            status,
            headers: Vec::new(),
            framing: Framing::Length,
            body,
            pacing: Pacing::default(),
            fault: None,
            account: None,
            rule: None,
            violations: Vec::new(),
        }
    }

    /// A response with this body.
    pub(crate) fn whole(status: u16, headers: Vec<(String, String)>, body: Bytes) -> Self {
        let pieces = if body.is_empty() { Vec::new() } else { vec![Piece::Data(body)] };
        Self { headers, ..Self::of(status, Body::Pieces(pieces)) }
    }

    /// A response with a JSON body.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type".into(), "application/json".into())];
        Self::whole(status, headers, body.to_string().into())
    }

    fn from_http(http: &Http) -> Self {
        let mut headers = http.headers.clone();
        let has_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if http.json.is_some() && !has_type {
            headers.push(("content-type".into(), "application/json".into()));
        }
        let json = http.json.as_ref().map(ToString::to_string);
        let body = json.or_else(|| http.body.clone()).unwrap_or_default();
        Self::whole(http.status, headers, body.into())
    }

    fn from_stream(stream: &Stream) -> Self {
        let piece = |write: &Write| match write {
            Write::Text(text) => Piece::Data(Bytes::copy_from_slice(text.as_bytes())),
            Write::Base64(text) => Piece::Data(refusal::decode_checked(text)),
            Write::PauseMs(length) => Piece::Pause(std::time::Duration::from_millis(*length)),
        };
        let mut headers = stream.headers.clone();
        if headers.is_empty() {
            headers.push(("content-type".into(), "text/event-stream".into()));
        }
        let pieces = stream.writes.iter().map(piece).collect();
        Self { headers, framing: stream.framing, ..Self::of(stream.status, Body::Pieces(pieces)) }
    }

    /// Whether the body comes in pieces over time.
    pub(crate) fn is_stream(&self) -> bool {
        self.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("content-type") && value.starts_with("text/event-stream")
        })
    }
}
