//! What is wrong with settings, files and the machine is said in one sentence, with a documented exit code.

use std::path::Path;

use harness::process::Program;
use harness::sandbox::Sandbox;
use mock_upstream::Account;
use mock_upstream::script::Script;
use tokio::net::TcpListener;

use crate::connection::{turn, user};
use crate::rig::{LIMIT, Setting, add_profile, code, prodex, program, sandbox, until};

/// A place with one profile.
async fn ready() -> Sandbox {
    let sandbox = sandbox();
    add_profile(&sandbox, "one", &Account::new("one").auth_json().to_string()).await;
    sandbox
}

/// Runs a command that must fail with this code, and returns the one sentence it says.
async fn fails(sandbox: &Sandbox, arguments: &[&str], expected: i32) -> String {
    let finished = prodex(sandbox, arguments).await;
    assert_eq!(code(&finished), Some(expected), "{arguments:?}: {}{}", finished.stdout, finished.stderr);
    assert!(finished.stderr.starts_with("prodex: "), "{arguments:?}: {}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 1, "one sentence: {}", finished.stderr);
    assert_eq!(finished.stdout, "", "{arguments:?}");
    assert!(finished.stragglers.is_empty());
    finished.stderr
}

const SERVE: [&str; 3] = ["serve", "--upstream", "http://127.0.0.1:9"];

#[tokio::test]
async fn a_mistake_in_the_settings_is_named_with_its_place() {
    let sandbox = ready().await;
    let file = sandbox.home().join("prodex/prodex.toml");
    for (text, parts) in [
        (
            "\n# comment\nmax_atempts = 3\n",
            &["prodex.toml:3", "max_atempts", "did you mean `max_attempts`"][..],
        ),
        ("keep_alive = \"soon\"\n", &["prodex.toml:1", "keep_alive", "soon", "100ms..=1h"]),
        ("workers = 65\n", &["prodex.toml:1", "workers", "65", "0..=64"]),
        ("listen = \"0.0.0.0:80\"\n", &["prodex.toml:1", "listen", "loopback"]),
        ("max_attempts = [3]\n", &["prodex.toml:1", "[3]", "1..=100"]),
    ] {
        std::fs::write(&file, text).unwrap();
        for command in [&SERVE[..], &["run", "--", "x"], &["profile", "list"]] {
            let said = fails(&sandbox, command, 2).await;
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
    }
    std::fs::remove_file(&file).unwrap();
    for (arguments, part) in [
        (&["serve", "--upstream", "ftp://x"][..], "--upstream"),
        (&["serve", "--listen", "10.0.0.1:80"], "--listen"),
        (&["serve", "--listen", "127.0.0.1"], "--listen"),
    ] {
        let said = fails(&sandbox, arguments, 2).await;
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_toml_is_named() {
    let sandbox = ready().await;
    std::fs::write(sandbox.home().join("prodex/prodex.toml"), "max_attempts = 3\nkeep_alive 5\n").unwrap();
    let finished = prodex(&sandbox, &SERVE).await;
    assert_eq!(code(&finished), Some(2));
    assert!(
        finished.stderr.contains("prodex.toml") && finished.stderr.contains("prodex.toml:2: `keep_alive`"),
        "{}",
        finished.stderr
    );
}

#[tokio::test]
async fn a_mistake_in_the_environment_is_named() {
    let mut sandbox = ready().await;
    sandbox.set("PRODEX_DRAIN_TIMEOUT", "never");
    let said = fails(&sandbox, &SERVE, 2).await;
    assert!(said.contains("PRODEX_DRAIN_TIMEOUT") && said.contains("never"), "{said}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let sandbox = ready().await;
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let taken = TcpListener::bind(address).await.unwrap();
        // The name `localhost` may mean either address, so one that is taken is as bad as the other.
        let listen = format!("127.0.0.1:{}", taken.local_addr().unwrap().port());
        let said = fails(&sandbox, &[&SERVE[..], &["--listen", &listen]].concat(), 3).await;
        assert!(said.contains(&listen) && said.contains("--listen"), "{said}");
    }
}

#[tokio::test]
async fn without_profiles_the_first_step_is_named() {
    let sandbox = sandbox();
    for command in [&SERVE[..], &["run", "--", "x"]] {
        let said = fails(&sandbox, command, 4).await;
        assert!(said.contains("no profiles") && said.contains("prodex login"), "{said}");
    }
    assert!(!sandbox.home().join("prodex").exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_broken_profile_is_named_and_the_others_serve() {
    let (mock, proxy) = Setting::new(&["a", "b", "c"], Script::default()).start().await;
    let broken = proxy.home().join("profiles/a/auth.json");
    std::fs::write(&broken, "{\"tokens\": {").unwrap();
    std::fs::remove_file(proxy.home().join("profiles/b/auth.json")).unwrap();
    let another = proxy.another().await;
    assert_eq!(turn(&another, "", &user("x")).await.status(), 200);
    assert_eq!(crate::rig::asked(&mock), ["c"]);
    until("both are named", || {
        let said = another.server.stderr();
        said.contains("a/auth.json cannot be used") && said.contains("\"b\" has no login; `prodex login b`")
    })
    .await;
    let said = another.server.stderr();
    assert_eq!(said.lines().count(), 2, "{said}");
    std::fs::remove_dir_all(proxy.home().join("profiles/c")).unwrap();
    let finished = prodex(&proxy.sandbox, &SERVE).await;
    assert_eq!(code(&finished), Some(4), "{}", finished.stderr);
    assert!(finished.stderr.contains("a/auth.json") && finished.stderr.contains("prodex login b"));
}

#[tokio::test]
async fn a_home_that_cannot_be_used_is_named() {
    let sandbox = sandbox();
    let file = sandbox.root().join("file");
    std::fs::write(&file, "x").unwrap();
    let home = file.display().to_string();
    let auth = sandbox.root().join("auth.json");
    std::fs::write(&auth, Account::new("one").auth_json().to_string()).unwrap();
    let auth = auth.display().to_string();
    for command in [
        &["serve", "--home", &home][..],
        &["run", "--home", &home, "--", "x"],
        &["profile", "list", "--home", &home],
        &["profile", "add", "x", "--from", &auth, "--home", &home],
        &["profile", "add", "x", "--from", &auth, "--home", &format!("{home}/below")],
    ] {
        let finished = prodex(&sandbox, command).await;
        assert!(matches!(code(&finished), Some(2 | 3)), "{}", finished.stderr);
        assert!(
            finished.stderr.contains(&home) && finished.stderr.lines().count() == 1,
            "{}",
            finished.stderr
        );
    }
    // One in which nothing can be made.
    let prodex_home = sandbox.home().join("prodex");
    std::fs::create_dir(&prodex_home).unwrap();
    std::fs::write(prodex_home.join("profiles"), "x").unwrap();
    for command in [&["profile", "list"][..], &["profile", "add", "x", "--from", &auth], &SERVE] {
        let said = fails(&sandbox, command, 3).await;
        assert!(said.contains("prodex/profiles"), "{said}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "x");
}

#[tokio::test]
async fn other_files_that_cannot_be_used_are_named() {
    let mut sandbox = ready().await;
    let file = sandbox.root().join("file");
    std::fs::write(&file, "x").unwrap();
    std::fs::write(sandbox.home().join("prodex/tls"), "x").unwrap();
    let said = fails(&sandbox, &[&SERVE[..], &["--tls"]].concat(), 3).await;
    assert!(said.contains("prodex/tls"), "{said}");
    sandbox.set("PRODEX_UPSTREAM_CA", &file);
    let said = fails(&sandbox, &SERVE, 3).await;
    assert!(said.contains(&*file.display().to_string()) && said.contains("upstream_ca"), "{said}");
    sandbox.set("PRODEX_RUNTIME_LOG_DIR", file.join("logs"));
    let said = fails(&sandbox, &SERVE, 3).await;
    assert!(said.contains("run log") && said.contains("PRODEX_RUNTIME_LOG_DIR"), "{said}");
}

#[tokio::test]
async fn without_any_home_the_variable_is_named() {
    let bare = Program::new(program()).args(["profile", "list"]).run(LIMIT).await.unwrap();
    assert_eq!(code(&bare), Some(2), "{}", bare.stderr);
    assert!(bare.stderr.contains("PRODEX_HOME"), "{}", bare.stderr);
}

#[tokio::test]
async fn a_wrong_command_line_is_a_mistake_of_usage() {
    let sandbox = sandbox();
    for arguments in [&["nothing"][..], &["serve", "--nothing"], &["profile"], &["completions", "tcsh"]] {
        let finished = prodex(&sandbox, arguments).await;
        assert_eq!((code(&finished), finished.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!finished.stderr.is_empty());
    }
    assert_eq!(std::fs::read_dir(sandbox.home()).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn the_settings_file_counts_less_than_the_environment_and_that_less_than_flags() {
    let (mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let nowhere = "upstream = \"http://127.0.0.1:9\"\nmax_request_body = \"1KiB\"\nkeep_alive = \"1h\"\n";
    std::fs::write(proxy.home().join("prodex.toml"), nowhere).unwrap();
    let another = proxy.another().await;
    assert_eq!(turn(&another, "", &user("x")).await.status(), 200, "the flag names the mock");
    assert_eq!(turn(&another, "", &user(&"x".repeat(1024))).await.status(), 413, "the file is read");
    assert_eq!(mock.journal().responses().len(), 1);
    assert!(Path::new(another.ready["log"].as_str().unwrap()).starts_with(proxy.sandbox.logs()));
}

#[tokio::test]
async fn a_home_that_is_no_directory_is_a_matter_of_the_environment() {
    let sandbox = sandbox();
    let home = sandbox.root().join("file").display().to_string();
    std::fs::write(&home, "x").unwrap();
    for command in [&["serve", "--home", &home][..], &["profile", "list", "--home", &home]] {
        let finished = prodex(&sandbox, command).await;
        assert_eq!(code(&finished), Some(3), "{}", finished.stderr);
    }
}
