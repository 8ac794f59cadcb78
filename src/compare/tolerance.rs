//! How far two figures may be apart.

use std::str::FromStr;

use super::Metric;

/// The largest good relative difference, for all metrics and for some.
#[derive(Clone, Debug, PartialEq)]
pub struct Tolerances {
    general: f64,
    named: Vec<(String, f64)>,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self { general: 0.03, named: Vec::new() }
    }
}

/// `3%`, or `ttft=5%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tolerance {
    name: Option<String>,
    most: f64,
}

impl FromStr for Tolerance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, percent) = match text.split_once('=') {
            Some((name, percent)) => (Some(name.trim()), percent),
            None => (None, text),
        };
        if let Some(name) = name
            && !Metric::all().any(|metric| metric.answers_to(name))
        {
            let known: Vec<String> = Metric::all().map(Metric::key).collect();
            return Err(format!(
                "no metric is called {name:?}; known are throughput, ttft, tpot, itl, e2el, mean, median, p99, std, {}",
                known.join(", ")
            ));
        }
        let number =
            percent.trim().strip_suffix('%').ok_or("expected a percentage, such as 3% or ttft=5%")?;
        let percent: f64 =
            number.trim().parse().map_err(|_| format!("{number:?} is not a number of per cent"))?;
        if !percent.is_finite() || percent < 0.0 {
            return Err(format!("{number:?}: a tolerance is 0% or more"));
        }
        Ok(Self { name: name.map(str::to_owned), most: percent / 100.0 })
    }
}

impl Tolerances {
    /// What was asked for, over the default of 3 %; a later one overrides an earlier one.
    #[must_use]
    pub fn new(asked: &[Tolerance]) -> Self {
        let mut tolerances = Self::default();
        for Tolerance { name, most } in asked {
            match name {
                Some(name) => tolerances.named.push((name.clone(), *most)),
                None => tolerances.general = *most,
            }
        }
        tolerances
    }

    /// A metric's tolerance; none where it is not judged.
    #[must_use]
    pub fn of(&self, metric: Metric) -> Option<f64> {
        let named = self.named.iter().rev().find(|(name, _)| metric.answers_to(name));
        named.map(|(_, most)| *most).or((!metric.is_spread()).then_some(self.general))
    }
}

#[cfg(test)]
mod tests {
    use super::super::metric::{Latency, Statistic};
    use super::*;

    #[test]
    fn the_last_that_names_a_metric_holds() {
        let asked = ["1%", "ttft=5%", "p99=10%"].map(|text| text.parse().unwrap());
        let tolerances = Tolerances::new(&asked);
        let of = |latency, statistic| tolerances.of(Metric::Latency(latency, statistic));
        assert_eq!(of(Latency::Ttft, Statistic::Mean), Some(0.05));
        assert_eq!(of(Latency::Ttft, Statistic::P99), Some(0.1));
        assert_eq!(of(Latency::Itl, Statistic::Mean), Some(0.01));
        assert_eq!(of(Latency::Itl, Statistic::Std), None);
        assert_eq!(of(Latency::Ttft, Statistic::Std), Some(0.05));
        for bad in ["3", "x=3%", "-1%", "%", "nan%", "ttft=", "inf%"] {
            assert!(bad.parse::<Tolerance>().is_err(), "{bad}");
        }
    }
}
