//! `random`: prompts of random words, in lengths that are asked for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use tokentape_tokenizer::Tokenizer;

use super::body::{Api, Body, Fixed, RESERVED};
use super::lengths::{Lengths, MAX_TOKENS};
use super::ordered::{self, Item};
use super::prompt::Prompts;
use super::stream::Purpose;
use super::{Error, Made, Sink};
use crate::tape::format::{Header, Request, TokenizerId, VERSION};

/// The source's name in a header.
pub(super) const SOURCE: &str = "random";

/// Requests that a worker makes before it hands them on.
const BATCH: usize = 64;

/// Every parameter of the source. In a header each stands under its flag's name.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Params {
    /// Number of requests.
    pub requests: u64,
    /// Tokens of each prompt, without its prefix.
    pub input_tokens: Lengths,
    /// Tokens to ask for in each answer; of embeddings, nothing is asked.
    pub output_tokens: Lengths,
    /// Spreads both lengths around their single number: see [`Lengths::spread`].
    pub range_ratio: f64,
    /// Tokens of the prefix that stands before each prompt, in addition to its own: a prompt has
    /// `prefix_tokens + input_tokens` in all, as `vllm bench serve` counts them.
    pub prefix_tokens: u32,
    /// Number of different prefixes; each request has one of them, drawn with the same probability.
    pub num_prefixes: u32,
    /// The seed of every random choice.
    pub seed: u64,
    /// The tokenizer's name.
    pub tokenizer: String,
    /// The model's name in the bodies.
    pub model: String,
    /// The endpoint.
    pub api: Api,
    /// Asks the server to go on to the full number of output tokens.
    pub ignore_eos: bool,
    /// The sampling temperature, sent where given.
    pub temperature: Option<Number>,
    /// Further keys of each body.
    pub extra_body: Map<String, Value>,
    /// Whether the tokens of the tokenizer's chat template count as the prompt's.
    pub count_template: bool,
}

/// The command line's defaults: 500 requests of 100 tokens in and 100 out, seed 0, the embedded tokenizer, chat.
impl Default for Params {
    fn default() -> Self {
        Self {
            requests: 500,
            input_tokens: Lengths::HUNDRED,
            output_tokens: Lengths::HUNDRED,
            range_ratio: 0.0,
            prefix_tokens: 0,
            num_prefixes: 1,
            seed: 0,
            tokenizer: tokentape_tokenizer::EMBEDDED.to_owned(),
            model: "tokentape".to_owned(),
            api: Api::Chat,
            ignore_eos: false,
            temperature: None,
            extra_body: Map::new(),
            count_template: false,
        }
    }
}

impl Params {
    /// The parameters that a header holds.
    pub(super) fn from_header(header: &Header) -> Result<Self, Error> {
        serde_json::from_value(Value::Object(header.params.clone()))
            .map_err(|error| Error::Header { reason: error.to_string() })
    }

    /// The input and output lengths with the ratio applied, once everything is known to make sense.
    fn lengths(&self) -> Result<(Lengths, Lengths), Error> {
        let wrong = |flag, reason: &str| Err(Error::Parameter { flag, reason: reason.to_owned() });
        if self.requests == 0 {
            return wrong("--requests", "must be at least 1");
        }
        if !(0.0..1.0).contains(&self.range_ratio) {
            return wrong("--range-ratio", "must be at least 0 and below 1");
        }
        if self.range_ratio > 0.0 && !(self.input_tokens.is_fixed() && self.output_tokens.is_fixed()) {
            return wrong("--range-ratio", "spreads single numbers; it cannot be given with a range A..B");
        }
        let (input, output) =
            (self.input_tokens.spread(self.range_ratio), self.output_tokens.spread(self.range_ratio));
        if self.num_prefixes == 0 {
            return wrong("--num-prefixes", "must be at least 1");
        }
        if self.num_prefixes > 1 && self.prefix_tokens == 0 {
            return wrong("--num-prefixes", "needs --prefix-tokens");
        }
        if u64::from(self.prefix_tokens) + u64::from(*input.range().end()) > u64::from(MAX_TOKENS) {
            let reason = format!("and --input-tokens together make more than {MAX_TOKENS}");
            return Err(Error::Parameter { flag: "--prefix-tokens", reason });
        }
        if self.count_template && self.api != Api::Chat {
            return wrong("--count-template", "needs --api chat: nothing else has a template");
        }
        if !self.api.generates() && self.temperature.is_some() {
            return wrong("--temperature", "needs another --api: an embedding is not sampled");
        }
        if !self.api.generates() && self.ignore_eos {
            return wrong("--ignore-eos", "needs another --api: an embedding has no end of text");
        }
        if let Some(key) = RESERVED.into_iter().find(|&key| self.extra_body.contains_key(key)) {
            let reason = format!("may not set {key:?}: the generator writes it");
            return Err(Error::Parameter { flag: "--extra-body", reason });
        }
        Ok((input, output))
    }
}

/// The source, ready to make any of its requests.
#[derive(Debug)]
pub struct Random<'a> {
    params: Params,
    header: Header,
    input: Lengths,
    output: Lengths,
    prompts: Prompts<'a>,
    body: Body,
    purposes: Purposes,
}

/// What random numbers are drawn for.
#[derive(Debug)]
struct Purposes {
    input_tokens: Purpose,
    output_tokens: Purpose,
    /// Which prefix a request has.
    prefix_choice: Purpose,
    /// Its index is the prefix's, not the request's.
    prefix: Purpose,
    prompt: Purpose,
}

impl<'a> Random<'a> {
    /// Checks the parameters, by themselves and against the tokenizer.
    pub fn new(mut params: Params, tokenizer: &'a Tokenizer) -> Result<Self, Error> {
        let (input, output) = params.lengths()?;
        let prompts = Prompts::new(tokenizer, params.count_template)?;
        if *input.range().start() as usize <= prompts.overhead() {
            return Err(Error::Parameter {
                flag: "--input-tokens",
                reason: format!(
                    "{} leaves no room for a prompt: with --count-template the chat template's own {} tokens count",
                    input.range().start(),
                    prompts.overhead()
                ),
            });
        }
        tokenizer.name().clone_into(&mut params.tokenizer);
        let body = Body::new(&Fixed {
            api: params.api,
            model: &params.model,
            temperature: params.temperature.as_ref(),
            ignore_eos: params.ignore_eos,
            extra: &params.extra_body,
        });
        let purposes = Purposes {
            input_tokens: Purpose::new(params.seed, "input-tokens"),
            output_tokens: Purpose::new(params.seed, "output-tokens"),
            prefix_choice: Purpose::new(params.seed, "prefix-choice"),
            prefix: Purpose::new(params.seed, "prefix"),
            prompt: Purpose::new(params.seed, "prompt"),
        };
        let header = header(&params, tokenizer)?;
        Ok(Self { params, header, input, output, prompts, body, purposes })
    }

    /// The header of the tape that holds the requests.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Number of requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.params.requests
    }

    /// Request `index`, which is the same however many others there are.
    pub fn request(&self, index: u64) -> Result<Request, Error> {
        Ok(self.item(index)?.request)
    }

    /// Makes every request, on as many threads, and gives each to `sink` in order.
    pub fn run(&self, threads: usize, sink: Sink) -> Result<Made, Error> {
        let indexes = (0..self.params.requests).map(Ok);
        ordered::run(indexes, BATCH, threads, &|index, _: u64| self.item(index), sink)
    }

    fn item(&self, index: u64) -> Result<Item, Error> {
        let Purposes { input_tokens, output_tokens, prefix_choice, prefix, prompt } = &self.purposes;
        let input = input_tokens.stream(index).within(&self.input.range());
        let output = output_tokens.stream(index).within(&self.output.range());
        let shared = (self.params.prefix_tokens > 0).then(|| {
            let choice = prefix_choice.stream(index).below(self.params.num_prefixes.into());
            (prefix.stream(choice), self.params.prefix_tokens as usize)
        });
        let wanted = (self.params.prefix_tokens + input) as usize;
        let made = self.prompts.make(wanted, shared, prompt.stream(index))?;
        let request = Request {
            index,
            offset_ns: 0,
            method: "POST".to_owned(),
            path: self.params.api.path().to_owned(),
            body: self.body.of(&made.text, output),
            input_tokens: Some(u32::try_from(made.tokens).unwrap_or(u32::MAX)),
            output_tokens: self.params.api.generates().then_some(output),
            session: None,
        };
        Ok(Item { request, exact: made.tokens == wanted })
    }
}

fn header(params: &Params, tokenizer: &Tokenizer) -> Result<Header, Error> {
    let unwritable = |reason: String| Error::Header { reason };
    let params_value = serde_json::to_value(params).map_err(|error| unwritable(error.to_string()))?;
    let Value::Object(map) = params_value else {
        return Err(unwritable("parameters are no object".to_owned()));
    };
    Ok(Header {
        version: VERSION,
        created_by: concat!("tokentape ", env!("CARGO_PKG_VERSION")).to_owned(),
        source: SOURCE.to_owned(),
        params: map,
        seed: Some(params.seed),
        tokenizer: Some(TokenizerId {
            name: tokenizer.name().to_owned(),
            digest: tokenizer.digest().to_owned(),
        }),
    })
}
