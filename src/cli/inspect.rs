//! `tokentape inspect`.

use super::{Failure, Outcome};

/// Placeholder.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn exec(_args: Args) -> Outcome {
    Err(Failure::usage("not yet"))
}
