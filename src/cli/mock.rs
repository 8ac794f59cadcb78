//! `tokentape mock`: the flags of the `tokentape-mock` binary, and its server.

pub(super) use tokentape_mock::Args;
use tokentape_mock::Error;

use super::{Failure, Outcome};

pub(super) fn exec(args: Args) -> Outcome {
    Ok(tokentape_mock::run(args)?)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Tokenizer(_) | Error::NoWords => Self::input(error),
            Error::Bind { .. } | Error::Runtime(_) | Error::Stdout(_) | Error::TruthLog { .. } => {
                Self::run(error)
            }
        }
    }
}
