//! What `vllm bench serve` sends, as one of its versions does: its datasets (`vllm/benchmarks/datasets`) and its
//! bodies (`vllm/benchmarks/lib/endpoint_request_func.py`).
//!
//! From 0.24 on the original asks the server's `/tokenize` about the first prompt of `random` and
//! `prefix_repetition`, and shortens prompts where the server counts otherwise than the tokenizer. That takes a server,
//! so it is no part of this: where both have the same tokenizer, nothing changes.

mod body;
mod custom;
mod exact;
mod prefix_repetition;
mod random;
mod sharegpt;
mod timed_trace;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokentape_tokenizer::Tokenizer;

use super::mt19937::PythonRandom;
use super::{Data, DataId, Sampled, numbered};
use crate::generate::{Api, Error, MAX_TOKENS};
use crate::metrics::vllm::Version;
use crate::tape::format::{Header, Request};
use body::Body;

/// All requests are made in memory.
const MAX_REQUESTS: u32 = 10_000_000;

/// Every parameter of a run's requests, under the names of the original's flags. All of it stands in the header.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Params {
    /// The version whose requests they are.
    pub version: Version,
    /// Where the prompts come from.
    pub dataset: Dataset,
    /// The endpoint: `openai-chat` or `openai`.
    pub backend: Api,
    /// The model's name in the bodies.
    pub model: String,
    /// Number of requests. For `custom`, 0 stands for every row of the file.
    pub num_prompts: u32,
    /// The seed of everything; numpy takes 32 bits.
    pub seed: u32,
    /// The tokenizer's name.
    pub tokenizer: String,
    /// Asks the server to go on to the full number of output tokens. From 0.11.1 on `random` always does, and
    /// `timed_trace` from its first version.
    pub ignore_eos: bool,
    /// Log probabilities to ask for; only completions have them.
    pub logprobs: Option<u32>,
    /// Sampling parameters, sent where given.
    pub sampling: Sampling,
    /// Further keys of each body; one that is there already is set anew in its place. From 0.11.1 on.
    pub extra_body: Map<String, Value>,
    /// Where a file has fewer prompts than there are to be requests, do without the missing ones rather than repeat some.
    pub no_oversample: bool,
    /// Keeps the order of the file. From 0.11.1 on.
    pub disable_shuffle: bool,
    /// The file that the prompts were taken from.
    pub data: Option<DataId>,
}

/// Sampling parameters, in the order in which the original writes them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sampling {
    /// `top_p`.
    pub top_p: Option<f64>,
    /// `top_k`.
    pub top_k: Option<i64>,
    /// `min_p`.
    pub min_p: Option<f64>,
    /// `temperature`. Up to 0.14 it is sent always, 0 where not given.
    pub temperature: Option<f64>,
    /// `frequency_penalty`. From 0.11.1 on, like the other penalties.
    pub frequency_penalty: Option<f64>,
    /// `presence_penalty`.
    pub presence_penalty: Option<f64>,
    /// `repetition_penalty`. Completions send 1 where not given.
    pub repetition_penalty: Option<f64>,
}

/// A dataset with its own parameters.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Dataset {
    /// `random`: runs of neighbouring ids of the vocabulary.
    Random {
        /// Tokens of each prompt, without its prefix.
        input_len: u32,
        /// Tokens to ask for.
        output_len: u32,
        /// Spreads both lengths from N(1-R) to N(1+R).
        range_ratio: RangeRatio,
        /// Tokens of a prefix that all prompts share.
        prefix_len: u32,
    },
    /// `custom`: a JSONL file of `{"prompt": …, "output_tokens": …}`.
    Custom {
        /// Tokens to ask for; none stands for each row's own (-1 in the original, which 0.11.0 does not know).
        output_len: Option<u32>,
        /// Sends each prompt as it is rather than as the tokenizer's chat template renders it.
        skip_chat_template: bool,
    },
    /// `sharegpt`: a JSON file of conversations; each gives its first message.
    Sharegpt {
        /// Tokens to ask for; none stands for the length of the conversation's first answer.
        output_len: Option<u32>,
    },
    /// `prefix_repetition`: prefixes of random tokens, each before as many different suffixes.
    PrefixRepetition {
        /// Tokens of each prefix.
        prefix_len: u32,
        /// Tokens of each suffix.
        suffix_len: u32,
        /// Number of prefixes.
        num_prefixes: u32,
        /// Tokens to ask for.
        output_len: u32,
    },
    /// `timed_trace`: a JSONL file of arrivals, lengths and hashes of blocks of tokens (Mooncake's form). Completions
    /// only, from 0.23 on, with prompts of token ids from 0.28 on. The original's tokens differ in every process; here a
    /// block's seed is the first 32 bits of a BLAKE3 hash.
    TimedTrace {
        /// Tokens that one hash stands for.
        chunk_hash_size: u32,
        /// Seconds in one unit of the file's timestamps: 0.001 where they are milliseconds.
        sec_multiplier: f64,
        /// The keys of a line.
        labels: Labels,
    },
}

/// How far lengths spread around their number: at least 0, below 1.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RangeRatio {
    /// Input and output alike.
    Both(f64),
    /// Each its own. From 0.20 on.
    #[serde(rename_all = "kebab-case")]
    Each {
        /// The prompts' spread.
        input: f64,
        /// The answers' spread.
        output: f64,
    },
}

/// The keys of a line of a timed trace.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Labels {
    /// When the request arrives.
    pub timestamp: String,
    /// Tokens of its prompt.
    pub input_length: String,
    /// Tokens to ask for.
    pub output_length: String,
    /// The hashes of its prompt's blocks.
    pub hash_ids: String,
}

/// The original's defaults.
impl Default for Labels {
    fn default() -> Self {
        let [timestamp, input_length, output_length, hash_ids] =
            ["timestamp", "input_length", "output_length", "hash_ids"].map(str::to_owned);
        Self { timestamp, input_length, output_length, hash_ids }
    }
}

impl Dataset {
    /// The name that the original has for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Dataset::Random { .. } => "random",
            Dataset::Custom { .. } => "custom",
            Dataset::Sharegpt { .. } => "sharegpt",
            Dataset::PrefixRepetition { .. } => "prefix_repetition",
            Dataset::TimedTrace { .. } => "timed_trace",
        }
    }
}

impl Params {
    /// A run of `num_prompts` requests of `dataset` with the original's defaults for the rest: seed 0, completions.
    #[must_use]
    pub fn new(version: Version, dataset: Dataset, model: &str, num_prompts: u32) -> Self {
        Self {
            version,
            dataset,
            backend: Api::Completions,
            model: model.to_owned(),
            num_prompts,
            seed: 0,
            tokenizer: tokentape_tokenizer::EMBEDDED.to_owned(),
            ignore_eos: false,
            logprobs: None,
            sampling: Sampling::default(),
            extra_body: Map::new(),
            no_oversample: false,
            disable_shuffle: false,
            data: None,
        }
    }

    /// The source's name in a header: `vllm-0.11.0/random`.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{}/{}", crate::metrics::Dialect::Vllm(self.version), self.dataset.name())
    }

    /// What this version's flags cannot say.
    fn check(&self) -> Result<(), Error> {
        if self.num_prompts == 0 && !matches!(self.dataset, Dataset::Custom { .. }) {
            return wrong("--requests", "must be at least 1");
        }
        if self.num_prompts > MAX_REQUESTS {
            return wrong(
                "--requests",
                format!("must be at most {MAX_REQUESTS}: they are all made in memory"),
            );
        }
        if self.version == Version::V0_11_0 {
            if !self.extra_body.is_empty() {
                return wrong("--extra-body", "does not exist in vllm 0.11.0");
            }
            let Sampling { frequency_penalty, presence_penalty, repetition_penalty, .. } = &self.sampling;
            if [frequency_penalty, presence_penalty, repetition_penalty]
                .iter()
                .any(|penalty| penalty.is_some())
            {
                return wrong(
                    "--frequency-penalty, --presence-penalty and --repetition-penalty",
                    "do not exist in vllm 0.11.0",
                );
            }
            if self.disable_shuffle {
                return wrong("--disable-shuffle", "does not exist in vllm 0.11.0");
            }
        }
        if self.logprobs.is_some() && self.backend == Api::Chat {
            return wrong("--logprobs", "is not sent in chat requests");
        }
        Ok(())
    }

    /// The seed of a file's shuffle. 0.11.0 does not hand its seed to `custom`, which then takes 0.
    fn shuffle_seed(&self) -> u64 {
        match (self.version, &self.dataset) {
            (Version::V0_11_0, Dataset::Custom { .. }) => 0,
            _ => self.seed.into(),
        }
    }
}

/// A prompt as a dataset gives it (`SampleRequest`).
#[derive(Clone, Debug)]
struct Sample {
    prompt: Prompt,
    prompt_len: usize,
    output_len: u32,
}

#[derive(Clone, Debug)]
enum Prompt {
    Text(String),
    /// Token ids, which the server takes as they are.
    Ids(Vec<u32>),
}

/// The requests of a run, in the original's order. What it sends besides (a ready check, warm-ups, `/tokenize`,
/// `/metrics`) is not among them.
///
/// `data` is the file of a dataset that has one. Only `timed_trace` says when a request arrives; elsewhere every offset
/// is 0.
pub fn requests(
    params: &Params,
    tokenizer: &Tokenizer,
    data: Option<Data<'_>>,
) -> Result<Vec<Request>, Error> {
    params.check()?;
    let file = || super::required(&params.source(), params.data.as_ref(), data);
    let mut arrivals = Vec::new();
    let samples = match &params.dataset {
        &Dataset::Random { input_len, output_len, range_ratio, prefix_len } => random::sample(
            params,
            &random::Lens { input_len, output_len, range_ratio, prefix_len },
            tokenizer,
        )?,
        &Dataset::Custom { output_len, skip_chat_template } => {
            custom::sample(params, output_len, skip_chat_template, tokenizer, file()?)?
        }
        &Dataset::Sharegpt { output_len } => sharegpt::sample(params, output_len, tokenizer, file()?)?,
        &Dataset::PrefixRepetition { prefix_len, suffix_len, num_prefixes, output_len } => {
            let lens = prefix_repetition::Lens { prefix_len, suffix_len, num_prefixes, output_len };
            prefix_repetition::sample(params, &lens, tokenizer)?
        }
        Dataset::TimedTrace { chunk_hash_size, sec_multiplier, labels } => {
            let blocks = timed_trace::Blocks::new(*chunk_hash_size, tokenizer)?;
            let timed = timed_trace::sample(params, blocks, *sec_multiplier, labels, file()?)?;
            let (samples, offsets) = timed.into_iter().unzip();
            arrivals = offsets;
            samples
        }
    };
    let body = Body::new(params);
    let sampled = samples.into_iter().map(|Sample { prompt, prompt_len, output_len }| Sampled {
        path: params.backend.path().to_owned(),
        body: body.of(&prompt, output_len),
        input_tokens: u32::try_from(prompt_len).unwrap_or(u32::MAX),
        output_tokens: output_len,
    });
    let mut requests = numbered(sampled.collect());
    for (request, offset_ns) in requests.iter_mut().zip(arrivals) {
        request.offset_ns = offset_ns;
    }
    Ok(requests)
}

/// The header of the tape that holds the requests.
pub fn header(params: &Params, tokenizer: &Tokenizer) -> Result<Header, Error> {
    let named = Params { tokenizer: tokenizer.name().to_owned(), ..params.clone() };
    super::header(params.source(), &named, Some(params.seed.into()), tokenizer)
}

fn wrong<T>(flag: &'static str, reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Parameter { flag, reason: reason.into() })
}

/// Keeps a slip of the finger from filling the memory.
fn within_limit(flag: &'static str, tokens: f64) -> Result<(), Error> {
    if tokens > f64::from(MAX_TOKENS) {
        return wrong(flag, format!("makes prompts or answers of more than {MAX_TOKENS} tokens"));
    }
    Ok(())
}

/// Adds copies of samples at random until there are `n` (`maybe_oversample_requests`).
fn oversample(params: &Params, samples: &mut Vec<Sample>, n: usize) {
    let missing = n.saturating_sub(samples.len());
    if params.no_oversample || missing == 0 || samples.is_empty() {
        return;
    }
    let mut random = PythonRandom::new(params.shuffle_seed());
    if params.version == Version::V0_11_0 {
        let chosen = random.choices(samples.len(), missing);
        samples.extend(chosen.into_iter().map(|i| samples[i].clone()).collect::<Vec<_>>());
    } else {
        // The list grows only once all are chosen.
        let chosen: Vec<_> = (0..missing).map(|_| samples[random.choice(samples.len())].clone()).collect();
        samples.extend(chosen);
    }
}

#[cfg(test)]
mod tests;
