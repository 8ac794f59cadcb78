//! The tables and files of `evalscope perf`, of each of its versions, byte for byte; and what it leaves behind as a
//! whole: [`folder`].

pub mod database;
pub mod folder;
mod rich;
mod tabulate;
pub mod v1_14_1;
pub mod v1_1_1;

use self::folder::{Run, RunFacts};
use super::Options;
use crate::metrics::Measurement;
use crate::metrics::evalscope::Version;

pub(super) fn tables(measurement: &Measurement<'_>, version: Version, options: &Options<'_>) -> String {
    run(measurement, version, options).console()
}

pub(super) fn json(measurement: &Measurement<'_>, version: Version, options: &Options<'_>) -> String {
    run(measurement, version, options).summary_file()
}

fn run(measurement: &Measurement<'_>, version: Version, options: &Options<'_>) -> Run {
    let facts = RunFacts { version, number: measurement.timelines.len() as u64, handoff: false };
    Run::new(measurement, facts, options.count_tokens)
}
