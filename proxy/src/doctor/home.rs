//! Findings about what stands around the proxy: files, profiles, the state, the disk, the client, the network.
//!
//! Nothing is changed, and nobody is asked over the network.

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::fmt::Display;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Map;

use super::finding::{Class, Finding, Severity, word};
use crate::admin::client::{self, ClientError};
use crate::config::{Config, unknown_variables};
use crate::control::describe;
use crate::launch::{Login, find_program};
use crate::profile::store::{Store, StoreError, Stored};
use crate::state::inspect;

mod version;

use version::version;

/// The finding that a disk has no room, which is why much else fails.
pub(crate) const DISK_FULL: &str = "disk_full";

/// With less than this on the disk, in bytes, the state and the logs will soon not be written.
const LITTLE_SPACE: u64 = 256 * 1024 * 1024;
const NO_SPACE: u64 = 8 * 1024 * 1024;

/// How deep permissions are looked at, and how many files of a directory.
const DEPTH: usize = 4;
const FILES: usize = 5000;

/// What is there, wrong or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The client program, and what it says its version is.
    pub(crate) client: Option<(PathBuf, Option<String>)>,
    /// How the client is logged in.
    pub(crate) login: Option<&'static str>,
    /// How many profiles can be used.
    pub(crate) profiles: usize,
    /// How many conversations and responses are bound to a profile.
    pub(crate) bindings: Option<u64>,
    /// The processes that serve this home and answer.
    pub(crate) running: Vec<u32>,
}

/// Where to look.
pub(crate) struct Surroundings<'a> {
    pub(crate) config: &'a Config,
    /// The home of the client.
    pub(crate) codex_home: Option<PathBuf>,
    /// Whether there are logins on this machine that could be taken over.
    pub(crate) has_logins: bool,
    pub(crate) environment: &'a dyn Fn(&str) -> Option<String>,
    /// In seconds since the epoch.
    pub(crate) now: i64,
}

/// Looks at everything.
pub(crate) fn examine(around: &Surroundings<'_>) -> (Facts, Vec<Finding>) {
    let mut facts = Facts::default();
    let mut findings = Vec::new();
    variables(&mut findings);
    permissions(around, &mut findings);
    profiles(around, &mut facts, &mut findings);
    state(around, &mut facts, &mut findings);
    disks(around, &mut findings);
    codex(around, &mut facts, &mut findings);
    network(around, &mut findings);
    running(around, &mut facts, &mut findings);
    (facts, findings)
}

fn finding(
    name: &'static str,
    severity: Severity,
    title: &'static str,
    sentence: impl Display,
    next: impl Display,
) -> Finding {
    Finding {
        name,
        class: Class::Setup,
        severity,
        title,
        sentence: sentence.to_string(),
        next: next.to_string(),
        count: None,
        span: None,
        is_over: false,
        ends_with_cause: false,
        because_of: &[],
        fields: Map::new(),
    }
}

fn variables(findings: &mut Vec<Finding>) {
    let unknown = unknown_variables();
    if let Some(first) = unknown.first() {
        let name = first.split_once(' ').map_or(&**first, |(name, _)| name);
        let title = "Variables that are no settings";
        let told = format!("{}.", unknown.join("; "));
        findings.push(finding(
            "unknown_variables",
            Severity::Notice,
            title,
            told,
            format!("unset {}", word(name)),
        ));
    }
}

fn permissions(around: &Surroundings<'_>, findings: &mut Vec<Finding>) {
    let home = &around.config.home;
    let mut open = Vec::new();
    look_at(home, DEPTH, false, &mut open);
    let logs = around.config.log_directory();
    if !logs.starts_with(home) {
        look_at(&logs, 1, false, &mut open);
    }
    let secret = open.iter().find(|(path, _)| is_secret(path));
    let severity = if secret.is_some() { Severity::Problem } else { Severity::Warning };
    let Some((path, mode)) = secret.or(open.first()) else { return };
    let count = open.len();
    let told = format!(
        "{count} in all, such as {} ({mode:o}): others on this machine may read or change them.",
        path.display()
    );
    let next = format!("chmod -R go-rwx {}", word(if path.starts_with(home) { home } else { &logs }));
    findings.push(finding("open_permissions", severity, "Files are open to others", told, next));
}

/// Collects what others may read or write. Below a directory that only its owner enters, which shields it,
/// only what is a secret must be closed itself.
fn look_at(path: &Path, depth: usize, is_shielded: bool, open: &mut Vec<(PathBuf, u32)>) {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return };
    // Sessions and the like are shared by link, and are the client's own.
    if meta.is_symlink() {
        return;
    }
    let mode = meta.permissions().mode() & 0o777;
    let is_open = mode & 0o077 != 0;
    if is_open && (!is_shielded || is_secret(path)) {
        open.push((path.to_owned(), mode));
    }
    if meta.is_dir() && depth > 0 {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten().take(FILES);
        for entry in entries {
            look_at(&entry.path(), depth - 1, is_shielded || !is_open, open);
        }
    }
}

fn is_secret(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("auth.json") || name.ends_with(".key") || name == "admin-token"
}

fn profiles(around: &Surroundings<'_>, facts: &mut Facts, findings: &mut Vec<Finding>) {
    let store = Store::new(&around.config.home);
    let names = match store.names() {
        Ok(names) => names,
        Err(error) => {
            let told = format!("{}.", describe(&error));
            let next = format!("ls -ld {}", word(around.config.home.join("profiles")));
            let title = "The profiles cannot be read";
            return findings.push(finding("broken_profiles", Severity::Problem, title, told, next));
        }
    };
    let (mut usable, mut broken) = (Vec::new(), Vec::new());
    for name in &names {
        match store.read(name) {
            Ok(stored) => usable.push(stored),
            Err(error) => broken.push((name, error)),
        }
    }
    if names.is_empty() {
        let told = format!("{} has none, so there is nothing to serve with.", around.config.home.display());
        let title = "There are no profiles";
        let next = if around.has_logins { "prodex profile import" } else { "prodex login" };
        findings.push(finding("no_profiles", Severity::Problem, title, told, next));
    }
    if let Some((name, first)) = broken.first() {
        let told: Vec<String> =
            broken.iter().map(|(name, error)| format!("{name}: {}", describe(error))).collect();
        let told = format!("{}.", told.join("; "));
        let next = match first {
            StoreError::LoggedOut(_) | StoreError::Credentials { .. } => format!("prodex login {name}"),
            _ => format!("prodex profile remove {name}"),
        };
        findings.push(finding("broken_profiles", Severity::Problem, "Profiles cannot be used", told, next));
    }
    logins(&usable, around.now, findings);
    orphans(&around.config.home, &names, findings);
    facts.profiles = usable.len();
    // One that is not logged in is served by whatever profiles there are.
    let Some(login) = around.codex_home.as_deref().and_then(Login::of) else { return };
    let (name, next) = match login {
        Login::Chatgpt => ("a ChatGPT login", "prodex login"),
        Login::ApiKey => ("an API key", "prodex login key --api-key-stdin"),
    };
    facts.login = Some(name);
    if !usable.is_empty() && usable.iter().all(|stored| stored.credentials.kind().api() != login.api()) {
        let told =
            format!("Codex uses {name}, and no profile is of that kind: `prodex run` would refuse to start.");
        let title = "No profile fits the client's login";
        findings.push(finding("no_profile_for_login", Severity::Problem, title, told, next));
    }
}

/// Logins without a token to renew them with: they end when their access token does.
fn logins(stored: &[Stored], now: i64, findings: &mut Vec<Finding>) {
    let logins = stored.iter().filter_map(|stored| Some((stored, stored.credentials.login()?)));
    let bound = logins.filter(|(_, login)| login.refresh_token.is_none());
    let (mut ended, mut ending) = (Vec::new(), Vec::new());
    for (stored, login) in bound {
        if login.is_expired(now) { &mut ended } else { &mut ending }.push(stored.name.as_str());
    }
    let next = |names: &[&str]| format!("prodex login {}", names.first().unwrap_or(&""));
    if !ended.is_empty() {
        let told = format!("{}: the token has expired and cannot be renewed.", ended.join(", "));
        findings.push(finding("login_expired", Severity::Problem, "A login has ended", told, next(&ended)));
    }
    if !ending.is_empty() {
        let told = format!(
            "{}: there is no refresh token, so the login ends with its access token.",
            ending.join(", ")
        );
        let title = "A login will not be renewed";
        findings.push(finding("login_not_renewable", Severity::Warning, title, told, next(&ending)));
    }
}

/// Directories beside the profiles that are none.
fn orphans(home: &Path, names: &[String], findings: &mut Vec<Finding>) {
    let directory = home.join("profiles");
    let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
    let mut orphans: Vec<String> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !names.contains(name))
        .collect();
    orphans.sort_unstable();
    if !orphans.is_empty() {
        let told = format!(
            "{}: no profile.toml, so they are left alone. An older tool's can be taken over.",
            orphans.join(", ")
        );
        let title = "Directories beside the profiles are none";
        findings.push(finding("orphan_profiles", Severity::Notice, title, told, "prodex profile import"));
    }
}

fn state(around: &Surroundings<'_>, facts: &mut Facts, findings: &mut Vec<Finding>) {
    let directory = around.config.state_directory();
    match inspect(&directory) {
        Ok(bindings) => facts.bindings = bindings,
        Err(error) => {
            let next = format!("ls -l {}", word(&directory));
            let told = format!("{}.", describe(&error));
            findings.push(finding("bad_state", Severity::Problem, "The state cannot be used", told, next));
        }
    }
}

fn disks(around: &Surroundings<'_>, findings: &mut Vec<Finding>) {
    let config = around.config;
    let places = [config.home.clone(), config.state_directory(), config.log_directory()];
    let free = places.iter().filter_map(|path| {
        let found = nix::sys::statvfs::statvfs(path).ok()?;
        let bytes = found.blocks_available().saturating_mul(found.fragment_size());
        // A file system that counts no files has none to give.
        let has_files = found.files() == 0 || found.files_available() > 0;
        Some((if has_files { bytes } else { 0 }, path))
    });
    let Some((bytes, path)) = free.min().filter(|(bytes, _)| *bytes < LITTLE_SPACE) else { return };
    let severity = if bytes < NO_SPACE { Severity::Problem } else { Severity::Warning };
    let told = format!("{} MiB are left: bindings and logs will soon be lost.", bytes >> 20);
    let next = format!("df -h {}", word(path));
    findings.push(finding(DISK_FULL, severity, "The disk is nearly full", told, next));
}

fn codex(around: &Surroundings<'_>, facts: &mut Facts, findings: &mut Vec<Finding>) {
    let program = &around.config.codex;
    let Some(path) = find_program(program, (around.environment)("PATH").as_deref()) else {
        let place = if program.components().count() > 1 { "there" } else { "in PATH" };
        let told = format!("{} is not {place}; `prodex run` starts it.", program.display());
        let next = "npm install -g @openai/codex";
        return findings.push(finding("no_client", Severity::Warning, "Codex is not installed", told, next));
    };
    let version = version(&path);
    if let Err(problem) = &version {
        let told = format!("{} does not tell its version: {problem}.", path.display());
        let next = format!("{} --version", word(&path));
        findings.push(finding("bad_client", Severity::Warning, "Codex does not start", told, next));
    }
    facts.client = Some((path, version.ok()));
}

/// A proxy that the machine uses for the world must not be asked for the loopback.
fn network(around: &Surroundings<'_>, findings: &mut Vec<Finding>) {
    let set = |name: &str| (around.environment)(name).filter(|value| !value.is_empty());
    let either = |name: &str| set(name).or_else(|| set(&name.to_ascii_lowercase()));
    let Some(name) = ["HTTP_PROXY", "ALL_PROXY"].into_iter().find(|name| either(name).is_some()) else {
        return;
    };
    let except = either("NO_PROXY").unwrap_or_default();
    let has =
        |hosts: &[&str]| except.split(',').any(|known| known.trim() == "*" || hosts.contains(&known.trim()));
    if !(has(&["127.0.0.1", "127.0.0.0/8"]) && has(&["localhost"])) {
        let told = format!(
            "{name} is set and NO_PROXY leaves the loopback out. `prodex run` mends that for its client; one that you start yourself asks that proxy for ours."
        );
        let next = "export NO_PROXY=127.0.0.1,localhost,::1";
        findings.push(finding("no_proxy", Severity::Notice, "The loopback goes through a proxy", told, next));
    }
}

/// The proxies of this home that run.
fn running(around: &Surroundings<'_>, facts: &mut Facts, findings: &mut Vec<Finding>) {
    for proxy in client::running(&around.config.home) {
        match proxy.get("/healthz") {
            // One that drains refuses, and so answers.
            Ok(_) | Err(ClientError::Refused { .. }) => facts.running.push(proxy.pid),
            Err(error) => {
                let next = format!("kill {}", proxy.pid);
                let told = format!("{}.", describe(&error));
                let title = "A proxy does not answer";
                findings.push(finding("proxy_silent", Severity::Problem, title, told, next));
            }
        }
    }
}

#[cfg(test)]
mod tests;
