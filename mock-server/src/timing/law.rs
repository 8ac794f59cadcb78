//! How long an interval is: the laws of `--ttft` and `--itl`, from their words to nanoseconds.
//!
//! `20ms`, `fixed:20ms`, `uniform:10ms..30ms`, `normal:20ms,cv=0.1`, `lognormal:20ms,cv=0.3`, `gamma:20ms,cv=0.5`,
//! `empirical:FILE` (a CSV of numbers, in ms). A law's span is its mean; `cv` is the standard deviation over the mean,
//! and `sd` may stand in its place. Beside it, with commas between:
//!
//! - `token=50us` (`--ttft`): for each of the prompt's tokens that are not in a cache, that much more;
//! - `load=0.01` (both): longer by that share for each other answer under way when the request came;
//! - `rho=0.8` (`--itl`, normal and lognormal): each interval is correlated so with the one before it, as a first-order
//!   autoregressive process; the law of each alone stays what it is.
//!
//! Logarithms and exponentials are the platform's: another libm can move a token by a nanosecond.

use std::fs;
use std::sync::Arc;

use super::Stream;
use crate::duration::parse_ns;

/// The law of an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Law {
    shape: Shape,
    rho: f64,
    token_ns: u64,
    load: f64,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Empirical(Arc<[u64]>),
    Fixed(u64),
    Gamma { mean_ns: f64, cv: f64 },
    Lognormal { mean_ns: f64, cv: f64 },
    Normal { mean_ns: f64, cv: f64 },
    Uniform { low_ns: u64, high_ns: u64 },
}

/// What an interval depends on beside its law.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Circumstances {
    /// The prompt's tokens that are not in a cache.
    pub prompt_tokens: u32,
    /// Other answers under way.
    pub others: u64,
}

/// The normal number behind the interval before.
#[derive(Debug, Default)]
pub(super) struct Memory(Option<f64>);

impl Law {
    /// Always the same, in ns.
    #[must_use]
    pub const fn fixed(ns: u64) -> Self {
        Self { shape: Shape::Fixed(ns), rho: 0.0, token_ns: 0, load: 0.0 }
    }

    /// A law of the time to the first token, from its words. The error is a whole sentence for the command line.
    pub fn parse_ttft(text: &str) -> Result<Self, String> {
        let law = Self::parse(text)?;
        if law.rho != 0.0 {
            return Err(format!("`{text}`: rho= is for --itl; a first token has none before it"));
        }
        Ok(law)
    }

    /// A law of the time between tokens, from its words. The error is a whole sentence for the command line.
    pub fn parse_itl(text: &str) -> Result<Self, String> {
        let law = Self::parse(text)?;
        if law.token_ns != 0 {
            return Err(format!(
                "`{text}`: token= is for --ttft; a prompt is computed before the first token"
            ));
        }
        Ok(law)
    }

    /// Whether these words name a file. A flag's may, but what comes over the network opens none.
    pub(crate) fn names_file(text: &str) -> bool {
        text.trim_start().starts_with("empirical")
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').unwrap_or(("fixed", text));
        let mut parts = rest.split(',');
        let main = parts.next().unwrap_or_default();
        let mut law = Self::fixed(0);
        let (mut cv, mut sd_ns) = (None, None);
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let number = || {
                let number: Option<f64> = value.parse().ok();
                number
                    .filter(|number| number.is_finite() && *number >= 0.0)
                    .ok_or_else(|| format!("`{text}`: {key}= takes a number from 0, such as {key}=0.3"))
            };
            match key.trim() {
                "cv" => cv = Some(number()?),
                "load" => law.load = number()?,
                "rho" => law.rho = number()?,
                "sd" => sd_ns = Some(parse_ns(value)?),
                "token" => law.token_ns = parse_ns(value)?,
                _ => {
                    return Err(format!(
                        "`{text}`: no law has `{key}`; there are cv, sd, rho, token and load"
                    ));
                }
            }
        }
        let has_spread = cv.is_some() || sd_ns.is_some();
        law.shape = match name {
            "empirical" => Shape::Empirical(read(main)?),
            "fixed" => Shape::Fixed(parse_ns(main)?),
            "uniform" => uniform(main).ok_or_else(|| {
                format!("`{text}`: write the shortest and the longest, such as uniform:10ms..30ms")
            })?,
            "gamma" | "lognormal" | "normal" => {
                let mean_ns = parse_ns(main)? as f64;
                let cv = match (cv, sd_ns) {
                    (Some(cv), None) => cv,
                    (None, Some(sd_ns)) if mean_ns > 0.0 => sd_ns as f64 / mean_ns,
                    _ => {
                        return Err(format!(
                            "`{text}`: the law needs cv= or sd=, such as {name}:20ms,cv=0.3"
                        ));
                    }
                };
                match name {
                    _ if mean_ns <= 0.0 || cv <= 0.0 => Shape::Fixed(parse_ns(main)?),
                    "gamma" => Shape::Gamma { mean_ns, cv },
                    "lognormal" => Shape::Lognormal { mean_ns, cv },
                    _ => Shape::Normal { mean_ns, cv },
                }
            }
            _ => {
                return Err(format!(
                    "`{text}`: no law is called `{name}`; there are fixed, uniform, normal, lognormal, gamma and \
                     empirical"
                ));
            }
        };
        if has_spread && matches!(name, "empirical" | "fixed" | "uniform") {
            return Err(format!("`{text}`: cv= and sd= are for normal, lognormal and gamma"));
        }
        if law.rho >= 1.0 || (law.rho > 0.0 && !matches!(name, "normal" | "lognormal")) {
            return Err(format!("`{text}`: rho= is below 1, and for normal and lognormal"));
        }
        Ok(law)
    }

    /// The mean, in ns, of an interval that nothing else lengthens.
    #[must_use]
    pub fn mean_ns(&self) -> u64 {
        match &self.shape {
            Shape::Empirical(values) => {
                let sum: u128 = values.iter().map(|ns| u128::from(*ns)).sum();
                u64::try_from(sum / values.len().max(1) as u128).unwrap_or(u64::MAX)
            }
            Shape::Fixed(ns) => *ns,
            Shape::Gamma { mean_ns, .. }
            | Shape::Lognormal { mean_ns, .. }
            | Shape::Normal { mean_ns, .. } => whole(*mean_ns),
            Shape::Uniform { low_ns, high_ns } => low_ns.midpoint(*high_ns),
        }
    }

    /// The next interval, in ns. A fixed one takes no random number.
    pub(super) fn interval_ns(
        &self,
        circumstances: Circumstances,
        random: &mut Stream,
        memory: &mut Memory,
    ) -> u64 {
        let drawn_ns = match &self.shape {
            Shape::Empirical(values) => {
                let place = random.below(values.len() as u64);
                usize::try_from(place).ok().and_then(|place| values.get(place)).copied().unwrap_or(0)
            }
            Shape::Fixed(ns) => *ns,
            Shape::Gamma { mean_ns, cv } => {
                let shape = 1.0 / (cv * cv);
                whole(gamma(random, shape) / shape * mean_ns)
            }
            Shape::Lognormal { mean_ns, cv } => {
                let variance = (cv * cv).ln_1p();
                let z = memory.next(self.rho, random);
                whole(mean_ns * (variance.sqrt() * z - variance / 2.0).exp())
            }
            Shape::Normal { mean_ns, cv } => whole(mean_ns * (1.0 + cv * memory.next(self.rho, random))),
            Shape::Uniform { low_ns, high_ns } => low_ns + random.below((high_ns - low_ns).saturating_add(1)),
        };
        let prompt_ns = self.token_ns.saturating_mul(u64::from(circumstances.prompt_tokens));
        let ns = drawn_ns.saturating_add(prompt_ns);
        if self.load > 0.0 { whole(ns as f64 * (1.0 + self.load * circumstances.others as f64)) } else { ns }
    }
}

impl Memory {
    /// The process' next normal number.
    fn next(&mut self, rho: f64, random: &mut Stream) -> f64 {
        let fresh = normal(random);
        let next = self.0.map_or(fresh, |before| rho * before + (1.0 - rho * rho).sqrt() * fresh);
        self.0 = Some(next);
        next
    }
}

fn uniform(text: &str) -> Option<Shape> {
    let (low, high) = text.split_once("..")?;
    let (low_ns, high_ns) = (parse_ns(low).ok()?, parse_ns(high).ok()?);
    (low_ns <= high_ns).then_some(Shape::Uniform { low_ns, high_ns })
}

/// The numbers of a CSV file, in ms: every field that is one. A first line of words is a heading.
fn read(path: &str) -> Result<Arc<[u64]>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let mut values = Vec::new();
    for (line, fields) in text.lines().enumerate() {
        for field in fields.split(',').map(str::trim).filter(|field| !field.is_empty()) {
            match field.parse::<f64>() {
                Ok(ms) if (0.0..3.6e6).contains(&ms) => values.push(whole(ms * 1e6)),
                Err(_) if line == 0 => {}
                _ => {
                    return Err(format!(
                        "{path}, line {}: `{field}` is not a time in ms below an hour",
                        line + 1
                    ));
                }
            }
        }
    }
    if values.is_empty() { Err(format!("{path} has no number in it")) } else { Ok(values.into()) }
}

/// The nearest nanosecond; 0 for what is below.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, which is what is meant"
)]
fn whole(ns: f64) -> u64 {
    ns.round() as u64
}

/// A number of the normal law with mean 0 and variance 1: Marsaglia's polar method.
fn normal(random: &mut Stream) -> f64 {
    loop {
        let (x, y) = (2.0 * random.unit() - 1.0, 2.0 * random.unit() - 1.0);
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            return x * (-2.0 * square.ln() / square).sqrt();
        }
    }
}

/// A number of the gamma law with this shape and scale 1. Marsaglia and Tsang, "A simple method for generating gamma
/// variables", ACM TOMS 26(3), 2000; a shape below 1 by their section 6.
fn gamma(random: &mut Stream, shape: f64) -> f64 {
    if shape < 1.0 {
        let above = gamma(random, shape + 1.0);
        return above * (1.0 - random.unit()).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - random.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    reason = "whole nanoseconds below 2^53 are exact"
)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::timing::{Purpose, RequestKey};

    fn drawn(text: &str, count: usize) -> Vec<f64> {
        let law = Law::parse(text).unwrap();
        let mut random = Stream::new(1, Purpose::Timing, &RequestKey::new("/", b"", text.as_bytes()));
        let mut memory = Memory::default();
        (0..count)
            .map(|_| law.interval_ns(Circumstances::default(), &mut random, &mut memory) as f64)
            .collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    /// Mean within five standard errors, and the coefficient of variation within 3 %, for every law that has one.
    #[test]
    fn a_law_has_its_mean_and_its_spread() {
        for (text, mean_ns, cv) in [
            ("normal:20ms,cv=0.1", 20e6, 0.1),
            ("normal:20ms,sd=4ms,rho=0.5", 20e6, 0.2),
            ("lognormal:20ms,cv=0.3", 20e6, 0.3),
            ("lognormal:5ms,cv=1,rho=0.3", 5e6, 1.0),
            ("gamma:10ms,cv=0.2", 10e6, 0.2),
            ("gamma:10ms,cv=2", 10e6, 2.0),
            ("uniform:10ms..30ms", 20e6, 10.0 / 3.0_f64.sqrt() / 20.0),
        ] {
            let values = drawn(text, 100_000);
            let mean = mean(&values);
            let sd = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 1e5).sqrt();
            // The correlated ones have fewer independent values than they have values.
            let error = cv * mean_ns / 1e5_f64.sqrt() * if text.contains("rho") { 2.0 } else { 1.0 };
            assert!((mean - mean_ns).abs() < 5.0 * error, "{text}: {mean}");
            assert!((sd / mean / cv - 1.0).abs() < 0.03, "{text}: {}", sd / mean);
            assert_eq!(Law::parse(text).unwrap().mean_ns() as f64, mean_ns);
        }
    }

    #[test]
    fn intervals_are_as_correlated_as_asked_for() {
        for rho in [0.0, 0.8] {
            let values = drawn(&format!("normal:20ms,cv=0.1,rho={rho}"), 100_000);
            let mean = mean(&values);
            let product = |pair: &[f64]| (pair[0] - mean) * (pair[1] - mean);
            let covariance = values.windows(2).map(product).sum::<f64>();
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
            assert!((covariance / variance - rho).abs() < 0.02, "{rho}: {}", covariance / variance);
        }
    }

    /// Golden: a change here changes every seeded run, and needs an entry in the changelog.
    #[test]
    fn laws_are_golden() {
        let laws = ["uniform:10ms..30ms", "normal:20ms,cv=0.1", "lognormal:20ms,cv=0.3", "gamma:10ms,cv=0.2"];
        let first = laws.map(|text| drawn(text, 2).into_iter().map(|ns| ns as u64).collect::<Vec<_>>());
        assert_eq!(
            first,
            [
                [14_243_772, 12_361_106],
                [17_462_493, 19_515_771],
                [25_578_973, 25_458_408],
                [8_005_994, 8_605_840]
            ]
        );
    }

    #[test]
    fn circumstances_lengthen_an_interval() {
        let of = |text: &str, prompt_tokens, others| {
            let mut random = Stream::new(0, Purpose::Timing, &RequestKey::new("/", b"", b""));
            let circumstances = Circumstances { prompt_tokens, others };
            Law::parse(text).unwrap().interval_ns(circumstances, &mut random, &mut Memory::default())
        };
        assert_eq!(of("20ms,token=50us", 100, 9), 25_000_000);
        assert_eq!(of("20ms,token=50us,load=0.1", 100, 3), 32_500_000);
        assert_eq!(of("5ms,load=0.01", 100, 0), 5_000_000);
    }

    #[test]
    fn measured_numbers_are_drawn_from() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "itl_ms\n1.5\n2,2.5\n").unwrap();
        let text = format!("empirical:{}", file.path().display());
        let mut values = drawn(&text, 100);
        values.sort_by(f64::total_cmp);
        values.dedup();
        assert_eq!(values, [1.5e6, 2e6, 2.5e6]);
        writeln!(file, "soon").unwrap();
        assert!(Law::parse(&text).unwrap_err().contains("line 5: `soon`"));
    }

    #[test]
    fn slips_are_named() {
        for (text, words) in [
            ("20", "write a number and its unit"),
            ("poisson:20ms", "no law is called `poisson`"),
            ("lognormal:20ms", "needs cv= or sd="),
            ("gamma:20ms,cv=-1", "takes a number from 0"),
            ("gamma:20ms,cv=0.1,rho=0.5", "for normal and lognormal"),
            ("normal:20ms,cv=0.1,rho=1", "rho= is below 1"),
            ("fixed:20ms,cv=0.1", "cv= and sd= are for"),
            ("uniform:20ms", "uniform:10ms..30ms"),
            ("uniform:20ms..10ms", "uniform:10ms..30ms"),
            ("20ms,burst=2", "no law has `burst`"),
            ("empirical:/nowhere", "cannot read /nowhere"),
        ] {
            let error = Law::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(Law::parse_itl("5ms,token=1us").unwrap_err().contains("--ttft"));
        assert!(Law::parse_ttft("normal:5ms,cv=0.1,rho=0.1").unwrap_err().contains("--itl"));
    }
}
