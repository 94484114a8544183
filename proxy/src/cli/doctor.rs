//! `prodex doctor`: what is wrong, and the one command that helps.

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::profile::{codex_home, logins};
use super::terminal::{print, redraw};
use super::{Exit, Failure, Home, page};
use crate::admin::client::running;
use crate::config::{Config, process_environment};
use crate::doctor::attack::{Target, attack};
use crate::doctor::finding::Finding;
use crate::doctor::home::{Facts, Surroundings, examine};
use crate::doctor::{Examination, Logs, is_alive};
use crate::launch::Ready;
use crate::server::authority::client_config;

mod report;

/// The JSON Schema of what `--json` prints.
const SCHEMA: &str = include_str!("doctor/report.schema.json");

/// How long `--watch` rests at least, and how many times as long as a look takes.
const REST: Duration = Duration::from_secs(2);
const REST_FACTOR: u32 = 5;

/// Say what is wrong, and what to do next
///
/// The run log is read, and what stands around the proxy is looked at: files, profiles, state, disk,
/// client. Only what is wrong is told, the worst first, and what comes of it right behind it.
///
/// Exit codes: 0 nothing is wrong, 1 something is, 2 usage or settings, 3 there is no run log
/// (with --attack: no proxy).
///
/// Example: prodex doctor --runtime --since 10m
/// Example: prodex doctor --attack
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Doctor {
    /// Look at the run log alone
    #[arg(long)]
    runtime: bool,
    /// Look only at what was logged in this time, such as 30s, 10m, 2h or 7d, by all runs
    /// [default: all of the newest run]
    #[arg(long, value_name = "TIME", value_parser = page::span)]
    since: Option<Duration>,
    /// Look at this log
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Look again and again, until Ctrl-C
    #[arg(long, conflicts_with = "attack")]
    watch: bool,
    /// Try on a running proxy of your own what a hostile neighbour would, instead of looking
    #[arg(long, conflicts_with_all = ["runtime", "since", "log"])]
    attack: bool,
    /// The base URL of the proxy to try, with its capability
    /// [default: the one of this home that runs]
    #[arg(long, value_name = "URL", requires = "attack")]
    url: Option<String>,
    /// Try the proxy with this process id, if several of this home run
    #[arg(long, value_name = "N", requires = "attack", conflicts_with = "url")]
    pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of what --json prints
    #[arg(long, exclusive = true)]
    json_schema: bool,
    #[command(flatten)]
    home: Home,
}

impl Doctor {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        if self.json_schema {
            return print(SCHEMA).map(|()| Exit::Ok);
        }
        let config = self.home.config(&Vec::new())?;
        if self.attack {
            return self.attack(&config);
        }
        loop {
            let started = Instant::now();
            let (facts, around) = if self.runtime { (None, Vec::new()) } else { look_around(&config) };
            let examination = self.examine(&config, around);
            self.print(&report::of(&examination, facts.as_ref(), self.json))?;
            if !self.watch {
                return Ok(if !examination.has_log() {
                    Exit::Environment
                } else if examination.findings.is_empty() {
                    Exit::Ok
                } else {
                    Exit::Failure
                });
            }
            std::thread::sleep(REST.max(started.elapsed() * REST_FACTOR));
        }
    }

    fn examine(&self, config: &Config, around: Vec<Finding>) -> Examination {
        let logs = match &self.log {
            Some(path) => Logs::File(path.clone()),
            None => Logs::Directory(config.log_directory()),
        };
        let now = jiff::Timestamp::now().as_millisecond();
        Examination::of(logs, self.since, around, now, &is_alive)
    }

    fn attack(&self, config: &Config) -> Result<Exit, Failure> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => self.running(config)?,
        };
        let authority = config.home.join("tls").join("authority.pem");
        let tls = || Some(Arc::new(client_config(Some(&authority)).ok()?));
        let target = Target::parse(&url, tls).map_err(|error| Failure::of(Exit::Usage, &error))?;
        let outcomes = attack(&target).map_err(|error| {
            let advice = "is it running? `prodex serve` says where it listens";
            Failure::new(
                Exit::Environment,
                format!("nobody answers at {}: {error}; {advice}", target.address),
            )
        })?;
        self.print(&report::attack(&target, &outcomes, self.json))?;
        let has_failed = outcomes.iter().any(|outcome| !outcome.passed);
        Ok(if has_failed { Exit::Failure } else { Exit::Ok })
    }

    /// The base URL of the proxy of this home that runs, as it tells its owner alone.
    fn running(&self, config: &Config) -> Result<String, Failure> {
        let mut all = running(&config.home);
        all.retain(|proxy| self.pid.is_none_or(|pid| proxy.pid == pid));
        match &*all {
            [] => {
                let advice = "start one with `prodex serve`, or name another with --url";
                let home = config.home.display();
                Err(Failure::new(Exit::Environment, format!("no such proxy of {home} runs; {advice}")))
            }
            [one] => {
                #[derive(Deserialize)]
                struct Launch {
                    ready: Ready,
                }
                let launch = one.get_json::<Launch>("/launch");
                Ok(launch.map_err(|error| Failure::of(Exit::Environment, &error))?.ready.base_url)
            }
            several => {
                let pids: Vec<String> = several.iter().map(|proxy| proxy.pid.to_string()).collect();
                let problem = format!("several proxies of this home run: {}", pids.join(", "));
                Err(Failure::new(Exit::Usage, format!("{problem}; choose one with --pid")))
            }
        }
    }

    fn print(&self, text: &str) -> Result<(), Failure> {
        if self.watch && !self.json { redraw(text) } else { print(text) }
    }
}

fn look_around(config: &Config) -> (Option<Facts>, Vec<Finding>) {
    let (facts, findings) = examine(&Surroundings {
        config,
        codex_home: codex_home(),
        has_logins: !logins(config).is_empty(),
        environment: &process_environment,
        now: jiff::Timestamp::now().as_second(),
    });
    (Some(facts), findings)
}

#[cfg(test)]
mod tests;
