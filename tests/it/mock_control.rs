//! The mock server's settings file, its `/admin`, and what it says of itself in the end.

use std::io::Read;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tokentape_mock::truth::{self, EventKind, Line};

use crate::support::{Mock, failed, good, request, tape, tokentape};

fn json_of(url: &str, path: &str) -> Value {
    let (status, body) = request(url, "GET", path, "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn complete(url: &str, max_tokens: u32) -> (u16, String) {
    let body = json!({"prompt": [5, 6, 7], "max_tokens": max_tokens, "stream": true});
    request(url, "POST", "/v1/completions", &body.to_string())
}

#[test]
fn a_file_says_what_flags_say_and_flags_win() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mock.toml");
    std::fs::write(&path, "model = \"from file\"\nseed = 4\nfault = \"status:418\"\nport = 1\n").unwrap();
    // The port stands on the command line too.
    let mock = Mock::start(&["--config", path.to_str().unwrap(), "--seed", "5"]);
    let config = json_of(&mock.url, "/admin/config");
    assert_eq!((&config["model"], &config["seed"]), (&json!("from file"), &json!("5")));
    assert_eq!(complete(&mock.url, 1).0, 418);

    for (text, complaint) in [
        ("tftt = \"1ms\"", "there is no setting `tftt`"),
        ("ttft = 20", "`20` is not a span of time"),
        ("ttft = ", "line 1"),
    ] {
        std::fs::write(&path, text).unwrap();
        let output: Output = tokentape(["mock", "--config", path.to_str().unwrap()]).output().unwrap();
        let error = failed(2, &output);
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(complaint), "{stderr}");
    }
}

#[test]
fn settings_change_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("truth.jsonl");
    let mock = Mock::start(&["--truth-log", log.to_str().unwrap(), "--api-key", "hush"]);
    assert_eq!(json_of(&mock.url, "/admin/config")["api-key"], "(set)");
    let put = |body: &str| request(&mock.url, "PUT", "/admin/config", body);

    let (status, body) = put(r#"{"api-key": [], "itl": "1ms", "fault": ["no-done", "crlf"]}"#);
    assert_eq!(status, 200, "{body}");
    let config: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&config["itl"], &config["ttft"], &config["api-key"]),
        (&json!("1ms"), &json!("2ms"), &Value::Null)
    );
    let (status, answer) = complete(&mock.url, 2);
    assert!(status == 200 && answer.contains("\r\n\r\n") && !answer.contains("[DONE]"), "{answer}");

    // What is wrong changes nothing, not even in part.
    for (body, complaint) in [
        (r#"{"ttft": "9ms", "itl": "soon"}"#, "`soon` is not a span of time"),
        (r#"{"seed": 1, "ttft": "empirical:/etc/hostname"}"#, "`ttft` takes no law from a file here"),
        (r#"{"ttft": "9ms", "engine": "fixed"}"#, "`engine` is decided when the server starts"),
        (r#"{"ttft": "9ms", "port": 1}"#, "`port` is decided when the server starts"),
        (r#"{"ttft": "9ms", "tftt": 1}"#, "there is no setting `tftt`"),
        ("[]", "the body is not a JSON object"),
    ] {
        let (status, answer) = put(body);
        assert_eq!(status, 400);
        assert!(answer.contains(complaint), "{answer}");
    }
    assert_eq!(json_of(&mock.url, "/admin/config"), config);
    assert_eq!(put(r#"{"fault": []}"#).0, 200);
    assert!(complete(&mock.url, 2).1.contains("data: [DONE]\n\n"));
    assert_eq!(request(&mock.url, "DELETE", "/admin/config", "").0, 405);
    assert_eq!(request(&mock.url, "GET", "/admin/nothing", "").0, 404);
    mock.stop();

    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [
        Line::Header(_),
        Line::Change(first),
        Line::Request(one),
        Line::Change(_),
        Line::Request(two),
        Line::Footer(last),
    ] = lines.as_slice()
    else {
        panic!("{text}")
    };
    assert_eq!(first.settings.itl_ns, 1_000_000);
    assert!(first.at_ns < one.arrival_ns);
    assert_eq!(
        (one.faults.as_slice(), two.faults.len()),
        (&["no-done".to_owned(), "crlf".to_owned()][..], 0)
    );
    // Answers with faults say nothing of the server's lateness.
    assert_eq!((last.requests, last.lateness.tokens), (2, 2));
}

/// Each change is laid over the last one, whoever made it.
#[test]
fn changes_at_once_do_not_undo_each_other() {
    let mock = Mock::start(&["--workers", "4"]);
    let change = |name: &str| {
        for value in 1..=40 {
            let (status, body) =
                request(&mock.url, "PUT", "/admin/config", &json!({name: value}).to_string());
            assert_eq!(status, 200, "{body}");
            assert_eq!(json_of(&mock.url, "/admin/config")[name], value.to_string());
        }
    };
    std::thread::scope(|scope| {
        for name in ["seed", "chat-max-tokens", "stream-interval"] {
            scope.spawn(move || change(name));
        }
    });
}

#[test]
fn it_says_how_late_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("truth.jsonl");
    let mut process = tokentape(["mock", "--port", "0", "--ttft", "1ms", "--itl", "500us", "--truth-log"])
        .arg(&log)
        // No clock is so exact that a write returns at its deadline, or before.
        .args(["--spin", "100us", "--max-lateness", "0"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 64];
    let length = process.stdout.as_mut().unwrap().read(&mut first).unwrap();
    let line = String::from_utf8_lossy(&first[..length]).into_owned();
    let url = line.trim().strip_prefix("listening on ").unwrap();
    complete(url, 6);
    // The record ends with the last write, which its reader may see first.
    let lateness = loop {
        let lateness = json_of(url, "/admin/lateness");
        if lateness["tokens"] == 6 {
            break lateness;
        }
    };
    let p50 = lateness["p50_us"].as_f64().unwrap();
    assert!(0.0 < p50 && p50 <= lateness["max_us"].as_f64().unwrap(), "{lateness}");
    crate::support::signal(&process, "TERM");
    let output = process.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && stderr.starts_with("note: the mock server was late: p99 of 6 "),
        "{stderr}"
    );

    let truth = truth::read(Path::new(&log)).unwrap();
    assert_eq!(serde_json::to_value(truth.footer.unwrap().lateness).unwrap(), lateness);
    let [record] = truth.records.as_slice() else { panic!("{} records", truth.records.len()) };
    assert!(
        record.written_ns.iter().zip(&record.due_ns).all(|(written, due)| written > due),
        "spun until due"
    );
}

#[test]
fn the_oracle_knows_every_dialect() {
    let folder = tempfile::tempdir().unwrap();
    let (tape_path, log) = (folder.path().join("t.tape.zst"), folder.path().join("truth.jsonl"));
    tape(&tape_path, 5, &[]);
    let mock = Mock::start(&["--truth-log", log.to_str().unwrap()]);
    let run = folder.path().join("run");
    good(["replay", tape_path.to_str().unwrap(), "--url", &mock.url, "-o", run.to_str().unwrap()]);
    let oracle = loop {
        let oracle = json_of(&mock.url, "/admin/oracle");
        if oracle["streams"] == 5 {
            break oracle;
        }
    };
    mock.stop();
    // By hand, from the truth log.
    let records = truth::read(&log).unwrap().records;
    let first_token = |kind: EventKind| {
        let ttft = |record: &truth::Record| {
            let first = record.events.iter().position(|event| *event == kind).unwrap();
            (record.written_ns[first] - record.arrival_ns) as f64 / 1e6
        };
        records.iter().map(ttft).sum::<f64>() / 5.0
    };
    let close = |figure: &Value, expected: f64| (figure.as_f64().unwrap() - expected).abs() < 1e-6;
    let dialects = &oracle["dialects"];
    assert!(close(&dialects["native"]["ttft_ms"]["mean"], first_token(EventKind::Token)), "{dialects}");
    assert!(close(&dialects["vllm-0.11.0"]["mean_ttft_ms"], first_token(EventKind::Role)), "{dialects}");
}
