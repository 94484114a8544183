//! `prodex` alone says what there is and what comes next, on whatever machine, and never fails.

use harness::process::Program;
use harness::sandbox::Sandbox;
use mock_upstream::Account;

use crate::rig::{LIMIT, add_profile, code, prodex, program, sandbox};

/// What `prodex` alone says.
async fn said(sandbox: &Sandbox) -> String {
    let finished = prodex(sandbox, &[]).await;
    assert_eq!((code(&finished), finished.stderr.as_str()), (Some(0), ""), "{}", finished.stdout);
    assert!(finished.stdout.lines().all(|line| line.chars().count() <= 80), "{}", finished.stdout);
    finished.stdout
}

fn auth(id: &str) -> String {
    Account::new(id).auth_json().to_string()
}

/// A program of this name that does nothing.
fn client(sandbox: &Sandbox) {
    let path = sandbox.programs().join("codex");
    std::fs::write(&path, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn each_machine_has_its_next_command() {
    let sandbox = sandbox();
    insta::assert_snapshot!("first_step_empty", said(&sandbox).await);
    assert!(!sandbox.home().join("prodex").exists(), "nothing is made");
    client(&sandbox);
    let codex = sandbox.home().join(".codex");
    std::fs::create_dir(&codex).unwrap();
    std::fs::write(codex.join("config.toml"), "cli_auth_credentials_store = \"keyring\"\n").unwrap();
    assert!(said(&sandbox).await.contains("keyring"));
    std::fs::write(codex.join("auth.json"), auth("one")).unwrap();
    insta::assert_snapshot!("first_step_login", said(&sandbox).await);
    add_profile(&sandbox, "work", &auth("one")).await;
    insta::assert_snapshot!("first_step_profile", said(&sandbox).await);
    prodex(&sandbox, &["logout", "work"]).await;
    let text = said(&sandbox).await;
    assert!(text.contains("prodex login work") && text.contains("prodex profile list"), "{text}");
}

#[tokio::test]
async fn what_is_wrong_with_the_home_comes_first_and_is_no_failure() {
    let mut sandbox = sandbox();
    std::fs::create_dir(sandbox.home().join("prodex")).unwrap();
    let file = sandbox.home().join("prodex/prodex.toml");
    std::fs::write(&file, "workers = 65").unwrap();
    let text = prodex(&sandbox, &[]).await.stdout;
    assert!(text.contains("prodex.toml:1") && text.contains("0..=64"), "{text}");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(sandbox.home().join("prodex/profiles"), "no directory").unwrap();
    assert!(prodex(&sandbox, &[]).await.stdout.contains("prodex/profiles"));
    sandbox.set("PRODEX_HOME", "/dev/null/x");
    assert_eq!(code(&prodex(&sandbox, &[]).await), Some(0));
    let bare = Program::new(program()).run(LIMIT).await.unwrap();
    assert_eq!(code(&bare), Some(0), "{}", bare.stderr);
    assert!(bare.stdout.contains("PRODEX_HOME"), "{}", bare.stdout);
}
