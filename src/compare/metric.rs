//! The neutral set of figures: what every tool measures under one name or another, in one unit each.

use std::collections::BTreeMap;

use serde::Serialize;

/// A latency that every tool keeps.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Latency {
    /// Time to first token.
    Ttft,
    /// Time per output token after the first.
    Tpot,
    /// Inter-token latency.
    Itl,
    /// End-to-end latency.
    E2el,
}

impl Latency {
    const ALL: [Latency; 4] = [Latency::Ttft, Latency::Tpot, Latency::Itl, Latency::E2el];

    const fn key(self) -> &'static str {
        match self {
            Latency::Ttft => "ttft",
            Latency::Tpot => "tpot",
            Latency::Itl => "itl",
            Latency::E2el => "e2el",
        }
    }
}

/// What is told of a latency over all requests.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Statistic {
    /// Arithmetic mean.
    Mean,
    /// Median.
    Median,
    /// 99th percentile.
    P99,
    /// Standard deviation of the population.
    Std,
}

impl Statistic {
    const ALL: [Statistic; 4] = [Statistic::Mean, Statistic::Median, Statistic::P99, Statistic::Std];

    const fn key(self) -> &'static str {
        match self {
            Statistic::Mean => "mean",
            Statistic::Median => "median",
            Statistic::P99 => "p99",
            Statistic::Std => "std",
        }
    }
}

/// A figure of a run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Metric {
    /// The measured time, in seconds.
    Duration,
    /// Requests that succeeded.
    Succeeded,
    /// Requests that failed, were cut off or never sent.
    Failed,
    /// Prompt tokens of the successes.
    InputTokens,
    /// Output tokens of the successes.
    OutputTokens,
    /// Successes a second.
    RequestThroughput,
    /// Output tokens a second.
    OutputThroughput,
    /// Input and output tokens a second.
    TotalThroughput,
    /// A statistic of a latency, in milliseconds.
    Latency(Latency, Statistic),
}

impl Metric {
    /// Every metric, in the order of the tables.
    pub fn all() -> impl Iterator<Item = Metric> {
        let totals = [
            Metric::Duration,
            Metric::Succeeded,
            Metric::Failed,
            Metric::InputTokens,
            Metric::OutputTokens,
            Metric::RequestThroughput,
            Metric::OutputThroughput,
            Metric::TotalThroughput,
        ];
        let latencies = Latency::ALL.into_iter().flat_map(|latency| {
            Statistic::ALL.into_iter().map(move |statistic| Metric::Latency(latency, statistic))
        });
        totals.into_iter().chain(latencies)
    }

    /// Its name in JSON and in `--tolerance`, with its unit where that is not a count: `mean_ttft_ms`.
    #[must_use]
    pub fn key(self) -> String {
        match self {
            Metric::Duration => "duration_s".to_owned(),
            Metric::Succeeded => "succeeded".to_owned(),
            Metric::Failed => "failed".to_owned(),
            Metric::InputTokens => "input_tokens".to_owned(),
            Metric::OutputTokens => "output_tokens".to_owned(),
            Metric::RequestThroughput => "request_throughput".to_owned(),
            Metric::OutputThroughput => "output_throughput".to_owned(),
            Metric::TotalThroughput => "total_throughput".to_owned(),
            Metric::Latency(latency, statistic) => format!("{}_{}_ms", statistic.key(), latency.key()),
        }
    }

    /// Its name in tables and sentences: `mean TTFT`.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Metric::Duration => "duration".to_owned(),
            Metric::Latency(latency, statistic) => {
                format!("{} {}", statistic.key(), latency.key().to_uppercase())
            }
            other => other.key().replace('_', " "),
        }
    }

    /// Its unit; empty for a count.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Metric::Duration => "s",
            Metric::Succeeded | Metric::Failed | Metric::InputTokens | Metric::OutputTokens => "",
            Metric::RequestThroughput => "req/s",
            Metric::OutputThroughput | Metric::TotalThroughput => "tok/s",
            Metric::Latency(..) => "ms",
        }
    }

    /// The decimals it is printed with.
    #[must_use]
    pub const fn decimals(self) -> usize {
        match self {
            Metric::Succeeded | Metric::Failed | Metric::InputTokens | Metric::OutputTokens => 0,
            Metric::OutputThroughput | Metric::TotalThroughput => 2,
            Metric::Duration | Metric::RequestThroughput | Metric::Latency(..) => 3,
        }
    }

    /// How many of the last printed decimal make one: `10^decimals`.
    const fn steps_in_one(self) -> u32 {
        match self.decimals() {
            0 => 1,
            2 => 100,
            _ => 1000,
        }
    }

    /// Whether it says how values spread rather than how large they are. Such a metric is shown but not judged,
    /// unless a tolerance names it.
    #[must_use]
    pub const fn is_spread(self) -> bool {
        matches!(self, Metric::Latency(_, Statistic::Std))
    }

    /// Whether `name` means this metric: its key, its key without the unit, the latency (`ttft`), the statistic
    /// (`p99`), or `throughput` for all three.
    #[must_use]
    pub fn answers_to(self, name: &str) -> bool {
        let key = self.key();
        let bare = key.trim_end_matches("_ms").trim_end_matches("_s");
        let family = match self {
            Metric::Latency(latency, statistic) => latency.key() == name || statistic.key() == name,
            Metric::RequestThroughput | Metric::OutputThroughput | Metric::TotalThroughput => {
                name == "throughput"
            }
            _ => false,
        };
        key == name || bare == name || family
    }
}

impl Serialize for Metric {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.key())
    }
}

/// Figures in their metrics' units; a metric that a tool does not keep is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<Metric, f64>);

impl Figures {
    /// A metric's figure.
    #[must_use]
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(&metric).copied()
    }

    /// How many metrics there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// These figures, and of `other` those that are absent here.
    #[must_use]
    pub fn or(&self, other: &Figures) -> Figures {
        let mut all = other.clone();
        all.0.extend(&self.0);
        all
    }

    /// Sets a metric's figure; none, or what is not a finite number, leaves the metric absent.
    pub fn set(&mut self, metric: Metric, value: impl Into<Option<f64>>) {
        match value.into().filter(|value| value.is_finite()) {
            Some(value) => self.0.insert(metric, value),
            None => self.0.remove(&metric),
        };
    }
}

/// A figure in whole units of the last decimal that is printed: sums and differences of these are exact.
///
/// Beyond 2^53 such units, or for what is not a number, the nearest representable value stands.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "saturates, as documented")]
pub fn in_steps(value: f64, metric: Metric) -> i64 {
    (value * f64::from(metric.steps_in_one())).round() as i64
}

/// Whole units of the last decimal as text: `-0.012`; with a plus sign where `signed` and not negative.
#[must_use]
pub fn shown(steps: i64, metric: Metric, signed: bool) -> String {
    let decimals = metric.decimals();
    let scale = u64::from(metric.steps_in_one());
    let sign = match steps.signum() {
        -1 => "-",
        1 if signed => "+",
        _ => "",
    };
    let (whole, part) = (steps.unsigned_abs() / scale, steps.unsigned_abs() % scale);
    if decimals == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part:0decimals$}") }
}

/// Whole units of the last decimal as a number, the one that the text reads back as.
#[must_use]
pub fn from_steps(steps: i64, metric: Metric) -> f64 {
    steps as f64 / f64::from(metric.steps_in_one())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEAN_TTFT: Metric = Metric::Latency(Latency::Ttft, Statistic::Mean);

    #[test]
    fn names_reach_what_they_mean() {
        let named = |name: &str| Metric::all().filter(|metric| metric.answers_to(name)).count();
        assert_eq!(["ttft", "p99", "mean_ttft", "mean_ttft_ms"].map(named), [4, 4, 1, 1]);
        assert_eq!(["throughput", "duration", "output_tokens", "nonsense"].map(named), [3, 1, 1, 0]);
    }

    #[test]
    fn steps_are_what_is_printed() {
        for metric in Metric::all() {
            assert_eq!(metric.steps_in_one().ilog10() as usize, metric.decimals(), "{metric:?}");
        }
        assert_eq!(shown(in_steps(12.3456, MEAN_TTFT), MEAN_TTFT, true), "+12.346");
        assert_eq!(shown(in_steps(-0.0123, MEAN_TTFT), MEAN_TTFT, false), "-0.012");
        assert_eq!(shown(in_steps(-0.0001, MEAN_TTFT), MEAN_TTFT, true), "0.000");
        assert_eq!(shown(7, Metric::Failed, false), "7");
        assert!((from_steps(12_346, MEAN_TTFT) - 12.346).abs() < f64::EPSILON);
    }
}
