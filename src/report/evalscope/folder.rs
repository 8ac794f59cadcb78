//! What `evalscope perf` leaves behind: the files of each run, what it logs of it, and the report on a sweep.
//!
//! Pure, but for the database, which is written by [`super::database`].
//!
//! - 1.14.1 keeps each run in `OUT/NAME/parallel_4_number_20/` ([`Run::folder`]) and the report on all of them beside
//!   these folders, as [`SWEEP_FILE`]; it prints the same text.
//! - 1.1.1 keeps a single run in `OUT/TIME/NAME/` itself, and several in folders below it; it reports on a sweep only
//!   where there were several, and only on the console.
//!
//! Not written: `benchmark.log`, `perf_report.html`, `trace_summary.json`.

use super::v1_1_1;
use super::v1_14_1::{self, Traffic, sweep};
use crate::metrics::evalscope::workload::{Throughput, Workload};
use crate::metrics::evalscope::{self as metrics, Row, Version};
use crate::metrics::{CountTokens, Measurement};
use crate::python::{self, Json};

/// The report on a sweep, in 1.14.1.
pub const SWEEP_FILE: &str = "performance_summary.txt";

/// What is to be said of a run that its measurement does not say.
#[derive(Clone, Copy, Debug)]
pub struct RunFacts {
    /// Whose files.
    pub version: Version,
    /// The requests asked for: `--number`.
    pub number: u64,
    /// `--enable-pd-metrics`, of 1.14.1.
    pub handoff: bool,
}

/// A run's figures as one version computes them.
#[derive(Clone, Debug)]
pub struct Run {
    facts: RunFacts,
    traffic: Traffic,
    rows: Vec<Row>,
    figures: Figures,
}

#[derive(Clone, Debug)]
enum Figures {
    V1_1_1 {
        summary: metrics::v1_1_1::Summary,
        percentiles: Vec<metrics::v1_1_1::Percentile>,
    },
    V1_14_1 {
        summary: metrics::v1_14_1::Summary,
        percentiles: Box<metrics::v1_14_1::Percentiles>,
        workload: Option<(Workload, Throughput)>,
    },
}

impl Run {
    /// Computes the figures. `count` counts a text's tokens where the server did not.
    #[must_use]
    pub fn new(measurement: &Measurement<'_>, facts: RunFacts, count: Option<CountTokens<'_>>) -> Self {
        let traffic =
            Traffic { concurrency: measurement.concurrency, request_rate: measurement.request_rate };
        Self::of_rows(metrics::rows(measurement, facts.version, count), facts, traffic)
    }

    /// Computes the figures of rows that are there already, in the order of completion.
    #[must_use]
    pub fn of_rows(rows: Vec<Row>, facts: RunFacts, traffic: Traffic) -> Self {
        let figures = match facts.version {
            Version::V1_1_1 => Figures::V1_1_1 {
                summary: metrics::v1_1_1::summarize(&rows),
                percentiles: metrics::v1_1_1::percentiles(&rows),
            },
            Version::V1_14_1 => Figures::V1_14_1 {
                summary: metrics::v1_14_1::summarize(&rows, facts.handoff),
                percentiles: Box::new(metrics::v1_14_1::percentiles(&rows, facts.handoff)),
                workload: Workload::of(&rows).map(|workload| {
                    let throughput = workload.throughput();
                    (workload, throughput)
                }),
            },
        };
        Self { facts, traffic, rows, figures }
    }

    /// The rows of its database, in order.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The name of the run's folder: `parallel_4_number_20`, or `rate_2.5_number_20` in an open loop.
    #[must_use]
    pub fn folder(&self) -> String {
        let number = self.facts.number;
        match self.traffic.concurrency {
            Some(limit) => format!("parallel_{limit}_number_{number}"),
            None => {
                format!("rate_{}_number_{number}", python::float(self.traffic.request_rate.unwrap_or(-1.0)))
            }
        }
    }

    /// The files of the run, each with its name, but for the database. `args` are the tool's own arguments, in their
    /// order, for `benchmark_args.json`; without secrets.
    #[must_use]
    pub fn files(&self, args: &serde_json::Value) -> Vec<(&'static str, String)> {
        let mut files = vec![
            ("benchmark_args.json", Json::from(args).dumps_indented()),
            ("benchmark_summary.json", self.summary_file()),
            ("benchmark_percentile.json", self.percentile_file()),
        ];
        if let Figures::V1_14_1 { workload: Some((workload, throughput)), .. } = &self.figures {
            files.push(("workload_throughput.json", v1_14_1::throughput_file(throughput)));
            files.push(("workload_timeline.json", v1_14_1::timeline_file(workload)));
        }
        files
    }

    /// `benchmark_summary.json`.
    #[must_use]
    pub fn summary_file(&self) -> String {
        match &self.figures {
            Figures::V1_1_1 { summary, .. } => v1_1_1::summary_file(summary, self.traffic.concurrency),
            Figures::V1_14_1 { summary, .. } => v1_14_1::summary_file(summary, self.traffic),
        }
    }

    /// `benchmark_percentile.json`.
    #[must_use]
    pub fn percentile_file(&self) -> String {
        match &self.figures {
            Figures::V1_1_1 { percentiles, .. } => v1_1_1::percentile_file(percentiles),
            Figures::V1_14_1 { percentiles, .. } => v1_14_1::percentile_file(percentiles),
        }
    }

    /// The summary as it is logged, without a final line end.
    #[must_use]
    pub fn summary_table(&self) -> String {
        match &self.figures {
            Figures::V1_1_1 { summary, .. } => v1_1_1::summary_table(summary, self.traffic.concurrency),
            Figures::V1_14_1 { summary, .. } => v1_14_1::summary_table(summary, self.traffic),
        }
    }

    /// What is logged of the run when it is over, without the log's time stamps; with a final line end.
    #[must_use]
    pub fn console(&self) -> String {
        let (percentiles, workload) = match &self.figures {
            Figures::V1_1_1 { percentiles, .. } => (v1_1_1::percentile_table(percentiles), None),
            Figures::V1_14_1 { percentiles, workload, .. } => {
                (v1_14_1::percentile_table(percentiles), workload.as_ref())
            }
        };
        let summary = self.summary_table();
        let workload = workload.map_or_else(String::new, |(_, throughput)| {
            let table = v1_14_1::throughput_table(throughput);
            format!("\nWorkload throughput ({} samples):\n{table}\n", throughput.samples)
        });
        format!("Benchmarking summary:\n{summary}\n\nPercentile results:\n{percentiles}\n{workload}")
    }
}

/// What the report on a sweep says of it beyond its runs. 1.1.1 says the model alone.
#[derive(Clone, Copy, Debug)]
pub struct Sweep<'a> {
    /// Whose report.
    pub version: Version,
    /// The model's name.
    pub model: &'a str,
    /// `--alias`.
    pub alias: Option<&'a str>,
    /// `--dataset`.
    pub dataset: &'a str,
    /// `--api`: `openai`.
    pub api: &'a str,
    /// The URL that was sent to; only its host and port are shown.
    pub url: &'a str,
    /// The folder that holds the runs' folders.
    pub output_path: &'a str,
}

impl Sweep<'_> {
    /// The report on the runs, in the order in which they ran; runs of another version are left out. Empty without a
    /// run.
    #[must_use]
    pub fn report(&self, runs: &[Run]) -> String {
        match self.version {
            Version::V1_1_1 => {
                let entries = runs.iter().filter_map(|run| match &run.figures {
                    Figures::V1_1_1 { summary, percentiles } => {
                        Some(v1_1_1::Entry::new(summary, percentiles, run.traffic.concurrency))
                    }
                    Figures::V1_14_1 { .. } => None,
                });
                v1_1_1::sweep_report(self.model, &entries.collect::<Vec<_>>())
            }
            Version::V1_14_1 => {
                let entries = runs.iter().filter_map(|run| match &run.figures {
                    Figures::V1_14_1 { summary, percentiles, workload } => Some(sweep::Entry {
                        sheet: v1_14_1::Sheet::new(summary, run.traffic),
                        percentiles,
                        throughput: workload.as_ref().map(|(_, throughput)| *throughput),
                    }),
                    Figures::V1_1_1 { .. } => None,
                });
                let head = sweep::Head {
                    model: self.model,
                    alias: self.alias,
                    dataset: self.dataset,
                    api: self.api,
                    url: self.url,
                    output_path: self.output_path,
                };
                sweep::report(&head, entries.collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::v1_14_1::{PERCENTILES, Percentiles, Summary};
    use metrics::workload::Rates;
    use serde_json::Value;

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../../fixtures/results/evalscope-1.14.1/real-server_50x500/", $name))
        };
    }

    fn figure(file: &Value, key: &str) -> f64 {
        file[key].as_f64().unwrap_or_else(|| panic!("no {key}"))
    }

    /// Of this run the original kept its figures, and not what they are computed from.
    #[test]
    fn a_real_runs_files_say_what_its_report_says() {
        let file: Value = serde_json::from_str(fixture!("benchmark_summary.json")).unwrap();
        let summary = Summary {
            duration: figure(&file, "Test Duration (s)"),
            total: 500,
            succeeded: 500,
            streams: 500,
            request_throughput: Some(figure(&file, "Req Throughput (req/s)")),
            latency: Some(figure(&file, "Avg Latency (s)")),
            input_tokens: Some(figure(&file, "Avg Input Tokens")),
            output_tokens: Some(figure(&file, "Avg Output Tokens")),
            output_throughput: Some(figure(&file, "Output Throughput (tok/s)")),
            total_throughput: Some(figure(&file, "Total Throughput (tok/s)")),
            ttft: Some(figure(&file, "Avg TTFT (ms)") / 1000.0),
            tpot: Some(figure(&file, "Avg TPOT (ms)") / 1000.0),
            itl: figure(&file, "Avg ITL (ms)") / 1000.0,
            cache_hit_percent: None,
            // What rounds to 1.0781 tokens and to a share of 0.0725 accepted.
            decoded_per_step: Some(1.078_13),
            handoff: metrics::v1_14_1::Handoff::default(),
        };
        let file: Vec<Value> = serde_json::from_str(fixture!("benchmark_percentile.json")).unwrap();
        let column = |name| std::array::from_fn(|i| figure(&file[i], name));
        let percentiles = Percentiles {
            latency: column("Latency (s)"),
            ttft: column("TTFT (ms)"),
            itl: column("ITL (ms)"),
            steady_itl: None,
            handoff_latency: None,
            handoff_overhead: None,
            tpot: column("TPOT (ms)"),
            input_tokens: column("Input tokens"),
            output_tokens: column("Output tokens"),
            output_rate: column("Output (tok/s)"),
            total_rate: column("Total (tok/s)"),
            decode_rate: column("Decode (tok/s)"),
        };
        assert_eq!(file.len(), PERCENTILES.len());
        let file: Value = serde_json::from_str(fixture!("workload_throughput.json")).unwrap();
        let rates = |window| Rates {
            prompt: figure(&file["rows"][0], window),
            new_prompt: figure(&file["rows"][1], window),
            cached_prompt: figure(&file["rows"][2], window),
            completion: figure(&file["rows"][3], window),
        };
        let throughput = Throughput {
            samples: 500,
            wall_time: figure(&file, "wall_time_s"),
            overall: rates("overall"),
            last_window: rates("last_window"),
            steady_state: rates("steady_state"),
        };
        let workload = Workload { start: 0.0, points: Vec::new() };
        let run = Run {
            facts: RunFacts { version: Version::V1_14_1, number: 500, handoff: false },
            traffic: Traffic { concurrency: Some(50), request_rate: None },
            rows: Vec::new(),
            figures: Figures::V1_14_1 {
                summary,
                percentiles: Box::new(percentiles),
                workload: Some((workload, throughput)),
            },
        };
        assert_eq!(run.summary_file(), fixture!("benchmark_summary.json"));
        assert_eq!(run.percentile_file(), fixture!("benchmark_percentile.json"));
        assert_eq!(v1_14_1::throughput_file(&throughput), fixture!("workload_throughput.json"));
        let sweep = Sweep {
            version: Version::V1_14_1,
            model: "Qwen2.5-0.5B-Instruct",
            alias: None,
            dataset: "random",
            api: "openai",
            url: "http://127.0.0.1:8801/v1/chat/completions",
            output_path: "runs/es_real/Qwen2.5-0.5B-Instruct",
        };
        assert_eq!(sweep.report(&[run]), fixture!("performance_summary.txt"));
    }
}
