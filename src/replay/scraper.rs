//! Reads the server's own metrics before a run, during it and after it, on a thread and on connections of its own.
//!
//! A run never fails because of it. A server that has no `/metrics`, or none with vLLM's names, is asked no more.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokentape_pacer::monotonic_ns;
use tokio::sync::watch;

use super::side::{self, Answer};
use super::{Error, Target};
use crate::scrape::{self, Figures, Reading, Server};

/// The time limit of each request: a server that is busy with the run may take long to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit before the run: what does not answer then keeps the run waiting.
const FIRST_TIMEOUT: Duration = Duration::from_secs(2);
/// Between the run's end and the last reading: vLLM counts a request after its last byte has left.
const SETTLE: Duration = Duration::from_millis(100);

/// A thread that reads the server's metrics until it is told to finish.
#[derive(Debug)]
pub struct Scraper {
    finish: Sender<()>,
    thread: JoinHandle<Option<Server>>,
}

impl Scraper {
    /// Takes the first reading, and goes on with one each `interval`. None if the system refuses a thread.
    #[must_use]
    pub fn start(target: &Target, interval: Duration) -> Option<Self> {
        let (ready, is_ready) = channel();
        let (finish, finished) = channel();
        let target = target.clone();
        let work = move || work(&target, interval, &ready, &finished).ok();
        let thread = thread::Builder::new().name("scraper".to_owned()).spawn(work).ok()?;
        // If the thread has ended, there is nothing to wait for.
        is_ready.recv().ok();
        Some(Self { finish, thread })
    }

    /// Takes the last reading. None where the server told nothing.
    #[must_use]
    pub fn finish(self) -> Option<Server> {
        // A thread that has found no metrics has ended by itself.
        self.finish.send(()).ok();
        self.thread.join().ok().flatten().filter(Server::is_known)
    }
}

/// The thread's work.
fn work(
    target: &Target,
    interval: Duration,
    ready: &Sender<()>,
    finished: &Receiver<()>,
) -> Result<Server, Error> {
    let asking = Asking::new(target)?;
    let mut server = Server::default();
    let first = asking.first(&mut server);
    let begin_ns = monotonic_ns();
    // Whoever waits for this has not gone.
    ready.send(()).ok();
    let Some(before) = first else { return Ok(server) };

    let (mut during, mut failed) = (Vec::new(), 0);
    let mut due = Instant::now() + interval;
    while finished.recv_timeout(due.saturating_duration_since(Instant::now()))
        == Err(RecvTimeoutError::Timeout)
    {
        match asking.reading(TIMEOUT) {
            Some(reading) => during.push(reading),
            None => failed += 1,
        }
        // A slow answer skips readings, it does not crowd them.
        while due <= Instant::now() {
            due += interval;
        }
    }
    thread::sleep(SETTLE);
    let after = asking.reading(TIMEOUT);
    let end_ns = monotonic_ns();
    server.figures = after.map(|after| Figures {
        interval_s: end_ns.saturating_sub(begin_ns) as f64 / 1e9,
        failed_scrapes: failed,
        ..Figures::between(&before, &during, &after)
    });
    Ok(server)
}

/// Asks the server, one thing at a time.
struct Asking<'a> {
    sender: side::Sender<'a>,
    target: &'a Target,
    /// Never true.
    interrupt: watch::Receiver<bool>,
}

impl<'a> Asking<'a> {
    fn new(target: &'a Target) -> Result<Self, Error> {
        Ok(Self { sender: side::Sender::new(target)?, target, interrupt: watch::channel(false).1 })
    }

    /// What stands in the run beside the figures, and the first reading. What gives no answer at all is not asked
    /// again.
    fn first(&self, server: &mut Server) -> Option<Reading> {
        let answer = self.answer("/version", FIRST_TIMEOUT)?;
        server.version = answer.is_ok().then(|| scrape::version(&answer.body)).flatten();
        let answer = self.answer("/v1/models", FIRST_TIMEOUT)?;
        server.model = answer.is_ok().then(|| scrape::model(&answer.body)).flatten();
        self.reading(FIRST_TIMEOUT)
    }

    fn reading(&self, timeout: Duration) -> Option<Reading> {
        let answer = self.answer("/metrics", timeout)?;
        answer.is_ok().then(|| Reading::of(&String::from_utf8_lossy(&answer.body))).flatten()
    }

    /// The answer of one path; none where the server gave none.
    fn answer(&self, path: &str, timeout: Duration) -> Option<Answer> {
        let path = self.target.server_path(path).parse().ok()?;
        let request = side::request(path, self.target.headers().clone(), Bytes::new());
        let answer = self.sender.send(&request, timeout, &self.interrupt);
        answer.status.is_some().then_some(answer)
    }
}
