//! A Prometheus histogram: what it tells of a mean, which is exact, and of a quantile, which is not.

use serde::{Deserialize, Serialize};

/// A histogram, in the unit of its metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Number of values.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// Upper bounds, ascending, each with the number of values up to it.
    buckets: Vec<(f64, f64)>,
}

/// Where a quantile lies: all that a histogram knows is its bucket.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Quantile {
    /// The bucket's lower bound; 0 of the first.
    pub above: f64,
    /// The bucket's upper bound; absent of the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<f64>,
    /// Between the two in proportion to the values' ranks, as Prometheus' `histogram_quantile` has it. Absent in the
    /// last bucket, which has no end, and in the first, which vLLM makes so wide for some metrics that the middle of it
    /// says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpolated: Option<f64>,
}

impl Histogram {
    /// Adds `values` to the bucket of all values up to `bound`.
    pub fn add(&mut self, bound: f64, values: f64) {
        match self.place(bound) {
            Ok(at) => self.buckets[at].1 += values,
            Err(at) => self.buckets.insert(at, (bound, values)),
        }
    }

    /// What came since an earlier reading.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let values = |bound| before.place(bound).map_or(0.0, |at| before.buckets[at].1);
        Self {
            count: self.count - before.count,
            sum: self.sum - before.sum,
            buckets: self.buckets.iter().map(|&(bound, all)| (bound, all - values(bound))).collect(),
        }
    }

    /// The mean; none without values.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }

    /// The bucket that holds the quantile `q`, from 0 to 1; none without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Quantile> {
        let rank = q * self.buckets.last()?.1;
        let at = self.buckets.iter().position(|(_, all)| *all >= rank && *all > 0.0)?;
        let (bound, all) = self.buckets[at];
        let lower = at.checked_sub(1).map(|at| self.buckets[at]);
        let (above, before) = lower.unwrap_or((0.0, 0.0));
        let up_to = bound.is_finite().then_some(bound);
        let share = (rank - before) / (all - before);
        let interpolated = lower.and(up_to).map(|up_to| above + (up_to - above) * share);
        Some(Quantile { above, up_to, interpolated })
    }

    /// Where a bucket is, or else where it belongs.
    fn place(&self, bound: f64) -> Result<usize, usize> {
        self.buckets.binary_search_by(|(known, _)| known.total_cmp(&bound))
    }
}

impl Quantile {
    /// In another unit.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self {
            above: self.above * factor,
            up_to: self.up_to.map(|bound| bound * factor),
            interpolated: self.interpolated.map(|value| value * factor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: [f64; 4]) -> Histogram {
        let mut histogram = Histogram { count: values[3], sum: 8.0, ..Histogram::default() };
        // In any order.
        for (bound, at) in [(f64::INFINITY, 3), (1.0, 0), (4.0, 2), (2.0, 1)] {
            histogram.add(bound, values[at]);
        }
        histogram
    }

    #[test]
    fn a_quantile_is_in_a_bucket() {
        let all = histogram([2.0, 4.0, 8.0, 10.0]);
        assert_eq!(all.mean(), Some(0.8));
        let quantile = |q| all.quantile(q).unwrap();
        assert_eq!(quantile(0.2), Quantile { above: 0.0, up_to: Some(1.0), interpolated: None });
        assert_eq!(quantile(0.3), Quantile { above: 1.0, up_to: Some(2.0), interpolated: Some(1.5) });
        assert_eq!(quantile(0.5).times(1000.0).interpolated, Some(2500.0));
        assert_eq!(quantile(0.8).interpolated, Some(4.0));
        assert_eq!(quantile(0.99), Quantile { above: 4.0, up_to: None, interpolated: None });
    }

    #[test]
    fn a_difference_knows_only_what_came_since() {
        let (before, after) = (histogram([2.0, 4.0, 8.0, 10.0]), histogram([2.0, 4.0, 9.0, 12.0]));
        let since = after.since(&before);
        assert_eq!((since.count, since.sum), (2.0, 0.0));
        assert_eq!(since.quantile(0.5).unwrap().interpolated, Some(4.0));
        let none = after.since(&after);
        assert_eq!((none.mean(), none.quantile(0.5)), (None, None));
        assert_eq!(after.since(&Histogram::default()), after);
    }
}
