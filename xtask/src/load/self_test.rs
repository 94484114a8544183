//! `cargo xtask load --self-test`: what the driver and the mock cost themselves, each in requests per second of CPU.
//!
//! Both are programs of their own, so their CPU time is told apart; the kernel's part of it is in it, and is most. A
//! figure is what one core is good for, whatever else the machine does: nothing here is a rate by the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow};
use harness::load::compare::{Spread, Turn, Workload, workloads};
use harness::load::plan::{Target, Traffic};
use harness::load::resources::Process;
use harness::load::{machine, rig};
use serde::Serialize;

use super::compare::drive;
use super::{Prepared, Programs, unless_stopped};
use crate::exit::Exit;
use crate::terminal;

/// How often each workload is measured, behind a time that is not counted.
const ROUNDS: u64 = 5;

/// Requests at once where nothing is said of it: as many as a busy proxy has.
const CONCURRENCY: usize = 64;

/// Streams that one driver holds at once.
const HELD: usize = 4_000;

/// What was measured of a workload.
#[derive(Debug, Serialize)]
struct Row {
    workload: &'static str,
    about: &'static str,
    /// Requests per second of the driver's CPU time.
    driver: Option<Spread>,
    /// What that should be at least, on a processor of our days.
    target: Option<u64>,
    /// Share of the driver's CPU time that is the kernel's, of one.
    kernel: Option<Spread>,
    /// Requests per second of the mock's CPU time.
    mock: Option<Spread>,
    /// Most requests in flight at once.
    peak: u64,
    not_ok: u64,
    example: Option<String>,
}

pub(super) fn run(args: &super::Args) -> Result<Exit> {
    let workloads = chosen();
    if args.dry_run {
        let names: Vec<String> = workloads
            .iter()
            .map(|(each, _)| format!("{} ({} at once)", each.name, each.concurrency))
            .collect();
        terminal::result(&format!("self-test: the mock alone under {}", names.join(", ")))?;
        return Ok(Exit::Good);
    }
    let Prepared { programs, stop, runtime } = match Prepared::of(args)? {
        Ok(prepared) => prepared,
        Err(exit) => return Ok(exit),
    };
    let rows = runtime.block_on(measure(args, &workloads, &programs, &stop))?;
    let Some(rows) = rows else {
        terminal::progress("self-test: interrupted");
        return Ok(Exit::Interrupted);
    };
    let passed = rows.iter().all(|row| row.not_ok == 0 && row.driver.is_some());
    if args.json {
        let machine = machine::here("release");
        let document =
            serde_json::json!({ "version": 1, "passed": passed, "machine": machine, "workloads": rows });
        terminal::result(&document.to_string())?;
    } else {
        terminal::result(&table(&rows, passed))?;
    }
    Ok(if passed { Exit::Good } else { Exit::Findings })
}

/// The workloads with what the driver should be good for in each.
fn chosen() -> Vec<(Workload, Option<u64>)> {
    let mut chosen: Vec<(Workload, Option<u64>)> = workloads()
        .into_iter()
        .filter_map(|workload| {
            let target = match workload.name {
                "unary" => Some(150_000),
                "sse" => Some(20_000),
                "sse-once" | "websocket" => None,
                _ => return None,
            };
            Some((Workload { concurrency: CONCURRENCY, ..workload }, target))
        })
        .collect();
    let held = Workload {
        name: "held",
        about: "streams of 1.5 s, all at once",
        requests: HELD as u64,
        concurrency: HELD,
        traffic: Traffic { events: 5, bytes: 10, first_byte: 1.0, gap: 0.1, ..Traffic::default() },
    };
    chosen.push((held, None));
    chosen
}

async fn measure(
    args: &super::Args,
    workloads: &[(Workload, Option<u64>)],
    programs: &Programs,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Vec<Row>>> {
    let started = unless_stopped(stop, rig::start_mock(&programs.mock, 1, 1)).await;
    let Some(mock) = started.transpose().context("failed to start the mock")? else { return Ok(None) };
    let target = rig::mock_target("mock", &mock).map_err(|problem| anyhow!(problem))?;
    let process = Process::open(mock.pid()).context("failed to watch the mock")?;
    let mut rows = Vec::new();
    for (workload, wished) in workloads {
        let Some(row) = row(args, workload, *wished, &target, &process, programs, stop).await? else {
            return Ok(None);
        };
        rows.push(row);
    }
    mock.stop().await?;
    Ok(Some(rows))
}

async fn row(
    args: &super::Args,
    workload: &Workload,
    wished: Option<u64>,
    target: &Target,
    mock: &Process,
    programs: &Programs,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Row>> {
    let (mut of_driver, mut of_mock, mut kernel) = (Vec::new(), Vec::new(), Vec::new());
    let (mut peak, mut not_ok, mut example) = (0, 0, None);
    // A second or so of each; the streams that are held take their time by themselves.
    let (scale, rounds) = if workload.concurrency == HELD { (1.0, 1) } else { (5.0, ROUNDS) };
    for round in 0..=rounds {
        let plan = workload.plan(target, scale, args.seed.wrapping_add(round));
        let before = mock.cpu().context("failed to see the mock at work")?;
        let measured = drive(programs, &plan, stop).await?;
        let used = (mock.cpu().context("failed to see the mock at work")? - before).as_secs_f64();
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let turn = Turn::new(&measured, Some(used));
        not_ok += turn.not_ok;
        example = example.or(turn.example);
        peak = peak.max(measured.stages.first().map_or(0, |stage| stage.peak));
        let cost = measured.driver.user_seconds + measured.driver.system_seconds;
        if round > 0 && cost > 0.0 && used > 0.0 {
            of_driver.push(turn.ok as f64 / cost);
            of_mock.push(turn.ok as f64 / used);
            kernel.push(measured.driver.system_seconds / cost);
        }
    }
    Ok(Some(Row {
        workload: workload.name,
        about: workload.about,
        driver: Spread::of(of_driver),
        target: wished,
        kernel: Spread::of(kernel),
        mock: Spread::of(of_mock),
        peak,
        not_ok,
        example,
    }))
}

fn table(rows: &[Row], passed: bool) -> String {
    let mut text = format!(
        "{:<10} {:>27} {:>8} {:>7} {:>10} {:>6} {:>6}\n",
        "workload", "driver (least–most)", "aim", "kernel", "mock", "peak", "not ok"
    );
    let whole = |number: f64| format!("{number:.0}");
    for row in rows {
        let driver = row.driver.map_or("–".to_owned(), |rate| {
            format!("{:.0} ({:.0}–{:.0})", rate.median, rate.least, rate.greatest)
        });
        let kernel = row.kernel.map_or("–".to_owned(), |share| format!("{:.0} %", 100.0 * share.median));
        let mock = row.mock.map_or("–".to_owned(), |rate| whole(rate.median));
        let target = row.target.map_or("–".to_owned(), |target| target.to_string());
        text.push_str(&format!(
            "{:<10} {driver:>27} {target:>8} {kernel:>7} {mock:>10} {:>6} {:>6}\n",
            row.workload, row.peak, row.not_ok
        ));
    }
    for row in rows {
        text.push_str(&format!("{}: {}\n", row.workload, row.about));
        if let Some(example) = &row.example {
            text.push_str(&format!("  {example}\n"));
        }
    }
    let word = if passed { "every reply was right" } else { "NOT every reply was right" };
    text + &format!("self-test: {word}; requests per second of CPU, medians")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_into_a_terminal() {
        let spread = |median: f64| Spread::of([median - 1.0, median, median + 1.0]);
        let row = |(workload, target): (Workload, Option<u64>)| Row {
            workload: workload.name,
            about: workload.about,
            driver: spread(123_456.0),
            target,
            kernel: spread(0.8),
            mock: spread(104_000.0),
            peak: 4_000,
            not_ok: 0,
            example: None,
        };
        let rows: Vec<Row> = chosen().into_iter().map(row).collect();
        let text = table(&rows, true);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("123456 (123455–123457)   150000"), "{text}");
    }
}
