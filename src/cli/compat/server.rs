//! The server that a peer's command line names, and the requests that a peer makes of it beside the measured ones.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Uri};
use tokio::sync::watch;

use crate::cli::Failure;
use crate::replay::plan::Prepared;
use crate::replay::side::{self, Answer};
use crate::replay::{Error, Target};
use crate::timeline::Outcome;

/// A URL in two parts: the server, and the path of the endpoint with its query.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) target: Target,
    pub(super) path: String,
}

impl Server {
    /// Takes a URL apart. The path is sent as it is, as the peers do.
    pub(super) fn new(url: &str) -> Result<Self, Failure> {
        let wrong = |reason: String| Error::Url { url: "the server's URL".to_owned(), reason };
        let uri: Uri = url.parse().map_err(|error| wrong(format!("{error}")))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let origin = match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(authority)) => format!("{scheme}://{authority}"),
            // Refused there, in words.
            _ => url.to_owned(),
        };
        let mut target = Target::new(&origin)?;
        target.title_case = true;
        Ok(Self { target, path })
    }
}

/// One side request, answered or not.
pub(super) fn ask(
    target: &Target,
    path: &str,
    headers: HeaderMap,
    body: Vec<u8>,
    timeout: Duration,
) -> Result<Answer, Failure> {
    let uri: Uri = path.parse().map_err(|_| Failure::usage(format_args!("'{path}' is not a path")))?;
    Ok(side::send(target, &side::request(uri, headers, Bytes::from(body)), timeout, &never())?)
}

/// What never turns true: until a run watches for signals, one ends the program.
pub(super) fn never() -> watch::Receiver<bool> {
    watch::channel(false).1
}

/// Waits, unless it is interrupted.
pub(super) fn pause(duration: Duration, interrupt: &watch::Receiver<bool>) -> Result<(), Failure> {
    let end = Instant::now() + duration;
    while !*interrupt.borrow() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    Err(Failure::run("interrupted"))
}

/// Sends a request again and again until `is_good`, with `retry` between two tries and no longer than `limit`.
pub(super) fn until_ready(
    target: &Target,
    request: &Prepared,
    (retry, limit): (Duration, Duration),
    interrupt: &watch::Receiver<bool>,
    is_good: impl Fn(&Answer) -> bool,
) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        let answer = side::send(target, request, limit, interrupt)?;
        if is_good(&answer) {
            return Ok(());
        }
        if answer.outcome == Outcome::Cancelled {
            return Err(Failure::run("interrupted"));
        }
        // The peers wait on after a refusal too; what a server refuses for good, waiting does not mend.
        let for_good = matches!(answer.status, Some(400..=499));
        let left = limit.saturating_sub(start.elapsed());
        if for_good || left.is_zero() {
            return Err(Failure::run(format_args!(
                "the test request to {} failed: {}; is the server ready, and are the model and the endpoint right?",
                target.url,
                answer.failure()
            )));
        }
        eprintln!("note: {} is not ready ({}); trying again", target.url, answer.failure());
        pause(retry.min(left), interrupt)?;
    }
}
