//! The tasks of this project: reads the command line, runs one command, turns its verdict into an exit code.
//!
//! One file per command; a command reads its arguments, calls into a library or its own modules, and reports.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod exit;

mod bench_check;

mod bench_calibrate;

mod thresholds;

mod ci_impact;

mod ci_matrix;

mod compat;

mod compat_capture;

mod compat_clients;

mod compat_offline_gate;

mod compat_replay;

mod load;

mod load_smoke;

mod test_fast;

mod test_serial;

mod test_smoke;

mod test_stress;

mod test_env_parallel;

mod test_shard;

mod test_full;

mod timing_balance;

mod manifest_check;

mod suite;

mod isolate;

mod tidy;

mod cargo;

mod step;

mod terminal;

use exit::Exit;

/// The tasks of this project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES, max_term_width = 90)]
struct Cli {
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Debug, Subcommand)]
enum Task {
    BenchCheck(bench_check::Args),
    BenchCalibrate(bench_calibrate::Args),
    CiImpact(ci_impact::Args),
    CiMatrix(ci_matrix::Args),
    Compat(compat::Args),
    CompatCapture(compat_capture::Args),
    CompatClients(compat_clients::Args),
    CompatReplay(compat_replay::Args),
    CompatOfflineGate(compat_offline_gate::Args),
    // By far the most flags.
    Load(Box<load::Args>),
    LoadSmoke(load_smoke::Args),
    TestFast(test_fast::Args),
    TestSerial(test_serial::Args),
    TestSmoke(test_smoke::Args),
    TestStress(test_stress::Args),
    TestEnvParallel(test_env_parallel::Args),
    TestShard(test_shard::Args),
    TestFull(test_full::Args),
    TimingBalance(timing_balance::Args),
    ManifestCheck(manifest_check::Args),
    Tidy(tidy::Args),
}

fn main() -> ExitCode {
    // Before anything else: this is what every test is run by.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == isolate::NAME) {
        return isolate::run(arguments);
    }
    let cli = Cli::parse();
    let verdict = match &cli.task {
        Some(Task::BenchCheck(args)) => bench_check::run(args),
        Some(Task::BenchCalibrate(args)) => bench_calibrate::run(args),
        Some(Task::CiImpact(args)) => ci_impact::run(args),
        Some(Task::CiMatrix(args)) => ci_matrix::run(args),
        Some(Task::Compat(args)) => compat::run(args),
        Some(Task::CompatCapture(args)) => compat_capture::run(args),
        Some(Task::CompatClients(args)) => compat_clients::run(args),
        Some(Task::CompatReplay(args)) => compat_replay::run(args),
        Some(Task::CompatOfflineGate(args)) => compat_offline_gate::run(args),
        Some(Task::Load(args)) => load::run(args),
        Some(Task::LoadSmoke(args)) => load_smoke::run(args),
        Some(Task::TestFast(args)) => test_fast::run(args),
        Some(Task::TestSerial(args)) => test_serial::run(args),
        Some(Task::TestSmoke(args)) => test_smoke::run(args),
        Some(Task::TestStress(args)) => test_stress::run(args),
        Some(Task::TestEnvParallel(args)) => test_env_parallel::run(args),
        Some(Task::TestShard(args)) => test_shard::run(args),
        Some(Task::TestFull(args)) => test_full::run(args),
        Some(Task::TimingBalance(args)) => timing_balance::run(args),
        Some(Task::ManifestCheck(args)) => manifest_check::run(args),
        Some(Task::Tidy(args)) => tidy::run(args, &Cli::command()),
        None => terminal::result(&Cli::command().render_help().to_string()).map(|()| Exit::Good),
    };
    match verdict {
        Ok(exit) => exit.into(),
        Err(error) => {
            terminal::progress(&format!("error: {error:#}"));
            Exit::Environment.into()
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask compat                     real clients through the proxy
  cargo xtask compat-capture -i a.jsonl  a recording as a fixture without secrets
  cargo xtask load --start-mock          drive load, and check every byte
  cargo xtask test-fast                  the tests that run beside anything
  cargo xtask tidy --bless               rewrite ARCHITECTURE.md's map, then check

Exit codes: 0 good; 1 findings; 2 usage; 3 environment; 4 nothing selected;
124 timed out; 130 interrupted.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_is_one_screen_with_examples() {
        let help = Cli::command().render_help().to_string();
        assert!(help.lines().count() <= 40, "{help}");
        insta::assert_snapshot!(help, @r"
        The tasks of this project

        Usage: cargo xtask [COMMAND]

        Commands:
          bench-check          Check that each guarded part is as fast as it was
          bench-calibrate      Make thresholds of what `bench-check` measured
          ci-impact            Say which crates and which lanes of CI a change can reach
          ci-matrix            Print the matrix of CI's test jobs, from the manifest's shards
          compat               Replay recorded traffic and drive real clients through the proxy
          compat-capture       Scrub recorded traffic, so that it can be kept as a fixture
          compat-clients       Fetch real clients, or drive them through a proxy that runs already
          compat-replay        Replay recorded traffic through a proxy, and say what differs
          compat-offline-gate  Replay every fixture, with nothing in between and through the proxy
          load                 Drive a scenario of load through a proxy, and judge what came of it
          load-smoke           Send some requests through the proxy, and judge every byte
          test-fast            Run the tests that run beside anything
          test-serial          Run the tests that nothing may run beside, one at a time
          test-smoke           Run the tests that are worth a minute before anything else
          test-stress          Run the tests that load the machine, one at a time, in shards
          test-env-parallel    Run parallel-safe tests together in one process
          test-shard           Run one of the parts that CI runs the parallel-safe tests in
          test-full            Run every test in every lane, and the examples of the documentation
          timing-balance       Show how long tests take, over many runs
          manifest-check       Check that the manifest owns every test
          tidy                 Check the rules that neither a type nor a lint can hold
          help                 Print this message or the help of the given subcommand(s)

        Options:
          -h, --help  Print help

        Examples:
          cargo xtask compat                     real clients through the proxy
          cargo xtask compat-capture -i a.jsonl  a recording as a fixture without secrets
          cargo xtask load --start-mock          drive load, and check every byte
          cargo xtask test-fast                  the tests that run beside anything
          cargo xtask tidy --bless               rewrite ARCHITECTURE.md's map, then check

        Exit codes: 0 good; 1 findings; 2 usage; 3 environment; 4 nothing selected;
        124 timed out; 130 interrupted.
        ");
    }

    #[test]
    fn an_unknown_flag_is_an_error_of_usage() {
        for line in ["tidy --bles", "test-fast --jbos 2", "test-fast --jobs 0", "tidyy"] {
            let words = ["cargo xtask"].into_iter().chain(line.split(' '));
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
