//! What a step leaves behind: found, given a moment to leave, then killed.
//!
//! Linux gives the orphans of a process to the nearest ancestor that asked for them, so there the whole tree
//! is found, whatever group a part of it moved to. Elsewhere only the step's own group is.

use std::time::Duration;

use nix::unistd::Pid;

#[cfg(target_os = "linux")]
pub(super) use linux::{adopt, clear};

#[cfg(not(target_os = "linux"))]
pub(super) use group::{adopt, clear};

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use nix::sys::signal::{Signal, kill, killpg};
    use nix::sys::wait::waitpid;

    use super::{Duration, Pid};

    /// Asks for the orphans of everything this process started, or leaves them to others again.
    pub(in super::super) fn adopt(is_wanted: bool) -> nix::Result<()> {
        nix::sys::prctl::set_child_subreaper(is_wanted)
    }

    /// Waits until no child is left, and kills the ones that take longer than `patience`. The names of those.
    pub(in super::super) fn clear(group: Pid, patience: Duration) -> Vec<String> {
        let (gone, is_gone) = sync_channel(1);
        thread::spawn(move || {
            // Reaps; ends with "no child" once the last one is gone.
            while waitpid(None, None).is_ok() {}
            gone.send(())
        });
        let mut killed = BTreeMap::new();
        let mut limit = patience;
        // A killed child's own children become ours, so it may take one round for every generation.
        for _ in 0..ROUNDS {
            if is_gone.recv_timeout(limit).is_ok() {
                break;
            }
            let _ = killpg(group, Signal::SIGKILL);
            for child in children() {
                killed.entry(child).or_insert_with(|| name(child));
                let _ = kill(child, Signal::SIGKILL);
            }
            limit = ROUND;
        }
        killed.into_iter().map(|(id, name)| format!("{name} ({id})")).collect()
    }

    /// The children of all threads of this process.
    fn children() -> Vec<Pid> {
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        lists
            .flat_map(|list| list.split_whitespace().map(str::parse).collect::<Vec<_>>())
            .filter_map(Result::ok)
            .map(Pid::from_raw)
            .collect()
    }

    fn name(process: Pid) -> String {
        let name = fs::read_to_string(format!("/proc/{process}/comm"));
        name.map_or_else(|_| "a process".to_owned(), |name| name.trim_end().to_owned())
    }

    /// How often what is left is killed again, and how long each time is waited for its end.
    const ROUNDS: usize = 20;
    const ROUND: Duration = Duration::from_millis(100);
}

#[cfg(not(target_os = "linux"))]
mod group {
    use std::sync::mpsc::sync_channel;
    use std::time::Instant;

    use nix::sys::signal::{Signal, killpg};

    use super::{Duration, Pid};

    /// There is nobody to ask.
    pub(in super::super) fn adopt(_is_wanted: bool) -> nix::Result<()> {
        Ok(())
    }

    /// Waits until the group is empty, and kills it when that takes longer than `patience`.
    pub(in super::super) fn clear(group: Pid, patience: Duration) -> Vec<String> {
        // Nothing tells when a group is empty, so it is asked every few milliseconds.
        let (_never, tick) = sync_channel::<()>(1);
        let since = Instant::now();
        while killpg(group, None).is_ok() {
            if since.elapsed() >= patience {
                let _ = killpg(group, Signal::SIGKILL);
                return vec![format!("a process of group {group}")];
            }
            let _ = tick.recv_timeout(Duration::from_millis(10));
        }
        Vec::new()
    }
}
