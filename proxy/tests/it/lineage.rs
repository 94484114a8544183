//! What only one account can use goes to that account: encrypted items, compactions, responses, turn states.

use mock_upstream::pacing::Pacing;
use mock_upstream::script::{CallName, Continuation, Http, Item, Rule, Script, Turn};
use mock_upstream::{Account, Mock};
use serde_json::{Value, json};

use crate::connection::{Response, TURN, request, turn, user};
use crate::rig::{Setting, asked, code, finished, prodex, start};
use crate::socket::{Socket, create, create_behind, response_id, said};

/// An upstream that thinks in secret before it answers, and whose `a` has no capacity for the text `to b`,
/// which leaves no trace.
fn secretive() -> Script {
    let busy = Http::json(503, json!({ "error": { "code": "server_is_overloaded" } }));
    let thinks = Turn::of([Item::Reasoning("hm".into()), Item::Text("Done.".into())]);
    Script::rules([Rule::new(busy).account("a").user_text("to b"), Rule::new(thinks).user_text("think")])
}

fn assert_honest(mock: &Mock) {
    let all = mock.journal().exchanges();
    let violations: Vec<_> = all.iter().flat_map(|exchange| &exchange.violations).collect();
    assert!(violations.is_empty(), "{violations:?}");
}

/// The whole items among these events.
fn items(events: &[Value]) -> Vec<Value> {
    let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
    done.map(|event| event["item"].clone()).collect()
}

fn items_of(response: &Response) -> Vec<Value> {
    let text = response.text();
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    items(&events.map(|event| serde_json::from_str(event).unwrap()).collect::<Vec<_>>())
}

/// A request with these items before what the user says.
fn behind(mut request: Value, history: &[Value]) -> Value {
    let input = request["input"].as_array_mut().unwrap();
    input.splice(0..0, history.iter().cloned());
    request
}

fn body(text: &str, history: &[Value]) -> String {
    behind(serde_json::from_str(&user(text)).unwrap(), history).to_string()
}

/// The account that served the last turn.
async fn server(mock: &Mock) -> String {
    finished(mock).await.account.unwrap().to_string()
}

fn message_of(refused: &Response) -> String {
    refused.json()["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_encrypted_item_goes_to_its_account_wherever_the_session_is() {
    let (mock, proxy) = start(&["a", "b"], secretive()).await;
    let first = turn(&proxy, "session-id: s\r\n", &user("think")).await;
    let history = items_of(&first);
    assert!(history[0]["encrypted_content"].is_string(), "{history:?}");
    // A sub-agent that holds nothing of anybody moves the session, and its parent stays.
    turn(&proxy, "session-id: s\r\nthread-id: t2\r\n", &user("to b")).await;
    assert_eq!(server(&mock).await, "b");
    turn(&proxy, "session-id: s\r\n", &user("x")).await;
    assert_eq!(server(&mock).await, "b");
    for fields in ["session-id: s\r\n", ""] {
        assert_eq!(turn(&proxy, fields, &body("x", &history)).await.status(), 200);
        assert_eq!(server(&mock).await, "a", "{fields}");
    }
    assert_honest(&mock);
}

#[tokio::test]
async fn a_thread_goes_before_the_session_that_it_shares() {
    let (mock, proxy) = start(&["a", "b"], secretive()).await;
    let ask = async |thread: &str, text: &str| {
        let fields = format!("session-id: s\r\nthread-id: {thread}\r\n");
        assert_eq!(turn(&proxy, &fields, &user(text)).await.status(), 200);
        server(&mock).await
    };
    assert_eq!(ask("parent", "x").await, "a");
    assert_eq!(ask("child", "to b").await, "b");
    assert_eq!(ask("parent", "x").await, "a");
    assert_eq!(ask("child", "x").await, "b");
    assert_eq!(ask("another", "x").await, "b", "a new thread begins where its session was last");
    // Without the fields, the metadata of the body names them.
    let metadata = json!({ "session_id": "s", "thread_id": "parent" });
    let mut named: Value = serde_json::from_str(&user("x")).unwrap();
    named["client_metadata"] = metadata;
    turn(&proxy, "", &named.to_string()).await;
    assert_eq!(server(&mock).await, "a");
}

#[tokio::test]
async fn sub_agents_that_begin_at_the_same_time_share_an_account() {
    let (mock, proxy) = start(&["a", "b", "c"], Script::default()).await;
    let socket = async |thread: &'static str| {
        let fields = [("session-id", "s"), ("thread-id", thread)];
        let mut socket = Socket::open(&proxy, &fields).await.unwrap();
        let first = socket.turn(&create(thread)).await;
        socket.turn(&create_behind("more", &response_id(&first))).await
    };
    let all = tokio::join!(socket("t1"), socket("t2"), socket("t3"));
    assert!([all.0, all.1, all.2].iter().all(|events| said(events) == "Hello from the mock."));
    assert_eq!(asked(&mock), ["a", "a", "a"]);
    assert_honest(&mock);
}

#[tokio::test]
async fn requests_that_begin_a_session_at_the_same_time_share_an_account() {
    let slow = Rule::new(Turn::text("Hello.")).pacing(Pacing { head_ms: 200, ..Pacing::default() });
    let (mock, proxy) = start(&["a", "b", "c"], Script::rules([slow])).await;
    let ask = async |thread: &str| {
        let fields = format!("session-id: s\r\nthread-id: {thread}\r\n");
        turn(&proxy, &fields, &user("x")).await.status()
    };
    assert_eq!(tokio::join!(ask("t1"), ask("t2"), ask("t3")), (200, 200, 200));
    let asked = asked(&mock);
    assert!(asked.len() == 3 && asked.iter().all(|account| *account == asked[0]), "{asked:?}");
}

#[tokio::test]
async fn an_item_that_nobody_here_has_seen_is_the_conversations_account() {
    let account = Account::new("a").turns_left(1);
    let (mock, proxy) = start(&["a", "b"], Script::default().account(account)).await;
    turn(&proxy, "session-id: s\r\n", &user("x")).await;
    let item = json!({ "type": "reasoning", "summary": [], "encrypted_content": "of-before" });
    // The account is used up and says of the item that it is none of its own; nobody else is asked.
    let refused = turn(&proxy, "session-id: s\r\n", &body("x", std::slice::from_ref(&item))).await;
    assert_eq!((refused.status(), asked(&mock)), (400, vec!["a".to_owned(), "a".into()]));
    assert_eq!(refused.json()["error"]["code"], "invalid_encrypted_content");
    let log = proxy.stop().await;
    let stale = log.events("stale_continuation").next().unwrap();
    assert_eq!(stale.fields["reason"], "invalid_encrypted_content");
    assert_eq!(log.events("profile_quota_quarantine").count(), 0, "affinity is broken, which is no quota");
}

#[tokio::test]
async fn what_a_removed_profile_left_is_named_and_the_rest_goes_on() {
    let setting = Setting::new(&["a", "b"], secretive());
    let (mock, proxy) = setting.start().await;
    let first = turn(&proxy, "session-id: s\r\nthread-id: t\r\n", &user("think")).await;
    let mut socket = Socket::open(&proxy, &[("session-id", "w"), ("thread-id", "w")]).await.unwrap();
    let on_socket = socket.turn(&create("x")).await;
    drop(socket);
    let removed = prodex(&proxy.sandbox, &["profile", "remove", "a"]).await;
    assert_eq!(code(&removed), Some(0), "{}", removed.stderr);
    let proxy = proxy.restarted().await;
    let before = asked(&mock).len();
    let refused = turn(&proxy, "session-id: s\r\n", &body("x", &items_of(&first))).await;
    assert_eq!((refused.status(), asked(&mock).len()), (503, before), "{}", refused.text());
    let message = message_of(&refused);
    assert!(message.contains("belongs to profile a") && message.contains("no longer here"), "{message}");
    // On a WebSocket the client sends all of it, once it knows that the response is not there any more.
    let mut socket = Socket::open(&proxy, &[("session-id", "w"), ("thread-id", "w")]).await.unwrap();
    let gone = socket.turn(&create_behind("y", &response_id(&on_socket))).await;
    assert_eq!(gone[0]["error"]["code"], "previous_response_not_found");
    assert_eq!(said(&socket.turn(&create("all of it")).await), "Hello from the mock.");
    let sealed = socket.turn(&behind(create("y"), &items_of(&first))).await;
    assert_eq!((sealed.len(), sealed[0]["status"].as_u64()), (1, Some(503)), "{sealed:?}");
    assert_eq!((&sealed[0]["type"], &sealed[0]["headers"]["retry-after"]), (&"error".into(), &"1".into()));
    let message = sealed[0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("belongs to profile a"), "{message}");
    // The socket goes on, and so does a conversation that holds nothing.
    assert_eq!(said(&socket.turn(&create("z")).await), "Hello from the mock.");
    assert_eq!(turn(&proxy, "session-id: s\r\nthread-id: t\r\n", &user("x")).await.status(), 200);
    assert_eq!(server(&mock).await, "b");
    assert_honest(&mock);
    drop(socket);
    assert_eq!(proxy.stop().await.events("continuation_migrated").count(), 2);
}

#[tokio::test]
async fn a_conversation_survives_the_end_of_the_proxy() {
    let (mock, proxy) = start(&["a", "b"], secretive()).await;
    turn(&proxy, "session-id: s\r\n", &user("to b")).await;
    let first = turn(&proxy, "session-id: s\r\n", &user("think")).await;
    let mut socket = Socket::open(&proxy, &[("session-id", "s")]).await.unwrap();
    let on_socket = socket.turn(&create("think")).await;
    assert_eq!(asked(&mock)[1..], ["b", "b", "b"]);
    drop(socket);
    let proxy = proxy.restarted().await;
    // By the response, by the item alone, and by the session.
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    let back = socket.turn(&create_behind("x", &response_id(&on_socket))).await;
    assert_eq!(back.last().unwrap()["type"], "response.completed", "{back:?}");
    turn(&proxy, "", &body("x", &items_of(&first))).await;
    assert_eq!(server(&mock).await, "b");
    turn(&proxy, "session-id: s\r\n", &user("x")).await;
    assert_eq!(server(&mock).await, "b");
    assert_honest(&mock);
}

/// A compressed body and its field, as Codex sends it.
fn zstd(body: &str) -> Vec<u8> {
    zstd::encode_all(body.as_bytes(), 3).unwrap()
}

const ZSTD: &str = "user-agent: codex_exec/0.169.0 (Linux)\r\ncontent-encoding: zstd\r\n";

#[tokio::test]
async fn a_compressed_body_is_sent_again_as_it_came() {
    let (mock, proxy) = start(&["a", "b"], Script::default().account(Account::new("a").turns_left(0))).await;
    let body = zstd(&user("x"));
    assert_eq!(request(&proxy, "POST", TURN, ZSTD, &body).await.status(), 200);
    let sent: Vec<_> = mock.journal().responses().into_iter().map(|turn| turn.body).collect();
    assert_eq!(sent, [&body[..], &body[..]]);
}

#[tokio::test]
async fn a_turn_state_in_a_body_is_not_shown_to_another() {
    let script = Script::default().account(Account::new("a").turns_left(2));
    let (mock, proxy) = start(&["a", "b"], script).await;
    let first = turn(&proxy, "session-id: s\r\n", &user("1")).await;
    let mut with_state: Value = serde_json::from_str(&user("2")).unwrap();
    let state = first.field("x-codex-turn-state").unwrap();
    with_state["client_metadata"] = json!({ "a": "1", "x-codex-turn-state": state });
    let mut without = with_state.clone();
    without["client_metadata"].as_object_mut().unwrap().remove("x-codex-turn-state");
    let body = zstd(&with_state.to_string());
    let fields = format!("{ZSTD}session-id: s\r\n");
    for _ in 0..2 {
        assert_eq!(request(&proxy, "POST", TURN, &fields, &body).await.status(), 200);
    }
    let turns = mock.journal().responses();
    let seen: Vec<_> = turns[1..].iter().map(|turn| turn.account.as_deref().unwrap()).collect();
    assert_eq!(seen, ["a", "a", "b"]);
    assert!(turns[1].body == body && turns[2].body == body, "its own account gets it as it came");
    assert_eq!(turns[3].body, without.to_string().as_bytes(), "every other byte stays");
    assert_eq!(turns[3].header("content-encoding"), None);
    assert_honest(&mock);
}

fn gone() -> Http {
    let error = json!({ "type": "invalid_request_error", "code": "previous_response_not_found" });
    Http::json(400, json!({ "error": error }))
}

/// The body of a turn over HTTP that continues a response.
fn continuing(response: &Value) -> String {
    let mut body: Value = serde_json::from_str(&user("y")).unwrap();
    body["previous_response_id"] = response.clone();
    body.to_string()
}

#[tokio::test]
async fn an_owner_that_does_not_find_its_response_is_asked_again() {
    let (mock, proxy) = start(&["a", "b"], Script::default()).await;
    let mut socket = Socket::of_session(&proxy).await;
    let first = socket.turn(&create("x")).await;
    let by_http = continuing(&response_id(&first));
    mock.set_rules(vec![Rule::new(gone()).user_text("y").times(2)]).unwrap();
    assert_eq!(turn(&proxy, "", &by_http).await.status(), 200);
    assert_eq!(asked(&mock), ["a", "a", "a", "a"]);
    mock.set_rules(vec![Rule::new(gone()).user_text("y").times(3)]).unwrap();
    let found = socket.turn(&create_behind("y", &response_id(&first))).await;
    assert_eq!(said(&found), "Hello from the mock.", "nothing of the refusals is shown");
    assert_eq!(asked(&mock).len(), 4, "on the same WebSocket");
    drop(socket);
    let log = proxy.stop().await;
    assert_eq!(log.events("stale_continuation").count(), 0);
    let attempts: Vec<_> = log.events("profile_commit").map(|line| line.fields["attempts"].clone()).collect();
    assert_eq!(attempts, [1, 3, 4]);
}

#[tokio::test]
async fn a_response_that_is_gone_is_told_and_not_waited_for_again() {
    let (mock, proxy) = start(&["a", "b"], Script::default()).await;
    let mut socket = Socket::of_session(&proxy).await;
    let first = socket.turn(&create("x")).await;
    let by_http = continuing(&response_id(&first));
    mock.set_rules(vec![Rule::new(gone()).user_text("y")]).unwrap();
    for asks in [4, 1] {
        let before = asked(&mock).len();
        let refused = turn(&proxy, "", &by_http).await;
        let answer = finished(&mock).await.answer.unwrap();
        assert_eq!((refused.head.as_bytes(), &refused.body), (&answer.head[..], &answer.body));
        assert_eq!(asked(&mock)[before..], vec!["a"; asks]);
    }
    let told = socket.turn(&create_behind("y", &response_id(&first))).await;
    let on_socket = mock.journal().responses().into_iter().find(|turn| turn.is_websocket()).unwrap();
    assert_eq!(told[0], on_socket.sent().last().unwrap().json());
    assert_eq!((told.len(), told[0]["status"].as_u64()), (1, Some(400)));
    // The client sends all of it, and stays where it was.
    assert_eq!(said(&socket.turn(&create("all of it")).await), "Hello from the mock.");
    drop(socket);
    let log = proxy.stop().await;
    assert_eq!(log.events("previous_response_negative_cache").count(), 2);
    let stale: Vec<_> = log.events("stale_continuation").map(|line| line.fields["profile"].clone()).collect();
    assert_eq!(stale, ["a", "a", "a"]);
}

#[tokio::test]
async fn an_open_conversation_is_not_asked_to_be_sent_anew_when_only_its_account_could_read_it() {
    let script = Script { continuation: Continuation::Connection, ..secretive() };
    let (mock, proxy) = start(&["a", "b"], script.account(Account::new("a").turns_left(1))).await;
    let mut socket = Socket::of_session(&proxy).await;
    let first = socket.turn(&create("think")).await;
    let refused = socket.turn(&create_behind("y", &response_id(&first))).await;
    assert_eq!((refused.len(), refused[0]["status"].as_u64()), (1, Some(429)), "{refused:?}");
    assert!(refused[0]["error"]["resets_at"].is_u64(), "the owner's own word, with its reset");
    // What the client would send anew gets the same answer, on another socket as well.
    let mut socket = Socket::of_session(&proxy).await;
    let refused = socket.turn(&behind(create("y"), &items(&first))).await;
    assert_eq!((refused.len(), refused[0]["status"].as_u64()), (1, Some(429)), "{refused:?}");
    // It goes on there when its account is back.
    mock.set_turns_left("a", Some(5));
    let back = socket.turn(&behind(create("y"), &items(&first))).await;
    assert_eq!(said(&back), "Hello from the mock.");
    assert_honest(&mock);
}

#[tokio::test]
async fn a_warm_up_with_its_history_goes_to_the_account_of_that() {
    let (mock, proxy) = start(&["a", "b"], secretive().account(Account::new("a").turns_left(1))).await;
    let first = turn(&proxy, "session-id: s\r\n", &user("think")).await;
    // The account is known to be used up, so a fresh socket leads elsewhere.
    turn(&proxy, "session-id: s\r\n", &user("x")).await;
    assert_eq!(server(&mock).await, "b");
    let mut socket = Socket::of_session(&proxy).await;
    let mut warm_up = behind(create(""), &items_of(&first));
    warm_up["generate"] = false.into();
    let warm = socket.turn(&warm_up).await;
    assert_eq!(warm.last().unwrap()["type"], "response.completed", "{warm:?}");
    assert_eq!(asked(&mock).last().unwrap(), "a");
    assert_honest(&mock);
}

/// A request that asks for a compaction on the ordinary route.
fn trigger(mut request: Value) -> Value {
    request["input"].as_array_mut().unwrap().push(json!({ "type": "compaction_trigger" }));
    request
}

#[tokio::test]
async fn what_a_compaction_leaves_belongs_to_who_made_it() {
    let (mock, proxy) = start(&["a", "b"], secretive()).await;
    turn(&proxy, "session-id: s\r\n", &user("to b")).await;
    let path = format!("{TURN}/compact");
    let unary = request(&proxy, "POST", &path, "session-id: s\r\n", user("x").as_bytes()).await;
    assert_eq!(unary.status(), 200, "{}", unary.text());
    let asks = trigger(serde_json::from_str(&user("x")).unwrap());
    let by_http = turn(&proxy, "session-id: s\r\n", &asks.to_string()).await;
    let mut socket = Socket::of_session(&proxy).await;
    let by_socket = socket.turn(&trigger(create("x"))).await;
    let histories =
        [unary.json()["output"].as_array().unwrap().clone(), items_of(&by_http), items(&by_socket)];
    for history in &histories {
        assert_eq!(history[0]["type"], "compaction", "{history:?}");
        // The session does not say so: by the item alone.
        assert_eq!(turn(&proxy, "", &body("next", history)).await.status(), 200);
        assert_eq!(server(&mock).await, "b");
        let mut fresh = Socket::open(&proxy, &[]).await.unwrap();
        assert_eq!(said(&fresh.turn(&behind(create("next"), history)).await), "Hello from the mock.");
    }
    mock.set_turns_left("b", Some(0));
    let before = asked(&mock).len();
    let refused = turn(&proxy, "session-id: s\r\n", &body("next", &histories[0])).await;
    assert_eq!((refused.status(), &asked(&mock)[before..]), (429, &["b".to_owned()][..]));
    let asks = trigger(behind(create("x"), &histories[1]));
    let refused = socket.turn(&asks).await;
    assert_eq!((refused.len(), refused[0]["status"].as_u64()), (1, Some(429)), "{refused:?}");
    let path = format!("{TURN}/compact");
    let refused =
        request(&proxy, "POST", &path, "session-id: s\r\n", body("x", &histories[2]).as_bytes()).await;
    assert_eq!(refused.status(), 429, "{}", refused.text());
    assert_honest(&mock);
    drop(socket);
    let log = proxy.stop().await;
    let owners = |event: &str| -> Vec<Value> {
        log.events(event).map(|line| line.fields["profile"].clone()).collect()
    };
    assert_eq!(owners("compact_committed_owner"), ["b", "b", "b"]);
    assert_eq!(owners("compact_followup_owner"), ["b"; 6]);
    assert_eq!(owners("compact_fresh_fallback_blocked"), ["b"; 3]);
    assert_eq!(mock.journal().of(CallName::Compact).len(), 2);
}
