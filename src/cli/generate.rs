//! `tokentape generate`.

mod dataset;
mod peer;
mod random;
mod tape;

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Number, Value};

pub(super) use tape::{Told, write_tape, write_with};

use super::{Failure, Outcome};
use crate::generate::{self, Api};

/// Make a tape from a seeded source: the same command always makes the same file, on any machine and any number of
/// threads.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    source: Source,
}

#[derive(Debug, Subcommand)]
enum Source {
    Dataset(dataset::Args),
    Random(random::Args),
}

// What every body holds. No doc comment: it would stand in the place of the subcommand's own.
#[derive(Debug, clap::Args)]
struct Bodies {
    /// Seed of every random choice
    #[arg(long, value_name = "S", default_value = "0")]
    seed: u64,
    /// Counts the tokens: a folder, a tokenizer.json file, a hub name (org/model), or "embedded"
    #[arg(long, value_name = "DIR|FILE|NAME", default_value = tokentape_tokenizer::EMBEDDED)]
    tokenizer: String,
    /// The model's name in the bodies; `replay --model` replaces it
    #[arg(long, value_name = "NAME", default_value = "tokentape")]
    model: String,
    /// The endpoint that the requests are made for
    #[arg(long, value_enum, default_value = "chat")]
    api: ApiArg,
    /// Ask the server to go on to the full number of output tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Sampling temperature, sent where given
    #[arg(long, value_name = "T", value_parser = temperature, allow_negative_numbers = true)]
    temperature: Option<Number>,
    /// A JSON object whose keys go into each body
    #[arg(long, value_name = "JSON", value_parser = object, default_value = "{}")]
    extra_body: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ApiArg {
    /// /v1/chat/completions: the prompt is one user message
    Chat,
    /// /v1/completions: the prompt as it is
    Completions,
    /// /v1/embeddings: the prompt is the input; no output tokens are asked for
    Embeddings,
    /// /v1/responses: the prompt is the input
    Responses,
}

impl From<ApiArg> for Api {
    fn from(api: ApiArg) -> Self {
        match api {
            ApiArg::Chat => Api::Chat,
            ApiArg::Completions => Api::Completions,
            ApiArg::Embeddings => Api::Embeddings,
            ApiArg::Responses => Api::Responses,
        }
    }
}

pub(super) fn exec(args: Args) -> Outcome {
    match args.source {
        Source::Dataset(args) => dataset::exec(args),
        Source::Random(args) => random::exec(args),
    }
}

/// A number that is not negative, kept as it was written: 0 stays 0 and does not become 0.0.
fn temperature(text: &str) -> Result<Number, String> {
    serde_json::from_str::<Number>(text)
        .ok()
        .filter(|number| number.as_f64().is_some_and(|value| value >= 0.0))
        .ok_or_else(|| "not a number from 0 on".to_owned())
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

/// A parameter is a matter of usage, a tokenizer or a header is input, and what is left went wrong on the way.
impl From<generate::Error> for Failure {
    fn from(error: generate::Error) -> Self {
        match error {
            generate::Error::Parameter { .. } => Self::usage(error),
            generate::Error::Sink(message) => Self::run(message),
            _ => Self::input(error),
        }
    }
}
