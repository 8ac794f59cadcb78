//! When each token is due. Pure, and the same for a request whatever else the server is doing: every random number
//! comes from a `ChaCha8` stream keyed by (seed, purpose, request).

mod law;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub use law::{Circumstances, Law};

/// The pace of every answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// From a request's arrival to its first token.
    pub ttft: Law,
    /// From one token to the next.
    pub itl: Law,
    /// How far each interval strays from its nominal length, uniformly to both sides, in thousandths of a percent
    /// (`10_000` is 10 %, up to `100_000`).
    pub jitter_millipercent: u32,
}

impl Timing {
    /// Always the same, in nanoseconds.
    #[must_use]
    pub const fn fixed(ttft_ns: u64, itl_ns: u64) -> Self {
        Self { ttft: Law::fixed(ttft_ns), itl: Law::fixed(itl_ns), jitter_millipercent: 0 }
    }

    /// The pace that a request's own headers ask for: `x-mock-ttft` and `x-mock-itl`, in the words of `--ttft` and
    /// `--itl`. The error is a whole sentence.
    pub(crate) fn for_request(&self, headers: &HeaderMap) -> Result<Self, String> {
        let mut timing = self.clone();
        let asked = |name: &&str| headers.get(*name).map(|value| value.to_str().unwrap_or_default());
        if ["x-mock-ttft", "x-mock-itl"].iter().filter_map(asked).any(Law::names_file) {
            return Err("x-mock-ttft and x-mock-itl take no law from a file".to_owned());
        }
        if let Some(text) = asked(&"x-mock-ttft") {
            timing.ttft = Law::parse_ttft(text).map_err(|error| format!("x-mock-ttft: {error}"))?;
        }
        if let Some(text) = asked(&"x-mock-itl") {
            timing.itl = Law::parse_itl(text).map_err(|error| format!("x-mock-itl: {error}"))?;
        }
        Ok(timing)
    }

    /// When each token of an answer is due that a server with this seed gives to a request of this [`request_key`]:
    /// what the mock does, for a clock that is simulated. `asked` is the request's arrival in ns, its prompt's tokens
    /// and its answer's.
    #[must_use]
    pub fn answer_ns(&self, seed: u64, key: [u8; 32], asked: (u64, u32, u32), others: u64) -> Vec<u64> {
        let (arrival_ns, prompt_tokens, tokens) = asked;
        let random = Stream::new(seed, Purpose::Timing, &RequestKey(key));
        self.due_ns(arrival_ns, tokens, Circumstances { prompt_tokens, others }, random)
    }

    /// When each of `tokens` tokens is due, on the clock of `arrival_ns`: the first after its time from the arrival,
    /// each further one after its interval from the one before, each interval with its own jitter.
    pub(crate) fn due_ns(
        &self,
        arrival_ns: u64,
        tokens: u32,
        circumstances: Circumstances,
        mut random: Stream,
    ) -> Vec<u64> {
        let mut at_ns = arrival_ns;
        let (mut first, mut later) = (law::Memory::default(), law::Memory::default());
        (0..tokens)
            .map(|token| {
                let (law, memory) =
                    if token == 0 { (&self.ttft, &mut first) } else { (&self.itl, &mut later) };
                let interval_ns = law.interval_ns(circumstances, &mut random, memory);
                at_ns = at_ns.saturating_add(self.jittered(interval_ns, &mut random));
                at_ns
            })
            .collect()
    }

    fn jittered(&self, interval_ns: u64, random: &mut Stream) -> u64 {
        let span_ns = u128::from(interval_ns) * u128::from(self.jitter_millipercent) / 100_000;
        let span_ns = u64::try_from(span_ns).unwrap_or(u64::MAX).min(interval_ns);
        if span_ns == 0 {
            return interval_ns;
        }
        interval_ns - span_ns + random.below(span_ns.saturating_mul(2).saturating_add(1))
    }
}

/// What a stream of random numbers is for; each purpose has its own, so that adding one never shifts another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// The words of an answer.
    Text,
    /// The jitter of its tokens.
    Timing,
    /// What is done to it.
    Fault,
    /// An id.
    Id,
    /// An embedding.
    Embedding,
}

/// What a request is known by in every random choice about it: the digest of its path, its `X-Request-Id` and its
/// body's bytes. So neither the order of arrival nor the number of workers changes an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RequestKey([u8; 32]);

impl RequestKey {
    pub(crate) fn new(path: &str, request_id: &[u8], body: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [path.as_bytes(), request_id, body] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// What an engine's chances for it are keyed by.
    pub(crate) fn seed(&self) -> u64 {
        let (words, _) = self.0.as_chunks();
        u64::from_le_bytes(words[0])
    }
}

/// What the mock knows a request by in its random choices, of a request without an `X-Request-Id`.
#[must_use]
pub fn request_key(path: &str, body: &[u8]) -> [u8; 32] {
    RequestKey::new(path, b"", body).0
}

/// Counts the answers under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnderWay(Arc<AtomicU64>);

/// One answer under way; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket(UnderWay);

impl UnderWay {
    /// How many others there are, and this one's ticket.
    pub(crate) fn enter(&self) -> (u64, Ticket) {
        (self.0.fetch_add(1, Ordering::Relaxed), Ticket(self.clone()))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Random numbers for one purpose and one request.
#[derive(Debug)]
pub(crate) struct Stream(ChaCha8Rng);

impl Stream {
    pub(crate) fn new(seed: u64, purpose: Purpose, key: &RequestKey) -> Self {
        let purpose = match purpose {
            Purpose::Text => "tokentape-mock text",
            Purpose::Timing => "tokentape-mock timing",
            Purpose::Fault => "tokentape-mock fault",
            Purpose::Id => "tokentape-mock id",
            Purpose::Embedding => "tokentape-mock embedding",
        };
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        hasher.update(&seed.to_le_bytes());
        hasher.update(&key.0);
        Self(ChaCha8Rng::from_seed(hasher.finalize().into()))
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from 0 up to, and not including, 1: 53 random bits, as a multiple of 2^-53.
    pub(crate) fn unit(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.next_u64() >> 11) as f64 * STEP
    }

    /// A number below `bound`, by the high half of a 128-bit product: its bias is below `bound` / 2^64.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(seed: u64, request: &str) -> Stream {
        Stream::new(seed, Purpose::Timing, &RequestKey::new("/v1/completions", b"", request.as_bytes()))
    }

    fn due_ns(timing: &Timing, arrival_ns: u64, tokens: u32, random: Stream) -> Vec<u64> {
        timing.due_ns(arrival_ns, tokens, Circumstances::default(), random)
    }

    #[test]
    fn without_jitter_the_grid_is_exact() {
        let timing = Timing::fixed(20_000_000, 5_000_000);
        assert_eq!(due_ns(&timing, 1_000, 3, stream(0, "a")), [20_001_000, 25_001_000, 30_001_000]);
        assert_eq!(due_ns(&timing, 1_000, 0, stream(0, "a")), [0; 0]);
    }

    /// Golden: a change here changes every seeded run, and needs an entry in the changelog.
    #[test]
    fn jitter_is_golden() {
        let timing = Timing { jitter_millipercent: 10_000, ..Timing::fixed(20_000_000, 5_000_000) };
        assert_eq!(due_ns(&timing, 0, 4, stream(0, "a")), [19_418_391, 23_929_552, 28_894_971, 33_527_147]);
        let others = [due_ns(&timing, 0, 2, stream(1, "a")), due_ns(&timing, 0, 2, stream(0, "b"))];
        assert_eq!(others, [[21_072_395, 26_271_036], [21_797_218, 26_976_616]]);
    }

    proptest! {
        #[test]
        fn intervals_stay_within_the_jitter(
            ttft_ns in 0..=3_600_000_000_000_u64,
            itl_ns in 0..=3_600_000_000_000_u64,
            jitter_millipercent in 0..=100_000_u32,
            seed: u64,
        ) {
            let timing = Timing { jitter_millipercent, ..Timing::fixed(ttft_ns, itl_ns) };
            let due = due_ns(&timing, 7, 50, stream(seed, "x"));
            let mut before = 7;
            for (token, &at) in due.iter().enumerate() {
                let nominal = if token == 0 { ttft_ns } else { itl_ns };
                let span = u128::from(nominal) * u128::from(jitter_millipercent) / 100_000;
                prop_assert!(u128::from((at - before).abs_diff(nominal)) <= span);
                before = at;
            }
        }

        /// More tokens only add to the end: the limit asked for does not change the earlier ones.
        #[test]
        fn a_longer_answer_begins_the_same(seed: u64) {
            let timing = Timing { jitter_millipercent: 50_000, ..Timing::fixed(20_000, 5_000) };
            let long = due_ns(&timing, 0, 20, stream(seed, "x"));
            prop_assert_eq!(due_ns(&timing, 0, 5, stream(seed, "x")), &long[..5]);
        }
    }

    #[test]
    fn a_request_can_ask_for_its_own_pace() {
        let timing = Timing::fixed(20_000_000, 5_000_000);
        let mut headers = HeaderMap::new();
        headers.insert("x-mock-ttft", "1ms".parse().unwrap());
        assert_eq!(timing.for_request(&headers).unwrap(), Timing::fixed(1_000_000, 5_000_000));
        headers.insert("x-mock-itl", "soon".parse().unwrap());
        assert!(timing.for_request(&headers).unwrap_err().starts_with("x-mock-itl: `soon`"));
    }

    #[test]
    fn answers_under_way_are_counted() {
        let under_way = UnderWay::default();
        let (first, ticket) = under_way.enter();
        assert_eq!((first, under_way.enter().0), (0, 1));
        drop(ticket);
        assert_eq!(under_way.enter().0, 0);
    }
}
