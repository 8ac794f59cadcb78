//! One HTTP exchange as raw bytes and stamps, and what it means. The measured path fills it; [`Exchange::timeline`],
//! called elsewhere, parses it.

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

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    const LAST: &str =
        "data: {\"choices\":[{\"delta\":{\"content\":\"y\"},\"finish_reason\":\"length\"}]}\n\n";
    const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    /// An exchange whose body came in the given pieces, piece i with the read at 1000 + 10 i.
    fn exchange(pieces: &[&str], ending: Ending) -> Exchange {
        let request = Prepared {
            index: 7,
            offset_ns: 0,
            method: http::Method::POST,
            path: http::Uri::from_static("/v1/chat/completions"),
            body: bytes::Bytes::new(),
            headers: None,
            input_tokens: Some(3),
            output_tokens: Some(2),
            session: None,
        };
        let mut exchange = Exchange::new(&request, 0, 900, 910);
        exchange.head = Some(Head {
            status: 200,
            is_stream: true,
            encoding: None,
            retry_after: None,
            read: 0,
            written: 920,
        });
        for (read, piece) in (0..).zip(pieces) {
            exchange.stamps.reads_at.push(1000 + 10 * u64::from(read));
            exchange.stamps.reads_late.push(0);
            exchange.stamps.reads_bytes.push(u32::try_from(piece.len()).unwrap());
            exchange.receive(piece.as_bytes(), read);
        }
        exchange.ending = ending;
        exchange.ended = 2000;
        exchange
    }

    #[test]
    fn a_complete_stream() {
        let timeline = exchange(&[ROLE, TOKEN, LAST, USAGE, DONE], Ending::Complete).timeline(900);
        assert_eq!(timeline.outcome, Outcome::Success);
        assert_eq!(timeline.events.read, [0, 1, 2, 3, 4]);
        assert_eq!(timeline.event_ns(2), 120);
        assert_eq!(
            (timeline.dispatched_ns, timeline.written_ns, timeline.head_ns),
            (10, Some(20), Some(100))
        );
        assert_eq!(timeline.usage.unwrap().completion_tokens, 2);
        assert_eq!(timeline.response_id.as_deref(), Some("chatcmpl-1"));
        assert_eq!(timeline.finish_reason.as_deref(), Some("length"));
        assert_eq!(timeline.text, None);
    }

    #[test]
    fn the_text_is_kept_where_it_is_asked_for() {
        let mut exchange = exchange(&[ROLE, TOKEN, LAST, USAGE, DONE], Ending::Complete);
        exchange.keeps_text = true;
        assert_eq!(exchange.timeline(900).text.as_deref(), Some("xy"));
    }

    #[test]
    fn what_was_handed_on_is_read_as_if_it_had_not_been() {
        let count = 3 * PART_BYTES / TOKEN.len();
        let pieces = [&[ROLE][..], &vec![TOKEN; count], &[LAST, USAGE, DONE]].concat();
        let whole = exchange(&pieces, Ending::Complete).timeline(900);
        let (collector, news) = std::sync::mpsc::channel();
        let mut parts = exchange(&[], Ending::Complete);
        parts.collector = Some(collector);
        for (read, piece) in (0..).zip(&pieces) {
            parts.receive(piece.as_bytes(), read);
            assert!(parts.body.bytes.len() <= PART_BYTES);
        }
        parts.stamps = exchange(&pieces, Ending::Complete).stamps;
        let mut reading = Reading::default();
        let mut handed_on = 0;
        for news in news.try_iter() {
            let News::Part { slot: 0, part, .. } = news else { panic!("a part of slot 0") };
            reading.read(part);
            handed_on += 1;
        }
        assert_eq!(handed_on, 3);
        assert_eq!(parts.timeline_after(reading, 900), whole);
        assert_eq!(whole.events.len(), count + 4);
    }

    #[test]
    fn what_is_no_stream_is_held_as_a_whole() {
        let (collector, news) = std::sync::mpsc::channel();
        let mut refused = exchange(&[], Ending::Complete);
        refused.collector = Some(collector);
        refused.head = Some(Head {
            status: 500,
            is_stream: true,
            encoding: None,
            retry_after: None,
            read: 0,
            written: 920,
        });
        for _ in 0..100 {
            refused.receive(&[b'x'; 1000], 0);
        }
        assert!(news.try_recv().is_err());
        assert_eq!(refused.timeline(900).outcome, Outcome::Status { body: "x".repeat(SHOWN) });
    }

    #[test]
    fn an_event_belongs_to_the_read_that_completed_its_data() {
        let all = [ROLE, TOKEN, LAST, DONE].concat();
        for cut in 1..all.len() {
            let (before, after) = all.split_at(cut);
            let timeline = exchange(&[before, after], Ending::Complete).timeline(900);
            let mut end = 0;
            for (i, event) in [ROLE, TOKEN, LAST, DONE].iter().enumerate() {
                let data_end = end + event.len() - 2;
                assert_eq!(timeline.events.read[i], u32::from(data_end > cut), "cut at {cut}, event {i}");
                end += event.len();
            }
            assert_eq!(timeline.text.as_deref(), Some("xy"));
        }
    }

    #[test]
    fn each_failure_has_its_kind() {
        let kind = |exchange: Exchange| exchange.timeline(900).outcome.kind();
        let broken = || Ending::Broken("the server closed the connection".to_owned());
        assert_eq!(kind(exchange(&[ROLE, TOKEN], broken())), "truncated");
        assert_eq!(kind(exchange(&[ROLE, TOKEN], Ending::Complete)), "truncated");
        assert_eq!(kind(exchange(&[ROLE, &TOKEN[..20]], broken())), "truncated");
        assert_eq!(kind(exchange(&[ROLE, "data: {oops}\n\n"], broken())), "protocol");
        assert_eq!(kind(exchange(&[ROLE, &TOKEN[..20]], Ending::Complete)), "protocol");
        assert_eq!(kind(exchange(&[ROLE, LAST], Ending::Complete)), "success");
        assert_eq!(kind(exchange(&[ROLE, DONE], Ending::Complete)), "no_tokens");
        assert_eq!(
            kind(exchange(
                &[ROLE, TOKEN, "data: {\"error\":{\"message\":\"boom\"}}\n\n", DONE],
                Ending::Complete
            )),
            "in_band"
        );
        assert_eq!(kind(exchange(&[ROLE, "data: {oops}\n\n", DONE], Ending::Complete)), "protocol");
        assert_eq!(kind(exchange(&[ROLE], Ending::Timeout { limit_ms: 5 })), "timeout");
        assert_eq!(kind(exchange(&[ROLE], Ending::Cancelled)), "cancelled");
        let on_purpose = || Ending::CancelledOnPurpose;
        assert_eq!(kind(exchange(&[ROLE, TOKEN], on_purpose())), "cancelled_on_purpose");
        // What went wrong before that is a failure all the same.
        assert_eq!(kind(exchange(&[ROLE, "data: {oops}\n\n"], on_purpose())), "protocol");
        assert_eq!(kind(exchange(&[TOKEN], Ending::TooLarge { limit: 1 })), "protocol");
        let mut refused = exchange(&["{\"error\":\"Unauthorized\"}"], Ending::Complete);
        refused.head = Some(Head {
            status: 401,
            is_stream: false,
            encoding: None,
            retry_after: None,
            read: 0,
            written: 920,
        });
        let timeline = refused.timeline(900);
        assert_eq!(timeline.outcome, Outcome::Status { body: "{\"error\":\"Unauthorized\"}".to_owned() });
        assert!(timeline.events.is_empty());
        let mut json = exchange(&["{}"], Ending::Complete);
        json.head = Some(Head {
            status: 200,
            is_stream: false,
            encoding: None,
            retry_after: None,
            read: 0,
            written: 920,
        });
        assert_eq!(kind(json), "protocol");
        let mut compressed = exchange(&[ROLE, TOKEN, DONE], Ending::Complete);
        compressed.head = Some(Head {
            status: 200,
            is_stream: true,
            encoding: Some("gzip".to_owned()),
            retry_after: None,
            read: 0,
            written: 920,
        });
        let timeline = compressed.timeline(900);
        assert!(timeline.events.is_empty());
        assert!(timeline.outcome.detail().unwrap().contains("compressed (gzip)"), "{:?}", timeline.outcome);
    }

    /// A capture's events, each in a read of its own.
    fn captured(body: &str) -> Timeline {
        let pieces: Vec<&str> = body.split_inclusive("\n\n").collect();
        exchange(&pieces, Ending::Complete).timeline(900)
    }

    #[test]
    fn vllms_choices_are_told_apart() {
        let timeline = captured(include_str!("../../fixtures/wire/chat_stream_n2.sse"));
        assert_eq!(timeline.outcome, Outcome::Success);
        let outputs = |choice| {
            let is_output = |i: &usize| timeline.events.facts[*i].is_output();
            (0..timeline.events.len())
                .filter(is_output)
                .filter(|i| timeline.events.choice(*i) == choice)
                .count()
        };
        assert_eq!((outputs(0), outputs(1), outputs(2)), (3, 3, 0));
        let prompts = captured(include_str!("../../fixtures/wire/comp_stream_2prompts.sse"));
        assert_eq!(prompts.events.choices, [0, 0, 1, 1, 0, 0]);
        assert_eq!(prompts.usage.unwrap().completion_tokens, 4);
        let older = captured(include_str!("../../fixtures/wire/chat_stream_n2_logprobs.sse"));
        assert_eq!(older.events.choices, [0, 1, 0, 0, 1, 1, 0]);
        // One choice: no column.
        let tool = captured(include_str!("../../fixtures/wire/tool_named_s.sse"));
        assert!(tool.events.choices.is_empty());
        assert!(tool.first_event_ns(|facts| facts.has(Facts::TOOL_CALL)).is_some());
        assert_eq!(tool.outcome, Outcome::Success);
    }

    #[test]
    fn a_document_is_read_as_a_whole() {
        let document = |body: &str, asked: &'static [u8]| {
            let mut exchange = exchange(&[body], Ending::Complete);
            exchange.asked = Bytes::from_static(asked);
            exchange.head = Some(Head {
                status: 200,
                is_stream: false,
                encoding: None,
                retry_after: None,
                read: 0,
                written: 920,
            });
            exchange
        };
        let body = include_str!("../../fixtures/wire/chat_nonstream_n2.json");
        let timeline = document(body, b"{\"stream\":false}").timeline(900);
        assert_eq!((&timeline.outcome, timeline.events.is_empty()), (&Outcome::Success, true));
        assert_eq!(timeline.usage.unwrap().completion_tokens, 4);
        // There is usage, so nobody needs the text.
        assert_eq!((timeline.text, timeline.end_ns), (None, 1100));
        let kind = |body, asked| document(body, asked).timeline(900).outcome.kind();
        assert_eq!(kind(body, b"{\"stream\":true}"), "protocol");
        assert_eq!(kind("{\"choices\":[]}", b"{}"), "no_tokens");
        assert_eq!(kind("{\"error\":{}}", b"{}"), "in_band");
        let mut cut = document(body, b"{}");
        cut.ending = Ending::Broken("the server closed the connection".to_owned());
        assert_eq!(cut.timeline(900).outcome.kind(), "truncated");
    }

    #[test]
    fn what_a_retry_may_mend_is_known_without_the_body() {
        let of = |status: Option<u16>, ending| {
            let mut exchange = exchange(&[ROLE, TOKEN], ending);
            exchange.head = status.map(|status| Head {
                status,
                is_stream: true,
                encoding: None,
                retry_after: None,
                read: 0,
                written: 920,
            });
            exchange.failure()
        };
        let broken = || Ending::Broken(String::new());
        assert_eq!(of(None, Ending::Connect(String::new())), Some(Failure::Connect));
        assert_eq!(of(Some(200), Ending::Timeout { limit_ms: 1 }), Some(Failure::Timeout));
        assert_eq!([of(None, broken()), of(Some(200), broken())], [Some(Failure::Truncated); 2]);
        assert_eq!([of(Some(503), Ending::Complete), of(Some(429), broken())], [Some(Failure::Status); 2]);
        for ending in [Ending::Complete, Ending::Cancelled, Ending::CancelledOnPurpose] {
            assert_eq!(of(Some(200), ending), None);
        }
        assert_eq!([of(Some(404), Ending::Complete), of(Some(400), broken())], [None; 2]);
    }

    #[test]
    fn what_is_read_where_it_is_received_says_the_same() {
        let pieces = [ROLE, TOKEN, TOKEN, LAST, USAGE, DONE];
        let whole = exchange(&pieces, Ending::Complete).timeline(900);
        let mut watched = exchange(&[], Ending::Complete);
        watched.watch = Some(Box::new(Watch::new(2)));
        let mut enough = Vec::new();
        for (read, piece) in (0..).zip(pieces) {
            watched.receive(piece.as_bytes(), read);
            enough.push(watched.is_enough());
        }
        assert_eq!(enough, [false, false, true, true, true, true]);
        assert_eq!(watched.received(), pieces.concat().len());
        watched.stamps = exchange(&pieces, Ending::Complete).stamps;
        assert_eq!(watched.timeline(900), whole);
    }

    #[test]
    fn running_counts_are_kept_where_every_event_has_one() {
        let with = |n: u32| {
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"x\"}}}}],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":{n}}}}}\n\n"
            )
        };
        let (one, three) = (with(1), with(3));
        let timeline = exchange(&[&one, &three, DONE], Ending::Complete).timeline(0);
        assert_eq!(timeline.events.tokens, [1, 3, 3]);
        let timeline = exchange(&[ROLE, &one, DONE], Ending::Complete).timeline(0);
        assert!(timeline.events.tokens.is_empty());
    }
}
