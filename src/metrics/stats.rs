//! The arithmetic of the peers, bit for bit: numpy's statistics and Python's `round`.
//!
//! Two sums of the same numbers in another order differ in their last bits, and a figure that should be "exactly"
//! another tool's then is not. So the orders here are those of the originals: numpy 2.x, contiguous float64
//! (`numpy/_core/src/umath/loops_utils.h.src`, `numpy/lib/_function_base_impl.py`), and `CPython` 3.11.

/// How a version of numpy adds up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Numpy {
    /// Values that are summed pairwise at a time; the sums of such runs are added from left to right.
    run: usize,
}

impl Numpy {
    /// Up to 2.2: reductions run over a buffer of 8192 values. vLLM 0.11.0 requires such a version (through numba).
    pub const UP_TO_2_2: Numpy = Numpy { run: 8192 };
    /// From 2.3: reductions run over the whole array.
    pub const FROM_2_3: Numpy = Numpy { run: usize::MAX };

    /// The sum of what each value is mapped to.
    fn sum(self, values: &[f64], map: impl Fn(f64) -> f64) -> f64 {
        values.chunks(self.run).fold(0.0, |sum, run| sum + pairwise_sum(run, &map))
    }

    /// `np.mean`. 0 for an empty slice, as the peers write it (`np.mean(values or 0)`).
    #[must_use]
    pub fn mean(self, values: &[f64]) -> f64 {
        if values.is_empty() {
            return 0.0;
        }
        self.sum(values, |value| value) / values.len() as f64
    }

    /// `np.std`: the population standard deviation (`ddof=0`). 0 for an empty slice.
    #[must_use]
    pub fn std(self, values: &[f64]) -> f64 {
        if values.is_empty() {
            return 0.0;
        }
        let mean = self.mean(values);
        let square = |value: f64| (value - mean) * (value - mean);
        (self.sum(values, square) / values.len() as f64).sqrt()
    }
}

/// The values in ascending order: what [`median`] and [`percentile`] read. NaN sorts last.
#[must_use]
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sort(&mut sorted);
    sorted
}

/// Puts values in ascending order where they are, as [`sorted`] does in a copy.
pub fn sort(values: &mut [f64]) {
    values.sort_unstable_by(f64::total_cmp);
}

/// numpy's `np.median` of values that are [`sorted`]. 0 for an empty slice.
#[must_use]
#[expect(clippy::manual_midpoint, reason = "numpy's own arithmetic")]
pub fn median(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => sorted[n / 2],
        _ => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// numpy's `np.percentile(…, p)` (method `linear`) of values that are [`sorted`]; `p` from 0 to 100, clamped.
/// 0 for an empty slice.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index between 0 and the length"
)]
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let virtual_index = last as f64 * (p.clamp(0.0, 100.0) / 100.0);
    let low = (virtual_index.floor() as usize).min(last);
    let (a, b) = (sorted[low], sorted[(low + 1).min(last)]);
    let t = virtual_index - low as f64;
    let difference = b - a;
    if t >= 0.5 { b - difference * (1.0 - t) } else { a + difference * t }
}

/// numpy's pairwise sum of what each value is mapped to: eight running sums over blocks of up to 128 values, halves
/// above that.
fn pairwise_sum(values: &[f64], map: &impl Fn(f64) -> f64) -> f64 {
    const BLOCK: usize = 128;
    const LANES: usize = 8;

    if values.len() < LANES {
        return values.iter().fold(-0.0, |sum, value| sum + map(*value));
    }
    if values.len() > BLOCK {
        let half = values.len() / 2;
        let (left, right) = values.split_at(half - half % LANES);
        return pairwise_sum(left, map) + pairwise_sum(right, map);
    }
    let mut lanes = [-0.0; LANES];
    let (rows, tail) = values.as_chunks::<LANES>();
    for row in rows {
        for (lane, value) in lanes.iter_mut().zip(row) {
            *lane += map(*value);
        }
    }
    let [l0, l1, l2, l3, l4, l5, l6, l7] = lanes;
    let sum = ((l0 + l1) + (l2 + l3)) + ((l4 + l5) + (l6 + l7));
    tail.iter().fold(sum, |sum, value| sum + map(*value))
}

/// Python's `round(x, digits)`: the decimal nearest to the exact binary value, ties to even.
#[must_use]
pub fn python_round(x: f64, digits: usize) -> f64 {
    // Rust's formatting rounds the exact binary value, half to even, as CPython's `dtoa` mode 3 does.
    format!("{x:.digits$}").parse().unwrap_or(x)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the point is that they are the same bits")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// numpy's figures for each length, over the values of [`sample`]; `fixtures/results/README.md` says how they
    /// were made.
    const GOLDEN: &str = include_str!("../../fixtures/results/numpy.jsonl");

    #[derive(serde::Deserialize)]
    struct Golden {
        numpy: String,
        n: usize,
        mean: String,
        std: String,
        median: String,
        percentiles: Vec<(f64, String)>,
    }

    /// Values that any language can make: an LCG, scaled over several magnitudes.
    fn sample(n: usize) -> Vec<f64> {
        let mut state = n as u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        (0..n)
            .map(|_| {
                let (mantissa, scale) = (next(), next() % 4);
                [1e-5, 1e-3, 1.0, 7.0][usize::try_from(scale).unwrap()] * mantissa as f64 / 2_147_483_648.0
            })
            .collect()
    }

    fn bits(hex: &str) -> u64 {
        u64::from_str_radix(hex, 16).unwrap()
    }

    #[test]
    fn statistics_are_numpys_bit_for_bit() {
        let mut lines = 0;
        for line in GOLDEN.lines() {
            let golden: Golden = serde_json::from_str(line).unwrap();
            let numpy = if golden.numpy == "2.2.6" { Numpy::UP_TO_2_2 } else { Numpy::FROM_2_3 };
            let values = sample(golden.n);
            let sorted = sorted(&values);
            let label = |name: &str| format!("{name} of {} values, numpy {}", golden.n, golden.numpy);
            assert_eq!(numpy.mean(&values).to_bits(), bits(&golden.mean), "{}", label("mean"));
            assert_eq!(numpy.std(&values).to_bits(), bits(&golden.std), "{}", label("std"));
            assert_eq!(median(&sorted).to_bits(), bits(&golden.median), "{}", label("median"));
            for (p, expected) in &golden.percentiles {
                let value = percentile(&sorted, *p).to_bits();
                assert_eq!(value, bits(expected), "{}", label(&format!("p{p}")));
            }
            lines += 1;
        }
        assert_eq!(lines, 42);
    }

    #[test]
    fn no_values_give_zero() {
        assert_eq!(
            [Numpy::FROM_2_3.mean(&[]), Numpy::FROM_2_3.std(&[]), median(&[]), percentile(&[], 99.0)],
            [0.0; 4]
        );
    }

    /// `round` by long arithmetic: the value as an exact decimal string, rounded by hand.
    fn slow_round(x: f64, digits: usize) -> f64 {
        // 1100 places hold any double exactly.
        let exact = format!("{x:.1100}");
        let point = exact.find('.').unwrap();
        let (kept, rest) = exact.split_at(point + 1 + digits);
        let half = format!("5{}", "0".repeat(rest.len() - 1));
        let odd = kept.trim_end_matches('.').ends_with(['1', '3', '5', '7', '9']);
        let up = rest > half.as_str() || (rest == half && odd);
        let mut decimal: Vec<u8> = kept.bytes().collect();
        if up {
            let mut at = decimal.len();
            loop {
                if at == 0 || decimal[at - 1] == b'-' {
                    decimal.insert(at, b'1');
                    break;
                }
                at -= 1;
                match decimal[at] {
                    b'.' => {}
                    b'9' => decimal[at] = b'0',
                    _ => {
                        decimal[at] += 1;
                        break;
                    }
                }
            }
        }
        String::from_utf8(decimal).unwrap().parse().unwrap()
    }

    #[test]
    fn ties_go_to_even_and_only_true_ties() {
        // python3 -c "print(round(0.125, 2), round(0.375, 2), round(2.675, 2), round(0.00005, 4), round(-0.00001, 4))"
        assert_eq!(python_round(0.125, 2), 0.12);
        assert_eq!(python_round(0.375, 2), 0.38);
        assert_eq!(python_round(2.675, 2), 2.67);
        assert_eq!(python_round(0.000_05, 4), 0.0001);
        assert_eq!(python_round(-0.000_01, 4).to_bits(), (-0.0f64).to_bits());
        assert!(python_round(f64::NAN, 4).is_nan());
        assert_eq!(python_round(f64::INFINITY, 4), f64::INFINITY);
    }

    proptest! {
        #[test]
        fn python_round_is_the_exact_decimal_rounding(
            x in prop_oneof![-1e6..1e6f64, -1.0..1.0f64, (-4_000_000i64..4_000_000).prop_map(|k| k as f64 / 32.0)],
            digits in 0usize..6,
        ) {
            prop_assert_eq!(python_round(x, digits).to_bits(), slow_round(x, digits).to_bits());
        }

        #[test]
        fn percentiles_stay_within_the_values(values in prop::collection::vec(0.0..1e3f64, 1..200), p in 0.0..100.0f64) {
            let sorted = sorted(&values);
            let value = percentile(&sorted, p);
            prop_assert!(sorted[0] <= value && value <= sorted[sorted.len() - 1]);
        }
    }
}
