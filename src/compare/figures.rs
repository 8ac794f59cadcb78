//! The neutral figures under a dialect: the dialect's own functions, their results under neutral names.

use super::metric::{Figures, Latency, Metric, Statistic};
use super::subject::Sample;
use crate::metrics::evalscope::{self, Row, v1_1_1, v1_14_1};
use crate::metrics::native::{self, Distribution};
use crate::metrics::vllm::{self, Arrivals, Output, Settings, Stats};
use crate::metrics::{Dialect, Measurement};

/// The neutral figures of raw timelines, as a dialect defines them.
#[must_use]
pub fn of_timelines(measurement: &Measurement<'_>, dialect: Dialect) -> Figures {
    match dialect {
        Dialect::Native => of_native(&native::calculate(measurement)),
        Dialect::Vllm(version) => {
            let outputs = vllm::outputs(measurement, version, Arrivals::of(measurement), None);
            of_outputs(&outputs, version, measurement.duration_s())
        }
        Dialect::Evalscope(version) => of_rows(&evalscope::rows(measurement, version, None), version),
    }
}

/// The figures of what another tool saved of each request, under a dialect's statistics. What the samples do not
/// tell stays as the tool states it (`own`), where that needs no dialect, and is absent otherwise.
pub(super) fn of_samples(samples: &[Sample], own: &Figures, dialect: Dialect) -> Figures {
    let duration = own.get(Metric::Duration).unwrap_or(0.0);
    let mut figures = match dialect {
        // Over samples, native has nothing of its own but numpy's statistics.
        Dialect::Native => of_outputs(&outputs(samples), vllm::Version::V0_33_0, duration),
        Dialect::Vllm(version) => of_outputs(&outputs(samples), version, duration),
        Dialect::Evalscope(version) => of_rows(&rows(samples), version),
    };
    let succeeded = || samples.iter().filter(|sample| sample.success);
    if succeeded().any(|sample| sample.latency.is_none()) {
        for statistic in [Statistic::Mean, Statistic::Median, Statistic::P99, Statistic::Std] {
            figures.set(Metric::Latency(Latency::Tpot, statistic), None);
            figures.set(Metric::Latency(Latency::E2el, statistic), None);
        }
    }
    if succeeded().any(|sample| sample.start.is_none() || sample.latency.is_none()) {
        for metric in
            [Metric::Duration, Metric::RequestThroughput, Metric::OutputThroughput, Metric::TotalThroughput]
        {
            figures.set(metric, own.get(metric));
        }
    }
    figures
}

/// Samples as `vllm bench serve` holds requests.
fn outputs(samples: &[Sample]) -> Vec<Output<'static>> {
    let output = |sample: &Sample| Output {
        success: sample.success,
        ttft: sample.ttft,
        itl: sample.itl.clone(),
        latency: sample.latency.unwrap_or(0.0),
        output_tokens: sample.output_tokens,
        prompt_len: sample.input_tokens,
        start_time: sample.start.unwrap_or(0.0),
        ..Output::default()
    };
    samples.iter().map(output).collect()
}

/// Samples as `evalscope perf` holds requests: in the order of completion. What a sample does not say of its times is
/// made up in a way that leaves the other figures as they are; the figures that depend on it are dropped afterwards.
fn rows(samples: &[Sample]) -> Vec<Row> {
    let mut rows: Vec<Row> = samples.iter().map(row).collect();
    rows.sort_by(|a, b| a.completed_time.total_cmp(&b.completed_time));
    rows
}

fn row(sample: &Sample) -> Row {
    let start_time = sample.start.unwrap_or(0.0);
    // When a failure ended is not kept, nor what was no stream; the latter is rare.
    let mut row = Row { start_time, completed_time: start_time, stream: true, ..Row::default() };
    if sample.success {
        row.success = true;
        row.latency = sample.latency.unwrap_or_else(|| sample.ttft + sample.itl.iter().sum::<f64>());
        row.completed_time = start_time + row.latency;
        row.first_chunk_latency = sample.ttft;
        row.inter_chunk.clone_from(&sample.itl);
        row.prompt_tokens = sample.input_tokens;
        row.completion_tokens = sample.output_tokens;
        if sample.output_tokens > 1 {
            row.time_per_output_token =
                (row.latency - row.first_chunk_latency) / f64::from(sample.output_tokens - 1);
        }
    }
    row
}

fn of_native(metrics: &native::Metrics) -> Figures {
    let mut figures = Figures::default();
    let requests = &metrics.requests;
    figures.set(Metric::Duration, metrics.window_s);
    figures.set(Metric::Succeeded, requests.succeeded as f64);
    figures.set(Metric::Failed, (requests.total - requests.succeeded) as f64);
    figures.set(Metric::InputTokens, metrics.tokens.input as f64);
    figures.set(Metric::OutputTokens, metrics.tokens.output as f64);
    figures.set(Metric::RequestThroughput, metrics.request_throughput_per_s);
    figures.set(Metric::OutputThroughput, metrics.output_throughput_tokens_per_s);
    figures.set(Metric::TotalThroughput, metrics.total_throughput_tokens_per_s);
    for (latency, values) in [
        (Latency::Ttft, &metrics.ttft_ms),
        (Latency::Tpot, &metrics.tpot_ms),
        (Latency::Itl, &metrics.itl_ms),
        (Latency::E2el, &metrics.e2el_ms),
    ] {
        let Distribution { count, mean, std, p50, p99, .. } = *values;
        set_statistics(&mut figures, latency, (count > 0).then_some([mean, p50, p99, std]));
    }
    figures
}

fn of_outputs(outputs: &[Output<'_>], version: vllm::Version, duration: f64) -> Figures {
    let metrics = vllm::calculate(
        outputs,
        version,
        &Settings { duration, percentiles: &[99.0], ..Settings::default() },
    );
    let mut figures = Figures::default();
    figures.set(Metric::Duration, metrics.duration);
    figures.set(Metric::Succeeded, metrics.completed as f64);
    figures.set(Metric::Failed, (outputs.len() - metrics.completed) as f64);
    figures.set(Metric::InputTokens, metrics.total_input as f64);
    figures.set(Metric::OutputTokens, metrics.total_output as f64);
    figures.set(Metric::RequestThroughput, metrics.request_throughput);
    figures.set(Metric::OutputThroughput, metrics.output_throughput);
    figures.set(Metric::TotalThroughput, metrics.total_token_throughput);
    for (latency, stats) in [
        (Latency::Ttft, &metrics.ttft),
        (Latency::Tpot, &metrics.tpot),
        (Latency::Itl, &metrics.itl),
        (Latency::E2el, &metrics.e2el),
    ] {
        let Stats { mean_ms, median_ms, std_ms, ref percentiles_ms } = *stats;
        let p99 = percentiles_ms.first().map_or(0.0, |&(_, value)| value);
        set_statistics(&mut figures, latency, Some([mean_ms, median_ms, p99, std_ms]));
    }
    figures
}

/// Mean, median, p99 and standard deviation, in milliseconds.
fn set_statistics(figures: &mut Figures, latency: Latency, values: Option<[f64; 4]>) {
    let [mean, median, p99, std] = values.map_or([None; 4], |values| values.map(Some));
    figures.set(Metric::Latency(latency, Statistic::Mean), mean);
    figures.set(Metric::Latency(latency, Statistic::Median), median);
    figures.set(Metric::Latency(latency, Statistic::P99), p99);
    figures.set(Metric::Latency(latency, Statistic::Std), std);
}

fn of_rows(rows: &[Row], version: evalscope::Version) -> Figures {
    let mut figures = Figures::default();
    let succeeded = || rows.iter().filter(|row| row.success);
    let input: u64 = succeeded().map(|row| u64::from(row.prompt_tokens)).sum();
    let output: u64 = succeeded().map(|row| u64::from(row.completion_tokens)).sum();
    figures.set(Metric::Succeeded, succeeded().count() as f64);
    figures.set(Metric::Failed, (rows.len() - succeeded().count()) as f64);
    figures.set(Metric::InputTokens, input as f64);
    figures.set(Metric::OutputTokens, output as f64);
    match version {
        evalscope::Version::V1_1_1 => add_v1_1_1(&mut figures, rows),
        evalscope::Version::V1_14_1 => add_v1_14_1(&mut figures, rows),
    }
    figures
}

/// Sets statistics given in seconds.
fn set_seconds(figures: &mut Figures, statistic: Statistic, values: [(Latency, Option<f64>); 4]) {
    for (latency, seconds) in values {
        figures.set(Metric::Latency(latency, statistic), seconds.map(|seconds| seconds * 1000.0));
    }
}

fn add_v1_1_1(figures: &mut Figures, rows: &[Row]) {
    let summary = v1_1_1::summarize(rows);
    figures.set(Metric::Duration, summary.time_taken);
    figures.set(Metric::RequestThroughput, summary.request_throughput);
    figures.set(Metric::OutputThroughput, summary.output_throughput);
    figures.set(Metric::TotalThroughput, summary.total_throughput);
    let means = [
        (Latency::Ttft, summary.ttft),
        (Latency::Tpot, summary.tpot),
        (Latency::Itl, summary.itl),
        (Latency::E2el, summary.latency),
    ];
    set_seconds(figures, Statistic::Mean, means);
    for line in v1_1_1::percentiles(rows) {
        let statistic = match line.p {
            50 => Statistic::Median,
            99 => Statistic::P99,
            _ => continue,
        };
        let values = [
            (Latency::Ttft, Some(line.ttft)),
            (Latency::Tpot, Some(line.tpot)),
            (Latency::Itl, Some(line.itl)),
            (Latency::E2el, Some(line.latency)),
        ];
        set_seconds(figures, statistic, values);
    }
}

fn add_v1_14_1(figures: &mut Figures, rows: &[Row]) {
    let summary = v1_14_1::summarize(rows, false);
    figures.set(Metric::Duration, summary.duration);
    figures.set(Metric::RequestThroughput, summary.request_throughput);
    figures.set(Metric::OutputThroughput, summary.output_throughput);
    figures.set(Metric::TotalThroughput, summary.total_throughput);
    let means = [
        (Latency::Ttft, summary.ttft),
        (Latency::Tpot, summary.tpot),
        (Latency::Itl, Some(summary.itl)),
        (Latency::E2el, summary.latency),
    ];
    set_seconds(figures, Statistic::Mean, means);
    let percentiles = v1_14_1::percentiles(rows, false);
    for (label, statistic) in [("50%", Statistic::Median), ("99%", Statistic::P99)] {
        let Some(line) = v1_14_1::PERCENTILES.iter().position(|&known| known == label) else {
            continue;
        };
        // All in milliseconds but the latency.
        figures.set(Metric::Latency(Latency::Ttft, statistic), percentiles.ttft[line]);
        figures.set(Metric::Latency(Latency::Tpot, statistic), percentiles.tpot[line]);
        figures.set(Metric::Latency(Latency::Itl, statistic), percentiles.itl[line]);
        figures.set(Metric::Latency(Latency::E2el, statistic), percentiles.latency[line] * 1000.0);
    }
}
