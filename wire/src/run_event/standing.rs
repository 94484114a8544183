//! What a run log says of a profile that could have been chosen: the candidates of `selection_snapshot`.
//!
//! It is all that decides and does not change with every request, and every time in it is absolute, in
//! seconds since the epoch: a choice can be made again from it, and ages can be told at any time. What has
//! its usual value is left out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What is known of a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Its name.
    pub name: Arc<str>,
    /// Whether its person has paused it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_paused: bool,
    /// Until when it is, if its person said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<i64>,
    /// Whether this run may not use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_out_of_scope: bool,
    /// Whether its person prefers it to others that are as good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_preferred: bool,
    /// Whether its credentials are not good, so that only a new login helps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_parked: bool,
    /// Until when its account is used up, as the upstream's refusal said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exhausted_until: Option<i64>,
    /// The windows of its quota, as last stated. Each is an array in the log, since most of what is learnt are
    /// windows: its seconds, what remains, when it resets, when that was said, and by whom, unless it was a response.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "rows")]
    pub windows: Vec<QuotaWindow>,
    /// Its circuits that are not closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub circuits: Vec<OpenCircuit>,
}

impl Standing {
    /// A profile of which nothing is known.
    #[must_use]
    pub fn new(name: Arc<str>) -> Self {
        Self {
            name,
            is_paused: false,
            paused_until: None,
            is_out_of_scope: false,
            is_preferred: false,
            is_parked: false,
            exhausted_until: None,
            windows: Vec::new(),
            circuits: Vec::new(),
        }
    }

    /// Whether its person has paused it for now.
    #[must_use]
    pub fn is_paused_at(&self, at: i64) -> bool {
        self.is_paused && self.paused_until.is_none_or(|until| until > at)
    }

    /// Whether the other says the same, but for evidence that was stated anew less than `seconds` later.
    #[must_use]
    pub fn is_same_within(&self, other: &Self, seconds: i64) -> bool {
        let is_same = |(one, two): (&QuotaWindow, &QuotaWindow)| {
            let observed_at = one.observed_at;
            (one.observed_at - two.observed_at).abs() < seconds && *one == QuotaWindow { observed_at, ..*two }
        };
        self.name == other.name
            && self.is_paused == other.is_paused
            && self.paused_until == other.paused_until
            && self.is_out_of_scope == other.is_out_of_scope
            && self.is_preferred == other.is_preferred
            && self.is_parked == other.is_parked
            && self.exhausted_until == other.exhausted_until
            && self.circuits == other.circuits
            && self.windows.len() == other.windows.len()
            && self.windows.iter().zip(&other.windows).all(is_same)
    }
}

/// A quota window, and how it is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaWindow {
    /// How long it is, in seconds, if the backend says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// How much of it is left, in percent, 0 to 100.
    pub remaining: f64,
    /// When it starts anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<i64>,
    /// Who said so: left out when it was a response.
    #[serde(default = "Source::usual", skip_serializing_if = "Source::is_usual")]
    pub source: Source,
    /// When it was said.
    pub observed_at: i64,
}

/// Windows as arrays without names.
mod rows {
    use serde::ser::SerializeSeq as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{QuotaWindow, Source};

    struct Row<'a>(&'a QuotaWindow);

    impl Serialize for Row<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let QuotaWindow { seconds, remaining, resets_at, source, observed_at } = self.0;
            let mut row = serializer.serialize_seq(None)?;
            row.serialize_element(seconds)?;
            row.serialize_element(remaining)?;
            row.serialize_element(resets_at)?;
            row.serialize_element(observed_at)?;
            if !source.is_usual() {
                row.serialize_element(source)?;
            }
            row.end()
        }
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Read {
        Usual(Option<u64>, f64, Option<i64>, i64),
        Of(Option<u64>, f64, Option<i64>, i64, Source),
    }

    pub(super) fn serialize<S: Serializer>(
        windows: &[QuotaWindow],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(windows.iter().map(Row))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<QuotaWindow>, D::Error> {
        let read = Vec::<Read>::deserialize(deserializer)?;
        let windows = read.into_iter().map(|read| {
            let (seconds, remaining, resets_at, observed_at, source) = match read {
                Read::Usual(seconds, remaining, resets_at, at) => {
                    (seconds, remaining, resets_at, at, Source::usual())
                }
                Read::Of(seconds, remaining, resets_at, at, source) => {
                    (seconds, remaining, resets_at, at, source)
                }
            };
            QuotaWindow { seconds, remaining, resets_at, source, observed_at }
        });
        Ok(windows.collect())
    }
}

/// Where evidence comes from, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The upstream's refusal of a request.
    Refusal,
    /// The head or an event of a response.
    Response,
    /// The usage endpoint.
    Usage,
    /// A guess.
    Estimate,
}

impl Source {
    /// Where most of it comes from.
    fn usual() -> Self {
        Self::Response
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_usual(&self) -> bool {
        *self == Self::usual()
    }

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refusal => "refusal",
            Self::Response => "response",
            Self::Usage => "usage",
            Self::Estimate => "estimate",
        }
    }
}

/// A circuit that is not closed: open until a time, then half open until it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenCircuit {
    /// What does not pass.
    pub of: CircuitOf,
    /// When it opened.
    pub since: i64,
    /// Until when nothing passes. Later one request may, to see whether it would be served.
    pub until: i64,
    /// When it counts as closed though nobody has tried.
    pub forgotten_at: i64,
    /// Until when no further request may try, because one is trying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probing_until: Option<i64>,
}

/// What a circuit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CircuitOf {
    /// The account's credentials, and with them everything.
    Credentials,
    /// Model turns over HTTP.
    Responses,
    /// Compactions.
    Compact,
    /// WebSockets.
    Websocket,
    /// Everything else.
    Standard,
}

impl CircuitOf {
    /// The circuit of calls by the route's name in the log.
    #[must_use]
    pub fn route(name: &str) -> Self {
        match name {
            "responses" => Self::Responses,
            "compact" => Self::Compact,
            "websocket" => Self::Websocket,
            _ => Self::Standard,
        }
    }

    /// Its name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Responses => "responses",
            Self::Compact => "compact",
            Self::Websocket => "websocket",
            Self::Standard => "standard",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_is_written_shortly_and_read_back() {
        let mut standing = Standing::new("work".into());
        assert_eq!(serde_json::to_string(&standing).unwrap(), r#"{"name":"work"}"#);
        standing.is_parked = true;
        standing.windows = vec![QuotaWindow {
            seconds: Some(18_000),
            remaining: 12.5,
            resets_at: None,
            source: Source::Response,
            observed_at: 7,
        }];
        standing.windows.push(QuotaWindow { seconds: None, source: Source::Usage, ..standing.windows[0] });
        let of = CircuitOf::Responses;
        standing.circuits =
            vec![OpenCircuit { of, since: 1, until: 2, forgotten_at: 3, probing_until: None }];
        let text = serde_json::to_string(&standing).unwrap();
        insta::assert_snapshot!(text, @r#"{"name":"work","is_parked":true,"windows":[[18000,12.5,null,7],[null,12.5,null,7,"usage"]],"circuits":[{"of":"responses","since":1,"until":2,"forgotten_at":3}]}"#);
        assert_eq!(serde_json::from_str::<Standing>(&text).unwrap(), standing);
        assert!(serde_json::from_str::<Standing>(r#"{"name":"x","is_odd":true}"#).is_err());
    }

    #[test]
    fn evidence_that_is_stated_again_soon_is_the_same() {
        let window = |observed_at, remaining| QuotaWindow {
            seconds: None,
            remaining,
            resets_at: None,
            source: Source::Usage,
            observed_at,
        };
        let standing = |window| Standing { windows: vec![window], ..Standing::new("x".into()) };
        let first = standing(window(100, 50.0));
        assert!(first.is_same_within(&standing(window(159, 50.0)), 60));
        assert!(!first.is_same_within(&standing(window(160, 50.0)), 60));
        assert!(!first.is_same_within(&standing(window(100, 49.0)), 60));
        assert!(!first.is_same_within(&Standing { is_paused: true, ..first.clone() }, 60));
    }
}
