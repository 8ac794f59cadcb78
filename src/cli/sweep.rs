//! Several runs of one tape side by side: a row each.

use serde::Serialize;

use super::replay::{Replayed, measurement};
use super::{Failure, Outcome};
use crate::metrics::native::Metrics;
use crate::metrics::slo::Good;
use crate::metrics::vllm::Goodput;

/// The runs of a sweep, as far as they have come.
#[derive(Debug)]
pub(super) struct Sweep {
    goodput: Option<Goodput>,
    rows: Vec<Row>,
}

/// One run.
#[derive(Debug, Serialize)]
struct Row {
    run: String,
    verdict: String,
    valid: bool,
    #[serde(skip)]
    all_succeeded: bool,
    left_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    goodput: Option<Good>,
    metrics: Metrics,
}

impl Sweep {
    pub(super) fn new(goodput: Option<Goodput>) -> Self {
        Self { goodput, rows: Vec::new() }
    }

    /// Adds a run.
    pub(super) fn add(&mut self, name: &str, done: &Replayed) {
        let Replayed { info, report, metrics, .. } = done;
        self.rows.push(Row {
            run: name.to_owned(),
            verdict: info.verdict.line(),
            valid: info.verdict.valid,
            all_succeeded: info.counts.succeeded == info.counts.requests,
            left_out: info.counts.left_out,
            goodput: self.goodput.map(|goodput| Good::of(&measurement(info, report), goodput)),
            metrics: metrics.clone(),
        });
    }

    /// A row a run.
    pub(super) fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.run.len()).max().unwrap_or(0).max(3);
        let mut text = format!(
            "{:<width$}{:>9}{:>11}{:>11}{:>11}{:>10}{:>10}{:>8}{:>9}",
            "run", "req/s", "tok/s", "TTFT mean", "p99 (ms)", "TPOT mean", "ITL p99", "failed", "requests"
        );
        if self.goodput.is_some() {
            text += &format!("{:>12}", "good req/s");
        }
        text += "  verdict\n";
        for row in &self.rows {
            let Metrics { requests, ttft_ms, tpot_ms, itl_ms, .. } = &row.metrics;
            text += &format!(
                "{:<width$}{:>9.2}{:>11.1}{:>11.2}{:>11.2}{:>10.3}{:>10.3}{:>8}{:>9}",
                row.run,
                row.metrics.request_throughput_per_s,
                row.metrics.output_throughput_tokens_per_s,
                ttft_ms.mean,
                ttft_ms.p99,
                tpot_ms.mean,
                itl_ms.p99,
                requests.failed,
                requests.total,
            );
            if let Some(good) = &row.goodput {
                text += &format!("{:>12.2}", good.requests_per_s);
            }
            text += if row.valid { "  VALID\n" } else { "  INVALID\n" };
        }
        text
    }

    /// An object a run, with all its native figures, in the order in which they ran.
    pub(super) fn json(&self) -> String {
        // Structs of numbers and fixed keys always serialise.
        serde_json::to_string_pretty(&self.rows).unwrap_or_default()
    }

    /// A sweep is as good as the worst of its runs: one in which any request did not succeed fails it; if `strict`,
    /// one that is INVALID for any reason.
    pub(super) fn judge(&self, strict: bool) -> Outcome {
        let is_bad = |row: &&Row| !row.all_succeeded || (strict && !row.valid);
        let bad = self.rows.iter().filter(is_bad).map(|row| format!("{}: {}", row.run, row.verdict));
        let bad: Vec<String> = bad.collect();
        if bad.is_empty() { Ok(()) } else { Err(Failure::run(bad.join("; "))) }
    }
}
