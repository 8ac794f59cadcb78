//! What the peers' command lines send beside the bodies, seen on a raw socket: headers in their order, side requests.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use super::{TOKEN, USAGE, compat, evalscope, json, succeeded, vllm};
use crate::support::{failed, read_request, stream_of, tokentape};

/// A server that keeps connections and answers by path; it gives each request's head and path.
fn server(answer: impl Fn(&str) -> Vec<u8> + Clone + Send + 'static) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, heads) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender, answer) = (stream.unwrap(), sender.clone(), answer.clone());
            std::thread::spawn(move || {
                while let Some(request) = read_request(&mut stream) {
                    let text = String::from_utf8(request).unwrap();
                    let head = text.split("\r\n\r\n").next().unwrap().to_owned();
                    let bytes = answer(&head);
                    drop(sender.send(head));
                    if stream.write_all(&bytes).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (url, heads)
}

fn answered(head: &str) -> Vec<u8> {
    if head.contains("completions HTTP") {
        stream_of(&[TOKEN, USAGE, "[DONE]"], false)
    } else {
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()
    }
}

/// The request line and the headers' names as sent, with the values that do not depend on the test.
fn outline(head: &str) -> Vec<String> {
    let mut lines = head.split("\r\n").map(str::to_owned);
    let first = lines.next().unwrap();
    let rest = lines.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        match name {
            name @ ("Host" | "Content-Length") => name.to_owned(),
            "X-Request-Id" => {
                format!("X-Request-Id: {}", if value.starts_with("bench-") { "bench-…" } else { value })
            }
            name => format!("{name}: {value}"),
        }
    });
    std::iter::once(first).chain(rest).collect()
}

/// As captured from the real clients on Python 3.11 with aiohttp 3.14.5, name by name and value by value.
#[test]
fn headers_are_the_originals_in_their_order() {
    let aiohttp = "Accept: */*, Accept-Encoding: gzip, deflate, User-Agent: Python/3.11 aiohttp/3.14.5";
    let json = "Content-Type: application/json";
    let cases = [
        (
            "vllm-0.11.0",
            "openai-chat",
            vec![
                format!(
                    "POST /v1/chat/completions HTTP/1.1, Host, {json}, Authorization: Bearer None, {aiohttp}, Content-Length"
                ),
                format!(
                    "POST /v1/chat/completions HTTP/1.1, Host, {json}, Authorization: Bearer None, X-Request-Id: benchmark-serving0, {aiohttp}, Content-Length"
                ),
            ],
        ),
        (
            "vllm-0.11.0",
            "openai",
            vec![
                format!(
                    "POST /v1/completions HTTP/1.1, Host, Authorization: Bearer None, {aiohttp}, Content-Length, {json}"
                ),
                format!(
                    "POST /v1/completions HTTP/1.1, Host, Authorization: Bearer None, X-Request-Id: benchmark-serving0, {aiohttp}, Content-Length, {json}"
                ),
            ],
        ),
        (
            "vllm-0.32.0",
            "openai-chat",
            vec![
                format!("POST /tokenize HTTP/1.1, Host, {aiohttp}, Content-Length, {json}"),
                format!("GET /metrics HTTP/1.1, Host, {aiohttp}"),
                format!("GET /metrics HTTP/1.1, Host, {aiohttp}"),
                format!(
                    "POST /v1/chat/completions HTTP/1.1, Host, {json}, X-Request-Id: bench-…, {aiohttp}, Content-Length"
                ),
                format!("GET /metrics HTTP/1.1, Host, {aiohttp}"),
                format!("GET /metrics HTTP/1.1, Host, {aiohttp}"),
            ],
        ),
    ];
    for (dialect, backend, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (url, heads) = server(answered);
        let endpoint = if backend == "openai" { "completions" } else { "chat/completions" };
        let line = vllm(&url, &format!("--backend {backend} --endpoint /v1/{endpoint} --num-prompts 1"));
        succeeded(&compat(folder.path(), dialect, &line).output().unwrap());
        let sent: Vec<String> = heads.try_iter().map(|head| outline(&head).join(", ")).collect();
        assert_eq!(sent, expected, "{dialect} {backend}");
    }
    for dialect in ["evalscope-1.1.1", "evalscope-1.14.1"] {
        let folder = tempfile::tempdir().unwrap();
        let (url, heads) = server(answered);
        let line = evalscope(&url, "--number 1 --parallel 1 --headers X-A=b --api-key sk-secret");
        succeeded(&compat(folder.path(), dialect, &line).output().unwrap());
        let expected = format!(
            "POST /v1/chat/completions HTTP/1.1, Host, {json}, User-Agent: modelscope_bench, X-A: b, Authorization: Bearer sk-secret, Accept: */*, Accept-Encoding: gzip, deflate, Content-Length"
        );
        let sent: Vec<String> = heads.try_iter().map(|head| outline(&head).join(", ")).collect();
        assert_eq!(sent, [expected.clone(), expected], "{dialect}");
        assert!(!holds(folder.path(), b"sk-secret"), "a key is kept nowhere");
    }
}

/// Whether any file below a folder holds these bytes, compressed ones looked into.
fn holds(folder: &Path, needle: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, needle);
        }
        let bytes = fs::read(&path).unwrap();
        let plain = zstd::bulk::decompress(&bytes, 1 << 24).unwrap_or_default();
        [bytes, plain].iter().any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    })
}

#[test]
fn the_servers_counters_become_the_tables_sections() {
    let folder = tempfile::tempdir().unwrap();
    let scrapes = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (url, _heads) = server(move |head| {
        if !head.starts_with("GET /metrics") {
            return answered(head);
        }
        // The first two scrapes come before the run.
        let is_after = scrapes.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= 2;
        let (drafts, drafted, accepted) = if is_after { (110, 330, 212) } else { (10, 30, 12) };
        let text = format!(
            "vllm:spec_decode_num_drafts_total {drafts}.0\nvllm:spec_decode_num_draft_tokens_total {drafted}.0\nvllm:spec_decode_num_accepted_tokens_total {accepted}.0\n"
        );
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{text}", text.len())
            .into_bytes()
    });
    let line = vllm(&url, "--save-result --result-filename r.json");
    let stdout = succeeded(&compat(folder.path(), "vllm-0.33.0", &line).output().unwrap());
    assert!(stdout.contains("Speculative Decoding"), "{stdout}");
    let result = json(&folder.path().join("r.json"));
    assert_eq!(result["spec_decode_num_drafts"], 100);
    assert_eq!(result["spec_decode_acceptance_length"], 3.0);
}

#[test]
fn prompts_that_are_longer_to_the_server_are_cut_there() {
    let folder = tempfile::tempdir().unwrap();
    let (url, heads) = server(|head| {
        let answer = match head.split(' ').nth(1) {
            Some("/tokenize") => {
                r#"{"count":23,"tokens":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23]}"#
            }
            Some("/detokenize") => r#"{"prompt":"twenty of them"}"#,
            _ => return answered(head),
        };
        let length = answer.len();
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{answer}"
        )
        .into_bytes()
    });
    let stdout = succeeded(&compat(folder.path(), "vllm-0.33.0", &vllm(&url, "")).output().unwrap());
    let warning = "WARNING: tokenizer mismatch (server=23, expected=20), re-aligning prompts.\n";
    assert!(stdout.contains(warning), "{stdout}");
    let heads: Vec<String> = heads.try_iter().collect();
    let asked = |line: &str| heads.iter().filter(|head| head.starts_with(line)).count();
    assert_eq!((asked("POST /tokenize "), asked("POST /detokenize ")), (13, 12), "the first, then each");
    let tape = folder.path().join("run/requests.tape.zst");
    let sent = succeeded(&tokentape(["cat", tape.to_str().unwrap()]).output().unwrap());
    assert_eq!(sent.matches(r#"\"text\": \"twenty of them\""#).count(), 12, "{sent}");
    let error = failed(3, &tokentape(["verify", tape.to_str().unwrap(), "--regenerate"]).output().unwrap());
    assert!(error.contains("the tokenizer of a server cut 12 of its prompts"), "{error}");
}
