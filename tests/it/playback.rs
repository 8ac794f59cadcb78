//! `mock --answers`: a tape's responses, byte for byte and at their times, through real sockets.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokentape::run::Run;
use tokentape::tape::{Chunk, Header, Outcome, Request, Response, ResponseHead, VERSION, Writer};
use tokentape_mock::truth::{self, EventKind};

use crate::support::{LENIENT, Mock, bad, good, request};

const MS: u64 = 1_000_000;
const PATH: &str = "/v1/chat/completions";
const EVENTS: [&str; 4] = [
    "data: {\"id\":\"chatcmpl-7\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
    "data: {\"id\":\"chatcmpl-7\",\"choices\":[{\"delta\":{\"content\":\"é\"}}]}\n\ndata: {\"choices\":[{\"delt",
    "a\":{\"content\":\"y\"},\"finish_reason\":\"length\"}]}\n\n",
    "data: [DONE]\n\n",
];

fn body(index: u64) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{index}"}}],"stream":true,"n":1}}"#)
}

/// A tape with a stream, an error that is no stream, and a stream that breaks off; each with its request.
fn tape(folder: &Path) -> PathBuf {
    let path = folder.join("recorded.tape.zst");
    let header = Header {
        version: VERSION,
        created_by: "a test".to_owned(),
        source: "hand".to_owned(),
        params: serde_json::Map::new(),
        seed: None,
        tokenizer: None,
    };
    let mut writer = Writer::new(File::create(&path).unwrap(), &header).unwrap();
    let error = r#"{"error":{"message":"no","code":429}}"#;
    for (index, status, kind, pieces, outcome) in [
        (0, 200, "text/event-stream; charset=utf-8", &EVENTS[..], Outcome::Complete),
        (1, 429, "application/json", &[error][..], Outcome::Complete),
        (2, 200, "text/event-stream; charset=utf-8", &EVENTS[..2], Outcome::ServerGone),
    ] {
        let request = Request {
            index,
            offset_ns: index * MS,
            method: "POST".to_owned(),
            path: PATH.to_owned(),
            body: body(index).into_bytes(),
            input_tokens: None,
            output_tokens: Some(2),
            session: None,
        };
        writer.write(&request).unwrap();
        let headers = [("content-type", kind), ("retry-after", "3")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let chunk = |(place, piece): (u64, &&str)| Chunk {
            at_ns: (20 + 10 * place) * MS,
            bytes: u32::try_from(piece.len()).unwrap(),
        };
        let response = Response {
            index,
            head: Some(ResponseHead { status, headers, at_ns: 5 * MS }),
            chunks: (0..).zip(pieces).map(chunk).collect(),
            body: pieces.concat().into_bytes(),
            end_ns: 70 * MS,
            outcome,
        };
        writer.response(&response).unwrap();
    }
    writer.finish().unwrap();
    path
}

struct Played {
    folder: TempDir,
    mock: Mock,
    tape: PathBuf,
}

impl Played {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tape = tape(folder.path());
        let truth = folder.path().join("truth.jsonl");
        let args =
            ["--answers", tape.to_str().unwrap(), "--truth-log", truth.to_str().unwrap(), "--model", "m"];
        let mock = Mock::start(&[&args[..], more].concat());
        Self { folder, mock, tape }
    }

    /// The whole answer as it came over the wire.
    fn raw(&self, index: u64) -> String {
        let mut socket = TcpStream::connect(self.mock.url.strip_prefix("http://").unwrap()).unwrap();
        let body = body(index);
        let head = "host: m\r\nconnection: close\r\ncontent-type: application/json";
        write!(socket, "POST {PATH} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            .unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn truth(self) -> Vec<truth::Record> {
        self.mock.stop();
        truth::read(&self.folder.path().join("truth.jsonl")).unwrap().records
    }
}

#[test]
fn what_was_recorded_is_what_goes_out() {
    let played = Played::start(&[]);
    let stream = played.raw(0);
    let (head, rest) = stream.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nretry-after: 3"
        ),
        "{head}"
    );
    let chunks: String =
        EVENTS.map(|event| format!("{:X}\r\n{event}\r\n", event.len())).concat() + "0\r\n\r\n";
    assert_eq!(rest, chunks, "one chunk for each piece");
    let (status, error) = request(&played.mock.url, "POST", PATH, &body(1));
    assert_eq!((status, error.as_str()), (429, r#"{"error":{"message":"no","code":429}}"#));
    let broken = played.raw(2);
    assert!(broken.ends_with("{\"choices\":[{\"delt\r\n"), "no last chunk: {broken}");

    let records = played.truth();
    let dues = |record: &truth::Record| {
        record.due_ns.iter().map(|due_ns| (due_ns - record.arrival_ns) / MS).collect::<Vec<_>>()
    };
    assert_eq!(records.iter().map(dues).collect::<Vec<_>>(), [vec![20, 30, 40, 50], vec![20], vec![20, 30]]);
    assert_eq!(records[0].id, "chatcmpl-7");
    assert_eq!(records[0].events, [EventKind::Piece; 4]);
    let outcomes = records.iter().map(|record| record.outcome).collect::<Vec<_>>();
    assert_eq!(outcomes, [truth::Outcome::Complete, truth::Outcome::Complete, truth::Outcome::Fault]);
    for record in &records {
        assert_eq!(record.written_ns.len(), record.due_ns.len());
        assert!(record.written_ns.iter().zip(&record.due_ns).all(|(written, due)| written + MS > *due));
    }
}

#[test]
fn as_fast_as_it_can_the_bytes_are_the_same() {
    let (slow, fast) =
        (Played::start(&["--answers-timing", "speed:2"]), Played::start(&["--answers-timing", "fast"]));
    let tail = |answer: String| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    assert_eq!(tail(slow.raw(0)), tail(fast.raw(0)));
    let dues = |played: Played| {
        let record = played.truth().remove(0);
        record.due_ns.iter().map(|due_ns| (due_ns - record.arrival_ns) / MS).collect::<Vec<_>>()
    };
    assert_eq!(dues(slow), [10, 15, 20, 25]);
    assert_eq!(dues(fast), [0; 4]);
}

#[test]
fn a_miss_is_404_or_the_models_answer() {
    let strict = Played::start(&[]);
    let (status, error) = request(&strict.mock.url, "POST", PATH, &body(9));
    assert_eq!(status, 404);
    assert!(
        error.contains("There is no recorded answer to POST /v1/chat/completions with this body"),
        "{error}"
    );
    // What only the server knows of itself, it tells.
    assert_eq!(request(&strict.mock.url, "GET", "/v1/models", "").0, 200);
    let lenient = Played::start(&["--answers-miss", "model"]);
    assert_eq!(request(&lenient.mock.url, "POST", PATH, &body(9)).0, 200);
    assert_eq!(request(&lenient.mock.url, "POST", PATH, &body(1)).0, 429);
}

#[test]
fn a_replay_of_the_tape_gets_its_answers() {
    let played = Played::start(&[]);
    let run = played.folder.path().join("run");
    let tape = played.tape.to_str().unwrap();
    let args = ["replay", tape, "--url", &played.mock.url, "-o", run.to_str().unwrap(), "--requests", "1"];
    good([&args[..], &["--concurrency", "1", "--verdict", LENIENT]].concat());
    let run = Run::load(&run).unwrap();
    let timeline = &run.timelines[0];
    assert_eq!(timeline.response_id.as_deref(), Some("chatcmpl-7"));
    assert_eq!(timeline.events.len(), 4);
}

#[test]
fn a_tape_without_responses_has_none_to_play() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.tape.zst");
    crate::support::tape(&path, 2, &[]);
    let error = bad(2, ["mock", "--port", "0", "--answers", path.to_str().unwrap()]);
    assert!(error.contains("holds no responses"), "{error}");
    let error = bad(3, ["mock", "--port", "0", "--answers", "/nowhere.tape.zst"]);
    assert!(error.contains("/nowhere.tape.zst"), "{error}");
}
