//! `import`, through the binary: lengths, times and shared blocks are the trace's.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokentape::run::Run;
use tokentape::tape::{Reader, Request};
use tokentape_tokenizer::Tokenizer;

use crate::support::{LENIENT, Mock, bad, failed, good, tokentape};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/import").join(name)
}

/// A folder for files and tapes.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// Imports a file; gives the tape's path and what was told.
    fn import(&self, format: &str, input: &Path, more: &[&str]) -> (PathBuf, Value) {
        let tape = self.path("t.tape.zst");
        let told = good(args(format, input, &tape, &[&["--json"], more].concat()));
        (tape, serde_json::from_str(&told).unwrap())
    }

    fn requests(&self, format: &str, input: &Path, more: &[&str]) -> Vec<Request> {
        let (tape, told) = self.import(format, input, more);
        assert_eq!(told["inexact_prompts"], 0);
        Reader::open(tape).unwrap().requests().map(Result::unwrap).collect()
    }

    fn digest(&self, format: &str, input: &Path, more: &[&str]) -> Value {
        self.import(format, input, more).1["workload_digest"].take()
    }

    fn refused(&self, code: i32, format: &str, input: &Path, more: &[&str]) -> String {
        let tape = self.path("refused.tape.zst");
        let error = bad(code, args(format, input, &tape, more));
        assert!(!tape.exists());
        error
    }
}

fn args(format: &str, input: &Path, tape: &Path, more: &[&str]) -> Vec<String> {
    let mut args = vec!["import", format, input.to_str().unwrap(), "-o", tape.to_str().unwrap()];
    args.extend(more);
    args.into_iter().map(str::to_owned).collect()
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

/// Offset, tokens in, tokens out, session and turn.
type Outline<'a> = (u64, u32, u32, Option<(&'a str, u32)>);

fn outline(requests: &[Request]) -> Vec<Outline<'_>> {
    requests
        .iter()
        .map(|request| {
            let session = request.session.as_ref().map(|session| (session.id.as_str(), session.turn));
            (request.offset_ns, request.input_tokens.unwrap(), request.output_tokens.unwrap(), session)
        })
        .collect()
}

#[test]
fn mooncakes_hashes_are_blocks_of_tokens_at_their_place() {
    let desk = Desk::new();
    let requests = desk.requests("mooncake", &fixture("mooncake.jsonl"), &["--requests", "20"]);
    let rows = fs::read_to_string(fixture("mooncake.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((requests.len(), rows.len()), (20, 50));

    let tokenizer = Tokenizer::embedded().unwrap();
    // Whole blocks by their hash, and hashes by their block.
    let (mut blocks, mut hashes) = (HashMap::new(), HashMap::new());
    let mut shared = 0;
    for (request, row) in requests.iter().zip(&rows) {
        let body = body(request);
        // The crate's own encoding, without any short cut.
        let ids = tokenizer.encode_plain(body["prompt"].as_str().unwrap()).unwrap();
        assert_eq!(ids.len() as u64, row["input_length"].as_u64().unwrap());
        assert_eq!(request.input_tokens.map(u64::from), row["input_length"].as_u64());
        assert_eq!(request.output_tokens.map(u64::from), row["output_length"].as_u64());
        assert_eq!(request.offset_ns, row["timestamp"].as_u64().unwrap() * 1_000_000);
        assert_eq!(request.path, "/v1/completions");
        assert_eq!(body["max_tokens"], row["output_length"]);
        assert_eq!((&body["ignore_eos"], &body["stream"]), (&json!(true), &json!(true)));

        let row_hashes = row["hash_ids"].as_array().unwrap();
        for (place, (hash, block)) in row_hashes.iter().zip(ids.chunks(512)).enumerate() {
            let hash = hash.as_u64().unwrap();
            let known: &Vec<u32> = blocks.entry(hash).or_insert_with(|| block.to_vec());
            // The opening word of a prompt has no space before it, and so another token.
            let from = usize::from(place == 0);
            let length = known.len().min(block.len());
            assert_eq!(known[from..length], block[from..length], "block {hash}");
            shared += u32::from(hashes.contains_key(block));
            assert_eq!(*hashes.entry(block.to_vec()).or_insert(hash), hash);
        }
    }
    assert!(shared > 0, "the trace's first rows share blocks");
}

#[test]
fn azures_times_keep_all_their_decimals() {
    let desk = Desk::new();
    let requests = desk.requests("azure", &fixture("azure_2023.csv"), &[]);
    let text = fs::read_to_string(fixture("azure_2023.csv")).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!(requests.len(), 50);
    // All on one day: hundreds of nanoseconds since its beginning.
    let ticks = |time: &str| {
        let parts = time.split_once(' ').unwrap().1.replace('.', ":");
        let parts: Vec<u64> = parts.split(':').map(|part| part.parse().unwrap()).collect();
        ((parts[0] * 60 + parts[1]) * 60 + parts[2]) * 10_000_000 + parts[3]
    };
    let tokenizer = Tokenizer::embedded().unwrap();
    for (request, row) in requests.iter().zip(&rows) {
        assert_eq!(request.offset_ns, (ticks(row[0]) - ticks(rows[0][0])) * 100);
        assert_eq!(request.input_tokens.unwrap().to_string(), row[1]);
        assert_eq!(request.output_tokens.unwrap().to_string(), row[2]);
        let ids = tokenizer.encode_plain(body(request)["prompt"].as_str().unwrap()).unwrap();
        assert_eq!(ids.len().to_string(), row[1]);
    }

    let zoned = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:01.5+00:00,3,4\n\
                 2024-05-10 00:00:00.009930+00:00,1,2\n";
    let (tape, told) = desk.import("azure", &desk.file("2024.csv", zoned), &[]);
    let requests: Vec<Request> = Reader::open(tape).unwrap().requests().map(Result::unwrap).collect();
    assert_eq!(outline(&requests), [(1_490_070_000, 3, 4, None), (0, 1, 2, None)]);
    assert_eq!(told["unordered_requests"], 1);
}

/// The file's name, its compression, the way it comes and the threads leave no trace in the tape.
#[test]
fn one_trace_makes_one_file() {
    let desk = Desk::new();
    let trace = fixture("azure_2023.csv");
    let text = fs::read(&trace).unwrap();
    let packed = desk.file("other.zst", zstd::encode_all(&text[..], 3).unwrap());
    let first = fs::read(desk.import("azure", &trace, &["--threads", "1"]).0).unwrap();
    for threads in ["2", "3"] {
        let again = desk.import("azure", &packed, &["--threads", threads]).0;
        assert!(fs::read(again).unwrap() == first, "{threads} threads");
    }
    let piped = desk.path("piped.tape.zst");
    let output = tokentape(args("azure", Path::new("-"), &piped, &[]))
        .stdin(Stdio::from(fs::File::open(&trace).unwrap()))
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(fs::read(&piped).unwrap() == first);

    // The first rows are the same however many follow; the seed makes others.
    let ten = desk.requests("azure", &packed, &["--requests", "10"]);
    let all = desk.requests("azure", &packed, &[]);
    assert_eq!(ten, all[..10]);
    assert_ne!(ten, desk.requests("azure", &packed, &["--requests", "10", "--seed", "1"]));

    let error = bad(3, ["verify", piped.to_str().unwrap(), "--regenerate"]);
    assert!(error.contains("import/azure takes its requests from a file"), "{error}");
}

#[test]
fn a_timed_trace_in_mooncakes_units_is_mooncakes() {
    let desk = Desk::new();
    let trace = fixture("mooncake.jsonl");
    let five = ["--requests", "5"];
    let units = ["--sec-multiplier", "0.001", "--block-tokens", "512"];
    let timed = desk.digest("vllm-timed-trace", &trace, &[&five[..], &units].concat());
    assert_eq!(timed, desk.digest("mooncake", &trace, &five));

    // Hashes of any size; tokens beyond the last block are the request's own.
    let line = |time, hashes: &str| {
        format!(r#"{{"timestamp": {time}, "input_length": 40, "output_length": 2, "hash_ids": [{hashes}]}}"#)
    };
    let lines = [line("0.5", "-1, 18446744073709551614"), line("0.75", "-1")].join("\n");
    let requests = desk.requests("vllm-timed-trace", &desk.file("t.jsonl", lines), &[]);
    assert_eq!(outline(&requests), [(500_000_000, 40, 2, None), (750_000_000, 40, 2, None)]);
    let prompts = [0, 1].map(|place| body(&requests[place])["prompt"].as_str().unwrap().to_owned());
    let words = prompts.each_ref().map(|prompt| prompt.split(' ').collect::<Vec<_>>());
    assert_eq!(words[0][..16], words[1][..16]);
    assert_ne!(words[0][16..], words[1][16..]);
}

#[test]
fn bailians_chats_are_sessions_of_one_line_of_turns() {
    let desk = Desk::new();
    let line = |(chat, parent, time): (u32, i32, &str)| {
        format!(
            r#"{{"chat_id": {chat}, "parent_chat_id": {parent}, "timestamp": {time}, "input_length": 20,
             "output_length": 5, "type": "text", "turn": 1, "hash_ids": [{chat}, 7]}}"#
        )
        .replace('\n', "")
    };
    // 11 goes on from 10 and 12 from 11; 13 tries 10 again; the parent of 14 is not in the file.
    let rows = [
        (10, -1, "61.114"),
        (11, 10, "62.5"),
        (12, 11, "70"),
        (13, 10, "70.000000001"),
        (14, 5, "71"),
        (15, 14, "72"),
    ];
    let requests = desk.requests("bailian", &desk.file("b.jsonl", rows.map(line).join("\n")), &[]);
    assert_eq!(
        outline(&requests),
        [
            (61_114_000_000, 20, 5, Some(("10", 0))),
            (62_500_000_000, 20, 5, Some(("10", 1))),
            (70_000_000_000, 20, 5, Some(("10", 2))),
            (70_000_000_001, 20, 5, Some(("13", 0))),
            (71_000_000_000, 20, 5, Some(("14", 0))),
            (72_000_000_000, 20, 5, Some(("14", 1))),
        ]
    );
    // The last four tokens are block 7's first ones in all of them.
    let ends: BTreeMap<String, usize> = requests
        .iter()
        .map(|request| {
            let prompt = body(request)["prompt"].as_str().unwrap().to_owned();
            (prompt.split(' ').skip(16).collect::<Vec<_>>().join(" "), prompt.len())
        })
        .collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
}

#[test]
fn burstgpts_failures_are_left_out_only_when_told() {
    let desk = Desk::new();
    let old = desk.file(
        "old.csv",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
         5,ChatGPT,472,18,490,Conversation log\n45.5,GPT-4,0,0,0,API log\n118,GPT-4,417,276,693,\"API, log\"\n",
    );
    let error = desk.refused(3, "burstgpt", &old, &[]);
    assert!(
        error.contains("old.csv, line 3: a prompt of no tokens") && error.contains("--skip-empty"),
        "{error}"
    );
    let (tape, told) = desk.import("burstgpt", &old, &["--skip-empty"]);
    assert_eq!((&told["requests"], &told["skipped_rows"]), (&json!(2), &json!(1)));
    let requests: Vec<Request> = Reader::open(tape).unwrap().requests().map(Result::unwrap).collect();
    assert_eq!(outline(&requests), [(0, 472, 18, None), (113_000_000_000, 417, 276, None)]);

    let new = desk.file(
        "new.csv",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
         1,a,2.5,ChatGPT,3,4,7,Conversation log\n2,,1,GPT-4,5,6,11,API log\n3,a,2,ChatGPT,7,8,15,Conversation log\n",
    );
    let requests = desk.requests("burstgpt", &new, &["--api", "chat", "--model", "m"]);
    let second = 1_000_000_000;
    assert_eq!(
        outline(&requests),
        [(0, 3, 4, Some(("a", 0))), (second, 5, 6, None), (2 * second, 7, 8, Some(("a", 1)))]
    );
    let body = body(&requests[0]);
    assert_eq!((requests[0].path.as_str(), &body["model"]), ("/v1/chat/completions", &json!("m")));
    assert_eq!((&body["messages"][0]["role"], &body["max_completion_tokens"]), (&json!("user"), &json!(4)));
}

#[test]
fn guidellms_three_forms_are_one_trace() {
    let desk = Desk::new();
    let rows = [("1700000000.25", 10, 20), ("1700000001", 30, 40)];
    let objects = rows.map(|(time, input, output)| {
        format!(r#"{{"timestamp": {time}, "input_length": {input}, "output_length": {output}}}"#)
    });
    let table = rows.map(|(time, input, output)| format!("{output},{input},{time}\r\n"));
    let forms = [
        ("t.jsonl", objects.join("\n")),
        ("t.json", format!("[\n{}]", objects.join(",\n"))),
        ("t.csv", format!("output_length,input_length,timestamp\r\n{}", table.concat())),
    ];
    let tapes = forms.map(|(name, text)| desk.requests("guidellm", &desk.file(name, text), &[]));
    assert_eq!(outline(&tapes[0]), [(0, 10, 20, None), (750_000_000, 30, 40, None)]);
    assert!(tapes.iter().all(|tape| *tape == tapes[0]));
}

#[test]
fn what_is_no_such_trace_is_an_error_with_its_place_and_a_remedy() {
    let desk = Desk::new();
    let mooncake = |time, input, output, hashes: &str| {
        let head = format!(r#"{{"timestamp": {time}, "input_length": {input}, "output_length": {output}, "#);
        format!("{}\n\n{head}\"hash_ids\": [{hashes}]}}\n", mooncake_line())
    };
    let cases = [
        ("mooncake", mooncake("0", "600", "1", "1, 2, 3"), "line 3: 3 hashes for 600 tokens"),
        ("mooncake", mooncake("-1", "600", "1", ""), "line 3: the timestamp \"-1\" is no time"),
        ("mooncake", mooncake("1e300", "600", "1", ""), "line 3: the timestamp \"1e300\" is no time"),
        ("mooncake", mooncake("0", "0", "1", ""), "line 3: a prompt of no tokens"),
        ("mooncake", mooncake("0", "1", "0", ""), "line 3: an answer of no tokens"),
        ("mooncake", mooncake("0", "3000000", "1", ""), "line 3: 3000000 tokens are more than any model"),
        ("mooncake", mooncake("0", "1.5", "1", ""), "line 3: invalid type: floating point `1.5`"),
        ("mooncake", format!("{}\n{{\"timestamp\": 1", mooncake_line()), "line 2: EOF while parsing"),
        ("mooncake", "TIMESTAMP,ContextTokens\n".to_owned(), "line 1: expected value"),
        ("mooncake", "\n".to_owned(), "holds no request"),
        ("bailian", mooncake_line(), "line 1: missing field `chat_id`"),
        ("azure", "TIMESTAMP,ContextTokens\n".to_owned(), "line 1: no column \"GeneratedTokens\""),
        ("azure", AZURE.to_owned() + "yesterday,1,1\n", "line 2: TIMESTAMP is \"yesterday\""),
        ("azure", AZURE.to_owned() + "2023-11-16 18:17:03,1\n", "line 2: 2 fields"),
        ("azure", AZURE.to_owned() + "2023-11-16 18:17:03,1,x\n", "line 2: GeneratedTokens is \"x\""),
        ("burstgpt", "a,b\n1,2\n".to_owned(), "line 1: no column \"Timestamp\""),
        ("guidellm", "[{\"timestamp\": 1,".to_owned(), "line 1: the file ends within its array"),
        ("guidellm", String::new(), "holds no request"),
    ];
    for (format, text, expected) in cases {
        let error = desk.refused(3, format, &desk.file("in", &text), &[]);
        assert!(error.contains("/in") && error.contains(expected), "{format}, {text}: {error}");
    }
    let error = desk.refused(3, "mooncake", &desk.file("in.gz", b"\x1F\x8B\x08\x00"), &[]);
    assert!(error.contains("zcat FILE | tokentape import"), "{error}");
    desk.refused(3, "mooncake", &desk.path("absent"), &[]);

    let trace = fixture("mooncake.jsonl");
    for (format, flags) in [
        ("mooncake", &["--requests", "0"][..]),
        ("mooncake", &["--block-tokens", "0"]),
        ("mooncake", &["--sec-multiplier", "2"]),
        ("azure", &["--block-tokens", "16"]),
        ("vllm-timed-trace", &["--sec-multiplier", "-1"]),
    ] {
        let flag = flags[0];
        let flags = [flag.to_owned() + "=" + flags[1]];
        let output = tokentape(args(format, &trace, &desk.path("t"), &[&flags[0]])).output().unwrap();
        assert!(failed(2, &output).contains(flag));
    }
}

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n";

fn mooncake_line() -> String {
    r#"{"timestamp": 0, "input_length": 600, "output_length": 1, "hash_ids": [1, 2]}"#.to_owned()
}

#[test]
fn an_imported_tape_is_replayed_at_its_own_times() {
    let desk = Desk::new();
    let (tape, _) = desk.import("azure", &fixture("azure_2023.csv"), &["--requests", "20"]);
    let mock = Mock::start(&["--model", "tokentape"]);
    let out = desk.path("run");
    good([
        "replay",
        tape.to_str().unwrap(),
        "--url",
        &mock.url,
        "-o",
        out.to_str().unwrap(),
        "--as-recorded",
        "--speed",
        "10",
        "--quiet",
        "--verdict",
        LENIENT,
    ]);
    let run = Run::load(&out).unwrap();
    assert!(run.info.verdict.valid);
    assert_eq!(run.info.counts.succeeded, 20);
    let requests: Vec<Request> = Reader::open(&tape).unwrap().requests().map(Result::unwrap).collect();
    for (timeline, request) in run.timelines.iter().zip(&requests) {
        // A tenth of the time, to the nanosecond that it is rounded to.
        assert!((timeline.scheduled_ns * 10).abs_diff(request.offset_ns) <= 10);
    }
}
