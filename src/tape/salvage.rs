//! Reading a tape from its start without its seek table and footer: what can still be had of one that was cut short.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::error::{Error, ErrorKind, Holds};
use super::format::{Entry, Header, Request};
use super::frame::{FrameError, MAX_FRAME_BYTES, MAX_HEADER_BYTES, Sequential};
use super::line::{self, Line};
use super::records::Records;

/// A tape's header and requests from its start, as far as they are good. The iterator's one error, its last item,
/// says why it ended before the footer.
///
/// Of a frame that is cut, the complete lines are still given; of one that is damaged, none, since any could be wrong.
#[derive(Debug)]
pub struct Salvage {
    path: PathBuf,
    header: Header,
    header_line: Vec<u8>,
    input: Sequential<BufReader<File>>,
    records: Records,
    /// The frame in `records` is the file's last, and incomplete.
    cut: bool,
    ended: bool,
}

impl Salvage {
    /// Opens a tape and reads its header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let fail = |kind: ErrorKind| Error::new(path, kind);
        let file = File::open(path).map_err(|error| fail(error.into()))?;
        let mut input = Sequential::new(BufReader::new(file));
        let mut line = Vec::new();
        let not_a_tape = |reason: &str| fail(ErrorKind::NotATape { reason: reason.to_owned() });
        match input.unpack(MAX_HEADER_BYTES, &mut line) {
            Ok(true) => {}
            Ok(false) => return Err(not_a_tape("it is empty")),
            Err(FrameError::Missing) => return Err(not_a_tape("it does not begin with a Zstandard frame")),
            Err(error) => return Err(fail(error.into_kind(Holds::Header, None))),
        }
        let version =
            line::parse_version(&line).ok_or_else(|| not_a_tape("its first line is not a tape's header"))?;
        if !version.is_readable() {
            return Err(fail(ErrorKind::Newer { found: version }));
        }
        let header = line::parse_header(&line).map_err(|reason| {
            fail(ErrorKind::NotATape { reason: format!("its header is malformed: {reason}") })
        })?;
        Ok(Self {
            path: path.to_owned(),
            header,
            header_line: line,
            input,
            records: Records::from(0, false),
            cut: false,
            ended: false,
        })
    }

    /// What made the tape.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header, and its line as it stands in the file.
    pub(super) fn into_header(self) -> (Header, Vec<u8>) {
        (self.header, self.header_line)
    }

    /// The requests and responses, in the order of the file.
    pub fn entries(mut self) -> impl Iterator<Item = Result<Entry, Error>> {
        self.records.with_responses = self.header.version.has_responses();
        std::iter::from_fn(move || self.next_entry())
    }

    fn last_good(&self) -> Option<u64> {
        self.records.due.checked_sub(1)
    }

    /// Unpacks the next frame.
    fn load(&mut self) -> Result<(), ErrorKind> {
        self.records.frame += 1;
        self.records.rewind();
        match self.input.unpack(MAX_FRAME_BYTES, &mut self.records.bytes) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ErrorKind::Truncated { last_good: self.last_good() }),
            Err(FrameError::Cut) => {
                self.cut = true;
                let whole = memchr::memrchr(b'\n', &self.records.bytes).map_or(0, |newline| newline + 1);
                self.records.bytes.truncate(whole);
                Ok(())
            }
            Err(error) => {
                let holds = Holds::Requests { frame: self.records.frame, first: self.records.due, end: None };
                Err(error.into_kind(holds, self.last_good()))
            }
        }
    }

    fn step(&mut self) -> Result<Option<Entry>, ErrorKind> {
        loop {
            match self.records.next().transpose()? {
                Some(Line::Request(request)) => return Ok(Some(Entry::Request(request))),
                Some(Line::Response(response)) => return Ok(Some(Entry::Response(response))),
                Some(Line::Passed) => {}
                Some(Line::Footer(_)) => return Ok(None),
                None if self.cut => {
                    return Err(ErrorKind::Truncated { last_good: self.last_good() });
                }
                None => self.load()?,
            }
        }
    }

    fn next_entry(&mut self) -> Option<Result<Entry, Error>> {
        if self.ended {
            return None;
        }
        let step = self.step().map_err(|kind| Error::new(&self.path, kind)).transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

impl Iterator for Salvage {
    type Item = Result<Request, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_entry()? {
                Ok(Entry::Request(request)) => return Some(Ok(request)),
                Ok(Entry::Response(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl FrameError {
    /// The error as a tape's reader reports it, for the frame that `holds` says.
    pub(super) fn into_kind(self, holds: Holds, last_good: Option<u64>) -> ErrorKind {
        match self {
            FrameError::Bomb(reason) => ErrorKind::Bomb { holds, reason },
            FrameError::Cut => ErrorKind::Truncated { last_good },
            FrameError::Damaged(reason) => ErrorKind::Frame { holds, reason },
            FrameError::Io(error) => ErrorKind::Io(error),
            FrameError::Missing => {
                ErrorKind::Frame { holds, reason: "no frame begins where it is due".to_owned() }
            }
        }
    }
}
