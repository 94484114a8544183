//! What a driver is told to do: where, in which stages, how fast, and when to stop.
//!
//! A plan is complete and explicit: scenario files, flags and defaults have become one. The same plan with
//! the same seed means the same requests at the same times. It travels as JSON to a driver that is a program
//! of its own.

use std::net::SocketAddr;
use std::time::Duration;

use mock_upstream::content::{Content, Fault, LineEnd, Shape};
use serde::{Deserialize, Serialize};

use super::result::Route;

/// Most requests at once.
pub const MAX_CONCURRENCY: usize = 20_000;

/// Most requests of a stage; a run that has sent more in all ends.
pub const MAX_REQUESTS: u64 = 100_000_000;

/// Longest stage.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// Highest rate, in requests per second.
pub const MAX_RATE: f64 = 1_000_000.0;

/// Most bytes that a request's body is filled up to.
pub const MAX_BODY: usize = 16 << 20;

/// Most bytes that a run receives, unless it is told otherwise.
pub const DEFAULT_BYTES: u64 = 1 << 40;

/// What a driver does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The scenario's name.
    pub scenario: String,
    /// What all random choices are made from.
    pub seed: u64,
    /// Threads that drive.
    pub threads: usize,
    /// Where to.
    pub target: Target,
    /// One after the other.
    pub stages: Vec<Stage>,
    /// Most bytes that may be received; then the run ends.
    pub max_bytes: u64,
    /// Length of a tick in seconds.
    pub tick_seconds: f64,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What it is called in reports.
    pub name: String,
    /// Where to connect.
    pub address: SocketAddr,
    /// What the `Host` field says.
    pub host: String,
    /// What stands before `/backend-api` in every path: a proxy's capability. Without a slash at its end.
    pub prefix: String,
    /// The client's account and its token. A pooling proxy puts another in their place.
    pub account: String,
    /// The token.
    pub token: String,
}

impl Target {
    /// The target of a base URL, which is plain HTTP and names an address.
    ///
    /// # Errors
    /// Says what is wrong with the URL.
    pub fn of_url(name: &str, url: &str) -> Result<Self, String> {
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| format!("`{url}` does not begin with http://, and the driver speaks no TLS"))?;
        let (host, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let with_port = if host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let mut addresses = std::net::ToSocketAddrs::to_socket_addrs(&with_port)
            .map_err(|error| format!("`{host}` of `{url}` has no address: {error}"))?;
        let address = addresses.next().ok_or_else(|| format!("`{host}` of `{url}` has no address"))?;
        if prefix.contains(|each: char| each.is_control() || each == ' ' || each == '?' || each == '#') {
            return Err(format!("the path of `{url}` is none"));
        }
        let prefix = prefix.trim_end_matches('/').to_owned();
        let (account, token) = ("load-client".to_owned(), "load-client".to_owned());
        Ok(Self { name: name.to_owned(), address, host: host.to_owned(), prefix, account, token })
    }

    /// The same with this account in every request: for a target that knows accounts.
    #[must_use]
    pub fn with_account(self, account: &mock_upstream::Account) -> Self {
        Self { account: account.id.clone(), token: account.access_token(), ..self }
    }
}

/// A part of a run in which one thing is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// The executor's name, for reports.
    pub executor: String,
    /// How requests come.
    pub pace: Pace,
    /// Most requests at once.
    pub concurrency: usize,
    /// What they are.
    pub traffic: Traffic,
}

/// How requests come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// Each of `concurrency` callers sends the next when the last is over, so many altogether or for so long.
    Closed {
        /// How many.
        requests: Option<u64>,
        /// For how long, in seconds.
        seconds: Option<f64>,
    },
    /// They come whether or not the last are over.
    Open {
        /// How many per second at the beginning.
        from: f64,
        /// How many per second at the end.
        to: f64,
        /// For how long, in seconds.
        seconds: f64,
        /// Whether they come at random, as those of many independent people do; else evenly.
        poisson: bool,
    },
    /// Agents have conversations, and think in between.
    Sessions {
        /// For how long, in seconds.
        seconds: f64,
        /// What a conversation is.
        habits: Habits,
    },
}

/// What an agent's conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Habits {
    /// Turns of a conversation, on average; each is ended by chance.
    pub turns: u32,
    /// Calls of tools within a turn, on average: each is a further request.
    pub tool_rounds: f64,
    /// The median time that a person thinks between two turns, in seconds.
    pub think_seconds: f64,
    /// How far it scatters: the standard deviation of its logarithm.
    pub think_spread: f64,
    /// The time that a tool takes, in seconds.
    pub tool_seconds: f64,
    /// After how many turns the history is compacted; never if zero.
    pub compact_every: u32,
    /// Share of the agents that compact by a call of its own, as Codex did up to 0.149; the others ask for it on
    /// the ordinary route, as newer ones do.
    pub unary_compact_share: f64,
    /// Bytes that each turn adds to the history.
    pub turn_bytes: usize,
    /// Share of the agents that use a WebSocket, of one.
    pub websocket_share: f64,
}

/// What requests are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Where they go.
    pub route: Route,
    /// Every so many is a compaction; none if zero.
    pub compact_every: u64,
    /// Content events of a reply.
    pub events: u32,
    /// Letters in each, or in a unary reply.
    pub bytes: u32,
    /// Whether lines end with CR LF.
    pub crlf: bool,
    /// Whether the mock sends a whole stream with one write.
    pub in_one_write: bool,
    /// How long the mock waits before it answers, in seconds.
    pub first_byte: f64,
    /// How long between two events, in seconds.
    pub gap: f64,
    /// Up to how much longer, in seconds.
    pub jitter: f64,
    /// Every so many requests the mock waits longer before it answers; none if zero.
    pub slow_every: u64,
    /// How much longer, in seconds.
    pub slow_by: f64,
    /// Faults by their letter, with the share of requests that they strike.
    pub faults: Vec<(char, f64)>,
    /// Bytes that a request's body is filled up to.
    pub body_bytes: usize,
    /// Whether bodies are compressed with zstd.
    pub compressed: bool,
    /// How many conversations the requests belong to; each is one of its own if zero.
    pub conversations: u64,
    /// How long the client waits after each read, in seconds.
    pub read_delay: f64,
    /// Most bytes that it reads at once.
    pub read_size: usize,
    /// How long a request may take, in seconds.
    pub timeout: f64,
    /// Turns on one WebSocket before another is opened.
    pub turns_per_socket: u32,
}

impl Traffic {
    /// What the mock is asked for, without fault.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let line_end = if self.crlf { LineEnd::CrLf } else { LineEnd::Lf };
        Shape {
            events: self.events,
            bytes: self.bytes,
            line_end,
            in_one_write: self.in_one_write,
            content: Content::Answer,
        }
    }

    /// The faults with their shares, which are below one together.
    #[must_use]
    pub fn faults(&self) -> Vec<(Fault, f64)> {
        let fault = |letter: char| Fault::ALL.into_iter().find(|fault| char::from(fault.letter()) == letter);
        self.faults.iter().filter_map(|(letter, share)| Some((fault(*letter)?, *share))).collect()
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            route: Route::Responses,
            compact_every: 0,
            events: 20,
            bytes: 200,
            crlf: true,
            in_one_write: false,
            first_byte: 0.0,
            gap: 0.0,
            jitter: 0.0,
            slow_every: 0,
            slow_by: 0.0,
            faults: Vec::new(),
            body_bytes: 1024,
            compressed: false,
            conversations: 32,
            read_delay: 0.0,
            read_size: 64 * 1024,
            timeout: 30.0,
            turns_per_socket: 20,
        }
    }
}

impl Plan {
    /// How long the stages that have a length take, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.stages.iter().map(Stage::seconds).sum()
    }

    /// What will happen, one line for each stage.
    #[must_use]
    pub fn outline(&self) -> String {
        let mut text = format!(
            "{}: seed {}, {} thread{}, to {} at {}{}\n",
            self.scenario,
            self.seed,
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            self.target.name,
            self.target.address,
            if self.target.prefix.is_empty() { "" } else { " (with a path before each route)" },
        );
        for stage in &self.stages {
            text.push_str("  ");
            text.push_str(&stage.outline());
            text.push('\n');
        }
        text
    }
}

impl Stage {
    /// How long it takes in seconds, if that is known before.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        match &self.pace {
            Pace::Closed { seconds, .. } => seconds.unwrap_or(0.0),
            Pace::Open { seconds, .. } | Pace::Sessions { seconds, .. } => *seconds,
        }
    }

    /// The rate at its end, where it has one.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        match &self.pace {
            Pace::Open { to, .. } => Some(*to),
            Pace::Closed { .. } | Pace::Sessions { .. } => None,
        }
    }

    /// How many requests it makes; none where that is not known before.
    #[must_use]
    pub fn requests(&self) -> Option<f64> {
        match &self.pace {
            Pace::Closed { requests, .. } => requests.map(|requests| requests as f64),
            Pace::Open { from, to, seconds, .. } => Some(f64::midpoint(*from, *to) * seconds),
            Pace::Sessions { .. } => None,
        }
    }

    /// Whether some of its requests go over WebSockets.
    #[must_use]
    pub fn has_sockets(&self) -> bool {
        let agents = matches!(&self.pace, Pace::Sessions { habits, .. } if habits.websocket_share > 0.0);
        agents || self.traffic.route == Route::Websocket
    }

    fn outline(&self) -> String {
        let Self { name, executor, concurrency, traffic, .. } = self;
        let pace = match &self.pace {
            Pace::Closed { requests, seconds } => {
                let requests = requests.map(|requests| format!("{requests} requests"));
                let seconds = seconds.map(|seconds| format!("{seconds} s"));
                let limits: Vec<String> = requests.into_iter().chain(seconds).collect();
                format!("{} by {concurrency} at once", limits.join(" or "))
            }
            Pace::Open { from, to, seconds, poisson } => {
                let rate = if from == to { format!("{from}/s") } else { format!("{from}/s to {to}/s") };
                let random = if *poisson { " at random" } else { "" };
                format!("{rate}{random} for {seconds} s, at most {concurrency} at once")
            }
            Pace::Sessions { seconds, habits } => format!(
                "{concurrency} agents for {seconds} s, {} turns each, thinking {} s",
                habits.turns, habits.think_seconds
            ),
        };
        let faults: Vec<String> =
            traffic.faults.iter().map(|(letter, share)| format!("{letter}:{share}")).collect();
        let faults = if faults.is_empty() { String::new() } else { format!("; faults {}", faults.join(" ")) };
        format!(
            "{name} ({executor}): {pace}; {} of {} x {} B{faults}",
            traffic.route.name(),
            traffic.events,
            traffic.bytes
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address_and_a_prefix() {
        let target = Target::of_url("proxy", "http://127.0.0.1:8080/k/abc/").unwrap();
        assert_eq!((target.host.as_str(), target.prefix.as_str()), ("127.0.0.1:8080", "/k/abc"));
        for url in ["https://127.0.0.1:1", "127.0.0.1:1", "http://nowhere.invalid:1", "http://[::1/a b"] {
            Target::of_url("proxy", url).unwrap_err();
        }
    }
}
