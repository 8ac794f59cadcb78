//! `tokentape generate`.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Number, Value, json};
use tokentape_tokenizer::Tokenizer;

use super::output::{create, print};
use super::verify::Meter;
use super::{Failure, Outcome};
use crate::generate::{self, Api, Lengths, Made, Params, Random};
use crate::tape::{Footer, Progress, Writer};

/// Make a tape from a seeded source: the same command always makes the same file, on any machine and any number of
/// threads.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    source: Source,
}

#[derive(Debug, Subcommand)]
enum Source {
    Random(RandomArgs),
}

/// Make a tape of prompts of random words.
///
/// Each prompt is encoded again once it is made; one that does not have exactly the tokens that were asked for is
/// reported, and the tape holds its true number.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct RandomArgs {
    /// The tape to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Number of requests
    #[arg(long, value_name = "N", default_value = "500")]
    requests: u64,
    /// Tokens of each prompt: a number, or a range, both ends included
    #[arg(long, value_name = "N|A..B", default_value = "100")]
    input_tokens: Lengths,
    /// Tokens to ask for in each answer: a number, or a range, both ends included
    #[arg(long, value_name = "N|A..B", default_value = "100")]
    output_tokens: Lengths,
    /// Spread both lengths evenly from N(1-R) to N(1+R), as `vllm bench serve` does; at least 0, below 1
    #[arg(long, value_name = "R", default_value = "0")]
    range_ratio: f64,
    /// Tokens of a shared prefix, put before each prompt in addition to its own
    #[arg(long, value_name = "N", default_value = "0")]
    prefix_tokens: u32,
    /// Number of different prefixes, of which each request has one
    #[arg(long, value_name = "N", default_value = "1")]
    num_prefixes: u32,
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
    /// Count the tokens of the tokenizer's chat template as the prompt's, as a server's usage does
    #[arg(long)]
    count_template: bool,
    /// Generating threads; they never change the tape [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print what was made as one JSON object
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tokentape generate random -o load.tape.zst
  tokentape generate random --requests 10000 --input-tokens 50..150 --output-tokens 200 --ignore-eos -o load.tape.zst
  tokentape generate random --prefix-tokens 1000 --num-prefixes 4 --tokenizer Qwen/Qwen3-0.6B -o prefixes.tape.zst
  tokentape generate random --input-tokens 512 --range-ratio 0.25 --count-template --seed 7 -o spread.tape.zst";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ApiArg {
    /// /v1/chat/completions: the prompt is one user message
    Chat,
    /// /v1/completions: the prompt as it is
    Completions,
}

pub(super) fn exec(args: Args) -> Outcome {
    match args.source {
        Source::Random(args) => random(args),
    }
}

fn random(args: RandomArgs) -> Outcome {
    let tokenizer = Tokenizer::load(&args.tokenizer).map_err(generate::Error::from)?;
    let threads =
        args.threads.map_or_else(|| thread::available_parallelism().map_or(1, usize::from), usize::from);
    let params = Params {
        requests: args.requests,
        input_tokens: args.input_tokens,
        output_tokens: args.output_tokens,
        range_ratio: args.range_ratio,
        prefix_tokens: args.prefix_tokens,
        num_prefixes: args.num_prefixes,
        seed: args.seed,
        tokenizer: args.tokenizer,
        model: args.model,
        api: match args.api {
            ApiArg::Chat => Api::Chat,
            ApiArg::Completions => Api::Completions,
        },
        ignore_eos: args.ignore_eos,
        temperature: args.temperature,
        extra_body: args.extra_body,
        count_template: args.count_template,
    };
    let source = Random::new(params, &tokenizer)?;
    let (footer, made) = write_tape(&args.output, &source, threads)?;
    let bytes = fs::metadata(&args.output)?.len();
    print(&if args.json {
        as_json(&args.output, bytes, &footer, made, &tokenizer)
    } else {
        as_text(&args.output, bytes, &footer, made, &tokenizer)
    })
}

/// Writes every request of the source to a tape. The file appears under its name only once it is whole.
pub(super) fn write_tape(path: &Path, source: &Random, threads: usize) -> Result<(Footer, Made), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::run(format_args!("cannot write the tape {}: {error}", path.display()))
    };
    // What is no regular file (a pipe, a device) is written to as it is.
    let direct = path.exists() && !path.is_file();
    let part = if direct { path.to_owned() } else { part_of(path) };
    let written = (|| {
        let mut writer = Writer::new(create(&part)?, source.header()).map_err(|error| failed(&error))?;
        let mut meter = Meter::new("generating");
        let (mut done, total) = (0, source.requests());
        let made = source.run(threads, &mut |request| {
            writer
                .write(&request)
                .map_err(|error| format!("cannot write the tape {}: {error}", path.display()))?;
            done += 1;
            meter.show(Progress { done, total });
            Ok(())
        })?;
        let footer = writer.finish().map_err(|error| failed(&error))?;
        if !direct {
            fs::rename(&part, path).map_err(|error| failed(&error))?;
        }
        Ok((footer, made))
    })();
    if written.is_err() && !direct {
        // The error to tell is the one that came first.
        drop(fs::remove_file(&part));
    }
    written
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

fn as_text(path: &Path, bytes: u64, footer: &Footer, made: Made, tokenizer: &Tokenizer) -> String {
    let line = |name: &str, value: &str| format!("{name:<16} {value}\n");
    let (requests, inexact) = (made.requests, made.inexact);
    let mut lines = vec![
        line("tape", &format!("{} ({bytes} bytes)", path.display())),
        line("requests", &footer.requests.to_string()),
        line("input tokens", &footer.input_tokens.to_string()),
        line("output tokens", &footer.output_tokens.to_string()),
        line("tokenizer", &format!("{} ({})", tokenizer.name(), tokenizer.digest())),
        line("workload digest", &footer.workload_digest),
        line("exact prompts", &format!("{} of {requests}", requests - inexact)),
    ];
    if inexact > 0 {
        lines.push(format!(
            "\n{inexact} of {requests} prompts could not be made exactly as long as asked; the tape holds their true \
             lengths\n"
        ));
    }
    lines.concat()
}

fn as_json(path: &Path, bytes: u64, footer: &Footer, made: Made, tokenizer: &Tokenizer) -> String {
    let json = json!({
        "tape": path.display().to_string(),
        "bytes": bytes,
        "requests": footer.requests,
        "input_tokens": footer.input_tokens,
        "output_tokens": footer.output_tokens,
        "tokenizer": {"name": tokenizer.name(), "digest": tokenizer.digest()},
        "workload_digest": footer.workload_digest,
        "inexact_prompts": made.inexact,
    });
    format!("{json:#}\n")
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
