//! `tokentape capacity`: the most that a server carries under service level objectives.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::replay::server::ServerArgs;
use super::replay::traffic::{GapArgs, Traffic};
use super::replay::{Job, SelectionArgs};
use super::sweep::Sweep;
use super::verdict::ThresholdArgs;
use super::{Failure, Outcome, output};
use crate::capacity::Search;
use crate::metrics::native::Metrics;
use crate::metrics::slo::Slo;
use crate::run::RunInfo;
use crate::schedule::Pace;

/// Find the most that a server carries under service level objectives.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tape; each probe sends it from the start
    tape: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    selection: SelectionArgs,
    /// What every probe must meet, such as ttft:p99<200ms,tpot:mean<30ms
    #[arg(long, value_name = "OBJECTIVES")]
    slo: Slo,
    /// What is raised
    #[arg(long, value_enum, default_value_t = By::Concurrency)]
    by: By,
    #[command(flatten)]
    gaps: GapArgs,
    /// The first load tried
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    start: u32,
    /// The largest load tried
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max: u32,
    /// How close is close enough, as a share of the load; 0 is exact
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    resolution: f64,
    /// Send nothing more after this time, in each probe
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    verdict: ThresholdArgs,
    /// The folder of the probes' runs, made here
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Replace runs that are there already
    #[arg(long)]
    force: bool,
    /// Print the answer and each probe's native figures as JSON
    #[arg(long)]
    json: bool,
    /// No progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum By {
    /// Requests in flight at once
    Concurrency,
    /// Requests a second
    Rate,
}

impl By {
    const fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Rate => "rate",
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  tokentape capacity load.tape.zst --url http://127.0.0.1:8000 --slo 'ttft:p99<200ms,tpot:mean<30ms' -o runs/capacity
  tokentape capacity load.tape.zst --url http://127.0.0.1:8000 --slo 'ttft:p99<1s' --by rate --duration 30s -o runs/rate

Objectives are about ttft, itl, tpot, e2el, ttft_from_scheduled or e2el_from_scheduled, and their mean, p50, p90, p95,
p99, p99.9 or max.

The load is doubled until a probe misses an objective, is INVALID, or asks for more requests in flight than the tape has;
then the gap is halved.
The exit code is 1 if not even a load of 1 is carried.";

/// What `--json` prints.
#[derive(Serialize)]
struct Answer {
    by: &'static str,
    slo: String,
    /// The largest load that was carried; none if 1 is too much.
    capacity: Option<u32>,
    /// Whether nothing showed that the server cannot carry more: the largest load allowed was carried, or something
    /// else than the server was the limit.
    at_least: bool,
    probes: Vec<Probe>,
}

#[derive(Serialize)]
struct Probe {
    load: u32,
    carried: bool,
    /// The objectives missed.
    missed: Vec<String>,
    /// What is against the run.
    against: Vec<String>,
    /// What stood in the way where it was not the server: no objective was missed and no request failed.
    limited_by: Option<Limit>,
}

/// What keeps a probe from telling anything of the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    /// The run is INVALID.
    Client,
    /// The tape has fewer requests than the load has in flight.
    Tape,
}

impl Probe {
    fn new(by: By, load: u32, missed: Vec<String>, info: &RunInfo, metrics: &Metrics) -> Self {
        let mut against = info.verdict.reasons.clone();
        // In a steady state a load has this many in flight: by Little's law, where it is a rate.
        let in_flight = match by {
            By::Concurrency => f64::from(load),
            By::Rate => f64::from(load) * metrics.e2el_ms.mean / 1e3,
        };
        let sent = info.counts.requests;
        let short = (sent as f64) < in_flight;
        if short {
            let wanted = in_flight.ceil();
            against.push(format!("the load has {wanted} requests in flight, and {sent} were sent"));
        }
        let is_servers = !missed.is_empty() || info.counts.succeeded != info.counts.requests;
        let limited_by = match (is_servers, info.verdict.valid) {
            (true, _) => None,
            (false, false) => Some(Limit::Client),
            (false, true) => short.then_some(Limit::Tape),
        };
        Self { load, carried: missed.is_empty() && against.is_empty(), missed, against, limited_by }
    }

    fn line(&self) -> String {
        if self.carried {
            "carried".to_owned()
        } else {
            [&self.missed[..], &self.against].concat().join("; ")
        }
    }
}

impl Answer {
    /// The smallest load that was not carried, and what stood in the way, if it was not the server.
    fn limit(&self) -> Option<(u32, Limit)> {
        let refused = self.probes.iter().filter(|probe| !probe.carried).min_by_key(|probe| probe.load)?;
        Some((refused.load, refused.limited_by?))
    }
}

pub(super) fn exec(args: Args) -> Outcome {
    if args.resolution.is_nan() || args.resolution < 0.0 {
        return Err(Failure::usage("--resolution must not be below 0"));
    }
    if args.by == By::Concurrency && args.gaps.is_given() {
        return Err(Failure::usage("--arrival, --burstiness and --seed need --by rate"));
    }
    let target = args.server.target()?;
    let thresholds = args.verdict.thresholds()?;
    let mut search = Search::new(args.start, args.max, args.resolution);
    let mut sweep = Sweep::new(None);
    let mut probes = Vec::new();
    while let Some(load) = search.next() {
        let mut traffic = Traffic { duration: args.duration, ..Traffic::default() };
        match args.by {
            By::Concurrency => traffic.concurrency = Some(load),
            By::Rate => traffic.shape = Some(args.gaps.at(Pace::Constant { rate: f64::from(load) })?),
        }
        let name = format!("{}-{load}", args.by.name());
        let folder = args.output.join(&name);
        let job = Job::new(&args.tape, target.clone(), (&args.server, &args.selection), &traffic, &folder);
        let done = job.with(args.force, args.quiet, thresholds).run()?;
        sweep.add(&name, &done);
        if done.report.interrupted {
            return Err(Failure::run("interrupted before the answer was known"));
        }
        let missed = args.slo.misses(&done.metrics);
        let probe = Probe::new(args.by, load, missed, &done.info, &done.metrics);
        search.tried(load, probe.carried);
        if !args.quiet {
            eprintln!("{name}: {}", probe.line());
        }
        probes.push(probe);
    }
    let mut answer = Answer {
        by: args.by.name(),
        slo: args.slo.to_string(),
        capacity: search.answer(),
        at_least: search.is_open(),
        probes,
    };
    answer.at_least = answer.capacity.is_some() && (answer.at_least || answer.limit().is_some());
    print(&answer, &sweep, args.json)?;
    match answer.capacity {
        Some(_) => Ok(()),
        None => {
            Err(Failure::run(format_args!("not even a {} of 1 is carried under {}", answer.by, answer.slo)))
        }
    }
}

fn print(answer: &Answer, sweep: &Sweep, json: bool) -> Outcome {
    if json {
        // A struct of numbers, texts and fixed keys always serialises.
        return output::print(&(serde_json::to_string_pretty(answer).unwrap_or_default() + "\n"));
    }
    let mut text = sweep.table();
    if let Some(capacity) = answer.capacity {
        let least = if answer.at_least { "at least " } else { "" };
        text += &format!("\ncapacity: {least}{} {capacity} under {}\n", answer.by, answer.slo);
    }
    let by = answer.by;
    match answer.limit() {
        Some((load, Limit::Client)) => {
            text += &format!(
                "limited by this client: at {by} {load} the objectives were met and the run is INVALID\n"
            );
        }
        Some((load, Limit::Tape)) => {
            text += &format!(
                "limited by this tape: it has too few requests for {by} {load}; make one with more, several for each in flight\n"
            );
        }
        None => {}
    }
    output::print(&text)
}
