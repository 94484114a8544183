//! The calls of a ChatGPT backend, as a client that reads them.

use mock_upstream::Account;
use mock_upstream::journal::Violation;
use mock_upstream::script::{CallName, CustomCall, Http, Item, Rule, Script, Turn, TurnEnd};
use serde_json::{Value, json};

use crate::client::{as_account, mock, request, turn, user};

#[tokio::test]
async fn a_turn_without_a_script_says_something() {
    let mock = mock(Script::default()).await;
    let response = turn(&mock, "ChatGPT-Account-Id: me\r\n", &user("hi")).await;
    assert_eq!((response.status, response.said()), (200, "Hello from the mock.".into()));
    for name in ["x-codex-turn-state", "x-codex-primary-used-percent", "x-request-id", "openai-model"] {
        assert!(response.header(name).is_some(), "{name}");
    }
    assert_eq!(mock.journal().exchanges()[0].account.as_deref(), Some("me"));
}

#[tokio::test]
async fn a_tool_is_called_and_its_output_answered() {
    let mock = mock(Script::rules([
        Rule::new(Turn::of([Item::Shell("echo 1".into()), Item::Shell("echo 2".into())])).tool_output(false),
        Rule::new(Turn::text("done")).tool_output(true),
    ]))
    .await;
    let mut body = user("run");
    let calls: Vec<Value> = turn(&mock, "", &body)
        .await
        .events()
        .into_iter()
        .filter(|event| event["type"] == "response.output_item.done")
        .map(|event| event["item"].clone())
        .collect();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1]["arguments"], r#"{"cmd":"echo 2"}"#);
    assert_ne!(calls[0]["call_id"], calls[1]["call_id"]);
    let input = body["input"].as_array_mut().unwrap();
    input.extend(calls.iter().cloned());
    input.push(json!({ "type": "function_call_output", "call_id": calls[0]["call_id"], "output": "1" }));
    assert_eq!(turn(&mock, "", &body).await.said(), "done");
}

#[tokio::test]
async fn a_compaction_is_answered_with_an_item_that_only_its_account_can_use() {
    let (a, b) = (Account::new("a"), Account::new("b"));
    let mock = mock(Script::default().account(a.clone()).account(b.clone())).await;
    let mut body = user("long");
    body["input"].as_array_mut().unwrap().push(json!({ "type": "compaction_trigger" }));
    let response = turn(&mock, &as_account(&a), &body).await;
    let events = response.events();
    let item = &events.iter().find(|event| event["type"] == "response.output_item.done").unwrap()["item"];
    assert_eq!(item["type"], "compaction");

    let mut next = user("go on");
    next["input"].as_array_mut().unwrap().insert(0, item.clone());
    assert_eq!(turn(&mock, &as_account(&a), &next).await.status, 200);
    let refused = turn(&mock, &as_account(&b), &next).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["code"], "invalid_encrypted_content");
    let last = mock.journal().exchanges().pop().unwrap();
    assert_eq!(last.violations, [Violation::ForeignEncryptedContent { owner: "a".into() }]);

    next["input"][0]["encrypted_content"] = "made up".into();
    assert_eq!(turn(&mock, &as_account(&a), &next).await.status, 400);

    let compact = "/backend-api/codex/responses/compact";
    let body = user("x").to_string();
    let response = request(&mock, "POST", compact, &as_account(&b), body.as_bytes()).await;
    assert_eq!(response.json()["output"][0]["type"], "compaction");
}

#[tokio::test]
async fn a_response_can_be_continued_by_its_owner_alone() {
    let (a, b) = (Account::new("a"), Account::new("b"));
    let mock = mock(Script::default().account(a.clone()).account(b.clone())).await;
    let events = turn(&mock, &as_account(&a), &user("hi")).await.events();
    let id = events[0]["response"]["id"].clone();
    let mut next = user("more");
    next["previous_response_id"] = id;
    assert_eq!(turn(&mock, &as_account(&a), &next).await.status, 200);
    let refused = turn(&mock, &as_account(&b), &next).await;
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].as_str()),
        (400, Some("previous_response_not_found"))
    );
    let last = mock.journal().exchanges().pop().unwrap();
    assert_eq!(last.violations, [Violation::ForeignResponse { owner: "a".into() }]);
    next["previous_response_id"] = "resp_unknown".into();
    assert_eq!(turn(&mock, &as_account(&a), &next).await.status, 400);
}

#[tokio::test]
async fn a_turn_state_that_strays_is_noticed() {
    let (a, b) = (Account::new("a"), Account::new("b"));
    let mock = mock(Script::default().account(a.clone()).account(b.clone())).await;
    let response = turn(&mock, &as_account(&a), &user("hi")).await;
    let state = response.header("x-codex-turn-state").unwrap().to_owned();
    let with_state = |account: &Account| format!("{}x-codex-turn-state: {state}\r\n", as_account(account));
    let again = turn(&mock, &with_state(&a), &user("hi")).await;
    assert_eq!(again.header("x-codex-turn-state"), Some(&*state), "a turn keeps its state");
    let other = turn(&mock, &with_state(&b), &user("hi")).await;
    assert_ne!(other.header("x-codex-turn-state"), Some(&*state));
    let odd = format!("{}x-codex-turn-state: odd\r\n", as_account(&a));
    turn(&mock, &odd, &user("hi")).await;
    let violations: Vec<_> = mock.journal().exchanges().into_iter().map(|e| e.violations).collect();
    let foreign = Violation::ForeignTurnState { owner: "a".into() };
    assert_eq!(violations, [vec![], vec![], vec![foreign], vec![Violation::UnknownTurnState]]);
}

#[tokio::test]
async fn turns_fail_as_they_are_told() {
    let failed = TurnEnd::Failed { code: "server_is_overloaded".into(), message: "m".into() };
    let custom = CustomCall { name: "apply_patch".into(), input: "*".into(), call_id: None, namespace: None };
    let mock = mock(Script::rules([
        Rule::new(Turn::default().ending(failed)).times(1),
        Rule::new(Turn::of([Item::CustomCall(custom), Item::Event(json!({ "type": "keepalive" }))])).times(1),
        Rule::new(Http::json(503, json!({ "error": { "code": "slow_down" } }))),
    ]))
    .await;
    let events = turn(&mock, "", &user("1")).await.events();
    assert_eq!(events.last().unwrap()["response"]["error"]["code"], "server_is_overloaded");
    let events = turn(&mock, "", &user("2")).await.events();
    assert!(events.iter().any(|event| event["type"] == "keepalive"));
    assert!(events.iter().any(|event| event["item"]["name"] == "apply_patch"));
    assert_eq!(turn(&mock, "", &user("3")).await.status, 503);
}

#[tokio::test]
async fn the_side_calls_have_the_shapes_that_clients_read() {
    let account = Account { routing_override: "us".into(), ..Account::new("a") };
    let mock = mock(Script::default().account(account.clone().backend_origin("https://localhost:1"))).await;
    let fields = as_account(&account);
    let get = async |target: &str| request(&mock, "GET", target, &fields, b"").await.json();

    let models = get("/backend-api/codex/models?client_version=0.169.0").await;
    assert_eq!(models["models"].as_array().unwrap().len(), 2);
    let check = get("/backend-api/wham/accounts/check").await;
    assert_eq!(check["accounts"][0]["id"], "a");
    assert_eq!(check["accounts"][0]["workspace_backend_origin"], "https://localhost:1");
    assert_eq!(check["accounts"][0]["account_routing_override"], "us");
    let usage = get("/backend-api/wham/usage").await;
    let text = usage.to_string();
    let view = wire::limits::UsageView::of_body(text.as_bytes()).unwrap();
    assert_eq!(view.limits()[0].windows.len(), 2);
    assert!(usage["rate_limit"]["primary_window"]["used_percent"].is_u64());
    assert_eq!(get("/backend-api/wham/settings/user").await, json!({}));
    assert_eq!(get("/backend-api/ps/plugins/installed?limit=200").await["plugins"], json!([]));
    let post = async |target: &str, body: Value| {
        request(&mock, "POST", target, "", body.to_string().as_bytes()).await
    };
    assert_eq!(post("/backend-api/codex/analytics-events/events", json!({})).await.status, 200);

    let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": { "protocolVersion": "2025-06-18" } });
    let response = post("/backend-api/ps/mcp", initialize).await;
    assert_eq!(response.json()["result"]["protocolVersion"], "2025-06-18");
    assert!(response.header("mcp-session-id").is_some());
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(post("/backend-api/ps/mcp", initialized).await.status, 202);
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    assert_eq!(post("/backend-api/ps/mcp", list).await.json()["result"]["tools"], json!([]));
    let unknown = json!({ "jsonrpc": "2.0", "id": 2, "method": "resources/list" });
    assert_eq!(post("/backend-api/ps/mcp", unknown).await.json()["error"]["code"], -32601);
    assert_eq!(request(&mock, "DELETE", "/backend-api/ps/mcp", "", b"").await.status, 200);
    assert_eq!(mock.journal().of(CallName::Mcp).len(), 5);
}
