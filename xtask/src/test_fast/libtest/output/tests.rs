//! Outputs as cargo prints them, and what is counted and shown of each.

use super::*;

fn read(text: &str) -> (Vec<Binary>, Vec<Seen>) {
    let mut output = Output::new(false);
    let mut seen: Vec<_> = text.lines().flat_map(|line| output.read(line)).collect();
    let (binaries, rest) = output.finish();
    seen.extend(rest);
    (binaries, seen)
}

/// What is shown, a `!` before what belongs to a failure.
fn shown(seen: &[Seen]) -> String {
    let lines = seen.iter().map(|seen| match seen {
        Seen::Progress(line) => format!("  {line}\n"),
        Seen::Failure(line) => format!("! {line}\n"),
    });
    lines.collect()
}

const PASSING: &str = "    Finished `test` profile [unoptimized] target(s) in 0.05s
     Running unittests src/lib.rs (target/debug/deps/mock_upstream-0a1b2c3d4e5f6071)

running 3 tests
test a::one ... ok
test a::two ... ignored, needs a network
test a::three - should panic ... ok

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.31s

     Running unittests src/main.rs (target/debug/deps/xtask-0a1b2c3d4e5f6071)

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests wire

running 1 test
test wire/src/sse.rs - sse (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s

running 1 test
test wire/src/sse.rs - sse (line 9) - compile fail ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s

";

#[test]
fn binaries_with_tests_are_counted_and_named_by_crate_and_file() {
    let (binaries, seen) = read(PASSING);
    let counts: Vec<_> = binaries.iter().map(|it| (it.name.as_str(), it.passed, it.ignored)).collect();
    assert_eq!(counts, [("mock_upstream src/lib.rs", 2, 1), ("wire documentation", 2, 0)]);
    assert!(binaries.iter().all(|binary| !binary.is_cut && binary.failures.is_empty()));
    insta::assert_snapshot!(shown(&seen), @r"
        Finished `test` profile [unoptimized] target(s) in 0.05s
    mock_upstream src/lib.rs: 2 passed, 1 ignored in 0.31s
    wire documentation: 1 passed in 0.10s
    wire documentation: 1 passed in 0.20s
    ");
}

const FAILING: &str = "     Running tests/it/main.rs (target/debug/deps/it-0a1b2c3d4e5f6071)

running 3 tests
test a::one ... ok
test a::two ... FAILED
test a::three ... FAILED

failures:

---- a::two stdout ----
failures:
    not::a::test
test result: ok. 900 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
running 900 tests
it said no

---- a::three stdout ----
it said nothing

failures:
    a::two
    a::three

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s

error: test failed, to rerun pass `-p prodex --test it`
     Running unittests src/lib.rs (target/debug/deps/wire-0a1b2c3d4e5f6071)

running 1 test
test a ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

error: 1 target failed:
    `-p prodex --test it`
";

#[test]
fn a_failing_binary_is_shown_without_what_passed_and_cannot_pretend() {
    let (binaries, seen) = read(FAILING);
    let counts: Vec<_> = binaries.iter().map(|it| (it.name.as_str(), it.passed, it.failed)).collect();
    assert_eq!(counts, [("it tests/it/main.rs", 1, 2), ("wire src/lib.rs", 1, 0)]);
    assert_eq!(binaries[0].failures, ["a::two", "a::three"]);
    insta::assert_snapshot!(shown(&seen), @r"
    ! it tests/it/main.rs: 2 failed, 1 passed in 1.50s
    ! test a::two ... FAILED
    ! test a::three ... FAILED
    ! 
    ! failures:
    ! 
    ! ---- a::two stdout ----
    ! failures:
    !     not::a::test
    ! test result: ok. 900 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
    ! running 900 tests
    ! it said no
    ! 
    ! ---- a::three stdout ----
    ! it said nothing
    ! 
    ! failures:
    !     a::two
    !     a::three
      error: test failed, to rerun pass `-p prodex --test it`
      wire src/lib.rs: 1 passed in 0.00s
      error: 1 target failed:
          `-p prodex --test it`
    ");
}

#[test]
fn a_binary_that_ends_without_a_result_broke_off() {
    let crash = "     Running unittests src/lib.rs (target/debug/deps/wire-0a1b2c3d4e5f6071)

running 2 tests
test a ... ok
thread 'b' has overflowed its stack
error: test failed, to rerun pass `-p wire --lib`

Caused by:
  process didn't exit successfully: `target/debug/deps/wire-0a1b2c3d4e5f6071` (signal: 6, SIGABRT: process abort signal)
";
    let (binaries, seen) = read(crash);
    assert_eq!((binaries.len(), binaries[0].is_cut, binaries[0].passed), (1, true, 0));
    insta::assert_snapshot!(shown(&seen), @r"
    ! wire src/lib.rs: broke off without a result
    ! thread 'b' has overflowed its stack
    ! error: test failed, to rerun pass `-p wire --lib`
    ! 
    ! Caused by:
    !   process didn't exit successfully: `target/debug/deps/wire-0a1b2c3d4e5f6071` (signal: 6, SIGABRT: process abort signal)
    ");
    let (binaries, _) = read("     Running benches/a.rs (target/debug/deps/a-0a1b2c3d4e5f6071)\nhello\n");
    assert!(binaries[0].is_cut);
}

#[test]
fn a_test_that_takes_long_is_a_life_sign() {
    let slow = "test a::b has been running for over 60 seconds";
    let mut output = Output::new(false);
    output.read("     Running unittests src/lib.rs (target/debug/deps/wire-0a1b2c3d4e5f6071)");
    output.read("running 1 test");
    assert_eq!(output.read(slow), [Seen::Progress(slow.to_owned())]);
}

#[test]
fn a_loud_reader_shows_every_line_once() {
    let mut output = Output::new(true);
    let seen: Vec<_> = FAILING.lines().flat_map(|line| output.read(line)).collect();
    let headings = FAILING.lines().filter(|line| heading(line).is_some()).count();
    assert_eq!(seen.len(), FAILING.lines().count() - headings);
    assert_eq!(output.finish().0.len(), 2);
}
