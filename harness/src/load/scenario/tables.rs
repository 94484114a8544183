//! The tables of a scenario file, and what each value may be.

use std::ops::Range;
use std::time::Duration;

use mock_upstream::content::{self, Fault};
use serde::Deserialize;
use toml::Spanned;

use super::super::plan::{self, Habits, Pace, Stage, Traffic};
use super::super::result::Route;
use super::{Limits, Scenario, parse_duration};

/// What is wrong in a file, and where.
pub(super) struct Problem {
    /// The byte at which it stands.
    pub(super) at: usize,
    /// What is wrong and what would be right.
    pub(super) text: String,
}

impl Problem {
    fn new(span: &Range<usize>, text: impl Into<String>) -> Self {
        Self { at: span.start, text: text.into() }
    }
}

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    about: String,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    traffic: TrafficTable,
    stage: Spanned<Vec<Spanned<StageTable>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct LimitsTable {
    max_error_rate: Option<Spanned<f64>>,
    max_ttft_p95: Option<Spanned<String>>,
    max_admission_pressure_rate: Option<Spanned<f64>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TrafficTable {
    route: Option<Spanned<String>>,
    compact_every: Option<Spanned<u64>>,
    events: Option<Spanned<u64>>,
    bytes: Option<Spanned<u64>>,
    line_end: Option<Spanned<String>>,
    in_one_write: Option<bool>,
    first_byte: Option<Spanned<String>>,
    gap: Option<Spanned<String>>,
    jitter: Option<Spanned<String>>,
    slow_every: Option<Spanned<u64>>,
    slow_by: Option<Spanned<String>>,
    faults: Option<std::collections::BTreeMap<String, Spanned<f64>>>,
    body_bytes: Option<Spanned<u64>>,
    compressed: Option<bool>,
    conversations: Option<Spanned<u64>>,
    read_delay: Option<Spanned<String>>,
    read_size: Option<Spanned<u64>>,
    timeout: Option<Spanned<String>>,
    turns_per_socket: Option<Spanned<u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct StageTable {
    name: Spanned<String>,
    executor: Spanned<String>,
    concurrency: Option<Spanned<u64>>,
    requests: Option<Spanned<u64>>,
    duration: Option<Spanned<String>>,
    rate: Option<Spanned<f64>>,
    from_rate: Option<Spanned<f64>>,
    peak_rate: Option<Spanned<f64>>,
    peak_duration: Option<Spanned<String>>,
    recovery_duration: Option<Spanned<String>>,
    arrivals: Option<Spanned<String>>,
    turns: Option<Spanned<u64>>,
    tool_rounds: Option<Spanned<f64>>,
    think_time: Option<Spanned<String>>,
    think_spread: Option<Spanned<f64>>,
    tool_time: Option<Spanned<String>>,
    compact_turns: Option<Spanned<u64>>,
    unary_compact_share: Option<Spanned<f64>>,
    turn_bytes: Option<Spanned<u64>>,
    websocket_share: Option<Spanned<f64>>,
    #[serde(default)]
    traffic: TrafficTable,
}

impl File {
    /// The scenario that it describes.
    pub(super) fn scenario(self, name: &str) -> Result<Scenario, Problem> {
        let limits = Limits {
            error_rate: Some(self.limits.max_error_rate.map_or(Ok(0.0), |rate| number(&rate, 0.0, 1.0))?),
            ttft_p95_ms: self
                .limits
                .max_ttft_p95
                .map(|limit| duration(&limit).map(|limit| limit.as_secs_f64() * 1e3))
                .transpose()?,
            admission_pressure_rate: self
                .limits
                .max_admission_pressure_rate
                .map(|rate| number(&rate, 0.0, 1.0))
                .transpose()?,
        };
        let base = self.traffic.over(Traffic::default())?;
        let mut stages: Vec<Stage> = Vec::new();
        let mut judges_growth = false;
        if self.stage.as_ref().is_empty() {
            return Err(Problem::new(&self.stage.span(), "a scenario has at least one stage"));
        }
        for table in self.stage.as_ref() {
            let (span, table) = (table.span(), table.as_ref());
            judges_growth |= table.executor.as_ref() == "soak";
            for stage in table.stages(&span, &base)? {
                if stages.iter().any(|other| other.name == stage.name) {
                    let text = format!("two stages are called {}", stage.name);
                    return Err(Problem::new(&table.name.span(), text));
                }
                super::refuse_too_many(&stage).map_err(|text| Problem::new(&span, text))?;
                stages.push(stage);
            }
        }
        Ok(Scenario { name: name.to_owned(), about: self.about, limits, stages, judges_growth })
    }
}

impl StageTable {
    /// The stages that this one is: most are one, a spike is three.
    fn stages(&self, span: &Range<usize>, base: &Traffic) -> Result<Vec<Stage>, Problem> {
        let name = self.name.as_ref().clone();
        if name.is_empty() || name.len() > 24 || name.contains(char::is_control) {
            return Err(Problem::new(&self.name.span(), "a name has 1 to 24 characters"));
        }
        let executor = self.executor.as_ref().as_str();
        self.only_known(executor)?;
        let traffic = self.traffic.over(base.clone())?;
        let most = plan::MAX_CONCURRENCY as u64;
        let concurrency =
            self.concurrency.as_ref().map(|number| whole(number, 1, most)).transpose()?.unwrap_or(8) as usize;
        let stage = |name: String, pace| Stage {
            name,
            executor: executor.to_owned(),
            pace,
            concurrency,
            traffic: traffic.clone(),
        };
        let missing =
            |key: &str| Problem::new(span, format!("a stage with executor {executor} needs `{key}`"));
        let length = |value: &Option<Spanned<String>>, key: &str| {
            let value = value.as_ref().ok_or_else(|| missing(key))?;
            let length = duration(value)?;
            if length.is_zero() || length > plan::MAX_DURATION {
                return Err(Problem::new(&value.span(), "a stage takes between 1us and 24h"));
            }
            Ok(length.as_secs_f64())
        };
        let rate = |value: &Option<Spanned<f64>>, key: &str, least: f64| {
            number(value.as_ref().ok_or_else(|| missing(key))?, least, plan::MAX_RATE)
        };
        let poisson =
            match self.arrivals.as_ref().map(|arrivals| (arrivals.span(), arrivals.as_ref().as_str())) {
                None | Some((_, "random")) => true,
                Some((_, "even")) => false,
                Some((span, _)) => return Err(Problem::new(&span, "arrivals are random or even")),
            };
        let open = |from, to, seconds| Pace::Open { from, to, seconds, poisson };
        let closed = || -> Result<Pace, Problem> {
            let requests =
                self.requests.as_ref().map(|number| whole(number, 1, plan::MAX_REQUESTS)).transpose()?;
            let seconds = self.duration.is_some().then(|| length(&self.duration, "duration")).transpose()?;
            if requests.is_none() && seconds.is_none() {
                return Err(missing("requests` or `duration"));
            }
            Ok(Pace::Closed { requests, seconds })
        };
        Ok(match executor {
            "closed" => vec![stage(name, closed()?)],
            "constant-rate" => {
                let rate = rate(&self.rate, "rate", 0.001)?;
                vec![stage(name, open(rate, rate, length(&self.duration, "duration")?))]
            }
            "soak" if self.rate.is_none() => {
                vec![stage(
                    name,
                    Pace::Closed { requests: None, seconds: Some(length(&self.duration, "duration")?) },
                )]
            }
            "soak" => {
                let rate = rate(&self.rate, "rate", 0.001)?;
                vec![stage(name, open(rate, rate, length(&self.duration, "duration")?))]
            }
            "ramping-rate" => {
                let (from, to) = (rate(&self.from_rate, "from-rate", 0.0)?, rate(&self.rate, "rate", 0.0)?);
                if from + to == 0.0 {
                    return Err(Problem::new(span, "a ramp from nothing to nothing"));
                }
                vec![stage(name, open(from, to, length(&self.duration, "duration")?))]
            }
            "spike" => {
                let usual = rate(&self.rate, "rate", 0.001)?;
                let peak = rate(&self.peak_rate, "peak-rate", 0.001)?;
                let lengths = [
                    length(&self.duration, "duration")?,
                    length(&self.peak_duration, "peak-duration")?,
                    length(&self.recovery_duration, "recovery-duration")?,
                ];
                let parts = [("before", usual), ("peak", peak), ("after", usual)];
                let parts = parts.into_iter().zip(lengths);
                parts
                    .map(|((part, rate), length)| stage(format!("{name} {part}"), open(rate, rate, length)))
                    .collect()
            }
            "sessions" => {
                let share = |value: &Option<Spanned<f64>>, most, usual| {
                    value.as_ref().map_or(Ok(usual), |value| number(value, 0.0, most))
                };
                let time = |value: &Option<Spanned<String>>, usual| value.as_ref().map_or(Ok(usual), delay);
                let count = |value: &Option<Spanned<u64>>, least, most, usual| {
                    value.as_ref().map_or(Ok(usual), |value| whole(value, least, most))
                };
                let habits = Habits {
                    turns: count(&self.turns, 1, 10_000, 8)? as u32,
                    tool_rounds: share(&self.tool_rounds, 100.0, 1.5)?,
                    think_seconds: time(&self.think_time, 5.0)?,
                    think_spread: share(&self.think_spread, 5.0, 0.8)?,
                    tool_seconds: time(&self.tool_time, 0.5)?,
                    compact_every: count(&self.compact_turns, 0, 10_000, 6)? as u32,
                    unary_compact_share: share(&self.unary_compact_share, 1.0, 0.25)?,
                    turn_bytes: count(&self.turn_bytes, 16, 1 << 20, 2_000)? as usize,
                    websocket_share: share(&self.websocket_share, 1.0, 0.5)?,
                };
                vec![stage(name, Pace::Sessions { seconds: length(&self.duration, "duration")?, habits })]
            }
            _ => {
                let known = "closed, constant-rate, ramping-rate, spike, soak or sessions";
                return Err(Problem::new(&self.executor.span(), format!("an executor is {known}")));
            }
        })
    }

    /// Refuses keys that mean nothing to this executor: whoever wrote them expected something else.
    fn only_known(&self, executor: &str) -> Result<(), Problem> {
        fn at<T>(value: &Option<Spanned<T>>) -> Option<usize> {
            value.as_ref().map(|value| value.span().start)
        }
        let sessions: &[&str] = &["sessions"];
        let keys: [(Option<usize>, &[&str]); 16] = [
            (at(&self.requests), &["closed"]),
            (at(&self.rate), &["constant-rate", "ramping-rate", "spike", "soak"]),
            (at(&self.from_rate), &["ramping-rate"]),
            (at(&self.peak_rate), &["spike"]),
            (at(&self.peak_duration), &["spike"]),
            (at(&self.recovery_duration), &["spike"]),
            (at(&self.arrivals), &["constant-rate", "ramping-rate", "spike", "soak"]),
            (at(&self.turns), sessions),
            (at(&self.tool_rounds), sessions),
            (at(&self.think_time), sessions),
            (at(&self.think_spread), sessions),
            (at(&self.tool_time), sessions),
            (at(&self.compact_turns), sessions),
            (at(&self.unary_compact_share), sessions),
            (at(&self.turn_bytes), sessions),
            (at(&self.websocket_share), sessions),
        ];
        for (at, executors) in keys {
            if let (Some(at), false) = (at, executors.contains(&executor)) {
                let executors = executors.join(", ");
                let text = format!("this means nothing to executor {executor}, only to {executors}");
                return Err(Problem { at, text });
            }
        }
        Ok(())
    }
}

impl TrafficTable {
    /// This over what is usual.
    fn over(&self, mut traffic: Traffic) -> Result<Traffic, Problem> {
        fn set<T, V>(
            to: &mut T,
            value: &Option<Spanned<V>>,
            read: impl FnOnce(&Spanned<V>) -> Result<T, Problem>,
        ) -> Result<(), Problem> {
            if let Some(value) = value {
                *to = read(value)?;
            }
            Ok(())
        }
        set(&mut traffic.route, &self.route, |route| match route.as_ref().as_str() {
            "responses" => Ok(Route::Responses),
            "compact" => Ok(Route::Compact),
            "websocket" => Ok(Route::Websocket),
            _ => Err(Problem::new(&route.span(), "a route is responses, compact or websocket")),
        })?;
        set(&mut traffic.compact_every, &self.compact_every, |value| whole(value, 0, u64::MAX))?;
        let events = u64::from(content::MAX_EVENTS);
        set(&mut traffic.events, &self.events, |value| Ok(whole(value, 0, events)? as u32))?;
        let bytes = u64::from(content::MAX_BYTES);
        set(&mut traffic.bytes, &self.bytes, |value| Ok(whole(value, 0, bytes)? as u32))?;
        set(&mut traffic.crlf, &self.line_end, |value| match value.as_ref().as_str() {
            "crlf" => Ok(true),
            "lf" => Ok(false),
            _ => Err(Problem::new(&value.span(), "lines end with crlf or lf")),
        })?;
        traffic.in_one_write = self.in_one_write.unwrap_or(traffic.in_one_write);
        traffic.compressed = self.compressed.unwrap_or(traffic.compressed);
        set(&mut traffic.first_byte, &self.first_byte, delay)?;
        set(&mut traffic.gap, &self.gap, delay)?;
        set(&mut traffic.jitter, &self.jitter, delay)?;
        set(&mut traffic.slow_every, &self.slow_every, |value| whole(value, 0, u64::MAX))?;
        set(&mut traffic.slow_by, &self.slow_by, delay)?;
        set(&mut traffic.body_bytes, &self.body_bytes, |value| {
            Ok(whole(value, 0, plan::MAX_BODY as u64)? as usize)
        })?;
        set(&mut traffic.conversations, &self.conversations, |value| whole(value, 0, u64::MAX))?;
        set(&mut traffic.read_delay, &self.read_delay, delay)?;
        set(&mut traffic.read_size, &self.read_size, |value| Ok(whole(value, 1, 64 * 1024)? as usize))?;
        set(&mut traffic.turns_per_socket, &self.turns_per_socket, |value| {
            Ok(whole(value, 1, 1 << 20)? as u32)
        })?;
        set(&mut traffic.timeout, &self.timeout, |value| {
            let timeout = duration(value)?;
            if timeout < Duration::from_millis(1) || timeout > Duration::from_secs(3600) {
                return Err(Problem::new(&value.span(), "a timeout is between 1ms and 1h"));
            }
            Ok(timeout.as_secs_f64())
        })?;
        if let Some(faults) = &self.faults {
            traffic.faults = faults.iter().map(fault).collect::<Result<_, _>>()?;
            let total: f64 = traffic.faults.iter().map(|(_, share)| share).sum();
            if let (true, Some(first)) = (total > 1.0, faults.values().next()) {
                return Err(Problem::new(&first.span(), "the shares of all faults are at most 1 together"));
            }
        }
        if !traffic.shape().is_allowed() {
            let at = self.bytes.as_ref().or(self.events.as_ref()).map_or(0, |value| value.span().start);
            let text = format!("a reply has at most {} bytes", content::MAX_TOTAL);
            return Err(Problem { at, text });
        }
        Ok(traffic)
    }
}

/// The names of faults in a scenario.
const FAULTS: [(&str, Fault); 11] = [
    ("unavailable", Fault::Unavailable),
    ("rate-limited", Fault::RateLimited),
    ("usage-limit", Fault::UsageLimit),
    ("failed", Fault::Failed),
    ("insufficient-quota", Fault::InsufficientQuota),
    ("cut", Fault::Cut),
    ("reset", Fault::Reset),
    ("wrong-byte", Fault::WrongByte),
    ("no-terminal", Fault::NoTerminal),
    ("silence", Fault::Silence),
    ("double", Fault::Double),
];

fn fault((name, share): (&String, &Spanned<f64>)) -> Result<(char, f64), Problem> {
    let Some((_, fault)) = FAULTS.iter().find(|(known, _)| known == name) else {
        let known = FAULTS.map(|(name, _)| name).join(", ");
        return Err(Problem::new(&share.span(), format!("no fault is called {name}; there are {known}")));
    };
    Ok((char::from(fault.letter()), number(share, 0.0, 1.0)?))
}

/// A delay, in seconds.
fn delay(value: &Spanned<String>) -> Result<f64, Problem> {
    let delay = duration(value)?;
    if delay > content::MAX_DELAY {
        return Err(Problem::new(&value.span(), "a delay is between 0s and 2m"));
    }
    Ok(delay.as_secs_f64())
}

fn number(value: &Spanned<f64>, least: f64, most: f64) -> Result<f64, Problem> {
    let number = *value.as_ref();
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(Problem::new(&value.span(), format!("{number} is not between {least} and {most}")))
}

fn whole(value: &Spanned<u64>, least: u64, most: u64) -> Result<u64, Problem> {
    let number = *value.as_ref();
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(Problem::new(&value.span(), format!("{number} is not between {least} and {most}")))
}

fn duration(value: &Spanned<String>) -> Result<Duration, Problem> {
    parse_duration(value.as_ref()).map_err(|text| Problem::new(&value.span(), text))
}
