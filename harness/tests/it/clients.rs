//! Fetching clients, with a program in the place of npm.

use std::path::Path;

use harness::clients::{Cache, Client, ClientError, Kind};

use crate::script;

/// An npm that lays a package out as the registry's are, and counts how often it is run.
const NPM: &str = r#"
while [ "$1" != --prefix ]; do shift; done
echo run >> "$2/../../runs"
case "$3" in *9.9.9) echo "no such version" >&2; exit 1;; esac
case "$3" in *8.8.8) mkdir -p "$2/node_modules/@openai/codex"; exit 0;; esac
bin="$2/node_modules/@openai/codex-linux-x64/vendor/x86_64-linux/bin"
mkdir -p "$bin"; sleep 0.1; echo "$3" > "$bin/codex"
"#;

fn cache(directory: &Path) -> Cache {
    Cache::at(directory).with_npm(script::write(directory, "npm", NPM))
}

fn client(text: &str) -> Client {
    text.parse().unwrap()
}

#[tokio::test]
async fn two_installations_at_once_make_one_good_copy() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path());
    let wanted = client("codex@1.2.3");
    let (first, second) = tokio::join!(cache.install(&wanted), cache.install(&wanted));
    assert_eq!(first.unwrap(), second.unwrap());
    let program = cache.program(&wanted).unwrap();
    assert_eq!(std::fs::read_to_string(&program).unwrap(), "@openai/codex@1.2.3\n");
    assert_eq!(std::fs::read_to_string(directory.path().join("runs")).unwrap(), "run\n");
    cache.install(&client("codex@1.10.0")).await.unwrap();
    let versions: Vec<String> =
        cache.installed(Kind::Codex).into_iter().map(|client| client.version).collect();
    assert_eq!(versions, ["1.2.3", "1.10.0"]);
}

#[tokio::test]
async fn a_failed_installation_leaves_nothing_that_looks_like_one() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path());
    let error = cache.install(&client("codex@9.9.9")).await.unwrap_err().to_string();
    assert!(error.contains("exit code 1") && error.contains("no such version"), "{error}");
    let error = cache.install(&client("codex@8.8.8")).await.unwrap_err();
    assert!(matches!(error, ClientError::Layout { .. }), "{error}");
    assert!(cache.installed(Kind::Codex).is_empty());
    let names = std::fs::read_dir(directory.path().join("codex")).unwrap();
    let mut names: Vec<String> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [".8.8.8.lock", ".9.9.9.lock"]);
}
