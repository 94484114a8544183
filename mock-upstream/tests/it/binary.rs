//! The program: its ready line, its end, and what it says about mistakes.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::client::{Client, LIMIT};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mock-upstream"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

async fn ready(child: &mut Child) -> serde_json::Value {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("a ready line in time");
    let line = line.unwrap().unwrap();
    serde_json::from_str(line.strip_prefix("mock-upstream-ready ").unwrap()).unwrap()
}

#[tokio::test]
async fn it_says_when_it_is_ready_and_ends_on_a_signal() {
    for signal in [nix::sys::signal::SIGTERM, nix::sys::signal::SIGINT] {
        let mut child = program(&["--print-ready"]).spawn().unwrap();
        let ready = ready(&mut child).await;
        let address = ready["base_url"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
        let mut client = Client::connect(address).await;
        assert_eq!(client.request("GET", "/v1/models", "", b"").await.status, 200);
        let journal = ready["journal_url"].as_str().unwrap();
        assert!(journal.ends_with("/__mock/journal"));
        let pid = i32::try_from(ready["pid"].as_u64().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
        let status = tokio::time::timeout(Duration::from_secs(5), child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

#[tokio::test]
async fn its_certificate_is_a_file_for_as_long_as_it_runs() {
    let mut child = program(&["--print-ready", "--tls"]).spawn().unwrap();
    let ready = ready(&mut child).await;
    let path = std::path::PathBuf::from(ready["ca_cert"].as_str().unwrap());
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(ready["pid"].as_u64().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
    child.wait().await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn mistakes_are_one_sentence_and_an_exit_code() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script.toml");
    std::fs::write(&script, "[[rule]]\nreplay = 1\n").unwrap();
    let script = script.to_str().unwrap();
    for (arguments, code, text) in [
        (vec!["--listen", &address], 1, "failed to listen on"),
        (vec!["--script", "/nowhere.toml"], 1, "failed to read the script /nowhere.toml: No such file"),
        (vec!["--script", script], 1, "line 2"),
        (vec!["--record", script], 1, "failed to record in"),
        (vec!["--sed", "1"], 2, "unexpected argument"),
    ] {
        let output = program(&arguments).output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(text), "{arguments:?}: {stderr}");
    }
}
