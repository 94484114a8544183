//! How a client is started behind the proxy: its program, arguments and environment.
//!
//! Codex keeps its built-in provider: with it the client has its history, remote compaction, model list,
//! plugins and `/status`. It is pointed at the proxy by its two base URLs and nothing else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wire::route::Api;

use crate::profile::Credentials;
use crate::profile::import::keeps_logins_elsewhere;
use crate::secret::Secret;

/// What a proxy says when it is ready. Its URLs hold the capability.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ready {
    /// The address that it listens on.
    pub listen: SocketAddr,
    /// The root that API keys use, with `/v1` behind it.
    pub base_url: String,
    /// The URLs of Codex with a ChatGPT login.
    pub codex: CodexUrls,
    /// The certificate to trust, if the proxy listens with TLS.
    pub ca_cert: Option<PathBuf>,
}

/// The URLs of Codex with a ChatGPT login.
#[derive(Clone, Serialize, Deserialize)]
pub struct CodexUrls {
    /// Its `chatgpt_base_url`.
    pub chatgpt_base_url: String,
    /// Its `openai_base_url`.
    pub openai_base_url: String,
}

impl Ready {
    /// What a proxy at this address says. Over plain HTTP the two base URLs of Codex have different origins:
    /// with one, 0.160 and newer would follow the answer of `accounts/check` past the proxy (measured; see
    /// `workspace`).
    #[must_use]
    pub fn new(listen: SocketAddr, ca_cert: Option<&Path>, capability: Option<&Secret>) -> Self {
        let prefix = capability.map(|capability| format!("/k/{}", capability.expose())).unwrap_or_default();
        let scheme = if ca_cert.is_some() { "https" } else { "http" };
        let url = |host: &str, path: &str| format!("{scheme}://{host}:{}{prefix}{path}", listen.port());
        let host = if listen.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        let first = if ca_cert.is_some() { "localhost" } else { host };
        let (chatgpt_base_url, openai_base_url) =
            (url(first, "/backend-api"), url("localhost", "/backend-api/codex"));
        Self {
            listen,
            base_url: url(host, ""),
            codex: CodexUrls { chatgpt_base_url, openai_base_url },
            ca_cert: ca_cert.map(Path::to_owned),
        }
    }
}

impl Ready {
    /// The settings that point Codex here, as `-c` takes them. `api` is what its requests are for; `login` is how it
    /// is logged in, if it is.
    #[must_use]
    pub fn codex_settings(&self, api: Api, login: Option<Login>) -> Vec<String> {
        let mut settings = Vec::new();
        let mut set = |key: &str, url: &str| settings.push(format!("{key}=\"{url}\""));
        // One that may be logged in to ChatGPT while it runs must not take that login past the proxy.
        if login != Some(Login::ApiKey) {
            set("chatgpt_base_url", &self.codex.chatgpt_base_url);
        }
        match api {
            Api::Chatgpt => set("openai_base_url", &self.codex.openai_base_url),
            Api::OpenAi => set("openai_base_url", &format!("{}/v1", self.base_url)),
        }
        settings
    }

    /// The capability that its URLs hold, if they do.
    #[must_use]
    pub fn capability(&self) -> Option<Secret> {
        let (_, capability) = self.base_url.rsplit_once("/k/")?;
        Some(Secret::new(capability))
    }
}

/// How Codex is logged in, which decides which of its URLs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// With a ChatGPT account.
    Chatgpt,
    /// With an API key.
    ApiKey,
}

impl Login {
    /// How the Codex of this home is logged in, if it is. A login that cannot be read, or is in the keyring, is
    /// taken for that of a ChatGPT account: its token may go nowhere but to the proxy.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "read once, before the client is started")]
    pub fn of(codex_home: &Path) -> Option<Self> {
        let Ok(text) = std::fs::read_to_string(codex_home.join("auth.json")) else {
            return keeps_logins_elsewhere(codex_home).then_some(Self::Chatgpt);
        };
        Some(match Credentials::parse(&text) {
            Ok(Credentials::OpenAiKey(_)) => Self::ApiKey,
            _ => Self::Chatgpt,
        })
    }

    /// The API that its requests are for.
    #[must_use]
    pub fn api(self) -> Api {
        match self {
            Self::Chatgpt => Api::Chatgpt,
            Self::ApiKey => Api::OpenAi,
        }
    }
}

/// The start of a client. Its arguments hold the capability.
#[derive(Clone, PartialEq, Eq)]
pub struct Launch {
    /// The arguments, without the program.
    pub arguments: Vec<String>,
    /// Variables that are set in addition to those there are.
    pub environment: Vec<(&'static str, String)>,
}

impl Launch {
    /// The start of Codex with what the person asks of it, and the settings for this API and login.
    #[must_use]
    pub fn codex(
        ready: &Ready,
        api: Api,
        login: Option<Login>,
        asked: &[String],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let settings = ready.codex_settings(api, login).into_iter();
        let settings: Vec<String> = settings.flat_map(|setting| ["-c".to_owned(), setting]).collect();
        let (before, behind) = asked.split_at(place_for_settings(asked));
        let arguments = [before, &settings, behind].concat();
        let mut variables = Vec::new();
        // A proxy that the machine uses for the world must not be asked for the loopback.
        let known = ["NO_PROXY", "no_proxy"].into_iter().find_map(environment);
        let known = known.filter(|known| !known.is_empty()).map(|known| format!("{known},"));
        let except = known.unwrap_or_default() + "127.0.0.1,localhost,::1";
        variables.push(("NO_PROXY", except.clone()));
        variables.push(("no_proxy", except));
        if let Some(path) = &ready.ca_cert {
            variables.push(("CODEX_CA_CERTIFICATE", path.display().to_string()));
        }
        Self { arguments, environment: variables }
    }
}

/// Where settings must stand among the arguments of Codex: behind the last setting of the person's own, if
/// there is one. Up to 0.149 those of the main command are forgotten when a subcommand has some, too, and
/// then Codex would go around the proxy (measured).
fn place_for_settings(asked: &[String]) -> usize {
    let end = asked.iter().position(|argument| argument == "--").unwrap_or(asked.len());
    let last = asked[..end].iter().rposition(|argument| {
        argument == "--config" || argument.starts_with("--config=") || argument.starts_with("-c")
    });
    match last {
        // The value is the next argument.
        Some(at) if asked[at] == "-c" || asked[at] == "--config" => (at + 2).min(end),
        Some(at) => at + 1,
        None => 0,
    }
}

/// Finds a program: a path as it is, a name in the directories of `PATH`.
#[must_use]
pub fn find_program(program: &Path, path: Option<&str>) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    std::env::split_paths(path?)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests may touch the disk")]
mod tests {
    use super::*;

    fn ready(ca_cert: Option<&str>) -> Ready {
        Ready {
            listen: SocketAddr::from(([127, 0, 0, 1], 1)),
            base_url: "http://127.0.0.1:1/k/t".into(),
            codex: CodexUrls {
                chatgpt_base_url: "http://127.0.0.1:1/k/t/backend-api".into(),
                openai_base_url: "http://localhost:1/k/t/backend-api/codex".into(),
            },
            ca_cert: ca_cert.map(PathBuf::from),
        }
    }

    #[test]
    fn codex_is_pointed_at_the_proxy_and_keeps_its_provider() {
        let asked = ["exec".to_owned(), "hi".to_owned()];
        let environment = |name: &str| (name == "NO_PROXY").then(|| "corp".to_owned());
        let (chatgpt, key) = (Some(Login::Chatgpt), Some(Login::ApiKey));
        let chatgpt = Launch::codex(&ready(Some("/ca.pem")), Api::Chatgpt, chatgpt, &asked, &environment);
        let key = Launch::codex(&ready(None), Api::OpenAi, key, &asked, &environment);
        let of = |launch: Launch| (launch.arguments, launch.environment);
        insta::assert_debug_snapshot!((of(chatgpt), of(key)));
        // Without a login of its own it may get one while it runs.
        let none = Launch::codex(&ready(None), Api::OpenAi, None, &asked, &environment).arguments;
        assert_eq!(
            none[..4],
            [
                "-c",
                "chatgpt_base_url=\"http://127.0.0.1:1/k/t/backend-api\"",
                "-c",
                "openai_base_url=\"http://127.0.0.1:1/k/t/v1\""
            ]
        );
    }

    #[test]
    fn settings_stand_where_no_subcommand_forgets_them() {
        let place = |asked: &str| {
            let asked: Vec<String> = asked.split(' ').map(str::to_owned).collect();
            place_for_settings(&asked)
        };
        for (asked, expected) in [
            ("exec hi", 0),
            ("exec -c a=b hi", 3),
            ("-c a=b exec --config c=d hi", 6 - 1),
            ("exec -ca=b resume", 2),
            ("exec --config=a=b hi", 2),
            ("exec hi -- -c", 0),
            ("exec -c -- x", 2),
        ] {
            assert_eq!(place(asked), expected, "{asked}");
        }
    }

    #[test]
    fn programs_are_found_by_path_and_by_name() {
        let sh = find_program(Path::new("sh"), Some("/nowhere:/bin:/usr/bin")).unwrap();
        assert!(sh.ends_with("sh"));
        assert_eq!(find_program(&sh, None), Some(sh.clone()));
        assert_eq!(find_program(Path::new("sh"), Some("/nowhere")), None);
        assert_eq!(find_program(Path::new("/nowhere/sh"), Some("/bin")), None);
    }

    #[test]
    fn the_login_decides_the_urls() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(Login::of(home.path()), None);
        std::fs::write(home.path().join("config.toml"), "cli_auth_credentials_store = 'keyring'").unwrap();
        assert_eq!(Login::of(home.path()), Some(Login::Chatgpt));
        std::fs::write(home.path().join("auth.json"), r#"{"OPENAI_API_KEY":"k"}"#).unwrap();
        assert_eq!(Login::of(home.path()), Some(Login::ApiKey));
    }
}
