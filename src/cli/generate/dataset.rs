//! `tokentape generate dataset`.

use std::path::PathBuf;

use clap::ValueEnum;
use tokentape_tokenizer::Tokenizer;

use super::{Bodies, peer};
use crate::cli::{Failure, Outcome};
use crate::generate::compat::{Data, Peer, evalscope, vllm};
use crate::generate::{self, Lengths};
use crate::metrics::Dialect;

/// Make a tape of the requests that a peer makes of one of its datasets, byte for byte.
///
/// The tape's header names the file by its name and digest and does not hold it: `verify --regenerate` needs a dataset
/// without a file.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Args {
    /// The dataset
    #[arg(value_enum)]
    name: Name,
    /// Its file; prefix-repetition has none
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The peer: vllm-0.11.0, vllm-0.32.0, vllm-0.33.0, evalscope-1.1.1 or evalscope-1.14.1
    #[arg(long = "as", value_name = "DIALECT")]
    dialect: Dialect,
    /// The tape to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Number of requests [default: 1000; workload-trace: all]
    #[arg(long, value_name = "N")]
    requests: Option<u32>,
    /// evalscope: leave out shorter and longer prompts
    #[arg(long, value_name = "A..B")]
    input_tokens: Option<Lengths>,
    /// Tokens to ask for in each answer [default: the peer's]
    #[arg(long, value_name = "N|A..B")]
    output_tokens: Option<Lengths>,
    /// vLLM, custom: take each row's own `output_tokens`
    #[arg(long, conflicts_with = "output_tokens")]
    own_output_tokens: bool,
    /// prefix-repetition: tokens of each prefix [default: 256]
    #[arg(long, value_name = "N")]
    prefix_tokens: Option<u32>,
    /// prefix-repetition: tokens of each suffix [default: 256]
    #[arg(long, value_name = "N")]
    suffix_tokens: Option<u32>,
    /// prefix-repetition: number of different prefixes [default: 10]
    #[arg(long, value_name = "N")]
    num_prefixes: Option<u32>,
    #[command(flatten)]
    bodies: Bodies,
    /// vLLM, custom: send each prompt as it is, without the tokenizer's chat template
    #[arg(long)]
    skip_chat_template: bool,
    /// vLLM: keep the order of the file
    #[arg(long)]
    disable_shuffle: bool,
    /// vLLM: make fewer requests where the file has fewer prompts, rather than repeat some
    #[arg(long)]
    no_oversample: bool,
    /// timed-trace: tokens that one hash stands for [default: 16]
    #[arg(long, value_name = "N")]
    chunk_hash_size: Option<u32>,
    /// timed-trace: seconds in one unit of its timestamps; 0.001 for milliseconds [default: 1]
    #[arg(long, value_name = "X")]
    sec_multiplier: Option<f64>,
    /// Print what was made as one JSON object
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tokentape generate dataset sharegpt chats.json --as vllm-0.33.0 --api completions -o chats.tape.zst
  tokentape generate dataset prefix-repetition --as vllm-0.33.0 --num-prefixes 4 --requests 100 -o prefixes.tape.zst
  tokentape generate dataset timed-trace mooncake.jsonl --as vllm-0.33.0 --chunk-hash-size 512 --sec-multiplier 0.001 \
--api completions -o trace.tape.zst
  tokentape generate dataset openqa questions.jsonl --as evalscope-1.14.1 --output-tokens 200 -o questions.tape.zst";

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Name {
    /// vLLM: JSON lines with a prompt; evalscope: a prompt a line
    Custom,
    /// evalscope: a prompt a line, or messages or a body as JSON
    LineByLine,
    /// evalscope: JSON lines with a question
    Openqa,
    /// vLLM: random prefixes, each before several random suffixes
    PrefixRepetition,
    /// Both: conversations, of which vLLM sends the first message
    #[value(alias = "share-gpt")]
    Sharegpt,
    /// vLLM: arrivals, lengths and hashes of blocks, whose tokens vLLM draws anew in every process and we do not
    TimedTrace,
    /// evalscope: JSON lines with a timestamp and a body
    WorkloadTrace,
}

pub(super) fn exec(args: Args) -> Outcome {
    let tokenizer = Tokenizer::load(&args.bodies.tokenizer).map_err(generate::Error::from)?;
    if args.file.is_none() && args.name != Name::PrefixRepetition {
        let dataset = args.dataset();
        return Err(Failure::usage(format_args!(
            "{dataset} takes its prompts from a file: name it after {dataset}"
        )));
    }
    let path = args.file.as_ref().map(|path| path.display().to_string());
    let bytes = match &args.file {
        None => None,
        Some(path) => Some(
            std::fs::read(path)
                .map_err(|error| Failure::input(format_args!("cannot read {}: {error}", path.display())))?,
        ),
    };
    let data = path.as_deref().zip(bytes.as_deref()).map(|(name, bytes)| Data { name, bytes });
    let peer = match args.dialect {
        Dialect::Native => {
            return Err(Failure::usage(
                "--as native: a dataset is a peer's; name the peer, as in --as vllm-0.33.0",
            ));
        }
        Dialect::Vllm(version) => Peer::Vllm(Box::new(vllm::Params {
            data: data.map(Data::id),
            no_oversample: args.no_oversample,
            disable_shuffle: args.disable_shuffle,
            ..vllm(&args, version)?
        })),
        Dialect::Evalscope(version) => Peer::Evalscope(Box::new(evalscope::Params {
            data: data.map(Data::id),
            ..evalscope(&args, version, &tokenizer)?
        })),
    };
    peer::write(&args.output, &peer, &tokenizer, data, args.json)
}

fn vllm(args: &Args, version: crate::metrics::vllm::Version) -> Result<vllm::Params, Failure> {
    let one = |lengths| peer::single(args.dialect, "--output-tokens", lengths, "give one number");
    let output_len = args.output_tokens.map(one).transpose()?;
    let dataset = match args.name {
        Name::Custom => vllm::Dataset::Custom {
            output_len: if args.own_output_tokens { None } else { output_len.or(Some(256)) },
            skip_chat_template: args.skip_chat_template,
        },
        Name::Sharegpt => vllm::Dataset::Sharegpt { output_len },
        Name::PrefixRepetition => vllm::Dataset::PrefixRepetition {
            prefix_len: args.prefix_tokens.unwrap_or(256),
            suffix_len: args.suffix_tokens.unwrap_or(256),
            num_prefixes: args.num_prefixes.unwrap_or(10),
            output_len: output_len.unwrap_or(128),
        },
        Name::TimedTrace => vllm::Dataset::TimedTrace {
            chunk_hash_size: args.chunk_hash_size.unwrap_or(16),
            sec_multiplier: args.sec_multiplier.unwrap_or(1.0),
            labels: vllm::Labels::default(),
        },
        Name::LineByLine | Name::Openqa | Name::WorkloadTrace => return Err(args.unknown()),
    };
    args.refuse(&[
        ("--input-tokens", args.input_tokens.is_some()),
        ("--output-tokens", output_len.is_some() && args.name == Name::TimedTrace),
        ("--own-output-tokens", args.own_output_tokens && args.name != Name::Custom),
        ("--skip-chat-template", args.skip_chat_template && args.name != Name::Custom),
        ("FILE", args.file.is_some() && args.name == Name::PrefixRepetition),
    ])?;
    args.refuse_others(Name::PrefixRepetition, &args.of_prefix_repetition())?;
    args.refuse_others(Name::TimedTrace, &args.of_timed_trace())?;
    let requests = args.requests.unwrap_or(1000);
    args.bodies.vllm(args.dialect, vllm::Params::new(version, dataset, &args.bodies.model, requests))
}

fn evalscope(
    args: &Args,
    version: crate::metrics::evalscope::Version,
    tokenizer: &Tokenizer,
) -> Result<evalscope::Params, Failure> {
    let dataset = match args.name {
        Name::Custom => evalscope::Dataset::Custom,
        Name::LineByLine => evalscope::Dataset::LineByLine,
        Name::Openqa => evalscope::Dataset::Openqa,
        Name::Sharegpt => evalscope::Dataset::ShareGpt,
        Name::WorkloadTrace => evalscope::Dataset::WorkloadTrace(evalscope::TraceArgs::default()),
        Name::PrefixRepetition | Name::TimedTrace => return Err(args.unknown()),
    };
    args.refuse(&[
        ("--own-output-tokens", args.own_output_tokens),
        ("--skip-chat-template", args.skip_chat_template),
        ("--disable-shuffle", args.disable_shuffle),
        ("--no-oversample", args.no_oversample),
    ])?;
    args.refuse(&args.of_prefix_repetition())?;
    args.refuse(&args.of_timed_trace())?;
    let defaults = evalscope::Params::default();
    let input = args.input_tokens.map(Lengths::range);
    let params = evalscope::Params {
        version,
        dataset,
        number: args.requests,
        min_prompt_length: input.as_ref().map_or(defaults.min_prompt_length, |range| *range.start()),
        max_prompt_length: input.as_ref().map_or(defaults.max_prompt_length, |range| *range.end()),
        max_tokens: args.output_tokens.unwrap_or(defaults.max_tokens),
        ..defaults
    };
    args.bodies.evalscope(args.dialect, params, tokenizer)
}

impl Args {
    fn dataset(&self) -> String {
        self.name.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn unknown(&self) -> Failure {
        Failure::usage(format_args!("{} has no dataset {}", self.dialect, self.dataset()))
    }

    fn of_prefix_repetition(&self) -> [(&'static str, bool); 3] {
        [
            ("--prefix-tokens", self.prefix_tokens.is_some()),
            ("--suffix-tokens", self.suffix_tokens.is_some()),
            ("--num-prefixes", self.num_prefixes.is_some()),
        ]
    }

    fn of_timed_trace(&self) -> [(&'static str, bool); 2] {
        [
            ("--chunk-hash-size", self.chunk_hash_size.is_some()),
            ("--sec-multiplier", self.sec_multiplier.is_some()),
        ]
    }

    fn refuse_others(&self, name: Name, flags: &[(&'static str, bool)]) -> Result<(), Failure> {
        if self.name == name { Ok(()) } else { self.refuse(flags) }
    }

    /// The flags that are given though they mean nothing to the dataset.
    fn refuse(&self, flags: &[(&'static str, bool)]) -> Result<(), Failure> {
        match flags.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Failure::usage(format_args!(
                "{flag} means nothing to {} of {}: leave it out",
                self.dataset(),
                self.dialect
            ))),
            None => Ok(()),
        }
    }
}
