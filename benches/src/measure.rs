//! Measuring a case against the reference, in pairs, so that what disturbs one disturbs the other.
//!
//! A pair is a sample of each, one right after the other, and counts as their ratio; a case is the median of
//! its pairs. Pairs of a case are spread over the whole run: whoever uses the machine for half of the time
//! spoils fewer than half of them. What is read is the processor time of this process, since on a shared
//! machine time of the clock says little; work that waits instead of computing is not seen here.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::case::{Amount, Case, Prepared};
use crate::reference;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How long a sample of a case or of the reference takes at least.
    pub sample: Duration,
    /// How often all cases are gone through.
    pub passes: u32,
    /// How many pairs each case gets in a pass.
    pub pairs: u32,
}

/// What a case took. One of these is a line of what `gate` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// Its name.
    pub case: &'static str,
    /// The median of its pairs: how many times as long as the reference.
    pub ratio: f64,
    /// The ninth decile of its pairs.
    pub p90: f64,
    /// The median of what one run took, in nanoseconds of processor time.
    pub nanoseconds: f64,
    /// The same of the reference, in the same pairs.
    pub reference: f64,
    /// How many pairs there were.
    pub pairs: usize,
    /// How many bytes a run gets done, if that is what it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How many things, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<u64>,
}

/// How much processor time this process has used, all its threads together.
#[must_use]
pub fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("every system that we build for has it").into()
}

/// Measures cases. `clock` is [`processor_time`], but for tests.
pub fn measure(cases: &[Case], effort: Effort, clock: &mut dyn FnMut() -> Duration) -> Vec<Measured> {
    let prepared = cases.iter().map(|case| (case.name, (case.prepare)())).collect();
    pairs(reference::prepare(), prepared, effort, clock)
}

fn pairs(
    reference: Prepared,
    cases: Vec<(&'static str, Prepared)>,
    effort: Effort,
    clock: &mut dyn FnMut() -> Duration,
) -> Vec<Measured> {
    let mut reference = Subject::new(reference, effort.sample, clock);
    let mut subjects = Vec::with_capacity(cases.len());
    for (name, prepared) in cases {
        subjects.push((name, Subject::new(prepared, effort.sample, clock), Vec::new()));
    }
    for _ in 0..effort.passes {
        for (_, subject, pairs) in &mut subjects {
            for number in 0..effort.pairs {
                // The first of two may find colder caches: each is the first, in turn.
                let pair = if number % 2 == 0 {
                    let reference = reference.sample(clock);
                    (subject.sample(clock), reference)
                } else {
                    (subject.sample(clock), reference.sample(clock))
                };
                pairs.push(pair);
            }
        }
    }
    subjects
        .into_iter()
        .map(|(name, subject, pairs)| summary(name, subject.prepared.amount, &pairs))
        .collect()
}

fn summary(case: &'static str, amount: Amount, pairs: &[(f64, f64)]) -> Measured {
    let ratios = sorted(pairs.iter().map(|(case, reference)| case / reference));
    let (bytes, items) = match amount {
        Amount::One => (None, None),
        Amount::Bytes(count) => (Some(count), None),
        Amount::Items(count) => (None, Some(count)),
    };
    Measured {
        case,
        ratio: at(&ratios, 0.5),
        p90: at(&ratios, 0.9),
        nanoseconds: at(&sorted(pairs.iter().map(|pair| pair.0)), 0.5),
        reference: at(&sorted(pairs.iter().map(|pair| pair.1)), 0.5),
        pairs: pairs.len(),
        bytes,
        items,
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The value at this part of the way through sorted values; 0 when there are none.
fn at(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
}

/// Something that is sampled, and how often it is run for a sample.
struct Subject {
    prepared: Prepared,
    runs: u32,
}

impl Subject {
    /// Warms it up, until one sample takes as long as it should.
    fn new(prepared: Prepared, sample: Duration, clock: &mut dyn FnMut() -> Duration) -> Self {
        let mut subject = Self { prepared, runs: 1 };
        // The first run of all fills what is kept; it says nothing.
        subject.sample(clock);
        while subject.sample(clock) * f64::from(subject.runs) < sample.as_secs_f64() * 1e9 {
            subject.runs = subject.runs.saturating_mul(2);
        }
        subject
    }

    /// What one run took, in nanoseconds.
    fn sample(&mut self, clock: &mut dyn FnMut() -> Duration) -> f64 {
        let begun = clock();
        (0..self.runs).for_each(|_| (self.prepared.run)());
        let taken = clock().saturating_sub(begun);
        // A clock that does not move for one run must not make a ratio of nothing.
        (taken.as_secs_f64() * 1e9 / f64::from(self.runs)).max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    const EFFORT: Effort = Effort { sample: Duration::from_micros(200), passes: 5, pairs: 9 };

    /// The reference itself as a case, so many times over.
    fn times(count: u32) -> Prepared {
        let mut reference = reference::prepare();
        Prepared::new(Amount::One, move || (0..count).for_each(|_| (reference.run)()))
    }

    #[test]
    fn a_case_that_is_made_twice_as_slow_has_twice_the_ratio() {
        let cases = [
            Case { name: "test/once", prepare: || times(1) },
            Case { name: "test/twice", prepare: || times(2) },
        ];
        let measured = measure(&cases, EFFORT, &mut processor_time);
        let [once, twice] = [measured[0].ratio, measured[1].ratio];
        assert!((0.75..1.35).contains(&once), "{measured:?}");
        assert!((1.5..2.7).contains(&(twice / once)), "{measured:?}");
        assert_eq!((measured[0].case, measured[0].pairs), ("test/once", 45));
    }

    /// A machine whose time is what the work on it says, stretched by whoever else uses it.
    #[derive(Default)]
    struct Machine {
        now: f64,
        neighbour: Vec<f64>,
    }

    impl Machine {
        /// Work that takes so many microseconds when nobody else is there.
        fn work(machine: &Rc<RefCell<Self>>, microseconds: f64) -> Prepared {
            let machine = Rc::clone(machine);
            Prepared::new(Amount::One, move || {
                let mut machine = machine.borrow_mut();
                // The neighbour does as it likes for 3 ms at a time.
                let slot = (machine.now / 3000.0) as usize % machine.neighbour.len();
                machine.now += microseconds * machine.neighbour[slot];
            })
        }

        fn ratio(neighbour: Vec<f64>, microseconds: f64) -> f64 {
            let machine = Rc::new(RefCell::new(Self { now: 0.0, neighbour }));
            let case = Self::work(&machine, microseconds);
            let mut clock = || Duration::from_secs_f64(machine.borrow().now / 1e6);
            let measured = pairs(Self::work(&machine, 20.0), vec![("test/case", case)], EFFORT, &mut clock);
            measured[0].ratio
        }
    }

    proptest::proptest! {
        #[test]
        fn a_neighbour_that_comes_and_goes_changes_no_ratio(
            neighbour in proptest::collection::vec(1.0..4.0_f64, 1..40), microseconds in 0.05..900.0_f64,
        ) {
            let (quiet, loud) = (Machine::ratio(vec![1.0], microseconds), Machine::ratio(neighbour, microseconds));
            proptest::prop_assert!((quiet * 20.0 / microseconds - 1.0).abs() < 0.01, "{}", quiet);
            proptest::prop_assert!((loud / quiet - 1.0).abs() < 0.05, "{} and {}", quiet, loud);
        }
    }

    #[test]
    fn a_median_is_that_of_the_pairs_and_not_of_their_sum() {
        let one = |case: f64| (case, 10.0);
        let pairs = [one(10.0), one(10.0), one(10.0), one(10.0), one(1e6)];
        let measured = summary("test/case", Amount::Bytes(5), &pairs);
        assert_eq!((measured.ratio, measured.p90, measured.nanoseconds), (1.0, 1e5, 10.0));
        assert_eq!((measured.bytes, measured.items), (Some(5), None));
    }
}
