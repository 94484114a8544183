//! A case: a name, an input that is the same in every run, and the work that is measured.

use std::hint::black_box;

/// A part of the program under a certain load.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// `BENCH/CASE`. What is before the slash is the bench: what a person asks for together.
    pub name: &'static str,
    /// Makes the input and whatever else the work needs. What it makes may live as long as the process.
    pub prepare: fn() -> Prepared,
}

impl Case {
    /// The part of the name before the slash.
    #[must_use]
    pub fn bench(&self) -> &'static str {
        self.name.split_once('/').map_or(self.name, |(bench, _)| bench)
    }
}

/// A case that can be run, again and again, and does the same each time.
pub struct Prepared {
    /// How much one run gets done.
    pub amount: Amount,
    /// One run.
    pub run: Box<dyn FnMut()>,
}

impl Prepared {
    /// Work whose result the compiler must not know to be unused.
    #[must_use]
    pub fn new<T>(amount: Amount, mut work: impl FnMut() -> T + 'static) -> Self {
        let run = move || {
            black_box(work());
        };
        Self { amount, run: Box::new(run) }
    }
}

/// How much one run of a case gets done, where a rate says more than a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// One of whatever the case is named for.
    One,
    /// So many bytes of input.
    Bytes(u64),
    /// So many things.
    Items(u64),
}

/// What a case borrows for as long as the process lives, so that the case owns itself.
pub(crate) fn forever<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}
