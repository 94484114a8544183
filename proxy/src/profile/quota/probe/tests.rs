//! The usage endpoint that answers, fails and is not needed.

use super::*;
use crate::config::Config;
use crate::profile::Credentials;
use crate::server::authority::client_config;
use crate::telemetry::RunLog;
use serde_json::json;
use wire::limits::Window;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// A profile, and a usage endpoint that answers so. Evidence is old after 15 seconds.
struct Setting {
    endpoint: MockServer,
    control: Arc<Control>,
    profile: Arc<Profile>,
    _home: tempfile::TempDir,
}

impl Setting {
    async fn new(answer: ResponseTemplate) -> Self {
        let endpoint = MockServer::start().await;
        let question = Mock::given(method("GET")).and(path(PATH)).and(header("chatgpt-account-id", "x"));
        question.respond_with(answer).mount(&endpoint).await;
        let home = tempfile::tempdir().unwrap();
        let flags = vec![("upstream", endpoint.uri()), ("quota_refresh", "15s".to_owned())];
        let config = Config::load(Some(home.path()), &|_| None, &flags).unwrap();
        let (log, tls) = (Arc::new(RunLog::none()), Arc::new(client_config(None).unwrap()));
        let control = Arc::new(Control::new(
            config,
            crate::state::State::in_memory(),
            log,
            tls,
            tokio::runtime::Handle::current(),
        ));
        let auth = json!({"tokens": {"access_token": "t", "account_id": "x"}}).to_string();
        let profile = Arc::new(Profile::new("work", Credentials::parse(&auth).unwrap()));
        Self { endpoint, control, profile, _home: home }
    }

    /// Lets it be considered, and waits for what comes of it.
    async fn consider(&self, now: Now) -> usize {
        consider(&self.control, &self.profile, now);
        // Nobody is asked where there is no reason; otherwise the one that runs is joined.
        let none = || async {};
        self.profile.prober.flight.join(&self.control.tasks, none).await;
        self.asked().await
    }

    async fn asked(&self) -> usize {
        self.endpoint.received_requests().await.unwrap_or_default().len()
    }

    fn reason(&self, now: Now) -> Option<Reason> {
        reason(&self.control, &self.profile, now)
    }
}

fn usage(used: u64) -> ResponseTemplate {
    let now = Now::read().unix;
    ResponseTemplate::new(200).set_body_json(json!({
        "plan_type": "plus",
        "rate_limit": {"allowed": true, "limit_reached": false, "primary_window":
            {"used_percent": used, "limit_window_seconds": 18000, "reset_at": now + 3600}},
        "additional_rate_limits": [{"metered_feature": "codex_spark", "rate_limit": {"secondary_window":
            {"used_percent": 7, "limit_window_seconds": 604_800, "reset_at": now + 3600}}}],
    }))
}

fn after(now: Now, seconds: i64) -> Now {
    let instant = now.instant + Duration::from_secs(seconds.unsigned_abs());
    Now { instant, unix: now.unix + seconds }
}

#[tokio::test]
async fn an_unknown_profile_is_asked_about_once_by_all_who_consider_it() {
    let setting = Setting::new(usage(42)).await;
    for _ in 0..20 {
        consider(&setting.control, &setting.profile, Now::read());
    }
    assert_eq!(setting.consider(Now::read()).await, 1);
    let now = Now::read();
    {
        let quota = setting.profile.quota();
        assert_eq!(
            (quota.remaining(now), quota.plan(), quota.windows().len()),
            (Some(58.0), Some("plus"), 2)
        );
    }
    assert_eq!(setting.consider(now).await, 1, "what is known need not be asked for");
    assert_eq!(setting.reason(after(now, 16)), Some(Reason::Stale));
    assert_eq!(setting.reason(after(now, 3600)), Some(Reason::Reset));
}

#[tokio::test]
async fn a_response_that_tells_it_first_spares_the_question() {
    let setting = Setting::new(usage(42)).await;
    consider(&setting.control, &setting.profile, Now::read());
    let window = Window { used_percent: 1.0, length: None, resets_at: None };
    setting.profile.quota().observe_own(vec![window], Source::Response, Now::read());
    assert_eq!(setting.consider(Now::read()).await, 0);
}

#[tokio::test]
async fn who_is_used_up_parked_or_no_login_is_not_asked_about() {
    let setting = Setting::new(usage(42)).await;
    let now = Now::read();
    setting.profile.quota().exhaust(Some(now.unix + 60), now);
    assert_eq!(setting.reason(now), None);
    assert_eq!(setting.reason(after(now, 61)), Some(Reason::Stale));
    setting.profile.health().park("for a test".to_owned());
    assert_eq!(setting.reason(after(now, 61)), None);
    let key = Profile::new("key", Credentials::OpenAiKey(crate::secret::Secret::new("k")));
    assert_eq!(reason(&setting.control, &key, now), None);
}

#[tokio::test]
async fn an_endpoint_that_fails_is_left_alone_for_longer_and_longer() {
    for answer in [
        ResponseTemplate::new(503),
        ResponseTemplate::new(200).set_body_string("<html>"),
        ResponseTemplate::new(200).set_body_bytes(vec![b' '; (1 << 20) + 1]),
        ResponseTemplate::new(302).insert_header("location", "http://127.0.0.1:9/"),
    ] {
        let setting = Setting::new(answer).await;
        let mut pauses = Vec::new();
        for failures in 1..=4 {
            let now = Now::read();
            lock(&setting.profile.prober.rest).until = None;
            assert_eq!(setting.consider(now).await, failures);
            assert_eq!(setting.reason(now), None, "it is left alone");
            let until = lock(&setting.profile.prober.rest).until.unwrap();
            pauses.push(until.duration_since(now.instant).as_millis());
        }
        for (at, pause) in pauses.iter().enumerate() {
            assert!(*pause >= 1500 << at, "{pauses:?}");
        }
        assert!(setting.profile.quota().windows().is_empty(), "unknown stays unknown");
    }
}

#[tokio::test]
async fn an_answer_that_tells_nothing_is_not_asked_for_again_at_once() {
    let nothing = ResponseTemplate::new(200).set_body_json(json!({"plan_type": "plus", "rate_limit": null}));
    let setting = Setting::new(nothing).await;
    assert_eq!(setting.consider(Now::read()).await, 1);
    let now = Now::read();
    assert_eq!((setting.reason(now), setting.reason(after(now, 16))), (None, Some(Reason::Unknown)));
}

#[tokio::test]
async fn an_exit_waits_for_no_question() {
    let setting = Setting::new(usage(1).set_delay(Duration::from_secs(60))).await;
    consider(&setting.control, &setting.profile, Now::read());
    while setting.asked().await == 0 {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    setting.control.tasks.end(Duration::from_secs(30)).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(setting.reason(Now::read()), None, "and none begins any more");
}

#[test]
fn pauses_differ_within_their_bounds() {
    let pauses: Vec<Duration> = (0..50).map(|_| jittered(Duration::from_secs(1), 4)).collect();
    assert!(pauses.iter().all(|pause| (1..=4).contains(&pause.as_secs())), "{pauses:?}");
    assert!(pauses.iter().any(|pause| *pause != pauses[0]));
}
