//! What is known of quotas: asked for when there is a reason, shown by `prodex quota`, heeded before a request.

use harness::process::Program;
use harness::run_log::RunLog;
use harness::sandbox::Sandbox;
use mock_upstream::accounts::Window;
use mock_upstream::script::{CallName, Http, Rule, Script, Turn};
use mock_upstream::{Account, Config, Exchange, Mock};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::connection::{turn, user};
use crate::rig::{LIMIT, Proxy, Setting, add_profile, asked, code, prodex, program, sandbox, until};
use crate::socket::{Socket, create};

/// How soon evidence is old. The pauses before and between questions go with it.
const REFRESH: &str = "PRODEX_QUOTA_REFRESH";

fn questions(mock: &Mock) -> Vec<String> {
    let asked = mock.journal().of(CallName::Usage);
    asked.into_iter().map(|exchange| exchange.account.as_deref().unwrap_or("-").to_owned()).collect()
}

/// An account of which so much of its two windows is used.
fn used(id: &str, five_hours: f64, week: f64) -> Account {
    let window = |seconds, used_percent| Window { seconds, used_percent, resets_in: seconds / 2 };
    Account { windows: vec![window(5 * 3600, five_hours), window(7 * 24 * 3600, week)], ..Account::new(id) }
}

/// Waits for what came of a question: an exit would not.
async fn until_told(proxy: &Proxy, event: &str) {
    until(event, || proxy.log().events(event).next().is_some()).await;
}

fn names(log: &RunLog, event: &str) -> Vec<String> {
    log.events(event).map(|line| line.fields["profile"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn only_who_is_unknown_is_asked_about_and_an_idle_proxy_asks_nothing() {
    // The first response tells about `a`; nobody tells about `b`.
    let setting = Setting::new(&["a", "b"], Script::default()).set(REFRESH, "60s");
    let (mock, proxy) = setting.start().await;
    assert!(questions(&mock).is_empty());
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    until_told(&proxy, "profile_probe_refresh_ok").await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    let log = proxy.stop().await;
    assert_eq!((questions(&mock), asked(&mock)), (vec!["b".to_owned()], vec!["a".to_owned(); 2]));
    assert_eq!(names(&log, "profile_probe_refresh_start"), ["b"]);
    assert_eq!(names(&log, "profile_probe_refresh_ok"), ["b"]);
    assert_eq!(log.events("profile_probe_refresh_ok").next().unwrap().fields["remaining"], 66.0);
}

#[tokio::test]
async fn the_turns_of_a_websocket_are_traffic_too() {
    let setting = Setting::new(&["a", "b"], Script::default()).set(REFRESH, "1s");
    let (mock, proxy) = setting.start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    // Nothing but turns on this one WebSocket lets it be considered again.
    let turns = async {
        while questions(&mock).len() < 3 {
            socket.turn(&create("x")).await;
        }
    };
    tokio::time::timeout(LIMIT, turns).await.unwrap();
}

#[tokio::test]
async fn a_usage_endpoint_that_fails_costs_a_request_nothing() {
    let failing = Rule::new(Http::text(500, "oops")).call(CallName::Usage);
    let setting = Setting::new(&["a", "b"], Script::rules([failing])).set(REFRESH, "6s");
    let (mock, proxy) = setting.start().await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    until_told(&proxy, "profile_probe_refresh_error").await;
    for _ in 0..5 {
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    }
    let log = proxy.stop().await;
    let error = log.events("profile_probe_refresh_error").next().unwrap();
    assert_eq!(error.fields["error"], "the upstream answered 500");
    assert_eq!(asked(&mock), vec!["a"; 6]);
}

#[tokio::test]
async fn a_fresh_request_leaves_a_profile_of_which_all_but_nothing_is_left() {
    let script = Script::default().account(used("a", 10.0, 96.5)).account(used("b", 50.0, 50.0));
    let (mock, proxy) = Setting::new(&["a", "b"], script).start().await;
    assert_eq!(turn(&proxy, "session-id: s\r\n", &user("x")).await.status(), 200);
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    // Advice is for fresh requests: the owner of a conversation is asked all the same.
    assert_eq!(turn(&proxy, "session-id: s\r\n", &user("x")).await.status(), 200);
    assert_eq!(asked(&mock), ["a", "b", "a"]);
    let log = proxy.stop().await;
    let [floor] = log.events("quota_critical_floor_before_send").collect::<Vec<_>>().try_into().unwrap();
    let fields = &floor.fields;
    assert_eq!(
        (&fields["profile"], &fields["reason"], &fields["window"]),
        (&json!("a"), &json!("critical"), &json!("7d"))
    );
    assert_eq!((&fields["remaining"], &fields["source"]), (&json!(3.5), &json!("response")));
    assert_eq!(names(&log, "responses_pre_send_skip"), ["a"]);
    assert_eq!(log.events("selection_skip_current").count(), 0, "one fact is told once");
}

#[tokio::test]
async fn what_was_known_is_known_to_the_next_run() {
    let script = Script::default().account(Account::new("a").turns_left(0));
    let (mock, proxy) = Setting::new(&["a", "b"], script).start().await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    let sandbox = std::sync::Arc::clone(&proxy.sandbox);
    proxy.stop().await;
    let arguments = vec!["--upstream".to_owned(), mock.base_url().to_owned()];
    let proxy = Proxy::start(sandbox, arguments).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(asked(&mock), ["a", "b", "b"], "that `a` is used up until its reset is not forgotten");
}

/// A home with a profile for each of the accounts, and a mock that has them.
async fn home(script: Script) -> (Mock, Sandbox) {
    let mut sandbox = sandbox();
    for account in &script.accounts {
        add_profile(&sandbox, &account.id, &account.auth_json().to_string()).await;
    }
    let mock = Mock::start(Config::script(script)).await.unwrap();
    sandbox.set("PRODEX_UPSTREAM", mock.base_url());
    (mock, sandbox)
}

/// What `prodex quota` prints, without what depends on when it runs.
async fn printed(sandbox: &Sandbox, arguments: &[&str], exit: i32) -> String {
    let arguments: Vec<&str> = ["quota"].into_iter().chain(arguments.iter().copied()).collect();
    let finished = prodex(sandbox, &arguments).await;
    assert_eq!((code(&finished), finished.stderr.as_str()), (Some(exit), ""), "{}", finished.stdout);
    let words = finished.stdout.replace("3d 11h", "3d 12h").replace("2h 29m", "2h 30m");
    (0..9).fold(words, |text, age| text.replace(&format!(" {age}s "), " 0s "))
}

#[tokio::test]
async fn the_backend_is_asked_and_what_is_left_is_shown() {
    let script = Script::default().account(used("home", 12.0, 34.0)).account(used("work", 97.0, 88.0));
    let (mock, sandbox) = home(script).await;
    let key = format!("sk-{}", "k".repeat(20));
    add_profile(&sandbox, "key", &json!({ "auth_mode": "apikey", "OPENAI_API_KEY": key }).to_string()).await;
    insta::assert_snapshot!("quota", printed(&sandbox, &[], 0).await);
    insta::assert_snapshot!("quota_all", printed(&sandbox, &["--all"], 0).await);
    assert_eq!(questions(&mock).len(), 4);
    let one = printed(&sandbox, &["--profile", "work"], 0).await;
    assert!(one.contains("work") && !one.contains("home"), "{one}");
    // The backend goes away: what it said last is shown, marked, with what to do.
    mock.set_script(Script::rules([Rule::new(Http::status(503)).call(CallName::Usage)])).unwrap();
    insta::assert_snapshot!("quota_stored", printed(&sandbox, &[], 1).await);
}

#[tokio::test]
async fn a_home_of_keys_alone_is_told_that_they_have_no_windows() {
    let sandbox = sandbox();
    add_profile(&sandbox, "key", &json!({ "OPENAI_API_KEY": "sk-own" }).to_string()).await;
    let said = printed(&sandbox, &[], 0).await;
    assert!(said.contains("API keys have no windows") && said.contains("--all"), "{said}");
    assert!(printed(&sandbox, &["--all"], 0).await.contains("API key"));
}

#[tokio::test]
async fn the_json_has_a_version_and_unknown_is_null() {
    let unlimited = Rule::new(Http::json(200, json!({ "plan_type": "team", "rate_limit": null })));
    let script = Script::rules([unlimited.account("free").call(CallName::Usage)]);
    let script = script.account(Account::new("free")).account(used("work", 97.0, 88.0));
    let (_mock, sandbox) = home(script).await;
    let text = printed(&sandbox, &["--json"], 0).await;
    let mut list: Value = serde_json::from_str(&text).unwrap();
    for time in ["/at", "/profiles/1/windows/0/resets_at", "/profiles/1/windows/1/resets_at"] {
        let value = list.pointer_mut(time).unwrap();
        assert!(value.as_i64().unwrap() > 1_700_000_000);
        *value = json!("TIME");
    }
    for window in list["profiles"][1]["windows"].as_array_mut().unwrap() {
        window["observed_at"] = json!("TIME");
        window["history"][0][0] = json!("TIME");
    }
    insta::assert_snapshot!("quota_json", format!("{list:#}"));
}

#[tokio::test]
async fn an_expired_token_is_renewed_and_a_revoked_one_says_how_to_log_in() {
    let (mock, home_of_a) = home(Script::default().account(Account::new("a").expired())).await;
    let text = printed(&home_of_a, &[], 0).await;
    assert!(text.contains("66%"), "{text}");
    assert_eq!(mock.journal().of(CallName::Token).len(), 1);
    let rejected = Rule::new(Http::json(400, json!({ "error": "invalid_grant" }))).call(CallName::Token);
    let (mock, home_of_b) = home(Script::rules([rejected]).account(Account::new("b").expired())).await;
    let text = printed(&home_of_b, &[], 1).await;
    assert!(
        text.contains("b: its login is no longer good (invalid_grant); log in again with `prodex login`"),
        "{text}"
    );
    assert_eq!(mock.journal().of(CallName::Token).len(), 1);
}

#[tokio::test]
async fn what_cannot_be_shown_is_said_with_a_documented_exit_code() {
    let sandbox = sandbox();
    for (arguments, exit, says) in [
        (&["quota"][..], 4, "there are no profiles"),
        (&["quota", "--profile", "nobody"], 1, "there is no profile \"nobody\""),
        (&["quota", "--watch", "1"], 2, "5..=86400"),
    ] {
        let finished = prodex(&sandbox, arguments).await;
        assert_eq!((code(&finished), finished.stdout.as_str()), (Some(exit), ""), "{arguments:?}");
        assert!(finished.stderr.contains(says), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn watching_goes_on_until_it_is_interrupted() {
    let (mock, sandbox) = home(Script::rules([Rule::new(Turn::text("x"))]).account(Account::new("a"))).await;
    let arguments = ["quota", "--watch", "5"];
    let mut watching = Program::new(program()).args(arguments).envs(sandbox.environment()).start().unwrap();
    let twice = |all: &[Exchange]| {
        // The third question comes after the second table.
        all.iter().filter(|exchange| exchange.call == CallName::Usage).count() >= 3
    };
    mock.journal().wait_for("three questions", LIMIT, twice).await.unwrap();
    watching.signal(Signal::SIGINT);
    let exit = watching.wait(LIMIT).await.unwrap();
    assert_eq!(exit.and_then(harness::process::Exit::code), Some(130));
    let printed = watching.stdout();
    assert!(
        printed.matches("PROFILE").count() >= 2 && !printed.contains('\u{1b}'),
        "a file is no screen: {printed}"
    );
    watching.stop(LIMIT).await.unwrap();
}
