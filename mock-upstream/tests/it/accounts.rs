//! Accounts: who is let in, until when, and what a refresh gives.

use mock_upstream::Account;
use mock_upstream::script::{Rule, Script, Transport, Turn};
use serde_json::json;

use crate::client::{as_account, bearer, mock, request, turn, user};

#[tokio::test]
async fn a_usage_limit_is_said_as_the_client_understands_it() {
    let account = Account::new("a").turns_left(1);
    let mock = mock(Script::default().account(account.clone())).await;
    let fields = as_account(&account);
    assert_eq!(turn(&mock, &fields, &user("1")).await.status, 200);
    let refused = turn(&mock, &fields, &user("2")).await;
    assert_eq!(refused.status, 429);
    let error = &refused.json()["error"];
    assert_eq!(
        (error["type"].as_str(), error["plan_type"].as_str()),
        (Some("usage_limit_reached"), Some("plus"))
    );
    let resets_at = mock.account("a").unwrap().windows[0].resets_at;
    assert_eq!(error["resets_at"], resets_at);
    assert!(error["resets_in_seconds"].as_u64().unwrap() <= 4 * 3600);
    assert_eq!(refused.header("x-codex-primary-used-percent"), Some("100"));
    assert_eq!(refused.header("x-codex-primary-reset-at"), Some(&*resets_at.to_string()));
    assert_eq!(refused.header("x-codex-secondary-used-percent"), Some("34"));
    let usage = request(&mock, "GET", "/backend-api/wham/usage", &fields, b"").await.json();
    assert_eq!(usage["rate_limit"]["limit_reached"], true);
    assert!(mock.set_turns_left("a", None));
    assert_eq!(turn(&mock, &fields, &user("3")).await.status, 200);
    let state = mock.account("a").unwrap();
    assert_eq!((state.turns, state.refusals), (2, 1));
}

#[tokio::test]
async fn strangers_are_refused_by_every_call_of_an_account() {
    let account = Account::new("a").api_key("key-of-a");
    let rule = Rule::new(Turn::text("only for a")).account("a").transport(Transport::Http);
    let mock = mock(Script::default().account(account.clone()).rule(rule)).await;
    for target in ["/backend-api/codex/models", "/backend-api/wham/usage", "/backend-api/wham/accounts/check"]
    {
        assert_eq!(request(&mock, "GET", target, "", b"").await.status, 401, "{target}");
    }
    assert_eq!(turn(&mock, &bearer("unknown", "a"), &user("x")).await.status, 401);
    assert_eq!(turn(&mock, &bearer(&account.access_token(), "b"), &user("x")).await.status, 403);
    assert_eq!(turn(&mock, "Authorization: Bearer key-of-a\r\n", &user("x")).await.said(), "only for a");
    assert_eq!(mock.metrics().refusals, 5);
}

#[tokio::test]
async fn an_expired_token_is_good_again_after_one_refresh() {
    let account = Account::new("a").expired();
    let mock = mock(Script::default().account(account.clone())).await;
    let refused = turn(&mock, &as_account(&account), &user("x")).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (401, Some("token_expired")));
    let refresh = async |token: &str| {
        let body = json!({ "client_id": "app", "grant_type": "refresh_token", "refresh_token": token });
        request(&mock, "POST", "/oauth/token", "", body.to_string().as_bytes()).await
    };
    let granted = refresh(&account.refresh_token()).await.json();
    let access = granted["access_token"].as_str().unwrap();
    assert_eq!(turn(&mock, &bearer(access, "a"), &user("x")).await.status, 200);
    let reused = refresh(&account.refresh_token()).await;
    assert_eq!((reused.status, reused.json()["error"]["code"].as_str()), (401, Some("refresh_token_reused")));
    let rotated = granted["refresh_token"].as_str().unwrap();
    assert_eq!(refresh(rotated).await.status, 200);
    let unknown = refresh("nobody's").await;
    assert_eq!((unknown.status, unknown.json()["error"].as_str()), (400, Some("invalid_grant")));
    assert_eq!(mock.account("a").unwrap().refreshes, 2);
    assert!(mock.expire("a") && !mock.expire("b"));
    assert_eq!(turn(&mock, &bearer(access, "a"), &user("x")).await.status, 401);
    let other = request(&mock, "POST", "/oauth/token", "", b"grant_type=refresh_token").await;
    assert_eq!(other.status, 400);
}
