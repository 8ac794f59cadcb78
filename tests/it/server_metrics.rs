//! The server's own metrics beside the client's, from a server whose counters move.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokentape::run::Run;

use crate::support::{Mock, bad, good, read_request, stream_of, tape};

/// How the server answers to `GET /metrics`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Metrics {
    /// In full.
    Good,
    /// The first time alone; then with status 500.
    Once,
    /// Not at all, to nothing but requests of the tape.
    Silent,
}

/// A server that counts, with a hundred requests behind it.
struct Counting {
    url: String,
    /// The head of each GET.
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Default)]
struct State {
    begun: AtomicU64,
    ended: AtomicU64,
    scrapes: AtomicU64,
}

impl Counting {
    fn start(metrics: Metrics) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/gate/v1", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (state, heads) = (Arc::new(State::default()), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, state, heads) = (stream.unwrap(), Arc::clone(&state), Arc::clone(&heads));
                thread::spawn(move || while answer(&mut stream, metrics, &state, &heads).is_some() {});
            }
        });
        Self { url, asked }
    }

    /// The paths that were asked for besides the tape's, in order.
    fn paths(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect()
    }
}

/// Answers one request; none when the client has gone.
fn answer(stream: &mut TcpStream, metrics: Metrics, state: &State, heads: &Mutex<Vec<String>>) -> Option<()> {
    let head = String::from_utf8(read_request(stream)?).unwrap();
    if head.starts_with("POST") {
        state.begun.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(150));
        let events = [r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#, "[DONE]"];
        state.ended.fetch_add(1, Ordering::SeqCst);
        return stream.write_all(&stream_of(&events, false)).ok();
    }
    let path = head.split(' ').nth(1).unwrap().to_owned();
    heads.lock().unwrap().push(head);
    if metrics == Metrics::Silent {
        // Holds the connection until the client goes.
        return read_request(stream).map(drop);
    }
    let (status, body) = match path.as_str() {
        "/gate/version" => (200, r#"{"version":"0.99.0"}"#.to_owned()),
        "/gate/v1/models" => (200, r#"{"data":[{"id":"served","max_model_len":512}]}"#.to_owned()),
        "/gate/metrics" => match state.scrapes.fetch_add(1, Ordering::SeqCst) {
            1.. if metrics == Metrics::Once => (500, String::new()),
            _ => (200, exposition(state)),
        },
        _ => (404, String::new()),
    };
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).ok()
}

/// Each request had its first token after 12 ms, by the server's own clock; those of before it after 900 ms.
fn exposition(state: &State) -> String {
    let (begun, ended) = (state.begun.load(Ordering::SeqCst), state.ended.load(Ordering::SeqCst));
    let (running, all) = (begun - ended, 100 + ended);
    let sum = 90.0 + 0.012 * ended as f64;
    format!(
        "# TYPE vllm:num_requests_running gauge\n\
         vllm:num_requests_running{{engine=\"0\",model_name=\"served\"}} {running}.0\n\
         vllm:kv_cache_usage_perc{{engine=\"0\"}} {}\n\
         vllm:generation_tokens_total{{engine=\"0\"}} {all}.0\n\
         vllm:request_success_total{{engine=\"0\",finished_reason=\"length\"}} {all}.0\n\
         vllm:request_success_total{{engine=\"0\",finished_reason=\"abort\"}} 7.0\n\
         vllm:time_to_first_token_seconds_bucket{{engine=\"0\",le=\"0.01\"}} 0.0\n\
         vllm:time_to_first_token_seconds_bucket{{engine=\"0\",le=\"0.02\"}} {ended}.0\n\
         vllm:time_to_first_token_seconds_bucket{{engine=\"0\",le=\"+Inf\"}} {all}.0\n\
         vllm:time_to_first_token_seconds_count{{engine=\"0\"}} {all}.0\n\
         vllm:time_to_first_token_seconds_sum{{engine=\"0\"}} {sum}\n",
        running as f64 / 10.0,
    )
}

/// Replays six requests, two at a time; gives the run and what was printed.
fn replay(folder: &Path, url: &str, more: &[&str]) -> (Run, String) {
    let (tape_path, run) = (folder.join("t.tape.zst"), folder.join("run"));
    tape(&tape_path, 6, &[]);
    let mut args = vec!["replay", tape_path.to_str().unwrap(), "--url", url, "--concurrency", "2"];
    args.extend(["-o", run.to_str().unwrap()]);
    args.extend(more);
    let printed = good(args);
    (Run::load(&run).unwrap(), printed)
}

#[test]
fn the_servers_figures_stand_beside_the_clients() {
    let folder = tempfile::tempdir().unwrap();
    let server = Counting::start(Metrics::Good);
    let more = ["--scrape-interval", "100ms", "--header", "X-Key: hush"];
    let (run, printed) = replay(folder.path(), &server.url, &more);
    let told = run.info.server.unwrap();
    assert_eq!(told.version.as_deref(), Some("0.99.0"));
    let model = told.model.unwrap();
    assert_eq!((model.id.as_str(), model.max_model_len), ("served", Some(512)));
    let figures = told.figures.unwrap();
    // What was there before the run is not in the figures.
    assert_eq!((figures.all_finished(), figures.finished["length"], figures.generation_tokens), (6, 6, 6));
    let ttft = figures.ttft_ms.unwrap();
    assert_eq!(ttft.count, 6);
    assert!((ttft.mean - 12.0).abs() < 1e-6, "{}", ttft.mean);
    assert_eq!((ttft.p50.above, ttft.p50.up_to, ttft.p50.interpolated), (10.0, Some(20.0), Some(15.0)));
    // Three rounds of 150 ms, and a sample each 100 ms.
    assert!(figures.samples >= 2 && figures.failed_scrapes == 0, "{figures:?}");
    assert!(figures.interval_s >= 0.45, "{figures:?}");
    let (running, usage) = (figures.running.unwrap(), figures.kv_cache_usage.unwrap());
    assert_eq!((running.max, usage.max), (2.0, 0.2));
    assert!(running.mean > 0.0, "{figures:?}");

    let row = printed.lines().find(|line| line.starts_with("TTFT") && line.contains("12.00")).unwrap();
    // The server says 12 ms, the client saw at least 150.
    let difference: f64 = row.split_whitespace().last().unwrap().parse().unwrap();
    assert!(difference >= 138.0, "{row}");
    assert!(printed.contains("\nServer finished             6, 6 length; the client's 6\n"), "{printed}");
    let run_folder = folder.path().join("run");
    let summary = fs::read_to_string(run_folder.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["server"]["figures"]["finished"]["length"], 6);
    assert!(good(["report", run_folder.to_str().unwrap()]).contains("\nServer (ms) "));

    // The base path and the headers are the run's; their values are nowhere.
    let asked = server.asked.lock().unwrap();
    assert!(asked.iter().all(|head| head.starts_with("GET /gate/") && head.contains("hush")));
    assert!(!fs::read_to_string(run_folder.join("run.json")).unwrap().contains("hush"));
}

#[test]
fn what_the_server_counts_beside_the_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Counting::start(Metrics::Good);
    let (run, printed) = replay(folder.path(), &server.url, &["--requests", "4", "--warmup", "2"]);
    let figures = run.info.server.unwrap().figures.unwrap();
    assert_eq!((figures.all_finished(), figures.warmup), (6, 2));
    assert!(printed.contains("6, 6 length; the client's 4 and 2 of its warm-up\n"), "{printed}");
    // Half a second is shorter than the interval.
    assert_eq!((figures.samples, figures.running), (0, None));
    assert!(printed.contains("none: the run was shorter than --scrape-interval\n"), "{printed}");
}

#[test]
fn no_scrape_asks_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Counting::start(Metrics::Good);
    let (run, printed) = replay(folder.path(), &server.url, &["--no-scrape"]);
    assert_eq!(run.info.server, None);
    assert!(server.paths().is_empty() && !printed.contains("Server"), "{printed}");
}

#[test]
fn a_scrape_never_fails_a_run() {
    for metrics in [Metrics::Once, Metrics::Silent] {
        let folder = tempfile::tempdir().unwrap();
        let server = Counting::start(metrics);
        let (run, _) = replay(folder.path(), &server.url, &["--scrape-interval", "100ms"]);
        assert_eq!(run.info.counts.succeeded, 6, "{metrics:?}");
        let figures = run.info.server.and_then(|server| server.figures);
        assert_eq!(figures, None, "{metrics:?}");
        // A server that does not answer is not asked twice.
        assert_eq!(server.paths().len() == 1, metrics == Metrics::Silent, "{:?}", server.paths());
    }
}

#[test]
fn the_mock_counts_what_it_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mock = Mock::start(&["--model", "tokentape"]);
    let (run, _) = replay(folder.path(), &mock.url, &[]);
    let told = run.info.server.unwrap();
    assert!(told.version.is_some());
    assert_eq!(told.figures.unwrap().all_finished(), run.info.counts.succeeded);
}

#[test]
fn a_server_without_metrics_is_known_by_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let mock = Mock::start(&["--model", "tokentape", "--profile", "openai"]);
    let (run, printed) = replay(folder.path(), &mock.url, &[]);
    let told = run.info.server.unwrap();
    assert!(told.version.is_none() && told.figures.is_none());
    assert_eq!(told.model.unwrap().id, "tokentape");
    assert!(!printed.contains("Server finished"), "{printed}");
}

#[test]
fn an_interval_that_would_be_load_is_refused() {
    let error = bad(2, ["replay", "t", "--url", "http://h", "--scrape-interval", "5ms", "-o", "r"]);
    assert!(error.contains("100ms"), "{error}");
}
