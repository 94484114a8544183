//! Limits and what came of them: each stage is judged by itself, so that a recovery hides no spike.

use super::result::{Cell, Gate, Outcome, Process, Route, Run, Trend};
use super::scenario::Limits;

/// Judges a run by its limits, and by the growth of what was watched.
#[must_use]
pub fn judge(run: &Run, limits: &Limits, judges_growth: bool) -> Vec<Gate> {
    let mut gates = Vec::new();
    for (index, stage) in run.stages.iter().enumerate() {
        let of_stage = |cell: &Cell| cell.stage == index;
        if let Some(limit) = limits.error_rate {
            let value = error_rate(run, of_stage);
            gates.push(gate("error rate", Some(&stage.name), value, limit, ""));
        }
        if let Some(limit) = limits.ttft_p95_ms {
            gates.push(gate("ttft p95", Some(&stage.name), ttft_p95(run, of_stage), limit, "ms"));
        }
    }
    if let Some(limit) = limits.admission_pressure_rate {
        let requests = run.requests();
        let value = (requests > 0).then(|| run.pressure.causes as f64 / requests as f64);
        gates.push(gate("admission pressure rate", None, value, limit, ""));
    }
    if judges_growth {
        let mut watched = run.processes.iter().filter(|process| process.name != "mock").peekable();
        if watched.peek().is_none() && run.target != "mock" {
            gates.push(gate(&format!("growth of {}, at least", run.target), None, None, 0.0, ""));
        }
        gates.extend(watched.flat_map(growth));
    }
    gates
}

/// Judges a run by one without a proxy that was made on the same machine at the same time: how much later the
/// first content comes at most, in milliseconds of the 95th percentile.
#[must_use]
pub fn judge_against(run: &Run, without: &Run, limit: f64) -> Vec<Gate> {
    let stages = run.stages.iter().enumerate();
    stages
        .map(|(index, stage)| {
            let of_stage = |cell: &Cell| cell.stage == index;
            let value = ttft_p95(run, of_stage).zip(ttft_p95(without, of_stage));
            let value = value.map(|(with, without)| with - without);
            gate("added ttft p95", Some(&stage.name), value, limit, "ms")
        })
        .collect()
}

/// The share of requests that did not end well.
#[must_use]
pub fn error_rate(run: &Run, take: impl Fn(&Cell) -> bool) -> Option<f64> {
    let (mut all, mut wrong) = (0_u64, 0_u64);
    for cell in run.cells.iter().filter(|cell| take(cell)) {
        all += cell.count;
        wrong += if cell.outcome == Outcome::Ok { 0 } else { cell.count };
    }
    (all > 0).then(|| wrong as f64 / all as f64)
}

/// The 95th percentile of the time to the first content, in milliseconds, of requests that ended well. A unary
/// reply's first content is its first byte.
#[must_use]
pub fn ttft_p95(run: &Run, take: impl Fn(&Cell) -> bool) -> Option<f64> {
    let mut times = super::result::Times::default();
    for cell in run.cells.iter().filter(|cell| take(cell) && cell.outcome == Outcome::Ok) {
        times.add(if cell.route == Route::Compact { &cell.first_byte } else { &cell.first_content });
    }
    times.millis(0.95)
}

/// A soak that is too short to say has not shown that nothing grows.
fn growth(process: &Process) -> impl Iterator<Item = Gate> {
    process.slopes.iter().map(|slope| Gate {
        name: format!("{} growth of {}, at least", slope.resource, process.name),
        stage: None,
        value: (slope.verdict != Trend::TooShort).then_some(slope.low),
        limit: 0.0,
        unit: if slope.resource == "rss" { "B/h".into() } else { "/h".into() },
        passed: slope.verdict == Trend::DoesNotGrow,
    })
}

fn gate(name: &str, stage: Option<&String>, value: Option<f64>, limit: f64, unit: &str) -> Gate {
    let passed = value.is_some_and(|value| value <= limit);
    Gate { name: name.to_owned(), stage: stage.cloned(), value, limit, unit: unit.to_owned(), passed }
}

#[cfg(test)]
mod tests {
    use super::super::page::example;
    use super::super::result::Growth;
    use super::*;

    #[test]
    fn a_soak_that_saw_no_process_has_not_shown_that_nothing_grows() {
        let run = |target: &str| Run { target: target.into(), processes: Vec::new(), ..example() };
        let gates = judge(&run("target"), &Limits::default(), true);
        assert_eq!(gates.iter().map(|gate| (gate.value, gate.passed)).collect::<Vec<_>>(), [(None, false)]);
        assert_eq!(judge(&run("mock"), &Limits::default(), true), []);
    }

    #[test]
    fn what_was_not_shown_is_not_kept() {
        let slope = |verdict, low| Growth {
            resource: "rss".into(),
            per_hour: low + 1.0,
            low,
            high: low + 2.0,
            from: 0.0,
            verdict,
        };
        let slopes =
            vec![slope(Trend::DoesNotGrow, -1.0), slope(Trend::Grows, 9.0), slope(Trend::TooShort, 0.0)];
        let process = Process { name: "proxy".into(), pid: 1, samples: Vec::new(), slopes };
        let seen: Vec<(Option<f64>, bool)> = growth(&process).map(|gate| (gate.value, gate.passed)).collect();
        assert_eq!(seen, [(Some(-1.0), true), (Some(9.0), false), (None, false)]);
        assert!(!gate("error rate", None, None, 1.0, "").passed, "nothing was measured");
        assert!(gate("error rate", None, Some(0.0), 0.0, "").passed);
    }
}
