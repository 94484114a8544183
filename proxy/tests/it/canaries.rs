//! No secret ends where it does not belong: logs, terminals, command lines, files of others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::process::Program;
use mock_upstream::script::{CallName, Http, Reply, Rule, Script, Turn};
use mock_upstream::{Account, Mock};
use serde_json::json;

use crate::connection::{TURN, head, request, turn, user};
use crate::rig::{LIMIT, Proxy, Setting, code, mode, prodex, program, sandbox, until};
use crate::socket::{Socket, create};

/// A value that is found again wherever it ends.
fn canary(name: &str) -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("canary{name}{:x}", time.as_nanos())
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| if path.is_dir() && !path.is_symlink() { files(&path) } else { vec![path] };
    entries.flat_map(below).collect()
}

/// The places that nothing secret may get to, each with its content.
fn sinks(proxy: &Proxy) -> Vec<(String, Vec<u8>)> {
    let profiles = proxy.home().join("profiles");
    let outside = files(proxy.sandbox.root()).into_iter();
    let outside =
        outside.filter(|path| !path.starts_with(&profiles) && path.extension() != Some("sock".as_ref()));
    let mut sinks: Vec<(String, Vec<u8>)> =
        outside.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect();
    let process = |file: &str| std::fs::read(format!("/proc/{}/{file}", proxy.server.pid())).unwrap();
    sinks.push(("command line".into(), process("cmdline")));
    sinks.push(("environment".into(), process("environ")));
    for path in ["/status", "/metrics"] {
        sinks.push((path.into(), crate::admin::only(proxy).get(path).unwrap()));
    }
    sinks.push(("stdout".into(), proxy.server.stdout().into_bytes()));
    sinks.push(("stderr".into(), proxy.server.stderr().into_bytes()));
    sinks
}

fn assert_clean(sinks: &[(String, Vec<u8>)], canaries: &[String]) {
    for (place, content) in sinks {
        for canary in canaries {
            let found = memchr::memmem::find(content, canary.as_bytes());
            assert!(found.is_none(), "{canary} in {place}: {}", String::from_utf8_lossy(content));
        }
    }
}

/// A pool whose every secret is a canary: `a` is used up, the login of `b` has expired and cannot be
/// renewed at first, `c` serves.
async fn planted() -> (Mock, Proxy, Vec<String>) {
    let account = |id: &str| Account {
        access_token: Some(canary("access")),
        refresh_token: Some(canary("refresh")),
        ..Account::new(id)
    };
    let (a, b, c) = (account("a").turns_left(0), account("b").expired(), account("c"));
    let key = canary("key");
    let mut secrets: Vec<String> =
        [&a, &b, &c].iter().flat_map(|x| [x.access_token(), x.refresh_token()]).collect();
    secrets.push(key.clone());
    let quoting = format!("the token {} and {} are bad", b.refresh_token(), b.access_token());
    let refusal = Http::json(400, json!({ "error": "invalid_grant", "error_description": quoting }));
    let failing = Http::json(500, json!({ "error": { "message": quoting, "code": "oops" } }));
    let script = Script::rules([
        Rule::new(refusal).call(CallName::Token).times(1),
        Rule::new(failing).user_text("fail"),
        Rule::new(Http::text(418, quoting)).call(CallName::Usage),
        Rule::new(Reply::Default),
    ]);
    let script = script.account(a).account(b).account(c);
    let (mock, proxy) = Setting::new(&["a", "b", "c"], script).key("key", &key).start().await;
    for file in files(proxy.sandbox.root()).iter().filter(|file| file.parent() == Some(proxy.sandbox.root()))
    {
        std::fs::remove_file(file).unwrap();
    }
    secrets.push(proxy.prefix().split_off("/k/".len()));
    (mock, proxy, secrets)
}

#[tokio::test]
async fn nothing_secret_is_told_while_requests_are_served_and_fail() {
    let (mock, proxy, mut secrets) = planted().await;
    let (own, prompt, cookie) = (canary("own"), canary("prompt"), canary("cookie"));
    let fields = format!("authorization: Bearer {own}\r\nchatgpt-account-id: own\r\ncookie: {cookie}\r\n");
    for text in ["hi", "fail", "hi"] {
        let status = turn(&proxy, &fields, &user(&format!("{text} {prompt}"))).await.status();
        assert!(matches!(status, 200 | 500), "{status}");
    }
    let mut socket = Socket::open(&proxy, &[("authorization", &own)]).await.unwrap();
    for text in ["hi", "fail"] {
        socket.turn(&create(&format!("{text} {prompt}"))).await;
    }
    drop(socket);
    request(&proxy, "GET", "/backend-api/wham/usage", &fields, b"").await;
    // Refusals of the proxy's own, with something secret in every part.
    let mut client = proxy.connect().await;
    client.send(head(&proxy, "GET", &format!("/nothing?token={own}"), &fields, 0)).await;
    client.read_to_end().await;
    for odd in [
        format!("GET /k/{own}/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET {}/v1/models HTTP/1.1\r\nHost: {own}\r\n\r\n", proxy.prefix()),
        format!("GET {}/v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: {own}\r\n\r\n", proxy.prefix()),
        format!("{own} / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {own}\r\n\r\n"),
        format!("POST {}{TURN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {own}\r\n\r\n", proxy.prefix()),
    ] {
        let mut client = proxy.connect().await;
        client.send(odd).await;
        let (answer, _) = client.read_to_end().await;
        assert!(!String::from_utf8_lossy(&answer).contains(&own));
    }
    secrets.extend([own, prompt, cookie]);
    let (sandbox, mut seen) = (Arc::clone(&proxy.sandbox), sinks(&proxy));
    let log = proxy.stop().await;
    assert!(log.lines.len() > 10, "the log tells what happened");
    assert!(mock.journal().exchanges().len() > 8);
    seen.push(("run log".into(), std::fs::read(&log.path).unwrap()));
    assert_clean(&seen, &secrets);
    drop(sandbox);
}

#[tokio::test]
async fn the_own_replies_of_the_proxy_tell_nothing_secret() {
    let expired = Account { access_token: Some(canary("access")), ..Account::new("a").expired() };
    let quoting = format!("{} and {}", expired.refresh_token(), expired.access_token());
    let refusal = Http::json(401, json!({ "error": { "code": "refresh_token_reused", "message": quoting } }));
    let secrets = [expired.access_token(), expired.refresh_token()];
    let script = Script::rules([Rule::new(refusal).call(CallName::Token)]).account(expired);
    let (_mock, proxy) = Setting::new(&["a"], script).start().await;
    for _ in 0..2 {
        let response = turn(&proxy, "", &user("x")).await;
        assert_eq!(response.status(), 503);
        assert_clean(&[("reply".into(), response.body)], &secrets);
    }
    let sandbox = Arc::clone(&proxy.sandbox);
    let log = proxy.stop().await;
    assert_clean(&[("run log".into(), std::fs::read(&log.path).unwrap())], &secrets);
    drop(sandbox);
}

#[tokio::test]
async fn commands_tell_nothing_of_what_they_read() {
    let sandbox = sandbox();
    let secret = canary("file");
    let good = json!({ "tokens": { "access_token": secret, "refresh_token": secret, "account_id": "acct" } });
    let path = sandbox.root().join("auth.json");
    let file = path.display().to_string();
    let mut told = String::new();
    for (name, text) in [
        ("broken", format!("{{\"tokens\": {{\"access_token\": \"{secret}\"")),
        ("odd", format!("{{\"tokens\": {{\"access_token\": \"{secret} \\u0001\", \"account_id\": \"a\"}}}}")),
        ("wrong", format!("{{\"tokens\": {{\"{secret}\": [1]}}}}")),
        ("text", format!("{secret} is no JSON")),
        ("good", good.to_string()),
        ("twice", good.to_string()),
    ] {
        std::fs::write(&path, text).unwrap();
        let added = prodex(&sandbox, &["profile", "add", name, "--from", &file]).await;
        assert_eq!(code(&added) == Some(0), matches!(name, "good" | "twice"), "{name}: {}", added.stderr);
        let imported = prodex(&sandbox, &["profile", "import", "--dry-run", &file]).await;
        told += &[added.stdout, added.stderr, imported.stdout, imported.stderr].concat();
    }
    // A file that breaks later is named, and not quoted.
    let stored = sandbox.home().join("prodex/profiles/good/auth.json");
    std::fs::write(&stored, format!("{{\"tokens\": {secret}")).unwrap();
    for arguments in [&["profile", "list"][..], &["profile", "list", "--json"], &["profile", "use", "good"]] {
        let finished = prodex(&sandbox, arguments).await;
        assert!(finished.stdout.contains("auth.json") || finished.stderr.contains("auth.json"));
        told += &[finished.stdout, finished.stderr].concat();
    }
    let stranded =
        Program::new(program()).args(["serve", "--upstream", "http://127.0.0.1:9", "--print-ready"]);
    let (running, _) =
        stranded.envs(sandbox.environment()).start_ready("prodex-ready ", LIMIT).await.unwrap();
    until("the broken file is named", || running.stderr().contains("good/auth.json")).await;
    told += &running.stop(LIMIT).await.unwrap().stderr;
    assert!(!told.contains(&secret), "{told}");
}

#[tokio::test]
async fn files_are_for_their_owner_alone_whatever_the_umask() {
    let (_mock, proxy) = Setting::new(&["a"], Script::rules([Rule::new(Turn::text("x"))])).start().await;
    let home = proxy.sandbox.root().join("open");
    let script = format!(
        "umask 000; {0} profile add b --from {1}/a.json && exec {0} serve --tls --print-ready --upstream http://127.0.0.1:9",
        program().display(),
        proxy.sandbox.root().display(),
    );
    let shell = Program::new("/bin/sh").args(["-c", &script]).envs(proxy.sandbox.environment());
    let shell = shell.envs([("PRODEX_HOME", home.as_os_str()), ("PRODEX_RUNTIME_LOG_DIR", "".as_ref())]);
    let (running, _) = shell.start_ready("prodex-ready ", LIMIT).await.unwrap();
    let all = files(&home);
    assert!(all.len() >= 6, "profile, credentials, authority, log and pointer: {all:?}");
    for file in &all {
        // The certificate is what clients are given.
        let expected = if file.ends_with("authority.pem") { mode(file) & 0o600 } else { 0o600 };
        assert_eq!(mode(file), expected, "{}", file.display());
        let directory = file.parent().unwrap();
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
    running.stop(LIMIT).await.unwrap();
}
