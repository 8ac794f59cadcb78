//! The native figures of a run of any length, without its timelines.
//!
//! Counts, means and largest values are exact. Percentiles and medians come from histograms with three significant
//! digits, so they are within 0.1 % of those of the timelines.

use hdrhistogram::Histogram;

use super::{Flight, Report};
use crate::metrics::Dialect;
use crate::metrics::native::{Distribution, Firsts, Metrics, Requests, Tokens};
use crate::timeline::Ns;

/// The figures so far.
#[derive(Debug)]
pub struct Summary {
    input_tokens: u64,
    output_tokens: u64,
    /// Answers whose tokens the server would not have counted.
    without_usage: u64,
    output_events: u64,
    ttft: Spread,
    ttft_from_scheduled: Spread,
    itl: Spread,
    tpot: Spread,
    e2el: Spread,
    e2el_from_scheduled: Spread,
}

impl Summary {
    /// Of no request.
    #[must_use]
    pub fn new() -> Self {
        Self {
            input_tokens: 0,
            output_tokens: 0,
            without_usage: 0,
            output_events: 0,
            ttft: Spread::new(),
            ttft_from_scheduled: Spread::new(),
            itl: Spread::new(),
            tpot: Spread::new(),
            e2el: Spread::new(),
            e2el_from_scheduled: Spread::new(),
        }
    }

    /// Adds a request that has ended.
    pub fn add(&mut self, flight: &Flight) {
        let form = flight.item.form;
        let last = flight.end_ns();
        // What is no stream comes as a whole.
        let tokens_ns = if form.is_stream {
            &flight.tokens_ns[..]
        } else {
            &flight.tokens_ns[flight.tokens_ns.len() - 1..]
        };
        let first = tokens_ns.first().copied().unwrap_or(last);
        let count = flight.tokens_ns.len() as u64;
        self.input_tokens += u64::from(flight.item.prompt_tokens);
        self.output_tokens += count;
        self.without_usage += u64::from(form.is_stream && !form.has_usage);
        self.output_events += tokens_ns.len() as u64;
        self.ttft.add(first - flight.dispatched_ns);
        self.ttft_from_scheduled.add(first - flight.scheduled_ns);
        for pair in tokens_ns.windows(2) {
            self.itl.add(pair[1] - pair[0]);
        }
        if count > 1 {
            self.tpot.add_f64((last - first) as f64 / (count - 1) as f64);
        }
        self.e2el.add(last - flight.dispatched_ns);
        self.e2el_from_scheduled.add(last - flight.scheduled_ns);
    }

    /// The figures as a report has them.
    #[must_use]
    pub fn metrics(&self, report: &Report, concurrency: Option<u32>, rate: Option<f64>) -> Metrics {
        let window_s = report.duration_ns as f64 / 1e9;
        let rate_of = |count: u64| if window_s > 0.0 { count as f64 / window_s } else { 0.0 };
        Metrics {
            dialect: Dialect::Native.name(),
            requests: Requests {
                total: report.ended,
                succeeded: report.ended,
                attempts: report.ended,
                ..Requests::default()
            },
            window_s,
            concurrency_limit: concurrency,
            request_rate_per_s: rate,
            peak_concurrency: report.peak_concurrency,
            tokens: Tokens {
                input: self.input_tokens,
                output: self.output_tokens,
                requests_without_usage: self.without_usage,
                output_events: self.output_events,
                ..Tokens::default()
            },
            request_throughput_per_s: rate_of(report.ended),
            input_throughput_tokens_per_s: rate_of(self.input_tokens),
            output_throughput_tokens_per_s: rate_of(self.output_tokens),
            total_throughput_tokens_per_s: rate_of(self.input_tokens + self.output_tokens),
            ttft_from_last_attempt_ms: None,
            e2el_from_last_attempt_ms: None,
            first_ms: Firsts::default(),
            ttft_ms: self.ttft.distribution(),
            ttft_from_scheduled_ms: self.ttft_from_scheduled.distribution(),
            itl_ms: self.itl.distribution(),
            tpot_ms: self.tpot.distribution(),
            e2el_ms: self.e2el.distribution(),
            e2el_from_scheduled_ms: self.e2el_from_scheduled.distribution(),
        }
    }
}

impl Default for Summary {
    fn default() -> Self {
        Self::new()
    }
}

/// One quantity in ns, of any number of values.
#[derive(Debug)]
struct Spread {
    histogram: Histogram<u64>,
    count: usize,
    /// Running mean, and sum of squared distances from it (Welford, Technometrics 4(3), 1962).
    mean: f64,
    squares: f64,
    max: f64,
}

impl Spread {
    fn new() -> Self {
        // Half a megabyte, and no time is too long for it; three digits are within what a histogram can have.
        let histogram = Histogram::new_with_max(u64::MAX >> 1, 3)
            .unwrap_or_else(|_| unreachable!("three significant digits are allowed"));
        Self { histogram, count: 0, mean: 0.0, squares: 0.0, max: 0.0 }
    }

    fn add(&mut self, ns: Ns) {
        self.record(ns, ns as f64);
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time, from 0")]
    fn add_f64(&mut self, ns: f64) {
        self.record(ns.round() as u64, ns);
    }

    fn record(&mut self, bucket: u64, value: f64) {
        self.histogram.saturating_record(bucket);
        self.count += 1;
        let distance = value - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (value - self.mean);
        self.max = self.max.max(value);
    }

    fn distribution(&self) -> Distribution {
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
