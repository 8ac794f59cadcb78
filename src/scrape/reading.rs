//! One reading of a vLLM server's metrics, under the names of vLLM 0.6 to 0.32 (`vllm/v1/metrics/loggers.py`).

use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::text::{Sample, samples};

/// What `GET /metrics` told at one moment. Counters and histograms count from the server's start; all are summed over
/// their labels, of which the server has one set an engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Prompt tokens.
    pub prompt_tokens: f64,
    /// Generated tokens.
    pub generation_tokens: f64,
    /// Requests pushed out of the KV cache for lack of room, to be computed again.
    pub preemptions: f64,
    /// Prompt tokens that were looked up in the prefix cache.
    pub prefix_cache_queries: f64,
    /// Those found there.
    pub prefix_cache_hits: f64,
    /// Requests that ended, by reason: `stop`, `length`, `abort`, …
    pub finished: BTreeMap<String, f64>,
    /// Requests that are being computed.
    pub running: Option<f64>,
    /// Requests that wait to be.
    pub waiting: Option<f64>,
    /// The used share of the KV cache, from 0 to 1, of the fullest engine.
    pub kv_cache_usage: Option<f64>,
    histograms: BTreeMap<&'static str, Histogram>,
}

/// The histograms that are read, without `vllm:`.
const HISTOGRAMS: [&str; 7] = [
    "e2e_request_latency_seconds",
    "inter_token_latency_seconds",
    "request_decode_time_seconds",
    "request_prefill_time_seconds",
    "request_queue_time_seconds",
    "time_per_output_token_seconds",
    "time_to_first_token_seconds",
];

impl Reading {
    /// Reads an answer; none where it has nothing of vLLM's.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let mut reading = Self::default();
        let mut found = false;
        for sample in samples(text).filter(|sample| sample.value.is_finite()) {
            if let Some(name) = sample.name.strip_prefix("vllm:") {
                found = true;
                reading.take(name, &sample);
            }
        }
        found.then_some(reading)
    }

    fn take(&mut self, name: &str, sample: &Sample<'_>) {
        let value = sample.value;
        match name {
            "prompt_tokens_total" => self.prompt_tokens += value,
            "generation_tokens_total" => self.generation_tokens += value,
            "num_preemptions_total" => self.preemptions += value,
            "prefix_cache_queries_total" => self.prefix_cache_queries += value,
            "prefix_cache_hits_total" => self.prefix_cache_hits += value,
            "request_success_total" => {
                let reason = sample.label("finished_reason").unwrap_or_default();
                *self.finished.entry(super::plain(&reason)).or_default() += value;
            }
            "num_requests_running" => *self.running.get_or_insert_default() += value,
            "num_requests_waiting" => *self.waiting.get_or_insert_default() += value,
            // The second is its name before 0.9.2.
            "kv_cache_usage_perc" | "gpu_cache_usage_perc" => {
                self.kv_cache_usage = Some(self.kv_cache_usage.map_or(value, |usage| usage.max(value)));
            }
            _ => self.take_histogram(name, sample),
        }
    }

    fn take_histogram(&mut self, name: &str, sample: &Sample<'_>) {
        let Some((name, part)) = name.rsplit_once('_') else { return };
        let Some(name) = HISTOGRAMS.into_iter().find(|known| *known == name) else { return };
        let histogram = self.histograms.entry(name).or_default();
        match part {
            "count" => histogram.count += sample.value,
            "sum" => histogram.sum += sample.value,
            "bucket" => {
                let bound: Option<f64> = sample.label("le").and_then(|bound| bound.parse().ok());
                if let Some(bound) = bound.filter(|bound| !bound.is_nan()) {
                    histogram.add(bound, sample.value);
                }
            }
            _ => {}
        }
    }

    /// A histogram's difference to an earlier reading, by the metric's name or, where the server lacks it, the next;
    /// none where it has none of them.
    #[must_use]
    pub fn since(&self, before: &Self, names: &[&str]) -> Option<Histogram> {
        let (name, histogram) = names.iter().find_map(|name| self.histograms.get_key_value(name))?;
        let nothing = Histogram::default();
        Some(histogram.since(before.histograms.get(name).unwrap_or(&nothing)))
    }

    /// Whether the server counts anew since an earlier reading, as it does after a restart.
    #[must_use]
    pub fn is_reset_since(&self, before: &Self) -> bool {
        let ended = |reading: &Self| reading.finished.values().sum::<f64>();
        let counts =
            |reading: &Self, name| reading.histograms.get(name).map_or(0.0, |histogram| histogram.count);
        self.prompt_tokens < before.prompt_tokens
            || self.generation_tokens < before.generation_tokens
            || ended(self) < ended(before)
            || HISTOGRAMS.into_iter().any(|name| counts(self, name) < counts(before, name))
    }
}
