//! One file of a recording: a tape of its own.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Error;
use super::archive::part_path;
use crate::tape::{Header, Request, Response, Session, WriteError, Writer};

/// A frame is ended when it is this old: what is in it can then be read whatever befalls the file's last bytes.
const FRAME_AGE: Duration = Duration::from_secs(5);

/// A file of a recording that has ended.
#[derive(Clone, Debug)]
pub struct PartSummary {
    /// Its place among the files, from 0.
    pub number: u32,
    /// The file.
    pub path: PathBuf,
    /// Requests in it.
    pub requests: u64,
    /// Responses in it.
    pub responses: u64,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Its workload digest.
    pub workload_digest: String,
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Part {
    number: u32,
    path: PathBuf,
    writer: Writer<File>,
    opened: Instant,
    /// When the open frame got its first record.
    frame_opened: Option<Instant>,
    /// When its first request came, on the monotonic clock.
    first_ns: Option<u64>,
    /// How many requests each session has had.
    turns: HashMap<String, u32>,
    /// Requests whose answer is still to come.
    unanswered: u64,
}

impl Part {
    /// Creates the file, which must not exist: a recording cannot be made again. `begins_ns` is the time since the
    /// recording's start.
    pub(super) fn create(output: &Path, number: u32, header: &Header, begins_ns: u64) -> Result<Self, Error> {
        let path = part_path(output, number);
        let file = File::create_new(&path).map_err(|source| Error::Create { path: path.clone(), source })?;
        let mut header = header.clone();
        if number > 0 {
            header.params.insert("part".to_owned(), number.into());
            header.params.insert("part_begins_ns".to_owned(), begins_ns.into());
        }
        let writer =
            Writer::new(file, &header).map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(Self {
            number,
            path,
            writer,
            opened: Instant::now(),
            frame_opened: None,
            first_ns: None,
            turns: HashMap::new(),
            unanswered: 0,
        })
    }

    /// Adds a request; sets its index, its offset from this part's first one, and its place in its session.
    pub(super) fn request(
        &mut self,
        request: &mut Request,
        arrival_ns: u64,
        session: Option<String>,
    ) -> Result<(), WriteError> {
        request.index = self.writer.footer().requests;
        // One that began to come earlier, and took longer to come whole, is put at the start.
        request.offset_ns = arrival_ns.saturating_sub(*self.first_ns.get_or_insert(arrival_ns));
        request.session = session.map(|id| {
            let next = self.turns.entry(id.clone()).or_default();
            let turn = *next;
            *next += 1;
            Session { id, turn }
        });
        self.writer.write(request)?;
        self.frame_opened.get_or_insert_with(Instant::now);
        Ok(())
    }

    pub(super) fn response(&mut self, response: &Response) -> Result<(), WriteError> {
        self.writer.response(response)?;
        self.frame_opened.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Hands what was added to the system; ends the frame where it is old.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let is_old = self.frame_opened.is_some_and(|opened| opened.elapsed() >= FRAME_AGE);
        let flushed = if is_old {
            self.frame_opened = None;
            self.writer.end_frame()
        } else {
            self.writer.flush()
        };
        flushed.map_err(|error| self.failed(error))
    }

    /// Ends the tape, and has the disk keep it.
    pub(super) fn finish(self) -> Result<PartSummary, Error> {
        let Self { number, path, writer, .. } = self;
        let failed = |source: WriteError| Error::Write { path: path.clone(), source };
        let footer = writer.finish().map_err(failed)?;
        let bytes = File::open(&path)
            .and_then(|file| {
                file.sync_all()?;
                Ok(file.metadata()?.len())
            })
            .map_err(|error| failed(error.into()))?;
        let (requests, responses) = (footer.requests, footer.responses);
        Ok(PartSummary { number, path, requests, responses, bytes, workload_digest: footer.workload_digest })
    }

    /// A record could not be written.
    pub(super) fn failed(&self, source: WriteError) -> Error {
        Error::Write { path: self.path.clone(), source }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn is_begun(&self) -> bool {
        self.writer.footer().requests > 0
    }

    pub(super) fn bytes(&self) -> u64 {
        self.writer.compressed_bytes()
    }

    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    pub(super) fn expect_answer(&mut self) {
        self.unanswered += 1;
    }

    pub(super) fn answered(&mut self) {
        self.unanswered -= 1;
    }

    pub(super) fn is_answered(&self) -> bool {
        self.unanswered == 0
    }
}
