//! The peers' own samplers: the requests that a version of `vllm bench serve` or `evalscope perf` would send, byte for
//! byte.
//!
//! A peer draws from one sequential stream of random numbers, so request i depends on all before it; these sources
//! therefore make every request in one thread, and at once. Each names its parameters in the header
//! (`vllm-0.11.0/random`, …), so a tape of theirs can be made again like any other.

pub mod evalscope;
mod mt19937;
mod numpy;
pub mod vllm;

pub(crate) use mt19937::NumpyLegacy;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokentape_tokenizer::Tokenizer;

use super::{Error, Made, Sink};
use crate::tape::format::{Header, Request, TokenizerId, VERSION};

/// What a peer's client sends for one request, before the tape gives it an index.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sampled {
    /// The path: `/v1/chat/completions`.
    pub path: String,
    /// The body's exact bytes.
    pub body: Vec<u8>,
    /// The prompt's tokens as the peer counts them (`prompt_len`).
    pub input_tokens: u32,
    /// The tokens asked for.
    pub output_tokens: u32,
}

/// A run of one of the peers.
#[derive(Clone, Debug, PartialEq)]
pub enum Peer {
    /// `vllm bench serve`.
    Vllm(Box<vllm::Params>),
    /// `evalscope perf`.
    Evalscope(Box<evalscope::Params>),
}

impl Peer {
    /// The run that a header tells of; none where its source is no peer's.
    pub(super) fn from_header(header: &Header) -> Result<Option<Self>, Error> {
        let unreadable = |error: serde_json::Error| Error::Header { reason: error.to_string() };
        let params = || Value::Object(header.params.clone());
        let (peer, source) = if header.source.starts_with("vllm-") {
            let params: vllm::Params = serde_json::from_value(params()).map_err(unreadable)?;
            let source = params.source();
            (Self::Vllm(Box::new(params)), source)
        } else if header.source.starts_with("evalscope-") {
            let params: evalscope::Params = serde_json::from_value(params()).map_err(unreadable)?;
            let source = params.source();
            (Self::Evalscope(Box::new(params)), source)
        } else {
            return Ok(None);
        };
        if source != header.source {
            let reason =
                format!("its source is {:?}, and its parameters are those of {source:?}", header.source);
            return Err(Error::Header { reason });
        }
        Ok(Some(peer))
    }

    /// The header of the tape that holds the requests.
    pub fn header(&self, tokenizer: &Tokenizer) -> Result<Header, Error> {
        match self {
            Self::Vllm(params) => vllm::header(params, tokenizer),
            Self::Evalscope(params) => evalscope::header(params, tokenizer),
        }
    }

    /// The requests in the peer's order; `data` is the file of a dataset that has one.
    pub fn requests(&self, tokenizer: &Tokenizer, data: Option<Data<'_>>) -> Result<Vec<Request>, Error> {
        match self {
            Self::Vllm(params) => vllm::requests(params, tokenizer, data),
            Self::Evalscope(params) => evalscope::requests(params, tokenizer, data),
        }
    }
}

/// Hands requests over one by one. None of them counts as inexact: each is as long as its peer makes it.
pub(crate) fn feed(requests: Vec<Request>, sink: Sink) -> Result<Made, Error> {
    let made = Made { requests: requests.len() as u64, inexact: 0 };
    for request in requests {
        sink(request).map_err(Error::Sink)?;
    }
    Ok(made)
}

/// A file that a source takes its prompts from.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// All it holds.
    pub bytes: &'a [u8],
}

impl<'a> Data<'a> {
    /// How a header names the file: its last component and its digest.
    #[must_use]
    pub fn id(self) -> DataId {
        let name = self.name.rsplit(['/', '\\']).next().unwrap_or(self.name);
        DataId { name: name.to_owned(), digest: blake3::hash(self.bytes).to_hex().to_string() }
    }

    /// The lines that hold something, with their numbers from 1.
    fn lines(self) -> impl Iterator<Item = (usize, &'a [u8])> {
        let lines = (1..).zip(self.bytes.split(|&byte| byte == b'\n'));
        lines.map(|(number, line)| (number, line.trim_ascii())).filter(|(_, line)| !line.is_empty())
    }

    /// An error in the file: in a line or record, counted from 1, or in the whole.
    fn error(self, line: Option<usize>, reason: impl Into<String>) -> Error {
        Error::Data { name: self.name.to_owned(), line, reason: reason.into() }
    }
}

/// Which file a tape's prompts were taken from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DataId {
    /// The file's name without its folder.
    pub name: String,
    /// BLAKE3 of the file, in hex.
    pub digest: String,
}

/// The data that a source cannot do without, and which must be the data of the parameters where they name some.
fn required<'a>(source: &str, named: Option<&DataId>, data: Option<Data<'a>>) -> Result<Data<'a>, Error> {
    let Some(data) = data else {
        let name = named.map_or_else(|| "data file".to_owned(), |id| format!("data file {}", id.name));
        return Err(Error::MissingData { source_name: source.to_owned(), name });
    };
    match named.filter(|id| id.digest != data.id().digest) {
        Some(id) => {
            Err(data.error(None, format!("its BLAKE3 digest is not {}, which the tape names", id.digest)))
        }
        None => Ok(data),
    }
}

/// Gives the requests their places in a tape. Their order is the peer's; when each is sent is the schedule's matter.
fn numbered(sampled: Vec<Sampled>) -> Vec<Request> {
    sampled
        .into_iter()
        .zip(0..)
        .map(|(Sampled { path, body, input_tokens, output_tokens }, index)| Request {
            index,
            offset_ns: 0,
            method: "POST".to_owned(),
            path,
            body,
            input_tokens: Some(input_tokens),
            output_tokens: Some(output_tokens),
            session: None,
        })
        .collect()
}

/// The header of a tape from one of these sources.
fn header(
    source: String,
    params: &impl Serialize,
    seed: Option<u64>,
    tokenizer: &Tokenizer,
) -> Result<Header, Error> {
    let unwritable = |reason: String| Error::Header { reason };
    let Value::Object(params) =
        serde_json::to_value(params).map_err(|error| unwritable(error.to_string()))?
    else {
        return Err(unwritable("parameters are no object".to_owned()));
    };
    Ok(Header {
        version: VERSION,
        created_by: concat!("tokentape ", env!("CARGO_PKG_VERSION")).to_owned(),
        source,
        params,
        seed,
        tokenizer: Some(TokenizerId {
            name: tokenizer.name().to_owned(),
            digest: tokenizer.digest().to_owned(),
        }),
    })
}
