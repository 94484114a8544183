//! A conversation stays with the account that owns it, and moves only with its full history.

use mock_upstream::script::{Http, Item, Rule, Script, Turn};
use mock_upstream::{Account, Exchange, Mock};
use serde_json::{Value, json};

use crate::connection::{Response, turn, user};
use crate::rig::{LIMIT, Setting, asked, finished, start};

async fn assert_honest(mock: &Mock) {
    let all = mock.journal().exchanges();
    let violations: Vec<_> = all.iter().flat_map(|exchange| &exchange.violations).collect();
    assert!(violations.is_empty(), "{violations:?}");
}

fn turn_state(response: &Response) -> String {
    format!("x-codex-turn-state: {}\r\n", response.field("x-codex-turn-state").unwrap())
}

/// Rules by which a turn with the text `to b` is served by `b`, and so on: those before it have no
/// capacity for it, which leaves no trace.
fn directed() -> Script {
    let busy = || Http::json(503, json!({ "error": { "code": "server_is_overloaded" } }));
    Script::rules([
        Rule::new(busy()).account("a").user_text("to b"),
        Rule::new(busy()).account("a").user_text("to c"),
        Rule::new(busy()).account("b").user_text("to c"),
    ])
}

#[tokio::test]
async fn the_owner_is_found_by_response_then_turn_state_then_session() {
    let (mock, proxy) = start(&["a", "b", "c"], directed()).await;
    let ask = async |fields: &str, body: &str| {
        let response = turn(&proxy, fields, body).await;
        assert_eq!(response.status(), 200, "{}", response.text());
        (response, finished(&mock).await.account.unwrap().to_string())
    };
    let (by_a, account) = ask("", &user("to a")).await;
    assert_eq!(account, "a");
    let text = by_a.text();
    let created = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let response: Value = serde_json::from_str(created).unwrap();
    let (by_b, account) = ask("", &user("to b")).await;
    assert_eq!(account, "b");
    let (_, account) = ask("session-id: sc\r\n", &user("to c")).await;
    assert_eq!(account, "c");
    let mut body: Value = serde_json::from_str(&user("x")).unwrap();
    body["previous_response_id"] = response["response"]["id"].clone();
    let all = format!("{}session-id: sc\r\n", turn_state(&by_b));
    // Each is bound anew by what it is part of, so the strongest is asked for last.
    assert_eq!(ask("session-id: sc\r\n", &user("x")).await.1, "c");
    assert_eq!(ask(&all, &user("x")).await.1, "b");
    assert_eq!(ask(&all, &body.to_string()).await.1, "a");
    assert_honest(&mock).await;
}

#[tokio::test]
async fn a_conversation_stays_where_it_is_while_others_move_on() {
    let (mock, proxy) = start(&["a", "b"], directed()).await;
    for fields in ["session-id: s\r\n", "session_id: s2\r\n", "conversation_id: s3\r\n"] {
        turn(&proxy, fields, &user("to b")).await;
        turn(&proxy, "session-id: other\r\n", &user("x")).await;
        turn(&proxy, fields, &user("x")).await;
        assert_eq!(finished(&mock).await.account.as_deref(), Some("b"), "{fields}");
    }
    // Without such a field the key of the prompt cache names the conversation.
    let keyed = |text: &str| user(text).replacen('{', "{\"prompt_cache_key\":\"thread\",", 1);
    turn(&proxy, "", &keyed("to b")).await;
    turn(&proxy, "session-id: fresh\r\n", &user("x")).await;
    turn(&proxy, "", &keyed("x")).await;
    assert_eq!(finished(&mock).await.account.as_deref(), Some("b"));
}

#[tokio::test]
async fn the_turn_state_of_one_account_is_not_shown_to_another() {
    let script = Script::default().account(Account::new("a").turns_left(2));
    let (mock, proxy) = start(&["a", "b"], script).await;
    let first = turn(&proxy, "session-id: s\r\n", &user("1")).await;
    let fields = format!("session-id: s\r\n{}", turn_state(&first));
    assert_eq!(turn(&proxy, &fields, &user("2")).await.status(), 200);
    let with_state = |turn: &Exchange| turn.header("x-codex-turn-state").is_some();
    assert!(with_state(&finished(&mock).await), "its own account sees it");
    let moved = turn(&proxy, &fields, &user("3")).await;
    assert_eq!(moved.status(), 200);
    let turns = mock.journal().responses();
    let shown: Vec<_> =
        turns.iter().map(|turn| (turn.account.as_deref().unwrap(), with_state(turn))).collect();
    assert_eq!(shown, [("a", false), ("a", true), ("a", true), ("b", false)]);
    assert_honest(&mock).await;
    // The client keeps the first turn state of a turn; that of the new account arrives all the same.
    assert_ne!(turn_state(&moved), turn_state(&first));
    assert_eq!(turn(&proxy, &fields, &user("4")).await.status(), 200);
    assert_eq!(finished(&mock).await.account.as_deref(), Some("b"));
    assert_honest(&mock).await;
}

#[tokio::test]
async fn a_turn_that_has_moved_stays_where_it_is_now() {
    let (mock, proxy) = start(&["a", "b", "c"], directed()).await;
    let first = turn(&proxy, "thread-id: t\r\n", &user("x")).await;
    // The client keeps the first turn state of a turn.
    let fields = format!("thread-id: t\r\n{}", turn_state(&first));
    for text in ["to b", "x", "x"] {
        assert_eq!(turn(&proxy, &fields, &user(text)).await.status(), 200);
    }
    assert_eq!(asked(&mock), ["a", "a", "b", "b", "b"], "the issuer of the turn state has it no longer");
    assert_honest(&mock).await;
}

/// A turn whose history holds something that only its account can read.
fn with_encrypted(response: &Response) -> String {
    let text = response.text();
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let mut events = events.map(|event| serde_json::from_str::<Value>(event).unwrap());
    let done = |event: &Value| event["type"] == "response.output_item.done";
    let item = events.find(done).unwrap()["item"].clone();
    assert!(item["encrypted_content"].is_string());
    let mut body: Value = serde_json::from_str(&user("again")).unwrap();
    body["input"].as_array_mut().unwrap().insert(0, item);
    body.to_string()
}

#[tokio::test]
async fn what_only_its_account_can_read_does_not_move() {
    let account = Account::new("a").turns_left(1);
    let script = Script::rules([Rule::new(Turn::of([Item::Reasoning("hm".into())]))]).account(account);
    let (mock, proxy) = start(&["a", "b"], script).await;
    let first = turn(&proxy, "session-id: s\r\n", &user("x")).await;
    let body = with_encrypted(&first);
    for _ in 0..2 {
        let refused = turn(&proxy, "session-id: s\r\n", &body).await;
        let answer = finished(&mock).await.answer.unwrap();
        assert_eq!(refused.status(), 429);
        assert_eq!((refused.head.as_bytes(), &refused.body), (&answer.head[..], &answer.body));
    }
    assert_eq!(asked(&mock), ["a", "a", "a"], "the owner is asked, and nobody else");
    // Compressed, as Codex sends it, it is seen as well.
    let zstd = zstd::encode_all(body.as_bytes(), 3).unwrap();
    let fields = "session-id: s\r\ncontent-encoding: zstd\r\n";
    let refused = crate::connection::request(&proxy, "POST", crate::connection::TURN, fields, &zstd).await;
    assert_eq!((refused.status(), asked(&mock).len()), (429, 4));
    // A fresh conversation goes elsewhere, and this one comes back.
    turn(&proxy, "", &user("fresh")).await;
    assert_eq!(finished(&mock).await.account.as_deref(), Some("b"));
    mock.set_turns_left("a", None);
    assert_eq!(turn(&proxy, "session-id: s\r\n", &body).await.status(), 200);
    assert_eq!(finished(&mock).await.account.as_deref(), Some("a"));
    assert_honest(&mock).await;
    assert_eq!(proxy.stop().await.events("continuation_migrated").count(), 0);
}

#[tokio::test]
async fn an_owner_whose_login_is_gone_is_named() {
    let account = Account::new("a");
    let script = Script::rules([Rule::new(Turn::of([Item::Reasoning("hm".into())]))]).account(account);
    let (mock, proxy) = start(&["a", "b"], script).await;
    let first = turn(&proxy, "session-id: s\r\n", &user("x")).await;
    mock.expire("a");
    let revoked = Http::json(400, json!({ "error": "invalid_grant" }));
    mock.set_rules(vec![Rule::new(revoked).call(mock_upstream::script::CallName::Token)]).unwrap();
    let refused = turn(&proxy, "session-id: s\r\n", &with_encrypted(&first)).await;
    assert_eq!(refused.status(), 503);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("belongs to profile a") && message.contains("log in again"), "{message}");
    // Without anything that only it can read the conversation goes on elsewhere.
    assert_eq!(turn(&proxy, "session-id: s\r\n", &user("x")).await.status(), 200);
    assert_eq!(finished(&mock).await.account.as_deref(), Some("b"));
}

#[tokio::test]
async fn a_response_that_nobody_here_owns_is_the_upstreams_to_refuse() {
    let (mock, proxy) = start(&["a", "b"], Script::default()).await;
    let body = user("x").replacen('{', "{\"previous_response_id\":\"resp_unknown\",", 1);
    let response = turn(&proxy, "", &body).await;
    assert_eq!((response.status(), asked(&mock).len()), (400, 1));
    assert_eq!(response.json()["error"]["code"], "previous_response_not_found");
}

#[tokio::test]
async fn fresh_conversations_begin_with_the_profile_that_was_chosen() {
    let setting = Setting::new(&["a", "b"], Script::default());
    let (mock, proxy) = setting.start().await;
    assert_eq!(
        crate::rig::code(&crate::rig::prodex(&proxy.sandbox, &["profile", "use", "b"]).await),
        Some(0)
    );
    let another = proxy.another().await;
    turn(&another, "", &user("x")).await;
    assert_eq!(finished(&mock).await.account.as_deref(), Some("b"));
    let settled = |all: &[Exchange]| all.iter().all(|exchange| exchange.end.is_some());
    mock.journal().wait_for("the end", LIMIT, settled).await.unwrap();
}
