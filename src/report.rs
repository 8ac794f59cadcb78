//! A run's figures as text: each dialect's tables and JSON. Exporters are pure; they return what is to be written.

pub mod evalscope;
pub mod hlog;
pub mod html;
mod native;
pub mod vllm;

use std::fmt;

use self::vllm::{Metric, RunInfo};
use crate::metrics::client::Client;
use crate::metrics::native::Metrics;
use crate::metrics::vllm::Goodput;
use crate::metrics::{CountTokens, Dialect, Measurement};
use crate::scrape::Server;

/// How to show the figures. The default is what each tool does unasked.
#[derive(Clone, Default)]
pub struct Options<'a> {
    /// Counts the tokens of a text where the server sent no usage.
    pub count_tokens: Option<CountTokens<'a>>,
    /// Native: what makes a request good.
    pub goodput: Option<Goodput>,
    /// Native: show the steady part of the run alone; where there is none, all of it.
    pub steady: bool,
    /// vLLM's dialects: what to show.
    pub vllm: VllmOptions,
    /// `native`: the figures of the whole run, where they have been calculated already.
    pub metrics: Option<&'a Metrics>,
    /// `native`: the client's own part in the run.
    pub client: Option<&'a Client>,
    /// `native`: what the server told of itself.
    pub server: Option<&'a Server>,
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("vllm", &self.vllm).finish_non_exhaustive()
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
        Dialect::Evalscope(version) => evalscope::tables(measurement, version, options),
        Dialect::Native => native::table(measurement, options),
        Dialect::Vllm(version) => vllm::table(version, measurement, options),
    }
}

/// The dialect's figures as JSON, without a final line end: for vLLM its result file, for evalscope its summary file
/// ([`evalscope::folder::Run::files`] gives the others), for `native` the keys that `docs/metrics.md` lists.
#[must_use]
pub fn json(measurement: &Measurement<'_>, dialect: Dialect, options: &Options<'_>) -> String {
    match dialect {
        Dialect::Evalscope(version) => evalscope::json(measurement, version, options),
        Dialect::Native => native::json(measurement, options),
        Dialect::Vllm(version) => vllm::result_json(version, measurement, options),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::{evalscope, native, vllm};
    use crate::timeline::{Events, Facts, Outcome, Reads, Timeline, Usage};

    fn outcome() -> impl Strategy<Value = Outcome> {
        let message = "é\"\n".to_owned();
        prop_oneof![
            6 => Just(Outcome::Success),
            1 => Just(Outcome::NoTokens),
            1 => Just(Outcome::NotSent),
            1 => Just(Outcome::Cancelled),
            1 => Just(Outcome::CancelledOnPurpose),
            1 => Just(Outcome::Timeout { limit_ms: 5 }),
            1 => Just(Outcome::Truncated { message }),
        ]
    }

    /// Any timeline whose columns fit together, however senseless.
    fn timeline() -> impl Strategy<Value = Timeline> {
        let usage = (0u32..200, 0u32..200).prop_map(|(prompt_tokens, completion_tokens)| Usage {
            prompt_tokens,
            completion_tokens,
            ..Usage::default()
        });
        let events = prop::collection::vec((0u64..5, 0u16..1 << 14), 0..12);
        (0u64..10_000_000_000, events, prop::option::of(usage), outcome()).prop_map(
            |(dispatched_ns, events, usage, outcome)| {
                // A gap of 0 puts the event into the read before it.
                let mut reads = Reads { at_ns: vec![dispatched_ns], bytes: vec![1], ..Reads::default() };
                let mut columns = Events::default();
                for (gap, facts) in events {
                    let last = reads.at_ns[reads.at_ns.len() - 1];
                    if gap > 0 {
                        reads.at_ns.push(last + gap * 313_000_007);
                        reads.bytes.push(1);
                    }
                    columns.read.push(u32::try_from(reads.at_ns.len() - 1).unwrap());
                    columns.facts.push(Facts(facts));
                }
                Timeline {
                    dispatched_ns,
                    scheduled_ns: dispatched_ns / 2,
                    end_ns: reads.at_ns[reads.at_ns.len() - 1],
                    reads,
                    events: columns,
                    usage,
                    outcome,
                    status: Some(200),
                    ..Timeline::default()
                }
            },
        )
    }

    proptest! {
        #[test]
        fn every_dialect_takes_every_timeline(timelines in prop::collection::vec(timeline(), 0..12), duration_ns in 0u64..1 << 40) {
            let measurement = Measurement { timelines: &timelines, duration_ns, concurrency: None, request_rate: None };
            let options = Options { vllm: VllmOptions { detailed: true, ..VllmOptions::default() }, ..Options::default() };
            for dialect in Dialect::ALL {
                prop_assert!(render(&measurement, dialect, &options).ends_with('\n'));
                // `NaN`, which Python writes and JSON does not know, is in evalscope's percentiles alone.
                let json: serde_json::Value = serde_json::from_str(&json(&measurement, dialect, &options)).unwrap();
                prop_assert!(json.is_object());
            }
            prop_assert!(hlog::hlog(&measurement).is_ok());

            let requests = native::calculate(&measurement).requests;
            prop_assert_eq!(requests.total, requests.succeeded + requests.failed + requests.cancelled_on_purpose + requests.cancelled + requests.not_sent);
            for version in vllm::Version::ALL {
                let outputs = vllm::outputs(&measurement, version, vllm::Arrivals::Scheduled, None);
                prop_assert_eq!(outputs.len(), timelines.len());
                for output in outputs.iter().filter(|output| output.success) {
                    // Where the end is the last token's, TTFT and the gaps add up to the latency; else they are less.
                    let tokens = output.ttft + output.itl.iter().sum::<f64>();
                    prop_assert!(tokens <= output.latency + 1e-6, "{} > {}", tokens, output.latency);
                }
            }
            for version in [evalscope::Version::V1_1_1, evalscope::Version::V1_14_1] {
                let rows = evalscope::rows(&measurement, version, None);
                prop_assert!(rows.iter().all(|row| row.latency >= 0.0 && row.first_chunk_latency <= row.latency));
            }
        }
    }
}
