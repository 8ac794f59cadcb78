//! Exit codes, and the one error line that goes with each.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use super::Outcome;

/// The documented exit codes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Status {
    /// The run failed, or is INVALID.
    Failed = 1,
    /// An argument is wrong or missing.
    Usage = 2,
    /// A tape, a run or a tokenizer could not be read.
    Input = 3,
}

/// Why a subcommand did not end well: an exit code, and one sentence for stderr that names what, where and the
/// remedy.
#[derive(Debug)]
pub struct Failure {
    status: Status,
    message: String,
}

impl Failure {
    /// The run failed, or is INVALID.
    pub fn run(message: impl Display) -> Self {
        Self { status: Status::Failed, message: message.to_string() }
    }

    /// An argument is wrong or missing.
    pub fn usage(message: impl Display) -> Self {
        Self { status: Status::Usage, message: message.to_string() }
    }

    /// The sentence.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// A tape, a run or a tokenizer could not be read.
    pub fn input(message: impl Display) -> Self {
        Self { status: Status::Input, message: message.to_string() }
    }
}

/// An output file that cannot be written is a failed run; a closed pipe is not a failure at all (see `report`).
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { status: Status::Failed, message: String::new() };
        }
        Self::run(error)
    }
}

/// Prints the error, if there is one, and maps it to the exit code. A reader that went away (`| head`) ends the
/// command quietly and well.
pub(super) fn report(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.message.is_empty() => ExitCode::SUCCESS,
        Err(failure) => {
            // When stderr itself is gone there is nobody left to tell.
            drop(writeln!(io::stderr(), "error: {}", failure.message));
            ExitCode::from(failure.status as u8)
        }
    }
}
