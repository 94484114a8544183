//! `prodex profile import`: what there is on a machine is shown first, taken over once, and never half.

use harness::process::Program;
use harness::sandbox::Sandbox;
use mock_upstream::Account;
use serde_json::{Value, json};

use crate::rig::{LIMIT, code, prodex, program, sandbox};

fn auth(id: &str) -> String {
    Account::new(id).auth_json().to_string()
}

fn write(sandbox: &Sandbox, path: &str, text: &str) {
    let path = sandbox.home().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A machine with Codex's own login, an older tool's home with five profiles, and an API key.
fn machine() -> Sandbox {
    let sandbox = sandbox();
    write(&sandbox, ".codex/auth.json", &auth("acct-1"));
    let older = Account { expires_at: 1_900_000_000, ..Account::new("acct-1") };
    write(&sandbox, ".prodex/profiles/main/auth.json", &older.auth_json().to_string());
    write(&sandbox, ".prodex/profiles/second/auth.json", &auth("acct-2"));
    write(&sandbox, ".prodex/profiles/key/auth.json", &json!({"OPENAI_API_KEY": "sk-secret"}).to_string());
    write(&sandbox, ".prodex/profiles/torn/auth.json", "{\"tokens\": ");
    let home = |name: &str| json!({"codex_home": sandbox.home().join(".prodex/profiles").join(name)});
    let state = json!({"active_profile": "second", "profiles": {"main": home("main"), "second": home("second"),
        "key": home("key"), "torn": home("torn"), "left": home("left")}});
    write(&sandbox, ".prodex/state.json", &state.to_string());
    sandbox
}

#[tokio::test]
async fn the_plan_of_a_whole_machine_is_as_it_was_reviewed() {
    let sandbox = machine();
    let dry = prodex(&sandbox, &["profile", "import", "--dry-run"]).await;
    insta::assert_snapshot!("import_plan", dry.stdout);
    assert_eq!(code(&dry), Some(1), "one of them cannot be used");
    assert!(!sandbox.home().join("prodex").exists(), "nothing is written");
    assert!(!dry.stdout.contains("sk-secret") && dry.stdout.lines().all(|line| line.len() <= 80));
    let done = prodex(&sandbox, &["profile", "import", "--yes"]).await;
    insta::assert_snapshot!("import_done", done.stdout);
    let list = prodex(&sandbox, &["profile", "list"]).await;
    insta::assert_snapshot!("import_list", list.stdout);
    let again = prodex(&sandbox, &["profile", "import", "--json"]).await;
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    let results: Vec<_> = again["found"].as_array().unwrap().iter().map(|row| &row["result"]).collect();
    assert!(results.iter().all(|result| **result != "added"), "{again}");
}

#[tokio::test]
async fn a_place_that_cannot_be_read_is_named_and_the_others_are_taken() {
    let sandbox = sandbox();
    write(&sandbox, ".codex/auth.json", &auth("acct-1"));
    write(&sandbox, ".prodex/state.json", "{");
    let done = prodex(&sandbox, &["profile", "import"]).await;
    assert_eq!(code(&done), Some(1), "{}", done.stderr);
    assert!(
        words(&done.stdout).contains("state.json is broken") && done.stdout.starts_with("added"),
        "{}",
        done.stdout
    );
    write(&sandbox, ".prodex/state.json", "{}");
    write(&sandbox, ".prodex/runtime-continuations.json", "[");
    let again = prodex(&sandbox, &["profile", "import"]).await;
    assert!(
        words(&again.stdout).contains("runtime-continuations.json is broken: it is not JSON"),
        "{}",
        again.stdout
    );
    let none = prodex(&sandbox, &["profile", "import", "/nowhere"]).await;
    assert_eq!(code(&none), Some(1));
    assert!(
        words(&none.stdout).contains("/nowhere there is nothing of that name; log in with `prodex login`"),
        "{}",
        none.stdout
    );
}

/// A text without its line ends.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a command prints at a terminal, and its code; none where there is no `script` to make one.
pub(crate) async fn at_a_terminal(
    sandbox: &Sandbox,
    input: &str,
    command: &str,
) -> Option<(String, Option<i32>)> {
    let shell = format!("printf '{input}' | script -qec '{} {command}' /dev/null", program().display());
    let run =
        Program::new("/bin/sh").args(["-c", &shell]).envs(sandbox.environment()).run(LIMIT).await.unwrap();
    let is_there = std::path::Path::new("/usr/bin/script").exists();
    is_there.then(|| (run.stdout.replace('\r', ""), code(&run)))
}

#[tokio::test]
async fn a_person_at_a_terminal_is_asked() {
    let sandbox = sandbox();
    write(&sandbox, ".codex/auth.json", &auth("acct-1"));
    let Some((said, exit)) = at_a_terminal(&sandbox, "n\\n", "profile import").await else { return };
    assert!(said.contains("would add") && said.contains("Take these over? [Y/n]"), "{said}");
    assert!(said.contains("nothing was taken over") && exit == Some(1), "{said}");
    assert!(!sandbox.home().join("prodex").exists());
    let (said, exit) = at_a_terminal(&sandbox, "what\\ny\\n", "profile import").await.unwrap();
    assert!(said.contains("added") && exit == Some(0), "{said}");
    assert!(sandbox.home().join("prodex/profiles/codex/auth.json").exists());
    let (said, _) = at_a_terminal(&sandbox, "", "profile import").await.unwrap();
    assert!(!said.contains("[Y/n]"), "there is nothing to ask about: {said}");
}
