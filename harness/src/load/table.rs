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
        if stage.unsent > 0 {
            let _ = writeln!(text, "{:<18}{:<11}{:>9} never sent", clip(&stage.name, 17), "", stage.unsent);
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
        let place = gate.stage.as_ref().map_or(String::new(), |stage| format!(" of {stage}"));
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
    format!("load: FAILED: {}\n", broken.join(", "))
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
        let head = format!("{} ({stage}, {}): ", example.outcome.name(), example.route.name());
        let _ = writeln!(text, "{}", clip(&format!("e.g. {head}{}", example.text), 79));
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
