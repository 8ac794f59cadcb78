//! `calculate_metrics` (`vllm/benchmarks/serve.py`): the outputs of a run to its figures.

use super::{Output, Version};
use crate::metrics::Measurement;
use crate::metrics::stats::{self, Numpy};

/// Service level objectives, in milliseconds: a request is good when it meets each one that is set (`--goodput`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Goodput {
    /// Longest good TTFT.
    pub ttft_ms: Option<f64>,
    /// Longest good TPOT; a request of one token has a TPOT of 0.
    pub tpot_ms: Option<f64>,
    /// Longest good E2EL.
    pub e2el_ms: Option<f64>,
}

/// The figures of one run (`BenchmarkMetrics`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The run's duration, in seconds.
    pub duration: f64,
    /// Requests that succeeded.
    pub completed: usize,
    /// Requests that did not.
    pub failed: usize,
    /// Their prompts' tokens.
    pub total_input: u64,
    /// Their output tokens.
    pub total_output: u64,
    /// Completed requests a second.
    pub request_throughput: f64,
    /// Good requests a second, where objectives were set.
    pub request_goodput: Option<f64>,
    /// Output tokens a second.
    pub output_throughput: f64,
    /// Input and output tokens a second.
    pub total_token_throughput: f64,
    /// The most token events in one second, counted from the first send. (Events, not tokens.)
    pub max_output_tokens_per_s: f64,
    /// The most requests that touched one such second: at least the true peak concurrency, often far more.
    pub max_concurrent_requests: i64,
    /// Time to first token.
    pub ttft: Stats,
    /// `(latency - ttft) / (output tokens - 1)` of each request with more than one.
    pub tpot: Stats,
    /// Gaps between token events, pooled over all requests.
    pub itl: Stats,
    /// End-to-end latency.
    pub e2el: Stats,
    /// The wait for the concurrency limit, where there was one.
    pub client_queue_time: Option<Stats>,
    /// End-to-end latency and that wait, where there was a limit and a finite request rate.
    pub e2el_including_client_queue: Option<Stats>,
}

/// The statistics of one metric, in milliseconds; numpy's, all 0 where there is no value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// `np.mean`.
    pub mean_ms: f64,
    /// `np.median`.
    pub median_ms: f64,
    /// `np.std`: of the population.
    pub std_ms: f64,
    /// `np.percentile` of each percentile asked for.
    pub percentiles_ms: Vec<(f64, f64)>,
}

impl Stats {
    /// The statistics of values in seconds.
    #[must_use]
    pub fn of(seconds: &[f64], percentiles: &[f64], numpy: Numpy) -> Self {
        let sorted = stats::sorted(seconds);
        Self {
            mean_ms: numpy.mean(seconds) * 1000.0,
            median_ms: stats::median(&sorted) * 1000.0,
            std_ms: numpy.std(seconds) * 1000.0,
            percentiles_ms: percentiles
                .iter()
                .map(|&p| (p, stats::percentile(&sorted, p) * 1000.0))
                .collect(),
        }
    }
}

/// What the figures depend on beside the outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Settings<'a> {
    /// The run's duration, in seconds.
    pub duration: f64,
    /// `--max-concurrency`.
    pub concurrency: Option<u32>,
    /// `--request-rate`; none for `inf`.
    pub request_rate: Option<f64>,
    /// `--metric-percentiles`, from 0 to 100.
    pub percentiles: &'a [f64],
    /// `--goodput`.
    pub goodput: Option<Goodput>,
}

impl<'a> Settings<'a> {
    /// Those of a measurement.
    #[must_use]
    pub fn of(measurement: &Measurement<'_>, percentiles: &'a [f64], goodput: Option<Goodput>) -> Self {
        Self {
            duration: measurement.duration_s(),
            concurrency: measurement.concurrency,
            request_rate: measurement.request_rate,
            percentiles,
            goodput,
        }
    }
}

/// The original's `calculate_metrics`, and the queue's metrics of its `benchmark`, which every version gets here.
/// A duration of 0, which the original cannot divide by, gives rates of 0.
#[must_use]
pub fn calculate(outputs: &[Output<'_>], version: Version, settings: &Settings<'_>) -> Metrics {
    let succeeded = || outputs.iter().filter(|output| output.success);
    let completed = succeeded().count();
    let total_input: u64 = succeeded().map(|output| u64::from(output.prompt_len)).sum();
    let total_output: u64 = succeeded().map(|output| u64::from(output.output_tokens)).sum();
    let duration = settings.duration;
    let rate = |count: f64| if duration > 0.0 { count / duration } else { 0.0 };

    let ttfts: Vec<f64> = succeeded().map(|output| output.ttft).collect();
    let tpots: Vec<f64> = succeeded().filter_map(tpot).collect();
    let itls: Vec<f64> = succeeded().flat_map(|output| &output.itl).copied().collect();
    let e2els: Vec<f64> = succeeded().map(|output| output.latency).collect();
    let queued: Vec<f64> = succeeded().map(|output| output.client_queue_time).collect();
    let e2els_and_queue: Vec<f64> =
        succeeded().map(|output| output.latency + output.client_queue_time).collect();
    let good = |slo: Goodput| rate(succeeded().filter(|output| is_good(output, slo)).count() as f64);
    let peaks = peaks(outputs);
    let stats = |seconds: &[f64]| Stats::of(seconds, settings.percentiles, version.numpy());

    Metrics {
        duration,
        completed,
        failed: outputs.len() - completed,
        total_input,
        total_output,
        request_throughput: rate(completed as f64),
        request_goodput: settings.goodput.map(good),
        output_throughput: rate(total_output as f64),
        total_token_throughput: rate((total_input + total_output) as f64),
        max_output_tokens_per_s: peaks.tokens as f64,
        max_concurrent_requests: peaks.requests,
        ttft: stats(&ttfts),
        tpot: stats(&tpots),
        itl: stats(&itls),
        e2el: stats(&e2els),
        client_queue_time: settings.concurrency.map(|_| stats(&queued)),
        e2el_including_client_queue: settings
            .concurrency
            .and(settings.request_rate)
            .map(|_| stats(&e2els_and_queue)),
    }
}

/// The time per output token after the first, where there is more than one.
fn tpot(output: &Output<'_>) -> Option<f64> {
    (output.output_tokens > 1).then(|| (output.latency - output.ttft) / f64::from(output.output_tokens - 1))
}

fn is_good(output: &Output<'_>, slo: Goodput) -> bool {
    let meets = |slo_ms: Option<f64>, value: f64| slo_ms.is_none_or(|ms| ms / 1000.0 >= value);
    meets(slo.ttft_ms, output.ttft)
        && meets(slo.tpot_ms, tpot(output).unwrap_or(0.0))
        && meets(slo.e2el_ms, output.latency)
}

struct Peaks {
    tokens: usize,
    requests: i64,
}

/// The original's one-second buckets, counted from the first send; a request is in every second it touches, the last
/// one included. Counted without laying the buckets out, so that no timeline can ask for more memory than its events.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds of a run, from 0")]
fn peaks(outputs: &[Output<'_>]) -> Peaks {
    let succeeded = || outputs.iter().filter(|output| output.success);
    let first = succeeded().map(|output| output.start_time).fold(f64::INFINITY, f64::min);
    let second = |at: f64| (at - first) as u64;

    let mut tokens = Vec::new();
    let mut touched = Vec::new();
    for output in succeeded() {
        let mut at = output.start_time + output.ttft;
        tokens.push(second(at));
        for gap in &output.itl {
            at += gap;
            tokens.push(second(at));
        }
        touched.push((second(output.start_time), 1));
        touched.push((second(output.start_time + output.latency) + 1, -1));
    }
    tokens.sort_unstable();
    let most_tokens = tokens.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap_or(0);
    // In each second, those that have left go before those that come.
    touched.sort_unstable();
    let mut now = 0i64;
    let most_requests = touched.iter().map(|(_, change)| {
        now += change;
        now
    });
    Peaks { tokens: most_tokens, requests: most_requests.max().unwrap_or(0) }
}
