//! Renewal against a token endpoint that answers well, badly, late and not at all.

use super::*;
use crate::config::Config;
use crate::server::authority::client_config;
use crate::telemetry::RunLog;
use serde_json::json;
use wiremock::matchers::{body_json, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// A home with one login, and an endpoint that answers with `answer`.
struct Setting {
    endpoint: MockServer,
    control: Arc<Control>,
    profile: Arc<Profile>,
    _home: tempfile::TempDir,
}

impl Setting {
    async fn new(answer: ResponseTemplate) -> Self {
        let endpoint = MockServer::start().await;
        let request = json!({"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": "r1"});
        let exchange = Mock::given(method("POST")).and(path("/oauth/token")).and(body_json(request));
        exchange.respond_with(answer).mount(&endpoint).await;
        let home = tempfile::tempdir().unwrap();
        let flags = vec![("upstream", endpoint.uri()), ("control_timeout", "500ms".to_owned())];
        let config = Config::load(Some(home.path()), &|_| None, &flags).unwrap();
        let tls = Arc::new(client_config(None).unwrap());
        let control =
            Arc::new(Control::new(config, Arc::new(RunLog::none()), tls, tokio::runtime::Handle::current()));
        let auth =
            json!({"tokens": {"access_token": "a1", "refresh_token": "r1", "account_id": "x"}, "kept": 1});
        let stored = control.store.add("work", &auth.to_string(), None).unwrap();
        let profile = Arc::new(Profile::new("work", stored.credentials));
        Self { endpoint, control, profile, _home: home }
    }

    async fn renew(&self) -> Result<Arc<Credentials>, RefreshError> {
        renew(&self.control, &self.profile, &self.profile.credentials()).await
    }

    async fn exchanges(&self) -> usize {
        self.endpoint.received_requests().await.unwrap_or_default().len()
    }
}

fn renewed() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({"access_token": "a2", "refresh_token": "r2"}))
}

#[tokio::test]
async fn many_who_need_it_share_one_exchange() {
    let setting = Setting::new(renewed()).await;
    let stale = setting.profile.credentials();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (control, profile, stale) =
            (Arc::clone(&setting.control), Arc::clone(&setting.profile), Arc::clone(&stale));
        all.spawn(async move { renew(&control, &profile, &stale).await });
    }
    for renewed in all.join_all().await {
        assert_eq!(renewed.unwrap().bearer().expose(), "a2");
    }
    assert_eq!(setting.exchanges().await, 1);
    let (one, two) = tokio::join!(setting.renew(), setting.renew());
    assert!(one.is_err() && two.is_err(), "the endpoint knows r1 only");
    assert_eq!(setting.exchanges().await, 2);
    let (text, _) = setting.control.store.read_auth("work").unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&file["tokens"]["refresh_token"], &file["kept"]), (&json!("r2"), &json!(1)));
}

#[tokio::test]
async fn what_another_process_renewed_is_adopted() {
    let setting = Setting::new(renewed()).await;
    let other = json!({"tokens": {"access_token": "other", "refresh_token": "r9", "account_id": "x"}});
    setting.control.store.replace_auth("work", &other.to_string()).unwrap();
    assert_eq!(setting.renew().await.unwrap().bearer().expose(), "other");
    assert_eq!(setting.exchanges().await, 0);
}

#[tokio::test]
async fn a_rejected_login_parks_its_profile_until_a_new_one_comes() {
    for (status, body, code) in [
        (401, json!({"error": {"code": "refresh_token_reused", "message": "r1"}}), "refresh_token_reused"),
        (400, json!({"error": "invalid_grant"}), "invalid_grant"),
        (401, json!("<html>"), "rejected"),
    ] {
        let setting = Setting::new(ResponseTemplate::new(status).set_body_json(body)).await;
        assert_eq!(setting.renew().await, Err(RefreshError::Rejected(code.to_owned())));
        assert!(setting.profile.health().parked().unwrap().contains("codex login"));
        let new = json!({"tokens": {"access_token": "new", "refresh_token": "r9", "account_id": "x"}});
        setting.control.store.replace_auth("work", &new.to_string()).unwrap();
        assert!(setting.renew().await.is_ok());
        assert_eq!(setting.profile.health().parked(), None);
    }
}

#[tokio::test]
async fn an_endpoint_in_trouble_parks_nobody() {
    let late = renewed().set_delay(std::time::Duration::from_secs(5));
    for answer in [
        ResponseTemplate::new(500).set_body_json(json!({"error": "x"})),
        ResponseTemplate::new(200).set_body_string("<html>r1</html>"),
        ResponseTemplate::new(200).set_body_json(json!({"access_token": 7})),
        ResponseTemplate::new(302).insert_header("location", "http://127.0.0.1:9/"),
        late,
    ] {
        let setting = Setting::new(answer).await;
        let error = setting.renew().await.unwrap_err();
        assert!(matches!(error, RefreshError::Unavailable(_)), "{error}");
        assert!(!error.to_string().contains("r1"), "no token is quoted: {error}");
        assert_eq!(setting.profile.health().parked(), None);
        assert_eq!(setting.exchanges().await, 1, "no redirect is followed");
    }
}

#[tokio::test]
async fn credentials_without_a_refresh_token_are_not_renewable() {
    let setting = Setting::new(renewed()).await;
    let opaque = json!({"tokens": {"access_token": "a1", "account_id": "x"}});
    setting.control.store.replace_auth("work", &opaque.to_string()).unwrap();
    assert_eq!(setting.renew().await, Err(RefreshError::NotRenewable));
    assert_eq!(setting.profile.health().parked(), None);
}
