//! The latencies of single requests: each definition once, however its values are kept.

use std::collections::BTreeMap;

use super::{Distribution, output_tokens};
use crate::timeline::{Facts, Ns, Timeline};

/// The values of one quantity, in nanoseconds.
pub trait Values: Default {
    /// Adds a value.
    fn add(&mut self, ns: f64);
    /// Their statistics, in milliseconds.
    fn distribution(self) -> Distribution;
}

/// All of them, in the order in which they came.
impl Values for Vec<f64> {
    fn add(&mut self, ns: f64) {
        self.push(ns);
    }

    fn distribution(self) -> Distribution {
        Distribution::of(self)
    }
}

/// The latencies of a run's successful requests, in nanoseconds, in tape order.
pub type Samples = Latencies<Vec<f64>>;

/// The latencies of successful requests, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies<V> {
    /// First output event, from the send.
    pub ttft_ns: V,
    /// First output event, from the scheduled time.
    pub ttft_from_scheduled_ns: V,
    /// Gaps between output events.
    pub itl_ns: V,
    /// Time per output token after the first.
    pub tpot_ns: V,
    /// End of the response, from the send.
    pub e2el_ns: V,
    /// End of the response, from the scheduled time.
    pub e2el_from_scheduled_ns: V,
    /// First output event, from the last send.
    pub ttft_from_last_attempt_ns: V,
    /// End of the response, from the last send.
    pub e2el_from_last_attempt_ns: V,
}

impl<V: Values> Latencies<V> {
    /// Adds one successful request.
    pub(in crate::metrics) fn add(&mut self, timeline: &Timeline) {
        let since_send = |at: Ns| at.saturating_sub(timeline.dispatched_ns) as f64;
        let since_last = |at: Ns| at.saturating_sub(timeline.last_dispatched_ns()) as f64;
        let since_schedule = |at: Ns| at.saturating_sub(timeline.scheduled_ns) as f64;

        if let Some(first) = output_events(timeline).next() {
            let first = timeline.event_ns(first);
            self.ttft_ns.add(since_send(first));
            self.ttft_from_scheduled_ns.add(since_schedule(first));
            self.ttft_from_last_attempt_ns.add(since_last(first));
            let mut span = 0;
            let choices = outputs_by_choice(timeline);
            for outputs in &choices {
                let at = |i: usize| timeline.event_ns(i);
                for pair in outputs.windows(2) {
                    self.itl_ns.add(at(pair[1]).saturating_sub(at(pair[0])) as f64);
                }
                span += at(outputs[outputs.len() - 1]).saturating_sub(at(outputs[0]));
            }
            let after_first = output_tokens(timeline).count.saturating_sub(choices.len() as u64);
            if after_first > 0 {
                self.tpot_ns.add(span as f64 / after_first as f64);
            }
        }
        let end = response_end(timeline);
        self.e2el_ns.add(since_send(end));
        self.e2el_from_scheduled_ns.add(since_schedule(end));
        self.e2el_from_last_attempt_ns.add(since_last(end));
    }
}

/// The indices of the output events.
pub(in crate::metrics) fn output_events(timeline: &Timeline) -> impl Iterator<Item = usize> + '_ {
    let facts = &timeline.events.facts;
    (0..facts.len()).filter(|&i| facts[i].is_output())
}

/// The indices of the output events of each choice that has any.
pub(crate) fn outputs_by_choice(timeline: &Timeline) -> Vec<Vec<usize>> {
    let mut choices: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for i in output_events(timeline) {
        choices.entry(timeline.events.choice(i)).or_default().push(i);
    }
    choices.into_values().collect()
}

/// The `[DONE]` event, else the last event, else the end of the body.
fn response_end(timeline: &Timeline) -> Ns {
    let facts = &timeline.events.facts;
    let done = facts.iter().rposition(|facts| facts.has(Facts::DONE));
    let last = || facts.iter().rposition(|facts| !facts.has(Facts::COMMENT));
    done.or_else(last).map_or(timeline.end_ns, |i| timeline.event_ns(i))
}
