//! Tokens are renewed once for all who need it, and a 401 of the pool never reaches the client.

use mock_upstream::accounts::token::{Claims, access};
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{CallName, Http, Reply, Rule, Script, Turn};
use mock_upstream::{Account, Exchange, Mock};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::connection::{Connection, begin_turn, request, turn, user};
use crate::rig::{LIMIT, Proxy, Setting, asked, mode, start};
use crate::upstream::Upstream;

fn exchanges(mock: &Mock) -> usize {
    mock.journal().of(CallName::Token).len()
}

/// Eight turns at once on each of the proxies; all are served.
async fn eight_turns(proxies: &[&Proxy]) {
    let mut clients: Vec<Connection> = Vec::new();
    for _ in 0..8 {
        for proxy in proxies {
            clients.push(begin_turn(proxy, "", &user("x")).await);
        }
    }
    let mut turns = JoinSet::new();
    for mut client in clients {
        turns.spawn(async move { client.response().await.said() });
    }
    while let Some(said) = turns.join_next().await {
        assert_eq!(said.unwrap(), "Hello from the mock.");
    }
}

#[tokio::test]
async fn one_exchange_serves_eight_requests_and_changes_the_tokens_alone() {
    let account = Account::new("a").expired();
    let mut auth = account.auth_json();
    auth["agent_identity"] = json!({ "unknown": [1, null, "x"] });
    let mut script = Script::default();
    script.accounts.push(account);
    let (mock, proxy) = Setting::new(&[], script).profile("a", &auth).start().await;
    eight_turns(&[&proxy]).await;
    assert_eq!(exchanges(&mock), 1);
    let mut now = proxy.auth("a");
    for key in ["id_token", "access_token", "refresh_token"] {
        assert_ne!(now["tokens"][key], auth["tokens"][key], "{key}");
        now["tokens"][key] = auth["tokens"][key].clone();
    }
    assert_ne!(now["last_refresh"], auth["last_refresh"]);
    now["last_refresh"] = auth["last_refresh"].clone();
    assert_eq!(now, auth);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&now), keys(&auth), "their order stays, too");
    let directory = proxy.home().join("profiles/a");
    assert_eq!((mode(&directory), mode(&directory.join("auth.json"))), (0o700, 0o600));
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["auth.json", "auth.json.lock", "profile.toml"]);
    let log = proxy.stop().await;
    assert_eq!(log.events("profile_refresh_ok").count(), 1);
}

#[tokio::test]
async fn two_processes_with_one_expired_token_make_one_exchange() {
    let (mock, proxy) = start(&["a"], Script::default().account(Account::new("a").expired())).await;
    let another = proxy.another().await;
    eight_turns(&[&proxy, &another]).await;
    assert_eq!(exchanges(&mock), 1);
    let (one, two) = (proxy.stop().await, another.stop().await);
    let adopted = |log: &harness::run_log::RunLog| {
        let [line] = log.events("profile_refresh_ok").collect::<Vec<_>>().try_into().unwrap();
        line.fields["adopted"].as_bool().unwrap()
    };
    assert_ne!(adopted(&one), adopted(&two), "one renews and the other finds it done");
}

#[tokio::test]
async fn a_token_that_says_that_it_has_expired_is_renewed_before_it_is_sent() {
    let past = Claims { account: "a", plan: "plus", expires_at: 1_700_000_000 };
    let account = Account { access_token: Some(access(&past, 7)), ..Account::new("a").expired() };
    let (mock, proxy) = start(&["a"], Script::default().account(account)).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!((asked(&mock), exchanges(&mock)), (vec!["a".to_owned()], 1));
}

#[tokio::test]
async fn a_renewal_by_someone_else_is_adopted() {
    let (mock, proxy) = start(&["a"], Script::default()).await;
    mock.expire("a");
    let mut auth = proxy.auth("a");
    let body = json!({ "grant_type": "refresh_token", "refresh_token": auth["tokens"]["refresh_token"] });
    let mut client = Connection::open(mock.address().port()).await;
    let body = body.to_string();
    let head = format!("POST /oauth/token HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(head + &body).await;
    let granted = client.response().await.json();
    for key in ["id_token", "access_token", "refresh_token"] {
        auth["tokens"][key] = granted[key].clone();
    }
    std::fs::write(proxy.home().join("profiles/a/auth.json"), auth.to_string()).unwrap();
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(exchanges(&mock), 1, "the one that was made here");
    assert_eq!(proxy.auth("a"), auth);
}

#[tokio::test]
async fn a_login_that_is_no_longer_good_is_left_out_and_the_next_serves() {
    for refusal in [
        Http::json(400, json!({ "error": "invalid_grant" })),
        Http::json(401, json!({ "error": { "code": "refresh_token_expired", "message": "x" } })),
        Http::text(401, "<html>"),
    ] {
        let script = Script::rules([Rule::new(refusal).call(CallName::Token)]);
        let (mock, proxy) = start(&["a", "b"], script.account(Account::new("a").expired())).await;
        for _ in 0..3 {
            assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
        }
        let asked = asked(&mock);
        assert_eq!(asked[asked.len() - 3..], ["b", "b", "b"]);
        let log = proxy.stop().await;
        assert_eq!(log.events("profile_refresh_error").next().unwrap().fields["parked"], true);
    }
}

#[tokio::test]
async fn without_another_profile_the_client_is_told_who_must_log_in() {
    let script =
        Script::rules(
            [Rule::new(Http::json(400, json!({ "error": "invalid_grant" }))).call(CallName::Token)],
        );
    let (mock, proxy) = start(&["a"], script.account(Account::new("a").expired())).await;
    let mut asked_before = None;
    for _ in 0..2 {
        let response = turn(&proxy, "", &user("x")).await;
        assert_eq!(response.status(), 503, "never a 401, which would cost the client its own login");
        assert!(response.text().contains("a: its login is no longer good"), "{}", response.text());
        assert!(response.field("retry-after").is_some());
        let asked = (asked(&mock).len(), exchanges(&mock));
        assert_eq!(*asked_before.get_or_insert(asked), asked, "the second time it is known");
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_does_not_condemn_a_login() {
    let script = Script::rules([Rule::new(Http::text(500, "oops")).call(CallName::Token).times(2)]);
    let (mock, proxy) = start(&["a", "b"], script.account(Account::new("a").expired())).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    let log = proxy.stop().await;
    let error = log.events("profile_refresh_error").next().unwrap();
    assert_eq!(error.fields["parked"], false);
    assert!(error.fields["reason"].as_str().unwrap().contains("500"));
    assert_eq!((asked(&mock), exchanges(&mock)), (["a", "b"].map(str::to_owned).to_vec(), 2));
}

#[tokio::test]
async fn a_token_that_is_refused_although_it_is_new_moves_on() {
    let unauthorized = Http::json(401, json!({ "error": { "code": "token_invalidated" } }));
    let rules = [Rule::new(unauthorized).account("a")];
    let (mock, proxy) = start(&["a", "b"], Script::rules(rules.clone())).await;
    for _ in 0..2 {
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    }
    assert_eq!((asked(&mock), exchanges(&mock)), (["a", "a", "b", "b"].map(str::to_owned).to_vec(), 1));
    let (_mock, proxy) = start(&["a"], Script::rules(rules)).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 503, "never a 401");
}

#[tokio::test]
async fn a_renewal_outlives_the_request_that_began_it() {
    let pacing = Pacing { head_ms: 300, ..Pacing::default() };
    // A connection goes to the thread that has the fewest: with an idle one, to the second.
    for idle in [0, 1] {
        let slow = Rule::new(Reply::Default).call(CallName::Token).pacing(pacing);
        let script = Script::rules([slow]).account(Account::new("a").expired());
        let (mock, proxy) = Setting::new(&["a"], script).set("PRODEX_WORKERS", "2").start().await;
        let mut connections = Vec::new();
        for _ in 0..idle {
            connections.push(proxy.connect().await);
        }
        let before = proxy.auth("a");
        let client = begin_turn(&proxy, "", &user("x")).await;
        let asked = |all: &[Exchange]| all.iter().any(|exchange| exchange.call == CallName::Token);
        mock.journal().wait_for("the exchange", LIMIT, asked).await.unwrap();
        drop(client);
        // It even outlives the proxy's order to end.
        proxy.server.signal(Signal::SIGTERM);
        let (home, _sandbox) = (proxy.home(), std::sync::Arc::clone(&proxy.sandbox));
        proxy.ended().await;
        let now = std::fs::read_to_string(home.join("profiles/a/auth.json")).unwrap();
        let now: Value = serde_json::from_str(&now).unwrap();
        assert_ne!(now, before, "the new token is on disk, with {idle} idle connections");
        assert_eq!(exchanges(&mock), 1);
    }
}

#[tokio::test]
async fn the_exchange_shows_the_refresh_token_and_nothing_else() {
    let (mock, proxy) = start(&["a"], Script::default().account(Account::new("a").expired())).await;
    let before = proxy.auth("a");
    let fields = "authorization: Bearer own\r\ncookie: c\r\nsession-id: s\r\n";
    assert_eq!(turn(&proxy, fields, &user("x")).await.status(), 200);
    let [exchange] = mock.journal().of(CallName::Token).try_into().unwrap();
    let body = exchange.json();
    assert_eq!(body["refresh_token"], before["tokens"]["refresh_token"]);
    assert_eq!((&body["grant_type"], body.as_object().unwrap().len()), (&"refresh_token".into(), 3));
    let mut names: Vec<String> =
        exchange.headers().into_iter().map(|(name, _)| name.to_lowercase()).collect();
    names.sort();
    assert_eq!(names, ["accept", "content-length", "content-type", "host"]);
}

#[tokio::test]
async fn side_calls_renew_the_token_as_well() {
    let (mock, proxy) = start(&["a"], Script::default().account(Account::new("a").expired())).await;
    let own = "authorization: Bearer own\r\nchatgpt-account-id: own\r\n";
    let response = request(&proxy, "GET", "/backend-api/wham/usage", own, b"").await;
    assert_eq!((response.status(), exchanges(&mock)), (200, 1));
}

#[tokio::test]
async fn a_401_to_a_call_without_a_login_is_not_the_accounts_fault() {
    let refusing = Rule::new(Http::json(401, json!({ "detail": "no login" }))).call(CallName::Mcp);
    let rules = Script::rules([refusing, Rule::new(Turn::text("served"))]);
    let (mock, proxy) = Setting::new(&["one"], rules).start().await;
    let response = request(&proxy, "POST", "/backend-api/ps/mcp", "", b"{}").await;
    assert_eq!(response.status(), 401, "{}", response.text());
    assert_eq!(response.json(), json!({ "detail": "no login" }));
    assert_eq!(mock.journal().of(CallName::Mcp).len(), 1);
    assert!(mock.journal().of(CallName::Token).is_empty());
    assert_eq!(turn(&proxy, "", &user("x")).await.said(), "served");
}

/// Answers the next request, which must come with this token, with a status.
async fn answer(upstream: &Upstream, token: &str, status: &str) -> Connection {
    let reply = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
    let (connection, request) = upstream.answer(reply).await;
    assert_eq!(request.field("authorization"), Some(&*format!("Bearer {token}")));
    connection
}

#[tokio::test]
async fn a_late_401_to_an_old_token_finds_the_new_one() {
    let upstream = Upstream::start().await;
    let auth = json!({ "tokens": { "access_token": "old", "refresh_token": "r", "account_id": "a" } });
    let setting = Setting::new(&[], Script::default()).profile("a", &auth);
    let proxy = setting.start_at(upstream.url()).await;
    let mut late = begin_turn(&proxy, "", "{}").await;
    let (mut late_upstream, _) = upstream.accept().await;
    let mut early = begin_turn(&proxy, "", "{}").await;
    answer(&upstream, "old", "401 Unauthorized").await;
    let (mut token, request) = upstream.accept().await;
    assert!(request.head.starts_with("POST /oauth/token "), "{}", request.head);
    let grant = json!({ "access_token": "new", "refresh_token": "r2" }).to_string();
    token.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{grant}", grant.len())).await;
    answer(&upstream, "new", "200 OK").await;
    assert_eq!(early.response().await.status(), 200);
    late_upstream.send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    // The token that was refused is the old one: there is nothing to renew.
    answer(&upstream, "new", "200 OK").await;
    assert_eq!(late.response().await.status(), 200);
}

#[tokio::test]
async fn a_refresh_token_that_was_rejected_is_not_sent_again() {
    let rejected = Http::json(400, json!({ "error": "invalid_grant" }));
    let script = Script::rules([Rule::new(rejected).call(CallName::Token)]);
    let script = script.account(Account::new("a").expired());
    let (mock, proxy) = Setting::new(&["a", "b"], script).start().await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(mock.journal().of(CallName::Token).len(), 1);
}

#[tokio::test]
async fn an_api_key_that_was_refused_once_is_tried_again_later() {
    let refused = Rule::new(Http::json(401, json!({ "error": { "code": "invalid_api_key" } }))).times(1);
    let key = format!("sk-{}", "k".repeat(30));
    let script = Script::rules([refused]).account(Account::new("one").api_key(&key));
    let (mock, proxy) = Setting::new(&[], script).key("key", &key).start().await;
    let ask = || request(&proxy, "POST", "/v1/responses", "", b"{}");
    let first = ask().await;
    assert_eq!(first.status(), 503);
    let (text, today) = (first.text(), jiff::Timestamp::now().strftime("%Y-").to_string());
    assert!(
        text.contains(&format!("key refused and is left out until {today}")),
        "who, and when it is back: {text}"
    );
    let second = ask().await;
    assert_eq!((second.status(), asked(&mock).len()), (200, 2), "{}", second.text());
}

#[tokio::test]
async fn a_new_login_on_disk_brings_a_parked_profile_back() {
    let rejected = Rule::new(Http::json(400, json!({ "error": "invalid_grant" }))).call(CallName::Token);
    let script = Script::rules([rejected]).account(Account::new("a").expired());
    let (mock, proxy) = Setting::new(&["a"], script).start().await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 503);
    let mut auth = Account::new("a").auth_json();
    auth["tokens"]["access_token"] = "another".into();
    mock.set_script(
        Script::default().account(Account { access_token: Some("another".into()), ..Account::new("a") }),
    )
    .unwrap();
    std::fs::write(proxy.home().join("profiles/a/auth.json"), auth.to_string()).unwrap();
    // The disk is looked at now and then.
    let serves = async { while turn(&proxy, "", &user("x")).await.status() != 200 {} };
    tokio::time::timeout(LIMIT, serves).await.unwrap();
}
