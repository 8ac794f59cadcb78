//! Measured against true: a run's timelines held against a mock server's truth log. Pure.
//!
//! The server's record says when a request had arrived and when the write of each event returned; the client's says
//! when it sent the request and when the read of each event returned. Both are on one monotonic clock, so every
//! difference is the client's own error, the network's delay included.

pub mod oracle;

use std::collections::HashMap;
use std::hash::BuildHasher;

use tokentape_mock::truth::{EventKind, Record};

use crate::metrics::stats::{self, Numpy};
use crate::timeline::Timeline;

/// What a truth log says of one request, in ns of the monotonic clock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Truth {
    /// When the request's last byte had arrived.
    pub arrival_ns: u64,
    /// When the write of each token's event returned.
    pub tokens_ns: Vec<u64>,
    /// When the write of the last event returned.
    pub end_ns: u64,
}

impl Truth {
    /// What a truth log's record says.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let events = record.events.iter().zip(&record.written_ns);
        let tokens = events.filter(|(kind, _)| **kind == EventKind::Token);
        Self {
            arrival_ns: record.arrival_ns,
            tokens_ns: tokens.map(|(_, at)| *at).collect(),
            end_ns: record.written_ns.last().copied().unwrap_or(record.arrival_ns),
        }
    }
}

/// The truth of each response id.
#[must_use]
pub fn by_id(records: &[Record]) -> HashMap<String, Truth> {
    records.iter().map(|record| (record.id.clone(), Truth::of(record))).collect()
}

/// A run held against the truth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Check {
    /// TTFT: from dispatch to the first token; truly, from arrival to its write.
    pub ttft: Comparison,
    /// ITL: the gaps between tokens.
    pub itl: Comparison,
    /// TPOT: from the first token to the last, over the tokens after the first; of answers of two tokens or more.
    pub tpot: Comparison,
    /// E2EL: from dispatch to the last event; truly, from arrival to its write.
    pub e2el: Comparison,
    /// Successful requests that the truth log knows, token for token.
    pub matched: usize,
    /// Successful requests that it does not.
    pub unmatched: usize,
}

/// One metric, measured and true, over the same requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// What the client measured, in ns, in order.
    pub measured_ns: Vec<f64>,
    /// What was true, in ns, pairwise the same.
    pub true_ns: Vec<f64>,
}

impl Comparison {
    fn add(&mut self, measured: u64, truth: u64) {
        self.measured_ns.push(measured as f64);
        self.true_ns.push(truth as f64);
    }

    /// Mean measured value, in ns.
    #[must_use]
    pub fn measured_mean(&self) -> f64 {
        Numpy::FROM_2_3.mean(&self.measured_ns)
    }

    /// Mean true value, in ns.
    #[must_use]
    pub fn true_mean(&self) -> f64 {
        Numpy::FROM_2_3.mean(&self.true_ns)
    }

    /// Each value's error, measured less true, in ns.
    #[must_use]
    pub fn errors(&self) -> Vec<f64> {
        self.measured_ns.iter().zip(&self.true_ns).map(|(measured, truth)| measured - truth).collect()
    }

    /// The error of the mean, in ns: what a reader of the report is off by.
    #[must_use]
    pub fn error_of_mean(&self) -> f64 {
        self.measured_mean() - self.true_mean()
    }
}

/// Holds a run's timelines against the truth of each response id.
#[must_use]
pub fn check<S: BuildHasher>(timelines: &[Timeline], truths: &HashMap<String, Truth, S>) -> Check {
    let mut check = Check::default();
    for timeline in timelines.iter().filter(|timeline| timeline.outcome.is_success()) {
        let tokens: Vec<u64> =
            timeline.stamped_events().filter(|(_, facts)| facts.is_output()).map(|(at, _)| at).collect();
        let truth = timeline.response_id.as_ref().and_then(|id| truths.get(id));
        let Some(truth) = truth.filter(|truth| truth.tokens_ns.len() == tokens.len()) else {
            check.unmatched += 1;
            continue;
        };
        let (Some(first), Some(true_first), Some((last, _))) =
            (tokens.first(), truth.tokens_ns.first(), timeline.stamped_events().last())
        else {
            check.unmatched += 1;
            continue;
        };
        check.matched += 1;
        check.ttft.add(first - timeline.dispatched_ns, true_first - truth.arrival_ns);
        check.e2el.add(last - timeline.dispatched_ns, truth.end_ns - truth.arrival_ns);
        if let (Some(last), Some(true_last), gaps @ 1..) =
            (tokens.last(), truth.tokens_ns.last(), tokens.len() - 1)
        {
            check.tpot.measured_ns.push((last - first) as f64 / gaps as f64);
            check.tpot.true_ns.push((true_last - true_first) as f64 / gaps as f64);
        }
        for (measured, truth) in tokens.windows(2).zip(truth.tokens_ns.windows(2)) {
            check.itl.add(measured[1] - measured[0], truth[1] - truth[0]);
        }
    }
    check
}

impl Check {
    /// The comparison as a table: means in ms, errors in us.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::from(
            "                 measured        true   error of mean   error of one value (us)\n\
             metric         mean (ms)   mean (ms)            (us)        p50       p99       max\n",
        );
        for (name, comparison) in [("TTFT", &self.ttft), ("ITL", &self.itl), ("E2EL", &self.e2el)] {
            let sorted = stats::sorted(&comparison.errors());
            let at = |p: f64| stats::percentile(&sorted, p) / 1e3;
            table += &format!(
                "{name:<12} {:>11.3} {:>11.3} {:>+15.1} {:>+10.1} {:>+9.1} {:>+9.1}\n",
                comparison.measured_mean() / 1e6,
                comparison.true_mean() / 1e6,
                comparison.error_of_mean() / 1e3,
                at(50.0),
                at(99.0),
                at(100.0),
            );
        }
        let all = self.matched + self.unmatched;
        table + &format!("{} of {all} requests found in the truth log, token for token\n", self.matched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{Events, Facts, Outcome, Reads};

    fn timeline(id: &str, reads: &[u64]) -> Timeline {
        let token = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);
        let count = u32::try_from(reads.len()).unwrap();
        let mut facts = vec![token; reads.len() - 1];
        facts.push(Facts::DONE);
        Timeline {
            dispatched_ns: 100,
            reads: Reads { at_ns: reads.to_vec(), bytes: vec![1; reads.len()], ..Reads::default() },
            events: Events { read: (0..count).collect(), facts, ..Events::default() },
            outcome: Outcome::Success,
            response_id: Some(id.to_owned()),
            ..Timeline::default()
        }
    }

    #[test]
    fn errors_are_measured_less_true() {
        let truth = Truth { arrival_ns: 5000, tokens_ns: vec![6000, 7000], end_ns: 7100 };
        let truths = HashMap::from([("a".to_owned(), truth)]);
        let check = check(&[timeline("a", &[1110, 2130, 2240]), timeline("b", &[1, 2])], &truths);
        assert_eq!((check.matched, check.unmatched), (1, 1));
        assert_eq!(check.ttft.errors(), [10.0]);
        assert_eq!(check.itl.errors(), [20.0]);
        assert_eq!(check.e2el.errors(), [40.0]);
    }

    #[test]
    fn a_token_too_few_is_no_match() {
        let truth = Truth { arrival_ns: 0, tokens_ns: vec![1], end_ns: 2 };
        let truths = HashMap::from([("a".to_owned(), truth)]);
        assert_eq!(check(&[timeline("a", &[1110, 2130, 2240])], &truths).unmatched, 1);
    }
}
