//! One request and its answer, as they pass: what the archive is told of them, and when.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use http::HeaderMap;
use http::request::Parts;
use tokentape_pacer::monotonic_ns;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::headers;
use crate::tape::{Chunk, MAX_FRAME_BYTES, Outcome, ResponseHead};

/// What the archive is told.
#[derive(Debug)]
pub(super) enum Message {
    Request(Box<Asked>),
    Response(Box<Answered>),
}

/// A request that has come whole.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) exchange: u64,
    /// When the first byte of its head came, on the monotonic clock.
    pub(super) arrival_ns: u64,
    pub(super) method: String,
    pub(super) path: String,
    /// None where it is too large for a tape.
    pub(super) body: Option<Vec<u8>>,
    /// The value of the header that names its session.
    pub(super) session: Option<String>,
    pub(super) secrets: Arc<[Vec<u8>]>,
    /// Dropped or answered once the record is on its way to the disk.
    pub(super) written: oneshot::Sender<()>,
}

/// A response that has ended.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) exchange: u64,
    pub(super) head: Option<ResponseHead>,
    pub(super) chunks: Vec<Chunk>,
    /// None where it is too large for a tape.
    pub(super) body: Option<Vec<u8>>,
    pub(super) end_ns: u64,
    pub(super) outcome: Outcome,
    /// Whether the request came whole.
    pub(super) asked: bool,
    pub(super) secrets: Arc<[Vec<u8>]>,
    pub(super) written: oneshot::Sender<()>,
    /// Bounds what waits for the archive.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Where exchanges send what they know: to the archive's thread.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    pub(super) messages: mpsc::Sender<Message>,
    /// The recorder is ending: what breaks off now, it broke off itself.
    pub(super) stopping: Arc<AtomicBool>,
}

/// One exchange, shared by the two bodies that carry it. When the last of them is dropped before the end, the client
/// has gone.
#[derive(Debug)]
pub(super) struct Exchange {
    id: u64,
    arrival_ns: u64,
    outbox: Outbox,
    secrets: Arc<[Vec<u8>]>,
    permit: RefCell<Option<OwnedSemaphorePermit>>,
    asking: RefCell<Option<Asking>>,
    written: RefCell<Option<oneshot::Receiver<()>>>,
    answer: RefCell<Option<Answer>>,
}

/// A request that is still coming.
#[derive(Debug)]
struct Asking {
    method: String,
    path: String,
    session: Option<String>,
    body: Option<Vec<u8>>,
}

/// A response that is still coming.
#[derive(Debug)]
struct Answer {
    head: Option<ResponseHead>,
    chunks: Vec<Chunk>,
    body: Option<Vec<u8>>,
}

impl Exchange {
    /// A request whose head has come.
    pub(super) fn begin(
        id: u64,
        arrival_ns: u64,
        head: &Parts,
        session_header: Option<&str>,
        outbox: Outbox,
        permit: OwnedSemaphorePermit,
    ) -> Rc<Self> {
        let session = session_header
            .and_then(|name| head.headers.get(name))
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let asking = Asking { method: head.method.to_string(), path, session, body: Some(Vec::new()) };
        Rc::new(Self {
            id,
            arrival_ns,
            outbox,
            secrets: headers::secrets(&head.headers).into(),
            permit: RefCell::new(Some(permit)),
            asking: RefCell::new(Some(asking)),
            written: RefCell::new(None),
            answer: RefCell::new(Some(Answer { head: None, chunks: Vec::new(), body: Some(Vec::new()) })),
        })
    }

    /// A piece of the request's body.
    pub(super) fn ask(&self, bytes: &[u8]) {
        if let Some(asking) = self.asking.borrow_mut().as_mut() {
            add(&mut asking.body, bytes);
        }
    }

    /// The request has come whole.
    pub(super) fn asked(&self) {
        let Some(asking) = self.asking.take() else { return };
        let (written, receiver) = oneshot::channel();
        drop(self.written.replace(Some(receiver)));
        self.send(Message::Request(Box::new(Asked {
            exchange: self.id,
            arrival_ns: self.arrival_ns,
            method: asking.method,
            path: asking.path,
            body: asking.body,
            session: asking.session,
            secrets: Arc::clone(&self.secrets),
            written,
        })));
    }

    /// Waits until the request's record is on its way to the disk; not at all while the request is still coming, so
    /// that an answer can overtake it.
    pub(super) async fn request_is_written(&self) {
        let written = self.written.take();
        if let Some(written) = written {
            // An archive that has failed ends the recorder; the answer goes on.
            written.await.unwrap_or_default();
        }
    }

    /// The answer's head came at this time, on the monotonic clock.
    pub(super) fn head(&self, status: u16, headers: &HeaderMap, at_ns: u64) {
        if let Some(answer) = self.answer.borrow_mut().as_mut() {
            let at_ns = self.since_arrival(at_ns);
            answer.head = Some(ResponseHead { status, headers: headers::kept(headers), at_ns });
        }
    }

    /// A piece of the answer's body came at this time.
    pub(super) fn answer(&self, bytes: &[u8], at_ns: u64) {
        if let Some(answer) = self.answer.borrow_mut().as_mut() {
            add(&mut answer.body, bytes);
            // A frame of the wire is never that long.
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            // The wall clock, which the kernel stamps by, can be set: no time runs backwards in a tape.
            let before = answer.chunks.last().map(|chunk| chunk.at_ns);
            let before_ns = before.or(answer.head.as_ref().map(|head| head.at_ns)).unwrap_or(0);
            let at_ns = self.since_arrival(at_ns).max(before_ns);
            answer.chunks.push(Chunk { at_ns, bytes: length });
        }
    }

    /// The answer has ended. What this gives is ready once its record is on its way to the disk.
    pub(super) fn end(&self, outcome: Outcome) -> Option<oneshot::Receiver<()>> {
        let Answer { head, chunks, body } = self.answer.take()?;
        if self.asking.borrow().is_some() && outcome != Outcome::ClientGone {
            // Answered or refused before it had come whole: this much of it was asked.
            self.asked();
        }
        let (written, receiver) = oneshot::channel();
        let last_ns = chunks.last().map(|chunk| chunk.at_ns).or(head.as_ref().map(|head| head.at_ns));
        self.send(Message::Response(Box::new(Answered {
            exchange: self.id,
            end_ns: self.since_arrival(monotonic_ns()).max(last_ns.unwrap_or(0)),
            head,
            chunks,
            body,
            outcome,
            asked: self.asking.borrow().is_none(),
            secrets: Arc::clone(&self.secrets),
            written,
            permit: self.permit.take(),
        })));
        Some(receiver)
    }

    fn since_arrival(&self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.arrival_ns)
    }

    fn send(&self, message: Message) {
        // The archive's thread outlives every exchange; if it panicked, the recorder ends.
        self.outbox.messages.send(message).unwrap_or_default();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let stopping = self.outbox.stopping.load(Ordering::Relaxed);
        drop(self.end(if stopping { Outcome::Stopped } else { Outcome::ClientGone }));
    }
}

/// Adds to a copy; lets go of one that no tape could hold.
fn add(copy: &mut Option<Vec<u8>>, bytes: &[u8]) {
    match copy {
        Some(body) if body.len() + bytes.len() <= MAX_FRAME_BYTES as usize => body.extend_from_slice(bytes),
        _ => *copy = None,
    }
}
