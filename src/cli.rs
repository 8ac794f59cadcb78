//! The command line: one file a subcommand, each its arguments and a thin function. Nothing else knows clap.

mod bundled;
mod calibrate;
mod capacity;
mod cat;
mod compare;
mod compat;
mod demo;
mod diff;
mod edit;
mod exit;
mod export;
mod filter;
mod fit;
mod generate;
mod import;
mod inspect;
mod interrupt;
mod merge;
mod mock;
mod output;
mod progress;
mod record;
mod replay;
mod report;
mod salvage;
mod scale;
mod simulate;
mod slice;
mod span;
mod sweep;
mod verdict;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::{Failure, Status};

/// What a subcommand returns.
pub(crate) type Outcome = Result<(), Failure>;

/// Record, generate and replay LLM traffic.
#[derive(Debug, Parser)]
#[command(name = "tokentape", version, about, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tokentape demo
  tokentape generate random --requests 500 --input-tokens 100 --output-tokens 100 -o load.tape.zst
  tokentape replay load.tape.zst --url http://127.0.0.1:8000 --model my-model --concurrency 50 -o runs/first
  tokentape report runs/first --dialect vllm-0.11.0
  tokentape compare runs/first runs/second --tolerance 3% --gate
  tokentape compat vllm bench serve --model my-model --num-prompts 500 --max-concurrency 50

Exit codes:
  0  good
  1  the run failed (or is INVALID, with --strict), a gate tripped, or what was asked cannot be done with this input
  2  usage: an argument is wrong or missing
  3  input unreadable: a tape, a run, a tokenizer";

#[derive(Debug, Subcommand)]
enum Command {
    /// Generate, start the mock, replay, check against the truth log, report
    Demo(demo::Args),
    /// Replay against the bundled mock, and hold every figure against its truth log
    Calibrate(calibrate::Args),
    /// Make a tape from a seeded source
    Generate(generate::Args),
    /// Make a tape from another tool's trace
    Import(import::Args),
    /// Show what a tape holds: header, digest, counts, lengths
    Inspect(inspect::Args),
    /// Print a tape's requests as JSON lines
    Cat(cat::Args),
    /// Check a tape's digest, index and counts, and that its header makes it again
    Verify(verify::Args),
    /// Take a part of a tape: a range, a window of time, a sample
    Slice(slice::Args),
    /// Take the requests of a tape that have these lengths, paths or sessions
    Filter(filter::Args),
    /// Put several tapes together
    Merge(merge::Args),
    /// Make a tape faster or slower, or repeat it
    Scale(scale::Args),
    /// Tell what is different in two tapes
    Diff(diff::Args),
    /// Save what can still be read of a broken tape
    Salvage(salvage::Args),
    /// Record what passes between clients and a server: a reverse proxy that writes a tape
    Record(record::Args),
    /// Send a tape to a server and measure each request
    Replay(Box<replay::Args>),
    /// Send a tape to the mock's engine on a simulated clock: the same report without the wait
    Simulate(simulate::Args),
    /// Make an engine's profile from a measured run
    Fit(fit::Args),
    /// Find the most that a server carries under service level objectives
    Capacity(capacity::Args),
    /// Show a run's figures as a dialect defines them
    Report(report::Args),
    /// Compare runs, or other tools' results, metric by metric
    Compare(compare::Args),
    /// Write a tape's prompts for another tool, and print the command that sends them
    Export(export::Args),
    /// Run another tool's command: its flags, requests, table and result files
    Compat(compat::Args),
    /// Run the bundled mock server
    Mock(mock::Args),
}

/// Parses the command line, runs the subcommand, prints its error, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::exec(args),
        Command::Calibrate(args) => calibrate::exec(args),
        Command::Generate(args) => generate::exec(args),
        Command::Import(args) => import::exec(args),
        Command::Inspect(args) => inspect::exec(args),
        Command::Cat(args) => cat::exec(args),
        Command::Verify(args) => verify::exec(args),
        Command::Slice(args) => slice::exec(args),
        Command::Filter(args) => filter::exec(args),
        Command::Merge(args) => merge::exec(args),
        Command::Scale(args) => scale::exec(args),
        Command::Diff(args) => diff::exec(args),
        Command::Salvage(args) => salvage::exec(args),
        Command::Record(args) => record::exec(args),
        Command::Replay(args) => replay::exec(*args),
        Command::Simulate(args) => simulate::exec(args),
        Command::Fit(args) => fit::exec(args),
        Command::Capacity(args) => capacity::exec(args),
        Command::Report(args) => report::exec(args),
        Command::Compare(args) => compare::exec(args),
        Command::Export(args) => export::exec(args),
        Command::Compat(args) => compat::exec(args),
        Command::Mock(args) => mock::exec(args),
    };
    exit::report(outcome)
}
