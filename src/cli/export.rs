//! `tokentape export`: a tape's prompts in a file that another tool reads.

use std::io::Write;
use std::path::PathBuf;

use tokentape_tokenizer::Tokenizer;

use super::{Failure, Outcome, output};
use crate::convert::export::{self, Lines, Usage};
use crate::generate;
use crate::tape::Reader;

/// Write a tape's prompts for another tool, and print the command that sends them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What to write
    #[arg(value_enum)]
    format: Format,
    /// The tape
    tape: PathBuf,
    /// The file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// evalscope-lines: a whole body a line, which carries more, but needs evalscope 1.14.1
    #[arg(long)]
    bodies: bool,
    /// mooncake: what counts the tokens: a folder, a tokenizer.json file, a hub name (org/model), or "embedded"
    #[arg(long, value_name = "DIR|FILE|NAME")]
    tokenizer: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Format {
    /// `aiperf profile --custom-dataset-type multi_turn`: sessions of texts, and their times
    AiperfMultiTurn,
    /// `aiperf profile --custom-dataset-type single_turn`: texts and their times
    AiperfSingleTurn,
    /// tokentape's own: whole requests, one JSON object a line; `import jsonl` makes the same tape of it
    Jsonl,
    /// Mooncake's trace: times, lengths and shared blocks of 512 tokens, without a text
    Mooncake,
    #[value(help = "OpenAI's batch, and `vllm run-batch`: whole bodies")]
    OpenaiBatch,
    /// `vllm bench serve --dataset-name custom`: prompts and output lengths
    VllmCustom,
    /// `evalscope perf --dataset workload_trace`: whole bodies and arrival times
    EvalscopeTrace,
    /// `evalscope perf --dataset line_by_line`: prompts, one a line
    EvalscopeLines,
}

const EXAMPLES: &str = "\
Examples:
  tokentape export vllm-custom load.tape.zst -o load.jsonl
  tokentape export evalscope-trace load.tape.zst -o trace.jsonl
  tokentape export evalscope-lines load.tape.zst -o prompts.txt
  tokentape export mooncake load.tape.zst --tokenizer Qwen/Qwen3-0.6B -o lengths.jsonl
  tokentape export jsonl load.tape.zst -o load.jsonl

The command that uses the file goes to stdout, with what the tool does to it on the way; what the format does not carry
of the requests goes to stderr. A request that it cannot carry at all is an error that names the record.";

pub(super) fn exec(args: Args) -> Outcome {
    let format = match (args.format, args.bodies) {
        (Format::AiperfMultiTurn, false) => export::Format::AiperfMultiTurn,
        (Format::AiperfSingleTurn, false) => export::Format::AiperfSingleTurn,
        (Format::Jsonl, false) => export::Format::Jsonl,
        (Format::Mooncake, false) => export::Format::Mooncake,
        (Format::OpenaiBatch, false) => export::Format::OpenaiBatch,
        (Format::VllmCustom, false) => export::Format::VllmCustom,
        (Format::EvalscopeTrace, false) => export::Format::EvalscopeTrace,
        (Format::EvalscopeLines, false) => export::Format::EvalscopeLines(Lines::Prompts),
        (Format::EvalscopeLines, true) => export::Format::EvalscopeLines(Lines::Bodies),
        (_, true) => return Err(Failure::usage("--bodies goes with evalscope-lines alone")),
    };
    match (args.format, &args.tokenizer) {
        (Format::Mooncake, None) => {
            return Err(Failure::usage(
                "mooncake counts tokens: name the model's tokenizer with --tokenizer",
            ));
        }
        (Format::Mooncake, _) | (_, None) => {}
        _ => return Err(Failure::usage("--tokenizer goes with mooncake alone")),
    }
    let tokenizer =
        args.tokenizer.as_deref().map(Tokenizer::load).transpose().map_err(generate::Error::from)?;
    let reader = Reader::open(&args.tape)?;
    let file_name = args.output.to_string_lossy();
    let usage = Usage { file: &file_name, header: reader.header(), tokenizer: tokenizer.as_ref() };
    // Under another name until it is whole: a tape that the format cannot carry leaves no file.
    let mut part = args.output.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = output::create(&part)?;
    let exported = export::export(format, reader.requests(), &mut file, usage);
    let done = exported.map_err(|error| failure(&args, error)).and_then(|exported| {
        file.flush()?;
        std::fs::rename(&part, &args.output)
            .map_err(|error| Failure::run(format_args!("cannot write {}: {error}", args.output.display())))?;
        Ok(exported)
    });
    if done.is_err() {
        // It is of no use, and the error is already known.
        drop(std::fs::remove_file(&part));
    }
    let done = done?;
    for lost in &done.lost {
        eprintln!("note: not carried: {lost}");
    }
    output::print(&done.command)
}

fn failure(args: &Args, error: export::Error) -> Failure {
    match error {
        export::Error::Read(error) => error.into(),
        export::Error::Write(error) => {
            Failure::run(format_args!("cannot write {}: {error}", args.output.display()))
        }
        error => Failure::run(format_args!("{}: {error}", args.tape.display())),
    }
}
