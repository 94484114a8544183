//! What goes wrong on the command line is one sentence that ends with what to do; readers that stop are no error.

use harness::process::{Exit, Program};
use harness::sandbox::Sandbox;
use mock_upstream::Account;
use prodex::admin::client::running;

use crate::connection::Connection;
use crate::rig::{LIMIT, add_profile, code, prodex, program, sandbox, until};

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
async fn where_there_are_no_profiles_the_next_step_is_one_that_works() {
    let sandbox = sandbox();
    let commands = ["run --codex /bin/sh", "serve", "quota", "profile list", "status", "doctor"];
    let said = async |command: &str| {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        let finished = prodex(&sandbox, &arguments).await;
        finished.stdout + &finished.stderr
    };
    for command in commands {
        let said = said(command).await;
        assert!(said.contains("prodex login") && !said.contains("profile import"), "{command}: {said}");
        assert!(!sandbox.home().join("prodex").exists(), "{command} makes nothing");
    }
    std::fs::create_dir(sandbox.home().join(".codex")).unwrap();
    let login = Account::new("one").auth_json().to_string();
    std::fs::write(sandbox.home().join(".codex/auth.json"), login).unwrap();
    for command in commands {
        let said = said(command).await;
        assert!(said.contains("prodex profile import"), "{command}: {said}");
    }
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

#[tokio::test]
async fn a_proxy_that_nobody_hears_goes_on() {
    let mut sandbox = sandbox();
    // Each of these is something to tell: a variable that is no setting, an admin port, nobody to be replaced.
    sandbox.set("PRODEX_NONSENSE", "1");
    sandbox.set("PRODEX_ADMIN_LISTEN", "127.0.0.1:0");
    add_profile(&sandbox, "one", &Account::new("one").auth_json().to_string()).await;
    let own = program();
    let serve = format!("exec {} serve --replace --upstream http://127.0.0.1:9", own.display());
    let heard = Program::new("/bin/sh").args(["-c", &format!("{serve} --print-ready 2> /dev/full")]);
    let (server, ready) =
        heard.envs(sandbox.environment()).start_ready("prodex-ready ", LIMIT).await.unwrap();
    let port = ready["listen"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let mut connection = Connection::open(port).await;
    connection.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(connection.response().await.status(), 401);
    let stopped = server.stop(LIMIT).await.unwrap();
    assert_eq!(stopped.exit.and_then(Exit::code), Some(0), "{stopped:?}");
    // Where it says to a person where it is.
    let spoken = Program::new("/bin/sh").args(["-c", &format!("{serve} 2> /dev/full")]);
    let server = spoken.envs(sandbox.environment()).start().unwrap();
    let home = sandbox.home().join("prodex");
    until("it serves", || running(&home).iter().any(|one| one.launch().is_ok())).await;
    let stopped = server.stop(LIMIT).await.unwrap();
    assert_eq!(stopped.exit.and_then(Exit::code), Some(0), "{stopped:?}");
}
