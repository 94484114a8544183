//! Scenario files: what a person writes about a load, read strictly.
//!
//! A key that nobody knows and a value that makes no sense are errors with the file and the line. Flags of
//! the command line change a scenario before it becomes a plan.

use std::path::Path;
use std::time::Duration;

use super::plan::{MAX_REQUESTS, Pace, Plan, Stage, Target};
use super::result::Route;
use super::stats::MAX_TICKS;

mod tables;

use tables::{File, Problem};

/// The scenarios that are built in, by name.
pub const BUILT_IN: [(&str, &str); 9] = [
    ("baseline", include_str!("scenarios/baseline.toml")),
    ("stress", include_str!("scenarios/stress.toml")),
    ("spike", include_str!("scenarios/spike.toml")),
    ("soak", include_str!("scenarios/soak.toml")),
    ("slow-client", include_str!("scenarios/slow-client.toml")),
    ("slow-upstream", include_str!("scenarios/slow-upstream.toml")),
    ("long-stream", include_str!("scenarios/long-stream.toml")),
    ("websocket", include_str!("scenarios/websocket.toml")),
    ("sessions", include_str!("scenarios/sessions.toml")),
];

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// No file, and none that is built in.
    #[error("read the scenario {name}: it is no file ({source}) and none of {}", names())]
    Unknown {
        /// What was asked for.
        name: String,
        /// Why the file cannot be read.
        #[source]
        source: std::io::Error,
    },
    /// The file says something that cannot be.
    #[error("{file}:{line}: {problem}")]
    Invalid {
        /// The file, or the name of what is built in.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A flag makes no sense with this scenario.
    #[error("{0}")]
    Flag(String),
}

/// The names of what is built in.
fn names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}

/// Limits that a run must keep.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Most requests that may not end well, as a share of all. A scenario that says nothing allows none.
    pub error_rate: Option<f64>,
    /// Longest 95th percentile of the time to the first content event, in milliseconds.
    pub ttft_p95_ms: Option<f64>,
    /// Most causes of admission pressure, as a share of all requests.
    pub admission_pressure_rate: Option<f64>,
}

/// What flags change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Requests of each closed stage.
    pub requests: Option<u64>,
    /// Length of each stage.
    pub duration: Option<Duration>,
    /// Requests at once.
    pub concurrency: Option<usize>,
    /// Rate of each stage that has a constant one.
    pub rate: Option<f64>,
    /// Where requests go.
    pub route: Option<Route>,
    /// Every so many is a compaction.
    pub compact_every: Option<u64>,
    /// How long the client waits after each read.
    pub read_delay: Option<Duration>,
    /// How long a request may take.
    pub timeout: Option<Duration>,
}

/// A scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it is for, in a sentence.
    pub about: String,
    /// Its limits.
    pub limits: Limits,
    /// Its stages.
    pub stages: Vec<Stage>,
    /// Whether resources must not grow: a soak.
    pub judges_growth: bool,
}

impl Scenario {
    /// The scenario of this name, or in this file.
    ///
    /// # Errors
    /// When there is none, or it says what cannot be.
    pub fn load(name: &str) -> Result<Self, ScenarioError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Self::parse(name, &format!("{name}.toml"), text);
        }
        let text = std::fs::read_to_string(name)
            .map_err(|source| ScenarioError::Unknown { name: name.to_owned(), source })?;
        let stem = Path::new(name).file_stem().map_or(name.into(), |stem| stem.to_string_lossy());
        Self::parse(&stem, name, &text)
    }

    /// Reads a scenario's text.
    ///
    /// # Errors
    /// When it says what cannot be.
    pub fn parse(name: &str, file: &str, text: &str) -> Result<Self, ScenarioError> {
        let invalid = |problem: Problem| {
            let line = 1 + text[..problem.at.min(text.len())].matches('\n').count();
            let key = key_of(text, problem.at).map_or(String::new(), |key| format!("{key}: "));
            ScenarioError::Invalid { file: file.to_owned(), line, problem: key + &problem.text }
        };
        let parsed: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            invalid(Problem { at, text: error.message().to_owned() })
        })?;
        parsed.scenario(name).map_err(invalid)
    }

    /// Changes it as flags say.
    ///
    /// # Errors
    /// When a flag means nothing here, or too much.
    pub fn change(&mut self, changes: &Changes) -> Result<(), ScenarioError> {
        let refuse = |text: &str| Err(ScenarioError::Flag(text.to_owned()));
        let is_closed = |stage: &Stage| matches!(stage.pace, Pace::Closed { .. });
        if changes.requests.is_some() && !self.stages.iter().any(is_closed) {
            return refuse("--requests means nothing here: no stage is a closed loop");
        }
        let is_constant = |stage: &Stage| matches!(stage.pace, Pace::Open { from, to, .. } if from == to);
        if changes.rate.is_some() && !self.stages.iter().any(is_constant) {
            return refuse("--rate means nothing here: no stage has a constant rate");
        }
        let is_sessions = |stage: &Stage| matches!(stage.pace, Pace::Sessions { .. });
        if (changes.route.is_some() || changes.compact_every.is_some()) && self.stages.iter().all(is_sessions)
        {
            return refuse("--route and --compact-every mean nothing here: agents decide by themselves");
        }
        for stage in &mut self.stages {
            match &mut stage.pace {
                Pace::Closed { requests, seconds } => {
                    if let Some(length) = changes.duration {
                        (*requests, *seconds) = (changes.requests, Some(length.as_secs_f64()));
                    } else if let Some(number) = changes.requests {
                        (*requests, *seconds) = (Some(number), None);
                    }
                }
                Pace::Open { from, to, seconds, .. } => {
                    if let (Some(rate), true) = (changes.rate, from == to) {
                        (*from, *to) = (rate, rate);
                    }
                    *seconds = changes.duration.map_or(*seconds, |length| length.as_secs_f64());
                }
                Pace::Sessions { seconds, .. } => {
                    *seconds = changes.duration.map_or(*seconds, |length| length.as_secs_f64());
                }
            }
            stage.concurrency = changes.concurrency.unwrap_or(stage.concurrency);
            refuse_too_many(stage).map_err(ScenarioError::Flag)?;
            let traffic = &mut stage.traffic;
            traffic.route = changes.route.unwrap_or(traffic.route);
            traffic.compact_every = changes.compact_every.unwrap_or(traffic.compact_every);
            traffic.read_delay = changes.read_delay.map_or(traffic.read_delay, |delay| delay.as_secs_f64());
            traffic.timeout = changes.timeout.map_or(traffic.timeout, |timeout| timeout.as_secs_f64());
        }
        Ok(())
    }

    /// The plan of it.
    #[must_use]
    pub fn plan(&self, target: Target, seed: u64, threads: usize, max_bytes: u64) -> Plan {
        let (scenario, stages) = (self.name.clone(), self.stages.clone());
        let mut plan = Plan { scenario, seed, threads, target, stages, max_bytes, tick_seconds: 1.0 };
        // Short runs are looked at more closely, and no run has too many ticks.
        let seconds = plan.seconds();
        plan.tick_seconds = if seconds > 0.0 && seconds < 20.0 {
            0.25
        } else {
            // Half of the ticks are left for what ends late.
            (2.0 * seconds / MAX_TICKS as f64).ceil().max(1.0)
        };
        plan
    }
}

/// The key whose value begins at this byte of a file; none where it is no value.
fn key_of(text: &str, at: usize) -> Option<&str> {
    let before = text.get(..at)?.rsplit('\n').next()?.trim_end().strip_suffix('=')?.trim_end();
    let key = before.rsplit(['{', ',', ' ', '\t']).next()?.trim_matches(['"', '\'']);
    (!key.is_empty()).then_some(key)
}

/// Refuses a stage with more requests than a run may have.
fn refuse_too_many(stage: &Stage) -> Result<(), String> {
    match stage.requests() {
        Some(number) if number > MAX_REQUESTS as f64 => Err(format!(
            "the stage {} has {number:.0} requests, and at most {MAX_REQUESTS} are allowed",
            stage.name
        )),
        _ => Ok(()),
    }
}

/// A duration as people write one: `250us`, `25ms`, `1.5s`, `10m`, `2h`.
///
/// # Errors
/// Says what would be one.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("`{text}` is no duration: write 250us, 25ms, 1.5s, 10m or 2h");
    let end = text.find(|each: char| !each.is_ascii_digit() && each != '.').ok_or_else(problem)?;
    let number: f64 = text[..end].parse().map_err(|_| problem())?;
    let unit = match &text[end..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(problem()),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|_| problem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_is_as_it_is_described() {
        let target = Target::of_url("mock", "http://127.0.0.1:1").unwrap();
        let mut text = String::new();
        for (name, _) in BUILT_IN {
            let scenario = Scenario::load(name).unwrap();
            text.push_str(&scenario.plan(target.clone(), 1, 1, 1).outline());
        }
        insta::assert_snapshot!(text);
    }

    fn problem(text: &str) -> String {
        Scenario::parse("bad", "bad.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let head = "about = \"x\"\n";
        let stage = "[[stage]]\nname = \"a\"\nexecutor = \"closed\"\n";
        let open = "[[stage]]\nname = \"b\"\nexecutor = \"constant-rate\"\n";
        let agents = "[[stage]]\nname = \"c\"\nexecutor = \"sessions\"\n";
        let texts = [
            format!("{head}[limits]\nmax-error-rte = 0\n{stage}requests = 1"),
            format!("{head}[limits]\nmax-error-rate = 1.5\n{stage}requests = 1"),
            format!("{head}{stage}"),
            format!("{head}{stage}requests = 0"),
            format!("{head}{stage}requests = 1\nconcurrency = 1000000"),
            format!("{head}{stage}duration = \"10 parsecs\""),
            format!("{head}{stage}requests = \"many\""),
            format!("{head}{stage}requests = 1\n[stage.traffic]\nevents = 3\ngap = \"3m\""),
            format!("{head}{stage}requests = 1\n[stage.traffic]\nroute = \"home\""),
            format!("{head}{stage}requests = 1\n[stage.traffic]\nfaults = {{ cut = 0.1, reset = 1.7 }}"),
            format!("{head}[traffic]\nevents = 100000\nbytes = 1000\n{stage}requests = 1"),
            format!("{head}{open}rate = 1e6\nduration = \"1h\""),
            format!("{head}{open}rate = nan\nduration = \"1h\""),
            format!("{head}{open}rate = 1\nduration = \"25h\""),
            format!("{head}{agents}duration = \"1m\"\ntool-time = \"99999999h\""),
            format!("{head}{stage}requests = 1\nthink-time = \"1s\""),
            format!("{head}{stage}requests = 1\n[stage.traffic]\nfaults = {{ cut = 0.7, reset = 0.7 }}"),
            format!("{head}{stage}requests = 1\n[stage.traffic]\nfaults = {{ fire = 0.7 }}"),
            format!("{head}{stage}requests = 1\n{stage}requests = 1"),
            "about = \"x\"\nstage = []".to_owned(),
        ];
        let problems: Vec<String> = texts.iter().map(|text| problem(text)).collect();
        insta::assert_snapshot!(problems.join("\n"));
        let unknown = Scenario::load("nothing").unwrap_err().to_string();
        assert!(unknown.contains("baseline"), "{unknown}");
    }

    #[test]
    fn a_scenario_that_sets_no_limit_allows_no_error() {
        let text = "about = \"x\"\n[[stage]]\nname = \"a\"\nexecutor = \"closed\"\nrequests = 1";
        assert_eq!(Scenario::parse("x", "x.toml", text).unwrap().limits.error_rate, Some(0.0));
    }

    #[test]
    fn a_flag_that_means_nothing_is_refused() {
        let mut sessions = Scenario::load("sessions").unwrap();
        sessions.change(&Changes { requests: Some(1), ..Changes::default() }).unwrap_err();
        sessions.change(&Changes { route: Some(Route::Compact), ..Changes::default() }).unwrap_err();
        let mut soak = Scenario::load("soak").unwrap();
        soak.change(&Changes { rate: Some(1e6), ..Changes::default() }).unwrap_err();
        let mut baseline = Scenario::load("slow-client").unwrap();
        baseline.change(&Changes { rate: Some(1.0), ..Changes::default() }).unwrap_err();
        baseline.change(&Changes { requests: Some(7), ..Changes::default() }).unwrap();
        assert_eq!(baseline.stages[0].pace, Pace::Closed { requests: Some(7), seconds: None });
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(about = \"x\"\n)?(\\[\\[stage\\]\\]\n|[a-z-]{1,12} = [0-9\"a-z.]{0,9}\n){0,8}") {
            let _ = Scenario::parse("any", "any.toml", &text);
        }
    }
}
