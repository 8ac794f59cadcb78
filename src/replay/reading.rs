//! A body's events, read part by part while the rest is still to come.
//!
//! A response of ten thousand tokens is megabytes of JSON, of which a few bytes an event are kept. So the sending side
//! hands a body on in parts, and no more than one part of each response is held as bytes.

use std::collections::VecDeque;

use super::event;
use super::exchange::shown;
use super::sse::{self, Payload};
use crate::timeline::{Facts, Outcome, Timeline};

/// A part of a response's body, in order.
#[derive(Debug, Default)]
pub struct Part {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Which read brought which of them, in order.
    pub marks: Vec<Mark>,
}

/// Up to where the body had come with a read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    /// The index of the read.
    pub read: u32,
    /// The body's length after it, from the body's beginning.
    pub end: usize,
}

/// What a body's events have said so far.
#[derive(Debug, Default)]
pub struct Reading {
    /// The bytes that no blank line has closed yet.
    open: Vec<u8>,
    /// Where in the body they begin.
    start: usize,
    /// The read that brought the last event.
    mark: Mark,
    /// The reads after it.
    marks: VecDeque<Mark>,
    /// The server's count of completion tokens with each event, where it sent one.
    counts: Vec<Option<u32>>,
    /// Of the timeline, what the events tell; its text is kept in any case.
    pub(super) timeline: Timeline,
    /// The first event that says, or is, a fault.
    pub(super) fault: Option<Outcome>,
}

impl Reading {
    /// Reads the events that are complete with the next part.
    pub fn read(&mut self, part: Part) {
        self.append(part);
        let closed = closed(&self.open);
        if closed > 0 {
            let mut open = std::mem::take(&mut self.open);
            self.read_events(&open[..closed]);
            open.drain(..closed);
            self.open = open;
            self.start += closed;
        }
    }

    /// Reads the body's last part, with the event that no blank line closed. Where the body was cut off, so was that
    /// event: what it says amiss is not its fault.
    #[must_use]
    pub fn finish(mut self, part: Part, cut_off: bool) -> Self {
        self.read(part);
        let fault = self.fault.clone();
        let open = std::mem::take(&mut self.open);
        self.read_events(&open);
        if cut_off {
            self.fault = fault;
        }
        self.timeline.events.tokens = running_counts(&self.timeline.events.facts, &self.counts);
        self
    }

    fn append(&mut self, part: Part) {
        self.marks.extend(part.marks);
        if self.open.is_empty() {
            self.open = part.bytes;
        } else {
            self.open.extend_from_slice(&part.bytes);
        }
    }

    /// Reads whole events, of which the first begins where the open bytes do.
    fn read_events(&mut self, bytes: &[u8]) {
        // Only what begins the body can be a byte order mark.
        let events = if self.start == 0 { sse::events(bytes) } else { sse::later_events(bytes) };
        let timeline = &mut self.timeline;
        let text = timeline.text.get_or_insert_default();
        for sse in events {
            while self.mark.end < self.start + sse.end {
                // Every byte of the body came with a mark; were one missing, the last read would stand for it.
                match self.marks.pop_front() {
                    Some(next) => self.mark = next,
                    None => break,
                }
            }
            let meaning = match &sse.payload {
                Payload::Comment => event::Meaning::of(Facts::COMMENT),
                Payload::Data(data) => event::read(data),
            };
            if let (Payload::Data(data), None) = (&sse.payload, &self.fault) {
                if meaning.facts.has(Facts::ERROR) {
                    self.fault = Some(Outcome::InBand { message: shown(data) });
                } else if !meaning.facts.any(Facts::JSON.with(Facts::DONE)) {
                    self.fault = Some(Outcome::Protocol {
                        message: format!("an event that is not JSON: {}", shown(data)),
                    });
                }
            }
            timeline.events.push(self.mark.read, meaning.facts, meaning.choice);
            self.counts.push(meaning.usage.map(|usage| usage.completion_tokens));
            text.extend(meaning.text());
            timeline.usage = meaning.usage.or(timeline.usage);
            timeline.server_times = meaning.server_times.or(timeline.server_times);
            if let (None, Some(id)) = (&timeline.response_id, &meaning.id) {
                timeline.response_id = Some(id.clone().into_owned());
            }
            if let Some(reason) = meaning.finish_reason {
                timeline.finish_reason = Some(reason.into_owned());
            }
        }
    }
}

/// Where the last blank line ends; 0 if there is none. Lines that end in a carriage return alone, which the
/// specification allows and no server sends, are read with the body's last part.
fn closed(bytes: &[u8]) -> usize {
    memchr::memrchr_iter(b'\n', bytes)
        .find(|&at| {
            let line = &bytes[..at];
            line.ends_with(b"\n") || line.ends_with(b"\n\r")
        })
        .map_or(0, |at| at + 1)
}

/// The running count of completion tokens after each event, where the server sends one with every choice.
fn running_counts(facts: &[Facts], counts: &[Option<u32>]) -> Vec<u32> {
    let continuous =
        facts.iter().zip(counts).all(|(facts, count)| !facts.has(Facts::CHOICES) || count.is_some());
    if !continuous || !facts.iter().any(|facts| facts.has(Facts::CHOICES)) {
        return Vec::new();
    }
    counts
        .iter()
        .scan(0, |last, count| {
            *last = count.unwrap_or(*last);
            Some(*last)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that come with one read each, handed on in parts that end there.
    fn read(body: &[u8], cuts: &[usize]) -> Reading {
        let mut reading = Reading::default();
        let mut from = 0;
        let mut part = |to: usize| {
            let part = Part {
                bytes: body[from..to].to_vec(),
                marks: (from + 1..=to)
                    .map(|end| Mark { read: u32::try_from(end - 1).unwrap(), end })
                    .collect(),
            };
            from = to;
            part
        };
        for cut in cuts {
            reading.read(part(*cut));
            assert!(reading.open.len() <= 200, "what is closed is not kept");
        }
        reading.finish(part(body.len()), false)
    }

    proptest! {
        /// However a body is cut, its events are the same, and so are the reads that brought them.
        #[test]
        fn parts_say_what_the_whole_says(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("data: {\"id\":\"a\",\"choices\":[{\"delta\":{\"content\":\"é\"}}]}\n\n"),
                    Just("data: {\"choices\":[{\"text\":\"y\",\"finish_reason\":\"stop\"}]}\r\n\r\n"),
                    Just("data: {\"choices\":[],\ndata: \"usage\":{\"completion_tokens\":2}}\n\r\n"),
                    Just(": ping\n\n"),
                    Just(": ping\n"),
                    Just("\n"),
                    Just("\u{feff}data: {oops}\n\n"),
                    Just("data: [DONE]\n\n"),
                ],
                0..8,
            ),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let body = pieces.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.sort_unstable();
            let (whole, parts) = (read(&body, &[]), read(&body, &cuts));
            prop_assert_eq!(whole.timeline, parts.timeline);
            prop_assert_eq!(whole.fault, parts.fault);
        }
    }

    #[test]
    fn a_part_ends_where_a_blank_line_does() {
        assert_eq!(closed(b"data: 1\n\ndata: 2\n"), 9);
        assert_eq!(closed(b"data: 1\r\n\r\ndata: 2\r\n\r"), 11);
        assert_eq!(closed(b"\n\n\n"), 3);
        assert_eq!(closed(b"data: 1\n"), 0);
        assert_eq!(closed(b""), 0);
    }
}
