//! Turns on a WebSocket go to their owner, and a refused one moves in the way its client takes best.

use mock_upstream::script::{CallName, Continuation, Http, Rule, Script, Transport};
use mock_upstream::{Account, Mock};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::connection::{turn, user};
use crate::rig::{Proxy, Setting, asked, finished, start};
use crate::socket::{Socket, create, create_behind, response_id, said, sent_last};

/// A pool of `a`, which may have so many turns, and `b`.
async fn limited(turns: u64) -> (Mock, Proxy) {
    start(&["a", "b"], Script::default().account(Account::new("a").turns_left(turns))).await
}

fn assert_honest(mock: &Mock) {
    let all = mock.journal().exchanges();
    let violations: Vec<_> = all.iter().flat_map(|exchange| &exchange.violations).collect();
    assert!(violations.is_empty(), "{violations:?}");
}

#[tokio::test]
async fn a_refused_turn_with_its_full_input_moves_unseen() {
    // As the backend does it without `store`: a response is continued on its own WebSocket alone.
    let script = Script { continuation: Continuation::Connection, ..Script::default() };
    let (mock, proxy) = start(&["a", "b"], script.account(Account::new("a").turns_left(0))).await;
    let mut socket = Socket::of_session(&proxy).await;
    let events = socket.turn(&create("x")).await;
    assert_eq!(said(&events), "Hello from the mock.");
    assert_eq!(events, sent_last(&mock), "one coherent response, the second account's");
    let again = socket.turn(&create_behind("y", &response_id(&events))).await;
    assert_eq!(said(&again), "Hello from the mock.");
    assert_eq!(asked(&mock), ["a", "b"], "one WebSocket to each");
    let messages: Vec<Value> = mock.journal().responses()[1].received().map(|m| m.json()).collect();
    assert_eq!(messages, [create("x"), create_behind("y", &response_id(&events))]);
    assert_honest(&mock);
    // A fresh conversation does not meet the used-up account again.
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(asked(&mock)[2..], ["b"]);
}

#[tokio::test]
async fn a_refused_continuation_is_sent_anew_by_its_client() {
    let (mock, proxy) = limited(1).await;
    let mut socket = Socket::of_session(&proxy).await;
    let first = socket.turn(&create("x")).await;
    socket.send(&create_behind("y", &response_id(&first))).await;
    let error = socket.event().await;
    assert_eq!((&error["type"], error["status"].as_u64()), (&"error".into(), Some(400)));
    assert_eq!(error["error"]["code"], "previous_response_not_found");
    // Nothing else came: the answer to a ping is the next message.
    socket.put(Message::Ping("next".into())).await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("next".into()));
    drop(socket);
    let mut socket = Socket::of_session(&proxy).await;
    assert_eq!(said(&socket.turn(&create("all of it")).await), "Hello from the mock.");
    assert_eq!(asked(&mock), ["a", "b"]);
    assert_honest(&mock);
    drop(socket);
    let log = proxy.stop().await;
    assert_eq!(log.events("previous_response_not_found").next().unwrap().fields["injected"], true);
    assert_eq!(log.events("continuation_migrated").count(), 1);
}

#[tokio::test]
async fn a_client_may_send_it_anew_on_the_same_socket() {
    let (mock, proxy) = limited(1).await;
    let mut socket = Socket::of_session(&proxy).await;
    let first = socket.turn(&create("x")).await;
    assert_eq!(socket.turn(&create_behind("y", &response_id(&first))).await.len(), 1);
    assert_eq!(said(&socket.turn(&create("all of it")).await), "Hello from the mock.");
    assert_eq!(asked(&mock), ["a", "b"]);
}

/// Rules by which `a` has no capacity for a turn with the text `to b`, which leaves no trace.
fn directed() -> Script {
    let busy = Http::json(503, json!({ "error": { "code": "server_is_overloaded" } }));
    Script::rules([Rule::new(busy).account("a").user_text("to b")])
}

#[tokio::test]
async fn a_continuation_goes_to_the_owner_of_its_response_wherever_the_socket_leads() {
    let (mock, proxy) = start(&["a", "b"], directed()).await;
    let mut one = Socket::open(&proxy, &[]).await.unwrap();
    let by_a = one.turn(&create("x")).await;
    let mut two = Socket::open(&proxy, &[]).await.unwrap();
    let by_b = two.turn(&create("to b")).await;
    assert_eq!(asked(&mock), ["a", "a", "b"]);
    let back = two.turn(&create_behind("y", &response_id(&by_a))).await;
    assert_eq!(back.last().unwrap()["type"], "response.completed", "{back:?}");
    let back = one.turn(&create_behind("y", &response_id(&by_b))).await;
    assert_eq!(back.last().unwrap()["type"], "response.completed", "{back:?}");
    assert_eq!(asked(&mock), ["a", "a", "b", "a", "b"]);
    assert_honest(&mock);
}

#[tokio::test]
async fn sockets_and_requests_of_one_session_go_to_one_account() {
    let (mock, proxy) = start(&["a", "b"], directed()).await;
    let mut socket = Socket::of_session(&proxy).await;
    socket.turn(&create("to b")).await;
    turn(&proxy, "session-id: other\r\n", &user("x")).await;
    let mut sub_agent = Socket::of_session(&proxy).await;
    sub_agent.turn(&create("x")).await;
    turn(&proxy, "session-id: s\r\n", &user("x")).await;
    assert_eq!(finished(&mock).await.account.as_deref(), Some("b"));
    let asked = asked(&mock);
    assert_eq!(asked[asked.len() - 2..], ["b", "b"], "{asked:?}");
}

fn with_turn_state(text: &str, events: &[Value]) -> Value {
    let metadata = events.iter().find(|event| event["type"] == "response.metadata").unwrap();
    let mut message = create(text);
    let state = &metadata["headers"]["x-codex-turn-state"];
    assert!(state.is_string());
    message["client_metadata"] = json!({ "session_id": "s", "x-codex-turn-state": state, "z": "1" });
    message
}

#[tokio::test]
async fn the_turn_state_of_a_used_up_account_is_not_shown_to_another() {
    let (mock, proxy) = limited(1).await;
    let mut socket = Socket::of_session(&proxy).await;
    let first = socket.turn(&create("x")).await;
    // Known to be used up, so the next is asked at once.
    assert_eq!(turn(&proxy, "session-id: s\r\n", &user("x")).await.status(), 200);
    let message = with_turn_state("y", &first);
    assert_eq!(said(&socket.turn(&message).await), "Hello from the mock.");
    let turns = mock.journal().responses();
    let moved = turns.last().unwrap();
    assert_eq!(moved.account.as_deref(), Some("b"));
    let mut expected = message;
    expected["client_metadata"].as_object_mut().unwrap().remove("x-codex-turn-state");
    assert_eq!(moved.received().next().unwrap().text(), expected.to_string(), "every other byte stays");
    assert_honest(&mock);
}

#[tokio::test]
async fn a_turn_that_moves_does_not_show_the_turn_state_of_who_refused() {
    let script = Script::default().account(Account::new("a").turns_left(1));
    let (mock, proxy) = Setting::new(&["a", "b"], script).start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    let first = socket.turn(&create("x")).await;
    let metadata = first.iter().find(|event| event["type"] == "response.metadata").unwrap();
    let mut message = create("y");
    message["client_metadata"] = metadata["headers"].clone();
    assert_eq!(said(&socket.turn(&message).await), "Hello from the mock.");
    let violations: Vec<_> =
        mock.journal().responses().into_iter().flat_map(|turn| turn.violations).collect();
    assert!(violations.is_empty(), "{violations:?}");
}

#[tokio::test]
async fn a_turn_whose_token_is_renewed_stays_with_its_owner() {
    let expired = Http::json(401, json!({ "error": { "code": "token_expired" } }));
    let (mock, proxy) = start(&["a", "b"], directed()).await;
    // Both are known to have room, and the second serves.
    for text in ["x", "to b"] {
        turn(&proxy, "", &user(text)).await;
    }
    let mut socket = Socket::of_session(&proxy).await;
    socket.turn(&create("x")).await;
    mock.set_rules(vec![Rule::new(expired).transport(Transport::Websocket).times(1)]).unwrap();
    assert_eq!(said(&socket.turn(&create("y")).await), "Hello from the mock.");
    assert_eq!(turn(&proxy, "session-id: s\r\n", &user("z")).await.status(), 200);
    assert_eq!(asked(&mock)[3..], ["b", "b", "b"], "an account that does nothing is no reason to move");
    assert_eq!(mock.journal().of(CallName::Token).len(), 1);
}

#[tokio::test]
async fn an_upstream_that_is_opened_for_a_turn_has_its_token_renewed() {
    let (mock, proxy) = start(&["a", "b"], directed()).await;
    let mut one = Socket::open(&proxy, &[]).await.unwrap();
    let by_a = one.turn(&create("x")).await;
    let mut two = Socket::open(&proxy, &[]).await.unwrap();
    mock.expire("b");
    // By a turn that moves, and by a continuation that goes to its owner.
    assert_eq!(said(&two.turn(&create("to b")).await), "Hello from the mock.");
    mock.expire("a");
    let back = two.turn(&create_behind("y", &response_id(&by_a))).await;
    assert_eq!(back.last().unwrap()["type"], "response.completed", "{back:?}");
    assert_eq!(mock.journal().of(CallName::Token).len(), 2);
    drop((one, two));
    let log = proxy.stop().await;
    assert_eq!(log.events("profile_retry_backoff").count(), 0);
}
