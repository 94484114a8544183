//! Random conversations over both transports, with limits, compactions and restarts in between.
//!
//! The mock is the oracle: it knows whose each response, turn state and encrypted item is, and how many turns
//! it gave. Clients keep their history as Codex does: all of it over HTTP, what is new on a WebSocket.

use std::collections::HashSet;

use mock_upstream::script::{Item, Rule, Script, Turn};
use mock_upstream::{Exchange, Mock};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError};
use serde_json::{Value, json};

use crate::connection::{turn, user};
use crate::rig::{Proxy, start};
use crate::socket::{Socket, create};

const ACCOUNTS: [&str; 3] = ["a", "b", "c"];

/// Threads; two of them are of one session.
const THREADS: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    /// A turn: over which transport, whether its answer holds what only its account can read, whether it is
    /// of the same turn as the one before, and whether it compacts.
    Turn { thread: usize, over_socket: bool, thinks: bool, same_turn: bool, compacts: bool },
    /// The client's WebSocket ends.
    Hangup { thread: usize },
    /// An account has nothing left.
    Limit { account: usize },
    /// It has something again.
    Lift { account: usize },
    /// The proxy ends and is started again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.15));
    prop_oneof![
        12 => (0..THREADS, flags).prop_map(|(thread, (over_socket, thinks, same_turn, compacts))| {
            Step::Turn { thread, over_socket, thinks, same_turn, compacts }
        }),
        2 => (0..THREADS).prop_map(|thread| Step::Hangup { thread }),
        2 => (0..ACCOUNTS.len()).prop_map(|account| Step::Limit { account }),
        2 => (0..ACCOUNTS.len()).prop_map(|account| Step::Lift { account }),
        1 => Just(Step::Restart),
    ]
}

/// A client's side of a thread.
#[derive(Default)]
struct Thread {
    /// All that was said.
    history: Vec<Value>,
    /// How much of it the last response on the socket stands for, and that response.
    linked: Option<(usize, Value)>,
    turn_state: Option<String>,
    socket: Option<Socket>,
    /// The account that alone can read what the history holds.
    holder: Option<String>,
}

/// What came of a turn.
enum Fate {
    Served(Vec<Value>),
    Refused { status: u64, error: Value },
}

struct World {
    mock: Mock,
    proxy: Proxy,
    threads: Vec<Thread>,
    /// The accounts that have had a limit: the proxy may leave them out for longer than they are.
    limited: HashSet<usize>,
    served: u64,
}

impl World {
    async fn start() -> Self {
        let thinks = Turn::of([Item::Reasoning("hm".into()), Item::Text("Done.".into())]);
        let (mock, proxy) = start(&ACCOUNTS, Script::rules([Rule::new(thinks).user_text("think")])).await;
        let threads = (0..THREADS).map(|_| Thread::default()).collect();
        Self { mock, proxy, threads, limited: HashSet::new(), served: 0 }
    }

    async fn take(mut self, step: &Step) -> Result<Self, TestCaseError> {
        match *step {
            Step::Turn { thread, over_socket, thinks, same_turn, compacts } => {
                let text = if thinks { "think" } else { "talk" };
                self.turn(thread, over_socket, text, same_turn, compacts).await?;
            }
            Step::Hangup { thread } => self.threads[thread].socket = None,
            Step::Limit { account } => {
                self.limited.insert(account);
                self.mock.set_turns_left(ACCOUNTS[account], Some(0));
            }
            Step::Lift { account } => drop(self.mock.set_turns_left(ACCOUNTS[account], Some(1000))),
            Step::Restart => {
                self.threads.iter_mut().for_each(|thread| thread.socket = None);
                self.proxy = self.proxy.restarted().await;
            }
        }
        Ok(self)
    }

    async fn turn(
        &mut self,
        thread: usize,
        over_socket: bool,
        text: &str,
        same_turn: bool,
        compacts: bool,
    ) -> Result<(), TestCaseError> {
        let before = self.mock.journal().exchanges().len();
        let client = &mut self.threads[thread];
        if !same_turn {
            client.turn_state = None;
        }
        let mut said = create(text)["input"].as_array().unwrap().clone();
        if compacts {
            said.push(json!({ "type": "compaction_trigger" }));
        }
        let fate = if over_socket {
            on_socket(&self.proxy, client, thread, &said).await
        } else {
            over_http(&self.proxy, client, thread, &said).await
        };
        let free = |account: &str| self.mock.account(account).is_some_and(|state| !state.is_exhausted());
        match fate {
            Fate::Served(output) => {
                self.served += 1;
                if compacts {
                    client.history.clear();
                } else {
                    client.history.extend(said);
                }
                client.history.extend(output);
                if let Some((length, _)) = &mut client.linked {
                    *length = client.history.len();
                }
                if compacts {
                    client.linked = None;
                }
                client.holder = client.history.iter().rev().find_map(account_of);
            }
            Fate::Refused { status, error } => {
                prop_assert!(error["resets_at"].is_u64(), "the account's own word: {error}");
                let (holder, story) = (client.holder.clone(), self.story(before));
                prop_assert!(status == 429, "{status} {error}: {story}");
                let is_held = holder.as_deref().is_some_and(|holder| !free(holder));
                let untouched = (0..ACCOUNTS.len()).any(|account| !self.limited.contains(&account));
                prop_assert!(
                    is_held || (holder.is_none() && !untouched),
                    "refused though {holder:?} could serve: {story}"
                );
            }
        }
        Ok(())
    }

    /// What has arrived at the mock since then.
    fn story(&self, before: usize) -> String {
        let all = self.mock.journal().exchanges();
        let tell = |exchange: &Exchange| format!("{:?} {:?}", exchange.account, exchange.status());
        all[before.min(all.len())..].iter().map(tell).collect::<Vec<_>>().join(", ")
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let all = self.mock.journal().exchanges();
        let violations: Vec<_> = all.iter().flat_map(|exchange| &exchange.violations).collect();
        prop_assert!(violations.is_empty(), "{violations:?}");
        let turns: u64 =
            ACCOUNTS.iter().filter_map(|id| self.mock.account(id)).map(|state| state.turns).sum();
        prop_assert_eq!(turns, self.served, "each turn is given once");
        Ok(())
    }
}

/// The account that an item was encrypted for, which the mock writes into it.
fn account_of(item: &Value) -> Option<String> {
    use base64::Engine as _;
    let sealed = item["encrypted_content"].as_str()?;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(sealed).unwrap();
    String::from_utf8(text).unwrap().rsplit('|').next().map(str::to_owned)
}

fn done(events: &[Value]) -> Vec<Value> {
    let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
    done.map(|event| event["item"].clone()).collect()
}

/// The end of a turn, judged by its last event.
fn fate(events: &[Value]) -> Fate {
    let last = events.last().unwrap();
    if last["type"] == "response.completed" {
        return Fate::Served(done(events));
    }
    Fate::Refused { status: last["status"].as_u64().unwrap_or_default(), error: last["error"].clone() }
}

async fn over_http(proxy: &Proxy, client: &mut Thread, thread: usize, said: &[Value]) -> Fate {
    let mut body: Value = serde_json::from_str(&user("")).unwrap();
    body["input"] = client.history.iter().chain(said).cloned().collect();
    let session = thread / 2;
    let mut fields = format!("session-id: s{session}\r\nthread-id: t{thread}\r\n");
    if let Some(state) = &client.turn_state {
        fields.push_str(&format!("x-codex-turn-state: {state}\r\n"));
        body["client_metadata"] = json!({ "x-codex-turn-state": state });
    }
    let response = turn(proxy, &fields, &body.to_string()).await;
    // The next request on the socket does not begin with what its last response stands for.
    client.linked = None;
    if response.status() != 200 {
        let error = response.json()["error"].clone();
        return Fate::Refused { status: response.status().into(), error };
    }
    client.turn_state =
        client.turn_state.take().or_else(|| response.field("x-codex-turn-state").map(Into::into));
    let text = response.text();
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    fate(&events.map(|event| serde_json::from_str(event).unwrap()).collect::<Vec<_>>())
}

async fn on_socket(proxy: &Proxy, client: &mut Thread, thread: usize, said: &[Value]) -> Fate {
    // A client connects anew once when it is told that its response is not there, and sends all of it.
    for _ in 0..2 {
        if client.socket.is_none() {
            let (session, thread) = (format!("s{}", thread / 2), format!("t{thread}"));
            let opened = Socket::open(proxy, &[("session-id", &session), ("thread-id", &thread)]).await;
            match opened {
                Ok(socket) => client.socket = Some(socket),
                Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                    let body: Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
                    return Fate::Refused {
                        status: response.status().as_u16().into(),
                        error: body["error"].clone(),
                    };
                }
                Err(error) => panic!("{error}"),
            }
            client.linked = None;
        }
        let mut message = create("");
        let skip = client.linked.as_ref().map_or(0, |(length, _)| *length);
        message["input"] = client.history[skip..].iter().chain(said).cloned().collect();
        if let Some((_, response)) = &client.linked {
            message["previous_response_id"] = response.clone();
        }
        if let Some(state) = &client.turn_state {
            message["client_metadata"] = json!({ "x-codex-turn-state": state });
        }
        let events = client.socket.as_mut().unwrap().turn(&message).await;
        let last = events.last().unwrap();
        if last["error"]["code"] == "previous_response_not_found" {
            assert!(client.linked.is_some(), "nothing was continued: {last}");
            client.socket = None;
            continue;
        }
        let metadata = events.iter().find(|event| event["type"] == "response.metadata");
        let state = metadata.and_then(|event| event["headers"]["x-codex-turn-state"].as_str());
        client.turn_state = client.turn_state.take().or_else(|| state.map(Into::into));
        let fate = fate(&events);
        // Its length is set once what was said is part of the history.
        client.linked = match &fate {
            Fate::Served(_) => Some((0, last["response"]["id"].clone())),
            Fate::Refused { .. } => None,
        };
        return fate;
    }
    panic!("a request with all of its history continues nothing");
}

proptest! {
    #![proptest_config(Config {
        cases: 8,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn nothing_of_one_account_reaches_another_and_nobody_is_left_without_reason(
        steps in prop::collection::vec(step(), 20..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::start().await;
            for step in &steps {
                world = world.take(step).await?;
                world.check()?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    }
}
