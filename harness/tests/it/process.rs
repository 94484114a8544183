//! Starting, awaiting and stopping programs; and that nothing of them is left.

use std::time::{Duration, Instant};

use harness::process::{Exit, ProcessError, Program};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::script::shell;

const LIMIT: Duration = Duration::from_secs(10);

/// Whether a process runs. One that only waits for whoever inherited it to reap it does not.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_zombie = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    kill(Pid::from_raw(pid), None).is_ok() && !is_zombie
}

/// Waits until a process is gone: a signal takes its time.
async fn gone(pid: i32) {
    let gone = async {
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("the process is gone in time");
}

#[tokio::test]
async fn a_program_is_ready_when_it_says_so() {
    let program = shell("echo warming up; echo oops >&2; echo 'ready {\"port\":7}'; exec sleep 60");
    let (running, ready) = program.start_ready("ready ", LIMIT).await.unwrap();
    assert_eq!(ready["port"], 7);
    let pid = running.pid().cast_signed();
    let stopped = running.stop(LIMIT).await.unwrap();
    assert_eq!((stopped.exit, stopped.killed), (Some(Exit::Signal(15)), false));
    assert_eq!((stopped.stderr.as_str(), stopped.stragglers.len()), ("oops\n", 0));
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_program_that_is_never_ready_is_an_error_that_says_why() {
    let error = shell("echo 'no such profile' >&2; exit 3").start_ready("ready ", LIMIT).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("exit code 3") && text.contains("no such profile"), "{text}");

    let started = Instant::now();
    let error = shell("exec sleep 60").start_ready("ready ", Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, ProcessError::Timeout { what: "ready", .. }), "{error}");
    let error = shell("echo ready soon; exec sleep 60").start_ready("ready ", LIMIT).await.unwrap_err();
    assert!(matches!(error, ProcessError::Ready { .. }), "{error}");
    let error = Program::new("/no/such/program").start().unwrap_err();
    assert!(matches!(error, ProcessError::Start { .. }), "{error}");
    assert!(started.elapsed() < LIMIT);
}

#[tokio::test]
async fn a_program_that_ignores_the_request_to_end_is_killed() {
    let program = shell("trap '' TERM; echo 'ready {}'; while :; do sleep 1; done");
    let (running, _) = program.start_ready("ready ", LIMIT).await.unwrap();
    let stopped = running.stop(Duration::from_millis(200)).await.unwrap();
    assert_eq!((stopped.exit, stopped.killed), (Some(Exit::Signal(9)), true));
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_named_and_ended() {
    // One in its group, one in a session of its own: both hold no pipe.
    let program =
        shell("sleep 61 >/dev/null 2>&1 & echo $!; setsid sleep 62 >/dev/null 2>&1 & sleep 0.2; echo done");
    let finished = program.run(LIMIT).await.unwrap();
    assert_eq!(finished.exit, Some(Exit::Code(0)));
    let mut commands: Vec<_> = finished.stragglers.iter().map(|left| left.command.clone()).collect();
    commands.sort();
    assert_eq!(commands, ["sleep 61", "sleep 62"]);
    for straggler in finished.stragglers {
        gone(straggler.pid).await;
    }
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_ended_with_all_it_started() {
    let finished = shell("sleep 63 & echo $!; wait").run(Duration::from_millis(300)).await.unwrap();
    assert_eq!(finished.exit, None);
    gone(finished.stdout.trim().parse().unwrap()).await;
}

#[tokio::test]
async fn a_panic_leaves_nothing_behind() {
    let program = shell("setsid sleep 64 & echo \"ready $!\"; wait");
    let (running, ready) = program.start_ready("ready ", LIMIT).await.unwrap();
    let pids = [running.pid().cast_signed(), i32::try_from(ready.as_i64().unwrap()).unwrap()];
    let panicked = tokio::spawn(async move {
        let _running = running;
        panic!("on purpose");
    });
    assert!(panicked.await.is_err());
    for pid in pids {
        gone(pid).await;
    }
}

#[tokio::test]
async fn a_program_gets_the_environment_it_is_given_and_no_stdin() {
    let program = Program::new("/usr/bin/env").envs([("ONE", "1"), ("ONE", "2")]);
    let finished = program.run(LIMIT).await.unwrap();
    let mut names: Vec<&str> = finished.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["LABORATORY_PROCESS", "ONE"]);
    assert!(finished.stdout.contains("ONE=2"));
    let finished = shell("cat; echo end").run(LIMIT).await.unwrap();
    assert_eq!(finished.stdout, "end\n");
}
