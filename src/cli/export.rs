//! `tokentape export`: a tape's prompts in a file that another tool reads.

use std::io::Write;
use std::path::PathBuf;

use super::{Failure, Outcome, output};
use crate::convert::export::{self, Lines, Usage};
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
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Format {
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

The command that sends the file unchanged goes to stdout, with what the tool does to it on the way.
What the format cannot carry is an error that names the record.";

pub(super) fn exec(args: Args) -> Outcome {
    let format = match (args.format, args.bodies) {
        (Format::VllmCustom, false) => export::Format::VllmCustom,
        (Format::EvalscopeTrace, false) => export::Format::EvalscopeTrace,
        (Format::EvalscopeLines, false) => export::Format::EvalscopeLines(Lines::Prompts),
        (Format::EvalscopeLines, true) => export::Format::EvalscopeLines(Lines::Bodies),
        (_, true) => return Err(Failure::usage("--bodies goes with evalscope-lines alone")),
    };
    let reader = Reader::open(&args.tape)?;
    let file_name = args.output.to_string_lossy();
    let usage = Usage { file: &file_name, header: reader.header() };
    // Under another name until it is whole: a tape that the format cannot carry leaves no file.
    let mut part = args.output.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = output::create(&part)?;
    let exported = export::export(format, reader.requests(), &mut file, usage);
    let done = exported.map_err(|error| failure(&args, error)).and_then(|command| {
        file.flush()?;
        std::fs::rename(&part, &args.output)
            .map_err(|error| Failure::run(format_args!("cannot write {}: {error}", args.output.display())))?;
        Ok(command)
    });
    if done.is_err() {
        // It is of no use, and the error is already known.
        drop(std::fs::remove_file(&part));
    }
    output::print(&done?)
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
