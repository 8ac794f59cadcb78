//! How late the server is itself: from a token's deadline to the return of its write.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::truth::{EventKind, Record};

/// The longest lateness that is told from longer ones, in nanoseconds: an hour.
const MAX_NS: u64 = 3_600_000_000_000;

/// Three digits of each value are kept.
const DIGITS: u8 = 3;

/// How late the tokens (and bodies that are no streams, and recorded pieces) of the answers that have ended were written, in
/// microseconds after their deadlines. What was written up to [`tokentape_pacer::LEAD_NS`] early counts as 0, and answers with
/// [faults](crate::faults) do not count at all.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Lateness {
    /// How many there were.
    pub tokens: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Their median.
    pub p50_us: f64,
    /// Their 90th percentile.
    pub p90_us: f64,
    /// Their 99th percentile.
    pub p99_us: f64,
    /// Their 99.9th percentile.
    pub p999_us: f64,
    /// The greatest.
    pub max_us: f64,
    /// How many in each range, as pairs of its upper bound in microseconds and their number: 1, 2, 5, 10, and so on.
    /// Empty ranges are left out; the last has no bound, and says `null`.
    pub ranges: Vec<(Option<u64>, u64)>,
}

impl Lateness {
    /// The verdict: what to say where the 99th percentile is above a limit in nanoseconds.
    #[must_use]
    pub fn complaint(&self, limit_ns: u64) -> Option<String> {
        let limit_us = limit_ns as f64 / 1e3;
        (self.p99_us > limit_us).then(|| {
            format!(
                "the mock server was late: p99 of {} token writes {:.0} us after their deadlines, above --max-lateness \
                 {limit_us} us; figures measured against it contain that",
                self.tokens, self.p99_us
            )
        })
    }
}

/// Gathers lateness.
pub(crate) struct Meter(Mutex<Histogram<u64>>);

impl Default for Meter {
    #[expect(clippy::expect_used, reason = "the bounds are constants that a histogram takes")]
    fn default() -> Self {
        Self(Mutex::new(Histogram::new_with_max(MAX_NS, DIGITS).expect("bounds in order")))
    }
}

impl Meter {
    /// Takes in an answer that has ended.
    pub(crate) fn add(&self, record: &Record) {
        if !record.faults.is_empty() {
            return;
        }
        let mut histogram = self.lock();
        let events = record.events.iter().zip(&record.due_ns).zip(&record.written_ns);
        for ((kind, due_ns), written_ns) in events {
            // A piece that is due at once has no time to keep.
            let counts = match kind {
                EventKind::Body | EventKind::Token => true,
                EventKind::Piece => *due_ns > record.arrival_ns,
                _ => false,
            };
            if counts {
                histogram.saturating_record(written_ns.saturating_sub(*due_ns));
            }
        }
    }

    pub(crate) fn summary(&self) -> Lateness {
        let histogram = self.lock();
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Lateness {
            tokens: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(histogram.max()),
            ranges: ranges(&histogram),
        }
    }

    /// A count that was interrupted is a count all the same, so a poisoned lock is used.
    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

fn ranges(histogram: &Histogram<u64>) -> Vec<(Option<u64>, u64)> {
    let bounds_us = (0..7).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)));
    let mut before_ns = None;
    let mut ranges = Vec::new();
    for bound_us in bounds_us.map(Some).chain([None]) {
        let high_ns = bound_us.map_or(u64::MAX, |us| us * 1000);
        let low_ns = before_ns.map_or(0, |ns: u64| ns + 1);
        let count: u64 = histogram
            .iter_recorded()
            .map(|value| (value.value_iterated_to(), value.count_since_last_iteration()))
            .filter(|(ns, _)| (low_ns..=high_ns).contains(ns))
            .map(|(_, count)| count)
            .sum();
        if count > 0 {
            ranges.push((bound_us, count));
        }
        before_ns = Some(high_ns);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(late_ns: &[u64]) -> Record {
        Record {
            events: [EventKind::Role].into_iter().chain(late_ns.iter().map(|_| EventKind::Token)).collect(),
            due_ns: vec![1_000_000; late_ns.len() + 1],
            written_ns: [1_000_000_000].into_iter().chain(late_ns.iter().map(|ns| 1_000_000 + ns)).collect(),
            ..Record::empty()
        }
    }

    #[test]
    fn tokens_count_and_nothing_else() {
        let meter = Meter::default();
        meter.add(&record(&[1_000, 3_000, 3_000, 40_000_000]));
        meter.add(&Record { written_ns: vec![0, 999_000], ..record(&[0]) });
        meter.add(&Record { faults: vec!["crlf".to_owned()], ..record(&[5_000]) });
        let lateness = meter.summary();
        assert_eq!(lateness.tokens, 5);
        // Three digits.
        assert!((lateness.p50_us - 3.0).abs() <= 0.003, "{}", lateness.p50_us);
        assert!((lateness.max_us - 40_000.0).abs() <= 40.0, "{}", lateness.max_us);
        assert_eq!(lateness.ranges, [(Some(1), 2), (Some(5), 2), (Some(50_000), 1)]);
    }

    #[test]
    fn late_is_above_the_limit() {
        let meter = Meter::default();
        assert_eq!(meter.summary().complaint(0), None);
        meter.add(&record(&[700_000]));
        assert_eq!(meter.summary().complaint(1_000_000), None);
        let complaint = meter.summary().complaint(500_000).unwrap();
        assert!(complaint.contains("p99 of 1 token writes 700 us after their deadlines"), "{complaint}");
        assert!(complaint.contains("above --max-lateness 500 us"), "{complaint}");
    }
}
