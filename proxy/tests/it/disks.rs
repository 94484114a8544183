//! Disks that fill up and homes that cannot be written: what a proxy says, and how it goes on.
//!
//! A proxy gets a disk of its own, in a mount namespace of its own, which is seen through `/proc/PID/root`. Not every
//! machine lets us, so these tests are in the lane `env`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mock_upstream::script::{CallName, Http, Rule, Script};
use mock_upstream::{Account, Config, Mock};
use serde_json::json;

use crate::connection::{request, turn, user};
use crate::rig::{LIMIT, Proxy, add_profile, asked, behind, code, prodex, sandbox, until};

/// Begins with what is in the home on a disk of 3 MiB, and has the run log there too.
const SMALL_DISK: &str = "cp -a \"$PRODEX_HOME\" \"$TMPDIR/seed\"; mount -t tmpfs -o size=3m,mode=700 tmpfs \
     \"$PRODEX_HOME\"; cp -a \"$TMPDIR/seed/.\" \"$PRODEX_HOME\"; export PRODEX_RUNTIME_LOG_DIR=\"$PRODEX_HOME/logs\"";

/// The home as it is, and nobody can write it.
const READ_ONLY: &str = "mount --bind \"$PRODEX_HOME\" \"$PRODEX_HOME\"; mount -o remount,ro,bind \"$PRODEX_HOME\"; \
     export PRODEX_RUNTIME_LOG_DIR=\"$PRODEX_HOME/logs\"";

/// A mock and a proxy before it whose home a shell script has changed.
async fn start_behind(mount: &str, script: Script, prepare: impl AsyncFnOnce(&Mock, Proxy)) -> (Mock, Proxy) {
    let script = ["a", "b"].iter().fold(script, |script, id| script.account(Account::new(*id)));
    let sandbox = sandbox();
    for account in &script.accounts {
        add_profile(&sandbox, &account.id, &account.auth_json().to_string()).await;
    }
    let mock = Mock::start(Config::script(script)).await.unwrap();
    let sandbox = Arc::new(sandbox);
    let arguments = || vec!["--upstream".to_owned(), mock.base_url().to_owned()];
    prepare(&mock, Proxy::start(Arc::clone(&sandbox), arguments()).await).await;
    let proxy = Proxy::start_behind(sandbox, mount, arguments()).await;
    (mock, proxy)
}

/// What the proxy sees at a path.
fn seen(proxy: &Proxy, path: &Path) -> PathBuf {
    Path::new("/proc").join(proxy.server.pid().to_string()).join("root").join(path.strip_prefix("/").unwrap())
}

/// Fills a disk to its last byte.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while file.write(&[0; 4096]).is_ok_and(|count| count > 0) {}
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[tokio::test]
async fn a_full_disk_stops_no_request_and_is_told_once_and_recovered_from() {
    let script =
        Script::rules([Rule::new(Http::json(503, json!({ "error": { "code": "server_is_overloaded" } })))
            .account("b")
            .user_text("to a")]);
    let (mock, proxy) = start_behind(SMALL_DISK, script, async |_, proxy| drop(proxy.stop().await)).await;
    let home = seen(&proxy, &proxy.home());
    assert_eq!(turn(&proxy, "session-id: before\r\n", &user("to a")).await.status(), 200);
    fill(&home.join("fill"));
    mock.expire("a");
    for n in 0..200 {
        let fields = format!("session-id: s{n}\r\n");
        assert_eq!(turn(&proxy, &fields, &user("to a")).await.status(), 200, "{n}");
    }
    assert_eq!(mock.journal().of(CallName::Token).len(), 1, "renewed once, and used from memory");
    assert!(asked(&mock).iter().all(|account| account == "a"));
    until("it is told", || count(&proxy.server.stderr(), "cannot be written") == 2).await;
    let told = proxy.server.stderr();
    for sentence in [
        "logs/prodex-runtime-",             // the run log
        "state/state.db cannot be written", // the state
        "the renewed login of profile a is not on the disk",
    ] {
        assert_eq!(count(&told, sentence), 1, "{sentence}: {told}");
    }
    // There is room again.
    std::fs::remove_file(home.join("fill")).unwrap();
    let auth = home.join("profiles/a/auth.json");
    let began = Instant::now();
    let renewed = || !std::fs::read_to_string(&auth).unwrap().contains(&Account::new("a").refresh_token());
    while !renewed() {
        assert_eq!(turn(&proxy, "session-id: s1\r\n", &user("to a")).await.status(), 200);
        assert!(began.elapsed() < Duration::from_secs(18), "the login is written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = || {
        harness::run_log::RunLog::read(&seen(&proxy, Path::new(proxy.ready["log"].as_str().unwrap())))
            .unwrap()
    };
    until("the log goes on", || log().events("log_dropped").count() == 1).await;
    until("the state goes on", || log().events("state_save_ok").count() >= 1).await;
    let log = log();
    assert!(log.events("log_dropped").next().unwrap().fields["lines"].as_u64().unwrap() > 100);
    assert!(log.skipped <= 1, "a line that was cut off spoils no other: {}", log.skipped);
    let told = proxy.server.stderr();
    assert_eq!(count(&told, "cannot be written"), 2, "and nothing is told again: {told}");
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_as_good_as_one_that_fills_up() {
    let full = format!("{SMALL_DISK}; cat /dev/zero > \"$PRODEX_HOME/fill\" 2>/dev/null || :");
    let bind = async |_: &Mock, proxy: Proxy| {
        assert_eq!(turn(&proxy, "session-id: before\r\n", &user("x")).await.status(), 200);
        proxy.stop().await;
    };
    let (mock, proxy) = start_behind(&full, Script::default(), bind).await;
    let home = seen(&proxy, &proxy.home());
    for n in 0..20 {
        let fields = format!("session-id: s{n}\r\n");
        assert_eq!(turn(&proxy, &fields, &user("x")).await.status(), 200, "{n}");
    }
    assert_eq!(turn(&proxy, "session-id: before\r\n", &user("x")).await.status(), 200);
    let accounts = asked(&mock);
    assert_eq!(accounts.first(), accounts.last(), "what was known of conversations is");
    until("it is told", || count(&proxy.server.stderr(), "cannot be written") == 2).await;
    std::fs::remove_file(home.join("fill")).unwrap();
    let log = seen(&proxy, Path::new(proxy.ready["log"].as_str().unwrap()));
    let read = || harness::run_log::RunLog::read(&log).map(|log| log.lines).unwrap_or_default();
    let has = |event: &str| read().iter().any(|line| line.event == event);
    let began = Instant::now();
    while !(has("log_dropped") && has("stream_complete") && has("state_save_ok")) {
        assert_eq!(turn(&proxy, "session-id: s1\r\n", &user("x")).await.status(), 200);
        assert!(began.elapsed() < Duration::from_secs(18), "log and state go on: {:#?}", read());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pointer = std::fs::read_to_string(home.join("logs/prodex-runtime-latest.path")).unwrap();
    assert_eq!(pointer.trim(), proxy.ready["log"].as_str().unwrap());
    assert_eq!(count(&proxy.server.stderr(), "cannot be written"), 2, "and nothing is told again");
}

#[tokio::test]
async fn a_read_only_home_is_served_and_says_what_is_forgotten_and_until_when_logins_are_good() {
    let busy = || Http::json(503, json!({ "error": { "code": "server_is_overloaded" } }));
    let script = Script::rules([Rule::new(busy()).account("a").user_text("to b")]);
    let bind = async |_: &Mock, proxy: Proxy| {
        assert_eq!(turn(&proxy, "session-id: s\r\n", &user("to b")).await.status(), 200);
        proxy.stop().await;
    };
    let (mock, proxy) = start_behind(READ_ONLY, script, bind).await;
    assert!(proxy.ready["log"].is_null());
    until("it is told", || proxy.server.stderr().contains("no login can be renewed")).await;
    let told = proxy.server.stderr();
    for sentence in [
        "cannot write a run log in",
        "is on a disk that cannot be written",
        "each is good as it is: a until 2",
    ] {
        assert_eq!(count(&told, sentence), 1, "{sentence}: {told}");
    }
    assert_eq!(turn(&proxy, "session-id: s\r\n", &user("x")).await.status(), 200);
    assert_eq!(asked(&mock).last().unwrap(), "b", "what was known of conversations is");
    let models = "/backend-api/codex/models?client_version=0.169.0";
    let models = request(&proxy, "GET", models, "authorization: Bearer x\r\n", b"").await;
    assert_eq!(models.status(), 200);
    // A token that is no longer good is not exchanged: nobody could keep what comes of that.
    mock.expire("a");
    mock.expire("b");
    let response = turn(&proxy, "session-id: s\r\n", &user("x")).await;
    assert_eq!(response.status(), 503, "{}", response.text());
    assert_eq!(mock.journal().of(CallName::Token).len(), 0);
    // Commands say what to do.
    let said = async |proxy: &Proxy, arguments: &[&str]| {
        let program = behind(&proxy.sandbox, READ_ONLY).args(arguments.iter().copied());
        let said = program.run(LIMIT).await.unwrap();
        said.stdout + &said.stderr
    };
    for arguments in [&["profile", "use", "a"][..], &["profile", "remove", "a"]] {
        let said = said(&proxy, arguments).await;
        assert!(said.contains("mounted read-only; mount it anew, or name another home"), "{said}");
    }
    let said = said(&proxy, &["profile", "list"]).await;
    assert!(said.contains("chatgpt"), "{said}");
    proxy.server.signal(nix::sys::signal::Signal::SIGTERM);
    let mut server = proxy.server;
    let exit = server.wait(LIMIT).await.unwrap();
    assert_eq!(exit, Some(harness::process::Exit::Code(0)));
}

#[tokio::test]
async fn a_home_may_be_called_anything() {
    let mut sandbox = sandbox();
    let name = format!("mine, with spaces & ünïcödé 家 #1? 100%41 {}", "x".repeat(150));
    let home = sandbox.root().join(name);
    sandbox.set("PRODEX_HOME", &home);
    sandbox.set("PRODEX_RUNTIME_LOG_DIR", home.join("logs of mine"));
    add_profile(&sandbox, "a", &Account::new("a").auth_json().to_string()).await;
    let mock = Mock::start(Config::script(Script::default().account(Account::new("a")))).await.unwrap();
    let (sandbox, arguments) = (Arc::new(sandbox), vec!["--upstream".to_owned(), mock.base_url().to_owned()]);
    let proxy = Proxy::start(Arc::clone(&sandbox), arguments.clone()).await;
    assert_eq!(turn(&proxy, "session-id: s\r\n", &user("x")).await.status(), 200);
    until("it is logged", || proxy.log().events("stream_complete").count() == 1).await;
    let why = prodex(&sandbox, &["why", "last"]).await;
    assert_eq!(code(&why), Some(0), "{}", why.stderr);
    proxy.stop().await;
    let mount = READ_ONLY.replace("$PRODEX_HOME/logs", "$PRODEX_RUNTIME_LOG_DIR");
    let proxy = Proxy::start_behind(sandbox, &mount, arguments).await;
    assert_eq!(turn(&proxy, "session-id: s\r\n", &user("x")).await.status(), 200);
    until("it is told", || proxy.server.stderr().contains("is on a disk that cannot be written")).await;
}
