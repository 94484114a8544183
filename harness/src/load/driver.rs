//! The driver: threads that carry out a plan, and what they measured together.
//!
//! Each thread has a runtime of its own and shares nothing with the others while it drives but counters.
//! Stages whose length is known follow one another by the clock, whatever is still in flight; a stage that
//! takes as long as it takes is waited for.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use mock_upstream::content::now;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};
use tokio::runtime::LocalOptions;
use tokio::task::JoinSet;

use super::caller::{Caller, Kit};
use super::connection::{BUFFER, Buffer};
use super::open;
use super::plan::{MAX_REQUESTS, Pace, Plan, Stage};
use super::result::{Cell, DriverCost, Example, Stage as StageResult, Tick};
use super::session;
use super::stats::{Counters, Recorder, StageMarks, merge_cells, merge_ticks};

/// What a driver measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// How long it took.
    pub seconds: f64,
    /// When it began, in nanoseconds of `CLOCK_MONOTONIC`.
    pub began: u64,
    /// The stages.
    pub stages: Vec<StageResult>,
    /// What was measured.
    pub cells: Vec<Cell>,
    /// How it went over time.
    pub ticks: Vec<Tick>,
    /// What it took.
    pub driver: DriverCost,
    /// What went wrong.
    pub examples: Vec<Example>,
    /// Why it did not go on to its end.
    pub cut_short: Option<String>,
}

/// Where a run is; what has happened since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Seconds since it began.
    pub seconds: f64,
    /// The stage.
    pub stage: usize,
    /// Requests sent.
    pub sent: u64,
    /// Requests that ended well.
    pub ok: u64,
    /// Requests that ended in another way.
    pub not_ok: u64,
    /// Events checked.
    pub events: u64,
    /// Bytes received.
    pub bytes: u64,
}

impl Progress {
    /// Requests in flight, about: the numbers are read one after the other while threads go on counting.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.sent.saturating_sub(self.ok + self.not_ok)
    }
}

/// What the threads of a run have in common.
#[derive(Debug)]
struct Common {
    plan: Plan,
    stop: AtomicBool,
    /// All threads meet before each part of the run.
    barrier: Barrier,
    /// When the part begins, in nanoseconds of the clock.
    begin: AtomicU64,
    /// How many requests of each stage have been taken by its callers.
    taken: Vec<AtomicU64>,
}

/// What the tasks of one thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    common: Arc<Common>,
    pub(crate) thread: usize,
    pub(crate) buffer: Buffer,
    pub(crate) recorder: RefCell<Recorder>,
    pub(crate) counters: Arc<Counters>,
}

impl Shared {
    pub(crate) fn plan(&self) -> &Plan {
        &self.common.plan
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.common.stop.load(Ordering::Relaxed)
    }

    /// The next number of a stage whose callers share one count among all threads.
    fn take(&self, stage: usize) -> u64 {
        self.common.taken[stage].fetch_add(1, Ordering::Relaxed)
    }

    /// This thread's share of a number of things.
    pub(crate) fn share(&self, number: usize) -> usize {
        let threads = self.plan().threads;
        number / threads + usize::from(self.thread < number % threads)
    }
}

/// Carries out a plan. `progress` is told about once a second how far it is, and may say why the run is to
/// end now.
///
/// # Errors
/// When a thread or its runtime cannot be had.
pub fn run(plan: &Plan, mut progress: impl FnMut(&Progress) -> Option<String>) -> std::io::Result<Measured> {
    mock_upstream::raise_file_limit();
    // No thread without a caller: what is due on it would never be sent.
    let least = plan.stages.iter().map(|stage| stage.concurrency).min().unwrap_or(1);
    let threads = plan.threads.clamp(1, least.max(1));
    let plan = Plan { threads, ..plan.clone() };
    let common = Arc::new(Common {
        stop: AtomicBool::new(false),
        barrier: Barrier::new(threads),
        begin: AtomicU64::new(0),
        taken: plan.stages.iter().map(|_| AtomicU64::new(0)).collect(),
        plan,
    });
    let counters: Vec<Arc<Counters>> = (0..threads).map(|_| Arc::default()).collect();
    let began = now();
    // Built here, so that a thread that cannot have one does not leave the others waiting for it.
    let drives: Vec<Drive> = counters
        .iter()
        .enumerate()
        .map(|(thread, counters)| Drive {
            thread,
            common: Arc::clone(&common),
            counters: Arc::clone(counters),
            began,
        })
        .collect();
    let results = Mutex::new(Vec::new());
    let mut cut_short = None;
    std::thread::scope(|scope| -> std::io::Result<()> {
        let mut handles = Vec::new();
        for drive in drives {
            let results = &results;
            let name = format!("load-{}", drive.thread);
            handles.push(std::thread::Builder::new().name(name).spawn_scoped(scope, move || {
                let result = drive.run();
                results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(result);
            })?);
        }
        let mut told = now();
        while handles.iter().any(|handle| !handle.is_finished()) {
            std::thread::park_timeout(Duration::from_millis(20));
            let state = state(&counters, began);
            if state.bytes > common.plan.max_bytes && cut_short.is_none() {
                cut_short = Some(format!("more than {} bytes were received", common.plan.max_bytes));
            }
            if state.sent > MAX_REQUESTS && cut_short.is_none() {
                cut_short = Some(format!("more than {MAX_REQUESTS} requests were sent"));
            }
            if now() - told >= 200_000_000 {
                told = now();
                let wish = progress(&state);
                cut_short = cut_short.take().or(wish);
            }
            if cut_short.is_some() {
                common.stop.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    })?;
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut parts = results.into_iter().collect::<std::io::Result<Vec<Part>>>()?;
    if parts.len() < threads {
        return Err(std::io::Error::other("a thread of the driver ended before its time"));
    }
    parts.sort_by_key(|part| part.thread);
    Ok(merge(&common.plan, &counters, parts, began, cut_short))
}

/// What one thread measured.
#[derive(Debug)]
struct Part {
    thread: usize,
    cells: Vec<Cell>,
    ticks: Vec<Tick>,
    marks: Vec<StageMarks>,
    examples: Vec<Example>,
    user_seconds: f64,
    system_seconds: f64,
}

/// One thread's task.
struct Drive {
    thread: usize,
    common: Arc<Common>,
    counters: Arc<Counters>,
    began: u64,
}

impl Drive {
    fn run(self) -> std::io::Result<Part> {
        let Self { thread, common, counters, began } = self;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let plan = &common.plan;
        let recorder = RefCell::new(Recorder::new(began, plan.tick_seconds, plan.stages.len()));
        let buffer = RefCell::new(vec![0; BUFFER].into_boxed_slice());
        let shared = Rc::new(Shared { common: Arc::clone(&common), thread, buffer, recorder, counters });
        let before = usage();
        for part in parts(&plan.stages) {
            let kits: Vec<Rc<Kit>> = part.clone().map(|stage| Rc::new(Kit::new(plan, stage))).collect();
            // Whoever has no runtime still meets the others; its error is told when all are done.
            if common.barrier.wait().is_leader() {
                common.begin.store(now() + LEAD, Ordering::Relaxed);
            }
            common.barrier.wait();
            let begin = common.begin.load(Ordering::Relaxed);
            if let Ok(runtime) = &runtime {
                runtime.block_on(drive(&shared, &kits, begin));
            }
        }
        runtime?;
        let after = usage();
        let recorder = Rc::try_unwrap(shared).map(|shared| shared.recorder.into_inner());
        let Ok(mut recorder) = recorder else {
            return Err(std::io::Error::other("a task of the driver outlived its stage"));
        };
        let marks = std::mem::take(&mut recorder.stages);
        let ticks = std::mem::take(&mut recorder.ticks);
        let examples = std::mem::take(&mut recorder.examples);
        let (user_seconds, system_seconds) = (after.0 - before.0, after.1 - before.1);
        Ok(Part {
            thread,
            cells: recorder.into_cells(),
            ticks,
            marks,
            examples,
            user_seconds,
            system_seconds,
        })
    }
}

/// How long before its first request a part of a run is begun, so that all threads are there: nanoseconds.
const LEAD: u64 = 2_000_000;

/// The stages that follow one another by the clock, together; each other one by itself.
fn parts(stages: &[Stage]) -> Vec<std::ops::Range<usize>> {
    let mut parts: Vec<std::ops::Range<usize>> = Vec::new();
    let is_open = |stage: &Stage| matches!(stage.pace, Pace::Open { .. });
    for (index, stage) in stages.iter().enumerate() {
        match parts.last_mut() {
            Some(last) if is_open(stage) && is_open(&stages[last.start]) => last.end = index + 1,
            _ => parts.push(index..index + 1),
        }
    }
    parts
}

/// Drives the stages of one part, and waits for the last of their requests.
async fn drive(shared: &Rc<Shared>, kits: &[Rc<Kit>], begin: u64) {
    let mut tasks = JoinSet::new();
    let mut at = begin;
    for kit in kits {
        let stage = &shared.plan().stages[kit.stage];
        let seconds = (stage.seconds() * 1e9) as u64;
        shared.recorder.borrow_mut().stages[kit.stage].from = at;
        match &stage.pace {
            Pace::Closed { requests, seconds: length } => {
                let until = length.map_or(u64::MAX, |_| at + seconds);
                let most = requests.unwrap_or(u64::MAX);
                for _ in 0..shared.share(stage.concurrency) {
                    tasks.spawn_local(closed(Rc::clone(shared), Rc::clone(kit), at, until, most));
                }
            }
            Pace::Open { .. } => {
                tasks.spawn_local(open::run(Rc::clone(shared), Rc::clone(kit), at));
            }
            Pace::Sessions { habits, .. } => {
                let before: usize = (0..shared.thread).map(|_| shared.share(stage.concurrency)).sum();
                for agent in 0..shared.share(stage.concurrency) {
                    let number = (before + agent) as u64;
                    let (shared, kit) = (Rc::clone(shared), Rc::clone(kit));
                    tasks.spawn_local(session::agent(shared, kit, *habits, number, at, at + seconds));
                }
            }
        }
        at += seconds;
    }
    let done = async { while tasks.join_next().await.is_some() {} };
    let stopped = async {
        while !shared.is_stopped() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = done => {}
        () = stopped => {}
    }
    tasks.shutdown().await;
}

/// A caller that sends its next request when the last is over.
async fn closed(shared: Rc<Shared>, kit: Rc<Kit>, begin: u64, until: u64, most: u64) {
    let mut caller = Caller::new(Rc::clone(&shared), Rc::clone(&kit));
    let wait = begin.saturating_sub(now());
    tokio::time::sleep(Duration::from_nanos(wait)).await;
    Counters::set(&shared.counters.stage, kit.stage as u64);
    loop {
        let number = shared.take(kit.stage);
        let time = now();
        if number >= most || time >= until || shared.is_stopped() {
            return;
        }
        caller.call(number, time).await;
        if caller.failed_to_connect() {
            // Nobody is there: asking again at once would only burn the processor.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Processor time of this thread so far, in user mode and in the kernel.
fn usage() -> (f64, f64) {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_THREAD)
        .map_or((0.0, 0.0), |usage| (seconds(usage.user_time()), seconds(usage.system_time())))
}

fn state(counters: &[Arc<Counters>], began: u64) -> Progress {
    let sum = |pick: fn(&Counters) -> &AtomicU64| -> u64 {
        counters.iter().map(|counters| pick(counters).load(Ordering::Relaxed)).sum()
    };
    Progress {
        seconds: (now() - began) as f64 / 1e9,
        stage: counters
            .iter()
            .map(|counters| counters.stage.load(Ordering::Relaxed) as usize)
            .max()
            .unwrap_or_default(),
        sent: sum(|counters| &counters.sent),
        ok: sum(|counters| &counters.ok),
        not_ok: sum(|counters| &counters.not_ok),
        events: sum(|counters| &counters.events),
        bytes: sum(|counters| &counters.bytes),
    }
}

fn merge(
    plan: &Plan,
    counters: &[Arc<Counters>],
    parts: Vec<Part>,
    began: u64,
    cut_short: Option<String>,
) -> Measured {
    let at = |time: u64| time.saturating_sub(began) as f64 / 1e9;
    let stages = plan.stages.iter().enumerate().map(|(index, stage)| {
        let marks = || parts.iter().map(|part| part.marks[index]);
        let from = marks().map(|marks| marks.from).filter(|from| *from > 0).min().unwrap_or(began);
        let to = marks().map(|marks| marks.to).max().unwrap_or(0).max(from);
        StageResult {
            name: stage.name.clone(),
            executor: stage.executor.clone(),
            from: at(from),
            to: at(to),
            rate: stage.rate(),
            concurrency: stage.concurrency,
            unsent: marks().map(|marks| marks.unsent).sum(),
            unfinished: marks().map(|marks| marks.in_flight).sum(),
            peak: marks().map(|marks| marks.peak).sum(),
        }
    });
    let stages = stages.collect();
    let load = |pick: fn(&Counters) -> &AtomicU64| -> u64 {
        counters.iter().map(|counters| pick(counters).load(Ordering::Relaxed)).sum()
    };
    let driver = DriverCost {
        threads: parts.len(),
        user_seconds: parts.iter().map(|part| part.user_seconds).sum(),
        system_seconds: parts.iter().map(|part| part.system_seconds).sum(),
        connections: load(|counters| &counters.connections),
        requests: load(|counters| &counters.sent),
    };
    let (mut cells, mut ticks, mut examples) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        cells.push(part.cells);
        ticks.push(part.ticks);
        examples.extend(part.examples);
    }
    Measured {
        seconds: at(now()),
        began,
        stages,
        cells: merge_cells(cells),
        ticks: merge_ticks(ticks),
        driver,
        examples,
        cut_short,
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn numbers_that_were_read_at_different_times_do_no_harm() {
        let late = Progress { sent: 10, ok: 11, not_ok: 2, ..Progress::default() };
        assert_eq!(late.in_flight(), 0);
        assert_eq!(Progress { sent: 10, ok: 7, not_ok: 1, ..late }.in_flight(), 2);
    }
}
