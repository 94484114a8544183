//! Whether something grows: the slope of a series over time, with bounds that hold for real processes.
//!
//! The series of a process is nothing like a line with white noise. Its start is a warm-up, neighbours in
//! time resemble each other, an allocator gives memory back in steps, and single samples are far off. So:
//!
//! 1. The run is cut into [`BATCHES`] spans of time, and each becomes one point: the mean of the middle half of
//!    its samples. A spike moves it little, and what comes and goes within a span averages out. These are the
//!    batch means of simulation practice (Schmeiser 1982: 10 to 30 batches, whatever the length). The spans
//!    differ in length, so that a period close to theirs becomes noise and not a slow wave (aliasing).
//! 2. A line is fitted to the points by least squares. As many points are left out at the start as make the
//!    slope most certain, at most a third: White's marginal standard error rule (1997), applied to the
//!    slope's error instead of the mean's, so that a warm-up goes and a steady leak stays.
//! 3. The error of the slope is widened by what is left of the resemblance between neighbouring points
//!    (first-order autocorrelation of the residuals, corrected for its bias in short series), and the bounds
//!    are Student's. A saw tooth that fits at least three times into the run is told from growth that way.
//!
//! Chosen over Theil-Sen with a block bootstrap: the blocks would have to be longer than any period of the
//! process, which nobody knows, and a verdict should not depend on a seed. Chosen over Newey-West on the raw
//! samples: its error is too small for exactly the slow waves that a garbage collector or an allocator makes.

use std::time::Duration;

use super::result::{Growth, Sample, Trend};

/// What would be too much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// The growth per second that a run must be able to exclude before it may say that nothing grows.
    pub per_second: f64,
    /// The growth over the whole of what is judged that is worth a word; a page more is no leak.
    pub in_all: f64,
}

impl Tolerance {
    /// For bytes of memory: 4 KiB per second, which is 14 MiB in an hour; 256 KiB in all.
    pub const MEMORY: Self = Self { per_second: 4096.0, in_all: 262_144.0 };
    /// For things that are counted, such as descriptors: one in a minute; three in all.
    pub const COUNT: Self = Self { per_second: 1.0 / 60.0, in_all: 3.0 };
}

/// The slope of a series, with what it was taken from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slope {
    /// The verdict.
    pub trend: Trend,
    /// The growth per second.
    pub per_second: f64,
    /// The lower bound of the growth per second; with the upper one it holds in 99 runs of 100.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// Where the line begins, in seconds of the run: behind the warm-up.
    pub from: f64,
    /// Where it ends, in seconds of the run.
    pub to: f64,
    /// How many points the line was fitted to.
    pub points: usize,
}

/// Into how many spans of time a run is cut.
pub const BATCHES: usize = 20;

/// The shortest series that is judged at all.
pub const SHORTEST: Duration = Duration::from_secs(30);

/// The fewest samples in a batch for its mean to be worth something.
const SAMPLES_PER_BATCH: usize = 3;

/// Multiples of it, less their whole part, are spread evenly and never repeat.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// The normal deviate that Student's is made from: 99 % between the bounds.
const DEVIATE: f64 = 2.575_829_303_549;

/// Judges a series of (seconds of the run, value), in the order of time. `None` when it is too short to have
/// a slope at all: less than [`SHORTEST`], or fewer than three samples for each batch.
#[must_use]
pub fn judge(series: &[(f64, f64)], tolerance: &Tolerance) -> Option<Slope> {
    let points = batches(series)?;
    let all = Line::fit(&points)?;
    // The rule must not pick at noise: a start is left out if the slope is clearly more certain without.
    let most = points.len() / 3;
    let later = (1..=most).filter_map(|skipped| Line::fit(&points[skipped..]));
    let best = later.min_by(|a, b| a.error.total_cmp(&b.error)).filter(|best| best.error < 0.9 * all.error);
    let line = best.unwrap_or(all);
    let margin = student(line.points - 2) * line.widened;
    let (lower, upper) = (line.slope - margin, line.slope + margin);
    let in_all = line.slope * (line.to - line.from);
    let trend = if lower > 0.0 && in_all > tolerance.in_all {
        Trend::Grows
    } else if upper <= tolerance.per_second {
        Trend::DoesNotGrow
    } else {
        Trend::TooShort
    };
    Some(Slope {
        trend,
        per_second: line.slope,
        lower,
        upper,
        from: line.from,
        to: line.to,
        points: line.points,
    })
}

/// How the resources of a process grew: `rss`, `fds`, `sockets` and `threads`, as far as the run is long enough
/// for a slope. One that is not has [`Trend::TooShort`] and zeros.
#[must_use]
pub fn growths(samples: &[Sample]) -> Vec<Growth> {
    let growth = |resource: &str, tolerance: &Tolerance, value: fn(&Sample) -> u64| {
        let series: Vec<(f64, f64)> =
            samples.iter().map(|sample| (sample.at, value(sample) as f64)).collect();
        let slope = judge(&series, tolerance);
        let per_hour = |value: fn(&Slope) -> f64| slope.as_ref().map_or(0.0, value) * 3600.0;
        Growth {
            resource: resource.to_owned(),
            per_hour: per_hour(|slope| slope.per_second),
            low: per_hour(|slope| slope.lower),
            high: per_hour(|slope| slope.upper),
            from: slope.map_or(0.0, |slope| slope.from),
            verdict: slope.map_or(Trend::TooShort, |slope| slope.trend),
        }
    };
    vec![
        growth("rss", &Tolerance::MEMORY, |sample| sample.rss),
        growth("fds", &Tolerance::COUNT, |sample| sample.fds),
        growth("sockets", &Tolerance::COUNT, |sample| sample.sockets),
        growth("threads", &Tolerance::COUNT, |sample| sample.threads),
    ]
}

/// The points of the batches. A batch without enough samples, as of a sampler that was held up, has none.
fn batches(series: &[(f64, f64)]) -> Option<Vec<(f64, f64)>> {
    let (begin, end) = (series.first()?.0, series.last()?.0);
    if end - begin < SHORTEST.as_secs_f64() || series.len() < BATCHES * SAMPLES_PER_BATCH {
        return None;
    }
    let mut points = Vec::with_capacity(BATCHES);
    let mut rest = series;
    let mut values = Vec::new();
    let lengths: Vec<f64> = (0..BATCHES).map(|batch| 0.5 + (batch as f64 * GOLDEN).fract()).collect();
    let whole: f64 = lengths.iter().sum();
    let mut until = begin;
    for (batch, length) in lengths.iter().enumerate() {
        until += (end - begin) * length / whole;
        let length =
            if batch + 1 == BATCHES { rest.len() } else { rest.partition_point(|(at, _)| *at < until) };
        let (mine, others) = rest.split_at(length);
        rest = others;
        if mine.len() >= SAMPLES_PER_BATCH {
            let time = mine.iter().map(|(at, _)| at).sum::<f64>() / mine.len() as f64;
            values.clear();
            values.extend(mine.iter().map(|(_, value)| *value));
            points.push((time, middle_mean(&mut values)));
        }
    }
    (points.len() >= BATCHES * 3 / 4).then_some(points)
}

/// The mean of the middle half.
fn middle_mean(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let outside = values.len() / 4;
    let middle = &values[outside..values.len() - outside];
    middle.iter().sum::<f64>() / middle.len() as f64
}

/// A line through points by least squares.
#[derive(Debug, Clone, Copy)]
struct Line {
    slope: f64,
    /// The standard error of the slope, as if the points knew nothing of each other.
    error: f64,
    /// The standard error, widened for the resemblance of neighbours.
    widened: f64,
    from: f64,
    to: f64,
    points: usize,
}

impl Line {
    fn fit(points: &[(f64, f64)]) -> Option<Self> {
        let (from, to) = (points.first()?.0, points.last()?.0);
        if points.len() < 5 || to <= from {
            return None;
        }
        let count = points.len() as f64;
        let middle = points.iter().map(|(at, _)| at).sum::<f64>() / count;
        let mean = points.iter().map(|(_, value)| value).sum::<f64>() / count;
        let spread = points.iter().map(|(at, _)| (at - middle).powi(2)).sum::<f64>();
        let slope = points.iter().map(|(at, value)| (at - middle) * (value - mean)).sum::<f64>() / spread;
        let residuals: Vec<f64> =
            points.iter().map(|(at, value)| value - mean - slope * (at - middle)).collect();
        let squares = residuals.iter().map(|residual| residual.powi(2)).sum::<f64>();
        let error = (squares / (count - 2.0) / spread).sqrt();
        let widened = error * widening(&residuals, squares);
        Some(Self { slope, error, widened, from, to, points: points.len() })
    }
}

/// By how much the error of a slope is larger than that of independent points: for residuals of which each is
/// `r` times its neighbour and noise, the square root of `(1 + r) / (1 - r)`.
fn widening(residuals: &[f64], squares: f64) -> f64 {
    if squares <= f64::EPSILON {
        return 1.0;
    }
    let products = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>();
    let seen = products / squares;
    // Residuals of a line through n points resemble each other less than the noise does, by about
    // (2 + 4 r) / n (Kendall 1954, for a fitted trend).
    let corrected = (seen + (2.0 + 4.0 * seen) / residuals.len() as f64).clamp(0.0, 0.8);
    ((1.0 + corrected) / (1.0 - corrected)).sqrt()
}

/// Student's deviate for [`DEVIATE`], by the expansion of Fisher and Cornish; right to 1 in 1,000 from 8
/// degrees of freedom on, and no line has fewer.
fn student(degrees: usize) -> f64 {
    let (z, n) = (DEVIATE, degrees as f64);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / n + second / n.powi(2) + third / n.powi(3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: f64 = 1024.0;
    const MIB: f64 = 1_048_576.0;

    /// Noise from a seed: xorshift is plenty for that.
    struct Noise(u64);

    impl Noise {
        /// Uniform in -0.5 … 0.5.
        fn uniform(&mut self) -> f64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
        }

        /// With the standard deviation 1, about normal.
        fn normal(&mut self) -> f64 {
            (0..12).map(|_| self.uniform()).sum()
        }
    }

    /// Samples twice a second.
    fn series(seconds: usize, mut value: impl FnMut(f64) -> f64) -> Vec<(f64, f64)> {
        (0..seconds * 2).map(|at| at as f64 / 2.0).map(|at| (at, value(at))).collect()
    }

    fn growth(series: &[(f64, f64)]) -> Option<Trend> {
        judge(series, &Tolerance::MEMORY).map(|slope| slope.trend)
    }

    /// How many of so many seeds say that it grows.
    fn grown(seeds: u64, seconds: usize, mut value: impl FnMut(&mut Noise, f64) -> f64) -> usize {
        let run = |seed: u64, value: &mut dyn FnMut(&mut Noise, f64) -> f64| {
            let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            growth(&series(seconds, |at| value(&mut noise, at))) == Some(Trend::Grows)
        };
        (1..=seeds).filter(|seed| run(*seed, &mut value)).count()
    }

    #[test]
    fn flat_noise_does_not_grow() {
        assert!(grown(400, 600, |noise, _| 20.0 * MIB + MIB * noise.normal()) <= 4);
        assert!(grown(400, 60, |noise, _| 20.0 * MIB + MIB * noise.uniform()) <= 4);
    }

    #[test]
    fn noise_that_remembers_does_not_grow() {
        // Each sample is most of the one before: the memory fades in 5, in 25 and in 50 seconds. The last is
        // longer than a batch, and the bounds are then a little too narrow.
        for (kept, most) in [(0.9, 6), (0.98, 10), (0.99, 24)] {
            let mut last = 0.0;
            let times = grown(400, 600, |noise, at| {
                last = if at == 0.0 { 10.0 * noise.normal() } else { kept * last + noise.normal() };
                20.0 * MIB + MIB * last
            });
            assert!(times <= most, "{kept}: {times} of 400");
        }
    }

    #[test]
    fn a_leak_of_1_kib_a_second_is_found_in_noise_of_1_mib() {
        let leak = |noise: &mut Noise, at: f64| 20.0 * MIB + KIB * at + MIB * noise.uniform();
        assert_eq!(grown(200, 600, leak), 200);
        // Noise with a standard deviation of 1 MiB is three and a half times as much, and the leak of ten
        // minutes half of one deviation.
        let leak = |noise: &mut Noise, at: f64| 20.0 * MIB + KIB * at + MIB * noise.normal();
        let times = grown(200, 600, leak);
        assert!(times >= 180, "{times} of 200");
        // What comes with a warm-up is found as well.
        let leak = |noise: &mut Noise, at: f64| {
            20.0 * MIB - 10.0 * MIB * (-at / 20.0).exp() + KIB * at + MIB * noise.uniform()
        };
        assert!(grown(200, 600, leak) >= 190);
    }

    #[test]
    fn a_warm_up_is_no_growth() {
        for length in [5.0, 20.0, 40.0] {
            let warm = |noise: &mut Noise, at: f64| {
                20.0 * MIB - 10.0 * MIB * (-at / length).exp() + 0.2 * MIB * noise.uniform()
            };
            let times = grown(100, 600, warm);
            assert!(times <= 2, "{length}: {times} of 100");
        }
    }

    #[test]
    fn a_saw_tooth_is_no_growth() {
        // From 3 to 60 teeth in the run, which begins anywhere in one.
        let teeth = (0..1_000_u16).map(|at| (3.0 + f64::from(at) * 0.057, (f64::from(at) * GOLDEN).fract()));
        let grows = teeth.filter(|(teeth, phase)| {
            let mut noise = Noise(teeth.to_bits() | 1);
            let sawtooth = series(600, |at| {
                let place = (at / 600.0 * teeth + phase).fract();
                20.0 * MIB + 8.0 * MIB * place + 0.05 * MIB * noise.uniform()
            });
            growth(&sawtooth) == Some(Trend::Grows)
        });
        // What the bounds promise: they are wrong on this side once in 200 runs.
        assert!(grows.count() <= 5);
    }

    #[test]
    fn what_does_not_change_is_steady_and_a_page_more_is_no_leak() {
        let slope = judge(&series(60, |_| 20.0 * MIB), &Tolerance::MEMORY).unwrap();
        assert_eq!((slope.trend, slope.per_second, slope.upper), (Trend::DoesNotGrow, 0.0, 0.0));
        let step = series(600, |at| 20.0 * MIB + if at < 300.0 { 0.0 } else { 4096.0 });
        assert_eq!(growth(&step), Some(Trend::DoesNotGrow));
        let count = |series: &[(f64, f64)]| judge(series, &Tolerance::COUNT).map(|slope| slope.trend);
        assert_eq!(count(&series(600, |_| 12.0)), Some(Trend::DoesNotGrow));
        assert_eq!(count(&series(600, |at| 12.0 + (at / 30.0).floor())), Some(Trend::Grows));
    }

    #[test]
    fn a_run_that_cannot_tell_says_so() {
        assert_eq!(judge(&[], &Tolerance::MEMORY), None);
        assert_eq!(growth(&series(29, |_| 1.0)), None);
        let mut noise = Noise(7);
        let restless = series(60, |_| 100.0 * MIB * noise.uniform());
        assert_eq!(growth(&restless), Some(Trend::TooShort));
    }

    #[test]
    fn a_burst_of_samples_does_not_bend_the_line() {
        let mut noise = Noise(3);
        let spiky = series(600, |at| {
            let spike = if (590.0..593.0).contains(&at) { 500.0 * MIB } else { 0.0 };
            20.0 * MIB + 0.1 * MIB * noise.uniform() + spike
        });
        assert_eq!(growth(&spiky), Some(Trend::DoesNotGrow));
    }

    #[test]
    fn students_deviate_is_that_of_the_tables() {
        for (degrees, table) in [(8, 3.3554), (12, 3.0545), (18, 2.8784)] {
            assert!((student(degrees) - table).abs() < 0.004, "{degrees}: {}", student(degrees));
        }
    }

    proptest! {
        #[test]
        fn a_clear_leak_is_found_whatever_it_starts_from(
            base in 0.0_f64..1e9, rate in 8.0_f64..1e3, seconds in 120_usize..900,
        ) {
            let leak = series(seconds, |at| base + rate * KIB * at);
            prop_assert_eq!(growth(&leak), Some(Trend::Grows));
            let shrinks = series(seconds, |at| base - rate * KIB * at);
            prop_assert_eq!(growth(&shrinks), Some(Trend::DoesNotGrow));
        }

        #[test]
        fn any_series_can_be_judged(values in prop::collection::vec((0.0_f64..1e4, -1e12_f64..1e12), 0..300)) {
            let mut values = values;
            values.sort_by(|a, b| a.0.total_cmp(&b.0));
            if let Some(slope) = judge(&values, &Tolerance::MEMORY) {
                prop_assert!(slope.lower <= slope.per_second && slope.per_second <= slope.upper);
                prop_assert!(slope.per_second.is_finite() && slope.points >= 10);
            }
        }
    }
}
