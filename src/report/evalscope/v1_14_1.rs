//! The tables and files of one run of `evalscope perf` 1.14.1 (`evalscope/perf/utils/perf_models.py`,
//! `workload_timeline.py`), byte for byte. The report on a sweep is beside it.

pub(super) mod sweep;

use super::tabulate;
use crate::metrics::evalscope::v1_14_1::{Column, PERCENTILES, Percentiles, Summary};
use crate::metrics::evalscope::workload::{self, Rates, Throughput, Workload};
use crate::metrics::stats::python_round;
use crate::python::Json;

/// How a run sent, as the summary repeats it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// The concurrency limit; none in an open loop.
    pub concurrency: Option<u32>,
    /// The requests a second asked for; none where they were sent as fast as the limit let them.
    pub request_rate: Option<f64>,
}

/// The figures of `benchmark_summary.json` as they stand in it (`BenchmarkSummary`): times in milliseconds but for the
/// duration and the latency, rounded, -1 (or -1000 ms) for what there is not.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    traffic: Traffic,
    duration: f64,
    total: usize,
    succeeded: usize,
    streams: usize,
    request_throughput: f64,
    latency: f64,
    input_tokens: f64,
    output_throughput: f64,
    total_throughput: f64,
    ttft: f64,
    tpot: f64,
    itl: f64,
    steady_itl: Option<f64>,
    handoff_latency: Option<f64>,
    handoff_overhead: Option<f64>,
    output_tokens: f64,
    cache_hit_percent: Option<f64>,
    decoded_per_step: Option<f64>,
    accept_rate: Option<f64>,
}

impl Sheet {
    pub(super) fn new(summary: &Summary, traffic: Traffic) -> Self {
        let round = |x: f64| python_round(x, 4);
        let figure = |x: Option<f64>| round(x.unwrap_or(-1.0));
        let milliseconds = |x: f64| python_round(x * 1000.0, 2);
        Self {
            traffic,
            duration: round(summary.duration),
            total: summary.total,
            succeeded: summary.succeeded,
            streams: summary.streams,
            request_throughput: figure(summary.request_throughput),
            latency: figure(summary.latency),
            input_tokens: figure(summary.input_tokens),
            output_throughput: figure(summary.output_throughput),
            total_throughput: figure(summary.total_throughput),
            ttft: milliseconds(summary.ttft.unwrap_or(-1.0)),
            tpot: milliseconds(summary.tpot.unwrap_or(-1.0)),
            itl: milliseconds(summary.itl),
            steady_itl: summary.handoff.steady_itl.map(milliseconds),
            handoff_latency: summary.handoff.latency.map(milliseconds),
            handoff_overhead: summary.handoff.overhead.map(milliseconds),
            output_tokens: figure(summary.output_tokens),
            cache_hit_percent: summary.cache_hit_percent.map(round),
            decoded_per_step: summary.decoded_per_step.map(round),
            accept_rate: summary.accept_rate().map(round),
        }
    }

    fn concurrency(&self) -> i64 {
        self.traffic.concurrency.map_or(-1, i64::from)
    }

    fn request_rate(&self) -> f64 {
        self.traffic.request_rate.unwrap_or(-1.0)
    }

    fn success_percent(&self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        python_round(self.succeeded as f64 / self.total as f64 * 100.0, 1)
    }
}

/// `benchmark_summary.json`, without a final line end.
#[must_use]
pub fn summary_file(summary: &Summary, traffic: Traffic) -> String {
    let sheet = Sheet::new(summary, traffic);
    let fields: [(&'static str, Option<Json>); 23] = [
        ("Test Duration (s)", Some(sheet.duration.into())),
        ("Concurrency", Some(sheet.concurrency().into())),
        ("Request Rate (req/s)", Some(sheet.request_rate().into())),
        ("Total Requests", Some(sheet.total.into())),
        ("Success Requests", Some(sheet.succeeded.into())),
        ("Failed Requests", Some((sheet.total - sheet.succeeded).into())),
        ("Stream Requests", Some(sheet.streams.into())),
        ("Non-Stream Requests", Some((sheet.total - sheet.streams).into())),
        ("Req Throughput (req/s)", Some(sheet.request_throughput.into())),
        ("Avg Latency (s)", Some(sheet.latency.into())),
        ("Avg Input Tokens", Some(sheet.input_tokens.into())),
        ("Output Throughput (tok/s)", Some(sheet.output_throughput.into())),
        ("Total Throughput (tok/s)", Some(sheet.total_throughput.into())),
        ("Avg TTFT (ms)", Some(sheet.ttft.into())),
        ("Avg TPOT (ms)", Some(sheet.tpot.into())),
        ("Avg ITL (ms)", Some(sheet.itl.into())),
        ("Avg Steady ITL (ms)", sheet.steady_itl.map(Json::from)),
        ("Avg PD Handoff Latency (ms)", sheet.handoff_latency.map(Json::from)),
        ("Avg PD Handoff Overhead (ms)", sheet.handoff_overhead.map(Json::from)),
        ("Avg Output Tokens", Some(sheet.output_tokens.into())),
        // For embeddings; written, and 0, for everything else too.
        ("Input Throughput (tok/s)", Some(0.0.into())),
        ("KV Cache Hit Rate (%)", sheet.cache_hit_percent.map(Json::from)),
        ("Avg Decoded Tok/Iter", sheet.decoded_per_step.map(Json::from)),
    ];
    let accept = ("Spec. Accept Rate", sheet.accept_rate.map(Json::from));
    let fields = fields.into_iter().chain([accept]);
    Json::object(fields.filter_map(|(key, value)| value.map(|value| (key, value)))).dumps_indented()
}

/// The percentile table's columns, in order, with the decimals that tables show of each.
fn columns(percentiles: &Percentiles) -> impl Iterator<Item = (&'static str, usize, &Column)> {
    let p = percentiles;
    let columns: [(&str, usize, Option<&Column>); 12] = [
        ("Latency (s)", 3, Some(&p.latency)),
        ("TTFT (ms)", 2, Some(&p.ttft)),
        ("ITL (ms)", 2, Some(&p.itl)),
        ("Steady ITL (ms)", 2, p.steady_itl.as_ref()),
        ("PD Handoff Latency (ms)", 2, p.handoff_latency.as_ref()),
        ("PD Handoff Overhead (ms)", 2, p.handoff_overhead.as_ref()),
        ("TPOT (ms)", 2, Some(&p.tpot)),
        ("Input tokens", 0, Some(&p.input_tokens)),
        ("Output tokens", 0, Some(&p.output_tokens)),
        ("Output (tok/s)", 2, Some(&p.output_rate)),
        ("Total (tok/s)", 2, Some(&p.total_rate)),
        ("Decode (tok/s)", 2, Some(&p.decode_rate)),
    ];
    columns.into_iter().filter_map(|(name, decimals, column)| column.map(|column| (name, decimals, column)))
}

/// `benchmark_percentile.json`, without a final line end.
#[must_use]
pub fn percentile_file(percentiles: &Percentiles) -> String {
    let lines = PERCENTILES.iter().enumerate().map(|(i, label)| {
        let values = columns(percentiles).map(|(name, _, column)| (name, Json::Float(column[i])));
        Json::object(std::iter::once(("Percentiles", Json::from(*label))).chain(values))
    });
    Json::list(lines).dumps_indented()
}

/// One figure of a window.
type Rate = fn(&Rates) -> f64;

/// The lines of the throughput tables: their names, and the figure of each.
const RATES: [(&str, Rate); 4] = [
    ("Total Prompt tok/s", |rates| rates.prompt),
    ("New Prompt tok/s", |rates| rates.new_prompt),
    ("Cached Prompt tok/s", |rates| rates.cached_prompt),
    ("Completion tok/s", |rates| rates.completion),
];

/// `workload_throughput.json`, without a final line end.
#[must_use]
pub fn throughput_file(throughput: &Throughput) -> String {
    let rows = RATES.map(|(name, rate)| {
        Json::object([
            ("metric", name.into()),
            ("overall", rate(&throughput.overall).into()),
            ("last_window", rate(&throughput.last_window).into()),
            ("steady_state", rate(&throughput.steady_state).into()),
        ])
    });
    Json::object([
        ("n_samples", throughput.samples.into()),
        ("wall_time_s", python_round(throughput.wall_time, 4).into()),
        ("last_window_s", workload::LAST_WINDOW_S.into()),
        ("warmup_frac", workload::WARMUP_SHARE.into()),
        ("rows", Json::list(rows)),
    ])
    .dumps_indented()
}

/// `workload_timeline.json`, without a final line end.
#[must_use]
pub fn timeline_file(workload: &Workload) -> String {
    let points = workload.points.iter().map(|point| {
        Json::object([
            ("t", python_round(point.t, 6).into()),
            ("cum_completion", point.completion.into()),
            ("cum_new_prompt", point.new_prompt.into()),
            ("cum_cached_prompt", point.cached_prompt.into()),
        ])
    });
    Json::object([("wall_start", workload.start.into()), ("points", Json::list(points))]).dumps_indented()
}

/// The summary as it is logged. Without a final line end.
#[must_use]
pub fn summary_table(summary: &Summary, traffic: Traffic) -> String {
    let sheet = Sheet::new(summary, traffic);
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    let if_any = |x: f64| Some(x).filter(|&x| x != 0.0);

    row("── General ──", String::new());
    row("Test Duration (s)", shown(sheet.duration, 2));
    row("Concurrency", sheet.concurrency().to_string());
    row("Request Rate (req/s)", shown(sheet.request_rate(), 2));
    let failed = sheet.total - sheet.succeeded;
    row("Total / Success / Failed", format!("{} / {} / {failed}", sheet.total, sheet.succeeded));
    let plain = sheet.total - sheet.streams;
    if sheet.streams > 0 && plain > 0 {
        row("Stream / Non-Stream", format!("{} / {plain}", sheet.streams));
    }
    row("Req Throughput (req/s)", shown(sheet.request_throughput, 2));

    row("── Latency ──", String::new());
    row("Avg Latency (s)", shown(sheet.latency, 3));
    for (name, value) in [
        ("Avg TTFT (ms)", if_any(sheet.ttft)),
        ("Avg TPOT (ms)", if_any(sheet.tpot)),
        ("Avg ITL (ms)", if_any(sheet.itl)),
        ("Avg Steady ITL (ms)", sheet.steady_itl),
        ("Avg PD Handoff Latency (ms)", sheet.handoff_latency),
        ("Avg PD Handoff Overhead (ms)", sheet.handoff_overhead),
    ] {
        if let Some(value) = value {
            row(name, shown(value, 2));
        }
    }

    row("── Tokens ──", String::new());
    row("Avg Input Tokens", shown(sheet.input_tokens, 1));
    for (name, value, decimals) in [
        ("Avg Output Tokens", sheet.output_tokens, 1),
        ("Output Throughput (tok/s)", sheet.output_throughput, 2),
        ("Total Throughput (tok/s)", sheet.total_throughput, 2),
    ] {
        if value != 0.0 {
            row(name, shown(value, decimals));
        }
    }

    if let Some(percent) = sheet.cache_hit_percent {
        row("── Multi-turn ──", String::new());
        row("KV Cache Hit Rate (%)", shown(percent, 1));
    }
    if let (Some(tokens), Some(rate)) = (sheet.decoded_per_step, sheet.accept_rate) {
        row("── Speculative Decoding ──", String::new());
        row("Avg Decoded Tok/Iter", shown(tokens, 2));
        row("Spec. Accept Rate", shown(rate * 100.0, 1));
    }
    tabulate::simple_outline(&["Metric", "Value"], &rows)
}

/// The percentiles as they are logged: a column each. Without a final line end.
#[must_use]
pub fn percentile_table(percentiles: &Percentiles) -> String {
    let headers: Vec<&str> = std::iter::once("Metric").chain(PERCENTILES).collect();
    let rows: Vec<Vec<String>> = columns(percentiles)
        .map(|(name, decimals, column)| {
            let values = column.iter().map(|&value| shown(value, decimals));
            std::iter::once(name.to_owned()).chain(values).collect()
        })
        .collect();
    tabulate::simple_outline(&headers, &rows)
}

const WINDOWS: [&str; 3] = ["Overall", "Last 30s", "Steady (drop 20%)"];

fn windows(throughput: &Throughput, rate: Rate) -> [String; 3] {
    [&throughput.overall, &throughput.last_window, &throughput.steady_state]
        .map(|rates| shown(rate(rates), 2))
}

/// The throughput as it is logged. Without a final line end.
#[must_use]
pub fn throughput_table(throughput: &Throughput) -> String {
    let headers: Vec<&str> = std::iter::once("Metric (tok/s)").chain(WINDOWS).collect();
    let rows = RATES.map(|(name, rate)| {
        std::iter::once(name.to_owned()).chain(windows(throughput, rate)).collect::<Vec<_>>()
    });
    tabulate::simple_outline(&headers, &rows)
}

/// A figure as the original's tables show it (`evalscope/metrics/semantics/formatting.py`): its shortest decimal form
/// rounded, ties towards plus infinity, without trailing zeros; a dash where there is no number.
fn shown(x: f64, decimals: usize) -> String {
    if !x.is_finite() {
        return "—".to_owned();
    }
    // The shortest decimal that reads back as `x`, never with an exponent.
    let text = format!("{}", x.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let kept: String = fraction.chars().chain(std::iter::repeat('0')).take(decimals).collect();
    let rest = fraction.get(decimals..).unwrap_or_default();
    let half_or_more = rest.starts_with(|digit: char| digit >= '5');
    let is_tie = rest.strip_prefix('5').is_some_and(|rest| rest.chars().all(|digit| digit == '0'));
    let mut digits: Vec<u8> = whole.bytes().chain(kept.bytes()).collect();
    if half_or_more && !(is_tie && x < 0.0) {
        increment(&mut digits);
    }
    let point = digits.len() - decimals;
    let whole = String::from_utf8_lossy(&digits[..point]);
    let fraction = String::from_utf8_lossy(&digits[point..]);
    let fraction = fraction.trim_end_matches('0');
    let number = if fraction.is_empty() { whole.into_owned() } else { format!("{whole}.{fraction}") };
    if x < 0.0 && number != "0" { format!("-{number}") } else { number }
}

/// Adds one to a number in decimal digits.
fn increment(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    digits.insert(0, b'1');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_rounded_towards_plus_infinity_in_decimal() {
        // The original's `format_perf_value`, and its own examples.
        for (x, decimals, text) in [
            (12.5, 0, "13"),
            (-0.5, 0, "0"),
            (-1.5, 0, "-1"),
            (-1.51, 0, "-2"),
            (1.005, 2, "1.01"),
            (90.0, 1, "90"),
            (0.0004, 3, "0"),
            (99.999, 2, "100"),
            (1e-7, 2, "0"),
            (1e22, 2, "10000000000000000000000"),
            (7.249_999_999_999_999, 1, "7.2"),
            (f64::NAN, 2, "—"),
        ] {
            assert_eq!(shown(x, decimals), text, "{x}");
        }
    }

    proptest! {
        #[test]
        fn a_number_shown_is_the_nearest_and_has_no_zeros_to_spare(
            x in prop_oneof![-1e7..1e7f64, -1.0..1.0f64],
            decimals in 0usize..5,
        ) {
            let text = shown(x, decimals);
            let unit = 10f64.powi(-i32::try_from(decimals).unwrap());
            let number: f64 = text.parse().unwrap();
            prop_assert!((number - x).abs() <= unit * 0.5 + x.abs() * 1e-12, "{} is shown as {}", x, text);
            prop_assert!(!text.contains('.') || !text.ends_with(['0', '.']), "{}", text);
        }
    }
}
