//! The settings: one field each, with default, environment name, range and meaning together.
//!
//! Values come from `prodex.toml` in the home, then the environment, then flags; each later one wins.
//! Malformed values are errors that name the place, and so are unknown keys of the file. Unknown variables are
//! told and not refused: an older tool of the same name has some of its own. Nothing else reads the environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::state::Durability;

mod file;

mod limits;

mod value;

pub use limits::LaneLimits;
use limits::Places;
pub use value::{ByteSize, Origin, parse_duration};
use value::{FromText, parse_within};

/// What a setting is called.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key in `prodex.toml`.
    pub name: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// Its default, as text; empty if there is none.
    pub default: &'static str,
    /// The values that are allowed.
    pub range: &'static str,
}

/// A setting that somebody set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Which.
    pub name: &'static str,
    /// Its value, as text.
    pub value: String,
    /// The file and line, the variable, or the flag that it comes from.
    pub place: String,
}

/// What is wrong with a setting, and where it was found.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read {path}; say with --home where the home is, or make the file readable")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no file.
    #[error("{path} is a directory; settings stand in a file of that name, so move it away")]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// The file is no TOML.
    #[error("{place}: {problem}; a line reads `name = value`, and texts stand in quotes")]
    Syntax {
        /// File, line and column.
        place: String,
        /// What is wrong there.
        problem: String,
    },
    /// A variable is no text.
    #[error("{name}: the variable is not UTF-8; set it anew, or unset it")]
    NotUtf8 {
        /// The variable.
        name: &'static str,
    },
    /// There is no such setting.
    #[error("{place}: unknown setting `{name}`{hint}; without it `prodex info` shows those there are")]
    Unknown {
        /// File and line, or the variable.
        place: String,
        /// The key as written.
        name: String,
        /// A setting with a similar name.
        hint: String,
    },
    /// The value is not one of those allowed.
    #[error("{place}: `{name}` cannot be {value:?}: {problem} (allowed: {range})")]
    Value {
        /// File and line, or the variable.
        place: String,
        /// The setting.
        name: &'static str,
        /// The value as written.
        value: String,
        /// What is wrong with it.
        problem: String,
        /// What is allowed.
        range: &'static str,
    },
    /// Each of two values is allowed, but not both together.
    #[error(
        "{place}: `{name}` cannot be {value} while `{other}` is {other_value}: {problem} (allowed: {range})"
    )]
    Conflict {
        /// File and line, the variable, or the flag of the value that was set.
        place: String,
        /// The setting.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The setting that it does not go with.
        other: &'static str,
        /// That one's value.
        other_value: usize,
        /// What is wrong.
        problem: &'static str,
        /// What is allowed for the first.
        range: String,
    },
    /// Neither `PRODEX_HOME` nor `HOME` is set.
    #[error("there is no home directory: set PRODEX_HOME, or HOME, or say with --home where it is")]
    NoHome,
}

macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:literal, $env:literal, $range:literal; )+) => {
        /// The settings of a run. `settings!` below holds them all.
        #[derive(Debug, Clone)]
        pub struct Config {
            /// Where profiles, state and settings live: `PRODEX_HOME`, or `.prodex` in the home directory.
            pub home: PathBuf,
            /// Those that are not at their default, in the order in which they were set; the last one counts.
            given: Vec<Given>,
            $( $(#[doc = $doc])+ pub $name: $type, )+
        }

        /// Every setting.
        pub const SETTINGS: &[Setting] =
            &[$( Setting { name: stringify!($name), env: $env, default: $default, range: $range } ),+];

        impl Config {
            /// The defaults, for a home.
            ///
            /// # Errors
            /// Never for the defaults as they stand; a test sees to that.
            fn defaults(home: PathBuf) -> Result<Self, ConfigError> {
                Ok(Self { home, given: Vec::new(), $( $name: check(stringify!($name), $default, $range, "default")? ),+ })
            }

            /// Sets one setting from text.
            fn set(&mut self, name: &str, value: &str, place: &str) -> Result<(), ConfigError> {
                match name {
                    $( stringify!($name) => {
                        self.$name = check(stringify!($name), value, $range, place)?;
                        let (value, place) = (value.to_owned(), place.to_owned());
                        self.given.push(Given { name: stringify!($name), value, place });
                    } )+
                    _ => {
                        let (name, place) = (name.to_owned(), place.to_owned());
                        let hint = similar(&name, SETTINGS.iter().map(|setting| setting.name));
                        return Err(ConfigError::Unknown { hint, place, name });
                    }
                }
                Ok(())
            }
        }
    };
}

settings! {
    /// The address to listen on; port 0 takes a free one. The other loopback address is taken with it.
    listen: SocketAddr = "127.0.0.1:0", "PRODEX_LISTEN", "127.0.0.1 or [::1], with a port";
    /// A second address, for scrapers: `/metrics`, `/status` and `/healthz` there, for whoever shows the token
    /// in the home's `admin-token`. The home's own socket needs no setting.
    admin_listen: Option<SocketAddr> = "", "PRODEX_ADMIN_LISTEN", "127.0.0.1 or [::1], with a port";
    /// Send everything to this origin instead of the vendors': for a laboratory or a mock. The token
    /// endpoint is then `/oauth/token` there, too, so that nothing leaves for anywhere else.
    upstream: Option<Origin> = "", "PRODEX_UPSTREAM", "an http or https URL without query";
    /// Where requests with a ChatGPT login go.
    chatgpt_url: Origin = "https://chatgpt.com", "PRODEX_CHATGPT_URL", "an http or https URL without query";
    /// Where requests with an API key go.
    openai_url: Origin = "https://api.openai.com", "PRODEX_OPENAI_URL", "an http or https URL without query";
    /// Where tokens of ChatGPT logins are renewed.
    refresh_url: Origin = "https://auth.openai.com/oauth/token", "PRODEX_REFRESH_URL",
        "an http or https URL without query";
    /// A PEM file with further certificate authorities to trust upstream.
    upstream_ca: Option<PathBuf> = "", "PRODEX_UPSTREAM_CA", "a path";
    /// Where the run log is written; by default `logs` in the home.
    log_dir: Option<PathBuf> = "", "PRODEX_RUNTIME_LOG_DIR", "a path";
    /// How long a file of the run log may get before the next is begun.
    log_file_size: ByteSize = "32MiB", "PRODEX_LOG_FILE_SIZE", "64KiB..=1GiB";
    /// How much room the run logs of all runs may take together; the oldest go first, and each goes after 30
    /// days. At least twice `log_file_size`; each further proxy that runs may take one file more.
    log_total_size: ByteSize = "512MiB", "PRODEX_LOG_TOTAL_SIZE", "128KiB..=1TiB";
    /// Where spans of requests go, by OTLP over HTTP: the base of a collector's URLs, such as
    /// `http://127.0.0.1:4318`. Only a prodex that is built with the feature `otlp` sends any.
    otlp_endpoint: Option<Origin> = "", "PRODEX_OTLP_ENDPOINT", "an http or https URL without query";
    /// The program that `prodex run` starts.
    codex: PathBuf = "codex", "PRODEX_CODEX", "a path, or a name to look up in PATH";
    /// Threads that serve connections; 0 means one per processor core, at most 8.
    workers: usize = "0", "PRODEX_WORKERS", "0..=64";
    /// Most requests and turns in flight at once. Further ones wait, and are refused with 503 when that
    /// takes too long.
    max_active: usize = "10240", "PRODEX_MAX_ACTIVE", "2..=100000";
    /// Most calls in flight beside the turns, such as model lists; these places are theirs alone, the rest
    /// of `max_active` is for turns and compactions. By default an eighth.
    max_standard: Option<usize> = "", "PRODEX_MAX_STANDARD", "1..=99999";
    /// Most turns in flight over HTTP; by default as many as there are places for model calls.
    max_responses: Option<usize> = "", "PRODEX_MAX_RESPONSES", "1..=100000";
    /// Most compactions in flight; by default as many as there are places for model calls.
    max_compact: Option<usize> = "", "PRODEX_MAX_COMPACT", "1..=100000";
    /// Most turns in flight on WebSockets; by default as many as there are places for model calls.
    max_websocket_turns: Option<usize> = "", "PRODEX_MAX_WEBSOCKET_TURNS", "1..=100000";
    /// Most open WebSockets, whether a turn runs on them or not; further clients are sent to HTTP.
    max_websockets: usize = "10240", "PRODEX_MAX_WEBSOCKETS", "1..=100000";
    /// Most requests that wait for a place: model calls, calls beside them, and those of each profile apart.
    max_waiting: usize = "1024", "PRODEX_MAX_WAITING", "0..=100000";
    /// How long a request waits for a place before it is refused.
    admission_wait: Duration = "20s", "PRODEX_ADMISSION_WAIT", "0s..=5m";
    /// With so many requests in flight a profile is chosen only if the others are not better; by default
    /// 32, or `profile_hard_limit` if that is less.
    profile_soft_limit: Option<usize> = "", "PRODEX_PROFILE_SOFT_LIMIT", "1..=100000";
    /// Most requests in flight of one profile. Conversations that it owns wait; others go elsewhere.
    profile_hard_limit: usize = "10240", "PRODEX_PROFILE_HARD_LIMIT", "1..=100000";
    /// Longest request body. It is kept until a response is committed, so that it can be sent again.
    max_request_body: ByteSize = "64MiB", "PRODEX_MAX_REQUEST_BODY", "1KiB..=1GiB";
    /// How long connecting to an upstream may take, TLS handshake included.
    connect_timeout: Duration = "10s", "PRODEX_CONNECT_TIMEOUT", "10ms..=5m";
    /// How long an upstream may take to begin its response to a model call.
    response_timeout: Duration = "15m", "PRODEX_RESPONSE_TIMEOUT", "10ms..=1h";
    /// The same for calls that a turn does not depend on, such as plugin lists. Unanswered they keep
    /// Codex waiting for up to 30 s.
    side_response_timeout: Duration = "8s", "PRODEX_SIDE_RESPONSE_TIMEOUT", "10ms..=5m";
    /// How long an upstream may be silent within a response. Codex itself gives up after 5 minutes.
    stream_idle_timeout: Duration = "15m", "PRODEX_STREAM_IDLE_TIMEOUT", "10ms..=1h";
    /// How long an upstream's machine may leave the connection unacknowledged before it counts as gone: one
    /// that loses its power or its network says nothing, and a stream may be silent for minutes. Unlike
    /// `stream_idle_timeout` this asks the other machine, not the model.
    upstream_dead_timeout: Duration = "60s", "PRODEX_UPSTREAM_DEAD_TIMEOUT", "4s..=1h";
    /// How long a client may take from the first byte of a request's head to its last, and between two
    /// pieces of its body.
    request_timeout: Duration = "30s", "PRODEX_REQUEST_TIMEOUT", "10ms..=10m";
    /// How long a client's connection stays open without a request.
    keep_alive: Duration = "2m", "PRODEX_KEEP_ALIVE", "100ms..=1h";
    /// How long an unused upstream connection is kept for the next request.
    upstream_keep_alive: Duration = "55s", "PRODEX_UPSTREAM_KEEP_ALIVE", "0s..=10m";
    /// How long a client may take to read what it was sent before its stream is given up.
    write_timeout: Duration = "2m", "PRODEX_WRITE_TIMEOUT", "10ms..=1h";
    /// How long the beginning of a Codex stream is held so that a refusal before the first output can
    /// still move to another profile. Measured: Codex 0.169 waits 90 s for response headers and more.
    hold_codex: Duration = "90s", "PRODEX_HOLD_CODEX", "0s..=5m";
    /// The same for a client that is not known.
    hold_unknown: Duration = "250ms", "PRODEX_HOLD_UNKNOWN", "0s..=5m";
    /// How much of the beginning of a stream is held at most.
    hold_bytes: ByteSize = "256KiB", "PRODEX_HOLD_BYTES", "1KiB..=16MiB";
    /// Most upstream attempts for one request.
    max_attempts: u32 = "12", "PRODEX_MAX_ATTEMPTS", "1..=100";
    /// No further attempt begins when the first one failed so long ago.
    attempt_window: Duration = "3s", "PRODEX_ATTEMPT_WINDOW", "0s..=5m";
    /// Most upstream attempts for a request that continues a conversation.
    max_continuation_attempts: u32 = "24", "PRODEX_MAX_CONTINUATION_ATTEMPTS", "1..=100";
    /// The same for a request that continues a conversation.
    continuation_window: Duration = "12s", "PRODEX_CONTINUATION_WINDOW", "0s..=5m";
    /// How long renewing a token, or asking where a profile's traffic goes, may take.
    control_timeout: Duration = "20s", "PRODEX_CONTROL_TIMEOUT", "10ms..=5m";
    /// Whether what the state has committed is on the disk, or with the operating system. With `normal` a
    /// killed process loses nothing, but a loss of power may take the last bindings; `full` waits for
    /// the disk at each commit.
    state_sync: Durability = "normal", "PRODEX_STATE_SYNC", "normal or full";
    /// How old the evidence on a profile's quota may become, while there is traffic, until the usage
    /// endpoint is asked in the background; 0s never asks. The pauses around it go with it: before a
    /// question a three-hundredth to a seventy-fifth, between two a fifth, after a failure a tenth, doubling
    /// up to three times as long.
    quota_refresh: Duration = "5m", "PRODEX_QUOTA_REFRESH", "0s..=1h";
    /// How long a drain waits for requests in flight.
    drain_timeout: Duration = "30s", "PRODEX_DRAIN_TIMEOUT", "0s..=1h";
}

/// Values that flags give; they win over file and environment.
pub type Overrides = Vec<(&'static str, String)>;

impl Config {
    /// Reads the settings from the home's `prodex.toml`, the given environment, and flags. `home` is
    /// what `--home` says.
    ///
    /// # Errors
    /// For the first unreadable, unknown or malformed setting, with its place.
    pub fn load(
        home: Option<&Path>,
        environment: &dyn Fn(&str) -> Option<String>,
        flags: &Overrides,
    ) -> Result<Self, ConfigError> {
        let home = match home {
            Some(home) => home.to_owned(),
            None => default_home(environment)?,
        };
        let path = home.join("prodex.toml");
        let mut config = Self::defaults(home)?;
        let mut places = Places::default();
        for (name, value, place) in file::read(&path)? {
            config.set(&name, &value, &place)?;
            places.insert(name, place);
        }
        for setting in SETTINGS {
            if let Some(value) = environment(setting.env).filter(|value| !value.is_empty()) {
                require_text(setting.env, &value)?;
                config.set(setting.name, &value, setting.env)?;
                places.insert(setting.name.to_owned(), setting.env.to_owned());
            }
        }
        for (name, value) in flags {
            let place = format!("--{}", name.replace('_', "-"));
            config.set(name, value, &place)?;
            places.insert((*name).to_owned(), place);
        }
        limits::check(&config, &places)?;
        Ok(config)
    }

    /// What somebody set a setting to, and where; none if it is at its default.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<&Given> {
        self.given.iter().rev().find(|given| given.name == name)
    }

    /// The settings that somebody set, as text.
    #[must_use]
    pub fn in_force(&self) -> BTreeMap<&'static str, &str> {
        self.given.iter().map(|given| (given.name, &*given.value)).collect()
    }

    /// Where the run log is written.
    #[must_use]
    pub fn log_directory(&self) -> PathBuf {
        self.log_dir.clone().unwrap_or_else(|| self.home.join("logs"))
    }

    /// How long the run log's files may be, and all together.
    #[must_use]
    pub fn log_limits(&self) -> crate::telemetry::Limits {
        let bytes = |size: ByteSize| size.bytes() as u64;
        crate::telemetry::Limits { file: bytes(self.log_file_size), total: bytes(self.log_total_size) }
    }

    /// Where the database of bindings and facts is.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.home.join("state")
    }

    /// How many threads serve connections.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8)),
            workers => workers,
        }
    }

    /// Where tokens of ChatGPT logins are renewed.
    #[must_use]
    pub fn token_endpoint(&self) -> Origin {
        match &self.upstream {
            Some(upstream) => upstream.join("/oauth/token"),
            None => self.refresh_url.clone(),
        }
    }
}

/// What to tell about the variables of this process that begin like those of settings and are none.
#[must_use]
pub fn unknown_variables() -> Vec<String> {
    unknown(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

fn unknown(names: impl Iterator<Item = String>) -> Vec<String> {
    let is_known = |name: &str| name == "PRODEX_HOME" || SETTINGS.iter().any(|setting| setting.env == name);
    let unknown = names.filter(|name| name.starts_with("PRODEX_") && !is_known(name));
    let mut told: Vec<String> = unknown
        .map(|name| {
            let hint = similar(&name, SETTINGS.iter().map(|setting| setting.env));
            format!("{name} is no setting and is not used{hint}")
        })
        .collect();
    told.sort();
    told
}

/// The process environment, for [`Config::load`]. What is no UTF-8 there has a replacement character.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Refuses the value of a variable that was no UTF-8.
fn require_text(name: &'static str, value: &str) -> Result<(), ConfigError> {
    if value.contains(char::REPLACEMENT_CHARACTER) { Err(ConfigError::NotUtf8 { name }) } else { Ok(()) }
}

fn default_home(environment: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, ConfigError> {
    let set = |name: &'static str| {
        let value = environment(name).filter(|value| !value.is_empty());
        value.map(|value| require_text(name, &value).map(|()| PathBuf::from(value))).transpose()
    };
    match set("PRODEX_HOME")? {
        Some(home) => Ok(home),
        None => set("HOME")?.map(|home| home.join(".prodex")).ok_or(ConfigError::NoHome),
    }
}

fn check<T: FromText>(
    name: &'static str,
    value: &str,
    range: &'static str,
    place: &str,
) -> Result<T, ConfigError> {
    parse_within(value, range).map_err(|problem| ConfigError::Value {
        place: place.to_owned(),
        name,
        value: excerpt(value),
        problem,
        range,
    })
}

/// As much of a value as says which one it is.
fn excerpt(value: &str) -> String {
    let mut excerpt: String = value.chars().take(60).collect();
    if excerpt.len() < value.len() {
        excerpt.push('…');
    }
    excerpt
}

/// Points to a setting whose name is a few letters away.
fn similar(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    let distance = |other: &str| {
        let (one, two): (Vec<char>, Vec<char>) = (name.chars().collect(), other.chars().collect());
        let mut row: Vec<usize> = (0..=two.len()).collect();
        for (i, left) in one.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], i + 1);
            for (j, right) in two.iter().enumerate() {
                let replaced = diagonal + usize::from(left != right);
                diagonal = row[j + 1];
                row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
            }
        }
        row[two.len()]
    };
    let nearest = known.map(|known| (distance(known), known)).min();
    match nearest {
        Some((distance, nearest)) if distance <= 3 => format!("; did you mean `{nearest}`?"),
        _ => String::new(),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests may touch the disk")]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)], flags: &Overrides) -> Result<Config, String> {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("prodex.toml"), file).unwrap();
        let environment = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let result = Config::load(Some(home.path()), &environment, flags);
        result.map_err(|error| error.to_string().replace(&home.path().display().to_string(), "HOME"))
    }

    #[test]
    fn the_defaults_are_allowed_values() {
        let config = load("", &[], &Vec::new()).unwrap();
        assert_eq!(config.max_request_body.bytes(), 64 << 20);
        assert_eq!(config.token_endpoint().to_string(), "https://auth.openai.com/oauth/token");
        assert!(config.upstream.is_none());
    }

    #[test]
    fn variables_that_are_no_settings_are_told() {
        let names = ["PRODEX_HOME", "PRODEX_MAXACTIVE", "PATH", "PRODEX_WORKERS", "PRODEX_OF_ANOTHER_TOOL"];
        insta::assert_snapshot!(unknown(names.into_iter().map(str::to_owned)).join("\n"), @r"
        PRODEX_MAXACTIVE is no setting and is not used; did you mean `PRODEX_MAX_ACTIVE`?
        PRODEX_OF_ANOTHER_TOOL is no setting and is not used
        ");
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let file = "max_attempts = 3\nkeep_alive = \"5s\"\nconnect_timeout = \"1s\"";
        let environment = [("PRODEX_KEEP_ALIVE", "6s"), ("PRODEX_CONNECT_TIMEOUT", "2s")];
        let flags = vec![("connect_timeout", "3s".to_owned())];
        let config = load(file, &environment, &flags).unwrap();
        assert_eq!(config.max_attempts, 3);
        assert_eq!(config.keep_alive, Duration::from_secs(6));
        assert_eq!(config.connect_timeout, Duration::from_secs(3));
    }

    #[test]
    fn limits_that_are_not_set_go_with_those_that_are() {
        let config =
            load("max_active = 16\nmax_compact = 3\nprofile_hard_limit = 8", &[], &Vec::new()).unwrap();
        let limits = config.lane_limits();
        assert_eq!((limits.standard, limits.responses, limits.compact, limits.websocket), (2, 14, 3, 14));
        assert_eq!(config.soft_limit(), 8);
        let least = load("max_active = 2", &[], &Vec::new()).unwrap().lane_limits();
        assert_eq!((least.standard, least.responses), (1, 1));
        let many = load("", &[], &Vec::new()).unwrap().lane_limits();
        assert!(many.responses >= 8000, "as many streams as there shall be");
    }

    #[test]
    fn a_mock_upstream_takes_the_tokens_too() {
        let flags = vec![("upstream", "http://127.0.0.1:9/base/".to_owned())];
        let config = load("", &[], &flags).unwrap();
        assert_eq!(config.token_endpoint().to_string(), "http://127.0.0.1:9/base/oauth/token");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let errors: Vec<String> = [
            load("\nmax_atempts = 3", &[], &Vec::new()),
            load("max_attempts = 0", &[], &Vec::new()),
            load("max_attempts = [1]", &[], &Vec::new()),
            load("max_attempts 1", &[], &Vec::new()),
            load("", &[("PRODEX_KEEP_ALIVE", "soon")], &Vec::new()),
            load("", &[("PRODEX_MAX_REQUEST_BODY", "2GiB")], &Vec::new()),
            load("", &[], &vec![("upstream", "ftp://x".to_owned())]),
            load("", &[], &vec![("listen", "0.0.0.0:80".to_owned())]),
            load("max_standard = 100000", &[], &Vec::new()),
            load("max_active = 100\nmax_responses = 101", &[], &Vec::new()),
            load("max_active = 100", &[("PRODEX_MAX_STANDARD", "100")], &Vec::new()),
            load("profile_soft_limit = 9\nprofile_hard_limit = 8", &[], &Vec::new()),
            load("", &[("PRODEX_LOG_TOTAL_SIZE", "63MiB")], &Vec::new()),
            load("log_file_size = \"1KiB\"", &[], &Vec::new()),
            load("max_attempts = 1\n\n[max_attempts.x]\ny = 1", &[], &Vec::new()),
            load("[proxy]\nworkers = 3", &[], &Vec::new()),
            load("workers.most = 3", &[], &Vec::new()),
            load("workers = 1\r\n\r\nworkers = 2\r\n", &[], &Vec::new()),
            load("\u{feff}workers = -1", &[], &Vec::new()),
            load("workers = 1.5", &[], &Vec::new()),
            load("workers = 0x10", &[], &Vec::new()),
            load("workers = 99999999999999999999999", &[], &Vec::new()),
            load("workers = 2026-01-01", &[], &Vec::new()),
            load("keep_alive = 5", &[], &Vec::new()),
            load("keep_alive = \"99999999999999999999h\"", &[], &Vec::new()),
            load("keep_alive = \"18446744073709551615h\"", &[], &Vec::new()),
            load("keep_alive = \"-5s\"", &[], &Vec::new()),
            load("keep_alive = \"\"", &[], &Vec::new()),
            load("max_request_body = \"18446744073709551615GiB\"", &[], &Vec::new()),
            load("max_request_body = \"64MB\"", &[], &Vec::new()),
            load("log_dir = \"\"\ncodex = \"\"", &[], &Vec::new()),
            load("state_sync = true", &[], &Vec::new()),
            load(&format!("state_sync = \"{}\"", "x".repeat(500)), &[], &Vec::new()),
            load("workers = 'x", &[], &Vec::new()),
            load("", &[("PRODEX_CODEX", "/a/\u{fffd}")], &Vec::new()),
            load("otlp_endpoint = \"localhost:4318\"", &[], &Vec::new()),
        ]
        .into_iter()
        .map(|result| result.unwrap_err())
        .collect();
        insta::assert_snapshot!(errors.join("\n---\n"));
    }

    #[test]
    fn files_of_other_systems_and_editors_are_read() {
        for file in ["\u{feff}workers = 3", "workers = 3\r\nkeep_alive = \"5s\"\r\n", "workers = \"3\" # x"] {
            assert_eq!(load(file, &[], &Vec::new()).unwrap().workers, 3, "{file}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(text in "[a-z_=\\[\\]{}\"'\\n0-9. #\\PC]{0,60}") {
            let _ = load(&text, &[], &Vec::new());
        }

        #[test]
        fn each_setting_refuses_nonsense_with_its_name_and_range(at in 0..SETTINGS.len(), value in "[?!*]{1,9}") {
            let Setting { name, range, .. } = SETTINGS[at];
            if !["codex", "log_dir", "upstream_ca"].contains(&name) {
                let error = load(&format!("\n{name} = \"{value}\""), &[], &Vec::new()).unwrap_err();
                let (begin, end) = (format!("HOME/prodex.toml:2: `{name}` cannot be "), format!("(allowed: {range})"));
                proptest::prop_assert!(error.starts_with(&begin) && error.ends_with(&end), "{}", error);
            }
        }
    }

    #[test]
    fn without_a_home_there_is_an_error() {
        let error = Config::load(None, &|_| None, &Vec::new()).unwrap_err();
        assert!(matches!(error, ConfigError::NoHome));
    }
}
