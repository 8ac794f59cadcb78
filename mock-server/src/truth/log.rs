//! The log while the server runs: records come in from the workers; a thread of its own writes them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::Serialize;
use tokentape_pacer::wait_for_a_turn;

use super::{Change, Footer, Header, Line, Outcome, Record};
use crate::lateness::Meter;
use crate::metrics::Observation;

/// Where finished records go. A clone is another way in to the same file.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    sender: Option<Sender<News>>,
    stopping: Arc<AtomicBool>,
    meter: Arc<Meter>,
    kept: Kept,
}

/// The last records, up to a number. A clone is another way to the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    records: Arc<Mutex<VecDeque<Arc<Record>>>>,
    limit: usize,
}

impl Kept {
    /// In the order in which they ended.
    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        self.lock().iter().cloned().collect()
    }

    fn add(&self, record: &Arc<Record>) {
        if self.limit == 0 {
            return;
        }
        let mut records = self.lock();
        if records.len() == self.limit {
            records.pop_front();
        }
        records.push_back(Arc::clone(record));
    }

    /// Nothing under the lock can panic half-way, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Record>>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread is told.
#[derive(Debug)]
enum News {
    Change(Change),
    Record(Arc<Record>),
}

/// The thread that writes the file.
#[derive(Debug)]
pub(crate) struct LogWriter(Option<JoinHandle<io::Result<()>>>);

impl Log {
    /// A log that keeps the last `keep` records in memory, and where there is a `path` writes them all there.
    pub(crate) fn new(path: Option<&Path>, header: Header, keep: usize) -> io::Result<(Self, LogWriter)> {
        let log = Self {
            sender: None,
            stopping: Arc::default(),
            meter: Arc::default(),
            kept: Kept { records: Arc::default(), limit: keep },
        };
        let Some(path) = path else { return Ok((log, LogWriter(None))) };
        let mut file = BufWriter::new(File::create(path)?);
        write_line(&mut file, &Line::Header(header))?;
        file.flush()?;
        let (sender, news) = mpsc::channel();
        let meter = Arc::clone(&log.meter);
        let thread = std::thread::Builder::new().name("truth-log".to_owned()).spawn(move || {
            // Answers go first. It is not to fall behind for good, though: what waits is memory.
            wait_for_a_turn();
            write(&news, &mut file, &meter)
        })?;
        Ok((Self { sender: Some(sender), ..log }, LogWriter(Some(thread))))
    }

    /// From now on, an answer that is cut off was cut off by the server.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Begins a record; it goes to the log when it is dropped.
    pub(crate) fn begin(&self, mut record: Record) -> Entry {
        record.written_ns.reserve(record.events.len());
        Entry { record, log: self.clone(), observation: None }
    }

    /// The server is set otherwise from now on.
    pub(crate) fn change(&self, at_ns: u64, settings: Header) {
        self.tell(News::Change(Change { at_ns, settings }));
    }

    /// How late the tokens of ended answers were written.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The last records.
    pub(crate) fn kept(&self) -> Vec<Arc<Record>> {
        self.kept.records()
    }

    /// A way to them that does not keep the log open.
    pub(crate) fn keeper(&self) -> Kept {
        self.kept.clone()
    }

    fn end(&self, record: Record) {
        self.meter.add(&record);
        let record = Arc::new(record);
        self.kept.add(&record);
        self.tell(News::Record(record));
    }

    fn tell(&self, news: News) {
        if let Some(sender) = &self.sender {
            // The receiver ends early only when the file cannot be written; `LogWriter::finish` reports that.
            sender.send(news).unwrap_or_default();
        }
    }
}

impl LogWriter {
    /// Waits until everything is in the file. Every [`Log`] has to be gone.
    pub(crate) fn finish(self) -> io::Result<()> {
        let Some(thread) = self.0 else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
    }
}

/// A record in the making. However the answer ends, dropping this logs it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    log: Log,
    observation: Option<Observation>,
}

impl Entry {
    /// Counts the answer in the server's metrics when it has ended.
    pub(crate) fn observed_by(mut self, observation: Observation) -> Self {
        self.observation = Some(observation);
        self
    }

    /// Whether every event is written.
    pub(crate) fn is_complete(&self) -> bool {
        self.record.written_ns.len() == self.record.events.len()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let complete = self.is_complete();
        if let Some(observation) = self.observation.take() {
            // What a fault ended may have had no event to miss.
            observation.ended(&self.record, complete && self.record.outcome != Outcome::Fault);
        }
        let mut record = std::mem::replace(&mut self.record, Record::empty());
        record.outcome = if record.outcome == Outcome::Fault {
            Outcome::Fault
        } else if complete {
            Outcome::Complete
        } else if self.log.stopping.load(Ordering::Relaxed) {
            Outcome::Shutdown
        } else {
            Outcome::ClientGone
        };
        self.log.end(record);
    }
}

/// Writes what there is to write until the last sender is gone, and then the footer; what is written is flushed
/// whenever there is nothing more to write.
fn write(news: &Receiver<News>, file: &mut BufWriter<File>, meter: &Meter) -> io::Result<()> {
    let mut requests = 0;
    loop {
        let next = match news.try_recv() {
            Ok(next) => Some(next),
            Err(TryRecvError::Empty) => {
                file.flush()?;
                news.recv().ok()
            }
            Err(TryRecvError::Disconnected) => None,
        };
        match next {
            Some(News::Record(record)) => {
                requests += 1;
                write_line(file, &Request::Request(&record))?;
            }
            Some(News::Change(change)) => write_line(file, &Line::Change(change))?,
            None => {
                write_line(file, &Line::Footer(Footer { requests, lateness: meter.summary() }))?;
                return file.flush();
            }
        }
    }
}

/// [`Line::Request`], of a record that others hold too.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Request<'a> {
    Request(&'a Record),
}

fn write_line(file: &mut BufWriter<File>, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}
