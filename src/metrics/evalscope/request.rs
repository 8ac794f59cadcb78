//! The request functions (`DefaultApiPlugin.process_request` in `evalscope/perf/plugin/api/default_api.py`): from one
//! timeline to one row.

use super::{Row, Version};
use crate::metrics::messages::messages;
use crate::metrics::{CountTokens, count_output, is_complete, seconds};
use crate::timeline::{Facts, Outcome, Timeline};

/// One request as the version would have recorded it.
pub(super) fn row(timeline: &Timeline, version: Version, count: Option<CountTokens<'_>>) -> Row {
    let st = seconds(timeline.dispatched_ns);
    let mut row =
        Row { index: timeline.index, start_time: st, stream: !is_plain(timeline), ..Row::default() };
    let read = match version {
        _ if !row.stream => read_plain(timeline, st),
        Version::V1_1_1 => read_1_1_1(timeline, st),
        Version::V1_14_1 => read_1_14_1(timeline, st),
    };
    row.inter_chunk = read.gaps;
    row.decode_chunks = read.decode_chunks;
    if !read.success {
        // 1.1.1 leaves a failure's end at 0; 1.14.1's client fills it in (`core/http_client.py`), unless the stream
        // was read to its end and failed by what an event said.
        if version == Version::V1_14_1 {
            row.completed_time = if read.whole { read.end } else { seconds(timeline.end_ns) };
        }
        return row;
    }
    row.success = true;
    row.completed_time = read.end;
    row.latency = read.end - st;
    row.first_chunk_latency = read.first.unwrap_or(0.0);
    let usage = timeline.usage.filter(|_| read.usage);
    (row.prompt_tokens, row.completion_tokens) = match usage {
        Some(usage) => (usage.prompt_tokens, usage.completion_tokens),
        None => (timeline.input_tokens.unwrap_or(0), count_output(timeline, count)),
    };
    if version == Version::V1_14_1 {
        row.cached_tokens = usage.and_then(|usage| usage.cached_tokens);
    }
    if row.completion_tokens > 1 {
        row.time_per_output_token =
            (row.latency - row.first_chunk_latency) / f64::from(row.completion_tokens - 1);
    }
    row
}

/// What was made of one response.
struct Read {
    /// Whether the whole response was read.
    whole: bool,
    success: bool,
    /// `most_recent_timestamp` when it ended.
    end: f64,
    /// From the send to the first token.
    first: Option<f64>,
    gaps: Vec<f64>,
    decode_chunks: u32,
    /// Whether the server's counts were found where the version looks for them.
    usage: bool,
}

impl Read {
    fn begin(st: f64) -> Self {
        Self {
            whole: true,
            success: true,
            end: st,
            first: None,
            gaps: Vec::new(),
            decode_chunks: 0,
            usage: false,
        }
    }

    fn failed(self) -> Self {
        Self { success: false, whole: false, ..self }
    }
}

/// Whether the reply was one JSON document: a success without an event.
fn is_plain(timeline: &Timeline) -> bool {
    timeline.outcome.is_success() && timeline.events.is_empty()
}

/// A reply that is no stream, in both versions: its first token is its end.
fn read_plain(timeline: &Timeline, st: f64) -> Read {
    let end = seconds(timeline.end_ns);
    Read { end, first: Some(end - st), usage: timeline.usage.is_some(), ..Read::begin(st) }
}

/// 1.1.1: any event with choices is a token, the role-only opening one too; a gap reaches back to whatever event was
/// before; usage comes from an event of its own, else from the last event with choices.
fn read_1_1_1(timeline: &Timeline, st: f64) -> Read {
    let mut read = Read::begin(st);
    let mut first = 0.0;
    let (mut usage_event, mut last_chunk) = (false, Facts::default());
    for (at, facts) in messages(timeline) {
        // A text completion has no `delta`, and the original trips over that as it does over what is not JSON.
        let readable = facts.has(Facts::JSON) && !facts.has(Facts::CHOICES.with(Facts::COMPLETION));
        if !readable {
            return read.failed();
        }
        let timestamp = seconds(at);
        if facts.has(Facts::CHOICES) {
            last_chunk = facts;
            // The original tells the first token by a TTFT that is still zero.
            if first == 0.0 {
                first = timestamp - st;
            } else {
                read.gaps.push(timestamp - read.end);
            }
        } else if facts.has(Facts::USAGE) {
            usage_event = true;
        }
        read.end = timestamp;
    }
    read.first = Some(first);
    read.usage = usage_event || last_chunk.has(Facts::USAGE);
    if is_complete(timeline) { read } else { read.failed() }
}

/// 1.14.1: an event with visible output is a token; a gap reaches back to the output before; usage comes from any
/// event; what is not JSON is passed over; an error event fails the request.
fn read_1_14_1(timeline: &Timeline, st: f64) -> Read {
    let mut read = Read::begin(st);
    let mut last_output = None;
    for (at, facts) in timeline.stamped_events().filter(|(_, facts)| facts.has(Facts::JSON)) {
        let timestamp = seconds(at);
        if facts.has(Facts::CHOICES) {
            if facts.is_visible() {
                match last_output {
                    None => read.first = Some(timestamp - st),
                    Some(last) => read.gaps.push(timestamp - last),
                }
                last_output = Some(timestamp);
            }
            // An empty event after the first output is still a decode step.
            read.decode_chunks += u32::from(last_output.is_some());
        }
        read.success &= !facts.has(Facts::ERROR);
        read.usage |= facts.has(Facts::USAGE);
        read.end = timestamp;
    }
    if is_complete(timeline) || broke_no_more_than_an_event(timeline) { read } else { read.failed() }
}

/// Whether a response counts as broken only for an event that is not JSON: its `[DONE]` shows that all of it arrived.
fn broke_no_more_than_an_event(timeline: &Timeline) -> bool {
    let done = || timeline.events.facts.iter().any(|facts| facts.has(Facts::DONE));
    matches!(timeline.outcome, Outcome::Protocol { .. }) && done()
}
