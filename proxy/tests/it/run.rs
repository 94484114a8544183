//! `prodex run`: a client behind a proxy of its own, and nothing left of either when it ends.

use std::path::PathBuf;
use std::time::Duration;

use harness::process::{Exit, Program, Running};
use harness::sandbox::Sandbox;
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{CallName, Reply, Rule, Script};
use mock_upstream::{Account, Config, Exchange, Mock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prodex::profile::store::Store;
use tokio::net::TcpStream;

use crate::connection::Connection;
use crate::importing::at_a_terminal;
use crate::rig::{LIMIT, add_profile, asked, code, prodex, program, sandbox, until};
use crate::socket::{Socket, create, create_behind, response_id};

/// A place with one profile, and this shell script as the client.
async fn with_client(script: &str) -> Sandbox {
    let sandbox = sandbox();
    add_profile(&sandbox, "one", &Account::new("one").auth_json().to_string()).await;
    let path = sandbox.programs().join("codex");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    sandbox
}

async fn mock() -> Mock {
    Mock::start(Config::script(Script::default().account(Account::new("one")))).await.unwrap()
}

/// The value of a `-c` setting among printed arguments.
fn setting(printed: &str, key: &str) -> String {
    let line = printed
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{key}=\"")))
        .unwrap_or_else(|| panic!("{key} in {printed}"));
    line.trim_end_matches('"').to_owned()
}

#[tokio::test]
async fn the_client_is_pointed_at_the_proxy_and_its_code_is_passed_on() {
    let sandbox = with_client("printf '%s\\n' \"$@\"; env; exit 7").await;
    let finished =
        prodex(&sandbox, &["run", "--upstream", "http://127.0.0.1:9", "--", "exec", "say hi", "-c", "a=b"])
            .await;
    assert_eq!(code(&finished), Some(7), "{}", finished.stderr);
    assert_eq!((finished.stderr.as_str(), finished.stragglers.len()), ("", 0));
    let arguments: Vec<&str> = finished.stdout.lines().take(8).collect();
    assert_eq!(arguments[..4], ["exec", "say hi", "-c", "a=b"]);
    let chatgpt = setting(&finished.stdout, "chatgpt_base_url");
    let openai = setting(&finished.stdout, "openai_base_url");
    let (origin, rest) = chatgpt.split_once("/k/").unwrap();
    let port = origin.strip_prefix("http://127.0.0.1:").unwrap();
    assert!(rest.ends_with("/backend-api"), "{chatgpt}");
    assert_eq!(openai, format!("http://localhost:{port}/k/{rest}/codex"));
    for name in ["NO_PROXY", "no_proxy"] {
        assert!(
            finished.stdout.contains(&format!("\n{name}=127.0.0.1,localhost,::1\n")),
            "{}",
            finished.stdout
        );
    }
    assert!(!finished.stdout.contains("CODEX_CA_CERTIFICATE"));
}

#[tokio::test]
async fn with_tls_the_client_is_given_the_authority() {
    let sandbox = with_client("printf '%s\\n' \"$@\"; env").await;
    let finished = prodex(&sandbox, &["run", "--tls", "--upstream", "http://127.0.0.1:9"]).await;
    assert_eq!(code(&finished), Some(0), "{}", finished.stderr);
    for key in ["chatgpt_base_url", "openai_base_url"] {
        let url = setting(&finished.stdout, key);
        assert!(url.starts_with("https://localhost:"), "{url}");
    }
    let line = finished.stdout.lines().find_map(|line| line.strip_prefix("CODEX_CA_CERTIFICATE=")).unwrap();
    assert!(std::fs::read_to_string(line).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
}

#[tokio::test]
async fn a_client_with_an_api_key_has_one_url() {
    let sandbox = with_client("printf '%s\\n' \"$@\"").await;
    let login = "{\"auth_mode\":\"apikey\",\"OPENAI_API_KEY\":\"sk-own\"}";
    std::fs::create_dir(sandbox.home().join(".codex")).unwrap();
    std::fs::write(sandbox.home().join(".codex/auth.json"), login).unwrap();
    let refused = prodex(&sandbox, &["run"]).await;
    assert_eq!(code(&refused), Some(4));
    assert!(
        refused.stderr.contains("openai-key") && refused.stderr.lines().count() == 1,
        "{}",
        refused.stderr
    );
    add_profile(&sandbox, "key", login).await;
    let finished = prodex(&sandbox, &["run", "--upstream", "http://127.0.0.1:9"]).await;
    assert_eq!(code(&finished), Some(0), "{}", finished.stderr);
    assert!(setting(&finished.stdout, "openai_base_url").ends_with("/v1"));
    assert!(!finished.stdout.contains("chatgpt_base_url") && !finished.stdout.contains("sk-own"));
}

#[tokio::test]
async fn a_client_without_a_login_is_served_by_what_there_is() {
    let sandbox = sandbox();
    let path = sandbox.programs().join("codex");
    std::fs::write(&path, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    add_profile(&sandbox, "key", "{\"OPENAI_API_KEY\":\"sk-own\"}").await;
    let run = ["run", "--upstream", "http://127.0.0.1:9"];
    let finished = prodex(&sandbox, &run).await;
    assert_eq!(code(&finished), Some(0), "{}", finished.stderr);
    assert!(setting(&finished.stdout, "openai_base_url").ends_with("/v1"), "{}", finished.stdout);
    let is_told = |text: &str| !text.contains("no_profile_for_login");
    assert!(is_told(&prodex(&sandbox, &["doctor", "--json"]).await.stdout));
    add_profile(&sandbox, "one", &Account::new("one").auth_json().to_string()).await;
    let finished = prodex(&sandbox, &run).await;
    assert!(setting(&finished.stdout, "openai_base_url").ends_with("/codex"), "{}", finished.stdout);
    // Only those that may serve count, also here.
    let finished = prodex(&sandbox, &[&run[..], &["--only", "key"]].concat()).await;
    assert!(setting(&finished.stdout, "openai_base_url").ends_with("/v1"), "{}", finished.stdout);
    // At a terminal it asks for a login first, which should be of the kind that can be served.
    for (command, told) in [
        ("run --upstream http://127.0.0.1:9", Some("sign in with ChatGPT, once")),
        ("run --upstream http://127.0.0.1:9 --only key", Some("sign in another way, with an API key, once")),
        ("run --upstream http://127.0.0.1:9 -- exec hi", None),
    ] {
        let Some((said, exit)) = at_a_terminal(&sandbox, "", command).await else { break };
        assert!(exit == Some(0) && said.contains("sign in") == told.is_some(), "{said}");
        assert!(told.is_none_or(|told| said.contains(told)), "{said}");
    }
    // A login in the keyring nobody reads; it is most likely that of a ChatGPT account.
    std::fs::create_dir(sandbox.home().join(".codex")).unwrap();
    std::fs::write(sandbox.home().join(".codex/config.toml"), "cli_auth_credentials_store = 'keyring'\n")
        .unwrap();
    let refused = prodex(&sandbox, &[&run[..], &["--only", "key"]].concat()).await;
    assert!(code(&refused) == Some(4) && refused.stderr.contains("chatgpt"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_client_that_is_not_installed_is_named() {
    let sandbox = sandbox();
    add_profile(&sandbox, "one", &Account::new("one").auth_json().to_string()).await;
    for (arguments, part) in [
        (&["run", "--codex", "no-such-codex", "--", "x"][..], "no-such-codex is not installed"),
        (&["run", "--codex", "/no/such/codex"], "/no/such/codex is not installed"),
    ] {
        let finished = prodex(&sandbox, arguments).await;
        assert_eq!((code(&finished), finished.stdout.as_str()), (Some(3), ""), "{}", finished.stderr);
        assert!(
            finished.stderr.contains(part) && finished.stderr.contains("npm install"),
            "{}",
            finished.stderr
        );
        assert_eq!((finished.stderr.lines().count(), finished.stragglers.len()), (1, 0));
    }
    assert_eq!(std::fs::read_dir(sandbox.logs()).unwrap().count(), 0, "no proxy was started");
}

#[tokio::test]
async fn a_client_that_cannot_be_started_leaves_no_proxy() {
    let sandbox = with_client("").await;
    std::fs::write(sandbox.programs().join("codex"), [0x7F, b'E', b'L', b'F', 0]).unwrap();
    let finished = prodex(&sandbox, &["run", "--upstream", "http://127.0.0.1:9"]).await;
    assert_eq!((code(&finished), finished.stragglers.len()), (Some(3), 0), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("cannot start") && finished.stderr.lines().count() == 1,
        "{}",
        finished.stderr
    );
}

#[tokio::test]
async fn a_proxy_that_does_not_start_is_said() {
    let sandbox = with_client("echo never").await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let finished = prodex(&sandbox, &["run", "--listen", &listen]).await;
    assert_eq!((code(&finished), finished.stdout.as_str()), (Some(3), ""), "{}", finished.stderr);
    assert!(finished.stderr.contains(&format!("cannot listen on {listen}")), "{}", finished.stderr);
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_started_and_starts_nothing() {
    let sandbox = with_client("echo never").await;
    let finished = prodex(&sandbox, &["run", "--dry-run", "--", "exec", "it's"]).await;
    assert_eq!((code(&finished), finished.stderr.as_str()), (Some(0), ""));
    let codex = sandbox.programs().join("codex").display().to_string();
    let shown = finished.stdout.replace(&codex, "codex");
    insta::assert_snapshot!(shown, @r#"
    NO_PROXY=127.0.0.1,localhost,::1
    no_proxy=127.0.0.1,localhost,::1
    codex -c 'chatgpt_base_url="http://127.0.0.1:<port>/k/***/backend-api"' -c 'openai_base_url="http://localhost:<port>/k/***/backend-api/codex"' exec 'it'\''s'
    "#);
    assert_eq!(std::fs::read_dir(sandbox.logs()).unwrap().count(), 0, "no proxy was started");
}

/// Processes of this place's own proxies.
fn servers(sandbox: &Sandbox) -> Vec<i32> {
    let home = sandbox.home().join("prodex").display().to_string();
    let is_ours = |path: &PathBuf| {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("\0serve\0") && line.contains(&home)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    entries.filter(is_ours).filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect()
}

/// A client that stays, and its launcher. The client says its process id.
async fn staying(mock: &Mock, trap: &str) -> (Sandbox, Running, i32) {
    let sandbox =
        with_client(&format!("{trap}\nprintf '%s\\n' \"$@\"; echo \"pid $$\"; while :; do sleep 0.05; done"))
            .await;
    let launcher = Program::new(program()).args(["run", "--upstream", mock.base_url()]);
    let launcher = launcher.envs(sandbox.environment()).start().unwrap();
    until("the client runs", || launcher.stdout().contains("pid ")).await;
    let pid = launcher.stdout().lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok()).unwrap();
    assert_eq!(servers(&sandbox).len(), 1);
    (sandbox, launcher, pid)
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_run_can_be_recorded() {
    let mock = mock().await;
    let sandbox = with_client("printf '%s\\n' \"$@\"; while :; do sleep 0.05; done").await;
    let launcher =
        Program::new(program()).args(["run", "--upstream", mock.base_url(), "--record", "recordings"]);
    let launcher = launcher.directory(sandbox.work()).envs(sandbox.environment()).start().unwrap();
    until("the client runs", || launcher.stdout().contains("openai_base_url")).await;
    let (mut client, prefix) = connect(&launcher).await;
    client.send(format!("GET {prefix}/models HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    let answer = client.response().await;
    launcher.signal(Signal::SIGTERM);
    let mut launcher = launcher;
    launcher.wait(LIMIT).await.unwrap();
    let options = harness::capture::Options::default();
    let records = harness::capture::load(&sandbox.work().join("recordings"), options).unwrap().records;
    let exchanges = wire::capture::exchanges(&records).unwrap();
    assert_eq!(exchanges[0].request.url, "/backend-api/codex/models");
    assert_eq!(exchanges[0].answer.as_ref().unwrap().body, answer.body);
}

/// A connection to the proxy by a URL that its client was given, and the path in front.
async fn connect(launcher: &Running) -> (Connection, String) {
    let url = setting(&launcher.stdout(), "openai_base_url");
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let port = authority.rsplit(':').next().unwrap().parse().unwrap();
    (Connection::open(port).await, format!("/{path}"))
}

#[tokio::test]
async fn signals_end_the_client_and_then_the_proxy() {
    let mock = mock().await;
    for (signal, to_group, expected) in [
        (Signal::SIGTERM, false, 143),
        (Signal::SIGHUP, false, 129),
        (Signal::SIGINT, false, 130),
        (Signal::SIGINT, true, 130),
    ] {
        let (sandbox, mut launcher, client) = staying(&mock, "").await;
        let (mut connection, path) = connect(&launcher).await;
        let body = "{}";
        connection
            .send(format!(
                "POST {path}/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{body}"
            ))
            .await;
        assert_eq!(connection.response().await.status(), 200, "its URL works");
        let capability = path.split('/').nth(2).unwrap();
        for file in ["cmdline", "environ"] {
            let seen = std::fs::read(format!("/proc/{}/{file}", servers(&sandbox)[0])).unwrap();
            assert!(!String::from_utf8_lossy(&seen).contains(capability), "the capability is in no {file}");
        }
        if to_group {
            launcher.signal(signal);
        } else {
            kill(Pid::from_raw(launcher.pid().cast_signed()), signal).unwrap();
        }
        assert_eq!(launcher.wait(LIMIT).await.unwrap(), Some(Exit::Code(expected)), "{signal}");
        assert!(!is_alive(client) && servers(&sandbox).is_empty(), "{signal}: nothing is left");
        assert_eq!(connection.read_to_end().await.0, b"");
        let stopped = launcher.stop(LIMIT).await.unwrap();
        assert!(stopped.stragglers.is_empty(), "{stopped:?}");
    }
}

#[tokio::test]
async fn a_client_that_ignores_the_signal_is_killed() {
    let (sandbox, mut launcher, client) = staying(&mock().await, "trap '' TERM").await;
    kill(Pid::from_raw(launcher.pid().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(launcher.wait(LIMIT).await.unwrap(), Some(Exit::Code(137)));
    assert!(!is_alive(client) && servers(&sandbox).is_empty());
}

#[tokio::test]
async fn a_client_may_take_an_interrupt_and_go_on() {
    let (sandbox, mut launcher, client) = staying(&mock().await, "trap 'echo again' INT").await;
    kill(Pid::from_raw(launcher.pid().cast_signed()), Signal::SIGINT).unwrap();
    until("the client has got it", || launcher.stdout().contains("again")).await;
    assert!(is_alive(client) && servers(&sandbox).len() == 1);
    kill(Pid::from_raw(client), Signal::SIGKILL).unwrap();
    assert_eq!(launcher.wait(LIMIT).await.unwrap(), Some(Exit::Code(137)));
    assert!(servers(&sandbox).is_empty());
}

#[tokio::test]
async fn a_launcher_that_is_killed_takes_the_proxy_with_it() {
    let (sandbox, mut launcher, _client) = staying(&mock().await, "").await;
    let (mut connection, _) = connect(&launcher).await;
    kill(Pid::from_raw(launcher.pid().cast_signed()), Signal::SIGKILL).unwrap();
    assert_eq!(launcher.wait(LIMIT).await.unwrap(), Some(Exit::Signal(9)));
    assert_eq!(connection.read_to_end().await.0, b"", "the proxy ends");
    until("the proxy has gone", || servers(&sandbox).is_empty()).await;
}

#[tokio::test]
async fn a_launcher_that_is_interrupted_at_any_moment_leaves_nothing() {
    let sandbox = sandbox();
    add_profile(&sandbox, "one", &Account::new("one").auth_json().to_string()).await;
    let path = sandbox.programs().join("codex");
    std::fs::write(&path, "#!/bin/sh\nwhile :; do sleep 0.05; done\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        for wait in [0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 50] {
            let launcher = Program::new(program()).args(["run", "--tls", "--upstream", "http://127.0.0.1:9"]);
            let mut launcher = launcher.envs(sandbox.environment()).start().unwrap();
            let early = launcher.wait(Duration::from_millis(wait)).await.unwrap();
            assert_eq!(early, None);
            kill(Pid::from_raw(launcher.pid().cast_signed()), signal).unwrap();
            assert!(launcher.wait(LIMIT).await.unwrap().is_some(), "{signal} behind {wait} ms");
            let stopped = launcher.stop(LIMIT).await.unwrap();
            let left: Vec<_> =
                stopped.stragglers.iter().filter(|left| !left.command.contains("codex")).collect();
            assert!(left.is_empty(), "{signal} behind {wait} ms: {left:?}");
            assert!(
                signal == Signal::SIGKILL || stopped.stragglers.is_empty(),
                "{signal} behind {wait} ms: {stopped:?}"
            );
        }
    }
    let list = prodex(&sandbox, &["profile", "list"]).await;
    assert_eq!((code(&list), list.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_proxy_that_ends_is_started_again_on_its_port() {
    let mock = mock().await;
    let (sandbox, mut launcher, client) = staying(&mock, "").await;
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
        let (mut connection, _) = connect(&launcher).await;
        let [before] = servers(&sandbox).try_into().unwrap();
        kill(Pid::from_raw(before), signal).unwrap();
        connection.read_to_end().await;
        until("another has taken its place", || matches!(&servers(&sandbox)[..], [now] if *now != before))
            .await;
        // Whoever connects in between is refused, and Codex tries again until it is not.
        let url = setting(&launcher.stdout(), "openai_base_url");
        let port = url.split(':').nth(2).unwrap().split('/').next().unwrap().parse::<u16>().unwrap();
        let again = async { while TcpStream::connect(("127.0.0.1", port)).await.is_err() {} };
        tokio::time::timeout(LIMIT, again).await.expect("somebody listens on the port");
        let (mut connection, path) = connect(&launcher).await;
        let fields = "host: localhost\r\ncontent-length: 2\r\n";
        connection.send(format!("POST {path}/responses HTTP/1.1\r\n{fields}\r\n{{}}")).await;
        assert_eq!(connection.response().await.status(), 200, "the same capability is good");
    }
    kill(Pid::from_raw(client), Signal::SIGTERM).unwrap();
    assert_eq!(launcher.wait(LIMIT).await.unwrap(), Some(Exit::Code(143)));
    let stopped = launcher.stop(LIMIT).await.unwrap();
    assert!(stopped.stragglers.is_empty() && stopped.stderr.contains("started again"), "{stopped:?}");
}

#[tokio::test]
async fn a_renewal_that_is_under_way_when_the_client_ends_is_saved() {
    // Longer than a proxy with nothing to save is given.
    let pacing = Pacing { head_ms: 6000, ..Pacing::default() };
    let slow = Rule::new(Reply::Default).call(CallName::Token).pacing(pacing);
    let script = Script::rules([slow]).account(Account::new("one").expired());
    let mock = Mock::start(Config::script(script)).await.unwrap();
    let (sandbox, mut launcher, client) = staying(&mock, "").await;
    let auth = || std::fs::read(sandbox.home().join("prodex/profiles/one/auth.json")).unwrap();
    let before = auth();
    let (mut connection, path) = connect(&launcher).await;
    let fields = "host: localhost\r\ncontent-length: 2\r\n";
    connection.send(format!("POST {path}/responses HTTP/1.1\r\n{fields}\r\n{{}}")).await;
    let asked = |all: &[Exchange]| all.iter().any(|exchange| exchange.call == CallName::Token);
    mock.journal().wait_for("the exchange", LIMIT, asked).await.unwrap();
    drop(connection);
    kill(Pid::from_raw(client), Signal::SIGTERM).unwrap();
    assert_eq!(launcher.wait(LIMIT).await.unwrap(), Some(Exit::Code(143)));
    assert!(auth() != before, "the new token is on disk");
    assert!(servers(&sandbox).is_empty());
}

/// Opens a WebSocket to the proxy behind a client, as often as Codex would until somebody answers.
async fn reopened(launcher: &Running) -> Socket {
    let url = format!("{}/responses", setting(&launcher.stdout(), "openai_base_url"));
    let opening = async {
        loop {
            if let Ok(socket) = Socket::open_at(&url, &[("session-id", "s")]).await {
                return socket;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, opening).await.expect("somebody listens")
}

#[tokio::test]
async fn a_session_goes_on_when_its_proxy_is_killed_during_an_idle_websocket() {
    let script = Script::default().account(Account::new("one")).account(Account::new("two"));
    let mock = Mock::start(Config::script(script)).await.unwrap();
    let (sandbox, mut launcher, client) = staying(&mock, "").await;
    let mut socket = reopened(&launcher).await;
    let mut last = response_id(&socket.turn(&create("a")).await);
    // Somebody else is preferred since; the session stays with its owner all the same.
    add_profile(&sandbox, "two", &Account::new("two").auth_json().to_string()).await;
    let store = Store::new(&sandbox.home().join("prodex"));
    store.set_preferred(Some("two")).unwrap();
    for text in ["b", "c"] {
        let [before] = servers(&sandbox).try_into().unwrap();
        kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
        assert!(matches!(socket.rest().await, (messages, _) if messages.is_empty()));
        socket = reopened(&launcher).await;
        last = response_id(&socket.turn(&create_behind(text, &last)).await);
    }
    assert_eq!(asked(&mock), ["one", "one", "one"]);
    assert_eq!(launcher.stderr(), "", "the terminal is the client's");
    kill(Pid::from_raw(client), Signal::SIGTERM).unwrap();
    assert_eq!(launcher.wait(LIMIT).await.unwrap(), Some(Exit::Code(143)));
    assert!(servers(&sandbox).is_empty());
}

/// A proxy that runs as a server in this place.
async fn serving(sandbox: &Sandbox, mock: &Mock, arguments: &[&str]) -> (Running, serde_json::Value) {
    let serve = Program::new(program())
        .args(["serve", "--print-ready", "--home"])
        .args([sandbox.home().join("prodex")]);
    let serve = serve.args(["--upstream", mock.base_url()]).args(arguments.iter().copied());
    serve.envs(sandbox.environment()).start_ready("prodex-ready ", LIMIT).await.unwrap()
}

/// A turn over HTTP through the proxy behind a client, asked again until somebody listens.
async fn turned(launcher: &Running) -> u16 {
    let url = setting(&launcher.stdout(), "openai_base_url");
    let port = url.split(':').nth(2).unwrap().split('/').next().unwrap().parse::<u16>().unwrap();
    let again = async { while TcpStream::connect(("127.0.0.1", port)).await.is_err() {} };
    tokio::time::timeout(LIMIT, again).await.expect("somebody listens");
    let (mut connection, path) = connect(launcher).await;
    let fields = "host: localhost\r\ncontent-length: 2\r\n";
    connection.send(format!("POST {path}/responses HTTP/1.1\r\n{fields}\r\n{{}}")).await;
    connection.response().await.status()
}

#[tokio::test]
async fn a_proxy_of_the_home_that_runs_is_used_and_replaced_when_it_dies() {
    let mock = mock().await;
    let sandbox = with_client("printf '%s\\n' \"$@\"; echo \"pid $$\"; while :; do sleep 0.05; done").await;
    let (server, ready) = serving(&sandbox, &mock, &[]).await;
    let launcher = Program::new(program()).args(["run", "--upstream", mock.base_url()]);
    let mut launcher = launcher.envs(sandbox.environment()).start().unwrap();
    until("the client runs", || launcher.stdout().contains("pid ")).await;
    let client = launcher.stdout().lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok()).unwrap();
    assert_eq!(setting(&launcher.stdout(), "openai_base_url"), ready["codex"]["openai_base_url"]);
    assert_eq!((servers(&sandbox).len(), turned(&launcher).await), (1, 200), "it is the only one");
    // One that takes its place is found, however often.
    let (mut server, mut next) = (server, serving(&sandbox, &mock, &["--replace"]).await.0);
    assert_eq!(server.wait(LIMIT).await.unwrap(), Some(Exit::Code(0)));
    assert_eq!((servers(&sandbox).len(), turned(&launcher).await), (1, 200));
    server.stop(LIMIT).await.unwrap();
    // One that dies is replaced by one of the launcher's own, at the same address with the same capability.
    let mut socket = reopened(&launcher).await;
    socket.turn(&create("a")).await;
    let [before] = servers(&sandbox).try_into().unwrap();
    kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
    next.wait(LIMIT).await.unwrap();
    assert_eq!(turned(&launcher).await, 200);
    reopened(&launcher).await.turn(&create("b")).await;
    assert!(matches!(&servers(&sandbox)[..], [now] if *now != before));
    kill(Pid::from_raw(client), Signal::SIGTERM).unwrap();
    assert_eq!(launcher.wait(LIMIT).await.unwrap(), Some(Exit::Code(143)));
    let stopped = launcher.stop(LIMIT).await.unwrap();
    assert!(stopped.stragglers.is_empty(), "{stopped:?}");
    assert!(servers(&sandbox).is_empty(), "its own ends with it");
}

#[tokio::test]
async fn a_proxy_that_does_something_else_is_not_used() {
    let mock = mock().await;
    let sandbox = with_client("printf '%s\\n' \"$@\"").await;
    let (_server, ready) = serving(&sandbox, &mock, &[]).await;
    let record = sandbox.root().join("recorded").display().to_string();
    let used = ["run", "--upstream", mock.base_url()];
    for (more, is_used) in [
        (&[][..], true),
        (&["--own"], false),
        (&["--tls"], false),
        (&["--record", &record], false),
        (&["--upstream", "http://127.0.0.1:9"], false),
    ] {
        let arguments = if more.first() == Some(&"--upstream") {
            [&["run"], more].concat()
        } else {
            [&used, more].concat()
        };
        let finished = prodex(&sandbox, &arguments).await;
        assert_eq!(code(&finished), Some(0), "{more:?}: {}", finished.stderr);
        let url = setting(&finished.stdout, "openai_base_url");
        assert_eq!(ready["codex"]["openai_base_url"] == url, is_used, "{more:?}");
    }
    assert_eq!(servers(&sandbox).len(), 1, "what is not its own goes on");
}
