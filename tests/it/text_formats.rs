//! Formats of texts and bodies, in and out, through the binary: what a format can carry comes back to the byte.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokentape::tape::{Header, Reader, Request, Session, VERSION, Writer};

use crate::support::{bad, good, tokentape};

struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// A tape of these requests, and its workload digest.
    fn tape(&self, requests: &[Request]) -> (PathBuf, String) {
        let header = Header {
            version: VERSION,
            created_by: "test".to_owned(),
            source: "test".to_owned(),
            params: Map::new(),
            seed: None,
            tokenizer: None,
        };
        let path = self.path("in.tape.zst");
        let mut writer = Writer::new(fs::File::create(&path).unwrap(), &header).unwrap();
        for request in requests {
            writer.write(request).unwrap();
        }
        (path, writer.finish().unwrap().workload_digest)
    }

    /// What a tape is exported to, and what stderr said.
    fn export(&self, format: &str, tape: &Path, more: &[&str]) -> (PathBuf, String) {
        let out = self.path("out.jsonl");
        let mut args = vec!["export", format, tape.to_str().unwrap(), "-o", out.to_str().unwrap()];
        args.extend(more);
        let output = tokentape(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        (out, stderr)
    }

    fn import(&self, format: &str, input: &Path, more: &[&str]) -> (Vec<Request>, String) {
        let tape = self.path("again.tape.zst");
        let mut args = vec!["import", format, input.to_str().unwrap(), "-o", tape.to_str().unwrap()];
        args.extend(more);
        good(args);
        let reader = Reader::open(&tape).unwrap();
        let digest = reader.footer().workload_digest.clone();
        (reader.requests().map(Result::unwrap).collect(), digest)
    }

    fn refused(&self, format: &str, contents: &str, more: &[&str]) -> String {
        let input = self.file("bad.jsonl", contents);
        let tape = self.path("refused.tape.zst");
        let mut args = vec!["import", format, input.to_str().unwrap(), "-o", tape.to_str().unwrap()];
        args.extend(more);
        let error = bad(3, args);
        assert!(!tape.exists());
        error
    }
}

fn request(index: u64, path: &str, body: impl AsRef<[u8]>) -> Request {
    Request {
        index,
        offset_ns: 0,
        method: "POST".to_owned(),
        path: path.to_owned(),
        body: body.as_ref().to_vec(),
        input_tokens: None,
        output_tokens: None,
        session: None,
    }
}

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn chat(text: &str, tokens: u32) -> String {
    json!({"model": "m", "messages": [{"role": "user", "content": text}], "max_completion_tokens": tokens, "stream": true})
        .to_string()
}

fn texts(requests: &[Request]) -> Vec<Value> {
    let body = |request: &Request| serde_json::from_slice::<Value>(&request.body).unwrap();
    requests.iter().map(body).collect()
}

#[test]
fn plain_lines_carry_everything() {
    let desk = Desk::new();
    let mut requests = vec![
        request(0, CHAT, "{\"a\":  1e2, \"é\": \"\\u00e9\"}"),
        request(1, TEXT, "{\n  \"prompt\": 1\n}\n"),
        request(2, "/v1/x?y=1", b"\xff\x00"),
        request(3, "/", ""),
        request(4, "/", "\"a string\""),
        request(5, "/", "null"),
        request(6, "/", " [1]"),
    ];
    requests[1].offset_ns = 1_234_567_891;
    requests[2].method = "PUT".to_owned();
    requests[3].session = Some(Session { id: "s \"1\"".to_owned(), turn: 0 });
    requests[4].session = Some(Session { id: "s \"1\"".to_owned(), turn: 1 });
    (requests[5].input_tokens, requests[5].output_tokens) = (Some(7), Some(8));
    let (tape, digest) = desk.tape(&requests);
    let (out, stderr) = desk.export("jsonl", &tape, &[]);
    assert!(!stderr.contains("not carried"), "{stderr}");
    assert_eq!(desk.import("jsonl", &out, &[]), (requests.clone(), digest.clone()));
    // What `cat` prints is the same form.
    let cat = desk.file("cat.jsonl", &good(["cat", tape.to_str().unwrap()]));
    assert_eq!(desk.import("jsonl", &cat, &[]), (requests, digest));
}

#[test]
fn whole_bodies_keep_their_bytes() {
    let desk = Desk::new();
    let bodies = ["{\"prompt\":  \"one \\u00e9\", \"max_tokens\": 3}", "{\"prompt\":[1,2],\"top_p\":1.0e-1}"];
    let requests: Vec<Request> = (0..).zip(bodies).map(|(index, body)| request(index, TEXT, body)).collect();
    let (tape, digest) = desk.tape(&requests);
    for (out, back, more) in [
        ("openai-batch", "openai-batch", &[][..]),
        ("evalscope-trace", "evalscope-trace", &[]),
        ("evalscope-lines", "evalscope-lines", &["--bodies"]),
        ("evalscope-lines", "raw-payload", &["--bodies"]),
    ] {
        let (file, stderr) = desk.export(out, &tape, more);
        assert!(!stderr.contains("not carried"), "{stderr}");
        let (again, digest_again) = desk.import(back, &file, &[]);
        assert_eq!(digest_again, digest, "{out} to {back}");
        assert_eq!(again[0].output_tokens, Some(3));
    }
    // With times, only one of them can.
    let mut timed = requests;
    timed[1].offset_ns = 1_000_000_007;
    timed[0].input_tokens = Some(4);
    let (tape, digest) = desk.tape(&timed);
    let (file, _) = desk.export("evalscope-trace", &tape, &[]);
    assert_eq!(desk.import("evalscope-trace", &file, &[]).1, digest);
    let (_, stderr) = desk.export("openai-batch", &tape, &[]);
    assert!(stderr.contains("not carried: the arrival times of 1 of 2 requests"), "{stderr}");
    assert!(stderr.contains("not carried: the prompts' counts of tokens of 1 of 2"), "{stderr}");
}

/// Prompts go out and come back as the bodies that `generate` makes: the digest is equal where the tape's are such.
#[test]
fn prompts_come_back_as_generate_writes_them() {
    let desk = Desk::new();
    for api in ["completions", "chat"] {
        let tape = desk.path("generated.tape.zst");
        let generate = [
            "generate",
            "random",
            "--requests",
            "5",
            "--output-tokens",
            "3..9",
            "--ignore-eos",
            "--api",
            api,
        ];
        good(generate.into_iter().chain(["--model", "m", "-o", tape.to_str().unwrap()]));
        let reader = Reader::open(&tape).unwrap();
        let digest = reader.footer().workload_digest.clone();
        for (out, back) in [("vllm-custom", "vllm-custom"), ("aiperf-single-turn", "aiperf")] {
            let (file, _) = desk.export(out, &tape, &[]);
            let (again, digest_again) =
                desk.import(back, &file, &["--model", "m", "--api", api, "--tokenizer", "embedded"]);
            assert_eq!(digest_again, digest, "{out} {api}");
            if api == "completions" {
                let tokens = reader.requests().map(|request| request.unwrap().input_tokens);
                assert!(again.iter().map(|request| request.input_tokens).eq(tokens));
            }
        }
    }
}

#[test]
fn sharegpt_conversations_are_sessions() {
    let desk = Desk::new();
    let input = desk.file(
        "chats.json",
        r#"[{"id": "x", "conversations": [
  {"from": "system", "value": "be"}, {"from": "human", "value": "hi \"é\""}, {"from": "gpt", "value": "hello there"},
  {"from": "human", "value": "more"}]},
 {"id": "y", "conversations": []},
 {"conversations": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}]"#,
    );
    let (requests, _) =
        desk.import("sharegpt", &input, &["--skip-empty", "--tokenizer", "embedded", "--model", "m"]);
    let bodies = texts(&requests);
    assert_eq!(
        bodies[1]["messages"],
        json!([
            {"role": "system", "content": "be"}, {"role": "user", "content": "hi \"é\""},
            {"role": "assistant", "content": "hello there"}, {"role": "user", "content": "more"}
        ])
    );
    assert_eq!(bodies[2]["messages"], json!([{"role": "user", "content": "one"}]));
    let sessions: Vec<_> =
        requests.iter().map(|r| r.session.clone().unwrap()).map(|s| (s.id, s.turn)).collect();
    assert_eq!(sessions, [("0".to_owned(), 0), ("0".to_owned(), 1), ("2".to_owned(), 0)]);
    // As long as the answer, where there is one; no limit where there is none.
    assert!(requests[0].output_tokens.is_some() && bodies[0]["ignore_eos"] == true);
    assert_eq!((requests[1].output_tokens, bodies[1].get("max_completion_tokens")), (None, None));
    let error = desk.refused("sharegpt", &fs::read_to_string(&input).unwrap(), &[]);
    assert!(error.contains("bad.jsonl, line 4: ") && error.contains("--skip-empty"), "{error}");
}

#[test]
fn aiperf_sessions_come_back_without_their_answers() {
    let desk = Desk::new();
    let body =
        |messages: Value| json!({"model": "m", "messages": messages, "max_completion_tokens": 4}).to_string();
    let said = |role: &str, text: &str| json!({"role": role, "content": text});
    let mut requests = vec![
        request(0, CHAT, chat("hi", 4).replace(",\"stream\":true", "")),
        request(1, CHAT, chat("other", 4).replace(",\"stream\":true", "")),
        request(2, CHAT, body(json!([said("user", "hi"), said("assistant", "ho"), said("user", "more")]))),
    ];
    requests[0].session = Some(Session { id: "a".to_owned(), turn: 0 });
    requests[2].session = Some(Session { id: "a".to_owned(), turn: 1 });
    requests[2].offset_ns = 2_500_001;
    let (tape, _) = desk.tape(&requests);
    let (file, stderr) = desk.export("aiperf-multi-turn", &tape, &[]);
    assert!(stderr.contains("not carried: 1 recorded answers"), "{stderr}");
    assert!(stderr.contains("finer than a millisecond in the arrival times of 1 of 3"), "{stderr}");
    let lines = fs::read_to_string(&file).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(
        first,
        json!({"session_id": "a", "turns": [
            {"timestamp": 0, "text": "hi", "output_length": 4}, {"timestamp": 2, "text": "more", "output_length": 4}
        ]})
    );
    let (again, _) = desk.import("aiperf", &file, &[]);
    assert_eq!(again[1].offset_ns, 2_000_000);
    assert_eq!(texts(&again)[1]["messages"], json!([said("user", "hi"), said("user", "more")]));
    assert_eq!(again[2].session, Some(Session { id: "request-1".to_owned(), turn: 0 }));

    requests[2].body = body(json!([said("user", "else"), said("user", "more")])).into_bytes();
    let (tape, _) = desk.tape(&requests);
    let out = desk.path("none.jsonl");
    let error = bad(1, ["export", "aiperf-multi-turn", tape.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert!(error.contains("record 2: its messages do not continue"), "{error}");
}

#[test]
fn mooncake_has_the_lengths_and_the_shared_blocks() {
    let desk = Desk::new();
    let trace = [
        r#"{"timestamp":0,"input_length":1200,"output_length":5,"hash_ids":[0,1,2]}"#,
        r#"{"timestamp":7,"input_length":1024,"output_length":6,"hash_ids":[0,1]}"#,
        r#"{"timestamp":9,"input_length":600,"output_length":7,"hash_ids":[0,3]}"#,
        r#"{"timestamp":9,"input_length":3,"output_length":8,"hash_ids":[4]}"#,
    ];
    let trace = trace.map(|line| line.to_owned() + "\n").concat();
    let input = desk.file("trace.jsonl", &trace);
    desk.import("mooncake", &input, &[]);
    let (out, stderr) = desk.export("mooncake", &desk.path("again.tape.zst"), &["--tokenizer", "embedded"]);
    assert_eq!(fs::read_to_string(out).unwrap(), trace, "the trace comes back, byte for byte");
    assert!(stderr.contains("not carried: the texts and bodies of 4 requests"), "{stderr}");
    let tape = desk.path("again.tape.zst");
    bad(2, ["export", "mooncake", tape.to_str().unwrap(), "-o", "x"]);
}

#[test]
fn secrets_in_headers_are_not_kept() {
    let desk = Desk::new();
    let line = json!({
        "body": {"prompt": "a", "max_tokens": 1}, "timestamp": "2026-01-31T12:00:00.5Z", "request_id": "r",
        "headers": {"Authorization": "Bearer sk-very-secret"},
    });
    let later =
        r#"{"timestamp": "2026-01-31T12:00:02.5Z", "body": "{\"messages\": []}", "completion_tokens": 9}"#;
    let input = desk.file("trace.jsonl", &format!("{line}\n{later}\n"));
    let (requests, _) = desk.import("evalscope-trace", &input, &[]);
    assert_eq!((requests[0].offset_ns, requests[1].offset_ns), (0, 2_000_000_000));
    assert_eq!((requests[1].path.as_str(), requests[1].output_tokens), (CHAT, Some(9)));
    let tape = desk.path("again.tape.zst");
    let unpacked = unpacked(&tape);
    assert!(unpacked.contains("prompt") && !unpacked.contains("secret"));
}

/// All that stands in a tape, header and footer too.
fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    let file = zstd::Decoder::new(fs::File::open(path).unwrap()).unwrap();
    file.take(1 << 20).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn lines_of_prompts_messages_and_bodies() {
    let desk = Desk::new();
    let input = desk.file(
        "lines.txt",
        "one prompt\n{not json\n[{\"role\": \"user\", \"content\": \"hi\"}]\n[1, 2]\n{\"prompt\": \"b\",  \"x\": 1}\n",
    );
    let (requests, _) = desk.import("evalscope-lines", &input, &[]);
    let bodies = texts(&requests);
    assert_eq!((&bodies[0]["prompt"], &bodies[1]["prompt"]), (&json!("one prompt"), &json!("{not json")));
    assert_eq!(bodies[2]["messages"][0]["content"], "hi");
    assert_eq!(bodies[3]["prompt"], "[1, 2]");
    assert_eq!(requests[4].body, b"{\"prompt\": \"b\",  \"x\": 1}");
}

#[test]
fn a_wrong_line_is_one_error_with_its_place() {
    let desk = Desk::new();
    for (format, line, words) in [
        ("aiperf", r#"{"text": "a", "images": []}"#, "only text"),
        ("aiperf", r#"{"texts": ["a", "b"]}"#, "several texts"),
        ("aiperf", r#"{"timestamp": 1}"#, "no text"),
        ("evalscope-trace", r#"{"body": {"prompt": ""}, "timestamp": "noon"}"#, "no time"),
        ("evalscope-trace", r#"{"body": {}, "timestamp": 1}"#, "no endpoint"),
        ("jsonl", r#"{"path": "/"}"#, "neither a body"),
        ("jsonl", r#"{"path": "/", "body_base64": "?"}"#, "not base64"),
        ("openai-batch", r#"{"method": "POST", "url": "v1", "body": {}}"#, "no path"),
        ("openai-batch", r#"{"method": "POST", "url": "/v1", "body": []}"#, "not a JSON object"),
        ("raw-payload", "{", "not a JSON object"),
        ("sharegpt", r#"{"conversations": [{"from": "cat", "value": "miau"}]}"#, "no role"),
        ("vllm-custom", r#"{"prompt": "a", "messages": []}"#, "both"),
        ("vllm-custom", r#"{"text": "a"}"#, "neither"),
        ("vllm-custom", r#"{"messages": [], "tools": []}"#, "raw-payload"),
    ] {
        let error = desk.refused(format, &format!("\n{line}\n"), &[]);
        assert!(error.contains("bad.jsonl, line 2: ") && error.contains(words), "{format} {line}: {error}");
    }
}
