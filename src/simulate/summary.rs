//! The native figures of a run of any length, without its timelines.
//!
//! Counts, means and largest values are exact. Percentiles and medians come from histograms with three significant
//! digits: each is within 0.1 % of the value at its rank, where those of the timelines lie between two values.

use hdrhistogram::Histogram;

use crate::metrics::native::{Distribution, Tally, Values};

/// The figures so far.
pub type Summary = Tally<Spread>;

/// One quantity in ns, of any number of values, in half a megabyte.
#[derive(Clone, Debug)]
pub struct Spread {
    histogram: Histogram<u64>,
    count: usize,
    /// Running mean, and sum of squared distances from it (Welford, Technometrics 4(3), 1962).
    mean: f64,
    squares: f64,
    max: f64,
}

impl Default for Spread {
    fn default() -> Self {
        // No time is too long for it; three digits are within what a histogram can have.
        let histogram = Histogram::new_with_max(u64::MAX >> 1, 3)
            .unwrap_or_else(|_| unreachable!("three significant digits are allowed"));
        Self { histogram, count: 0, mean: 0.0, squares: 0.0, max: 0.0 }
    }
}

impl Values for Spread {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time, from 0")]
    fn add(&mut self, ns: f64) {
        self.histogram.saturating_record(ns.round() as u64);
        self.count += 1;
        let distance = ns - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (ns - self.mean);
        self.max = self.max.max(ns);
    }

    fn distribution(self) -> Distribution {
        if self.count == 0 {
            return Distribution::default();
        }
        // The upper end of the bucket, which a single value must not exceed.
        let at = |quantile| (self.histogram.value_at_quantile(quantile) as f64).min(self.max) / 1e6;
        Distribution {
            count: self.count,
            mean: self.mean / 1e6,
            std: (self.squares / self.count as f64).sqrt() / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            max: self.max / 1e6,
        }
    }
}
