//! What outlives a run, and what several runs share: bindings, whatever the disk does.

use mock_upstream::script::{Http, Rule, Script};
use mock_upstream::{Account, Mock};
use rusqlite::Connection as Database;
use serde_json::{Value, json};

use crate::connection::{Response, turn, user};
use crate::rig::{LIMIT, Proxy, Setting, code, finished, prodex, sandbox, start, until};
use crate::socket::{Socket, create, create_behind, response_id};

/// Turns go to the account that their text names.
fn directed() -> Script {
    let busy = || Http::json(503, json!({ "error": { "code": "server_is_overloaded" } }));
    Script::rules([
        Rule::new(busy()).account("a").user_text("to b"),
        Rule::new(busy()).account("b").user_text("to a"),
    ])
}

/// The continuation of a response.
fn behind(response: &Response) -> String {
    let text = response.text();
    let created = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let created: Value = serde_json::from_str(created).unwrap();
    let mut body: Value = serde_json::from_str(&user("on")).unwrap();
    body["previous_response_id"] = created["response"]["id"].clone();
    body.to_string()
}

/// The account that serves a turn.
async fn served_by(mock: &Mock, proxy: &Proxy, fields: &str, body: &str) -> String {
    let response = turn(proxy, fields, body).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    finished(mock).await.account.unwrap().to_string()
}

#[tokio::test]
async fn what_one_process_binds_another_that_runs_already_knows() {
    let (mock, one) = start(&["a", "b"], directed()).await;
    let other = one.another().await;
    let response = turn(&one, "session-id: s\r\n", &user("to b")).await;
    let state = format!("x-codex-turn-state: {}\r\n", response.field("x-codex-turn-state").unwrap());
    for (fields, body) in [("", behind(&response)), (&state, user("on")), ("session-id: s\r\n", user("on"))] {
        assert_eq!(served_by(&mock, &other, "", &user("to a")).await, "a");
        assert_eq!(served_by(&mock, &other, fields, &body).await, "b", "{fields}");
    }
    // And on a WebSocket.
    let mut socket = Socket::open(&one, &[("session-id", "t")]).await.unwrap();
    let events = socket.turn(&create("x")).await;
    drop(socket);
    let owner = finished(&mock).await.account.unwrap();
    served_by(&mock, &other, "", &user(if &*owner == "a" { "to b" } else { "to a" })).await;
    let mut socket = Socket::open(&other, &[]).await.unwrap();
    let events = socket.turn(&create_behind("on", &response_id(&events))).await;
    assert_eq!(events.last().unwrap()["type"], "response.completed");
}

#[tokio::test]
async fn what_one_process_learns_of_an_account_another_that_runs_takes_up() {
    let limit = json!({ "error": { "type": "usage_limit_reached", "resets_in_seconds": 9000 } });
    let once = Rule::new(Http::json(429, limit)).account("a").times(1);
    let (mock, one) = start(&["a", "b"], Script::rules([once])).await;
    let other = one.another().await;
    assert_eq!(served_by(&mock, &one, "", &user("x")).await, "b");
    assert_eq!(
        served_by(&mock, &other, "", &user("x")).await,
        "a",
        "it would serve, and is spared all the same"
    );
    let moves = async { while served_by(&mock, &other, "", &user("x")).await != "b" {} };
    tokio::time::timeout(LIMIT, moves).await.expect("the other has taken it up");
    let log = other.stop().await;
    assert_eq!(log.events("profile_quota_quarantine").count(), 0, "it was refused nothing itself");
}

#[tokio::test]
async fn the_next_run_goes_on_where_this_one_ended() {
    let (mock, proxy) = start(&["a", "b"], directed()).await;
    let response = turn(&proxy, "session-id: s\r\n", &user("to b")).await;
    let later = proxy.another().await;
    let log = proxy.stop().await;
    assert_eq!(log.events("state_save_ok").count(), 1);
    assert_eq!(served_by(&mock, &later, "", &user("to a")).await, "a");
    assert_eq!(served_by(&mock, &later, "", &behind(&response)).await, "b");
    let (state, _kept) = (later.home().join("state"), std::sync::Arc::clone(&later.sandbox));
    let log = later.stop().await;
    assert_eq!(log.events("state_recovered").count(), 0, "it ended by itself");
    let left: Vec<_> = std::fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let is_ours = |name: &std::ffi::OsString| {
        ["state.ballast", "state.db", "state.lock"].iter().any(|ours| *ours == name.as_os_str())
    };
    assert!(left.iter().all(is_ours), "{left:?}");
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_stops_nothing_and_is_told_once() {
    let (mock, proxy) = start(&["a", "b"], directed()).await;
    let path = proxy.home().join("state/state.db");
    let lock = Database::open(&path).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let response = turn(&proxy, "session-id: s\r\n", &user("to b")).await;
    for _ in 0..3 {
        assert_eq!(served_by(&mock, &proxy, "", &user("to a")).await, "a");
        assert_eq!(served_by(&mock, &proxy, "", &behind(&response)).await, "b", "memory knows");
    }
    lock.execute_batch("ROLLBACK").unwrap();
    until("the word that it goes again", || proxy.log().events("state_save_ok").count() == 1).await;
    let log = proxy.log();
    let errors: Vec<_> = log.events("state_save_error").map(|line| &line.fields["cause"]).collect();
    assert_eq!(errors, ["busy"]);
    let later = proxy.another().await;
    assert_eq!(served_by(&mock, &later, "", &user("to a")).await, "a");
    assert_eq!(served_by(&mock, &later, "", &behind(&response)).await, "b", "nothing is lost");
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_named_before_anything_listens() {
    let proxy = Setting::new(&["a"], Script::default()).start_at("http://127.0.0.1:9").await;
    let (sandbox, path) = (std::sync::Arc::clone(&proxy.sandbox), proxy.home().join("state/state.db"));
    proxy.stop().await;
    let serve = ["serve", "--upstream", "http://127.0.0.1:9"];
    for (text, part) in [(&b"my notes"[..], "is no database"), (b"SQLite format 3\0 no more", "is damaged")] {
        std::fs::write(&path, text).unwrap();
        let said = prodex(&sandbox, &serve).await;
        assert_eq!(code(&said), Some(3), "{}", said.stderr);
        assert!(said.stderr.contains(part) && said.stderr.contains("state.db"), "{}", said.stderr);
        assert!(said.stderr.contains("away"), "what to do: {}", said.stderr);
        assert_eq!(std::fs::read(&path).unwrap(), text, "it is left as it is");
    }
    std::fs::remove_file(&path).unwrap();
    let database = Database::open(&path).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let said = prodex(&sandbox, &serve).await;
    assert_eq!((code(&said), said.stderr.contains("of version 99")), (Some(3), true), "{}", said.stderr);
}

#[tokio::test]
async fn bindings_of_the_older_tool_come_with_its_accounts() {
    let sandbox = sandbox();
    let home = sandbox.root().join("peer");
    for id in ["a", "b"] {
        let directory = home.join("profiles").join(id);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("auth.json"), Account::new(id).auth_json().to_string()).unwrap();
    }
    let profile = |id: &str| json!({ "codex_home": home.join("profiles").join(id), "managed": true });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let bound = |id: &str, at: u64| json!({ "profile_name": id, "bound_at": at });
    let state = json!({
        "active_profile": "a",
        "profiles": { "a": profile("a"), "b": profile("b") },
        "response_profile_bindings": { "resp_old": bound("b", now - 60 * 24 * 3600), "resp_b": bound("b", now - 60) },
        "session_profile_bindings": { "thread": bound("b", now - 60) },
    });
    std::fs::write(home.join("state.json"), state.to_string()).unwrap();
    let import = ["profile", "import", home.to_str().unwrap()];
    let said = prodex(&sandbox, &import).await;
    assert_eq!(code(&said), Some(0), "{}", said.stderr);
    let learnt = "also learnt which profile owns which conversation: 2 ids\n";
    assert!(said.stdout.contains(learnt), "{}", said.stdout);
    let again = prodex(&sandbox, &import).await;
    assert_eq!((code(&again), again.stdout.contains("also learnt")), (Some(0), false), "{}", again.stdout);
    let mock = Mock::start(mock_upstream::Config::script(
        directed().account(Account::new("a")).account(Account::new("b")),
    ));
    let mock = mock.await.unwrap();
    let arguments = vec!["--upstream".to_owned(), mock.base_url().to_owned()];
    let proxy = Proxy::start(std::sync::Arc::new(sandbox), arguments).await;
    assert_eq!(served_by(&mock, &proxy, "", &user("x")).await, "a");
    assert_eq!(served_by(&mock, &proxy, "session-id: thread\r\n", &user("x")).await, "b");
}

#[tokio::test]
async fn several_proxies_may_begin_at_once() {
    let sandbox = sandbox();
    crate::rig::add_profile(&sandbox, "a", &Account::new("a").auth_json().to_string()).await;
    let sandbox = std::sync::Arc::new(sandbox);
    let arguments = || vec!["--upstream".to_owned(), "http://127.0.0.1:9".to_owned()];
    let begin = || Proxy::start(std::sync::Arc::clone(&sandbox), arguments());
    let (one, two, three, four) = tokio::join!(begin(), begin(), begin(), begin());
    for proxy in [one, two, three, four] {
        proxy.stop().await;
    }
}
