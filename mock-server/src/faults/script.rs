//! An answer's events and its faults, made into steps. Pure: deadlines are named by the event that they belong to.

use bytes::Bytes;

use super::Fault;
use crate::timing::Stream;
use crate::truth::EventKind;

/// What is done to the wire, in order.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) steps: std::vec::IntoIter<Step>,
    /// The faults, with the places that were drawn.
    pub(crate) faults: Vec<Fault>,
    /// What is sent in the end: each event, and the event of the plain answer whose deadline it keeps.
    pub(crate) events: Vec<Event>,
}

/// One event of what is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    /// The event of the plain answer whose deadline it keeps.
    pub(crate) source: usize,
}

/// One write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Step {
    /// The event of the plain answer at whose deadline it is due.
    pub(crate) source: usize,
    /// And how long after.
    pub(crate) delay_ns: u64,
    pub(crate) bytes: Bytes,
    /// The events whose last byte is in it.
    pub(crate) ends: Vec<Event>,
    pub(crate) then: Then,
}

/// How a step ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Then {
    /// The next one follows.
    Next,
    /// Nothing is written, and nothing follows.
    Hang,
    /// Of the write, chunk framing included, only the first bytes go out; then the connection closes.
    Break {
        /// How many bytes.
        keep: usize,
        /// By a reset.
        reset: bool,
    },
}

impl Script {
    /// The steps of an answer of these events. `failure` gives those that end a stream whose engine failed after so many.
    /// Faults of the head are left to others.
    pub(crate) fn new(
        events: impl IntoIterator<Item = (EventKind, Bytes)>,
        faults: &[Fault],
        failure: impl Fn(usize) -> Vec<(EventKind, Bytes)>,
        random: &mut Stream,
    ) -> Self {
        let mut steps: Vec<Step> = events
            .into_iter()
            .enumerate()
            .map(|(source, (kind, bytes))| Step {
                source,
                delay_ns: 0,
                bytes,
                ends: vec![Event { kind, source }],
                then: Then::Next,
            })
            .collect();
        let faults = faults.iter().map(|fault| apply(*fault, &mut steps, &failure, random)).collect();
        let events = steps.iter().flat_map(|step| step.ends.iter().copied()).collect();
        Self { steps: steps.into_iter(), faults, events }
    }
}

/// Changes the steps, and gives the fault with the place that it took.
fn apply(
    fault: Fault,
    steps: &mut Vec<Step>,
    failure: impl Fn(usize) -> Vec<(EventKind, Bytes)>,
    random: &mut Stream,
) -> Fault {
    if steps.is_empty() {
        return fault;
    }
    // A place that is drawn leaves at least the last event behind it.
    let mut place = |place: Option<u32>| {
        let last = steps.len() - 1;
        let at = place.map_or_else(|| random.below(last.max(1) as u64), u64::from);
        let at = usize::try_from(at).unwrap_or(last).min(last);
        (at, u32::try_from(at).ok())
    };
    match fault {
        Fault::BadJson(after) => {
            let (at, place) = place(after);
            halve_json(&mut steps[at]);
            Fault::BadJson(place)
        }
        Fault::Comments(every) => {
            add_comments(steps, every as usize);
            fault
        }
        Fault::Crlf => {
            for step in steps.iter_mut() {
                step.bytes = crlf(&step.bytes);
            }
            fault
        }
        Fault::CutChunk(after) => {
            let (at, place) = place(after);
            let step = &mut steps[at];
            // Behind the line that holds the chunk's length.
            let keep = format!("{:x}\r\n", step.bytes.len()).len() + step.bytes.len() / 2;
            step.then = Then::Break { keep, reset: false };
            steps.truncate(at + 1);
            Fault::CutChunk(place)
        }
        Fault::Delay(ns) => {
            for step in steps.iter_mut() {
                step.delay_ns += ns;
            }
            fault
        }
        Fault::Drip { gap_ns, bytes } => {
            divide(steps, gap_ns, |step| pieces_of(&step.bytes, bytes as usize));
            fault
        }
        Fault::Duplicate(after) => {
            let (at, place) = place(after);
            steps.insert(at, steps[at].clone());
            Fault::Duplicate(place)
        }
        Fault::Error(after) => {
            let (at, place) = place(after);
            end_with(steps, at, failure(steps[at].source));
            Fault::Error(place)
        }
        Fault::Fin(after) => {
            let (at, place) = place(after);
            break_at(steps, at, false);
            Fault::Fin(place)
        }
        Fault::Hang(after, span_ns) => {
            let (at, place) = place(after);
            match span_ns {
                Some(ns) => steps[at..].iter_mut().for_each(|step| step.delay_ns += ns),
                None => steps[at].then = Then::Hang,
            }
            Fault::Hang(place, span_ns)
        }
        Fault::Merge(count) => {
            merge(steps, count as usize);
            fault
        }
        Fault::NoDone => {
            steps.retain(|step| !is(step, EventKind::Done));
            fault
        }
        Fault::NoUsage => {
            steps.retain(|step| !is(step, EventKind::Usage));
            fault
        }
        Fault::Rst(after) => {
            let (at, place) = place(after);
            break_at(steps, at, true);
            Fault::Rst(place)
        }
        Fault::Split(count) => {
            divide(steps, 0, |step| pieces_of(&step.bytes, step.bytes.len().div_ceil(count as usize)));
            fault
        }
        Fault::SplitUtf8(after) => {
            let (at, place) = place(after);
            split_character(steps, at);
            Fault::SplitUtf8(place)
        }
        Fault::HangHead | Fault::Refuse | Fault::Status(..) => fault,
    }
}

fn is(step: &Step, kind: EventKind) -> bool {
    step.ends.iter().any(|event| event.kind == kind)
}

fn break_at(steps: &mut Vec<Step>, at: usize, reset: bool) {
    steps[at].then = Then::Break { keep: 0, reset };
    steps.truncate(at + 1);
}

/// Leaves out the middle of an event's data, the blank line behind it stays.
fn halve_json(step: &mut Step) {
    let text = step.bytes.trim_ascii_end();
    let kept = text.len() / 2;
    step.bytes = [&text[..kept], &step.bytes[text.len()..]].concat().into();
    step.ends.iter_mut().for_each(|event| event.kind = EventKind::Malformed);
}

/// Only between events: the pieces of one that was divided stay together.
fn add_comments(steps: &mut Vec<Step>, every: usize) {
    let plain = std::mem::take(steps);
    let (mut ended, mut is_border) = (0, true);
    for step in plain {
        if is_border && ended % every == 0 {
            steps.push(Step {
                bytes: Bytes::from_static(b": ping\n\n"),
                ends: vec![Event { kind: EventKind::Comment, source: step.source }],
                then: Then::Next,
                ..step
            });
        }
        ended += step.ends.len();
        is_border = !step.ends.is_empty();
        steps.push(step);
    }
}

fn crlf(bytes: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    for &byte in bytes {
        if byte == b'\n' {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out.into()
}

/// Puts these events in the place of everything from `at` on.
fn end_with(steps: &mut Vec<Step>, at: usize, events: Vec<(EventKind, Bytes)>) {
    let Step { source, delay_ns, .. } = steps[at];
    steps.truncate(at);
    steps.extend(events.into_iter().map(|(kind, bytes)| Step {
        source,
        delay_ns,
        bytes,
        ends: vec![Event { kind, source }],
        then: Then::Next,
    }));
}

/// Puts each `count` steps into one, at the deadline of the last of them.
fn merge(steps: &mut Vec<Step>, count: usize) {
    let plain = std::mem::take(steps);
    for group in plain.chunks(count) {
        let Some(last) = group.last() else { continue };
        steps.push(Step {
            bytes: group.iter().flat_map(|step| step.bytes.iter().copied()).collect(),
            ends: group.iter().flat_map(|step| step.ends.iter().copied()).collect(),
            ..last.clone()
        });
    }
}

/// Puts each step into several, with `gap_ns` between them.
fn divide(steps: &mut Vec<Step>, gap_ns: u64, pieces: impl Fn(&Step) -> Vec<Bytes>) {
    let plain = std::mem::take(steps);
    for step in plain {
        let pieces = if step.then == Then::Next { pieces(&step) } else { vec![step.bytes.clone()] };
        let count = pieces.len();
        let mut delay_ns = step.delay_ns;
        for (index, bytes) in pieces.into_iter().enumerate() {
            let ends = if index + 1 == count { step.ends.clone() } else { Vec::new() };
            steps.push(Step { delay_ns, bytes, ends, ..step });
            delay_ns += gap_ns;
        }
    }
}

/// `bytes` in pieces of `size`.
fn pieces_of(bytes: &Bytes, size: usize) -> Vec<Bytes> {
    bytes.chunks(size.max(1)).map(|piece| bytes.slice_ref(piece)).collect()
}

/// Splits the first token at or after a place in the middle of a character, which it is given where it has none.
fn split_character(steps: &mut Vec<Step>, at: usize) {
    let Some(at) = (at..steps.len()).find(|&at| is(&steps[at], EventKind::Token)) else { return };
    if let Some(border) = border(&steps[at].bytes) {
        let (step, bytes) = (steps[at].clone(), steps[at].bytes.clone());
        steps[at].bytes = bytes.slice(border..);
        steps.insert(at, Step { bytes: bytes.slice(..border), ends: Vec::new(), ..step });
        return;
    }
    let text = [&b"\"content\":\""[..], b"\"text\":\"", b"\"delta\":\""];
    let bytes = &steps[at].bytes;
    let start = text.iter().find_map(|key| {
        bytes.windows(key.len()).position(|window| window == *key).map(|start| start + key.len())
    });
    if let Some(start) = start {
        steps[at].bytes = [&bytes[..start], "☃".as_bytes(), &bytes[start..]].concat().into();
        split_character(steps, at);
    }
}

/// A border inside a character of several bytes.
fn border(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| byte & 0xc0 == 0x80)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timing::{Purpose, RequestKey};

    const ANSWER: [(EventKind, &[u8]); 5] = [
        (EventKind::Role, b"data: {\"r\":1}\n\n"),
        (EventKind::Token, b"data: {\"content\":\"a\"}\n\n"),
        (EventKind::Token, b"data: {\"content\":\"b\"}\n\n"),
        (EventKind::Usage, b"data: {\"u\":2}\n\n"),
        (EventKind::Done, b"data: [DONE]\n\n"),
    ];

    fn script(faults: &str) -> Script {
        let faults: Vec<Fault> =
            faults.split(',').filter(|f| !f.is_empty()).map(|f| f.parse().unwrap()).collect();
        let answer = ANSWER.iter().map(|(kind, bytes)| (*kind, Bytes::from_static(bytes)));
        let key = RequestKey::new("/", b"", b"");
        let failure = |after: usize| {
            let error = Bytes::from(format!("data: {{\"error\":{after}}}\n\n"));
            vec![(EventKind::Error, error), (EventKind::Done, Bytes::from_static(b"data: [DONE]\n\n"))]
        };
        Script::new(answer, &faults, failure, &mut Stream::new(0, Purpose::Fault, &key))
    }

    fn sent(script: &Script) -> String {
        let bytes: Vec<u8> = script.steps.as_slice().iter().flat_map(|step| step.bytes.to_vec()).collect();
        String::from_utf8(bytes).unwrap()
    }

    fn kinds(script: &Script) -> Vec<EventKind> {
        script.events.iter().map(|event| event.kind).collect()
    }

    #[test]
    fn places_are_held_within_the_answer_and_told() {
        let cut = script("fin:2");
        let steps = cut.steps.as_slice();
        assert_eq!((steps.len(), steps[2].then), (3, Then::Break { keep: 0, reset: false }));
        assert_eq!(script("rst:99").faults, [Fault::Rst(Some(4))]);
        let Fault::Rst(Some(drawn)) = script("rst").faults[0] else { panic!("a place") };
        assert!(drawn < 4);
        assert_eq!(script("rst").faults, script("rst").faults);
    }

    #[test]
    fn a_chunk_is_cut_behind_its_length() {
        let cut = script("cut-chunk:1");
        // 0x17 is 23: the line of the length is `17\r\n`.
        assert_eq!(cut.steps.as_slice()[1].bytes.len(), 23);
        assert_eq!(cut.steps.as_slice()[1].then, Then::Break { keep: 4 + 11, reset: false });
    }

    #[test]
    fn events_are_added_left_out_and_changed() {
        use EventKind::{Comment, Done, Error, Malformed, Role, Token, Usage};
        assert_eq!(kinds(&script("no-done")), [Role, Token, Token, Usage]);
        assert_eq!(kinds(&script("no-usage")), [Role, Token, Token, Done]);
        assert_eq!(kinds(&script("duplicate:1")), [Role, Token, Token, Token, Usage, Done]);
        assert_eq!(
            kinds(&script("comments:2,no-usage")),
            [Comment, Role, Token, Comment, Token, Comment, Done]
        );
        assert_eq!(kinds(&script("split:3,comments:2")), kinds(&script("comments:2")));
        let error = script("error:2");
        assert_eq!(kinds(&error), [Role, Token, Error, Done]);
        assert_eq!(error.events[2].source, 2);
        assert!(sent(&error).ends_with("data: {\"error\":2}\n\ndata: [DONE]\n\n"), "{}", sent(&error));
        let bad = script("bad-json:1");
        assert_eq!(kinds(&bad), [Role, Malformed, Token, Usage, Done]);
        assert!(sent(&bad).contains("data: {\"co\n\ndata: {\"content\":\"b\"}\n\n"), "{}", sent(&bad));
        assert!(sent(&script("crlf")).ends_with("\r\n\r\ndata: [DONE]\r\n\r\n"));
    }

    #[test]
    fn writes_are_merged_and_divided() {
        let merged = script("merge:3");
        let steps = merged.steps.as_slice();
        assert_eq!(
            steps.iter().map(|step| (step.source, step.ends.len())).collect::<Vec<_>>(),
            [(2, 3), (4, 2)]
        );
        let dripped = script("drip:1us:10");
        assert!(dripped.steps.as_slice().iter().all(|step| step.bytes.len() <= 10));
        let second: Vec<(u64, usize)> = dripped
            .steps
            .as_slice()
            .iter()
            .filter(|step| step.source == 1)
            .map(|step| (step.delay_ns, step.ends.len()))
            .collect();
        assert_eq!(second, [(0, 0), (1000, 0), (2000, 1)]);
        assert_eq!(script("split:3").steps.len(), 15);
    }

    #[test]
    fn a_character_is_split() {
        let split = script("split-utf8:0");
        let steps = split.steps.as_slice();
        assert_eq!(steps.len(), 6);
        assert!(std::str::from_utf8(&steps[1].bytes).is_err());
        assert!(sent(&split).contains("{\"content\":\"☃a\"}"));
        assert_eq!(kinds(&split), kinds(&script("")));
    }

    #[test]
    fn a_hang_ends_or_shifts() {
        assert_eq!(script("hang:3").steps.as_slice()[3].then, Then::Hang);
        let shifted: Vec<u64> =
            script("delay:1ns,hang:3:5ns").steps.as_slice().iter().map(|step| step.delay_ns).collect();
        assert_eq!(shifted, [1, 1, 1, 6, 6]);
    }

    proptest! {
        /// Faults of framing leave what is sent as it was, and every event in order.
        #[test]
        fn framing_changes_nothing_that_is_said(
            faults in prop::sample::subsequence(vec!["merge:2", "split:4", "drip:1us:7", "merge:3", "delay:1ms"], 0..5),
        ) {
            let script = script(&faults.join(","));
            let plain: Vec<u8> = ANSWER.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
            prop_assert_eq!(sent(&script).into_bytes(), plain);
            prop_assert!(script.events.iter().map(|event| event.source).eq(0..ANSWER.len()));
            prop_assert!(script.steps.as_slice().is_sorted_by_key(|step| step.source));
        }
    }
}
