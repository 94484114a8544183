//! `prodex serve --replace`: whose place is taken, what cannot change on the way, and what does.

use super::super::terminal::{shown, tell};
use super::super::{Exit, Failure};
use super::{Options, Serve};
use crate::admin::client::{self, LaunchInfo, Running};
use crate::admin::handover::{self, Taken};
use crate::admin::status::Phase;
use crate::config::{Config, SETTINGS};

impl Serve {
    /// Takes the sockets of the running proxy that is to be replaced; none if nobody runs.
    pub(super) async fn take_over(&self, config: &Config, pid: u32) -> Result<Option<Taken>, Failure> {
        let all = client::running(&config.home).into_iter();
        let mut running: Vec<(Running, Option<LaunchInfo>)> =
            all.map(|one| (one.launch().ok(), one)).map(|(launch, one)| (one, launch)).collect();
        let can_be_replaced = |launch: &Option<LaunchInfo>| {
            launch.as_ref().is_some_and(|launch| launch.state == Phase::Serving && !launch.launched)
        };
        running.retain(|(one, launch)| if pid > 0 { one.pid == pid } else { can_be_replaced(launch) });
        let (running, launch) = match &running[..] {
            [one] => one,
            [] if pid > 0 => {
                let problem = format!("no proxy of this home has process id {pid}");
                let advice = "`prodex status` shows those that run";
                return Err(Failure::new(Exit::Failure, format!("{problem}; {advice}")));
            }
            [] => {
                tell("no proxy of this home runs that could be replaced; starting one");
                return Ok(None);
            }
            several => {
                let pids: Vec<_> = several.iter().map(|(one, _)| one.pid.to_string()).collect();
                let problem = format!("several proxies of this home run ({})", pids.join(", "));
                return Err(Failure::new(Exit::Usage, format!("{problem}; say which with --replace=PID")));
            }
        };
        let taken = handover::take(running.path()).await.map_err(|error| {
            let problem = format!("cannot take over from process {}: {error}", running.pid);
            Failure::new(Exit::Environment, problem)
        })?;
        self.check_taken(config, &taken)?;
        let differing = launch.as_ref().map(|launch| differing(config, &self.options, launch));
        let differing = match differing.as_deref() {
            None | Some([]) => String::new(),
            Some(lines) => format!(", but with settings of its own:\n  {}", lines.join("\n  ")),
        };
        tell(format_args!("taking over from process {} (prodex {}){differing}", taken.pid, taken.program));
        Ok(Some(taken))
    }

    /// Clients are to notice nothing, so what they see cannot be changed on the way.
    fn check_taken(&self, config: &Config, taken: &Taken) -> Result<(), Failure> {
        let fixed = |flag: &str, is: &str| {
            let problem = format!("{flag} cannot be with --replace: process {} {is}", taken.pid);
            Err(Failure::new(Exit::Usage, format!("{problem}; leave it out, or stop that one first")))
        };
        let listen = self.options.listen.is_some().then_some(config.listen);
        if listen.is_some_and(|listen| listen.port() != 0 && listen != taken.listen) {
            return fixed("--listen", &format!("listens on {}", taken.listen));
        }
        if self.options.tls && !taken.tls {
            return fixed("--tls", "listens without TLS");
        }
        if self.no_auth && taken.capability.is_some() {
            return fixed("--no-auth", "asks for a capability");
        }
        Ok(())
    }
}

/// What the flags, variables and file of the new proxy say otherwise than those of the running one did, a line
/// each. The address is not among it: that is taken over.
fn differing(config: &Config, options: &Options, running: &LaunchInfo) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |name: &str, here: &str, there: &str| {
        if here != there {
            lines.push(format!("{name}: {}, instead of {}", shown(here), shown(there)));
        }
    };
    // An older version does not say what its settings are.
    if let Some(there) = &running.settings {
        let here = config.in_force();
        for setting in SETTINGS.iter().filter(|setting| setting.name != "listen") {
            let default = if setting.default.is_empty() { "not set" } else { setting.default };
            let here = here.get(setting.name).copied().unwrap_or(default);
            compare(setting.name, here, there.get(setting.name).map_or(default, |value| value));
        }
    }
    let profiles = |only: &[String]| {
        if only.is_empty() { "all profiles".to_owned() } else { only.join(", ") }
    };
    compare("--only", &profiles(&options.only), &profiles(running.scope.as_deref().unwrap_or_default()));
    let recording = |is_recorded: bool| if is_recorded { "recording" } else { "no recording" };
    compare("--record", recording(options.record.is_some()), recording(running.recorded));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn running(of: &serde_json::Value) -> LaunchInfo {
        let ready = json!({"listen": "127.0.0.1:1", "base_url": "b", "ca_cert": null,
            "codex": {"chatgpt_base_url": "c", "openai_base_url": "o"}});
        let mut launch = json!({"pid": 7, "ready": ready, "launched": false, "state": "serving",
            "upstream": null, "scope": null, "recorded": false});
        launch.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
        serde_json::from_value(launch).unwrap()
    }

    #[test]
    fn what_is_otherwise_than_before_is_told_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let flags = vec![("workers", "2".to_owned()), ("listen", "127.0.0.1:9".to_owned())];
        let config = Config::load(Some(home.path()), &|_| None, &flags).unwrap();
        let of = |options: &Options, launch: serde_json::Value| {
            differing(&config, options, &running(&launch)).join("\n")
        };
        let all = Options::default();
        let same = json!({"settings": {"workers": "2", "keep_alive": "2m", "listen": "127.0.0.1:8"}});
        assert_eq!(of(&all, same.clone()), "");
        let some = Options { only: vec!["a".to_owned()], record: Some("d".into()), ..Options::default() };
        assert_eq!(
            of(&some, same),
            "--only: a, instead of all profiles\n--record: recording, instead of no recording"
        );
        let other = json!({"settings": {"upstream": "http://127.0.0.1:9", "keep_alive": "5m"},
            "scope": ["a", "b"], "recorded": true});
        insta::assert_snapshot!(of(&all, other), @r"
        upstream: not set, instead of http://127.0.0.1:9
        workers: 2, instead of 0
        keep_alive: 2m, instead of 5m
        --only: all profiles, instead of a, b
        --record: no recording, instead of recording
        ");
        assert_eq!(of(&all, json!({})), "");
    }
}
