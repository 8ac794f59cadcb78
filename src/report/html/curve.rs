//! Distributions, thinned out: some of the sorted values, each with its rank.

use serde::Serialize;

use crate::metrics::native::Samples;
use crate::metrics::stats;

/// How many of the largest values are all kept.
const TOP: usize = 64;
/// How many of the smallest.
const BOTTOM: usize = 16;
/// How many evenly spread ones besides.
const EVEN: usize = 200;
/// From the largest values towards the median, the next distance is by this much larger.
const STEP: f64 = 1.04;

/// A distribution. `ms[i]` is the value that `ranks[i]` of the `count` values are smaller than or before.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Curve {
    count: usize,
    ranks: Vec<usize>,
    ms: Vec<f64>,
}

/// The distributions of a run's latencies.
#[derive(Serialize)]
pub(super) struct Curves {
    ttft: Curve,
    itl: Curve,
    tpot: Curve,
    e2el: Curve,
}

impl Curves {
    /// Of samples in nanoseconds.
    pub(super) fn of(samples: Samples) -> Self {
        let curve = |values: Vec<f64>| Curve::of(1e6, values);
        Self {
            ttft: curve(samples.ttft_ns),
            itl: curve(samples.itl_ns),
            tpot: curve(samples.tpot_ns),
            e2el: curve(samples.e2el_ns),
        }
    }
}

impl Curve {
    /// Of values of which so many make a millisecond.
    pub(super) fn of(in_a_ms: f64, mut values: Vec<f64>) -> Self {
        stats::sort(&mut values);
        let ranks = ranks(values.len());
        // To 100 ns, which is more than a stamp tells.
        let ms = |rank: &usize| (values[*rank] / in_a_ms * 1e4).round() / 1e4;
        Self { count: values.len(), ms: ranks.iter().map(ms).collect(), ranks }
    }
}

/// The ranks that are kept of `count` values, in order: the ends whole, evenly spread ones in between, and towards the
/// top ever closer ones, so that a logarithmic axis of percentiles has as much to show everywhere.
fn ranks(count: usize) -> Vec<usize> {
    let mut ranks: Vec<usize> = (0..count.min(BOTTOM)).chain(count.saturating_sub(TOP)..count).collect();
    ranks.extend((0..EVEN).map(|i| i * count / EVEN).filter(|rank| *rank < count));
    let mut from_top = TOP as f64;
    while from_top < count as f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and count")]
        ranks.push(count - 1 - from_top as usize);
        from_top *= STEP;
    }
    ranks.sort_unstable();
    ranks.dedup();
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_are_all_kept() {
        for count in 0..=TOP + BOTTOM {
            assert_eq!(ranks(count), (0..count).collect::<Vec<_>>());
        }
        let curve = Curve::of(1e6, vec![3e6, 1e6, 2_000_049.0]);
        assert_eq!(curve, Curve { count: 3, ranks: vec![0, 1, 2], ms: vec![1.0, 2.0, 3.0] });
    }

    #[test]
    fn a_million_values_keep_their_tails_and_little_else() {
        let count = 1_000_000;
        let ranks = ranks(count);
        assert!(ranks.len() < 600, "{}", ranks.len());
        assert!(ranks.is_sorted());
        assert_eq!(ranks[..BOTTOM], (0..BOTTOM).collect::<Vec<_>>());
        assert_eq!(ranks[ranks.len() - TOP..], (count - TOP..count).collect::<Vec<_>>());
        // No percentile is further from a kept one than 4 % of its distance from the top, and one step.
        for pair in ranks.windows(2) {
            let allowed = ((count - pair[0]) as f64 * (STEP - 1.0)).ceil() + 1.0;
            assert!(((pair[1] - pair[0]) as f64) <= allowed.min(count as f64 / EVEN as f64), "{pair:?}");
        }
    }
}
