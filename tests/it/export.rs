//! `export`, through the binary: the file holds each prompt, and what it cannot hold is an error.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokentape::tape::{Header, Request, Session, VERSION, Writer};

use crate::support::{bad, good};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn tape(folder: &Path, requests: &[Request]) -> PathBuf {
    let header = Header {
        version: VERSION,
        created_by: "test".to_owned(),
        source: "test".to_owned(),
        params: Map::new(),
        seed: None,
        tokenizer: None,
    };
    let path = folder.join("test.tape.zst");
    let mut writer = Writer::new(fs::File::create(&path).unwrap(), &header).unwrap();
    for request in requests {
        writer.write(request).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn request(index: u64, body: &Value) -> Request {
    Request {
        index,
        offset_ns: index * 250_000_001,
        method: "POST".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        body: body.to_string().into_bytes(),
        input_tokens: None,
        output_tokens: None,
        session: None,
    }
}

fn chat(content: &Value, tokens: u32) -> Value {
    json!({
        "model": "it's", "messages": [{"role": "user", "content": content}], "max_completion_tokens": tokens,
        "temperature": 0.5, "stream": true, "stream_options": {"include_usage": true}, "ignore_eos": true,
    })
}

const PROMPTS: [&str; 3] = ["one \u{2028} é \u{1f600}", "two \"2\" \\ {}", "three\u{7f}"];

fn three(tokens: [u32; 3]) -> Vec<Request> {
    let bodies = PROMPTS.into_iter().zip(tokens).map(|(prompt, tokens)| chat(&prompt.into(), tokens));
    (0..).zip(bodies).map(|(index, body)| request(index, &body)).collect()
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn vllm_custom_has_prompts_and_lengths() {
    let folder = tempfile::tempdir().unwrap();
    let tape = tape(folder.path(), &three([5, 6, 7]));
    let out = folder.path().join("out.jsonl");
    let command = good(["export", "vllm-custom", text(&tape), "-o", text(&out)]);
    let expected: Vec<Value> = PROMPTS
        .into_iter()
        .zip([5, 6, 7])
        .map(|(prompt, tokens)| json!({"prompt": prompt, "output_tokens": tokens}))
        .collect();
    assert_eq!(lines(&out), expected);
    for words in [
        "--backend openai-chat",
        "--endpoint /v1/chat/completions",
        r"--model 'it'\''s'",
        "--skip-chat-template --disable-shuffle --custom-output-len -1",
        "--temperature 0.5",
        "--ignore-eos",
        "--num-prompts 3",
        "# cannot send it: it knows one output length",
        "a list of one text part",
    ] {
        assert!(command.contains(words), "{words}: {command}");
    }
    // Every line is a comment or part of a command: it can be pasted.
    assert!(command.lines().all(|line| line.starts_with(['#', ' ']) || line.starts_with("vllm bench serve")));

    // One length, and parts of text: 0.11.0 can.
    let parts: Vec<Request> =
        (0..2).map(|index| request(index, &chat(&json!([{"type": "text", "text": "hi"}]), 9))).collect();
    let tape = self::tape(folder.path(), &parts);
    let command = good(["export", "vllm-custom", text(&tape), "-o", text(&out)]);
    assert!(command.contains("--custom-skip-chat-template --custom-output-len 9"), "{command}");
    assert!(!command.contains("a list of one text part"), "{command}");
    assert_eq!(lines(&out)[1]["prompt"], "hi");
}

#[test]
fn evalscope_trace_has_the_bodies_own_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut requests = three([5, 6, 7]);
    requests[1].body = b"{\n  \"model\": \"m\",\n  \"prompt\": [1, 2]}".to_vec();
    let tape = tape(folder.path(), &requests);
    let out = folder.path().join("trace.jsonl");
    let command = good(["export", "evalscope-trace", text(&tape), "-o", text(&out)]);
    let written = fs::read_to_string(&out).unwrap();
    let first = format!(
        r#"{{"body": {}, "timestamp": 0.000000000, "request_id": "0"}}"#,
        String::from_utf8_lossy(&requests[0].body)
    );
    assert_eq!(written.lines().next(), Some(&*first));
    let lines = lines(&out);
    assert_eq!(
        lines[1],
        json!({"body": {"model": "m", "prompt": [1, 2]}, "timestamp": 0.250_000_001, "request_id": "1"})
    );
    for words in [
        "--dataset workload_trace",
        "--open-loop",
        "\"temperature\": 0.0 is added to 1 of 3",
        "\"max_tokens\": 2048 is added to 1 of 3",
        "beside max_completion_tokens in 2 of 3",
    ] {
        assert!(command.contains(words), "{words}: {command}");
    }
    requests[2].session = Some(Session { id: "s".to_owned(), turn: 1 });
    let tape = self::tape(folder.path(), &requests);
    let error = bad(1, ["export", "evalscope-trace", text(&tape), "-o", text(&out)]);
    assert!(error.contains("record 2") && error.contains("turn 1"), "{error}");
}

#[test]
fn evalscope_lines_are_prompts_or_bodies() {
    let folder = tempfile::tempdir().unwrap();
    let tape = tape(folder.path(), &three([5, 5, 5]));
    let out = folder.path().join("prompts.txt");
    let command = good(["export", "evalscope-lines", text(&tape), "-o", text(&out)]);
    assert_eq!(fs::read_to_string(&out).unwrap(), PROMPTS.map(|prompt| format!("{prompt}\n")).concat());
    for words in
        ["--max-tokens 5", "--temperature 0.5", r#"--extra-args '{"ignore_eos":true}'"#, "--number 3"]
    {
        assert!(command.contains(words), "{words}: {command}");
    }
    let tape = self::tape(folder.path(), &three([5, 6, 7]));
    let error = bad(1, ["export", "evalscope-lines", text(&tape), "-o", text(&out)]);
    assert!(error.contains("record 1: it asks for 6 tokens") && error.contains("--bodies"), "{error}");
    good(["export", "evalscope-lines", "--bodies", text(&tape), "-o", text(&out)]);
    assert_eq!(lines(&out)[2]["max_completion_tokens"], 7);
    bad(2, ["export", "vllm-custom", "--bodies", text(&tape), "-o", text(&out)]);
}

#[test]
fn what_a_format_cannot_carry_names_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let two =
        |second: &Value| tape(folder.path(), &[request(0, &chat(&"first".into(), 5)), request(1, second)]);
    let with = |key: &str, value: Value| {
        let mut body = chat(&"second".into(), 5);
        body[key] = value;
        body
    };
    for (second, words) in [
        (
            with("messages", json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])),
            "2 messages",
        ),
        (with("messages", json!([{"role": "system", "content": "a"}])), "of role \"system\""),
        (with("messages", json!([{"role": "user", "content": "a", "name": "n"}])), "also has \"name\""),
        (
            with("messages", json!([{"role": "user", "content": [{"type": "image_url"}]}])),
            "not one part of text",
        ),
        (with("messages", json!("hi")), "no list of messages"),
        (with("temperature", json!(0.7)), "\"temperature\" is 0.7, in record 0 0.5"),
        (with("stream", json!(false)), "\"stream\" is false"),
        (with("max_completion_tokens", json!("many")), "not a count"),
        (json!([]), "not a JSON object"),
    ] {
        let tape = two(&second);
        let error = bad(1, ["export", "vllm-custom", text(&tape), "-o", text(&out)]);
        assert!(error.contains("record 1: ") && error.contains(words), "{words}: {error}");
        assert!(error.contains("test.tape.zst") && error.contains("; replay the tape"), "{error}");
        assert!(!out.exists(), "no file is left");
    }
    for (prompt, words) in [(" a", "white space"), ("a\nb", "line end"), ("[1]", "valid JSON")] {
        let tape = two(&chat(&prompt.into(), 5));
        let error = bad(1, ["export", "evalscope-lines", text(&tape), "-o", text(&out)]);
        assert!(error.contains("record 1: ") && error.contains(words), "{error}");
    }
    let tape = self::tape(folder.path(), &[]);
    let error = bad(1, ["export", "vllm-custom", text(&tape), "-o", text(&out)]);
    assert!(error.contains("no request"), "{error}");
    let tape = self::tape(folder.path(), &[request(0, &chat(&"12".into(), 5))]);
    assert!(
        bad(1, ["export", "vllm-custom", text(&tape), "-o", text(&out)]).contains("every prompt is a number")
    );
    let tape = self::tape(folder.path(), &three([5; 3]));
    let other = folder.path().join("out.json");
    assert!(bad(1, ["export", "vllm-custom", text(&tape), "-o", text(&other)]).contains(".jsonl"));
    bad(3, ["export", "vllm-custom", text(&folder.path().join("none")), "-o", text(&out)]);
}
