//! Dealing 4,000 tests out to 8 shards, by weight and in turn.

use std::num::NonZeroUsize;
use std::time::Duration;

use manifest::case::TestId;
use manifest::shard::{Dealing, Plan};

use crate::case::{Amount, Case, Prepared};

pub(super) const CASES: &[Case] = &[
    Case { name: "shards/weighted", prepare: || deal(Dealing::Weighted) },
    Case { name: "shards/modulo", prepare: || deal(Dealing::Modulo) },
];

const TESTS: u64 = 4000;

/// Tests of a dozen binaries, in no order, with weights from 5 ms to 5 s of which most are small.
fn tests() -> Vec<(TestId, Duration)> {
    let test = |number: u64| {
        let drawn = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let id = TestId {
            binary: format!("crate-{}::it", drawn % 12),
            test: format!("module_{}::what_must_hold_{number}", drawn % 40),
        };
        (id, Duration::from_millis(5 + 5000 / (1 + drawn % 1000)))
    };
    (0..TESTS).map(test).collect()
}

fn deal(dealing: Dealing) -> Prepared {
    let tests = tests();
    let count = NonZeroUsize::MIN.saturating_add(7);
    Prepared::new(Amount::Items(TESTS), move || {
        // By reference: a copy of all names would be most of what is measured.
        let tests = tests.iter().map(|(id, weight)| (id, *weight)).collect();
        Plan::new(tests, count, dealing).makespan()
    })
}
