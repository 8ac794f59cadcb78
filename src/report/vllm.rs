//! The table and the result file of `vllm bench serve` (`vllm/benchmarks/serve.py`), each version's byte for byte.
//!
//! [`notes`] and [`table`] are what the tool prints after a run, [`result_json`] what it saves, [`file_name`] what it
//! calls the file. All are pure: what they say of the run itself is in [`RunInfo`].

mod file;
mod table;

use std::str::FromStr;

pub use self::file::{file_name, result_file};
pub use self::table::{console, notes_of};

use super::{Options, VllmOptions};
use crate::metrics::vllm::{
    Arrivals, Diffusion, Metrics, Output, Probes, Settings, SpecDecode, Stats, Version, calculate, outputs,
};
use crate::metrics::{CountTokens, Measurement, is_completion};
use crate::python;

/// A latency with a section of its own in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Metric {
    /// The wait for the concurrency limit, in runs that have one (from 0.30).
    ClientQueueTime,
    /// End-to-end latency.
    E2el,
    /// End-to-end latency and that wait, in runs that also have a finite request rate (from 0.30).
    E2elIncludingClientQueue,
    /// Inter-token latency.
    Itl,
    /// Time per output token.
    Tpot,
    /// Time to first token.
    Ttft,
}

impl Metric {
    /// In the order of the table, whatever the order they were asked for in.
    pub const ALL: [Metric; 6] = [
        Metric::Ttft,
        Metric::Tpot,
        Metric::Itl,
        Metric::E2el,
        Metric::ClientQueueTime,
        Metric::E2elIncludingClientQueue,
    ];

    /// The name in flags and keys.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Metric::ClientQueueTime => "client_queue_time",
            Metric::E2el => "e2el",
            Metric::E2elIncludingClientQueue => "e2el_including_client_queue",
            Metric::Itl => "itl",
            Metric::Tpot => "tpot",
            Metric::Ttft => "ttft",
        }
    }

    /// The name in the rows of the table.
    const fn name(self) -> &'static str {
        match self {
            Metric::ClientQueueTime => "Client Queue Time",
            Metric::E2el => "E2EL",
            Metric::E2elIncludingClientQueue => "E2EL incl. Client Queue",
            Metric::Itl => "ITL",
            Metric::Tpot => "TPOT",
            Metric::Ttft => "TTFT",
        }
    }

    /// The header of its section.
    const fn header(self) -> &'static str {
        match self {
            Metric::ClientQueueTime => "Client-side Queueing",
            Metric::E2el => "End-to-end Latency",
            Metric::E2elIncludingClientQueue => "Queue-inclusive End-to-end Latency",
            Metric::Itl => "Inter-token Latency",
            Metric::Tpot => "Time per Output Token (excl. 1st token)",
            Metric::Ttft => "Time to First Token",
        }
    }

    /// Its statistics, where the run has any.
    const fn of(self, metrics: &Metrics) -> Option<&Stats> {
        match self {
            Metric::ClientQueueTime => metrics.client_queue_time.as_ref(),
            Metric::E2el => Some(&metrics.e2el),
            Metric::E2elIncludingClientQueue => metrics.e2el_including_client_queue.as_ref(),
            Metric::Itl => Some(&metrics.itl),
            Metric::Tpot => Some(&metrics.tpot),
            Metric::Ttft => Some(&metrics.ttft),
        }
    }

    /// Whether it means nothing without a tokenizer.
    const fn needs_tokenizer(self) -> bool {
        matches!(self, Metric::Itl | Metric::Tpot | Metric::Ttft)
    }

    /// Whether the version has it.
    fn is_known_to(self, version: Version) -> bool {
        let queueing = matches!(self, Metric::ClientQueueTime | Metric::E2elIncludingClientQueue);
        !queueing || version.reports_queueing()
    }
}

/// A name that is no metric's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown metric {name:?}; known are {}", Metric::ALL.map(Metric::key).join(", "))]
pub struct UnknownMetric {
    /// The name that was asked for.
    pub name: String,
}

impl FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Metric::ALL
            .into_iter()
            .find(|metric| metric.key() == name)
            .ok_or_else(|| UnknownMetric { name: name.to_owned() })
    }
}

/// What the table and the result file say of the run itself, beyond its figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunInfo {
    /// When the run ended, `YYYYmmdd-HHMMSS`; `null` when not given, since a report reads no clock.
    pub date: Option<String>,
    /// `--backend`; where not given, `openai` for text completions and `openai-chat` for chat.
    pub backend: Option<String>,
    /// `--label`.
    pub label: Option<String>,
    /// `--model`.
    pub model: String,
    /// `--tokenizer`; the model where not given.
    pub tokenizer: Option<String>,
    /// `--skip-tokenizer-init` (from 0.17): no figures that need a tokenizer, and a reply without usage counts as one
    /// token.
    pub skip_tokenizer_init: bool,
    /// `--num-prompts`; the number of requests where not given.
    pub num_prompts: Option<u64>,
    /// `--metadata`, its pairs in order, without the white space around keys and values.
    pub metadata: Vec<(String, String)>,
    /// `--burstiness`; 1 where not given.
    pub burstiness: Option<f64>,
    /// `--ramp-up-strategy` and what belongs to it.
    pub ramp_up: Option<RampUp>,
    /// `--self-timed`: a trace's own times, with a request rate of `inf`.
    pub self_timed: bool,
    /// Speculative decoding, where the server's counters show any.
    pub spec_decode: Option<SpecDecode>,
    /// Diffusion decoding, where the server's counters show any.
    pub diffusion: Option<Diffusion>,
    /// The probes, where there were any.
    pub probes: Option<Probes>,
}

impl RunInfo {
    fn arrivals(&self, measurement: &Measurement<'_>) -> Arrivals {
        // The request rate of these runs is `inf`, and yet each request has its time.
        if self.ramp_up.is_some() || self.self_timed {
            Arrivals::Scheduled
        } else {
            Arrivals::of(measurement)
        }
    }

    /// Whether the figures that need a tokenizer are shown.
    fn has_tokenizer(&self, version: Version) -> bool {
        !(self.skip_tokenizer_init && version.knows_audio())
    }
}

/// A request rate that rises during the run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RampUp {
    /// `linear` or `exponential`.
    pub strategy: String,
    /// `--ramp-up-start-rps`.
    pub start_rps: i64,
    /// `--ramp-up-end-rps`.
    pub end_rps: i64,
    /// Each whole rate that was reached, and when: local time as Python's `isoformat` writes it.
    pub changes: Vec<(i64, String)>,
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
    /// What a measurement tells.
    #[must_use]
    pub fn of(measurement: &Measurement<'_>) -> Self {
        Self {
            completions: measurement.timelines.iter().any(is_completion),
            concurrency: measurement.concurrency,
            request_rate: measurement.request_rate,
        }
    }

    /// `--request-rate` as Python writes it.
    fn rate(self) -> String {
        self.request_rate.map_or_else(|| "inf".to_owned(), python::float)
    }

    fn backend(self, run: &RunInfo) -> &str {
        let told = if self.completions { "openai" } else { "openai-chat" };
        run.backend.as_deref().unwrap_or(told)
    }
}

/// The table that the version prints at a run's end, with a final line end.
#[must_use]
pub fn table(version: Version, measurement: &Measurement<'_>, options: &Options<'_>) -> String {
    let (_, metrics) = compute(version, measurement, options);
    console(version, &metrics, Traffic::of(measurement), &options.vllm)
}

/// What the version prints between the run and the table, with a final line end: from 0.14 on the first ten errors, and
/// where a request succeeded a tip about plots.
#[must_use]
pub fn notes(version: Version, measurement: &Measurement<'_>, options: &Options<'_>) -> String {
    let (outputs, _) = compute(version, measurement, options);
    notes_of(version, &outputs)
}

/// The result file that the version saves (`--save-result`), one line of JSON without a line end, as the original has
/// none. `--append-result` writes a line end before it into a file that is not empty.
#[must_use]
pub fn result_json(version: Version, measurement: &Measurement<'_>, options: &Options<'_>) -> String {
    let (outputs, metrics) = compute(version, measurement, options);
    result_file(version, &metrics, &outputs, Traffic::of(measurement), &options.vllm)
}

fn compute<'a>(
    version: Version,
    measurement: &Measurement<'a>,
    options: &Options<'_>,
) -> (Vec<Output<'a>>, Metrics) {
    let VllmOptions { percentiles, goodput, run, .. } = &options.vllm;
    // Without a tokenizer, the original counts a reply without usage as one token.
    let one: CountTokens<'_> = &|_| 1;
    let count = if run.has_tokenizer(version) { options.count_tokens } else { Some(one) };
    let outputs = outputs(measurement, version, run.arrivals(measurement), count);
    let metrics = calculate(&outputs, version, &Settings::of(measurement, percentiles, *goodput));
    (outputs, metrics)
}

/// The sections asked for, with their statistics, in the table's own order.
fn sections<'a>(
    version: Version,
    metrics: &'a Metrics,
    options: &'a VllmOptions,
) -> impl Iterator<Item = (Metric, &'a Stats)> {
    let tokenizer = options.run.has_tokenizer(version);
    Metric::ALL
        .into_iter()
        .filter(|metric| options.metrics.contains(metric))
        .filter(move |metric| metric.is_known_to(version) && (tokenizer || !metric.needs_tokenizer()))
        .filter_map(|metric| Some((metric, metric.of(metrics)?)))
}

/// `99`, `99.9`.
fn percentile_word(p: f64) -> String {
    if p.fract() == 0.0 { format!("{p:.0}") } else { python::float(p) }
}
