//! Bad input: each with one clear error line and its exit code.

use std::fs;
use std::path::{Path, PathBuf};

use tokentape::run::Run;
use tokentape::tape::{Header, Request, VERSION, Writer};

use crate::support::{Mock, Scripted, bad, json, nowhere, stream_of, tape};

const ROLE: &str = r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
const TOKEN: &str = r#"{"choices":[{"delta":{"content":"x"}}]}"#;

/// A tape of two requests in a folder of its own.
fn some_tape() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.tape.zst");
    tape(&path, 2, &[]);
    (folder, path)
}

fn bad_replay(code: i32, tape: &Path, url: &str, more: &[&str]) -> (String, PathBuf) {
    let run = tape.with_extension("run");
    let mut args = vec!["replay", tape.to_str().unwrap(), "--url", url, "-o", run.to_str().unwrap()];
    args.extend(more);
    (bad(code, args), run)
}

fn kinds(run: &Path) -> Vec<(String, u64)> {
    Run::load(run).unwrap().info.counts.failed.into_iter().collect()
}

#[test]
fn an_unreachable_server() {
    let (_folder, tape) = some_tape();
    let (error, run) = bad_replay(1, &tape, &format!("http://{}", nowhere()), &[]);
    assert!(error.contains("cannot connect to") && error.contains("is the server running"), "{error}");
    assert!(!run.join("run.json").exists());
}

#[test]
fn a_url_that_is_none() {
    let (_folder, tape) = some_tape();
    let (error, _) = bad_replay(2, &tape, "127.0.0.1:8000", &[]);
    assert!(error.contains("http://127.0.0.1:8000"), "{error}");
}

#[test]
fn a_401() {
    let (_folder, tape) = some_tape();
    let mock = Mock::start(&["--model", "tokentape", "--api-key", "right"]);
    let (error, run) = bad_replay(1, &tape, &mock.url, &[]);
    assert!(error.contains("2 of 2 requests failed: 2 status"), "{error}");
    assert!(error.contains("HTTP 401") && error.contains("Unauthorized"), "{error}");
    assert_eq!(kinds(&run), [("status".to_owned(), 2)]);
}

#[test]
fn an_api_key_that_is_not_set() {
    let (_folder, tape) = some_tape();
    let (error, _) = bad_replay(2, &tape, "http://h:1", &["--api-key-env", "NO_SUCH_VARIABLE"]);
    assert!(error.contains("NO_SUCH_VARIABLE"), "{error}");
}

#[test]
fn a_server_that_closes_mid_stream() {
    let (_folder, tape) = some_tape();
    let server = Scripted::start(stream_of(&[ROLE, TOKEN], true));
    let (error, run) = bad_replay(1, &tape, &server.url, &["--requests", "1"]);
    assert!(error.contains("1 truncated") && error.contains("after 2 events"), "{error}");
    // What had come is kept.
    assert_eq!(Run::load(&run).unwrap().timelines[0].events.len(), 2);
}

#[test]
fn every_other_failure_is_typed() {
    let (_folder, tape) = some_tape();
    let not_found = b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\nno model!".to_vec();
    for (answer, kind, words) in [
        (
            stream_of(&[ROLE, r#"{"error":{"message":"out of memory"}}"#, "[DONE]"], false),
            "in_band",
            "out of memory",
        ),
        (stream_of(&[ROLE, "[DONE]"], false), "no_tokens", "without a token"),
        (stream_of(&[ROLE, "{oops", "[DONE]"], false), "protocol", "{oops"),
        (stream_of(&[ROLE, TOKEN], false), "truncated", "without [DONE]"),
        (not_found, "status", "HTTP 404: no model!"),
        (json(b"{}"), "protocol", "neither a stream of events nor an answer"),
        (json(br#"{"choices":[{"text":"x"}]}"#), "protocol", "though the request asks for one"),
        (json(br#"{"error":{"message":"no memory"}}"#), "in_band", "no memory"),
        (b"HTTP/1.1 200 OK\r\n".to_vec(), "truncated", "closed"),
        (b"not HTTP at all\r\n\r\n".to_vec(), "truncated", "invalid HTTP"),
    ] {
        let server = Scripted::start(answer);
        let (error, run) = bad_replay(1, &tape, &server.url, &["--requests", "1", "--force"]);
        assert!(error.contains(kind) && error.contains(words), "{kind}: {error}");
        assert_eq!(kinds(&run), [(kind.to_owned(), 1)]);
    }
}

#[test]
fn a_server_that_never_answers() {
    let (_folder, tape) = some_tape();
    let server = Scripted::start(Vec::new());
    let (error, run) = bad_replay(1, &tape, &server.url, &["--requests", "1", "--timeout", "50ms"]);
    assert!(error.contains("timeout") && error.contains("within 50 ms"), "{error}");
    assert_eq!(kinds(&run), [("timeout".to_owned(), 1)]);
}

#[test]
fn a_body_that_is_not_utf8() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.tape.zst");
    let header = Header {
        version: VERSION,
        created_by: "a test".to_owned(),
        source: "hand".to_owned(),
        params: serde_json::Map::new(),
        seed: None,
        tokenizer: None,
    };
    let mut writer = Writer::new(fs::File::create(&path).unwrap(), &header).unwrap();
    let request = Request {
        index: 0,
        offset_ns: 0,
        method: "POST".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        body: b"{\"model\":\"\xff\"}".to_vec(),
        input_tokens: None,
        output_tokens: None,
        session: None,
    };
    writer.write(&request).unwrap();
    writer.finish().unwrap();
    let (error, _) = bad_replay(3, &path, "http://h:1", &["--model", "m"]);
    assert!(
        error.contains("request 0") && error.contains("not UTF-8") && error.contains("leave out --model"),
        "{error}"
    );
    // Without --model it is sent as it is; the server judges.
    let mock = Mock::start(&["--model", "tokentape"]);
    let (error, _) = bad_replay(1, &path, &mock.url, &[]);
    assert!(error.contains("HTTP 400"), "{error}");
}

#[test]
fn a_missing_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/such/tokenizer.json");
    let out = folder.path().join("t.tape.zst");
    let error =
        bad(3, ["generate", "random", "--tokenizer", missing.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert!(error.contains("no/such/tokenizer.json"), "{error}");
}

#[test]
fn a_tape_that_is_missing_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.tape.zst");
    for command in ["inspect", "cat", "verify"] {
        assert!(bad(3, [command, path.to_str().unwrap()]).contains("t.tape.zst"));
    }
    fs::write(&path, "hello\n").unwrap();
    let (error, _) = bad_replay(3, &path, "http://h:1", &[]);
    assert!(error.contains("t.tape.zst"), "{error}");
}

#[test]
fn a_run_that_is_there_or_is_none() {
    let (folder, tape) = some_tape();
    let run = tape.with_extension("run");
    let error = bad(3, ["report", folder.path().to_str().unwrap()]);
    assert!(error.contains("holds no run"), "{error}");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("run.json"), "{}").unwrap();
    let (error, _) = bad_replay(2, &tape, "http://h:1", &[]);
    assert!(error.contains("already holds a run") && error.contains("--force"), "{error}");
    assert!(bad(3, ["report", run.to_str().unwrap()]).contains("run.json"));
}
