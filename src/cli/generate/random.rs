//! `tokentape generate random`.

use std::path::PathBuf;
use std::thread;

use tokentape_tokenizer::Tokenizer;

use super::tape::{Told, write_tape};
use super::{Bodies, peer};
use crate::cli::Outcome;
use crate::generate::compat::{Peer, evalscope, vllm};
use crate::generate::{self, Lengths, Params, Random};
use crate::metrics::Dialect;

/// Make a tape of prompts of random words, or of a peer's own random prompts.
///
/// Each prompt is encoded again once it is made; one that does not have exactly the tokens that were asked for is
/// reported, and the tape holds its true number.
///
/// With --as, the tape holds the bodies that a version of `vllm bench serve` or `evalscope perf` sends for the same
/// parameters, byte for byte. A flag that it has no counterpart of is refused.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
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
    #[command(flatten)]
    bodies: Bodies,
    /// Count the tokens of the tokenizer's chat template as the prompt's, as a server's usage does
    #[arg(long)]
    count_template: bool,
    /// Make the requests of a peer: vllm-0.11.0, vllm-0.32.0, vllm-0.33.0, evalscope-1.1.1 or evalscope-1.14.1
    #[arg(long = "as", value_name = "DIALECT", default_value_t = Dialect::Native)]
    dialect: Dialect,
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
  tokentape generate random --input-tokens 512 --range-ratio 0.25 --count-template --seed 7 -o spread.tape.zst
  tokentape generate random --as vllm-0.33.0 --input-tokens 1024 --tokenizer Qwen/Qwen3-0.6B -o vllm.tape.zst";

pub(super) fn exec(args: Args) -> Outcome {
    let tokenizer = Tokenizer::load(&args.bodies.tokenizer).map_err(generate::Error::from)?;
    let peer = match args.dialect {
        Dialect::Native => return native(args, &tokenizer),
        Dialect::Vllm(version) => Peer::Vllm(Box::new(vllm(&args, version)?)),
        Dialect::Evalscope(version) => Peer::Evalscope(Box::new(evalscope(&args, version, &tokenizer)?)),
    };
    peer::write(&args.output, &peer, &tokenizer, None, args.json)
}

fn native(args: Args, tokenizer: &Tokenizer) -> Outcome {
    let threads =
        args.threads.map_or_else(|| thread::available_parallelism().map_or(1, usize::from), usize::from);
    let params = Params {
        requests: args.requests,
        input_tokens: args.input_tokens,
        output_tokens: args.output_tokens,
        range_ratio: args.range_ratio,
        prefix_tokens: args.prefix_tokens,
        num_prefixes: args.num_prefixes,
        seed: args.bodies.seed,
        tokenizer: args.bodies.tokenizer,
        model: args.bodies.model,
        api: args.bodies.api.into(),
        ignore_eos: args.bodies.ignore_eos,
        temperature: args.bodies.temperature,
        extra_body: args.bodies.extra_body,
        count_template: args.count_template,
    };
    let source = Random::new(params, tokenizer)?;
    let (footer, made) = write_tape(&args.output, &source, threads)?;
    Told { path: &args.output, footer, made, tokenizer: Some(tokenizer), exact: true, survey: None }
        .print(args.json)
}

fn vllm(args: &Args, version: crate::metrics::vllm::Version) -> Result<vllm::Params, crate::cli::Failure> {
    peer::refuse(
        args.dialect,
        &[
            (
                "--num-prefixes",
                args.num_prefixes != 1,
                "`generate dataset prefix-repetition` has several prefixes",
            ),
            ("--count-template", args.count_template, "it never counts the template's tokens"),
        ],
    )?;
    let ranged = "give one number, and --range-ratio to spread it";
    let dataset = vllm::Dataset::Random {
        input_len: peer::single(args.dialect, "--input-tokens", args.input_tokens, ranged)?,
        output_len: peer::single(args.dialect, "--output-tokens", args.output_tokens, ranged)?,
        range_ratio: vllm::RangeRatio::Both(args.range_ratio),
        prefix_len: args.prefix_tokens,
    };
    let requests = peer::narrow(args.dialect, "--requests", args.requests)?;
    args.bodies.vllm(args.dialect, vllm::Params::new(version, dataset, &args.bodies.model, requests))
}

fn evalscope(
    args: &Args,
    version: crate::metrics::evalscope::Version,
    tokenizer: &Tokenizer,
) -> Result<evalscope::Params, crate::cli::Failure> {
    peer::refuse(
        args.dialect,
        &[
            ("--range-ratio", args.range_ratio != 0.0, "give --input-tokens as a range A..B"),
            (
                "--count-template",
                args.count_template,
                "it counts the template's tokens in chat, and only there",
            ),
        ],
    )?;
    let input = args.input_tokens.range();
    let params = evalscope::Params {
        version,
        dataset: evalscope::Dataset::Random,
        number: Some(peer::narrow(args.dialect, "--requests", args.requests)?),
        min_prompt_length: *input.start(),
        max_prompt_length: *input.end(),
        prefix_length: args.prefix_tokens,
        prefix_count: args.num_prefixes,
        max_tokens: args.output_tokens,
        ..evalscope::Params::default()
    };
    args.bodies.evalscope(args.dialect, params, tokenizer)
}
