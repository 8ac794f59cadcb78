//! Two runs, or two tools' results, side by side. Pure: subjects in, figures and text out.
//!
//! Whatever is compared is a [`Subject`] with one neutral set of [`Figures`]. Of a run, any dialect can be computed,
//! so a run is held against another tool's file under that tool's definitions; [`explain`] then splits what difference
//! remains into its causes. `docs/compare.md` has the method and its limits.

mod client;
pub mod explain;
mod figures;
pub mod metric;
pub mod subject;
mod table;
pub mod tolerance;

use serde::Serialize;

pub use explain::Explanation;
pub use figures::of_timelines as figures;
pub use metric::{Figures, Metric};
pub use subject::{Record, Sample, Subject, Traffic};
pub use tolerance::Tolerances;

use metric::{from_steps, in_steps};

/// Two subjects, metric by metric.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    /// What is compared against.
    pub a: &'a Subject,
    /// What is compared.
    pub b: &'a Subject,
    /// Each metric that either has.
    pub rows: Vec<Row>,
    /// What a reader should know beside the figures.
    pub notes: Vec<String>,
}

/// One metric of two subjects, in the metric's unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub metric: Metric,
    /// Its unit; empty for a count.
    pub unit: &'static str,
    /// The first one's figure, as printed; none where it is not kept.
    pub a: Option<f64>,
    /// The second one's.
    pub b: Option<f64>,
    /// `b - a`, of the printed figures.
    pub difference: Option<f64>,
    /// `(b - a) / |a|`; none where `a` is 0 and `b` is not.
    pub relative: Option<f64>,
    /// The largest good `relative`, either way; none where the metric is not judged.
    pub tolerance: Option<f64>,
    /// Whether `relative` is within it.
    pub within: Option<bool>,
}

/// Why two subjects cannot be compared.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Two runs that did not send the same requests.
    #[error(
        "{a} and {b} did not send the same requests (workload digests {} and {}): their figures cannot be compared; \
         replay one tape for both, or pass --different-workloads to see them all the same",
        short(digest_a),
        short(digest_b)
    )]
    DifferentWorkloads {
        /// The first run.
        a: String,
        /// Its digest.
        digest_a: String,
        /// The second run.
        b: String,
        /// Its digest.
        digest_b: String,
    },
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Compares `b` against `a`. Two runs of different workloads are refused unless `different_workloads`.
pub fn compare<'a>(
    a: &'a Subject,
    b: &'a Subject,
    tolerances: &Tolerances,
    different_workloads: bool,
) -> Result<Comparison<'a>, Error> {
    let mut notes: Vec<String> = a.notes.iter().chain(&b.notes).cloned().collect();
    notes.dedup();
    match (&a.workload_digest, &b.workload_digest) {
        (Some(digest_a), Some(digest_b)) if digest_a != digest_b => {
            if !different_workloads {
                return Err(Error::DifferentWorkloads {
                    a: a.name.clone(),
                    digest_a: digest_a.clone(),
                    b: b.name.clone(),
                    digest_b: digest_b.clone(),
                });
            }
            notes.push("the workloads differ: the figures are of different requests".to_owned());
        }
        (Some(_), Some(_)) => {}
        _ => notes.push(
            "a result file of another tool has no workload digest: that both sent the same requests is not checked"
                .to_owned(),
        ),
    }
    if !a.traffic.is_like(&b.traffic) {
        notes.push(format!("traffic differs: {} against {}", a.traffic.words(), b.traffic.words()));
    }
    let row = |metric: Metric| Row::of(metric, a.own.get(metric), b.own.get(metric), tolerances);
    Ok(Comparison { a, b, rows: Metric::all().filter_map(row).collect(), notes })
}

impl Row {
    fn of(metric: Metric, a: Option<f64>, b: Option<f64>, tolerances: &Tolerances) -> Option<Row> {
        a.or(b)?;
        let printed = |value: f64| from_steps(in_steps(value, metric), metric);
        let mut row = Row {
            metric,
            unit: metric.unit(),
            a: a.map(printed),
            b: b.map(printed),
            difference: None,
            relative: None,
            tolerance: None,
            within: None,
        };
        if let (Some(a), Some(b)) = (a, b) {
            let steps = in_steps(b, metric).saturating_sub(in_steps(a, metric));
            row.difference = Some(from_steps(steps, metric));
            row.relative = match (steps, a) {
                (0, _) => Some(0.0),
                (_, 0.0) => None,
                _ => Some((b - a) / a.abs()),
            };
            row.tolerance = tolerances.of(metric);
            row.within =
                row.tolerance.map(|most| row.relative.is_some_and(|relative| relative.abs() <= most));
        }
        Some(row)
    }
}

impl Comparison<'_> {
    /// The metrics that are beyond their tolerance.
    #[must_use]
    pub fn beyond(&self) -> Vec<Metric> {
        self.rows.iter().filter(|row| row.within == Some(false)).map(|row| row.metric).collect()
    }

    /// Each difference split into its causes.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        explain::explain(self.a, self.b)
    }

    /// As a table, with what explains it where that is given.
    #[must_use]
    pub fn table(&self, explanation: Option<&Explanation>) -> String {
        table::table(self, explanation)
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self, explanation: Option<&Explanation>) -> serde_json::Value {
        let mut json = serde_json::json!({
            "a": side(self.a),
            "b": side(self.b),
            "metrics": self.rows,
            "within": self.beyond().is_empty(),
            "notes": self.notes,
        });
        if let Some(explanation) = explanation {
            json["explanation"] = explanation.json();
        }
        json
    }
}

/// What a subject is, as JSON.
fn side(subject: &Subject) -> serde_json::Value {
    serde_json::json!({
        "name": subject.name,
        "tool": subject.tool,
        "dialect": subject.dialect.name(),
        "workload_digest": subject.workload_digest,
        "concurrency": subject.traffic.concurrency,
        "request_rate": subject.traffic.request_rate,
        "arrival": subject.traffic.arrival,
    })
}

/// A subject and its own figures as JSON.
#[must_use]
pub fn figures_json(subject: &Subject) -> serde_json::Value {
    let mut json = side(subject);
    json["figures"] = serde_json::json!(subject.own);
    json["notes"] = serde_json::json!(subject.notes);
    json
}

/// A subject's own figures as a table: the tool's own, where it can be made, else the neutral one.
#[must_use]
pub fn figures_table(subject: &Subject) -> String {
    subject.table.clone().unwrap_or_else(|| table::figures(subject))
}

#[cfg(test)]
mod tests;
