//! A tape from a foreign file: one type a format reads its rows, and everything else is here.
//!
//! The file is read twice: once to count its rows, to check each of them and to find the earliest, and once to make the
//! requests. Rows of lengths alone become prompts of exactly those lengths; where a row says which blocks of tokens it
//! shares with others, equal blocks are equal tokens, on every machine. Every random choice belongs to the seed and to a
//! row's index or a block's hash, so that the tape is the same on any number of threads.

mod kept;

use std::io;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tokentape_tokenizer::Tokenizer;

use super::moment::Decimal;
use super::source::{Imported, Lengths, Source, Whole};
use super::{
    aiperf, asked, azure, bailian, burstgpt, evalscope_lines, evalscope_trace, guidellm, jsonl, mooncake,
    openai_batch, raw_payload, sharegpt, vllm_custom,
};
use crate::generate::body::{Body, Fixed};
use crate::generate::ordered::{self, Item};
use crate::generate::prompt::Prompts;
use crate::generate::stream::Purpose;
use crate::generate::{self, Api, IMPORTED, MAX_TOKENS, Made, Refused, Sink};
use crate::tape::format::{Header, Request, TokenizerId, VERSION};

use kept::Kept;

pub use super::rows::Input;

/// Requests that a worker makes before it hands them on: few, since a prompt may be long.
const BATCH: usize = 8;

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read.
    #[error("{name}: {source}")]
    File {
        /// The file.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is packed in a way that is not read.
    #[error(
        "{name} is compressed with gzip: unpack it on the way, as in `zcat FILE | tokentape import FORMAT -`"
    )]
    Gzip {
        /// The file.
        name: String,
    },
    /// A row that is not what the format says, or cannot be a request.
    #[error("{name}, line {line}: {reason}")]
    Line {
        /// The file.
        name: String,
        /// The line on which the row begins, from 1.
        line: u64,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file without a single request.
    #[error("{name} holds no request{}", if *skipped > 0 { ": every row is empty" } else { "" })]
    Empty {
        /// The file.
        name: String,
        /// Rows that were left out.
        skipped: u64,
    },
    /// Parameters that make no sense, or a tokenizer that makes no prompts.
    #[error(transparent)]
    Generate(#[from] generate::Error),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Generate(refused.into())
    }
}

/// A foreign format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// `AIPerf`'s `single_turn` and `multi_turn`: texts, and sessions of texts.
    Aiperf,
    /// The Azure LLM inference traces of 2023 and 2024.
    Azure,
    /// Alibaba's Bailian (Qwen) traces.
    Bailian,
    /// `BurstGPT`, with or without sessions.
    Burstgpt,
    /// The `line_by_line` dataset of `evalscope perf`.
    EvalscopeLines,
    /// The `workload_trace` dataset of `evalscope perf`.
    EvalscopeTrace,
    /// `GuideLLM`'s trace: timestamps and lengths, as JSON or CSV.
    Guidellm,
    /// Our own plain form: a request a line, as `export jsonl` and `cat` write it.
    Jsonl,
    /// Mooncake's traces.
    Mooncake,
    /// `OpenAI`'s batch files.
    OpenaiBatch,
    /// Whole bodies, one a line: `AIPerf`'s `raw_payload`.
    RawPayload,
    /// `ShareGPT`'s conversations.
    Sharegpt,
    /// The `custom` dataset of `vllm bench serve`.
    VllmCustom,
    /// The `timed_trace` dataset of `vllm bench serve`.
    VllmTimedTrace,
}

impl Format {
    /// Its name on the command line and in a header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aiperf => "aiperf",
            Self::Azure => "azure",
            Self::Bailian => "bailian",
            Self::Burstgpt => "burstgpt",
            Self::EvalscopeLines => "evalscope-lines",
            Self::EvalscopeTrace => "evalscope-trace",
            Self::Guidellm => "guidellm",
            Self::Jsonl => "jsonl",
            Self::Mooncake => "mooncake",
            Self::OpenaiBatch => "openai-batch",
            Self::RawPayload => "raw-payload",
            Self::Sharegpt => "sharegpt",
            Self::VllmCustom => "vllm-custom",
            Self::VllmTimedTrace => "vllm-timed-trace",
        }
    }

    /// Whether prompts are made for it, which takes a tokenizer.
    #[must_use]
    pub fn makes_prompts(self) -> bool {
        match self {
            Self::Azure
            | Self::Bailian
            | Self::Burstgpt
            | Self::Guidellm
            | Self::Mooncake
            | Self::VllmTimedTrace => true,
            Self::Aiperf
            | Self::EvalscopeLines
            | Self::EvalscopeTrace
            | Self::Jsonl
            | Self::OpenaiBatch
            | Self::RawPayload
            | Self::Sharegpt
            | Self::VllmCustom => false,
        }
    }

    /// Tokens that one hash stands for, where rows have hashes.
    fn block_tokens(self) -> Option<u32> {
        match self {
            Self::Bailian | Self::VllmTimedTrace => Some(16),
            Self::Mooncake => Some(512),
            _ => None,
        }
    }

    /// Whether its times begin somewhere of no meaning: offsets then count from the earliest row.
    fn counts_from_earliest(self) -> bool {
        matches!(self, Self::Azure | Self::Burstgpt | Self::EvalscopeTrace | Self::Guidellm)
    }

    fn source(self, input: &Input, params: &Params) -> Result<Box<dyn Source>, Error> {
        Ok(match self {
            Self::Aiperf => Box::new(aiperf::Reader::open(input)?),
            Self::Azure => Box::new(azure::Trace::open(input)?),
            Self::Bailian => Box::new(bailian::Trace::open(input)?),
            Self::Burstgpt => Box::new(burstgpt::Trace::open(input)?),
            Self::EvalscopeLines => Box::new(evalscope_lines::Reader::open(input)?),
            Self::EvalscopeTrace => Box::new(evalscope_trace::Reader::open(input)?),
            Self::Guidellm => guidellm::open(input)?,
            Self::Jsonl => Box::new(jsonl::Reader::open(input)?),
            Self::Mooncake => Box::new(mooncake::Trace::open(input, Decimal::MILLI)?),
            Self::OpenaiBatch => Box::new(openai_batch::Reader::open(input)?),
            Self::RawPayload => Box::new(raw_payload::Reader::open(input)?),
            Self::Sharegpt => Box::new(sharegpt::Reader::open(input)?),
            Self::VllmCustom => Box::new(vllm_custom::Reader::open(input)?),
            Self::VllmTimedTrace => Box::new(mooncake::Trace::open(input, params.unit()?)?),
        })
    }
}

/// How a file is imported. In a header each stands under its flag's name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Params {
    /// Only the first ones, or all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Leave out rows without a token in or out.
    pub skip_empty: bool,
    /// Tokens that one hash stands for; the format's own where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_tokens: Option<u32>,
    /// vLLM's `timed_trace`: seconds in one unit of its timestamps, as a decimal; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sec_multiplier: Option<String>,
    /// The seed of every random choice.
    pub seed: u64,
    /// The model's name in the bodies that are made.
    pub model: String,
    /// The endpoint of the bodies that are made: chat or completions.
    pub api: Api,
}

/// The command line's defaults: everything, seed 0, completions.
impl Default for Params {
    fn default() -> Self {
        Self {
            requests: None,
            skip_empty: false,
            block_tokens: None,
            sec_multiplier: None,
            seed: 0,
            model: "tokentape".to_owned(),
            api: Api::Completions,
        }
    }
}

impl Params {
    fn unit(&self) -> Result<Decimal, Error> {
        let Some(text) = &self.sec_multiplier else { return Ok(Decimal::ONE) };
        Decimal::parse(text).ok_or_else(|| {
            parameter("--sec-multiplier", format!("{text:?} is not a number from 0 on, as in 0.001"))
        })
    }

    /// With the format's own number of tokens in a block, once everything is known to make sense.
    fn checked(self, format: Format) -> Result<Self, Error> {
        let wrong = |flag, reason: &str| Err(parameter(flag, reason));
        if self.requests == Some(0) {
            return wrong("--requests", "must be at least 1");
        }
        if self.block_tokens.is_some() && format.block_tokens().is_none() {
            return wrong("--block-tokens", "needs a format with hashes of blocks");
        }
        if self.block_tokens.is_some_and(|tokens| tokens == 0 || tokens > MAX_TOKENS) {
            return Err(parameter("--block-tokens", format!("must be from 1 to {MAX_TOKENS}")));
        }
        if self.sec_multiplier.is_some() && format != Format::VllmTimedTrace {
            return wrong("--sec-multiplier", "needs vllm-timed-trace: other formats have their own unit");
        }
        self.unit()?;
        if !matches!(self.api, Api::Chat | Api::Completions) {
            return wrong("--api", "must be chat or completions");
        }
        Ok(Self { block_tokens: self.block_tokens.or(format.block_tokens()), ..self })
    }
}

fn parameter(flag: &'static str, reason: impl Into<String>) -> Error {
    generate::Error::Parameter { flag, reason: reason.into() }.into()
}

/// What the first reading found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Survey {
    /// Rows that become requests.
    pub requests: u64,
    /// Rows left out because they are empty.
    pub skipped: u64,
    /// Requests that arrive before one that stands above them. A tape keeps their times, but its order is the file's,
    /// and a replay sends in the tape's order.
    pub unordered: u64,
    /// The time of the earliest request, in ns from where the file's times begin.
    earliest_ns: u64,
}

/// A file, ready to become a tape.
#[derive(Debug)]
pub struct Import<'a> {
    format: Format,
    params: Params,
    input: Input,
    header: Header,
    survey: Survey,
    tokenizer: Option<&'a Tokenizer>,
    prompts: Option<Prompts<'a>>,
    body: Body,
    /// Its index is the block's hash, so that equal blocks are equal.
    block: Purpose,
    prompt: Purpose,
}

impl<'a> Import<'a> {
    /// Checks the parameters, and reads the file once. A format that [makes prompts](Format::makes_prompts) needs a
    /// tokenizer; for others it counts the tokens, where there is one.
    pub fn new(
        format: Format,
        params: Params,
        input: Input,
        tokenizer: Option<&'a Tokenizer>,
    ) -> Result<Self, Error> {
        let params = params.checked(format)?;
        let prompts = match tokenizer {
            Some(tokenizer) if format.makes_prompts() => Some(Prompts::new(tokenizer, false)?),
            None if format.makes_prompts() => {
                return Err(parameter("--tokenizer", "is needed: the format has lengths and no prompts"));
            }
            _ => None,
        };
        let survey = survey(format, &params, &input)?;
        let header = header(format, &params, &input, &survey, tokenizer)?;
        let extra = Map::new();
        let body = Body::new(&Fixed {
            api: params.api,
            model: &params.model,
            temperature: None,
            ignore_eos: true,
            extra: &extra,
        });
        let (block, prompt) =
            (Purpose::new(params.seed, "import-block"), Purpose::new(params.seed, "import-prompt"));
        Ok(Self { format, params, input, header, survey, tokenizer, prompts, body, block, prompt })
    }

    /// The header of the tape.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the first reading found.
    #[must_use]
    pub fn survey(&self) -> Survey {
        self.survey
    }

    /// Reads the file again, makes every request, on as many threads, and gives each to `sink` in order.
    pub fn run(&self, threads: usize, sink: Sink) -> Result<Made, Error> {
        let kept = Kept::open(self.format, &self.params, &self.input)?;
        ordered::run(kept, BATCH, threads, &|index, imported| self.item(index, imported), sink)
    }

    fn item(&self, index: u64, imported: Imported) -> Result<Item, Error> {
        let from = if self.format.counts_from_earliest() { self.survey.earliest_ns } else { 0 };
        let offset_ns = imported.offset_ns().saturating_sub(from);
        match imported {
            Imported::Asked(asked) => {
                let bodies = (self.params.model.as_str(), self.params.api);
                let request = asked::request(index, offset_ns, asked, bodies, self.tokenizer)
                    .map_err(generate::Error::from)?;
                Ok(Item { request, exact: true })
            }
            Imported::Lengths(row) => self.made(index, offset_ns, row),
            Imported::Nothing { what, .. } => {
                unreachable!("a row that asks nothing ({what}) is left out or refused when it is read")
            }
            Imported::Whole(Whole { method, path, body, input_tokens, output_tokens, session, .. }) => {
                let input_tokens = match (input_tokens, self.tokenizer) {
                    (None, Some(by)) => asked::prompt_tokens(by, &body).map_err(generate::Error::from)?,
                    (known, _) => known,
                };
                let request =
                    Request { index, offset_ns, method, path, body, input_tokens, output_tokens, session };
                Ok(Item { request, exact: true })
            }
        }
    }

    fn made(&self, index: u64, offset_ns: u64, row: Lengths) -> Result<Item, Error> {
        let Some(prompts) = &self.prompts else {
            return Err(parameter("--tokenizer", "is needed: the format has lengths and no prompts"));
        };
        let wanted = row.input_tokens as usize;
        let rest = self.prompt.stream(index);
        let made = match self.params.block_tokens {
            Some(size) if !row.blocks.is_empty() => {
                let blocks = row.blocks.iter().map(|&hash| self.block.stream(hash));
                prompts.make_of_blocks(wanted, size as usize, blocks, rest)?
            }
            _ => prompts.make(wanted, None, rest)?,
        };
        let request = Request {
            index,
            offset_ns,
            method: "POST".to_owned(),
            path: self.params.api.path().to_owned(),
            body: self.body.of(&made.text, row.output_tokens),
            input_tokens: Some(u32::try_from(made.tokens).unwrap_or(u32::MAX)),
            output_tokens: Some(row.output_tokens),
            session: row.session,
        };
        Ok(Item { request, exact: made.tokens == wanted })
    }
}

/// Imports a whole file and gives its requests: what a test or a fuzzer calls.
pub fn import(
    format: Format,
    params: Params,
    bytes: &[u8],
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<Request>, Error> {
    let input = Input::Bytes { name: "input".to_owned(), bytes: bytes.into() };
    let mut requests = Vec::new();
    Import::new(format, params, input, tokenizer)?.run(1, &mut |request| {
        requests.push(request);
        Ok(())
    })?;
    Ok(requests)
}

fn survey(format: Format, params: &Params, input: &Input) -> Result<Survey, Error> {
    let mut kept = Kept::open(format, params, input)?;
    let mut survey = Survey { earliest_ns: u64::MAX, ..Survey::default() };
    let mut latest_ns = 0;
    for imported in &mut kept {
        let offset_ns = imported?.offset_ns();
        survey.requests += 1;
        survey.unordered += u64::from(offset_ns < latest_ns);
        survey.earliest_ns = survey.earliest_ns.min(offset_ns);
        latest_ns = latest_ns.max(offset_ns);
    }
    survey.skipped = kept.skipped;
    if survey.requests == 0 {
        return Err(Error::Empty { name: input.name(), skipped: survey.skipped });
    }
    Ok(survey)
}

/// The input stands in it by its contents, never by its path.
fn header(
    format: Format,
    params: &Params,
    input: &Input,
    survey: &Survey,
    tokenizer: Option<&Tokenizer>,
) -> Result<Header, Error> {
    let mut map = Map::new();
    map.insert(
        "input".to_owned(),
        json!({"digest": input.digest()?, "requests": survey.requests, "skipped": survey.skipped}),
    );
    let params_value = serde_json::to_value(params)
        .map_err(|error| generate::Error::Header { reason: error.to_string() })?;
    if let Value::Object(params) = params_value {
        map.extend(params);
    }
    Ok(Header {
        version: VERSION,
        created_by: concat!("tokentape ", env!("CARGO_PKG_VERSION")).to_owned(),
        source: format!("{IMPORTED}{}", format.name()),
        params: map,
        seed: Some(params.seed),
        tokenizer: tokenizer.map(|tokenizer| TokenizerId {
            name: tokenizer.name().to_owned(),
            digest: tokenizer.digest().to_owned(),
        }),
    })
}

#[cfg(test)]
mod tests;
