//! Reading logs: any bytes, and lines in any order of equal times.

#![expect(clippy::disallowed_methods, reason = "tests may touch the disk")]

use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_795_154_500_000;

fn look(text: &[u8], since: Option<Duration>) -> Examination {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Examination::of(Logs::File(file.path().to_owned()), since, Vec::new(), NOW, &|_| true)
}

/// Everything that is told, but for the name of the file and the numbers of odd lines.
fn told(examination: &Examination) -> String {
    let summary = &examination.summary;
    let latest: Vec<_> = summary.latest.entries().collect();
    let findings: Vec<_> =
        examination.findings.iter().map(|ranked| (format!("{:?}", ranked.finding), ranked.cause)).collect();
    format!(
        "{findings:#?} {latest:#?} {:#?} {:#?} {:#?} {:#?} {} {} {:?}",
        summary.events,
        summary.facets,
        examination.pressures,
        examination.backlogs,
        summary.lines,
        summary.skipped,
        summary.classes,
    )
}

const EVENTS: &[&str] = &[
    "selection_pick",
    "selection_none",
    "profile_commit",
    "profile_circuit_open",
    "profile_health",
    "profile_refresh_error",
    "profile_refresh_ok",
    "upstream_connect_error",
    "first_upstream_chunk",
    "first_local_chunk",
    "stream_complete",
    "state_save_error",
    "state_save_ok",
    "profile_probe_refresh_start",
    "profile_probe_refresh_ok",
];

prop_compose! {
    /// A line at one of a few times, of one of a few profiles.
    fn line()(
        event in proptest::sample::select(EVENTS),
        second in 0..4_u32,
        request in 0..5_u32,
        profile in "[ab]",
        until in proptest::option::of(1_795_154_400_i64..1_795_154_600),
        reason in proptest::sample::select(&["all_refused", "no_profiles", "closed", "x"][..]),
        is_text: bool,
    ) -> String {
        let until = until.map(|until| if is_text { format!(" until={until}") } else { format!(",\"until\":{until}") });
        let until = until.unwrap_or_default();
        if is_text {
            format!("[2026-11-20 06:00:0{second}.000 +00:00] request={request} {event} profile={profile} reason={reason} state={reason}{until}")
        } else {
            format!("{{\"timestamp\":\"2026-11-20T06:00:0{second}.000Z\",\"event\":\"{event}\",\"fields\":{{\"request\":{request},\"profile\":\"{profile}\",\"state\":\"{reason}\",\"reason\":\"{reason}\"{until}}}}}")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_lines_with_equal_times_does_not_matter(
        lines in proptest::collection::vec(line(), 0..40).prop_flat_map(|lines| {
            (Just(lines.clone()), Just(lines).prop_shuffle())
        })
    ) {
        // The sort is stable: what has the same time stays shuffled.
        let second = |line: &String| line.find("06:00:0").map(|at| line.as_bytes()[at + 7]);
        let (mut one, mut other) = lines;
        one.sort_by_key(second);
        other.sort_by_key(second);
        let (one, other) = (one.join("\n"), other.join("\n"));
        prop_assert_eq!(told(&look(one.as_bytes(), None)), told(&look(other.as_bytes(), None)));
    }

    #[test]
    fn no_input_makes_it_panic(
        lines in proptest::collection::vec(prop_oneof![line(), "\\PC{0,60}", "\\{\"timestamp\":\"2026-11-20T06:00:00Z\",\"event\":\"[a-z_]{1,20}\",\"fields\":\\{\"(until|request|ms|profile)\":(-?[0-9]{1,19}|\"x\"|null|\\[\\])\\}\\}"], 0..20),
        garbage in proptest::collection::vec(any::<u8>(), 0..100),
        cut in 0..400_usize,
        since in proptest::option::of(0..200_u64),
    ) {
        let mut text = lines.join("\n").into_bytes();
        text.truncate(text.len().saturating_sub(cut % 50));
        text.extend_from_slice(&garbage);
        let examination = look(&text, since.map(Duration::from_secs));
        prop_assert!(examination.summary.skipped <= examination.summary.lines);
    }
}

#[test]
fn the_latest_request_and_the_last_fields_are_told() {
    let line = |second: u32, request: u32, event: &str| {
        format!(
            "[2026-11-20 06:00:{second:02}.000 +00:00] request={request} {event} backlog={second} lag_ms=7"
        )
    };
    let text = [
        line(1, 1, "state_save_queued"),
        line(2, 2, "profile_commit"),
        line(3, 1, "state_save_queued"),
        line(4, 2, "stream_complete"),
        line(5, 1, "state_save_error"),
        line(6, 0, "responses_pre_send_skip reason=quota_critical_floor_before_send"),
    ]
    .join("\n");
    let examination = look(text.as_bytes(), None);
    let summary = &examination.summary;
    let latest: Vec<String> = summary.latest.entries().map(|entry| entry.event).collect();
    assert_eq!(
        (summary.latest.request, latest),
        (2, vec!["profile_commit".to_owned(), "stream_complete".to_owned()])
    );
    let save = &examination.backlogs[0];
    assert_eq!((save.backlog, save.lag_ms), (Some(3), Some(7)), "the lag of the error, as nothing was saved");
    assert_eq!(
        summary.count_of("quota_critical_floor_before_send"),
        1,
        "a reason that is an event of its own"
    );
}
