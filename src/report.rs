//! A run's figures as text: each dialect's tables and JSON. Exporters are pure; they return what is to be written.

pub mod evalscope;
pub mod hlog;
mod native;
mod python;
pub mod vllm;

use std::fmt;

use self::vllm::{Metric, RunInfo};
use crate::metrics::vllm::{CountTokens, Goodput};
use crate::metrics::{Dialect, Measurement};

/// How to show the figures. The default is what each tool does unasked.
#[derive(Clone, Default)]
pub struct Options<'a> {
    /// Counts the tokens of a text where the server sent no usage.
    pub count_tokens: Option<CountTokens<'a>>,
    /// vLLM's dialects: what to show.
    pub vllm: VllmOptions,
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("vllm", &self.vllm)
            .finish_non_exhaustive()
    }
}

/// The flags of `vllm bench serve` that shape its table and its result file.
#[derive(Clone, Debug, PartialEq)]
pub struct VllmOptions {
    /// `--percentile-metrics`: the sections to show.
    pub metrics: Vec<Metric>,
    /// `--metric-percentiles`, from 0 to 100.
    pub percentiles: Vec<f64>,
    /// `--goodput`.
    pub goodput: Option<Goodput>,
    /// `--save-detailed`: the JSON keeps the arrays of each request.
    pub detailed: bool,
    /// What the result file says of the run itself.
    pub run: RunInfo,
}

impl Default for VllmOptions {
    fn default() -> Self {
        Self {
            metrics: vec![Metric::Ttft, Metric::Tpot, Metric::Itl],
            percentiles: vec![99.0],
            goodput: None,
            detailed: false,
            run: RunInfo::default(),
        }
    }
}

/// The dialect's tables, with a final line end.
#[must_use]
pub fn render(measurement: &Measurement<'_>, dialect: Dialect, options: &Options<'_>) -> String {
    match dialect {
        Dialect::Evalscope1_1_1 => evalscope::tables(measurement, options),
        Dialect::Native => native::table(measurement),
        Dialect::Vllm0_11_0 => vllm::table(measurement, options),
    }
}

/// The dialect's figures as JSON, without a final line end: for vLLM its result file, for evalscope its summary file
/// ([`evalscope::percentile_file`] is the other one), for `native` the keys that `docs/metrics.md` lists.
#[must_use]
pub fn json(measurement: &Measurement<'_>, dialect: Dialect, options: &Options<'_>) -> String {
    match dialect {
        Dialect::Evalscope1_1_1 => evalscope::json(measurement, options),
        Dialect::Native => native::json(measurement),
        Dialect::Vllm0_11_0 => vllm::json(measurement, options),
    }
}
