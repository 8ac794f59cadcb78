//! The result file and its name.

use super::super::VllmOptions;
use super::{RunInfo, Traffic, percentile_word, sections};
use crate::metrics::vllm::{Metrics, Output, Version};
use crate::python::Json;

/// The name of the result file where `--result-filename` gives none:
/// `{label or backend}-{rate}qps[-concurrency{C}]-{model's last part}-{date}.json`; in a ramp-up
/// `{label or backend}-ramp-up-{strategy}-{start}qps-{end}qps…`. The same in every version
/// (`compute_result_filename`). Without a date, the name ends with the model.
#[must_use]
pub fn file_name(traffic: Traffic, run: &RunInfo) -> String {
    // An empty label is none: `label or args.backend`.
    let label = run.label.as_deref().filter(|label| !label.is_empty()).unwrap_or(traffic.backend(run));
    let rate = match &run.ramp_up {
        Some(ramp) => format!("ramp-up-{}-{}qps-{}qps", ramp.strategy, ramp.start_rps, ramp.end_rps),
        None => format!("{}qps", traffic.rate()),
    };
    let concurrency = traffic.concurrency.map(|limit| format!("-concurrency{limit}")).unwrap_or_default();
    let model = run.model.rsplit('/').next().unwrap_or_default();
    let date = run.date.as_ref().map(|date| format!("-{date}")).unwrap_or_default();
    format!("{label}-{rate}{concurrency}-{model}{date}.json")
}

/// The result file that the version saves (`--save-result`, with the arrays of `--save-detailed` where asked for),
/// without a final line end, as the original has none.
#[must_use]
pub fn result_file(
    version: Version,
    metrics: &Metrics,
    outputs: &[Output<'_>],
    traffic: Traffic,
    options: &VllmOptions,
) -> String {
    let mut file = Fields::default();
    file.add_setup(version, outputs.len(), traffic, &options.run);
    file.add_totals(version, metrics);
    file.add_arrays(version, outputs, options.detailed);
    file.add("max_output_tokens_per_s", metrics.max_output_tokens_per_s);
    file.add("max_concurrent_requests", metrics.max_concurrent_requests);
    if version.knows_audio() {
        // Seconds of audio a second: nothing here sends audio.
        file.add("rtfx", 0.0);
    }
    if options.detailed {
        file.add_server_times(outputs);
    }
    file.add_side_figures(version, &options.run);
    for (metric, stats) in sections(version, metrics, options) {
        let name = metric.key();
        file.add(&format!("mean_{name}_ms"), stats.mean_ms);
        file.add(&format!("median_{name}_ms"), stats.median_ms);
        file.add(&format!("std_{name}_ms"), stats.std_ms);
        for &(p, value) in &stats.percentiles_ms {
            file.add(&format!("p{}_{name}_ms", percentile_word(p)), value);
        }
    }
    Json::Object(file.0).dumps()
}

/// The fields of an object, in order.
#[derive(Default)]
struct Fields(Vec<(String, Json)>);

impl Fields {
    /// Adds a field; one that is there already keeps its place and takes the new value, as in a Python dict.
    fn add(&mut self, key: &str, value: impl Into<Json>) {
        let value = value.into();
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some(field) => field.1 = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// What was run.
    fn add_setup(&mut self, version: Version, requests: usize, traffic: Traffic, run: &RunInfo) {
        let backend = traffic.backend(run);
        let tokenizer = run.tokenizer.as_ref().unwrap_or(&run.model).as_str();
        self.add("date", Json::or_null(run.date.as_deref()));
        self.add("endpoint_type", backend);
        self.add("backend", backend);
        self.add("label", Json::or_null(run.label.as_deref()));
        self.add("model_id", run.model.as_str());
        self.add("tokenizer_id", Json::or_null(run.has_tokenizer(version).then_some(tokenizer)));
        self.add("num_prompts", run.num_prompts.unwrap_or(requests as u64));
        for (key, value) in &run.metadata {
            self.add(key, value.as_str());
        }
        self.add("request_rate", traffic.request_rate.map_or(Json::from("inf"), Json::from));
        self.add("burstiness", run.burstiness.unwrap_or(1.0));
        self.add("max_concurrency", Json::or_null(traffic.concurrency));
        if let Some(ramp) = &run.ramp_up {
            self.add("ramp_up_strategy", ramp.strategy.as_str());
            self.add("ramp_up_start_rps", ramp.start_rps);
            self.add("ramp_up_end_rps", ramp.end_rps);
        }
    }

    fn add_totals(&mut self, version: Version, metrics: &Metrics) {
        self.add("duration", metrics.duration);
        self.add("completed", metrics.completed);
        if version.reports_failures() {
            self.add("failed", metrics.failed);
        }
        self.add("total_input_tokens", metrics.total_input);
        self.add("total_output_tokens", metrics.total_output);
        self.add("request_throughput", metrics.request_throughput);
        self.add("request_goodput", Json::or_null(metrics.request_goodput));
        self.add("output_throughput", metrics.output_throughput);
        self.add("total_token_throughput", metrics.total_token_throughput);
    }

    /// One value a request; latencies and queue times stay without `--save-detailed` too.
    fn add_arrays(&mut self, version: Version, outputs: &[Output<'_>], detailed: bool) {
        let seconds = |of: fn(&Output<'_>) -> f64| Json::list(outputs.iter().map(of));
        if detailed {
            let output_len = |output: &Output<'_>| if output.success { output.output_tokens } else { 0 };
            self.add("input_lens", Json::list(outputs.iter().map(|output| output.prompt_len)));
            self.add("output_lens", Json::list(outputs.iter().map(output_len)));
            self.add("ttfts", seconds(|output| output.ttft));
            self.add("itls", Json::list(outputs.iter().map(|output| Json::list(output.itl.iter().copied()))));
        }
        if version.reports_queueing() {
            self.add("latencies", seconds(|output| output.latency));
            if detailed {
                self.add("start_times", seconds(|output| output.start_time));
            }
            self.add("queue_times", seconds(|output| output.client_queue_time));
        }
        if detailed {
            self.add("generated_texts", Json::list(outputs.iter().map(|output| &*output.generated_text)));
            self.add("errors", Json::list(outputs.iter().map(|output| &*output.error)));
        }
    }

    /// The server's own times, where it said any.
    fn add_server_times(&mut self, outputs: &[Output<'_>]) {
        let said = |output: &Output<'_>| output.server_queue_time.is_some() || output.server_ttft.is_some();
        if outputs.iter().any(said) {
            let times =
                |of: fn(&Output<'_>) -> Option<f64>| Json::list(outputs.iter().map(of).map(Json::or_null));
            self.add("server_queue_times", times(|output| output.server_queue_time));
            self.add("server_ttfts", times(|output| output.server_ttft));
        }
    }

    /// What was measured beside the requests.
    fn add_side_figures(&mut self, version: Version, run: &RunInfo) {
        let counters = version.reports_counters();
        if let Some(probes) = run.probes.as_ref().filter(|_| counters) {
            self.add("probe_completed", probes.completed);
            self.add("probe_failed", probes.failed);
            self.add("probe_median_e2el_ms", probes.median_e2el_ms);
            self.add("probe_p99_e2el_ms", probes.p99_e2el_ms);
            self.add("probe_max_e2el_ms", probes.max_e2el_ms);
        }
        let changes = run.ramp_up.iter().flat_map(|ramp| &ramp.changes);
        let changes: Vec<Json> = changes
            .map(|(rps, timestamp)| {
                let mut change = Fields::default();
                change.add("rps", *rps);
                change.add("timestamp", timestamp.as_str());
                Json::Object(change.0)
            })
            .collect();
        if !changes.is_empty() {
            self.add("rps_change_events", Json::List(changes));
        }
        if let Some(spec_decode) = run.spec_decode.as_ref().filter(|_| counters) {
            let rates = &spec_decode.per_position_acceptance_rates;
            self.add("spec_decode_acceptance_rate", spec_decode.acceptance_rate);
            self.add("spec_decode_acceptance_length", spec_decode.acceptance_length);
            self.add("spec_decode_num_drafts", spec_decode.drafts);
            self.add("spec_decode_draft_tokens", spec_decode.draft_tokens);
            self.add("spec_decode_accepted_tokens", spec_decode.accepted_tokens);
            self.add("spec_decode_per_position_acceptance_rates", Json::list(rates.iter().copied()));
        }
        if let Some(diffusion) = run.diffusion.as_ref().filter(|_| counters) {
            self.add("diffusion_committed_throughput", diffusion.committed_throughput);
            self.add("diffusion_steps_per_canvas", diffusion.steps_per_canvas);
            self.add("diffusion_committed_per_step", diffusion.committed_per_step);
            self.add("diffusion_committed_tokens", diffusion.committed_tokens);
            self.add("diffusion_denoising_steps", diffusion.whole_denoising_steps());
            self.add("diffusion_canvas_positions", diffusion.canvas_positions);
        }
    }
}
