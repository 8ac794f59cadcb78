//! The table: rows of `{:<40} {:<10}`.

use std::fmt::Display;

use super::super::VllmOptions;
use super::{Traffic, percentile_word, sections};
use crate::metrics::vllm::{Diffusion, Metrics, Output, Probes, SpecDecode, Version};

/// The table that the version prints, with a final line end. Its cells keep their trailing spaces.
#[must_use]
pub fn console(version: Version, metrics: &Metrics, traffic: Traffic, options: &VllmOptions) -> String {
    let run = &options.run;
    let tokenizer = run.has_tokenizer(version);
    let mut table = Table::default();
    table.banner(" Serving Benchmark Result ", '=');
    table.text("Successful requests:", metrics.completed);
    if version.reports_failures() {
        table.text("Failed requests:", metrics.failed);
    }
    if let Some(concurrency) = traffic.concurrency {
        table.text("Maximum request concurrency:", concurrency);
    }
    if let Some(rate) = traffic.request_rate {
        table.figure("Request rate configured (RPS):", rate);
    }
    table.figure("Benchmark duration (s):", metrics.duration);
    table.text("Total input tokens:", metrics.total_input);
    if tokenizer {
        table.text("Total generated tokens:", metrics.total_output);
    }
    table.figure("Request throughput (req/s):", metrics.request_throughput);
    if let Some(goodput) = metrics.request_goodput {
        table.figure("Request goodput (req/s):", goodput);
    }
    if tokenizer {
        table.figure("Output token throughput (tok/s):", metrics.output_throughput);
        table.figure("Peak output token throughput (tok/s):", metrics.max_output_tokens_per_s);
    }
    table.figure("Peak concurrent requests:", metrics.max_concurrent_requests as f64);
    if tokenizer {
        table.figure(version.total_throughput_label(), metrics.total_token_throughput);
    }
    let counters = version.reports_counters();
    if let Some(probes) = run.probes.as_ref().filter(|_| counters) {
        table.probes(probes);
    }
    for (metric, stats) in sections(version, metrics, options) {
        let name = metric.name();
        table.banner(metric.header(), '-');
        table.figure(&format!("Mean {name} (ms):"), stats.mean_ms);
        table.figure(&format!("Median {name} (ms):"), stats.median_ms);
        for &(p, value) in &stats.percentiles_ms {
            table.figure(&format!("P{} {name} (ms):", percentile_word(p)), value);
        }
    }
    match (&run.diffusion, &run.spec_decode) {
        (Some(diffusion), _) if counters => table.diffusion(diffusion),
        (None, Some(spec_decode)) if counters => table.spec_decode(spec_decode),
        _ => {}
    }
    table.banner("", '=');
    table.0.join("\n") + "\n"
}

/// [`super::notes`] of these outputs.
#[must_use]
pub fn notes_of(version: Version, outputs: &[Output<'_>]) -> String {
    let mut text = String::new();
    let mut failed = outputs.iter().filter(|output| !output.success).peekable();
    if version.reports_failures() && failed.peek().is_some() {
        text += "Failed requests during benchmark run detected (capping to 10):\n";
        for (i, output) in failed.take(10).enumerate() {
            text += &format!("Error {i}: {}\n", output.error);
        }
    }
    if outputs.iter().any(|output| output.success) {
        text += "tip: install termplotlib and gnuplot to plot the metrics\n";
    }
    text
}

/// Lines of `{:<40} {:<10}`.
#[derive(Default)]
struct Table(Vec<String>);

impl Table {
    /// `{text:{fill}^50}`.
    fn banner(&mut self, text: &str, fill: char) {
        let gap = 50usize.saturating_sub(text.len());
        let side = |width| std::iter::repeat_n(fill, width).collect::<String>();
        self.0.push(side(gap / 2) + text + &side(gap - gap / 2));
    }

    fn text(&mut self, label: &str, value: impl Display) {
        self.0.push(format!("{label:<40} {value:<10}"));
    }

    fn figure(&mut self, label: &str, value: f64) {
        self.0.push(format!("{label:<40} {value:<10.2}"));
    }

    fn probes(&mut self, probes: &Probes) {
        self.banner("Probe Requests", '-');
        self.text("Probe requests completed:", probes.completed);
        self.text("Probe requests failed:", probes.failed);
        self.figure("Median probe E2EL (ms):", probes.median_e2el_ms);
        self.figure("P99 probe E2EL (ms):", probes.p99_e2el_ms);
        self.figure("Max probe E2EL (ms):", probes.max_e2el_ms);
    }

    fn diffusion(&mut self, diffusion: &Diffusion) {
        self.banner("Diffusion Decoding", '-');
        self.figure("Committed throughput (tok/s):", diffusion.committed_throughput);
        self.figure("Denoising steps per canvas:", diffusion.steps_per_canvas);
        self.figure("Committed per denoising step:", diffusion.committed_per_step);
        self.text("Committed tokens:", diffusion.committed_tokens);
        self.text("Denoising steps:", diffusion.whole_denoising_steps());
        self.text("Canvas positions evaluated:", diffusion.canvas_positions);
    }

    fn spec_decode(&mut self, spec_decode: &SpecDecode) {
        self.banner("Speculative Decoding", '-');
        self.figure("Acceptance rate (%):", spec_decode.acceptance_rate);
        self.figure("Acceptance length:", spec_decode.acceptance_length);
        self.text("Drafts:", spec_decode.drafts);
        self.text("Draft tokens:", spec_decode.draft_tokens);
        self.text("Accepted tokens:", spec_decode.accepted_tokens);
        let rates = &spec_decode.per_position_acceptance_rates;
        if !rates.is_empty() {
            self.0.push("Per-position acceptance (%):".to_owned());
        }
        for (position, rate) in rates.iter().enumerate() {
            self.figure(&format!("  Position {position}:"), rate * 100.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notes_name_ten_errors() {
        let failed = |error: &'static str| Output { error: error.into(), ..Output::default() };
        let mut outputs = vec![failed("Service Unavailable"); 11];
        assert_eq!(notes_of(Version::V0_11_0, &outputs), "");
        let errors =
            (0..10).fold(String::new(), |text, i| text + &format!("Error {i}: Service Unavailable\n"));
        let detected = "Failed requests during benchmark run detected (capping to 10):\n";
        assert_eq!(notes_of(Version::V0_33_0, &outputs), detected.to_owned() + &errors);

        outputs = vec![Output { success: true, ..Output::default() }, failed("x")];
        let tip = "tip: install termplotlib and gnuplot to plot the metrics\n";
        assert_eq!(notes_of(Version::V0_11_0, &outputs), tip);
        assert_eq!(notes_of(Version::V0_32_0, &outputs), format!("{detected}Error 0: x\n{tip}"));
    }
}
