//! Bindings made durable: what a commit costs, how many go to one under load, what a request pays without one.
//!
//! What counts is time of the CPU, of all threads of the process: on a shared machine time of the clock says
//! little.

#![allow(missing_docs, reason = "criterion's macros make a function without any")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use nix::sys::resource::{UsageWho, getrusage};
use prodex::state::{Durability, State, Ticket, Tie, digest};
use prodex::telemetry::RunLog;
use tokio::task::JoinSet;

/// How many conversations wait for their bindings at once under load.
const STREAMS: usize = 256;

/// Seconds of the CPU that this process has used.
fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("every system tells");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn open(directory: &Path) -> Arc<State> {
    let log = Arc::new(RunLog::none());
    Arc::new(State::open(directory, Durability::Normal, &log).expect("a new directory can be used").0)
}

async fn settle(state: &State, ticket: Ticket) {
    if let Some(mut gate) = state.gate(ticket) {
        std::future::poll_fn(|context| gate.poll_open(context)).await;
    }
}

/// Binds so many ids, one after the other, each waited for.
async fn in_turn(state: &State, profile: &Arc<str>, prefix: &str, count: usize) {
    for number in 0..count {
        let ticket = state.bind(Tie::Response, &format!("{prefix}-{number}"), profile);
        settle(state, ticket).await;
    }
}

/// Prints what each of `count` bindings took.
fn report(what: &str, count: usize, cpu: f64, wall: f64) {
    println!(
        "{what}: {:.1} us of CPU and {:.1} us each, {:.0} per CPU-second",
        cpu * 1e6 / count as f64,
        wall * 1e6 / count as f64,
        count as f64 / cpu.max(1e-9)
    );
}

fn bench(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("there is a temporary directory");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be made");
    let state = open(&directory.path().join("state"));
    let profile: Arc<str> = "main".into();
    let is_test = std::env::args().any(|argument| argument == "--test");
    let count = if is_test { STREAMS } else { 20_480 };

    runtime.block_on(in_turn(&state, &profile, "warm", count / 10));
    let (begun, clock) = (cpu(), Instant::now());
    runtime.block_on(in_turn(&state, &profile, "single", count));
    report("one at a time", count, cpu() - begun, clock.elapsed().as_secs_f64());

    let (begun, clock) = (cpu(), Instant::now());
    runtime.block_on(async {
        let mut streams = JoinSet::new();
        for stream in 0..STREAMS {
            let (state, profile) = (Arc::clone(&state), Arc::clone(&profile));
            streams.spawn(async move {
                in_turn(&state, &profile, &format!("load-{stream}"), count / STREAMS).await;
            });
        }
        while streams.join_next().await.is_some() {}
    });
    report("256 at once", count, cpu() - begun, clock.elapsed().as_secs_f64());

    let (begun, clock) = (cpu(), Instant::now());
    let mut last = Ticket::DURABLE;
    for number in 0..count {
        last = last.max(state.bind(Tie::Response, &format!("held-{number}"), &profile));
    }
    runtime.block_on(settle(&state, last));
    report("not waited for", count, cpu() - begun, clock.elapsed().as_secs_f64());

    state.close();
    drop(state);
    let clock = Instant::now();
    let state = open(&directory.path().join("state"));
    println!("opened with what there is in {:.1} ms", clock.elapsed().as_secs_f64() * 1e3);

    let session = "0199a213-81c0-7800-8aa1-bbab2a035a53";
    runtime.block_on(settle(&state, state.bind(Tie::Session, session, &profile)));
    let mut group = criterion.benchmark_group("state");
    group.bench_function("a session that is bound already", |bench| {
        bench.iter(|| {
            runtime.block_on(state.recall([(Tie::Session, digest(session))]));
            let owner = state.owner(Tie::Session, session);
            let ticket = state.bind(Tie::Session, session, &profile);
            assert!(state.gate(ticket).is_none(), "nobody waits");
            owner
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
