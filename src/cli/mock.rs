//! `tokentape mock`: the flags of the `tokentape-mock` binary, its server, and an oracle.

use std::sync::Arc;

pub(super) use tokentape_mock::Args;
use tokentape_mock::Error;

use super::{Failure, Outcome};
use crate::truth::oracle::Oracle;

pub(super) fn exec(args: Args) -> Outcome {
    Ok(tokentape_mock::run_with(args, Some(Arc::new(Oracle)))?)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Tokenizer(_) | Error::NoWords | Error::Tls(_) => Self::input(error),
            Error::Bind { .. } | Error::Runtime(_) | Error::Stdout(_) | Error::TruthLog { .. } => {
                Self::run(error)
            }
        }
    }
}
