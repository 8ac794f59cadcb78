//! What the original takes from the server's counters and from requests of its own (`benchmark` in
//! `vllm/benchmarks/serve.py`, 0.32.0 and 0.33.0): given as data, fetched elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::metrics::stats;

/// The server's counters of speculative decoding, each summed over its labels (`vllm:spec_decode_*_total`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SpecDecodeCounters {
    /// `num_drafts`.
    pub drafts: i64,
    /// `num_draft_tokens`.
    pub draft_tokens: i64,
    /// `num_accepted_tokens`.
    pub accepted_tokens: i64,
    /// `num_accepted_tokens_per_pos`, by position.
    pub accepted_per_position: BTreeMap<i64, i64>,
}

/// How speculative decoding went during the run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpecDecode {
    /// Accepted tokens / draft tokens, in percent.
    pub acceptance_rate: f64,
    /// 1 + accepted tokens / drafts; 0 without drafts.
    pub acceptance_length: f64,
    /// Drafts.
    pub drafts: i64,
    /// Draft tokens.
    pub draft_tokens: i64,
    /// Accepted tokens.
    pub accepted_tokens: i64,
    /// Accepted tokens at each position / drafts.
    pub per_position_acceptance_rates: Vec<f64>,
}

impl SpecDecode {
    /// The difference of two readings; none where no token was drafted between them.
    #[must_use]
    pub fn between(before: &SpecDecodeCounters, after: &SpecDecodeCounters) -> Option<Self> {
        let drafts = after.drafts - before.drafts;
        let draft_tokens = after.draft_tokens - before.draft_tokens;
        let accepted_tokens = after.accepted_tokens - before.accepted_tokens;
        if draft_tokens <= 0 {
            return None;
        }
        let mut per_position_acceptance_rates = Vec::new();
        let mut acceptance_length = 0.0;
        if drafts > 0 {
            let (before, after) = (&before.accepted_per_position, &after.accepted_per_position);
            let positions: BTreeSet<i64> = before.keys().chain(after.keys()).copied().collect();
            for position in positions {
                let was = before.get(&position).copied().unwrap_or(0);
                let is = after.get(&position).copied().unwrap_or(was);
                per_position_acceptance_rates.push((is - was) as f64 / drafts as f64);
            }
            acceptance_length = 1.0 + accepted_tokens as f64 / drafts as f64;
        }
        Some(Self {
            acceptance_rate: accepted_tokens as f64 / draft_tokens as f64 * 100.0,
            acceptance_length,
            drafts,
            draft_tokens,
            accepted_tokens,
            per_position_acceptance_rates,
        })
    }
}

/// The server's counters of a diffusion model (`vllm:diffusion_*_total`), each summed over its labels.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DiffusionCounters {
    /// `num_denoising_steps`.
    pub denoising_steps: i64,
    /// `num_canvas_positions`.
    pub canvas_positions: i64,
    /// `num_committed_tokens`.
    pub committed_tokens: i64,
}

/// How diffusion decoding went during the run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Diffusion {
    /// Committed tokens a second of the run.
    pub committed_throughput: f64,
    /// Denoising steps of each canvas, the commit step not counted.
    pub steps_per_canvas: f64,
    /// Committed tokens of each denoising step.
    pub committed_per_step: f64,
    /// Committed tokens.
    pub committed_tokens: i64,
    /// Denoising steps without the commit steps: not a whole number by itself.
    pub denoising_steps: f64,
    /// Canvas positions evaluated.
    pub canvas_positions: i64,
}

impl Diffusion {
    /// The difference of two readings over a run of `duration` seconds; none where nothing was committed between
    /// them, or where each step was a commit step, by which the original cannot divide.
    #[must_use]
    pub fn between(before: &DiffusionCounters, after: &DiffusionCounters, duration: f64) -> Option<Self> {
        let steps = after.denoising_steps - before.denoising_steps;
        let canvas_positions = after.canvas_positions - before.canvas_positions;
        let committed_tokens = after.committed_tokens - before.committed_tokens;
        if steps <= 0 || committed_tokens <= 0 || canvas_positions <= 0 || duration <= 0.0 {
            return None;
        }
        let committed = committed_tokens as f64;
        let canvas_length = canvas_positions as f64 / steps as f64;
        let canvases = committed / canvas_length;
        let denoising_steps = steps as f64 - canvases;
        (denoising_steps != 0.0).then(|| Self {
            committed_throughput: committed / duration,
            steps_per_canvas: denoising_steps / canvases,
            committed_per_step: committed / denoising_steps,
            committed_tokens,
            denoising_steps,
            canvas_positions,
        })
    }

    /// The denoising steps as the table and the file have them: Python's `int` cuts them to a whole number.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "steps counted by a server, far below 2^53")]
    pub fn whole_denoising_steps(&self) -> i64 {
        self.denoising_steps as i64
    }
}

/// The latencies of the probes, requests of one token sent beside the workload (`--probe-request-rate`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Probes {
    /// Probes that succeeded.
    pub completed: usize,
    /// Probes that failed.
    pub failed: usize,
    /// The median of their latencies.
    pub median_e2el_ms: f64,
    /// The 99th percentile.
    pub p99_e2el_ms: f64,
    /// The longest.
    pub max_e2el_ms: f64,
}

impl Probes {
    /// The figures of the latencies of the successful probes, in seconds; none where no probe succeeded.
    #[must_use]
    pub fn of(latencies: &[f64], failed: usize) -> Option<Self> {
        let sorted = stats::sorted(latencies);
        let max = sorted.last()?;
        Some(Self {
            completed: sorted.len(),
            failed,
            median_e2el_ms: stats::median(&sorted) * 1000.0,
            p99_e2el_ms: stats::percentile(&sorted, 99.0) * 1000.0,
            max_e2el_ms: max * 1000.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_drafted_tokens_there_is_no_speculation() {
        let counters = SpecDecodeCounters { drafts: 5, draft_tokens: 9, ..SpecDecodeCounters::default() };
        assert_eq!(SpecDecode::between(&counters, &counters), None);
        // A server that started anew counts from 0.
        assert_eq!(SpecDecode::between(&counters, &SpecDecodeCounters::default()), None);
    }

    #[test]
    fn a_position_that_the_second_reading_lacks_has_not_changed() {
        let before = SpecDecodeCounters {
            accepted_per_position: BTreeMap::from([(0, 3), (1, 2)]),
            ..SpecDecodeCounters::default()
        };
        let after = SpecDecodeCounters {
            drafts: 4,
            draft_tokens: 8,
            accepted_tokens: 2,
            accepted_per_position: BTreeMap::from([(0, 5)]),
        };
        let spec_decode = SpecDecode::between(&before, &after).unwrap();
        assert_eq!(spec_decode.per_position_acceptance_rates, [0.5, 0.0]);
        assert_eq!((spec_decode.acceptance_rate, spec_decode.acceptance_length), (25.0, 1.5));
        // Tokens without a draft: the original has no length and no positions.
        let undrafted = SpecDecodeCounters { drafts: 0, ..after };
        let spec_decode = SpecDecode::between(&before, &undrafted).unwrap();
        assert_eq!(
            (spec_decode.acceptance_length, spec_decode.per_position_acceptance_rates),
            (0.0, Vec::new())
        );
    }

    #[test]
    fn what_the_original_cannot_divide_by_is_no_diffusion() {
        let steps = |denoising_steps, canvas_positions, committed_tokens| DiffusionCounters {
            denoising_steps,
            canvas_positions,
            committed_tokens,
        };
        let none = steps(0, 0, 0);
        // Canvases of one token, each committed in one step.
        assert_eq!(Diffusion::between(&none, &steps(4, 4, 4), 1.0), None);
        for after in [steps(4, 8, 0), steps(0, 8, 4), steps(4, 0, 4)] {
            assert_eq!(Diffusion::between(&none, &after, 1.0), None);
        }
        let diffusion = Diffusion::between(&none, &steps(6, 24, 8), 2.0).unwrap();
        assert_eq!((diffusion.committed_throughput, diffusion.steps_per_canvas), (4.0, 2.0));
        assert_eq!((diffusion.committed_per_step, diffusion.whole_denoising_steps()), (2.0, 4));
    }

    #[test]
    fn probes_without_a_success_have_no_figures() {
        assert_eq!(Probes::of(&[], 3), None);
        let probes = Probes::of(&[0.25, 0.5], 1).unwrap();
        assert_eq!((probes.completed, probes.failed), (2, 1));
        assert_eq!((probes.median_e2el_ms, probes.max_e2el_ms), (375.0, 500.0));
    }
}
