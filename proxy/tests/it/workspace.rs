//! Where traffic goes: the client is told to stay, and each profile's own answer is followed.

use mock_upstream::script::{CallName, Http, Rule, Script};
use mock_upstream::{Account, Config, Mock};
use serde_json::{Value, json};

use crate::connection::{request, turn, user};
use crate::http2::{Http2, collect};
use crate::rig::{Setting, finished};

const CHECK: &str = "/backend-api/wham/accounts/check";

fn assert_is_about(answer: &Value, account: &str, origin: &str) {
    let entries = answer["accounts"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "exactly one entry: {answer}");
    assert_eq!((&entries[0]["id"], &entries[0]["account_id"]), (&account.into(), &account.into()));
    assert_eq!(entries[0]["workspace_backend_origin"], origin);
    assert_eq!(entries[0]["account_routing_override"], "NO_CONSTRAINT");
    assert_eq!(
        (&answer["default_account_id"], &answer["account_ordering"]),
        (&account.into(), &json!([account]))
    );
}

#[tokio::test]
async fn a_plain_client_is_told_of_an_origin_where_nothing_answers() {
    let (mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let response =
        request(&proxy, "GET", CHECK, "authorization: Bearer own\r\nChatGPT-Account-Id: acct-own\r\n", b"")
            .await;
    assert_eq!(response.status(), 200);
    assert_is_about(&response.json(), "acct-own", "https://localhost:9");
    // Without the field the token says whose it is.
    let token = Account::new("acct-claimed").access_token();
    let response = request(&proxy, "GET", CHECK, &format!("authorization: Bearer {token}\r\n"), b"").await;
    assert_is_about(&response.json(), "acct-claimed", "https://localhost:9");
    let response = request(&proxy, "GET", CHECK, "", b"").await;
    assert_eq!(response.status(), 400);
    assert!(mock.journal().exchanges().is_empty(), "no upstream is asked on behalf of the client");
}

#[tokio::test]
async fn a_tls_client_is_told_that_anywhere_will_do() {
    let (mock, proxy) = Setting::new(&["one"], Script::default()).argument("--tls").start().await;
    let mut client = Http2::open(&proxy).await;
    let target = format!("{}{CHECK}", proxy.prefix());
    let fields = [("authorization", "Bearer own"), ("chatgpt-account-id", "acct-own")];
    let mut response = client.send("GET", &target, &fields, "").await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-type"].as_bytes()),
        (200, &b"application/json"[..])
    );
    let (body, _) = collect(response.body_mut()).await;
    assert_is_about(&serde_json::from_slice(&body).unwrap(), "acct-own", "NO_CONSTRAINT");
    assert!(mock.journal().exchanges().is_empty());
}

#[tokio::test]
async fn each_profiles_traffic_goes_to_its_own_origin() {
    let own = Mock::start(Config::script(Script::default().account(Account::new("a")))).await.unwrap();
    let mut bound = Account::new("a").backend_origin(own.base_url());
    bound.routing_override = "us".to_owned();
    let (mock, proxy) = Setting::new(&["a"], Script::default().account(bound)).start().await;
    for _ in 0..2 {
        let fields = "x-openai-account-routing-override: client\r\n";
        assert_eq!(turn(&proxy, fields, &user("x")).await.status(), 200);
        let turn = finished(&own).await;
        assert_eq!(turn.header("x-openai-account-routing-override").as_deref(), Some("us"));
        assert_eq!(turn.header("host").as_deref(), own.base_url().strip_prefix("http://"));
    }
    assert!(mock.journal().responses().is_empty());
    let [question] = mock.journal().of(CallName::AccountsCheck).try_into().unwrap();
    assert_eq!(
        (question.header("chatgpt-account-id").as_deref(), question.account.as_deref()),
        (Some("a"), Some("a"))
    );
    let log = proxy.stop().await;
    let origin = log.events("profile_origin").next().unwrap();
    assert_eq!((&origin.fields["origin"], &origin.fields["routing"]), (&own.base_url().into(), &"us".into()));
}

#[tokio::test]
async fn without_an_answer_traffic_goes_where_it_always_went() {
    for http in [
        Http::status(404),
        Http::text(200, "<html>"),
        Http::json(200, json!({ "accounts": [{ "id": "someone" }] })),
        Http::json(
            200,
            json!({ "accounts": [{ "id": "a", "workspace_backend_origin": "http://evil.example" }] }),
        ),
    ] {
        let question = Rule::new(http.clone()).call(CallName::AccountsCheck);
        let (mock, proxy) = Setting::new(&["a"], Script::rules([question])).start().await;
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200, "{http:?}");
        assert_eq!(finished(&mock).await.header("x-openai-account-routing-override"), None);
        assert_eq!(proxy.stop().await.events("compat_warning").count(), 1, "{http:?}");
    }
}
