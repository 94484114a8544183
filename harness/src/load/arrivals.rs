//! When requests are meant to begin: the same times for the same plan, whatever the server does.
//!
//! The n-th request of an open stage comes when the integral of the rate reaches n, or, at random, the n-th
//! sum of exponential gaps: a Poisson process, for a changing rate as well.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::plan::Pace;

/// A request that is meant to begin at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Its number in its stage.
    pub(crate) number: u64,
    /// When it is meant to begin, in nanoseconds since the stage's beginning.
    pub(crate) after: u64,
}

/// The requests of an open stage, in order; those of one thread among several.
#[derive(Debug)]
pub(crate) struct Arrivals {
    from: f64,
    to: f64,
    seconds: f64,
    random: Option<ChaCha8Rng>,
    number: u64,
    /// What the integral of the rate is when the next one comes.
    sum: f64,
    share: (u64, u64),
}

impl Arrivals {
    /// Those of this thread, of so many. None for a pace that is not open.
    pub(crate) fn new(pace: &Pace, seed: u64, thread: usize, threads: usize) -> Option<Self> {
        let Pace::Open { from, to, seconds, poisson } = *pace else { return None };
        let random = poisson.then(|| ChaCha8Rng::seed_from_u64(seed));
        let share = (thread as u64, threads as u64);
        Some(Self { from, to, seconds, random, number: 0, sum: 0.0, share })
    }

    /// When the integral of the rate is `sum`; none if that is after the end.
    fn time(&self, sum: f64) -> Option<f64> {
        let (from, slope) = (self.from, (self.to - self.from) / self.seconds);
        let time = if slope == 0.0 {
            sum / from
        } else {
            // from * t + slope / 2 * t^2 = sum, in the form that loses no digits for a small slope.
            let root = from * from + 2.0 * slope * sum;
            if root < 0.0 {
                return None;
            }
            2.0 * sum / (from + root.sqrt())
        };
        (time < self.seconds).then_some(time)
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        loop {
            if let Some(random) = &mut self.random {
                self.sum += exponential(random);
            }
            let time = if self.sum == 0.0 { 0.0 } else { self.time(self.sum)? };
            let number = self.number;
            self.number += 1;
            if self.random.is_none() {
                self.sum += 1.0;
            }
            if number % self.share.1 == self.share.0 {
                return Some(Arrival { number, after: (time * 1e9) as u64 });
            }
        }
    }
}

/// A number between 0 and 1, neither of both.
pub(crate) fn unit(random: &mut ChaCha8Rng) -> f64 {
    ((random.next_u64() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// A gap of a Poisson process with rate one.
pub(crate) fn exponential(random: &mut ChaCha8Rng) -> f64 {
    -unit(random).ln()
}

/// A number of the standard normal distribution (Box and Muller).
pub(crate) fn normal(random: &mut ChaCha8Rng) -> f64 {
    (-2.0 * unit(random).ln()).sqrt() * (std::f64::consts::TAU * unit(random)).cos()
}

/// Bits that follow from a seed and a number, and look like random ones (SplitMix64): for choices that must
/// be the same in whatever order requests are sent.
pub(crate) fn mix(seed: u64, number: u64) -> u64 {
    let mut bits = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(pace: &Pace, seed: u64) -> Vec<Arrival> {
        Arrivals::new(pace, seed, 0, 1).unwrap().collect()
    }

    fn open(from: f64, to: f64, seconds: f64, poisson: bool) -> Pace {
        Pace::Open { from, to, seconds, poisson }
    }

    #[test]
    fn an_even_rate_is_even() {
        let times: Vec<u64> = all(&open(4.0, 4.0, 1.0, false), 0).iter().map(|each| each.after).collect();
        assert_eq!(times, [0, 250_000_000, 500_000_000, 750_000_000]);
    }

    #[test]
    fn a_ramp_has_the_mean_rate_and_is_faster_at_its_end() {
        let times = all(&open(0.0, 200.0, 10.0, false), 0);
        assert!((999..=1_001).contains(&times.len()), "{}", times.len());
        let late = times.iter().filter(|each| each.after >= 5_000_000_000).count();
        assert!((748..=752).contains(&late), "{late}");
        let down = all(&open(200.0, 0.0, 10.0, false), 0);
        assert!((999..=1_001).contains(&down.len()), "{}", down.len());
    }

    #[test]
    fn random_arrivals_follow_from_the_seed_alone() {
        let pace = open(100.0, 100.0, 20.0, true);
        let times = all(&pace, 7);
        assert_eq!(times, all(&pace, 7));
        assert_ne!(times, all(&pace, 8));
        assert!((1_800..2_200).contains(&times.len()), "{}", times.len());
    }

    #[test]
    fn think_times_scatter_as_a_normal_distribution_does() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let numbers: Vec<f64> = (0..10_000).map(|_| normal(&mut random)).collect();
        let within = numbers.iter().filter(|each| each.abs() < 1.0).count();
        assert!((6_600..7_050).contains(&within), "{within}");
    }

    proptest! {
        #[test]
        fn threads_share_the_same_arrivals(
            from in 0.0_f64..300.0, to in 0.5_f64..300.0, poisson: bool, threads in 1_usize..5
        ) {
            let pace = open(from, to, 2.0, poisson);
            let mut shared: Vec<Arrival> = (0..threads)
                .flat_map(|thread| Arrivals::new(&pace, 1, thread, threads).unwrap())
                .collect();
            shared.sort_by_key(|each| each.number);
            prop_assert!(shared.is_sorted_by_key(|each| each.after));
            prop_assert_eq!(shared, all(&pace, 1));
        }
    }
}
