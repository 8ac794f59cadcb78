//! One HTTP exchange as raw bytes and stamps, and what it means. The measured path fills it; [`Exchange::timeline`],
//! called elsewhere, parses it.

#[cfg(test)]
mod tests;

use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use tokentape_pacer::monotonic_ns;
use tokio::sync::oneshot;

use super::cancel::Watch;
use super::event::document;
use super::plan::Prepared;
use super::reading::{Mark, Part, Reading};
use super::retry::Failure;
use super::transport::Stamps;
use crate::timeline::{Events, Facts, Ns, Outcome, Reads, Timeline};

/// How much of a stream of events is held before it is handed on: some eight events, so that handing on costs little,
/// and 2 MB for a thousand streams.
pub(super) const PART_BYTES: usize = 2 * 1024;

/// How much of a failed response is kept to show why it failed.
const SHOWN: usize = 4096;

/// One exchange: stamps in ns of the monotonic clock, and the body's bytes.
#[derive(Debug)]
pub struct Exchange {
    /// The request's index in the tape.
    pub index: u64,
    /// The slot that carried it.
    pub slot: u32,
    /// When the schedule wanted it sent.
    pub scheduled: u64,
    /// When the client began to send it.
    pub dispatched: u64,
    /// When a connection opened for it was ready.
    pub connected: Option<u64>,
    /// The response's head, once it has come.
    pub head: Option<Head>,
    /// The body: all of it, or what has come since a part of it was handed on.
    pub body: Part,
    /// How many bytes were handed on.
    pub handed_on: usize,
    /// Who is given a stream of events in parts; without, it is held as a whole.
    pub collector: Option<Sender<News>>,
    /// What reads the body here, so that it can be broken off after some tokens.
    pub(super) watch: Option<Box<Watch>>,
    /// Each read of the socket, and the last write.
    pub stamps: Stamps,
    /// When it ended.
    pub ended: u64,
    /// How it ended, as HTTP sees it.
    pub ending: Ending,
    /// Whether the timeline is to have the generated text in any case; else only where the server sent no usage.
    pub keeps_text: bool,
    /// Who waits for what the server said.
    pub(super) successor: Option<Successor>,
    /// The tape's token counts.
    tokens: (Option<u32>, Option<u32>),
    /// The request's body.
    asked: Bytes,
}

/// A response's head.
#[derive(Debug)]
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// Whether its content type is `text/event-stream`.
    pub is_stream: bool,
    /// How the body is compressed, where it is.
    pub encoding: Option<String>,
    /// How long the server asks to wait before another attempt (`Retry-After`, where it is a number of seconds).
    pub retry_after: Option<Duration>,
    /// The read that completed it.
    pub read: u32,
    /// When the request's last byte had been written.
    pub written: u64,
}

/// The turn that follows a turn of a conversation, and repeats what the server said to it.
#[derive(Debug)]
pub(super) struct Successor {
    /// The place of the exchange's own request in the plan.
    pub(super) place: usize,
    /// The place of the request that follows.
    pub(super) next: usize,
    /// Takes that request's body.
    pub(super) body: oneshot::Sender<Bytes>,
}

/// What a slot tells of its exchange.
#[derive(Debug)]
pub enum News {
    /// A part of a body; more is to come.
    Part {
        /// The slot whose exchange it is.
        slot: u32,
        /// The part.
        part: Part,
        /// When it was handed on.
        at: u64,
    },
    /// It has failed, and its request is sent again.
    Attempt {
        /// The exchange.
        exchange: Box<Exchange>,
        /// When it was decided.
        at: u64,
    },
    /// It has ended.
    End(Box<Exchange>),
}

impl News {
    /// When the slot told it, or about then, on the monotonic clock.
    #[must_use]
    pub fn told_at(&self) -> u64 {
        match self {
            Self::Part { at, .. } | Self::Attempt { at, .. } => *at,
            Self::End(exchange) => exchange.ended,
        }
    }
}

/// How an exchange ended, as HTTP sees it.
#[derive(Debug)]
pub enum Ending {
    /// The response was complete.
    Complete,
    /// No connection could be opened.
    Connect(String),
    /// The connection broke, or closed too soon.
    Broken(String),
    /// The time limit passed.
    Timeout {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The run was interrupted.
    Cancelled,
    /// It was broken off on purpose.
    CancelledOnPurpose,
    /// The body was larger than any that is kept.
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
}

impl Exchange {
    /// An exchange that begins now.
    #[must_use]
    pub fn new(request: &Prepared, slot: u32, scheduled: u64, dispatched: u64) -> Self {
        Self {
            index: request.index,
            slot,
            scheduled,
            dispatched,
            connected: None,
            head: None,
            body: Part::default(),
            handed_on: 0,
            collector: None,
            watch: None,
            stamps: Stamps::default(),
            ended: dispatched,
            ending: Ending::Cancelled,
            keeps_text: false,
            successor: None,
            tokens: (request.input_tokens, request.output_tokens),
            asked: request.body.clone(),
        }
    }

    /// How many bytes of the body have come.
    #[must_use]
    pub fn received(&self) -> usize {
        self.handed_on + self.body.bytes.len()
    }

    /// Takes in what a read brought of the body. What no longer fits beside it is handed on first.
    pub fn receive(&mut self, data: &[u8], read: u32) {
        if self.watch.is_some() && self.is_readable() {
            self.handed_on += data.len();
            let mark = Mark { read, end: self.handed_on };
            if let Some(watch) = &mut self.watch {
                watch.receive(data, mark);
            }
            return;
        }
        let held = self.body.bytes.len();
        if held > 0 && held + data.len() > PART_BYTES {
            self.hand_on();
        }
        self.body.bytes.extend_from_slice(data);
        self.body.marks.push(Mark { read, end: self.received() });
    }

    /// Whether as many tokens have come as were to come.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_enough())
    }

    /// How it failed, where another attempt may do better: as far as HTTP sees it.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let status = self.head.as_ref().map(|head| head.status).filter(|status| *status != 200);
        match (&self.ending, status) {
            (Ending::Connect(_), _) => Some(Failure::Connect),
            (Ending::Timeout { .. }, _) => Some(Failure::Timeout),
            (Ending::Complete | Ending::Broken(_), Some(status)) => {
                Failure::is_status(status).then_some(Failure::Status)
            }
            (Ending::Broken(_), None) => Some(Failure::Truncated),
            _ => None,
        }
    }

    fn hand_on(&mut self) {
        if let Some(collector) = self.collector.as_ref().filter(|_| self.is_readable()) {
            let next = Part {
                bytes: Vec::with_capacity(PART_BYTES),
                marks: Vec::with_capacity(self.body.marks.len()),
            };
            self.handed_on += self.body.bytes.len();
            let part = std::mem::replace(&mut self.body, next);
            // The collector outlives every exchange.
            drop(collector.send(News::Part { slot: self.slot, part, at: monotonic_ns() }));
        }
    }

    /// Whether the body is a stream of events.
    fn is_readable(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.status == 200 && head.is_stream && head.encoding.is_none())
    }

    /// Whether the body is one that came whole, and is no stream.
    fn is_document(&self) -> bool {
        matches!(self.ending, Ending::Complete)
            && self
                .head
                .as_ref()
                .is_some_and(|head| head.status == 200 && !head.is_stream && head.encoding.is_none())
    }

    /// Parses the exchange, of whose body nothing was handed on. `origin` is the run's start on the monotonic clock.
    #[must_use]
    pub fn timeline(self, origin: u64) -> Timeline {
        self.timeline_after(Reading::default(), origin)
    }

    /// Parses the exchange, after what was handed on of its body has been read.
    #[must_use]
    pub fn timeline_after(mut self, reading: Reading, origin: u64) -> Timeline {
        let body = std::mem::take(&mut self.body);
        let reading = self.watch.take().map_or(reading, |watch| watch.reading);
        let (told, fault, body) = if self.is_readable() {
            let reading = reading.finish(body, matches!(self.ending, Ending::Broken(_)));
            (reading.timeline, reading.fault, Part::default())
        } else if self.is_document() {
            let (told, fault) = told_by_document(&body.bytes, &self.asked);
            (told, fault, body)
        } else {
            (Timeline::default(), None, body)
        };
        let since = |at: u64| -> Ns { at.saturating_sub(origin) };
        let read_at = |read: u32| self.stamps.reads_at.get(read as usize).copied();
        let mut timeline = Timeline {
            index: self.index,
            slot: self.slot,
            scheduled_ns: since(self.scheduled),
            dispatched_ns: since(self.dispatched),
            connected_ns: self.connected.map(since),
            written_ns: self.head.as_ref().map(|head| since(head.written)),
            head_ns: self.head.as_ref().and_then(|head| read_at(head.read)).map(since),
            status: self.head.as_ref().map(|head| head.status),
            end_ns: since(self.ended),
            input_tokens: self.tokens.0,
            output_tokens: self.tokens.1,
            ..told
        };
        timeline.text = timeline.text.filter(|_| self.keeps_text || timeline.usage.is_none());
        timeline.outcome = outcome(&self.ending, self.head.as_ref(), &body.bytes, &timeline.events, fault);
        timeline.reads = Reads {
            // In place.
            at_ns: self.stamps.reads_at.into_iter().map(since).collect(),
            late_ns: self.stamps.reads_late,
            bytes: self.stamps.reads_bytes,
        };
        // A run keeps thousands of them.
        timeline.reads.at_ns.shrink_to_fit();
        timeline.reads.late_ns.shrink_to_fit();
        timeline.reads.bytes.shrink_to_fit();
        timeline.events.read.shrink_to_fit();
        timeline.events.facts.shrink_to_fit();
        timeline.events.choices.shrink_to_fit();
        timeline
    }
}

/// How the request ended: the earliest cause wins.
fn outcome(
    ending: &Ending,
    head: Option<&Head>,
    body: &[u8],
    events: &Events,
    fault: Option<Outcome>,
) -> Outcome {
    match ending {
        Ending::Connect(message) => {
            return Outcome::Connect { message: message.clone() };
        }
        Ending::Cancelled => return Outcome::Cancelled,
        Ending::Timeout { limit_ms } => return Outcome::Timeout { limit_ms: *limit_ms },
        Ending::CancelledOnPurpose | Ending::Complete | Ending::Broken(_) | Ending::TooLarge { .. } => {}
    }
    if head.is_some_and(|head| head.status != 200) {
        return Outcome::Status { body: shown(body) };
    }
    if let Some(fault) = fault {
        return fault;
    }
    match ending {
        Ending::CancelledOnPurpose => return Outcome::CancelledOnPurpose,
        Ending::Broken(message) => {
            return Outcome::Truncated { message: format!("{message}, after {} events", events.len()) };
        }
        Ending::TooLarge { limit } => {
            return Outcome::Protocol { message: format!("a response of more than {limit} bytes") };
        }
        _ => {}
    }
    if let Some(encoding) = head.and_then(|head| head.encoding.as_deref()) {
        let message = format!(
            "the response is compressed ({encoding}), and compressed events cannot be timed one by one; switch that off at the server or the gateway"
        );
        return Outcome::Protocol { message };
    }
    if !head.is_some_and(|head| head.is_stream) {
        // A document without a fault.
        return Outcome::Success;
    }
    if !events.facts.iter().any(|facts| facts.any(Facts::DONE.with(Facts::FINISH))) {
        let message =
            format!("the stream ended without [DONE] or a finish reason, after {} events", events.len());
        return Outcome::Truncated { message };
    }
    if !events.facts.iter().any(|facts| facts.is_output()) {
        return Outcome::NoTokens;
    }
    Outcome::Success
}

/// What a response that is no stream tells, and its fault, where it has one.
fn told_by_document(body: &[u8], asked: &[u8]) -> (Timeline, Option<Outcome>) {
    let Some(document) = document::read(body) else {
        let message =
            format!("the response is neither a stream of events nor an answer in JSON: {}", shown(body));
        return (Timeline::default(), Some(Outcome::Protocol { message }));
    };
    let fault = if document.is_error {
        Some(Outcome::InBand { message: shown(body) })
    } else if document::asks_for_stream(asked) {
        let message = "the response is not a stream of events, though the request asks for one";
        Some(Outcome::Protocol { message: message.to_owned() })
    } else {
        (!document.has_output).then_some(Outcome::NoTokens)
    };
    let told = Timeline {
        usage: document.usage,
        response_id: document.id,
        finish_reason: document.finish_reason,
        text: document.text,
        ..Timeline::default()
    };
    (told, fault)
}

/// The beginning of what a server said.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned()
}
