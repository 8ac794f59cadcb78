//! Replay: through the binary, over real sockets, into a run's folder.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use tokentape::replay::plan::PlanOptions;
use tokentape::replay::{Options, Plan, Target};
use tokentape::run::Run;
use tokentape::tape::Reader;
use tokentape::timeline::{Facts, Timeline};
use tokentape::truth::{self, Truth};
use tokio::sync::watch;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::{
    LENIENT, Mock, Scripted, failed, good, read_request, signal, stream_of, tape, tokentape,
};

fn replay(tape: &Path, url: &str, run: &Path, more: &[&str]) -> Run {
    let mut args = vec!["replay", tape.to_str().unwrap(), "--url", url, "-o", run.to_str().unwrap()];
    args.extend(more);
    good(args);
    Run::load(run).unwrap()
}

#[test]
fn the_whole_way() {
    let folder = tempfile::tempdir().unwrap();
    let (tape_path, log) = (folder.path().join("t.tape.zst"), folder.path().join("truth.jsonl"));
    tape(&tape_path, 24, &[]);
    let mock = Mock::start(&["--model", "tokentape", "--truth-log", log.to_str().unwrap()]);
    let more = ["--concurrency", "5", "--verdict", LENIENT];
    let run = replay(&tape_path, &mock.url, &folder.path().join("run"), &more);
    mock.stop();

    let counts = &run.info.counts;
    assert_eq!((counts.requests, counts.succeeded, counts.unaccounted()), (24, 24, 0));
    assert!(run.info.verdict.valid);
    assert_eq!(run.info.workload.workload_digest, run.info.workload.wire_digest);
    assert_eq!(run.timelines.len(), 24);
    for timeline in &run.timelines {
        assert_eq!(timeline.usage.unwrap().completion_tokens, 7);
        assert_eq!(timeline.stamped_events().filter(|(_, facts)| facts.is_output()).count(), 7);
        assert!(timeline.events.facts.last().unwrap().has(Facts::DONE));
        let moments = [
            Some(timeline.scheduled_ns),
            Some(timeline.dispatched_ns),
            timeline.head_ns,
            Some(timeline.event_ns(0)),
            Some(timeline.end_ns),
        ];
        assert!(moments.iter().all(Option::is_some) && moments.is_sorted(), "{moments:?}");
        // A fast server's answer can have arrived before the write of the request returns.
        assert!(timeline.written_ns.unwrap() > timeline.dispatched_ns);
    }
    // Tape order is send order, and no more requests are in flight than were asked for.
    assert!(run.timelines.is_sorted_by_key(|timeline| timeline.dispatched_ns));
    for timeline in &run.timelines {
        let at = timeline.dispatched_ns;
        let in_flight =
            run.timelines.iter().filter(|other| other.dispatched_ns <= at && at < other.end_ns).count();
        assert!(in_flight <= 5);
    }

    // Every token is in the truth log, and no read comes before its write began.
    let truth = tokentape_mock::truth::read(&log).unwrap().records;
    assert_eq!(truth.len(), 24);
    let truths: HashMap<String, Truth> =
        truth.iter().map(|record| (record.id.clone(), Truth::of(record))).collect();
    let check = truth::check(&run.timelines, &truths);
    assert_eq!((check.matched, check.unmatched), (24, 0));
    for record in &truth {
        let timeline = run.timelines.iter().find(|t| t.response_id.as_deref() == Some(&record.id)).unwrap();
        assert!(run.info.start_monotonic_ns + timeline.dispatched_ns < record.arrival_ns);
    }
}

#[test]
fn the_model_is_replaced_and_both_digests_are_stamped() {
    let folder = tempfile::tempdir().unwrap();
    let tape_path = folder.path().join("t.tape.zst");
    tape(&tape_path, 3, &["--api", "completions"]);
    let mock = Mock::start(&["--model", "served \"name\""]);
    let run = replay(&tape_path, &mock.url, &folder.path().join("run"), &["--model", "served \"name\""]);
    assert_eq!(run.info.counts.succeeded, 3);
    assert_ne!(run.info.workload.workload_digest, run.info.workload.wire_digest);
    assert!(run.timelines.iter().all(|t| t.events.facts.iter().any(|facts| facts.has(Facts::COMPLETION))));
}

#[test]
fn warmup_is_sent_and_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let (tape_path, log) = (folder.path().join("t.tape.zst"), folder.path().join("truth.jsonl"));
    tape(&tape_path, 10, &[]);
    let mock = Mock::start(&["--model", "tokentape", "--truth-log", log.to_str().unwrap()]);
    let more = ["--requests", "6", "--warmup", "3", "--concurrency", "2", "--workers", "2"];
    let run = replay(&tape_path, &mock.url, &folder.path().join("run"), &more);
    mock.stop();
    assert_eq!(run.timelines.iter().map(|t| t.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!((run.info.traffic.warmup, run.info.traffic.warmup_failures), (3, 0));
    assert_eq!(tokentape_mock::truth::read(&log).unwrap().records.len(), 9);
}

#[test]
fn secrets_are_sent_and_kept_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let tape_path = folder.path().join("t.tape.zst");
    tape(&tape_path, 1, &[]);
    let token = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#;
    let server = Scripted::start(stream_of(&[token, "[DONE]"], false));
    let run = folder.path().join("run");
    let output = tokentape(["replay", tape_path.to_str().unwrap(), "--url", &server.url])
        .args(["--api-key-env", "A_KEY", "--header", "X-Other: hush-hush", "-o", run.to_str().unwrap()])
        .env("A_KEY", "sk-very-secret")
        .output()
        .unwrap();
    assert!(output.status.success());
    let request = String::from_utf8(server.requests.recv().unwrap()).unwrap();
    assert!(
        request.contains("authorization: Bearer sk-very-secret") && request.contains("x-other: hush-hush")
    );
    let mut kept = vec![output.stdout, output.stderr];
    for file in fs::read_dir(&run).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let is_zstd = path.extension().is_some_and(|extension| extension == "zst");
        kept.push(if is_zstd { zstd::bulk::decompress(&bytes, 1 << 20).unwrap() } else { bytes });
    }
    let kept = String::from_utf8(kept.concat()).unwrap();
    assert!(kept.contains("x-other"), "the header's name is on record");
    assert!(!kept.contains("sk-very-secret") && !kept.contains("hush-hush"), "{kept}");
}

#[test]
fn the_body_is_sent_as_the_tape_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let tape_path = folder.path().join("t.tape.zst");
    tape(&tape_path, 1, &["--extra-body", r#"{"note":"é \" ☃"}"#]);
    let record: serde_json::Value =
        serde_json::from_str(&good(["cat", tape_path.to_str().unwrap()])).unwrap();
    let token = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#;
    let server = Scripted::start(stream_of(&[token, "[DONE]"], false));
    replay(&tape_path, &format!("{}/v1", server.url), &folder.path().join("run"), &["--no-scrape"]);
    let request = String::from_utf8(server.requests.recv().unwrap()).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, record["body"].as_str().unwrap());
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
}

#[test]
fn an_interruption_keeps_what_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let (tape_path, run) = (folder.path().join("t.tape.zst"), folder.path().join("run"));
    tape(&tape_path, 9, &[]);
    let server = Scripted::start(Vec::new());
    let process =
        tokentape(["replay", tape_path.to_str().unwrap(), "--url", &server.url, "--concurrency", "2"])
            .args(["-o", run.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    for _ in 0..2 {
        server.requests.recv().unwrap();
    }
    signal(&process, "INT");
    let error = failed(1, &process.wait_with_output().unwrap());
    assert!(error.contains("interrupted: 9 of 9 requests"), "{error}");
    let run = Run::load(&run).unwrap();
    assert_eq!((run.info.counts.cancelled, run.info.counts.not_sent, run.timelines.len()), (2, 7, 9));
    assert!(!run.info.verdict.valid);
    assert!(run.timelines[0].dispatched_ns > 0 || run.timelines[1].dispatched_ns > 0);
}

#[test]
fn over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (tape_path, authority) = (folder.path().join("t.tape.zst"), folder.path().join("ca.pem"));
    tape(&tape_path, 2, &[]);
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&authority, certified.cert.pem()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], certified.signing_key.into())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("localhost:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let token = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            std::thread::spawn(move || {
                while read_request(&mut stream).is_some() {
                    stream.write_all(&stream_of(&[token, "[DONE]"], false)).unwrap();
                }
            });
        }
    });
    let ca = ["--ca-file", authority.to_str().unwrap()];
    let run = replay(&tape_path, &url, &folder.path().join("run"), &ca);
    assert_eq!(run.info.counts.succeeded, 2);
    let output = tokentape(["replay", tape_path.to_str().unwrap(), "--url", &url, "-o"])
        .arg(folder.path().join("untrusted"))
        .output()
        .unwrap();
    assert!(failed(1, &output).contains("certificate"));
}

/// A plan of `count` chat requests to a server, and the target.
fn plan(folder: &Path, url: &str, count: u32) -> (Plan, Target) {
    let path = folder.join("scheduled.tape.zst");
    tape(&path, count, &[]);
    let target = Target::new(url).unwrap();
    let reader = Reader::open(&path).unwrap();
    let plan = Plan::new(reader.requests(), u64::from(count), &target, &PlanOptions::default()).unwrap();
    (plan, target)
}

const MS: u64 = 1_000_000;

fn scheduled(url: &str, times_ms: &[u64], concurrency: Option<usize>, workers: usize) -> Vec<Timeline> {
    let folder = tempfile::tempdir().unwrap();
    let (plan, target) = plan(folder.path(), url, u32::try_from(times_ms.len()).unwrap());
    let options = Options {
        concurrency,
        schedule: Some(times_ms.iter().map(|ms| ms * MS).collect()),
        workers,
        ..Options::default()
    };
    let (_never, interrupt) = watch::channel(false);
    let report = tokentape::replay::run(&plan, &target, &options, &interrupt, &mut |_| {}).unwrap();
    assert!(report.timelines.iter().all(|timeline| timeline.outcome.is_success()));
    report.timelines
}

#[test]
fn an_open_loop_sends_each_request_at_its_own_time() {
    let mock = Mock::start(&["--model", "tokentape", "--ttft", "60ms"]);
    let times = [0, 0, 20, 25, 25, 40, 41, 200];
    for workers in [1, 2] {
        let timelines = scheduled(&mock.url, &times, None, workers);
        for (timeline, ms) in timelines.iter().zip(times) {
            assert_eq!(timeline.scheduled_ns, ms * MS);
            let late = timeline.dispatched_ns.checked_sub(timeline.scheduled_ns).expect("never too early");
            // A bound for a machine that does other things too; the pacer's own tests hold it to microseconds.
            assert!(late < 40 * MS, "{late} ns late");
        }
        // The first seven are all in flight before the first is answered, each on a connection of its own.
        let mut slots: Vec<u32> = timelines[..7].iter().map(|timeline| timeline.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), 7);
        assert!(timelines[7].connected_ns.is_none(), "a connection that is free is used again");
    }
}

#[test]
fn a_limited_open_loop_waits_for_a_slot_and_shows_the_wait() {
    let mock = Mock::start(&["--model", "tokentape", "--ttft", "60ms"]);
    let timelines = scheduled(&mock.url, &[0, 0, 10, 10, 300], Some(2), 1);
    let waits: Vec<u64> = timelines.iter().map(|t| t.dispatched_ns - t.scheduled_ns).collect();
    assert!(waits[2] > 45 * MS && waits[3] > 45 * MS, "{waits:?}");
    assert!(waits[0] < 40 * MS && waits[1] < 40 * MS && waits[4] < 40 * MS, "{waits:?}");
    for timeline in &timelines {
        let at = timeline.dispatched_ns;
        let in_flight = timelines.iter().filter(|o| o.dispatched_ns <= at && at < o.end_ns).count();
        assert!(in_flight <= 2);
    }
}

#[test]
fn an_interrupted_schedule_accounts_for_every_request() {
    let server = Scripted::start(Vec::new());
    for concurrency in [None, Some(3)] {
        let folder = tempfile::tempdir().unwrap();
        let (plan, target) = plan(folder.path(), &server.url, 5);
        let hour = 3_600_000 * MS;
        let options =
            Options { concurrency, schedule: Some(vec![0, 0, hour, hour, hour]), ..Options::default() };
        let (stop, interrupt) = watch::channel(false);
        let report = std::thread::scope(|scope| {
            let run = scope
                .spawn(|| tokentape::replay::run(&plan, &target, &options, &interrupt, &mut |_| {}).unwrap());
            server.requests.recv().unwrap();
            server.requests.recv().unwrap();
            stop.send_replace(true);
            run.join().unwrap()
        });
        let kinds: Vec<&str> = report.timelines.iter().map(|timeline| timeline.outcome.kind()).collect();
        assert_eq!(kinds, ["cancelled", "cancelled", "not_sent", "not_sent", "not_sent"]);
        assert!(report.interrupted);
    }
}

#[test]
fn a_compressed_answer_is_one_clear_failure() {
    let folder = tempfile::tempdir().unwrap();
    let tape_path = folder.path().join("t.tape.zst");
    tape(&tape_path, 1, &[]);
    let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x8b\x08";
    let server = Scripted::start(answer.to_vec());
    let run = folder.path().join("run");
    let output = tokentape(["replay", tape_path.to_str().unwrap(), "--url", &server.url])
        .args(["-o", run.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(failed(1, &output).contains("the response is compressed (gzip)"));
}
