//! Eight proxies of one home and one login: one exchange serves them all, whoever of them is killed.

use mock_upstream::accounts::token::{Claims, access};
use mock_upstream::pacing::{Pacing, WriteSize};
use mock_upstream::script::{CallName, Http, Reply, Rule, Script};
use mock_upstream::{Account, Exchange, Mock};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::connection::{Connection, begin_turn, turn, user};
use crate::rig::{LIMIT, Proxy, Setting, asked, start, until};

/// Longer than any test waits.
const FOR_EVER: Pacing =
    Pacing { head_ms: 600_000, first_event_ms: 0, gap_ms: 0, jitter_ms: 0, write: WriteSize::Event };

fn exchanges(mock: &Mock) -> usize {
    mock.journal().of(CallName::Token).len()
}

async fn exchange_has_begun(mock: &Mock) {
    let begun = |all: &[Exchange]| all.iter().any(|exchange| exchange.call == CallName::Token);
    mock.journal().wait_for("an exchange", LIMIT, begun).await.unwrap();
}

/// Eight proxies of one home, whose one login has expired at the upstream.
async fn eight(script: Script) -> (Mock, Vec<Proxy>) {
    let (mock, first) = start(&["a"], script.account(Account::new("a").expired())).await;
    let mut all = vec![first];
    while all.len() < 8 {
        let another = all[0].another().await;
        all.push(another);
    }
    (mock, all)
}

/// Begins a turn at each of the proxies.
async fn begin_turns(proxies: &[Proxy]) -> Vec<Connection> {
    let mut clients = Vec::new();
    for proxy in proxies {
        clients.push(begin_turn(proxy, "", &user("x")).await);
    }
    clients
}

/// Begins a turn at the first proxy, whose exchange keeps the others waiting, and then at those.
async fn begin_behind_the_first(mock: &Mock, proxies: &[Proxy]) -> Vec<Connection> {
    let mut clients = begin_turns(&proxies[..1]).await;
    exchange_has_begun(mock).await;
    clients.extend(begin_turns(&proxies[1..]).await);
    // The others have been told that the token is not good, and wait for the lease.
    let refused = |all: &[Exchange]| {
        let turns = all.iter().filter(|exchange| exchange.call == CallName::Responses);
        turns.filter(|exchange| exchange.end.is_some()).count() == 8
    };
    mock.journal().wait_for("eight refused turns", LIMIT, refused).await.unwrap();
    clients
}

async fn kill(mut proxy: Proxy) {
    proxy.server.signal(Signal::SIGKILL);
    proxy.server.wait(LIMIT).await.unwrap().expect("it is dead");
}

#[tokio::test]
async fn eight_processes_with_one_expired_token_make_one_exchange() {
    let (mock, proxies) = eight(Script::default()).await;
    for mut client in begin_turns(&proxies).await {
        assert_eq!(client.response().await.said(), "Hello from the mock.");
    }
    assert_eq!(exchanges(&mock), 1);
    let mut adopted = Vec::new();
    for proxy in proxies {
        let log = proxy.stop().await;
        adopted.extend(log.events("profile_refresh_ok").map(|line| line.fields["adopted"].clone()));
        assert_eq!(log.events("profile_refresh_error").count(), 0);
    }
    assert_eq!(adopted.iter().filter(|adopted| **adopted == false).count(), 1, "{adopted:?}");
    assert_eq!(adopted.len(), 8, "the others find it done");
}

#[tokio::test]
async fn a_process_that_is_killed_before_the_endpoint_has_acted_costs_nothing() {
    let lost = Rule::new(Http::status(503)).call(CallName::Token).pacing(FOR_EVER).times(1);
    let (mock, mut proxies) = eight(Script::rules([lost])).await;
    let clients = begin_behind_the_first(&mock, &proxies).await;
    kill(proxies.remove(0)).await;
    for mut client in clients.into_iter().skip(1) {
        assert_eq!(client.response().await.said(), "Hello from the mock.");
    }
    assert_eq!(exchanges(&mock), 2, "the one that was lost, and one for the seven others");
}

#[tokio::test]
async fn a_process_that_is_killed_with_the_answer_on_its_way_costs_the_login_and_no_more() {
    // The endpoint has taken the token, and its answer comes to nobody.
    let lost = Rule::new(Reply::Default).call(CallName::Token).pacing(FOR_EVER).times(1);
    let (mock, mut proxies) = eight(Script::rules([lost])).await;
    let clients = begin_behind_the_first(&mock, &proxies).await;
    kill(proxies.remove(0)).await;
    for mut client in clients.into_iter().skip(1) {
        let response = client.response().await;
        let text = response.text();
        assert_eq!(response.status(), 503, "never a 401: {text}");
        assert!(text.contains("(refresh_token_reused)") && text.contains("`prodex login`"), "{text}");
    }
    assert_eq!(exchanges(&mock), 2, "a spent token is sent once more, and not by each of the seven");
    // A new login brings all of them back.
    let fresh = Account { access_token: Some(access(&claims(4_102_444_800), 9)), ..Account::new("a") };
    mock.set_script(Script::default().account(fresh.clone())).unwrap();
    std::fs::write(proxies[0].home().join("profiles/a/auth.json"), fresh.auth_json().to_string()).unwrap();
    for proxy in &proxies {
        let serves = async { while turn(proxy, "", &user("x")).await.status() != 200 {} };
        tokio::time::timeout(LIMIT, serves).await.unwrap();
    }
}

#[tokio::test]
async fn a_process_that_is_killed_after_its_exchange_leaves_a_good_token() {
    let (mock, mut proxies) = eight(Script::default()).await;
    let first = proxies.remove(0);
    let before = first.auth("a");
    let _client = begin_turn(&first, "", &user("x")).await;
    until("the new token is on disk", || first.auth("a") != before).await;
    kill(first).await;
    for mut client in begin_turns(&proxies).await {
        assert_eq!(client.response().await.said(), "Hello from the mock.");
    }
    assert_eq!(exchanges(&mock), 1);
}

fn claims(expires_at: i64) -> Claims<'static> {
    Claims { account: "a", plan: "plus", expires_at }
}

/// An account whose first access token says that it expires in so many seconds.
fn expiring(seconds: i64) -> Account {
    let at = jiff::Timestamp::now().as_second() + seconds;
    Account { access_token: Some(access(&claims(at), 7)), ..Account::new("a") }
}

#[tokio::test]
async fn no_request_waits_for_a_token_that_is_still_good() {
    let slow = Rule::new(Reply::Default).call(CallName::Token).pacing(FOR_EVER);
    let (mock, proxy) = start(&["a"], Script::rules([slow]).account(expiring(120))).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    exchange_has_begun(&mock).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(exchanges(&mock), 1);
}

#[tokio::test]
async fn a_profile_that_is_used_up_keeps_its_token_good() {
    let script = Script::default().account(expiring(120).turns_left(0));
    let (mock, proxy) = Setting::new(&["a", "b"], script).start().await;
    let before = proxy.auth("a");
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    until("its token is renewed", || proxy.auth("a") != before).await;
    assert_eq!((asked(&mock), exchanges(&mock)), (vec!["a".to_owned(), "b".to_owned()], 1));
}

#[tokio::test]
async fn a_rotation_that_the_client_writes_is_adopted_by_all() {
    let (mock, proxies) = eight(Script::default()).await;
    // As Codex does it: the exchange with the file's own token, and the file written in place.
    let mut auth = proxies[0].auth("a");
    let body = json!({ "grant_type": "refresh_token", "refresh_token": auth["tokens"]["refresh_token"] });
    let body = body.to_string();
    let mut client = Connection::open(mock.address().port()).await;
    let head = format!("POST /oauth/token HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(head + &body).await;
    let granted: Value = client.response().await.json();
    for key in ["id_token", "access_token", "refresh_token"] {
        auth["tokens"][key] = granted[key].clone();
    }
    std::fs::write(proxies[0].home().join("profiles/a/auth.json"), auth.to_string()).unwrap();
    for mut client in begin_turns(&proxies).await {
        assert_eq!(client.response().await.said(), "Hello from the mock.");
    }
    assert_eq!(exchanges(&mock), 1, "the client's own");
    assert_eq!(proxies[0].auth("a"), auth);
}
