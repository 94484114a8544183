//! The table as a person sees it.

use std::time::{Duration, Instant};

use wire::limits::{Limit, Window};

use super::*;
use crate::profile::Kind;
use crate::profile::quota::Quota;
use crate::profile::quota::probe::Usage;

fn entry(name: &str, plan: Option<&str>, quota: Quota, asked: Asked) -> Entry {
    Entry { name: name.to_owned(), kind: Some(Kind::Chatgpt), plan: plan.map(str::to_owned), quota, asked }
}

fn answered() -> Asked {
    Asked::Answered(Usage { windows: 2, is_reached: false })
}

fn window(used_percent: f64, seconds: u64, resets_at: i64) -> Window {
    Window { used_percent, length: Some(Duration::from_secs(seconds)), resets_at: Some(resets_at) }
}

fn quota(windows: &[Window], source: Source, now: Now) -> Quota {
    let mut quota = Quota::default();
    quota.observe(&[Limit { id: None, windows: windows.to_vec() }], source, now);
    quota
}

fn ago(now: Now, seconds: u64) -> Now {
    let unix = now.unix - i64::try_from(seconds).unwrap();
    Now { instant: now.instant.checked_sub(Duration::from_secs(seconds)).unwrap_or(now.instant), unix }
}

/// One of each kind of thing that there is to show.
fn entries(now: Now) -> Vec<Entry> {
    let (hour, day) = (3600, 86_400);
    let at = |seconds: i64| now.unix + seconds;
    let two =
        |five: f64, week: f64| [window(five, 18_000, at(3 * hour + 59)), window(week, 604_800, at(4 * day))];
    let mut busy = quota(&two(70.0, 34.2), Source::Response, ago(now, 1200));
    busy.observe(&[Limit { id: None, windows: two(80.0, 35.0).to_vec() }], Source::Response, ago(now, 5));
    let spark = Limit { id: Some("codex_spark".into()), windows: vec![window(99.5, 86_400, at(30))] };
    busy.observe(&[spark], Source::Usage, now);
    let mut refused = quota(&two(100.0, 50.0), Source::Refusal, ago(now, 130));
    refused.exhaust(Some(at(3 * hour)), ago(now, 130));
    let mut closed = Quota::default();
    closed.exhaust(None, ago(now, 10));
    let past =
        quota(&[window(96.0, 18_000, at(-10)), window(96.0, 604_800, at(90))], Source::Usage, ago(now, 7300));
    let reached = Asked::Answered(Usage { windows: 2, is_reached: true });
    vec![
        entry("busy", Some("plus"), busy, answered()),
        entry("refused", Some("enterprise\u{1b}[2J"), refused, reached),
        entry("closed", None, closed, answered()),
        entry(
            "a-rather-long-name-of-a-profile",
            Some("pro"),
            past,
            Asked::Failed("the upstream answered 503; try again later".into()),
        ),
        entry("nothing", None, Quota::default(), Asked::Failed("no\u{7}".into())),
        Entry { kind: Some(Kind::OpenAiKey), ..entry("key", None, Quota::default(), Asked::Not) },
    ]
}

#[test]
fn the_table_fits_a_terminal_and_says_what_is_known() {
    // Ages are taken off the monotonic clock, which may have begun just now.
    let now = Now { instant: Instant::now() + Duration::from_secs(86_400), unix: 1_800_000_000 };
    let table = render(&entries(now), true, false, now);
    insta::assert_snapshot!(table);
    let rows = table.split("\n\n").next().unwrap();
    assert!(rows.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(!table.contains(['\u{1b}', '\u{7}']), "nothing that a terminal would act upon");
}

#[test]
fn colours_change_nothing_but_the_colour() {
    let now = Now { instant: Instant::now() + Duration::from_secs(86_400), unix: 1_800_000_000 };
    let mut coloured = render(&entries(now), true, true, now);
    assert!(coloured.contains("\x1b[31mcritical\x1b[0m"), "{coloured}");
    for code in ["0", "2", "31", "32", "33", "1;31"] {
        coloured = coloured.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(coloured, render(&entries(now), true, false, now));
}

#[test]
fn amounts_are_never_rounded_up() {
    assert_eq!([0.0, 0.4, 1.0, 99.9, 100.0].map(percent), ["0%", "<1%", "1%", "99%", "100%"]);
    let texts = [-5, 59, 60, 3600, 86_399, 90_000].map(duration);
    assert_eq!(texts, ["<1m", "<1m", "1m", "1h 0m", "23h 59m", "1d 1h"]);
}
