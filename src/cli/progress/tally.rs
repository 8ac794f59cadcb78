//! The figures of a replay so far: counted where timelines are collected, read where they are drawn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::timeline::Timeline;

/// What the tally tells of itself. Counts are always those of now; the rest is told once after each look.
#[derive(Default)]
pub(super) struct Shared {
    done: AtomicU64,
    tokens: AtomicU64,
    wanted: AtomicBool,
    told: Mutex<Told>,
}

/// What is told once after each look.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// When the run started, as far as its first timelines tell; none before the first of them.
    pub(super) started: Option<Instant>,
    /// How many requests failed, by kind.
    pub(super) failed: BTreeMap<&'static str, u64>,
    pub(super) ttft: Option<Percentiles>,
    pub(super) itl: Option<Percentiles>,
    /// The 99th percentile of the time from schedule to send.
    pub(super) late: Option<Duration>,
    /// The 99th percentile of the time from the kernel's stamp to the read.
    pub(super) read_delay: Option<Duration>,
}

/// Percentiles of a latency.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Percentiles {
    pub(super) p50: Duration,
    pub(super) p90: Duration,
    pub(super) p99: Duration,
}

impl Shared {
    /// Requests that have ended, and the output events that they brought.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.tokens.load(Ordering::Relaxed))
    }

    /// What was told last; asks to be told anew.
    pub(super) fn told(&self) -> Told {
        self.wanted.store(true, Ordering::Relaxed);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counts timelines.
pub(super) struct Tally {
    shared: Arc<Shared>,
    started: Option<Instant>,
    failed: BTreeMap<&'static str, u64>,
    ttft: Values,
    itl: Values,
    late: Values,
    read_delay: Values,
}

impl Tally {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (ttft, itl, late, read_delay) = (Values::new(), Values::new(), Values::new(), Values::new());
        shared.wanted.store(true, Ordering::Relaxed);
        Self { shared, started: None, failed: BTreeMap::new(), ttft, itl, late, read_delay }
    }

    /// A request has ended.
    pub(super) fn ended(&mut self, timeline: &Timeline) {
        if self.started.is_none() {
            self.started = Instant::now().checked_sub(Duration::from_nanos(timeline.end_ns));
        }
        if timeline.outcome.is_failure() {
            *self.failed.entry(timeline.outcome.kind()).or_default() += 1;
        }
        let (mut last, mut tokens) = (None, 0);
        for (at, _) in timeline.stamped_events().filter(|(_, facts)| facts.is_output()) {
            let (values, since) = match last {
                None => (&mut self.ttft, timeline.dispatched_ns),
                Some(before) => (&mut self.itl, before),
            };
            values.add(at.saturating_sub(since));
            last = Some(at);
            tokens += 1;
        }
        self.late.add(timeline.dispatched_ns.saturating_sub(timeline.scheduled_ns));
        for late in &timeline.reads.late_ns {
            self.read_delay.add(u64::from(*late));
        }
        self.shared.done.fetch_add(1, Ordering::Relaxed);
        self.shared.tokens.fetch_add(tokens, Ordering::Relaxed);
        if self.shared.wanted.load(Ordering::Relaxed) {
            self.tell();
        }
    }

    /// Never waits: whoever looks at this very moment is told the next time.
    fn tell(&self) {
        let Ok(mut told) = self.shared.told.try_lock() else { return };
        *told = Told {
            started: self.started,
            failed: self.failed.clone(),
            ttft: self.ttft.percentiles(),
            itl: self.itl.percentiles(),
            late: self.late.at(0.99),
            read_delay: self.read_delay.at(0.99),
        };
        self.shared.wanted.store(false, Ordering::Relaxed);
    }
}

/// Times, from a microsecond to ten minutes, to two digits: a display needs no more.
struct Values(Option<Histogram<u32>>);

impl Values {
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 600_000_000, 2).ok())
    }

    fn add(&mut self, ns: u64) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(ns / 1000);
        }
    }

    fn at(&self, quantile: f64) -> Option<Duration> {
        let histogram = self.0.as_ref().filter(|histogram| !histogram.is_empty())?;
        Some(Duration::from_micros(histogram.value_at_quantile(quantile)))
    }

    fn percentiles(&self) -> Option<Percentiles> {
        Some(Percentiles { p50: self.at(0.5)?, p90: self.at(0.9)?, p99: self.at(0.99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{Events, Facts, Outcome, Reads};

    #[test]
    fn what_is_counted_is_told_after_a_look() {
        let token = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);
        let good = Timeline {
            dispatched_ns: 1_000_000,
            reads: Reads {
                at_ns: vec![21_000_000, 31_000_000],
                late_ns: vec![5000, 5000],
                bytes: vec![1; 2],
            },
            events: Events { read: vec![0, 1], facts: vec![token; 2], ..Events::default() },
            outcome: Outcome::Success,
            ..Timeline::default()
        };
        let bad = Timeline { outcome: Outcome::NoTokens, ..Timeline::default() };
        let shared = Arc::new(Shared::default());
        let mut tally = Tally::new(Arc::clone(&shared));
        assert!(shared.told().ttft.is_none());
        tally.ended(&good);
        tally.ended(&bad);
        let told = shared.told();
        assert!(told.failed.is_empty(), "told at the first one, and not asked since");
        let near = |found: Duration, ms: u64| {
            found.abs_diff(Duration::from_millis(ms)) < Duration::from_micros(ms * 10)
        };
        assert!(near(told.ttft.unwrap().p90, 20) && near(told.itl.unwrap().p50, 10), "{told:?}");
        assert_eq!(told.read_delay, Some(Duration::from_micros(5)));
        tally.ended(&bad);
        assert_eq!(shared.told().failed["no_tokens"], 2);
        assert_eq!(shared.counts(), (3, 2));
    }
}
