//! A run as an HdrHistogram interval log (V2): for the plotters and processors that read such logs.
//!
//! Times are microseconds, as in the run; the third column, a histogram's longest time, is milliseconds, as in
//! the logs of the Java library. Two kinds of intervals, told apart by their tags: `response` and `first_byte`
//! are of each tick and the requests that ended well in it; `STAGE/ROUTE/OUTCOME/MEASURE` is of a whole stage.

use std::io::Write;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};

use super::result::{Cell, Run, Times};

/// Why no log was written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file does not take it.
    #[error("write the histogram log")]
    Write(#[source] std::io::Error),
    /// A histogram that has no form in the format.
    #[error("write a histogram: {0}")]
    Encode(String),
}

impl<E: std::fmt::Debug> From<IntervalLogWriterError<E>> for LogError {
    fn from(error: IntervalLogWriterError<E>) -> Self {
        match error {
            IntervalLogWriterError::IoError(error) => Self::Write(error),
            IntervalLogWriterError::SerializeError(error) => Self::Encode(format!("{error:?}")),
        }
    }
}

/// An interval of the log.
struct Interval<'a> {
    tag: String,
    from: f64,
    seconds: f64,
    times: &'a Times,
}

/// Writes the log of a run.
///
/// # Errors
/// When `out` does not take it.
pub fn write(run: &Run, out: &mut impl Write) -> Result<(), LogError> {
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment(&one_line(&format!(
        "[load run: scenario {}, target {}, seed {}, in microseconds]",
        run.scenario, run.target, run.seed
    )));
    if let Some(started) = started(run) {
        builder.with_start_time(started).with_base_time(started);
    }
    builder.with_max_value_divisor(1_000.0);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = builder.begin_log_with(out, &mut serializer).map_err(LogError::Write)?;
    for interval in intervals(run) {
        let tag = Tag::new(&interval.tag);
        log.write_histogram(&interval.times.0, seconds(interval.from), seconds(interval.seconds), tag)?;
    }
    Ok(())
}

/// All intervals that have something, in the order of time.
fn intervals(run: &Run) -> Vec<Interval<'_>> {
    let mut intervals = Vec::new();
    for cell in &run.cells {
        let Some(stage) = run.stages.get(cell.stage) else { continue };
        let place = format!("{}/{}/{}", stage.name, cell.route.name(), cell.outcome.name());
        let (from, seconds) = (stage.from, stage.to - stage.from);
        intervals.extend(measures(cell).map(|(measure, times)| Interval {
            tag: tag(&format!("{place}/{measure}")),
            from,
            seconds,
            times,
        }));
    }
    for tick in &run.ticks {
        let (from, seconds) = (tick.index as f64 * run.tick_seconds, run.tick_seconds);
        let both = [("response", &tick.response), ("first_byte", &tick.first_byte)];
        intervals.extend(both.map(|(tag, times)| Interval { tag: tag.to_owned(), from, seconds, times }));
    }
    intervals.retain(|interval| !interval.times.0.is_empty());
    intervals.sort_by(|a, b| a.from.total_cmp(&b.from));
    intervals
}

fn measures(cell: &Cell) -> impl Iterator<Item = (&'static str, &Times)> {
    [
        ("response", &cell.response),
        ("service", &cell.service),
        ("first_byte", &cell.first_byte),
        ("first_content", &cell.first_content),
        ("gap", &cell.gap),
        ("added", &cell.added),
        ("added_event", &cell.added_event),
    ]
    .into_iter()
}

/// A tag without what parts the columns of the format.
fn tag(text: &str) -> String {
    text.chars().map(|letter| if letter == ',' || letter.is_whitespace() { '_' } else { letter }).collect()
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn started(run: &Run) -> Option<SystemTime> {
    run.started.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::load::page::example;

    #[test]
    fn a_log_is_read_as_it_was_written() {
        let run = example();
        let mut log = Vec::new();
        write(&run, &mut log).unwrap();
        let text = std::str::from_utf8(&log).unwrap();
        assert!(text.starts_with("#[load run: scenario spike, target proxy, seed 7, in microseconds]\n"));
        let (mut last, mut response) = (0.0, 0);
        let mut tags = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            let LogEntry::Interval(interval) = entry.unwrap() else { continue };
            let from = interval.start_timestamp().as_secs_f64();
            assert!(from >= last, "in the order of time");
            last = from;
            let tag = interval.tag().unwrap().as_str();
            let packed = base64::Engine::decode(
                &base64::engine::general_purpose::STANDARD,
                interval.encoded_histogram(),
            );
            let histogram: hdrhistogram::Histogram<u64> =
                Deserializer::new().deserialize(&mut packed.unwrap().as_slice()).unwrap();
            // The format tells the maximum in milliseconds.
            assert!(
                (interval.max() - histogram.max() as f64 / 1e3).abs() <= histogram.max() as f64 / 1e5 + 0.01
            );
            if tag == "response" {
                response += histogram.len();
            }
            tags.push(tag.to_owned());
        }
        assert_eq!(response, run.ticks.iter().map(|tick| tick.response.0.len()).sum::<u64>());
        assert!(tags.contains(&"spike/responses/ok/service".to_owned()), "{tags:?}");
        assert!(tags.iter().any(|tag| tag.contains("upstream_error")));
    }
}
