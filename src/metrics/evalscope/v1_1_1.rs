//! The figures of `evalscope perf` 1.1.1, from its database's rows.
//!
//! [`summarize`] is its running metrics (`evalscope/perf/utils/benchmark_util.py`), [`percentiles`] its percentile
//! table (`evalscope/perf/utils/db_util.py`). Seconds throughout.

use super::{Row, over_latency};
use crate::metrics::stats;

/// The figures of `benchmark_summary.json`, not yet rounded. `None` where the original still holds its initial -1.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// From the first send to the last completion, in seconds; 1 before the first record.
    pub time_taken: f64,
    /// All requests.
    pub total: usize,
    /// Those that succeeded.
    pub succeeded: usize,
    /// Those that failed.
    pub failed: usize,
    /// Output tokens a second, one record late.
    pub output_throughput: Option<f64>,
    /// Input and output tokens a second, one record late.
    pub total_throughput: Option<f64>,
    /// Requests a second, one record late.
    pub request_throughput: Option<f64>,
    /// Mean latency of the successes.
    pub latency: Option<f64>,
    /// Mean TTFT of the successes, zeros included.
    pub ttft: Option<f64>,
    /// Mean TPOT of the successes, zeros included.
    pub tpot: Option<f64>,
    /// Mean of all gaps.
    pub itl: Option<f64>,
    /// Mean prompt tokens.
    pub input_tokens: Option<f64>,
    /// Mean output tokens.
    pub output_tokens: Option<f64>,
}

/// The original's `BenchmarkMetrics`, fed one record after another, in the order of completion.
///
/// It computes the rates before it takes the record's own times into account, so the last record's tokens are
/// divided by a time that ends before it; a run of one request is divided by the initial 1.0 s. Averages that divide
/// by zero end the update where they stand.
#[must_use]
pub fn summarize(rows: &[Row]) -> Summary {
    let mut summary = Summary {
        time_taken: 1.0,
        total: rows.len(),
        succeeded: 0,
        failed: 0,
        output_throughput: None,
        total_throughput: None,
        request_throughput: None,
        latency: None,
        ttft: None,
        tpot: None,
        itl: None,
        input_tokens: None,
        output_tokens: None,
    };
    let mut totals = Totals::default();
    let mut window: Option<(f64, f64)> = None;
    for row in rows {
        if row.success {
            summary.succeeded += 1;
            totals.add(row);
        } else {
            summary.failed += 1;
        }
        totals.update(&mut summary);
        let (start, end) = window.map_or((row.start_time, row.completed_time), |(start, end)| {
            (start.min(row.start_time), end.max(row.completed_time))
        });
        window = Some((start, end));
        summary.time_taken = (end - start).max(0.0);
    }
    summary
}

/// The running sums, each from left to right.
#[derive(Default)]
struct Totals {
    prompt_tokens: u64,
    completion_tokens: u64,
    latency: f64,
    first_chunk: f64,
    per_output_token: f64,
    // Summing as the gaps arrive is Python's `sum` of all of them: from left to right.
    inter_chunk: f64,
    gaps: usize,
}

impl Totals {
    fn add(&mut self, row: &Row) {
        self.prompt_tokens += u64::from(row.prompt_tokens);
        self.completion_tokens += u64::from(row.completion_tokens);
        self.latency += row.latency;
        self.first_chunk += row.first_chunk_latency;
        self.per_output_token += row.time_per_output_token;
        for gap in &row.inter_chunk {
            self.inter_chunk += gap;
        }
        self.gaps += row.inter_chunk.len();
    }

    /// `calculate_averages`.
    fn update(&self, summary: &mut Summary) {
        if summary.succeeded == 0 {
            return;
        }
        let n = summary.succeeded as f64;
        summary.ttft = Some(self.first_chunk / n);
        summary.latency = Some(self.latency / n);
        summary.input_tokens = Some(self.prompt_tokens as f64 / n);
        summary.output_tokens = Some(self.completion_tokens as f64 / n);
        // The original divides by each of these two next; a zero ends its update here.
        if self.first_chunk == 0.0 || summary.time_taken == 0.0 {
            return;
        }
        summary.output_throughput = Some(self.completion_tokens as f64 / summary.time_taken);
        summary.total_throughput =
            Some((self.prompt_tokens + self.completion_tokens) as f64 / summary.time_taken);
        summary.tpot = Some(self.per_output_token / n);
        summary.itl = Some(if self.gaps > 0 { self.inter_chunk / self.gaps as f64 } else { 0.0 });
        summary.request_throughput = Some(n / summary.time_taken);
    }
}

/// The percentiles of the original's table.
pub const PERCENTILES: [u32; 10] = [10, 25, 50, 66, 75, 80, 90, 95, 98, 99];

/// One line of `benchmark_percentile.json`: each column is sorted by itself, so a line is not one request. Rounded
/// to 4 digits, as the original keeps them. NaN (for tokens: none) where there is no value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentile {
    /// Which percentile.
    pub p: u32,
    /// First event with choices, seconds.
    pub ttft: f64,
    /// Gaps, pooled, seconds.
    pub itl: f64,
    /// Time per output token, zeros included, seconds.
    pub tpot: f64,
    /// Latency, seconds.
    pub latency: f64,
    /// Prompt tokens.
    pub input_tokens: Option<u32>,
    /// Output tokens.
    pub output_tokens: Option<u32>,
    /// Output tokens over latency.
    pub output_rate: f64,
    /// Input and output tokens over latency.
    pub total_rate: f64,
}

/// The original's percentiles: the value at index `int(n * p / 100)` of the sorted successes, never interpolated.
/// (A rate over a latency of 0 is NaN; such values sort last here, where the original leaves them anywhere.)
#[must_use]
pub fn percentiles(rows: &[Row]) -> Vec<Percentile> {
    let succeeded = || rows.iter().filter(|row| row.success);
    let column = |value: fn(&Row) -> f64| stats::sorted(&succeeded().map(value).collect::<Vec<_>>());
    let counts = |value: fn(&Row) -> u32| {
        let mut values: Vec<u32> = succeeded().map(value).collect();
        values.sort_unstable();
        values
    };
    let ttft = column(|row| row.first_chunk_latency);
    let itl = stats::sorted(&succeeded().flat_map(|row| row.inter_chunk.iter().copied()).collect::<Vec<_>>());
    let tpot = column(|row| row.time_per_output_token);
    let latency = column(|row| row.latency);
    let input_tokens = counts(|row| row.prompt_tokens);
    let output_tokens = counts(|row| row.completion_tokens);
    let output_rate = column(|row| over_latency(row, u64::from(row.completion_tokens)));
    let total_rate =
        column(|row| over_latency(row, u64::from(row.prompt_tokens) + u64::from(row.completion_tokens)));

    let at = |values: &[f64], p| {
        let value = values.get(index(values.len(), p)).copied().unwrap_or(f64::NAN);
        stats::python_round(value, 4)
    };
    let count_at = |values: &[u32], p| values.get(index(values.len(), p)).copied();
    PERCENTILES
        .map(|p| Percentile {
            p,
            ttft: at(&ttft, p),
            itl: at(&itl, p),
            tpot: at(&tpot, p),
            latency: at(&latency, p),
            input_tokens: count_at(&input_tokens, p),
            output_tokens: count_at(&output_tokens, p),
            output_rate: at(&output_rate, p),
            total_rate: at(&total_rate, p),
        })
        .to_vec()
}

/// `int(n * p / 100)`.
fn index(n: usize, p: u32) -> usize {
    // In integers: the quotient in doubles, truncated, is the same for every count a run can have.
    n * p as usize / 100
}
