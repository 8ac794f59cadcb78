//! What a tape holds: its records as plain data. `docs/tape-format.md` describes the same for other implementers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The format version that this build writes. A reader takes the same major version, and any minor: newer minor
/// versions only add fields.
///
/// - 1.0: first version.
/// - 1.1: responses, and their count in the footer.
pub const VERSION: Version = Version { major: 1, minor: 1 };

/// A format version.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Version {
    /// Changes when an older reader would misread the file.
    pub major: u32,
    /// Changes when fields are added.
    pub minor: u32,
}

impl Version {
    /// Whether this build can read a tape of this version.
    #[must_use]
    pub fn is_readable(self) -> bool {
        self.major == VERSION.major
    }

    /// Whether a tape of this version can hold responses.
    pub(super) fn has_responses(self) -> bool {
        self.minor >= 1
    }
}

/// `1.0`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The first record: what made the tape, and everything needed to make it again. It holds no clock time and no host
/// name, so that the same command gives the same file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Header {
    /// The format version.
    pub version: Version,
    /// The program that wrote the tape, with its version: `tokentape 0.1.0`.
    pub created_by: String,
    /// The source of the requests (`random`, …).
    pub source: String,
    /// Every parameter of the source, as it would have to be given again.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// The seed of every random choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The tokenizer that counted the tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerId>,
}

/// Which tokenizer counted a tape's tokens.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TokenizerId {
    /// The name it was asked for by; never a path of one machine: for a local folder or file, its last component.
    pub name: String,
    /// BLAKE3 of its `tokenizer.json`, in hex.
    pub digest: String,
}

/// One request, exactly as it is sent. It serialises as its line in the tape, less the line's `type`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// Its place in the tape, from 0.
    pub index: u64,
    /// When it arrives, in nanoseconds from the tape's start.
    pub offset_ns: u64,
    /// The HTTP method.
    pub method: String,
    /// The path with its query: `/v1/chat/completions`.
    pub path: String,
    /// The body's exact bytes.
    pub body: Vec<u8>,
    /// The prompt's tokens, counted by the header's tokenizer.
    pub input_tokens: Option<u32>,
    /// The tokens asked for.
    pub output_tokens: Option<u32>,
    /// The session it belongs to, and its place there.
    pub session: Option<Session>,
}

/// A request's place in a conversation.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Session {
    /// The session's name within the tape.
    pub id: String,
    /// The request's place in the session, from 0. Turn n is sent after turn n-1 has ended.
    pub turn: u32,
}

/// What came back for one request, as a recorder saw it. It serialises as its line in the tape, less the line's `type`.
///
/// All times are in nanoseconds from the request's own arrival.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    /// The request that it answers.
    pub index: u64,
    /// The head; none where the server sent none.
    pub head: Option<ResponseHead>,
    /// How the body came: one entry for each piece, in order. Their lengths add up to the body's.
    pub chunks: Vec<Chunk>,
    /// The body's exact bytes, without transfer encoding, as far as it came.
    pub body: Vec<u8>,
    /// When it ended: its last byte had come, or one side had gone.
    pub end_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// The head of a response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResponseHead {
    /// The HTTP status.
    pub status: u16,
    /// The headers that are kept, names in lower case, in order. Never one that may be a secret.
    pub headers: Vec<(String, String)>,
    /// When it came.
    pub at_ns: u64,
}

/// A piece of a response's body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunk {
    /// When it came.
    pub at_ns: u64,
    /// Its length, in bytes.
    pub bytes: u32,
}

/// How a recorded response ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The client went before the end.
    ClientGone,
    /// The whole response came.
    Complete,
    /// The server could not be reached, or went before the end.
    ServerGone,
    /// The recorder was stopped before the end.
    Stopped,
}

/// A record between a tape's header and its footer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// A request.
    Request(Request),
    /// The response to a request that stands before it.
    Response(Response),
}

impl Entry {
    /// The index of the request that it is, or that it answers.
    #[must_use]
    pub fn index(&self) -> u64 {
        match self {
            Self::Request(request) => request.index,
            Self::Response(response) => response.index,
        }
    }
}

/// The last record: what the tape should hold.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Footer {
    /// Number of requests.
    pub requests: u64,
    /// Sum of `input_tokens`.
    pub input_tokens: u64,
    /// Sum of `output_tokens`.
    pub output_tokens: u64,
    /// Sum of the bodies' lengths, in bytes.
    pub body_bytes: u64,
    /// Number of responses.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub responses: u64,
    /// BLAKE3 over the requests (see [`super::digest`]), in hex.
    pub workload_digest: String,
    /// For each frame between the header's and the footer's, the index of the first request in it.
    pub index: Vec<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Footer {
    /// Counts a request: everything but the digest and the index.
    pub(super) fn count(&mut self, request: &Request) {
        self.requests += 1;
        self.input_tokens += u64::from(request.input_tokens.unwrap_or(0));
        self.output_tokens += u64::from(request.output_tokens.unwrap_or(0));
        self.body_bytes += request.body.len() as u64;
    }
}
