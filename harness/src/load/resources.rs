//! What a process uses, by its pid: CPU seconds, memory, descriptors, sockets, threads, sampled over time.
//!
//! A thread of its own samples, so that a busy driver does not delay it; it keeps a bounded number of samples
//! and takes them further apart when there are more. What it looks at are files of `/proc` (proc(5)) and the
//! process's CPU clock, which counts in nanoseconds where `/proc/PID/stat` counts in hundredths of a second.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::result::Sample;

/// A process, told from a later one with the same pid by when it was started.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    directory: PathBuf,
    started: u64,
    clock: ClockId,
    /// Before this the descriptors are not looked at again.
    costly_again: Instant,
    /// Descriptors and sockets when they were looked at last.
    descriptors: (u64, u64),
}

impl Process {
    /// The process with this pid.
    ///
    /// # Errors
    /// When there is none, or it is not ours to look at.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let started = started(&fs::read_to_string(directory.join("stat"))?).ok_or(io::ErrorKind::NotFound)?;
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid))?;
        Ok(Self { pid, directory, started, clock, costly_again: Instant::now(), descriptors: (0, 0) })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// CPU time that it has used since it was started.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> io::Result<Duration> {
        Ok(clock_gettime(self.clock)?.into())
    }

    /// What it uses now, at this second of a run. `None` when it has ended. Descriptors and the proportional
    /// share of memory are looked at so often that it takes at most a hundredth of a core; between, the
    /// descriptors are those of the last time, and there is no share.
    pub fn sample(&mut self, at: f64) -> Option<Sample> {
        let stat = fs::read_to_string(self.directory.join("stat")).ok()?;
        // A zombie has no memory, and uses none of the rest.
        if started(&stat)? != self.started || state(&stat) == Some('Z') {
            return None;
        }
        let status = fs::read_to_string(self.directory.join("status")).ok()?;
        let cpu_seconds = self.cpu().ok()?.as_secs_f64();
        let rss = field(&status, "VmRSS:").unwrap_or(0) * 1024;
        let threads = field(&status, "Threads:").unwrap_or(0);
        let mut pss = None;
        let begun = Instant::now();
        if begun >= self.costly_again {
            self.descriptors = self.count_descriptors().unwrap_or(self.descriptors);
            let rollup = fs::read_to_string(self.directory.join("smaps_rollup")).ok();
            pss = rollup.and_then(|text| field(&text, "Pss:")).map(|kibibytes| kibibytes * 1024);
            self.costly_again = begun + begun.elapsed() * 100;
        }
        let (fds, sockets) = self.descriptors;
        Some(Sample { at, cpu_seconds, rss, pss, fds, sockets, threads })
    }

    fn count_descriptors(&self) -> Option<(u64, u64)> {
        let (mut all, mut sockets) = (0, 0);
        for entry in fs::read_dir(self.directory.join("fd")).ok()?.flatten() {
            all += 1;
            let is_socket = |link: PathBuf| link.to_string_lossy().starts_with("socket:");
            sockets += u64::from(fs::read_link(entry.path()).is_ok_and(is_socket));
        }
        Some((all, sockets))
    }
}

/// When a process was started, in ticks since the machine was: field 22 of `/proc/PID/stat`. The second field
/// is a name in parentheses that may hold anything, parentheses too.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Its state: field 3.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// A number from a file of lines `Name:   12 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Samples a process from a thread of its own until it is stopped or the process has ended.
#[derive(Debug)]
pub struct Sampler {
    stop: mpsc::SyncSender<()>,
    thread: JoinHandle<Samples>,
}

/// What was sampled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// The samples, in the order of time.
    pub samples: Vec<Sample>,
    /// Whether the process had ended before the sampling was stopped.
    pub ended: bool,
}

/// Most samples that are kept of a process; with more every second is dropped and they are taken half as often.
pub const MOST: usize = 4096;

impl Sampler {
    /// Starts to sample a process at this interval. Seconds are counted from `begun`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(process: Process, interval: Duration, begun: Instant) -> io::Result<Self> {
        let (stop, stopped) = mpsc::sync_channel(1);
        let name = format!("sample-{}", process.pid);
        let thread =
            std::thread::Builder::new().name(name).spawn(move || run(process, interval, begun, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Takes a last sample, and gives all.
    #[must_use]
    pub fn stop(self) -> Samples {
        // The thread is gone already if the process has ended.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_default()
    }
}

fn run(
    mut process: Process,
    mut interval: Duration,
    begun: Instant,
    stopped: &mpsc::Receiver<()>,
) -> Samples {
    let mut samples = Vec::new();
    let mut next = Instant::now();
    loop {
        let at = begun.elapsed().as_secs_f64();
        let Some(sample) = process.sample(at) else { return Samples { samples, ended: true } };
        samples.push(sample);
        if samples.len() >= MOST {
            thin(&mut samples);
            interval *= 2;
        }
        // A sampler that was held up goes on from now: no burst of samples makes up for it.
        next = (next + interval).max(Instant::now());
        let wait = next.saturating_duration_since(Instant::now());
        if stopped.recv_timeout(wait) != Err(mpsc::RecvTimeoutError::Timeout) {
            let at = begun.elapsed().as_secs_f64();
            let last = process.sample(at);
            samples.extend(last);
            return Samples { samples, ended: last.is_none() };
        }
    }
}

/// Drops every second sample.
fn thin(samples: &mut Vec<Sample>) {
    let mut at = 0;
    samples.retain(|_| {
        at += 1;
        at % 2 == 1
    });
}

/// The processes that listen on this port of any address of the machine, such as a master and its workers.
/// Only those are found whose descriptors are ours to look at.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn listeners(port: u16) -> io::Result<Vec<u32>> {
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // A machine without IPv6 has no second table.
        if let Ok(text) = fs::read_to_string(table) {
            sockets.extend(text.lines().filter_map(|line| listening(line, port)));
        }
    }
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        let is_one = |link: PathBuf| sockets.iter().any(|socket| link.as_os_str() == socket.as_str());
        if descriptors.flatten().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(is_one)) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// The name of the socket that a line of `/proc/net/tcp` is about, if it listens on this port. The fields are
/// `sl local_address rem_address st …`, the tenth is the inode; the state 0A is LISTEN.
fn listening(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    let is_it = u16::from_str_radix(local, 16) == Ok(port) && fields.get(3) == Some(&"0A");
    is_it.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this() -> Process {
        Process::open(std::process::id()).unwrap()
    }

    #[test]
    fn a_process_is_seen_as_it_is() {
        let mut process = this();
        let before = process.sample(0.0).unwrap();
        let sockets: Vec<_> = (0..5).map(|_| std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap()).collect();
        let held = vec![1_u8; 8 << 20];
        let while_busy = Instant::now();
        while process.cpu().unwrap().as_secs_f64() < before.cpu_seconds + 0.02 {
            assert!(while_busy.elapsed() < Duration::from_secs(20));
            std::hint::black_box(&held);
        }
        process.costly_again = Instant::now();
        let after = process.sample(0.0).unwrap();
        assert!(after.rss > before.rss + (7 << 20), "{before:?} {after:?}");
        // Other tests of the same process may open and close some as well, under plain `cargo test`.
        assert!(after.sockets >= 5 && after.fds >= after.sockets, "{after:?}");
        assert!(after.threads >= 1 && after.pss.unwrap() > 0);
        drop(sockets);
    }

    #[test]
    fn sampling_is_bounded_and_ends_with_the_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        let sampler = Sampler::start(process, Duration::from_micros(10), Instant::now()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let samples = sampler.stop();
        assert!(samples.ended && samples.samples.len() < MOST);
        assert!(Process::open(child.id()).is_err());
        assert!(Process::open(u32::MAX).is_err());
        let sampler = Sampler::start(this(), Duration::from_secs(60), Instant::now()).unwrap();
        let samples = sampler.stop();
        assert!(!samples.ended && !samples.samples.is_empty());
    }

    #[test]
    fn thinning_keeps_the_first_and_every_second() {
        let sample = |at| Sample { at, ..this().sample(at).unwrap() };
        let mut samples: Vec<Sample> = (0..5_u8).map(|at| sample(f64::from(at))).collect();
        thin(&mut samples);
        assert_eq!(samples.iter().map(|sample| sample.at).collect::<Vec<_>>(), [0.0, 2.0, 4.0]);
    }

    #[test]
    fn who_listens_is_found_by_the_port() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listeners(port).unwrap(), [std::process::id()]);
        drop(listener);
        assert!(listeners(port).unwrap().is_empty());
    }

    #[test]
    fn names_of_programs_do_not_confuse() {
        let stat = "12 (a) Z (b 3) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!((started(stat), state(stat)), (Some(777), Some('S')));
        assert_eq!((started("12 (a"), started("")), (None, None));
        assert_eq!(field("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        let line = "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 424242 1";
        assert_eq!(listening(line, 8080).as_deref(), Some("socket:[424242]"));
        assert_eq!(listening(line, 8081), None);
        assert_eq!(listening("sl  local_address", 1), None);
    }
}
