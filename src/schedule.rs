//! When each request is sent: pure arrival processes.
//!
//! A schedule is one delay for each request, in seconds from the run's start, in the order in which requests are sent.
//! [`vllm`] and [`evalscope`] make those of the peers' clients, bit for bit where numpy's floats come from glibc;
//! [`offset_ns`] is how a tape holds them. What becomes of a request that is due while all slots are taken is the
//! replay's matter.

pub mod evalscope;
pub mod vllm;

/// Why there is no schedule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{flag} {reason}")]
pub struct Error {
    /// The parameter, as the peer's flag.
    pub flag: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Error {
    fn new(flag: &'static str, reason: impl Into<String>) -> Self {
        Self { flag, reason: reason.into() }
    }
}

/// A delay in seconds as whole nanoseconds, rounded to the nearest. What is no time (below zero, not a number) is 0.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, which is what is meant"
)]
pub fn offset_ns(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// Turns gaps into times: each the sum of all up to it, from left to right, as numpy's `cumsum` adds.
fn accumulate(gaps: &mut [f64]) {
    let mut at = 0.0;
    for gap in gaps {
        at += *gap;
        *gap = at;
    }
}

/// Stretches times so that the last is `total`, where it is not zero.
fn stretch(times: &mut [f64], total: f64) {
    if let Some(&last) = times.last().filter(|&&last| last != 0.0) {
        let factor = total / last;
        for time in times {
            *time *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_delay_is_rounded_to_a_nanosecond() {
        let cases = [(0.0, 0), (1.000_000_000_4, 1_000_000_000), (2.5e-9, 3), (-1.0, 0), (f64::NAN, 0)];
        for (seconds, ns) in cases {
            assert_eq!(offset_ns(seconds), ns, "{seconds}");
        }
        assert_eq!(offset_ns(f64::INFINITY), u64::MAX);
    }

    proptest! {
        #[test]
        fn stretched_times_keep_their_order_and_end_on_time(
            mut gaps in prop::collection::vec(1e-6..10.0f64, 1..50),
            total in 0.1..1e4f64,
        ) {
            accumulate(&mut gaps);
            stretch(&mut gaps, total);
            prop_assert!(gaps.is_sorted());
            prop_assert!((gaps[gaps.len() - 1] - total).abs() <= total * 1e-15);
        }
    }
}
