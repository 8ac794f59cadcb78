//! What a tape's requests look like taken together.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::format::Request;

/// The most distinct paths or model names that are told apart; a tape with more has them under `(others)`.
const MAX_NAMES: usize = 1000;

/// Counts over a tape's requests, in memory that does not grow with them.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Prompt tokens, of the requests that state them.
    pub input_tokens: Spread,
    /// Tokens asked for, of the requests that state them.
    pub output_tokens: Spread,
    /// Body lengths, in bytes.
    pub body_bytes: Spread,
    /// When requests arrive.
    pub arrivals: Arrivals,
    /// Requests by path.
    pub paths: BTreeMap<String, u64>,
    /// Requests by the `model` of their body, where it is a JSON object that has one.
    pub models: BTreeMap<String, u64>,
    /// What belongs to sessions.
    pub sessions: Sessions,
}

impl Contents {
    /// Adds a request.
    pub fn add(&mut self, request: &Request) {
        request.input_tokens.into_iter().for_each(|tokens| self.input_tokens.add(tokens.into()));
        request.output_tokens.into_iter().for_each(|tokens| self.output_tokens.add(tokens.into()));
        self.body_bytes.add(request.body.len() as u64);
        self.arrivals.add(request.offset_ns);
        count(&mut self.paths, &request.path);
        if let Some(model) = model(&request.body) {
            count(&mut self.models, &model);
        }
        if let Some(session) = &request.session {
            self.sessions.begun += u64::from(session.turn == 0);
            self.sessions.requests += 1;
            self.sessions.longest = self.sessions.longest.max(session.turn.saturating_add(1));
        }
    }
}

fn count(names: &mut BTreeMap<String, u64>, name: &str) {
    if let Some(count) = names.get_mut(name) {
        *count += 1;
    } else {
        let name = if names.len() < MAX_NAMES { name } else { "(others)" };
        *names.entry(name.to_owned()).or_default() += 1;
    }
}

fn model(body: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        model: Cow<'a, str>,
    }
    serde_json::from_slice::<Body<'_>>(body).ok().map(|body| body.model)
}

/// Collects how a quantity is spread over the requests that have it.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Three significant digits: exact below 2048.
    histogram: Histogram<u64>,
    min: u64,
    max: u64,
    total: u64,
}

impl Default for Spread {
    fn default() -> Self {
        // Token counts are `u32`, bodies shorter than a frame; so the histogram never has to grow.
        #[expect(clippy::expect_used, reason = "the bounds are constants, and valid")]
        let histogram = Histogram::new_with_max(u64::from(u32::MAX), 3).expect("valid bounds");
        Self { histogram, min: u64::MAX, max: 0, total: 0 }
    }
}

impl Spread {
    fn add(&mut self, value: u64) {
        self.histogram.saturating_record(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.total += value;
    }

    /// The quantity as a histogram of 16 buckets or fewer: of equal width where the values are of one order, else each
    /// twice as wide as the one before. Their bounds have the three digits of the figures. None where no request has the
    /// quantity.
    #[must_use]
    pub fn buckets(&self) -> Vec<Bucket> {
        const MOST: u64 = 16;

        if self.histogram.is_empty() {
            return Vec::new();
        }
        let (min, max) = (self.min, self.max);
        let mut starts = Vec::new();
        if max / 8 <= min {
            // A round width: 1, 2 or 5 and zeros.
            let least = (max - min) / MOST + 1;
            let tens = 10_u64.pow(least.ilog10());
            let width = [1, 2, 5, 10].map(|step| step * tens).into_iter().find(|&width| width >= least);
            let width = width.unwrap_or(least);
            starts.extend((min / width..=max / width).map(|place| place * width));
        } else {
            starts.extend((min > 0).then(|| 1 << min.ilog2()).or(Some(0)));
            let mut next = if min > 0 { 2 << min.ilog2() } else { 1 };
            while next <= max {
                starts.push(next);
                next *= 2;
            }
        }
        let ends = starts.iter().skip(1).map(|&next| next - 1).chain([max]);
        let mut buckets: Vec<Bucket> =
            starts.iter().zip(ends).map(|(&from, to)| Bucket { from, to, count: 0 }).collect();
        for step in self.histogram.iter_recorded() {
            let value = step.value_iterated_to().clamp(min, max);
            let place = buckets.partition_point(|bucket| bucket.to < value);
            if let Some(bucket) = buckets.get_mut(place) {
                bucket.count += step.count_at_value();
            }
        }
        buckets
    }

    /// The figures; none when no request has the quantity.
    #[must_use]
    pub fn figures(&self) -> Option<Figures> {
        let count = self.histogram.len();
        let quantile = |q| self.histogram.value_at_quantile(q).clamp(self.min, self.max);
        (count > 0).then(|| Figures {
            count,
            total: self.total,
            min: self.min,
            mean: self.total as f64 / count as f64,
            p50: quantile(0.5),
            p90: quantile(0.9),
            max: self.max,
        })
    }
}

/// Sessions, as far as they can be told without a list of them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Sessions {
    /// Requests that are turn 0 of one.
    pub begun: u64,
    /// Requests that belong to one.
    pub requests: u64,
    /// The turns of the longest: one more than the greatest turn.
    pub longest: u32,
}

/// How many requests have a quantity between two values.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Bucket {
    /// The least.
    pub from: u64,
    /// The most.
    pub to: u64,
    /// How many.
    pub count: u64,
}

/// How a quantity is spread, in its own unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Requests that have it.
    pub count: u64,
    /// Its sum.
    pub total: u64,
    /// The smallest.
    pub min: u64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The median, to three significant digits: the smallest value that half of the requests do not exceed.
    pub p50: u64,
    /// The 90th percentile, to three significant digits.
    pub p90: u64,
    /// The largest.
    pub max: u64,
}

/// Collects when requests arrive.
#[derive(Clone, Debug)]
pub struct Arrivals {
    count: u64,
    first_ns: u64,
    last_ns: u64,
    /// Arrivals from the tape's start on, in steps of `width_ns`; when they would exceed [`STEPS`], two become one.
    steps: Vec<u64>,
    width_ns: u64,
}

/// The most steps of time that arrivals are counted in.
const STEPS: usize = 128;

impl Default for Arrivals {
    fn default() -> Self {
        Self { count: 0, first_ns: 0, last_ns: 0, steps: Vec::new(), width_ns: 1_000_000 }
    }
}

impl Arrivals {
    fn add(&mut self, offset_ns: u64) {
        self.first_ns = if self.count == 0 { offset_ns } else { self.first_ns.min(offset_ns) };
        self.last_ns = self.last_ns.max(offset_ns);
        self.count += 1;
        while offset_ns / self.width_ns >= STEPS as u64 {
            self.steps = self.steps.chunks(2).map(|pair| pair.iter().sum()).collect();
            self.width_ns *= 2;
        }
        // Below `STEPS` now.
        let step = usize::try_from(offset_ns / self.width_ns).unwrap_or(STEPS - 1);
        if step >= self.steps.len() {
            self.steps.resize(step + 1, 0);
        }
        self.steps[step] += 1;
    }

    /// The arrivals over time: how long a step is, in ns, and the arrivals in each, from the tape's start on; 64 to 128
    /// steps where the tape is longer than a few milliseconds.
    #[must_use]
    pub fn over_time(&self) -> (u64, &[u64]) {
        (self.width_ns, &self.steps)
    }

    /// From the earliest arrival to the latest, in nanoseconds; none when no request has an arrival of its own, that
    /// is when all offsets are 0.
    #[must_use]
    pub fn span_ns(&self) -> Option<u64> {
        (self.last_ns > 0).then(|| self.last_ns - self.first_ns)
    }

    /// Requests per second: one less than the requests, over the span.
    #[must_use]
    pub fn mean_rate(&self) -> Option<f64> {
        let span = self.span_ns().filter(|&span| span > 0)?;
        Some((self.count - 1) as f64 * 1e9 / span as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(index: u64) -> Request {
        Request {
            index,
            offset_ns: index * 500_000_000,
            method: "POST".to_owned(),
            path: format!("/v1/{}", index % 3),
            body: format!(r#"{{"prompt":"x","model":"m{}"}}"#, index % 2).into_bytes(),
            input_tokens: Some(u32::try_from(index).unwrap() + 1),
            output_tokens: None,
            session: None,
        }
    }

    #[test]
    fn figures_are_those_of_the_requests() {
        let mut contents = Contents::default();
        (0..100).for_each(|index| contents.add(&request(index)));
        let figures = contents.input_tokens.figures().unwrap();
        let expected = Figures { count: 100, total: 5050, min: 1, mean: 50.5, p50: 50, p90: 90, max: 100 };
        assert_eq!(figures, expected);
        assert_eq!(contents.output_tokens.figures(), None);
        assert_eq!(contents.arrivals.span_ns(), Some(49_500_000_000));
        assert_eq!(contents.arrivals.mean_rate(), Some(2.0));
        assert_eq!(contents.models.get("m1"), Some(&50));
        assert_eq!(contents.paths.get("/v1/0"), Some(&34));
    }

    #[test]
    fn names_without_end_take_bounded_room() {
        let mut names = BTreeMap::new();
        (0..5000).for_each(|n| count(&mut names, &n.to_string()));
        assert_eq!(names.len(), MAX_NAMES + 1);
        assert_eq!(names.values().sum::<u64>(), 5000);
    }

    fn buckets(values: &[u64]) -> Vec<(u64, u64, u64)> {
        let mut spread = Spread::default();
        for &value in values {
            spread.add(value);
        }
        spread.buckets().into_iter().map(|Bucket { from, to, count }| (from, to, count)).collect()
    }

    #[test]
    fn buckets_are_even_or_double() {
        assert_eq!(buckets(&[]), []);
        assert_eq!(buckets(&[7, 7]), [(7, 7, 2)]);
        assert_eq!(buckets(&[10, 12, 40]).first(), Some(&(10, 11, 1)));
        assert_eq!(buckets(&[10, 12, 40]).len(), 16);
        assert_eq!(buckets(&[0, 1, 3, 9]), [(0, 0, 1), (1, 1, 1), (2, 3, 1), (4, 7, 0), (8, 9, 1)]);
        assert_eq!(buckets(&[5, 100]), [(4, 7, 1), (8, 15, 0), (16, 31, 0), (32, 63, 0), (64, 100, 1)]);
        // Whatever the values, each is in one bucket.
        let many: Vec<u64> = (0..5000).map(|n| 4000 + n * 7 % 9000).collect();
        assert_eq!(buckets(&many).iter().map(|(_, _, count)| count).sum::<u64>(), 5000);
    }

    #[test]
    fn arrivals_over_time_take_bounded_room() {
        let mut arrivals = Arrivals::default();
        for n in 0..10_000 {
            arrivals.add(n * 1_000_000_007);
            assert!(arrivals.steps.len() <= STEPS);
        }
        let (width_ns, steps) = arrivals.over_time();
        assert_eq!(steps.iter().sum::<u64>(), 10_000);
        assert!(steps.len() > STEPS / 2);
        let (least, most) = (steps[..steps.len() - 1].iter().min(), steps.iter().max());
        assert!(most.unwrap() - least.unwrap() <= 1, "{width_ns}: {steps:?}");
        arrivals.add(u64::MAX);
        assert!(arrivals.steps.len() <= STEPS);
    }
}
