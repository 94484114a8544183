//! Every case that is guarded, or those of some benches, against the reference: a line of JSON for each.
//!
//! `cargo xtask bench-check` runs it and judges. Arguments are names of benches, or `--list`, which prints the names
//! of the cases in their order; without `--bench`, which `cargo bench` adds, each case is run once, so that
//! `cargo test --benches` sees that it can be.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use benches::cases;
use benches::measure::{Effort, measure, processor_time};

/// A little more than a second for ten cases.
const EFFORT: Effort = Effort { sample: Duration::from_millis(1), passes: 5, pairs: 11 };

/// Enough to see that it works.
const ONCE: Effort = Effort { sample: Duration::ZERO, passes: 1, pairs: 1 };

fn main() -> ExitCode {
    let (flags, asked): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.starts_with("--"));
    let effort = if flags.iter().any(|flag| flag == "--bench") { EFFORT } else { ONCE };
    let mut cases = cases::all();
    if let Some(unknown) = asked.iter().find(|name| cases.iter().all(|case| case.bench() != *name)) {
        let mut benches: Vec<_> = cases.iter().map(|case| case.bench()).collect();
        benches.dedup();
        eprintln!("error: there is no bench `{unknown}`; there are {}", benches.join(", "));
        return ExitCode::from(2);
    }
    if !asked.is_empty() {
        cases.retain(|case| asked.iter().any(|name| name == case.bench()));
    }
    let lines: Vec<_> = if flags.iter().any(|flag| flag == "--list") {
        cases.iter().map(|case| case.name.to_owned()).collect()
    } else {
        let measured = measure(&cases, effort, &mut processor_time);
        let line = |case| serde_json::to_string(case).expect("numbers and names are JSON");
        measured.iter().map(line).collect()
    };
    // Whoever reads may have gone away.
    match writeln!(std::io::stdout(), "{}", lines.join("\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(3),
    }
}
