//! The `tokentape` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tokentape::cli::main()
}
