//! Who may serve what: scopes of directories, `--only`, pauses and preferences, and that running proxies know.

use harness::sandbox::Sandbox;
use mock_upstream::Account;
use mock_upstream::script::Script;
use serde_json::Value;

use crate::connection::{turn, user};
use crate::rig::{Setting, add_profile, asked, code, prodex, sandbox};

async fn succeeds(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let finished = prodex(sandbox, arguments).await;
    assert_eq!((code(&finished), finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    finished.stdout
}

async fn with_profiles(names: &[&str]) -> Sandbox {
    let sandbox = sandbox();
    for name in names {
        add_profile(&sandbox, name, &Account::new(*name).auth_json().to_string()).await;
    }
    sandbox
}

/// A Codex that says which of the profiles a running proxy may use for it.
fn client(sandbox: &Sandbox) {
    let path = sandbox.programs().join("codex");
    let program = crate::rig::program();
    let program = program.display();
    let script = format!(
        "#!/bin/sh\nfor p in a b; do {program} profile show $p | grep 'used by' | sed s/used/$p/; done\n"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

const RUN: [&str; 3] = ["run", "--upstream", "http://127.0.0.1:9"];

/// Which of `a` and `b` the proxy of a `prodex run` may use.
async fn usable(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let said = succeeds(sandbox, &[&RUN[..], arguments].concat()).await;
    ["a", "b"].into_iter().filter(|name| said.contains(&format!("  {name} by"))).collect()
}

#[tokio::test]
async fn a_directory_is_served_by_its_profiles_alone() {
    let sandbox = with_profiles(&["a", "b"]).await;
    client(&sandbox);
    let tied = sandbox.work().join("tied");
    std::fs::create_dir_all(tied.join("below")).unwrap();
    let (tied, below) = (tied.display().to_string(), tied.join("below").display().to_string());
    assert_eq!(usable(&sandbox, &["--", "-C", &below]).await, "ab");
    succeeds(&sandbox, &["profile", "scope", &tied, "--only", "b"]).await;
    for arguments in
        [&["-C", &below][..], &["--cd", &below], &["exec", &format!("--cd={tied}"), "x"], &["-C", "tied"]]
    {
        assert_eq!(usable(&sandbox, &[&["--"], arguments].concat()).await, "b", "{arguments:?}");
    }
    assert_eq!(usable(&sandbox, &["--", "--", "-C", &below]).await, "ab", "that is no argument of Codex's");
    assert_eq!(usable(&sandbox, &["--only", "a"]).await, "a", "outside everything may be used");
    let refused = prodex(&sandbox, &[&RUN[..], &["--only", "a", "--", "-C", &below]].concat()).await;
    assert_eq!(code(&refused), Some(4));
    assert!(refused.stderr.contains("prodex profile scope") && refused.stderr.lines().count() == 1);
    // The nearest counts, and the directory that one is in.
    succeeds(&sandbox, &["profile", "scope", &below, "--only", "a"]).await;
    assert_eq!(usable(&sandbox, &["--", "-C", &below]).await, "a");
    let here = sandbox.work().display().to_string();
    succeeds(&sandbox, &["profile", "scope", "--only", "a,b"]).await;
    let list = succeeds(&sandbox, &["profile", "scope", "--list"]).await;
    assert_eq!(list.lines().count(), 3, "{list}");
    let json: Value =
        serde_json::from_str(&succeeds(&sandbox, &["profile", "scope", "--list", "--json"]).await).unwrap();
    assert_eq!(json["scopes"][0]["profiles"], serde_json::json!(["a", "b"]));
    assert!(json["scopes"][0]["directory"].as_str().unwrap().ends_with("/work"), "{json} {here}");
    assert!(succeeds(&sandbox, &["profile", "scope"]).await.starts_with("Only a, b may serve here"));
    assert!(succeeds(&sandbox, &["profile", "show", "a"]).await.contains("scope     may serve "));
    succeeds(&sandbox, &["profile", "scope", "--clear"]).await;
    succeeds(&sandbox, &["profile", "scope", &tied, "--clear"]).await;
    assert!(succeeds(&sandbox, &["profile", "scope", &tied]).await.starts_with("All profiles"));
}

#[tokio::test]
async fn in_a_directory_that_is_tied_no_proxy_of_all_profiles_is_used() {
    let (_mock, proxy) = Setting::new(&["a", "b"], Script::default()).start().await;
    let sandbox = &proxy.sandbox;
    let path = sandbox.programs().join("codex");
    std::fs::write(&path, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let upstream = proxy.upstream().to_owned();
    let run = ["run", "--upstream", &upstream];
    let shared = format!(":{}/", proxy.port());
    assert!(succeeds(sandbox, &run).await.contains(&shared), "the proxy that runs does");
    succeeds(sandbox, &["profile", "scope", "--only", "b"]).await;
    assert!(!succeeds(sandbox, &run).await.contains(&shared), "a proxy of its own");
}

#[tokio::test]
async fn a_scope_that_cannot_be_kept_never_means_all() {
    let sandbox = with_profiles(&["a", "b"]).await;
    client(&sandbox);
    let refused = prodex(&sandbox, &["profile", "scope", "--only", "a,c"]).await;
    assert_eq!(code(&refused), Some(4));
    assert!(refused.stderr.contains("\"c\""), "{}", refused.stderr);
    succeeds(&sandbox, &["profile", "scope", "--only", "a"]).await;
    let removed = prodex(&sandbox, &["profile", "remove", "a"]).await;
    assert!(removed.stderr.contains("is tied to it"), "{}", removed.stderr);
    let refused = prodex(&sandbox, &RUN).await;
    assert_eq!((code(&refused), refused.stdout.as_str()), (Some(4), ""));
    assert!(refused.stderr.contains("`prodex profile restore a`"), "{}", refused.stderr);
    succeeds(&sandbox, &["profile", "restore", "a"]).await;
    assert_eq!(usable(&sandbox, &[]).await, "a");
    prodex(&sandbox, &["logout", "a"]).await;
    let refused = prodex(&sandbox, &RUN).await;
    assert_eq!(code(&refused), Some(4), "{}", refused.stderr);
    assert!(refused.stderr.contains("`prodex login a`"), "{}", refused.stderr);
    let file = sandbox.home().join("prodex/scopes.toml");
    std::fs::write(&file, "[[scope]]\ndirectory = \"/x\"\n").unwrap();
    let refused = prodex(&sandbox, &RUN).await;
    assert_eq!(code(&refused), Some(2));
    assert!(
        refused.stderr.contains("scopes.toml:1") && refused.stderr.contains("profiles"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn a_proxy_uses_only_the_profiles_that_it_is_told_to() {
    let setting = Setting::new(&["a", "b"], Script::default()).argument("--only").argument("b");
    let (mock, proxy) = setting.start().await;
    for text in ["one", "two"] {
        assert_eq!(turn(&proxy, "", &user(text)).await.status(), 200);
    }
    assert_eq!(asked(&mock), ["b", "b"]);
    // Not even when it is the only one left.
    prodex(&proxy.sandbox, &["profile", "pause", "b"]).await;
    let refused = turn(&proxy, "", &user("three")).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(asked(&mock), ["b", "b"]);
    for (only, exit) in [("c", 4), ("a,c", 4), ("", 4)] {
        let finished = prodex(&proxy.sandbox, &["serve", "--only", only]).await;
        assert_eq!(code(&finished), Some(exit), "{only}: {}", finished.stderr);
    }
}

#[tokio::test]
async fn running_proxies_know_at_once_what_a_person_says() {
    let (mock, proxy) = Setting::new(&["a", "b"], Script::default()).start().await;
    let serves = async || {
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
        asked(&mock).last().unwrap().clone()
    };
    let sandbox = &proxy.sandbox;
    let paused =
        succeeds(sandbox, &["profile", "pause", "a", "--for", "2h", "--reason", "the \x1b[1minvoice"]).await;
    assert!(paused.starts_with("profile a is paused until 20"), "{paused}");
    assert_eq!(serves().await, "b");
    let list = succeeds(sandbox, &["profile", "list"]).await;
    assert!(list.contains("plus, paused until 20") && list.contains("(the [1minvoice)"), "{list}");
    assert!(succeeds(sandbox, &["profile", "show", "a"]).await.contains("paused    until 20"));
    assert_eq!(succeeds(sandbox, &["profile", "resume", "a"]).await, "profile a serves again\n");
    assert_eq!(succeeds(sandbox, &["profile", "resume", "a"]).await, "profile a was not paused\n");
    for name in ["a", "b"] {
        succeeds(sandbox, &["profile", "prefer", name]).await;
        assert_eq!(serves().await, name);
    }
    succeeds(sandbox, &["profile", "prefer", "--clear"]).await;
    assert!(!succeeds(sandbox, &["profile", "list"]).await.contains("preferred"));
    succeeds(sandbox, &["profile", "use", "a"]).await;
    assert_eq!(serves().await, "a");
    let out = prodex(sandbox, &["logout", "a"]).await;
    assert_eq!(code(&out), Some(0), "{}", out.stderr);
    assert_eq!(serves().await, "b");
    succeeds(sandbox, &["profile", "restore", "a"]).await;
    succeeds(sandbox, &["profile", "pause", "b"]).await;
    assert_eq!(serves().await, "a");
    succeeds(sandbox, &["profile", "remove", "a"]).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 503);
    for wrong in [&["pause", "c"][..], &["resume", "c"], &["prefer", "c"]] {
        let finished = prodex(sandbox, &[&["profile"], wrong].concat()).await;
        assert_eq!(code(&finished), Some(1), "{}", finished.stderr);
    }
    for time in ["soon", "2", "-2h", "999999999999999999999d", ""] {
        let finished = prodex(sandbox, &["profile", "pause", "b", &format!("--for={time}")]).await;
        assert_eq!(code(&finished), Some(2), "{time}: {}", finished.stderr);
    }
}
