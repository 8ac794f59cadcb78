//! The server's side of a run: what its `/metrics` tell of the requests, as figures to set beside the client's. Pure.
//!
//! - Counters and histograms are differences of two readings, one before the run and one after it. They count all
//!   that the server did in between: warm-up requests and other clients' requests too.
//! - Gauges are samples taken while the run went on.
//! - A histogram's mean is exact; of a percentile it knows the bucket ([`histogram::Quantile`]).
//!
//! `docs/server-metrics.md` says which of vLLM's metrics each figure comes from, and how it compares.

pub mod histogram;
pub mod reading;
pub mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::histogram::Quantile;
pub use self::reading::Reading;

/// What a server tells of itself. Serialised, it is the `server` object of a run and of the JSON report.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Server {
    /// The `version` of `/version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The first of `/v1/models`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// The figures of `/metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
}

/// A model that a server serves.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Model {
    /// Its name.
    pub id: String,
    /// The longest context, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u64>,
}

/// The figures of a server over a run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Figures {
    /// From the first reading to the last, in seconds.
    pub interval_s: f64,
    /// Readings during the run: what the gauges are taken from.
    pub samples: u64,
    /// Readings that failed, during the run and after it.
    pub failed_scrapes: u64,
    /// Whether the server's counters began anew: then the counts are those since.
    pub restarted: bool,
    /// Warm-up requests of the run, which the counts and the latencies contain.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warmup: u64,
    /// Requests that ended, by reason.
    pub finished: BTreeMap<String, u64>,
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub generation_tokens: u64,
    /// Requests pushed out of the KV cache, to be computed again.
    pub preemptions: u64,
    /// Prompt tokens found in the prefix cache / prompt tokens looked up; absent where none was looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_cache_hit_share: Option<f64>,
    /// Time to first token, from the request's arrival in the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<Latency>,
    /// Gaps between output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub itl_ms: Option<Latency>,
    /// From arrival to the last token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e2el_ms: Option<Latency>,
    /// From arrival in the engine to the first schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<Latency>,
    /// From the first schedule to the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_ms: Option<Latency>,
    /// From the first token to the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_ms: Option<Latency>,
    /// Requests that were being computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Gauge>,
    /// Requests that waited to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Gauge>,
    /// The used share of the KV cache, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache_usage: Option<Gauge>,
}

/// A latency as a histogram has it, in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Latency {
    /// Number of values.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The median.
    pub p50: Quantile,
    /// The 99th percentile.
    pub p99: Quantile,
}

/// A gauge over the samples of a run.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Gauge {
    /// Mean of the samples.
    pub mean: f64,
    /// Largest of the samples.
    pub max: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Server {
    /// Whether the server told anything.
    #[must_use]
    pub fn is_known(&self) -> bool {
        *self != Self::default()
    }
}

/// The `version` of an answer of `/version`.
#[must_use]
pub fn version(answer: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    Some(plain(answer.get("version")?.as_str()?))
}

/// The first model of an answer of `/v1/models`.
#[must_use]
pub fn model(answer: &[u8]) -> Option<Model> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let first = answer.get("data")?.get(0)?;
    let max_model_len = first.get("max_model_len").and_then(serde_json::Value::as_u64);
    Some(Model { id: plain(first.get("id")?.as_str()?), max_model_len })
}

/// A server's words, fit to be shown: short, and without control characters.
fn plain(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(200).collect()
}

impl Figures {
    /// The figures between two readings, with those `during` the run.
    #[must_use]
    pub fn between(before: &Reading, during: &[Reading], after: &Reading) -> Self {
        let restarted = after.is_reset_since(before);
        let nothing = Reading::default();
        let before = if restarted { &nothing } else { before };
        let finished = after.finished.iter().map(|(reason, count)| {
            (reason.clone(), whole(count - before.finished.get(reason).copied().unwrap_or(0.0)))
        });
        let queries = after.prefix_cache_queries - before.prefix_cache_queries;
        let hits = after.prefix_cache_hits - before.prefix_cache_hits;
        let latency = |names: &[&str]| after.since(before, names).and_then(|since| Latency::of(&since));
        Self {
            samples: during.len() as u64,
            restarted,
            finished: finished.filter(|(_, count)| *count > 0).collect(),
            prompt_tokens: whole(after.prompt_tokens - before.prompt_tokens),
            generation_tokens: whole(after.generation_tokens - before.generation_tokens),
            preemptions: whole(after.preemptions - before.preemptions),
            prefix_cache_hit_share: (queries > 0.0).then(|| hits / queries),
            ttft_ms: latency(&["time_to_first_token_seconds"]),
            // The second is its name before 0.11, which has both.
            itl_ms: latency(&["inter_token_latency_seconds", "time_per_output_token_seconds"]),
            e2el_ms: latency(&["e2e_request_latency_seconds"]),
            queue_ms: latency(&["request_queue_time_seconds"]),
            prefill_ms: latency(&["request_prefill_time_seconds"]),
            decode_ms: latency(&["request_decode_time_seconds"]),
            running: Gauge::of(during.iter().filter_map(|reading| reading.running)),
            waiting: Gauge::of(during.iter().filter_map(|reading| reading.waiting)),
            kv_cache_usage: Gauge::of(during.iter().filter_map(|reading| reading.kv_cache_usage)),
            ..Self::default()
        }
    }

    /// Requests that ended, of all reasons.
    #[must_use]
    pub fn all_finished(&self) -> u64 {
        self.finished.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// A count that Prometheus writes as a float.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates; a count is far below 2^53"
)]
fn whole(count: f64) -> u64 {
    count.round() as u64
}

impl Latency {
    /// From seconds; none without values.
    fn of(histogram: &histogram::Histogram) -> Option<Self> {
        let quantile = |q| histogram.quantile(q).map(|quantile| quantile.times(1000.0));
        Some(Self {
            count: whole(histogram.count),
            mean: histogram.mean()? * 1000.0,
            p50: quantile(0.5)?,
            p99: quantile(0.99)?,
        })
    }
}

impl Gauge {
    /// None without samples.
    fn of(samples: impl Iterator<Item = f64>) -> Option<Self> {
        let (mut count, mut sum, mut max) = (0_u32, 0.0, f64::NEG_INFINITY);
        for sample in samples {
            count += 1;
            sum += sample;
            max = sample.max(max);
        }
        (count > 0).then(|| Self { mean: sum / f64::from(count), max })
    }
}

#[cfg(test)]
mod tests;
