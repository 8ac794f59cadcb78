//! The counters that `vllm bench serve` takes from the server's `/metrics`, in Prometheus' text form, before a run and
//! after it (`fetch_spec_decode_metrics` and `fetch_diffusion_metrics` of `vllm/benchmarks/serve.py`). Pure.

use std::collections::BTreeMap;

use crate::metrics::vllm::{DiffusionCounters, SpecDecodeCounters};
use crate::scrape::text::{Sample, samples};

/// The counters (`_total`) whose name begins with `family`, as whole numbers; without the moments at which they were
/// made (`_created`).
fn totals<'a>(text: &'a str, family: &'static str) -> impl Iterator<Item = (Sample<'a>, i64)> {
    samples(text)
        .filter(move |sample| sample.name.starts_with(family) && sample.name.ends_with("_total"))
        .map(|sample| (sample, whole(sample.value)))
}

#[expect(clippy::cast_possible_truncation, reason = "a counter, far below 2^53")]
fn whole(value: f64) -> i64 {
    value as i64
}

/// The counters of speculative decoding; none where the server has none.
pub(super) fn spec_decode(text: &str) -> Option<SpecDecodeCounters> {
    let mut counters = SpecDecodeCounters::default();
    let mut found = false;
    for (sample, value) in totals(text, "vllm:spec_decode") {
        let name = sample.name;
        found = true;
        if name.contains("num_drafts") {
            counters.drafts += value;
        } else if name.contains("num_draft_tokens") {
            counters.draft_tokens += value;
        } else if name.contains("num_accepted_tokens_per_pos") {
            if let Some(position) = position(&sample) {
                let by_position: &mut BTreeMap<i64, i64> = &mut counters.accepted_per_position;
                *by_position.entry(position).or_default() += value;
            }
        } else if name.contains("num_accepted_tokens") {
            counters.accepted_tokens += value;
        }
    }
    found.then_some(counters)
}

/// The counters of a diffusion model; none where the server has none.
pub(super) fn diffusion(text: &str) -> Option<DiffusionCounters> {
    let mut counters = DiffusionCounters::default();
    let mut found = false;
    for (Sample { name, .. }, value) in totals(text, "vllm:diffusion") {
        found = true;
        if name.contains("num_denoising_steps") {
            counters.denoising_steps += value;
        } else if name.contains("num_canvas_positions") {
            counters.canvas_positions += value;
        } else if name.contains("num_committed_tokens") {
            counters.committed_tokens += value;
        }
    }
    found.then_some(counters)
}

/// The label `position="3"`.
fn position(sample: &Sample<'_>) -> Option<i64> {
    sample.label("position")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server with two engines writes it.
    const TEXT: &str = "\
# HELP vllm:spec_decode_num_drafts_total Number of drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine=\"0\",model_name=\"a b\"} 10.0
vllm:spec_decode_num_drafts_total{engine=\"1\",model_name=\"a b\"} 5.0
vllm:spec_decode_num_drafts_created{engine=\"0\",model_name=\"a b\"} 1.76e+09
vllm:spec_decode_num_draft_tokens_total{engine=\"0\",model_name=\"a b\"} 30.0
vllm:spec_decode_num_accepted_tokens_total{engine=\"0\",model_name=\"a b\"} 12.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\",model_name=\"a b\",position=\"0\"} 8.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"1\",model_name=\"a b\",position=\"0\"} 1.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\",model_name=\"a b\",position=\"1\"} 4.0
vllm:num_requests_running{engine=\"0\"} 3.0
";

    #[test]
    fn counters_are_summed_over_their_labels() {
        let counters = spec_decode(TEXT).unwrap();
        assert_eq!((counters.drafts, counters.draft_tokens, counters.accepted_tokens), (15, 30, 12));
        assert_eq!(counters.accepted_per_position, BTreeMap::from([(0, 9), (1, 4)]));
        assert!(diffusion(TEXT).is_none());
    }

    #[test]
    fn a_server_without_them_has_none() {
        for text in ["", "vllm:num_requests_running 3", "vllm:spec_decode_num_drafts_created 1", "<html>"] {
            assert!(spec_decode(text).is_none() && diffusion(text).is_none(), "{text}");
        }
        let text = "vllm:diffusion_num_denoising_steps_total{engine=\"0\"} 7\nvllm:diffusion_num_committed_tokens_total 1.5e3";
        let counters = diffusion(text).unwrap();
        assert_eq!(
            (counters.denoising_steps, counters.committed_tokens, counters.canvas_positions),
            (7, 1500, 0)
        );
    }
}
