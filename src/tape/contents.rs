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
    /// Sessions: requests that are turn 0 of one.
    pub sessions: u64,
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
        self.sessions += u64::from(request.session.as_ref().is_some_and(|session| session.turn == 0));
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
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrivals {
    count: u64,
    first_ns: u64,
    last_ns: u64,
}

impl Arrivals {
    fn add(&mut self, offset_ns: u64) {
        self.first_ns = if self.count == 0 { offset_ns } else { self.first_ns.min(offset_ns) };
        self.last_ns = self.last_ns.max(offset_ns);
        self.count += 1;
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
}
