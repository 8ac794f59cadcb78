//! What a client without an error of its own would report: the mock's truth log as timelines, seen through every
//! dialect. The times are the server's: a request is sent when it has arrived, and an event read when its write has
//! returned.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use tokentape_mock::truth::{self, EventKind, Record};

use crate::metrics::{Dialect, Measurement};
use crate::report;
use crate::timeline::{Events, Facts, Outcome, Reads, Timeline, Usage};

/// Answers `/admin/oracle` of `tokentape mock`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oracle;

impl tokentape_mock::Oracle for Oracle {
    fn figures(&self, records: &[Arc<Record>]) -> String {
        figures(records.iter().map(AsRef::as_ref))
    }
}

#[derive(Serialize)]
struct Answer {
    /// Streams that the figures are of.
    streams: usize,
    /// Records of whole bodies and of recorded pieces, which have no tokens to tell apart.
    left_out: usize,
    /// From the first arrival to the last write, in ns.
    duration_ns: u64,
    /// Each dialect's figures, as its own JSON.
    dialects: BTreeMap<&'static str, Box<RawValue>>,
}

/// Every dialect's figures of these records, as JSON.
#[must_use]
pub fn figures<'a>(records: impl IntoIterator<Item = &'a Record>) -> String {
    let mut records: Vec<&Record> = records.into_iter().collect();
    let all = records.len();
    let is_left_out = |kind: &EventKind| matches!(kind, EventKind::Body | EventKind::Piece);
    records.retain(|record| !record.events.iter().any(is_left_out));
    records.sort_by_key(|record| record.arrival_ns);
    let origin_ns = records.first().map_or(0, |record| record.arrival_ns);
    let timelines: Vec<Timeline> =
        (0..).zip(&records).map(|(index, record)| timeline(index, record, origin_ns)).collect();
    let duration_ns = timelines.iter().map(|timeline| timeline.end_ns).max().unwrap_or_default();
    let measurement =
        Measurement { timelines: &timelines, duration_ns, concurrency: None, request_rate: None };
    let dialects = Dialect::ALL.iter().filter_map(|dialect| {
        let json = report::json(&measurement, *dialect, &report::Options::default());
        Some((dialect.name(), RawValue::from_string(json).ok()?))
    });
    let answer = Answer {
        streams: records.len(),
        left_out: all - records.len(),
        duration_ns,
        dialects: dialects.collect(),
    };
    serde_json::to_string(&answer).unwrap_or_default()
}

/// A record as the timeline of a client that reads each write when it has returned.
fn timeline(index: u64, record: &Record, origin_ns: u64) -> Timeline {
    let since = |at_ns: u64| at_ns.saturating_sub(origin_ns);
    let mut reads = Reads::default();
    let mut events = Events::default();
    let tokens = record.events.iter().filter(|kind| **kind == EventKind::Token).count();
    let ends_apart = record.events.contains(&EventKind::Finish);
    let mut token = 0;
    for (kind, written_ns) in record.events.iter().zip(&record.written_ns) {
        if reads.at_ns.last() != Some(&since(*written_ns)) {
            reads.at_ns.push(since(*written_ns));
            reads.bytes.push(0);
        }
        token += usize::from(*kind == EventKind::Token);
        // Each write is one read at most, and no answer has 2^32 of them.
        events.read.push(u32::try_from(reads.at_ns.len() - 1).unwrap_or(u32::MAX));
        events.facts.push(facts(*kind, record, token == tokens && !ends_apart));
    }
    let arrival_ns = since(record.arrival_ns);
    Timeline {
        index,
        scheduled_ns: arrival_ns,
        dispatched_ns: arrival_ns,
        written_ns: Some(arrival_ns),
        head_ns: record.head_ns.map(since),
        status: Some(200),
        end_ns: reads.at_ns.last().copied().unwrap_or(arrival_ns),
        reads,
        events,
        outcome: outcome(record),
        usage: Some(Usage {
            prompt_tokens: u32::try_from(record.prompt_tokens).unwrap_or(u32::MAX),
            completion_tokens: u32::try_from(record.completion_tokens).unwrap_or(u32::MAX),
            ..Usage::default()
        }),
        response_id: Some(record.id.clone()),
        ..Timeline::default()
    }
}

/// What an event carries for a client.
fn facts(kind: EventKind, record: &Record, is_last_token: bool) -> Facts {
    let choice = Facts::JSON.with(Facts::CHOICES);
    let facts = match kind {
        EventKind::Role => choice.with(Facts::ROLE).with(Facts::EMPTY_CONTENT),
        EventKind::Finish => choice.with(Facts::EMPTY_CONTENT).with(Facts::FINISH),
        EventKind::Tool => choice.with(Facts::TOOL_CALL),
        EventKind::Token if is_last_token => choice.with(Facts::CONTENT).with(Facts::FINISH),
        EventKind::Token => choice.with(Facts::CONTENT),
        EventKind::Usage => Facts::JSON.with(Facts::USAGE),
        EventKind::Done => return Facts::DONE,
        EventKind::Comment => return Facts::COMMENT,
        EventKind::Error => Facts::JSON.with(Facts::ERROR),
        EventKind::Body | EventKind::Frame | EventKind::Malformed | EventKind::Piece => {
            return Facts::default();
        }
    };
    if record.path == "/v1/completions" { facts.with(Facts::COMPLETION) } else { facts }
}

/// How it ends for a client that sees what was written.
fn outcome(record: &Record) -> Outcome {
    let message = || format!("the truth log says {:?}", record.outcome);
    if record.events.contains(&EventKind::Error) {
        Outcome::InBand { message: message() }
    } else if record.events.contains(&EventKind::Malformed) {
        Outcome::Protocol { message: message() }
    } else if record.outcome == truth::Outcome::Complete {
        Outcome::Success
    } else {
        Outcome::Truncated { message: message() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A chat whose role is written 1 ms before the first token, with tokens 10 ms apart and the end 1 ms behind.
    fn record(arrival_ns: u64, ttft_ms: u64) -> Record {
        let first_ns = arrival_ns + ttft_ms * MS;
        let written_ns = vec![
            first_ns - MS,
            first_ns,
            first_ns + 10 * MS,
            first_ns + 20 * MS,
            first_ns + 20 * MS,
            first_ns + 21 * MS,
        ];
        serde_json::from_value(serde_json::json!({
            "id": "chatcmpl-1", "path": "/v1/chat/completions", "arrival_ns": arrival_ns,
            "prompt_tokens": 5, "completion_tokens": 3,
            "events": [["role", 1], ["token", 3], ["usage", 1], ["done", 1]],
            "due_ns": written_ns, "written_ns": written_ns, "outcome": "complete",
        }))
        .unwrap()
    }

    #[test]
    fn every_dialect_by_its_own_definitions() {
        let cut = Record { outcome: truth::Outcome::ClientGone, ..record(0, 500) };
        let whole = Record { events: vec![EventKind::Body], ..record(0, 1) };
        let (one, two) = (record(1000 * MS, 20), record(1005 * MS, 40));
        let figures: serde_json::Value = serde_json::from_str(&figures([&one, &two, &cut, &whole])).unwrap();
        assert_eq!((&figures["streams"], &figures["left_out"]), (&3.into(), &1.into()));
        let dialects = figures["dialects"].as_object().unwrap();
        assert_eq!(dialects.len(), Dialect::ALL.len());
        let is = |dialect: &str, pointer: &str, expected: f64| {
            let figure = dialects[dialect].pointer(pointer).and_then(serde_json::Value::as_f64).unwrap();
            assert!((figure - expected).abs() < 1e-9, "{dialect} {pointer}: {figure}");
        };
        // native ends TTFT with a token, vLLM 0.11.0 with the role 1 ms before it.
        is("native", "/ttft_ms/mean", 30.0);
        is("vllm-0.11.0", "/mean_ttft_ms", 29.0);
        is("native", "/e2el_ms/mean", 51.0);
        is("native", "/itl_ms/p50", 10.0);
        assert_eq!(dialects["vllm-0.11.0"]["completed"], 2);
    }
}
