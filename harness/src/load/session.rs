//! Agents: conversations of several turns with tools, time to think, compaction, over HTTP or a WebSocket.
//!
//! An agent does what Codex does. A compaction is a turn whose input ends with a `compaction_trigger`, or with
//! some agents a unary call, as of older clients; what follows carries the sealed item that it brought. Over HTTP each request carries the whole history, and the turn state that
//! the first reply of a turn brought goes back with the others of that turn. On a WebSocket a request
//! carries what is new and the id of the last response. A conversation has one owner: an answer of another
//! account is wrong content, however right its bytes are.

use std::rc::Rc;
use std::time::Duration;

use mock_upstream::content::{ACCOUNT, NONCE, now};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::arrivals::{exponential, mix, normal, unit};
use super::caller::{Caller, Kit, Wanted, other_account};
use super::connection::Connection;
use super::driver::Shared;
use super::http::Reply;
use super::plan::Habits;
use super::request::{self, Content, Filling, Prepared, THREAD};
use super::result::{Outcome, Route};
use super::stats::Counters;

/// Longest that an agent thinks.
const LONGEST_THOUGHT: f64 = 600.0;

/// Longest history, in bytes; an agent whose history is longer begins anew.
const LONGEST_HISTORY: usize = 8 << 20;

/// A conversation.
struct Conversation {
    thread: [u8; THREAD],
    /// The items so far, as JSON with commas between.
    history: Vec<u8>,
    owner: Option<[u8; ACCOUNT]>,
    turn_state: Option<Vec<u8>>,
    turns: u32,
    /// How often it has been compacted.
    window: u32,
}

impl Conversation {
    /// Adds an item.
    fn push(&mut self, item: &[u8]) {
        if !self.history.is_empty() {
            self.history.push(b',');
        }
        self.history.extend_from_slice(item);
    }
}

/// The item with which a turn is asked to be a compaction.
const TRIGGER: &[u8] = br#"{"type":"compaction_trigger"}"#;

struct Agent {
    caller: Caller,
    habits: Habits,
    random: ChaCha8Rng,
    is_on_socket: bool,
    /// Whether it compacts by a call of its own.
    compacts_by_call: bool,
    /// Requests so far: with the agent's number they make nonces.
    requests: u64,
    number: u64,
}

/// Lives as an agent from `begin` to `until`, in nanoseconds of the clock.
pub(crate) async fn agent(
    shared: Rc<Shared>,
    kit: Rc<Kit>,
    habits: Habits,
    number: u64,
    begin: u64,
    until: u64,
) {
    let mut random = ChaCha8Rng::seed_from_u64(mix(kit.seed, number));
    let is_on_socket = unit(&mut random) < habits.websocket_share;
    let compacts_by_call = unit(&mut random) < habits.unary_compact_share;
    let stage = kit.stage as u64;
    let caller = Caller::new(Rc::clone(&shared), kit);
    let mut agent = Agent { caller, habits, random, is_on_socket, compacts_by_call, requests: 0, number };
    // Agents do not begin all at once.
    let wait = agent.thought() * unit(&mut agent.random);
    let mut next = begin + (wait * 1e9) as u64;
    while next < until && !shared.is_stopped() {
        let bits = [agent.random.next_u64(), agent.random.next_u64()];
        let thread = request::thread(bits);
        let mut conversation =
            Conversation { thread, history: Vec::new(), owner: None, turn_state: None, turns: 0, window: 0 };
        agent.caller.leave_socket();
        let turns = 1 + (exponential(&mut agent.random) * f64::from(habits.turns.max(1) - 1)) as u32;
        while conversation.turns < turns && next < until && conversation.history.len() < LONGEST_HISTORY {
            tokio::time::sleep(Duration::from_nanos(next.saturating_sub(now()))).await;
            Counters::set(&shared.counters.stage, stage);
            let goes_on = !shared.is_stopped() && agent.turn(&mut conversation, next, until).await;
            // Whoever got nothing does not ask again at once either.
            next = now() + ((agent.thought() * 1e9) as u64).max(if goes_on { 0 } else { 10_000_000 });
            if !goes_on {
                break;
            }
        }
    }
}

impl Agent {
    /// A turn: what the person asked, calls of tools, and now and then a compaction. Says whether the
    /// conversation can go on.
    async fn turn(&mut self, conversation: &mut Conversation, intended: u64, until: u64) -> bool {
        conversation.turn_state = None;
        let compacts = self.habits.compact_every > 0
            && conversation.turns > 0
            && conversation.turns.is_multiple_of(self.habits.compact_every);
        let mut intended = intended;
        if compacts {
            if !self.compact(conversation, intended).await {
                return false;
            }
            intended = now();
        }
        let rounds = (exponential(&mut self.random) * self.habits.tool_rounds) as u32;
        for round in 0..=rounds {
            let kind = if round == 0 { "message" } else { "function_call_output" };
            let item = item(kind, self.number, self.requests, self.habits.turn_bytes);
            if !self.request(conversation, &item, intended).await {
                return false;
            }
            if round < rounds {
                intended = now() + (self.habits.tool_seconds * 1e9) as u64;
                if intended >= until {
                    break;
                }
                tokio::time::sleep(Duration::from_nanos(intended.saturating_sub(now()))).await;
            }
        }
        conversation.turns += 1;
        true
    }

    /// One request with a further item; says whether it went well.
    async fn request(&mut self, conversation: &mut Conversation, item: &[u8], intended: u64) -> bool {
        conversation.push(item);
        let route = if self.is_on_socket { Route::Websocket } else { Route::Responses };
        let is_ok = self.ask(conversation, route, false, item, intended).await.is_some();
        if is_ok {
            conversation.push(&message("assistant", self.number, self.requests, 64));
        }
        is_ok
    }

    /// Has the history shortened to one sealed item.
    async fn compact(&mut self, conversation: &mut Conversation, intended: u64) -> bool {
        let route = match (self.compacts_by_call, self.is_on_socket) {
            (true, _) => Route::Compact,
            (false, true) => Route::Websocket,
            (false, false) => Route::Responses,
        };
        if !self.compacts_by_call {
            conversation.push(TRIGGER);
        }
        let Some((nonce, account)) = self.ask(conversation, route, true, TRIGGER, intended).await else {
            return false;
        };
        // The reply was right to the last byte, so what it said is known.
        let (nonce, account) = (String::from_utf8_lossy(&nonce), String::from_utf8_lossy(&account));
        let sealed = format!(
            r#"{{"type":"compaction","id":"cmp_{nonce}","encrypted_content":"sealed_{nonce}_{account}_{}"}}"#,
            mock_upstream::content::letters(0, self.caller.kit.traffic.bytes)
        );
        conversation.history = sealed.into_bytes();
        conversation.window += 1;
        self.caller.forget_previous();
        true
    }

    /// Sends a request whose input ends with this item, and records its end. Gives what the ids of its reply are made
    /// of, if that was right: the nonce, and the account that answered.
    async fn ask(
        &mut self,
        conversation: &mut Conversation,
        route: Route,
        is_compaction: bool,
        item: &[u8],
        intended: u64,
    ) -> Option<([u8; NONCE], [u8; ACCOUNT])> {
        let kit = Rc::clone(&self.caller.kit);
        let nonce = self.nonce();
        let ask = if is_compaction { kit.compaction_ask() } else { *kit.plain_ask() };
        // A new socket has no memory, so it gets all of the history.
        let previous = self.caller.previous().filter(|_| route == Route::Websocket);
        let input = if previous.is_some() { item } else { &conversation.history };
        let content = Content {
            ask: &ask,
            input,
            size: 0,
            has_previous: previous.is_some(),
            compressed: kit.traffic.compressed && route == Route::Responses,
            turn_state: conversation.turn_state.as_deref(),
            is_compaction,
            window: conversation.window,
        };
        let mut request = Prepared::new(&self.caller.shared.plan().target, route, &content);
        request.fill(&Filling { nonce: &nonce, thread: &conversation.thread, previous: previous.as_ref() });
        let sent = self.caller.begin(intended);
        let deadline = sent + kit.timeout();
        let wanted = Wanted { route, nonce, deadline, keeps_state: true, is_compaction };
        let mut reply = match route {
            Route::Websocket => self.caller.turn(&request.bytes, conversation.thread, &wanted).await,
            Route::Responses | Route::Compact => self.send(request, &wanted).await,
        };
        Self::check_owner(conversation, &mut reply);
        if conversation.turn_state.is_none() {
            conversation.turn_state = reply.turn_state.take();
        }
        let told = reply.account.filter(|_| reply.outcome == Outcome::Ok);
        self.caller.finish(route, intended, sent, reply);
        told.map(|account| (nonce, account))
    }

    async fn send(&mut self, request: Prepared, wanted: &Wanted) -> Reply {
        let bytes = match request.compressed() {
            None => request.bytes,
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => {
                return Reply::none(Outcome::Connect, Some(format!("compress a body: {error}")), now());
            }
        };
        self.caller.exchange(wanted, |connection: &mut Connection| connection.start(&bytes)).await
    }

    /// A conversation's first answer says whose it is; all others must be the same account's.
    fn check_owner(conversation: &mut Conversation, reply: &mut Reply) {
        let (Outcome::Ok, Some(account)) = (reply.outcome, reply.account) else { return };
        let owner = *conversation.owner.get_or_insert(account);
        if owner != account {
            reply.outcome = Outcome::WrongContent;
            reply.text = Some(other_account(Some(owner), account));
        }
    }

    fn nonce(&mut self) -> [u8; NONCE] {
        self.requests += 1;
        let seed = mix(self.caller.kit.seed, self.number);
        request::nonce([mix(seed, self.requests), mix(!seed, self.requests)])
    }

    /// How long a person thinks: log-normal around the median, in seconds.
    fn thought(&mut self) -> f64 {
        let Habits { think_seconds, think_spread, .. } = self.habits;
        (think_seconds * (think_spread * normal(&mut self.random)).exp()).min(LONGEST_THOUGHT)
    }
}

/// An item of the input.
fn item(kind: &str, agent: u64, number: u64, size: usize) -> Vec<u8> {
    if kind == "message" {
        return message("user", agent, number, size);
    }
    let mut item = format!(r#"{{"type":"function_call_output","call_id":"call_{agent}_{number}","output":""#)
        .into_bytes();
    request::words(size, &mut item);
    item.extend_from_slice(br#""}"#);
    item
}

fn message(role: &str, agent: u64, number: u64, size: usize) -> Vec<u8> {
    let kind = if role == "user" { "input_text" } else { "output_text" };
    let mut item = format!(
        r#"{{"type":"message","role":"{role}","content":[{{"type":"{kind}","text":"{agent}.{number} "#
    )
    .into_bytes();
    request::words(size, &mut item);
    item.extend_from_slice(br#""}]}"#);
    item
}
