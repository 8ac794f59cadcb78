//! `tokentape replay`: send a tape to a server and measure each request.

pub(super) mod behaviour;
mod scrape;
pub(super) mod server;
pub(super) mod traffic;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use self::behaviour::BehaviourArgs;
use self::scrape::ScrapeArgs;
use self::server::ServerArgs;
use self::traffic::{Traffic as Asked, TrafficArgs};
use super::progress::Progress;
use super::sweep::Sweep;
use super::verdict::Judging;
use super::{Failure, Outcome, interrupt, output};
use crate::metrics::client::Client;
use crate::metrics::native::Metrics;
use crate::metrics::vllm::Goodput;
use crate::metrics::{Dialect, Measurement, client, native, slo};
use crate::replay::engine::{Options, Report};
use crate::replay::plan::PlanOptions;
use crate::replay::scraper::Scraper;
use crate::replay::{self, Plan, Target};
use crate::report::html::RunPage;
use crate::run::verdict::Evidence;
use crate::run::{
    Counts, FORMAT, Machine, RunInfo, RunWriter, TargetInfo, Thresholds, Traffic, Verdict, Workload,
};
use crate::schedule::Shape;
use crate::timeline::Ns;
use crate::{calibrate, report, run, tape};

/// Send a tape to a server and measure each request.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Args {
    /// The tape
    tape: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    behaviour: BehaviourArgs,
    #[command(flatten)]
    judging: Judging,
    #[command(flatten)]
    scrape: ScrapeArgs,
    /// The run's folder, made here; of a sweep, the folder of its runs' folders
    #[arg(short, long, value_name = "RUN")]
    output: PathBuf,
    /// What makes a request good, such as ttft:200ms,tpot:30ms,e2el:5s: report goodput
    #[arg(long, value_name = "OBJECTIVES", value_parser = slo::parse_goodput)]
    goodput: Option<Goodput>,
    /// Replace a run that is there already
    #[arg(long)]
    force: bool,
    /// Print the native figures as JSON
    #[arg(long)]
    json: bool,
    /// Leave no report.html in the run's folder
    #[arg(long)]
    no_html: bool,
    /// No progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

/// Which of a tape's requests.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SelectionArgs {
    /// Send only the tape's first N requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Send the tape's last N requests before the clock starts, and keep them out of the figures
    #[arg(long, value_name = "N", default_value_t = 0)]
    warmup: u64,
}

const EXAMPLES: &str = "\
Examples:
  tokentape replay load.tape.zst --url http://127.0.0.1:8000 --model my-model --concurrency 50 -o runs/first
  tokentape replay load.tape.zst --url http://127.0.0.1:8000 --rate 20 --duration 60s -o runs/poisson
  tokentape replay load.tape.zst --url http://127.0.0.1:8000 --as-recorded --speed 2 -o runs/twice
  tokentape replay load.tape.zst --url http://127.0.0.1:8000 --concurrency 1,10,50 -o runs/sweep
  tokentape replay load.tape.zst --url http://127.0.0.1:8000 --cancel-after 20tok --cancel-share 10% -o runs/impatient
  tokentape replay load.tape.zst --url https://gateway.example/v1 --api-key-env API_KEY --concurrency 8 -o runs/gate

Ctrl-C ends the run in order: requests in flight are cut, and what was measured is kept.
The exit code is 1 if any request failed or was not sent; one that --cancel-after broke off did not fail. A run can be INVALID for other reasons too: the client was
too slow for what it measured. With --strict, that is exit code 1 as well.";

pub(super) fn exec(args: Args) -> Outcome {
    let points = args.traffic.points()?;
    let target = args.server.target()?;
    let thresholds = args.judging.verdict.thresholds()?;
    if let [point] = &points[..] {
        let done = args.job(&target, &thresholds, &point.traffic, &args.output).run()?;
        args.write_page(&done, &args.output)?;
        output::print(&summary(&done, args.goodput, args.json))?;
        if !args.json {
            output::print(&format!("run left in {}\n", args.output.display()))?;
        }
        return args.judging.judge(&done.info, &done.report);
    }
    let mut sweep = Sweep::new(args.goodput);
    for point in &points {
        let folder = args.output.join(&point.name);
        let done = args.job(&target, &thresholds, &point.traffic, &folder).run()?;
        args.write_page(&done, &folder)?;
        sweep.add(&point.name, &done);
        if !args.quiet {
            eprintln!("{}: {}", point.name, done.info.verdict.line());
        }
        if done.report.interrupted {
            break;
        }
    }
    output::print(&if args.json { sweep.json() } else { sweep.table() })?;
    if !args.json {
        output::print(&format!("runs left in {}\n", args.output.display()))?;
    }
    sweep.judge(args.judging.strict)
}

impl Args {
    fn job<'a>(
        &'a self,
        target: &Target,
        thresholds: &Thresholds,
        traffic: &Asked,
        output: &'a Path,
    ) -> Job<'a> {
        let server = (&self.server, &self.selection);
        let job = Job::new(&self.tape, target.clone(), server, traffic, output);
        let mut job = job.with(self.force, self.quiet, *thresholds);
        job.scrape = self.scrape.interval();
        job.options.behaviour = self.behaviour.behaviour();
        job
    }

    fn write_page(&self, done: &Replayed, folder: &Path) -> Outcome {
        if self.no_html { Ok(()) } else { done.write_page(folder, self.goodput) }
    }
}

/// The native figures of a run.
fn summary(done: &Replayed, goodput: Option<Goodput>, json: bool) -> String {
    let Replayed { info, report, metrics, client } = done;
    let measurement = measurement(info, report);
    let options = report::Options {
        metrics: Some(metrics),
        client: Some(client),
        server: info.server.as_ref(),
        goodput,
        ..report::Options::default()
    };
    if json {
        report::json(&measurement, Dialect::Native, &options)
    } else {
        let table = report::render(&measurement, Dialect::Native, &options);
        let left_out = match info.counts.left_out {
            0 => String::new(),
            count => format!("left out by --duration: {count} requests of the tape\n"),
        };
        format!("{table}{left_out}\n{}", info.verdict.text())
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

/// A run that is over and lies in its folder. Its figures are calculated once: they take time and memory.
pub(super) struct Replayed {
    pub(super) info: RunInfo,
    pub(super) report: Report,
    /// The native figures.
    pub(super) metrics: Metrics,
    /// The client's own part in them.
    pub(super) client: Client,
}

impl Replayed {
    /// Leaves the run's page in its folder.
    pub(super) fn write_page(&self, folder: &Path, goodput: Option<Goodput>) -> Outcome {
        let Self { info, report, metrics, client } = self;
        let measurement = &measurement(info, report);
        let page = report::html::run(&RunPage { info, measurement, metrics, client, goodput });
        Ok(run::write_page(folder, &page)?)
    }
}

/// One replay, from its tape to its folder.
pub(super) struct Job<'a> {
    pub(super) tape: &'a Path,
    pub(super) target: Target,
    pub(super) plan: PlanOptions,
    pub(super) options: Options,
    /// What the schedule is made from, where there is one.
    pub(super) shape: Option<Shape>,
    /// How often the server's own metrics are read; never if none.
    pub(super) scrape: Option<Duration>,
    pub(super) output: &'a Path,
    pub(super) force: bool,
    pub(super) quiet: bool,
    pub(super) thresholds: Thresholds,
}

impl<'a> Job<'a> {
    /// The replay that arguments ask for.
    pub(super) fn new(
        tape: &'a Path,
        target: Target,
        (server, selection): (&ServerArgs, &SelectionArgs),
        traffic: &Asked,
        output: &'a Path,
    ) -> Self {
        let options = Options {
            concurrency: traffic.concurrency.map(|limit| limit as usize),
            slots: traffic.slots,
            duration: traffic.duration,
            workers: server.workers as usize,
            priority: server.priority(),
            timeout: server.timeout,
            ..Options::default()
        };
        let plan = PlanOptions {
            requests: selection.requests,
            window: traffic.window.clone(),
            warmup: selection.warmup,
            model: server.model.clone(),
        };
        Self {
            tape,
            target,
            plan,
            options,
            shape: traffic.shape,
            scrape: None,
            output,
            force: false,
            quiet: false,
            thresholds: Thresholds::default(),
        }
    }

    pub(super) fn with(self, force: bool, quiet: bool, thresholds: Thresholds) -> Self {
        Self { force, quiet, thresholds, ..self }
    }

    /// Replays the tape and leaves the run in its folder.
    pub(super) fn run(mut self) -> Result<Replayed, Failure> {
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
        let mut pace = Pace { window: self.plan.window, ..Pace::default() };
        if let Some(shape) = &self.shape {
            self.options.schedule = Some(shape.offsets(&plan.offsets())?);
            pace = Pace {
                rate: shape.rate(),
                arrival: Some(shape.arrival().to_owned()),
                shape: self.shape,
                ..pace
            };
        }
        let sending = Sending {
            plan,
            target: &self.target,
            options: &self.options,
            pace,
            scrape: self.scrape,
            thresholds: self.thresholds,
        };
        let done = sending.run(workload, writer, self.quiet)?;
        if done.info.counts.left_out == 0 && !done.report.interrupted && !self.quiet {
            note_early_end(self.options.duration, &done.report);
        }
        Ok(done)
    }
}

/// A run that was to last longer than its tape says so.
fn note_early_end(limit: Option<Duration>, report: &Report) {
    let last = report.timelines.iter().map(|timeline| timeline.dispatched_ns).max().unwrap_or(0);
    let last = Duration::from_nanos(last);
    if let Some(limit) = limit.filter(|limit| *limit > last) {
        let (last, limit) = (last.as_secs_f64(), limit.as_secs_f64());
        eprintln!("note: the tape ended early: its last request was sent after {last:.1} s of {limit:.1} s");
    }
}

/// How a schedule came to be, for the record.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Requests a second.
    pub(super) rate: Option<f64>,
    /// How the times were drawn.
    pub(super) arrival: Option<String>,
    /// What they were made from, where it was not a peer's schedule.
    pub(super) shape: Option<Shape>,
    /// The part of the tape that is sent.
    pub(super) window: Option<Range<Ns>>,
}

/// A plan, about to be sent.
pub(super) struct Sending<'a> {
    pub(super) plan: Plan,
    pub(super) target: &'a Target,
    pub(super) options: &'a Options,
    pub(super) pace: Pace,
    /// How often the server's own metrics are read; never if none.
    pub(super) scrape: Option<Duration>,
    pub(super) thresholds: Thresholds,
}

impl Sending<'_> {
    /// Sends the plan and leaves the run in the writer's folder.
    pub(super) fn run(
        self,
        workload: Workload,
        mut writer: RunWriter,
        quiet: bool,
    ) -> Result<Replayed, Failure> {
        let Self { plan, target, options, pace, scrape, thresholds } = self;
        let interrupt = interrupt::watch()?;
        let scraper = scrape.and_then(|interval| Scraper::start(target, interval));
        let started_at = now();
        let mut progress = Progress::new(plan.requests.len() as u64, options, quiet);
        let mut written = Ok(());
        let report = replay::run(&plan, target, options, &interrupt, &mut |timeline| {
            progress.ended(timeline);
            if written.is_ok() {
                written = writer.timeline(timeline);
            }
        })?;
        progress.finish();
        written?;
        let mut server = scraper.and_then(Scraper::finish);
        if let Some(figures) = server.as_mut().and_then(|server| server.figures.as_mut()) {
            figures.warmup = plan.warmup.len() as u64;
        }
        let to_measure = (plan.requests.len() as u64).saturating_sub(report.left_out);
        let warmup = plan.warmup.len() as u64;
        // The figures take as much memory as the bodies did.
        drop((plan.requests, plan.warmup));
        let counts = Counts { left_out: report.left_out, ..Counts::of(to_measure, &report.timelines) };
        let mut info = RunInfo {
            format: FORMAT,
            created_by: concat!("tokentape ", env!("CARGO_PKG_VERSION")).to_owned(),
            started_at,
            start_monotonic_ns: report.start_monotonic_ns,
            duration_ns: report.duration_ns,
            workload: Workload {
                workload_digest: plan.workload_digest,
                wire_digest: report.wire_digest.clone().unwrap_or(plan.wire_digest),
                rebuilt: report.rebuilt,
                ..workload
            },
            target: TargetInfo { url: target.url.clone(), headers: target.header_names() },
            traffic: Traffic {
                concurrency: options.concurrency.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
                request_rate: pace.rate,
                arrival: pace.arrival,
                shape: pace.shape,
                window_ns: pace.window,
                slots: options.slots,
                behaviour: options.behaviour.clone(),
                duration_limit_ms: options
                    .duration
                    .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
                workers: u32::try_from(options.workers).unwrap_or(u32::MAX),
                timeout_ms: u64::try_from(options.timeout.as_millis()).unwrap_or(u64::MAX),
                warmup,
                warmup_failures: report.warmup_failures as u64,
            },
            verdict: Verdict::default(),
            effort: Some(report.effort.clone()),
            counts,
            server,
            machine: Machine::this(),
            calibration: calibrate::cache::load(),
        };
        let measurement = measurement(&info, &report);
        let metrics = native::calculate(&measurement);
        let client = client::calculate(&measurement, info.effort.as_ref());
        info.verdict = Verdict::of(
            &Evidence {
                counts: &info.counts,
                workload: &info.workload,
                traffic: &info.traffic,
                metrics: &metrics,
                client: &client,
            },
            &thresholds,
        );
        let options = report::Options {
            metrics: Some(&metrics),
            client: Some(&client),
            server: info.server.as_ref(),
            ..report::Options::default()
        };
        let summary = report::json(&measurement, Dialect::Native, &options);
        writer.finish(&info, &summary)?;
        Ok(Replayed { info, report, metrics, client })
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
            replay::Error::Tape(_)
            | replay::Error::Model { .. }
            | replay::Error::History { .. }
            | replay::Error::Empty => Self::input(error),
            replay::Error::Url { .. } | replay::Error::Header { .. } | replay::Error::EmptyWindow => {
                Self::usage(error)
            }
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
