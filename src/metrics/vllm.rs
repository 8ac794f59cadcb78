//! The figures of `vllm bench serve`, as one of its versions defines them.
//!
//! Two layers, as in the original: [`outputs`] is its request functions
//! (`vllm/benchmarks/lib/endpoint_request_func.py`), [`calculate`] its `calculate_metrics`
//! (`vllm/benchmarks/serve.py`). All times are seconds, as the original keeps them; milliseconds appear only in
//! [`Stats`], multiplied last.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::messages::messages;
use super::stats::{self, Numpy};
use super::{CountTokens, Measurement, count_output, is_complete, is_completion, seconds};
use crate::timeline::{Facts, Timeline};

/// A version of `vllm bench serve`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Version {
    /// 0.11.0 (2025-10).
    #[serde(rename = "0.11.0")]
    V0_11_0,
    /// 0.32.0.
    #[serde(rename = "0.32.0")]
    V0_32_0,
    /// 0.33.0 (2026-11).
    #[serde(rename = "0.33.0")]
    V0_33_0,
}

impl Version {
    /// In chat, every JSON event moves the end of the request, the usage event too; else only token events do.
    fn any_event_ends_chat(self) -> bool {
        self == Version::V0_11_0
    }

    /// In chat, a complete stream without one token is a success, with a TTFT of 0; else a failure.
    fn empty_chat_succeeds(self) -> bool {
        self == Version::V0_11_0
    }

    /// The numpy it runs on.
    fn numpy(self) -> Numpy {
        if self == Version::V0_11_0 { Numpy::UP_TO_2_2 } else { Numpy::FROM_2_3 }
    }
}

/// One request as the original records it (`RequestFuncOutput`). Seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output<'a> {
    /// Whether the request counts.
    pub success: bool,
    /// The first token event, from the send.
    pub ttft: f64,
    /// The gaps between token events: one an event, however many tokens it carried.
    pub itl: Vec<f64>,
    /// From the send to what the version takes for the end; 0 for a failure.
    pub latency: f64,
    /// The server's count of output tokens, or a count of the text's; 0 for a failure.
    pub output_tokens: u32,
    /// The prompt's tokens as the client counted them.
    pub prompt_len: u32,
    /// The send, on the run's clock.
    pub start_time: f64,
    /// The text, where the timeline kept it.
    pub generated_text: Cow<'a, str>,
    /// Why it failed; empty for a success.
    pub error: Cow<'a, str>,
}

/// Each request of a run as this version would have recorded it, in tape order.
///
/// What a timeline does not hold is not modelled: a character split over two reads, an event without the space after
/// `data:`, and lines of other fields all make the original fail or lose events. Requests never sent or cut off by an
/// interruption have no counterpart there; they count as failures.
///
/// Output tokens are those of a usage event (one without `choices`; the original ignores usage elsewhere). Without
/// one, `count` counts the text as the original's tokenizer would; where there is no text either, the server's other
/// counts and then the number of events with text stand in.
#[must_use]
pub fn outputs<'a>(
    measurement: &Measurement<'a>,
    version: Version,
    count: Option<CountTokens<'_>>,
) -> Vec<Output<'a>> {
    measurement.timelines.iter().map(|timeline| output(timeline, version, count)).collect()
}

fn output<'a>(timeline: &'a Timeline, version: Version, count: Option<CountTokens<'_>>) -> Output<'a> {
    let st = seconds(timeline.dispatched_ns);
    let mut output = Output {
        prompt_len: timeline.input_tokens.or(timeline.usage.map(|usage| usage.prompt_tokens)).unwrap_or(0),
        start_time: st,
        generated_text: Cow::Borrowed(timeline.text.as_deref().unwrap_or_default()),
        ..Output::default()
    };
    let mut stream = if is_completion(timeline) {
        read_completions(timeline, st, &mut output)
    } else {
        read_chat(timeline, st, version, &mut output)
    };
    // Whatever breaks the body raises in the original, and leaves TTFT and ITL as far as they had come.
    if !is_complete(timeline) {
        let error = timeline.outcome.detail().unwrap_or_else(|| timeline.outcome.kind().to_owned());
        stream = Err(Cow::Owned(error));
    }
    match stream {
        Ok(Stream { end, usage_event }) => {
            output.success = true;
            output.latency = end - st;
            let usage = timeline.usage.map(|usage| usage.completion_tokens).filter(|_| usage_event);
            output.output_tokens =
                usage.filter(|&tokens| tokens > 0).unwrap_or_else(|| count_output(timeline, count));
        }
        Err(error) => output.error = error,
    }
    output
}

/// A stream that was read to its end.
struct Stream {
    /// `most_recent_timestamp` when it ended.
    end: f64,
    /// Whether there was an event with usage and without choices.
    usage_event: bool,
}

const NOT_JSON: &str = "an event is not a JSON object";

/// `async_request_openai_chat_completions`: any event with choices is a token, the role-only opening one too.
fn read_chat(
    timeline: &Timeline,
    st: f64,
    version: Version,
    output: &mut Output<'_>,
) -> Result<Stream, Cow<'static, str>> {
    let mut stream = Stream { end: st, usage_event: false };
    let mut any_token = false;
    for (at, facts) in messages(timeline) {
        if !facts.has(Facts::JSON) {
            return Err(NOT_JSON.into());
        }
        let timestamp = seconds(at);
        let token = facts.has(Facts::CHOICES);
        if token {
            any_token = true;
            // The original tells the first token by a TTFT that is still zero.
            if output.ttft == 0.0 {
                output.ttft = timestamp - st;
            } else {
                output.itl.push(timestamp - stream.end);
            }
        } else if facts.has(Facts::USAGE) {
            stream.usage_event = true;
        }
        if token || version.any_event_ends_chat() {
            stream.end = timestamp;
        }
    }
    if any_token || version.empty_chat_succeeds() { Ok(stream) } else { Err(NO_TOKEN.into()) }
}

/// The original's own words, its missing space included.
const NO_TOKEN: &str =
    "Never received a valid chunk to calculate TTFT.This response will be marked as failed!";

/// `async_request_openai_completions`: any event with choices is a token, only tokens move the end, and a stream
/// without one fails.
fn read_completions(
    timeline: &Timeline,
    st: f64,
    output: &mut Output<'_>,
) -> Result<Stream, Cow<'static, str>> {
    let mut stream = Stream { end: st, usage_event: false };
    let mut any_token = false;
    for (at, facts) in messages(timeline) {
        if !facts.has(Facts::JSON) {
            return Err(NOT_JSON.into());
        }
        if facts.has(Facts::CHOICES) {
            let timestamp = seconds(at);
            if any_token {
                output.itl.push(timestamp - stream.end);
            } else {
                any_token = true;
                output.ttft = timestamp - st;
            }
            stream.end = timestamp;
        } else if facts.has(Facts::USAGE) {
            stream.usage_event = true;
        }
    }
    if any_token { Ok(stream) } else { Err(NO_TOKEN.into()) }
}

/// Service level objectives, in milliseconds: a request is good when it meets each one that is set (`--goodput`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Goodput {
    /// Longest good TTFT.
    pub ttft_ms: Option<f64>,
    /// Longest good TPOT; a request of one token has a TPOT of 0.
    pub tpot_ms: Option<f64>,
    /// Longest good E2EL.
    pub e2el_ms: Option<f64>,
}

/// The figures of one run (`BenchmarkMetrics`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The run's duration, in seconds.
    pub duration: f64,
    /// Requests that succeeded.
    pub completed: usize,
    /// Their prompts' tokens.
    pub total_input: u64,
    /// Their output tokens.
    pub total_output: u64,
    /// Completed requests a second.
    pub request_throughput: f64,
    /// Good requests a second, where objectives were set.
    pub request_goodput: Option<f64>,
    /// Output tokens a second.
    pub output_throughput: f64,
    /// Input and output tokens a second.
    pub total_token_throughput: f64,
    /// The most token events in one second, counted from the first send. (Events, not tokens.)
    pub max_output_tokens_per_s: f64,
    /// The most requests that touched one such second: at least the true peak concurrency, often far more.
    pub max_concurrent_requests: i64,
    /// Time to first token.
    pub ttft: Stats,
    /// `(latency - ttft) / (output tokens - 1)` of each request with more than one.
    pub tpot: Stats,
    /// Gaps between token events, pooled over all requests.
    pub itl: Stats,
    /// End-to-end latency.
    pub e2el: Stats,
}

/// The statistics of one metric, in milliseconds; numpy's, all 0 where there is no value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// `np.mean`.
    pub mean_ms: f64,
    /// `np.median`.
    pub median_ms: f64,
    /// `np.std`: of the population.
    pub std_ms: f64,
    /// `np.percentile` of each percentile asked for.
    pub percentiles_ms: Vec<(f64, f64)>,
}

impl Stats {
    /// The statistics of values in seconds.
    #[must_use]
    pub fn of(seconds: &[f64], percentiles: &[f64], numpy: Numpy) -> Self {
        let sorted = stats::sorted(seconds);
        Self {
            mean_ms: numpy.mean(seconds) * 1000.0,
            median_ms: stats::median(&sorted) * 1000.0,
            std_ms: numpy.std(seconds) * 1000.0,
            percentiles_ms: percentiles
                .iter()
                .map(|&p| (p, stats::percentile(&sorted, p) * 1000.0))
                .collect(),
        }
    }
}

/// The original's `calculate_metrics` (0.11.0). `duration` in seconds; a duration of 0, which the original cannot
/// divide by, gives rates of 0.
#[must_use]
pub fn calculate(
    outputs: &[Output<'_>],
    version: Version,
    duration: f64,
    percentiles: &[f64],
    goodput: Option<Goodput>,
) -> Metrics {
    let succeeded = || outputs.iter().filter(|output| output.success);
    let completed = succeeded().count();
    let total_input: u64 = succeeded().map(|output| u64::from(output.prompt_len)).sum();
    let total_output: u64 = succeeded().map(|output| u64::from(output.output_tokens)).sum();
    let rate = |count: f64| if duration > 0.0 { count / duration } else { 0.0 };

    let ttfts: Vec<f64> = succeeded().map(|output| output.ttft).collect();
    let tpots: Vec<f64> = succeeded().filter_map(tpot).collect();
    let itls: Vec<f64> = succeeded().flat_map(|output| &output.itl).copied().collect();
    let e2els: Vec<f64> = succeeded().map(|output| output.latency).collect();
    let good = |slo: Goodput| rate(succeeded().filter(|output| is_good(output, slo)).count() as f64);
    let peaks = peaks(outputs);
    let stats = |seconds: &[f64]| Stats::of(seconds, percentiles, version.numpy());

    Metrics {
        duration,
        completed,
        total_input,
        total_output,
        request_throughput: rate(completed as f64),
        request_goodput: goodput.map(good),
        output_throughput: rate(total_output as f64),
        total_token_throughput: rate((total_input + total_output) as f64),
        max_output_tokens_per_s: peaks.tokens as f64,
        max_concurrent_requests: peaks.requests,
        ttft: stats(&ttfts),
        tpot: stats(&tpots),
        itl: stats(&itls),
        e2el: stats(&e2els),
    }
}

/// The time per output token after the first, where there is more than one.
fn tpot(output: &Output<'_>) -> Option<f64> {
    (output.output_tokens > 1).then(|| (output.latency - output.ttft) / f64::from(output.output_tokens - 1))
}

fn is_good(output: &Output<'_>, slo: Goodput) -> bool {
    let meets = |slo_ms: Option<f64>, value: f64| slo_ms.is_none_or(|ms| ms / 1000.0 >= value);
    meets(slo.ttft_ms, output.ttft)
        && meets(slo.tpot_ms, tpot(output).unwrap_or(0.0))
        && meets(slo.e2el_ms, output.latency)
}

struct Peaks {
    tokens: usize,
    requests: i64,
}

/// The original's one-second buckets, counted from the first send; a request is in every second it touches, the last
/// one included. Counted without laying the buckets out, so that no timeline can ask for more memory than its events.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds of a run, from 0")]
fn peaks(outputs: &[Output<'_>]) -> Peaks {
    let succeeded = || outputs.iter().filter(|output| output.success);
    let first = succeeded().map(|output| output.start_time).fold(f64::INFINITY, f64::min);
    let second = |at: f64| (at - first) as u64;

    let mut tokens = Vec::new();
    let mut touched = Vec::new();
    for output in succeeded() {
        let mut at = output.start_time + output.ttft;
        tokens.push(second(at));
        for gap in &output.itl {
            at += gap;
            tokens.push(second(at));
        }
        touched.push((second(output.start_time), 1));
        touched.push((second(output.start_time + output.latency) + 1, -1));
    }
    tokens.sort_unstable();
    let most_tokens = tokens.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap_or(0);
    // In each second, those that have left go before those that come.
    touched.sort_unstable();
    let mut now = 0i64;
    let most_requests = touched.iter().map(|(_, change)| {
        now += change;
        now
    });
    Peaks { tokens: most_tokens, requests: most_requests.max().unwrap_or(0) }
}
