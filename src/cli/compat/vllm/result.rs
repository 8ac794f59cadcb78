//! What is left of a run: the facts for the table and the result file, and the file itself.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::run::Run;
use super::{Config, Output};
use crate::cli::Failure;
use crate::metrics::vllm::{Diffusion, SpecDecode};
use crate::report::VllmOptions;
use crate::report::vllm::{RampUp, RunInfo};
use crate::schedule::offset_ns;
use crate::schedule::vllm::Strategy;

impl Run {
    /// What the table and the file show.
    pub(super) fn options(
        &self,
        (spec_decode, diffusion): (Option<SpecDecode>, Option<Diffusion>),
        date: String,
        begun: SystemTime,
        delays: Option<Vec<f64>>,
        count: usize,
    ) -> VllmOptions {
        let Config { arrival, output, params, .. } = &self.config;
        let ramp_up = arrival.ramp_up.map(|ramp| RampUp {
            strategy: strategy(ramp.strategy).to_owned(),
            start_rps: whole(ramp.start_rps),
            end_rps: whole(ramp.end_rps),
            changes: self.rate_changes(begun, &delays.unwrap_or_default(), count),
        });
        VllmOptions {
            metrics: self.config.metrics.clone(),
            percentiles: self.config.percentiles.clone(),
            goodput: self.config.goodput,
            detailed: output.detailed,
            run: RunInfo {
                date: Some(date),
                backend: Some(self.config.backend.clone()),
                label: output.label.clone(),
                model: self.model.clone(),
                tokenizer: Some(self.tokenizer_name.clone()),
                num_prompts: Some(params.num_prompts.into()),
                metadata: output.metadata.clone(),
                burstiness: Some(arrival.burstiness),
                ramp_up,
                self_timed: self.config.self_timed,
                spec_decode,
                diffusion,
                ..RunInfo::default()
            },
        }
    }

    /// Each whole rate of a ramp-up, and when it was reached (`rps_change_events`): UTC, by the schedule.
    fn rate_changes(&self, begun: SystemTime, delays: &[f64], count: usize) -> Vec<(i64, String)> {
        let at = |seconds: f64| {
            let time = begun + Duration::from_nanos(offset_ns(seconds));
            humantime::format_rfc3339_micros(time).to_string().trim_end_matches('Z').to_owned()
        };
        let mut last = whole(self.config.arrival.rate_at(0, count));
        let mut changes = vec![(last, at(0.0))];
        for (index, delay) in delays.iter().enumerate() {
            let rate = whole(self.config.arrival.rate_at(index, count));
            // The original looks at a request's rate when the one before it has been sent and this one is due.
            changes.extend((last + 1..=rate).map(|rate| (rate, at(*delay))));
            last = last.max(rate);
        }
        changes
    }
}

impl Output {
    /// Writes the result file.
    pub(super) fn save(&self, json: &str, name: &str) -> Result<PathBuf, Failure> {
        let name = self.file.as_deref().unwrap_or(name);
        let path = self.folder.as_ref().map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
        let write = || {
            let mut open = OpenOptions::new();
            let mut file = if self.append {
                open.create(true).append(true).open(&path)?
            } else {
                open.create(true).write(true).truncate(true).open(&path)?
            };
            if self.append && file.metadata()?.len() > 0 {
                file.write_all(b"\n")?;
            }
            file.write_all(json.as_bytes())
        };
        write().map_err(|error| Failure::run(format_args!("cannot write {}: {error}", path.display())))?;
        Ok(path)
    }
}

/// `--ramp-up-strategy`.
pub(super) const fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Exponential => "exponential",
        Strategy::Linear => "linear",
    }
}

/// `int(x)` of a rate.
#[expect(clippy::cast_possible_truncation, reason = "requests a second, far below 2^53")]
fn whole(rate: f64) -> i64 {
    rate as i64
}
