//! What the program says about itself: help, completions, the ready line.

use mock_upstream::script::Script;
use serde_json::Value;

use crate::rig::{Setting, code, prodex, sandbox};

/// What a command prints that succeeds and says nothing on standard error.
async fn printed(arguments: &[&str]) -> String {
    let finished = prodex(&sandbox(), arguments).await;
    assert_eq!((code(&finished), finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    finished.stdout
}

#[tokio::test]
async fn help_is_as_it_was_reviewed() {
    for command in [
        "",
        "serve",
        "run",
        "profile",
        "profile add",
        "profile list",
        "profile use",
        "profile import",
        "profile remove",
        "profile restore",
        "profile export",
        "profile show",
        "profile pause",
        "profile resume",
        "profile prefer",
        "profile scope",
        "login",
        "logout",
        "why",
        "quota",
        "status",
        "info",
        "completions",
    ] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let help = printed(&arguments).await;
        let name = format!("help {command}").trim_end().replace(' ', "_");
        insta::assert_snapshot!(name, help);
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
}

#[tokio::test]
async fn every_page_of_the_manual_is_written() {
    let sandbox = sandbox();
    let directory = sandbox.root().join("man/man1");
    let finished = prodex(&sandbox, &["man", &directory.display().to_string()]).await;
    assert_eq!((code(&finished), finished.stderr.as_str()), (Some(0), ""));
    for (page, part) in [("prodex", "serve"), ("prodex-run", "dry"), ("prodex-profile-import", "yes")] {
        let text = std::fs::read_to_string(directory.join(format!("{page}.1"))).unwrap();
        assert!(text.starts_with(".ie") && text.contains(".TH") && text.contains(part), "{page}: {text}");
    }
    let said = prodex(&sandbox, &["man", "/dev/null/x"]).await;
    assert_eq!(code(&said), Some(3), "{}", said.stderr);
}

#[tokio::test]
async fn the_version_is_that_of_the_package() {
    assert_eq!(printed(&["--version"]).await, format!("prodex {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]).await;
        for word in ["serve", "run", "profile", "import", "login", "scope", "quota", "completions", "no-auth"]
        {
            assert!(script.contains(word), "{word} in the script for {shell}");
        }
    }
}

#[tokio::test]
async fn the_ready_line_keeps_its_contract() {
    for arguments in [&[][..], &["--tls"], &["--no-auth"], &["--listen", "[::1]:0"]] {
        let setting = Setting::new(&["one"], Script::default());
        let proxy = arguments
            .iter()
            .fold(setting, |setting, argument| setting.argument(argument))
            .start_at("http://127.0.0.1:9")
            .await;
        let ready = &proxy.ready;
        for key in ["pid", "base_url", "codex", "anthropic_base_url", "gemini_base_url", "ca_cert", "log"] {
            assert!(ready.get(key).is_some(), "{key} in {ready}");
        }
        assert_eq!(ready["pid"], proxy.server.pid());
        assert_eq!((&ready["anthropic_base_url"], &ready["gemini_base_url"]), (&Value::Null, &Value::Null));
        let port = proxy.port();
        let prefix = proxy.prefix();
        let is = |part: &str| arguments.contains(&part);
        assert_eq!(prefix.is_empty(), is("--no-auth"));
        assert!(prefix.is_empty() || prefix.len() >= 32 + 3, "a capability cannot be guessed: {prefix}");
        let (scheme, first) = if is("--tls") { ("https", "localhost") } else { ("http", "127.0.0.1") };
        let first = if is("--listen") { "[::1]" } else { first };
        let base = if is("--tls") { "127.0.0.1" } else { first };
        assert_eq!(ready["base_url"], format!("{scheme}://{base}:{port}{prefix}"));
        let codex = &ready["codex"];
        assert_eq!(codex["chatgpt_base_url"], format!("{scheme}://{first}:{port}{prefix}/backend-api"));
        assert_eq!(
            codex["openai_base_url"],
            format!("{scheme}://localhost:{port}{prefix}/backend-api/codex")
        );
        assert_eq!(ready["ca_cert"].is_string(), is("--tls"));
        assert!(std::path::Path::new(ready["log"].as_str().unwrap()).is_file());
        assert_eq!(proxy.server.stdout(), "", "nothing else is printed");
        // Both names of the machine lead to it: nobody else can listen there.
        for address in ["127.0.0.1", "::1"] {
            tokio::net::TcpStream::connect((address, port)).await.unwrap();
        }
    }
}
