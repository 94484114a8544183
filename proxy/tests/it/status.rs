//! `prodex status` and `prodex info`: what runs, who served, and where everything is.

use mock_upstream::script::Script;
use prodex::profile::store::{Pause, Store};
use serde_json::{Value, json};

use crate::connection::{turn, user};
use crate::rig::{Setting, code, prodex, sandbox};

#[tokio::test]
async fn the_last_turns_are_told_and_no_conversation_is_named() {
    let (_mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    for _ in 0..2 {
        let fields = "thread-id: 0199-secret-thread\r\n";
        assert_eq!(turn(&proxy, fields, &user("x")).await.status(), 200);
    }
    let told = async { while crate::admin::status(&proxy)["recent"].as_array().unwrap().len() < 2 {} };
    tokio::time::timeout(crate::rig::LIMIT, told).await.unwrap();
    let shown = prodex(&proxy.sandbox, &["status", "--json"]).await;
    assert_eq!(code(&shown), Some(0), "{}", shown.stderr);
    let report: Value = serde_json::from_str(&shown.stdout).unwrap();
    let [running] = &report["running"].as_array().unwrap()[..] else { panic!("{report}") };
    let recent = running["recent"].as_array().unwrap();
    assert_eq!((&recent[0]["request"], &recent[1]["request"]), (&json!(2), &json!(1)), "the latest first");
    assert_eq!((&recent[0]["profile"], &recent[0]["outcome"]), (&json!("one"), &json!("complete")));
    assert_eq!(recent[0]["conversation"], recent[1]["conversation"]);
    assert_eq!(recent[0]["conversation"].as_str().unwrap().len(), 6);
    assert!(!shown.stdout.contains("secret-thread"));
    let screen = prodex(&proxy.sandbox, &["status"]).await.stdout;
    assert!(screen.contains("LAST TURNS") && screen.contains("* one"), "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
}

#[tokio::test]
async fn without_a_proxy_the_state_is_told() {
    let (_mock, proxy) = Setting::new(&["one", "two"], Script::default()).start().await;
    let (home, sandbox) = (proxy.home(), std::sync::Arc::clone(&proxy.sandbox));
    proxy.stop().await;
    Store::new(&home).set_pause("two", Some(&Pause::default())).unwrap();
    std::fs::write(home.join("profiles/one/auth.json"), "{").unwrap();
    let screen = prodex(&sandbox, &["status"]).await;
    assert_eq!(code(&screen), Some(0), "{}", screen.stderr);
    for part in ["No proxy of this home runs", "two", "paused", "one cannot be used", "it is not JSON"] {
        assert!(screen.stdout.contains(part), "{part} in {}", screen.stdout);
    }
    let empty = prodex(&crate::rig::sandbox(), &["status"]).await;
    assert!(empty.stdout.contains("`prodex login`"), "{}", empty.stdout);
}

#[tokio::test]
async fn info_says_where_settings_come_from() {
    let mut sandbox = sandbox();
    let home = sandbox.home().join("prodex");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(home.join("prodex.toml"), "workers = 3\nkeep_alive = \"1m\"\n").unwrap();
    sandbox.set("PRODEX_WORKERS", "2");
    let info = prodex(&sandbox, &["info", "--json"]).await;
    assert_eq!(code(&info), Some(0), "{}", info.stderr);
    let info: Value = serde_json::from_str(&info.stdout).unwrap();
    let setting = |name: &str| {
        let all = info["settings"].as_array().unwrap();
        let one = all.iter().find(|setting| setting["name"] == name).unwrap();
        (one["value"].clone(), one["source"].as_str().unwrap().to_owned())
    };
    assert_eq!(setting("workers"), (json!("2"), "PRODEX_WORKERS".to_owned()));
    assert_eq!(setting("max_waiting"), (json!("1024"), "default".to_owned()));
    let (value, place) = setting("keep_alive");
    assert!(value == "1m" && place.ends_with("prodex.toml:2"), "{value} {place}");
    assert_eq!((&info["version"], &info["running"]), (&json!(1), &json!([])));
    let screen = prodex(&sandbox, &["info"]).await.stdout;
    for part in ["workers = 2  (PRODEX_WORKERS)", "at their default", "nothing; `prodex run`"] {
        assert!(screen.contains(part), "{part} in {screen}");
    }
}
