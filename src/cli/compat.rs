//! `tokentape compat`: another tool's command line, with its requests, its table and its result files.

mod evalscope;
mod flags;
mod headers;
mod server;
mod traffic;
mod vllm;

use std::path::PathBuf;

use super::replay::wall_clock;
use super::{Failure, Outcome, output};
use crate::metrics::{Dialect, evalscope as evalscope_metrics, vllm as vllm_metrics};

/// Run another tool's command: its flags, requests, table and result files, with tokentape's clock.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Whose version: vllm-0.11.0, vllm-0.32.0, vllm-0.33.0, evalscope-1.1.1 or evalscope-1.14.1 [default: the
    /// command's newest]
    #[arg(long = "as", value_name = "DIALECT")]
    dialect: Option<Dialect>,
    /// The folder for tokentape's own record of the run, which `report` and `compare` read [default: one of its own in
    /// runs/]
    #[arg(long, value_name = "RUN")]
    run: Option<PathBuf>,
    /// Replace a run that is there already
    #[arg(long)]
    force: bool,
    /// The command and its own flags: `vllm bench serve ...` or `evalscope perf ...`; add --help for the flags
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  tokentape compat vllm bench serve --backend openai-chat --endpoint /v1/chat/completions \\
      --model my-model --tokenizer my-model --num-prompts 500 --max-concurrency 50 --save-result
  tokentape compat --as evalscope-1.1.1 evalscope perf --url http://127.0.0.1:8000/v1/chat/completions \\
      --model my-model --tokenizer-path my-model --dataset random --parallel 50 --number 500
  tokentape compat vllm bench serve --help

A flag of the command is honoured, or is an error; the few that have nothing to change here are named on stderr.
The exit code is tokentape's own: 1 where any request failed.";

/// Where tokentape's own record of a run goes.
#[derive(Debug)]
struct Record {
    folder: Option<PathBuf>,
    force: bool,
}

impl Record {
    /// The folder of a run of `dialect`, one of several where it has a `part`.
    fn folder(&self, dialect: Dialect, time: &str, part: Option<&str>) -> PathBuf {
        let folder = self.folder.clone().unwrap_or_else(|| PathBuf::from(format!("runs/{dialect}-{time}")));
        part.map_or(folder.clone(), |part| folder.join(part))
    }
}

pub(super) fn exec(args: Args) -> Outcome {
    let record = Record { folder: args.run, force: args.force };
    let words: Vec<&str> = args.command.iter().map(String::as_str).collect();
    let wrong = |dialect: Dialect, command: &str| {
        Failure::usage(format_args!("--as {dialect} is no version of {command}"))
    };
    match words.as_slice() {
        ["vllm", "bench", "serve", ..] => {
            let version = match args.dialect {
                None => vllm_metrics::Version::V0_33_0,
                Some(Dialect::Vllm(version)) => version,
                Some(other) => return Err(wrong(other, "vllm bench serve")),
            };
            match help(&args.command[3..], || vllm::syntax(version).help()) {
                Some(help) => output::print(&help),
                None => vllm::exec(version, &args.command[3..], &record),
            }
        }
        ["evalscope", "perf", ..] => {
            let version = match args.dialect {
                None => evalscope_metrics::Version::V1_14_1,
                Some(Dialect::Evalscope(version)) => version,
                Some(other) => return Err(wrong(other, "evalscope perf")),
            };
            match help(&args.command[2..], || evalscope::syntax(version).help()) {
                Some(help) => output::print(&help),
                None => evalscope::exec(version, &args.command[2..], &record),
            }
        }
        _ => Err(Failure::usage(
            "compat runs `vllm bench serve ...` or `evalscope perf ...`; its own flags go before the command",
        )),
    }
}

/// The command's help, where it is asked for.
fn help(args: &[String], help: impl Fn() -> String) -> Option<String> {
    args.iter().any(|arg| arg == "--help" || arg == "-h").then(help)
}

/// Names the flags that were given and change nothing.
fn note_no_effect(command: &str, names: &[&str]) {
    if !names.is_empty() {
        eprintln!("note: taken for {command}, without effect here: {}", names.join(", "));
    }
}

/// What the peers draw anew for each run, from the time and the process.
fn drawn() -> blake3::Hash {
    blake3::hash(format!("{:?} {}", wall_clock(), std::process::id()).as_bytes())
}

/// A moment as the peers write it into names: digits of the date, then those of the time. UTC.
fn stamp(rfc3339: &str, between: char) -> String {
    let digits: String = rfc3339.chars().filter(char::is_ascii_digit).take(14).collect();
    match digits.split_at_checked(8) {
        Some((date, time)) => format!("{date}{between}{time}"),
        None => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_what_strftime_makes() {
        assert_eq!(stamp("2026-11-24T05:35:21Z", '-'), "20261124-053521");
        assert_eq!(stamp("2026-11-24T05:35:21Z", '_'), "20261124_053521");
    }
}
