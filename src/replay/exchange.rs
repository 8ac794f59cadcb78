//! One HTTP exchange as raw bytes and stamps, and what it means. The measured path fills it; [`Exchange::timeline`],
//! called elsewhere, parses it.

use super::event;
use super::plan::Prepared;
use super::sse::{self, Payload};
use super::transport::Stamps;
use crate::timeline::{Events, Facts, Ns, Outcome, Reads, Timeline};

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
    /// The body's bytes.
    pub body: Vec<u8>,
    /// Which read brought which part of the body, in order.
    pub marks: Vec<Mark>,
    /// Each read of the socket, and the last write.
    pub stamps: Stamps,
    /// When it ended.
    pub ended: u64,
    /// How it ended, as HTTP sees it.
    pub ending: Ending,
    /// Whether the timeline is to have the generated text in any case; else only where the server sent no usage.
    pub keeps_text: bool,
    /// The tape's token counts.
    tokens: (Option<u32>, Option<u32>),
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
    /// The read that completed it.
    pub read: u32,
    /// When the request's last byte had been written.
    pub written: u64,
}

/// Up to where the body had come with a read.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The index of the read.
    pub read: u32,
    /// The body's length after it.
    pub end: usize,
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
            body: Vec::new(),
            marks: Vec::new(),
            stamps: Stamps::default(),
            ended: dispatched,
            ending: Ending::Cancelled,
            keeps_text: false,
            tokens: (request.input_tokens, request.output_tokens),
        }
    }

    /// Parses the exchange. `origin` is the run's start on the monotonic clock.
    #[must_use]
    pub fn timeline(self, origin: u64) -> Timeline {
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
            ..Timeline::default()
        };
        let mut fault = None;
        let is_readable = |head: &Head| head.status == 200 && head.is_stream && head.encoding.is_none();
        if self.head.as_ref().is_some_and(is_readable) {
            let text;
            (text, fault) = read_events(&self.body, &self.marks, &mut timeline);
            timeline.text = Some(text).filter(|_| self.keeps_text || timeline.usage.is_none());
        }
        timeline.outcome = outcome(&self.ending, self.head.as_ref(), &self.body, &timeline.events, fault);
        timeline.reads = Reads {
            at_ns: self.stamps.reads_at.iter().copied().map(since).collect(),
            late_ns: self.stamps.reads_late,
            bytes: self.stamps.reads_bytes,
        };
        timeline
    }
}

/// Reads the body's events into the timeline; returns the generated text, and the first event that says, or is, a
/// fault.
fn read_events(body: &[u8], marks: &[Mark], timeline: &mut Timeline) -> (String, Option<Outcome>) {
    let mut marks = marks.iter();
    let mut mark = Mark { read: 0, end: 0 };
    let mut fault = None;
    let mut text = String::new();
    let mut running = Vec::new();
    let events = &mut timeline.events;
    for sse in sse::events(body) {
        while mark.end < sse.end {
            // Every byte of the body came with a mark; were one missing, the last read would stand for it.
            match marks.next() {
                Some(next) => mark = *next,
                None => break,
            }
        }
        let meaning = match &sse.payload {
            Payload::Comment => event::Meaning::of(Facts::COMMENT),
            Payload::Data(data) => event::read(data),
        };
        if let (Payload::Data(data), None) = (&sse.payload, &fault) {
            if meaning.facts.has(Facts::ERROR) {
                fault = Some(Outcome::InBand { message: shown(data) });
            } else if !meaning.facts.any(Facts::JSON.with(Facts::DONE)) {
                fault = Some(Outcome::Protocol {
                    message: format!("an event that is not JSON: {}", shown(data)),
                });
            }
        }
        events.read.push(mark.read);
        events.facts.push(meaning.facts);
        running.push(meaning.usage.map(|usage| usage.completion_tokens));
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
    events.tokens = running_counts(&events.facts, &running);
    (text, fault)
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
        Ending::Complete | Ending::Broken(_) | Ending::TooLarge { .. } => {}
    }
    if head.is_some_and(|head| head.status != 200) {
        return Outcome::Status { body: shown(body) };
    }
    if let Some(fault) = fault {
        return fault;
    }
    match ending {
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
        let message =
            "the response is not a stream of events; a tape's bodies must ask for one with \"stream\": true";
        return Outcome::Protocol { message: message.to_owned() };
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

/// The beginning of what a server said.
fn shown(bytes: &[u8]) -> String {
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
            method: http::Method::POST,
            path: http::Uri::from_static("/v1/chat/completions"),
            body: bytes::Bytes::new(),
            headers: None,
            input_tokens: Some(3),
            output_tokens: Some(2),
        };
        let mut exchange = Exchange::new(&request, 0, 900, 910);
        exchange.head = Some(Head { status: 200, is_stream: true, encoding: None, read: 0, written: 920 });
        for (read, piece) in (0..).zip(pieces) {
            exchange.stamps.reads_at.push(1000 + 10 * u64::from(read));
            exchange.stamps.reads_late.push(0);
            exchange.stamps.reads_bytes.push(u32::try_from(piece.len()).unwrap());
            exchange.body.extend_from_slice(piece.as_bytes());
            exchange.marks.push(Mark { read, end: exchange.body.len() });
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
        assert_eq!(kind(exchange(&[TOKEN], Ending::TooLarge { limit: 1 })), "protocol");
        let mut refused = exchange(&["{\"error\":\"Unauthorized\"}"], Ending::Complete);
        refused.head = Some(Head { status: 401, is_stream: false, encoding: None, read: 0, written: 920 });
        let timeline = refused.timeline(900);
        assert_eq!(timeline.outcome, Outcome::Status { body: "{\"error\":\"Unauthorized\"}".to_owned() });
        assert!(timeline.events.is_empty());
        let mut json = exchange(&["{}"], Ending::Complete);
        json.head = Some(Head { status: 200, is_stream: false, encoding: None, read: 0, written: 920 });
        assert_eq!(kind(json), "protocol");
        let mut compressed = exchange(&[ROLE, TOKEN, DONE], Ending::Complete);
        compressed.head = Some(Head {
            status: 200,
            is_stream: true,
            encoding: Some("gzip".to_owned()),
            read: 0,
            written: 920,
        });
        let timeline = compressed.timeline(900);
        assert!(timeline.events.is_empty());
        assert!(timeline.outcome.detail().unwrap().contains("compressed (gzip)"), "{:?}", timeline.outcome);
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
