//! How many requests, tokens and events there were.

use std::collections::BTreeMap;

use serde::Serialize;

use super::latencies::{output_events, outputs_by_choice};
use crate::timeline::{Facts, Outcome, Timeline};

/// How many requests there were, and how they ended; `total = succeeded + failed + cancelled_on_purpose + cancelled +
/// not_sent`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Requests {
    /// All of them.
    pub total: u64,
    /// Complete responses with at least one token.
    pub succeeded: u64,
    /// Failed by themselves.
    pub failed: u64,
    /// The failures by [`Outcome::kind`].
    pub failed_by_kind: BTreeMap<&'static str, u64>,
    /// Broken off on purpose.
    pub cancelled_on_purpose: u64,
    /// Cut off by an interruption of the run.
    pub cancelled: u64,
    /// Never sent.
    pub not_sent: u64,
    /// How often they were sent, all attempts together.
    pub attempts: u64,
    /// Sent more than once.
    pub retried: u64,
}

/// Token and event counts of the successful requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Tokens {
    /// Prompt tokens: the server's counts, else the tape's.
    pub input: u64,
    /// Output tokens: the server's counts, else the number of output events.
    pub output: u64,
    /// Of the input, tokens that the server had in its prefix cache; absent where it told for no request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached: Option<u64>,
    /// Of the output, tokens of reasoning; absent where the server told for no request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
    /// Requests whose output tokens are a count of events, because the server sent no count.
    pub requests_without_usage: u64,
    /// Output events.
    pub output_events: u64,
    /// Output events that share their socket read with another of the same choice: their gap of 0 says nothing about
    /// the server.
    pub merged_read_events: u64,
    /// `merged_read_events / output_events`.
    pub merged_read_share: f64,
    /// Output events with nothing to see: tokens that cannot be shown yet, or ever.
    pub silent_events: u64,
}

impl Requests {
    /// Adds one request.
    pub(super) fn add(&mut self, timeline: &Timeline) {
        self.total += 1;
        self.attempts += timeline.times_sent();
        self.retried += u64::from(timeline.times_sent() > 1);
        match &timeline.outcome {
            Outcome::Success => self.succeeded += 1,
            Outcome::Cancelled => self.cancelled += 1,
            Outcome::CancelledOnPurpose => self.cancelled_on_purpose += 1,
            Outcome::NotSent => self.not_sent += 1,
            failure => {
                self.failed += 1;
                *self.failed_by_kind.entry(failure.kind()).or_default() += 1;
            }
        }
    }
}

impl Tokens {
    /// Adds one successful request.
    pub(super) fn add(&mut self, timeline: &Timeline) {
        self.input += u64::from(timeline.prompt_tokens().unwrap_or(0));
        let output = output_tokens(timeline);
        self.output += output.count;
        self.requests_without_usage += u64::from(!output.from_server);

        let told = |sum: &mut Option<u64>, count: Option<u32>| {
            if let Some(count) = count {
                *sum.get_or_insert_default() += u64::from(count);
            }
        };
        told(&mut self.cached, timeline.usage.and_then(|usage| usage.cached_tokens));
        told(&mut self.reasoning, timeline.usage.and_then(|usage| usage.reasoning_tokens));

        let read = |i: usize| timeline.events.read[i];
        for outputs in outputs_by_choice(timeline) {
            self.output_events += outputs.len() as u64;
            let merged = outputs.chunk_by(|a, b| read(*a) == read(*b)).map(<[usize]>::len);
            self.merged_read_events += merged.filter(|&events| events > 1).sum::<usize>() as u64;
        }
        if self.output_events > 0 {
            self.merged_read_share = self.merged_read_events as f64 / self.output_events as f64;
        }

        let silent = |facts: &&Facts| facts.is_output() && !facts.is_visible();
        self.silent_events += timeline.events.facts.iter().filter(silent).count() as u64;
    }
}

/// A request's output tokens.
pub(in crate::metrics) struct OutputTokens {
    pub(in crate::metrics) count: u64,
    /// Whether the server said so.
    from_server: bool,
}

pub(in crate::metrics) fn output_tokens(timeline: &Timeline) -> OutputTokens {
    let usage = timeline.usage.map(|usage| usage.completion_tokens);
    match usage.or(timeline.events.tokens.last().copied()) {
        Some(count) => OutputTokens { count: u64::from(count), from_server: true },
        None => OutputTokens { count: output_events(timeline).count() as u64, from_server: false },
    }
}
