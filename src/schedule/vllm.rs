//! The schedule of `vllm bench serve` (0.11.0, 0.32.0 and 0.33.0: `vllm/benchmarks/serve.py`, `get_request`).
//!
//! The delays come from numpy's global generator, which `--seed` sets before the data set is made. `random`, `custom`
//! and `sharegpt` draw nothing from it, so with them the schedule begins at the seed's first draw. `prefix_repetition`
//! seeds it anew and draws its tokens from it first, and `timed_trace` brings its own times.
//!
//! The first request waits too: without a ramp-up the last of N is sent at just N / rate.

use super::{Error, accumulate, stretch};
use crate::generate::compat::NumpyLegacy;
use crate::metrics::vllm::Version;

/// How requests arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Requests a second (`--request-rate`); infinite sends all of them at once.
    pub rate: f64,
    /// Shape of the gamma distribution that the gaps are drawn from (`--burstiness`): 1 is a Poisson process, below
    /// that requests come in bursts, and from 0.32.0 on an infinite one makes all gaps equal.
    pub burstiness: f64,
    /// A rate that changes from request to request, in the place of `rate`.
    pub ramp_up: Option<RampUp>,
}

/// A rate that rises or falls with a request's index, not with time (`--ramp-up-strategy`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RampUp {
    /// Its course.
    pub strategy: Strategy,
    /// Requests a second at the first request (`--ramp-up-start-rps`).
    pub start_rps: f64,
    /// Requests a second at the last (`--ramp-up-end-rps`).
    pub end_rps: f64,
}

/// The course of a ramp-up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Strategy {
    /// By the same factor from one request to the next.
    Exponential,
    /// By the same difference.
    Linear,
}

/// The delays of `n` requests, in seconds, with the generator as `--seed` leaves it.
pub fn delays(version: Version, seed: u64, n: usize, arrival: &Arrival) -> Result<Vec<f64>, Error> {
    let seed = u32::try_from(seed)
        .map_err(|_| Error::new("--seed", format!("{seed} is more than numpy takes: 4294967295")))?;
    delays_from(version, &mut NumpyLegacy::new(seed), n, arrival)
}

/// As [`delays`], with the generator as a data set left it.
pub(crate) fn delays_from(
    version: Version,
    numpy: &mut NumpyLegacy,
    n: usize,
    arrival: &Arrival,
) -> Result<Vec<f64>, Error> {
    check(version, arrival)?;
    let mut delays = Vec::with_capacity(n);
    for index in 0..n {
        let rate = arrival.rate_at(index, n);
        delays.push(if rate.is_infinite() {
            0.0
        } else if arrival.burstiness.is_infinite() {
            1.0 / rate
        } else {
            numpy.gamma(arrival.burstiness, 1.0 / (rate * arrival.burstiness))
        });
    }
    accumulate(&mut delays);
    if arrival.ramp_up.is_none() {
        stretch(&mut delays, n as f64 / arrival.rate);
    }
    Ok(delays)
}

impl Arrival {
    /// Requests a second at request `index` of `n` (`_get_current_request_rate`).
    #[must_use]
    pub fn rate_at(&self, index: usize, n: usize) -> f64 {
        let Some(RampUp { strategy, start_rps, end_rps }) = self.ramp_up else {
            return self.rate;
        };
        let progress = index as f64 / n.saturating_sub(1).max(1) as f64;
        match strategy {
            Strategy::Exponential => start_rps * (end_rps / start_rps).powf(progress),
            Strategy::Linear => start_rps + (end_rps - start_rps) * progress,
        }
    }
}

fn check(version: Version, arrival: &Arrival) -> Result<(), Error> {
    let positive = |flag, x: f64| {
        if x > 0.0 { Ok(()) } else { Err(Error::new(flag, format!("must be above 0, and is {x}"))) }
    };
    positive("--request-rate", arrival.rate)?;
    positive("--burstiness", arrival.burstiness)?;
    if let Some(ramp_up) = &arrival.ramp_up {
        positive("--ramp-up-start-rps", ramp_up.start_rps)?;
        positive("--ramp-up-end-rps", ramp_up.end_rps)?;
    }
    if version == Version::V0_11_0 && arrival.burstiness.is_infinite() {
        return Err(Error::new(
            "--burstiness",
            "cannot be infinite in 0.11.0: it would send everything at once",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What the client's own function planned (`fixtures/schedules/make_vllm.py`).
    const GOLDEN: &str = include_str!("../../fixtures/schedules/vllm.jsonl");

    fn number(bits: &Value) -> f64 {
        f64::from_bits(u64::from_str_radix(bits.as_str().unwrap(), 16).unwrap())
    }

    fn bits(times: &[f64]) -> Vec<String> {
        times.iter().map(|time| format!("{:016x}", time.to_bits())).collect()
    }

    #[test]
    fn delays_are_the_clients_bit_for_bit() {
        for line in GOLDEN.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let ramp_up = line["ramp_up"].as_array().map(|ramp_up| RampUp {
                strategy: if ramp_up[0] == "linear" { Strategy::Linear } else { Strategy::Exponential },
                start_rps: ramp_up[1].as_f64().unwrap(),
                end_rps: ramp_up[2].as_f64().unwrap(),
            });
            let arrival =
                Arrival { rate: number(&line["rate"]), burstiness: number(&line["burstiness"]), ramp_up };
            let n = usize::try_from(line["requests"].as_u64().unwrap()).unwrap();
            for version in [Version::V0_11_0, Version::V0_32_0, Version::V0_33_0] {
                if version == Version::V0_11_0 && arrival.burstiness.is_infinite() {
                    continue;
                }
                let delays = delays(version, line["seed"].as_u64().unwrap(), n, &arrival).unwrap();
                assert_eq!(Value::from(bits(&delays)), line["delays"], "{line}");
            }
        }
        assert_eq!(GOLDEN.lines().count(), 10);
    }

    #[test]
    fn an_infinite_burstiness_makes_equal_gaps_from_0_32_on() {
        let arrival = Arrival { rate: 4.0, burstiness: f64::INFINITY, ramp_up: None };
        assert_eq!(delays(Version::V0_33_0, 0, 4, &arrival).unwrap(), [0.25, 0.5, 0.75, 1.0]);
        let message = delays(Version::V0_11_0, 0, 4, &arrival).unwrap_err().to_string();
        assert_eq!(message, "--burstiness cannot be infinite in 0.11.0: it would send everything at once");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_flag() {
        let good = Arrival { rate: 1.0, burstiness: 1.0, ramp_up: None };
        let ramp_up = Some(RampUp { strategy: Strategy::Linear, start_rps: 0.0, end_rps: 1.0 });
        for (arrival, flag) in [
            (Arrival { rate: 0.0, ..good }, "--request-rate"),
            (Arrival { rate: f64::NAN, ..good }, "--request-rate"),
            (Arrival { burstiness: -1.0, ..good }, "--burstiness"),
            (Arrival { ramp_up, ..good }, "--ramp-up-start-rps"),
        ] {
            assert_eq!(delays(Version::V0_33_0, 0, 1, &arrival).unwrap_err().flag, flag);
        }
        assert_eq!(delays(Version::V0_33_0, 1 << 32, 1, &good).unwrap_err().flag, "--seed");
    }
}
