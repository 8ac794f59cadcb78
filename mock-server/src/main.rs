//! The `tokentape-mock` command.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

/// A mock OpenAI-compatible streaming server that keeps a truth log.
#[derive(Debug, Parser)]
#[command(name = "tokentape-mock", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    args: tokentape_mock::Args,
}

fn main() -> ExitCode {
    match tokentape_mock::run(Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When stderr itself is gone there is nobody left to tell.
            drop(writeln!(io::stderr(), "error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}
