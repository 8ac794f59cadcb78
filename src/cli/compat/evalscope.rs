//! `tokentape compat evalscope perf ARGS...`.

use super::Record;
use super::flags::Syntax;
use crate::cli::Outcome;
use crate::metrics::evalscope::Version;

pub(super) fn syntax(_version: Version) -> Syntax {
    Syntax { command: "evalscope perf", flags: &[], oldest: true, underscores: false }
}

pub(super) fn exec(_version: Version, _args: &[String], _record: &Record) -> Outcome {
    Ok(())
}
