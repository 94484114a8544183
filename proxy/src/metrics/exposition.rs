//! The text in which Prometheus reads metrics: families of samples, each with its labels.
//!
//! The format is that of its documentation, "Exposition formats", version 0.0.4.

use std::fmt::Write as _;

use super::histogram::{BOUNDS, Histogram};

/// The type of the text, for `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Is what it is at a moment.
    Gauge,
    /// Counts of values up to some bounds.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The labels of a sample: names, and what they are.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// A text of metrics.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let escaped = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing into memory cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {escaped}\n# TYPE {name} {}", kind.name());
        Family { page: self, name }
    }

    /// A family with one sample that has no labels.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

/// A family of samples.
#[derive(Debug)]
pub struct Family<'a> {
    page: &'a mut Page,
    name: &'static str,
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: f64) {
        self.line("", labels, None, value);
    }

    /// Adds the samples of a histogram of durations, in seconds.
    pub fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        let counts = histogram.cumulative();
        for (bound, count) in BOUNDS.iter().zip(counts) {
            self.line("_bucket", labels, Some(&format!("{}", *bound as f64 / 1e3)), count as f64);
        }
        let all = counts[BOUNDS.len()] as f64;
        self.line("_bucket", labels, Some("+Inf"), all);
        self.line("_sum", labels, None, histogram.sum());
        self.line("_count", labels, None, all);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: f64) {
        let out = &mut self.page.0;
        out.push_str(self.name);
        out.push_str(suffix);
        let bound = bound.map(|bound| ("le", bound));
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            let _ = write!(out, "{separator}{name}=\"");
            for character in value.chars() {
                match character {
                    '\\' => out.push_str("\\\\"),
                    '"' => out.push_str("\\\""),
                    '\n' => out.push_str("\\n"),
                    other => out.push(other),
                }
            }
            out.push('"');
            separator = ',';
        }
        if separator == ',' {
            out.push('}');
        }
        // Rust writes `inf`, and no exponent; Prometheus reads Go's numbers.
        let _ = match value {
            _ if value.is_nan() => writeln!(out, " NaN"),
            f64::INFINITY => writeln!(out, " +Inf"),
            f64::NEG_INFINITY => writeln!(out, " -Inf"),
            value => writeln!(out, " {value}"),
        };
    }
}
