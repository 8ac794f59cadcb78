//! Which requests of a tape go into a new one.

use std::ops::Range;

use crate::generate::stream::{Purpose, Stream};
use crate::tape::format::Request;

/// What a request must be like. Each criterion that is not set lets every request pass.
#[derive(Clone, Debug, Default)]
pub struct Criteria {
    /// Arrives in this part of the tape, in ns from its start.
    pub window: Option<Range<u64>>,
    /// States as many input tokens.
    pub input_tokens: Option<Range<u64>>,
    /// States as many output tokens.
    pub output_tokens: Option<Range<u64>>,
    /// Has one of these paths, its query left aside; any where there are none.
    pub paths: Vec<String>,
    /// Is of one of these sessions; of any or none where there are none.
    pub sessions: Vec<String>,
}

impl Criteria {
    /// Whether a request meets all of them.
    #[must_use]
    pub fn matches(&self, request: &Request) -> bool {
        let within = |range: &Option<Range<u64>>, tokens: Option<u32>| {
            range.as_ref().is_none_or(|range| tokens.is_some_and(|tokens| range.contains(&tokens.into())))
        };
        let path = request.path.split('?').next().unwrap_or_default();
        let session = request.session.as_ref().map(|session| &session.id);
        self.window.as_ref().is_none_or(|window| window.contains(&request.offset_ns))
            && within(&self.input_tokens, request.input_tokens)
            && within(&self.output_tokens, request.output_tokens)
            && (self.paths.is_empty() || self.paths.iter().any(|wanted| wanted == path))
            && (self.sessions.is_empty() || session.is_some_and(|id| self.sessions.contains(id)))
    }
}

/// Draws a sample of known size from a population of known size, in order and without a list of either: each draw is
/// taken with the probability (still wanted) / (still to come), which makes every subset as likely as any other (Knuth,
/// TAOCP 2, 3.4.2, algorithm S).
#[derive(Clone, Debug)]
pub struct Sampler {
    stream: Stream,
    wanted: u64,
    to_come: u64,
}

impl Sampler {
    /// Draws `size` of `population`, or all where there are no more.
    #[must_use]
    pub fn new(seed: u64, size: u64, population: u64) -> Self {
        Self { stream: Purpose::new(seed, "sample").stream(0), wanted: size, to_come: population }
    }

    /// Whether the next one is taken.
    pub fn takes(&mut self) -> bool {
        let takes = self.stream.below(self.to_come) < self.wanted;
        self.to_come = self.to_come.saturating_sub(1);
        self.wanted -= u64::from(takes);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::edit::tests::request;
    use crate::tape::format::Session;

    #[test]
    fn a_request_must_meet_every_criterion() {
        let plain = request(3, 5_000);
        let talk = Request {
            path: "/v1/chat/completions?beta=1".to_owned(),
            input_tokens: Some(10),
            output_tokens: None,
            session: Some(Session { id: "a".to_owned(), turn: 1 }),
            ..request(4, 6_000)
        };
        let any = Criteria::default();
        assert!(any.matches(&plain) && any.matches(&talk));
        let window = Criteria { window: Some(5_000..6_000), ..Criteria::default() };
        assert!(window.matches(&plain) && !window.matches(&talk));
        let tokens = |range| Criteria { input_tokens: Some(range), ..Criteria::default() };
        assert!(tokens(10..11).matches(&talk) && !tokens(11..20).matches(&talk));
        assert!(!Criteria { output_tokens: Some(0..100), ..Criteria::default() }.matches(&talk));
        let path = |path: &str| Criteria { paths: vec![path.to_owned()], ..Criteria::default() };
        assert!(path("/v1/chat/completions").matches(&talk));
        assert!(!path("/v1/chat").matches(&talk));
        let sessions = Criteria { sessions: vec!["b".to_owned(), "a".to_owned()], ..Criteria::default() };
        assert!(sessions.matches(&talk) && !sessions.matches(&plain));
        assert!(!Criteria { window: Some(0..1), ..sessions }.matches(&talk));
    }

    #[test]
    fn a_sample_has_its_size_and_no_favourites() {
        let mut counts = [0_u32; 10];
        for seed in 0..5_000 {
            let mut sampler = Sampler::new(seed, 3, 10);
            let taken: Vec<usize> = (0..10).filter(|_| sampler.takes()).collect();
            assert_eq!(taken.len(), 3);
            for place in taken {
                counts[place] += 1;
            }
        }
        // 1500 each; the standard deviation is sqrt(5000 * 0.3 * 0.7) = 32.
        assert!(counts.iter().all(|count| count.abs_diff(1_500) < 130), "{counts:?}");
    }

    #[test]
    fn a_sample_of_all_or_none() {
        let taken = |size, population: usize| {
            let mut sampler = Sampler::new(1, size, population as u64);
            (0..population).filter(|_| sampler.takes()).count()
        };
        assert_eq!((taken(0, 5), taken(5, 5), taken(9, 5), taken(0, 0)), (0, 5, 5, 0));
    }
}
