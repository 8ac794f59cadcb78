//! The client's parameters, under the names of its flags.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::DataId;
use super::Streams;
use crate::generate::{Api, Error, Lengths, MAX_TOKENS};
use crate::metrics::evalscope::Version;

/// Every parameter. In a header each stands under its flag's name; what is not given is left out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the client")]
pub struct Params {
    /// Which client.
    pub version: Version,
    /// The data set.
    pub dataset: Dataset,
    /// The data set's file, where it has one; the file at hand must be this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataId>,
    /// A prompt for every request, in the place of a data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Number of requests, without the warm-up: 1000 if not given, and for `workload_trace` all there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// The numbers of the runs of the same sweep before this one. They are taken to have had no rate, whose schedule
    /// would draw from the same stream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<u32>,
    /// Number of warm-up requests, which come first (1.14.1: `--warmup-num`, as a count).
    #[serde(default)]
    pub warmup_num: u32,
    /// Whether each run begins with a connection test, which draws a number of output tokens like any request.
    pub test_connection: bool,
    /// The seed of all random choices. It is sent in each body, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// The seed where none is sent: the client itself then draws anew each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsent_seed: Option<u32>,
    /// The tokenizer's name (`--tokenizer-path`). Without one, texts are measured in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// The model's name in the bodies. Only a `workload_trace` can do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The endpoint that the URL names.
    pub api: Api,
    /// Whether a prompt is sent as a user message and measured within the chat template; if not given, for chat only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_chat_template: Option<bool>,
    /// Sends prompts as token ids, to `/v1/completions` whatever the URL (1.14.1).
    #[serde(default)]
    pub tokenize_prompt: bool,
    /// Tokens of the shortest prompt; texts outside the limits are passed over.
    pub min_prompt_length: u32,
    /// Tokens of the longest prompt.
    pub max_prompt_length: u32,
    /// Tokens of the prefix that `random` puts before each prompt, in addition to its own.
    #[serde(default)]
    pub prefix_length: u32,
    /// Number of different prefixes, of which the requests take turns (1.14.1).
    pub prefix_count: u32,
    /// Shifts the first token of each random prompt (1.14.1); a sweep adds the `number` of each run to it.
    #[serde(default)]
    pub dataset_offset: u64,
    /// Output tokens to ask for; a range (1.14.1) is drawn from for each request.
    pub max_tokens: Lengths,
    /// As sent, and so are all from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<u32>,
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// The flag is sent as `true`.
    #[serde(default)]
    pub logprobs: bool,
    /// Sent as `n`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_choices: Option<u32>,
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Vec<String>>,
    /// The client sends them as strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_token_ids: Option<Vec<String>>,
    /// Whether answers are streamed.
    pub stream: bool,
    /// Always sent.
    pub temperature: f64,
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// Further keys of each body, which win over all others.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra_args: Map<String, Value>,
    /// A body whose `messages` are replaced, and over which all the above is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_template: Option<Map<String, Value>>,
}

/// What the requests are made of.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dataset {
    /// `custom`: a file with a prompt on each line.
    Custom,
    /// `line_by_line`: the same, and in 1.14.1 a line may be JSON: messages, or a whole body.
    LineByLine,
    /// `openqa`: JSON lines with a `question`.
    Openqa,
    /// `random`: prompts of consecutive tokens.
    Random,
    /// `share_gpt_zh` and `share_gpt_en` (1.14.1): JSON lines with a `conversation`, sent as one request.
    ShareGpt,
    /// `workload_trace` (1.14.1): JSON lines with a `body` and a `timestamp`.
    WorkloadTrace(TraceArgs),
}

/// The `--dataset-args` of `workload_trace`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields, default)]
pub struct TraceArgs {
    /// Divides the times.
    pub speed: f64,
    /// The model of every body that the mapping leaves alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_override: Option<String>,
    /// Other names for models.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub model_mapping: Map<String, Value>,
    /// Asks for as many output tokens as were recorded.
    pub match_output_length: bool,
}

impl Default for TraceArgs {
    fn default() -> Self {
        Self { speed: 1.0, model_override: None, model_mapping: Map::new(), match_output_length: false }
    }
}

/// The client's own defaults, for 1.14.1 and its data set `openqa`.
impl Default for Params {
    fn default() -> Self {
        Self {
            version: Version::V1_14_1,
            dataset: Dataset::Openqa,
            data: None,
            prompt: None,
            number: None,
            earlier: Vec::new(),
            warmup_num: 0,
            test_connection: true,
            seed: None,
            unsent_seed: None,
            tokenizer: None,
            model: None,
            api: Api::Chat,
            apply_chat_template: None,
            tokenize_prompt: false,
            min_prompt_length: 0,
            max_prompt_length: 131_072,
            prefix_length: 0,
            prefix_count: 1,
            dataset_offset: 0,
            max_tokens: Lengths::EVALSCOPE,
            min_tokens: None,
            frequency_penalty: None,
            repetition_penalty: None,
            logprobs: false,
            n_choices: None,
            stop: None,
            stop_token_ids: None,
            stream: true,
            temperature: 0.0,
            top_p: None,
            top_k: None,
            extra_args: Map::new(),
            query_template: None,
        }
    }
}

impl Params {
    /// The source's name in a header: `evalscope-1.14.1/random`.
    #[must_use]
    pub fn source(&self) -> String {
        let version = match self.version {
            Version::V1_1_1 => "1.1.1",
            Version::V1_14_1 => "1.14.1",
        };
        let dataset = match self.dataset {
            _ if self.prompt.is_some() => "prompt",
            Dataset::Custom => "custom",
            Dataset::LineByLine => "line-by-line",
            Dataset::Openqa => "openqa",
            Dataset::Random => "random",
            Dataset::ShareGpt => "share-gpt",
            Dataset::WorkloadTrace(_) => "workload-trace",
        };
        format!("evalscope-{version}/{dataset}")
    }

    /// The generators as the seed leaves them. A client without a seed cannot be repeated where it draws anything.
    pub fn streams(&self) -> Result<Streams, Error> {
        let draws = (self.dataset == Dataset::Random && self.prompt.is_none()) || !self.max_tokens.is_fixed();
        match self.seed.or(self.unsent_seed) {
            None if draws => Err(wrong(
                "--seed",
                "is needed: without one, evalscope's random choices are new in every run",
            )),
            seed => Ok(Streams::seeded(seed.unwrap_or_default())),
        }
    }

    /// The path that the requests go to.
    pub(super) fn path(&self) -> &'static str {
        if self.tokenize_prompt { Api::Completions.path() } else { self.api.path() }
    }

    pub(super) fn applies_chat_template(&self) -> bool {
        self.apply_chat_template.unwrap_or(self.api == Api::Chat)
    }

    /// Number of requests, warm-up included. A `usize` holds any `u32` on every platform that this is built for.
    pub(super) fn total(&self) -> usize {
        self.number.unwrap_or(1000) as usize + self.warmup_num as usize
    }

    /// Refuses what makes no sense, and what the version does not have.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.number == Some(0) {
            return Err(wrong("--number", "must be at least 1"));
        }
        if self.model.is_none() && !matches!(self.dataset, Dataset::WorkloadTrace(_)) {
            return Err(wrong("--model", "is needed"));
        }
        if self.dataset == Dataset::Random
            && u64::from(self.prefix_length) + u64::from(self.max_prompt_length) > u64::from(MAX_TOKENS)
        {
            let reason = format!("and --prefix-length together make more than {MAX_TOKENS}");
            return Err(wrong("--max-prompt-length", reason));
        }
        if self.prefix_count == 0 {
            return Err(wrong("--prefix-count", "must be at least 1"));
        }
        if self.prefix_count > 1 && (self.dataset != Dataset::Random || self.prefix_length == 0) {
            return Err(wrong("--prefix-count", "above 1 needs the random data set and a --prefix-length"));
        }
        let newer = [
            ("--dataset share-gpt", self.dataset == Dataset::ShareGpt),
            ("--dataset workload-trace", matches!(self.dataset, Dataset::WorkloadTrace(_))),
            ("--warmup-num", self.warmup_num > 0),
            ("--tokenize-prompt", self.tokenize_prompt),
            ("--prefix-count", self.prefix_count > 1),
            ("--dataset-offset", self.dataset_offset > 0),
            ("--max-tokens", !self.max_tokens.is_fixed()),
        ];
        match newer.into_iter().find(|&(_, given)| given && self.version == Version::V1_1_1) {
            Some((flag @ "--max-tokens", _)) => Err(wrong(flag, "takes a single number in evalscope 1.1.1")),
            Some((flag, _)) => Err(wrong(flag, "is not in evalscope 1.1.1")),
            None => Ok(()),
        }
    }
}

/// A parameter that cannot be.
pub(super) fn wrong(flag: &'static str, reason: impl Into<String>) -> Error {
    Error::Parameter { flag, reason: reason.into() }
}
