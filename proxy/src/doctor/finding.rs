//! A finding: something that is wrong, and the order in which findings are told.

use serde_json::{Map, Value};

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Admission,
    Auth,
    Continuation,
    Persistence,
    Quota,
    Transport,
    /// The home, the settings and what stands around the proxy; of a log only what is new about its traffic.
    Setup,
}

impl Class {
    /// Those that are counted by the lines of a log.
    pub(crate) const OF_LOGS: [Self; 6] =
        [Self::Admission, Self::Auth, Self::Continuation, Self::Persistence, Self::Quota, Self::Transport];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Auth => "auth",
            Self::Continuation => "continuation",
            Self::Persistence => "persistence",
            Self::Quota => "quota",
            Self::Transport => "transport",
            Self::Setup => "setup",
        }
    }
}

/// How bad it is. Greater is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Nobody was hurt; it is not as it should be.
    Notice,
    /// It costs time or room, or will soon cost a request.
    Warning,
    /// Requests fail, or data is lost.
    Problem,
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    /// What it is called; the rule's name.
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    pub(crate) severity: Severity,
    /// In a few words.
    pub(crate) title: &'static str,
    /// What happened, for the person.
    pub(crate) sentence: String,
    /// The one command that helps or tells more.
    pub(crate) next: String,
    /// The lines that tell of it.
    pub(crate) count: Option<u64>,
    /// When the first and the last of them were written, in milliseconds since the epoch.
    pub(crate) span: Option<(i64, i64)>,
    /// It has ended since.
    pub(crate) is_over: bool,
    /// Nothing would tell its end, so that it is over when its cause is.
    pub(crate) ends_with_cause: bool,
    /// Findings of which this may be a consequence, the likeliest first.
    pub(crate) because_of: &'static [&'static str],
    /// The fields of the last line.
    pub(crate) fields: Map<String, Value>,
}

/// A finding in its place.
#[derive(Debug, Clone)]
pub(crate) struct Ranked {
    pub(crate) finding: Finding,
    /// The name of the finding of which it is a consequence.
    pub(crate) cause: Option<&'static str>,
}

/// A path or another text as one word of a command: a shell takes nothing in it for more.
pub(crate) fn word(text: impl AsRef<std::ffi::OsStr>) -> String {
    let text = text.as_ref().to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,=%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A consequence may show so long after the last sign of its cause.
const SHOWS_WITHIN: i64 = 60_000;

/// And so long before the first: what several tasks meet at once they log in any order.
const SHOWS_BEFORE: i64 = 5_000;

/// Puts findings in order: the worst and latest first, and behind each what comes of it. A cause stands as
/// high as the worst of its consequences.
pub(crate) fn rank(mut findings: Vec<Finding>, now: i64) -> Vec<Ranked> {
    let causes: Vec<Option<usize>> = findings.iter().map(|finding| cause(&findings, finding)).collect();
    for (at, cause) in causes.iter().enumerate() {
        findings[at].is_over |=
            findings[at].ends_with_cause && cause.is_some_and(|cause| findings[cause].is_over);
    }
    let mut scores: Vec<i64> = findings.iter().map(|finding| score(finding, now)).collect();
    for (at, cause) in causes.iter().enumerate() {
        if let Some(cause) = *cause {
            scores[cause] = scores[cause].max(scores[at]);
        }
    }
    let name = |at: usize| findings[at].name;
    let mut order: Vec<usize> = (0..findings.len()).collect();
    order.sort_by_key(|&at| {
        let root = causes[at].unwrap_or(at);
        (-scores[root], name(root), causes[at].is_some(), -score(&findings[at], now), name(at))
    });
    let cause = |at: usize| causes[at].map(name);
    order.iter().map(|&at| Ranked { finding: findings[at].clone(), cause: cause(at) }).collect()
}

/// The root of a finding, followed from cause to cause.
fn cause(findings: &[Finding], of: &Finding) -> Option<usize> {
    let direct = |of: &Finding| {
        of.because_of
            .iter()
            .find_map(|name| findings.iter().position(|cause| cause.name == *name && explains(cause, of)))
    };
    let mut root = direct(of)?;
    for _ in 0..findings.len() {
        match direct(&findings[root]) {
            Some(next) if findings[next].name != of.name => root = next,
            _ => break,
        }
    }
    Some(root)
}

/// Whether the times allow it. What has none, such as a full disk, is so now and may have been then.
fn explains(cause: &Finding, of: &Finding) -> bool {
    match (cause.span, of.span) {
        (Some((began, ended)), Some((first, last))) => {
            began <= last + SHOWS_BEFORE && first <= ended + SHOWS_WITHIN
        }
        _ => true,
    }
}

/// By severity; then by how much there is of it, and by how long ago it was.
fn score(finding: &Finding, now: i64) -> i64 {
    let severity = 100 * finding.severity as i64;
    let impact = i64::from(finding.count.unwrap_or(1).max(1).ilog2()).min(20);
    let minutes = finding.span.map_or(0, |(_, last)| now.saturating_sub(last).max(0) / 60_000);
    let recency = 60 / (1 + minutes / 10);
    // What is over stands behind all that is not.
    let is_over = if finding.is_over { 300 } else { 0 };
    severity + impact + recency - is_over
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &'static str, severity: Severity, last: i64) -> Finding {
        Finding {
            name,
            class: Class::Transport,
            severity,
            title: name,
            sentence: String::new(),
            next: String::new(),
            count: Some(1),
            span: Some((last, last)),
            is_over: false,
            ends_with_cause: false,
            because_of: &[],
            fields: Map::new(),
        }
    }

    fn names(findings: Vec<Finding>) -> Vec<&'static str> {
        rank(findings, 3_600_000).into_iter().map(|ranked| ranked.finding.name).collect()
    }

    #[test]
    fn the_worst_and_latest_comes_first_and_what_is_over_last() {
        let over = Finding { is_over: true, ..finding("over", Severity::Problem, 3_600_000) };
        let many = Finding { count: Some(1000), ..finding("many", Severity::Warning, 3_600_000) };
        let new = finding("new", Severity::Warning, 3_600_000);
        let old = finding("old", Severity::Warning, 0);
        let worst = finding("worst", Severity::Problem, 0);
        assert_eq!(names(vec![over, old, new, many, worst]), ["worst", "many", "new", "old", "over"]);
    }

    #[test]
    fn a_cause_stands_before_its_consequences_and_as_high() {
        let refused = finding("refused", Severity::Notice, 3_500_000);
        let because = |name, of| Finding { because_of: of, ..finding(name, Severity::Problem, 3_510_000) };
        let breaker = because("breaker", &["refused"]);
        let failed = because("failed", &["breaker"]);
        let other = finding("other", Severity::Warning, 3_600_000);
        let ranked = rank(vec![other, failed, breaker, refused], 3_600_000);
        let told: Vec<_> = ranked.iter().map(|ranked| (ranked.finding.name, ranked.cause)).collect();
        let cause = Some("refused");
        assert_eq!(told, [("refused", None), ("breaker", cause), ("failed", cause), ("other", None)]);
    }

    #[test]
    fn what_comes_long_after_or_before_is_no_consequence() {
        let because = |at| Finding { because_of: &["cause"], ..finding("late", Severity::Warning, at) };
        for (at, expected) in [
            (1_000_000, Some("cause")),
            (1_059_000, Some("cause")),
            (1_070_000, None),
            (996_000, Some("cause")),
            (994_000, None),
            (1, None),
        ] {
            let ranked = rank(vec![because(at), finding("cause", Severity::Notice, 1_000_000)], 3_600_000);
            let late = ranked.iter().find(|ranked| ranked.finding.name == "late").unwrap();
            assert_eq!(late.cause, expected, "{at}");
        }
    }

    #[test]
    fn what_comes_of_something_is_over_with_it() {
        let cause = Finding { is_over: true, ..finding("cause", Severity::Problem, 0) };
        let effect = |ends_with_cause| Finding {
            ends_with_cause,
            because_of: &["cause"],
            ..finding("effect", Severity::Problem, 0)
        };
        for ends in [true, false] {
            let ranked = rank(vec![effect(ends), cause.clone()], 0);
            assert_eq!((ranked[1].finding.name, ranked[1].finding.is_over), ("effect", ends));
        }
    }

    #[test]
    fn what_a_shell_could_take_for_more_than_a_word_is_quoted() {
        let cases =
            [("/home/me/.prodex", "/home/me/.prodex"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")];
        for (text, expected) in cases {
            assert_eq!(word(text), expected);
        }
    }

    #[test]
    fn findings_that_name_each_other_are_told() {
        let one = Finding { because_of: &["two"], ..finding("one", Severity::Notice, 0) };
        let two = Finding { because_of: &["one"], ..finding("two", Severity::Notice, 0) };
        assert_eq!(names(vec![one, two]).len(), 2);
    }
}
