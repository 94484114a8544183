//! The standard metrics of a process, `process_*`, as far as the operating system tells them.

#![expect(clippy::disallowed_methods, reason = "files of /proc are in memory, and read for a scraper only")]

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeVal;

use crate::metrics::exposition::Kind::{Counter, Gauge};
use crate::metrics::exposition::Page;

/// Adds the process's own metrics; it began at `started`, in seconds since the epoch.
pub(super) fn render(page: &mut Page, started: i64) {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let time = seconds(usage.user_time()) + seconds(usage.system_time());
        let help = "Total user and system CPU time spent in seconds.";
        page.single("process_cpu_seconds_total", Counter, help, time);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let families = [
        ("process_resident_memory_bytes", "Resident memory size in bytes.", "VmRSS:"),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", "VmSize:"),
    ];
    for (name, help, key) in families {
        if let Some(kibibytes) = value(&status, key) {
            page.single(name, Gauge, help, kibibytes * 1024.0);
        }
    }
    if let Some(threads) = value(&status, "Threads:") {
        page.single("process_threads", Gauge, "Number of OS threads in the process.", threads);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        // One of them is this directory's.
        let open = files.count().saturating_sub(1);
        page.single("process_open_fds", Gauge, "Number of open file descriptors.", open as f64);
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        page.single("process_max_fds", Gauge, "Maximum number of open file descriptors.", soft as f64);
    }
    let help = "Start time of the process since unix epoch in seconds.";
    page.single("process_start_time_seconds", Gauge, help, started as f64);
}

/// The number behind a key of `/proc/self/status`.
fn value(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
