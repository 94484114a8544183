//! Who serves when something is wrong: with an account, with an upstream; and how `prodex why` tells it.

use mock_upstream::script::{Http, Rule, Script, Turn};
use mock_upstream::{Account, Config, Mock};
use serde_json::{Value, json};

use crate::connection::{begin_turn, request, turn, user};
use crate::rig::{Proxy, Setting, asked, code, prodex, sandbox, start, until};
use crate::socket::{Socket, create};

/// Starts a mock where none listens yet.
async fn start_at(port: u16, accounts: &[&str]) -> Mock {
    let mut script = Script::default();
    for account in accounts {
        script = script.account(Account::new(*account));
    }
    let listen = ([127, 0, 0, 1], port).into();
    Mock::start(Config { listen, ..Config::script(script) }).await.unwrap()
}

/// How many events of a name the log has so far.
fn count(proxy: &Proxy, event: &str) -> usize {
    proxy.log().events(event).count()
}

#[tokio::test]
async fn a_turn_waits_for_an_upstream_that_comes_back() {
    let port = harness::sandbox::free_port().unwrap();
    let proxy =
        Setting::new(&["a", "b"], Script::default()).start_at(&format!("http://127.0.0.1:{port}")).await;
    let mut client = begin_turn(&proxy, "session-id: s\r\n", &user("x")).await;
    until("its host is known to fail", || count(&proxy, "profile_transport_backoff") > 0).await;
    let mock = start_at(port, &["a", "b"]).await;
    assert_eq!(client.response().await.said(), "Hello from the mock.");
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(asked(&mock), ["a", "a"], "no account is to blame");
    let log = proxy.stop().await;
    for blame in ["profile_retry_backoff", "profile_circuit_open", "profile_quota_quarantine"] {
        assert_eq!(log.events(blame).count(), 0, "{blame}");
    }
}

#[tokio::test]
async fn an_outage_is_over_with_the_next_request() {
    let port = harness::sandbox::free_port().unwrap();
    let proxy =
        Setting::new(&["a", "b"], Script::default()).start_at(&format!("http://127.0.0.1:{port}")).await;
    // The circuit of the peer was open for up to 320 s after that.
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(begin_turn(&proxy, "", &user("x")).await);
    }
    for mut client in clients {
        let response = client.response().await;
        assert_eq!(response.status(), 503, "{}", response.text());
        assert!(response.field("retry-after").is_some());
    }
    let side = request(&proxy, "GET", "/backend-api/wham/usage", "authorization: Bearer x\r\n", b"").await;
    assert_eq!(side.status(), 503, "what a turn does not need does not wait");
    let mock = start_at(port, &["a", "b"]).await;
    // As long as anybody waits at most: a client that was told 503 comes back by itself.
    let served = async { while turn(&proxy, "", &user("x")).await.status() != 200 {} };
    tokio::time::timeout(std::time::Duration::from_secs(8), served).await.unwrap();
    assert_eq!(asked(&mock), ["a"], "the current profile is still the current one");
}

#[tokio::test]
async fn what_one_account_cannot_serve_an_idle_one_does() {
    // The peer passed these on while healthy accounts were idle.
    for refusal in [
        Http::json(401, json!({ "error": { "code": "token_invalidated" } })),
        Http::text(401, "<html>"),
        Http::json(503, json!({ "error": { "code": "server_is_overloaded" } })),
    ] {
        let rules = [Rule::new(refusal).account("a"), Rule::new(Turn::text("served"))];
        let (_mock, proxy) = start(&["a", "b"], Script::rules(rules)).await;
        for _ in 0..2 {
            assert_eq!(turn(&proxy, "", &user("x")).await.said(), "served");
        }
    }
}

#[tokio::test]
async fn a_route_that_is_refused_is_left_alone_and_the_others_are_not() {
    let closed = Http::json(403, json!({ "error": { "code": "account_deactivated" } }));
    let refusing = Rule::new(closed).account("a").call(mock_upstream::script::CallName::Compact);
    let (mock, proxy) = start(&["a", "b"], Script::rules([refusing])).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    let path = format!("{}/compact", crate::connection::TURN);
    for _ in 0..2 {
        assert_eq!(request(&proxy, "POST", &path, "", user("x").as_bytes()).await.status(), 200);
    }
    let compacts = mock.journal().of(mock_upstream::script::CallName::Compact);
    let compacts: Vec<_> = compacts.into_iter().filter_map(|call| call.account).collect();
    assert_eq!(compacts, ["a".into(), "b".into(), "b".into()]);
    // The compaction made `b` the current one; `a` still serves what it owns.
    let log = proxy.stop().await;
    let open = log.events("profile_circuit_open").next().unwrap();
    assert_eq!((&open.fields["profile"], &open.fields["route"]), (&"a".into(), &"compact".into()));
    let pairing = log.events("profile_bad_pairing").next().unwrap();
    assert_eq!(pairing.fields["serves"], "responses");
}

/// What `prodex why --json` says.
pub(crate) async fn why(proxy: &Proxy, arguments: &[&str]) -> Value {
    let finished = prodex(&proxy.sandbox, &[&["why", "--json"], arguments].concat()).await;
    assert_eq!((code(&finished), finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

#[tokio::test]
async fn why_chooses_again_what_the_proxy_chose() {
    let closed = Http::json(402, json!({ "detail": { "code": "deactivated_workspace" } }));
    let script = Script::rules([Rule::new(closed).account("b")]);
    let script = script.account(Account::new("a").turns_left(2));
    let (_mock, proxy) = start(&["a", "b", "c"], script).await;
    for session in ["one", "one", "one", "two", "one"] {
        assert_eq!(turn(&proxy, &format!("session-id: {session}\r\n"), &user("x")).await.status(), 200);
    }
    let mut socket = Socket::open(&proxy, &[("session-id", "three")]).await.unwrap();
    for _ in 0..2 {
        socket.turn(&create("x")).await;
    }
    drop(socket);
    // Lines are gathered for a moment before they are written.
    until("the log has all turns", || count(&proxy, "profile_commit") >= 7).await;
    let last = why(&proxy, &["last"]).await["request"].as_u64().unwrap();
    let mut rotations = 0;
    for number in 1..=last {
        let told = why(&proxy, &[&number.to_string()]).await;
        assert_eq!((&told["version"], &told["request"]), (&1.into(), &number.into()));
        let decisions = told["decisions"].as_array().unwrap();
        assert!(decisions.iter().all(|decision| decision["agrees"] == true), "{told:#}");
        rotations += decisions.len() - 1;
    }
    assert_eq!(rotations, 2, "`a` was used up, and `b` refused");
    let third = why(&proxy, &["3", "--what-if", "exhausted=a", "--what-if", "pause=b"]).await;
    assert_eq!(third["decisions"][0]["choice"], json!({ "profile": "a", "reason": "session" }));
    assert_eq!(third["what_if"]["choice"], json!({ "profile": "c", "reason": "ranked" }));
    let [first, .., moved] = &third["decisions"].as_array().unwrap()[..] else { panic!("{third:#}") };
    assert_eq!((&first["owner"]["profile"], &moved["choice"]["profile"]), (&"a".into(), &"c".into()));
    let pid = proxy.server.pid().to_string();
    assert_eq!(why(&proxy, &["1", "--pid", &pid]).await, why(&proxy, &["1"]).await);
    let page = prodex(&proxy.sandbox, &["why", "3"]).await.stdout;
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    assert!(page.contains("Chosen: a, because it owns the session of the request."), "{page}");
    let missing = prodex(&proxy.sandbox, &["why", "999"]).await;
    let expected = format!(
        "the log does not tell of request 999; it has requests 1 to {last}; `prodex why last` tells of the last"
    );
    assert_eq!((code(&missing), missing.stderr.trim()), (Some(1), &*format!("prodex: {expected}")));
}

#[tokio::test]
async fn why_knows_the_owner_of_a_thread() {
    let (_mock, proxy) = start(&["a", "b"], Script::default()).await;
    for _ in 0..2 {
        assert_eq!(turn(&proxy, "session-id: s\r\nthread-id: t\r\n", &user("x")).await.status(), 200);
    }
    until("the log has both turns", || count(&proxy, "profile_commit") >= 2).await;
    let last = why(&proxy, &["last"]).await;
    assert_eq!(last["decisions"][0]["choice"], json!({ "profile": "a", "reason": "thread" }));
    assert_eq!(last["decisions"][0]["agrees"], true);
    let page = prodex(&proxy.sandbox, &["why", "last"]).await.stdout;
    assert!(page.contains("Chosen: a, because it owns the thread of the request."), "{page}");
}

#[tokio::test]
async fn why_says_what_it_needs() {
    let sandbox = sandbox();
    for (arguments, expected, says) in [
        (&["why", "last"][..], 3, "no run log"),
        (&["why", "last", "--log", "nowhere.jsonl"], 3, "nowhere.jsonl"),
        (&["why", "last", "--pid", "1"], 3, "no run log"),
        (&["why", "first"], 2, "or `last`"),
        (&["why", "last", "--what-if", "stop=a"], 2, "remaining=NAME:PERCENT"),
    ] {
        let finished = prodex(&sandbox, arguments).await;
        assert_eq!(code(&finished), Some(expected), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(says), "{arguments:?}: {}", finished.stderr);
    }
}
