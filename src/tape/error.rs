//! What can be wrong with a tape. Each error names the file, the frame or record, and the remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::format::{VERSION, Version};

/// Why a tape cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("tape {} {kind}", path.display())]
pub struct Error {
    path: PathBuf,
    #[source]
    kind: Box<ErrorKind>,
}

impl Error {
    pub(super) fn new(path: &Path, kind: impl Into<ErrorKind>) -> Self {
        Self { path: path.to_owned(), kind: Box::new(kind.into()) }
    }

    /// The tape's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }
}

/// What is wrong with a tape.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A frame unpacks to more than it claims, or claims more than a reader will hold.
    #[error("is not safe to read: {holds} {reason}; do not use this copy")]
    Bomb {
        /// The frame.
        holds: Holds,
        /// What it claims, and what it would be.
        reason: String,
    },
    /// A count differs from the footer's.
    #[error(
        "does not hold what its footer says: {what} {found}, by the footer {recorded}; use another copy, or make it again"
    )]
    Count {
        /// What was counted.
        what: &'static str,
        /// The footer's figure.
        recorded: u64,
        /// The figure of the requests themselves.
        found: u64,
    },
    /// The requests hash to something other than the footer's digest.
    #[error(
        "was altered: its requests have the workload digest {found}, by its footer {recorded}; use another copy, or make it again"
    )]
    Digest {
        /// The footer's digest.
        recorded: String,
        /// The digest of the requests themselves.
        found: String,
    },
    /// A frame does not unpack, or not to what the seek table says.
    #[error("is damaged in {holds}: {reason}; use another copy, or make it again")]
    Frame {
        /// The frame.
        holds: Holds,
        /// What the decompressor says.
        reason: String,
    },
    /// The footer's index contradicts the seek table or the requests.
    #[error("has a wrong index: {reason}; make it again")]
    Index {
        /// The contradiction.
        reason: String,
    },
    /// A request has more than one response.
    #[error("has more than one response to request {index}; make it again")]
    Responses {
        /// The request.
        index: u64,
    },
    /// The system cannot read the file.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A later format than this build reads.
    #[error("is format {found}; this tokentape reads {}.x: upgrade tokentape", VERSION.major)]
    Newer {
        /// The tape's version.
        found: Version,
    },
    /// Some other file.
    #[error("is not a tape: {reason}; a tape is a NAME.tape.zst that `tokentape generate` wrote")]
    NotATape {
        /// How one can tell.
        reason: String,
    },
    /// A request that does not have the next index.
    #[error(
        "is out of order: request {found} stands where request {due} is due, in frame {frame}; make it again"
    )]
    Order {
        /// The index that was due.
        due: u64,
        /// The index that was found.
        found: u64,
        /// The frame's number, from 0.
        frame: usize,
    },
    /// A line that is not a record.
    #[error("has a malformed record where request {due} is due, in frame {frame}: {reason}; make it again")]
    Record {
        /// The index of the request that was due.
        due: u64,
        /// The frame's number, from 0.
        frame: usize,
        /// What is wrong with the line.
        reason: String,
    },
    /// The seek table is missing behind a complete tape, or does not describe the file.
    #[error("has a damaged seek table: {reason}; use another copy, or make it again")]
    SeekTable {
        /// What is wrong with it.
        reason: String,
    },
    /// The file ends early.
    #[error("is cut short: {}; copy it again, or make it again", last_good_in_words(*last_good))]
    Truncated {
        /// The index of the last request that can still be read.
        last_good: Option<u64>,
    },
}

fn last_good_in_words(last_good: Option<u64>) -> String {
    match last_good {
        Some(index) => format!("its last good record is request {index}"),
        None => "not one of its requests can be read".to_owned(),
    }
}

/// A frame, by its number from 0, and what it holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holds {
    /// The last frame.
    Footer {
        /// Its number.
        frame: usize,
    },
    /// Frame 0.
    Header,
    /// A frame of requests.
    Requests {
        /// Its number.
        frame: usize,
        /// The index of its first request.
        first: u64,
        /// The index after its last request, where that is known.
        end: Option<u64>,
    },
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holds::Footer { frame } => write!(f, "frame {frame} (the footer)"),
            Holds::Header => write!(f, "frame 0 (the header)"),
            Holds::Requests { frame, first, end: Some(end) } => {
                write!(f, "frame {frame} (requests {first}..{end})")
            }
            Holds::Requests { frame, first, end: None } => {
                write!(f, "frame {frame} (requests from {first} on)")
            }
        }
    }
}

/// Why a tape cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A header that no reader would take.
    #[error("cannot write the tape: its header of {bytes} bytes is above the limit of {limit}")]
    HeaderTooLarge {
        /// The length of its line.
        bytes: usize,
        /// The longest header.
        limit: u32,
    },
    /// The output took no more bytes, or could not be compressed.
    #[error("cannot write the tape: {0}")]
    Io(#[from] io::Error),
    /// Requests are written in order.
    #[error("cannot write request {found} to the tape: request {due} is due")]
    Order {
        /// The index that was due.
        due: u64,
        /// The index that was given.
        found: u64,
    },
    /// A response stands after its request.
    #[error("cannot write a response to request {index} to the tape: that request is not in it yet")]
    NoRequest {
        /// The index that was given.
        index: u64,
    },
    /// A record that no reader would take.
    #[error(
        "cannot write request {index} to the tape: its record of {bytes} bytes is above the limit of {limit}"
    )]
    TooLarge {
        /// The request's index.
        index: u64,
        /// The length of its line.
        bytes: usize,
        /// The longest line.
        limit: u32,
    },
}
