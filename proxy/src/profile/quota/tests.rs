//! Which evidence counts, by example, and what holds whatever is observed.

use super::*;
use proptest::prelude::*;

const FIVE_HOURS: u64 = 5 * 3600;
const WEEK: u64 = 7 * 24 * 3600;

fn at(unix: i64) -> Now {
    Now { instant: Instant::now(), unix }
}

/// The same moment by both clocks, so much later.
fn later(now: Now, seconds: u64) -> Now {
    let unix = now.unix + i64::try_from(seconds).unwrap();
    Now { instant: now.instant + Duration::from_secs(seconds), unix }
}

fn window(used_percent: f64, seconds: u64, resets_at: i64) -> Window {
    Window { used_percent, length: Some(Duration::from_secs(seconds)), resets_at: Some(resets_at) }
}

fn own(windows: &[Window]) -> Vec<Limit> {
    vec![Limit { id: None, windows: windows.to_vec() }]
}

#[test]
fn a_refusal_holds_until_its_reset_or_a_success() {
    let mut quota = Quota::default();
    assert_eq!(quota.exhaust(Some(2000), at(1000)), 2000);
    assert_eq!(quota.exhausted_until(at(1999)), Some(2000));
    assert_eq!(quota.exhausted_until(at(2000)), None);
    assert_eq!(quota.exhaust(None, at(1000)), 1000 + UNKNOWN_RESET);
    assert_eq!(quota.exhaust(Some(999), at(1000)), 1000 + UNKNOWN_RESET, "a reset in the past says nothing");
    assert_eq!(quota.exhaust(Some(i64::MAX), at(1000)), 1000 + LONGEST_RESET);
    let before = Instant::now();
    quota.exhaust(Some(2000), at(1000));
    quota.serve(before);
    assert_eq!(quota.exhausted_until(at(1000)), Some(2000), "it was refused after this one had begun");
    quota.serve(Instant::now());
    assert_eq!(quota.exhausted_until(at(1000)), None);
}

#[test]
fn no_reading_lifts_a_refusal_but_a_later_success_does() {
    let (mut quota, now) = (Quota::default(), at(1000));
    let full = window(100.0, FIVE_HOURS, 9000);
    quota.observe(&own(&[full, window(40.0, WEEK, 90_000)]), Source::Refusal, now);
    quota.exhaust(Some(9000), now);
    let after = later(now, 3600);
    let free = own(&[window(1.0, FIVE_HOURS, 9000), window(41.0, WEEK, 90_000)]);
    quota.observe(&free, Source::Usage, after);
    quota.observe(&free, Source::Response, after);
    let [five_hours, week] = quota.windows() else { panic!("two windows") };
    assert_eq!((five_hours.reading.used_percent, five_hours.reading.source), (100.0, Source::Refusal));
    assert_eq!((week.reading.used_percent, week.reading.source), (41.0, Source::Response), "it was not full");
    let refused = quota.refused(after).unwrap();
    assert_eq!((quota.band(after), refused.until, refused.age.as_secs()), (Band::Exhausted, 9000, 3600));
    assert_eq!(refused.window.unwrap().length.label(), "5h");
    quota.serve(after.instant);
    assert_eq!((quota.exhausted_until(after), quota.remaining(after)), (None, Some(59.0)));
    quota.observe(&free, Source::Response, after);
    assert_eq!((quota.remaining(after), quota.refused(after)), (Some(59.0), None));
}

#[test]
fn the_tightest_window_counts_until_it_resets() {
    let unknown = |used_percent, resets_at| Window { used_percent, length: None, resets_at };
    let (mut quota, now) = (Quota::default(), at(0));
    assert_eq!((quota.remaining(now), quota.band(now)), (None, Band::Unknown));
    quota.observe_own(
        vec![unknown(10.0, None), unknown(90.5, Some(100)), unknown(120.0, Some(50))],
        Source::Response,
        now,
    );
    assert_eq!((quota.remaining(now), quota.band(now)), (Some(0.0), Band::Exhausted));
    assert_eq!((quota.remaining(later(now, 60)), quota.band(later(now, 60))), (Some(9.5), Band::Thin));
    let after = later(now, 100);
    assert_eq!(quota.remaining(after), Some(90.0));
    assert_eq!(quota.band(after), Band::Unknown, "two of three windows may hold anything");
    assert!(quota.has_reset(after));
    quota.observe_own(Vec::new(), Source::Response, after);
    assert_eq!(quota.remaining(after), Some(90.0), "silence changes nothing");
    assert_eq!(quota.remaining(later(now, 3600)), None, "even without a reset nothing is known for ever");
}

#[test]
fn higher_rank_wins_until_it_is_stale_or_less_than_what_is_used() {
    let (mut quota, now) = (Quota::default(), at(1000));
    let mut read = |used, source, now| {
        quota.observe(&own(&[window(used, FIVE_HOURS, 9000)]), source, now);
        quota.remaining(now).unwrap()
    };
    assert_eq!(read(50.0, Source::Response, now), 50.0);
    assert_eq!(read(30.0, Source::Usage, later(now, 10)), 50.0, "the endpoint lags behind");
    assert_eq!(read(50.9, Source::Usage, later(now, 15)), 50.0, "it rounds");
    assert_eq!(read(60.0, Source::Usage, later(now, 20)), 40.0, "use only grows");
    assert_eq!(read(55.0, Source::Response, later(now, 30)), 45.0, "its word counts more");
    assert_eq!(read(20.0, Source::Usage, later(now, 330)), 45.0, "exactly at the limit");
    assert_eq!(read(20.0, Source::Usage, later(now, 331)), 80.0, "stale");
}

#[test]
fn a_reading_of_the_window_before_gives_way() {
    let (mut quota, now) = (Quota::default(), at(1000));
    quota.observe(&own(&[window(99.0, FIVE_HOURS, 1100)]), Source::Response, now);
    quota.observe(&own(&[window(0.0, FIVE_HOURS, 19_100)]), Source::Usage, later(now, 101));
    assert_eq!(quota.remaining(later(now, 101)), Some(100.0));
    assert_eq!(quota.windows()[0].history.samples().count(), 1, "its history begins anew");
}

#[test]
fn windows_are_told_apart_by_limit_and_length() {
    let (mut quota, now) = (Quota::default(), at(0));
    let limits = vec![
        Limit { id: None, windows: vec![window(10.0, WEEK, 900), window(20.0, FIVE_HOURS, 900)] },
        Limit { id: Some("codex_spark".into()), windows: vec![window(100.0, FIVE_HOURS, 900)] },
    ];
    quota.observe(&limits, Source::Response, now);
    let labels: Vec<String> = quota.windows().iter().map(|window| window.key.length.label()).collect();
    assert_eq!(labels, ["5h", "7d", "5h"]);
    assert_eq!(
        (quota.remaining(now), quota.band(now)),
        (Some(80.0), Band::Ready),
        "one model is not the account"
    );
    // The names `primary` and `secondary` may change places: lengths do not.
    quota.observe(&own(&[window(21.0, FIVE_HOURS, 900)]), Source::Response, later(now, 1));
    let used: Vec<f64> = quota.windows().iter().map(|window| window.reading.used_percent).collect();
    assert_eq!(used, [21.0, 100.0], "the week is not stated any more");
    quota.observe(&own(&[window(1.0, WEEK, 900)]), Source::Usage, later(now, 2));
    assert_eq!(quota.windows().len(), 3, "what a better source stated stays");
    for id in 0..100 {
        let limit = Limit { id: Some(format!("x{id}").into()), windows: vec![window(1.0, WEEK, 900)] };
        quota.observe(&[limit], Source::Usage, now);
    }
    assert_eq!(quota.windows().len(), MAX_WINDOWS);
    let lengths = [90, 3600, 5400, 86_400, 0].map(Length::Seconds).map(Length::label);
    assert_eq!(lengths, ["90s", "1h", "90m", "1d", "0s"]);
}

#[test]
fn bands_begin_where_they_are_said_to() {
    let bands = [None, Some(15.1), Some(15.0), Some(5.1), Some(5.0), Some(0.1), Some(0.0)].map(Band::of);
    let names = bands.map(Band::name);
    assert_eq!(names, ["unknown", "ready", "thin", "thin", "critical", "critical", "exhausted"]);
}

#[test]
fn a_reading_holds_however_old_until_its_window_resets() {
    let (mut quota, now) = (Quota::default(), at(1000));
    let reset = 1000 + 6 * 24 * 3600;
    quota.observe(&own(&[window(50.0, FIVE_HOURS, 5000), window(96.0, WEEK, reset)]), Source::Usage, now);
    let after = later(now, 5 * 24 * 3600);
    assert_eq!(quota.remaining(after), Some(4.0));
    let [_, week] = quota.windows() else { panic!("two windows") };
    assert_eq!((week.band(after), week.key.length.seconds()), (Band::Critical, Some(WEEK)));
    assert_eq!(quota.remaining(later(now, 6 * 24 * 3600)), None);
}

#[test]
fn a_clock_that_is_set_hides_no_reset() {
    let now = at(100_000);
    let mut quota = Quota::default();
    quota.observe(&own(&[window(100.0, FIVE_HOURS, 100_600)]), Source::Response, now);
    quota.exhaust(Some(100_600), now);
    let hour = Duration::from_secs(3600);
    let set_back = Now { instant: now.instant + hour, unix: now.unix - 86_400 };
    assert_eq!((quota.exhausted_until(set_back), quota.remaining(set_back)), (None, None));
    assert_eq!(quota.age(set_back), Some(hour));
    let asleep = Now { instant: now.instant, unix: now.unix + 3600 };
    assert_eq!((quota.exhausted_until(asleep), quota.remaining(asleep)), (None, None));
}

#[test]
fn the_pace_of_a_window_tells_when_it_runs_out() {
    let (mut quota, now) = (Quota::default(), at(0));
    for step in 0..5_u64 {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let used = 50.0 + 5.0 * step as f64;
        quota.observe(&own(&[window(used, FIVE_HOURS, 18_000)]), Source::Response, later(now, step * 600));
    }
    let now = later(now, 2400);
    let estimate = quota.windows()[0].estimate(now).unwrap();
    assert_eq!(estimate, Estimate { runs_out_at: 2400 + 3600, over_seconds: 2400 });
    quota.observe(&own(&[window(70.0, FIVE_HOURS, 5000)]), Source::Response, later(now, 1));
    assert_eq!(quota.windows()[0].estimate(later(now, 1)), None, "another window has no pace yet");
}

#[test]
fn a_record_says_what_the_quota_said() {
    let (mut quota, now) = (Quota::default(), at(1000));
    quota.set_plan("plus\u{1b}[31m");
    let unknown = Window { used_percent: 3.5, length: None, resets_at: None };
    quota.observe_own(vec![window(12.5, FIVE_HOURS, 9000), unknown], Source::Response, now);
    let limit = Limit { id: Some("codex_spark".into()), windows: vec![window(100.0, WEEK, 9000)] };
    quota.observe(&[limit], Source::Usage, now);
    quota.exhaust(Some(5000), now);
    let text = serde_json::to_string_pretty(&quota.to_record()).unwrap();
    insta::assert_snapshot!("record", text);
    let read = |unix: i64| Quota::from_record(serde_json::from_str(&text).unwrap(), at(unix));
    assert_eq!(read(1000).to_record(), quota.to_record());
    let later = read(8000);
    assert_eq!(
        (later.windows().len(), later.exhausted_until(at(8000))),
        (2, None),
        "the window without a reset"
    );
    assert_eq!(later.age(at(8000)).unwrap().as_secs(), 7000);
    let before = read(10);
    assert_eq!(before.age(at(10)).unwrap().as_secs(), 0, "nothing was observed in the future");
    let odd = text.replace(
        "1000,\n          87.5",
        "-9223372036854775808, 87.5], [1000, 87.5], [9223372036854775807, 1.0",
    );
    assert_ne!(odd, text);
    let odd = Quota::from_record(serde_json::from_str(&odd).unwrap(), at(1000));
    assert_eq!(odd.to_record(), quota.to_record(), "what is not possible is left out");
    let other = text.replace("\"version\": 1", "\"version\": 2");
    assert_eq!(Quota::from_record(serde_json::from_str(&other).unwrap(), now).windows().len(), 0);
    assert!(serde_json::from_str::<Record>("{\"version\":1,\"windows\":[{}]}").is_err());
}

prop_compose! {
    fn observation()(
        source in prop_oneof![Just(Source::Usage), Just(Source::Response)],
        further in any::<bool>(),
        windows in prop::collection::vec(
            (any::<f64>().prop_filter("finite", |used| used.is_finite()),
            prop::option::of(0_u64..1_000_000), prop::option::of(any::<i64>())), 0..3),
        pause in 0_u64..100_000,
    ) -> (Source, Limit, u64) {
        let windows = windows.into_iter().map(|(used_percent, length, resets_at)| {
            Window { used_percent, length: length.map(Duration::from_secs), resets_at }
        });
        (source, Limit { id: further.then(|| "x".into()), windows: windows.collect() }, pause)
    }
}

proptest! {
    #[test]
    fn whatever_is_observed_a_refusal_stands_and_nothing_is_out_of_range(
        observations in prop::collection::vec(observation(), 0..20),
        reset in 1_u64..10_000_000,
    ) {
        let (mut quota, mut now) = (Quota::default(), at(1_000_000));
        let until = quota.exhaust(Some(later(now, reset).unix), now);
        for (source, limit, pause) in observations {
            now = later(now, pause);
            quota.observe(&[limit], source, now);
            prop_assert_eq!(quota.exhausted_until(now), (now.unix < until).then_some(until));
            prop_assert!(quota.remaining(now).is_none_or(|left| (0.0..=100.0).contains(&left)));
            prop_assert!(quota.windows().is_sorted_by(|one, two| one.key < two.key));
            prop_assert_eq!(quota.refused(now).is_some(), now.unix < until);
            for window in quota.windows() {
                prop_assert!(window.history.samples().count() >= 1);
                let _ = window.estimate(now);
            }
            let text = serde_json::to_string(&quota.to_record()).unwrap();
            let read = Quota::from_record(serde_json::from_str(&text).unwrap(), now);
            prop_assert_eq!(read.exhausted_until(now), quota.exhausted_until(now));
            prop_assert_eq!(read.remaining(now), quota.remaining(now));
        }
    }
}

#[test]
fn what_a_clock_that_is_set_back_would_hold_against_an_account_is_let_go() {
    let now = at(100_000);
    let hours = |hours: i64| hours * 3600;
    let mut quota = Quota::default();
    quota.observe(&own(&[window(100.0, FIVE_HOURS, 100_600)]), Source::Refusal, now);
    quota.exhaust(Some(100_600), now);
    let (set_back, due) = (hours(-5), Duration::from_secs(601));
    let early = Now { instant: now.instant + Duration::from_secs(500), unix: now.unix + set_back };
    assert!(!quota.is_held_back(early), "its time has not come by either clock");
    let late = Now { instant: now.instant + due, unix: now.unix + 601 + set_back };
    assert!(quota.is_held_back(late));
    let mut standing = Standing::new("a".into());
    quota.describe(&mut standing);
    assert!(standing.exhausted_until.is_some_and(|until| until > late.unix), "what selection would see");
    quota.let_go(late);
    quota.describe(&mut standing);
    assert_eq!(
        (standing.exhausted_until, standing.windows.len(), quota.is_held_back(late)),
        (None, 0, false)
    );
    // While the clocks agree nothing is let go: a window that has started anew is a reason to ask.
    let mut quota = Quota::default();
    quota.observe(&own(&[window(100.0, FIVE_HOURS, 100_600)]), Source::Response, now);
    assert!(!quota.is_held_back(later(now, 599)) && !quota.is_held_back(later(now, 601)));
}

#[test]
fn a_refusal_that_was_written_by_a_clock_ahead_holds_no_longer_than_it_was_to() {
    let ahead = at(100_000);
    let mut quota = Quota::default();
    quota.exhaust(None, ahead);
    let now = at(ahead.unix - 5 * 3600);
    let recalled = Quota::from_record(quota.to_record(), now);
    assert_eq!(recalled.exhausted_until(now), Some(now.unix + 300));
}
