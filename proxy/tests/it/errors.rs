//! What goes wrong on the command line is one sentence that ends with what to do; readers that stop are no error.

use harness::process::Program;
use harness::sandbox::Sandbox;
use mock_upstream::Account;

use crate::rig::{LIMIT, add_profile, code, prodex, program, sandbox};

/// What a command says that fails, with its code.
async fn failure(sandbox: &Sandbox, command: &str) -> String {
    let arguments: Vec<&str> = command.split_whitespace().collect();
    let finished = prodex(sandbox, &arguments).await;
    assert!(code(&finished).is_some_and(|code| code != 0), "{command}: {}", finished.stdout);
    let said = finished.stderr.replace(&sandbox.root().display().to_string(), "/…");
    assert!(said.starts_with("prodex: ") && said.lines().count() == 1, "{command}: {said}");
    format!("$ prodex {command}\n{said}[{}]\n", code(&finished).unwrap())
}

#[tokio::test]
async fn every_failure_names_the_next_step() {
    let sandbox = sandbox();
    let mut page = String::new();
    for command in [
        "run",
        "serve",
        "quota",
        "why last",
        "login ../x",
        "login work --codex nothing",
        "logout work",
        "profile use work",
        "profile show work",
        "profile pause work",
        "profile prefer work",
        "profile remove work",
        "profile restore work",
        "profile export work x.json",
        "profile add work --from none.json",
        "profile add work --api-key-stdin",
        "profile scope none --only work",
        "profile scope --only work",
        "serve --only work",
        "serve --listen 0.0.0.0:80",
        "serve --upstream ftp://x",
    ] {
        page += &failure(&sandbox, command).await;
    }
    add_profile(&sandbox, "work", &Account::new("acct-1").auth_json().to_string()).await;
    for command in ["profile add work --from none.json", "run --codex nothing", "profile restore work"] {
        page += &failure(&sandbox, command).await;
    }
    prodex(&sandbox, &["logout", "work"]).await;
    for command in ["run", "logout work", "profile use work", "profile export work x.json"] {
        page += &failure(&sandbox, command).await;
    }
    std::fs::write(sandbox.home().join("prodex/profiles/work/profile.toml"), "\npaused = 3").unwrap();
    page += &failure(&sandbox, "profile show work").await;
    std::fs::write(sandbox.home().join("prodex/scopes.toml"), "\n[[scope]]\ndirectory = 'x'\nprofiles = []")
        .unwrap();
    page += &failure(&sandbox, "profile scope").await;
    insta::assert_snapshot!("errors", page);
}

#[tokio::test]
async fn a_reader_that_stops_early_is_no_failure() {
    let sandbox = sandbox();
    for name in ["a", "b"] {
        add_profile(&sandbox, name, &Account::new(name).auth_json().to_string()).await;
    }
    let own = program();
    let own = own.display();
    for command in [
        "",
        "--help",
        "profile list",
        "profile list --json",
        "profile show a",
        "profile import",
        "profile scope --list",
        "profile restore --list",
        "profile use a",
        "completions bash",
        "status",
        "status --json",
        "info",
        "doctor",
        "doctor --json-schema",
        "run --dry-run --codex /bin/sh",
    ] {
        // The pipe is closed before anything is written.
        let shell = format!("({{ sleep 0.1; {own} {command}; echo $? >&2; }} | true)");
        let run = Program::new("/bin/sh").args(["-c", &shell]).envs(sandbox.environment());
        let finished = run.run(LIMIT).await.unwrap();
        assert_eq!(finished.stderr.trim(), "0", "{command}");
    }
}

#[tokio::test]
async fn a_result_that_cannot_be_written_is_a_failure() {
    let sandbox = sandbox();
    for command in ["profile list", "status", "info", "doctor"] {
        let shell = format!("{} {command} > /dev/full", program().display());
        let run = Program::new("/bin/sh").args(["-c", &shell]).envs(sandbox.environment());
        let finished = run.run(LIMIT).await.unwrap();
        assert_eq!(code(&finished), Some(3), "{command}: {}", finished.stderr);
        assert!(finished.stderr.contains("standard output"), "{command}: {}", finished.stderr);
    }
}
