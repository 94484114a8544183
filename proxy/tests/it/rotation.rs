//! The refusal of an account moves a request to the next one before commit, and never afterwards.

use std::time::Duration;

use mock_upstream::accounts::Window;
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{CallName, Http, Rule, Script, Stream, Turn, TurnEnd};
use mock_upstream::{Account, Exchange};
use serde_json::{Value, json};

use crate::connection::{TURN, request, turn, user};
use crate::rig::{LIMIT, Setting, asked, finished, start};

fn usage_limit() -> Value {
    json!({ "error": { "type": "usage_limit_reached", "message": "no more", "resets_in_seconds": 3600 } })
}

/// The rule that account `a` answers every turn with this.
fn refusing(http: Http) -> Script {
    Script::rules([Rule::new(http).account("a"), Rule::new(Turn::text("served"))])
}

#[tokio::test]
async fn a_refused_account_is_asked_once_and_the_next_serves() {
    let script = Script::default().account(Account::new("a").turns_left(0));
    let (mock, proxy) = start(&["a", "b"], script).await;
    for session in ["s1", "s1", "s2"] {
        let response = turn(&proxy, &format!("session-id: {session}\r\n"), &user("hi")).await;
        assert_eq!(response.said(), "Hello from the mock.");
    }
    assert_eq!(asked(&mock), ["a", "b", "b", "b"]);
    let bodies = mock.journal().responses().into_iter().map(|turn| turn.body);
    assert!(bodies.into_iter().all(|body| body == user("hi").as_bytes()), "the same body is sent again");
    let log = proxy.stop().await;
    assert_eq!(log.events("profile_quota_quarantine").count(), 1);
    let commits: Vec<_> = log.events("profile_commit").map(|line| line.fields["attempts"].clone()).collect();
    assert_eq!(commits, [2, 1, 1]);
}

#[tokio::test]
async fn nothing_of_a_refused_response_reaches_the_client() {
    let script = Script::default().account(Account::new("a").turns_left(0));
    let (mock, proxy) = start(&["a", "b"], script).await;
    let response = turn(&proxy, "", &user("hi")).await;
    let answer = finished(&mock).await.answer.unwrap();
    assert_eq!(response.head.as_bytes(), answer.head);
    assert_eq!(response.body, answer.body);
}

#[tokio::test]
async fn the_first_request_of_a_conversation_has_the_limits_of_a_fresh_one() {
    let setting = Setting::new(&["a", "b"], refusing(Http::json(429, usage_limit())));
    let (mock, proxy) = setting.set("PRODEX_MAX_ATTEMPTS", "1").start().await;
    let first = turn(&proxy, "session-id: s\r\nthread-id: t\r\n", &user("hi")).await;
    assert_eq!((first.status(), asked(&mock)), (429, vec!["a".to_owned()]), "there is one attempt");
}

#[tokio::test]
async fn an_account_that_runs_out_hands_its_conversation_over() {
    let script = Script::default().account(Account::new("a").turns_left(1));
    let (mock, proxy) = start(&["a", "b"], script).await;
    for _ in 0..3 {
        assert_eq!(turn(&proxy, "session-id: s\r\n", &user("hi")).await.status(), 200);
    }
    assert_eq!(asked(&mock), ["a", "a", "b", "b"]);
    let log = proxy.stop().await;
    let moves: Vec<_> = log.events("continuation_migrated").collect();
    assert_eq!(moves.len(), 1);
    assert_eq!((&moves[0].fields["from"], &moves[0].fields["to"]), (&"a".into(), &"b".into()));
}

#[tokio::test]
async fn a_compaction_moves_too() {
    let script = Script::default().account(Account::new("a").turns_left(0));
    let (mock, proxy) = start(&["a", "b"], script).await;
    let path = format!("{TURN}/compact");
    let response = request(&proxy, "POST", &path, "session-id: s\r\n", user("hi").as_bytes()).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    assert_eq!(response.json()["output"][0]["type"], "compaction");
    let asked: Vec<_> = mock.journal().of(CallName::Compact).into_iter().map(|call| call.account).collect();
    assert_eq!(asked, [Some("a".into()), Some("b".into())]);
    // What was compacted can be read by its account alone, so the next turn goes there.
    turn(&proxy, "session-id: s\r\n", &user("hi")).await;
    assert_eq!(finished(&mock).await.account.as_deref(), Some("b"));
}

#[tokio::test]
async fn a_refusal_within_the_stream_moves_before_output() {
    for code in [
        "usage_limit_reached",
        "usage_not_included",
        "insufficient_quota",
        "credit_balance_exhausted",
        "account_deactivated",
        "server_is_overloaded",
    ] {
        let end = TurnEnd::Failed { code: code.into(), message: "no".into() };
        let failing = Rule::new(Turn::default().ending(end)).account("a");
        let script = Script::rules([failing, Rule::new(Turn::text("served"))]);
        let (mock, proxy) = start(&["a", "b"], script).await;
        let response = turn(&proxy, "", &user("hi")).await;
        assert_eq!(asked(&mock), ["a", "b"], "{code}");
        let answer = finished(&mock).await.answer.unwrap();
        assert_eq!((response.head.as_bytes(), &response.body), (&answer.head[..], &answer.body), "{code}");
    }
}

#[tokio::test]
async fn a_refusal_behind_output_passes_and_is_remembered() {
    let end = TurnEnd::Failed { code: "usage_limit_reached".into(), message: "no".into() };
    let failing = Rule::new(Turn::text("half").ending(end)).account("a");
    let failing = failing.pacing(Pacing::gap(Duration::from_millis(30)));
    let script = Script::rules([failing, Rule::new(Turn::text("served"))]);
    let (mock, proxy) = start(&["a", "b"], script).await;
    let response = turn(&proxy, "session-id: s\r\n", &user("hi")).await;
    let answer = finished(&mock).await.answer.unwrap();
    assert_eq!((response.head.as_bytes(), &response.body), (&answer.head[..], &answer.body));
    assert_eq!(turn(&proxy, "session-id: s\r\n", &user("hi")).await.said(), "served");
    assert_eq!(asked(&mock), ["a", "b"]);
}

#[tokio::test]
async fn any_refusal_that_is_the_accounts_own_moves() {
    let full = ("x-codex-primary-used-percent", "100");
    for (what, http) in [
        ("402", Http::json(402, json!({ "detail": { "code": "deactivated_workspace" } }))),
        ("402 without a word", Http::status(402)),
        ("403", Http::json(403, json!({ "error": { "code": "account_deactivated" } }))),
        ("credit", Http::json(429, json!({ "error": { "code": "insufficient_quota" } }))),
        ("plan", Http::json(429, json!({ "error": { "type": "usage_not_included" } }))),
        (
            "full windows",
            Http::json(429, json!({ "error": { "code": "rate_limit_exceeded" } })).header(full.0, full.1),
        ),
    ] {
        let (mock, proxy) = start(&["a", "b"], refusing(http)).await;
        for _ in 0..2 {
            assert_eq!(turn(&proxy, "", &user("hi")).await.said(), "served", "{what}");
        }
        assert_eq!(asked(&mock), ["a", "b", "b"], "{what}");
    }
}

#[tokio::test]
async fn an_error_that_is_no_accounts_own_passes_untouched_and_is_asked_once() {
    for http in [
        Http::text(429, "Too Many Requests"),
        Http::json(429, json!({ "error": { "code": "rate_limit_exceeded" } })).header("retry-after", "1"),
        Http::json(400, json!({ "error": { "code": "context_length_exceeded" } })),
        Http::json(400, json!({ "error": { "code": "invalid_encrypted_content" } })),
        Http::json(400, json!({ "error": { "type": "usage_limit_reached" } })),
        Http::text(403, "<html>challenge</html>").header("content-type", "text/html").header("cf-ray", "x"),
        Http::text(404, "{}"),
        Http::text(413, "too big"),
        Http::json(500, json!({ "error": { "message": "oops" } })),
        Http::text(503, "unavailable").header("retry-after", "3"),
    ] {
        let (mock, proxy) = start(&["a", "b"], refusing(http.clone())).await;
        for _ in 0..2 {
            let response = turn(&proxy, "", &user("hi")).await;
            let answer = finished(&mock).await.answer.unwrap();
            assert_eq!(response.head.as_bytes(), answer.head, "{http:?}");
            assert_eq!(response.body, answer.body, "{http:?}");
        }
        assert_eq!(asked(&mock), ["a", "a"], "{http:?}");
    }
}

/// An account that is used up for so many seconds.
fn used_up(id: &str, resets_in: u64) -> Account {
    let window = Window { seconds: 5 * 3600, used_percent: 100.0, resets_in };
    Account { windows: vec![window], ..Account::new(id) }
}

#[tokio::test]
async fn when_all_are_used_up_the_client_gets_the_refusal_with_the_earliest_reset() {
    for (resets, earliest) in
        [([7200, 3600, 5400], "b"), ([3600, 7200, 5400], "a"), ([7200, 5400, 3600], "c")]
    {
        let accounts = ["a", "b", "c"].into_iter().zip(resets).map(|(id, at)| used_up(id, at)).collect();
        let script = Script { accounts, ..Script::default() };
        let (mock, proxy) = start(&["a", "b", "c"], script).await;
        let response = turn(&proxy, "session-id: s\r\n", &user("hi")).await;
        assert_eq!(response.status(), 429);
        let ended = |all: &[Exchange]| all.iter().all(|exchange| exchange.end.is_some());
        let all = mock.journal().wait_for("all answers", LIMIT, ended).await.unwrap();
        let of =
            |id: &str| all.iter().find(|turn| turn.target == TURN && turn.account.as_deref() == Some(id));
        let answer = of(earliest).unwrap().answer.clone().unwrap();
        assert_eq!(response.head.as_bytes(), answer.head, "{resets:?}");
        assert_eq!(response.body, answer.body, "{resets:?}");
        // It is known by now who comes back first: nobody else needs to be asked.
        let before = asked(&mock).len();
        assert_eq!(turn(&proxy, "", &user("hi")).await.status(), 429);
        assert_eq!(asked(&mock)[before..], [earliest]);
    }
}

#[tokio::test]
async fn when_all_refuse_within_the_stream_the_client_gets_a_real_refusal() {
    let end = TurnEnd::Failed { code: "usage_limit_reached".into(), message: "no".into() };
    let script = Script::rules([Rule::new(Turn::default().ending(end))]);
    let (mock, proxy) = start(&["a", "b"], script).await;
    let response = turn(&proxy, "", &user("hi")).await;
    assert_eq!(asked(&mock), ["a", "b"]);
    finished(&mock).await;
    let answers = mock.journal().responses().into_iter().map(|turn| turn.answer.unwrap().body);
    assert!(answers.into_iter().any(|body| body == response.body), "{}", response.text());
}

#[tokio::test]
async fn a_model_without_capacity_is_asked_for_elsewhere_a_few_times() {
    let http = Http::json(503, json!({ "error": { "code": "server_is_overloaded", "message": "busy" } }));
    let script = Script::rules([Rule::new(http.header("retry-after", "9")).times(3)]);
    let (mock, proxy) = start(&["a", "b", "c", "d", "e"], script).await;
    let response = turn(&proxy, "", &user("hi")).await;
    let mut three = asked(&mock);
    three.dedup();
    assert_eq!((response.status(), three.len(), asked(&mock).len()), (503, 3, 3));
    let answer = finished(&mock).await.answer.unwrap();
    assert_eq!((response.head.as_bytes(), &response.body), (&answer.head[..], &answer.body));
    // It says nothing about the accounts.
    assert_eq!(turn(&proxy, "", &user("hi")).await.said(), "Hello from the mock.");
    assert_eq!(asked(&mock)[3..], ["a"]);
    assert_eq!(proxy.stop().await.events("profile_retry_backoff").count(), 0);
}

#[tokio::test]
async fn a_model_without_capacity_is_not_told_as_an_account_that_is_used_up() {
    let http = Http::json(503, json!({ "error": { "code": "server_is_overloaded", "message": "busy" } }));
    let script = Script::rules([Rule::new(http).account("a")]).account(used_up("b", 86_400));
    let (mock, proxy) = start(&["a", "b"], script).await;
    for _ in 0..2 {
        let response = turn(&proxy, "", &user("hi")).await;
        assert_eq!(response.status(), 503, "which its client tries again: {}", response.text());
    }
    assert_eq!(asked(&mock), ["a", "b", "a"], "what b would say is known and worth less");
}

#[tokio::test]
async fn attempts_have_a_budget() {
    let setting =
        Setting::new(&["a", "b", "c", "d"], Script::rules([Rule::new(Http::json(429, usage_limit()))]));
    let (mock, proxy) = setting.set("PRODEX_MAX_ATTEMPTS", "2").start().await;
    let response = turn(&proxy, "", &user("hi")).await;
    assert_eq!((response.status(), response.json()), (429, usage_limit()));
    assert_eq!(asked(&mock).len(), 2);
    assert_eq!(proxy.stop().await.events("precommit_budget_exhausted").count(), 1);
}

#[tokio::test]
async fn an_account_comes_back_at_its_reset() {
    let limit = json!({ "error": { "type": "usage_limit_reached", "resets_in_seconds": 1 } });
    let script = Script::rules([Rule::new(Http::json(429, limit)).account("a").times(1)]);
    let (mock, proxy) = start(&["a"], script).await;
    assert_eq!(turn(&proxy, "", &user("hi")).await.status(), 429);
    assert_eq!(turn(&proxy, "", &user("hi")).await.status(), 200);
    assert_eq!(asked(&mock), ["a", "a"]);
}

#[tokio::test]
async fn an_error_in_a_raw_stream_moves_as_well() {
    let refusal = "event: error\r\ndata: {\"type\":\"error\",\"status\":429,\r\n\
        data: \"error\":{\"type\":\"usage_limit_reached\"}}\r\n\r\n";
    let script = Script::rules([
        Rule::new(Stream::texts([": hi\r\n\r\n", refusal])).account("a"),
        Rule::new(Turn::text("served")),
    ]);
    let (mock, proxy) = start(&["a", "b"], script).await;
    assert_eq!(turn(&proxy, "", &user("hi")).await.said(), "served");
    assert_eq!(asked(&mock), ["a", "b"]);
}

#[tokio::test]
async fn a_refusal_right_behind_output_is_remembered() {
    let end = TurnEnd::Failed { code: "usage_limit_reached".into(), message: "no".into() };
    let failing = Rule::new(Turn::text("half").ending(end)).account("a").pacing(Pacing::one_write());
    let script = Script::rules([failing, Rule::new(Turn::text("served"))]);
    let (mock, proxy) = Setting::new(&["a", "b"], script).start().await;
    let response = turn(&proxy, "session-id: s\r\n", &user("hi")).await;
    assert_eq!(response.body, finished(&mock).await.answer.unwrap().body);
    assert_eq!(turn(&proxy, "session-id: s\r\n", &user("hi")).await.said(), "served");
    assert_eq!(asked(&mock), ["a", "b"]);
}

#[tokio::test]
async fn fresh_conversations_go_where_there_is_room() {
    let tight = Window { seconds: 18_000, used_percent: 96.0, resets_in: 3600 };
    let account = Account { windows: vec![tight], ..Account::new("a") };
    let (mock, proxy) = start(&["a", "b"], Script::default().account(account)).await;
    for session in ["one", "one", "two", "three", "one"] {
        assert_eq!(turn(&proxy, &format!("session-id: {session}\r\n"), &user("x")).await.status(), 200);
    }
    assert_eq!(
        asked(&mock),
        ["a", "a", "b", "b", "a"],
        "a conversation stays, whatever its account has left"
    );
}
