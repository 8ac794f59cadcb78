//! Service level objectives: of a whole run ([`Slo`]), and of each request ([`Goodput`]). By native definitions.

use std::fmt::{self, Display};
use std::slice;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use super::native::{self, Distribution, Metrics};
use super::vllm::Goodput;
use super::{Measurement, Timeline};

/// Why a text is no objective.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("'{text}' {reason}")]
pub struct SloError {
    text: String,
    reason: &'static str,
}

/// A latency that an objective can be about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Latency {
    Ttft,
    TtftFromScheduled,
    Itl,
    Tpot,
    E2el,
    E2elFromScheduled,
}

impl Latency {
    const ALL: [Latency; 6] =
        [Self::Ttft, Self::TtftFromScheduled, Self::Itl, Self::Tpot, Self::E2el, Self::E2elFromScheduled];

    const fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::TtftFromScheduled => "ttft_from_scheduled",
            Self::Itl => "itl",
            Self::Tpot => "tpot",
            Self::E2el => "e2el",
            Self::E2elFromScheduled => "e2el_from_scheduled",
        }
    }

    const fn of(self, metrics: &Metrics) -> &Distribution {
        match self {
            Self::Ttft => &metrics.ttft_ms,
            Self::TtftFromScheduled => &metrics.ttft_from_scheduled_ms,
            Self::Itl => &metrics.itl_ms,
            Self::Tpot => &metrics.tpot_ms,
            Self::E2el => &metrics.e2el_ms,
            Self::E2elFromScheduled => &metrics.e2el_from_scheduled_ms,
        }
    }
}

/// A statistic of a latency.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Statistic {
    Mean,
    P50,
    P90,
    P95,
    P99,
    P99_9,
    Max,
}

impl Statistic {
    const ALL: [Statistic; 7] =
        [Self::Mean, Self::P50, Self::P90, Self::P95, Self::P99, Self::P99_9, Self::Max];

    const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::P99_9 => "p99.9",
            Self::Max => "max",
        }
    }

    const fn of(self, distribution: &Distribution) -> f64 {
        match self {
            Self::Mean => distribution.mean,
            Self::P50 => distribution.p50,
            Self::P90 => distribution.p90,
            Self::P95 => distribution.p95,
            Self::P99 => distribution.p99,
            Self::P99_9 => distribution.p99_9,
            Self::Max => distribution.max,
        }
    }
}

/// One objective: `ttft:p99<200ms`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Objective {
    latency: Latency,
    statistic: Statistic,
    /// What the statistic must stay below.
    limit_ms: f64,
}

/// Objectives for a run as a whole: `ttft:p99<200ms,tpot:mean<30ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    objectives: Vec<Objective>,
}

impl Slo {
    /// What the run missed, one text an objective; nothing if it met them all. A latency that no request has is
    /// missed.
    #[must_use]
    pub fn misses(&self, metrics: &Metrics) -> Vec<String> {
        let missed = |objective: &Objective| {
            let distribution = objective.latency.of(metrics);
            let value = objective.statistic.of(distribution);
            if distribution.count == 0 {
                return Some(format!("no request has a {}", objective.latency.name()));
            }
            (value >= objective.limit_ms).then(|| format!("{objective} is {value:.3}ms"))
        };
        self.objectives.iter().filter_map(missed).collect()
    }
}

impl Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}<{}ms", self.latency.name(), self.statistic.name(), self.limit_ms)
    }
}

impl Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.objectives.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl FromStr for Slo {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let objectives = text.split(',').map(|part| objective(part.trim())).collect::<Result<_, _>>()?;
        Ok(Self { objectives })
    }
}

fn objective(text: &str) -> Result<Objective, SloError> {
    const FORM: &str = "is no objective; give it as ttft:p99<200ms";

    let wrong = |reason| SloError { text: text.to_owned(), reason };
    let (what, limit) = text.split_once('<').ok_or_else(|| wrong(FORM))?;
    let (latency, statistic) = what.split_once(':').ok_or_else(|| wrong(FORM))?;
    let latency = Latency::ALL.into_iter().find(|known| known.name() == latency.trim());
    let statistic = Statistic::ALL.into_iter().find(|known| known.name() == statistic.trim());
    Ok(Objective {
        latency: latency.ok_or_else(|| {
            wrong(
                "names no latency; there are ttft, itl, tpot, e2el, ttft_from_scheduled and e2el_from_scheduled",
            )
        })?,
        statistic: statistic
            .ok_or_else(|| wrong("names no statistic; there are mean, p50, p90, p95, p99, p99.9 and max"))?,
        limit_ms: milliseconds(limit.trim()).ok_or_else(|| wrong("has no limit such as 200ms"))?,
    })
}

/// A time with its unit, or a number of milliseconds.
fn milliseconds(text: &str) -> Option<f64> {
    let plain = text.parse::<f64>().ok();
    // Units are humantime's, which knows no fractions: 1.5s is 1500ms.
    let with_unit = || humantime::parse_duration(text).ok().map(|time| time.as_secs_f64() * 1000.0);
    plain.or_else(with_unit).filter(|ms| *ms > 0.0 && ms.is_finite())
}

/// Reads what makes a request good: `ttft:200ms,tpot:30ms,e2el:5s`.
pub fn parse_goodput(text: &str) -> Result<Goodput, SloError> {
    let mut goodput = Goodput::default();
    for part in text.split(',').map(str::trim) {
        let wrong = |reason| SloError { text: part.to_owned(), reason };
        let (latency, limit) =
            part.split_once(':').ok_or_else(|| wrong("is no objective; give it as ttft:200ms"))?;
        let limit = milliseconds(limit.trim()).ok_or_else(|| wrong("has no limit such as 200ms"))?;
        let objective = match latency.trim() {
            "ttft" => &mut goodput.ttft_ms,
            "tpot" => &mut goodput.tpot_ms,
            "e2el" => &mut goodput.e2el_ms,
            _ => return Err(wrong("names no latency of a request; there are ttft, tpot and e2el")),
        };
        if objective.replace(limit).is_some() {
            return Err(wrong("is given twice"));
        }
    }
    Ok(goodput)
}

/// How many requests were good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Good {
    /// The longest good TTFT.
    pub ttft_ms: Option<f64>,
    /// The longest good TPOT.
    pub tpot_ms: Option<f64>,
    /// The longest good E2EL.
    pub e2el_ms: Option<f64>,
    /// Successful requests that met each objective that was set. A request without a TPOT meets that one.
    pub requests: u64,
    /// `requests` over all requests, the failed ones too.
    pub share: f64,
    /// `requests` over the measured window, in seconds: goodput, as `vllm bench serve` has it, by native latencies.
    pub requests_per_s: f64,
}

impl Good {
    /// Counts a run's good requests.
    #[must_use]
    pub fn of(measurement: &Measurement<'_>, goodput: Goodput) -> Self {
        let timelines = measurement.timelines;
        let requests = timelines.iter().filter(|timeline| is_good(timeline, goodput)).count();
        let window_s = measurement.duration_s();
        let over = |whole: f64| if whole > 0.0 { requests as f64 / whole } else { 0.0 };
        let Goodput { ttft_ms, tpot_ms, e2el_ms } = goodput;
        Self {
            ttft_ms,
            tpot_ms,
            e2el_ms,
            requests: requests as u64,
            share: over(timelines.len() as f64),
            requests_per_s: over(window_s),
        }
    }

    /// What was asked for: `ttft <= 200 ms, e2el <= 5000 ms`.
    #[must_use]
    pub fn objectives(&self) -> String {
        let limits = [("ttft", self.ttft_ms), ("tpot", self.tpot_ms), ("e2el", self.e2el_ms)];
        let texts = limits.into_iter().filter_map(|(name, limit)| Some(format!("{name} <= {} ms", limit?)));
        texts.collect::<Vec<_>>().join(", ")
    }
}

fn is_good(timeline: &Timeline, goodput: Goodput) -> bool {
    let alone = Measurement {
        timelines: slice::from_ref(timeline),
        duration_ns: 0,
        concurrency: None,
        request_rate: None,
    };
    let samples = native::samples(&alone);
    let meets =
        |limit_ms: Option<f64>, ns: &[f64]| limit_ms.is_none_or(|ms| ns.iter().all(|ns| *ns <= ms * 1e6));
    timeline.outcome.is_success()
        && meets(goodput.ttft_ms, &samples.ttft_ns)
        && meets(goodput.tpot_ms, &samples.tpot_ns)
        && meets(goodput.e2el_ms, &samples.e2el_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{Events, Facts, Outcome, Reads};

    const TOKEN: Facts = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);

    /// A request sent at 0 with a token at each of these milliseconds.
    fn timeline(tokens_ms: &[u64]) -> Timeline {
        let at_ns: Vec<u64> = tokens_ms.iter().map(|ms| ms * 1_000_000).collect();
        Timeline {
            end_ns: at_ns[at_ns.len() - 1],
            events: Events {
                read: (0..).take(at_ns.len()).collect(),
                facts: vec![TOKEN; at_ns.len()],
                ..Events::default()
            },
            reads: Reads { bytes: vec![1; at_ns.len()], at_ns, ..Reads::default() },
            outcome: Outcome::Success,
            ..Timeline::default()
        }
    }

    fn measurement(timelines: &[Timeline]) -> Measurement<'_> {
        Measurement { timelines, duration_ns: 2_000_000_000, concurrency: None, request_rate: None }
    }

    #[test]
    fn an_objective_is_met_below_its_limit() {
        let timelines = [timeline(&[10, 30]), timeline(&[20, 30])];
        let metrics = native::calculate(&measurement(&timelines));
        let misses = |slo: &str| slo.parse::<Slo>().unwrap().misses(&metrics);
        assert!(misses("ttft:mean<15.1ms,ttft:max<21ms , tpot:p50<20").is_empty());
        assert_eq!(misses("ttft:mean<15ms,e2el:p99<31ms"), ["ttft:mean<15ms is 15.000ms"]);
        assert_eq!(misses("itl:max<1s"), [""; 0]);
    }

    #[test]
    fn a_latency_that_nobody_has_is_missed() {
        let timelines = [timeline(&[10])];
        let metrics = native::calculate(&measurement(&timelines));
        assert_eq!("tpot:mean<1h".parse::<Slo>().unwrap().misses(&metrics), ["no request has a tpot"]);
    }

    #[test]
    fn every_objective_reads_back() {
        for latency in Latency::ALL {
            for statistic in Statistic::ALL {
                let text = format!("{}:{}<1500ms", latency.name(), statistic.name());
                assert_eq!(text.parse::<Slo>().unwrap().to_string(), text);
            }
        }
        assert_eq!("ttft:p99<2s".parse::<Slo>().unwrap().to_string(), "ttft:p99<2000ms");
    }

    #[test]
    fn what_is_no_objective_says_how_it_is_written() {
        for (text, part) in [
            ("ttft", "ttft:p99<200ms"),
            ("ttft:p98<1ms", "p99.9 and max"),
            ("latency:p99<1ms", "e2el"),
            ("ttft:p99<fast", "200ms"),
            ("ttft:p99<0", "200ms"),
            ("", "ttft:p99<200ms"),
        ] {
            let error = text.parse::<Slo>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        for text in ["ttft", "itl:3ms", "ttft:x", "ttft:1,ttft:2", ""] {
            assert!(parse_goodput(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_good_request_meets_every_objective() {
        let failed = Timeline { outcome: Outcome::NoTokens, ..timeline(&[1]) };
        let timelines = [timeline(&[10, 30]), timeline(&[20, 30]), timeline(&[10]), failed];
        let good = |text| Good::of(&measurement(&timelines), parse_goodput(text).unwrap());
        assert_eq!(good("ttft:10ms").requests, 2);
        assert_eq!(good("ttft:10,tpot:19ms").requests, 1);
        assert_eq!(good("ttft:20ms,tpot:20ms,e2el:30ms").requests, 3);
        let good = good("ttft:10,e2el:1s");
        assert_eq!((good.share, good.requests_per_s), (0.5, 1.0));
        assert_eq!(good.objectives(), "ttft <= 10 ms, e2el <= 1000 ms");
    }
}
