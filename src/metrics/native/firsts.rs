//! When the first of each thing came that a response may bring.

use serde::Serialize;

use super::{Distribution, succeeded};
use crate::metrics::Measurement;
use crate::timeline::{Facts, Ns, Timeline};

/// Times from the send, in milliseconds, of the successful requests whose response brought such a thing; absent where
/// none did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Firsts {
    /// The response's first byte, of its head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<Distribution>,
    /// The first event of any kind: it may say no more than that the server has taken the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Distribution>,
    /// The first event with text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Distribution>,
    /// The first event with reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Distribution>,
    /// The first event of a tool call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call: Option<Distribution>,
}

impl Firsts {
    pub(super) fn of(measurement: &Measurement<'_>) -> Self {
        let times = |first: &dyn Fn(&Timeline) -> Option<Ns>| {
            let since_send = |timeline: &Timeline| {
                first(timeline).map(|at| at.saturating_sub(timeline.dispatched_ns) as f64)
            };
            let times: Vec<f64> = succeeded(measurement.timelines).filter_map(since_send).collect();
            (!times.is_empty()).then(|| Distribution::of(times))
        };
        Self {
            byte: times(&Timeline::first_byte_ns),
            event: times(&|timeline| timeline.first_event_ns(|facts| !facts.has(Facts::COMMENT))),
            content: times(&|timeline| timeline.first_event_ns(|facts| facts.has(Facts::CONTENT))),
            reasoning: times(&|timeline| timeline.first_event_ns(Facts::is_reasoning)),
            tool_call: times(&|timeline| timeline.first_event_ns(|facts| facts.has(Facts::TOOL_CALL))),
        }
    }

    /// Whether there are kinds of output that a reader may want told apart: anything but text.
    #[must_use]
    pub fn has_kinds(&self) -> bool {
        self.reasoning.is_some() || self.tool_call.is_some()
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "small whole numbers are exact")]
mod tests {
    use super::*;
    use crate::timeline::{Events, Outcome, Reads};

    #[test]
    fn each_kind_has_its_own_time() {
        let facts = [
            Facts::COMMENT,
            Facts::ROLE.with(Facts::EMPTY_CONTENT),
            Facts::REASONING_CONTENT,
            Facts::REASONING,
            Facts::CONTENT,
            Facts::TOOL_CALL,
        ];
        let request = Timeline {
            dispatched_ns: 1_000_000,
            reads: Reads {
                at_ns: (2..8).map(|ms| ms * 1_000_000).collect(),
                bytes: vec![1; 6],
                ..Reads::default()
            },
            events: Events { read: (0..6).collect(), facts: facts.to_vec(), ..Events::default() },
            outcome: Outcome::Success,
            ..Timeline::default()
        };
        let plain =
            Timeline { reads: request.reads.clone(), outcome: Outcome::Success, ..Timeline::default() };
        let timelines = [request, plain];
        let measurement =
            Measurement { timelines: &timelines, duration_ns: 1, concurrency: None, request_rate: None };
        let Firsts { byte, event, content, reasoning, tool_call } = Firsts::of(&measurement);
        let one = |distribution: Option<Distribution>| {
            let Distribution { count, mean, .. } = distribution.unwrap();
            assert_eq!(count, 1);
            mean
        };
        assert_eq!(byte.unwrap().count, 2);
        assert_eq!([one(event), one(reasoning), one(content), one(tool_call)], [2.0, 3.0, 5.0, 6.0]);
        assert!(Firsts::of(&measurement).has_kinds());
        let none = Firsts::of(&Measurement { timelines: &timelines[1..], ..measurement });
        assert_eq!((none.event, none.has_kinds()), (None, false));
    }
}
