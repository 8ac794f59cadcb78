//! What the client does besides sending each request once: it breaks off, tries again, goes on from real answers.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokentape::replay::History;
use tokentape::replay::cancel::{After, Cancel};
use tokentape::run::Run;
use tokentape::tape::digest::WorkloadDigest;
use tokentape::tape::format::Session;
use tokentape::tape::{Header, Reader, Request, Writer};
use tokentape::timeline::{Outcome, Timeline};
use tokentape_mock::truth;

use crate::support::{LENIENT, Mock, bad, failed, good, read_request, signal, stream_of, tokentape};

const MS: u64 = 1_000_000;

/// A tape and a folder for runs.
struct Stage {
    folder: TempDir,
    tape: PathBuf,
}

impl Stage {
    fn new(requests: u32, output_tokens: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tape = folder.path().join("t.tape.zst");
        let (requests, tokens) = (requests.to_string(), output_tokens.to_string());
        let args = ["generate", "random", "--requests", &requests, "--input-tokens", "12"];
        good(args.into_iter().chain(["--output-tokens", &tokens, "-o", tape.to_str().unwrap()]));
        Self { folder, tape }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn args<'a>(&'a self, url: &'a str, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["replay", self.tape.to_str().unwrap(), "--url", url, "--quiet", "--no-scrape"];
        args.extend(["--force", "--verdict", LENIENT, "-o", out.to_str().unwrap()]);
        args.extend(more);
        args
    }

    /// A run that is VALID, in which nobody got lost, and that ends with exit code 0.
    fn replay(&self, url: &str, more: &[&str]) -> Run {
        let out = self.out();
        good(self.args(url, &out, &[more, &["--strict"]].concat()));
        let run = Run::load(&out).unwrap();
        assert!(run.info.verdict.valid);
        assert_eq!(run.info.counts.unaccounted(), 0);
        run
    }

    fn summary(&self) -> Value {
        serde_json::from_slice(&fs::read(self.out().join("summary.json")).unwrap()).unwrap()
    }
}

/// A server that answers each request as a function of its number says: with bytes, after which it closes the
/// connection unless they end a stream; or, where there are none, not at all.
struct Server {
    url: String,
    /// The body of each request as it came.
    bodies: Receiver<String>,
}

impl Server {
    fn start(answer: impl FnMut(usize) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, bodies) = channel();
        let next = Arc::new(Mutex::new((0, answer)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, sender, next) = (stream.unwrap(), sender.clone(), Arc::clone(&next));
                std::thread::spawn(move || {
                    while let Some(request) = read_request(&mut stream) {
                        let request = String::from_utf8(request).unwrap();
                        let answer = {
                            let mut next = next.lock().unwrap();
                            let (number, answer) = &mut *next;
                            *number += 1;
                            // The test may have seen enough.
                            drop(sender.send(request.split_once("\r\n\r\n").unwrap().1.to_owned()));
                            answer(*number - 1)
                        };
                        if answer.is_empty() {
                            drop(stream.read(&mut [0]));
                        }
                        drop(stream.write_all(&answer));
                        if !answer.ends_with(b"\r\n0\r\n\r\n") {
                            break;
                        }
                    }
                });
            }
        });
        Self { url, bodies }
    }
}

fn token(text: &str) -> String {
    json!({"choices": [{"delta": {"content": text}}]}).to_string()
}

fn answer(text: &str) -> Vec<u8> {
    stream_of(&[&token(text), r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, "[DONE]"], false)
}

fn refusal(status: &str, header: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{header}content-length: 4\r\nconnection: close\r\n\r\nbusy").into_bytes()
}

fn outputs(timeline: &Timeline) -> usize {
    timeline.events.facts.iter().filter(|facts| facts.is_output()).count()
}

#[test]
fn a_request_is_broken_off_after_some_tokens() {
    let stage = Stage::new(6, 40);
    let log = stage.folder.path().join("truth.jsonl");
    let more = ["--model", "tokentape", "--ttft", "5ms", "--itl", "4ms", "--truth-log"];
    let mock = Mock::start(&[&more[..], &[log.to_str().unwrap()]].concat());
    let run = stage.replay(&mock.url, &["--cancel-after", "5tok", "--concurrency", "2"]);
    mock.stop();

    let counts = &run.info.counts;
    assert_eq!((counts.requests, counts.succeeded, counts.cancelled_on_purpose), (6, 0, 6));
    assert_eq!(run.info.traffic.behaviour.cancel, Some(Cancel { after: After::Tokens(5), share: 1.0 }));
    for timeline in &run.timelines {
        assert_eq!(timeline.outcome, Outcome::CancelledOnPurpose);
        // The fifth came with the last read, whatever else came with it.
        assert!(outputs(timeline) >= 5);
        let last = *timeline.events.read.last().unwrap();
        let before = timeline.events.read.iter().zip(&timeline.events.facts);
        assert!(before.filter(|(read, facts)| **read < last && facts.is_output()).count() < 5);
        assert!(timeline.response_id.is_some() && timeline.text.is_some());
    }
    // The server knows that nobody listens any more.
    let truth = truth::read(&log).unwrap().records;
    assert_eq!(truth.len(), 6);
    for record in truth {
        assert_eq!(record.outcome, truth::Outcome::ClientGone);
        assert!((5..40).contains(&record.written_ns.len()), "{}", record.written_ns.len());
    }
    // They are counted, and are in no figure.
    let summary = stage.summary();
    assert_eq!(summary["requests"]["cancelled_on_purpose"], 6);
    assert_eq!(summary["requests"]["failed"], 0);
    for figure in ["ttft_ms", "itl_ms", "e2el_ms"] {
        assert_eq!(summary[figure]["count"], 0);
    }
    assert_eq!(summary["tokens"]["output"], 0);
    let table = good(["report", stage.out().to_str().unwrap()]);
    assert!(table.contains("  cancelled on purpose      6\n"), "{table}");
}

#[test]
fn a_share_is_broken_off_after_a_time() {
    let stage = Stage::new(12, 30);
    let mock = Mock::start(&["--model", "tokentape", "--ttft", "10ms", "--itl", "10ms"]);
    let more = ["--cancel-after", "60ms", "--cancel-share", "50%", "--concurrency", "3"];
    let run = stage.replay(&mock.url, &more);
    let cancel = Cancel { after: After::TimeNs(60 * MS), share: 0.5 };
    let drawn: Vec<bool> = (0..12).map(|index| cancel.of(index).is_some()).collect();
    let broken: Vec<bool> =
        run.timelines.iter().map(|timeline| timeline.outcome == Outcome::CancelledOnPurpose).collect();
    assert_eq!(broken, drawn);
    assert!(drawn.contains(&true) && drawn.contains(&false));
    for timeline in &run.timelines {
        if timeline.outcome.is_success() {
            assert_eq!(outputs(timeline), 30);
        } else {
            assert!(timeline.end_ns - timeline.dispatched_ns >= 60 * MS);
            assert!(outputs(timeline) < 30);
        }
    }
    assert_eq!(stage.summary()["e2el_ms"]["count"], run.info.counts.succeeded);
    // Its connection went with a request that was broken off.
    for slot in 0..3 {
        let mut of_slot: Vec<&Timeline> = run.timelines.iter().filter(|t| t.slot == slot).collect();
        of_slot.sort_unstable_by_key(|timeline| timeline.dispatched_ns);
        for pair in of_slot.windows(2) {
            assert_eq!(pair[1].connected_ns.is_some(), !pair[0].outcome.is_success());
        }
    }
}

#[test]
fn what_ends_sooner_ends_as_ever() {
    let stage = Stage::new(3, 6);
    let mock = Mock::start(&["--model", "tokentape"]);
    for more in [["--cancel-after", "1h"], ["--cancel-after", "7tok"]] {
        let run = stage.replay(&mock.url, &more);
        assert_eq!((run.info.counts.succeeded, run.info.counts.cancelled_on_purpose), (3, 0));
        assert!(run.timelines.iter().all(|timeline| outputs(timeline) == 6 && timeline.usage.is_some()));
    }
}

#[test]
fn each_attempt_is_on_record_and_none_is_hidden() {
    let stage = Stage::new(2, 5);
    let server = Server::start(|number| match number {
        0 | 1 => refusal("503 Service Unavailable", ""),
        _ => answer("x"),
    });
    let run = stage.replay(&server.url, &["--retries", "2", "--retry-backoff", "5ms"]);
    let counts = &run.info.counts;
    assert_eq!((counts.requests, counts.succeeded, counts.attempts, counts.retried), (2, 2, 4, 1));
    let [first, second] = &run.timelines[..] else { panic!("{}", run.timelines.len()) };
    assert!(first.outcome.is_success() && second.attempts.is_empty());
    let kinds: Vec<(&str, Option<u16>)> =
        first.attempts.iter().map(|attempt| (attempt.outcome.kind(), attempt.status)).collect();
    assert_eq!(kinds, [("status", Some(503)), ("status", Some(503)), ("success", Some(200))]);
    assert_eq!(first.attempts[0].outcome, Outcome::Status { body: "busy".to_owned() });
    let waits: Vec<u64> =
        first.attempts.windows(2).map(|pair| pair[1].dispatched_ns - pair[0].end_ns).collect();
    assert!(waits[0] >= 5 * MS && waits[1] >= 10 * MS, "{waits:?}");
    assert_eq!(first.dispatched_ns, first.attempts[0].dispatched_ns);
    assert_eq!(first.end_ns, first.attempts[2].end_ns);
    // The same bytes each time.
    let bodies: Vec<String> = server.bodies.try_iter().collect();
    assert!(bodies[0] == bodies[1] && bodies[1] == bodies[2] && bodies[2] != bodies[3]);

    let summary = stage.summary();
    assert_eq!(summary["requests"]["attempts"], 4);
    for metric in ["ttft", "e2el"] {
        let max = |from: &str| summary[format!("{metric}{from}_ms")]["max"].as_f64().unwrap();
        assert!(max("") - max("_from_last_attempt") >= 15.0);
    }
    let warnings = run.info.verdict.warnings;
    assert!(warnings.iter().any(|warning| warning.starts_with("retries: 1 of 2 ")), "{warnings:?}");
    let table = good(["report", stage.out().to_str().unwrap()]);
    assert_eq!(table.matches("  from last attempt").count(), 2, "{table}");
}

#[test]
fn the_server_may_ask_for_a_longer_wait() {
    let stage = Stage::new(1, 5);
    let server = Server::start(|number| match number {
        0 => refusal("429 Too Many Requests", "Retry-After: 1\r\n"),
        _ => answer("x"),
    });
    let run = stage.replay(&server.url, &["--retries", "1", "--retry-backoff", "1ms"]);
    let attempts = &run.timelines[0].attempts;
    assert!(attempts[1].dispatched_ns - attempts[0].end_ns >= 1000 * MS);
}

#[test]
fn a_retry_ends_and_is_never_unasked() {
    let stage = Stage::new(1, 5);
    let out = stage.out();
    let attempts = |status: &'static str, more: &[&str]| {
        let server = Server::start(move |_| refusal(status, ""));
        let more = [more, &["--retry-backoff", "1ms"][..if more.is_empty() { 0 } else { 2 }]].concat();
        let error = bad(1, stage.args(&server.url, &out, &more));
        assert!(error.contains("failed: 1 of 1 requests failed: 1 status"), "{error}");
        let timeline = Run::load(&out).unwrap().timelines.remove(0);
        assert!(timeline.attempts.is_empty() || timeline.attempts.len() as u64 == timeline.times_sent());
        assert_eq!(server.bodies.try_iter().count() as u64, timeline.times_sent());
        timeline.times_sent()
    };
    assert_eq!(attempts("500 Oh", &[]), 1);
    assert_eq!(attempts("500 Oh", &["--retries", "2"]), 3);
    assert_eq!(attempts("500 Oh", &["--retries", "2", "--retry-on", "connect"]), 1);
    assert_eq!(attempts("400 Bad Request", &["--retries", "2"]), 1);
}

/// What had come of the attempt that failed is no part of the one that did not.
#[test]
fn a_broken_answer_and_a_late_one_are_asked_for_again() {
    let stage = Stage::new(1, 5);
    let long = "y".repeat(3000);
    let server = Server::start(move |number| match number {
        0 => stream_of(&[&token(&long), &token(&long), &token(&long)], true),
        1 => Vec::new(),
        _ => answer("x"),
    });
    let more = ["--retries", "2", "--retry-on", "truncated,timeout", "--retry-backoff", "1ms"];
    let run = stage.replay(&server.url, &[&more[..], &["--timeout", "80ms"]].concat());
    let timeline = &run.timelines[0];
    let kinds: Vec<&str> = timeline.attempts.iter().map(|attempt| attempt.outcome.kind()).collect();
    assert_eq!(kinds, ["truncated", "timeout", "success"]);
    assert_eq!(timeline.text.as_deref(), Some("x"));
    assert_eq!(timeline.events.len(), 3);
}

#[test]
fn a_server_that_is_gone_is_tried_again() {
    let stage = Stage::new(1, 5);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Takes the connection that is opened before the clock starts, and is gone.
    std::thread::spawn(move || drop(listener.accept()));
    let out = stage.out();
    let more = ["--retries", "1", "--retry-backoff", "1ms", "--retry-on", "connect,truncated"];
    let error = bad(1, stage.args(&url, &out, &more));
    assert!(error.contains("1 of 1 requests failed: 1 connect"), "{error}");
    let timeline = Run::load(&out).unwrap().timelines.remove(0);
    assert_eq!(timeline.attempts.len(), 2);
    assert!(timeline.attempts[1].dispatched_ns >= timeline.attempts[0].end_ns + MS);
}

#[test]
fn an_interruption_ends_the_wait_for_a_retry() {
    let stage = Stage::new(3, 5);
    for traffic in [["--concurrency", "1"], ["--rate", "0.001"]] {
        let server = Server::start(|_| refusal("503 Service Unavailable", "retry-after: 3600\r\n"));
        let out = stage.out();
        let more = [&traffic[..], &["--retries", "3"]].concat();
        let process = tokentape(stage.args(&server.url, &out, &more))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        server.bodies.recv().unwrap();
        signal(&process, "INT");
        failed(1, &process.wait_with_output().unwrap());
        let run = Run::load(&out).unwrap();
        let counts = &run.info.counts;
        assert_eq!((counts.not_sent, counts.unaccounted(), counts.retried), (2, 0, 0));
    }
}

/// A tape of two conversations of three turns. In the first one the tape has answers, in the second it has none.
fn conversations(path: &Path) -> Vec<Request> {
    let file = File::create(path).unwrap();
    let template = Stage::new(1, 1);
    let header =
        Header { source: "test".to_owned(), ..Reader::open(&template.tape).unwrap().header().clone() };
    let mut writer = Writer::new(file, &header).unwrap();
    let said = |role: &str, text: String| json!({"role": role, "content": text});
    let mut requests = Vec::new();
    let mut messages = [vec![], vec![]];
    for turn in 0..3_u32 {
        for (session, messages) in messages.iter_mut().enumerate() {
            if turn > 0 && session == 0 {
                messages.push(said("assistant", format!("tape {turn}")));
            }
            messages.push(said("user", format!("question {turn}")));
            let body = json!({"model": "m", "messages": messages, "stream": true, "max_tokens": 5});
            requests.push(Request {
                index: requests.len() as u64,
                offset_ns: u64::from(turn) * 20 * MS,
                method: "POST".to_owned(),
                path: "/v1/chat/completions".to_owned(),
                body: body.to_string().into_bytes(),
                input_tokens: Some(9),
                output_tokens: Some(5),
                session: Some(Session { id: format!("s{session}"), turn }),
            });
        }
    }
    for request in &requests {
        writer.write(request).unwrap();
    }
    writer.finish().unwrap();
    requests
}

/// The roles and texts of a chat request.
fn said(body: &str) -> Vec<String> {
    let body: Value = serde_json::from_str(body).unwrap();
    let messages = body["messages"].as_array().unwrap().iter();
    messages.map(|m| format!("{}: {}", m["role"].as_str().unwrap(), m["content"].as_str().unwrap())).collect()
}

#[test]
fn a_conversation_goes_on_from_what_the_server_said() {
    let mut stage = Stage::new(1, 1);
    stage.tape = stage.folder.path().join("talk.tape.zst");
    let requests = conversations(&stage.tape);
    // One session after the other, so that requests come in a known order.
    let order = [0, 2, 4, 1, 3, 5];
    let server = Server::start(|number| answer(&format!("real \"{number}\"")));
    let run = stage.replay(&server.url, &["--history", "answers", "--concurrency", "1"]);
    let bodies: Vec<String> = server.bodies.try_iter().collect();
    let expected = |from: usize, turn: usize| -> Vec<String> {
        let mut said = vec!["user: question 0".to_owned()];
        for turn in 1..=turn {
            said.push(format!("assistant: real \"{}\"", from + turn - 1));
            said.push(format!("user: question {turn}"));
        }
        said
    };
    for (number, body) in bodies.iter().enumerate() {
        assert_eq!(said(body), expected(number / 3 * 3, number % 3));
    }

    let workload = &run.info.workload;
    assert_eq!((run.info.traffic.behaviour.history, workload.rebuilt), (History::Answers, 4));
    // It is the tape's workload, and says that it was not sent as it stands there.
    assert_eq!(workload.tape_digest.as_ref(), Some(&workload.workload_digest));
    let mut sent = requests.clone();
    for (body, index) in bodies.into_iter().zip(order) {
        sent[index].body = body.into_bytes();
    }
    let digest = |requests: &[Request]| {
        let mut digest = WorkloadDigest::new();
        for request in requests {
            digest.add(request);
        }
        digest.finish()
    };
    assert_eq!(workload.wire_digest, digest(&sent));
    assert_eq!(workload.workload_digest, digest(&requests));
    let warnings = &run.info.verdict.warnings;
    assert!(warnings.iter().any(|warning| warning.starts_with("history: 4 of 6 ")), "{warnings:?}");
    // Nobody has counted the tokens of such a prompt.
    let counted: Vec<bool> = run.timelines.iter().map(|timeline| timeline.input_tokens.is_some()).collect();
    assert_eq!(counted, [true, true, false, false, false, false]);

    // Unasked, the tape's bodies are sent.
    let server = Server::start(|_| answer("real"));
    let run = stage.replay(&server.url, &["--concurrency", "1"]);
    let bodies: Vec<String> = server.bodies.try_iter().collect();
    for (body, index) in bodies.iter().zip(order) {
        assert_eq!(body.as_bytes(), requests[index].body);
    }
    assert_eq!((run.info.workload.rebuilt, &run.info.workload.wire_digest), (0, &digest(&requests)));
}

#[test]
fn a_turn_that_failed_leaves_the_tapes_words() {
    let mut stage = Stage::new(1, 1);
    stage.tape = stage.folder.path().join("talk.tape.zst");
    conversations(&stage.tape);
    let server = Server::start(|number| match number {
        0 | 3 => refusal("500 Oh", ""),
        _ => answer("real"),
    });
    let out = stage.out();
    let error = bad(1, stage.args(&server.url, &out, &["--history", "answers"]));
    assert!(error.contains("2 of 6 requests failed"), "{error}");
    let bodies: Vec<String> = server.bodies.try_iter().collect();
    assert_eq!(
        said(&bodies[2]),
        ["user: question 0", "assistant: tape 1", "user: question 1", "assistant: real", "user: question 2"]
    );
    assert_eq!(
        said(&bodies[5]),
        ["user: question 0", "user: question 1", "assistant: real", "user: question 2"]
    );
    assert_eq!(Run::load(&out).unwrap().info.workload.rebuilt, 2);
}

#[test]
fn a_tape_that_cannot_take_answers_is_refused() {
    let mut stage = Stage::new(1, 1);
    let path = stage.folder.path().join("talk.tape.zst");
    let reader_of = Stage::new(2, 1);
    let reader = Reader::open(&reader_of.tape).unwrap();
    let mut writer = Writer::new(File::create(&path).unwrap(), reader.header()).unwrap();
    for request in reader.requests() {
        let mut request = request.unwrap();
        request.session = Some(Session { id: "s".to_owned(), turn: u32::try_from(request.index).unwrap() });
        writer.write(&request).unwrap();
    }
    writer.finish().unwrap();
    stage.tape = path;
    let server = Server::start(|_| answer("x"));
    let out = stage.out();
    let error = bad(3, stage.args(&server.url, &out, &["--history", "answers"]));
    assert!(
        error.contains("request 1: cannot take the server's answers") && error.contains("--history"),
        "{error}"
    );
    assert_eq!(server.bodies.try_iter().count(), 0);
}

#[test]
fn a_think_time_takes_the_place_of_the_tapes() {
    let mut stage = Stage::new(1, 1);
    stage.tape = stage.folder.path().join("talk.tape.zst");
    conversations(&stage.tape);
    let mock = Mock::start(&["--model", "m"]);
    for more in [&["--concurrency", "2", "--workers", "2"][..], &["--as-recorded"]] {
        for history in ["answers", "recorded"] {
            let run =
                stage.replay(&mock.url, &[more, &["--think-time", "30ms", "--history", history]].concat());
            for place in 2..6 {
                let (turn, before) = (&run.timelines[place], &run.timelines[place - 2]);
                assert_eq!(turn.scheduled_ns, before.end_ns + 30 * MS);
                assert!(turn.dispatched_ns >= turn.scheduled_ns);
            }
            assert_eq!(run.info.traffic.behaviour.think_ns, Some(30 * MS));
        }
    }
}
