//! Tests dealt out to shards: the longest first, each to the shard that has least to do.
//!
//! A plan depends on what the tests are and not on the order they come in. A weight that is wrong or missing
//! costs balance; it never costs a test.

use std::num::NonZeroUsize;
use std::time::Duration;

/// A part of the parallel-safe tests that CI runs in a job of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name, as CI shows it.
    pub name: String,
    /// Which tests, as a nextest filter expression.
    pub filter: String,
    /// The line of the manifest that it begins in, counted from 1.
    pub line: usize,
}

/// How tests are dealt out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dealing {
    /// The longest first, each to the shard with the least to do.
    Weighted,
    /// In turn, in the order of their names.
    Modulo,
}

/// What each shard runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<T> {
    /// The shards.
    pub shards: Vec<Shard<T>>,
    largest: Duration,
}

/// What one shard runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard<T> {
    /// Its tests, in the order of their names.
    pub tests: Vec<T>,
    /// The sum of their weights.
    pub weight: Duration,
}

impl<T: Ord> Plan<T> {
    /// Deals out tests with their weights.
    #[must_use]
    pub fn new(tests: Vec<(T, Duration)>, count: NonZeroUsize, dealing: Dealing) -> Self {
        let empty = || Shard { tests: Vec::new(), weight: Duration::ZERO };
        let mut shards: Vec<Shard<T>> = std::iter::repeat_with(empty).take(count.get()).collect();
        let largest = tests.iter().map(|(_, weight)| *weight).max().unwrap_or_default();
        let mut tests = tests;
        tests.sort_by(|(a, _), (b, _)| a.cmp(b));
        if dealing == Dealing::Weighted {
            // Stable, so tests of one weight stay in the order of their names.
            tests.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        }
        for (index, (test, weight)) in tests.into_iter().enumerate() {
            let target = match dealing {
                Dealing::Modulo => shards.get_mut(index % count),
                Dealing::Weighted => shards.iter_mut().min_by_key(|it| (it.weight, it.tests.len())),
            };
            if let Some(shard) = target {
                shard.tests.push(test);
                shard.weight += weight;
            }
        }
        shards.iter_mut().for_each(|shard| shard.tests.sort());
        Self { shards, largest }
    }
}

impl<T> Plan<T> {
    /// How long the longest shard takes.
    #[must_use]
    pub fn makespan(&self) -> Duration {
        self.shards.iter().map(|shard| shard.weight).max().unwrap_or_default()
    }

    /// What no plan for these tests can be better than: the largest of them, and an even share of all.
    #[must_use]
    pub fn lower_bound(&self) -> Duration {
        self.largest.max(self.mean())
    }

    /// By how much the longest shard exceeds an even share, as a part of that share.
    #[must_use]
    pub fn imbalance(&self) -> f64 {
        let mean = self.mean().as_secs_f64();
        if mean == 0.0 { 0.0 } else { self.makespan().as_secs_f64() / mean - 1.0 }
    }

    /// The plan in a few lines.
    #[must_use]
    pub fn explain(&self) -> String {
        let lines = self.shards.iter().enumerate().map(|(index, shard)| {
            format!("shard {index}: {} tests, {:.3} s\n", shard.tests.len(), shard.weight.as_secs_f64())
        });
        let [makespan, bound] = [self.makespan(), self.lower_bound()].map(|time| time.as_secs_f64());
        let imbalance = self.imbalance() * 100.0;
        lines.collect::<String>()
            + &format!("makespan {makespan:.3} s, lower bound {bound:.3} s, imbalance {imbalance:.1} %\n")
    }

    fn mean(&self) -> Duration {
        let total: Duration = self.shards.iter().map(|shard| shard.weight).sum();
        total.div_f64(self.shards.len().max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(weights: &[u64]) -> Vec<(usize, Duration)> {
        weights.iter().map(|seconds| Duration::from_secs(*seconds)).enumerate().collect()
    }

    fn count(shards: usize) -> NonZeroUsize {
        NonZeroUsize::new(shards).unwrap()
    }

    #[test]
    fn a_plan_says_how_good_it_is() {
        let plan = Plan::new(seconds(&[5, 3, 3, 2, 2]), count(2), Dealing::Weighted);
        insta::assert_snapshot!(plan.explain(), @r"
        shard 0: 2 tests, 7.000 s
        shard 1: 3 tests, 8.000 s
        makespan 8.000 s, lower bound 7.500 s, imbalance 6.7 %
        ");
        let modulo = Plan::new(seconds(&[5, 3, 3, 2, 2]), count(2), Dealing::Modulo);
        assert_eq!(modulo.makespan(), Duration::from_secs(10));
    }

    #[test]
    fn no_tests_and_more_shards_than_tests_are_plans_too() {
        let none = Plan::<usize>::new(Vec::new(), count(3), Dealing::Weighted);
        assert_eq!((none.shards.len(), none.makespan(), none.imbalance()), (3, Duration::ZERO, 0.0));
        let one = Plan::new(seconds(&[4]), count(3), Dealing::Weighted);
        assert_eq!(one.lower_bound(), Duration::from_secs(4));
    }

    /// The best makespan there is, by trying everything.
    fn optimum(weights: &[u64], shards: &mut [u64]) -> u64 {
        let Some((first, rest)) = weights.split_first() else {
            return shards.iter().copied().max().unwrap_or_default();
        };
        let mut best = u64::MAX;
        for index in 0..shards.len() {
            shards[index] += first;
            best = best.min(optimum(rest, shards));
            shards[index] -= first;
        }
        best
    }

    fn dealing() -> impl Strategy<Value = Dealing> {
        prop_oneof![Just(Dealing::Weighted), Just(Dealing::Modulo)]
    }

    proptest! {
        #[test]
        fn every_test_is_in_exactly_one_shard(
            weights in proptest::collection::vec(0_u64..50, 0..60), shards in 1_usize..9, dealing in dealing(),
        ) {
            let plan = Plan::new(seconds(&weights), count(shards), dealing);
            let mut dealt: Vec<_> = plan.shards.iter().flat_map(|shard| shard.tests.clone()).collect();
            dealt.sort_unstable();
            prop_assert_eq!(dealt, (0..weights.len()).collect::<Vec<_>>());
            let total: Duration = plan.shards.iter().map(|shard| shard.weight).sum();
            prop_assert_eq!(total, Duration::from_secs(weights.iter().sum()));
            prop_assert!(plan.lower_bound() <= plan.makespan() + Duration::from_nanos(1));
        }

        #[test]
        fn the_order_of_the_tests_does_not_matter(
            (tests, shuffled) in proptest::collection::vec(0_u64..9, 0..30).prop_map(|weights| seconds(&weights))
                .prop_flat_map(|tests| (Just(tests.clone()), Just(tests).prop_shuffle())),
            shards in 1_usize..6, dealing in dealing(),
        ) {
            prop_assert_eq!(
                Plan::new(tests, count(shards), dealing),
                Plan::new(shuffled, count(shards), dealing)
            );
        }

        #[test]
        fn the_longest_shard_is_within_four_thirds_of_the_best(
            weights in proptest::collection::vec(0_u64..40, 0..8), shards in 1_usize..4,
        ) {
            let best = optimum(&weights, &mut vec![0; shards]);
            let plan = Plan::new(seconds(&weights), count(shards), Dealing::Weighted);
            prop_assert!(plan.makespan().as_secs() * 3 <= best * 4, "{:?} against {}", plan, best);
        }
    }
}
