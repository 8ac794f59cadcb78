//! The Mersenne Twister as the peers use it: through numpy's global generator and through Python's `random`.
//!
//! Both are MT19937 and share neither their seeding nor what they make of its words. Floats come out of the platform's
//! `log` and `pow`, as they do in numpy; the goldens hold them to the last bit where those are glibc's.

use rand_mt::Mt;

/// numpy's legacy generator, `np.random.seed(seed)` and what follows it
/// (numpy 2, `random/mtrand.pyx` and `random/src/legacy/legacy-distributions.c`).
#[derive(Clone, Debug)]
pub(crate) struct NumpyLegacy {
    words: Mt,
    /// The second of the pair of normal numbers that one draw makes.
    gauss: Option<f64>,
}

impl NumpyLegacy {
    /// `np.random.seed(seed)`. numpy takes no seed beyond 32 bits.
    pub(crate) fn new(seed: u32) -> Self {
        Self { words: Mt::new(seed), gauss: None }
    }

    /// One of `np.random.randint(low, high, …)`: masked rejection over 32 bits, over 64 where the range needs them.
    /// A range of one number draws nothing, and neither does an empty one, which numpy refuses: it gives `low`.
    ///
    /// The dtype makes no difference: `uint32` is drawn as the default `int64` is.
    pub(crate) fn randint(&mut self, low: i64, high: i64) -> i64 {
        let range = high.saturating_sub(1).max(low).abs_diff(low);
        low.wrapping_add_unsigned(self.below_or_equal(range))
    }

    /// `np.random.randint(low, high, size=n)`.
    pub(crate) fn randints(&mut self, low: i64, high: i64, n: usize) -> Vec<i64> {
        (0..n).map(|_| self.randint(low, high)).collect()
    }

    fn below_or_equal(&mut self, range: u64) -> u64 {
        let mask = u64::MAX.checked_shr(range.leading_zeros()).unwrap_or(0);
        loop {
            let value = match range {
                0 => return 0,
                1..=0xffff_ffff => u64::from(self.words.next_u32()) & mask,
                _ => self.words.next_u64() & mask,
            };
            if value <= range {
                return value;
            }
        }
    }

    /// One of `np.random.random_sample()`: 53 random bits in [0, 1).
    pub(crate) fn random_sample(&mut self) -> f64 {
        unit(&mut self.words)
    }

    /// One of `np.random.exponential(scale)`.
    pub(crate) fn exponential(&mut self, scale: f64) -> f64 {
        scale * self.standard_exponential()
    }

    fn standard_exponential(&mut self) -> f64 {
        -(1.0 - self.random_sample()).ln()
    }

    /// One of `np.random.gamma(shape, scale)`, for a shape that is not negative.
    pub(crate) fn gamma(&mut self, shape: f64, scale: f64) -> f64 {
        scale * self.standard_gamma(shape)
    }

    #[expect(clippy::float_cmp, reason = "numpy takes the shapes that are just one and just zero apart")]
    fn standard_gamma(&mut self, shape: f64) -> f64 {
        if shape == 1.0 {
            self.standard_exponential()
        } else if shape == 0.0 {
            0.0
        } else if shape < 1.0 {
            self.gamma_below_one(shape)
        } else {
            self.gamma_above_one(shape)
        }
    }

    /// Johnk's method, with an exponential in the place of the second uniform number.
    fn gamma_below_one(&mut self, shape: f64) -> f64 {
        loop {
            let u = self.random_sample();
            let v = self.standard_exponential();
            if u <= 1.0 - shape {
                let x = u.powf(1.0 / shape);
                if x <= v {
                    return x;
                }
            } else {
                let y = -((1.0 - u) / shape).ln();
                let x = (1.0 - shape + shape * y).powf(1.0 / shape);
                if x <= v + y {
                    return x;
                }
            }
        }
    }

    /// Marsaglia and Tsang's method.
    fn gamma_above_one(&mut self, shape: f64) -> f64 {
        let b = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * b).sqrt();
        loop {
            let normal = self.gauss();
            let v = 1.0 + c * normal;
            if v <= 0.0 {
                continue;
            }
            let v = v * v * v;
            let square = normal * normal;
            let u = self.random_sample();
            if u < 1.0 - 0.0331 * square * square || u.ln() < 0.5 * normal * normal + b * (1.0 - v + v.ln()) {
                return b * v;
            }
        }
    }

    /// The polar method makes two numbers at a time and keeps one for the next call.
    fn gauss(&mut self) -> f64 {
        if let Some(kept) = self.gauss.take() {
            return kept;
        }
        loop {
            let x1 = 2.0 * self.random_sample() - 1.0;
            let x2 = 2.0 * self.random_sample() - 1.0;
            let r2 = x1 * x1 + x2 * x2;
            if r2 < 1.0 && r2 != 0.0 {
                let f = (-2.0 * r2.ln() / r2).sqrt();
                self.gauss = Some(f * x1);
                return f * x2;
            }
        }
    }
}

/// Python's `random`, `random.seed(seed)` and what follows it (`CPython` 3.11, `Lib/random.py` and
/// `Modules/_randommodule.c`).
#[derive(Clone, Debug)]
pub(crate) struct PythonRandom {
    words: Mt,
}

impl PythonRandom {
    /// `random.seed(seed)` of an integer.
    pub(crate) fn new(seed: u64) -> Self {
        let (low, high) = (low_word(seed), low_word(seed >> 32));
        // The key has as many words as the number needs, and one where it is zero.
        let key = if high == 0 { vec![low] } else { vec![low, high] };
        Self { words: Mt::new_with_key(key) }
    }

    /// `random.random()`: 53 random bits in [0, 1).
    pub(crate) fn random(&mut self) -> f64 {
        unit(&mut self.words)
    }

    /// `random.getrandbits(k)`, for 1 to 64 bits.
    pub(crate) fn getrandbits(&mut self, k: u32) -> u64 {
        if k <= 32 {
            return u64::from(self.words.next_u32() >> (32 - k));
        }
        let low = u64::from(self.words.next_u32());
        low | u64::from(self.words.next_u32() >> (64 - k)) << 32
    }

    /// `random._randbelow(n)`: one of the numbers below `n`, which is at least 1.
    pub(crate) fn randbelow(&mut self, n: u64) -> u64 {
        let bits = u64::BITS - n.leading_zeros();
        loop {
            let value = self.getrandbits(bits.max(1));
            // Below a bound of zero there is nothing; giving zero is better than looking for it for ever.
            if value < n || n == 0 {
                return value.min(n.saturating_sub(1));
            }
        }
    }

    /// `random.randint(low, high)`, both ends included. One number alone takes a draw all the same.
    pub(crate) fn randint(&mut self, low: u64, high: u64) -> u64 {
        low + self.randbelow(high.saturating_sub(low).saturating_add(1))
    }

    /// The index that `random.choice` takes of a sequence of `len`.
    pub(crate) fn choice(&mut self, len: usize) -> usize {
        index(self.randbelow(len as u64))
    }

    /// The indices that `random.choices(…, k=k)` takes of a sequence of `len`, without weights.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "floor of a number in [0, len)"
    )]
    pub(crate) fn choices(&mut self, len: usize, k: usize) -> Vec<usize> {
        (0..k).map(|_| (self.random() * len as f64).floor() as usize).collect()
    }

    /// `random.shuffle(items)`.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = index(self.randbelow(i as u64 + 1));
            items.swap(i, j);
        }
    }
}

/// 53 random bits as a number in [0, 1): the same in both.
fn unit(words: &mut Mt) -> f64 {
    let high = words.next_u32() >> 5;
    let low = words.next_u32() >> 6;
    (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
}

#[expect(clippy::cast_possible_truncation, reason = "the low word is what is asked for")]
fn low_word(x: u64) -> u32 {
    x as u32
}

#[expect(clippy::cast_possible_truncation, reason = "below a length, which is a usize")]
fn index(x: u64) -> usize {
    x as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Draws of numpy 2 and `CPython` 3 (`fixtures/requests/evalscope/make_rng.py`).
    const GOLDEN: &str = include_str!("../../../fixtures/requests/evalscope/rng.jsonl");

    fn lines(generator: &str) -> Vec<Value> {
        let lines = GOLDEN.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["generator"] == generator).collect()
    }

    fn array(value: &Value) -> &[Value] {
        value.as_array().unwrap()
    }

    fn bits(x: f64) -> Value {
        format!("{:016x}", x.to_bits()).into()
    }

    #[test]
    fn the_first_words_of_seed_42_are_numpys() {
        let mut words = NumpyLegacy::new(42).words;
        assert_eq!([(); 3].map(|()| words.next_u32()), [1_608_637_542, 3_421_126_067, 4_083_286_876]);
    }

    #[test]
    fn every_draw_is_numpys_bit_for_bit() {
        let lines = lines("numpy");
        for line in &lines {
            let mut numpy = NumpyLegacy::new(line["seed"].as_u64().unwrap().try_into().unwrap());
            for range in array(&line["randint"]) {
                let (low, high) = (range["low"].as_i64().unwrap(), range["high"].as_i64().unwrap());
                assert_eq!(Value::from(numpy.randints(low, high, 6)), range["drawn"]);
            }
            assert_eq!(Value::from(numpy.randints(0, 0xffff_ffff, 5)), line["uint32"]);
            for drawn in array(&line["random_sample"]) {
                assert_eq!(&bits(numpy.random_sample()), drawn);
            }
            for drawn in array(&line["exponential"]) {
                assert_eq!(&bits(numpy.exponential(0.2)), drawn);
            }
            for shape in array(&line["gamma"]) {
                for drawn in array(&shape["drawn"]) {
                    assert_eq!(&bits(numpy.gamma(shape["shape"].as_f64().unwrap(), 0.1)), drawn);
                }
            }
            assert_eq!(Value::from(numpy.randint(0, 1 << 32)), line["next"]);
        }
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn every_draw_is_pythons_bit_for_bit() {
        let lines = lines("python");
        for line in &lines {
            let mut python = PythonRandom::new(line["seed"].as_str().unwrap().parse().unwrap());
            for range in array(&line["randint"]) {
                let (low, high) = (range["low"].as_u64().unwrap(), range["high"].as_u64().unwrap());
                let drawn: Vec<u64> = (0..10).map(|_| python.randint(low, high)).collect();
                assert_eq!(Value::from(drawn), range["drawn"]);
            }
            for drawn in array(&line["random"]) {
                assert_eq!(&bits(python.random()), drawn);
            }
            assert_eq!(Value::from(python.choices(10, 12)), line["choices"]);
            let choice: Vec<usize> = (0..12).map(|_| python.choice(17)).collect();
            assert_eq!(Value::from(choice), line["choice"]);
            let mut shuffled: Vec<u64> = (0..50).collect();
            python.shuffle(&mut shuffled);
            assert_eq!(Value::from(shuffled), line["shuffle"]);
        }
        assert_eq!(lines.len(), 6);
    }

    proptest! {
        #[test]
        fn draws_stay_in_their_ranges(seed: u32, low in any::<i64>(), width in 1u64.., n in 1u64..) {
            let high = low.saturating_add_unsigned(width);
            prop_assume!(high > low);
            let drawn = NumpyLegacy::new(seed).randint(low, high);
            prop_assert!((low..high).contains(&drawn));
            prop_assert!(PythonRandom::new(seed.into()).randbelow(n) < n);
        }
    }
}
