//! The figures of `evalscope perf` 1.14.1, from its database's rows.
//!
//! [`summarize`] is its `MetricsAccumulator` (`evalscope/perf/utils/benchmark_util.py`), [`percentiles`] its
//! `get_percentile_results` (`evalscope/perf/utils/db_util.py`). Its figures for conversations of several turns are
//! not here: a timeline has none.

use super::{Row, over_latency};
use crate::metrics::stats;

/// The figures of `benchmark_summary.json`, not yet rounded; times in seconds. `None` where the original writes -1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// From the first send to the last end, failures included; 1 where no request has both.
    pub duration: f64,
    /// All requests.
    pub total: usize,
    /// Those that succeeded.
    pub succeeded: usize,
    /// Those answered by a stream, failures included.
    pub streams: usize,
    /// Successes a second.
    pub request_throughput: Option<f64>,
    /// Mean latency of the successes.
    pub latency: Option<f64>,
    /// Mean prompt tokens.
    pub input_tokens: Option<f64>,
    /// Mean output tokens.
    pub output_tokens: Option<f64>,
    /// Output tokens a second.
    pub output_throughput: Option<f64>,
    /// Input and output tokens a second.
    pub total_throughput: Option<f64>,
    /// Mean TTFT of the streams, zeros included; of all successes where there was no stream.
    pub ttft: Option<f64>,
    /// Mean TPOT of the streams of more than one token; of all successes where there was no stream.
    pub tpot: Option<f64>,
    /// Mean of all gaps; 0 where there was none.
    pub itl: f64,
    /// Percent of the prompts' tokens that came from the server's cache, over the requests whose server said so.
    pub cache_hit_percent: Option<f64>,
    /// Mean output tokens a decode step, over the requests with more than one.
    pub decoded_per_step: Option<f64>,
    /// `--enable-pd-metrics`: each where it could be computed.
    pub handoff: Handoff,
}

impl Summary {
    /// Those that failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.total - self.succeeded
    }

    /// The share of drafted tokens that must have been accepted for so many tokens a step: `1 - 1 / L`.
    #[must_use]
    pub fn accept_rate(&self) -> Option<f64> {
        self.decoded_per_step.map(|tokens| (1.0 - 1.0 / tokens).clamp(0.0, 1.0))
    }
}

/// What `--enable-pd-metrics` adds for servers that hand a request from a prefill to a decode machine. Seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Handoff {
    /// Mean of all gaps but each request's first.
    pub steady_itl: Option<f64>,
    /// Mean of each request's first gap.
    pub latency: Option<f64>,
    /// Mean of what each request's first gap took longer than the median of its others.
    pub overhead: Option<f64>,
}

/// The original's summary of one run's rows; `handoff` is its `--enable-pd-metrics`.
#[must_use]
pub fn summarize(rows: &[Row], handoff: bool) -> Summary {
    let mut totals = Totals::default();
    for row in rows.iter().filter(|row| row.success) {
        totals.add(row);
    }
    // A record whose end is before its start has no place in the window.
    let timed = || rows.iter().filter(|row| row.completed_time >= row.start_time);
    let start = timed().map(|row| row.start_time).reduce(f64::min);
    let end = timed().map(|row| row.completed_time).reduce(f64::max);
    let duration = start.zip(end).map_or(1.0, |(start, end)| (end - start).max(0.0));

    let n = totals.succeeded;
    let rate = |count: f64| over(count, duration);
    let tokens = totals.prompt_tokens + totals.completion_tokens;
    let (ttft, tpot) = if totals.streams > 0 {
        let tpot = over(totals.stream_tpot, totals.streams_of_several_tokens as f64);
        (over(totals.stream_ttft, totals.streams as f64), Some(tpot.unwrap_or(0.0)))
    } else {
        (over(totals.ttft, n as f64), over(totals.tpot, n as f64))
    };
    Summary {
        duration,
        total: rows.len(),
        succeeded: n,
        streams: rows.iter().filter(|row| row.stream).count(),
        request_throughput: rate(n as f64),
        latency: over(totals.latency, n as f64),
        input_tokens: over(totals.prompt_tokens as f64, n as f64),
        output_tokens: over(totals.completion_tokens as f64, n as f64),
        output_throughput: rate(totals.completion_tokens as f64),
        total_throughput: rate(tokens as f64),
        ttft,
        tpot,
        itl: over(totals.gap, totals.gaps as f64).unwrap_or(0.0),
        cache_hit_percent: over(totals.cached_tokens as f64 * 100.0, totals.prompt_tokens_of_cached as f64),
        decoded_per_step: over(totals.decoded_per_step, totals.steps_of_several_tokens as f64),
        handoff: if handoff { totals.handoff.means() } else { Handoff::default() },
    }
}

/// A quotient, where there is one.
fn over(numerator: f64, denominator: f64) -> Option<f64> {
    (denominator != 0.0).then(|| numerator / denominator)
}

/// The running sums over the successes, each from left to right.
#[derive(Default)]
struct Totals {
    succeeded: usize,
    prompt_tokens: u64,
    completion_tokens: u64,
    latency: f64,
    ttft: f64,
    tpot: f64,
    gap: f64,
    gaps: usize,
    streams: usize,
    stream_ttft: f64,
    stream_tpot: f64,
    streams_of_several_tokens: usize,
    cached_tokens: u64,
    prompt_tokens_of_cached: u64,
    decoded_per_step: f64,
    steps_of_several_tokens: usize,
    handoff: HandoffTotals,
}

impl Totals {
    fn add(&mut self, row: &Row) {
        self.succeeded += 1;
        self.prompt_tokens += u64::from(row.prompt_tokens);
        self.completion_tokens += u64::from(row.completion_tokens);
        self.latency += row.latency;
        self.ttft += row.first_chunk_latency;
        self.tpot += row.time_per_output_token;
        self.gap += left_to_right(&row.inter_chunk);
        self.gaps += row.inter_chunk.len();
        if row.stream {
            self.streams += 1;
            self.stream_ttft += row.first_chunk_latency;
            if row.completion_tokens > 1 {
                self.stream_tpot += row.time_per_output_token;
                self.streams_of_several_tokens += 1;
            }
        }
        if let Some(cached) = row.cached_tokens.filter(|_| row.prompt_tokens > 0) {
            self.cached_tokens += u64::from(cached);
            self.prompt_tokens_of_cached += u64::from(row.prompt_tokens);
        }
        if let Some(tokens) = decoded_per_step(row).filter(|&tokens| tokens > 1.0) {
            self.decoded_per_step += tokens;
            self.steps_of_several_tokens += 1;
        }
        self.handoff.add(&row.inter_chunk);
    }
}

/// `decoded_tokens_per_iter`: `(tokens - 1) / (chunks - 1)`. The gaps tell the chunks where nothing counted them.
fn decoded_per_step(row: &Row) -> Option<f64> {
    let chunks = match (row.decode_chunks as usize, row.inter_chunk.len()) {
        (0, 0) => 0,
        (0, gaps) => gaps + 1,
        (chunks, _) => chunks,
    };
    (row.completion_tokens > 1 && chunks > 1)
        .then(|| f64::from(row.completion_tokens - 1) / (chunks - 1) as f64)
}

#[derive(Default)]
struct HandoffTotals {
    steady: f64,
    steady_gaps: usize,
    first: f64,
    firsts: usize,
    overhead: f64,
    overheads: usize,
}

impl HandoffTotals {
    fn add(&mut self, gaps: &[f64]) {
        let Some((first, steady)) = gaps.split_first() else {
            return;
        };
        self.first += first;
        self.firsts += 1;
        if let Some(overhead) = handoff_overhead(gaps) {
            self.steady += left_to_right(steady);
            self.steady_gaps += steady.len();
            self.overhead += overhead;
            self.overheads += 1;
        }
    }

    fn means(&self) -> Handoff {
        Handoff {
            steady_itl: over(self.steady, self.steady_gaps as f64),
            latency: over(self.first, self.firsts as f64),
            overhead: over(self.overhead, self.overheads as f64),
        }
    }
}

/// What the first gap took longer than the median of the others (`statistics.median`), where there are others.
fn handoff_overhead(gaps: &[f64]) -> Option<f64> {
    let (first, steady) = gaps.split_first()?;
    (!steady.is_empty()).then(|| (first - stats::median(&stats::sorted(steady))).max(0.0))
}

/// `CPython` 3.11's `sum`.
fn left_to_right(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |sum, value| sum + value)
}

/// The lines of `benchmark_percentile.json`.
pub const PERCENTILES: [&str; 11] =
    ["min", "1%", "5%", "10%", "25%", "50%", "75%", "90%", "95%", "99%", "max"];

/// One column of the percentile table: a value for each of [`PERCENTILES`], rounded to 4 digits as the original keeps
/// it; NaN where there is no value.
pub type Column = [f64; PERCENTILES.len()];

/// The table of `benchmark_percentile.json`. Each column is sorted by itself, so a line is not one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Percentiles {
    /// Latency, seconds.
    pub latency: Column,
    /// First output of the streams, milliseconds.
    pub ttft: Column,
    /// Gaps, pooled, milliseconds.
    pub itl: Column,
    /// `--enable-pd-metrics`: gaps but each request's first, milliseconds.
    pub steady_itl: Option<Column>,
    /// `--enable-pd-metrics`: each request's first gap, milliseconds.
    pub handoff_latency: Option<Column>,
    /// `--enable-pd-metrics`: what the first gap took longer than the median of the others, milliseconds.
    pub handoff_overhead: Option<Column>,
    /// Time per output token of the streams that have one, milliseconds.
    pub tpot: Column,
    /// Prompt tokens.
    pub input_tokens: Column,
    /// Output tokens.
    pub output_tokens: Column,
    /// Output tokens over latency.
    pub output_rate: Column,
    /// Input and output tokens over latency.
    pub total_rate: Column,
    /// One over the time per output token.
    pub decode_rate: Column,
}

/// The original's percentiles of the successes: the nearest rank, `ceil(n * p / 100)`, never interpolated. `handoff` is
/// its `--enable-pd-metrics`.
#[must_use]
pub fn percentiles(rows: &[Row], handoff: bool) -> Percentiles {
    let succeeded: Vec<&Row> = rows.iter().filter(|row| row.success).collect();
    let streams: Vec<&Row> = succeeded.iter().copied().filter(|row| row.stream).collect();
    let any_stream = !streams.is_empty();
    let streaming = if any_stream { &streams } else { &succeeded };

    let of = |rows: &[&Row], value: &dyn Fn(&Row) -> f64| column(rows.iter().map(|row| value(row)));
    let gaps = || succeeded.iter().map(|row| row.inter_chunk.as_slice());
    let milliseconds = |values: Vec<f64>| column(values.into_iter().map(|seconds| seconds * 1000.0));
    let if_any = |values: Vec<f64>| (handoff && !values.is_empty()).then(|| milliseconds(values));
    let tokens = |row: &Row| u64::from(row.prompt_tokens) + u64::from(row.completion_tokens);
    Percentiles {
        latency: of(&succeeded, &|row| row.latency),
        ttft: of(streaming, &|row| row.first_chunk_latency * 1000.0),
        itl: milliseconds(gaps().flatten().copied().collect()),
        steady_itl: if_any(gaps().flat_map(|gaps| gaps.iter().skip(1)).copied().collect()),
        handoff_latency: if_any(gaps().filter_map(|gaps| gaps.first()).copied().collect()),
        handoff_overhead: if_any(gaps().filter_map(handoff_overhead).collect()),
        tpot: of(streaming, &|row| {
            let has_tpot = row.time_per_output_token > 0.0 || !any_stream;
            if has_tpot { row.time_per_output_token * 1000.0 } else { f64::NAN }
        }),
        input_tokens: of(&succeeded, &|row| f64::from(row.prompt_tokens)),
        output_tokens: of(&succeeded, &|row| f64::from(row.completion_tokens)),
        output_rate: of(&succeeded, &|row| over_latency(row, u64::from(row.completion_tokens))),
        total_rate: of(&succeeded, &|row| over_latency(row, tokens(row))),
        decode_rate: of(streaming, &|row| {
            if row.time_per_output_token > 0.0 { 1.0 / row.time_per_output_token } else { f64::NAN }
        }),
    }
}

/// The percentiles of the values that are numbers.
fn column(values: impl Iterator<Item = f64>) -> Column {
    let sorted = stats::sorted(&values.filter(|value| !value.is_nan()).collect::<Vec<_>>());
    [0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100].map(|p| {
        // In integers: the quotient in doubles, rounded up, is the same for every count a run can have.
        let rank = (sorted.len() * p).div_ceil(100);
        let value = sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN);
        stats::python_round(value, 4)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percentiles_are_values_in_order(values in prop::collection::vec(0.0..1e3f64, 1..300)) {
            let rounded: Vec<f64> = values.iter().map(|&value| stats::python_round(value, 4)).collect();
            let column = column(values.into_iter());
            prop_assert!(column.is_sorted());
            prop_assert!(column.iter().all(|value| rounded.contains(value)));
        }
    }

    #[test]
    fn no_values_have_no_percentiles() {
        assert!(column([f64::NAN].into_iter()).iter().all(|value| value.is_nan()));
    }
}
