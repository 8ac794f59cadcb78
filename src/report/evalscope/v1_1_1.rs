//! The tables and files of `evalscope perf` 1.1.1 (`evalscope/perf/utils/db_util.py`, `rich_display.py`), byte for
//! byte.

use super::rich::{self, Align};
use super::tabulate;
use crate::metrics::evalscope::v1_1_1::{Percentile, Summary};
use crate::metrics::stats::python_round;
use crate::python::{self, Json};

/// The summary's lines, rounded to 4 digits. Without a limit the concurrency is -1, as later versions write it.
fn summary_lines(summary: &Summary, concurrency: Option<u32>) -> [(&'static str, Json); 14] {
    let round = |x: f64| Json::Float(python_round(x, 4));
    // What was never computed is still the integer -1.
    let figure = |x: Option<f64>| x.map_or(Json::Int(-1), round);
    [
        ("Time taken for tests (s)", round(summary.time_taken)),
        ("Number of concurrency", concurrency.map_or(Json::Int(-1), Json::from)),
        ("Total requests", summary.total.into()),
        ("Succeed requests", summary.succeeded.into()),
        ("Failed requests", summary.failed.into()),
        ("Output token throughput (tok/s)", figure(summary.output_throughput)),
        ("Total token throughput (tok/s)", figure(summary.total_throughput)),
        ("Request throughput (req/s)", figure(summary.request_throughput)),
        ("Average latency (s)", figure(summary.latency)),
        ("Average time to first token (s)", figure(summary.ttft)),
        ("Average time per output token (s)", figure(summary.tpot)),
        ("Average inter-token latency (s)", figure(summary.itl)),
        ("Average input tokens per request", figure(summary.input_tokens)),
        ("Average output tokens per request", figure(summary.output_tokens)),
    ]
}

/// The percentile table's columns, in order.
fn percentile_fields(line: &Percentile) -> [(&'static str, Json); 9] {
    let tokens = |count: Option<u32>| count.map_or(Json::Float(f64::NAN), Json::from);
    [
        ("Percentiles", format!("{}%", line.p).into()),
        ("TTFT (s)", line.ttft.into()),
        ("ITL (s)", line.itl.into()),
        ("TPOT (s)", line.tpot.into()),
        ("Latency (s)", line.latency.into()),
        ("Input tokens", tokens(line.input_tokens)),
        ("Output tokens", tokens(line.output_tokens)),
        ("Output (tok/s)", line.output_rate.into()),
        ("Total (tok/s)", line.total_rate.into()),
    ]
}

/// `benchmark_summary.json`, without a final line end.
#[must_use]
pub fn summary_file(summary: &Summary, concurrency: Option<u32>) -> String {
    Json::object(summary_lines(summary, concurrency)).dumps_indented()
}

/// `benchmark_percentile.json`, without a final line end.
#[must_use]
pub fn percentile_file(percentiles: &[Percentile]) -> String {
    Json::list(percentiles.iter().map(|line| Json::object(percentile_fields(line)))).dumps_indented()
}

/// The summary as it is logged. Without a final line end.
#[must_use]
pub fn summary_table(summary: &Summary, concurrency: Option<u32>) -> String {
    // One float makes the whole column floats, and tabulate writes those with `format(x, "g")`.
    let lines = summary_lines(summary, concurrency).map(|(key, value)| match value {
        Json::Float(x) => (key, python::general(x)),
        Json::Int(x) => (key, python::general(x as f64)),
        _ => (key, String::new()),
    });
    tabulate::grid(["Key", "Value"], &lines)
}

/// The percentiles as they are logged. Without a final line end.
#[must_use]
pub fn percentile_table(percentiles: &[Percentile]) -> String {
    let lines: Vec<_> = percentiles.iter().map(percentile_fields).collect();
    let Some(first) = lines.first() else {
        return String::new();
    };
    let headers = first.each_ref().map(|(header, _)| (*header).to_owned());
    let cells: Vec<_> = lines.iter().map(|line| line.each_ref().map(|(_, value)| cell(value))).collect();
    tabulate::pretty(headers, &cells)
}

/// `str(value)`.
fn cell(value: &Json) -> String {
    match value {
        Json::Float(x) if x.is_nan() => "nan".to_owned(),
        Json::Float(x) => python::float(*x),
        Json::Int(x) => x.to_string(),
        Json::Str(text) => text.clone(),
        _ => String::new(),
    }
}

/// What the report on a sweep says of one run: the figures as the files round them.
pub(super) struct Entry {
    concurrency: i64,
    request_throughput: f64,
    latency: f64,
    latency_p99: f64,
    output_throughput: f64,
    ttft: f64,
    ttft_p99: f64,
    tpot: f64,
    tpot_p99: f64,
    success_percent: f64,
    /// What it adds to the count of generated tokens. An integer where the mean is the original's initial -1.
    generated: Json,
    duration: f64,
}

impl Entry {
    pub(super) fn new(summary: &Summary, percentiles: &[Percentile], concurrency: Option<u32>) -> Self {
        let figure = |x: Option<f64>| x.map_or(-1.0, |x| python_round(x, 4));
        let p99 = |value: fn(&Percentile) -> f64| {
            percentiles.iter().find(|line| line.p == 99).map_or(f64::NAN, value)
        };
        let succeeded = summary.succeeded as f64;
        Self {
            concurrency: concurrency.map_or(-1, i64::from),
            request_throughput: figure(summary.request_throughput),
            latency: figure(summary.latency),
            latency_p99: p99(|line| line.latency),
            output_throughput: figure(summary.output_throughput),
            ttft: figure(summary.ttft),
            ttft_p99: p99(|line| line.ttft),
            tpot: figure(summary.tpot),
            tpot_p99: p99(|line| line.tpot),
            success_percent: succeeded / summary.total.max(1) as f64 * 100.0,
            generated: match summary.output_tokens {
                Some(tokens) => Json::Float(python_round(tokens, 4) * succeeded),
                None => Json::Int(0),
            },
            duration: python_round(summary.time_taken, 4),
        }
    }
}

/// The report after a sweep of more than one run (`print_summary`), with a final line end. Empty without a run.
pub(super) fn sweep_report(model: &str, entries: &[Entry]) -> String {
    let Some(last) = entries.last() else {
        return String::new();
    };
    let generated: f64 = entries.iter().map(|entry| float(&entry.generated)).sum();
    let all_integers = entries.iter().all(|entry| matches!(entry.generated, Json::Int(_)));
    let duration: f64 = entries.iter().map(|entry| entry.duration).sum();
    let tokens = if all_integers { "0".to_owned() } else { python::grouped(generated) };
    let mut basic = rich::Table::headless(60, [25, 35]);
    for (name, value) in [
        ("Model", model.to_owned()),
        ("Total Generated", format!("{tokens} tokens")),
        ("Total Test Time", format!("{} seconds", fixed(duration, 2))),
        ("Avg Output Rate", format!("{} tokens/sec", fixed(generated / duration, 2))),
    ] {
        basic.row([name.to_owned(), value]);
    }

    let mut detailed = rich::Table::new("Detailed Performance Metrics").wide(100, 60);
    for header in [
        "Conc.",
        "RPS",
        "Avg Lat.(s)",
        "P99 Lat.(s)",
        "Gen. toks/s",
        "Avg TTFT(s)",
        "P99 TTFT(s)",
        "Avg TPOT(s)",
        "P99 TPOT(s)",
        "Success Rate",
    ] {
        detailed.column(header, Align::Right);
    }
    for entry in entries {
        detailed.row([
            entry.concurrency.to_string(),
            fixed(entry.request_throughput, 2),
            fixed(entry.latency, 3),
            fixed(entry.latency_p99, 3),
            fixed(entry.output_throughput, 2),
            fixed(entry.ttft, 3),
            fixed(entry.ttft_p99, 3),
            fixed(entry.tpot, 3),
            fixed(entry.tpot_p99, 3),
            format!("{}%", fixed(entry.success_percent, 1)),
        ]);
    }

    // The best are told by the figures as shown, the first of equals.
    let shown = |value: &dyn Fn(&Entry) -> String| -> Vec<f64> {
        entries.iter().map(|entry| value(entry).parse().unwrap_or(f64::NAN)).collect()
    };
    let rates = shown(&|entry| fixed(entry.request_throughput, 2));
    let latencies = shown(&|entry| fixed(entry.latency, 3));
    let fastest = first_best(&rates, |rate, best| rate > best);
    let quickest = first_best(&latencies, |latency, best| latency < best);
    let mut best = rich::Table::headless(60, [20, 40]).titled("Best Performance Configuration").borderless();
    let at = |i: usize| entries[i].concurrency;
    let rate = fixed(entries[fastest].request_throughput, 2);
    best.row(["Highest RPS".to_owned(), format!("Concurrency {} ({rate} req/sec)", at(fastest))]);
    let latency = fixed(entries[quickest].latency, 3);
    best.row(["Lowest Latency".to_owned(), format!("Concurrency {} ({latency} seconds)", at(quickest))]);

    let mut advice = vec![if fastest == entries.len() - 1 {
        "The system seems not to have reached its performance bottleneck, try higher concurrency".to_owned()
    } else if fastest == 0 {
        "Consider lowering concurrency, current load may be too high".to_owned()
    } else {
        format!("Optimal concurrency range is around {}", at(fastest))
    }];
    if python_round(last.success_percent, 1) < 95.0 {
        advice.push(
            "Success rate is low at high concurrency, check system resources or reduce concurrency"
                .to_owned(),
        );
    }
    let advice: Vec<String> = advice.iter().map(|line| format!("• {line}\n")).collect();
    format!(
        "{}\nBasic Information:\n{}\n\n{}\n\n{}\nPerformance Recommendations:\n{}",
        rich::panel("Performance Test Summary Report", 60),
        basic.render(100),
        detailed.render(100),
        best.render(100),
        advice.concat(),
    )
}

/// The index of the first value that none beats.
fn first_best(values: &[f64], beats: impl Fn(f64, f64) -> bool) -> usize {
    let mut best = 0;
    for (i, &value) in values.iter().enumerate() {
        if beats(value, values[best]) {
            best = i;
        }
    }
    best
}

fn float(value: &Json) -> f64 {
    if let Json::Float(x) = value { *x } else { 0.0 }
}

/// `format(x, ".Nf")`.
fn fixed(x: f64, digits: usize) -> String {
    if x.is_nan() { "nan".to_owned() } else { format!("{x:.digits$}") }
}
