//! Settings that limit what is in flight, as they go together: what an unset one is, and what contradicts.

use std::collections::HashMap;

use super::{Config, ConfigError};

/// Where each setting that was set got its value: file and line, variable, or flag.
pub(super) type Places = HashMap<String, String>;

/// How many requests may be in flight, in all lanes and in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLimits {
    /// In all lanes.
    pub active: usize,
    /// Turns over HTTP.
    pub responses: usize,
    /// Compactions.
    pub compact: usize,
    /// Turns on WebSockets.
    pub websocket: usize,
    /// Everything else.
    pub standard: usize,
}

/// The share of all places that calls beside the turns have, if nothing is said about it: one of so many.
const STANDARD_SHARE: usize = 8;

/// With how many requests in flight others are preferred to a profile, if nothing is said about it: more
/// than one person's agents have at once, and far from what costs an account its cache.
const SOFT_LIMIT: usize = 32;

impl Config {
    /// How many requests may be in flight.
    #[must_use]
    pub fn lane_limits(&self) -> LaneLimits {
        let active = self.max_active;
        let standard = self.max_standard.unwrap_or((active / STANDARD_SHARE).max(1));
        let model = active.saturating_sub(standard);
        LaneLimits {
            active,
            responses: self.max_responses.unwrap_or(model),
            compact: self.max_compact.unwrap_or(model),
            websocket: self.max_websocket_turns.unwrap_or(model),
            standard,
        }
    }

    /// With how many requests in flight others are preferred to a profile.
    #[must_use]
    pub fn soft_limit(&self) -> usize {
        self.profile_soft_limit.unwrap_or(SOFT_LIMIT).min(self.profile_hard_limit)
    }
}

/// Finds limits that contradict each other.
///
/// # Errors
/// For the first of them, with the place of what was set.
pub(super) fn check(config: &Config, places: &Places) -> Result<(), ConfigError> {
    if config.otlp_endpoint.is_some() && !cfg!(feature = "otlp") {
        let name = "otlp_endpoint";
        return Err(ConfigError::Value {
            place: places.get(name).cloned().unwrap_or_default(),
            name,
            value: config.otlp_endpoint.as_ref().map(ToString::to_string).unwrap_or_default(),
            problem: "this prodex sends no spans: build one with `cargo build --features otlp`".to_owned(),
            range: "nothing",
        });
    }
    let active = config.max_active;
    let at_most = |name, value: Option<usize>, other, most, problem| match value {
        Some(value) if value > most => Err(conflict(places, (name, value), (other, most), problem)),
        _ => Ok(()),
    };
    for (name, value) in [
        ("max_responses", config.max_responses),
        ("max_compact", config.max_compact),
        ("max_websocket_turns", config.max_websocket_turns),
    ] {
        at_most(name, value, "max_active", active, "a lane cannot have more places than there are")?;
    }
    if let Some(standard) = config.max_standard.filter(|standard| *standard >= active) {
        let problem = "it leaves no place for turns";
        let mut conflict = conflict(places, ("max_standard", standard), ("max_active", active), problem);
        if let ConfigError::Conflict { range, .. } = &mut conflict {
            *range = format!("1..={}", active - 1);
        }
        return Err(conflict);
    }
    let (file, total) = (config.log_file_size.bytes(), config.log_total_size.bytes());
    if file > total / 2 {
        let problem = "there must be room for the file that is written and the one before it";
        let mut conflict = conflict(places, ("log_file_size", file), ("log_total_size", total), problem);
        if let ConfigError::Conflict { range, .. } = &mut conflict {
            *range = format!("at most {} bytes", total / 2);
        }
        return Err(conflict);
    }
    let problem = "a profile would be full before others are preferred to it";
    at_most(
        "profile_soft_limit",
        config.profile_soft_limit,
        "profile_hard_limit",
        config.profile_hard_limit,
        problem,
    )
}

/// Two values that do not go together, at the place of the first, or of the second if only that was set.
fn conflict(
    places: &Places,
    (name, value): (&'static str, usize),
    (other, other_value): (&'static str, usize),
    problem: &'static str,
) -> ConfigError {
    let place = places.get(name).or_else(|| places.get(other)).cloned();
    let (place, range) = (place.unwrap_or_else(|| "default".to_owned()), format!("1..={other_value}"));
    ConfigError::Conflict { place, name, value, other, other_value, problem, range }
}
