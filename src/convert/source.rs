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
    /// A prompt: a body is made around it.
    Asked(Asked),
    /// A row in which nothing is asked.
    Nothing {
        /// The row's line.
        line: u64,
        /// What it is.
        what: &'static str,
    },
    /// A request as it was sent.
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

/// A request of which the texts are known.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// When it arrives, in ns from where the file's times begin.
    pub(super) offset_ns: u64,
    pub(super) prompt: Prompt,
    pub(super) answer: Answer,
    pub(super) session: Option<Session>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) enum Prompt {
    /// A chat's messages: a JSON list.
    Messages(String),
    /// A text, for whichever endpoint is chosen.
    Text(String),
}

/// What is known of the answer's length.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// As long as this text, if there is a tokenizer to count it.
    Text(String),
    /// So many tokens.
    Tokens(u32),
    /// Nothing: the request sets no limit.
    Unknown,
}

impl From<Option<u32>> for Answer {
    fn from(tokens: Option<u32>) -> Self {
        tokens.map_or(Self::Unknown, Self::Tokens)
    }
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
            Self::Asked(asked) => asked.offset_ns,
            Self::Lengths(row) => row.offset_ns,
            Self::Nothing { .. } => 0,
            Self::Whole(whole) => whole.offset_ns,
        }
    }
}
