//! Homes in which something is wrong, and one in which nothing is.

use super::*;
use crate::profile::credentials::tests::token;

/// What is told about a home, as `name: sentence > next`.
fn told(config: &Config, codex_home: &Path, environment: &[(&str, &str)]) -> (Facts, String) {
    let environment =
        |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let (facts, findings) = examine(&Surroundings {
        config,
        codex_home: Some(codex_home.to_owned()),
        has_logins: codex_home.join("auth.json").exists(),
        environment: &environment,
        now: 1_795_154_400,
    });
    let line = |finding: &Finding| {
        format!("{} {}: {} > {}", finding.severity.name(), finding.name, finding.sentence, finding.next)
    };
    let home = config.home.display().to_string();
    let findings = findings.iter().filter(|finding| finding.name != "unknown_variables");
    (facts, findings.map(line).collect::<Vec<_>>().join("\n").replace(&home, "HOME"))
}

fn make(path: &Path, mode: u32) {
    std::fs::create_dir_all(path).unwrap();
    set_mode(path, mode);
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn config(home: &Path, codex: &Path) -> Config {
    let flags = vec![("codex", codex.display().to_string())];
    Config::load(Some(home), &|_| None, &flags).unwrap()
}

/// A program that says this.
fn program(home: &Path, script: &str) -> PathBuf {
    let path = home.join("codex.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    set_mode(&path, 0o700);
    path
}

fn login(refresh: Option<&str>, expires: i64) -> String {
    let claims = serde_json::json!({
        "exp": expires,
        "https://api.openai.com/auth": {"chatgpt_account_id": "account"},
    });
    let tokens = serde_json::json!({"access_token": token(&claims), "refresh_token": refresh});
    serde_json::json!({"tokens": tokens}).to_string()
}

#[test]
fn a_good_home_has_no_finding() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path().join("home");
    make(&home, 0o700);
    let codex = program(root.path(), "echo codex-cli 0.169.0; sleep 60");
    let config = config(&home, &codex);
    Store::new(&home).add("work", &login(Some("r"), 1_795_154_000), None).unwrap();
    let proxied = [
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("http_proxy", "http://proxy:3128"),
        ("no_proxy", "localhost, 127.0.0.0/8"),
    ];
    let look = || told(&config, root.path(), &proxied);
    assert_eq!(look().0.login, None, "nobody has logged in");
    std::fs::write(root.path().join("auth.json"), login(None, 1)).unwrap();
    let (facts, told) = look();
    assert_eq!(told, "", "an expired token that can be renewed is none, either");
    assert_eq!(facts.client, Some((codex, Ok::<_, ()>("codex-cli 0.169.0".to_owned()).ok())));
    assert_eq!((facts.profiles, facts.login, facts.bindings), (1, Some("a ChatGPT login"), None));
}

#[test]
fn what_is_wrong_with_a_home_is_told() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path().join("home");
    make(&home, 0o700);
    let codex = program(root.path(), "exit 1");
    let store = Store::new(&home);
    store.add("ended", &login(None, 1_795_154_000), None).unwrap();
    store.add("ending", &login(None, 1_795_155_000), None).unwrap();
    store.add("broken", &login(Some("r"), 1_795_155_000), None).unwrap();
    std::fs::write(home.join("profiles/broken/auth.json"), "{").unwrap();
    set_mode(&home.join("profiles/ended/auth.json"), 0o644);
    make(&home.join("profiles/peer"), 0o755);
    make(&home.join("state"), 0o700);
    std::fs::write(home.join("state/state.db"), "not a database, and longer than nothing").unwrap();
    std::fs::write(root.path().join("auth.json"), r#"{"OPENAI_API_KEY":"k"}"#).unwrap();
    let environment = [("http_proxy", "http://proxy:3128"), ("NO_PROXY", "corp")];
    let (_, told) = told(&config(&home, &codex), root.path(), &environment);
    insta::assert_snapshot!(told.replace(&root.path().display().to_string(), "ROOT"));
}

#[test]
fn an_open_or_empty_home_is_told() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path().join("home");
    make(&home, 0o755);
    make(&home.join("logs"), 0o755);
    std::fs::write(home.join("logs/x.jsonl"), "").unwrap();
    set_mode(&home.join("logs/x.jsonl"), 0o644);
    let (_, told) = told(&config(&home, Path::new("no-such-codex")), root.path(), &[("PATH", "/nowhere")]);
    insta::assert_snapshot!(told);
}

#[test]
fn a_proxy_that_does_not_answer_is_told() {
    let root = tempfile::tempdir().unwrap();
    make(root.path(), 0o700);
    make(&root.path().join("run"), 0o700);
    let pid = std::process::id();
    let socket = root.path().join("run").join(format!("{pid}.sock"));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    set_mode(&socket, 0o600);
    let config = config(root.path(), Path::new("no-such-codex"));
    let ask = |answer: &'static str| {
        let listener = listener.try_clone().unwrap();
        // One connection finds out whether anybody listens, the other asks.
        let server = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 512]).unwrap();
                // The first asks nothing, and is gone.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let result = told(&config, root.path(), &[]);
        server.join().unwrap();
        result
    };
    let (facts, told) = ask("HTTP/1.1 503 Draining\r\nContent-Length: 2\r\n\r\n{}");
    assert!(!told.contains("proxy_silent"), "{told}");
    assert_eq!(facts.running, [pid]);
    let (facts, told) = ask("");
    assert!(told.contains("problem proxy_silent"), "{told}");
    assert_eq!(facts.running, [0; 0]);
}
