//! A histogram with fixed bounds, and vLLM's bounds.

/// Counts by upper bound.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above all.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts `value` where it belongs: a bound belongs to its own bucket.
    pub(super) fn observe(&mut self, value: f64) {
        self.observe_times(value, 1);
    }

    /// Counts `value` so many times.
    pub(super) fn observe_times(&mut self, value: f64, times: u64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket] += times;
        self.sum += value * times as f64;
    }

    pub(super) fn observe_seconds(&mut self, nanoseconds: u64) {
        self.observe(seconds(nanoseconds));
    }

    /// Each bound with how many values do not exceed it, infinity last.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().scan(0, |total, count| {
            *total += count;
            Some(*total)
        }))
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) const fn sum(&self) -> f64 {
        self.sum
    }
}

pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Seconds to the first token.
pub(super) const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];

/// Seconds from token to token.
pub(super) const TOKEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];

/// Seconds of a request or of one of its phases.
pub(super) const REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];

/// Tokens of one step.
pub(super) const STEP_TOKENS: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

/// Choices.
pub(super) const CHOICES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];

/// Preemptions of one request.
pub(super) const PREEMPTIONS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];

/// Seconds of an HTTP request, finely.
pub(super) const HTTP_FINE: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0,
    30.0, 60.0,
];

/// Seconds of an HTTP request, by its path.
pub(super) const HTTP: &[f64] = &[0.1, 0.5, 1.0];

/// Tokens of a request: 1, 2, 5 and their multiples of ten, up to the longest that the model takes.
pub(super) fn tokens(max_model_len: u32) -> &'static [f64] {
    const ALL: &[f64] = &[
        1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5,
        1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8, 2e8, 5e8, 1e9, 2e9,
    ];
    &ALL[..ALL.partition_point(|&bound| bound <= f64::from(max_model_len))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut histogram = Histogram::new(CHOICES);
        for value in [1.0, 2.0, 2.5, 21.0] {
            histogram.observe(value);
        }
        let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 2, 3, 3, 3, 4]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 26.5));
        histogram.observe_times(1.5, 3);
        histogram.observe_times(7.0, 0);
        let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 5, 6, 6, 6, 7]);
        assert_eq!((histogram.count(), histogram.sum()), (7, 31.0));
    }

    #[test]
    fn token_bounds_end_with_the_model() {
        assert_eq!(tokens(4096).last(), Some(&2000.0));
        assert_eq!(tokens(5000).last(), Some(&5000.0));
        assert_eq!(tokens(1), [1.0]);
    }
}
