//! The table and the result file of `vllm bench serve` 0.11.0 (`vllm/benchmarks/serve.py`), byte for byte.

use std::fmt::Display;
use std::str::FromStr;

use super::{Options, VllmOptions};
use crate::metrics::vllm::{Metrics, Output, Stats, Version, calculate, outputs};
use crate::metrics::{Measurement, is_completion};
use crate::python::{self, Json};

/// The version whose table and file this writes.
const VERSION: Version = Version::V0_11_0;

/// A latency with a section of its own in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Metric {
    /// End-to-end latency.
    E2el,
    /// Inter-token latency.
    Itl,
    /// Time per output token.
    Tpot,
    /// Time to first token.
    Ttft,
}

impl Metric {
    /// In the order of the table, whatever the order they were asked for in.
    const ALL: [Metric; 4] = [Metric::Ttft, Metric::Tpot, Metric::Itl, Metric::E2el];

    /// The name in flags and keys.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Metric::E2el => "e2el",
            Metric::Itl => "itl",
            Metric::Tpot => "tpot",
            Metric::Ttft => "ttft",
        }
    }

    const fn header(self) -> &'static str {
        match self {
            Metric::E2el => "End-to-end Latency",
            Metric::Itl => "Inter-token Latency",
            Metric::Tpot => "Time per Output Token (excl. 1st token)",
            Metric::Ttft => "Time to First Token",
        }
    }

    const fn of(self, metrics: &Metrics) -> &Stats {
        match self {
            Metric::E2el => &metrics.e2el,
            Metric::Itl => &metrics.itl,
            Metric::Tpot => &metrics.tpot,
            Metric::Ttft => &metrics.ttft,
        }
    }
}

/// A name that is no metric's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown metric {0:?}; known are ttft, tpot, itl, e2el")]
pub struct UnknownMetric(String);

impl FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Metric::ALL
            .into_iter()
            .find(|metric| metric.key() == name)
            .ok_or_else(|| UnknownMetric(name.to_owned()))
    }
}

/// What the result file says of the run itself, beyond its figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunInfo {
    /// When the run ended, `YYYYmmdd-HHMMSS`; `null` when not given, since a report reads no clock.
    pub date: Option<String>,
    /// `--label`.
    pub label: Option<String>,
    /// `--model`.
    pub model: String,
    /// `--tokenizer`; the model where not given.
    pub tokenizer: Option<String>,
    /// `--metadata`, its pairs in order.
    pub metadata: Vec<(String, String)>,
    /// `--burstiness`; 1 where not given.
    pub burstiness: Option<f64>,
}

/// How the requests were sent: what the table and the file say beside the figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Text completions rather than chat.
    pub completions: bool,
    /// `--max-concurrency`.
    pub concurrency: Option<u32>,
    /// `--request-rate`; none for `inf`.
    pub request_rate: Option<f64>,
}

impl Traffic {
    fn of(measurement: &Measurement<'_>) -> Self {
        Self {
            completions: measurement.timelines.iter().any(is_completion),
            concurrency: measurement.concurrency,
            request_rate: measurement.request_rate,
        }
    }
}

pub(super) fn table(measurement: &Measurement<'_>, options: &Options<'_>) -> String {
    let (_, metrics) = compute(measurement, options);
    console(&metrics, Traffic::of(measurement), &options.vllm)
}

pub(super) fn json(measurement: &Measurement<'_>, options: &Options<'_>) -> String {
    let (outputs, metrics) = compute(measurement, options);
    result_file(&metrics, &outputs, Traffic::of(measurement), &options.vllm)
}

fn compute<'a>(measurement: &Measurement<'a>, options: &Options<'_>) -> (Vec<Output<'a>>, Metrics) {
    let outputs = outputs(measurement, VERSION, options.count_tokens);
    let VllmOptions { percentiles, goodput, .. } = &options.vllm;
    let metrics = calculate(&outputs, VERSION, measurement.duration_s(), percentiles, *goodput);
    (outputs, metrics)
}

/// The table that 0.11.0 prints, with a final line end. Its cells keep their trailing spaces.
#[must_use]
pub fn console(metrics: &Metrics, traffic: Traffic, options: &VllmOptions) -> String {
    let mut table = Table::default();
    table.banner(" Serving Benchmark Result ", '=');
    table.text("Successful requests:", metrics.completed);
    if let Some(concurrency) = traffic.concurrency {
        table.text("Maximum request concurrency:", concurrency);
    }
    if let Some(rate) = traffic.request_rate {
        table.figure("Request rate configured (RPS):", rate);
    }
    table.figure("Benchmark duration (s):", metrics.duration);
    table.text("Total input tokens:", metrics.total_input);
    table.text("Total generated tokens:", metrics.total_output);
    table.figure("Request throughput (req/s):", metrics.request_throughput);
    if let Some(goodput) = metrics.request_goodput {
        table.figure("Request goodput (req/s):", goodput);
    }
    table.figure("Output token throughput (tok/s):", metrics.output_throughput);
    table.figure("Peak output token throughput (tok/s):", metrics.max_output_tokens_per_s);
    table.figure("Peak concurrent requests:", metrics.max_concurrent_requests as f64);
    table.figure("Total Token throughput (tok/s):", metrics.total_token_throughput);
    for metric in sections(options) {
        let (stats, name) = (metric.of(metrics), metric.key().to_uppercase());
        table.banner(metric.header(), '-');
        table.figure(&format!("Mean {name} (ms):"), stats.mean_ms);
        table.figure(&format!("Median {name} (ms):"), stats.median_ms);
        for &(p, value) in &stats.percentiles_ms {
            table.figure(&format!("P{} {name} (ms):", percentile_word(p)), value);
        }
    }
    table.banner("", '=');
    table.0.join("\n") + "\n"
}

/// The sections asked for, in the table's own order.
fn sections(options: &VllmOptions) -> impl Iterator<Item = Metric> + '_ {
    Metric::ALL.into_iter().filter(|metric| options.metrics.contains(metric))
}

/// `99`, `99.9`.
fn percentile_word(p: f64) -> String {
    if p.fract() == 0.0 { format!("{p:.0}") } else { python::float(p) }
}

/// Lines of `{:<40} {:<10}`.
#[derive(Default)]
struct Table(Vec<String>);

impl Table {
    /// `{text:{fill}^50}`.
    fn banner(&mut self, text: &str, fill: char) {
        let gap = 50usize.saturating_sub(text.len());
        let side = |width| std::iter::repeat_n(fill, width).collect::<String>();
        self.0.push(side(gap / 2) + text + &side(gap - gap / 2));
    }

    fn text(&mut self, label: &str, value: impl Display) {
        self.0.push(format!("{label:<40} {value:<10}"));
    }

    fn figure(&mut self, label: &str, value: f64) {
        self.0.push(format!("{label:<40} {value:<10.2}"));
    }
}

/// The result file that 0.11.0 saves (`--save-result`, with the arrays of `--save-detailed` where asked for), without
/// a final line end, as the original has none.
#[must_use]
pub fn result_file(
    metrics: &Metrics,
    outputs: &[Output<'_>],
    traffic: Traffic,
    options: &VllmOptions,
) -> String {
    let run = &options.run;
    let backend = if traffic.completions { "openai" } else { "openai-chat" };
    let rate = traffic.request_rate.map_or(Json::from("inf"), Json::from);
    let mut file = Fields::default();
    file.add("date", Json::or_null(run.date.as_deref()));
    file.add("endpoint_type", backend);
    file.add("backend", backend);
    file.add("label", Json::or_null(run.label.as_deref()));
    file.add("model_id", run.model.as_str());
    file.add("tokenizer_id", run.tokenizer.as_ref().unwrap_or(&run.model).as_str());
    file.add("num_prompts", outputs.len());
    for (key, value) in &run.metadata {
        file.add(key, value.as_str());
    }
    file.add("request_rate", rate);
    file.add("burstiness", run.burstiness.unwrap_or(1.0));
    file.add("max_concurrency", Json::or_null(traffic.concurrency));
    file.add("duration", metrics.duration);
    file.add("completed", metrics.completed);
    file.add("total_input_tokens", metrics.total_input);
    file.add("total_output_tokens", metrics.total_output);
    file.add("request_throughput", metrics.request_throughput);
    file.add("request_goodput", Json::or_null(metrics.request_goodput));
    file.add("output_throughput", metrics.output_throughput);
    file.add("total_token_throughput", metrics.total_token_throughput);
    if options.detailed {
        let output_len = |output: &Output<'_>| if output.success { output.output_tokens } else { 0 };
        file.add("input_lens", Json::list(outputs.iter().map(|output| output.prompt_len)));
        file.add("output_lens", Json::list(outputs.iter().map(output_len)));
        file.add("ttfts", Json::list(outputs.iter().map(|output| output.ttft)));
        file.add("itls", Json::list(outputs.iter().map(|output| Json::list(output.itl.iter().copied()))));
        file.add("generated_texts", Json::list(outputs.iter().map(|output| &*output.generated_text)));
        file.add("errors", Json::list(outputs.iter().map(|output| &*output.error)));
    }
    file.add("max_output_tokens_per_s", metrics.max_output_tokens_per_s);
    file.add("max_concurrent_requests", metrics.max_concurrent_requests);
    for metric in sections(options) {
        let (stats, name) = (metric.of(metrics), metric.key());
        file.add(&format!("mean_{name}_ms"), stats.mean_ms);
        file.add(&format!("median_{name}_ms"), stats.median_ms);
        file.add(&format!("std_{name}_ms"), stats.std_ms);
        for &(p, value) in &stats.percentiles_ms {
            file.add(&format!("p{}_{name}_ms", percentile_word(p)), value);
        }
    }
    Json::Object(file.0).dumps()
}

/// The fields of an object, in order.
#[derive(Default)]
struct Fields(Vec<(String, Json)>);

impl Fields {
    fn add(&mut self, key: &str, value: impl Into<Json>) {
        self.0.push((key.to_owned(), value.into()));
    }
}
