//! Requests that are broken off on purpose, as by a user who has seen enough.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::reading::{Mark, Part, Reading};
use crate::generate::stream::Purpose;
use crate::timeline::Ns;

/// When requests are broken off, and which.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Cancel {
    /// How far a request gets.
    pub after: After,
    /// The share of the requests, from 0 to 1.
    pub share: f64,
}

/// How far a request gets before it is broken off; one that ends sooner ends as any other.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// So long, in ns from its dispatch.
    TimeNs(Ns),
    /// So many output events ([`Facts::is_output`](crate::timeline::Facts::is_output)), each with its closing blank
    /// line. vLLM sends one a token.
    Tokens(u32),
}

impl Cancel {
    /// How far the request of this index gets; none if it is waited for. Each is drawn from a random stream of its
    /// own, so that every run breaks off the same requests, and a larger share those of a smaller one too.
    #[must_use]
    pub fn of(&self, index: u64) -> Option<After> {
        let is_drawn = Purpose::new(0, "cancel").stream(index).unit() < self.share;
        is_drawn.then_some(self.after)
    }
}

/// `500ms`, `20tok`.
impl FromStr for After {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "give it as a time such as 500ms, or as a number of tokens such as 20tok";
        if let Some(number) = text.strip_suffix("tok") {
            let tokens = number.trim().parse().ok().filter(|tokens| *tokens > 0);
            return tokens.map(Self::Tokens).ok_or(FORM);
        }
        let time = humantime::parse_duration(text).map_err(|_| FORM)?;
        Ok(Self::TimeNs(Ns::try_from(time.as_nanos()).unwrap_or(Ns::MAX)))
    }
}

/// A body that is read where it is received, so that its tokens can be counted as they come. Each is parsed after its
/// read was stamped, by the thread that sends: a microsecond or two a token, for the requests that are to be broken
/// off after some, and for no others.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) reading: Reading,
    limit: u32,
    /// The events looked at.
    seen: usize,
    /// The output events among them.
    output: u32,
}

impl Watch {
    pub(super) fn new(limit: u32) -> Self {
        Self { reading: Reading::default(), limit, seen: 0, output: 0 }
    }

    /// Takes in what a read brought of the body.
    pub(super) fn receive(&mut self, data: &[u8], mark: Mark) {
        self.reading.read(Part { bytes: data.to_vec(), marks: vec![mark] });
        let facts = &self.reading.timeline.events.facts;
        let outputs = facts[self.seen..].iter().filter(|facts| facts.is_output()).count();
        self.output = self.output.saturating_add(u32::try_from(outputs).unwrap_or(u32::MAX));
        self.seen = facts.len();
    }

    /// Whether as many have come as were to come.
    pub(super) fn is_enough(&self) -> bool {
        self.output >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_tokens() {
        assert_eq!("500ms".parse(), Ok(After::TimeNs(500_000_000)));
        assert_eq!("1m 2s".parse(), Ok(After::TimeNs(62_000_000_000)));
        assert_eq!("20tok".parse(), Ok(After::Tokens(20)));
        for text in ["", "20", "tok", "0tok", "-1tok", "1.5tok", "20 tokens"] {
            assert!(text.parse::<After>().unwrap_err().contains("20tok"), "{text}");
        }
    }

    #[test]
    fn a_share_is_the_same_requests_in_every_run() {
        let drawn = |share| -> Vec<u64> {
            let cancel = Cancel { after: After::Tokens(1), share };
            (0..2000).filter(|index| cancel.of(*index).is_some()).collect()
        };
        assert_eq!((drawn(0.0).len(), drawn(1.0).len()), (0, 2000));
        let (tenth, half) = (drawn(0.1), drawn(0.5));
        // Five standard deviations to either side.
        assert!((133..=267).contains(&tenth.len()), "{}", tenth.len());
        assert!((888..=1112).contains(&half.len()), "{}", half.len());
        assert!(tenth.iter().all(|index| half.contains(index)));
    }

    #[test]
    fn only_closed_output_events_count() {
        let body =
            b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n: ping\n\n\
            data: {\"choices\":[{\"delta\":{\"content\":\"\\\"role\\\":\\n\\n\"}}]}\n\n\
            data: {\"choices\":[{\"delta\":{\"reasoning\":\"x\"}}]}\r\n\r\ndata: {\"choices\":[]}\n\n";
        let mut watch = Watch::new(2);
        let mut enough_at = None;
        for (at, byte) in body.iter().enumerate() {
            watch.receive(&[*byte], Mark { read: u32::try_from(at).unwrap(), end: at + 1 });
            if watch.is_enough() {
                enough_at.get_or_insert(at + 1);
            }
        }
        let tail = "data: {\"choices\":[]}\n\n".len();
        assert_eq!((enough_at, watch.output, watch.seen), (Some(body.len() - tail), 2, 5));
    }
}
