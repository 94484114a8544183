//! What the policy makes of measurements: which threshold a case should have, and what that means for the one it has.

use serde::Serialize;

use crate::thresholds::{Allowed, Basis, Policy};

/// Scales are multiples of so many points, so that two calibrations of the same speed write the same number.
const STEP: u32 = 5;

/// What is to become of a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    /// There was none.
    Set,
    /// More is allowed.
    Raise,
    /// Less is allowed.
    Tighten,
    /// It stays: what the policy says is the same, or not worth a change.
    Keep,
}

/// A threshold as it should be, and why.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Suggestion<T> {
    pub(crate) action: Action,
    /// In how many runs it was measured.
    pub(crate) runs: usize,
    /// What the policy's basis makes of them.
    pub(crate) measured: f64,
    /// What is in the file.
    pub(crate) now: Option<T>,
    /// What should be, which is what is there where the action is `Keep`.
    pub(crate) then: T,
}

/// The threshold of a case with these medians, one per run; `None` without any.
pub(crate) fn time(policy: Policy, ratios: &[f64], now: Option<Allowed>) -> Option<Suggestion<Allowed>> {
    let measured = basis(policy, ratios)?;
    let slowest = greatest(ratios)?;
    let base = now.unwrap_or_else(|| Allowed { ratio: significant(measured), scale: 100 });
    let with_margin = base.required(measured * (1.0 + f64::from(policy.margin) / 100.0));
    let with_headroom = base.required(slowest).saturating_add(policy.min_headroom);
    let scale = with_margin.max(with_headroom).max(policy.min_scale);
    let then = Allowed { scale: scale.div_ceil(STEP).saturating_mul(STEP), ..base };
    let Some(old) = now else {
        return Some(Suggestion { action: Action::Set, runs: ratios.len(), measured, now, then });
    };
    // A threshold that a run broke is raised however small the change is.
    let is_broken = slowest > old.limit();
    let is_worth_it = then.scale.abs_diff(old.scale) >= policy.min_change.max(1);
    let action = action(then.scale.cmp(&old.scale), is_broken || is_worth_it);
    let then = if action == Action::Keep { old } else { then };
    Some(Suggestion { action, runs: ratios.len(), measured, now, then })
}

/// The same for how many instructions one run takes.
pub(crate) fn instructions(policy: Policy, counts: &[u64], now: Option<u64>) -> Option<Suggestion<u64>> {
    let as_numbers: Vec<_> = counts.iter().map(|count| *count as f64).collect();
    let measured = basis(policy, &as_numbers)?;
    let most = counts.iter().copied().max()?;
    let margin = 1.0 + f64::from(policy.instruction_margin) / 100.0;
    let then = round_up((measured * margin).ceil() as u64).max(most);
    let Some(old) = now else {
        return Some(Suggestion { action: Action::Set, runs: counts.len(), measured, now, then });
    };
    let points = (then as f64 / old as f64 - 1.0).abs() * 100.0;
    let is_worth_it = points >= f64::from(policy.min_change) && then != old;
    let action = action(then.cmp(&old), most > old || is_worth_it);
    let then = if action == Action::Keep { old } else { then };
    Some(Suggestion { action, runs: counts.len(), measured, now, then })
}

fn action(change: std::cmp::Ordering, is_worth_it: bool) -> Action {
    match change {
        std::cmp::Ordering::Greater if is_worth_it => Action::Raise,
        std::cmp::Ordering::Less if is_worth_it => Action::Tighten,
        _ => Action::Keep,
    }
}

/// Of several runs the one that counts.
fn basis(policy: Policy, runs: &[f64]) -> Option<f64> {
    match policy.basis {
        Basis::Max => greatest(runs),
        Basis::Percentile => {
            let mut sorted = runs.to_vec();
            sorted.sort_by(f64::total_cmp);
            // The nearest rank: the smallest run that so many percent are not slower than.
            let rank = (sorted.len() * policy.percentile as usize).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied()
        }
    }
}

fn greatest(runs: &[f64]) -> Option<f64> {
    runs.iter().copied().max_by(f64::total_cmp)
}

/// A ratio with the three digits that a measurement is good for.
fn significant(ratio: f64) -> f64 {
    let text = format!("{ratio:.2e}");
    // What was just written is a number.
    text.parse().unwrap_or(ratio)
}

/// A count with three digits and zeroes behind them, not less than it was.
fn round_up(count: u64) -> u64 {
    let digits = count.checked_ilog10().unwrap_or(0);
    let unit = 10_u64.saturating_pow(digits.saturating_sub(2));
    count.div_ceil(unit).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy {
        basis: Basis::Max,
        percentile: 90,
        margin: 25,
        min_headroom: 15,
        min_scale: 50,
        min_change: 5,
        instruction_margin: 5,
    };

    fn allowed(ratio: f64, scale: u32) -> Option<Allowed> {
        Some(Allowed { ratio, scale })
    }

    fn scale(ratios: &[f64], now: Option<Allowed>) -> (Action, u32) {
        let suggestion = time(POLICY, ratios, now).expect("there are runs");
        (suggestion.action, suggestion.then.scale)
    }

    #[test]
    fn a_case_without_a_threshold_gets_one_from_its_slowest_run() {
        let suggestion = time(POLICY, &[1.9, 2.0049, 1.8], None).expect("there are runs");
        assert_eq!(suggestion.action, Action::Set);
        assert_eq!(suggestion.then, Allowed { ratio: 2.0, scale: 130 });
        assert!(suggestion.then.limit() >= 2.0049 * 1.25);
    }

    #[test]
    fn margin_headroom_and_the_least_scale_all_hold() {
        // 25 % on top; 15 points on top, where those are more; 50 at least.
        assert_eq!(scale(&[2.0], allowed(1.0, 100)), (Action::Raise, 250));
        assert_eq!(scale(&[0.4], allowed(1.0, 100)), (Action::Tighten, 55));
        assert_eq!(scale(&[0.1], allowed(1.0, 100)), (Action::Tighten, 50));
    }

    #[test]
    fn small_changes_are_not_made_and_broken_thresholds_are() {
        let policy = Policy { min_change: 20, ..POLICY };
        let now = allowed(1.0, 125);
        for (ratio, expected) in
            [(1.0, Action::Keep), (1.1, Action::Keep), (1.3, Action::Raise), (0.8, Action::Tighten)]
        {
            assert_eq!(time(policy, &[ratio], now).expect("there is a run").action, expected, "{ratio}");
        }
        let no_margin = Policy { margin: 0, min_headroom: 0, min_change: 1000, ..POLICY };
        let broken = time(no_margin, &[1.26], now).expect("there is a run");
        assert_eq!((broken.action, broken.then.scale), (Action::Raise, 130));
        assert_eq!(instructions(policy, &[1001], Some(1000)).expect("there is a run").action, Action::Raise);
    }

    #[test]
    fn a_percentile_leaves_out_what_was_worst_but_keeps_its_headroom() {
        let policy = Policy { basis: Basis::Percentile, ..POLICY };
        let mut ratios = vec![1.0; 19];
        ratios.push(3.0);
        let suggestion = time(policy, &ratios, None).expect("there are runs");
        assert_eq!((suggestion.measured, suggestion.then.ratio), (1.0, 1.0));
        assert_eq!(suggestion.then.scale, 315);
    }

    #[test]
    fn counts_of_instructions_get_a_margin_of_their_own() {
        let suggestion = |counts: &[u64], now| instructions(POLICY, counts, now).expect("there are runs");
        let set = suggestion(&[123_456, 123_460], None);
        assert_eq!((set.action, set.then), (Action::Set, 130_000));
        assert_eq!(suggestion(&[123_456], Some(130_000)).action, Action::Keep);
        assert_eq!(suggestion(&[150_000], Some(130_000)).action, Action::Raise);
        assert_eq!(suggestion(&[100_000], Some(130_000)).then, 105_000);
    }

    #[test]
    fn nothing_measured_is_nothing_suggested() {
        assert_eq!(time(POLICY, &[], None), None);
        assert_eq!(instructions(POLICY, &[], Some(1)), None);
    }

    fn policy() -> impl Strategy<Value = Policy> {
        let basis = prop_oneof![Just(Basis::Max), Just(Basis::Percentile)];
        (basis, 1..=100_u32, 0..200_u32, 0..100_u32, 1..200_u32, 0..50_u32, 0..50_u32).prop_map(
            |(basis, percentile, margin, min_headroom, min_scale, min_change, instruction_margin)| Policy {
                basis,
                percentile,
                margin,
                min_headroom,
                min_scale,
                min_change,
                instruction_margin,
            },
        )
    }

    fn now() -> impl Strategy<Value = Option<Allowed>> {
        proptest::option::of(
            (0.001..100.0_f64, 1..1000_u32).prop_map(|(ratio, scale)| Allowed { ratio, scale }),
        )
    }

    proptest! {
        #[test]
        fn every_run_passes_what_is_suggested(
            policy in policy(), now in now(), ratios in proptest::collection::vec(0.001..100.0_f64, 1..9),
        ) {
            let suggestion = time(policy, &ratios, now).expect("there are runs");
            for ratio in &ratios {
                prop_assert!(*ratio <= suggestion.then.limit() * (1.0 + 1e-9), "{:?}", suggestion);
            }
        }

        #[test]
        fn a_suggestion_that_was_taken_is_kept(
            policy in policy(), now in now(), ratios in proptest::collection::vec(0.001..100.0_f64, 1..9),
            counts in proptest::collection::vec(1..1_000_000_000_u64, 1..9), limit in proptest::option::of(1..1_000_000_000_u64),
        ) {
            let then = time(policy, &ratios, now).expect("there are runs").then;
            prop_assert_eq!(time(policy, &ratios, Some(then)).expect("there are runs").action, Action::Keep);
            let then = instructions(policy, &counts, limit).expect("there are runs").then;
            prop_assert!(counts.iter().all(|count| *count <= then));
            prop_assert_eq!(instructions(policy, &counts, Some(then)).expect("there are runs").action, Action::Keep);
        }

        #[test]
        fn noise_within_the_margin_passes_and_twice_as_slow_does_not(
            ratio in 0.001..1000.0_f64, noise in proptest::collection::vec(0.95..1.05_f64, 3..9), later in 0.95..1.15_f64,
        ) {
            let ratios: Vec<_> = noise.iter().map(|noise| ratio * noise).collect();
            let allowed = time(POLICY, &ratios, None).expect("there are runs").then;
            prop_assert!(ratio * later <= allowed.limit(), "{:?}", allowed);
            prop_assert!(ratio * later * 2.0 > allowed.limit(), "{:?}", allowed);
        }

        #[test]
        fn what_is_rounded_up_is_not_less_and_hardly_more(count in 1..u64::MAX / 2) {
            let rounded = round_up(count);
            prop_assert!(rounded >= count && (rounded - count) as f64 <= count as f64 / 99.0, "{}", rounded);
        }
    }
}
