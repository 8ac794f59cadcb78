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
pub use self::run::{RunPage, run};
use self::curve::Curves;
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
