//! `compare` and `report` over runs and over other tools' results, through the binary.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Mock, bad, failed, good, tape, tokentape};

fn fixture(name: &str) -> String {
    format!("{}/fixtures/results/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn vllm() -> String {
    fixture("vllm-0.11.0/chat_random-100.json")
}

fn evalscope() -> String {
    fixture("evalscope-1.1.1")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A replay of a small tape against the mock, of which the seed makes the requests.
fn run(folder: &Path, name: &str, seed: &str) -> PathBuf {
    let mock = Mock::start(&[]);
    let (tape_path, run) = (folder.join(format!("{seed}.tape.zst")), folder.join(name));
    tape(&tape_path, 6, &["--seed", seed]);
    good(["replay", text(&tape_path), "--url", &mock.url, "--concurrency", "2", "-q", "-o", text(&run)]);
    run
}

fn compared(args: &[&str]) -> Value {
    let json: Value = serde_json::from_str(&good([&["compare", "--json"], args].concat())).unwrap();
    json["comparisons"][0].clone()
}

fn metric<'a>(comparison: &'a Value, key: &str) -> &'a Value {
    let rows = comparison["metrics"].as_array().unwrap();
    rows.iter().find(|row| row["metric"] == key).unwrap_or_else(|| panic!("no {key}"))
}

fn parts(comparison: &Value, key: &str) -> Value {
    let differences = comparison["explanation"]["differences"].as_array().unwrap();
    differences.iter().find(|difference| difference["metric"] == key).unwrap()["parts"].clone()
}

#[test]
fn two_tools_results_stand_side_by_side() {
    let comparison = compared(&[&vllm(), &evalscope(), "--explain"]);
    assert_eq!(comparison["a"]["tool"], "vllm bench serve 0.11.0");
    assert_eq!(comparison["a"]["dialect"], "vllm-0.11.0");
    assert_eq!(comparison["b"]["dialect"], "evalscope-1.1.1");
    assert_eq!([&comparison["a"]["concurrency"], &comparison["b"]["concurrency"]], [4, 4]);

    // As the files state them; evalscope's mean from its database, which its summary rounds to 0.0121 s.
    assert_eq!(metric(&comparison, "mean_ttft_ms")["a"], 11.975);
    assert_eq!(metric(&comparison, "mean_ttft_ms")["b"], 12.127);
    assert_eq!(metric(&comparison, "p99_ttft_ms")["b"], 49.1);
    assert_eq!(metric(&comparison, "request_throughput")["a"], 113.476);
    assert_eq!(metric(&comparison, "output_tokens")["b"], 200.0);
    assert_eq!(metric(&comparison, "std_ttft_ms")["b"], Value::Null);

    // evalscope's database keeps more than vLLM's file. Its median of 20 is the 11th, 2.5845 ms rounded to 2.6; vLLM's
    // would be the mean of the 10th and 11th, 2.3157 ms.
    let definition = |key| parts(&comparison, key)["definition"].clone();
    assert_eq!(definition("median_ttft_ms"), 0.284);
    assert!(definition("p99_tpot_ms").is_number());
    assert_eq!(definition("mean_ttft_ms"), 0.0);
    assert_eq!(parts(&comparison, "mean_ttft_ms")["client"], Value::Null);
    let table = good(["compare", &vllm(), &evalscope(), "--explain"]);
    let words = "not separable from chat_random-100.json and evalscope-1.1.1";
    assert!(table.contains(words), "{table}");
}

#[test]
fn a_run_is_seen_as_the_tool_it_is_held_against() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path(), "run", "1");
    for (foreign, dialect) in [(vllm(), "vllm-0.11.0"), (evalscope(), "evalscope-1.1.1")] {
        let comparison = compared(&[text(&run), &foreign, "--explain"]);
        assert_eq!(comparison["a"]["dialect"], dialect);
        let parts = parts(&comparison, "mean_ttft_ms");
        assert_eq!(parts["definition"], 0.0);
        assert_eq!(parts["client"], Value::Null);
        assert!(parts["rest"].is_number());
    }
    let native = format!("{}@native", text(&run));
    let comparison = compared(&[&native, &vllm(), "--explain"]);
    assert_eq!(comparison["a"]["dialect"], "native");
    assert!(parts(&comparison, "mean_e2el_ms")["definition"].is_number());
}

#[test]
fn one_run_under_two_dialects_differs_by_definition() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path(), "run", "1");
    let (a, b) = (format!("{}@vllm-0.11.0", text(&run)), format!("{}@evalscope-1.1.1", text(&run)));
    let comparison = compared(&[&a, &b, "--explain"]);
    let differences = comparison["explanation"]["differences"].as_array().unwrap();
    assert!(differences.len() > 15);
    for difference in differences {
        assert_eq!(difference["parts"]["definition"], difference["difference"], "{difference}");
        assert_eq!(difference["parts"]["rest"], 0.0, "{difference}");
    }
    // What `report` says under each dialect is what is compared.
    let report: Value =
        serde_json::from_str(&good(["report", text(&run), "--dialect", "vllm-0.11.0", "--json"])).unwrap();
    let stated = report["mean_ttft_ms"].as_f64().unwrap();
    let shown = metric(&comparison, "mean_ttft_ms")["a"].as_f64().unwrap();
    assert!((stated - shown).abs() <= 0.000_5, "{stated} {shown}");
}

#[test]
fn the_gate_trips_on_what_is_beyond() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path(), "run", "1");
    let same = [text(&run), text(&run)];
    good([&["compare", "--gate"], &same[..]].concat());

    let differing = [&*vllm(), &evalscope()];
    good([&["compare"], &differing[..]].concat());
    let output = tokentape([&["compare", "--gate"], &differing[..]].concat()).output().unwrap();
    let error = failed(1, &output);
    assert!(error.contains("median TTFT of "), "{error}");
    assert!(
        String::from_utf8(output.stdout).unwrap().contains("NO (3%)"),
        "the table is printed all the same"
    );
    good([&["compare", "--gate", "--tolerance", "500%"], &differing[..]].concat());
    let error = bad(
        1,
        [&["compare", "--gate", "--tolerance", "500%", "--tolerance", "median_ttft=1%"], &differing[..]]
            .concat(),
    );
    assert_eq!(error.matches(" of ").count(), 1, "{error}");
    for wrong in ["3", "warp=3%", "-1%"] {
        let output = tokentape(["compare", "a", "b", &format!("--tolerance={wrong}")]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn runs_of_different_workloads_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (run(folder.path(), "a", "1"), run(folder.path(), "b", "2"));
    let error = bad(1, ["compare", text(&a), text(&b)]);
    assert!(
        error.contains("did not send the same requests") && error.contains("--different-workloads"),
        "{error}"
    );
    let table = good(["compare", text(&a), text(&b), "--different-workloads", "--explain"]);
    assert!(table.contains("note: the workloads differ"), "{table}");
}

#[test]
fn each_is_held_against_the_first() {
    let json: Value =
        serde_json::from_str(&good(["compare", "--json", &vllm(), &evalscope(), &vllm()])).unwrap();
    let comparisons = json["comparisons"].as_array().unwrap();
    assert_eq!(comparisons.len(), 2);
    assert!(comparisons.iter().all(|comparison| comparison["a"]["name"] == *vllm()));
    assert_eq!(comparisons[1]["within"], true);
}

#[test]
fn results_are_told_by_their_contents() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    };
    let one = fs::read_to_string(vllm()).unwrap();
    let other = fs::read_to_string(fixture("vllm-0.32.0/chat_random-100.json")).unwrap();

    // --append-result: the last one is compared, all are reported.
    let appended = file("appended.txt", &format!("{one}\n{other}"));
    let comparison = compared(&[&vllm(), text(&appended)]);
    assert_eq!(comparison["b"]["tool"], "vllm bench serve 0.30 or later");
    assert!(comparison["notes"].to_string().contains("holds 2 results"));
    // 0.32.0 saves latencies, and so has an E2EL that it does not print.
    assert!(metric(&comparison, "p99_e2el_ms")["b"].is_number());
    assert_eq!(good(["report", text(&appended)]).matches("Mean TTFT").count(), 2);

    // Without --save-detailed, and with Python's infinity.
    let mut plain: Value = serde_json::from_str(&one).unwrap();
    for key in ["input_lens", "output_lens", "ttfts", "itls", "generated_texts", "errors"] {
        plain.as_object_mut().unwrap().remove(key);
    }
    let plain = plain.to_string().replace("\"burstiness\":1.0", "\"burstiness\":Infinity");
    assert!(plain.contains("Infinity"));
    let plain = file("plain.json", &plain);
    let comparison = compared(&[text(&plain), &evalscope(), "--explain"]);
    assert_eq!(metric(&comparison, "mean_ttft_ms")["a"], 11.975);
    assert!(comparison["notes"].to_string().contains("--save-detailed"));

    // A later evalscope, in milliseconds, without its database.
    let summary = json!({
        "Test Duration (s)": 2.0, "Concurrency": 8, "Request Rate (req/s)": -1.0, "Success Requests": 10,
        "Failed Requests": 1, "Req Throughput (req/s)": 5.0, "Avg Latency (s)": 0.25, "Avg TTFT (ms)": 20.5,
        "Avg TPOT (ms)": 2.5, "Avg ITL (ms)": 2.25, "Avg Input Tokens": 11.5, "Avg Output Tokens": 7.0,
    });
    file("later/m/parallel_8_number_11/benchmark_summary.json", &summary.to_string());
    file(
        "later/m/parallel_8_number_11/benchmark_percentile.json",
        r#"[{"Percentiles": "50%", "TTFT (ms)": 19.5, "ITL (ms)": NaN, "Latency (s)": 0.2}]"#,
    );
    let inner = folder.path().join("later/m/parallel_8_number_11");
    let report: Value = serde_json::from_str(&good(["report", text(&inner), "--json"])).unwrap();
    let figures = &report["results"][0]["figures"];
    let expected = [
        ("mean_ttft_ms", json!(20.5)),
        ("median_ttft_ms", json!(19.5)),
        ("median_itl_ms", Value::Null),
        ("median_e2el_ms", json!(200.0)),
        ("input_tokens", json!(115.0)),
        ("failed", json!(1.0)),
    ];
    for (key, value) in expected {
        assert_eq!(figures[key], value, "{key}");
    }
    let error = bad(3, ["report", text(&folder.path().join("later"))]);
    assert!(error.contains("parallel_8_number_11"), "the remedy is a folder below: {error}");
}

#[test]
fn a_tools_own_table_comes_back() {
    for version in ["vllm-0.11.0", "vllm-0.32.0"] {
        let printed = fs::read_to_string(fixture(&format!("{version}/chat_random-100.console.txt"))).unwrap();
        let (start, end) = (printed.find("============ Serving").unwrap(), printed.trim_end().len());
        let table = good(["report", &fixture(&format!("{version}/chat_random-100.json"))]);
        assert_eq!(table.trim_end(), &printed[start..end]);
    }
    let tables = good(["report", &evalscope()]);
    for words in ["| Average time to first token (s)   |     0.0121 |", "|     99%     |  0.0491  |"] {
        assert!(tables.contains(words), "{tables}");
    }
}

#[test]
fn what_cannot_be_read_is_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let one = fs::read_to_string(vllm()).unwrap();
    let mut uneven: Value = serde_json::from_str(&one).unwrap();
    uneven["itls"].as_array_mut().unwrap().pop();
    for (contents, words) in [
        ("", "no result that tokentape knows"),
        ("not json", "no result that tokentape knows"),
        ("{}", "no result that tokentape knows"),
        ("[1]", "no result that tokentape knows"),
        (&one[..one.len() / 2], "damaged or cut short"),
        (&one.replace("\"ttfts\": [0", "\"ttfts\": [\"x\", 0"), "its \"ttfts\""),
        (&uneven.to_string(), "its \"itls\" has 19 entries"),
    ] {
        fs::write(&path, contents).unwrap();
        let error = bad(3, ["compare", text(&path), &vllm()]);
        assert!(error.contains(words) && error.contains("file"), "{error}");
        assert!(bad(3, ["report", text(&path)]).contains(words));
    }
    // A database that is none.
    let copy = folder.path().join("es");
    fs::create_dir(&copy).unwrap();
    fs::copy(format!("{}/benchmark_summary.json", evalscope()), copy.join("benchmark_summary.json")).unwrap();
    fs::write(copy.join("benchmark_data.db"), "not a database, but long enough to look at").unwrap();
    assert!(bad(3, ["report", text(&copy)]).contains("benchmark_data.db"));
    // A database of another shape: only the rounded figures are known.
    fs::remove_file(copy.join("benchmark_data.db")).unwrap();
    assert!(good(["report", text(&copy)]).contains("only its rounded figures are known"));

    bad(3, ["compare", text(&folder.path().join("nothing")), &vllm()]);
    assert!(bad(2, ["compare", "x@vllm-0.1", &vllm()]).contains("known are native"));
    let error = bad(2, ["compare", &format!("{}@evalscope-1.1.1", vllm()), &vllm()]);
    assert!(error.contains("name a version of its own tool"), "{error}");
    assert!(bad(2, ["report", &vllm(), "--dialect", "native"]).contains("only a run"));
}
