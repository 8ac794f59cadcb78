//! An answer as a client would have recorded it.

use super::Flight;
use super::workload::Form;
use crate::timeline::{Events, Facts, Ns, Outcome, Reads, Timeline, Usage};

/// The timeline of a request that has ended: the events that the mock's default profile would have sent, each in a
/// read of its own.
#[must_use]
pub fn timeline(flight: &Flight) -> Timeline {
    let item = &flight.item;
    let Form { is_completion, is_stream, has_usage } = item.form;
    let end_ns = flight.end_ns();
    let chunk = Facts::JSON.with(Facts::CHOICES);
    let chunk = if is_completion { chunk.with(Facts::COMPLETION) } else { chunk };
    let mut events: Vec<(Ns, Facts)> = Vec::with_capacity(flight.tokens_ns.len() + 3);
    if is_stream {
        if let Some(first_ns) = flight.tokens_ns.first().filter(|_| !is_completion) {
            events.push((*first_ns, chunk.with(Facts::ROLE).with(Facts::EMPTY_CONTENT)));
        }
        events.extend(flight.tokens_ns.iter().map(|at_ns| (*at_ns, chunk.with(Facts::CONTENT))));
        if let Some((_, last)) = events.last_mut() {
            *last = last.with(Facts::FINISH);
        }
        if has_usage {
            events.push((end_ns, Facts::JSON.with(Facts::USAGE)));
        }
        events.push((end_ns, Facts::DONE));
    } else {
        events.push((end_ns, chunk.with(Facts::CONTENT).with(Facts::FINISH).with(Facts::USAGE)));
    }
    let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
    let (at_ns, facts): (Vec<Ns>, Vec<Facts>) = events.into_iter().unzip();
    Timeline {
        index: item.index,
        slot: flight.slot,
        scheduled_ns: flight.scheduled_ns,
        dispatched_ns: flight.dispatched_ns,
        written_ns: Some(flight.dispatched_ns),
        head_ns: at_ns.first().copied(),
        status: Some(200),
        reads: Reads { bytes: vec![0; at_ns.len()], at_ns, ..Reads::default() },
        events: Events { read: (0..count).collect(), facts, ..Events::default() },
        end_ns,
        outcome: Outcome::Success,
        input_tokens: Some(item.prompt_tokens),
        output_tokens: Some(item.output_tokens),
        usage: (has_usage || !is_stream).then_some(Usage {
            prompt_tokens: item.prompt_tokens,
            completion_tokens: u32::try_from(flight.tokens_ns.len()).unwrap_or(u32::MAX),
            cached_tokens: flight.cached_tokens,
            reasoning_tokens: None,
        }),
        finish_reason: Some("length".to_owned()),
        ..Timeline::default()
    }
}
