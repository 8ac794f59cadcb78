//! How many requests come in a second, over the run: what turns a law's ticks into time.
//!
//! A tick is the time in which one request is expected. So the moment of tick k is where the integral of the rate
//! reaches k, and a Poisson process stays one, at every moment with the rate of that moment.

use serde::{Deserialize, Serialize};

use super::Error;

/// Requests a second, over the run.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "pace", rename_all = "snake_case")]
pub enum Pace {
    /// The same at every moment.
    Constant {
        /// Requests a second.
        rate: f64,
    },
    /// A ramp, linear in time; after it, its last rate.
    Linear {
        /// Requests a second at the start; may be 0.
        from: f64,
        /// Requests a second at the ramp's end.
        to: f64,
        /// How long the ramp takes, in seconds; if absent, as long as the schedule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        over_s: Option<f64>,
    },
}

impl Pace {
    pub(super) fn check(self) -> Result<(), Error> {
        let positive = |flag, what: &str, rate: f64| {
            if rate > 0.0 && rate.is_finite() {
                return Ok(());
            }
            Err(Error::new(flag, format!("{what}must be above 0 and finite, and is {rate}")))
        };
        match self {
            Self::Constant { rate } => positive("--rate", "", rate),
            Self::Linear { from, .. } if !(from >= 0.0 && from.is_finite()) => {
                Err(Error::new("--ramp", format!("its start must not be below 0, and is {from}")))
            }
            Self::Linear { to, .. } => positive("--ramp", "its end ", to),
        }
    }

    /// The moments of these ticks, in seconds.
    pub(super) fn moments(self, mut ticks: Vec<f64>) -> Vec<f64> {
        let n = ticks.len() as f64;
        for tick in &mut ticks {
            *tick = match self {
                Self::Constant { rate } => *tick / rate,
                Self::Linear { from, to, over_s } => {
                    linear(from, to, over_s.unwrap_or(2.0 * n / (from + to)), *tick)
                }
            };
        }
        ticks
    }
}

/// Where the integral of a rate that goes from `from` to `to` in `over` seconds, and stays there, reaches `tick`.
fn linear(from: f64, to: f64, over: f64, tick: f64) -> f64 {
    let within = f64::midpoint(from, to) * over;
    if tick > within {
        return over + (tick - within) / to;
    }
    if tick <= 0.0 {
        return 0.0;
    }
    // The root of (to - from) / (2 over) t^2 + from t = tick, in the form that loses no digits to a small difference.
    let discriminant = from * from + 2.0 * (to - from) / over * tick;
    2.0 * tick / (from + discriminant.max(0.0).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schedule::Law;
    use crate::schedule::law::tests::{KS_LIMIT, exponential_cdf, gaps, ks};

    /// The expected number of requests up to a moment.
    fn expected(from: f64, to: f64, over: f64, t: f64) -> f64 {
        let ramp = t.min(over);
        from * ramp + (to - from) * ramp * ramp / (2.0 * over) + to * (t - ramp)
    }

    #[test]
    fn a_ramp_begins_and_ends_at_its_rates() {
        let pace = Pace::Linear { from: 10.0, to: 90.0, over_s: None };
        let moments = pace.moments(Law::Constant.ticks(5001, 0));
        let gaps = gaps(&moments);
        assert!((1.0 / gaps[0] - 10.0).abs() < 0.2, "{}", 1.0 / gaps[0]);
        assert!((1.0 / gaps[4999] - 90.0).abs() < 0.2, "{}", 1.0 / gaps[4999]);
        // 5001 requests at a mean rate of 50.
        assert!((moments[5000] - 100.0).abs() < 0.1, "{}", moments[5000]);
    }

    #[test]
    fn a_poisson_ramp_is_a_poisson_process_at_each_moments_rate() {
        let (from, to, over) = (5.0, 500.0, 40.0);
        let pace = Pace::Linear { from, to, over_s: Some(over) };
        let moments = pace.moments(Law::Poisson.ticks(20_000, 11));
        let expected: Vec<f64> = moments.iter().map(|t| expected(from, to, over, *t)).collect();
        let distance = ks(gaps(&expected), exponential_cdf);
        assert!(distance < KS_LIMIT, "{distance}");
        // At one rate throughout, it would be none.
        let mean = moments[19_999] / 20_000.0;
        assert!(ks(gaps(&moments), |gap| exponential_cdf(gap / mean)) > KS_LIMIT);
    }

    proptest! {
        #[test]
        fn a_tick_is_one_expected_request(
            from in prop_oneof![Just(0.0), 0.01..1e3f64],
            to in 0.01..1e3f64,
            over in 0.1..1e3f64,
            tick in 0.0..1e4f64,
        ) {
            let t = linear(from, to, over, tick);
            prop_assert!((expected(from, to, over, t) - tick).abs() <= 1e-6 * tick.max(1.0));
            prop_assert!(linear(from, to, over, tick * 1.001) >= t);
        }
    }
}
