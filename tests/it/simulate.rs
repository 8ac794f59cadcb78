//! The simulated clock and the engine, through the binary.

use std::path::Path;

use serde_json::Value;

use crate::support::{Mock, bad, good, tape};

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Every file of the run is the same, byte for byte; and rounds * (TTFT + (n - 1) * ITL) is its duration.
#[test]
fn the_same_command_leaves_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let load = folder.path().join("load.tape.zst");
    tape(&load, 24, &[]);
    let load = load.to_str().unwrap();
    let runs = ["a", "b"].map(|name| folder.path().join(name));
    for run in &runs {
        let args = ["simulate", load, "--engine", "fixed", "--concurrency", "8", "-o", run.to_str().unwrap()];
        let table = good(args);
        assert!(table.contains("verdict: VALID"), "{table}");
    }
    for file in ["run.json", "summary.json", "timelines.jsonl.zst"] {
        let [a, b] = runs.each_ref().map(|run| std::fs::read(run.join(file)).unwrap());
        assert!(a == b, "{file}");
    }
    let info = json(&runs[0].join("run.json"));
    assert_eq!(info["duration_ns"], 3 * (20 + 6 * 5) * 1_000_000_u64);
    assert_eq!(info["target"]["url"], "simulated:fixed");
    // It is a run like any other.
    let report = good(["report", runs[0].to_str().unwrap(), "--dialect", "vllm-0.11.0"]);
    assert!(report.contains("Mean TTFT (ms):                          20.00"), "{report}");
}

#[test]
fn a_summary_alone_has_the_same_figures() {
    let folder = tempfile::tempdir().unwrap();
    let load = folder.path().join("load.tape.zst");
    tape(&load, 50, &[]);
    let [whole, short] = ["whole", "short"].map(|name| folder.path().join(name));
    let args = ["simulate", load.to_str().unwrap(), "--engine", "h100-llama-3.1-8b", "--rate", "200", "-o"];
    good(args.into_iter().chain([whole.to_str().unwrap()]));
    good(args.into_iter().chain([short.to_str().unwrap(), "--summary-only"]));
    let [exact, near] = [&whole, &short].map(|run| json(&run.join("summary.json")));
    for key in ["requests", "tokens", "window_s", "peak_concurrency", "output_throughput_tokens_per_s"] {
        assert_eq!(exact[key], near[key], "{key}");
    }
    for key in ["ttft_ms", "itl_ms", "tpot_ms", "e2el_ms"] {
        let mean = |summary: &Value| summary[key]["mean"].as_f64().unwrap();
        assert!((mean(&exact) / mean(&near) - 1.0).abs() < 1e-9, "{key}");
    }
    let error = bad(3, ["report", short.to_str().unwrap()]);
    assert!(error.contains("--summary-only"), "{error}");
}

/// The mock paces by the same engine: each token is due when the engine said, in steps of 5 ms and 20 ms.
#[test]
fn the_mock_keeps_the_engines_time() {
    let folder = tempfile::tempdir().unwrap();
    let load = folder.path().join("load.tape.zst");
    tape(&load, 6, &[]);
    let truth = folder.path().join("truth.jsonl");
    let mock = Mock::start_with(&["--engine", "fixed", "--truth-log", truth.to_str().unwrap()]);
    let run = folder.path().join("run");
    good([
        "replay",
        load.to_str().unwrap(),
        "--url",
        &mock.url,
        "--concurrency",
        "3",
        "-q",
        "-o",
        run.to_str().unwrap(),
    ]);
    mock.stop();
    let truth = tokentape_mock::truth::read(&truth).unwrap();
    assert_eq!(truth.header.engine.as_deref(), Some("fixed"));
    assert_eq!(truth.records.len(), 6);
    for record in &truth.records {
        assert_eq!(record.due_ns.len(), record.events.len());
        assert_eq!(record.written_ns.len(), record.events.len());
        assert!(record.due_ns[0] >= record.arrival_ns + 20_000_000);
        for pair in record.due_ns.windows(2) {
            assert!([0, 5_000_000, 20_000_000].contains(&(pair[1] - pair[0])), "{:?}", record.due_ns);
        }
    }
}

#[test]
fn a_run_makes_a_profile_that_can_be_simulated() {
    let folder = tempfile::tempdir().unwrap();
    let [load, run, again, profile] =
        ["load.tape.zst", "run", "again", "fitted.json"].map(|name| folder.path().join(name));
    tape(&load, 12, &[]);
    let paths = [&load, &run, &again, &profile].map(|path| path.to_str().unwrap());
    let [load, run_path, again_path, profile_path] = paths;
    good(["simulate", load, "--engine", "fixed", "--concurrency", "1", "-o", run_path]);
    let told = good(["fit", run_path, "-o", profile_path, "--like", "fixed"]);
    assert!(told.contains("fitted.json"), "{told}");
    good(["simulate", load, "--engine", profile_path, "--concurrency", "1", "-o", again_path]);
    let [first, second] = [&run, &again].map(|run| json(&run.join("run.json")));
    assert_eq!(first["duration_ns"], second["duration_ns"]);
    let error = bad(3, ["fit", folder.path().to_str().unwrap(), "-o", profile_path]);
    assert!(error.contains("holds no run"), "{error}");
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let load = folder.path().join("load.tape.zst");
    tape(&load, 3, &[]);
    let load = load.to_str().unwrap();
    let run = folder.path().join("run");
    let run = run.to_str().unwrap();
    assert!(bad(2, ["simulate", load, "--engine", "no-such", "-o", run]).contains("h100-llama-3.1-8b"));
    assert!(bad(2, ["simulate", load, "--ttft", "20ms", "-o", run]).contains("--itl"));
    let args = ["simulate", load, "--engine", "fixed", "--concurrency", "2", "--slots", "static", "-o", run];
    assert!(bad(2, args).contains("--slots static"));
    let small = folder.path().join("small.json");
    let profile = tokentape_mock::engine::Profile::load("fixed").unwrap();
    let text = profile.to_json().replace("\"blocks\": 1048576", "\"blocks\": 1");
    std::fs::write(&small, text).unwrap();
    let error = bad(1, ["simulate", load, "--engine", small.to_str().unwrap(), "-o", run]);
    assert!(error.contains("request 0: it needs room for 19 tokens"), "{error}");
}
