//! A run, or a comparison, as one HTML file that needs nothing else: style, script and data are in it, and it asks no
//! network for anything.
//!
//! ```text
//! timelines ──► curve, series, requests (thinned out, tails kept) ──► one JSON block ──► page.html + page.css + *.js
//! ```
//!
//! The data stay below 1 MB however long the run was. What is thinned out keeps what matters: a curve its lowest and
//! highest values one by one, a moment in time its extremes, the requests the slowest and the failed ones.

mod comparison;
mod curve;
mod facts;
mod page;
mod requests;
mod run;
mod series;

use serde::Serialize;

pub use self::comparison::comparison;
use self::curve::Curves;
pub use self::run::{RunPage, run};
use self::series::Series;
use crate::compare::Metric;

/// One run, or one tool's result, as far as it is drawn.
#[derive(Serialize)]
struct Side {
    /// What the legend calls it.
    name: String,
    /// What its page, or its column, says of it: a label and a value each.
    facts: Vec<(&'static str, String)>,
    /// The distributions of its latencies; none where only figures are kept.
    curves: Option<Curves>,
    /// What happened when; none where no timelines are kept.
    over_time: Option<Series>,
}

/// A neutral metric, for tables.
#[derive(Serialize)]
struct Column {
    key: String,
    label: String,
    unit: &'static str,
    decimals: usize,
}

/// Every neutral metric, in the order of the tables.
fn columns() -> Vec<Column> {
    let column = |metric: Metric| Column {
        key: metric.key(),
        label: metric.label(),
        unit: metric.unit(),
        decimals: metric.decimals(),
    };
    Metric::all().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Measurement, native};
    use crate::timeline::{Events, Facts, Ns, Outcome, Reads, Timeline};

    /// A slow server's 10,000 requests of 100 tokens, no two gaps alike.
    fn requests() -> Vec<Timeline> {
        let token = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);
        let mut noise: u64 = 1;
        let mut gap = move || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            100_000_000 + (noise >> 36)
        };
        let mut request = |index: u64| {
            let sent = index * 40_000_123;
            let mut at = sent;
            let at_ns: Vec<Ns> = (0..100)
                .map(|_| {
                    at += gap();
                    at
                })
                .collect();
            Timeline {
                index,
                scheduled_ns: sent - sent / 7,
                dispatched_ns: sent,
                end_ns: at + 1,
                reads: Reads { bytes: vec![1; 100], at_ns, ..Reads::default() },
                events: Events { read: (0..100).collect(), facts: vec![token; 100], ..Events::default() },
                outcome: Outcome::Success,
                ..Timeline::default()
            }
        };
        (0..10_000).map(&mut request).collect()
    }

    #[test]
    fn ten_thousand_requests_are_a_page_of_less_than_a_megabyte() {
        let timelines = requests();
        let duration_ns = timelines[timelines.len() - 1].end_ns;
        let measurement =
            Measurement { timelines: &timelines, duration_ns, concurrency: None, request_rate: None };
        let side = Side {
            name: String::new(),
            facts: Vec::new(),
            curves: Some(Curves::of(native::samples(&measurement))),
            over_time: Some(Series::of(&measurement)),
        };
        let page = page::page(&(side, requests::Rows::of(&timelines)));
        // The rest of a run's data are a few hundred numbers.
        assert!(page.len() < 950_000, "{} bytes", page.len());
    }
}
