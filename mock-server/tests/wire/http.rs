//! A server in this process, and a client of a few lines that keeps the bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokentape_mock::answers::{Answer, Answers, Question};
use tokentape_mock::engine::profile::{Cache, Scheduler};
use tokentape_mock::{Config, Profile, Timing, Wire, engine, serve};
use tokentape_tokenizer::Tokenizer;

use crate::cases::{Case, Kind};

/// Says what it was told, whatever is asked.
#[derive(Debug)]
struct Scripted(Option<Answer<'static>>);

impl Answers for Scripted {
    fn answer(&self, _: &Question<'_>) -> Option<Answer<'static>> {
        self.0.clone()
    }
}

/// A server, for as long as the test's process lives.
pub(crate) struct Server(SocketAddr);

impl Server {
    pub(crate) fn start(kind: Kind, script: Option<Answer<'static>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = Config { workers: 1, answers: Some(Arc::new(Scripted(script))), ..config(kind) };
        std::thread::spawn(move || serve(listener, config, std::future::pending()).unwrap());
        Self(address)
    }

    /// Sends a case's request; the answer is still to be read.
    pub(crate) fn ask(&self, case: &Case) -> TcpStream {
        let mut socket = TcpStream::connect(self.0).unwrap();
        // A test that hangs should say so.
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut request = format!("{} {} HTTP/1.1\r\nhost: mock\r\n", case.method, case.path);
        for (name, value) in &case.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !case.body.is_empty() || case.method == "POST" {
            request.push_str(&format!("content-length: {}\r\n", case.body.len()));
        }
        request.push_str(if case.closes() { "connection: close\r\n\r\n" } else { "\r\n" });
        socket.write_all(request.as_bytes()).unwrap();
        socket.write_all(case.body.as_bytes()).unwrap();
        socket
    }

    /// Everything that the server sends in answer to a case's request.
    pub(crate) fn exchange(&self, case: &Case) -> String {
        let mut socket = self.ask(case);
        let mut answer = Vec::new();
        let mut bytes = [0; 16 * 1024];
        while !is_complete(&answer, case.method == "HEAD") {
            let read = socket.read(&mut bytes).unwrap();
            assert!(read > 0, "{}: the answer ends in {:?}", case.capture, String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&bytes[..read]);
        }
        String::from_utf8(answer).unwrap()
    }
}

/// Whether a response is there to its end.
fn is_complete(answer: &[u8], headless: bool) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("\r\n0\r\n\r\n");
    }
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
    headless || body.len() == length.expect("a length").parse::<usize>().unwrap()
}

fn config(kind: Kind) -> Config {
    let tokenizer = |name: &str| Arc::new(Tokenizer::load(&format!("{}/{name}", crate::FIXTURES)).unwrap());
    let qwen = |profile| Config {
        max_model_len: 4096,
        wire: Wire { profile, model_root: Some("./model".to_owned()), ..Wire::default() },
        ..Config::new("Qwen2.5-0.5B-Instruct", tokenizer("tokenizer-a"), Timing::fixed(0, 0))
    };
    let tiny = |wire: Wire, api_key: Option<&str>| Config {
        max_model_len: 1024,
        api_key: api_key.map(str::to_owned),
        wire: Wire {
            profile: Profile::Vllm0320,
            aliases: vec!["alias-2".to_owned()],
            model_root: Some("tiny".to_owned()),
            enable_prompt_tokens_details: true,
            ..wire
        },
        ..Config::new("tiny-llama", tokenizer("tokenizer-b"), Timing::fixed(0, 0))
    };
    match kind {
        Kind::Qwen0110 => qwen(Profile::Vllm0110),
        Kind::Qwen0320 => qwen(Profile::Vllm0320),
        Kind::OneSeat => {
            let fixed = engine::Profile::load("fixed").unwrap();
            let scheduler = Scheduler { max_num_seqs: 1, ..fixed.scheduler };
            let cache = Cache { prefix_caching: true, ..fixed.cache };
            Config { engine: Some(engine::Profile { scheduler, cache, ..fixed }), ..qwen(Profile::Vllm0320) }
        }
        Kind::Rendered(profile) => qwen(profile),
        Kind::Roles(role_chunk) => {
            let config = qwen(Profile::Vllm0320);
            Config { wire: Wire { role_chunk, ..config.wire.clone() }, ..config }
        }
        Kind::Tiny => tiny(Wire { enable_request_id_headers: true, ..Wire::default() }, None),
        Kind::TinyParsed => {
            let parser = Some("qwen3".to_owned());
            let wire = Wire { reasoning_parser: parser.clone(), tool_call_parser: parser, ..Wire::default() };
            tiny(Wire { enable_per_request_metrics: true, ..wire }, Some("secret"))
        }
    }
}

/// A response: its head line by line, and its chunks.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: Vec<String>,
    pub(crate) chunks: Vec<String>,
}

impl Response {
    pub(crate) fn body(&self) -> String {
        self.chunks.concat()
    }

    /// In a few captures a path was shortened afterwards, and their length is still that of the original.
    pub(crate) fn mend_length(&mut self) {
        let length = self.body().len();
        let told = self.head.iter_mut().find(|line| line.starts_with("content-length: "));
        if let Some(line) = told.filter(|_| length > 0) {
            *line = format!("content-length: {length}");
        }
    }
}

/// Splits a response; `framed` says whether chunks still have their lengths.
pub(crate) fn parse(text: &str, framed: bool) -> Response {
    let (head, mut body) = text.split_once("\r\n\r\n").unwrap();
    let head: Vec<String> = head.split("\r\n").map(str::to_owned).collect();
    if !framed || !head.iter().any(|line| line == "transfer-encoding: chunked") {
        return Response { head, chunks: vec![body.to_owned()] };
    }
    let mut chunks = Vec::new();
    loop {
        let (length, rest) = body.split_once("\r\n").expect("a chunk's length");
        let length = usize::from_str_radix(length, 16).expect("a chunk's length");
        if length == 0 {
            return Response { head, chunks };
        }
        let (chunk, rest) = rest.split_at(length);
        chunks.push(chunk.to_owned());
        body = rest.strip_prefix("\r\n").expect("a chunk's end");
    }
}
