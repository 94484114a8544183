//! Every case that is guarded under callgrind: how many instructions one run of it takes.
//!
//! `cargo xtask bench-check --instructions` runs it and judges. It wants valgrind, and gungraun's runner of the
//! version that `Cargo.lock` names.

#![allow(missing_docs, reason = "gungraun's macros make modules and functions without any")]

use benches::case::{Case, Prepared};
use benches::{cases, reference};
use gungraun::{library_benchmark, library_benchmark_group, main};

/// The cases by number, the reference first: gungraun names them `case_0`, `case_1`, …
fn numbers() -> std::ops::RangeInclusive<usize> {
    0..=cases::all().len()
}

fn prepare(number: usize) -> Prepared {
    let reference = Case { name: reference::NAME, prepare: reference::prepare };
    let case = std::iter::once(reference).chain(cases::all()).nth(number).expect("it is one of the numbers");
    let mut prepared = (case.prepare)();
    // The first run fills what is kept.
    (prepared.run)();
    prepared
}

#[library_benchmark]
#[benches::case(iter = numbers(), setup = prepare)]
fn run(mut prepared: Prepared) -> Prepared {
    (prepared.run)();
    // What it holds is freed behind the count.
    prepared
}

library_benchmark_group!(name = parts; benchmarks = run);
main!(library_benchmark_groups = parts);
