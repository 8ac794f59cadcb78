//! `tokentape import`: a foreign trace as a tape.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use tokentape_tokenizer::Tokenizer;

use super::generate::{Told, write_with};
use super::{Failure, Outcome};
use crate::convert::import::{self, Import, Input, Params};
use crate::generate::{self, Api};

/// Make a tape from another tool's trace: the same file and command always make the same tape, on any machine and any
/// number of threads.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What the file is
    #[arg(value_enum)]
    format: Format,
    /// The file, which may be compressed with Zstandard; "-" for stdin
    input: PathBuf,
    /// The tape to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Counts the tokens: a folder, a tokenizer.json file, a hub name (org/model), or "embedded" [default: embedded,
    /// where prompts are made]
    #[arg(long, value_name = "DIR|FILE|NAME")]
    tokenizer: Option<String>,
    /// The model's name in the bodies; `replay --model` replaces it
    #[arg(long, value_name = "NAME", default_value = "tokentape")]
    model: String,
    /// Only the first N requests
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// The endpoint that the requests are made for
    #[arg(long, visible_alias = "endpoint", value_enum, default_value = "completions")]
    api: ApiArg,
    /// Seed of every random choice
    #[arg(long, value_name = "S", default_value = "0")]
    seed: u64,
    /// Leave out rows without a token in or out: failed requests are such
    #[arg(long)]
    skip_empty: bool,
    /// Tokens that one hash stands for [default: mooncake 512, bailian and vllm-timed-trace 16]
    #[arg(long, value_name = "N")]
    block_tokens: Option<u32>,
    /// vllm-timed-trace: seconds in one unit of its timestamps; 0.001 for milliseconds [default: 1]
    #[arg(long, value_name = "X")]
    sec_multiplier: Option<String>,
    /// Threads that make the prompts; they never change the tape [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print what was made as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Format {
    #[value(help = "AIPerf single_turn and multi_turn: JSON lines of texts, or of sessions of texts")]
    Aiperf,
    /// Azure LLM inference 2023 and 2024: CSV of calendar times and lengths
    Azure,
    /// Alibaba Bailian (Qwen): JSON lines of lengths, blocks of 16 tokens and chats
    Bailian,
    #[value(help = "BurstGPT: CSV of seconds and lengths, with or without sessions")]
    Burstgpt,
    /// evalscope `line_by_line`: a prompt a line, or messages or a body as JSON
    EvalscopeLines,
    /// evalscope `workload_trace`: JSON lines of bodies and times
    EvalscopeTrace,
    #[value(help = "GuideLLM trace: seconds and lengths as JSON lines, a JSON array or CSV")]
    Guidellm,
    /// tokentape's own, from `export jsonl` or `cat`: a request a line
    Jsonl,
    /// Mooncake: JSON lines of milliseconds, lengths and blocks of 512 tokens
    Mooncake,
    #[value(help = "OpenAI batch: JSON lines of methods, paths and bodies")]
    OpenaiBatch,
    #[value(help = "Whole bodies, one a line: AIPerf raw_payload")]
    RawPayload,
    #[value(help = "ShareGPT: a JSON array of conversations, each a session")]
    Sharegpt,
    /// vLLM custom: JSON lines of prompts or messages, and lengths
    VllmCustom,
    /// vLLM `timed_trace`: JSON lines of times, lengths and blocks, in units of one's own
    VllmTimedTrace,
}

impl From<Format> for import::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Aiperf => Self::Aiperf,
            Format::Azure => Self::Azure,
            Format::Bailian => Self::Bailian,
            Format::Burstgpt => Self::Burstgpt,
            Format::EvalscopeLines => Self::EvalscopeLines,
            Format::EvalscopeTrace => Self::EvalscopeTrace,
            Format::Guidellm => Self::Guidellm,
            Format::Jsonl => Self::Jsonl,
            Format::Mooncake => Self::Mooncake,
            Format::OpenaiBatch => Self::OpenaiBatch,
            Format::RawPayload => Self::RawPayload,
            Format::Sharegpt => Self::Sharegpt,
            Format::VllmCustom => Self::VllmCustom,
            Format::VllmTimedTrace => Self::VllmTimedTrace,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum ApiArg {
    /// /v1/chat/completions: the prompt is one user message, and the server's template comes on top of its tokens
    Chat,
    /// /v1/completions: the prompt as it is, so that the server counts the trace's lengths
    Completions,
}

const EXAMPLES: &str = "\
Examples:
  tokentape import mooncake conversation_trace.jsonl --tokenizer Qwen/Qwen3-0.6B -o mooncake.tape.zst
  tokentape import azure AzureLLMInferenceTrace_code.csv --requests 1000 -o azure.tape.zst
  zcat BurstGPT_1.csv.gz | tokentape import burstgpt - --skip-empty -o burstgpt.tape.zst
  tokentape import vllm-timed-trace trace.jsonl --sec-multiplier 0.001 --block-tokens 512 -o timed.tape.zst

Formats of lengths alone get prompts of exactly those lengths; equal hashes become equal blocks of tokens. Replay them
at their own times with `replay --as-recorded`. docs/import.md says what is kept of each format.";

pub(super) fn exec(args: Args) -> Outcome {
    if args.input != Path::new("-") {
        return convert(&args, args.input.clone());
    }
    // It is read twice, and stdin cannot be.
    let spool = std::env::temp_dir().join(format!("tokentape-import-{}", std::process::id()));
    let outcome = spool_stdin(&spool).and_then(|()| convert(&args, spool.clone()));
    // The outcome to tell is the import's.
    drop(fs::remove_file(&spool));
    outcome
}

fn spool_stdin(path: &Path) -> Outcome {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| Failure::run(format_args!("cannot write {}: {error}", path.display())))?;
    io::copy(&mut io::stdin().lock(), &mut file)
        .map_err(|error| Failure::run(format_args!("cannot copy stdin to {}: {error}", path.display())))?;
    Ok(())
}

fn convert(args: &Args, path: PathBuf) -> Outcome {
    let format = import::Format::from(args.format);
    let name = args.tokenizer.as_deref();
    let name = name.or(format.makes_prompts().then_some(tokentape_tokenizer::EMBEDDED));
    let tokenizer = name.map(Tokenizer::load).transpose().map_err(generate::Error::from)?;
    let params = Params {
        requests: args.requests,
        skip_empty: args.skip_empty,
        block_tokens: args.block_tokens,
        sec_multiplier: args.sec_multiplier.clone(),
        seed: args.seed,
        model: args.model.clone(),
        api: match args.api {
            ApiArg::Chat => Api::Chat,
            ApiArg::Completions => Api::Completions,
        },
    };
    let import = Import::new(format, params, Input::File(path), tokenizer.as_ref())?;
    let threads =
        args.threads.map_or_else(|| thread::available_parallelism().map_or(1, usize::from), usize::from);
    let total = ("importing", import.survey().requests);
    let (footer, made) = write_with(&args.output, import.header(), total, |sink| import.run(threads, sink))?;
    let told = Told {
        path: &args.output,
        footer,
        made,
        tokenizer: tokenizer.as_ref(),
        exact: format.makes_prompts(),
        survey: Some(import.survey()),
    };
    told.print(args.json)
}

/// A parameter is a matter of usage, a file that cannot be read is input, and what is left went wrong on the way.
impl From<import::Error> for Failure {
    fn from(error: import::Error) -> Self {
        match error {
            import::Error::Generate(error) => error.into(),
            _ => Self::input(error),
        }
    }
}
