//! Seeded sources of requests.
//!
//! In tokentape's own sources each random choice comes from a `ChaCha8` stream that belongs to (seed, purpose, index),
//! so request i is the same whatever the number of threads and of other requests, and whatever was asked before it. The
//! peers' samplers are in [`compat`]. A header holds every parameter, so that [`regenerate`] can make the same requests
//! again.

pub(crate) mod body;
pub mod compat;
pub mod fresh;
mod lengths;
pub(crate) mod ordered;
pub(crate) mod prompt;
mod random;
pub(crate) mod stream;

use tokentape_tokenizer::{self as tokenizer, Tokenizer};

pub use body::Api;
pub use lengths::{Lengths, LengthsError, MAX_TOKENS};
pub use random::{Params, Random};

use crate::tape::format::{Header, Request};

/// What the source's name of an imported tape begins with; the format follows.
pub(crate) const IMPORTED: &str = "import/";

/// Takes each request in order. Its error ends the generation, and becomes [`Error::Sink`].
pub type Sink<'a> = &'a mut dyn FnMut(Request) -> Result<(), String>;

/// Why a sink took no more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// What came of a generation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Made {
    /// Number of requests.
    pub requests: u64,
    /// How many of their prompts have another number of tokens than was asked for. The requests hold the true number.
    pub inexact: u64,
}

/// Why requests cannot be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter that makes no sense, by itself or with the others.
    #[error("{flag} {reason}")]
    Parameter {
        /// The parameter, as a flag.
        flag: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer cannot be had, or cannot do what is asked.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A tokenizer without a single token that text can be made of.
    #[error("tokenizer {name:?} has no token that stands for a text: no prompt can be made with it")]
    NoText {
        /// The tokenizer's name.
        name: String,
    },
    /// A header that names a source which this version does not know.
    #[error("the tape's source is {name:?}: this version cannot make its requests again")]
    UnknownSource {
        /// The source.
        name: String,
    },
    /// A header whose parameters are not those of its source.
    #[error("the tape's header does not say how to make it again: {reason}")]
    Header {
        /// What is missing or wrong.
        reason: String,
    },
    /// A tokenizer with the right name and other contents.
    #[error("the tape was made with tokenizer {name:?} of digest {expected}; the one at hand has {found}")]
    OtherTokenizer {
        /// The tokenizer's name.
        name: String,
        /// The header's digest.
        expected: String,
        /// The loaded tokenizer's digest.
        found: String,
    },
    /// A data file that a source cannot take its prompts from.
    #[error("{name}{}: {reason}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Data {
        /// The file.
        name: String,
        /// The line or record, from 1; none where it is the whole.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A source that needs a data file, without one.
    #[error(
        "{source_name} takes its prompts from a {name}, which a tape does not hold: make another tape of it with \
         `generate dataset`, and compare the workload digests"
    )]
    MissingData {
        /// The source.
        source_name: String,
        /// The file that is missing.
        name: String,
    },
    /// A tape that was imported, so that only its file makes it again.
    #[error(
        "{source_name} takes its requests from a file, which a tape does not hold: import it again, and compare the \
         workload digests"
    )]
    Imported {
        /// The source.
        source_name: String,
    },
    /// The sink took no more.
    #[error("{0}")]
    Sink(String),
}

impl From<Refused> for Error {
    fn from(Refused(reason): Refused) -> Self {
        Self::Sink(reason)
    }
}

/// Makes the requests of a tape again, from its header, and gives each to `sink` in order.
///
/// The tokenizer is loaded by the header's name for it. A local folder's name is no path: where that does not lead to
/// it, load it and call [`regenerate_with`].
pub fn regenerate(header: &Header, threads: usize, sink: Sink) -> Result<Made, Error> {
    let id = header.tokenizer.as_ref().ok_or_else(|| Error::Header { reason: "no tokenizer".to_owned() })?;
    regenerate_with(header, &Tokenizer::load(&id.name)?, threads, sink)
}

/// As [`regenerate`], with a tokenizer that is loaded already. It must have the digest that the header names.
pub fn regenerate_with(
    header: &Header,
    tokenizer: &Tokenizer,
    threads: usize,
    sink: Sink,
) -> Result<Made, Error> {
    enum Source {
        Random(Params),
        Peer(compat::Peer),
    }
    if header.source.starts_with(IMPORTED) {
        return Err(Error::Imported { source_name: header.source.clone() });
    }
    let source = if header.source == random::SOURCE {
        Source::Random(Params::from_header(header)?)
    } else {
        let unknown = || Error::UnknownSource { name: header.source.clone() };
        Source::Peer(compat::Peer::from_header(header)?.ok_or_else(unknown)?)
    };
    if let Some(id) = header.tokenizer.as_ref().filter(|id| id.digest != tokenizer.digest()) {
        return Err(Error::OtherTokenizer {
            name: id.name.clone(),
            expected: id.digest.clone(),
            found: tokenizer.digest().to_owned(),
        });
    }
    match source {
        Source::Random(params) => Random::new(params, tokenizer)?.run(threads, sink),
        Source::Peer(peer) => compat::feed(peer.requests(tokenizer, None)?, sink),
    }
}

#[cfg(test)]
mod tests;
