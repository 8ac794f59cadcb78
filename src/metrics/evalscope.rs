//! The figures of `evalscope perf`, as one of its versions defines them.
//!
//! [`rows`] is the request function (`evalscope/perf/plugin/api/default_api.py`) and gives what the database holds.
//! What each version makes of the rows is a module of its own: [`v1_1_1`] and [`v1_14_1`]; [`workload`] is the newer
//! one's throughput over time. Seconds throughout, as in the database.

mod request;
pub mod v1_14_1;
pub mod v1_1_1;
pub mod workload;

use serde::{Deserialize, Serialize};

use super::{CountTokens, Measurement};
use crate::timeline::{Outcome, Timeline};

/// A version of `evalscope perf`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Version {
    /// 1.1.1 (2025-10).
    #[serde(rename = "1.1.1")]
    V1_1_1,
    /// 1.14.1 (2026-10).
    #[serde(rename = "1.14.1")]
    V1_14_1,
}

/// One request as the database holds it. Seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The request's index in the tape.
    pub index: u64,
    /// The send, on the run's clock.
    pub start_time: f64,
    /// The last JSON event, on the run's clock. Of a failure: 0 in 1.1.1, when it was known in 1.14.1.
    pub completed_time: f64,
    /// From the send to the last JSON event.
    pub latency: f64,
    /// From the send to what the version takes for the first token; 0 where there was none.
    pub first_chunk_latency: f64,
    /// The gaps between what the version takes for tokens: one a chunk. A failure keeps those it had.
    pub inter_chunk: Vec<f64>,
    /// The server's count of the prompt's tokens.
    pub prompt_tokens: u32,
    /// The server's count of output tokens.
    pub completion_tokens: u32,
    /// The server's count of prompt tokens that came from its cache, where sent. 1.1.1 does not look at it.
    pub cached_tokens: Option<u32>,
    /// `(latency - first_chunk_latency) / (completion_tokens - 1)`; 0 for one token or none.
    pub time_per_output_token: f64,
    /// Events with choices from the first output on, whether or not they carry output. 0 in 1.1.1; the database of
    /// neither version keeps it.
    pub decode_chunks: u32,
    /// Whether the response was a stream of events.
    pub stream: bool,
    /// Whether the request counts.
    pub success: bool,
}

/// Each request that was sent, in the order of the database: that of completion.
///
/// Where the server sent no usage, the original counts with its tokenizer; here the tape's count stands for the
/// prompt, and `count` over the text for the output (without it, the number of events with text). Requests never
/// sent are left out; those cut off by an interruption are failures.
///
/// What a timeline does not tell: whether tool calls have a name or arguments, and `reasoning_details` (1.14.1 looks
/// at both to tell output); and whether data that is not a JSON object is JSON at all (1.14.1 fails on the former and
/// passes over the latter; it is passed over here, in a response that `[DONE]` shows to be whole).
#[must_use]
pub fn rows(measurement: &Measurement<'_>, version: Version, count: Option<CountTokens<'_>>) -> Vec<Row> {
    let mut sent: Vec<&Timeline> =
        measurement.timelines.iter().filter(|timeline| timeline.outcome != Outcome::NotSent).collect();
    sent.sort_by_key(|timeline| timeline.end_ns);
    sent.into_iter().map(|timeline| request::row(timeline, version, count)).collect()
}

/// Tokens a second of a request's own time; NaN where it took none.
fn over_latency(row: &Row, tokens: u64) -> f64 {
    if row.latency > 0.0 { tokens as f64 / row.latency } else { f64::NAN }
}
