//! The tables and files of `evalscope perf` 1.1.1 (`evalscope/perf/utils/db_util.py`), byte for byte. Its tables are
//! those of tabulate 0.10, layouts `grid` and `pretty`.

use super::Options;
use crate::metrics::Measurement;
use crate::metrics::evalscope::{Percentile, Summary, percentiles, rows, summarize};
use crate::metrics::stats::python_round;
use crate::python::{self, Json};

pub(super) fn tables(measurement: &Measurement<'_>, options: &Options<'_>) -> String {
    let rows = rows(measurement, options.count_tokens);
    let summary = summary_table(&summarize(&rows), measurement.concurrency);
    let percentiles = percentile_table(&percentiles(&rows));
    format!("Benchmarking summary:\n{summary}\n\nPercentile results:\n{percentiles}\n")
}

pub(super) fn json(measurement: &Measurement<'_>, options: &Options<'_>) -> String {
    summary_file(&summarize(&rows(measurement, options.count_tokens)), measurement.concurrency)
}

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
    object(summary_lines(summary, concurrency)).dumps_indented()
}

/// `benchmark_percentile.json`, without a final line end.
#[must_use]
pub fn percentile_file(percentiles: &[Percentile]) -> String {
    Json::list(percentiles.iter().map(|line| object(percentile_fields(line)))).dumps_indented()
}

fn object<const N: usize>(fields: [(&'static str, Json); N]) -> Json {
    Json::Object(fields.map(|(key, value)| (key.to_owned(), value)).to_vec())
}

/// The summary as it is logged: tabulate's `grid`. Without a final line end.
#[must_use]
pub fn summary_table(summary: &Summary, concurrency: Option<u32>) -> String {
    let lines = summary_lines(summary, concurrency);
    let keys: Vec<&str> = lines.iter().map(|(key, _)| *key).collect();
    // One float makes the whole column floats, and tabulate writes those with `format(x, "g")`.
    let values = align_decimals(lines.iter().map(|(_, value)| match value {
        Json::Float(x) => python::general(*x),
        Json::Int(x) => python::general(*x as f64),
        _ => String::new(),
    }));
    // tabulate keeps a column at least two wider than its header.
    let key_width = width(keys.iter().copied()).max("Key".len() + 2);
    let value_width = width(values.iter().map(String::as_str)).max("Value".len() + 2);
    let rule = |line: &str| {
        let fill = |width: usize| line.repeat(width + 2);
        format!("+{}+{}+", fill(key_width), fill(value_width))
    };
    let row = |key: &str, value: &str| format!("| {key:<key_width$} | {value:>value_width$} |");

    let mut table = vec![rule("-"), row("Key", "Value"), rule("=")];
    for (key, value) in keys.iter().zip(&values) {
        table.push(row(key, value));
        table.push(rule("-"));
    }
    table.join("\n")
}

/// Pads numbers on the right so that their decimal points stand below each other.
fn align_decimals(numbers: impl Iterator<Item = String>) -> Vec<String> {
    let numbers: Vec<String> = numbers.collect();
    // What follows the point; without one, what follows the `e`; an integer has one place less than none.
    let places = |number: &str| match number.rfind('.').or_else(|| number.rfind('e')) {
        Some(point) => number.len() - point,
        None => 0,
    };
    let most = numbers.iter().map(|number| places(number)).max().unwrap_or(0);
    numbers.into_iter().map(|number| format!("{number}{}", " ".repeat(most - places(&number)))).collect()
}

/// The percentiles as they are logged: tabulate's `pretty`, each cell centred. Without a final line end.
#[must_use]
pub fn percentile_table(percentiles: &[Percentile]) -> String {
    let lines: Vec<_> = percentiles.iter().map(percentile_fields).collect();
    let Some(first) = lines.first() else {
        return String::new();
    };
    let headers = first.each_ref().map(|(header, _)| (*header).to_owned());
    let cells = lines.iter().map(|line| line.each_ref().map(|(_, value)| cell(value)));
    let rows: Vec<[String; 9]> = std::iter::once(headers).chain(cells).collect();

    let widths: [usize; 9] = std::array::from_fn(|column| width(rows.iter().map(|row| row[column].as_str())));
    let rule = format!("+{}+", widths.map(|width| "-".repeat(width + 2)).join("+"));
    let line = |row: &[String; 9]| {
        let cells: [String; 9] = std::array::from_fn(|i| format!(" {:^1$} ", row[i], widths[i]));
        format!("|{}|", cells.join("|"))
    };
    let mut table = vec![rule.clone()];
    for (i, row) in rows.iter().enumerate() {
        table.push(line(row));
        if i == 0 {
            table.push(rule.clone());
        }
    }
    table.push(rule);
    table.join("\n")
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

fn width<'a>(cells: impl Iterator<Item = &'a str>) -> usize {
    cells.map(str::len).max().unwrap_or(0)
}
