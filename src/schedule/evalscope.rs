//! The schedules of `evalscope perf`: 1.1.1 (`evalscope/perf/benchmark.py`, `get_requests`) and 1.14.1
//! (`evalscope/perf/core/strategies`).
//!
//! The gaps come from numpy's global generator after the data set has drawn from it, so the generator's state is an
//! input: make the requests first ([`compat::evalscope::run`](crate::generate::compat::evalscope::run)) and pass on
//! the same streams.

use super::{Error, accumulate, stretch};
use crate::generate::compat::evalscope::Streams;
use crate::metrics::evalscope::Version;

/// The delays of `n` requests, in seconds, at `rate` requests a second; without a rate all of them are due at once.
///
/// - 1.1.1 sleeps an exponential gap after each request that it hands over: the first is sent at once, and the times
///   here are those of a client that is never late. It draws one gap more than there are between requests.
/// - 1.14.1 plans the times of all requests, warm-up included, before the first, and stretches them so that the last
///   is sent at just `n / rate`. In an open loop the warm-up is a phase of its own, planned and waited for before the
///   rest: call this once for each.
///
/// In a closed loop a request that is due waits for a slot besides.
pub fn delays(
    version: Version,
    streams: &mut Streams,
    n: usize,
    rate: Option<f64>,
) -> Result<Vec<f64>, Error> {
    let Some(rate) = rate else {
        return Ok(vec![0.0; n]);
    };
    if !(rate > 0.0 && rate.is_finite()) {
        return Err(Error::new("--rate", format!("must be above 0 and finite, and is {rate}")));
    }
    let numpy = streams.numpy();
    let mut times: Vec<f64> = (0..n).map(|_| numpy.exponential(1.0 / rate)).collect();
    accumulate(&mut times);
    match version {
        Version::V1_1_1 => {
            times.insert(0, 0.0);
            times.truncate(n);
        }
        Version::V1_14_1 => stretch(&mut times, n as f64 / rate),
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What the clients' own functions slept (`fixtures/schedules/make_evalscope.py`).
    const GOLDEN: &str = include_str!("../../fixtures/schedules/evalscope.jsonl");

    #[test]
    fn delays_are_the_clients_bit_for_bit() {
        for line in GOLDEN.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let version: Version = serde_json::from_value(line["version"].clone()).unwrap();
            let mut streams = Streams::seeded(line["seed"].as_u64().unwrap().try_into().unwrap());
            let n = usize::try_from(line["requests"].as_u64().unwrap()).unwrap();
            let rate = line["rate"].as_f64().filter(|&rate| rate > 0.0);
            let delays = delays(version, &mut streams, n, rate).unwrap();
            let bits: Vec<String> = delays.iter().map(|time| format!("{:016x}", time.to_bits())).collect();
            assert_eq!(Value::from(bits), line["delays"], "{line}");
            assert_eq!(Value::from(streams.numpy().randint(0, 1 << 32)), line["next"], "{line}");
        }
        assert_eq!(GOLDEN.lines().count(), 8);
    }

    #[test]
    fn a_rate_is_a_number_above_zero() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = delays(Version::V1_14_1, &mut Streams::seeded(0), 1, Some(rate)).unwrap_err();
            assert_eq!(error.flag, "--rate");
        }
    }
}
