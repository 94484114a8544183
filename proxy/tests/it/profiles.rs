//! `prodex profile`: what is added is listed, used, imported and removed, and what cannot be is left alone.

use std::time::Duration;

use harness::process::Program;
use harness::sandbox::Sandbox;
use mock_upstream::Account;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::rig::{LIMIT, add_profile, code, mode, prodex, program, sandbox};

async fn succeeds(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let finished = prodex(sandbox, arguments).await;
    assert_eq!(code(&finished), Some(0), "{arguments:?}: {}", finished.stderr);
    assert_eq!(finished.stderr, "", "{arguments:?}");
    finished.stdout
}

async fn fails(sandbox: &Sandbox, arguments: &[&str], expected: i32) -> String {
    let finished = prodex(sandbox, arguments).await;
    assert_eq!(code(&finished), Some(expected), "{arguments:?}: {}{}", finished.stdout, finished.stderr);
    assert_eq!((finished.stdout.as_str(), finished.stderr.lines().count()), ("", 1), "{}", finished.stderr);
    finished.stderr
}

async fn list(sandbox: &Sandbox) -> Vec<Value> {
    let text = succeeds(sandbox, &["profile", "list", "--json"]).await;
    let mut list: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(list["profiles"].take()).unwrap()
}

fn auth(id: &str) -> String {
    Account::new(id).auth_json().to_string()
}

#[tokio::test]
async fn a_profile_is_added_listed_used_and_removed() {
    let sandbox = sandbox();
    let text = succeeds(&sandbox, &["profile", "list"]).await;
    assert!(text.contains("no profiles") && text.contains("prodex login"));
    add_profile(&sandbox, "work", &auth("acct-1")).await;
    add_profile(&sandbox, "home", &auth("acct-2")).await;
    succeeds(&sandbox, &["profile", "use", "home"]).await;
    let rows = list(&sandbox).await;
    let source = sandbox.root().join("home.json").canonicalize().unwrap();
    assert_eq!(
        rows[0],
        json!({"name": "home", "current": true, "kind": "chatgpt", "account_id": "acct-2",
            "email": "acct-2@mock.invalid", "plan": "plus", "paused": false, "preferred": false, "added": rows[0]["added"], "source": source})
    );
    assert_eq!((&rows[1]["name"], &rows[1]["current"], rows.len()), (&"work".into(), &false.into(), 2));
    let table = succeeds(&sandbox, &["profile", "list"]).await;
    assert_eq!(
        table,
        "* home  chatgpt acct-2@mock.invalid, plus\n  work  chatgpt acct-1@mock.invalid, plus\n"
    );
    let removed = succeeds(&sandbox, &["profile", "remove", "home"]).await;
    assert!(removed.contains("`prodex profile restore home`"), "{removed}");
    let trash = removed.trim_end().rsplit(' ').next().unwrap();
    let kept = std::fs::read_to_string(std::path::Path::new(trash).join("auth.json")).unwrap();
    assert_eq!(kept, auth_as_written(&sandbox, "home"));
    let rows = list(&sandbox).await;
    assert_eq!((rows.len(), &rows[0]["name"], &rows[0]["current"]), (1, &"work".into(), &false.into()));
    add_profile(&sandbox, "home", &auth("acct-2")).await;
    assert_eq!(list(&sandbox).await.len(), 2);
}

fn auth_as_written(sandbox: &Sandbox, name: &str) -> String {
    std::fs::read_to_string(sandbox.root().join(format!("{name}.json"))).unwrap()
}

#[tokio::test]
async fn credentials_are_copied_as_they_are() {
    let sandbox = sandbox();
    let odd = auth("acct").replace("\":", "\" :\n ");
    add_profile(&sandbox, "odd", &odd).await;
    let stored = sandbox.home().join("prodex/profiles/odd/auth.json");
    assert_eq!(std::fs::read_to_string(&stored).unwrap(), odd);
    assert_eq!(mode(&stored), 0o600);
}

#[tokio::test]
async fn an_api_key_comes_from_standard_input() {
    let sandbox = sandbox();
    let key = format!("sk-{}", "x".repeat(30));
    let script = format!("printf '  {key}\\n' | {} profile add key --api-key-stdin", program().display());
    let shell = Program::new("/bin/sh").args(["-c", &script]).envs(sandbox.environment());
    let finished = shell.run(LIMIT).await.unwrap();
    assert_eq!((code(&finished), finished.stdout.as_str()), (Some(0), "added profile key (openai-key)\n"));
    let stored = std::fs::read_to_string(sandbox.home().join("prodex/profiles/key/auth.json")).unwrap();
    let stored: Value = serde_json::from_str(&stored).unwrap();
    assert_eq!(stored, json!({"auth_mode": "apikey", "OPENAI_API_KEY": key}));
    let rows = list(&sandbox).await;
    assert_eq!((&rows[0]["kind"], &rows[0]["account_id"]), (&"openai-key".into(), &Value::Null));
    assert!(
        fails(&sandbox, &["profile", "add", "other", "--api-key-stdin"], 2).await.contains("standard input")
    );
}

#[tokio::test]
async fn what_cannot_be_added_leaves_nothing_behind() {
    let sandbox = sandbox();
    let file = sandbox.root().join("auth.json");
    let from = file.display().to_string();
    for (text, part) in [
        ("", "not JSON"),
        ("{\"tokens\": {\"access_token\": ", "not JSON"),
        ("[]", "not JSON"),
        ("{}", "neither tokens nor an API key"),
        (r#"{"tokens": {}}"#, "no access token"),
        (r#"{"tokens": {"access_token": "opaque"}}"#, "no account id"),
        (r#"{"tokens": {"access_token": "a\r\nb", "account_id": "x"}}"#, "access token"),
        (r#"{"auth_mode": "apikey", "OPENAI_API_KEY": ""}"#, "neither tokens nor an API key"),
    ] {
        std::fs::write(&file, text).unwrap();
        let said = fails(&sandbox, &["profile", "add", "new", "--from", &from], 4).await;
        assert!(said.contains(&from) && said.contains(part), "{text}: {said}");
    }
    std::fs::write(&file, auth("acct")).unwrap();
    for name in ["..", "a/b", "-x", "a b", "", &"x".repeat(65)] {
        let said = fails(&sandbox, &["profile", "add", "--from", &from, "--", name], 2).await;
        assert!(said.contains("profile's name"), "{said}");
    }
    let said = fails(&sandbox, &["profile", "add", "new", "--from", &format!("{from}.no")], 3).await;
    assert!(said.contains("auth.json.no") && said.contains("prodex login"), "{said}");
    let said = fails(&sandbox, &["profile", "add", "new"], 3).await;
    assert!(said.contains(".codex/auth.json"), "{said}");
    assert!(!sandbox.home().join("prodex").exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_name_that_is_taken_or_missing_is_named() {
    let sandbox = sandbox();
    add_profile(&sandbox, "work", &auth("acct-1")).await;
    let from = sandbox.root().join("work.json").display().to_string();
    assert!(
        fails(&sandbox, &["profile", "add", "work", "--from", &from], 1).await.contains("\"work\" already")
    );
    for command in ["use", "remove"] {
        let said = fails(&sandbox, &["profile", command, "other"], 1).await;
        assert!(said.contains("\"other\"") && said.contains("prodex profile list"), "{said}");
        fails(&sandbox, &["profile", command, "../work"], 2).await;
    }
    assert_eq!(list(&sandbox).await.len(), 1);
}

#[tokio::test]
async fn the_login_of_codex_is_imported() {
    let sandbox = sandbox();
    let said = prodex(&sandbox, &["profile", "import"]).await;
    assert_eq!(code(&said), Some(1), "{}", said.stdout);
    assert!(said.stdout.contains("`prodex login`"));
    let codex = sandbox.home().join(".codex");
    std::fs::create_dir(&codex).unwrap();
    std::fs::write(codex.join("auth.json"), auth("acct-1")).unwrap();
    let dry = succeeds(&sandbox, &["profile", "import", "--dry-run"]).await;
    assert_eq!(
        dry.lines().next().unwrap().split_whitespace().collect::<Vec<_>>()[..3],
        ["would", "add", "codex"]
    );
    assert!(dry.contains("ac***@mock.invalid, plus") && dry.contains("from ~/.codex/auth.json"), "{dry}");
    assert!(!sandbox.home().join("prodex").exists(), "a dry run writes nothing");
    let text = succeeds(&sandbox, &["profile", "import", "--json"]).await;
    let rows: Value = serde_json::from_str(&text).unwrap();
    assert!(text.contains("\"added\"") && text.contains("\"codex\""), "{rows}");
    let rows = list(&sandbox).await;
    assert_eq!((&rows[0]["name"], &rows[0]["current"]), (&"codex".into(), &true.into()));
    let again = succeeds(&sandbox, &["profile", "import"]).await;
    assert!(again.starts_with("there already   codex"), "{again}");
    assert_eq!(std::fs::read_to_string(codex.join("auth.json")).unwrap(), auth_of(&sandbox, "codex"));
}

#[tokio::test]
async fn a_newer_login_of_a_known_account_takes_the_place_of_the_old_one() {
    let sandbox = sandbox();
    let old = Account { expires_at: 1_900_000_000, ..Account::new("acct-1") }.auth_json().to_string();
    add_profile(&sandbox, "work", &old).await;
    let file = sandbox.root().join("auth.json");
    std::fs::write(&file, auth("acct-1")).unwrap();
    let place = file.display().to_string();
    let dry = succeeds(&sandbox, &["profile", "import", "--dry-run", &place]).await;
    assert!(dry.starts_with("would renew     work"), "{dry}");
    assert_eq!(auth_of(&sandbox, "work"), old);
    let said = succeeds(&sandbox, &["profile", "import", &place]).await;
    assert!(said.starts_with("renewed         work"), "{said}");
    assert_eq!(auth_of(&sandbox, "work"), std::fs::read_to_string(&file).unwrap());
    // The other way round nothing happens.
    std::fs::write(&file, old).unwrap();
    assert!(succeeds(&sandbox, &["profile", "import", &place]).await.starts_with("there already   work"));
    assert_eq!(list(&sandbox).await.len(), 1);
}

fn auth_of(sandbox: &Sandbox, profile: &str) -> String {
    std::fs::read_to_string(sandbox.home().join("prodex/profiles").join(profile).join("auth.json")).unwrap()
}

#[tokio::test]
async fn a_home_of_the_older_tool_is_taken_over_where_it_is() {
    let sandbox = sandbox();
    let home = sandbox.home().join("prodex");
    for (name, id) in [("main", "acct-1"), ("second", "acct-2"), ("broken", "")] {
        let directory = home.join("profiles").join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let text = if id.is_empty() { "{".to_owned() } else { auth(id) };
        std::fs::write(directory.join("auth.json"), text).unwrap();
        std::fs::write(directory.join("history.jsonl"), "theirs").unwrap();
    }
    let state = json!({"active_profile": "second", "profiles": {
        "main": {"codex_home": home.join("profiles/main")}, "second": {"codex_home": home.join("profiles/second")}}});
    std::fs::write(home.join("state.json"), state.to_string()).unwrap();
    let imported = prodex(&sandbox, &["profile", "import"]).await;
    assert_eq!(code(&imported), Some(1), "one of them is broken: {}", imported.stdout);
    assert!(imported.stdout.contains("broken/auth.json"), "{}", imported.stdout);
    let rows = list(&sandbox).await;
    let names: Vec<_> =
        rows.iter().map(|row| (row["name"].as_str().unwrap(), row["current"].as_bool().unwrap())).collect();
    assert_eq!(names, [("main", false), ("second", true)]);
    succeeds(&sandbox, &["profile", "remove", "main"]).await;
    let theirs = std::fs::read_to_string(home.join("profiles/main/history.jsonl")).unwrap();
    assert_eq!(theirs, "theirs", "what another tool has there stays");
}

#[tokio::test]
async fn a_profile_that_breaks_is_listed_with_what_is_wrong() {
    let sandbox = sandbox();
    add_profile(&sandbox, "good", &auth("acct-1")).await;
    add_profile(&sandbox, "bad", &auth("acct-2")).await;
    std::fs::write(sandbox.home().join("prodex/profiles/bad/auth.json"), "{").unwrap();
    let rows = list(&sandbox).await;
    assert!(rows[0]["error"].as_str().unwrap().contains("bad/auth.json"), "{}", rows[0]);
    assert_eq!(rows[1]["kind"], "chatgpt");
    let table = succeeds(&sandbox, &["profile", "list"]).await;
    assert!(table.contains("bad   cannot be used: ") && table.contains("good  chatgpt"), "{table}");
    assert!(fails(&sandbox, &["profile", "use", "bad"], 4).await.contains("bad/auth.json"));
    succeeds(&sandbox, &["profile", "remove", "bad"]).await;
}

#[tokio::test]
async fn a_half_written_file_of_an_interrupted_command_is_no_profile() {
    let sandbox = sandbox();
    add_profile(&sandbox, "good", &auth("acct-1")).await;
    let profiles = sandbox.home().join("prodex/profiles");
    std::fs::create_dir(profiles.join(".new-half-99")).unwrap();
    std::fs::write(profiles.join(".new-half-99/auth.json.new-99"), "{\"tok").unwrap();
    std::fs::write(profiles.join("good/auth.json.new-99"), "{\"tok").unwrap();
    assert_eq!(list(&sandbox).await.len(), 1);
    add_profile(&sandbox, "half", &auth("acct-2")).await;
    assert_eq!(list(&sandbox).await.len(), 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said_once() {
    let sandbox = sandbox();
    let file = sandbox.root().join("auth.json").display().to_string();
    std::fs::write(&file, "{").unwrap();
    let finished = prodex(&sandbox, &["profile", "add", "x", "--from", &file]).await;
    assert_eq!(finished.stderr.matches("it is not JSON").count(), 1, "{}", finished.stderr);
}

#[tokio::test]
async fn a_profile_command_that_is_killed_at_any_moment_leaves_all_or_nothing() {
    let sandbox = sandbox();
    let file = sandbox.root().join("auth.json");
    std::fs::write(&file, Account::new("acct").auth_json().to_string()).unwrap();
    let file = file.display().to_string();
    let mut added = 0;
    for n in 0..40 {
        let name = format!("p{n}");
        let command = Program::new(program()).args(["profile", "add", &name, "--from", &file]);
        let mut running = command.envs(sandbox.environment()).start().unwrap();
        running.wait(Duration::from_micros(200 * n)).await.unwrap();
        running.signal(Signal::SIGKILL);
        running.wait(LIMIT).await.unwrap();
        let list = prodex(&sandbox, &["profile", "list", "--json"]).await;
        assert_eq!(code(&list), Some(0), "{}", list.stderr);
        assert!(!list.stdout.contains("\"error\""), "{}", list.stdout);
        added = list.stdout.matches("\"kind\"").count();
        // Whatever was left does not stand in the way.
        if !list.stdout.contains(&format!("\"{name}\"")) {
            let again = prodex(&sandbox, &["profile", "add", &name, "--from", &file]).await;
            assert_eq!(code(&again), Some(0), "{n}: {}", again.stderr);
        }
    }
    assert!(added > 0);
}
