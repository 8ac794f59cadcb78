//! How far apart requests are, on a clock on which one comes a tick on average.
//!
//! Each gap has a random stream of its own, keyed by the seed and its number, so a longer schedule begins as a shorter
//! one. Logarithms are the platform's: another libm can move a request by a nanosecond.

use serde::{Deserialize, Serialize};

use super::{Error, accumulate};
use crate::generate::stream::{Purpose, Stream};

/// The law of the gaps between requests. All of them have a mean of one tick.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "arrival", rename_all = "snake_case")]
pub enum Law {
    /// Every gap is the same.
    Constant,
    /// Gaps of the gamma law, which is the Poisson process at a burstiness of 1.
    Gamma {
        /// The law's shape: below 1 requests come in bursts, and the larger it is, the more regular they are. The
        /// gaps' variance is 1 / burstiness. (`--burstiness` of `vllm bench serve` is the same.)
        burstiness: f64,
    },
    /// Independent exponential gaps: requests of many users who know nothing of each other.
    Poisson,
}

impl Law {
    /// Its name on the command line and in `run.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Gamma { .. } => "gamma",
            Self::Poisson => "poisson",
        }
    }

    pub(super) fn check(self) -> Result<(), Error> {
        match self {
            Self::Gamma { burstiness } if !(burstiness > 0.0 && burstiness.is_finite()) => {
                Err(Error::new("--burstiness", format!("must be above 0 and finite, and is {burstiness}")))
            }
            _ => Ok(()),
        }
    }

    /// When each of `n` requests comes, in ticks: the first at 0.
    pub(super) fn ticks(self, n: usize, seed: u64) -> Vec<f64> {
        let purpose = Purpose::new(seed, "arrival");
        let mut ticks: Vec<f64> = (0..n as u64)
            .map(|index| match self {
                _ if index == 0 => 0.0,
                Self::Constant => 1.0,
                Self::Gamma { burstiness } => gamma(&mut purpose.stream(index), burstiness) / burstiness,
                Self::Poisson => exponential(&mut purpose.stream(index)),
            })
            .collect();
        accumulate(&mut ticks);
        ticks
    }
}

/// A number of the exponential law with mean 1, by inversion.
fn exponential(stream: &mut Stream) -> f64 {
    // 1 - unit is never 0.
    -(-stream.unit()).ln_1p()
}

/// A number of the normal law with mean 0 and variance 1: Marsaglia's polar method.
fn normal(stream: &mut Stream) -> f64 {
    loop {
        let (x, y) = (2.0 * stream.unit() - 1.0, 2.0 * stream.unit() - 1.0);
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            return x * (-2.0 * square.ln() / square).sqrt();
        }
    }
}

/// A number of the gamma law with this shape and scale 1. Marsaglia and Tsang, "A simple method for generating gamma
/// variables", ACM TOMS 26(3), 2000; a shape below 1 by their section 6.
fn gamma(stream: &mut Stream, shape: f64) -> f64 {
    if shape < 1.0 {
        let above = gamma(stream, shape + 1.0);
        return above * (1.0 - stream.unit()).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(stream);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - stream.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The largest distance between the values' own distribution and a law's (the Kolmogorov-Smirnov statistic),
    /// times the root of their number. Of values that follow the law, it is above 1.95 once in a thousand samples.
    pub(in crate::schedule) fn ks(mut values: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
        values.sort_unstable_by(f64::total_cmp);
        let n = values.len() as f64;
        let distances = values.iter().enumerate().map(|(i, value)| {
            let (below, p) = (i as f64 / n, cdf(*value));
            (p - below).max(below + 1.0 / n - p)
        });
        distances.fold(0.0, f64::max) * n.sqrt()
    }

    /// The significance that [`ks`] is held to: 0.1 %. The seeds are fixed, so a test that passes once always does.
    pub(in crate::schedule) const KS_LIMIT: f64 = 1.95;

    pub(in crate::schedule) fn gaps(times: &[f64]) -> Vec<f64> {
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    pub(in crate::schedule) fn exponential_cdf(x: f64) -> f64 {
        1.0 - (-x).exp()
    }

    /// The gamma law's distribution function for scale 1: its power series (DLMF 8.7.1). `of_shape` is Γ(shape).
    fn gamma_cdf(shape: f64, of_shape: f64, x: f64) -> f64 {
        let mut term = 1.0 / (shape * of_shape);
        let mut sum = term;
        for n in 1..400 {
            term *= x / (shape + f64::from(n));
            sum += term;
        }
        sum * (shape * x.ln() - x).exp()
    }

    #[test]
    fn the_tests_own_law_is_right() {
        // Shape 1 is exponential; the median of shape 0.5 is half the median of chi-squared with one degree.
        assert!((gamma_cdf(1.0, 1.0, 2.0) - exponential_cdf(2.0)).abs() < 1e-12);
        assert!(
            (gamma_cdf(0.5, std::f64::consts::PI.sqrt(), 0.454_936_423_119_572_8 / 2.0) - 0.5).abs() < 1e-9
        );
    }

    #[test]
    fn poisson_gaps_are_exponential() {
        for seed in [0, 1, u64::MAX] {
            let distance = ks(gaps(&Law::Poisson.ticks(20_000, seed)), exponential_cdf);
            assert!(distance < KS_LIMIT, "seed {seed}: {distance}");
        }
    }

    #[test]
    fn gamma_gaps_follow_their_law() {
        let shapes = [
            (0.25, 3.625_609_908_221_908),
            (0.5, 1.772_453_850_905_516),
            (1.0, 1.0),
            (4.0, 6.0),
            (10.0, 362_880.0),
        ];
        for (shape, of_shape) in shapes {
            let gaps = gaps(&Law::Gamma { burstiness: shape }.ticks(20_000, 7));
            let distance = ks(gaps, |x| gamma_cdf(shape, of_shape, x * shape));
            assert!(distance < KS_LIMIT, "shape {shape}: {distance}");
        }
    }

    /// The test would see a law that is off by a little.
    #[test]
    fn another_law_fails_the_test() {
        let poisson = || gaps(&Law::Poisson.ticks(20_000, 0));
        assert!(ks(poisson(), |x| exponential_cdf(x * 1.05)) > KS_LIMIT);
        assert!(ks(poisson(), |x| gamma_cdf(1.1, 0.951_350_769_866_873, x * 1.1)) > KS_LIMIT);
    }

    /// A lag-one correlation of independent gaps is normal around 0 with a standard deviation of 1 / sqrt(n).
    #[test]
    fn gaps_are_independent() {
        let gaps = gaps(&Law::Poisson.ticks(20_001, 3));
        let products = gaps.windows(2).map(|pair| (pair[0] - 1.0) * (pair[1] - 1.0));
        let correlation = products.sum::<f64>() / gaps.len() as f64;
        assert!(correlation.abs() * (gaps.len() as f64).sqrt() < 3.3, "{correlation}");
    }

    fn law() -> impl Strategy<Value = Law> {
        prop_oneof![
            Just(Law::Constant),
            Just(Law::Poisson),
            (0.01..50.0f64).prop_map(|burstiness| Law::Gamma { burstiness }),
        ]
    }

    proptest! {
        #[test]
        fn a_longer_schedule_begins_as_a_shorter_one(law in law(), n in 0usize..50, more in 0usize..50, seed: u64) {
            let ticks = law.ticks(n, seed);
            prop_assert_eq!(&law.ticks(n + more, seed)[..n], &ticks[..]);
            prop_assert!(ticks.is_sorted() && ticks.iter().all(|tick| tick.is_finite()));
            prop_assert!(ticks.first().is_none_or(|first| *first == 0.0));
        }
    }
}
