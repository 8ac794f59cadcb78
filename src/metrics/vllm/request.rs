//! The request functions (`vllm/benchmarks/lib/endpoint_request_func.py`): one response to one [`Output`].

use std::borrow::Cow;

use http::StatusCode;

use super::{Api, Version};
use crate::metrics::{CountTokens, Measurement, count_output, is_complete, is_completion, seconds};
use crate::timeline::{Facts, Outcome, Timeline};

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
    /// The prompt's tokens: the server's count from 0.20 on, else what the client counted.
    pub prompt_len: u32,
    /// The send, on the run's clock.
    pub start_time: f64,
    /// From the arrival in the client's queue to the send.
    pub client_queue_time: f64,
    /// The server's own queue time, where it says so (from 0.33).
    pub server_queue_time: Option<f64>,
    /// The server's own TTFT, where it says so (from 0.33).
    pub server_ttft: Option<f64>,
    /// The text, where the timeline kept it.
    pub generated_text: Cow<'a, str>,
    /// Why it failed; empty for a success.
    pub error: Cow<'a, str>,
}

/// When the requests entered the client's queue: the original makes a task of each when its time has come, and the
/// task then waits for the concurrency limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrivals {
    /// All at the run's start: no rate was asked for.
    AtStart,
    /// When the schedule said: a rate, a ramp or a trace.
    Scheduled,
}

impl Arrivals {
    /// What a measurement tells: at the start, unless a rate was asked for.
    #[must_use]
    pub fn of(measurement: &Measurement<'_>) -> Self {
        if measurement.request_rate.is_some() { Arrivals::Scheduled } else { Arrivals::AtStart }
    }
}

/// Each request of a run as this version would have recorded it, in tape order.
///
/// What a timeline does not hold is not modelled: a character split over two reads, an event without the space after
/// `data:`, and lines of other fields all make the original fail or lose events. Requests never sent or cut off by an
/// interruption have no counterpart there; they count as failures. Where the original keeps a traceback as the error,
/// this has one line.
///
/// Output tokens are those of a usage event, one that is no token itself; the original ignores usage elsewhere.
/// Without one, `count` counts the text as the original's tokenizer would; where there is no text either, the
/// server's other counts and then the number of output events stand in.
#[must_use]
pub fn outputs<'a>(
    measurement: &Measurement<'a>,
    version: Version,
    arrivals: Arrivals,
    count: Option<CountTokens<'_>>,
) -> Vec<Output<'a>> {
    let output = |timeline| output(timeline, version, arrivals, count);
    measurement.timelines.iter().map(output).collect()
}

fn output<'a>(
    timeline: &'a Timeline,
    version: Version,
    arrivals: Arrivals,
    count: Option<CountTokens<'_>>,
) -> Output<'a> {
    let st = seconds(timeline.dispatched_ns);
    let arrival = match arrivals {
        _ if timeline.outcome == Outcome::NotSent => st,
        Arrivals::AtStart => 0.0,
        Arrivals::Scheduled => seconds(timeline.scheduled_ns),
    };
    let mut output = Output {
        prompt_len: timeline.input_tokens.or(timeline.usage.map(|usage| usage.prompt_tokens)).unwrap_or(0),
        start_time: st,
        client_queue_time: st - arrival,
        ..Output::default()
    };
    if let Some(times) = timeline.server_times.filter(|_| version.takes_server_times()) {
        output.server_queue_time = times.queue_ms.map(|ms| ms / 1000.0);
        output.server_ttft = times.ttft_ms.map(|ms| ms / 1000.0);
    }
    let mut stream = read(timeline, st, version, &mut output);
    // Whatever breaks the body raises in the original, and leaves TTFT and ITL as far as they had come.
    if !is_complete(timeline) {
        stream = Err(error(timeline));
    }
    match stream {
        Ok(Stream { end, usage_event }) => {
            output.success = true;
            output.latency = end - st;
            if timeline.events.is_empty() {
                // The original looks for events alone: of a response that is no stream it sees nothing.
                return output;
            }
            output.generated_text = Cow::Borrowed(timeline.text.as_deref().unwrap_or_default());
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
    /// Whether an event that is no token carried usage.
    usage_event: bool,
}

const NOT_JSON: &str = "an event is not a JSON object";

/// The original's own words, its missing space included.
const NO_TOKEN: &str =
    "Never received a valid chunk to calculate TTFT.This response will be marked as failed!";

/// `async_request_openai_chat_completions` and `async_request_openai_completions`.
fn read(
    timeline: &Timeline,
    st: f64,
    version: Version,
    output: &mut Output<'_>,
) -> Result<Stream, Cow<'static, str>> {
    let api = if is_completion(timeline) { Api::Completions } else { Api::Chat };
    let chat = api == Api::Chat;
    let mut stream = Stream { end: st, usage_event: false };
    let mut any_token = false;
    for (at, facts) in version.messages(timeline) {
        if !facts.has(Facts::JSON) {
            return Err(NOT_JSON.into());
        }
        let timestamp = seconds(at);
        let token = version.is_token(api, facts);
        if token {
            let first = if chat && version.first_chat_token_has_zero_ttft() {
                output.ttft == 0.0
            } else {
                !any_token
            };
            any_token = true;
            if first {
                output.ttft = timestamp - st;
            } else {
                output.itl.push(timestamp - stream.end);
            }
        } else if facts.has(Facts::USAGE) {
            stream.usage_event = true;
            let prompt_len = timeline.usage.map_or(0, |usage| usage.prompt_tokens);
            if version.takes_prompt_len_from_usage() && prompt_len > 0 {
                output.prompt_len = prompt_len;
            }
        }
        if token || (chat && version.any_event_ends_chat()) {
            stream.end = timestamp;
        }
    }
    if any_token || (chat && version.empty_chat_succeeds()) { Ok(stream) } else { Err(NO_TOKEN.into()) }
}

/// Why a response was not complete: for a status its reason phrase (`response.reason`), else what was seen.
fn error(timeline: &Timeline) -> Cow<'static, str> {
    let reason = |status| StatusCode::from_u16(status).ok()?.canonical_reason();
    match (&timeline.outcome, timeline.status.and_then(reason)) {
        (Outcome::Status { .. }, Some(reason)) => reason.into(),
        (outcome, _) => outcome.detail().unwrap_or_else(|| outcome.kind().to_owned()).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::native;
    use crate::timeline::{Events, Reads, Usage};

    const CHOICE: Facts = Facts::JSON.with(Facts::CHOICES);

    /// An event that a server may send in the midst of a chat reply.
    fn event() -> impl Strategy<Value = Facts> {
        prop::sample::select(vec![
            CHOICE.with(Facts::ROLE).with(Facts::EMPTY_CONTENT),
            CHOICE.with(Facts::CONTENT),
            CHOICE.with(Facts::EMPTY_CONTENT),
            CHOICE.with(Facts::REASONING),
            CHOICE.with(Facts::TOOL_CALL),
            CHOICE.with(Facts::FINISH),
            CHOICE.with(Facts::FINISH).with(Facts::EMPTY_CONTENT),
            Facts::JSON.with(Facts::USAGE),
        ])
    }

    /// A successful chat reply, each event in a read of its own.
    fn reply(events: &[Facts]) -> Timeline {
        let at_ns: Vec<u64> = (1..).map(|i| 1_000 * i + 500).take(events.len()).collect();
        let read = (0u32..).take(events.len()).collect();
        Timeline {
            dispatched_ns: 500,
            end_ns: at_ns.last().copied().unwrap_or(500),
            reads: Reads { bytes: vec![1; at_ns.len()], at_ns, ..Reads::default() },
            events: Events { read, facts: events.to_vec(), ..Events::default() },
            outcome: Outcome::Success,
            status: Some(200),
            usage: Some(Usage { prompt_tokens: 3, completion_tokens: 9, ..Usage::default() }),
            ..Timeline::default()
        }
    }

    proptest! {
        /// What separates the versions goes one way: later first tokens, earlier ends, fewer tokens.
        #[test]
        fn each_version_counts_less(events in prop::collection::vec(event(), 1..20)) {
            let timeline = reply(&events);
            let read = |version| output(&timeline, version, Arrivals::AtStart, None);
            let [oldest, older, newest] = Version::ALL.map(read);
            prop_assert!(oldest.success);
            prop_assert_eq!(older.success, events.iter().any(|facts| facts.has(Facts::CHOICES)));
            prop_assert!(newest.success <= older.success);
            if newest.success {
                prop_assert!(oldest.ttft <= older.ttft && older.ttft <= newest.ttft);
                prop_assert!(oldest.latency >= older.latency && older.latency >= newest.latency);
                prop_assert!(oldest.itl.len() == older.itl.len() && older.itl.len() >= newest.itl.len());
            }
        }

        /// Tokens are the same events in `native` and in the newest version.
        #[test]
        fn native_and_the_newest_agree_on_tokens(events in prop::collection::vec(event(), 1..20)) {
            let timelines = [reply(&events)];
            let measurement =
                Measurement { timelines: &timelines, duration_ns: 1, concurrency: None, request_rate: None };
            let native = native::samples(&measurement);
            let newest = output(&timelines[0], Version::V0_33_0, Arrivals::AtStart, None);
            prop_assert_eq!(native.ttft_ns.len(), usize::from(newest.success));
            prop_assert_eq!(native.itl_ns.len(), newest.itl.len());
            if let Some(ttft_ns) = native.ttft_ns.first() {
                prop_assert!((ttft_ns / 1e9 - newest.ttft).abs() < 1e-12);
            }
        }
    }
}
