//! `prodex login` and `logout`, with a script in the place of Codex.

use std::path::PathBuf;
use std::time::Duration;

use harness::process::Program;
use harness::sandbox::Sandbox;
use mock_upstream::Account;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::rig::{LIMIT, add_profile, code, mode, prodex, program, sandbox, until};

/// A login that is the same whenever it is made.
fn auth(id: &str) -> String {
    let mut auth = Account::new(id).auth_json();
    auth["last_refresh"] = "2026-01-01T00:00:00Z".into();
    auth.to_string()
}

/// A Codex that logs in as this account, and writes down how it was called.
fn client(sandbox: &Sandbox, account: &str) {
    std::fs::write(sandbox.root().join("next.json"), auth(account)).unwrap();
    let root = sandbox.root().display().to_string();
    script(
        sandbox,
        &format!(
            "echo \"$@\" > {root}/arguments; stat -c %a \"$CODEX_HOME\" > {root}/mode; echo $CODEX_HOME > {root}/staging\n\
             cat \"$CODEX_HOME/config.toml\" > {root}/config; cp {root}/next.json \"$CODEX_HOME/auth.json\"\n\
             mkdir \"$CODEX_HOME/log\""
        ),
    );
}

fn script(sandbox: &Sandbox, text: &str) {
    let path = sandbox.programs().join("codex");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

fn noted(sandbox: &Sandbox, what: &str) -> String {
    std::fs::read_to_string(sandbox.root().join(what)).unwrap().trim().to_owned()
}

fn stored(sandbox: &Sandbox, profile: &str) -> PathBuf {
    sandbox.home().join("prodex/profiles").join(profile).join("auth.json")
}

/// What is in the home beside what belongs there.
fn leftovers(sandbox: &Sandbox) -> Vec<String> {
    let names = std::fs::read_dir(sandbox.home().join("prodex")).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".login")).collect()
}

#[tokio::test]
async fn an_account_becomes_a_profile_in_a_home_of_its_own() {
    let sandbox = sandbox();
    client(&sandbox, "acct-1");
    let finished = prodex(&sandbox, &["login", "work", "--", "--device-auth"]).await;
    assert_eq!((code(&finished), finished.stderr.as_str()), (Some(0), ""), "{}", finished.stdout);
    assert!(
        finished.stdout.starts_with("profile work is there now (acct-1@mock.invalid)"),
        "{}",
        finished.stdout
    );
    assert_eq!(noted(&sandbox, "arguments"), "login --device-auth");
    assert_eq!((noted(&sandbox, "mode").as_str(), mode(&stored(&sandbox, "work"))), ("700", 0o600));
    assert!(noted(&sandbox, "config").contains("\"file\""));
    assert!(noted(&sandbox, "staging").starts_with(&*sandbox.home().join("prodex").display().to_string()));
    assert!(!PathBuf::from(noted(&sandbox, "staging")).exists() && leftovers(&sandbox).is_empty());
    assert!(!sandbox.home().join(".codex").exists(), "the person's own login is left alone");
    assert_eq!(std::fs::read_to_string(stored(&sandbox, "work")).unwrap(), auth("acct-1"));
    // Without a name it is called as its account begins.
    client(&sandbox, "acct-2");
    let finished = prodex(&sandbox, &["login"]).await;
    assert!(finished.stdout.starts_with("profile acct-2 is there now"), "{}", finished.stdout);
}

#[tokio::test]
async fn an_account_that_is_a_profile_already_is_renewed() {
    let sandbox = sandbox();
    let old = Account { expires_at: 1_900_000_000, ..Account::new("acct-1") }.auth_json().to_string();
    add_profile(&sandbox, "work", &old).await;
    client(&sandbox, "acct-1");
    let finished = prodex(&sandbox, &["login"]).await;
    assert!(finished.stdout.starts_with("profile work is logged in again"), "{}", finished.stdout);
    assert_eq!(std::fs::read_to_string(stored(&sandbox, "work")).unwrap(), auth("acct-1"));
    let finished = prodex(&sandbox, &["login", "other"]).await;
    assert!(finished.stderr.contains("is profile work already"), "{}", finished.stderr);
    assert!(!stored(&sandbox, "other").exists());
    client(&sandbox, "acct-2");
    let refused = prodex(&sandbox, &["login", "work"]).await;
    assert_eq!(code(&refused), Some(1));
    assert!(
        refused.stderr.contains("another account") && refused.stderr.contains("prodex profile remove work")
    );
    assert_eq!(std::fs::read_to_string(stored(&sandbox, "work")).unwrap(), auth("acct-1"));
    assert!(leftovers(&sandbox).is_empty());
}

#[tokio::test]
async fn a_login_that_comes_to_nothing_leaves_nothing() {
    let sandbox = sandbox();
    for (text, part, exit) in [
        ("exit 3", "code 3", 1),
        ("exit 0", "no login behind", 1),
        ("echo '{' > \"$CODEX_HOME/auth.json\"", "not JSON", 4),
        ("mkdir \"$CODEX_HOME/auth.json\"", "no login behind", 1),
    ] {
        script(&sandbox, text);
        let finished = prodex(&sandbox, &["login", "work"]).await;
        assert_eq!(code(&finished), Some(exit), "{}", finished.stderr);
        assert!(
            finished.stderr.contains(part) && finished.stderr.lines().count() == 1,
            "{}",
            finished.stderr
        );
        assert!(leftovers(&sandbox).is_empty() && !sandbox.home().join("prodex/profiles").exists());
    }
    std::fs::remove_file(sandbox.programs().join("codex")).unwrap();
    let finished = prodex(&sandbox, &["login"]).await;
    assert_eq!(code(&finished), Some(3));
    assert!(finished.stderr.contains("npm install"), "{}", finished.stderr);
    assert_eq!(code(&prodex(&sandbox, &["login", "../x"]).await), Some(2));
}

#[tokio::test]
async fn an_interrupt_ends_the_login_and_leaves_nothing() {
    let sandbox = sandbox();
    let marker = sandbox.root().join("started");
    script(
        &sandbox,
        &format!("echo secret > \"$CODEX_HOME/auth.json\"; touch {}; exec sleep 60", marker.display()),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let login = Program::new(program()).args(["login", "work"]).envs(sandbox.environment());
        let mut running = login.start().unwrap();
        until("the client has started", || marker.exists()).await;
        std::fs::remove_file(&marker).unwrap();
        running.signal(signal);
        let exit = running.wait(LIMIT).await.unwrap().unwrap();
        assert_eq!(exit.code(), Some(130), "{signal}");
        let stopped = running.stop(Duration::from_secs(1)).await.unwrap();
        assert!(stopped.stragglers.is_empty() && leftovers(&sandbox).is_empty(), "{stopped:?}");
        assert!(!sandbox.home().join("prodex/profiles").exists());
    }
}

#[tokio::test]
async fn a_key_is_logged_in_from_standard_input() {
    let sandbox = sandbox();
    for key in ["first", "second"] {
        let key = format!("sk-{key}");
        let shell = format!("printf '{key}' | {} login key --api-key-stdin", program().display());
        let shell = Program::new("/bin/sh").args(["-c", &shell]).envs(sandbox.environment());
        let finished = shell.run(LIMIT).await.unwrap();
        assert_eq!(code(&finished), Some(0), "{}", finished.stderr);
        let text: Value =
            serde_json::from_str(&std::fs::read_to_string(stored(&sandbox, "key")).unwrap()).unwrap();
        assert_eq!(text["OPENAI_API_KEY"], key);
        assert!(!finished.stdout.contains(&key) && !finished.stderr.contains(&key));
    }
    assert_eq!(code(&prodex(&sandbox, &["login", "--api-key-stdin"]).await), Some(2), "it needs a name");
    // Codex's login makes no key: that is said before Codex asks.
    client(&sandbox, "acct-1");
    for _ in 0..2 {
        let refused = prodex(&sandbox, &["login", "key"]).await;
        assert_eq!(code(&refused), Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains("`prodex login key --api-key-stdin < FILE`"), "{}", refused.stderr);
        let out = prodex(&sandbox, &["logout", "key"]).await;
        assert!(out.stderr.contains("the key is good until") || code(&out) == Some(4), "{}", out.stderr);
    }
}

#[tokio::test]
async fn a_profile_that_is_logged_out_comes_back_in_two_ways() {
    let sandbox = sandbox();
    add_profile(&sandbox, "work", &auth("acct-1")).await;
    add_profile(&sandbox, "home", &auth("acct-2")).await;
    let out = prodex(&sandbox, &["logout", "work"]).await;
    assert_eq!(code(&out), Some(0), "{}", out.stderr);
    assert!(out.stdout.contains("`prodex login work`") && out.stderr.contains("vendor was not told"));
    assert!(!stored(&sandbox, "work").exists());
    let list = prodex(&sandbox, &["profile", "list"]).await;
    assert!(list.stdout.contains("work  logged out; `prodex login work`"), "{}", list.stdout);
    let again = prodex(&sandbox, &["logout", "work"]).await;
    assert_eq!(code(&again), Some(4), "{}", again.stderr);
    let trash = prodex(&sandbox, &["profile", "restore", "--list"]).await;
    assert!(trash.stdout.starts_with("login  work  until "), "{}", trash.stdout);
    client(&sandbox, "acct-3");
    let refused = prodex(&sandbox, &["login", "work"]).await;
    assert!(refused.stderr.contains("another account"), "{}", refused.stderr);
    client(&sandbox, "acct-1");
    let back = prodex(&sandbox, &["login"]).await;
    assert!(back.stdout.starts_with("profile work is logged in again"), "{}{}", back.stdout, back.stderr);
    prodex(&sandbox, &["profile", "restore", "work"]).await;
    prodex(&sandbox, &["logout", "home"]).await;
    let restored = prodex(&sandbox, &["profile", "restore", "home"]).await;
    assert_eq!((code(&restored), restored.stdout.as_str()), (Some(0), "the login of profile home is back\n"));
    assert_eq!(std::fs::read_to_string(stored(&sandbox, "home")).unwrap(), auth("acct-2"));
    let missing = prodex(&sandbox, &["logout", "other"]).await;
    assert!(missing.stderr.contains("prodex profile list"), "{}", missing.stderr);
}

#[tokio::test]
async fn a_profile_is_shown_exported_and_restored() {
    let sandbox = sandbox();
    add_profile(&sandbox, "work", &auth("acct-1")).await;
    let shown = prodex(&sandbox, &["profile", "show", "work"]).await;
    assert_eq!((code(&shown), shown.stderr.as_str()), (Some(0), ""));
    // A path is as long as it is.
    let mut lines = shown.stdout.lines().filter(|line| !line.starts_with("  from "));
    assert!(lines.all(|line| line.chars().count() <= 80), "{}", shown.stdout);
    let json = prodex(&sandbox, &["profile", "show", "work", "--json"]).await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["account_id"], &json["renewable"], &json["version"]),
        (&"acct-1".into(), &true.into(), &1.into())
    );
    let login: Value = serde_json::from_str(&auth("acct-1")).unwrap();
    for secret in ["access_token", "refresh_token", "id_token"] {
        let secret = login["tokens"][secret].as_str().unwrap();
        assert!(!shown.stdout.contains(secret) && !json.to_string().contains(secret));
    }
    let file = sandbox.root().join("copy.json").display().to_string();
    let exported = prodex(&sandbox, &["profile", "export", "work", &file]).await;
    assert_eq!(code(&exported), Some(0), "{}", exported.stderr);
    assert!(exported.stderr.contains("whoever has this file") && !exported.stdout.contains("eyJ"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), auth("acct-1"));
    assert_eq!(mode(file.as_ref()), 0o600);
    for taken in [&*file, "/dev/stdout", "/dev/tty"] {
        let refused = prodex(&sandbox, &["profile", "export", "work", taken]).await;
        assert_eq!((code(&refused), refused.stdout.as_str()), (Some(1), ""), "{}", refused.stderr);
        assert!(refused.stderr.contains("there already"), "{}", refused.stderr);
    }
    prodex(&sandbox, &["profile", "remove", "work"]).await;
    let list = prodex(&sandbox, &["profile", "restore", "--list", "--json"]).await;
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!((&list["trash"][0]["name"], &list["trash"][0]["what"]), (&"work".into(), &"profile".into()));
    let back = prodex(&sandbox, &["profile", "restore", "work"]).await;
    assert_eq!(back.stdout, "profile work is back\n");
    assert_eq!(std::fs::read_to_string(stored(&sandbox, "work")).unwrap(), auth("acct-1"));
    let gone = prodex(&sandbox, &["profile", "restore", "work"]).await;
    assert!(gone.stderr.contains("restore --list"), "{}", gone.stderr);
}
