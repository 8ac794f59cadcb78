//! The page of a comparison: each subject against the first.

use serde::Serialize;
use serde_json::Value;

use super::curve::{Curve, Curves};
use super::series::Series;
use super::{Column, Side, columns, facts, page};
use crate::compare::{Comparison, Explanation, Record, Sample, Subject};
use crate::metrics::{Measurement, native};
use crate::timeline::Timeline;

/// The data of the page.
#[derive(Serialize)]
struct Data {
    kind: &'static str,
    created_by: &'static str,
    /// The first subject, then the others.
    sides: Vec<Side>,
    columns: Vec<Column>,
    /// Each of the others against the first.
    comparisons: Vec<Compared>,
}

#[derive(Serialize)]
struct Compared {
    /// As `compare --json` prints it.
    #[serde(flatten)]
    comparison: Value,
    /// Request by request, where both sent the same ones.
    paired: Option<Paired>,
}

/// How much longer each request took in the second run, in milliseconds: the distribution of the differences.
#[derive(Serialize)]
struct Paired {
    ttft: Curve,
    e2el: Curve,
}

/// One HTML file that shows subjects against the first of them.
#[must_use]
pub fn comparison(comparisons: &[(Comparison<'_>, Option<Explanation>)]) -> Vec<u8> {
    let first = comparisons.first().map(|(comparison, _)| comparison.a);
    let subjects = first.into_iter().chain(comparisons.iter().map(|(comparison, _)| comparison.b));
    let compared = |(comparison, explanation): &(Comparison<'_>, Option<Explanation>)| Compared {
        comparison: comparison.json(explanation.as_ref()),
        paired: paired(comparison.a, comparison.b),
    };
    page::page(&Data {
        kind: "comparison",
        created_by: concat!("tokentape ", env!("CARGO_PKG_VERSION")),
        sides: subjects.map(side).collect(),
        columns: columns(),
        comparisons: comparisons.iter().map(compared).collect(),
    })
}

fn side(subject: &Subject) -> Side {
    let (curves, over_time) = match &subject.record {
        Record::None => (None, None),
        Record::Samples(samples) => (Some(of_samples(samples)), None),
        Record::Timelines { timelines, duration_ns } => {
            let measurement = Measurement {
                timelines,
                duration_ns: *duration_ns,
                concurrency: subject.traffic.concurrency,
                request_rate: subject.traffic.request_rate,
            };
            (Some(Curves::of(native::samples(&measurement))), Some(Series::of(&measurement)))
        }
    };
    Side { name: subject.name.clone(), facts: facts::of_subject(subject), curves, over_time }
}

/// What another tool saved of each request, under its own definitions.
fn of_samples(samples: &[Sample]) -> Curves {
    let ns = |seconds: f64| seconds * 1e9;
    let mut latencies = native::Samples::default();
    for sample in samples.iter().filter(|sample| sample.success) {
        latencies.ttft_ns.push(ns(sample.ttft));
        latencies.itl_ns.extend(sample.itl.iter().copied().map(ns));
        if let Some(latency) = sample.latency {
            latencies.e2el_ns.push(ns(latency));
            if sample.output_tokens > 1 {
                let after_first = f64::from(sample.output_tokens - 1);
                latencies.tpot_ns.push(ns(latency - sample.ttft) / after_first);
            }
        }
    }
    Curves::of(latencies)
}

fn paired(a: &Subject, b: &Subject) -> Option<Paired> {
    let (Record::Timelines { timelines: a_lines, .. }, Record::Timelines { timelines: b_lines, .. }) =
        (&a.record, &b.record)
    else {
        return None;
    };
    if a.workload_digest != b.workload_digest {
        return None;
    }
    let (mut ttft, mut e2el) = (Vec::new(), Vec::new());
    // Both are in tape order, and of one tape.
    for (a, b) in a_lines.iter().zip(b_lines) {
        let is_pair = a.index == b.index && a.outcome.is_success() && b.outcome.is_success();
        if is_pair {
            ttft.extend(first_ns(a).zip(first_ns(b)).map(|(a, b)| b - a));
            e2el.push(end_ns(b) - end_ns(a));
        }
    }
    (!e2el.is_empty()).then(|| Paired { ttft: Curve::of(1e6, ttft), e2el: Curve::of(1e6, e2el) })
}

fn first_ns(timeline: &Timeline) -> Option<f64> {
    let first = timeline.first_event_ns(crate::timeline::Facts::is_output)?;
    Some(first.saturating_sub(timeline.dispatched_ns) as f64)
}

fn end_ns(timeline: &Timeline) -> f64 {
    timeline.end_ns.saturating_sub(timeline.dispatched_ns) as f64
}
