//! Faults: what is done to an answer on purpose, so that clients can be tested for what they make of it.
//!
//! Pure: `Faults::draw` says which faults an answer gets, from random numbers keyed by its request, and
//! a `Script` is an answer's events and its faults made into steps. `faulted` carries them out. Each fault that
//! was injected is in the truth log's record of its answer.

mod parse;
mod script;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use script::{Event, Script, Step, Then};

use crate::duration::format_ns;
use crate::timing::Stream;
use crate::truth::EventKind;

/// One fault. A place counts the events before it, and is held within the answer; without one it is drawn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// An event whose JSON is cut in half.
    BadJson(Place),
    /// A comment (`: ping`) before every n-th event.
    Comments(u32),
    /// Lines that end in CRLF.
    Crlf,
    /// The connection closes in the middle of an event's chunk.
    CutChunk(Place),
    /// The answer, head and all, comes later by this many nanoseconds.
    Delay(u64),
    /// Each event goes out in pieces of so many bytes, with nanoseconds between them.
    Drip {
        /// Between two pieces.
        gap_ns: u64,
        /// The size of a piece.
        bytes: u32,
    },
    /// An event is sent twice.
    Duplicate(Place),
    /// An error event and `[DONE]` in the place of everything that follows.
    Error(Place),
    /// The connection closes between two events.
    Fin(Place),
    /// Nothing more is sent, for so many nanoseconds or, without, until the client goes.
    Hang(Place, Option<u64>),
    /// No head is sent until the client goes.
    HangHead,
    /// So many events in one write.
    Merge(u32),
    /// No `[DONE]`.
    NoDone,
    /// No event of token counts.
    NoUsage,
    /// The connection closes without an answer.
    Refuse,
    /// The connection is reset between two events.
    Rst(Place),
    /// Each event in so many writes.
    Split(u32),
    /// An event in two writes, the border inside a character.
    SplitUtf8(Place),
    /// An error status, with `Retry-After` in seconds where there is one.
    Status(u16, Option<u32>),
}

/// Each kind's name and its arguments, as they are written on the command line.
pub use parse::KINDS;

/// The number of events before a fault; `None` until it is drawn.
pub type Place = Option<u32>;

/// A fault, and the requests that get it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// What is done.
    pub fault: Fault,
    /// To which of them.
    pub rate: Rate,
}

/// Which requests get a fault.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Rate {
    /// All.
    #[default]
    Always,
    /// Every n-th, in order of arrival.
    Every(u64),
    /// By chance, in thousandths of a percent, seeded by the request.
    Share(u32),
}

/// The faults of a server. An answer can have several; they are done in the order in which they are named.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Vec<Rule>,
    /// Requests so far that these were for; clones count together.
    seen: Arc<AtomicU64>,
    /// Requests so far that asked for faults of their own.
    asked: Arc<AtomicU64>,
}

impl Faults {
    /// Faults by these rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The next request's faults.
    pub(crate) fn draw(&self, random: &mut Stream) -> Vec<Fault> {
        if self.rules.is_empty() {
            return Vec::new();
        }
        draw(&self.rules, self.seen.fetch_add(1, Ordering::Relaxed), random)
    }

    /// The faults of a request that brings rules of its own. `@1/n` is every n-th of all that bring some.
    pub(crate) fn draw_asked(&self, rules: &[Rule], random: &mut Stream) -> Vec<Fault> {
        draw(rules, self.asked.fetch_add(1, Ordering::Relaxed), random)
    }
}

/// The faults of the request that `before` came before.
pub(crate) fn draw(rules: &[Rule], before: u64, random: &mut Stream) -> Vec<Fault> {
    let hit = |rule: &&Rule| match rule.rate {
        Rate::Always => true,
        Rate::Every(n) => before % n == n - 1,
        Rate::Share(millipercent) => random.below(100_000) < u64::from(millipercent),
    };
    rules.iter().filter(hit).map(|rule| rule.fault).collect()
}

impl Fault {
    /// Whether it comes in the place of an answer.
    pub(crate) const fn is_instead(self) -> bool {
        matches!(self, Self::HangHead | Self::Refuse | Self::Status(..))
    }

    /// Whether there is something in an answer of these events that it can be done to.
    pub(crate) fn fits(self, events: &[EventKind]) -> bool {
        let has = |kind| events.contains(&kind);
        match self {
            Self::NoDone => has(EventKind::Done),
            Self::NoUsage => has(EventKind::Usage),
            Self::SplitUtf8(_) => has(EventKind::Token),
            Self::Comments(_) | Self::Crlf | Self::Duplicate(_) | Self::Error(_) | Self::Merge(_) => {
                !has(EventKind::Body)
            }
            _ => true,
        }
    }
}

/// As it is written on the command line.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let number = |f: &mut fmt::Formatter<'_>, n: Option<u32>| n.map_or(Ok(()), |n| write!(f, ":{n}"));
        match *self {
            Self::Crlf | Self::HangHead | Self::NoDone | Self::NoUsage | Self::Refuse => Ok(()),
            Self::BadJson(place)
            | Self::CutChunk(place)
            | Self::Duplicate(place)
            | Self::Error(place)
            | Self::Fin(place)
            | Self::Rst(place)
            | Self::SplitUtf8(place) => number(f, place),
            Self::Comments(n) | Self::Merge(n) | Self::Split(n) => number(f, Some(n)),
            Self::Delay(ns) => write!(f, ":{}", format_ns(ns)),
            Self::Drip { gap_ns, bytes } => write!(f, ":{}:{bytes}", format_ns(gap_ns)),
            Self::Hang(place, span_ns) => {
                number(f, place)?;
                span_ns.map_or(Ok(()), |ns| write!(f, ":{}", format_ns(ns)))
            }
            Self::Status(status, retry_after) => {
                write!(f, ":{status}")?;
                number(f, retry_after)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timing::{Purpose, RequestKey};

    fn random(seed: u64, request: u32) -> Stream {
        Stream::new(seed, Purpose::Fault, &RequestKey::new("/", b"", &request.to_le_bytes()))
    }

    fn rules(text: &str) -> Vec<Rule> {
        Faults::parse_rules(text).unwrap()
    }

    #[test]
    fn a_share_is_kept_and_seeded() {
        let rules = rules("rst@10%,crlf@0%,no-done@100%");
        let drawn: Vec<Vec<Fault>> = (0..10_000).map(|n| draw(&rules, 0, &mut random(1, n))).collect();
        let resets = drawn.iter().filter(|faults| faults.contains(&Fault::Rst(None))).count();
        // Five standard deviations of a binomial.
        assert!((850..1150).contains(&resets), "{resets}");
        assert!(drawn.iter().all(|faults| faults.last() == Some(&Fault::NoDone)));
        assert!(!drawn.iter().any(|faults| faults.contains(&Fault::Crlf)));
        let again: Vec<Vec<Fault>> =
            (0..10_000).rev().map(|n| draw(&rules, u64::from(n), &mut random(1, n))).rev().collect();
        assert_eq!(drawn, again, "neither order nor number matters");
        let other: Vec<Vec<Fault>> = (0..10_000).map(|n| draw(&rules, 0, &mut random(2, n))).collect();
        assert_ne!(drawn, other);
    }

    #[test]
    fn every_nth_counts_arrivals() {
        let faults = Faults::new(rules("fin:2@1/3"));
        let hits: Vec<bool> = (0..7).map(|n| !faults.clone().draw(&mut random(0, n)).is_empty()).collect();
        assert_eq!(hits, [false, false, true, false, false, true, false]);
        let own = rules("crlf@1/2");
        let asked = (0..4).map(|n| !faults.clone().draw_asked(&own, &mut random(0, n)).is_empty());
        assert_eq!(asked.collect::<Vec<_>>(), [false, true, false, true]);
    }

    proptest! {
        /// A rule that is added at the end changes nothing for those before it.
        #[test]
        fn rules_do_not_disturb_each_other(request: u32, seed: u64) {
            let few = draw(&rules("rst@50%,crlf@30%"), 0, &mut random(seed, request));
            let more = draw(&rules("rst@50%,crlf@30%,no-done@50%"), 0, &mut random(seed, request));
            prop_assert_eq!(&more[..few.len()], &few[..]);
        }
    }
}
