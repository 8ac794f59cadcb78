//! A recorder that is killed leaves a tape that has every answered request.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokentape::tape::{Entry, ErrorKind, Outcome, Salvage};

use super::{Recorder, connect, dechunked, post};
use crate::support::Mock;

use std::io::{Read, Write};

/// Clients at a time.
const CLIENTS: usize = 6;

/// Kills a recorder under load once this many answers have been seen whole. Gives how many requests were answered.
fn kill_after(mock: &Mock, answers: usize) -> usize {
    let folder = TempDir::new().unwrap();
    let mut recorder = Recorder::start(&mock.url, folder.path(), &[]);
    let next = AtomicUsize::new(0);
    let whole = AtomicUsize::new(0);
    // Of each body, what was seen of its answer: whether it was whole, and its bytes.
    let answered = Mutex::new(HashMap::new());
    let url = recorder.url.clone();
    std::thread::scope(|scope| {
        let client = |_| {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let body = format!(
                        r#"{{"model":"tokentape","prompt":"request {number}","max_tokens":{},"stream":true}}"#,
                        1 + number % 7
                    );
                    let Ok(mut socket) = std::net::TcpStream::connect(url.strip_prefix("http://").unwrap()) else {
                        return;
                    };
                    if socket.write_all(&post("/v1/completions", body.as_bytes())).is_err() {
                        return;
                    }
                    let mut answer = Vec::new();
                    let read = socket.read_to_end(&mut answer);
                    let is_whole = answer.ends_with(b"\r\n0\r\n\r\n");
                    if !answer.is_empty() {
                        let body_at = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4);
                        let seen = body_at.filter(|_| is_whole).map(|at| dechunked(&answer[at..]));
                        answered.lock().unwrap().insert(body, seen);
                    }
                    if !is_whole || read.is_err() {
                        return;
                    }
                    whole.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        while whole.load(Ordering::Relaxed) < answers {
            std::thread::sleep(Duration::from_micros(100));
            assert!(clients.iter().any(|client| !client.is_finished()), "no client is left");
        }
        recorder.process.kill().unwrap();
    });
    let answered = answered.into_inner().unwrap();
    let mut requests = HashMap::new();
    let mut responses = HashMap::new();
    let mut end = None;
    for entry in Salvage::open(&recorder.tape).unwrap().entries() {
        match entry {
            Ok(Entry::Request(request)) => drop(requests.insert(request.index, request.body)),
            Ok(Entry::Response(response)) => drop(responses.insert(response.index, response)),
            Err(error) => end = Some(error),
        }
    }
    let Some(end) = end else { panic!("a recorder that was killed wrote a footer") };
    assert!(matches!(end.kind(), ErrorKind::Truncated { .. }), "{end}");
    let places: HashMap<&[u8], u64> =
        requests.iter().map(|(index, body)| (body.as_slice(), *index)).collect();
    for (body, seen) in &answered {
        let index = places.get(body.as_bytes()).unwrap_or_else(|| panic!("{body} was answered, and is lost"));
        if let Some(seen) = seen {
            let response = responses.get(index).unwrap_or_else(|| panic!("the answer to {body} is lost"));
            assert_eq!((response.outcome, &response.body), (Outcome::Complete, seen), "{body}");
        }
    }
    answered.len()
}

fn rounds(count: usize) {
    let mock = Mock::start(&[]);
    drop(connect(&mock.url));
    let answered: usize = (0..count).map(|round| kill_after(&mock, (round * 37 + 1) % 200)).sum();
    assert!(answered >= count, "{answered}");
    println!("{count} recorders were killed; every one of {answered} answered requests was read");
}

#[test]
fn a_killed_recorder_loses_no_answered_request() {
    rounds(8);
}

/// `cargo test --test it a_hundred_killed -- --ignored --nocapture`
#[test]
#[ignore = "a minute of load"]
fn a_hundred_killed_recorders_lose_no_answered_request() {
    rounds(100);
}
