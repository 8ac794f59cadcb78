//! The shapes of traffic that `tokentape replay` sends: parameters in, a time for each request out.

use serde::{Deserialize, Serialize};

use super::law::Law;
use super::pace::Pace;
use super::{Error, offset_ns};
use crate::timeline::Ns;

/// When requests are due: everything that a schedule depends on beside the tape. `run.json` keeps it as it is here.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Shape {
    /// A number of requests at once, again and again.
    Bursts {
        /// Requests in each.
        size: u32,
        /// From one to the next.
        period_ns: Ns,
    },
    /// Gaps of a law, at a pace.
    Paced {
        /// Requests a second, over the run.
        pace: Pace,
        /// How far apart they are.
        law: Law,
        /// The seed of the gaps.
        seed: u64,
    },
    /// As the tape has it.
    Recorded {
        /// How much faster than on the tape.
        speed: f64,
        /// The tape's moment that is the run's start.
        from_ns: Ns,
    },
}

impl Shape {
    /// When each request is due, in ns from the run's start, given the offsets of those same requests on the tape.
    /// Never earlier than the one before: tape order is send order.
    pub fn offsets(&self, recorded: &[Ns]) -> Result<Vec<Ns>, Error> {
        self.check()?;
        Ok(match *self {
            Self::Bursts { size, period_ns } => (0..recorded.len() as u64)
                .map(|index| (index / u64::from(size)).saturating_mul(period_ns))
                .collect(),
            Self::Paced { pace, law, seed } => {
                let moments = pace.moments(law.ticks(recorded.len(), seed));
                moments.into_iter().map(offset_ns).collect()
            }
            Self::Recorded { speed, from_ns } => {
                let mut latest = 0;
                let ascending = recorded.iter().map(|offset| {
                    let since = offset.saturating_sub(from_ns) as f64;
                    latest = latest.max(offset_ns(since / speed / 1e9));
                    latest
                });
                ascending.collect()
            }
        })
    }

    /// Requests a second, where they are asked for as one number.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        match *self {
            Self::Paced { pace: Pace::Constant { rate }, .. } => Some(rate),
            _ => None,
        }
    }

    /// How requests arrive, in a word.
    #[must_use]
    pub fn arrival(&self) -> &'static str {
        match self {
            Self::Bursts { .. } => "bursts",
            Self::Paced { law, .. } => law.name(),
            Self::Recorded { .. } => "recorded",
        }
    }

    fn check(&self) -> Result<(), Error> {
        match *self {
            Self::Bursts { size: 0, .. } => Err(Error::new("--burst", "must have a request, and has 0")),
            Self::Bursts { period_ns: 0, .. } => Err(Error::new("--burst", "must have a period above 0")),
            Self::Recorded { speed, .. } if !(speed > 0.0 && speed.is_finite()) => {
                Err(Error::new("--speed", format!("must be above 0 and finite, and is {speed}")))
            }
            Self::Paced { pace, law, .. } => pace.check().and_then(|()| law.check()),
            Self::Bursts { .. } | Self::Recorded { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schedule::law::tests::{KS_LIMIT, exponential_cdf, ks};

    const SECOND: Ns = 1_000_000_000;

    fn at_rate(rate: f64, law: Law) -> Shape {
        Shape::Paced { pace: Pace::Constant { rate }, law, seed: 0 }
    }

    #[test]
    fn a_constant_rate_never_drifts() {
        let offsets = at_rate(3.0, Law::Constant).offsets(&vec![0; 3_000_001]).unwrap();
        assert_eq!(offsets[..4], [0, 333_333_333, 666_666_667, SECOND]);
        assert_eq!(offsets[3_000_000], 1_000_000 * SECOND);
    }

    /// As they are sent: whole nanoseconds.
    #[test]
    fn a_poisson_schedule_passes_as_such() {
        let offsets = at_rate(2000.0, Law::Poisson).offsets(&vec![0; 20_000]).unwrap();
        let gaps = offsets.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e9);
        let distance = ks(gaps.collect(), |gap| exponential_cdf(gap * 2000.0));
        assert!(distance < KS_LIMIT, "{distance}");
    }

    /// Every schedule rests on these values.
    #[test]
    fn schedules_are_golden() {
        let poisson = at_rate(1000.0, Law::Poisson).offsets(&[0; 5]).unwrap();
        assert_eq!(poisson, [0, 354_230, 1_023_730, 1_152_740, 3_266_582]);
        let gamma = at_rate(1000.0, Law::Gamma { burstiness: 0.5 }).offsets(&[0; 5]).unwrap();
        assert_eq!(gamma, [0, 333_946, 336_189, 455_350, 1_779_567]);
    }

    #[test]
    fn bursts_come_at_their_period() {
        let shape = Shape::Bursts { size: 3, period_ns: SECOND };
        assert_eq!(shape.offsets(&[9; 7]).unwrap(), [0, 0, 0, SECOND, SECOND, SECOND, 2 * SECOND]);
    }

    #[test]
    fn a_recorded_schedule_is_the_tapes() {
        let tape = [5 * SECOND, 7 * SECOND, 6 * SECOND, 9 * SECOND];
        let shape = |speed, from_ns| Shape::Recorded { speed, from_ns };
        assert_eq!(shape(1.0, 0).offsets(&tape).unwrap(), [5, 7, 7, 9].map(|s| s * SECOND));
        assert_eq!(shape(4.0, 5 * SECOND).offsets(&tape).unwrap(), [0, SECOND / 2, SECOND / 2, SECOND]);
        // A speed of 1 keeps every nanosecond, up to a hundred days.
        let odd = [1, 12_345_678_901_234_567 / 2];
        assert_eq!(shape(1.0, 0).offsets(&odd).unwrap(), odd);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_flag() {
        let ramp = |from, to| Shape::Paced {
            pace: Pace::Linear { from, to, over_s: None },
            law: Law::Poisson,
            seed: 0,
        };
        for (shape, flag) in [
            (at_rate(0.0, Law::Poisson), "--rate"),
            (at_rate(f64::NAN, Law::Poisson), "--rate"),
            (at_rate(1.0, Law::Gamma { burstiness: -1.0 }), "--burstiness"),
            (ramp(-1.0, 2.0), "--ramp"),
            (ramp(1.0, 0.0), "--ramp"),
            (Shape::Bursts { size: 0, period_ns: 1 }, "--burst"),
            (Shape::Bursts { size: 1, period_ns: 0 }, "--burst"),
            (Shape::Recorded { speed: 0.0, from_ns: 0 }, "--speed"),
        ] {
            assert_eq!(shape.offsets(&[0]).unwrap_err().flag, flag);
        }
    }

    fn shape() -> impl Strategy<Value = Shape> {
        let law = prop_oneof![
            Just(Law::Constant),
            Just(Law::Poisson),
            (0.01..50.0f64).prop_map(|burstiness| Law::Gamma { burstiness }),
        ];
        let pace = prop_oneof![
            (0.01..1e5f64).prop_map(|rate| Pace::Constant { rate }),
            (0.0..1e4f64, 0.01..1e4f64, prop::option::of(0.1..1e4f64))
                .prop_map(|(from, to, over_s)| { Pace::Linear { from, to, over_s } }),
        ];
        prop_oneof![
            (1u32..50, 1..SECOND).prop_map(|(size, period_ns)| Shape::Bursts { size, period_ns }),
            (law, pace, any::<u64>()).prop_map(|(law, pace, seed)| Shape::Paced { pace, law, seed }),
            (0.01..100.0f64, 0..SECOND).prop_map(|(speed, from_ns)| Shape::Recorded { speed, from_ns }),
        ]
    }

    proptest! {
        #[test]
        fn each_request_has_a_time_and_none_overtakes(shape in shape(), tape in prop::collection::vec(0u64..1 << 50, 0..60)) {
            let offsets = shape.offsets(&tape).unwrap();
            prop_assert_eq!(offsets.len(), tape.len());
            prop_assert!(offsets.is_sorted());
            prop_assert_eq!(shape.offsets(&tape).unwrap(), offsets);
            // `run.json` gives the same schedule again.
            let again: Shape = serde_json::from_str(&serde_json::to_string(&shape).unwrap()).unwrap();
            prop_assert_eq!(again, shape);
        }
    }
}
