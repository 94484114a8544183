//! Scrubbing of a recorded Codex session: each pass, all of them, and megabytes per CPU-second.
//!
//! What counts is time of the CPU: on a shared machine time of the clock says little.

#![allow(missing_docs, reason = "criterion's macros make a function without any")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use harness::scrub::{Learner, Options, Scrubber};
use nix::sys::resource::{UsageWho, getrusage};

type Lines<'a> = Vec<&'a [u8]>;

fn learn(lines: &Lines<'_>) -> Scrubber {
    let mut learner = Learner::new(Options::default());
    lines.iter().for_each(|line| learner.learn(line).expect("the traffic is well formed"));
    learner.finish().expect("there is room for all values")
}

/// Writes the scrubbed records with their line ends into a buffer that is used again, as a file would be.
fn replace(scrubber: &mut Scrubber, lines: &Lines<'_>, written: &mut Vec<u8>) {
    written.clear();
    let mut record = Vec::new();
    for line in lines {
        record.clear();
        record.extend_from_slice(line);
        scrubber.scrub(&mut record).expect("the traffic is well formed");
        record.push(b'\n');
        written.extend_from_slice(&record);
    }
}

fn verify(scrubber: &Scrubber, written: &[u8]) {
    let mut verifier = scrubber.verifier();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', written) {
        let line = &written[start..end];
        assert!(verifier.check(line).expect("it is JSON").is_empty(), "nothing is left");
        start = end + 1;
    }
}

/// Seconds of the CPU that this process has used.
fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("every system tells");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn bench(criterion: &mut Criterion) {
    // A recording of one's own says more than any that is made up, and cannot be committed.
    let session = match std::env::var_os("SCRUB_TRAFFIC") {
        Some(path) => std::fs::read(path).expect("SCRUB_TRAFFIC names a file"),
        None => benches::codex_session(32 * 1024 * 1024),
    };
    let lines: Lines<'_> = session.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let megabytes = session.len() as f64 / 1e6;

    // Once before it counts, so that no page is touched for the first time.
    let mut scrubbed = Vec::new();
    replace(&mut learn(&lines), &lines, &mut scrubbed);
    let begun = cpu();
    let mut scrubber = learn(&lines);
    let learnt = cpu();
    replace(&mut scrubber, &lines, &mut scrubbed);
    let replaced = cpu();
    verify(&scrubber, &scrubbed);
    let verified = cpu();
    let rate = |from: f64, to: f64| megabytes / (to - from).max(1e-9);
    println!(
        "MB per CPU-second: learn {:.0}, replace {:.0}, verify {:.0}, all {:.0}",
        rate(begun, learnt),
        rate(learnt, replaced),
        rate(replaced, verified),
        rate(begun, verified)
    );

    let mut group = criterion.benchmark_group("scrub");
    group.throughput(Throughput::Bytes(session.len() as u64)).sample_size(10);
    group.bench_function("learn", |bench| bench.iter(|| learn(&lines)));
    let mut written = Vec::with_capacity(scrubbed.len());
    group.bench_function("replace", |bench| {
        bench.iter_batched(
            || learn(&lines),
            |mut scrubber| replace(&mut scrubber, &lines, &mut written),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("verify", |bench| bench.iter(|| verify(&scrubber, &scrubbed)));
    group.finish();
}

criterion_group!(scrub, bench);
criterion_main!(scrub);
