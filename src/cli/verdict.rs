//! What a run's verdict does to the exit code, and the flags that govern it.

use super::{Failure, Outcome};
use crate::replay::engine::Report;
use crate::run::{RunInfo, Thresholds};

/// The thresholds of the verdict.
#[derive(Debug, clap::Args)]
pub(super) struct ThresholdArgs {
    /// Set a threshold of the verdict, such as read-delay=50%; may be repeated, or several with commas between them
    #[arg(long = "verdict", value_name = "RULE=VALUE", value_delimiter = ',')]
    thresholds: Vec<String>,
}

/// How to judge a run.
#[derive(Debug, clap::Args)]
pub(super) struct Judging {
    #[command(flatten)]
    pub(super) verdict: ThresholdArgs,
    /// Exit with 1 where the run is INVALID for any reason
    #[arg(long)]
    pub(super) strict: bool,
}

impl ThresholdArgs {
    /// The thresholds asked for.
    pub(super) fn thresholds(&self) -> Result<Thresholds, Failure> {
        let mut thresholds = Thresholds::default();
        for threshold in &self.thresholds {
            thresholds.set(threshold).map_err(|error| Failure::usage(format_args!("--verdict: {error}")))?;
        }
        Ok(thresholds)
    }
}

impl Judging {
    /// As [`judge`], and strictly if asked.
    pub(super) fn judge(&self, info: &RunInfo, report: &Report) -> Outcome {
        if self.strict && !info.verdict.valid {
            return Err(failure(info, report));
        }
        judge(info, report)
    }
}

/// A run in which any request did not end well is a failure. One that is INVALID for another reason is not, but stderr
/// has it.
pub(super) fn judge(info: &RunInfo, report: &Report) -> Outcome {
    if info.counts.ended_well() != info.counts.requests {
        return Err(failure(info, report));
    }
    if !info.verdict.valid {
        eprintln!("note: the run is {}", info.verdict.line());
    }
    Ok(())
}

/// The reasons against a run, and the first request that failed.
fn failure(info: &RunInfo, report: &Report) -> Failure {
    let first = report.timelines.iter().find(|timeline| timeline.outcome.is_failure());
    let detail = first.map(|timeline| {
        let status = timeline.status.filter(|status| *status != 200);
        let status = status.map_or(String::new(), |status| format!("HTTP {status}: "));
        let words: String = timeline.outcome.detail().unwrap_or_default().chars().take(300).collect();
        format!("; first: request {}: {}: {status}{words}", timeline.index, timeline.outcome.kind())
    });
    Failure::run(format_args!("{}{}", info.verdict.line(), detail.unwrap_or_default()))
}
