//! What a client on a WebSocket is shown of refusals and failures, and what it is spared.

use mock_upstream::accounts::Window;
use mock_upstream::fault::{End, Fault};
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{
    CallName, Continuation, Frame, Http, Item, Reply, Rule, Script, Transport, Turn, TurnEnd, When,
};
use mock_upstream::{Account, Exchange};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::connection::{turn, user};
use crate::rig::{LIMIT, Setting, asked, start};
use crate::socket::{Socket, create, create_behind, response_id, said, sent_last};

#[tokio::test]
async fn without_another_account_the_client_gets_the_refusal_as_it_came() {
    let (mock, proxy) = start(&["a"], Script::default().account(Account::new("a").turns_left(1))).await;
    let mut socket = Socket::of_session(&proxy).await;
    let first = socket.turn(&create("x")).await;
    for message in [create_behind("y", &response_id(&first)), create("z")] {
        let events = socket.turn(&message).await;
        assert_eq!(events, [sent_last(&mock).last().unwrap().clone()]);
        assert_eq!(
            (events[0]["status"].as_u64(), &events[0]["error"]["type"]),
            (Some(429), &"usage_limit_reached".into())
        );
    }
}

#[tokio::test]
async fn when_all_are_used_up_a_socket_gets_the_refusal_with_the_earliest_reset() {
    let window = |resets_in| Window { seconds: 18_000, used_percent: 100.0, resets_in };
    let account = |id: &str, resets_in| Account { windows: vec![window(resets_in)], ..Account::new(id) };
    let script = Script::default().account(account("a", 3600)).account(account("b", 7200));
    let (mock, proxy) = Setting::new(&["a", "b"], script).start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    let events = socket.turn(&create("x")).await;
    assert_eq!(asked(&mock), ["a", "b"]);
    let by_a: Vec<_> = mock.journal().responses()[0].sent().map(|message| message.json()).collect();
    assert_eq!(events, by_a);
    assert_eq!(socket.turn(&create("x")).await[0]["error"]["type"], "usage_limit_reached");
    assert_eq!(asked(&mock), ["a", "b", "a"], "the other is known to be used up for longer");
    drop(socket);
    let log = proxy.stop().await;
    let passed = log.events("upstream_usage_limit_passthrough").next().unwrap();
    assert_eq!(passed.fields["profile"], "a");
    assert_eq!(log.events("profile_commit").next().unwrap().fields["profile"], "a");
}

#[tokio::test]
async fn the_attempts_of_a_turn_have_a_budget() {
    let limit = Http::json(429, json!({ "error": { "type": "usage_limit_reached" } }));
    let refusing = Rule::new(limit).transport(Transport::Websocket);
    let setting = Setting::new(&["a", "b", "c", "d"], Script::rules([refusing]));
    let (mock, proxy) = setting.set("PRODEX_MAX_CONTINUATION_ATTEMPTS", "2").start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    let events = socket.turn(&create("x")).await;
    assert_eq!((&events[0]["error"]["type"], asked(&mock).len()), (&"usage_limit_reached".into(), 2));
    drop(socket);
    let log = proxy.stop().await;
    let spent: Vec<_> = log.events("precommit_budget_exhausted").collect();
    assert_eq!((spent.len(), &spent[0].fields["attempts"]), (1, &2.into()), "which the log tells");
}

#[tokio::test]
async fn what_only_its_account_can_read_does_not_move() {
    let script = Script::rules([Rule::new(Turn::of([Item::Reasoning("hm".into())]))]);
    let (mock, proxy) = start(&["a", "b"], script.account(Account::new("a").turns_left(1))).await;
    let mut socket = Socket::of_session(&proxy).await;
    let first = socket.turn(&create("x")).await;
    let done = first.iter().find(|event| event["type"] == "response.output_item.done").unwrap();
    let mut full = create("y");
    full["input"].as_array_mut().unwrap().insert(0, done["item"].clone());
    let refused = socket.turn(&full).await;
    assert_eq!(refused, [sent_last(&mock).last().unwrap().clone()]);
    assert_eq!((refused[0]["status"].as_u64(), asked(&mock).len()), (Some(429), 1));
}

#[tokio::test]
async fn a_warm_up_that_fails_passes_and_moves_nothing() {
    let when = || When { warm_up: true, ..When::default() };
    for http in [
        Http::json(500, json!({ "error": { "message": "oops" } })),
        Http::json(429, json!({ "error": { "type": "usage_limit_reached" } })),
        Http::json(401, json!({ "error": { "code": "token_expired" } })),
    ] {
        let (mock, proxy) = start(&["a", "b"], Script::rules([Rule::new(http).when(when())])).await;
        let mut socket = Socket::of_session(&proxy).await;
        let mut warm_up = create("");
        warm_up["generate"] = false.into();
        let events = socket.turn(&warm_up).await;
        assert_eq!((&events, asked(&mock).len()), (&sent_last(&mock), 1));
        assert!(mock.journal().of(CallName::Token).is_empty());
        let mut socket = Socket::of_session(&proxy).await;
        assert_eq!(said(&socket.turn(&create("x")).await), "Hello from the mock.");
    }
}

#[tokio::test]
async fn errors_that_are_no_accounts_own_pass_as_they_came() {
    for http in [
        Http::json(400, json!({ "error": { "code": "websocket_connection_limit_reached" } })),
        Http::json(400, json!({ "error": { "code": "context_length_exceeded" } })),
        Http::json(500, json!({ "error": { "message": "oops" } })),
        Http::json(429, json!({ "error": { "code": "rate_limit_exceeded" } })),
    ] {
        let (mock, proxy) =
            start(&["a", "b"], Script::rules([Rule::new(http).transport(Transport::Websocket)])).await;
        let mut socket = Socket::of_session(&proxy).await;
        assert_eq!((socket.turn(&create("x")).await, asked(&mock).len()), (sent_last(&mock), 1));
    }
}

#[tokio::test]
async fn a_failure_behind_output_passes_and_the_next_turn_goes_elsewhere() {
    let end = TurnEnd::Failed { code: "usage_limit_reached".into(), message: "no".into() };
    let failing = Rule::new(Turn::text("half").ending(end)).account("a").transport(Transport::Websocket);
    let (mock, proxy) =
        start(&["a", "b"], Script::rules([failing.pacing(Pacing { gap_ms: 30, ..Pacing::default() })])).await;
    let mut socket = Socket::of_session(&proxy).await;
    let events = socket.turn(&create("x")).await;
    assert_eq!((said(&events).as_str(), &events), ("half", &sent_last(&mock)));
    assert_eq!(said(&socket.turn(&create("x")).await), "Hello from the mock.");
    assert_eq!(asked(&mock), ["a", "b"]);
}

#[tokio::test]
async fn a_failure_before_output_moves() {
    let end = TurnEnd::Failed { code: "insufficient_quota".into(), message: "no".into() };
    let failing = Rule::new(Turn::default().ending(end)).account("a").transport(Transport::Websocket);
    let (mock, proxy) = start(&["a", "b"], Script::rules([failing])).await;
    let mut socket = Socket::of_session(&proxy).await;
    let events = socket.turn(&create("x")).await;
    assert_eq!((said(&events).as_str(), &events), ("Hello from the mock.", &sent_last(&mock)));
    assert_eq!(asked(&mock), ["a", "b"]);
    let settled =
        |all: &[Exchange]| all.iter().filter(|turn| turn.is_websocket()).any(|turn| turn.end.is_some());
    mock.journal().wait_for("the first WebSocket to be closed", LIMIT, settled).await.unwrap();
}

#[tokio::test]
async fn an_upgrade_that_is_refused_becomes_426_which_is_the_clean_fallback() {
    for http in [Http::status(404), Http::text(500, "oops"), Http::text(403, "<html>"), Http::status(426)] {
        let script = Script::rules([Rule::new(http.clone()).transport(Transport::Upgrade)]);
        let (mock, proxy) = start(&["a", "b"], script).await;
        let refusal = Socket::refusal(&proxy).await;
        assert_eq!((refusal.status().as_u16(), asked(&mock).len()), (426, 1), "{http:?}");
        let body = String::from_utf8_lossy(refusal.body().as_deref().unwrap_or_default()).into_owned();
        assert!(body.contains(&http.status.to_string()), "{body}");
        // The client goes on over HTTP.
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    }
    let broken =
        Rule::new(Http::status(500)).transport(Transport::Upgrade).fault(Fault::before_head(End::Reset));
    let (mock, proxy) = start(&["a"], Script::rules([broken])).await;
    assert_eq!((Socket::refusal(&proxy).await.status().as_u16(), asked(&mock).len()), (426, 3));
}

#[tokio::test]
async fn an_upgrade_that_the_account_refuses_goes_to_the_next() {
    let limit =
        Http::json(429, json!({ "error": { "type": "usage_limit_reached", "resets_in_seconds": 60 } }));
    let upgrade = Rule::new(limit.clone()).transport(Transport::Upgrade);
    let (mock, proxy) = start(&["a", "b"], Script::rules([upgrade.clone().account("a")])).await;
    let mut socket = Socket::of_session(&proxy).await;
    assert_eq!(said(&socket.turn(&create("x")).await), "Hello from the mock.");
    assert_eq!(asked(&mock), ["a", "b"]);
    let (mock, proxy) = start(&["a", "b"], Script::rules([upgrade])).await;
    let refusal = Socket::refusal(&proxy).await;
    assert_eq!((refusal.status().as_u16(), asked(&mock).len()), (429, 2));
}

#[tokio::test]
async fn an_upgrade_without_capacity_falls_back() {
    let busy = Http::json(503, json!({ "error": { "code": "server_is_overloaded", "message": "busy" } }));
    let script = Script::rules([Rule::new(busy).transport(Transport::Upgrade)]);
    let (mock, proxy) = start(&["a", "b"], script).await;
    let refusal = Socket::refusal(&proxy).await;
    assert_eq!((refusal.status().as_u16(), asked(&mock).len()), (426, 2), "a 503 would be final");
}

#[tokio::test]
async fn an_upgrade_without_capacity_falls_back_though_another_account_is_used_up() {
    let busy = Http::json(503, json!({ "error": { "code": "server_is_overloaded" } }));
    let limit = Http::json(
        429,
        json!({ "error": { "type": "usage_limit_reached", "resets_at": 9_999_999_999_u64 } }),
    );
    let upgrade = |http| Rule::new(http).transport(Transport::Upgrade);
    let script = Script::rules([upgrade(busy).account("a"), upgrade(limit).account("b")]);
    let (mock, proxy) = start(&["a", "b"], script).await;
    for _ in 0..2 {
        assert_eq!(Socket::refusal(&proxy).await.status().as_u16(), 426);
    }
    assert_eq!(asked(&mock), ["a", "b", "a"]);
}

#[tokio::test]
async fn an_upgrade_with_an_expired_token_renews_it() {
    let (mock, proxy) = start(&["a"], Script::default().account(Account::new("a").expired())).await;
    let mut socket = Socket::of_session(&proxy).await;
    assert_eq!(said(&socket.turn(&create("x")).await), "Hello from the mock.");
    assert_eq!(mock.journal().of(CallName::Token).len(), 1);
}

#[tokio::test]
async fn a_401_within_the_socket_renews_the_token_and_is_not_shown() {
    let expired = Http::json(401, json!({ "error": { "code": "token_expired" } }));
    let script = Script::rules([Rule::new(expired).transport(Transport::Websocket).times(1)]);
    let (mock, proxy) = start(&["a"], script).await;
    let mut socket = Socket::of_session(&proxy).await;
    assert_eq!(said(&socket.turn(&create("x")).await), "Hello from the mock.");
    assert_eq!((asked(&mock).len(), mock.journal().of(CallName::Token).len()), (2, 1));
    let forever = Http::json(401, json!({ "error": { "code": "token_expired" } }));
    mock.set_rules(vec![Rule::new(forever).transport(Transport::Websocket)]).unwrap();
    socket.send(&create("x")).await;
    let (messages, _) = socket.rest().await;
    assert!(!messages.iter().any(Message::is_text), "the socket ends, without a 401: {messages:?}");
}

#[tokio::test]
async fn an_upstream_that_closes_within_a_turn_is_seen_to_do_so() {
    let end = End::Close { code: 1011, reason: "sorry".into() };
    for count in [3, 6] {
        let rule = Rule::new(Turn::text("a b")).fault(Fault::after_events(count, end.clone()));
        let (_mock, proxy) = start(&["a", "b"], Script::rules([rule])).await;
        let mut socket = Socket::of_session(&proxy).await;
        socket.send(&create("x")).await;
        let (messages, _) = socket.rest().await;
        assert!(!messages.iter().any(|m| m.to_text().is_ok_and(|text| text.contains("completed"))));
        if let Some(Message::Close(Some(frame))) = messages.last() {
            assert_eq!(u16::from(frame.code), 1011);
        }
    }
}

#[tokio::test]
async fn what_was_held_is_shown_before_the_end_of_the_upstream() {
    let created = r#"{"type":"response.created","response":{"id":"r1"}}"#;
    let close = || End::Close { code: 1011, reason: "sorry".into() };
    for end in [close(), End::Fin, End::Eof] {
        let frames = Reply::Frames(vec![Frame::Text(created.into())]);
        let rule = Rule::new(frames).transport(Transport::Websocket);
        let rule = rule.fault(Fault::after_events(1, end.clone()));
        let (_mock, proxy) = start(&["a"], Script::rules([rule])).await;
        let mut socket = Socket::of_session(&proxy).await;
        socket.send(&create("x")).await;
        let (messages, _) = socket.rest().await;
        assert_eq!(messages.first(), Some(&Message::text(created)), "{end:?}: {messages:?}");
        if end == close() {
            assert!(matches!(&messages[1..], [Message::Close(Some(frame))] if u16::from(frame.code) == 1011));
        }
    }
}

#[tokio::test]
async fn a_turn_that_may_not_move_survives_the_renewal_of_its_token() {
    let expired = || Http::json(401, json!({ "error": { "code": "token_expired" } }));
    let script = Script::rules([Rule::new(Turn::of([Item::Reasoning("hm".into())]))]);
    let (mock, proxy) = Setting::new(&["a"], script).start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    let first = socket.turn(&create("x")).await;
    let done = first.iter().find(|event| event["type"] == "response.output_item.done").unwrap();
    let mut full = create("y");
    full["input"].as_array_mut().unwrap().insert(0, done["item"].clone());
    mock.set_rules(vec![Rule::new(expired()).transport(Transport::Websocket).times(1)]).unwrap();
    assert_eq!(said(&socket.turn(&full).await), "Hello from the mock.");
}

#[tokio::test]
async fn a_continuation_whose_token_was_renewed_begins_anew() {
    let expired = Http::json(401, json!({ "error": { "code": "token_expired" } }));
    let (mock, proxy) = start(&["a"], Script::default()).await;
    let mut socket = Socket::of_session(&proxy).await;
    let first = socket.turn(&create("x")).await;
    mock.set_rules(vec![Rule::new(expired).transport(Transport::Websocket).times(1)]).unwrap();
    let events = socket.turn(&create_behind("y", &response_id(&first))).await;
    assert_eq!(events[0]["error"]["code"], "previous_response_not_found", "{events:?}");
    let mut socket = Socket::of_session(&proxy).await;
    assert_eq!(said(&socket.turn(&create("all")).await), "Hello from the mock.");
}

#[tokio::test]
async fn a_response_of_another_socket_is_the_upstreams_to_refuse() {
    let script = Script { continuation: Continuation::Connection, ..Script::default() };
    let (mock, proxy) = start(&["a", "b"], script).await;
    let mut socket = Socket::of_session(&proxy).await;
    let mut warm_up = create("");
    warm_up["generate"] = false.into();
    let warm = socket.turn(&warm_up).await;
    let mut socket = Socket::of_session(&proxy).await;
    let refused = socket.turn(&create_behind("x", &response_id(&warm))).await;
    let asked_for_it = sent_last(&mock);
    assert_eq!((refused[..] == asked_for_it[3..], asked_for_it.len()), (true, 4), "asked again three times");
    assert_eq!(
        (&refused[0]["error"]["code"], refused[0]["status"].as_u64()),
        (&"previous_response_not_found".into(), Some(400))
    );
    assert_eq!(said(&socket.turn(&create("all of it")).await), "Hello from the mock.");
    assert_eq!(asked(&mock), ["a", "a"]);
}

#[tokio::test]
async fn a_held_turn_that_is_cut_leaves_a_trace() {
    let created = r#"{"type":"response.created","response":{"id":"r1"}}"#;
    for end in [End::Fin, End::Reset] {
        let rule = Rule::new(Reply::Frames(vec![Frame::Text(created.into())]));
        let rule = rule.transport(Transport::Websocket).fault(Fault::after_events(1, end));
        let (_mock, proxy) = start(&["a"], Script::rules([rule])).await;
        let mut socket = Socket::of_session(&proxy).await;
        socket.send(&create("x")).await;
        socket.rest().await;
        let log = proxy.stop().await;
        let errors: Vec<_> =
            log.events("stream_read_error").map(|line| line.fields["profile"].clone()).collect();
        assert_eq!(errors, ["a"]);
    }
}

#[tokio::test]
async fn who_refused_an_upgrade_is_not_busy_with_it_while_another_serves() {
    let busy = Http::json(503, json!({ "error": { "code": "server_is_overloaded" } }));
    let script = Script::rules([Rule::new(busy).transport(Transport::Upgrade).account("a")]);
    let (mock, proxy) = start(&["a", "b"], script).await;
    let _socket = Socket::open(&proxy, &[]).await.unwrap();
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(asked(&mock), ["a", "b", "a"]);
}

#[tokio::test]
async fn what_a_turn_moves_to_is_told_in_the_log() {
    let limit = Http::json(429, json!({ "error": { "type": "usage_limit_reached" } }));
    let script = Script::rules([Rule::new(limit).account("a").transport(Transport::Websocket)]);
    let (_mock, proxy) = start(&["a", "b"], script).await;
    let mut socket = Socket::of_session(&proxy).await;
    assert_eq!(said(&socket.turn(&create("x")).await), "Hello from the mock.");
    drop(socket);
    let log = proxy.stop().await;
    let commit = log.events("profile_commit").next().unwrap();
    let picks = log.events("selection_pick");
    let picks = picks.filter(|pick| pick.fields["request"] == commit.fields["request"]);
    let picked: Vec<_> = picks.map(|pick| pick.fields["profile"].clone()).collect();
    assert_eq!(picked, ["b"]);
}

#[tokio::test]
async fn upstreams_that_break_off_are_not_asked_one_after_the_other() {
    let limit = Http::json(429, json!({ "error": { "type": "usage_limit_reached" } }));
    let used_up = |transport| Rule::new(limit.clone()).account("a").transport(transport);
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let broken = names[1..].iter().map(|name| {
        let broken = Rule::new(Http::status(500)).account(*name).transport(Transport::Upgrade);
        broken.fault(Fault::before_head(End::Reset))
    });
    let rules = [used_up(Transport::Http), used_up(Transport::Websocket)].into_iter().chain(broken);
    let (mock, proxy) = start(&names, Script::rules(rules)).await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    let before = asked(&mock).len();
    let events = socket.turn(&create("x")).await;
    assert_eq!(events[0]["error"]["type"], "usage_limit_reached", "what is open says more: {events:?}");
    assert_eq!(asked(&mock).len() - before, 3, "{:?}", asked(&mock));
}
