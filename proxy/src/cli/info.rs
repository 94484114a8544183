//! `prodex info`: which program this is, where everything lives, and which settings are in force.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::profile::codex_home;
use super::terminal::print;
use super::{Exit, Failure, Home};
use crate::admin::client::running;
use crate::config::{Config, SETTINGS, process_environment, unknown_variables};
use crate::launch::find_program;

/// The version of the JSON: a change that a reader could stumble over raises it.
const JSON_VERSION: u32 = 1;

/// Show version, paths, and the settings in force
///
/// Settings that are not at their default say where they come from: prodex.toml, or a variable.
///
/// Example: prodex info
/// Example: prodex info --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ShowInfo {
    /// Show all settings, also those at their default
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: Home,
}

/// A setting as it is in force.
struct InForce {
    name: &'static str,
    value: String,
    /// Where it comes from; none for a default.
    place: Option<String>,
}

impl ShowInfo {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let config = self.home.config(&Vec::new())?;
        let text = if self.json { format!("{}\n", report(&config)) } else { self.screen(&config) };
        // Whoever reads no further wants no more.
        print(text)?;
        Ok(Exit::Ok)
    }

    fn screen(&self, config: &Config) -> String {
        let mut text = format!("prodex {}\n\n", env!("CARGO_PKG_VERSION"));
        for (what, path) in paths(config) {
            let _ = writeln!(text, "{what:<10} {path}");
        }
        let settings = settings(config);
        let shown: Vec<&InForce> =
            settings.iter().filter(|setting| self.all || setting.place.is_some()).collect();
        text.push_str("\nsettings\n");
        for InForce { name, value, place } in &shown {
            let place = place.as_deref().unwrap_or("default");
            let value = if value.is_empty() { "-" } else { value };
            let _ = writeln!(text, "  {name} = {value}  ({place})");
        }
        let rest = settings.len() - shown.len();
        if rest > 0 {
            let _ = writeln!(text, "  {rest} at their default; `prodex info --all` shows them");
        }
        for told in unknown_variables() {
            let _ = writeln!(text, "  {told}");
        }
        let running = running(&config.home);
        text.push_str("\nrunning\n");
        for one in &running {
            let _ = writeln!(text, "  process {}; `prodex status` shows what it does", one.pid);
        }
        if running.is_empty() {
            text.push_str("  nothing; `prodex run` or `prodex serve` starts a proxy\n");
        }
        text
    }
}

fn paths(config: &Config) -> Vec<(&'static str, String)> {
    let show = |path: std::path::PathBuf| path.display().to_string();
    let codex = find_program(&config.codex, process_environment("PATH").as_deref());
    let codex = codex.map_or_else(|| format!("{} (not found)", config.codex.display()), show);
    let program = std::env::current_exe().map_or_else(|_| "?".to_owned(), show);
    let mut paths = vec![
        ("program", program),
        ("home", show(config.home.clone())),
        ("settings", show(config.home.join("prodex.toml"))),
        ("profiles", show(config.home.join("profiles"))),
        ("state", show(config.state_directory())),
        ("run logs", show(config.log_directory())),
        ("sockets", show(crate::admin::socket::directory(&config.home))),
        ("codex", codex),
    ];
    paths.extend(codex_home().map(|home| ("codex home", show(home))));
    paths
}

fn settings(config: &Config) -> Vec<InForce> {
    let in_force = SETTINGS.iter().map(|setting| match config.given(setting.name) {
        Some(given) => {
            InForce { name: setting.name, value: given.value.clone(), place: Some(given.place.clone()) }
        }
        None => InForce { name: setting.name, value: setting.default.to_owned(), place: None },
    });
    in_force.collect()
}

fn report(config: &Config) -> Value {
    let paths: serde_json::Map<_, _> =
        paths(config).into_iter().map(|(what, path)| (what.replace(' ', "_"), Value::from(path))).collect();
    let settings = settings(config).into_iter();
    let settings = settings.map(|InForce { name, value, place }| {
        let value = Some(value).filter(|value| !value.is_empty());
        json!({"name": name, "value": value, "source": place.unwrap_or_else(|| "default".to_owned())})
    });
    let running = running(&config.home).into_iter();
    json!({
        "version": JSON_VERSION,
        "program": env!("CARGO_PKG_VERSION"),
        "paths": paths,
        "settings": settings.collect::<Vec<_>>(),
        "unknown_variables": unknown_variables(),
        "running": running.map(|one| json!({"pid": one.pid, "socket": one.path()})).collect::<Vec<_>>(),
    })
}
