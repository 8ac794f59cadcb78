//! What every format's reader gives: requests, or what is known of them.

use super::import::Error;
use crate::tape::format::Session;

/// Reads a foreign file, one request after the other.
pub(super) trait Source: Send {
    /// The next request; none at the end.
    fn next(&mut self) -> Result<Option<Imported>, Error>;
}

/// What a row becomes.
#[derive(Clone, Debug)]
pub(super) enum Imported {
    /// Lengths alone: a prompt is made.
    Lengths(Lengths),
    /// A request as it was sent.
    #[expect(dead_code, reason = "made by the formats that hold whole requests")]
    Whole(Whole),
}

/// A request of which only the lengths are known.
#[derive(Clone, Debug, Default)]
pub(super) struct Lengths {
    /// The row's line.
    pub(super) line: u64,
    /// When it arrives, in ns from where the file's times begin.
    pub(super) offset_ns: u64,
    pub(super) input_tokens: u32,
    pub(super) output_tokens: u32,
    /// The hashes of the prompt's blocks, from its beginning; there may be too few, and none.
    pub(super) blocks: Vec<u64>,
    pub(super) session: Option<Session>,
}

/// A request of which everything is known.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    /// When it arrives, in ns from where the file's times begin.
    pub(super) offset_ns: u64,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    /// The counts, where the file or a tokenizer tells them.
    pub(super) input_tokens: Option<u32>,
    pub(super) output_tokens: Option<u32>,
    pub(super) session: Option<Session>,
}

impl Imported {
    pub(super) fn offset_ns(&self) -> u64 {
        match self {
            Self::Lengths(row) => row.offset_ns,
            Self::Whole(whole) => whole.offset_ns,
        }
    }
}
