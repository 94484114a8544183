//! A run as text, within 80 columns: what happened in each stage, its times, its limits.

use std::fmt::Write as _;

use super::result::{Cell, Outcome, Route, Run, Times};

/// The whole report.
#[must_use]
pub fn render(run: &Run) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} against {}: {} requests in {:.1} s, seed {}",
        run.scenario,
        run.target,
        run.requests(),
        run.seconds,
        run.seed
    );
    let _ = writeln!(text, "{}\n", machine(run));
    let _ = writeln!(
        text,
        "{:<18}{:<11}{:>9}{:>9}{:>8}{:>8}{:>8}{:>8}",
        "stage", "route", "count", "per s", "p50", "p95", "p99", "max"
    );
    let _ = writeln!(text, "{:>47}{:>32}", "", "response time in ms");
    for (index, stage) in run.stages.iter().enumerate() {
        for route in Route::ALL {
            for outcome in Outcome::ALL {
                let cell =
                    run.merged(|cell| (cell.stage, cell.route, cell.outcome) == (index, route, outcome));
                if cell.count > 0 {
                    text.push_str(&line(&stage.name, route, outcome, &cell, stage.to - stage.from));
                }
            }
        }
        for (number, what) in [(stage.unsent, "never sent"), (stage.unfinished, "in flight at the end")] {
            if number > 0 {
                let _ = writeln!(text, "{:<18}{:<11}{number:>9} {what}", clip(&stage.name, 17), "");
            }
        }
    }
    text.push('\n');
    let ok = run.merged(|cell| cell.outcome == Outcome::Ok);
    let _ = writeln!(
        text,
        "{:<24}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "of those that ended well", "p50", "p95", "p99", "p99.9", "max"
    );
    for (name, times) in [
        ("response time", &ok.response),
        ("service time", &ok.service),
        ("first byte", &ok.first_byte),
        ("first content", &ok.first_content),
        ("between events", &ok.gap),
        ("added, first event", &ok.added),
        ("added, each event", &ok.added_event),
    ] {
        if times.0.is_empty() {
            continue;
        }
        let _ = write!(text, "{name:<24}");
        for quantile in [0.5, 0.95, 0.99, 0.999, 1.0] {
            let _ = write!(text, "{:>9}", millis(times, quantile));
        }
        text.push_str(" ms\n");
    }
    text.push('\n');
    for process in &run.processes {
        if let (Some(first), Some(last)) = (process.samples.first(), process.samples.last()) {
            let cpu = last.cpu_seconds - first.cpu_seconds;
            let peak = process.samples.iter().map(|sample| sample.rss).max().unwrap_or(0);
            let per = 1e6 * cpu / run.requests().max(1) as f64;
            let _ = writeln!(
                text,
                "{:<8} {cpu:>7.2} CPU s, {per:>7.1} us a request; RSS {:.1} MiB, at most {:.1}; {} fds",
                process.name,
                mebi(last.rss),
                mebi(peak),
                last.fds
            );
        }
        for slope in &process.slopes {
            let _ = writeln!(
                text,
                "  {:<8}{:+.1} an hour ({:+.1} to {:+.1}): {}",
                slope.resource,
                slope.per_hour,
                slope.low,
                slope.high,
                match slope.verdict {
                    super::result::Trend::Grows => "GROWS",
                    super::result::Trend::DoesNotGrow => "does not grow",
                    super::result::Trend::TooShort => "too short to say",
                }
            );
        }
    }
    let cost = run.driver.user_seconds + run.driver.system_seconds;
    let _ = writeln!(
        text,
        "{:<8} {cost:>7.2} CPU s, {:>7.1} us a request, {:.0} % of it the kernel's",
        "driver",
        1e6 * cost / run.driver.requests.max(1) as f64,
        100.0 * run.driver.system_seconds / cost.max(1e-9)
    );
    let pressure = &run.pressure;
    if pressure.causes > 0 || pressure.log_read {
        let _ = writeln!(text, "pressure {:>6} causes, {} refusals seen", pressure.causes, pressure.refusals);
        for (name, count) in &pressure.events {
            let _ = writeln!(text, "  {count:>7} {name}");
        }
    }
    examples(run, &mut text);
    text.push('\n');
    for gate in &run.gates {
        let place = gate.stage.as_ref().map_or(String::new(), |stage| format!(" of {}", clip(stage, 18)));
        let value = gate.value.map_or("nothing to measure".to_owned(), |value| number(value, &gate.unit));
        let _ = writeln!(
            text,
            "{} {}{place}: {value}, at most {}",
            if gate.passed { "kept  " } else { "BROKEN" },
            gate.name,
            number(gate.limit, &gate.unit)
        );
    }
    text.push_str(&verdict(run));
    text
}

/// The verdict in one line, with the limits that were broken.
#[must_use]
pub fn verdict(run: &Run) -> String {
    if let Some(why) = &run.cut_short {
        return format!("load: FAILED: cut short: {why}\n");
    }
    let broken: Vec<String> = run
        .gates
        .iter()
        .filter(|gate| !gate.passed)
        .map(|gate| {
            gate.stage.as_ref().map_or(gate.name.clone(), |stage| format!("{} of {stage}", gate.name))
        })
        .collect();
    if broken.is_empty() {
        return format!("load: PASSED: {} limits kept\n", run.gates.len());
    }
    let more = broken.len() - 1;
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("load: FAILED: {}{more}\n", clip(&broken[0], 56))
}

fn machine(run: &Run) -> String {
    let machine = &run.machine;
    let text = format!(
        "{} x {}, {:.1} GiB, Linux {}, {} driver",
        machine.processors,
        machine.processor,
        mebi(machine.memory) / 1024.0,
        machine.kernel,
        machine.build
    );
    clip(&text, 79)
}

fn line(stage: &str, route: Route, outcome: Outcome, cell: &Cell, seconds: f64) -> String {
    // A stage's route that ended well is the usual line; others name how they ended instead.
    let what = if outcome == Outcome::Ok { route.name().to_owned() } else { format!("! {}", short(outcome)) };
    let times: String =
        [0.5, 0.95, 0.99, 1.0].map(|quantile| format!("{:>8}", millis(&cell.response, quantile))).concat();
    let rate = cell.count as f64 / seconds.max(1e-9);
    format!("{:<18}{what:<11}{:>9}{rate:>9.1}{times}\n", clip(stage, 17), cell.count)
}

fn short(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::UpstreamError => "upstream",
        Outcome::ProxyError => "proxy",
        Outcome::Admission => "admission",
        Outcome::Truncated => "truncated",
        Outcome::ProtocolViolation => "protocol",
        Outcome::WrongContent => "wrong",
        Outcome::Timeout => "timeout",
        Outcome::Connect => "connect",
    }
}

fn examples(run: &Run, text: &mut String) {
    for example in run.examples.iter().take(6) {
        let stage = run.stages.get(example.stage).map_or("", |stage| &stage.name);
        let head = format!("e.g. {} ({stage}, {}):", example.outcome.name(), example.route.name());
        let _ = writeln!(text, "{}\n  {}", clip(&head, 79), clip(&example.text, 77));
    }
}

fn millis(times: &Times, quantile: f64) -> String {
    times.millis(quantile).map_or("-".to_owned(), |value| match value {
        value if value < 10.0 => format!("{value:.3}"),
        value if value < 1_000.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    })
}

fn number(value: f64, unit: &str) -> String {
    if unit.is_empty() { format!("{:.3} %", 100.0 * value) } else { format!("{value:.3} {unit}") }
}

fn mebi(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['~']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::result::{Example, Gate, Sample};
    use super::super::{document, result};
    use super::*;

    /// A run in which most went well.
    fn run() -> Run {
        let stage = |name: &str, unsent| result::Stage {
            name: name.into(),
            executor: "constant-rate".into(),
            from: 0.0,
            to: 10.0,
            rate: Some(50.0),
            concurrency: 8,
            unsent,
            unfinished: unsent / 4,
            peak: 9,
        };
        let mut cells = Vec::new();
        for (outcome, count, time) in [(Outcome::Ok, 990, 1_200), (Outcome::WrongContent, 10, 40_000)] {
            let mut cell = Cell::new(0, Route::Responses, outcome);
            cell.count = count;
            for number in 0..count {
                cell.response.record(time + number);
                cell.service.record(time);
                cell.first_byte.record(time);
            }
            cells.push(cell);
        }
        let sample = |at, cpu_seconds| Sample {
            at,
            cpu_seconds,
            rss: 12 << 20,
            pss: None,
            fds: 30,
            sockets: 20,
            threads: 4,
        };
        let samples = vec![sample(0.0, 1.0), sample(10.0, 1.5)];
        let gate = |name: &str, value, passed| Gate {
            name: name.into(),
            stage: Some("a stage with a long name".into()),
            value,
            limit: 0.001,
            unit: String::new(),
            passed,
        };
        let text = "event 3 of 22, byte 900: something else altogether, and much too long for one line";
        let (route, outcome) = (Route::Responses, Outcome::WrongContent);
        Run {
            version: result::VERSION,
            scenario: "spike".into(),
            target: "proxy".into(),
            seed: 7,
            started: "2026-11-20T12:00:00Z".into(),
            seconds: 10.0,
            machine: result::Machine {
                processor: "Processor".into(),
                processors: 2,
                memory: 8 << 30,
                kernel: "6.1".into(),
                build: "release".into(),
            },
            stages: vec![stage("a stage with a long name", 12), stage("idle", 0)],
            cells,
            tick_seconds: 1.0,
            ticks: vec![result::Tick::new(0)],
            driver: result::DriverCost {
                threads: 1,
                user_seconds: 0.1,
                system_seconds: 0.3,
                connections: 8,
                requests: 1_000,
            },
            processes: vec![result::Process { name: "proxy".into(), pid: 7, samples, slopes: Vec::new() }],
            pressure: result::Pressure {
                causes: 3,
                refusals: 2,
                events: vec![("runtime_proxy_lane_limit_reached".into(), 3)],
                log_read: true,
                unreadable: 0,
            },
            gates: vec![gate("error rate", Some(0.01), false), gate("ttft p95", None, false)],
            cut_short: None,
            examples: vec![Example { stage: 0, route, outcome, text: text.into() }],
        }
    }

    #[test]
    fn a_run_reads_well_in_80_columns() {
        let text = render(&run());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_document_is_as_its_schema_says() {
        let schema: serde_json::Value = serde_json::from_str(document::SCHEMA).unwrap();
        let document = document::of(&run());
        let problems: Vec<String> = jsonschema::validator_for(&schema)
            .unwrap()
            .iter_errors(&document)
            .map(|problem| format!("{}: {problem}", problem.instance_path()))
            .collect();
        assert!(problems.is_empty(), "{problems:?}");
        let mut other = document;
        other["cells"][0]["outcome"] = "fine".into();
        assert!(!jsonschema::is_valid(&schema, &other));
    }

    #[test]
    fn a_saved_run_is_shown_as_it_was() {
        let text = serde_json::to_string(&run()).unwrap();
        let again: Run = serde_json::from_str(&text).unwrap();
        assert_eq!(render(&again), render(&run()));
    }

    #[test]
    fn a_run_that_was_cut_short_did_not_pass() {
        let run = Run { cut_short: Some("interrupted".into()), gates: Vec::new(), ..run() };
        assert!(!run.passed());
        assert!(verdict(&run).contains("FAILED: cut short: interrupted"));
    }
}
