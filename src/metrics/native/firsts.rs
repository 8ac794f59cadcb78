//! When the first of each thing came that a response may bring.

use serde::Serialize;

use super::{Distribution, Values};
use crate::timeline::{Facts, Timeline};

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

/// The times behind [`Firsts`], in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FirstTimes<V> {
    byte: V,
    event: V,
    content: V,
    reasoning: V,
    tool_call: V,
}

impl<V: Values> FirstTimes<V> {
    /// Adds one successful request.
    pub(super) fn add(&mut self, timeline: &Timeline) {
        let event = |is_wanted: fn(Facts) -> bool| timeline.first_event_ns(is_wanted);
        for (times, first_ns) in [
            (&mut self.byte, timeline.first_byte_ns()),
            (&mut self.event, event(|facts| !facts.has(Facts::COMMENT))),
            (&mut self.content, event(|facts| facts.has(Facts::CONTENT))),
            (&mut self.reasoning, event(Facts::is_reasoning)),
            (&mut self.tool_call, event(|facts| facts.has(Facts::TOOL_CALL))),
        ] {
            if let Some(at_ns) = first_ns {
                times.add(at_ns.saturating_sub(timeline.dispatched_ns) as f64);
            }
        }
    }

    pub(super) fn firsts(self) -> Firsts {
        let some = |times: V| Some(times.distribution()).filter(|distribution| distribution.count > 0);
        Firsts {
            byte: some(self.byte),
            event: some(self.event),
            content: some(self.content),
            reasoning: some(self.reasoning),
            tool_call: some(self.tool_call),
        }
    }
}

impl Firsts {
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
        let firsts = |timelines: &[&Timeline]| {
            let mut times = FirstTimes::<Vec<f64>>::default();
            for timeline in timelines {
                times.add(timeline);
            }
            times.firsts()
        };
        let both = firsts(&[&request, &plain]);
        let Firsts { byte, event, content, reasoning, tool_call } = both;
        let one = |distribution: Option<Distribution>| {
            let Distribution { count, mean, .. } = distribution.unwrap();
            assert_eq!(count, 1);
            mean
        };
        assert_eq!(byte.unwrap().count, 2);
        assert_eq!([one(event), one(reasoning), one(content), one(tool_call)], [2.0, 3.0, 5.0, 6.0]);
        assert!(both.has_kinds());
        let none = firsts(&[&plain]);
        assert_eq!((none.event, none.has_kinds()), (None, false));
    }
}
