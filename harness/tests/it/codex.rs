//! Driving a client, with a program in its place that says what it was given.

use std::path::Path;
use std::time::Duration;

use harness::clients::codex::{Codex, Endpoint, Mode, Reach, Wrapper};
use harness::mock::Account;
use harness::process::Exit;

use crate::script;

const LIMIT: Duration = Duration::from_secs(10);

/// A client that says a turn, with its arguments as the message.
const CLIENT: &str = r#"
echo '{"type":"thread.started","thread_id":"t1"}'
for word in "$@"; do printf '%s\n' "$word" >> "$TMPDIR/words"; done
printf '{"type":"item.completed","item":{"type":"agent_message","text":"%s"}}\n' "$LABORATORY_KEY"
env >&2
"#;

async fn codex(directory: &Path, mode: Mode, reach: Reach) -> Codex {
    let program = script::write(directory, "client", CLIENT);
    let account = Account::new("acct-a").api_key("key-a");
    Codex::new(&program, mode, reach, &account).await.unwrap()
}

fn words(codex: &Codex) -> Vec<String> {
    let text = std::fs::read_to_string(codex.sandbox().temporary().join("words")).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn variable<'a>(environment: &'a str, name: &str) -> Option<&'a str> {
    environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[tokio::test]
async fn a_client_is_logged_in_and_pointed_at_its_endpoint() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::at("https://localhost:1", Some("/ca.pem".into()));
    let mut codex = codex(directory.path(), Mode::ChatgptTls, Reach::Endpoint(endpoint)).await;
    codex.set("model_auto_compact_token_limit=1");
    codex.set_model("gpt-5.5");
    let outcome = codex.exec("say hi", LIMIT).await.unwrap();
    assert_eq!((outcome.exit, outcome.said.thread.as_deref()), (Some(Exit::Code(0)), Some("t1")));
    let words = words(&codex);
    assert_eq!((&*words[0], words.last().map(String::as_str)), ("exec", Some("say hi")));
    for setting in [
        "chatgpt_base_url=\"https://localhost:1/backend-api\"",
        "openai_base_url=\"https://localhost:1/backend-api/codex\"",
        "analytics.enabled=false",
        "model_auto_compact_token_limit=1",
        "gpt-5.5",
    ] {
        assert!(words.iter().any(|word| word == setting), "{setting} is not in {words:?}");
    }
    assert_eq!(variable(&outcome.stderr, "CODEX_CA_CERTIFICATE"), Some("/ca.pem"));
    assert!(variable(&outcome.stderr, "HTTPS_PROXY").is_some_and(|url| url.starts_with("http://127.0.0.1:")));
    assert_eq!(variable(&outcome.stderr, "OPENAI_API_KEY"), None);
    let login = codex.login_file().unwrap();
    assert_eq!(login["tokens"]["account_id"], "acct-a");
    assert!(codex.tripwire_hits().is_empty());

    let outcome = codex.resume("t1", "go on", LIMIT).await.unwrap();
    assert_eq!(outcome.exit, Some(Exit::Code(0)));
    let again = self::words(&codex);
    assert_eq!(again[again.len() - 3..], ["resume", "t1", "go on"]);
}

#[tokio::test]
async fn keys_are_given_where_each_mode_looks_for_them() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = || Reach::Endpoint(Endpoint::at("http://127.0.0.1:1", None));
    let by_key = codex(directory.path(), Mode::ApiKey, endpoint()).await;
    assert_eq!(by_key.login_file().unwrap()["OPENAI_API_KEY"], "key-a");
    let custom = codex(directory.path(), Mode::Custom, endpoint()).await;
    assert!(custom.login_file().is_err());
    let outcome = custom.exec("x", LIMIT).await.unwrap();
    assert_eq!(outcome.said.final_text(), Some("key-a"));
    assert!(!words(&custom).iter().any(|word| word.contains("key-a")), "a key is not in the arguments");
}

#[tokio::test]
async fn a_wrapper_starts_the_client_and_points_it_itself() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[ \"$1 $2\" = 'run --' ] || exit 9; shift 2; exec codex -c wrapped=\"$WRAPPED\" \"$@\"";
    let wrapper = Wrapper {
        program: script::write(directory.path(), "wrapper", text),
        arguments: vec!["run".into(), "--".into()],
        variables: vec![("WRAPPED".into(), "yes".into())],
    };
    let codex = codex(directory.path(), Mode::ChatgptSplit, Reach::Wrapper(wrapper)).await;
    let outcome = codex.exec("hi", LIMIT).await.unwrap();
    assert_eq!(outcome.exit, Some(Exit::Code(0)), "{}", outcome.stderr);
    let words = words(&codex);
    assert!(words.iter().any(|word| word == "wrapped=yes"), "{words:?}");
    assert!(!words.iter().any(|word| word.contains("base_url")), "the wrapper says where the backend is");
}
