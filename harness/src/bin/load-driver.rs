//! The load driver as a program: it reads a plan, carries it out, and writes what it measured.
//!
//! `cargo xtask load` starts it, built with optimisation, so that what the driver costs is known apart. A
//! signal ends the run early; what was measured until then is written.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::load::driver;
use harness::load::plan::Plan;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plan, progress, result] = arguments.as_slice() else {
        eprintln!("usage: load-driver PLAN.json PROGRESS.json RESULT.json");
        return ExitCode::from(2);
    };
    match run(Path::new(plan), Path::new(progress), Path::new(result)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load-driver: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Path, progress: &Path, result: &Path) -> std::io::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let plan: Plan = serde_json::from_slice(&std::fs::read(plan)?)?;
    let measured = driver::run(&plan, |now| {
        // A progress that cannot be written is not shown; nothing depends on it.
        let _ = replace(progress, now);
        stop.load(Ordering::Relaxed).then(|| "interrupted".to_owned())
    })?;
    replace(result, &measured)
}

/// Puts a file in place whole, so that a reader never sees half of one.
fn replace(path: &Path, value: &impl serde::Serialize) -> std::io::Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, serde_json::to_vec(value)?)?;
    std::fs::rename(draft, path)
}
