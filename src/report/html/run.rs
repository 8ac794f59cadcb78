//! The page of one run.

use std::collections::BTreeMap;

use serde::Serialize;

use super::curve::Curves;
use super::requests::Rows;
use super::series::Series;
use super::{Column, Side, columns, facts, page};
use crate::compare::{self, Figures};
use crate::metrics::client::Client;
use crate::metrics::native::{self, Metrics};
use crate::metrics::slo::Good;
use crate::metrics::vllm::Goodput;
use crate::metrics::{Dialect, Measurement};
use crate::run::{RunInfo, Verdict};
use crate::scrape::Server;
use crate::timeline::Timeline;

/// Different messages that are shown of each kind of failure.
const EXAMPLES: usize = 3;
/// Characters that are shown of a message.
const MESSAGE: usize = 300;

/// What the page of a run is made from.
#[derive(Clone, Copy, Debug)]
pub struct RunPage<'a> {
    /// What ran.
    pub info: &'a RunInfo,
    /// Its timelines, and over what time.
    pub measurement: &'a Measurement<'a>,
    /// The native figures.
    pub metrics: &'a Metrics,
    /// The client's own part in them.
    pub client: &'a Client,
    /// What makes a request good, where it was said.
    pub goodput: Option<Goodput>,
}

/// The data of the page.
#[derive(Serialize)]
struct Data<'a> {
    kind: &'static str,
    created_by: &'a str,
    verdict: &'a Verdict,
    metrics: &'a Metrics,
    goodput: Option<Good>,
    objectives: Option<String>,
    client: &'a Client,
    server: Option<&'a Server>,
    sides: [Side; 1],
    requests: Rows,
    failures: Vec<Failures>,
    columns: Vec<Column>,
    dialects: Vec<Seen>,
}

/// The figures under one dialect.
#[derive(Serialize)]
struct Seen {
    dialect: &'static str,
    figures: Figures,
}

/// Failures of one kind.
#[derive(Debug, PartialEq, Serialize)]
struct Failures {
    kind: &'static str,
    count: u64,
    /// Messages and how many have each, the most frequent first.
    examples: Vec<(String, u64)>,
}

/// One HTML file that shows a run.
#[must_use]
pub fn run(of: &RunPage<'_>) -> Vec<u8> {
    let RunPage { info, measurement, metrics, client, goodput } = *of;
    let goodput = goodput.map(|goodput| Good::of(measurement, goodput));
    let seen =
        |dialect: Dialect| Seen { dialect: dialect.name(), figures: compare::figures(measurement, dialect) };
    page::page(&Data {
        kind: "run",
        created_by: &info.created_by,
        verdict: &info.verdict,
        metrics,
        objectives: goodput.as_ref().map(Good::objectives),
        goodput,
        client,
        server: info.server.as_ref(),
        sides: [Side {
            name: info.workload.tape.clone(),
            facts: facts::of_run(info),
            curves: Some(Curves::of(native::samples(measurement))),
            over_time: Some(Series::of(measurement)),
        }],
        requests: Rows::of(measurement.timelines),
        failures: failures(measurement.timelines),
        columns: columns(),
        dialects: Dialect::ALL.into_iter().map(seen).collect(),
    })
}

fn failures(timelines: &[Timeline]) -> Vec<Failures> {
    let mut kinds: BTreeMap<&'static str, BTreeMap<String, u64>> = BTreeMap::new();
    for outcome in timelines.iter().map(|timeline| &timeline.outcome).filter(|outcome| outcome.is_failure()) {
        let message: String = outcome.detail().unwrap_or_default().chars().take(MESSAGE).collect();
        *kinds.entry(outcome.kind()).or_default().entry(message).or_default() += 1;
    }
    let of_kind = |(kind, messages): (_, BTreeMap<String, u64>)| {
        let count = messages.values().sum();
        let mut examples: Vec<(String, u64)> = messages.into_iter().collect();
        examples.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        examples.truncate(EXAMPLES);
        Failures { kind, count, examples }
    };
    kinds.into_iter().map(of_kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Outcome;

    #[test]
    fn failures_are_counted_by_kind_and_message() {
        let failed = |outcome| Timeline { outcome, ..Timeline::default() };
        let broken = |message: &str| failed(Outcome::Protocol { message: message.to_owned() });
        let timelines = [
            broken("b"),
            broken("a"),
            broken("b"),
            failed(Outcome::NoTokens),
            failed(Outcome::Success),
            failed(Outcome::CancelledOnPurpose),
        ];
        let no_tokens = ("a complete response without a token".to_owned(), 1);
        let expected = [
            Failures { kind: "no_tokens", count: 1, examples: vec![no_tokens] },
            Failures { kind: "protocol", count: 3, examples: vec![("b".to_owned(), 2), ("a".to_owned(), 1)] },
        ];
        assert_eq!(failures(&timelines), expected);
    }
}
