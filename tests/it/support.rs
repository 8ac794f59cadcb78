//! What the integration tests share: the binary, the mock server, and a server that answers by script.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Thresholds that no client is too slow for, however busy the machine that runs the tests.
pub(crate) const LENIENT: &str =
    "cpu=1000,cpu-wait=1000,idle=1000,late-dispatch=1e9,read-delay=1e9,write-delay=1e9,merged=1";

/// The `tokentape` binary, with arguments.
pub(crate) fn tokentape<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokentape"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs the binary and expects it to end well; gives its stdout.
pub(crate) fn good<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> String {
    let output = tokentape(args).output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the binary and expects this exit code and exactly one `error:` line; gives that line.
pub(crate) fn bad<A: AsRef<std::ffi::OsStr>>(code: i32, args: impl IntoIterator<Item = A>) -> String {
    failed(code, &tokentape(args).output().unwrap())
}

/// Expects this exit code and exactly one `error:` line; gives that line.
pub(crate) fn failed(code: i32, output: &Output) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", shown(output));
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{}", shown(output));
    assert!(!stderr.contains("panicked"), "{stderr}");
    errors[0].to_owned()
}

pub(crate) fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\nstdout: {}\nstderr: {}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A small tape of chat requests.
pub(crate) fn tape(path: &Path, requests: u32, more: &[&str]) {
    let requests = requests.to_string();
    let mut args = vec!["generate", "random", "--requests", &requests, "--input-tokens", "12"];
    args.extend(["--output-tokens", "7", "-o", path.to_str().unwrap()]);
    args.extend(more);
    good(args);
}

/// The bundled mock server on a port of its own; it ends with this value.
pub(crate) struct Mock {
    pub(crate) url: String,
    process: Child,
}

impl Mock {
    pub(crate) fn start(more: &[&str]) -> Self {
        let mut args = Vec::new();
        for default in [["--ttft", "2ms"], ["--itl", "500us"]] {
            args.extend(default.into_iter().filter(|_| !more.contains(&default[0])));
        }
        args.extend(more);
        Self::start_with(&args)
    }

    /// The same with these arguments and no others.
    pub(crate) fn start_with(more: &[&str]) -> Self {
        let mut process =
            tokentape(["mock", "--port", "0"]).args(more).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { url, process }
    }

    /// Ends the server in order: its truth log is whole.
    pub(crate) fn stop(mut self) {
        signal(&self.process, "TERM");
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// One request on a connection of its own: the status and the body.
pub(crate) fn request(url: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-type: application/json");
    socket.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Sends a signal to a child process.
pub(crate) fn signal(process: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &process.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// A server that answers each request with the same bytes and then closes the connection.
pub(crate) struct Scripted {
    pub(crate) url: String,
    /// Each request as it arrived: head and body.
    pub(crate) requests: Receiver<Vec<u8>>,
}

impl Scripted {
    pub(crate) fn start(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, sender, answer) = (stream.unwrap(), sender.clone(), answer.clone());
                std::thread::spawn(move || {
                    if let Some(request) = read_request(&mut stream) {
                        // The test may have seen enough.
                        drop(sender.send(request));
                        drop(stream.write_all(&answer));
                        if answer.is_empty() {
                            // Never answers: holds the connection until the client goes.
                            drop(stream.read(&mut [0]));
                        }
                    }
                });
            }
        });
        Self { url: format!("http://{address}"), requests }
    }
}

/// Reads one request: its head, and as much body as `content-length` says.
pub(crate) fn read_request(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    request.extend(body);
    Some(request)
}

/// An answer of server-sent events in chunked encoding; without its end if `cut`.
pub(crate) fn stream_of(events: &[&str], cut: bool) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for event in events {
        let event = format!("data: {event}\n\n");
        answer.extend(format!("{:x}\r\n{event}\r\n", event.len()).into_bytes());
    }
    if !cut {
        answer.extend(b"0\r\n\r\n");
    }
    answer
}

/// An answer that is one JSON document.
pub(crate) fn json(body: &[u8]) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    [format!("{head}{}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// An address where nothing listens.
pub(crate) fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The text of a file below `fixtures/results`, what the peers wrote; unpacked where it is packed.
pub(crate) fn result_text(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/results").join(name);
    if path.extension().is_none_or(|extension| extension != "zst") {
        return std::fs::read_to_string(path).unwrap();
    }
    let mut text = String::new();
    let packed = std::fs::File::open(path).unwrap();
    zstd::Decoder::new(packed).unwrap().take(16 << 20).read_to_string(&mut text).unwrap();
    text
}
