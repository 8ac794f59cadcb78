//! The peers' own result files, and their own code run over scripted streams, held against our dialects bit for bit.
//! `fixtures/results/README.md` says where each file comes from.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read is a failed test")]

use std::borrow::Cow;

use serde_json::Value;
use tokentape::metrics::Measurement;
use tokentape::metrics::vllm::{
    Arrivals, Diffusion, DiffusionCounters, Goodput, Metrics, Output, Probes, Settings, SpecDecode,
    SpecDecodeCounters, Stats, Version, calculate, outputs,
};
use tokentape::report::vllm::{Metric, RampUp, RunInfo, Traffic};
use tokentape::report::{self, Options, VllmOptions};
use tokentape::timeline::{Events, Facts, Outcome, Reads, ServerTimes, Timeline, Usage};

use crate::support::result_text;

/// A JSON file, packed or not.
fn result_file(name: &str) -> Value {
    serde_json::from_str(&result_text(name)).unwrap()
}

fn f64s(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn u32_of(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

/// The requests of a result file. 0.11.0 saves no latencies, start times and queue times; they are 0 then.
fn outputs_of(file: &Value) -> Vec<Output<'_>> {
    let n = file["ttfts"].as_array().unwrap().len();
    let or_zeros = |key: &str| file.get(key).map_or_else(|| vec![0.0; n], f64s);
    let (ttfts, latencies) = (or_zeros("ttfts"), or_zeros("latencies"));
    let (starts, queued) = (or_zeros("start_times"), or_zeros("queue_times"));
    (0..n)
        .map(|i| Output {
            success: true,
            ttft: ttfts[i],
            itl: f64s(&file["itls"][i]),
            latency: latencies[i],
            output_tokens: u32_of(&file["output_lens"][i]),
            prompt_len: u32_of(&file["input_lens"][i]),
            start_time: starts[i],
            client_queue_time: queued[i],
            server_queue_time: None,
            server_ttft: None,
            generated_text: Cow::Borrowed(file["generated_texts"][i].as_str().unwrap_or_default()),
            error: Cow::default(),
        })
        .collect()
}

fn figures_of(file: &Value, version: Version) -> Metrics {
    let settings = Settings {
        duration: file["duration"].as_f64().unwrap(),
        concurrency: file["max_concurrency"].as_u64().map(|limit| limit.try_into().unwrap()),
        percentiles: &[99.0],
        ..Settings::default()
    };
    calculate(&outputs_of(file), version, &settings)
}

#[track_caller]
fn assert_same(figure: f64, file: &Value, key: &str) {
    let expected = file[key].as_f64().unwrap_or_else(|| panic!("no {key}"));
    assert_eq!(figure.to_bits(), expected.to_bits(), "{key}: {figure} is not {expected}");
}

#[track_caller]
fn assert_same_stats(stats: &Stats, file: &Value, metric: &str) {
    assert_same(stats.mean_ms, file, &format!("mean_{metric}_ms"));
    assert_same(stats.median_ms, file, &format!("median_{metric}_ms"));
    assert_same(stats.std_ms, file, &format!("std_{metric}_ms"));
    assert_same(stats.percentiles_ms[0].1, file, &format!("p99_{metric}_ms"));
}

#[track_caller]
fn assert_same_totals(metrics: &Metrics, file: &Value) {
    assert_eq!(metrics.completed as u64, file["completed"]);
    assert_eq!(metrics.total_input, file["total_input_tokens"]);
    assert_eq!(metrics.total_output, file["total_output_tokens"]);
    assert_same(metrics.request_throughput, file, "request_throughput");
    assert_same(metrics.output_throughput, file, "output_throughput");
    assert_same(metrics.total_token_throughput, file, "total_token_throughput");
}

#[test]
fn vllm_0_11_0s_figures_follow_from_its_arrays() {
    for name in ["chat_random-100.json", "completions_random-range.json", "real-server_50x500.json.zst"] {
        let file = result_file(&format!("vllm-0.11.0/{name}"));
        let metrics = figures_of(&file, Version::V0_11_0);
        assert_same_totals(&metrics, &file);
        assert_same_stats(&metrics.ttft, &file, "ttft");
        assert_same_stats(&metrics.itl, &file, "itl");
    }
}

/// 0.32.0 saves what TPOT, E2EL and the peaks are computed from; these definitions are common to all versions.
#[test]
fn vllm_0_32_0s_figures_follow_from_its_arrays() {
    for name in ["chat_random-100", "completions_random-range"] {
        let file = result_file(&format!("vllm-0.32.0/{name}.json"));
        let e2el = result_file(&format!("vllm-0.32.0/{name}.e2el.json"));
        for version in [Version::V0_32_0, Version::V0_33_0] {
            let metrics = figures_of(&file, version);
            assert_same_totals(&metrics, &file);
            assert_eq!(metrics.failed as u64, file["failed"]);
            assert_same_stats(&metrics.ttft, &file, "ttft");
            assert_same_stats(&metrics.tpot, &file, "tpot");
            assert_same_stats(&metrics.itl, &file, "itl");
            assert_same_stats(&metrics.e2el, &e2el, "e2el");
            assert_same(metrics.max_output_tokens_per_s, &file, "max_output_tokens_per_s");
            assert_same(metrics.max_concurrent_requests as f64, &file, "max_concurrent_requests");
        }
    }
}

/// The figures of a file, those whose inputs 0.11.0 does not save taken from the file itself.
fn completed_figures(file: &Value, version: Version) -> Metrics {
    let figures = figures_of(file, version);
    if version > Version::V0_11_0 {
        return figures;
    }
    let figure = |key: &str| file[key].as_f64().unwrap();
    Metrics {
        tpot: Stats {
            mean_ms: figure("mean_tpot_ms"),
            median_ms: figure("median_tpot_ms"),
            std_ms: figure("std_tpot_ms"),
            percentiles_ms: vec![(99.0, figure("p99_tpot_ms"))],
        },
        max_output_tokens_per_s: figure("max_output_tokens_per_s"),
        max_concurrent_requests: file["max_concurrent_requests"].as_i64().unwrap(),
        ..figures
    }
}

#[test]
fn vllms_result_files_byte_for_byte() {
    for (version, folder) in [(Version::V0_11_0, "vllm-0.11.0"), (Version::V0_32_0, "vllm-0.32.0")] {
        for (name, completions) in [("chat_random-100.json", false), ("completions_random-range.json", true)]
        {
            let name = format!("{folder}/{name}");
            let file = result_file(&name);
            let options = VllmOptions {
                detailed: true,
                run: RunInfo {
                    date: file["date"].as_str().map(str::to_owned),
                    model: file["model_id"].as_str().unwrap().to_owned(),
                    tokenizer: file["tokenizer_id"].as_str().map(str::to_owned),
                    ..RunInfo::default()
                },
                ..VllmOptions::default()
            };
            let traffic = Traffic { completions, concurrency: Some(4), request_rate: None };
            let metrics = completed_figures(&file, version);
            let written = report::vllm::result_file(version, &metrics, &outputs_of(&file), traffic, &options);
            assert_eq!(written, result_text(&name));
        }
    }
}

/// The file of 500 requests to a real server; its texts and errors are not in the fixture.
#[test]
fn vllm_0_11_0s_real_server_file_byte_for_byte() {
    let packed = "vllm-0.11.0/real-server_50x500.json.zst";
    let file = result_file(packed);
    let figure = |key: &str| file[key].as_f64().unwrap();
    let metrics = Metrics {
        e2el: Stats {
            mean_ms: figure("mean_e2el_ms"),
            median_ms: figure("median_e2el_ms"),
            std_ms: figure("std_e2el_ms"),
            percentiles_ms: vec![(99.0, figure("p99_e2el_ms"))],
        },
        ..completed_figures(&file, Version::V0_11_0)
    };
    let options = VllmOptions {
        metrics: vec![Metric::Ttft, Metric::Tpot, Metric::Itl, Metric::E2el],
        detailed: true,
        run: RunInfo {
            date: file["date"].as_str().map(str::to_owned),
            model: file["model_id"].as_str().unwrap().to_owned(),
            tokenizer: file["tokenizer_id"].as_str().map(str::to_owned),
            ..RunInfo::default()
        },
        ..VllmOptions::default()
    };
    let traffic = Traffic { concurrency: Some(50), ..Traffic::default() };
    let outputs = outputs_of(&file);
    let written = report::vllm::result_file(Version::V0_11_0, &metrics, &outputs, traffic, &options);
    let written = without(&without(&written, "generated_texts"), "errors");
    assert_eq!(written, result_text(packed));
}

#[test]
fn vllms_tables_byte_for_byte() {
    for (version, folder) in [(Version::V0_11_0, "vllm-0.11.0"), (Version::V0_32_0, "vllm-0.32.0")] {
        let metrics = completed_figures(&result_file(&format!("{folder}/chat_random-100.json")), version);
        let traffic = Traffic { concurrency: Some(4), ..Traffic::default() };
        let table = report::vllm::console(version, &metrics, traffic, &VllmOptions::default());
        let theirs = result_text(&format!("{folder}/chat_random-100.console.txt"));
        assert_eq!(table.trim_end(), theirs.trim_end(), "{folder}");
    }
}

/// Scripted streams, and what the peers' own code made of them.
struct Streams {
    file: Value,
    timelines: Vec<Timeline>,
}

impl Streams {
    fn read(name: &str) -> Self {
        let file = result_file(name);
        let timelines = file["streams"].as_array().unwrap().iter().map(timeline).collect();
        Self { file, timelines }
    }

    fn measurement(&self, concurrency: Option<u32>, request_rate: Option<f64>) -> Measurement<'_> {
        let duration_ns = self.file["duration_ns"].as_u64().unwrap();
        Measurement { timelines: &self.timelines, duration_ns, concurrency, request_rate }
    }
}

fn timeline(script: &Value) -> Timeline {
    let numbers = |key: &str| script[key].as_array().unwrap().iter().map(|x| x.as_u64().unwrap());
    let message = String::new();
    let at_ns: Vec<u64> = numbers("reads_ns").collect();
    Timeline {
        scheduled_ns: script["scheduled_ns"].as_u64().unwrap_or(0),
        dispatched_ns: script["dispatched_ns"].as_u64().unwrap(),
        status: script["status"].as_u64().map(|status| status.try_into().unwrap()),
        reads: Reads { bytes: vec![0; at_ns.len()], at_ns, ..Reads::default() },
        events: Events {
            read: numbers("event_reads").map(|read| read.try_into().unwrap()).collect(),
            facts: numbers("event_facts").map(|facts| Facts(facts.try_into().unwrap())).collect(),
            ..Events::default()
        },
        end_ns: script["end_ns"].as_u64().unwrap(),
        outcome: match script["outcome"].as_str().unwrap() {
            "success" => Outcome::Success,
            "no_tokens" => Outcome::NoTokens,
            "in_band" => Outcome::InBand { message },
            "truncated" => Outcome::Truncated { message },
            "protocol" => Outcome::Protocol { message },
            "timeout" => Outcome::Timeout { limit_ms: 1 },
            "status" => Outcome::Status { body: message },
            other => panic!("unknown outcome {other}"),
        },
        input_tokens: Some(u32_of(&script["input_tokens"])),
        usage: script["usage"].as_array().map(|counts| Usage {
            prompt_tokens: u32_of(&counts[0]),
            completion_tokens: u32_of(&counts[1]),
            ..Usage::default()
        }),
        server_times: script["server_times"]
            .as_array()
            .map(|times| ServerTimes { queue_ms: times[0].as_f64(), ttft_ms: times[1].as_f64() }),
        text: script["text"].as_str().map(str::to_owned),
        ..Timeline::default()
    }
}

/// The stand-in for a tokenizer that the peers had.
fn words(text: &str) -> u32 {
    text.split_whitespace().count().try_into().unwrap()
}

const VLLM: [(Version, &str); 3] =
    [(Version::V0_11_0, "0.11.0"), (Version::V0_32_0, "0.32.0"), (Version::V0_33_0, "0.33.0")];

#[test]
fn vllm_reads_these_streams_so() {
    let streams = Streams::read("vllm-streams.json.zst");
    for (version, name) in VLLM {
        let outputs = outputs(&streams.measurement(None, None), version, Arrivals::Scheduled, Some(&words));
        for (script, output) in streams.file["streams"].as_array().unwrap().iter().zip(&outputs) {
            let expected = &script[name];
            let name = format!("{} in {name}", script["name"]);
            assert_eq!(output.success, expected["success"], "{name}");
            for (key, value) in
                [("ttft", output.ttft), ("latency", output.latency), ("start_time", output.start_time)]
            {
                assert_eq!(value.to_bits(), expected[key].as_f64().unwrap().to_bits(), "{key} of {name}");
            }
            assert_eq!(output.itl, f64s(&expected["itl"]), "itl of {name}");
            assert_eq!(output.prompt_len, u32_of(&expected["prompt_len"]), "prompt of {name}");
            assert_eq!(output.server_queue_time, expected["server_queue_time"].as_f64(), "{name}");
            assert_eq!(output.server_ttft, expected["server_ttft"].as_f64(), "{name}");
            let counted = match u32_of(&expected["output_tokens"]) {
                0 => words(script["text"].as_str().unwrap_or_default()),
                tokens => tokens,
            };
            // What a failed request's server said counts for nothing.
            assert_eq!(output.output_tokens, if output.success { counted } else { 0 }, "tokens of {name}");
        }
    }
}

/// The options under which `make_vllm.py` ran a version.
fn run_options(version: Version, run: &Value) -> VllmOptions {
    use Metric::{ClientQueueTime, E2el, E2elIncludingClientQueue, Itl, Tpot, Ttft};

    let reading = |drafts, draft_tokens, accepted_tokens, per_position: &[i64]| SpecDecodeCounters {
        drafts,
        draft_tokens,
        accepted_tokens,
        accepted_per_position: (0..).zip(per_position.iter().copied()).collect(),
    };
    let before = reading(100, 300, 170, &[80, 60, 30]);
    let after = reading(1134, 3402, 2150, &[900, 700, 290, 260]);
    let spec_decode = SpecDecode::between(&before, &after);
    let probes = Probes::of(
        &f64s(&run["probes"]["latencies"]),
        run["probes"]["failed"].as_u64().unwrap().try_into().unwrap(),
    );
    match run["name"].as_str().unwrap() {
        "plain" => VllmOptions { detailed: true, ..VllmOptions::default() },
        "full" => VllmOptions {
            metrics: vec![E2elIncludingClientQueue, E2el, Itl, Ttft, ClientQueueTime, Tpot],
            percentiles: vec![50.0, 90.0, 99.9],
            goodput: Some(Goodput { ttft_ms: Some(25.0), tpot_ms: Some(12.0), e2el_ms: Some(60.0) }),
            detailed: true,
            run: RunInfo { probes, spec_decode, ..RunInfo::default() },
        },
        "ramp" => {
            let steps = |denoising_steps, canvas_positions, committed_tokens| DiffusionCounters {
                denoising_steps,
                canvas_positions,
                committed_tokens,
            };
            let timestamp = "2026-11-24T05:53:06.250000".to_owned();
            VllmOptions {
                metrics: vec![Ttft, E2el, ClientQueueTime],
                detailed: true,
                run: RunInfo {
                    skip_tokenizer_init: version > Version::V0_11_0,
                    spec_decode,
                    diffusion: Diffusion::between(
                        &steps(10, 2560, 96),
                        &steps(130, 33280, 1344),
                        3.345_678_9,
                    ),
                    ramp_up: Some(RampUp {
                        strategy: "linear".to_owned(),
                        start_rps: 1,
                        end_rps: 6,
                        changes: (1..=7).map(|rps| (rps, timestamp.clone())).collect(),
                    }),
                    ..RunInfo::default()
                },
                ..VllmOptions::default()
            }
        }
        other => panic!("unknown run {other}"),
    }
}

#[test]
fn vllms_own_tables_and_results_of_these_streams() {
    let streams = Streams::read("vllm-streams.json.zst");
    for (version, name) in VLLM {
        for run in streams.file["versions"][name]["runs"].as_array().unwrap() {
            let (concurrency, rate) = match run["name"].as_str().unwrap() {
                "plain" => (Some(8), None),
                "full" => (Some(6), Some(12.5)),
                _ => (None, None),
            };
            let measurement = streams.measurement(concurrency, rate);
            let options =
                Options { count_tokens: Some(&words), vllm: run_options(version, run), ..Options::default() };
            let name = format!("{} in {name}", run["name"]);
            assert_eq!(report::vllm::table(version, &measurement, &options), run["table"], "{name}");

            // The order of the keys counts; what stands around the benchmark's own result is left out.
            let ours = report::vllm::result_json(version, &measurement, &options);
            let ours = ours.split_once(r#""duration""#).unwrap().1;
            let ours = without(&without(ours, "generated_texts"), "errors");
            let theirs = run["result"].as_str().unwrap().split_once(r#""duration""#).unwrap().1;
            assert_eq!(ours, theirs, "{name}");
        }
    }
}

/// A JSON object's text without one of its arrays of strings.
fn without(object: &str, key: &str) -> String {
    let start = object.find(&format!(r#""{key}": ["#)).unwrap();
    let end = start + object[start..].find("], ").unwrap() + 3;
    object[..start].to_owned() + &object[end..]
}

/// The whole file around those results, and its name, as the original's own `main_async` saves them.
#[test]
fn vllms_own_files_and_their_names() {
    let streams = Streams::read("vllm-streams.json.zst");
    let run = |version, run: &str, change: fn(&mut RunInfo)| {
        let mut options =
            run_options(version, &serde_json::json!({"name": run, "probes": {"latencies": [], "failed": 0}}));
        options.detailed = false;
        options.run.date = Some("20261124-055306".to_owned());
        // The streams are of both kinds; the original was told the one.
        options.run.backend = Some("openai-chat".to_owned());
        change(&mut options.run);
        options
    };
    for (version, name) in VLLM {
        let files = streams.file["versions"][name]["files"].as_array().unwrap();
        let measurement = |concurrency| streams.measurement(concurrency, None);
        let runs = [
            (
                measurement(Some(8)),
                run(version, "plain", |run| {
                    run.model = "Qwen/Qwen3-0.6B".to_owned();
                    run.tokenizer = Some("tok".to_owned());
                }),
            ),
            (
                measurement(Some(8)),
                run(version, "plain", |run| {
                    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
                    run.model = "m".to_owned();
                    run.num_prompts = Some(40);
                    run.label = Some("mine".to_owned());
                    run.burstiness = Some(0.5);
                    run.metadata = vec![
                        pair("gpu", "H100"),
                        pair("label", "other"),
                        pair("completed", "none"),
                        pair("é", "x=y"),
                    ];
                }),
            ),
            (
                measurement(None),
                run(version, "ramp", |run| {
                    run.model = "a/b/c".to_owned();
                    run.label = Some(String::new());
                }),
            ),
        ];
        for ((measurement, vllm), file) in runs.into_iter().zip(files) {
            let options = Options { count_tokens: Some(&words), vllm, ..Options::default() };
            let mut ours = report::vllm::result_json(version, &measurement, &options);
            if options.vllm.run.label.as_deref() == Some("mine") {
                // It was saved twice with `--append-result`.
                ours = format!("{ours}\n{ours}");
            }
            assert_eq!(ours, file["text"], "{name}");
            assert_eq!(report::vllm::file_name(Traffic::of(&measurement), &options.vllm.run), file["name"]);
        }
        let rated = Traffic::of(&streams.measurement(Some(8), Some(0.25)));
        let model = run(version, "plain", |run| run.model = "m".to_owned()).run;
        assert_eq!(report::vllm::file_name(rated, &model), files[3]["name"]);
    }
}
