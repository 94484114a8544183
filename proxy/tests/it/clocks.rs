//! Clocks that disagree by hours: a laptop that slept, a wall clock that is set forward and back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mock_upstream::script::{CallName, Http, Rule, Script};
use mock_upstream::{Account, Mock};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::connection::{turn, user};
use crate::rig::{LIMIT, Proxy, Setting, asked, finished, until};
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

/// Until when the run log says that an account is used up, and the time by which the last choice was made.
fn held_back(proxy: &Proxy, account: &str) -> Option<(i64, i64)> {
    let log = proxy.log();
    let mut until = None;
    for line in log.events("selection_snapshot") {
        let candidates = line.fields["candidates"].as_array().unwrap();
        if let Some(standing) = candidates.iter().find(|standing| standing["name"] == account) {
            until = standing["exhausted_until"].as_i64();
        }
    }
    let at = log.lines.iter().rev().find_map(|line| line.fields.get("at")?.as_i64());
    Some((until?, at?)).filter(|(until, at)| until > at)
}

#[tokio::test]
async fn no_account_is_left_out_for_longer_because_a_clock_was_set() {
    for jump in [-6 * HOUR, 6 * HOUR] {
        let clock = Clock::new(0);
        let refusal = json!({ "error": { "type": "usage_limit_reached", "resets_at": unix() + 3 } });
        let script = Script::rules([Rule::new(Http::json(429, refusal)).account("a")]);
        let (mock, proxy) = clock.start(Setting::new(&["a", "b"], script)).await;
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
        assert_eq!(asked(&mock), ["a", "b"]);
        until("the choice is logged", || proxy.log().events("stream_complete").count() == 1).await;
        clock.set(jump);
        let began = Instant::now();
        loop {
            assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
            let count = asked(&mock).len() - 1;
            until("it is logged", || proxy.log().events("stream_complete").count() == count).await;
            if held_back(&proxy, "a").is_none() {
                break;
            }
            assert!(began.elapsed() < LIMIT, "{jump}: {:?}", held_back(&proxy, "a"));
        }
        assert!(jump > 0 || began.elapsed() > Duration::from_secs(1), "and not before its time");
    }
}
