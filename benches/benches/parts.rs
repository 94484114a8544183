//! Every case that is guarded, with criterion: `cargo bench --package benches --bench parts -- sse`.

#![allow(missing_docs, reason = "criterion's macros make a function without any")]

use benches::case::{Amount, Case};
use benches::{cases, reference};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn bench(criterion: &mut Criterion) {
    let reference = Case { name: reference::NAME, prepare: reference::prepare };
    for case in std::iter::once(reference).chain(cases::all()) {
        let mut group = criterion.benchmark_group(case.bench());
        let mut prepared = (case.prepare)();
        match prepared.amount {
            Amount::One => {}
            Amount::Bytes(count) => drop(group.throughput(Throughput::Bytes(count))),
            Amount::Items(count) => drop(group.throughput(Throughput::Elements(count))),
        }
        let name = case.name.split_once('/').map_or(case.name, |(_, name)| name);
        group.bench_function(name, |bencher| bencher.iter(|| (prepared.run)()));
        group.finish();
    }
}

criterion_group!(parts, bench);
criterion_main!(parts);
