//! `tokentape mock` through its binary and a plain socket: what a client sees, and what the truth log says about it.
//! The client here is a few lines over `TcpStream`, and shares no code with the product's own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop there")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokentape_mock::truth::{self, EventKind, Outcome, Record, Truth};

/// How early the server may write, by the pacer's rule.
const LEAD_NS: u64 = 20_000;

/// A mock server in a process of its own.
struct Mock {
    process: Child,
    address: SocketAddr,
}

impl Mock {
    fn start(flags: &[&str]) -> Self {
        let mut process =
            tokentape(&["mock", "--port", "0"]).args(flags).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on http://").unwrap().trim_end().parse().unwrap();
        Self { process, address }
    }

    fn with_log(flags: &[&str], log: &Path) -> Self {
        Self::start(&[flags, &["--truth-log", log.to_str().unwrap()]].concat())
    }

    fn connect(&self) -> Client {
        let socket = TcpStream::connect(self.address).unwrap();
        // A test that hangs should say so.
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Client(BufReader::new(socket))
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        self.connect().post(path, &[], &body.to_string())
    }

    fn signal(&mut self, name: &str) -> ExitStatus {
        let command = format!("kill -{name} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        self.process.wait().unwrap()
    }

    fn terminate(mut self) {
        assert!(self.signal("TERM").success());
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.process.kill().unwrap_or_default();
        self.process.wait().map(drop).unwrap_or_default();
    }
}

fn tokentape(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokentape"));
    command.args(args);
    command
}

/// One connection, held open.
struct Client(BufReader<TcpStream>);

struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    /// The body's HTTP chunks; a body that has a length is one.
    chunks: Vec<String>,
}

impl Client {
    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: mock\r\ncontent-length: {}\r\n", body.len());
        let json = [("content-type", "application/json")];
        let given = headers.iter().any(|(name, _)| *name == "content-type");
        for (name, value) in headers.iter().chain(if given { &[][..] } else { &json }) {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        self.0.get_mut().write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
    }

    fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        self.send(method, path, headers, body);
        let (status, headers) = self.head();
        let header =
            |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let chunks = if let Some(length) = header("content-length") {
            vec![self.exactly(length.parse().unwrap())]
        } else {
            assert_eq!(header("transfer-encoding"), Some("chunked"));
            std::iter::from_fn(|| self.chunk()).collect()
        };
        Response { status, headers, chunks }
    }

    fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        self.request("POST", path, headers, body)
    }

    fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let status = self.line().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = std::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty()))
            .map(|line| {
                line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap()
            })
            .collect();
        (status, headers)
    }

    fn chunk(&mut self) -> Option<String> {
        let length = usize::from_str_radix(&self.line(), 16).unwrap();
        let chunk = self.exactly(length);
        assert_eq!(self.line(), "");
        Some(chunk).filter(|chunk| !chunk.is_empty())
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.strip_suffix("\r\n").expect("a whole line").to_owned()
    }

    fn exactly(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

impl Response {
    fn body(&self) -> &str {
        let [body] = self.chunks.as_slice() else { panic!("{} chunks", self.chunks.len()) };
        body
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.body()).unwrap()
    }

    fn header_names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The events but for the last, which must be `[DONE]`. Each event is an HTTP chunk of its own.
    fn events(&self) -> Vec<Value> {
        let (last, events) = self.chunks.split_last().unwrap();
        assert_eq!(last, "data: [DONE]\n\n");
        let data =
            |chunk: &String| chunk.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap().to_owned();
        events.iter().map(|chunk| serde_json::from_str(&data(chunk)).unwrap()).collect()
    }
}

fn chat(max_tokens: u32) -> Value {
    json!({
        "model": "tokentape",
        "messages": [{"role": "user", "content": "three blind mice"}],
        "max_completion_tokens": max_tokens,
        "stream": true,
        "stream_options": {"include_usage": true},
        "ignore_eos": true,
    })
}

fn completion(max_tokens: u32) -> Value {
    json!({"model": "tokentape", "prompt": [5, 6, 7], "max_tokens": max_tokens})
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const FAST: [&str; 4] = ["--ttft", "2ms", "--itl", "250us"];

#[test]
fn a_chat_streams_as_many_tokens_as_asked() {
    let mock = Mock::start(&FAST);
    let response = mock.post(CHAT, &chat(7));
    assert_eq!(response.status, 200);
    assert_eq!(response.header_names(), ["date", "server", "content-type", "vary", "transfer-encoding"]);
    let events = response.events();
    assert_eq!(events.len(), 1 + 7 + 1);
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    for event in &events[1..8] {
        assert!(!event["choices"][0]["delta"]["content"].as_str().unwrap().is_empty());
    }
    assert_eq!(events[6]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(events[7]["choices"][0]["finish_reason"], "length");
    let usage = &events[8]["usage"];
    assert_eq!(usage["completion_tokens"], 7);
    let prompt_tokens = usage["prompt_tokens"].as_u64().unwrap();
    assert!(prompt_tokens >= 3);
    assert_eq!(usage["total_tokens"], prompt_tokens + 7);
    assert!(events.iter().all(|event| event["id"] == events[0]["id"]));
}

#[test]
fn a_completion_counts_its_ids_and_needs_no_stream() {
    let mock = Mock::start(&FAST);
    let whole = mock.post(COMPLETIONS, &completion(4));
    assert_eq!(whole.header_names(), ["date", "server", "content-length", "content-type", "vary"]);
    assert_eq!(
        whole.json()["usage"],
        json!({"prompt_tokens": 3, "total_tokens": 7, "completion_tokens": 4, "prompt_tokens_details": null})
    );
    let text = whole.json()["choices"][0]["text"].as_str().unwrap().to_owned();
    assert!(!text.is_empty());

    let mut streamed = completion(4);
    streamed["stream"] = json!(true);
    let events = mock.post(COMPLETIONS, &streamed).events();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0]["choices"][0]["prompt_token_ids"], json!([5, 6, 7]));

    let mut chat = chat(3);
    chat["stream"] = json!(false);
    chat.as_object_mut().unwrap().remove("stream_options");
    assert_eq!(mock.post(CHAT, &chat).json()["usage"]["completion_tokens"], 3);
}

#[test]
fn the_same_request_has_the_same_answer_whatever_the_workers() {
    let text = |flags: &[&str]| {
        let mock = Mock::start(&[&["--ttft", "0", "--itl", "0"], flags].concat());
        mock.post(COMPLETIONS, &completion(64));
        mock.post(COMPLETIONS, &completion(20)).json()["choices"][0]["text"].clone()
    };
    let first = text(&["--workers", "1"]);
    assert_eq!(first, text(&["--workers", "3"]));
    assert_ne!(first, text(&["--seed", "1"]));
}

#[test]
fn refusals_leave_the_connection_usable() {
    let mock = Mock::start(&FAST);
    let mut client = mock.connect();
    let mut refused = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let response = client.request(method, path, headers, body);
        (response.status, response.body().to_owned())
    };
    let (status, body) =
        refused("POST", CHAT, &[], r#"{"model":"nope","messages":[{"role":"user","content":"a"}]}"#);
    assert_eq!(status, 404);
    assert_eq!(
        body,
        r#"{"error":{"message":"The model `nope` does not exist.","type":"NotFoundError","param":null,"code":404}}"#
    );
    assert_eq!(refused("POST", CHAT, &[], "{").0, 400);
    assert_eq!(refused("POST", CHAT, &[("content-type", "text/plain")], &chat(1).to_string()).0, 400);
    assert_eq!(refused("POST", COMPLETIONS, &[], &completion(99_999).to_string()).0, 400);
    assert_eq!(refused("GET", CHAT, &[], ""), (405, "{\"detail\":\"Method Not Allowed\"}".to_owned()));
    assert_eq!(refused("POST", "/health", &[], "{}").0, 405);
    assert_eq!(refused("GET", "/v1/nothing", &[], ""), (404, "{\"detail\":\"Not Found\"}".to_owned()));
    assert_eq!(refused("GET", "/health", &[], ""), (200, String::new()));
    assert_eq!(refused("GET", "/version", &[], "").1, "{\"version\":\"0.11.0\"}");
    let models: Value = serde_json::from_str(&refused("GET", "/v1/models", &[], "").1).unwrap();
    assert_eq!(models["data"][0]["id"], "tokentape");
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let mock = Mock::start(&FAST);
    let mut client = mock.connect();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: mock\r\ncontent-length: {}\r\n\r\n", 65 << 20);
    client.0.get_mut().write_all(head.as_bytes()).unwrap();
    assert_eq!(client.head().0, 413);
}

#[test]
fn the_key_is_required_below_v1_only() {
    let mock = Mock::start(&["--api-key", "secret"]);
    let mut client = mock.connect();
    for headers in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "secret")]] {
        let response = client.request("GET", "/v1/models", headers, "");
        assert_eq!((response.status, response.body()), (401, "{\"error\":\"Unauthorized\"}"));
        assert_eq!(response.header_names(), ["date", "server", "content-length", "content-type"]);
    }
    assert_eq!(client.request("GET", "/v1/models", &[("authorization", "Bearer secret")], "").status, 200);
    assert_eq!(client.request("GET", "/health", &[], "").status, 200);
}

#[test]
fn the_truth_log_accounts_for_every_event() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("truth.jsonl");
    let mock =
        Mock::with_log(&["--ttft", "3ms", "--itl", "500us", "--jitter", "10%", "--workers", "2"], &log);
    std::thread::scope(|scope| {
        for stream in 0..12 {
            let mock = &mock;
            scope.spawn(move || {
                let mut client = mock.connect();
                for request in 0..3 {
                    let id = format!("{stream}-{request}");
                    let response = client.post(CHAT, &[("x-request-id", &id)], &chat(10).to_string());
                    assert_eq!(response.events()[0]["id"], format!("chatcmpl-{id}"));
                }
            });
        }
    });
    mock.post(COMPLETIONS, &completion(5));
    mock.terminate();

    let Truth { header, records, footer } = truth::read(&log).unwrap();
    assert_eq!((header.ttft_ns, header.itl_ns, header.jitter_percent), (3_000_000, 500_000, 10.0));
    assert_eq!(header.clock, "CLOCK_MONOTONIC");
    assert_eq!(records.len(), 12 * 3 + 1);
    let footer = footer.unwrap();
    assert_eq!((footer.requests, footer.lateness.tokens), (37, 12 * 3 * 10 + 1));
    assert!(records.iter().all(|record| record.outcome == Outcome::Complete));
    for record in &records {
        check_times(record);
    }
    let (chats, rest): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.path == CHAT);
    let [whole] = rest.as_slice() else { panic!("{} completions", rest.len()) };
    assert_eq!(whole.events, [EventKind::Body]);
    for record in chats {
        let (ends, tokens) =
            ([record.events[0], record.events[11], record.events[12]], &record.events[1..11]);
        assert_eq!(ends, [EventKind::Role, EventKind::Usage, EventKind::Done]);
        assert!(tokens.iter().all(|&event| event == EventKind::Token));
        assert_eq!(record.completion_tokens, 10);
        let first_ns = record.due_ns[0] - record.arrival_ns;
        assert!((2_700_000..=3_300_000).contains(&first_ns), "{first_ns}");
        assert_eq!(record.due_ns[0], record.due_ns[1], "the role is due with the first token");
        assert!(
            record.due_ns[1..11].windows(2).all(|pair| (450_000..=550_000).contains(&(pair[1] - pair[0])))
        );
        assert!(record.head_ns.unwrap() < record.written_ns[0], "the head has a write of its own");
    }
}

/// In the order in which they must have happened, without a bound on how long that may have taken.
fn check_times(record: &Record) {
    assert_eq!(record.due_ns.len(), record.events.len());
    assert_eq!(record.written_ns.len(), record.due_ns.len());
    assert!(record.due_ns.is_sorted());
    assert!(record.written_ns.windows(2).all(|pair| pair[0] < pair[1]), "each event has a write of its own");
    for (due_ns, written_ns) in record.due_ns.iter().zip(&record.written_ns) {
        assert!(written_ns + LEAD_NS >= *due_ns, "written {} ns early", due_ns - written_ns);
    }
}

#[test]
fn answers_cut_off_are_on_record_with_who_did_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("truth.jsonl");
    let mut mock = Mock::with_log(&["--ttft", "0", "--itl", "60s"], &log);
    let mut gone = mock.connect();
    gone.send("POST", CHAT, &[("x-request-id", "gone")], &chat(5).to_string());
    assert_eq!(gone.head().0, 200);
    assert!(gone.chunk().unwrap().contains("\"role\""));
    drop(gone);
    wait_for("a record", || truth::read(&log).is_ok_and(|truth| truth.records.len() == 1));

    let mut held = mock.connect();
    held.send("POST", COMPLETIONS, &[("x-request-id", "held")], &completion(5).to_string());
    let mut streaming = mock.connect();
    streaming.send("POST", CHAT, &[("x-request-id", "streaming")], &chat(5).to_string());
    assert_eq!(streaming.head().0, 200);
    assert!(streaming.chunk().unwrap().contains("\"role\""));
    assert!(mock.signal("INT").success());

    let records = truth::read(&log).unwrap().records;
    let outcome = |id: &str| records.iter().find(|record| record.id == id).map(|record| record.outcome);
    assert_eq!(outcome("chatcmpl-gone"), Some(Outcome::ClientGone));
    assert_eq!(outcome("chatcmpl-streaming"), Some(Outcome::Shutdown));
    // The one that asked for a whole body may not have been read yet when the signal came.
    assert!(matches!(outcome("cmpl-held"), Some(Outcome::Shutdown) | None));
    let streaming = records.iter().find(|record| record.id == "chatcmpl-streaming").unwrap();
    assert_eq!(streaming.due_ns.len(), 1 + 5 + 1 + 1);
    assert!((1..=2).contains(&streaming.written_ns.len()));
}

/// Waits until something holds; a bound on patience, not on the product.
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what} never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_cannot_start_says_why() {
    let code_and_error = |flags: &[&str]| {
        let output = tokentape(&["mock"]).args(flags).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = code_and_error(&["--ttft", "20"]);
    assert_eq!(code, 2);
    assert!(error.contains("`20` is not a span of time"), "{error}");

    let (code, error) = code_and_error(&["--port", "0", "--tokenizer", "./no/such/tokenizer.json"]);
    assert_eq!(code, 3, "{error}");

    let taken = Mock::start(&[]);
    let port = taken.address.port().to_string();
    let (code, error) = code_and_error(&["--port", &port]);
    assert_eq!(code, 1);
    assert!(error.starts_with(&format!("error: cannot listen on 127.0.0.1:{port}: ")), "{error}");

    let (code, error) = code_and_error(&["--port", "0", "--truth-log", "./no/such/folder/truth.jsonl"]);
    assert_eq!(code, 1);
    assert!(error.contains("cannot write the truth log ./no/such/folder/truth.jsonl"), "{error}");
}
