//! `tokentape replay`: send a tape to a server and measure each request.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::progress::Progress;
use super::verdict::Judging;
use super::{Failure, Outcome, interrupt, output};
use crate::calibrate;
use crate::metrics::{Dialect, Measurement, client, native};
use crate::replay::engine::{Options, Report};
use crate::replay::plan::PlanOptions;
use crate::replay::{self, Plan, Target};
use crate::report;
use crate::run::verdict::Evidence;
use crate::run::{
    Counts, FORMAT, Machine, RunInfo, RunWriter, TargetInfo, Thresholds, Traffic, Verdict, Workload,
};
use crate::tape;

/// Send a tape to a server and measure each request.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tape
    tape: PathBuf,
    /// The server, such as <http://127.0.0.1:8000>; a base path is kept, and a closing /v1 may be given or left out
    #[arg(long)]
    url: String,
    /// Put this model's name into each body, in place of the tape's
    #[arg(long)]
    model: Option<String>,
    /// Requests in flight at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: u32,
    /// Send only the tape's first N requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Send the tape's last N requests before the clock starts, and keep them out of the figures
    #[arg(long, value_name = "N", default_value_t = 0)]
    warmup: u64,
    /// Time limit of each request
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Send `Authorization: Bearer` with the key in this environment variable
    #[arg(long, value_name = "VAR")]
    api_key_env: Option<String>,
    /// Send this header with each request; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Trust the certificate authorities in this PEM file too
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Sending threads, each with its share of the connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: u32,
    #[command(flatten)]
    judging: Judging,
    /// The run's folder, made here
    #[arg(short, long, value_name = "RUN")]
    output: PathBuf,
    /// Replace a run that is there already
    #[arg(long)]
    force: bool,
    /// Print the native figures as JSON
    #[arg(long)]
    json: bool,
    /// No progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  tokentape replay load.tape.zst --url http://127.0.0.1:8000 --model my-model --concurrency 50 -o runs/first
  tokentape replay load.tape.zst --url https://gateway.example/v1 --api-key-env API_KEY --concurrency 8 -o runs/gate

Ctrl-C ends the run in order: requests in flight are cut, and what was measured is kept.
The exit code is 1 if any request failed or was not sent. A run can be INVALID for other reasons too: the client was
too slow for what it measured. With --strict, that is exit code 1 as well.";

pub(super) fn exec(args: Args) -> Outcome {
    let mut target = Target::new(&args.url)?;
    target.ca_file.clone_from(&args.ca_file);
    for header in &args.headers {
        target.header(header)?;
    }
    if let Some(variable) = &args.api_key_env {
        let key = std::env::var(variable)
            .map_err(|_| Failure::usage(format_args!("--api-key-env: the variable {variable} is not set")))?;
        target.api_key(&key)?;
    }
    let thresholds = args.judging.thresholds()?;
    let job = Job {
        tape: &args.tape,
        target,
        plan: PlanOptions { requests: args.requests, warmup: args.warmup, model: args.model },
        options: Options {
            concurrency: Some(args.concurrency as usize),
            schedule: None,
            workers: args.workers as usize,
            timeout: args.timeout,
            keeps_text: false,
        },
        output: &args.output,
        force: args.force,
        quiet: args.quiet,
        thresholds,
    };
    let (info, report) = job.run()?;
    output::print(&summary(&info, &report, args.json))?;
    if !args.json {
        output::print(&format!("run left in {}\n", args.output.display()))?;
    }
    args.judging.judge(&info, &report)
}

/// The native figures of a run.
fn summary(info: &RunInfo, report: &Report, json: bool) -> String {
    let measurement = measurement(info, report);
    let client = client::calculate(&measurement, info.effort.as_ref());
    let options = report::Options { client: Some(&client), ..report::Options::default() };
    if json {
        report::json(&measurement, Dialect::Native, &options)
    } else {
        let table = report::render(&measurement, Dialect::Native, &options);
        format!("{table}\n{}", info.verdict.text())
    }
}

pub(super) fn measurement<'a>(info: &RunInfo, report: &'a Report) -> Measurement<'a> {
    Measurement {
        timelines: &report.timelines,
        duration_ns: report.duration_ns,
        concurrency: info.traffic.concurrency,
        request_rate: info.traffic.request_rate,
    }
}

/// One replay, from its tape to its folder.
pub(super) struct Job<'a> {
    pub(super) tape: &'a Path,
    pub(super) target: Target,
    pub(super) plan: PlanOptions,
    pub(super) options: Options,
    pub(super) output: &'a Path,
    pub(super) force: bool,
    pub(super) quiet: bool,
    pub(super) thresholds: Thresholds,
}

impl Job<'_> {
    /// Replays the tape and leaves the run in its folder.
    pub(super) fn run(&self) -> Result<(RunInfo, Report), Failure> {
        let reader = tape::Reader::open(self.tape)?;
        let workload = Workload::of(self.tape, reader.header());
        let (total, digest) = (reader.footer().requests, reader.footer().workload_digest.clone());
        let plan = Plan::new(reader.requests(), total, &self.target, &self.plan)?;
        if plan.requests.len() as u64 == total && plan.workload_digest != digest {
            let path = self.tape.display();
            return Err(Failure::input(format_args!(
                "{path}: its requests do not match its digest; see tokentape verify"
            )));
        }
        if plan.warmup_overlaps && !self.quiet {
            eprintln!("note: the tape is too short to warm up with requests that are not measured too");
        }
        let tape_digest = (plan.requests.len() as u64 == total).then_some(digest);
        let workload = Workload { model: self.plan.model.clone(), tape_digest, ..workload };
        let writer = RunWriter::create(self.output, self.force)?;
        let sending = Sending {
            plan,
            target: &self.target,
            options: &self.options,
            pace: Pace::default(),
            thresholds: self.thresholds,
        };
        sending.run(workload, writer, self.quiet)
    }
}

/// How a schedule came to be, for the record.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Requests a second.
    pub(super) rate: Option<f64>,
    /// How the times were drawn.
    pub(super) arrival: Option<String>,
}

/// A plan, about to be sent.
pub(super) struct Sending<'a> {
    pub(super) plan: Plan,
    pub(super) target: &'a Target,
    pub(super) options: &'a Options,
    pub(super) pace: Pace,
    pub(super) thresholds: Thresholds,
}

impl Sending<'_> {
    /// Sends the plan and leaves the run in the writer's folder.
    pub(super) fn run(
        self,
        workload: Workload,
        mut writer: RunWriter,
        quiet: bool,
    ) -> Result<(RunInfo, Report), Failure> {
        let Self { plan, target, options, pace, thresholds } = self;
        let interrupt = interrupt::watch()?;
        let started_at = now();
        let mut progress = Progress::new(plan.requests.len() as u64, quiet);
        let mut written = Ok(());
        let report = replay::run(&plan, target, options, &interrupt, &mut |timeline| {
            progress.ended(timeline);
            if written.is_ok() {
                written = writer.timeline(timeline);
            }
        })?;
        progress.finish();
        written?;
        let counts = Counts::of(plan.requests.len() as u64, &report.timelines);
        let mut info = RunInfo {
            format: FORMAT,
            created_by: concat!("tokentape ", env!("CARGO_PKG_VERSION")).to_owned(),
            started_at,
            start_monotonic_ns: report.start_monotonic_ns,
            duration_ns: report.duration_ns,
            workload: Workload {
                workload_digest: plan.workload_digest,
                wire_digest: plan.wire_digest,
                ..workload
            },
            target: TargetInfo { url: target.url.clone(), headers: target.header_names() },
            traffic: Traffic {
                concurrency: options.concurrency.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
                request_rate: pace.rate,
                arrival: pace.arrival,
                workers: u32::try_from(options.workers).unwrap_or(u32::MAX),
                timeout_ms: u64::try_from(options.timeout.as_millis()).unwrap_or(u64::MAX),
                warmup: plan.warmup.len() as u64,
                warmup_failures: report.warmup_failures as u64,
            },
            verdict: Verdict::default(),
            effort: Some(report.effort.clone()),
            counts,
            machine: Machine::this(),
            calibration: calibrate::cache::load(),
        };
        let measurement = measurement(&info, &report);
        let client = client::calculate(&measurement, info.effort.as_ref());
        info.verdict = Verdict::of(
            &Evidence {
                counts: &info.counts,
                workload: &info.workload,
                traffic: &info.traffic,
                metrics: &native::calculate(&measurement),
                client: &client,
            },
            &thresholds,
        );
        let options = report::Options { client: Some(&client), ..report::Options::default() };
        let summary = report::json(&measurement, Dialect::Native, &options);
        writer.finish(&info, &summary)?;
        Ok((info, report))
    }
}

/// The wall clock's time, for people; everything measured uses the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the one place that tells the date of a run")]
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// The wall clock's time in words.
pub(super) fn now() -> String {
    humantime::format_rfc3339_seconds(wall_clock()).to_string()
}

impl From<replay::Error> for Failure {
    fn from(error: replay::Error) -> Self {
        match error {
            replay::Error::Tape(_) | replay::Error::Model { .. } | replay::Error::Empty => Self::input(error),
            replay::Error::Url { .. } | replay::Error::Header { .. } => Self::usage(error),
            replay::Error::Unreachable { .. } | replay::Error::Tls(_) | replay::Error::System(_) => {
                Self::run(error)
            }
        }
    }
}

/// What cannot be written fails the run; what cannot be read is bad input.
impl From<crate::run::Error> for Failure {
    fn from(error: crate::run::Error) -> Self {
        match error {
            crate::run::Error::File { .. } => Self::run(error),
            crate::run::Error::Exists(_) => Self::usage(error),
            _ => Self::input(error),
        }
    }
}
