//! The recording proxy: what passes is untouched, and on the tape.

mod kill;
mod playback;
mod redaction;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;
use tokentape::tape::{self, Entry, Outcome, Reader, Request, Response};

use crate::support::{
    Scripted, bad, json, nowhere, read_request, request, shown, signal, stream_of, tokentape,
};

/// A recorder on a port of its own. Dropped, it is killed.
struct Recorder {
    url: String,
    process: Child,
    stdout: Receiver<String>,
    tape: PathBuf,
}

impl Recorder {
    /// Records into `t.tape.zst` of the folder.
    fn start(upstream: &str, folder: &Path, more: &[&str]) -> Self {
        let tape = folder.join("t.tape.zst");
        let mut process = tokentape(["record", "--upstream", upstream, "-o", tape.to_str().unwrap()])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = process.stdout.take().unwrap();
        let (sender, stdout) = channel();
        let mut first = Vec::new();
        while first.last() != Some(&b'\n') {
            let mut byte = [0];
            assert_eq!(pipe.read(&mut byte).unwrap(), 1, "the recorder did not start");
            first.push(byte[0]);
        }
        std::thread::spawn(move || {
            let mut rest = String::new();
            pipe.read_to_string(&mut rest).unwrap();
            drop(sender.send(rest));
        });
        let first = String::from_utf8(first).unwrap();
        let url = first.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { url, process, stdout, tape }
    }

    /// Ends the recorder in order; gives its exit status, the rest of its stdout, and its stderr.
    fn stop(mut self) -> Output {
        signal(&self.process, "TERM");
        let mut stderr = Vec::new();
        self.process.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        let status = self.process.wait().unwrap();
        Output { status, stdout: self.stdout.recv().unwrap().into_bytes(), stderr }
    }

    /// Ends the recorder and gives what it has recorded, which must be whole.
    fn entries(self) -> (Vec<Request>, Vec<Response>) {
        let tape = self.tape.clone();
        let output = self.stop();
        assert!(output.status.success(), "{}", shown(&output));
        assert!(output.stderr.is_empty(), "{}", shown(&output));
        entries_of(&tape)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The requests of a whole tape, and its responses in the order of the requests.
fn entries_of(path: &Path) -> (Vec<Request>, Vec<Response>) {
    tape::verify(path, &mut |_| {}).unwrap();
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    for entry in Reader::open(path).unwrap().entries() {
        match entry.unwrap() {
            Entry::Request(request) => requests.push(request),
            Entry::Response(response) => responses.push(response),
        }
    }
    responses.sort_by_key(|response| response.index);
    (requests, responses)
}

/// A server whose connections are each given to `serve`.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = std::sync::Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = std::sync::Arc::clone(&serve);
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    url
}

fn connect(url: &str) -> TcpStream {
    let socket = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

/// Sends these bytes on a connection of their own, and gives all that comes back.
fn exchange(url: &str, request: &[u8]) -> Vec<u8> {
    let mut socket = connect(url);
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    answer
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A message's first line, its headers in lower case and sorted, less those of one hop, and its body without framing.
fn parts(message: &[u8]) -> (String, Vec<String>, Vec<u8>) {
    let end = message.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no message: {:?}", String::from_utf8_lossy(message)));
    let head = String::from_utf8(message[..end].to_vec()).unwrap();
    let (first, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
    let hop = ["connection:", "host:", "transfer-encoding:"];
    let mut body = message[end + 4..].to_vec();
    if headers.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = dechunked(&body);
    }
    let mut headers: Vec<_> = headers
        .lines()
        .filter(|line| !hop.iter().any(|hop| line.to_ascii_lowercase().starts_with(hop)))
        .map(str::to_owned)
        .collect();
    headers.sort_unstable();
    (first.to_owned(), headers, body)
}

/// What chunked encoding carries, as far as it goes.
fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap().trim(), 16).unwrap();
        bytes = &bytes[end + 2..];
        let size = size.min(bytes.len());
        body.extend(&bytes[..size]);
        bytes = bytes.get(size + 2..).unwrap_or_default();
        if size == 0 {
            break;
        }
    }
    body
}

/// Every answer that was captured from vLLM, its framing put back where it was taken off.
fn captures() -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("mock-server/fixtures");
    let mut captures = Vec::new();
    for folder in ["vllm-0.11.0", "vllm-0.32.0", "vllm-0.32.0-cases"] {
        for file in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            if !bytes.starts_with(b"HTTP/1.1 ") {
                continue;
            }
            let is_framed = path.extension().unwrap() == "raw";
            let bytes = if is_framed { bytes } else { framed(&bytes) };
            // Paths in a few were shortened, and their length was not.
            let (_, headers, body) = parts(&bytes);
            let length = headers.iter().find_map(|line| line.strip_prefix("content-length: "));
            if length.is_none_or(|length| length == body.len().to_string()) {
                captures.push((path.display().to_string(), bytes));
            }
        }
    }
    captures.sort_unstable();
    captures
}

fn framed(capture: &[u8]) -> Vec<u8> {
    let end = capture.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let (head, body) = capture.split_at(end);
    if !String::from_utf8_lossy(head).to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return capture.to_vec();
    }
    let mut bytes = head.to_vec();
    for event in String::from_utf8(body.to_vec()).unwrap().split_inclusive("\n\n") {
        bytes.extend(format!("{:x}\r\n{event}\r\n", event.len()).into_bytes());
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

#[test]
fn every_captured_answer_passes_byte_for_byte() {
    let captures = captures();
    assert!(captures.len() > 60, "{}", captures.len());
    let answers: Vec<_> = captures.iter().map(|(_, answer)| answer.clone()).collect();
    let upstream = server(move |mut stream| {
        let Some(request) = read_request(&mut stream) else { return };
        let request = String::from_utf8(request).unwrap();
        let number = request.split(['/', ' ']).nth(3).unwrap();
        stream.write_all(&answers[number.parse::<usize>().unwrap()]).unwrap();
    });
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream, folder.path(), &[]);
    for (number, (name, answer)) in captures.iter().enumerate() {
        let seen = exchange(&recorder.url, &post(&format!("/v1/{number}"), b"{}"));
        assert_eq!(parts(&seen), parts(answer), "{name}");
    }
    let (requests, responses) = recorder.entries();
    assert_eq!((requests.len(), responses.len()), (captures.len(), captures.len()));
    for ((name, answer), response) in captures.iter().zip(&responses) {
        let (first, _, body) = parts(answer);
        let head = response.head.as_ref().unwrap();
        assert!(first.contains(&format!(" {} ", head.status)), "{name}");
        assert_eq!((&response.body, response.outcome), (&body, Outcome::Complete), "{name}");
        assert!(response.chunks.iter().map(|chunk| chunk.bytes as usize).sum::<usize>() == body.len());
    }
}

#[test]
fn every_request_arrives_as_it_was_sent() {
    let upstream = Scripted::start(json(b"{}"));
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream.url, folder.path(), &["--all"]);
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for (method, path) in
        [("POST", "/v1/chat/completions"), ("PUT", "/x?a=1&b=%20"), ("GET", "/"), ("DELETE", "/v1/files/7")]
    {
        let body = if method == "GET" { &[] } else { &bytes[..] };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: p\r\nConnection: close\r\nAuthorization: Bearer sk-passes\r\nX-Odd-CASE: v\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let sent = [head.as_bytes(), body].concat();
        exchange(&recorder.url, &sent);
        let arrived = upstream.requests.recv().unwrap();
        assert_eq!(parts(&arrived), parts(&sent));
        let head = String::from_utf8_lossy(&arrived).to_ascii_lowercase();
        assert!(head.contains(&format!("host: {}", upstream.url.strip_prefix("http://").unwrap())), "{path}");
    }
    let (requests, _) = recorder.entries();
    let methods: Vec<_> = requests.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["POST", "PUT", "GET", "DELETE"]);
    assert_eq!(requests[1].path, "/x?a=1&b=%20");
    assert!(requests[0].body == bytes && requests[2].body.is_empty());
    assert_eq!(requests[0].offset_ns, 0);
    assert!(requests.is_sorted_by_key(|request| request.offset_ns));
}

#[test]
fn only_posts_are_recorded_unless_all_are_asked_for() {
    let upstream = Scripted::start(json(b"{}"));
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream.url, folder.path(), &["--no-responses"]);
    assert_eq!(request(&recorder.url, "GET", "/v1/models", ""), (200, "{}".to_owned()));
    assert_eq!(request(&recorder.url, "POST", "/tokenize", "{\"max_tokens\":3}").0, 200);
    let (requests, responses) = recorder.entries();
    assert_eq!((requests.len(), responses.len()), (1, 0));
    assert_eq!((requests[0].path.as_str(), requests[0].output_tokens), ("/tokenize", Some(3)));
}

/// A client that waits for leave to send its body, and then sends it in chunks with a trailer.
#[test]
fn a_body_in_chunks_waits_for_its_continue() {
    let (sender, arrived) = channel();
    let upstream = server(move |mut stream| {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"0\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1);
            bytes.push(byte[0]);
        }
        stream.write_all(&json(b"{}")).unwrap();
        sender.send(bytes).unwrap();
    });
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream, folder.path(), &[]);
    let mut client = connect(&recorder.url);
    client
        .write_all(b"POST /v1/x HTTP/1.1\r\nhost: p\r\nexpect: 100-continue\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    let mut leave = [0; 25];
    client.read_exact(&mut leave).unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("{}"), "{answer}");
    assert_eq!(parts(&arrived.recv().unwrap()).2, b"abcdefgh");
    assert_eq!(recorder.entries().0[0].body, b"abcdefgh");
}

/// The server sends a piece only when the client has seen the one before.
#[test]
fn pieces_pass_as_they_come() {
    let (next, gate) = channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let upstream = server(move |mut stream| {
        read_request(&mut stream).unwrap();
        let answer = stream_of(&["one", "two", "[DONE]"], false);
        let mut rest = answer.as_slice();
        while let Some(end) = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n" || bytes == b"\n\n\r\n") {
            let (piece, after) = rest.split_at(end + 4);
            stream.write_all(piece).unwrap();
            rest = after;
            gate.lock().unwrap().recv().unwrap();
        }
    });
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream, folder.path(), &[]);
    let mut client = connect(&recorder.url);
    client.write_all(&post("/v1/completions", b"{}")).unwrap();
    let mut seen = Vec::new();
    for piece in ["\r\n\r\n", "data: one\n\n", "data: two\n\n", "data: [DONE]\n\n", "0\r\n\r\n"] {
        while !String::from_utf8_lossy(&seen).contains(piece) {
            let mut bytes = [0; 1000];
            let count = client.read(&mut bytes).unwrap();
            assert!(count > 0, "{piece:?} did not come");
            seen.extend(&bytes[..count]);
        }
        // After the last piece nobody waits.
        next.send(()).unwrap_or_default();
    }
    let (_, responses) = recorder.entries();
    let lengths: Vec<_> = responses[0].chunks.iter().map(|chunk| chunk.bytes).collect();
    assert_eq!(lengths, [11, 11, 14]);
    assert!(responses[0].chunks.is_sorted_by_key(|chunk| chunk.at_ns));
}

/// The server can write no faster than the client reads.
#[test]
fn a_slow_client_slows_the_server() {
    let (sender, blocked) = channel();
    let upstream = server(move |mut stream| {
        read_request(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let piece = vec![b'x'; 1 << 20];
        // Far more than all the buffers on the way hold together.
        let outcome = (0..256).try_for_each(|_| stream.write_all(&piece));
        sender.send(outcome.map_err(|error| error.kind())).unwrap();
    });
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream, folder.path(), &[]);
    let mut client = connect(&recorder.url);
    client.write_all(&post("/v1/completions", b"{}")).unwrap();
    assert_eq!(blocked.recv().unwrap(), Err(ErrorKind::WouldBlock));
}

#[test]
fn a_client_that_goes_takes_the_server_with_it() {
    let (sender, gone) = channel();
    let upstream = server(move |mut stream| {
        read_request(&mut stream).unwrap();
        stream.write_all(&stream_of(&["one"], true)).unwrap();
        sender.send(matches!(stream.read(&mut [0]), Ok(0) | Err(_))).unwrap();
    });
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream, folder.path(), &[]);
    let mut client = connect(&recorder.url);
    client.write_all(&post("/v1/completions", b"{\"n\":1}")).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: one\n\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    client.shutdown(Shutdown::Both).unwrap();
    assert!(gone.recv().unwrap());
    let (requests, responses) = recorder.entries();
    assert_eq!(requests[0].body, b"{\"n\":1}");
    assert_eq!(
        (responses[0].outcome, responses[0].body.as_slice()),
        (Outcome::ClientGone, &b"data: one\n\n"[..])
    );
}

/// One that goes before it has sent its request whole has asked nothing.
#[test]
fn half_a_request_is_no_request() {
    let upstream = server(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream, folder.path(), &["--json"]);
    let mut client = connect(&recorder.url);
    client.write_all(&post("/v1/completions", &[b'x'; 1000])[..500]).unwrap();
    // Known to be under way once another request has passed on the same worker or the head has been read: the
    // recorder's end waits for neither, so the client goes first.
    client.shutdown(Shutdown::Both).unwrap();
    drop(client);
    let output = recorder.stop();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["requests"], 0);
    assert!(json["unfinished_requests"].as_u64().unwrap() <= 1);
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn a_server_that_goes_breaks_the_answer_off() {
    let folder = TempDir::new().unwrap();
    let cut = Scripted::start(stream_of(&["one", "two"], true));
    let recorder = Recorder::start(&cut.url, folder.path(), &[]);
    let seen = exchange(&recorder.url, &post("/v1/completions", b"{}"));
    assert_eq!(parts(&seen).2, b"data: one\n\ndata: two\n\n");
    assert!(!seen.ends_with(b"0\r\n\r\n"), "the client must see that it is cut");
    let (_, responses) = recorder.entries();
    assert_eq!(responses[0].outcome, Outcome::ServerGone);
    assert_eq!(responses[0].body, b"data: one\n\ndata: two\n\n");

    // Before it has said anything: the client's connection closes as the server's did.
    std::fs::remove_file(folder.path().join("t.tape.zst")).unwrap();
    let silent = server(|mut stream| drop(read_request(&mut stream)));
    let recorder = Recorder::start(&silent, folder.path(), &[]);
    assert_eq!(exchange(&recorder.url, &post("/v1/completions", b"{}")), b"");
    let (requests, responses) = recorder.entries();
    assert_eq!((requests.len(), responses[0].outcome), (1, Outcome::ServerGone));
    assert_eq!(responses[0].head, None);
}

#[test]
fn a_server_that_is_not_there_is_a_bad_gateway() {
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&format!("http://{}", nowhere()), folder.path(), &[]);
    let (status, body) = request(&recorder.url, "POST", "/v1/completions", "{\"a\":1}");
    assert_eq!(status, 502);
    assert!(body.contains("tokentape record cannot reach the server"), "{body}");
    let (requests, responses) = recorder.entries();
    assert_eq!(requests[0].body, b"{\"a\":1}");
    assert_eq!((responses[0].outcome, &responses[0].head), (Outcome::ServerGone, &None));
}

/// Requests of one client's connection share one to the server, as they would without a recorder.
#[test]
fn a_clients_connection_has_one_to_the_server() {
    let (sender, connections) = channel();
    let upstream = server(move |mut stream| {
        sender.send(()).unwrap();
        while read_request(&mut stream).is_some() {
            stream.write_all(&json(b"{}")).unwrap();
        }
    });
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream, folder.path(), &["--session-header", "x-session"]);
    let mut clients = [connect(&recorder.url), connect(&recorder.url)];
    for turn in 0..6 {
        let client = &mut clients[turn % 2];
        let session = ["a", "b", "a"][turn % 3];
        let head = format!(
            "POST /v1/{turn} HTTP/1.1\r\nhost: p\r\nx-session: {session}\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        client.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"{}") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
    }
    drop(clients);
    let (requests, _) = recorder.entries();
    assert_eq!(connections.try_iter().count(), 2);
    let turns: Vec<_> = requests
        .iter()
        .map(|request| request.session.as_ref().unwrap())
        .map(|s| (s.id.as_str(), s.turn))
        .collect();
    assert_eq!(turns, [("a", 0), ("b", 0), ("a", 1), ("a", 2), ("b", 1), ("a", 3)]);
}

#[test]
fn what_is_under_way_at_the_end_is_given_its_time() {
    for (grace, outcome) in [("1m", Outcome::Complete), ("0s", Outcome::Stopped)] {
        let (finish, gate) = channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let upstream = server(move |mut stream| {
            read_request(&mut stream).unwrap();
            let answer = stream_of(&["one", "two"], false);
            let middle = answer.len() - 10;
            stream.write_all(&answer[..middle]).unwrap();
            gate.lock().unwrap().recv().unwrap();
            drop(stream.write_all(&answer[middle..]));
        });
        let folder = TempDir::new().unwrap();
        let recorder = Recorder::start(&upstream, folder.path(), &["--grace", grace]);
        let mut client = connect(&recorder.url);
        client.write_all(&post("/v1/completions", b"{}")).unwrap();
        let mut seen = vec![0; 100];
        client.read_exact(&mut seen).unwrap();
        signal(&recorder.process, "TERM");
        let (responses, rest) = if outcome == Outcome::Complete {
            finish.send(()).unwrap();
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap();
            (recorder.entries().1, rest)
        } else {
            (recorder.entries().1, Vec::new())
        };
        assert_eq!(responses[0].outcome, outcome, "{grace}");
        assert_eq!(rest.ends_with(b"0\r\n\r\n"), outcome == Outcome::Complete);
        drop(finish);
    }
}

#[test]
fn a_full_file_is_followed_by_another() {
    let upstream = Scripted::start(json(b"{\"ok\":true}"));
    let folder = TempDir::new().unwrap();
    let recorder = Recorder::start(&upstream.url, folder.path(), &["--rotate-size", "1B"]);
    for number in 0..3 {
        request(&recorder.url, "POST", "/v1/completions", &format!("{{\"n\":{number}}}"));
    }
    let output = recorder.stop();
    assert!(output.status.success(), "{}", shown(&output));
    for (number, name) in ["t.tape.zst", "t.1.tape.zst", "t.2.tape.zst"].into_iter().enumerate() {
        let path = folder.path().join(name);
        let (requests, responses) = entries_of(&path);
        assert_eq!((requests.len(), responses.len()), (1, 1), "{name}");
        assert_eq!(requests[0].body, format!("{{\"n\":{number}}}").into_bytes());
        let params = Reader::open(&path).unwrap().header().params.clone();
        assert_eq!(params.get("part").and_then(serde_json::Value::as_u64).unwrap_or(0), number as u64);
    }
}

#[test]
fn what_cannot_be_recorded_is_said_at_once() {
    let folder = TempDir::new().unwrap();
    let tape = folder.path().join("there.tape.zst");
    std::fs::write(&tape, b"precious").unwrap();
    let tape = tape.to_str().unwrap();
    let error = bad(1, ["record", "--upstream", "http://127.0.0.1:1", "-o", tape]);
    assert!(error.contains("never overwrites") && error.contains(tape), "{error}");
    assert_eq!(std::fs::read(tape).unwrap(), b"precious");
    let error = bad(2, ["record", "--upstream", "127.0.0.1:1", "-o", "x"]);
    assert!(error.contains("cannot record '127.0.0.1:1'"), "{error}");
    let error = bad(2, ["record", "--upstream", "http://127.0.0.1:1", "-o", "x", "--redact", "seeded"]);
    assert!(error.contains("--tokenizer"), "{error}");
}
