//! The archive: one thread that puts exchanges on tapes, in the order in which they come to it.
//!
//! Whatever waits is written and flushed at once, and only then is anybody told: so many exchanges share the cost of
//! one write, and what a client has seen of its answer, the file has of its request. "Written" means handed to the
//! system, which keeps it when the recorder is killed; it is not synced to the disk, and a machine that loses its
//! power may lose the last seconds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::Error;
use super::exchange::{Answered, Asked, Message};
use super::part::{Part, PartSummary};
use super::redact::{Redactor, redacted_path};
use super::tokens::Counter;
use crate::tape::{Header, Outcome, Request, Response, WriteError};

/// Messages that share one flush, at most.
const BATCH: usize = 256;
/// How often the archive looks at the clock when nothing comes.
const TICK: Duration = Duration::from_secs(1);

/// What the archive is made with.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) output: PathBuf,
    pub(super) header: Header,
    pub(super) rotate_bytes: Option<u64>,
    pub(super) rotate_after: Option<Duration>,
    pub(super) responses: bool,
    /// A pointer to the session's name in the body.
    pub(super) session_path: Option<String>,
    pub(super) redactor: Redactor,
    pub(super) counter: Option<Counter>,
}

/// What has been recorded so far.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Requests on tapes.
    pub requests: u64,
    /// Responses on tapes that came whole.
    pub complete: u64,
    /// Responses on tapes whose client went before the end.
    pub client_gone: u64,
    /// Responses on tapes whose server went before the end, or could not be reached.
    pub server_gone: u64,
    /// Responses on tapes that the recorder itself broke off at its end.
    pub stopped: u64,
    /// Requests whose client went before it had sent them whole: they are on no tape.
    pub unfinished: u64,
    /// Requests and responses that were too large for a tape: they are on none.
    pub too_large: u64,
    /// Bodies that could not be read as JSON, and so could not be redacted: they are on the tape as empty.
    pub emptied: u64,
    /// Bodies in which a key or a cookie was starred out: they are on the tape otherwise as they passed.
    pub masked: u64,
    /// Texts that could not be replaced by text of exactly as many tokens.
    pub inexact: u64,
    /// The files, in order.
    pub parts: Vec<PartSummary>,
}

/// A summary that one thread writes and others look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Summary>>);

impl Shared {
    /// Nothing under the lock can panic half-way, so a poisoned one is whole.
    pub(super) fn lock(&self) -> MutexGuard<'_, Summary> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the archive's thread.
#[derive(Debug)]
pub(super) struct Archive {
    setup: Setup,
    summary: Shared,
    current: Part,
    /// Full parts that still wait for answers.
    draining: Vec<Part>,
    /// Which part an open exchange's request is in, and where.
    places: HashMap<u64, (u32, u64)>,
    began: Instant,
}

/// Who is told once a batch is flushed.
#[derive(Debug, Default)]
struct Waiting {
    written: Vec<oneshot::Sender<()>>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Archive {
    /// Creates the first file.
    pub(super) fn create(setup: Setup, summary: Shared) -> Result<Self, Error> {
        let current = Part::create(&setup.output, 0, &setup.header, 0)?;
        let draining = Vec::new();
        let places = HashMap::new();
        Ok(Self { setup, summary, current, draining, places, began: Instant::now() })
    }

    /// Writes what comes until nobody is left to send it; then ends the files. After a failure it goes on taking
    /// messages, so that nobody waits for it, and writes none; `failed` turns true.
    pub(super) fn run(
        mut self,
        messages: &Receiver<Message>,
        failed: &watch::Sender<bool>,
    ) -> Result<(), Error> {
        let outcome = self.write_all(messages);
        if outcome.is_err() {
            failed.send_replace(true);
            while messages.recv().is_ok() {}
        }
        outcome.and_then(|()| self.finish())
    }

    fn write_all(&mut self, messages: &Receiver<Message>) -> Result<(), Error> {
        loop {
            let mut waiting = Waiting::default();
            match messages.recv_timeout(TICK) {
                Ok(message) => {
                    self.take(message, &mut waiting)?;
                    for message in messages.try_iter().take(BATCH) {
                        self.take(message, &mut waiting)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.current.flush()?;
            for part in &mut self.draining {
                part.flush()?;
            }
            for written in waiting.written {
                // A client that has gone waits for nothing.
                written.send(()).unwrap_or_default();
            }
            drop(waiting.permits);
            self.finish_drained()?;
        }
    }

    fn take(&mut self, message: Message, waiting: &mut Waiting) -> Result<(), Error> {
        match message {
            Message::Request(asked) => self.request(*asked, waiting),
            Message::Response(answered) => self.response(*answered, waiting),
        }
    }

    fn request(&mut self, asked: Asked, waiting: &mut Waiting) -> Result<(), Error> {
        waiting.written.push(asked.written);
        let Some(body) = asked.body else {
            self.summary.lock().too_large += 1;
            return Ok(());
        };
        if self.is_full() {
            self.rotate()?;
        }
        let path = redacted_path(&asked.path, &asked.secrets);
        let asks = self.setup.counter.as_ref().map(|counter| counter.asks(&path, &body));
        let session = self.session(asked.session, &body, &asked.secrets);
        let body = self.setup.redactor.request(body, &asked.secrets);
        let mut tokens = asks.unwrap_or_else(|| super::tokens::asked(&body));
        if let Some(counter) = self.setup.counter.as_ref().filter(|_| self.setup.redactor.replaces()) {
            tokens.input = counter.asks(&path, &body).input;
        }
        let mut request = Request {
            index: 0,
            offset_ns: 0,
            method: asked.method,
            path,
            body,
            input_tokens: tokens.input,
            output_tokens: tokens.output,
            session: None,
        };
        let written = self.current.request(&mut request, asked.arrival_ns, session);
        let mut summary = self.summary.lock();
        self.setup.redactor.count(&mut summary);
        match written {
            Ok(()) => summary.requests += 1,
            Err(WriteError::TooLarge { .. }) => {
                summary.too_large += 1;
                return Ok(());
            }
            Err(error) => return Err(self.current.failed(error)),
        }
        drop(summary);
        if self.setup.responses {
            self.places.insert(asked.exchange, (self.current.number(), request.index));
            self.current.expect_answer();
        }
        Ok(())
    }

    fn response(&mut self, answered: Answered, waiting: &mut Waiting) -> Result<(), Error> {
        waiting.written.push(answered.written);
        waiting.permits.extend(answered.permit);
        if !answered.asked {
            self.summary.lock().unfinished += 1;
        }
        let Some((number, index)) = self.places.remove(&answered.exchange) else { return Ok(()) };
        let parts = std::iter::once(&mut self.current).chain(&mut self.draining);
        let Some(part) = parts.into_iter().find(|part| part.number() == number) else { return Ok(()) };
        part.answered();
        let Some(body) = answered.body else {
            self.summary.lock().too_large += 1;
            return Ok(());
        };
        let mut response = Response {
            index,
            head: answered.head,
            chunks: answered.chunks,
            body,
            end_ns: answered.end_ns,
            outcome: answered.outcome,
        };
        self.setup.redactor.response(&mut response, &answered.secrets);
        let written = part.response(&response);
        let mut summary = self.summary.lock();
        self.setup.redactor.count(&mut summary);
        let count = match (&written, response.outcome) {
            (Ok(()), Outcome::ClientGone) => &mut summary.client_gone,
            (Ok(()), Outcome::Complete) => &mut summary.complete,
            (Ok(()), Outcome::ServerGone) => &mut summary.server_gone,
            (Ok(()), Outcome::Stopped) => &mut summary.stopped,
            (Err(WriteError::TooLarge { .. }), _) => &mut summary.too_large,
            (Err(_), _) => return written.map_err(|error| part.failed(error)),
        };
        *count += 1;
        Ok(())
    }

    /// The request's session: what the header says, else what stands in the body.
    fn session(&self, header: Option<String>, body: &[u8], secrets: &[Vec<u8>]) -> Option<String> {
        let from_body = || {
            let pointer = self.setup.session_path.as_deref()?;
            let body: serde_json::Value = serde_json::from_slice(body).ok()?;
            match body.pointer(pointer)? {
                serde_json::Value::Null => None,
                serde_json::Value::String(name) => Some(name.clone()),
                other => Some(other.to_string()),
            }
        };
        header.or_else(from_body).map(|name| self.setup.redactor.session(name, secrets))
    }

    fn is_full(&self) -> bool {
        let Setup { rotate_bytes, rotate_after, .. } = &self.setup;
        self.current.is_begun()
            && (rotate_bytes.is_some_and(|limit| self.current.bytes() >= limit)
                || rotate_after.is_some_and(|limit| self.current.age() >= limit))
    }

    /// Begins the next file. The answers to what is in this one still go there.
    fn rotate(&mut self) -> Result<(), Error> {
        let begins_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let number = self.current.number() + 1;
        let next = Part::create(&self.setup.output, number, &self.setup.header, begins_ns)?;
        self.draining.push(std::mem::replace(&mut self.current, next));
        Ok(())
    }

    /// Ends the full parts that have all their answers.
    fn finish_drained(&mut self) -> Result<(), Error> {
        for part in self.draining.extract_if(.., |part| part.is_answered()) {
            self.summary.lock().parts.push(part.finish()?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Error> {
        self.draining.push(self.current);
        for part in self.draining {
            self.summary.lock().parts.push(part.finish()?);
        }
        self.summary.lock().parts.sort_by_key(|part| part.number);
        Ok(())
    }
}

/// Where a recording's part number `number` goes: `load.tape.zst`, `load.1.tape.zst`, `load.2.tape.zst`, …
pub(super) fn part_path(output: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return output.to_owned();
    }
    let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = name.strip_suffix(".tape.zst");
    output.with_file_name(match stem {
        Some(stem) => format!("{stem}.{number}.tape.zst"),
        None => format!("{name}.{number}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_before_their_suffix() {
        let path = |output: &str, number| part_path(Path::new(output), number).display().to_string();
        assert_eq!(path("a/load.tape.zst", 0), "a/load.tape.zst");
        assert_eq!(path("a/load.tape.zst", 12), "a/load.12.tape.zst");
        assert_eq!(path("load", 1), "load.1");
    }
}
