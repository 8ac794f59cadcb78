//! Which events the Python peers' stream reader hands on, and when.
//!
//! `vllm bench serve` up to 0.32.0 and `evalscope perf` 1.1.1 share one reader (`StreamedResponseHandler` in
//! `vllm/benchmarks/lib/endpoint_request_func.py` and `evalscope/perf/plugin/api/default_api.py`). It strips the
//! white space off each socket read before it looks for the blank line that ends an event. A read that ends with a
//! comment (`: ping`), or with data that is not JSON, thereby loses that message's end: it sticks in the buffer and
//! takes the next event with it, and where each later read holds one event, all the rest of the stream. From 0.33.0
//! on `vllm bench serve` reads what was sent.

use crate::timeline::{Facts, Ns, Timeline};

/// The messages of one response as the peers' reader sees them, each with its read's stamp: no comments, no
/// `[DONE]`, and nothing that got stuck. Facts without [`Facts::JSON`] are a message that the peers cannot parse.
///
/// One thing a timeline does not say is whether the start of another event followed in the same read; servers write
/// events whole, so none is assumed.
pub(super) fn messages(timeline: &Timeline) -> impl Iterator<Item = (Ns, Facts)> + '_ {
    let reads = &timeline.events.read;
    // What the reader's buffer begins with, where its end was lost.
    let mut stuck: Option<Facts> = None;
    timeline.stamped_events().enumerate().filter_map(move |(i, (at, facts))| {
        let ends_read = reads.get(i + 1).is_none_or(|next| *next != reads[i]);
        let whole = facts.any(Facts::JSON.with(Facts::DONE));
        // Whatever follows a stuck message belongs to it: a comment if that was one, else not JSON.
        let message = stuck.take().map_or(facts, |head| Facts(head.0 & Facts::COMMENT.0));
        if ends_read && (message != facts || !whole) {
            stuck = Some(message);
            return None;
        }
        let silent = message.any(Facts::COMMENT.with(Facts::DONE));
        (!silent).then_some((at, message))
    })
}

/// The messages of one response as a reader sees them that strips nothing (0.33.0): every event, each with its read's
/// stamp, without comments and `[DONE]`.
pub(super) fn whole_messages(timeline: &Timeline) -> impl Iterator<Item = (Ns, Facts)> + '_ {
    timeline.stamped_events().filter(|(_, facts)| !facts.any(Facts::COMMENT.with(Facts::DONE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{Events, Reads};

    /// The indices of the events handed on; `events` are (read, facts).
    fn handed_on(events: &[(u32, Facts)]) -> Vec<Ns> {
        let timeline = Timeline {
            // The stamp of a read is its number, so that a stamp names its read.
            reads: Reads { at_ns: (0..10).collect(), bytes: vec![1; 10], ..Reads::default() },
            events: Events {
                read: events.iter().map(|event| event.0).collect(),
                facts: events.iter().map(|event| event.1).collect(),
                ..Events::default()
            },
            ..Timeline::default()
        };
        messages(&timeline).map(|(at, _)| at).collect()
    }

    #[test]
    fn broken_data_is_handed_on_only_when_its_end_is_seen() {
        assert_eq!(handed_on(&[(0, Facts::default()), (0, TOKEN)]), [0, 0]);
        assert_eq!(handed_on(&[(0, TOKEN), (1, Facts::default()), (2, TOKEN)]), [0]);
        assert_eq!(handed_on(&[(1, Facts::default()), (2, TOKEN), (3, TOKEN), (3, TOKEN)]), [3, 3]);
    }

    const TOKEN: Facts = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);

    #[test]
    fn a_comment_at_the_end_of_a_read_swallows_single_events() {
        assert_eq!(
            handed_on(&[(0, TOKEN), (1, Facts::COMMENT), (2, TOKEN), (3, TOKEN), (4, Facts::DONE)]),
            [0]
        );
    }

    #[test]
    fn two_events_in_a_read_free_the_stream_again() {
        let events = [(0, Facts::COMMENT), (1, TOKEN), (2, TOKEN), (2, TOKEN), (3, TOKEN)];
        assert_eq!(handed_on(&events), [2, 3]);
    }

    #[test]
    fn a_comment_before_an_event_in_one_read_does_no_harm() {
        assert_eq!(handed_on(&[(0, Facts::COMMENT), (0, TOKEN), (1, TOKEN), (2, Facts::DONE)]), [0, 1]);
    }
}
