//! From a peer's requests to a run: the tape, the plan with the peer's headers, the replay.

use std::path::Path;
use std::time::Duration;

use http::HeaderMap;

use crate::cli::Failure;
use crate::cli::output;
use crate::cli::replay::{Pace, Sending};
use crate::replay::engine::{Options, Report};
use crate::replay::plan::{PlanOptions, Prepared};
use crate::replay::{self, Plan, Target};
use crate::run::{RunInfo, RunWriter, Thresholds, Workload};
use crate::tape::{Header, Request, Writer};
use crate::timeline::Ns;

/// The tape's name in a run's folder.
const TAPE: &str = "requests.tape.zst";

/// What is sent, where, and how.
pub(super) struct Traffic<'a> {
    pub(super) target: &'a Target,
    /// The tape's header.
    pub(super) header: Header,
    /// The measured requests.
    pub(super) requests: Vec<Request>,
    /// Sent before the clock starts.
    pub(super) warmup: Vec<Prepared>,
    /// The headers of a measured request.
    pub(super) headers: &'a dyn Fn(&Request) -> Result<HeaderMap, Failure>,
    pub(super) concurrency: Option<u32>,
    /// When each request is due, in ns from the run's start; none for as soon as the limit allows.
    pub(super) schedule: Option<Vec<Ns>>,
    pub(super) pace: Pace,
    pub(super) timeout: Duration,
    /// Whether the record keeps every generated text.
    pub(super) keeps_text: bool,
    pub(super) quiet: bool,
}

impl Traffic<'_> {
    /// Leaves the tape in the run's folder, and sends it.
    pub(super) fn run(self, folder: &Path, force: bool) -> Result<(RunInfo, Report), Failure> {
        let writer = RunWriter::create(folder, force)?;
        let tape = folder.join(TAPE);
        write_tape(&tape, &self.header, &self.requests)?;
        let workload = Workload::of(&tape, &self.header);
        let total = self.requests.len() as u64;
        let headers: Vec<HeaderMap> = self.requests.iter().map(self.headers).collect::<Result<_, _>>()?;
        let requests = self.requests.into_iter().map(Ok::<_, replay::Error>);
        let mut plan = Plan::new(requests, total, self.target, &PlanOptions::default())?;
        for (prepared, headers) in plan.requests.iter_mut().zip(headers) {
            prepared.headers = Some(headers);
        }
        plan.warmup = self.warmup;
        let options = Options {
            concurrency: self.concurrency.map(|limit| limit as usize),
            schedule: self.schedule.map(ascending),
            timeout: self.timeout,
            keeps_text: self.keeps_text,
            ..Options::default()
        };
        let sending = Sending {
            plan,
            target: self.target,
            options: &options,
            pace: self.pace,
            scrape: None,
            thresholds: Thresholds::default(),
        };
        let done = sending.run(workload, writer, self.quiet)?;
        Ok((done.info, done.report))
    }
}

/// The peers take requests in order and sleep until each is due: one whose time is before that of the one ahead of it
/// goes out right after that one.
fn ascending(mut times: Vec<Ns>) -> Vec<Ns> {
    let mut latest = 0;
    for time in &mut times {
        latest = latest.max(*time);
        *time = latest;
    }
    times
}

fn write_tape(path: &Path, header: &Header, requests: &[Request]) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::run(format_args!("cannot write the tape {}: {error}", path.display()))
    };
    let mut writer = Writer::new(output::create(path)?, header).map_err(|error| failed(&error))?;
    for request in requests {
        writer.write(request).map_err(|error| failed(&error))?;
    }
    writer.finish().map_err(|error| failed(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_never_overtakes_the_one_before_it() {
        assert_eq!(ascending(vec![3, 1, 4, 1, 5]), [3, 3, 4, 4, 5]);
    }
}
