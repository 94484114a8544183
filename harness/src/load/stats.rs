//! What one driver thread measures: histograms per stage, route and outcome, and ticks. No sample is kept.

use std::sync::atomic::{AtomicU64, Ordering};

use super::result::{Cell, Example, Outcome, Route, Tick};

/// Most ticks of a run; what comes later counts as the last.
pub(crate) const MAX_TICKS: usize = 1_200;

/// Examples kept of each way in which requests of a stage and route fail.
const EXAMPLES: u64 = 2;

/// Counters that the thread which shows the progress reads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) ok: AtomicU64,
    pub(crate) not_ok: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) connections: AtomicU64,
    /// Stage that the thread is in.
    pub(crate) stage: AtomicU64,
}

impl Counters {
    pub(crate) fn set(counter: &AtomicU64, number: u64) {
        counter.store(number, Ordering::Relaxed);
    }

    pub(crate) fn add(counter: &AtomicU64, number: u64) {
        // Each thread has counters of its own, so nobody else writes.
        counter.store(counter.load(Ordering::Relaxed) + number, Ordering::Relaxed);
    }
}

/// A request that is over. Times are nanoseconds of the clock; zero where something did not happen.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) stage: usize,
    pub(crate) route: Route,
    pub(crate) outcome: Outcome,
    /// When it was meant to be sent, and when it was.
    pub(crate) intended: u64,
    pub(crate) sent: u64,
    pub(crate) first_byte: u64,
    pub(crate) first_content: u64,
    pub(crate) ended: u64,
    /// What the way there and back added to the first event.
    pub(crate) added: Option<u64>,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    /// What went wrong, in words.
    pub(crate) text: Option<String>,
}

/// A stage, as far as one thread saw it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StageMarks {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) in_flight: u64,
    pub(crate) peak: u64,
    pub(crate) unsent: u64,
}

/// The measurements of one thread.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// When the run began, in nanoseconds of the clock.
    start: u64,
    /// Length of a tick in nanoseconds.
    tick: u64,
    cells: Vec<Option<Box<Cell>>>,
    pub(crate) ticks: Vec<Tick>,
    pub(crate) stages: Vec<StageMarks>,
    pub(crate) examples: Vec<Example>,
}

impl Recorder {
    pub(crate) fn new(start: u64, tick_seconds: f64, stages: usize) -> Self {
        let cells = vec![None; stages * Route::ALL.len() * Outcome::ALL.len()];
        let (ticks, examples) = (Vec::new(), Vec::new());
        let tick = ((tick_seconds * 1e9) as u64).max(1);
        Self { start, tick, cells, ticks, stages: vec![StageMarks::default(); stages], examples }
    }

    /// A request is being sent.
    pub(crate) fn sent(&mut self, stage: usize, intended: u64, sent: u64) {
        self.tick(intended).due += 1;
        self.tick(sent).sent += 1;
        let marks = &mut self.stages[stage];
        marks.in_flight += 1;
        marks.peak = marks.peak.max(marks.in_flight);
    }

    /// An event of a stream came: how long after the last one, and how long it was on its way. How the stream
    /// will end is not known yet, so these stand with those that end well.
    pub(crate) fn event(&mut self, stage: usize, route: Route, gap: u64, on_the_way: u64) {
        let cell = self.cell(stage, route, Outcome::Ok);
        cell.gap.record(gap / 1_000);
        cell.added_event.record(on_the_way / 1_000);
    }

    /// A request is over.
    pub(crate) fn ended(&mut self, ended: Ended) {
        let marks = &mut self.stages[ended.stage];
        marks.in_flight = marks.in_flight.saturating_sub(1);
        marks.to = marks.to.max(ended.ended);
        let since = |begin: u64, end: u64| end.saturating_sub(begin) / 1_000;
        let response = since(ended.intended, ended.ended);
        let first_byte = (ended.first_byte > 0).then(|| since(ended.intended, ended.first_byte));
        let tick = self.tick(ended.ended);
        tick.stage = ended.stage;
        tick.events += ended.events;
        tick.bytes += ended.bytes;
        if ended.outcome == Outcome::Ok {
            tick.ok += 1;
            tick.response.record(response);
            if let Some(first_byte) = first_byte {
                tick.first_byte.record(first_byte);
            }
        } else {
            tick.not_ok += 1;
        }
        let cell = self.cell(ended.stage, ended.route, ended.outcome);
        cell.count += 1;
        cell.events += ended.events;
        cell.bytes += ended.bytes;
        cell.service.record(since(ended.sent, ended.ended));
        cell.response.record(response);
        if let Some(first_byte) = first_byte {
            cell.first_byte.record(first_byte);
        }
        if ended.first_content > 0 {
            cell.first_content.record(since(ended.intended, ended.first_content));
        }
        if let Some(added) = ended.added {
            cell.added.record(added / 1_000);
        }
        if ended.outcome != Outcome::Ok && cell.count <= EXAMPLES {
            let (stage, route, outcome) = (ended.stage, ended.route, ended.outcome);
            let text = ended.text.unwrap_or_default();
            self.examples.push(Example { stage, route, outcome, text });
        }
    }

    /// All cells with something in them.
    pub(crate) fn into_cells(self) -> Vec<Cell> {
        self.cells.into_iter().flatten().map(|cell| *cell).collect()
    }

    fn cell(&mut self, stage: usize, route: Route, outcome: Outcome) -> &mut Cell {
        let index = (stage * Route::ALL.len() + route as usize) * Outcome::ALL.len() + outcome as usize;
        self.cells[index].get_or_insert_with(|| Box::new(Cell::new(stage, route, outcome)))
    }

    fn tick(&mut self, time: u64) -> &mut Tick {
        let index = usize::try_from(time.saturating_sub(self.start) / self.tick).unwrap_or(usize::MAX);
        let index = index.min(MAX_TICKS - 1);
        while self.ticks.len() <= index {
            self.ticks.push(Tick::new(self.ticks.len()));
        }
        &mut self.ticks[index]
    }
}

/// The ticks of all threads as one, with what follows from them: what is in flight, and what is late.
pub(crate) fn merge_ticks(threads: Vec<Vec<Tick>>) -> Vec<Tick> {
    let mut all: Vec<Tick> = Vec::new();
    for tick in threads.into_iter().flatten() {
        while all.len() <= tick.index {
            all.push(Tick::new(all.len()));
        }
        let index = tick.index;
        all[index].add(&tick);
    }
    let (mut due, mut sent, mut ended, mut stage) = (0_u64, 0_u64, 0_u64, 0);
    for tick in &mut all {
        due += tick.due;
        sent += tick.sent;
        ended += tick.ok + tick.not_ok;
        tick.late = due.saturating_sub(sent);
        tick.in_flight = sent.saturating_sub(ended);
        stage = stage.max(tick.stage);
        tick.stage = stage;
    }
    all
}

/// The cells of all threads, one for each stage, route and outcome, in that order.
pub(crate) fn merge_cells(threads: Vec<Vec<Cell>>) -> Vec<Cell> {
    let mut all: Vec<Cell> = Vec::new();
    for cell in threads.into_iter().flatten() {
        let same = |other: &&mut Cell| {
            (other.stage, other.route, other.outcome) == (cell.stage, cell.route, cell.outcome)
        };
        match all.iter_mut().find(same) {
            Some(other) => other.add(&cell),
            None => all.push(cell),
        }
    }
    // Nothing but events of streams that ended in another way.
    all.retain(|cell| cell.count > 0 || !cell.gap.0.is_empty());
    all.sort_by_key(|cell| (cell.stage, cell.route, cell.outcome));
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ended(outcome: Outcome, intended: u64, sent: u64, end: u64) -> Ended {
        let (first_byte, first_content, added) = (end, end, None);
        let (stage, route, text) = (0, Route::Responses, Some("why".to_owned()));
        let (events, bytes) = (2, 100);
        Ended {
            stage,
            route,
            outcome,
            intended,
            sent,
            first_byte,
            first_content,
            ended: end,
            added,
            events,
            bytes,
            text,
        }
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_times(
            times in prop::collection::vec((0_u64..4_000_000, 0_u64..90_000_000), 1..400), threads in 1_usize..4,
        ) {
            // Meant to be sent at a time, sent later, over later still: microseconds.
            let mut recorders: Vec<Recorder> = (0..threads).map(|_| Recorder::new(0, 1.0, 1)).collect();
            let (mut responses, mut services) = (Vec::new(), Vec::new());
            for (at, (late, took)) in times.iter().enumerate() {
                let (intended, sent) = (1_000_000_000, 1_000_000_000 + late * 1_000);
                recorders[at % threads].sent(0, intended, sent);
                recorders[at % threads].ended(ended(Outcome::Ok, intended, sent, sent + took * 1_000));
                responses.push(late + took);
                services.push(*took);
            }
            let cells = merge_cells(recorders.into_iter().map(Recorder::into_cells).collect());
            prop_assert_eq!(cells.len(), 1);
            for (sorted, told) in [(&mut responses, &cells[0].response), (&mut services, &cells[0].service)] {
                sorted.sort_unstable();
                for quantile in [0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
                    // The least time that this share of all is not above.
                    let rank = ((quantile * sorted.len() as f64).ceil() as usize).max(1);
                    let right = sorted[rank - 1] as f64 / 1e3;
                    let told = told.millis(quantile).unwrap();
                    prop_assert!((told - right).abs() <= right / 1e3 + 1e-9, "{quantile}: {told}, not {right}");
                }
            }
        }
    }

    #[test]
    fn what_waits_is_late_and_what_is_sent_is_in_flight() {
        const SECOND: u64 = 1_000_000_000;
        let mut recorder = Recorder::new(0, 1.0, 1);
        recorder.sent(0, 0, 0);
        recorder.sent(0, SECOND / 2, 3 * SECOND);
        recorder.ended(ended(Outcome::Ok, 0, 0, 3 * SECOND));
        recorder.ended(ended(Outcome::Timeout, SECOND / 2, 3 * SECOND, 4 * SECOND));
        let ticks = merge_ticks(vec![recorder.ticks.clone()]);
        let seen: Vec<[u64; 4]> =
            ticks.iter().map(|tick| [tick.late, tick.in_flight, tick.ok, tick.not_ok]).collect();
        assert_eq!(seen, [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]);
        assert_eq!((recorder.stages[0].peak, recorder.examples.len()), (2, 1));
        let cells = merge_cells(vec![recorder.into_cells()]);
        assert_eq!(cells.len(), 2);
        assert_eq!(cells[1].service.millis(1.0).map(f64::round), Some(1_000.0));
        assert_eq!(cells[1].response.millis(1.0).map(|millis| (millis / 100.0).round()), Some(35.0));
    }
}
