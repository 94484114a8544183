//! Proxies against each other: the same load through each in turns, and what it cost each, round by round.
//!
//! A busy machine is busy for all in a round, so costs are compared within rounds: each target's CPU time for a
//! request as a ratio to the base's, and its times less those of no proxy. Of these the median over the rounds
//! is told, with the least and the greatest.

use serde::Serialize;

use super::driver::Measured;
use super::plan::{Pace, Plan, Stage, Target, Traffic};
use super::result::{Outcome, Route, Times};

/// A load that proxies are compared under.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Requests of a round.
    pub requests: u64,
    /// Requests at once.
    pub concurrency: usize,
    /// What they are.
    pub traffic: Traffic,
}

/// The workloads, by what costs proxies differently.
#[must_use]
pub fn workloads() -> Vec<Workload> {
    let plain = Traffic { crlf: false, conversations: 0, ..Traffic::default() };
    vec![
        Workload {
            name: "unary",
            about: "1 KiB in, 1 KiB of JSON out",
            requests: 20_000,
            concurrency: 16,
            traffic: Traffic { route: Route::Compact, bytes: 700, ..plain.clone() },
        },
        Workload {
            name: "sse",
            about: "20 events of about 200 B, a write for each",
            requests: 4_000,
            concurrency: 16,
            traffic: Traffic { events: 18, bytes: 10, ..plain.clone() },
        },
        Workload {
            name: "sse-once",
            about: "the same 20 events in one write",
            requests: 12_000,
            concurrency: 16,
            traffic: Traffic { events: 18, bytes: 10, in_one_write: true, ..plain.clone() },
        },
        Workload {
            name: "long-once",
            about: "40 KiB in, 400 events in one write",
            requests: 4_000,
            concurrency: 16,
            traffic: Traffic {
                events: 398,
                bytes: 10,
                in_one_write: true,
                body_bytes: 40 * 1024,
                ..plain.clone()
            },
        },
        Workload {
            name: "websocket",
            about: "turns of 20 messages of about 200 B, a write for each",
            requests: 4_000,
            concurrency: 16,
            traffic: Traffic {
                route: Route::Websocket,
                events: 18,
                bytes: 10,
                turns_per_socket: 1_000_000,
                ..plain
            },
        },
    ]
}

impl Workload {
    /// The plan of one round against a target. `scale` makes it longer or shorter.
    #[must_use]
    pub fn plan(&self, target: &Target, scale: f64, seed: u64) -> Plan {
        let requests = ((self.requests as f64 * scale).ceil() as u64).max(self.concurrency as u64);
        let stage = Stage {
            name: self.name.to_owned(),
            executor: "closed".to_owned(),
            pace: Pace::Closed { requests: Some(requests), seconds: None },
            concurrency: self.concurrency,
            traffic: self.traffic.clone(),
        };
        Plan {
            scenario: format!("compare {}", self.name),
            seed,
            threads: 1,
            target: target.clone(),
            stages: vec![stage],
            max_bytes: super::plan::DEFAULT_BYTES,
            tick_seconds: 1.0,
        }
    }
}

/// What one round through one target came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Turn {
    /// Requests that ended well.
    pub ok: u64,
    /// Requests that did not.
    pub not_ok: u64,
    /// CPU time of the target's processes for each request that ended well, in microseconds. None where there
    /// is no process, or no request that ended well.
    pub cpu_micros: Option<f64>,
    /// The time to the first byte that half are not above, in milliseconds.
    pub first_byte_p50_ms: Option<f64>,
    /// The time to the end of the reply that half are not above, in milliseconds.
    pub end_p50_ms: Option<f64>,
    /// The time to the end that 99 of 100 are not above, in milliseconds.
    pub end_p99_ms: Option<f64>,
    /// What went wrong first.
    pub example: Option<String>,
}

impl Turn {
    /// What was measured, with the CPU seconds that the target's processes used meanwhile.
    #[must_use]
    pub fn new(measured: &Measured, cpu_seconds: Option<f64>) -> Self {
        let (mut ok, mut not_ok) = (0, 0);
        let (mut first, mut end) = (Times::default(), Times::default());
        for cell in &measured.cells {
            if cell.outcome == Outcome::Ok {
                ok += cell.count;
                first.add(&cell.first_byte);
                end.add(&cell.service);
            } else {
                not_ok += cell.count;
            }
        }
        Self {
            ok,
            not_ok,
            cpu_micros: cpu_seconds.filter(|_| ok > 0).map(|seconds| seconds * 1e6 / ok as f64),
            first_byte_p50_ms: first.millis(0.5),
            end_p50_ms: end.millis(0.5),
            end_p99_ms: end.millis(0.99),
            example: measured.examples.first().map(|example| example.text.clone()),
        }
    }
}

/// One workload through all targets.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The workload's name.
    pub workload: String,
    /// What it is.
    pub about: String,
    /// The targets; the first is no proxy.
    pub targets: Vec<String>,
    /// For each round the turn of each target.
    pub rounds: Vec<Vec<Turn>>,
}

/// A median over the rounds, with the least and the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Of the values of all rounds that have one.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, least, greatest })
    }
}

/// What is told of a target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The target.
    pub target: String,
    /// CPU time for a request, in microseconds.
    pub cpu_micros: Option<Spread>,
    /// The same as a ratio to the base's in the same round.
    pub ratio: Option<Spread>,
    /// What is added to the median time to the first byte, in milliseconds.
    pub added_first_byte_ms: Option<Spread>,
    /// What is added to the median time to the end.
    pub added_end_p50_ms: Option<Spread>,
    /// What is added to the 99th percentile of the time to the end.
    pub added_end_p99_ms: Option<Spread>,
    /// Requests of all rounds that did not end well.
    pub not_ok: u64,
}

impl Comparison {
    /// The order of the targets in a round: each round begins with another.
    #[must_use]
    pub fn order(targets: usize, round: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..targets).map(|at| (at + round) % targets).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        order
    }

    /// What is told of each target, with ratios to the one at `base`.
    #[must_use]
    pub fn rows(&self, base: usize) -> Vec<Row> {
        let row = |(at, target): (usize, &String)| {
            let spread = |value: &dyn Fn(&[Turn]) -> Option<f64>| {
                Spread::of(self.rounds.iter().filter_map(|round| value(round)))
            };
            let added = |time: fn(&Turn) -> Option<f64>| {
                let less = |round: &[Turn]| Some(time(&round[at])? - time(&round[0])?);
                if at == 0 { None } else { spread(&less) }
            };
            Row {
                target: target.clone(),
                cpu_micros: spread(&|round| round[at].cpu_micros),
                ratio: spread(&|round| {
                    let of_base = round[base].cpu_micros.filter(|cpu| *cpu > 0.0)?;
                    Some(round[at].cpu_micros? / of_base)
                }),
                added_first_byte_ms: added(|turn| turn.first_byte_p50_ms),
                added_end_p50_ms: added(|turn| turn.end_p50_ms),
                added_end_p99_ms: added(|turn| turn.end_p99_ms),
                not_ok: self.rounds.iter().map(|round| round[at].not_ok).sum(),
            }
        };
        self.targets.iter().enumerate().map(row).collect()
    }

    /// Whether every request of every round ended well.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.rounds.iter().flatten().all(|turn| turn.not_ok == 0 && turn.ok > 0)
    }

    /// A table of at most 80 columns.
    #[must_use]
    pub fn table(&self, base: usize) -> String {
        let mut text = format!("{}: {}, {} rounds\n", self.workload, self.about, self.rounds.len());
        text.push_str(&format!(
            "  {:<10} {:>9} {:>20} {:>9} {:>8} {:>8} {:>6}\n",
            "target", "CPU µs", "ratio (least–most)", "+1st byte", "+p50", "+p99", "not ok"
        ));
        for row in self.rows(base) {
            let number = |spread: Option<Spread>| {
                spread.map_or("–".to_owned(), |spread| format!("{:.3}", spread.median))
            };
            let cpu = row.cpu_micros.map_or("–".to_owned(), |cpu| format!("{:.1}", cpu.median));
            let ratio = row.ratio.map_or("–".to_owned(), |ratio| {
                format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.least, ratio.greatest)
            });
            let name: String = row.target.chars().take(10).collect();
            text.push_str(&format!(
                "  {name:<10} {cpu:>9} {ratio:>20} {:>9} {:>8} {:>8} {:>6}\n",
                number(row.added_first_byte_ms),
                number(row.added_end_p50_ms),
                number(row.added_end_p99_ms),
                row.not_ok,
            ));
        }
        for (at, target) in self.targets.iter().enumerate() {
            if let Some(example) = self.rounds.iter().find_map(|round| round[at].example.as_ref()) {
                text.push_str(&format!("  {target}: {example}\n"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(cpu: Option<f64>, end: f64) -> Turn {
        Turn {
            ok: 100,
            cpu_micros: cpu,
            first_byte_p50_ms: Some(end / 2.0),
            end_p50_ms: Some(end),
            end_p99_ms: Some(end * 2.0),
            ..Turn::default()
        }
    }

    fn comparison() -> Comparison {
        let round = |slow: f64| {
            vec![turn(None, slow), turn(Some(slow * 10.0), slow * 1.5), turn(Some(slow * 9.0), slow * 1.2)]
        };
        Comparison {
            workload: "unary".into(),
            about: "1 KiB in, 1 KiB of JSON out".into(),
            targets: ["none", "nginx", "prodex"].map(str::to_owned).to_vec(),
            // In the second round the machine was busy with something else.
            rounds: vec![round(1.0), round(4.0), round(1.1)],
        }
    }

    #[test]
    fn ratios_are_of_the_round_and_not_of_the_machine() {
        let rows = comparison().rows(1);
        assert_eq!((rows[0].cpu_micros, rows[0].ratio, rows[0].added_end_p50_ms), (None, None, None));
        let ratio = rows[2].ratio.unwrap();
        assert!((ratio.least - 0.9).abs() < 1e-9 && (ratio.greatest - 0.9).abs() < 1e-9, "{ratio:?}");
        assert!((rows[2].cpu_micros.unwrap().median - 9.9).abs() < 1e-9);
        assert!((rows[2].added_end_p50_ms.unwrap().median - 0.22).abs() < 1e-9);
    }

    #[test]
    fn the_table_fits_into_a_terminal() {
        let table = comparison().table(1);
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        insta::assert_snapshot!(table);
    }

    #[test]
    fn every_target_is_first_and_last_in_its_turn() {
        let orders: Vec<Vec<usize>> = (0..6).map(|round| Comparison::order(3, round)).collect();
        for target in 0..3 {
            assert!(orders.iter().any(|order| order[0] == target));
            assert!(orders.iter().any(|order| order[2] == target));
        }
        let mut failed = comparison();
        assert!(failed.passed());
        failed.rounds[1][2].not_ok = 1;
        assert!(!failed.passed());
    }
}
