//! `numpy.random.default_rng(seed)`: a PCG64 seeded through a `SeedSequence`, and its `integers`.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// numpy's `Generator` over its `PCG64` (XSL-RR 128/64), which `default_rng` makes.
#[derive(Debug)]
pub(super) struct Generator {
    bits: Pcg64,
    /// The upper half of the last 64 bits, where the lower one has been used (`pcg64_next32` keeps it).
    half: Option<u32>,
}

impl Generator {
    /// `numpy.random.default_rng(seed)`.
    pub(super) fn new(seed: u64) -> Self {
        let [a, b, c, d] = seed_sequence(seed);
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        Self { bits: Pcg64::new(wide(a, b), wide(c, d)), half: None }
    }

    /// `integers(low, high, size=n)`, `high` excluded and above `low`, over a range that fits in 32 bits: Lemire's
    /// multiplication with rejection (`random_bounded_uint64_fill` in `numpy/random/src/distributions/distributions.c`).
    /// A range of one value draws nothing.
    pub(super) fn integers(&mut self, low: u32, high: u32, n: usize) -> Vec<u32> {
        let width = high.saturating_sub(low);
        if width <= 1 {
            return vec![low; n];
        }
        // 2^32 mod width: below it, a low half would favour some values.
        let bias = width.wrapping_neg() % width;
        let mut one = || {
            loop {
                let product = u64::from(self.next_u32()) * u64::from(width);
                if halves(product)[1] >= bias {
                    return low + halves(product)[0];
                }
            }
        };
        (0..n).map(|_| one()).collect()
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let [high, low] = halves(self.bits.next_u64());
        self.half = Some(high);
        low
    }
}

/// The upper and the lower 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
fn halves(x: u64) -> [u32; 2] {
    [(x >> 32) as u32, x as u32]
}

/// `SeedSequence(seed).generate_state(4, uint64)` (`numpy/random/bit_generator.pyx`, after M. E. O'Neill's `seed_seq`).
fn seed_sequence(seed: u64) -> [u64; 4] {
    const POOL: usize = 4;
    let [high, low] = halves(seed);
    // The entropy is the seed's words, at least one; those that are missing count as 0.
    let mut pool = [low, high, 0, 0];
    let mut hash = Hash { factor: 0x43b0_d7e5, step: 0x931e_8875 };
    for word in &mut pool {
        *word = hash.mix(*word);
    }
    for source in 0..POOL {
        for target in (0..POOL).filter(|&target| target != source) {
            let mixed = 0xca01_f9dd_u32
                .wrapping_mul(pool[target])
                .wrapping_sub(0x4973_f715_u32.wrapping_mul(hash.mix(pool[source])));
            pool[target] = mixed ^ mixed >> 16;
        }
    }
    let mut hash = Hash { factor: 0x8b51_f9dd, step: 0x58f3_8ded };
    let mut word = |i: usize| u64::from(hash.mix(pool[i % POOL]));
    std::array::from_fn(|i| word(2 * i) | word(2 * i + 1) << 32)
}

/// A multiplicative hash whose factor changes with each word.
struct Hash {
    factor: u32,
    step: u32,
}

impl Hash {
    fn mix(&mut self, word: u32) -> u32 {
        let word = word ^ self.factor;
        self.factor = self.factor.wrapping_mul(self.step);
        let word = word.wrapping_mul(self.factor);
        word ^ word >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each expected row: `default_rng(seed).integers(low, high, n)` of numpy 2.2, its calls in this order.
    #[test]
    fn integers_are_numpys() {
        let mut rng = Generator::new(0);
        assert_eq!(rng.integers(512, 1537, 4), [1383, 1164, 1035, 788]);
        assert_eq!(rng.integers(64, 193, 4), [103, 69, 73, 66]);
        assert_eq!(rng.integers(0, 151_643, 4), [26578, 123_326, 98479, 138_412]);

        let rows = [
            (
                1,
                [71755, 77614, 114_515],
                [2, 0, 0, 2, 2],
                [935_494_355, 2_607_075_741, 1_269_979_346, 770_976_088],
            ),
            (
                42,
                [13534, 117_365, 99261],
                [1, 1, 2, 0, 2],
                [282_532_043, 1_579_436_936, 2_926_867_054, 2_207_257_111],
            ),
            (
                (1 << 32) - 1,
                [28935, 38205, 109_827],
                [0, 2, 0, 0, 1],
                [2_121_661_999, 2_805_036_872, 395_285_850, 2_534_465_769],
            ),
            (
                (1 << 40) + 7,
                [31316, 125_835, 92427],
                [0, 0, 0, 1, 2],
                [2_655_564_380, 2_216_522_156, 283_480_328, 1_469_986_249],
            ),
        ];
        for (seed, tokens, thirds, wide) in rows {
            let mut rng = Generator::new(seed);
            assert_eq!(rng.integers(0, 151_643, 3), tokens, "seed {seed}");
            assert_eq!(rng.integers(7, 8, 2), [7, 7], "one value draws nothing");
            assert_eq!(rng.integers(0, 3, 5), thirds, "seed {seed}");
            assert_eq!(rng.integers(0, 3_000_000_000, 4), wide, "seed {seed}");
        }
    }
}
