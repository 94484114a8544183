//! A run with everything in it, as a page.

use super::*;
use crate::load::result::{DriverCost, Example, Machine, Pressure, Sample, Stage, VERSION};
use crate::load::slope;

/// A spike over two minutes, in which the upstream stands still for 3 s and the proxy leaks.
pub(crate) fn example() -> Run {
    let stages = [("before", 0.0, 30.0, 40.0), ("spike", 30.0, 60.0, 400.0), ("after", 60.0, 120.0, 40.0)];
    let mut run = Run {
        version: VERSION,
        scenario: "spike".into(),
        target: "proxy".into(),
        seed: 7,
        started: "2026-11-20T17:00:00Z".into(),
        seconds: 120.0,
        machine: Machine {
            processor: "A <fast> processor".into(),
            processors: 2,
            memory: 8 << 30,
            kernel: "Linux 6.1".into(),
            build: "release".into(),
        },
        stages: stages.map(|(name, from, to, rate)| stage(name, from, to, rate)).to_vec(),
        cells: Vec::new(),
        tick_seconds: 1.0,
        ticks: Vec::new(),
        driver: DriverCost {
            threads: 1,
            user_seconds: 0.4,
            system_seconds: 1.1,
            connections: 64,
            requests: 15_600,
        },
        processes: Vec::new(),
        pressure: Pressure { causes: 3, refusals: 2, log_read: true, ..Pressure::default() },
        gates: vec![
            gate("error rate", 0.0004, 0.05, "", true),
            gate("ttft p95", 2_770.0, 2_500.0, "ms", false),
        ],
        cut_short: None,
        examples: vec![Example {
            stage: 1,
            route: Route::Responses,
            outcome: Outcome::UpstreamError,
            text: "503: {\"error\":\"<script>alert(1)</script>\"}".into(),
        }],
    };
    for (index, (_, from, to, rate)) in stages.into_iter().enumerate() {
        let mut ok = Cell::new(index, Route::Responses, Outcome::Ok);
        for second in from as usize..to as usize {
            run.ticks.extend(tick(second, index, rate as u64, &mut ok));
        }
        run.cells.push(ok);
    }
    let mut failed = Cell::new(1, Route::Responses, Outcome::UpstreamError);
    (failed.count, failed.bytes) = (2, 180);
    failed.response.record(1_900);
    run.cells.push(failed);
    let samples: Vec<Sample> = (0..240_u32).map(|at| sample(f64::from(at) / 2.0)).collect();
    let slopes = slope::growths(&samples);
    run.processes.push(Process { name: "proxy".into(), pid: 4242, samples, slopes });
    run
}

fn stage(name: &str, from: f64, to: f64, rate: f64) -> Stage {
    let executor = "constant-rate".into();
    Stage {
        name: name.into(),
        executor,
        from,
        to,
        rate: Some(rate),
        concurrency: 512,
        unsent: 0,
        unfinished: 0,
        peak: 96,
    }
}

fn gate(name: &str, value: f64, limit: f64, unit: &str, passed: bool) -> Gate {
    Gate { name: name.into(), stage: None, value: Some(value), limit, unit: unit.into(), passed }
}

/// Second 40 to 43 have nothing: what was due then waits.
fn tick(second: usize, stage: usize, rate: u64, ok: &mut Cell) -> Option<Tick> {
    let mut tick = Tick::new(second);
    (tick.stage, tick.due, tick.sent) = (stage, rate, rate);
    tick.in_flight = rate / 20;
    if (40..43).contains(&second) {
        (tick.sent, tick.late, tick.in_flight) = (0, rate * (second as u64 - 39), 96);
        return (second == 41).then_some(tick);
    }
    for number in 0..rate {
        let service = 900 + number * number % 977 * 3 + if number % 97 == 0 { 8_000 } else { 0 };
        let waited = if second == 43 { 3_000_000 * number / rate } else { 0 };
        ok.service.record(service);
        ok.response.record(service + waited);
        ok.first_byte.record(waited + service / 3);
        ok.first_content.record(waited + service / 2);
        ok.gap.record(20 + number % 60);
        ok.added.record(180 + number % 130);
        ok.added_event.record(40 + number % 90);
        tick.response.record(service + waited);
        tick.first_byte.record(waited + service / 3);
    }
    (ok.count, ok.events, ok.bytes) = (ok.count + rate, ok.events + rate * 20, ok.bytes + rate * 5_380);
    tick.ok = rate;
    tick.not_ok = if second == 50 { 2 } else { 0 };
    Some(tick)
}

fn sample(at: f64) -> Sample {
    let wave = (at * 1.7).sin() * 200_000.0;
    let rss = (18e6 + at * 60_000.0 + wave) as u64;
    let fds = 40 + (at as u64 / 30) % 2 * 8;
    let pss = (at as u64).is_multiple_of(5).then_some(rss - 2_000_000);
    Sample { at, cpu_seconds: at * 0.21, rss, pss, fds, sockets: fds - 12, threads: 5 }
}

#[test]
fn the_page_says_what_the_run_was() {
    let html = page(&example());
    for expected in [
        "<title>spike – proxy</title>",
        "class=\"verdict bad\">failed",
        "2\u{202f}770 ms</td><td class=\"number\">2\u{202f}500 ms</td><td class=\"bad\">broken",
        "response time, from when it was due",
        "A &lt;fast&gt; processor",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "<th>rss</th><td class=\"bad\">grows</td>",
        "<th>threads</th><td class=\"good\">does not grow</td>",
        "Memory of proxy",
    ] {
        assert!(html.contains(expected), "{expected}");
    }
    assert_eq!(html.matches("<svg").count(), 9);
    // One file: nothing is loaded, nothing runs.
    for forbidden in ["<script", "http://", "https://", "src=", "url(", "@import", "NaN", "inf"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert!(html.len() < 200_000, "{}", html.len());
}

#[test]
fn every_element_is_closed() {
    let html = page(&example());
    let mut open = Vec::new();
    let mut rest = html.as_str();
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').map(|end| at + end).unwrap();
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !(tag.ends_with('/') || tag.starts_with('!') || name == "meta") {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_run_in_which_nothing_happened_is_a_page_too() {
    let mut run = example();
    run.cells.clear();
    run.ticks.clear();
    run.processes.clear();
    (run.seconds, run.stages) = (0.0, Vec::new());
    let html = page(&run);
    assert!(!html.contains("NaN") && !html.contains("<svg"));
}

#[test]
fn long_runs_keep_their_spikes() {
    let points: Vec<(f64, f64)> = (0..3_600_u32).map(|at| (f64::from(at), f64::from(at == 1_801))).collect();
    let reduced = reduced(points);
    assert!(reduced.len() <= POINTS && reduced.contains(&(1_801.0, 1.0)));
}
