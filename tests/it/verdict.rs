//! The verdict on a run, through the binary: what makes it INVALID, and what that does to the exit code.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tokentape::metrics::{Measurement, client, native};
use tokentape::run::{Run, Thresholds};

use crate::support::{LENIENT, Mock, Scripted, bad, failed, good, shown, stream_of, tape, tokentape};

/// A replay of a small tape against the mock, with these flags.
struct Replayed {
    folder: tempfile::TempDir,
    output: Output,
}

impl Replayed {
    fn new(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tape_path = folder.path().join("t.tape.zst");
        tape(&tape_path, 24, &[]);
        let mock = Mock::start(&["--model", "tokentape"]);
        let mut command = tokentape(["replay", tape_path.to_str().unwrap(), "--url", &mock.url]);
        let output = command
            .args(["--concurrency", "4", "-o", folder.path().join("run").to_str().unwrap()])
            .args(more)
            .output()
            .unwrap();
        Self { folder, output }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn run(&self) -> Run {
        Run::load(&self.path()).unwrap()
    }
}

/// The rules of the reasons against a run.
fn rules(run: &Run) -> Vec<&str> {
    run.info.verdict.reasons.iter().filter_map(|reason| Some(reason.split_once(": ")?.0)).collect()
}

fn measurement(run: &Run) -> Measurement<'_> {
    Measurement {
        timelines: &run.timelines,
        duration_ns: run.info.duration_ns,
        concurrency: run.info.traffic.concurrency,
        request_rate: run.info.traffic.request_rate,
    }
}

/// No client reads, sends and computes in no time at all.
#[cfg(target_os = "linux")]
const TIGHT: &str = "cpu=0,cpu-wait=1000,idle=0,read-delay=0";

#[cfg(target_os = "linux")]
#[test]
fn a_client_that_is_too_slow_makes_a_run_invalid() {
    let replayed = Replayed::new(&["--verdict", TIGHT]);
    assert!(replayed.output.status.success(), "{}", shown(&replayed.output));
    let stderr = String::from_utf8_lossy(&replayed.output.stderr);
    assert!(stderr.contains("note: the run is INVALID: idle: "), "{stderr}");
    let stdout = String::from_utf8_lossy(&replayed.output.stdout);
    assert!(stdout.contains("\nverdict: INVALID: idle: "), "{stdout}");
    let run = replayed.run();
    assert_eq!(run.info.counts.succeeded, 24);
    assert!(!run.info.verdict.valid);
    for rule in ["idle", "read-delay", "cpu"] {
        assert!(rules(&run).contains(&rule), "{}", run.info.verdict.line());
    }
    let warnings = &run.info.verdict.warnings;
    assert!(warnings.iter().any(|warning| warning.starts_with("samples: 24 ")), "{warnings:?}");
    let json = good(["report", replayed.path().to_str().unwrap(), "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["client"]["kernel_stamps"], true);
    assert_eq!(json["client"]["cpu"]["workers"], 1);
}

#[cfg(target_os = "linux")]
#[test]
fn strict_makes_it_an_exit_code() {
    let replayed = Replayed::new(&["--verdict", "read-delay=0%", "--verdict", "cpu=0", "--strict"]);
    let error = failed(1, &replayed.output);
    assert!(error.contains("INVALID: ") && error.contains("read-delay: "), "{error}");
    // The run is kept all the same.
    assert_eq!(replayed.run().info.counts.succeeded, 24);
}

#[test]
fn a_valid_run_is_good_however_strict() {
    let replayed = Replayed::new(&["--verdict", LENIENT, "--strict"]);
    assert!(replayed.output.status.success(), "{}", shown(&replayed.output));
    let run = replayed.run();
    assert!(run.info.verdict.valid);
    assert_eq!(run.info.workload.tape_digest.as_ref(), Some(&run.info.workload.workload_digest));
    let table = good(["report", replayed.path().to_str().unwrap()]);
    assert!(table.contains("\nverdict: VALID\nwarning: "), "{table}");
    let part = Replayed::new(&["--verdict", LENIENT, "--requests", "9"]);
    assert_eq!(part.run().info.workload.tape_digest, None);
}

/// The verdict of a run, whatever the machine was doing, is that of its figures.
#[test]
fn the_verdict_follows_from_what_is_on_record() {
    let replayed = Replayed::new(&[]);
    assert!(replayed.output.status.success(), "{}", shown(&replayed.output));
    let run = replayed.run();
    let thresholds = Thresholds::default();
    assert_eq!(run.info.verdict.thresholds, thresholds);
    let client = client::calculate(&measurement(&run), run.info.effort.as_ref());
    let metrics = native::calculate(&measurement(&run));
    let cpu = client.cpu.unwrap();
    let read_delay = thresholds.read_delay * 1000.0;
    let expected = [
        ("cpu", cpu.busiest_worker_share > thresholds.cpu),
        ("cpu-wait", cpu.waiting_worker_share.is_some_and(|share| share > thresholds.cpu_wait)),
        ("idle", client.lateness_share > thresholds.idle),
        (
            "read-delay",
            client.read_delay_us.p99 > read_delay * metrics.itl_ms.mean
                || client.first_token_read_delay_us.p99 > read_delay * metrics.ttft_ms.p50,
        ),
    ];
    for (rule, is_against) in expected {
        assert_eq!(rules(&run).contains(&rule), is_against, "{rule}: {client:?}");
    }
}

#[test]
fn the_user_clock_adds_the_read_delay() {
    let replayed = Replayed::new(&[]);
    let json = |more: &[&str]| -> serde_json::Value {
        let path = replayed.path();
        let args = ["report", path.to_str().unwrap(), "--json"];
        serde_json::from_str(&good(args.iter().chain(more))).unwrap()
    };
    let (kernel, user) = (json(&[]), json(&["--clock", "user"]));
    assert_eq!(kernel, json(&["--clock", "kernel"]));
    assert_eq!(kernel["client"], user["client"]);
    for (metric, effect) in [("ttft_ms", "ttft"), ("itl_ms", "itl"), ("tpot_ms", "tpot"), ("e2el_ms", "e2el")]
    {
        for figure in ["mean", "p50", "p99"] {
            let of = |json: &serde_json::Value| json[metric][figure].as_f64().unwrap();
            let effect = kernel["client"]["effect_us"][effect][figure].as_f64().unwrap();
            let difference = of(&user) - of(&kernel);
            assert!((difference - effect / 1000.0).abs() < 1e-6, "{metric} {figure}: {difference} {effect}");
        }
    }
    let path = replayed.path();
    let report =
        |clock| good(["report", path.to_str().unwrap(), "--dialect", "vllm-0.11.0", "--clock", clock]);
    assert_eq!(report("user") != report("kernel"), cfg!(target_os = "linux"));
}

#[test]
fn no_threshold_makes_a_failed_request_good() {
    let folder = tempfile::tempdir().unwrap();
    let tape_path = folder.path().join("t.tape.zst");
    tape(&tape_path, 3, &[]);
    let token = r#"{"choices":[{"delta":{"content":"x"}}]}"#;
    let server = Scripted::start(stream_of(&[token], true));
    let run = folder.path().join("run");
    let args = ["replay", tape_path.to_str().unwrap(), "--url", &server.url, "--verdict", LENIENT, "-o"];
    let error = bad(1, args.iter().copied().chain([run.to_str().unwrap()]));
    assert!(error.contains("INVALID: failed: 3 of 3 requests failed: 3 truncated"), "{error}");
}

#[test]
fn a_threshold_that_is_none_is_refused_before_anything_is_sent() {
    let args = ["replay", "none.tape.zst", "--url", "http://127.0.0.1:1", "-o", "never", "--verdict"];
    let error = |value| bad(2, args.iter().copied().chain([value]));
    assert!(error("idle=1%,speed=3").contains("--verdict: no rule with a threshold is called 'speed'"));
    assert!(error("idle=fast").contains("--verdict: idle: 'fast' is not a share"));
    assert!(!Path::new("never").exists());
}

/// A process that ends with this value.
struct Hog(Child);

impl Drop for Hog {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A client without a processor to itself: `cargo test --test it starved -- --ignored`.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "takes a processor of the machine, for ten seconds"]
fn a_starved_client_is_called_invalid() {
    let pinned = |program: &str| {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "0", program]).stdin(Stdio::null());
        command
    };
    let folder = tempfile::tempdir().unwrap();
    let (tape_path, run) = (folder.path().join("t.tape.zst"), folder.path().join("run"));
    good(["generate", "random", "--requests", "1500", "-o", tape_path.to_str().unwrap()]);
    let mock = Mock::start(&["--model", "tokentape", "--ttft", "20ms", "--itl", "10ms"]);
    let _hog = Hog(pinned("sh").args(["-c", "while :; do :; done"]).spawn().unwrap());
    let output = pinned(env!("CARGO_BIN_EXE_tokentape"))
        .args(["replay", tape_path.to_str().unwrap(), "--url", &mock.url, "--concurrency", "500"])
        .args(["--strict", "--quiet", "--priority", "normal", "-o", run.to_str().unwrap()])
        .output()
        .unwrap();
    failed(1, &output);
    let run = Run::load(&run).unwrap();
    assert_eq!(run.info.counts.succeeded, 1500);
    for rule in ["read-delay", "cpu-wait"] {
        assert!(rules(&run).contains(&rule), "{}", run.info.verdict.line());
    }
}
