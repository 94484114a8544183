//! Weeks of running: logs that are bounded, files of a newer version, open files that run out.

use std::path::Path;
use std::sync::Arc;

use mock_upstream::script::{Rule, Script, Turn};
use mock_upstream::{Account, Config, Mock};

use crate::connection::{begin_turn, turn, user};
use crate::rig::{Proxy, Setting, add_profile, code, prodex, sandbox, until};

/// The run log's files in a directory, in their order.
fn logs(directory: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".jsonl")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_log_has_parts_and_all_of_them_a_limit_and_why_reads_them() {
    let script = Script::rules([Rule::new(Turn::text("a b c"))]);
    let setting = Setting::new(&["one"], script);
    let setting = setting.set("PRODEX_LOG_FILE_SIZE", "64KiB").set("PRODEX_LOG_TOTAL_SIZE", "256KiB");
    let (_mock, proxy) = setting.start().await;
    let directory = proxy.sandbox.logs();
    let current = proxy.ready["log"].as_str().unwrap().to_owned();
    let mut parts = 0;
    while parts < 6 {
        for _ in 0..20 {
            assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
        }
        let pointed = std::fs::read_to_string(directory.join("prodex-runtime-latest.path")).unwrap();
        assert_eq!(pointed.trim(), current, "the pointer is right at every moment");
        parts = proxy
            .log()
            .events("log_continued")
            .filter_map(|line| line.fields["part"].as_u64())
            .max()
            .unwrap_or(0);
    }
    until("the last lines", || proxy.log().lines.last().is_some_and(|line| line.event == "stream_complete"))
        .await;
    let log = proxy.log();
    assert_eq!(log.skipped, 0, "no line is torn");
    let total: u64 =
        logs(&directory).iter().map(|name| std::fs::metadata(directory.join(name)).unwrap().len()).sum();
    assert!(total <= 256 * 1024, "{total}");
    // What is kept of the run has no gap.
    let of = |event: &str| {
        log.events(event).map(|line| line.fields["request"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    // Two threads serve, so that the ends of two requests may be told in either order.
    let mut ended = of("stream_complete");
    ended.sort_unstable();
    assert!(ended.windows(2).all(|pair| pair[1] == pair[0] + 1) && ended.len() > 100, "{ended:?}");
    // A request of each part that is left, and of the file that is written, can be explained.
    for request in [ended[ended.len() / 3].to_string(), ended[ended.len() / 2].to_string(), "last".to_owned()]
    {
        let said = prodex(&proxy.sandbox, &["why", &request]).await;
        assert_eq!(code(&said), Some(0), "{request}: {}", said.stderr);
        assert!(said.stdout.contains("one"), "{}", said.stdout);
    }
    let gone = prodex(&proxy.sandbox, &["why", "1"]).await;
    assert_eq!(code(&gone), Some(1), "{}", gone.stdout);
    assert!(gone.stderr.contains("the log does not tell of request 1; it has requests"), "{}", gone.stderr);
    proxy.stop().await;
}

#[tokio::test]
async fn files_of_a_newer_version_are_named_and_kept_by_every_command() {
    let sandbox = sandbox();
    add_profile(&sandbox, "a", &Account::new("a").auth_json().to_string()).await;
    let home = sandbox.home().join("prodex");
    std::fs::create_dir_all(home.join("state")).unwrap();
    let database = rusqlite::Connection::open(home.join("state/state.db")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let serve = ["serve", "--upstream", "http://127.0.0.1:9"];
    let commands = [&serve[..], &["quota"], &["why", "last"]];
    let settings = home.join("prodex.toml");
    let profile = home.join("profiles/a/profile.toml");
    for command in &commands[..2] {
        let said = prodex(&sandbox, command).await;
        assert_eq!(code(&said), Some(3), "{command:?} {}", said.stderr);
        assert!(
            said.stderr.contains("is of version 99") && said.stderr.contains("use the newer prodex"),
            "{}",
            said.stderr
        );
    }
    let database = rusqlite::Connection::open(home.join("state/state.db")).unwrap();
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 99);
    drop(database);
    std::fs::remove_file(home.join("state/state.db")).unwrap();
    let about = std::fs::read_to_string(&profile).unwrap() + "of_the_future = 1\n";
    std::fs::write(&profile, &about).unwrap();
    for command in &commands[..2] {
        let said = prodex(&sandbox, command).await;
        assert!(
            (said.stdout.clone() + &said.stderr).contains("profile.toml is broken"),
            "{command:?}: {} {}",
            said.stdout,
            said.stderr
        );
    }
    std::fs::write(&settings, "of_the_future = 1\n").unwrap();
    for command in commands {
        let said = prodex(&sandbox, command).await;
        assert_eq!(code(&said), Some(2), "{command:?} {}", said.stderr);
        assert!(said.stderr.contains("prodex.toml:1: unknown setting `of_the_future`"), "{}", said.stderr);
    }
    assert_eq!(std::fs::read_to_string(&profile).unwrap(), about, "it is kept");
}

#[tokio::test]
async fn without_open_files_left_clients_wait_and_nobody_is_blamed() {
    let sandbox = sandbox();
    add_profile(&sandbox, "a", &Account::new("a").auth_json().to_string()).await;
    let mock = Mock::start(Config::script(Script::default().account(Account::new("a")))).await.unwrap();
    let arguments = vec!["--upstream".to_owned(), mock.base_url().to_owned()];
    let proxy = Proxy::start_with_files(Arc::new(sandbox), 64, arguments).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(proxy.connect().await);
    }
    until("it is told", || proxy.server.stderr().contains("raise it with `ulimit -n`")).await;
    let mut waiting = begin_turn(&proxy, "", &user("x")).await;
    drop(idle);
    assert_eq!(waiting.response().await.status(), 200, "served as soon as there is room");
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(proxy.log().events("profile_transport_backoff").count(), 0);
    assert_eq!(proxy.server.stderr().matches("raise it with").count(), 1);
}
