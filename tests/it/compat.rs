//! `tokentape compat`: the peers' command lines through the binary, against the bundled mock: runs, tables, files, errors.

mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tokentape::run::Run;

use crate::support::{Mock, Scripted, failed, shown, signal, tokentape};

const TOKEN: &str = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;

/// `tokentape compat`, with its record in the folder's `run`, started in the folder and without a key.
fn compat(folder: &Path, dialect: &str, line: &str) -> Command {
    let mut command = tokentape(["compat", "--as", dialect, "--run"]);
    command.arg(folder.join("run")).args(words(line)).current_dir(folder).env_remove("OPENAI_API_KEY");
    command
}

/// A command line's words; single quotes hold one together, as in a shell.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, part) in line.split('\'').enumerate() {
        if i % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", shown(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .unwrap()
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// A mock with a truth log.
fn mock(folder: &Path) -> (Mock, PathBuf) {
    let log = folder.join("truth.jsonl");
    (Mock::start(&["--model", "m", "--truth-log", log.to_str().unwrap()]), log)
}

fn arrived(mock: Mock, log: &Path) -> usize {
    mock.stop();
    tokentape_mock::truth::read(log).unwrap().records.len()
}

/// The comparison that started this project, its command line unchanged but for the server, the model and the sizes.
fn vllm(url: &str, more: &str) -> String {
    format!(
        "vllm bench serve --backend openai-chat --base-url {url} --endpoint /v1/chat/completions --model m --tokenizer embedded --dataset-name random --random-input-len 20 --random-output-len 5 --num-prompts 12 --max-concurrency 4 --ignore-eos {more}"
    )
}

fn evalscope(url: &str, more: &str) -> String {
    format!(
        "evalscope perf --url {url}/v1/chat/completions --parallel 4 --number 12 --model org/m --tokenizer-path embedded --dataset random --min-prompt-length 20 --max-prompt-length 20 --max-tokens 5 --min-tokens 5 --prefix-length 0 --api openai --extra-args '{{\"ignore_eos\": true}}' --seed 42 {more}"
    )
}

#[test]
fn vllm_bench_serve_of_each_version() {
    // 0.11.0 makes one request before the run; the warm-ups of later versions are asked for.
    for (dialect, more, before) in [
        ("vllm-0.11.0", "", 1),
        ("vllm-0.32.0", "--num-warmups 2", 2),
        ("vllm-0.33.0", "--ready-check-timeout-sec 9", 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (mock, log) = mock(folder.path());
        let line = vllm(
            &mock.url,
            &format!("--save-result --save-detailed --result-dir out --metadata tp=1 {more}"),
        );
        let output = compat(folder.path(), dialect, &line).output().unwrap();
        let stdout = succeeded(&output);
        assert_eq!(arrived(mock, &log), 12 + before, "{dialect}");

        assert!(stdout.contains("Traffic request rate: inf\nBurstiness factor: 1.0 (Poisson process)\nMaximum request concurrency: 4\n"), "{stdout}");
        assert!(stdout.contains("Successful requests:                     12        \n"), "{stdout}");
        // The mock tokenizes, as vLLM does.
        assert!(!stdout.contains("/tokenize unavailable"), "{stdout}");

        let files: Vec<PathBuf> =
            fs::read_dir(folder.path().join("out")).unwrap().map(|file| file.unwrap().path()).collect();
        let [file] = files.as_slice() else { panic!("{files:?}") };
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("openai-chat-infqps-concurrency4-m-20"), "{name}");
        let result = json(file);
        let first =
            ["date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "tp"];
        assert_eq!(keys(&result)[..first.len()], first);
        assert_eq!(result["ttfts"].as_array().unwrap().len(), 12);
        let texts = result["generated_texts"].as_array().unwrap();
        assert!(texts.iter().all(|text| !text.as_str().unwrap().is_empty()), "{texts:?}");
        assert_eq!(
            (&result["completed"], &result["tokenizer_id"]),
            (&Value::from(12), &Value::from("embedded"))
        );

        // tokentape's own record: a run like any other, and the tape that makes it repeatable.
        let run = Run::load(&folder.path().join("run")).unwrap();
        assert_eq!(run.info.workload.source, format!("{dialect}/random"));
        assert_eq!(run.info.traffic.warmup, if dialect == "vllm-0.32.0" { 2 } else { 0 });
        let report =
            tokentape(["report", "run", "--dialect", dialect]).current_dir(&folder).output().unwrap();
        let table = succeeded(&report);
        assert!(stdout.ends_with(&table), "{stdout}\n{table}");
        let verify = ["verify", "run/requests.tape.zst", "--regenerate"];
        succeeded(&tokentape(verify).current_dir(&folder).output().unwrap());
    }
}

#[test]
fn a_result_is_appended_as_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let (mock, _) = mock(folder.path());
    for _ in 0..2 {
        let line = vllm(&mock.url, "--append-result --result-filename all.jsonl");
        succeeded(&compat(folder.path(), "vllm-0.33.0", &format!("--force {line}")).output().unwrap());
    }
    let text = fs::read_to_string(folder.path().join("all.jsonl")).unwrap();
    let results: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), 2);
    assert!(results[0].get("ttfts").is_none(), "without --save-detailed");
}

#[test]
fn a_finite_rate_is_the_peers_schedule() {
    let folder = tempfile::tempdir().unwrap();
    let (mock, _) = mock(folder.path());
    let line = format!(
        "vllm bench serve --base-url {} --model m --tokenizer embedded --random-input-len 10 --random-output-len 3 --num-prompts 5 --request-rate 10 --ready-check-timeout-sec 0",
        mock.url
    );
    let stdout = succeeded(&compat(folder.path(), "vllm-0.33.0", &line).output().unwrap());
    assert!(stdout.contains("Traffic request rate: 10.0\n"), "{stdout}");
    assert!(stdout.contains("Request rate configured (RPS):           10.00     \n"), "{stdout}");
    let run = Run::load(&folder.path().join("run")).unwrap();
    // What numpy draws for seed 0, stretched to the rate.
    let scheduled: Vec<u64> = run.timelines.iter().map(|timeline| timeline.scheduled_ns).collect();
    assert_eq!(scheduled, [92_258_660, 237_847_554, 344_868_610, 436_121_845, 500_000_000]);
    for timeline in &run.timelines {
        assert!(timeline.dispatched_ns >= timeline.scheduled_ns);
    }
    let traffic = &run.info.traffic;
    assert_eq!((traffic.concurrency, traffic.request_rate), (None, Some(10.0)));
    assert_eq!(traffic.arrival.as_deref(), Some("poisson"));
}

#[test]
fn a_ramp_up_names_its_file_and_tells_each_rate() {
    let folder = tempfile::tempdir().unwrap();
    let (mock, _) = mock(folder.path());
    let line = format!(
        "vllm bench serve --base-url {} --model org/m --served-model-name m --tokenizer embedded --random-input-len 10 --random-output-len 3 --num-prompts 6 --burstiness inf --ramp-up-strategy linear --ramp-up-start-rps 20 --ramp-up-end-rps 22 --save-result --label mine",
        mock.url
    );
    let stdout = succeeded(&compat(folder.path(), "vllm-0.33.0", &line).output().unwrap());
    assert!(
        stdout.contains("Traffic ramp-up strategy: linear.\nWill increase RPS from 20 to 22 RPS over"),
        "{stdout}"
    );
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let name = files.into_iter().find(|name| name.starts_with("mine-")).unwrap();
    assert!(name.starts_with("mine-ramp-up-linear-20qps-22qps-m-20"), "{name}");
    // Python writes an infinite burstiness in a way that JSON does not know, and so does this.
    let text = fs::read_to_string(folder.path().join(name)).unwrap();
    let result: Value =
        serde_json::from_str(&text.replace("\"burstiness\": Infinity", "\"burstiness\": null")).unwrap();
    assert_eq!(result["model_id"], "org/m");
    let rates: Vec<&Value> =
        result["rps_change_events"].as_array().unwrap().iter().map(|event| &event["rps"]).collect();
    assert_eq!(rates, [20, 21, 22]);
    let run = Run::load(&folder.path().join("run")).unwrap();
    // 1/20 s, then each gap a little shorter.
    let gaps: Vec<u64> =
        run.timelines.windows(2).map(|two| two[1].scheduled_ns - two[0].scheduled_ns).collect();
    assert_eq!(run.timelines[0].scheduled_ns, 50_000_000);
    assert!(gaps.iter().rev().is_sorted() && gaps[4] == 45_454_545, "{gaps:?}");
}

#[test]
fn data_sets_are_read_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let (mock, _) = mock(folder.path());
    fs::write(
        folder.path().join("p.jsonl"),
        "{\"prompt\": \"one two three\"}\n{\"prompt\": \"four five six\"}\n",
    )
    .unwrap();
    fs::write(folder.path().join("p.txt"), "one two three\nfour five six\n").unwrap();
    let vllm = format!(
        "vllm bench serve --base-url {} --model m --tokenizer embedded --dataset-name custom --dataset-path p.jsonl --skip-chat-template --custom-output-len 3 --num-prompts 2",
        mock.url
    );
    let evalscope = format!(
        "evalscope perf --url {}/v1 --model m --dataset line_by_line --dataset-path p.txt --number 2 --max-tokens 3 --no-timestamp",
        mock.url
    );
    for (dialect, line) in [("vllm-0.33.0", &vllm), ("evalscope-1.14.1", &evalscope)] {
        succeeded(&compat(folder.path(), dialect, &format!("--force {line}")).output().unwrap());
        let cat = tokentape(["cat", "run/requests.tape.zst"]).current_dir(&folder).output().unwrap();
        let text = succeeded(&cat);
        assert!(text.contains("one two three") && text.contains("four five six"), "{text}");
        let missing = line.replace("p.jsonl", "q").replace("p.txt", "q");
        let error =
            failed(3, &compat(folder.path(), dialect, &format!("--force {missing}")).output().unwrap());
        assert!(error.contains("cannot read q"), "{error}");
    }
}

#[test]
fn evalscope_perf_of_each_version() {
    for dialect in ["evalscope-1.1.1", "evalscope-1.14.1"] {
        let folder = tempfile::tempdir().unwrap();
        let (mock, log) = mock(folder.path());
        // The mock serves one model; the original's name for it has a folder.
        let line = evalscope(&mock.url, "--log-every-n-query 7").replace("org/m", "m");
        let output = compat(folder.path(), dialect, &line).output().unwrap();
        let stdout = succeeded(&output);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("without effect here: --log-every-n-query"), "{stderr}");
        assert_eq!(arrived(mock, &log), 13, "the connection test comes first");
        assert!(
            stdout.contains("Benchmarking summary:") && stdout.contains("Percentile results:"),
            "{stdout}"
        );

        let time = only(&folder.path().join("outputs"));
        let mut place = time.join("m");
        if dialect == "evalscope-1.14.1" {
            assert!(place.join("performance_summary.txt").is_file());
            place = place.join("parallel_4_number_12");
        }
        let args = json(&place.join("benchmark_args.json"));
        assert_eq!(
            (&args["number"], &args["parallel"], &args["seed"], &args["max_prompt_length"]),
            (&12.into(), &4.into(), &42.into(), &20.into())
        );
        assert_eq!(args["extra_args"], serde_json::json!({"ignore_eos": true}));
        assert_eq!(args["model_id"], "m");
        let summary = json(&place.join("benchmark_summary.json"));
        let total = if dialect == "evalscope-1.1.1" { "Total requests" } else { "Total Requests" };
        assert_eq!(summary[total], 12);
        assert!(place.join("benchmark_percentile.json").is_file());
        let database = rusqlite::Connection::open(place.join("benchmark_data.db")).unwrap();
        let rows: u32 =
            database.query_row("select count(*) from result where success", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 12);

        let run = Run::load(&folder.path().join("run")).unwrap();
        assert_eq!(run.info.workload.source, format!("{dialect}/random"));
        let verify = ["verify", "run/requests.tape.zst", "--regenerate"];
        succeeded(&tokentape(verify).current_dir(&folder).output().unwrap());
    }
}

#[test]
fn a_sweep_has_a_folder_for_each_run() {
    let folder = tempfile::tempdir().unwrap();
    let (mock, log) = mock(folder.path());
    let line = evalscope(&mock.url, "--no-timestamp --name a:b --sleep-interval 0")
        .replace("org/m", "m")
        .replace("--parallel 4 --number 12", "--parallel 1 3 -n 2 6");
    succeeded(&compat(folder.path(), "evalscope-1.14.1", &line).output().unwrap());
    assert_eq!(arrived(mock, &log), 1 + 2 + 1 + 6);
    let place = folder.path().join("outputs/a_b");
    for (name, number) in [("parallel_1_number_2", 2), ("parallel_3_number_6", 6)] {
        assert_eq!(json(&place.join(name).join("benchmark_summary.json"))["Total Requests"], number);
        let run = Run::load(&folder.path().join("run").join(name)).unwrap();
        assert_eq!(run.info.counts.succeeded, number);
    }
    let report = fs::read_to_string(place.join("performance_summary.txt")).unwrap();
    assert!(report.contains("Performance Test Summary Report"), "{report}");
}

#[test]
fn warmup_and_open_loop_of_evalscope() {
    let folder = tempfile::tempdir().unwrap();
    let (mock, log) = mock(folder.path());
    let line =
        evalscope(&mock.url, "--open-loop --rate 40 --warmup-num 0.25 --no-test-connection --no-timestamp")
            .replace("org/m", "m")
            .replace("--parallel 4", "");
    succeeded(&compat(folder.path(), "evalscope-1.14.1", &line).output().unwrap());
    assert_eq!(arrived(mock, &log), 3 + 12);
    let run = Run::load(&folder.path().join("run")).unwrap();
    assert_eq!((run.info.traffic.warmup, run.info.counts.succeeded), (3, 12));
    assert_eq!(run.timelines[11].scheduled_ns, 300_000_000, "the last is sent at number / rate");
    assert!(folder.path().join("outputs/m/rate_40.0_number_12/benchmark_summary.json").is_file());
}

fn only(folder: &Path) -> PathBuf {
    let entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries[0].clone()
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let url = "http://127.0.0.1:1";
    for (dialect, line, expected) in [
        (
            "vllm-0.33.0",
            vllm(url, "--profile"),
            "--profile is a flag of vllm bench serve 0.33.0 that tokentape compat does not support",
        ),
        ("vllm-0.33.0", vllm(url, "--lora_modules a b"), "--lora-modules is a flag"),
        (
            "vllm-0.11.0",
            vllm(url, "--num-warmups 1"),
            "--num-warmups does not exist in vllm bench serve 0.11.0",
        ),
        ("vllm-0.33.0", vllm(url, "--nonesuch 1"), "has no flag --nonesuch"),
        ("vllm-0.33.0", vllm(url, "--dataset-name hf"), "--dataset-name: 'hf' is not supported"),
        ("vllm-0.33.0", vllm(url, "--endpoint /v1/completions"), "ends with 'chat/completions'"),
        ("vllm-0.33.0", vllm(url, "--num-prompts many"), "--num-prompts: 'many'"),
        ("vllm-0.33.0", vllm(url, "--num-prompts 0"), "--num-prompts must be at least 1"),
        ("vllm-0.33.0", vllm(url, "--random-range-ratio 1.5"), "--random-range-ratio must be"),
        ("vllm-0.33.0", vllm(url, "--goodput ttft=3"), "--goodput takes pairs of the form KEY:VALUE"),
        ("evalscope-1.1.1", vllm(url, ""), "--as evalscope-1.1.1 is no version of vllm bench serve"),
        (
            "evalscope-1.14.1",
            evalscope(url, "--multi-turn"),
            "--multi-turn is a flag of evalscope perf 1.14.1",
        ),
        (
            "evalscope-1.1.1",
            evalscope(url, "--open-loop"),
            "--open-loop does not exist in evalscope perf 1.1.1",
        ),
        ("evalscope-1.14.1", evalscope(url, "--number 1 2"), "--number has 2 values and --parallel 1"),
        ("evalscope-1.14.1", evalscope(url, "--no-stream"), "--no-stream is a flag"),
        ("evalscope-1.14.1", "sglang bench".to_owned(), "vllm bench serve"),
    ] {
        let error = failed(2, &compat(folder.path(), dialect, &line).output().unwrap());
        assert!(error.contains(expected), "{line}: {error}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is left of what did not run");
}

#[test]
fn a_sweep_is_interrupted_between_its_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (mock, log) = mock(folder.path());
    let line = evalscope(&mock.url, "--no-timestamp --sleep-interval 600")
        .replace("org/m", "m")
        .replace("--parallel 4 --number 12", "--parallel 1 1 --number 2 2");
    let process = compat(folder.path(), "evalscope-1.14.1", &line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let first = folder.path().join("outputs/m/parallel_1_number_2/benchmark_data.db");
    while !first.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // The database is the last thing before the pause; a signal that comes earlier ends the sweep as well.
    signal(&process, "INT");
    assert!(failed(1, &process.wait_with_output().unwrap()).contains("interrupted"));
    assert_eq!(arrived(mock, &log), 1 + 2);
}

#[test]
fn help_names_every_flag_and_what_becomes_of_it() {
    for (command, flags) in [
        ("vllm bench serve --help", ["--burstiness", "--disable-tqdm", "--profile"]),
        ("evalscope perf --help", ["--parallel", "--debug", "--multi-turn"]),
    ] {
        let output = tokentape(["compat"]).args(words(command)).output().unwrap();
        let text = succeeded(&output);
        let parts: Vec<&str> = text.split("\n\n").collect();
        for (part, flag) in parts[1..].iter().zip(flags) {
            assert!(part.contains(flag), "{part}");
        }
    }
}

#[test]
fn the_model_is_asked_for_where_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mock, _) = mock(folder.path());
    let line = vllm(&mock.url, "--save-result --result-filename r.json").replace("--model m ", "");
    let stdout = succeeded(&compat(folder.path(), "vllm-0.33.0", &line).output().unwrap());
    assert!(stdout.contains("First model name: m, first model id: m\n"), "{stdout}");
    assert_eq!(json(&folder.path().join("r.json"))["model_id"], "m");
}

#[test]
fn a_server_that_refuses_is_one_clear_failure() {
    let folder = tempfile::tempdir().unwrap();
    let server = Scripted::start(b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\nno model!".to_vec());
    for (dialect, line) in
        [("vllm-0.11.0", vllm(&server.url, "")), ("evalscope-1.14.1", evalscope(&server.url, ""))]
    {
        let error = failed(1, &compat(folder.path(), dialect, &line).output().unwrap());
        assert!(error.contains("HTTP 404: no model!"), "{error}");
    }
    // Without a check beforehand, it is the run that fails, and its table and its record are left all the same.
    let line = vllm(&server.url, "");
    let output = compat(folder.path(), "vllm-0.33.0", &line).output().unwrap();
    let error = failed(1, &output);
    assert!(error.contains("12 of 12 requests failed") && error.contains("no model!"), "{error}");
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .contains("Failed requests:                         12        \n")
    );
    assert_eq!(Run::load(&folder.path().join("run")).unwrap().info.counts.all_failed(), 12);
}
