//! Renewal against a token endpoint that answers well, badly, late and not at all.

#![expect(clippy::disallowed_methods, reason = "tests may touch the disk")]

use super::*;
use crate::config::Config;
use crate::server::authority::client_config;
use crate::state::State;
use crate::telemetry::RunLog;
use serde_json::json;
use wiremock::matchers::{body_json, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// A home with one login, and an endpoint that answers with `answer`.
struct Setting {
    endpoint: MockServer,
    control: Arc<Control>,
    profile: Arc<Profile>,
    home: tempfile::TempDir,
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
        let control = Arc::new(Control::new(
            config,
            State::in_memory(),
            Arc::new(RunLog::none()),
            tls,
            tokio::runtime::Handle::current(),
        ));
        let auth =
            json!({"tokens": {"access_token": "a1", "refresh_token": "r1", "account_id": "x"}, "kept": 1});
        let stored = control.store.add("work", &auth.to_string(), None).unwrap();
        let profile = Arc::new(Profile::new("work", stored.credentials));
        Self { endpoint, control, profile, home }
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

/// Answers the exchange of `old` as the endpoint of a good login does.
async fn grant(setting: &Setting, old: &str, access: &str, refresh: &str) {
    let request = json!({"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": old});
    let exchange = Mock::given(method("POST")).and(path("/oauth/token")).and(body_json(request));
    let answer = json!({"access_token": access, "refresh_token": refresh});
    exchange.respond_with(ResponseTemplate::new(200).set_body_json(answer)).mount(&setting.endpoint).await;
}

/// Makes the disk refuse to replace the login, until the returned path is removed.
fn full_disk(setting: &Setting) -> std::path::PathBuf {
    let name = format!("profiles/work/auth.json.new-{}", std::process::id());
    let obstacle = setting.home.path().join(name);
    std::fs::create_dir(&obstacle).unwrap();
    obstacle
}

fn on_disk_now(setting: &Setting) -> String {
    setting.control.store.read_auth("work").unwrap().1.bearer().expose().to_owned()
}

#[tokio::test]
async fn a_renewal_that_cannot_be_saved_is_used_and_saved_later() {
    let setting = Setting::new(renewed()).await;
    grant(&setting, "r2", "a3", "r3").await;
    let obstacle = full_disk(&setting);
    assert_eq!(setting.renew().await.unwrap().bearer().expose(), "a2");
    assert_eq!(on_disk_now(&setting), "a1", "whose refresh token is spent");
    assert_eq!(setting.renew().await.unwrap().bearer().expose(), "a3", "an old token is no newer one");
    std::fs::remove_dir(obstacle).unwrap();
    save_later(&setting.control, &setting.profile, Now::read());
    setting.control.tasks.end(std::time::Duration::from_secs(20)).await;
    assert_eq!(on_disk_now(&setting), "a3");
    assert_eq!(setting.exchanges().await, 2);
}

#[tokio::test]
async fn a_new_login_wins_over_a_renewal_that_could_not_be_saved() {
    let setting = Setting::new(renewed()).await;
    let obstacle = full_disk(&setting);
    setting.renew().await.unwrap();
    std::fs::remove_dir(obstacle).unwrap();
    let new = json!({"tokens": {"access_token": "new", "refresh_token": "r9", "account_id": "x"}});
    setting.control.store.replace_auth("work", &new.to_string()).unwrap();
    assert_eq!(setting.renew().await.unwrap().bearer().expose(), "new");
    assert_eq!(on_disk_now(&setting), "new");
}

#[tokio::test]
async fn a_spent_login_does_not_bring_a_parked_profile_back() {
    let setting = Setting::new(renewed()).await;
    let rejected = ResponseTemplate::new(400).set_body_json(json!({"error": "invalid_grant"}));
    let request = json!({"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": "r2"});
    Mock::given(body_json(request)).respond_with(rejected).mount(&setting.endpoint).await;
    let _obstacle = full_disk(&setting);
    setting.renew().await.unwrap();
    assert!(matches!(setting.renew().await, Err(RefreshError::Rejected(_))));
    look_again(&setting.control, &setting.profile).await;
    assert!(setting.profile.health().parked().is_some());
    assert_eq!(setting.profile.credentials().bearer().expose(), "a2");
}

#[tokio::test]
async fn a_login_that_comes_during_the_exchange_stays() {
    let setting = Setting::new(renewed().set_delay(std::time::Duration::from_millis(200))).await;
    let new = json!({"tokens": {"access_token": "new", "refresh_token": "r9", "account_id": "x"}});
    let login = async {
        while setting.exchanges().await == 0 {
            tokio::task::yield_now().await;
        }
        // By someone who takes no lease.
        setting.control.store.replace_auth("work", &new.to_string()).unwrap();
    };
    let (renewed, ()) = tokio::join!(setting.renew(), login);
    assert_eq!(renewed.unwrap().bearer().expose(), "new");
    assert_eq!(setting.control.store.read_auth("work").unwrap().0, new.to_string());
}

#[tokio::test]
async fn the_login_of_another_account_is_not_adopted() {
    let other = json!({"tokens": {"access_token": "b", "refresh_token": "r9", "account_id": "y"}});
    let key = json!({"auth_mode": "apikey", "OPENAI_API_KEY": "k".repeat(9)});
    for foreign in [other, key] {
        let setting = Setting::new(renewed()).await;
        setting.control.store.replace_auth("work", &foreign.to_string()).unwrap();
        assert_eq!(setting.renew().await, Err(RefreshError::Foreign));
        look_again(&setting.control, &setting.profile).await;
        let parked = setting.profile.health().parked().map(str::to_owned).unwrap();
        assert!(parked.contains("another account"), "{parked}");
        assert_eq!(setting.profile.credentials().bearer().expose(), "a1");
        assert_eq!(setting.exchanges().await, 0);
        // Whoever puts its own login back, brings it back.
        let own = json!({"tokens": {"access_token": "a1", "refresh_token": "r1", "account_id": "x"}});
        setting.control.store.replace_auth("work", &own.to_string()).unwrap();
        setting.profile.health().park(parked);
        look_again(&setting.control, &setting.profile).await;
        assert_eq!(setting.profile.health().parked(), None);
    }
}

#[tokio::test]
async fn a_lease_that_is_not_given_back_is_not_waited_for_for_ever() {
    let setting = Setting::new(renewed()).await;
    let limit = std::time::Duration::ZERO;
    let lease = setting.control.store.lease("work", limit).unwrap();
    let error = setting.renew().await.unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    assert_eq!(setting.profile.health().parked(), None);
    drop(lease);
    assert!(setting.renew().await.is_ok());
}

/// A file that does not answer: whoever reads it waits for somebody who writes. Dropped, it is one that does, also
/// for those who wait, so that the test comes to its end.
struct Hanging(std::path::PathBuf);

impl Hanging {
    fn at(path: std::path::PathBuf) -> Self {
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self(path)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let both = std::fs::OpenOptions::new().read(true).write(true).open(&self.0);
        let _ = std::fs::remove_file(&self.0).and_then(|()| std::fs::write(&self.0, "{}"));
        drop(both);
    }
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_not_waited_for_for_ever() {
    let setting = Setting::new(renewed()).await;
    let _hanging = Hanging::at(setting.home.path().join("profiles/work/auth.json"));
    let limit = std::time::Duration::from_secs(20);
    let renewing = tokio::time::timeout(limit, setting.renew());
    let error = renewing.await.expect("nobody waits for ever").unwrap_err();
    assert_eq!(error.to_string(), "its login could not be renewed: the disk did not answer within 1s");
    setting.profile.health().park("its file".to_owned());
    let looking = look_again(&setting.control, &setting.profile);
    tokio::time::timeout(limit, looking).await.expect("nobody waits for ever");
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
        assert!(setting.profile.health().parked().unwrap().contains("prodex login"));
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

#[tokio::test]
async fn a_file_that_was_written_but_not_put_in_place_is_not_lost() {
    let setting = Setting::new(renewed()).await;
    let directory = setting.home.path().join("profiles/work");
    let login = |access: &str, account: &str, at: &str| json!({"tokens": {"access_token": access, "refresh_token": "r9", "account_id": account}, "last_refresh": at});
    for (name, content) in [
        ("auth.json.new-1", login("older", "x", "2026-01-01T00:00:00Z").to_string()),
        ("auth.json.new-2", login("newest", "x", "2026-03-01T00:00:00Z").to_string()),
        ("auth.json.new-3", login("foreign", "y", "2026-04-01T00:00:00Z").to_string()),
        ("auth.json.new-4", login("cut", "x", "2026-05-01T00:00:00Z").to_string()[..60].to_owned()),
    ] {
        std::fs::write(directory.join(name), content).unwrap();
    }
    assert_eq!(setting.renew().await.unwrap().bearer().expose(), "newest");
    assert_eq!((on_disk_now(&setting).as_str(), setting.exchanges().await), ("newest", 0));
    let left = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().contains(".new-")).count(), 0);
}

#[tokio::test]
async fn a_rejection_is_found_out_once_for_all_processes_and_for_ten_minutes() {
    let rejected = ResponseTemplate::new(400).set_body_json(json!({"error": "invalid_grant"}));
    let setting = Setting::new(rejected).await;
    let rejected = Err(RefreshError::Rejected("invalid_grant".to_owned()));
    assert_eq!(setting.renew().await, rejected);
    assert_eq!(setting.renew().await, rejected);
    assert_eq!(setting.exchanges().await, 1);
    let lease = setting.control.store.lease("work", std::time::Duration::ZERO).unwrap();
    let note = lease.note();
    assert!(!note.contains("r1"), "{note}");
    let token = Secret::new("r1");
    let at = serde_json::from_str::<Rejection>(&note).unwrap().at;
    let code = |token: &Secret, after: i64| Rejection::of(&lease, token, at + after);
    assert_eq!(code(&token, 0).as_deref(), Some("invalid_grant"));
    assert_eq!((code(&token, REJECTED), code(&token, -1)), (None, None));
    assert_eq!(code(&Secret::new("r2"), 0), None);
    for note in ["", "{}", "[1]", "\u{1b}", &"x".repeat(5000)] {
        lease.set_note(note).unwrap();
        assert_eq!(code(&token, 0), None);
    }
    drop(lease);
    assert_eq!(setting.renew().await, rejected);
    assert_eq!(setting.exchanges().await, 2);
}

/// A login whose access token says that it expires in so many seconds.
fn expiring(seconds: i64) -> String {
    let exp = jiff::Timestamp::now().as_second() + seconds;
    let access = crate::profile::credentials::tests::token(&json!({ "exp": exp }));
    json!({"tokens": {"access_token": access, "refresh_token": "r1", "account_id": "x"}}).to_string()
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_expiry_and_only_then() {
    let limit = std::time::Duration::from_secs(20);
    for (seconds, exchanges) in [(-10, 1), (120, 1), (3600, 0)] {
        let setting = Setting::new(renewed()).await;
        let auth = expiring(seconds);
        setting.control.store.replace_auth("work", &auth).unwrap();
        setting.profile.set_credentials(Credentials::parse(&auth).unwrap());
        for _ in 0..5 {
            renew_ahead(&setting.control, &setting.profile, Now::read());
        }
        // What began goes on; nothing else begins.
        while exchanges == 1 && setting.profile.credentials().bearer().expose() != "a2" {
            tokio::time::timeout(limit, tokio::task::yield_now()).await.unwrap();
        }
        setting.control.tasks.end(limit).await;
        assert_eq!(setting.exchanges().await, exchanges, "{seconds}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_ahead_is_used_while_it_is_good() {
    let rejected =
        ResponseTemplate::new(401).set_body_json(json!({"error": {"code": "refresh_token_reused"}}));
    let setting = Setting::new(rejected).await;
    let auth = expiring(120);
    setting.control.store.replace_auth("work", &auth).unwrap();
    setting.profile.set_credentials(Credentials::parse(&auth).unwrap());
    renew_ahead(&setting.control, &setting.profile, Now::read());
    while setting.exchanges().await == 0 {
        tokio::task::yield_now().await;
    }
    setting.control.tasks.end(std::time::Duration::from_secs(20)).await;
    assert_eq!(setting.profile.health().parked(), None);
}
