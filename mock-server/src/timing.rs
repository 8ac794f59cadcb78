//! When each token is due. Pure, and the same for a request whatever else the server is doing: every random number
//! comes from a `ChaCha8` stream keyed by (seed, purpose, request).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The pace of every answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// From a request's arrival to its first token, in nanoseconds.
    pub ttft_ns: u64,
    /// From one token to the next, in nanoseconds.
    pub itl_ns: u64,
    /// How far each interval strays from its nominal length, uniformly to both sides, in thousandths of a percent
    /// (`10_000` is 10 %, up to `100_000`).
    pub jitter_millipercent: u32,
}

impl Timing {
    /// When each of `tokens` tokens is due, on the clock of `arrival_ns`: the first `ttft_ns` after the arrival, each
    /// further one `itl_ns` after the one before, each interval with its own jitter.
    pub(crate) fn due_ns(&self, arrival_ns: u64, tokens: u32, mut random: Stream) -> Vec<u64> {
        let mut at_ns = arrival_ns;
        (0..tokens)
            .map(|token| {
                let interval_ns = if token == 0 { self.ttft_ns } else { self.itl_ns };
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
        };
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        hasher.update(&seed.to_le_bytes());
        hasher.update(&key.0);
        Self(ChaCha8Rng::from_seed(hasher.finalize().into()))
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
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

    #[test]
    fn without_jitter_the_grid_is_exact() {
        let timing = Timing { ttft_ns: 20_000_000, itl_ns: 5_000_000, jitter_millipercent: 0 };
        assert_eq!(timing.due_ns(1_000, 3, stream(0, "a")), [20_001_000, 25_001_000, 30_001_000]);
        assert_eq!(timing.due_ns(1_000, 0, stream(0, "a")), [0; 0]);
    }

    /// Golden: a change here changes every seeded run, and needs an entry in the changelog.
    #[test]
    fn jitter_is_golden() {
        let timing = Timing { ttft_ns: 20_000_000, itl_ns: 5_000_000, jitter_millipercent: 10_000 };
        assert_eq!(timing.due_ns(0, 4, stream(0, "a")), [19_418_391, 23_929_552, 28_894_971, 33_527_147]);
        let others = [timing.due_ns(0, 2, stream(1, "a")), timing.due_ns(0, 2, stream(0, "b"))];
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
            let timing = Timing { ttft_ns, itl_ns, jitter_millipercent };
            let due = timing.due_ns(7, 50, stream(seed, "x"));
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
            let timing = Timing { ttft_ns: 20_000, itl_ns: 5_000, jitter_millipercent: 50_000 };
            let long = timing.due_ns(0, 20, stream(seed, "x"));
            prop_assert_eq!(timing.due_ns(0, 5, stream(seed, "x")), &long[..5]);
        }
    }
}
