//! Points at which a test may kill the process, for the proof that a kill loses nothing.
//!
//! They exist in debug builds only: in a release build [`point`] is empty, and no variable is read. A cargo
//! feature would have to be asked for by whoever builds the tests' program, and could be asked for by anybody.

/// Kills this process, as `kill -9` does, if `PRODEX_CRASH_AT` is `name` or `name:N` and this is the Nth time.
#[cfg(debug_assertions)]
pub fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = crate::config::process_environment("PRODEX_CRASH_AT")?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), count.parse().ok()?))
    });
    if let Some((wanted, count)) = wanted
        && wanted == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        // It does not return, and if it could not be sent the test notices that the process goes on.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub fn point(_: &'static str) {}
