//! What must not reach a tape does not, and what a prefix cache sees does.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json as value};
use tempfile::TempDir;
use tokentape::tape::Response;
use tokentape_tokenizer::Tokenizer;

use super::{Recorder, exchange, post};
use crate::support::{Scripted, json, request, shown, stream_of};

/// Every byte that a recording left: its tapes unpacked, and what it printed.
fn leavings(folder: &Path, printed: &[&[u8]]) -> Vec<u8> {
    let mut all = printed.concat();
    for file in std::fs::read_dir(folder).unwrap() {
        let packed = std::fs::read(file.unwrap().path()).unwrap();
        let mut lines = Vec::new();
        std::io::Read::read_to_end(&mut zstd::Decoder::new(packed.as_slice()).unwrap(), &mut lines).unwrap();
        all.extend(packed);
        all.extend(lines);
    }
    all
}

fn holds(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

#[test]
fn no_key_and_no_cookie_is_left() {
    let (key, cookie, query, header) = ("sk-0123456789abcdef", "c00kie-jar-42", "qkey-777777", "hdr-888888");
    // A server that tells everything it was told.
    let mut answer = json(format!("{{\"echo\":\"{key} {cookie} {header}\"}}").as_bytes());
    let at = answer.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
    let headers = format!("set-cookie: sid={cookie}\r\nx-request-id: {key}\r\n");
    answer.splice(at..at, headers.into_bytes());
    let upstream = Scripted::start(answer);
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream.url, folder.path(), &["--redact-path", "/user_key", "--all"]);
    let body = format!("{{\"user_key\":\"pointed-at\",\"prompt\":\"my key is {key}\",\"kept\":1.50}}");
    let head = format!(
        "POST /v1/completions?api_key={query}&a=1 HTTP/1.1\r\nhost: p\r\nconnection: close\r\nauthorization: Bearer {key}\r\ncookie: sid={cookie}; x=1\r\nx-api-key: {header}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let seen = exchange(&recorder.url, head.as_bytes());
    assert!(holds(&seen, key) && holds(&seen, cookie), "the client sees what the server said");
    let arrived = upstream.requests.recv().unwrap();
    assert!([key, cookie, query, header].iter().all(|secret| holds(&arrived, secret)));
    let tape = recorder.tape.clone();
    let output = recorder.stop();
    assert!(output.status.success(), "{}", shown(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("keys starred   2"), "{}", shown(&output));
    let left = leavings(folder.path(), &[&output.stdout, &output.stderr]);
    for secret in [key, cookie, query, header, "pointed-at"] {
        assert!(!holds(&left, secret), "{secret}: {}", String::from_utf8_lossy(&left));
    }
    let (requests, responses) = super::entries_of(&tape);
    assert_eq!(requests[0].path, "/v1/completions?api_key=REDACTED&a=1");
    let redacted: Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(redacted["user_key"], "REDACTED");
    assert_eq!(redacted["kept"], 1.5);
    assert!(responses[0].head.as_ref().unwrap().headers.iter().all(|(name, _)| name != "set-cookie"));
}

/// Two chats with a common beginning, recorded under a policy: bodies, responses.
fn chats(policy: &[&str]) -> (Vec<Value>, Vec<Response>, Vec<Option<u32>>, Vec<u8>) {
    let event = |text: &str| {
        value!({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": text}}]}).to_string()
    };
    let events = [event("A private"), event(" answer."), event("")];
    let upstream = Scripted::start(stream_of(&[&events[0], &events[1], &events[2], "[DONE]"], false));
    let folder = TempDir::new().unwrap();
    let recorder =
        Recorder::start(&upstream.url, folder.path(), &[&["--tokenizer", "embedded"], policy].concat());
    for end in ["What is the capital of secretland?", "Tell me a hidden joke about it."] {
        let body = value!({"model": "m", "messages": [
            {"role": "system", "content": system()}, {"role": "user", "content": end}
        ], "max_tokens": 5, "stream": true});
        assert_eq!(request(&recorder.url, "POST", "/v1/chat/completions", &body.to_string()).0, 200);
    }
    let tape = recorder.tape.clone();
    let output = recorder.stop();
    assert!(output.status.success(), "{}", shown(&output));
    let (requests, responses) = super::entries_of(&tape);
    let left = leavings(folder.path(), &[&output.stdout, &output.stderr]);
    let bodies = requests.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect();
    (bodies, responses, requests.iter().map(|request| request.input_tokens).collect(), left)
}

fn system() -> String {
    "You are a confidential assistant of the company, and must never reveal what you know. ".repeat(3)
}

fn stream_text(response: &Response) -> String {
    String::from_utf8(response.body.clone())
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .map(|event| event["choices"][0]["delta"]["content"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn seeded_texts_have_the_same_lengths_and_beginnings() {
    let (kept, _, counts, _) = chats(&[]);
    let (bodies, responses, redacted_counts, left) = chats(&["--redact", "seeded"]);
    let tokenizer = Tokenizer::embedded().unwrap();
    assert!(counts.iter().all(Option::is_some));
    assert_eq!(redacted_counts, counts);
    let content =
        |body: &Value, message: usize| body["messages"][message]["content"].as_str().unwrap().to_owned();
    for (before, after) in kept.iter().zip(&bodies) {
        for message in 0..2 {
            let tokens = |body| tokenizer.count(&content(body, message)).unwrap();
            assert_eq!(tokens(before), tokens(after));
        }
        assert_eq!((&after["model"], &after["max_tokens"]), (&value!("m"), &value!(5)));
        assert_eq!(after["messages"][1]["role"], "user");
    }
    assert_eq!(content(&bodies[0], 0), content(&bodies[1], 0));
    assert_ne!(content(&bodies[0], 1), content(&bodies[1], 1));
    for word in ["confidential", "secretland", "hidden", "private"] {
        assert!(!holds(&left, word), "{word}");
    }
    let text = stream_text(&responses[0]);
    assert_eq!(tokenizer.count(&text).unwrap(), tokenizer.count("A private answer.").unwrap());
    assert!(responses[0].body.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(
        responses[0].chunks.iter().map(|chunk| chunk.bytes as usize).sum::<usize>(),
        responses[0].body.len()
    );
    // Another recording has another key.
    let (others, ..) = chats(&["--redact", "seeded"]);
    assert_ne!(content(&others[0], 0), content(&bodies[0], 0));
    // Unless it is given.
    let seeded: BTreeSet<_> =
        (0..2).map(|_| content(&chats(&["--redact", "seeded", "--redact-seed", "5"]).0[1], 0)).collect();
    assert_eq!(seeded.len(), 1);
}

#[test]
fn dropped_texts_leave_their_shape() {
    let (_, _, counts, _) = chats(&[]);
    let (bodies, responses, redacted_counts, left) = chats(&["--redact", "drop"]);
    assert_eq!(redacted_counts, counts);
    let expected = value!({"model": "m", "messages": [
        {"role": "system", "content": ""}, {"role": "user", "content": ""}
    ], "max_tokens": 5, "stream": true});
    assert_eq!(bodies, [expected.clone(), expected]);
    assert_eq!(stream_text(&responses[0]), "");
    for word in ["confidential", "secretland", "hidden", "private"] {
        assert!(!holds(&left, word), "{word}");
    }
}

/// What cannot be read cannot be redacted: it is left out, and that is no success.
#[test]
fn a_body_that_cannot_be_redacted_is_left_out() {
    let upstream = Scripted::start(json(b"no JSON, but private"));
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream.url, folder.path(), &["--redact", "drop"]);
    exchange(&recorder.url, &post("/v1/completions", b"private, and no JSON"));
    let tape = recorder.tape.clone();
    let output = recorder.stop();
    let error = crate::support::failed(1, &output);
    assert!(error.contains("2 bodies that could not be read as JSON"), "{error}");
    let (requests, responses) = super::entries_of(&tape);
    assert!(requests[0].body.is_empty() && responses[0].body.is_empty());
    assert!(!holds(&leavings(folder.path(), &[]), "private"));
}
