//! A proxy that is killed, at whatever point, has lost nothing that a client has seen.
//!
//! The points are in the program's debug builds only (`prodex::state::crash`). After the kill the next start
//! knows the owner of every id that any client has seen, which shows in where a continuation goes.
#![cfg(debug_assertions)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::SinkExt as _;
use harness::process::Exit;
use mock_upstream::script::{Http, Rule, Script};
use mock_upstream::{Exchange, Mock};
use nix::sys::signal::Signal;
use rusqlite::Connection as Database;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::connection::{CODEX, Connection, TURN, begin_turn, head, turn, user};
use crate::rig::{LIMIT, Proxy, Setting, finished, until};
use crate::socket::{Socket, create};

/// How many turns a client asks for, unless the proxy is gone before.
const TURNS: usize = 120;

/// Turns go to the account that their text names.
fn directed() -> Script {
    let busy = || Http::json(503, json!({ "error": { "code": "server_is_overloaded" } }));
    Script::rules([
        Rule::new(busy()).account("a").user_text("to b"),
        Rule::new(busy()).account("b").user_text("to a"),
    ])
}

/// Something that a client has seen of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Seen {
    Response(String),
    TurnState(String),
    Session,
}

/// What clients have seen, with the session that it was part of.
type AllSeen = Vec<(String, Seen)>;

/// The ids in the events that have arrived whole.
fn responses(text: &str) -> impl Iterator<Item = Seen> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let events = whole.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    events.filter_map(|event| Some(Seen::Response(event["response"]["id"].as_str()?.to_owned())))
}

/// A turn over HTTP: what the client got to see, if there was somebody to ask.
async fn over_http(port: u16, request: String, session: &str) -> Option<AllSeen> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let mut client = Connection::over(stream);
    client.try_send(request).await.ok()?;
    let text = String::from_utf8_lossy(&client.read_to_end().await.0).into_owned();
    let mut seen: Vec<Seen> = responses(&text).collect();
    if let Some((head, _)) = text.split_once("\r\n\r\n") {
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let state = head.lines().find_map(|line| line.strip_prefix("x-codex-turn-state: "));
        seen.extend(state.map(|state| Seen::TurnState(state.to_owned())));
        seen.push(Seen::Session);
    }
    Some(seen.into_iter().map(|seen| (session.to_owned(), seen)).collect())
}

/// Turns on one WebSocket, until the proxy is gone.
async fn over_websocket(proxy: &Proxy, session: &str) -> AllSeen {
    let mut seen = AllSeen::new();
    let Ok(mut socket) = Socket::open(proxy, &[("session-id", session)]).await else { return seen };
    for _ in 0..TURNS {
        if socket.stream.send(Message::text(create("x").to_string())).await.is_err() {
            return seen;
        }
        loop {
            let Some(Ok(Message::Text(text))) = socket.next().await else { return seen };
            let event: Value = serde_json::from_str(&text).unwrap();
            let response = event["response"]["id"].as_str().map(|id| Seen::Response(id.to_owned()));
            let state = event["headers"]["x-codex-turn-state"].as_str();
            let state = state.map(|state| Seen::TurnState(state.to_owned()));
            let all = [response, state, Some(Seen::Session)].into_iter().flatten();
            seen.extend(all.map(|seen| (session.to_owned(), seen)));
            if event["type"] == "response.completed" {
                break;
            }
        }
    }
    seen
}

/// Clients of both kinds, until the proxy is gone or they are done: what they have seen. `ended` counts the
/// turns over HTTP.
async fn use_up(proxy: &Proxy, ended: &Arc<AtomicU32>) -> AllSeen {
    let mut clients = JoinSet::new();
    for client in 0..4 {
        let body = user(if client % 2 == 0 { "to a" } else { "to b" });
        let fields =
            format!("{CODEX}content-type: application/json\r\nconnection: close\r\nsession-id: S\r\n");
        let request = head(proxy, "POST", TURN, &fields, body.len()) + &body;
        let (port, ended) = (proxy.port(), Arc::clone(ended));
        clients.spawn(async move {
            let mut all = AllSeen::new();
            for turn in 0..TURNS {
                let session = format!("http-{client}-{turn}");
                let request = request.replacen("session-id: S", &format!("session-id: {session}"), 1);
                let Some(seen) = over_http(port, request, &session).await else { break };
                all.extend(seen);
                ended.fetch_add(1, Ordering::Relaxed);
            }
            all
        });
    }
    let (one, two) = tokio::join!(over_websocket(proxy, "socket-1"), over_websocket(proxy, "socket-2"));
    let mut all = [at_risk(one), at_risk(two)].concat();
    while let Some(client) = clients.join_next().await {
        all.extend(at_risk(client.unwrap()));
    }
    all
}

/// What a client has seen, each once: all that came last, and some of what came long before.
fn at_risk(mut seen: AllSeen) -> AllSeen {
    let mut known = HashSet::new();
    seen.retain(|seen| known.insert(seen.clone()));
    let last = seen.split_off(seen.len().saturating_sub(24));
    seen.into_iter().step_by(10).chain(last).collect()
}

/// The account that served each session.
fn owners(mock: &Mock) -> HashMap<String, String> {
    let served = |exchange: &Exchange| {
        exchange.answer.as_ref().is_some_and(|answer| {
            [&b"HTTP/1.1 200"[..], b"HTTP/1.1 101"].iter().any(|begin| answer.head.starts_with(begin))
        })
    };
    let all = mock.journal().exchanges().into_iter().filter(served);
    all.filter_map(|exchange| Some((exchange.header("session-id")?, exchange.account?.to_string()))).collect()
}

/// What was seen of a conversation leads back to its owner, though the other account, which served the request
/// before, would be asked without it.
async fn assert_owned(mock: &Mock, proxy: &Proxy, seen: &AllSeen, owners: &HashMap<String, String>) {
    let (of_a, of_b): (Vec<_>, Vec<_>) = seen.iter().partition(|(session, _)| owners[session] == "a");
    let longest = of_a.len().max(of_b.len());
    let alternating = (0..longest).flat_map(|at| [of_a.get(at), of_b.get(at)]).flatten();
    let mut current = String::new();
    for (session, seen) in alternating {
        let owner = &owners[session];
        if current.is_empty() || current == *owner {
            turn(proxy, "", &user(if owner == "a" { "to b" } else { "to a" })).await;
            assert_ne!(finished(mock).await.account.as_deref(), Some(&**owner));
        }
        let mut body: Value = serde_json::from_str(&user("check")).unwrap();
        let fields = match seen {
            Seen::Response(id) => {
                body["previous_response_id"] = json!(id);
                String::new()
            }
            Seen::TurnState(state) => format!("x-codex-turn-state: {state}\r\n"),
            Seen::Session => format!("session-id: {session}\r\n"),
        };
        turn(proxy, &fields, &body.to_string()).await;
        let served = finished(mock).await;
        assert_eq!(served.account.as_deref(), Some(&**owner), "{session}: {seen:?}");
        assert!(served.violations.is_empty(), "{:?}", served.violations);
        current.clone_from(owner);
    }
}

/// Waits until a proxy is killed.
async fn killed(mut proxy: Proxy) {
    assert_eq!(proxy.server.wait(LIMIT).await.unwrap(), Some(Exit::Signal(9)), "the point is reached");
}

/// Starts a proxy behind a killed one, which says what it recovered if there was anything, and knows the
/// owners of what was seen.
async fn assert_recovered(mock: &Mock, home: &Proxy, seen: &AllSeen) {
    let left = home.home().join("state/state.db-wal");
    let is_left = std::fs::metadata(left).is_ok_and(|meta| meta.len() > 32);
    let later = home.another().await;
    assert_owned(mock, &later, seen, &owners(mock)).await;
    if is_left {
        until("the word of it", || later.server.stderr().contains("is recovered")).await;
    }
    assert_eq!(later.stop().await.events("state_recovered").count(), usize::from(is_left));
}

/// A mock with two accounts, and a proxy of theirs that has ended: others of its home follow.
async fn begin(setting: Setting) -> (Mock, Proxy) {
    let (mock, mut first) = setting.start().await;
    first.server.signal(Signal::SIGTERM);
    assert_eq!(first.server.wait(LIMIT).await.unwrap(), Some(Exit::Code(0)));
    (mock, first)
}

fn setting() -> Setting {
    Setting::new(&["a", "b"], directed())
}

/// Has a proxy killed at each of these points, while clients use it.
async fn kill_at(setting: Setting, points: &[&str]) {
    let (mock, first) = begin(setting).await;
    for point in points {
        let proxy = first.another_that("PRODEX_CRASH_AT", point).await;
        let seen = use_up(&proxy, &Arc::default()).await;
        killed(proxy).await;
        assert_recovered(&mock, &first, &seen).await;
    }
}

#[tokio::test]
async fn a_kill_around_a_write_loses_nothing_that_was_seen() {
    let points =
        ["write.begin:4", "write.begun:1", "write.inserted:7", "write.commit:3", "write.committed:2"];
    kill_at(setting(), &points).await;
}

#[tokio::test]
async fn a_kill_around_the_release_of_what_was_held_loses_nothing_that_was_seen() {
    let points = ["response.release:3", "response.written:1", "response.written:9", "turn.release:2"];
    kill_at(setting(), &points).await;
}

#[tokio::test]
async fn a_kill_loses_nothing_where_nothing_is_held() {
    let points = ["write.begun:3", "write.commit:5", "write.committed:1", "response.written:6"];
    kill_at(setting().set("PRODEX_HOLD_CODEX", "0s"), &points).await;
}

#[tokio::test]
async fn a_kill_while_the_log_is_copied_or_old_bindings_go_loses_nothing_that_was_seen() {
    kill_at(setting(), &["checkpoint.begin:1", "checkpoint.end:1", "prune:1"]).await;
}

#[tokio::test]
async fn a_kill_from_outside_loses_nothing_that_was_seen() {
    let (mock, first) = begin(setting()).await;
    for turns in [1, 8, 23, 60] {
        let proxy = first.another().await;
        let ended = Arc::new(AtomicU32::new(0));
        let kill = async {
            until("enough turns", || ended.load(Ordering::Relaxed) >= turns).await;
            proxy.server.signal(Signal::SIGKILL);
        };
        let (seen, ()) = tokio::join!(use_up(&proxy, &ended), kill);
        assert!(!seen.is_empty());
        killed(proxy).await;
        assert_recovered(&mock, &first, &seen).await;
    }
}

#[tokio::test]
async fn a_kill_within_a_migration_leaves_the_old_version_or_the_new_one() {
    let (mock, first) = begin(setting()).await;
    let proxy = first.another().await;
    let seen = use_up(&proxy, &Arc::default()).await;
    proxy.stop().await;
    let path = first.home().join("state/state.db");
    let version = || -> i64 {
        let database = Database::open(&path).unwrap();
        database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    };
    let newest = version();
    for (point, left) in [("migration.begin", 1), ("migration.step", 1), ("migration.end", newest)] {
        let database = Database::open(&path).unwrap();
        database.execute_batch("DROP TABLE fact; PRAGMA user_version = 1").unwrap();
        drop(database);
        let mut proxy = first.another_with("PRODEX_CRASH_AT", point).start().unwrap();
        assert_eq!(proxy.wait(LIMIT).await.unwrap(), Some(Exit::Signal(9)), "{point}");
        assert_eq!(version(), left, "{point}");
        let later = first.another().await;
        assert_eq!(version(), newest, "{point}");
        let some: AllSeen = seen.iter().step_by(40).cloned().collect();
        assert_owned(&mock, &later, &some, &owners(&mock)).await;
        later.stop().await;
        assert!(path.with_file_name("state.db.version-1").exists(), "what it was is kept");
    }
}

#[tokio::test]
async fn a_kill_while_a_token_is_replaced_leaves_the_old_login_or_the_new_one() {
    for point in ["file.written", "file.replaced"] {
        let (mock, first) = begin(setting()).await;
        mock.expire("a");
        let before = first.auth("a");
        let proxy = first.another_that("PRODEX_CRASH_AT", point).await;
        let mut client = begin_turn(&proxy, "", &user("to a")).await;
        assert!(client.read_to_end().await.0.is_empty());
        killed(proxy).await;
        let is_replaced = point == "file.replaced";
        assert_eq!(first.auth("a") != before, is_replaced, "{point}");
        let later = first.another().await;
        // The upstream takes a token of renewal once: what it gave out for it is lost with an unwritten file.
        let text = if is_replaced { "to a" } else { "to b" };
        assert_eq!(turn(&later, "", &user(text)).await.status(), 200, "{point}");
    }
}
