//! Clocks that disagree by hours: a laptop that slept, a wall clock that is set forward and back.

use std::time::{SystemTime, UNIX_EPOCH};

use mock_upstream::script::{CallName, Http, Rule, Script};
use mock_upstream::{Account, Mock};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::connection::{turn, user};
use crate::rig::{Proxy, Setting, asked, finished, until};
use crate::socket::{Socket, create, create_behind, response_id};

const HOUR: i64 = 3600;

/// The wall clock of a proxy, which is off by what was set last.
struct Clock(NamedTempFile);

impl Clock {
    fn new(seconds: i64) -> Self {
        let clock = Self(NamedTempFile::new().unwrap());
        clock.set(seconds);
        clock
    }

    /// The monotonic clock goes on as ever, so that forward is what a sleep looks like.
    fn set(&self, seconds: i64) {
        std::fs::write(self.0.path(), seconds.to_string()).unwrap();
    }

    async fn start(&self, setting: Setting) -> (Mock, Proxy) {
        let setting = setting.set("PRODEX_TEST_CLOCK", &self.0.path().display().to_string());
        setting.set("PRODEX_WORKERS", "1").start().await
    }
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn after_a_sleep_no_request_meets_a_connection_of_before() {
    let clock = Clock::new(0);
    let (mock, proxy) = clock.start(Setting::new(&["a"], Script::default())).await;
    let connection = async || {
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
        finished(&mock).await.connection
    };
    let (first, same) = (connection().await, connection().await);
    assert_eq!(first, same);
    clock.set(8 * HOUR);
    let awake = connection().await;
    assert_ne!(awake, first, "the upstream may have ended it, and nobody was told");
    assert_eq!(connection().await, awake);
    clock.set(-8 * HOUR);
    assert_eq!(connection().await, awake, "a clock that is set back says nothing about connections");
}

#[tokio::test]
async fn after_a_sleep_a_websocket_goes_on_over_a_new_upstream() {
    let clock = Clock::new(0);
    let (mock, proxy) = clock.start(Setting::new(&["a"], Script::default())).await;
    let mut socket = Socket::open(&proxy, &[("session-id", "s")]).await.unwrap();
    let mut events = socket.turn(&create("x")).await;
    let upgrades = || mock.journal().responses().iter().filter(|exchange| exchange.is_websocket()).count();
    let mut opened = vec![upgrades()];
    for slept in [0, 8 * HOUR, 8 * HOUR, -8 * HOUR, 0] {
        clock.set(slept);
        events = socket.turn(&create_behind("on", &response_id(&events))).await;
        assert_eq!(events.last().unwrap()["type"], "response.completed", "{slept}: {events:?}");
        opened.push(upgrades());
    }
    assert_eq!(opened, [1, 1, 2, 2, 2, 3], "a clock that is set back says nothing about connections");
    let log = proxy.stop().await;
    for trouble in ["stream_read_error", "previous_response_not_found", "request_refused"] {
        assert_eq!(log.events(trouble).count(), 0, "{trouble}");
    }
}

#[tokio::test]
async fn a_clock_that_is_ahead_renews_a_token_once_and_not_with_each_request() {
    let in_an_hour = i64::try_from(unix()).unwrap() + HOUR;
    let account = Account { expires_at: in_an_hour, ..Account::new("a") };
    let clock = Clock::new(10 * HOUR);
    let (mock, proxy) = clock.start(Setting::new(&["a"], Script::default().account(account))).await;
    for _ in 0..5 {
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    }
    clock.set(0);
    for _ in 0..5 {
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    }
    assert_eq!(mock.journal().of(CallName::Token).len(), 1);
}

#[tokio::test]
async fn a_clock_that_is_behind_finds_out_by_the_refusal_that_a_token_has_expired() {
    let expired =
        Account { expires_at: i64::try_from(unix()).unwrap() - HOUR, ..Account::new("a").expired() };
    let clock = Clock::new(-10 * HOUR);
    let (mock, proxy) = clock.start(Setting::new(&["a"], Script::default().account(expired))).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(mock.journal().of(CallName::Token).len(), 1);
}

#[tokio::test]
async fn no_account_is_left_out_for_longer_because_a_clock_was_set() {
    for jump in [-6 * HOUR, 6 * HOUR] {
        let clock = Clock::new(0);
        let refusal = json!({ "error": { "type": "usage_limit_reached", "resets_at": unix() + 2 } });
        let script = Script::rules([Rule::new(Http::json(429, refusal)).times(1)]);
        let (mock, proxy) = clock.start(Setting::new(&["a"], script)).await;
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 429);
        clock.set(jump);
        let mut refused = 0;
        let response = loop {
            let response = turn(&proxy, "", &user("x")).await;
            if response.status() == 200 {
                break response;
            }
            refused += 1;
            assert_eq!(response.status(), 503, "{}", response.text());
            // Its message and its pause are none of a clock that is wrong.
            let pause: u64 = response.field("retry-after").unwrap().parse().unwrap();
            assert!(pause <= 30, "{pause}");
            assert!(refused < 1000, "the account is out for ever");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        assert_eq!(response.said(), "Hello from the mock.");
        assert_eq!(asked(&mock).len(), 2, "{jump}: it is not asked before its time: {refused}");
        until("nothing hangs", || proxy.log().events("stream_complete").count() == 2).await;
        let out = prodex_quota(&proxy).await;
        assert!(!out.contains("-1") && !out.contains("ago -"), "no negative age: {out}");
    }
}

async fn prodex_quota(proxy: &Proxy) -> String {
    let said = crate::rig::prodex(&proxy.sandbox, &["quota", "--stored"]).await;
    format!("{}{}", said.stdout, said.stderr)
}
