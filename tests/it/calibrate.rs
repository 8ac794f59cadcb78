//! Calibrate: every figure held against the truth, and kept for the machine's later runs. What a busy machine measures
//! is not judged here.

use std::path::Path;
use std::process::Output;

use tokentape::calibrate::{Calibration, Setting};
use tokentape::run::Run;

use crate::support::{bad, shown, tokentape};

/// Calibrates with the cache in `home`.
fn calibrate(home: &Path, more: &[&str]) -> Output {
    let args = ["calibrate", "--quiet", "--ttft", "4ms", "--itl", "500us", "--output-tokens", "9"];
    tokentape(args).args(more).env("XDG_CACHE_HOME", home).output().unwrap()
}

#[test]
fn each_load_is_held_against_the_truth_and_kept() {
    let home = tempfile::tempdir().unwrap();
    let output = calibrate(home.path(), &["--concurrency", "2,8", "--requests", "40", "--json"]);
    let calibration: Calibration = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.success(), calibration.passed(), "{}", shown(&output));
    assert_eq!(calibration.setting, Setting { ttft_ns: 4_000_000, itl_ns: 500_000, output_tokens: 9 });
    assert_eq!(calibration.loads.iter().map(|load| load.streams).collect::<Vec<_>>(), [2, 8]);
    for load in &calibration.loads {
        assert_eq!((load.requests, load.matched), (40, 40));
        let names: Vec<&str> = load.metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["TTFT", "ITL", "TPOT", "E2EL"]);
        // No token is written before it is due.
        let mean = |name: &str| load.metrics.iter().find(|metric| metric.name == name).unwrap().truth.mean;
        assert!(mean("TTFT") > 3_900.0 && mean("E2EL") > 7_900.0, "{load:?}");
        assert!((mean("ITL") - mean("TPOT")).abs() < 0.001, "{load:?}");
    }

    let folder = home.path().join("demo");
    let demo = tokentape(["demo", "--quiet", "--requests", "8", "--concurrency", "4", "--ttft", "1ms", "-o"])
        .arg(&folder)
        .env("XDG_CACHE_HOME", home.path())
        .output()
        .unwrap();
    assert!(demo.status.success(), "{}", shown(&demo));
    assert_eq!(Run::load(&folder.join("run")).unwrap().info.calibration, Some(calibration));
}

#[test]
fn a_sweep_ends_with_the_first_failure() {
    let home = tempfile::tempdir().unwrap();
    let left = home.path().join("left");
    // The machine cannot write a token every 20 ns: the mock gives way at once.
    let more = ["--sweep", "--concurrency", "2", "--requests", "8", "--itl", "20ns", "-o"];
    let output = tokentape(["calibrate", "--ttft", "1ms", "--output-tokens", "50"])
        .args(more)
        .arg(&left)
        .env("XDG_CACHE_HOME", home.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("FAIL: ") && stdout.contains("the mock gave way first"), "{stdout}");
    for file in ["2/tape.zst", "2/truth.jsonl", "2/run/run.json"] {
        assert!(left.join(file).exists(), "{file}");
    }
    assert!(!left.join("4").exists());
}

#[test]
fn wrong_arguments_are_named() {
    for (argument, value) in [("--concurrency", "0"), ("--output-tokens", "1"), ("--itl", "ten")] {
        let line = bad(2, ["calibrate", argument, value]);
        assert!(line.contains(argument), "{line}");
    }
}
