//! Faults of the mock server: what each does to the wire, and what replay makes of it (docs/mock-faults.md).

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use tokentape::run::Run;
use tokentape_mock::faults;
use tokentape_mock::truth::{self, Outcome, Record};

use crate::support::{LENIENT, Mock, request, shown, tape, tokentape};

/// The document whose tables are checked.
const DOCUMENT: &str = include_str!("../../docs/mock-faults.md");

/// The cells of the rows of the table whose heading begins with `first`; the first cell without its backquotes.
fn table(first: &str) -> Vec<Vec<&'static str>> {
    let heading = format!("| {first} |");
    let rows = DOCUMENT.lines().skip_while(|line| !line.starts_with(&heading)).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect())
        .collect()
}

/// Replays a tape with a header that asks for faults; gives the exit code and the run.
fn replay(tape: &Path, mock: &Mock, fault: &str, timeout: &str, run: &Path) -> (i32, Run) {
    let output = tokentape(["replay", tape.to_str().unwrap(), "--url", &mock.url, "-o"])
        .arg(run)
        .args(["--concurrency", "2", "--no-scrape", "--verdict", LENIENT, "--timeout", timeout])
        .args(["--header", &format!("x-mock-fault: {fault}")])
        .output()
        .unwrap();
    let run = Run::load(run).unwrap_or_else(|error| panic!("{fault}: {error}: {}", shown(&output)));
    (output.status.code().unwrap(), run)
}

#[test]
fn every_fault_is_documented_as_it_is_written() {
    let documented: Vec<String> = table("fault").iter().map(|row| row[0].to_owned()).collect();
    let written: Vec<String> = faults::KINDS.iter().map(|(kind, args)| format!("{kind}{args}")).collect();
    assert_eq!(documented, written);
    let scored = table("injected");
    for (kind, _) in faults::KINDS {
        assert!(scored.iter().any(|row| row[0].split(':').next() == Some(kind)), "{kind} is not scored");
    }
}

#[test]
fn replay_reports_each_fault_by_its_kind() {
    score("injected", &[]);
}

#[test]
fn faults_of_responses_are_reported_by_their_kind() {
    score("injected, /v1/responses", &["--api", "responses"]);
}

#[test]
fn faults_of_embeddings_are_reported_by_their_kind() {
    score("injected, /v1/embeddings", &["--api", "embeddings"]);
}

/// Runs each row of a table, with a tape made so.
fn score(heading: &str, generate: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (tape_path, log) = (folder.path().join("t.tape.zst"), folder.path().join("truth.jsonl"));
    tape(&tape_path, 4, generate);
    let mock = Mock::start(&["--model", "tokentape", "--truth-log", log.to_str().unwrap()]);
    let rows = table(heading);
    assert!(rows.len() > 10, "{heading}");
    let mut wrong = Vec::new();
    for row in &rows {
        let [fault, outcome, exit, verdict, events, _] = row[..] else { panic!("{row:?}") };
        // Only what hangs is to run into the limit, however slow the machine.
        let timeout = if outcome == "timeout" { "500ms" } else { "1m" };
        let run_path = folder.path().join(fault.replace([':', ','], "_"));
        let (code, run) = replay(&tape_path, &mock, fault, timeout, &run_path);
        let counts = &run.info.counts;
        let (kinds, succeeded) = match outcome {
            "success" => (BTreeMap::new(), 4),
            kind => (BTreeMap::from([(kind.to_owned(), 4)]), 0),
        };
        let output_events: Vec<String> = run
            .timelines
            .iter()
            .map(|timeline| {
                timeline.events.facts.iter().filter(|facts| facts.is_output()).count().to_string()
            })
            .collect();
        let found = (&counts.failed, counts.succeeded, code.to_string(), run.info.verdict.valid);
        let expected = (&kinds, succeeded, exit.to_owned(), verdict == "VALID");
        if found != expected || output_events != [events; 4] || counts.requests != 4 {
            wrong.push(format!("{fault}: {found:?}, {output_events:?}"));
        }
    }
    mock.stop();
    assert!(wrong.is_empty(), "{heading}: {}", wrong.join("\n"));

    // Each answer's record says what was done to it, and how it ended.
    let records = truth::read(&log).unwrap().records;
    assert_eq!(records.len(), 4 * rows.len());
    for (row, records) in rows.iter().zip(records.chunks(4)) {
        let injected: Vec<&str> = row[0].split(',').filter(|fault| *fault != "none").collect();
        for Record { faults, outcome, .. } in records {
            assert_eq!(faults.iter().map(|fault| reduced(fault)).collect::<Vec<_>>(), injected, "{row:?}");
            let outcome = if *outcome == Outcome::Complete { "complete" } else { "fault" };
            assert_eq!(outcome, row[5], "{row:?}");
        }
    }
}

/// A fault as the table writes it: `comments` for `comments:1`, its default.
fn reduced(fault: &str) -> &str {
    if fault == "comments:1" { "comments" } else { fault }
}

#[test]
fn faults_by_chance_and_by_number_are_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let (tape_path, log) = (folder.path().join("t.tape.zst"), folder.path().join("truth.jsonl"));
    tape(&tape_path, 40, &[]);
    let log = log.to_str().unwrap();
    let mock = Mock::start(&["--truth-log", log, "--fault", "status:503:1@1/8,rst@30%", "--seed", "5"]);
    let run_path = folder.path().join("run");
    let output = tokentape(["replay", tape_path.to_str().unwrap(), "--url", &mock.url, "-o"])
        .arg(&run_path)
        .args(["--concurrency", "4", "--no-scrape"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    mock.stop();
    let counts = Run::load(&run_path).unwrap().info.counts;
    let records = truth::read(Path::new(log)).unwrap().records;
    assert_eq!(records.len(), 40);
    let with = |name: &str| {
        records.iter().filter(|r| r.faults.first().is_some_and(|fault| fault.starts_with(name))).count()
            as u64
    };
    // A status comes in the place of an answer, whatever else was drawn.
    assert_eq!((with("status"), counts.failed["status"]), (5, 5));
    assert!(with("rst") > 0);
    assert_eq!(counts.failed["truncated"], with("rst"));
    assert_eq!(counts.succeeded, 35 - with("rst"));
}

/// What comes back on a connection of its own, to its end; and whether that end is a reset.
fn raw(mock: &Mock, fault: &str, stream: bool) -> (String, bool) {
    let mut socket = TcpStream::connect(mock.url.strip_prefix("http://").unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let body = format!(r#"{{"prompt":[5,6,7],"max_tokens":4,"stream":{stream}}}"#);
    let head =
        "POST /v1/completions HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-type: application/json";
    let head = format!("{head}\r\ncontent-length: {}\r\nx-mock-fault: {fault}\r\n\r\n", body.len());
    socket.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let is_reset = match socket.read_to_end(&mut answer) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{fault}");
            true
        }
    };
    (String::from_utf8_lossy(&answer).into_owned(), is_reset)
}

/// The chunks of an answer's body, and what is left of it behind the last whole one.
fn chunks(answer: &str) -> (Vec<&str>, &str) {
    let mut rest = answer.split_once("\r\n\r\n").unwrap().1;
    let mut chunks = Vec::new();
    while let Some((length, body)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if body.len() < length + 2 {
            break;
        }
        chunks.push(&body[..length]);
        rest = &body[length + 2..];
    }
    (chunks, rest)
}

#[test]
fn connections_end_as_asked() {
    let mock = Mock::start(&[]);
    let (whole, reset) = raw(&mock, "none", true);
    assert_eq!((chunks(&whole).0.len(), chunks(&whole).0[5], reset), (6, "", false));
    for (fault, count, is_reset) in [("fin:2", 2, false), ("rst:2", 2, true)] {
        let (answer, reset) = raw(&mock, fault, true);
        assert_eq!((chunks(&answer).0.len(), chunks(&answer).1, reset), (count, "", is_reset), "{fault}");
    }
    let (answer, reset) = raw(&mock, "cut-chunk:1", true);
    let (before, rest) = chunks(&answer);
    let (length, half) = rest.split_once("\r\n").unwrap();
    assert_eq!((before.len(), reset), (1, false));
    assert_eq!(usize::from_str_radix(length, 16).unwrap() / 2, half.len());
    assert_eq!(raw(&mock, "refuse", true), (String::new(), false));

    let (answer, reset) = raw(&mock, "fin", false);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-length: ") && body.is_empty() && !reset, "{answer}");
}

#[test]
fn events_are_written_as_asked() {
    let mock = Mock::start(&[]);
    let (merged, _) = raw(&mock, "merge:2", true);
    let counts: Vec<usize> = chunks(&merged).0.iter().map(|chunk| chunk.matches("data: ").count()).collect();
    assert_eq!(counts, [2, 2, 1, 0]);
    let (split, _) = raw(&mock, "split:3", true);
    assert_eq!(chunks(&split).0.len(), 15 + 1);

    let (answer, _) = raw(&mock, "status:429:7", true);
    assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
    assert!(answer.contains("\r\nretry-after: 7\r\n"), "{answer}");

    let (answer, _) = raw(&mock, "explode", true);
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("there is no fault `explode`"),
        "{answer}"
    );

    let (answer, _) = raw(&mock, "bad-json,split:2", false);
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(body.starts_with("{\"id\":") && !body.ends_with('}'), "{answer}");
}

/// Whoever decides the bytes and the moments, faults are done to them.
#[test]
fn every_profile_and_an_engine_have_faults() {
    let speaks =
        ["vllm-0.11.0", "vllm-0.32.0", "vllm-0.33.0", "openai"].map(|profile| ["--profile", profile]);
    for args in speaks.into_iter().chain([["--engine", "fixed"]]) {
        let mock = Mock::start_with(&args);
        let (whole, _) = raw(&mock, "none", true);
        let (cut, reset) = raw(&mock, "rst:2", true);
        assert_eq!((chunks(&cut).0.len(), chunks(&cut).1, reset), (2, "", true), "{args:?}");
        let (no_end, _) = raw(&mock, "no-done,crlf", true);
        assert_eq!(chunks(&no_end).0.len() + 1, chunks(&whole).0.len(), "{args:?}");
        assert!(!no_end.contains("[DONE]") && no_end.contains("}\r\n\r\n"), "{args:?}: {no_end}");
        let (answer, _) = raw(&mock, "status:503", false);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"error\""), "{args:?}: {answer}");
        let (halved, _) = raw(&mock, "bad-json", false);
        assert!(halved.starts_with("HTTP/1.1 200 ") && !halved.ends_with('}'), "{args:?}: {halved}");
        let (failed, _) = raw(&mock, "error:2", true);
        let code = if args.contains(&"openai") { "null" } else { "500" };
        let code = if args.contains(&"vllm-0.11.0") || args[0] == "--engine" { "400" } else { code };
        let error = chunks(&failed).0[2].replace(": ", ":");
        assert!(error.contains(&format!("\"code\":{code}}}")), "{args:?}: {error}");
    }
}

/// A request that brings its own rules is counted among those that do.
#[test]
fn a_header_can_ask_for_every_nth() {
    let mock = Mock::start(&[]);
    let statuses = (0..6).map(|_| raw(&mock, "status:503@1/3", true).0.starts_with("HTTP/1.1 503 "));
    assert_eq!(statuses.collect::<Vec<_>>(), [false, false, true, false, false, true]);
}

/// vLLM's own counts of what was answered know an injected status as what the client saw.
#[test]
fn metrics_count_what_was_sent() {
    let mock = Mock::start(&[]);
    for (fault, stream) in [("status:503", true), ("status:503", false), ("crlf", true), ("delay:1ms", false)]
    {
        raw(&mock, fault, stream);
    }
    // An answer is counted when its last write has returned, which its reader may see first. Counts are listed in the
    // order of their first answers.
    let counted = |metrics: &str| -> Vec<String> {
        let lines = metrics.lines().filter(|line| {
            line.starts_with("http_requests_total{") && line.contains("handler=\"/v1/completions\"")
        });
        lines.filter_map(|line| Some(line.split_once("status=")?.1.to_owned())).collect()
    };
    let scrape = || request(&mock.url, "GET", "/metrics", "").1;
    let settled =
        (0..1000).map(|_| scrape()).find(|metrics| counted(metrics) == ["\"5xx\"} 2.0", "\"2xx\"} 2.0"]);
    let metrics = settled.unwrap_or_else(|| panic!("{:?}", counted(&scrape())));
    assert!(metrics.contains("vllm:num_requests_running{engine=\"0\",model_name=\"tokentape\"} 0.0"));
}
