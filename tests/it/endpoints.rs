//! Every endpoint, as a stream and whole, through the binary and real sockets: what a run has on record of it.

use std::path::Path;

use serde_json::Value;
use tokentape::run::Run;
use tokentape::timeline::{Facts, Timeline};

use crate::support::{LENIENT, Mock, Scripted, good, json, request, stream_of, tape};

/// Replays a tape of so many requests, and gives the run and its report as JSON.
fn replay(url: &str, requests: u32, generate: &[&str]) -> (Run, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let (tape_path, run) = (folder.path().join("t.tape.zst"), folder.path().join("run"));
    tape(&tape_path, requests, generate);
    replay_tape(&tape_path, url, &run)
}

fn replay_tape(tape_path: &Path, url: &str, run: &Path) -> (Run, Value, String) {
    let paths = [tape_path, run].map(|path| path.to_str().unwrap());
    good(["replay", paths[0], "--url", url, "-o", paths[1], "--no-scrape", "--verdict", LENIENT]);
    let report = good(["report", paths[1], "--format", "json"]);
    let table = good(["report", paths[1]]);
    (Run::load(run).unwrap(), serde_json::from_str(&report).unwrap(), table)
}

fn count(report: &Value, key: &str) -> u64 {
    report[key]["count"].as_u64().unwrap()
}

#[test]
fn responses_as_a_stream_agree_with_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("truth.jsonl");
    let mock = Mock::start(&["--model", "tokentape", "--truth-log", log.to_str().unwrap()]);
    let (run, report, _) = replay(&mock.url, 6, &["--api", "responses"]);
    mock.stop();
    assert_eq!(run.info.counts.succeeded, 6);
    assert_eq!((count(&report, "ttft_ms"), count(&report, "itl_ms")), (6, 6 * 6));
    assert_eq!(report["tokens"]["output"], 42);
    assert_eq!(report["tokens"]["cached"], 0);
    for timeline in &run.timelines {
        assert_eq!(timeline.usage.unwrap().completion_tokens, 7);
        assert_eq!(timeline.finish_reason.as_deref(), Some("completed"));
        assert!(!timeline.events.facts[0].is_output());
        assert!(timeline.first_event_ns(|_| true) <= timeline.first_event_ns(Facts::is_output));
    }
    let truth = tokentape_mock::truth::read(&log).unwrap().records;
    // `response.created` is due at once, before the first token.
    assert!(truth.iter().all(|record| record.due_ns[0] == record.arrival_ns));
    let check = tokentape::truth::check(&run.timelines, &tokentape::truth::by_id(&truth));
    assert_eq!((check.matched, check.unmatched), (6, 0));
}

/// The server's own counts: a stream and a body of responses are a request each; embeddings generate nothing.
#[test]
fn responses_are_in_the_servers_metrics() {
    let mock = Mock::start(&["--model", "tokentape"]);
    for stream in ["true", "false"] {
        let body = format!(r#"{{"input":"a b c","max_output_tokens":5,"stream":{stream}}}"#);
        assert_eq!(request(&mock.url, "POST", "/v1/responses", &body).0, 200);
    }
    assert_eq!(request(&mock.url, "POST", "/v1/embeddings", r#"{"input":"a"}"#).0, 200);
    // An answer is counted when its last write has returned, which its reader may see first.
    let told = || {
        let (_, page) = request(&mock.url, "GET", "/metrics", "");
        let value = |name: &str, label: &str| {
            let mut lines = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
            lines.next().and_then(|line| line.rsplit(' ').next()).unwrap_or("none").to_owned()
        };
        [
            value("vllm:generation_tokens_total{", ""),
            value("vllm:request_success_total{", "\"length\""),
            value("vllm:time_to_first_token_seconds_count{", ""),
            value("vllm:num_requests_running{", ""),
            value("http_requests_total{", "\"/v1/responses\""),
            value("http_requests_total{", "\"/v1/embeddings\""),
        ]
    };
    let expected = ["10.0", "2.0", "2.0", "0.0", "2.0", "1.0"];
    let settled = (0..1000).any(|_| told() == expected);
    assert!(settled, "{:?}", told());
}

#[test]
fn whole_answers_have_an_end_and_counts_but_no_first_token() {
    let mock = Mock::start(&["--model", "tokentape"]);
    for api in ["chat", "completions", "responses"] {
        // Stream options without a stream are refused.
        let whole = r#"{"stream":false,"stream_options":null}"#;
        let (run, report, _) = replay(&mock.url, 3, &["--api", api, "--extra-body", whole]);
        assert_eq!(run.info.counts.succeeded, 3, "{api}");
        let counts = ["ttft_ms", "itl_ms", "tpot_ms", "e2el_ms"].map(|key| count(&report, key));
        assert_eq!(counts, [0, 0, 0, 3], "{api}");
        assert_eq!(report["tokens"]["output"], 21, "{api}");
        assert_eq!(report["tokens"]["requests_without_usage"], 0, "{api}");
        assert_eq!(report["first_ms"]["event"], Value::Null);
        for timeline in &run.timelines {
            assert!(timeline.events.is_empty() && timeline.response_id.is_some());
            assert!(timeline.end_ns >= *timeline.reads.at_ns.last().unwrap());
        }
    }
}

#[test]
fn embeddings_have_latency_and_input_tokens() {
    let mock = Mock::start(&["--model", "tokentape"]);
    let (run, report, table) = replay(&mock.url, 4, &["--api", "embeddings"]);
    assert_eq!(run.info.counts.succeeded, 4);
    assert_eq!((count(&report, "ttft_ms"), count(&report, "e2el_ms")), (0, 4));
    assert_eq!((&report["tokens"]["input"], &report["tokens"]["output"]), (&48.into(), &0.into()));
    let rate = |key: &str| report[key].as_f64().unwrap();
    assert!(rate("input_throughput_tokens_per_s") > 0.0);
    assert!(rate("output_throughput_tokens_per_s").abs() < f64::EPSILON);
    assert!(table.contains("Input throughput"), "{table}");
    assert!(run.timelines[0].text.is_none());
}

fn one_request(answer: Vec<u8>, generate: &[&str]) -> (Timeline, Value, String) {
    let server = Scripted::start(answer);
    let (run, report, table) = replay(&server.url, 1, generate);
    (run.timelines.into_iter().next().unwrap(), report, table)
}

/// The events of a capture.
fn captured(body: &str) -> Vec<&str> {
    body.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

#[test]
fn choices_are_on_record_and_gaps_are_theirs() {
    let events = captured(include_str!("../../fixtures/wire/chat_stream_n2.sse"));
    let (timeline, report, _) = one_request(stream_of(&events, false), &[]);
    assert_eq!(timeline.events.choices.len(), timeline.events.len());
    // Three tokens of each choice: two gaps of each.
    assert_eq!((count(&report, "ttft_ms"), count(&report, "itl_ms")), (1, 4));
    assert_eq!(report["tokens"]["output_events"], 6);
    let events = captured(include_str!("../../fixtures/wire/comp_stream_2prompts.sse"));
    let (_, report, table) = one_request(stream_of(&events, false), &["--api", "completions"]);
    assert_eq!((count(&report, "itl_ms"), count(&report, "tpot_ms")), (2, 1));
    assert_eq!((&report["tokens"]["output"], &report["tokens"]["cached"]), (&4.into(), &0.into()));
    assert!(table.contains("from the prefix cache     0 (0.00 %)"), "{table}");
}

#[test]
fn reasoning_content_and_calls_are_told_apart() {
    let events = [
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"so"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":9,"completion_tokens_details":{"reasoning_tokens":5}}}"#,
        "[DONE]",
    ];
    let (timeline, report, table) = one_request(stream_of(&events, false), &[]);
    let first = |is_wanted: fn(Facts) -> bool| timeline.first_event_ns(is_wanted).unwrap();
    let moments = [
        timeline.first_byte_ns().unwrap(),
        first(|_| true),
        first(Facts::is_reasoning),
        first(|facts| facts.has(Facts::CONTENT)),
        first(|facts| facts.has(Facts::TOOL_CALL)),
    ];
    assert!(moments.is_sorted(), "{moments:?}");
    assert!(timeline.events.choices.is_empty());
    for key in ["byte", "event", "content", "reasoning", "tool_call"] {
        assert_eq!(report["first_ms"][key]["count"], 1, "{key}");
    }
    assert_eq!(report["tokens"]["reasoning"], 5);
    for label in ["first reasoning", "first content", "first tool call", "of reasoning"] {
        assert!(table.contains(label), "{label}: {table}");
    }
}

#[test]
fn a_responses_stream_of_another_server() {
    let events = [
        r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_9","status":"in_progress"}}"#,
        r#"{"type":"response.reasoning_summary_text.delta","delta":"hm"}"#,
        r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"f","arguments":""}}"#,
        r#"{"type":"response.function_call_arguments.delta","delta":"{}"}"#,
        r#"{"type":"response.incomplete","response":{"id":"resp_9","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"usage":{"input_tokens":12,"input_tokens_details":{"cached_tokens":8},"output_tokens":6,"output_tokens_details":{"reasoning_tokens":2}}}}"#,
    ];
    let (timeline, report, _) = one_request(stream_of(&events, false), &["--api", "responses"]);
    assert_eq!(timeline.response_id.as_deref(), Some("resp_9"));
    assert_eq!(timeline.finish_reason.as_deref(), Some("max_output_tokens"));
    let tokens = &report["tokens"];
    let told = ["input", "cached", "output", "reasoning"].map(|key| tokens[key].as_u64().unwrap());
    assert_eq!(told, [12, 8, 6, 2]);
    assert_eq!((count(&report, "itl_ms"), count(&report, "tpot_ms")), (2, 1));
}

#[test]
fn a_document_without_usage_keeps_its_text() {
    let body = br#"{"id":"cmpl-1","object":"text_completion","choices":[{"text":"some words","finish_reason":"stop"}]}"#;
    let generate = ["--api", "completions", "--extra-body", r#"{"stream":false,"stream_options":null}"#];
    let (timeline, report, _) = one_request(json(body), &generate);
    assert_eq!(timeline.text.as_deref(), Some("some words"));
    assert_eq!((count(&report, "e2el_ms"), count(&report, "ttft_ms")), (1, 0));
    assert_eq!(report["tokens"]["requests_without_usage"], 1);
}
