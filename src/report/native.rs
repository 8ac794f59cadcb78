//! The default report: tokentape's own figures as a table, or as JSON.

use std::fmt::Display;

use crate::metrics::Measurement;
use crate::metrics::native::{Distribution, Metrics, calculate};

/// The figures as JSON, indented, without a final line end. The keys are the field names of [`Metrics`].
pub(super) fn json(measurement: &Measurement<'_>) -> String {
    // A struct of numbers and fixed keys always serialises.
    serde_json::to_string_pretty(&calculate(measurement)).unwrap_or_default()
}

/// The figures as a table, with a final line end.
pub(super) fn table(measurement: &Measurement<'_>) -> String {
    let metrics = calculate(measurement);
    let sections = [
        requests(&metrics),
        throughput(&metrics),
        latencies(&metrics),
        tokens(&metrics),
    ];
    sections.join("\n")
}

fn line(label: &str, value: impl Display) -> String {
    format!("{label:<28}{value}\n")
}

fn requests(metrics: &Metrics) -> String {
    let requests = &metrics.requests;
    let mut text = line("Requests", requests.total);
    text += &line("  succeeded", requests.succeeded);
    text += &line("  failed", requests.failed);
    for (kind, count) in &requests.failed_by_kind {
        text += &line(&format!("    {kind}"), count);
    }
    for (label, count) in [
        ("  cancelled", requests.cancelled),
        ("  not sent", requests.not_sent),
    ] {
        if count > 0 {
            text += &line(label, count);
        }
    }
    text
}

fn throughput(metrics: &Metrics) -> String {
    let mut text = line("Measured window", format!("{:.3} s", metrics.window_s));
    if let Some(limit) = metrics.concurrency_limit {
        text += &line("Concurrency limit", limit);
    }
    if let Some(rate) = metrics.request_rate_per_s {
        text += &line("Request rate asked for", format!("{rate:.2} req/s"));
    }
    text += &line("Peak concurrency", metrics.peak_concurrency);
    text += &line(
        "Request throughput",
        format!("{:.2} req/s", metrics.request_throughput_per_s),
    );
    text += &line(
        "Output throughput",
        format!("{:.2} tok/s", metrics.output_throughput_tokens_per_s),
    );
    text += &line(
        "Total throughput",
        format!("{:.2} tok/s", metrics.total_throughput_tokens_per_s),
    );
    text
}

fn latencies(metrics: &Metrics) -> String {
    const COLUMNS: [&str; 8] = ["mean", "std", "p50", "p90", "p95", "p99", "p99.9", "max"];

    let rows: [(&str, &Distribution); 6] = [
        ("TTFT", &metrics.ttft_ms),
        ("  from scheduled", &metrics.ttft_from_scheduled_ms),
        ("ITL", &metrics.itl_ms),
        ("TPOT", &metrics.tpot_ms),
        ("E2EL", &metrics.e2el_ms),
        ("  from scheduled", &metrics.e2el_from_scheduled_ms),
    ];
    let mut text = format!("{:<18}{:>8}", "Latency (ms)", "count");
    for column in COLUMNS {
        text += &format!("{column:>11}");
    }
    text.push('\n');
    for (label, row) in rows {
        text += &format!("{label:<18}{:>8}", row.count);
        let decimals = decimals(row.p50);
        for value in [
            row.mean, row.std, row.p50, row.p90, row.p95, row.p99, row.p99_9, row.max,
        ] {
            if row.count > 0 {
                text += &format!("{value:>11.decimals$}");
            } else {
                text += &format!("{:>11}", "-");
            }
        }
        text.push('\n');
    }
    text
}

/// Decimals that leave the row's median three or four significant digits, and never less than a microsecond.
fn decimals(median_ms: f64) -> usize {
    match median_ms {
        ms if ms < 10.0 => 3,
        ms if ms < 100.0 => 2,
        ms if ms < 1000.0 => 1,
        _ => 0,
    }
}

fn tokens(metrics: &Metrics) -> String {
    let tokens = &metrics.tokens;
    let mut text = line("Input tokens", tokens.input);
    text += &line("Output tokens", tokens.output);
    if tokens.requests_without_usage > 0 {
        let note = format!(
            "{} requests without usage: their output events",
            tokens.requests_without_usage
        );
        text += &line("  counted by events", note);
    }
    text += &line("Output events", tokens.output_events);
    if tokens.merged_read_events > 0 {
        let share = format!(
            "{} ({:.2} %)",
            tokens.merged_read_events,
            tokens.merged_read_share * 100.0
        );
        text += &line("  sharing a socket read", share);
    }
    if tokens.silent_events > 0 {
        text += &line("Events with empty text", tokens.silent_events);
    }
    text
}
