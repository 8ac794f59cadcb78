//! `tokentape simulate`: what a tape would come to, from an engine on a simulated clock.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokentape_mock::engine::Profile;
use tokentape_mock::{Law, Timing};

use super::replay::traffic::{Traffic as Asked, TrafficArgs};
use super::sweep::Sweep;
use super::{Failure, Outcome, output};
use crate::metrics::client::Client;
use crate::metrics::native::{self, Metrics};
use crate::metrics::{Dialect, Measurement};
use crate::report;
use crate::run::verdict::Evidence;
use crate::run::{
    Counts, FORMAT, Machine, RunInfo, RunWriter, TargetInfo, Thresholds, Traffic, Verdict, Workload,
};
use crate::schedule::Slots;
use crate::simulate::server::Server;
use crate::simulate::summary::Summary;
use crate::simulate::workload::{self, Unfit};
use crate::simulate::{self, Options, Refused, answer};
use crate::tape;
use crate::timeline::{Ns, Timeline};

/// Send a tape to the mock's engine on a simulated clock: the same report without the wait
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tape
    tape: PathBuf,
    /// The engine: a profile's name (a100-llama-3.1-8b, fixed, h100-llama-3.1-8b, h100x4-llama-3.1-70b) or file
    #[arg(long, value_name = "NAME|FILE", value_parser = Profile::named, conflicts_with_all = ["ttft", "itl"])]
    engine: Option<Profile>,
    /// In place of an engine: from a request's arrival to its first token, as `tokentape mock --ttft`
    #[arg(long, value_name = "LAW", value_parser = Law::parse_ttft)]
    ttft: Option<Law>,
    /// In place of an engine: from one token to the next, as `tokentape mock --itl`
    #[arg(long, value_name = "LAW", value_parser = Law::parse_itl)]
    itl: Option<Law>,
    /// The server's own seed, as `tokentape mock --seed`
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    server_seed: u64,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// How far apart the client sends requests that are due at once: a real one takes some 50us for each
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    send_gap: Duration,
    /// Send only the tape's first N requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// The run's folder, made here; of a sweep, the folder of its runs' folders
    #[arg(short, long, value_name = "RUN")]
    output: PathBuf,
    /// Keep no timelines: summary.json alone, from histograms (percentiles within 0.1 % of the value at their rank,
    /// not interpolated), in little memory
    #[arg(long)]
    summary_only: bool,
    /// Replace a run that is there already
    #[arg(long)]
    force: bool,
    /// Print the native figures as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tokentape simulate load.tape.zst --engine h100-llama-3.1-8b --concurrency 1,10,50,200 -o runs/what-if
  tokentape simulate load.tape.zst --engine my-profile.json --rate 20 -o runs/poisson
  tokentape simulate load.tape.zst --ttft lognormal:20ms,cv=0.3 --itl gamma:10ms,cv=0.2 -o runs/model

Neither the client (but for --send-gap) nor the network takes any time. The same command leaves the same bytes.";

pub(super) fn exec(args: Args) -> Outcome {
    let points = args.traffic.points()?;
    if points.iter().any(|point| point.traffic.slots == Slots::Static) {
        return Err(Failure::usage("--slots static is for replay; here slots are taken in turn"));
    }
    // An engine that is missing should be told before a large tape is read.
    args.server()?;
    // --from and --to are the same for all.
    let load = args.load(points.first().and_then(|point| point.traffic.window.as_ref()))?;
    if let [point] = &points[..] {
        let (info, figures) = args.simulate(load, &point.traffic, &args.output)?;
        output::print(&if args.json {
            figures.json()
        } else {
            format!("{}\n{}run left in {}\n", figures.table(), info.verdict.text(), args.output.display())
        })?;
        return Ok(());
    }
    let mut sweep = Sweep::new(None);
    for point in &points {
        let (info, figures) = args.simulate(load.clone(), &point.traffic, &args.output.join(&point.name))?;
        sweep.push(&point.name, &info, figures.0, None);
    }
    output::print(&if args.json { sweep.json() } else { sweep.table() })?;
    if !args.json {
        output::print(&format!("runs left in {}\n", args.output.display()))?;
    }
    Ok(())
}

/// What is sent.
#[derive(Clone)]
struct Load {
    requests: workload::Workload,
    /// What `run.json` says of it.
    told: Workload,
}

/// The native figures of a run, which are calculated already.
struct Figures(Metrics);

impl Figures {
    /// The figures are known; nothing is calculated from these.
    const NO_TIMELINES: Measurement<'static> =
        Measurement { timelines: &[], duration_ns: 0, concurrency: None, request_rate: None };

    fn options(&self) -> report::Options<'_> {
        report::Options { metrics: Some(&self.0), ..report::Options::default() }
    }

    fn json(&self) -> String {
        report::json(&Self::NO_TIMELINES, Dialect::Native, &self.options())
    }

    fn table(&self) -> String {
        report::render(&Self::NO_TIMELINES, Dialect::Native, &self.options())
    }
}

impl Args {
    fn server(&self) -> Result<Server, Failure> {
        match (&self.engine, &self.ttft, &self.itl) {
            (Some(profile), ..) => Ok(Server::engine(profile.clone())),
            (None, Some(ttft), Some(itl)) => {
                let timing = Timing { ttft: ttft.clone(), itl: itl.clone(), jitter_millipercent: 0 };
                Ok(Server::timing(timing, self.server_seed))
            }
            _ => Err(Failure::usage("name an --engine, or give both --ttft and --itl")),
        }
    }

    /// The tape's part that is asked for.
    fn load(&self, window: Option<&Range<Ns>>) -> Result<Load, Failure> {
        let reader = tape::Reader::open(&self.tape)?;
        let caches = self.engine.as_ref().map(|profile| profile.cache).filter(|cache| cache.prefix_caching);
        let is_within = |offset_ns: Ns| window.is_none_or(|window| window.contains(&offset_ns));
        let requests = reader
            .requests()
            .map(|request| request.map_err(Failure::from))
            .filter(|request| request.as_ref().map_or(true, |request| is_within(request.offset_ns)));
        let block_tokens = caches.map_or(0, |cache| cache.block_tokens);
        let requests = workload::Workload::new(requests, self.requests, block_tokens)?;
        if requests.items.is_empty() {
            return Err(Failure::usage("there is no request in this part of the tape"));
        }
        let footer = reader.footer();
        let is_whole = requests.items.len() as u64 == footer.requests;
        if is_whole && requests.digest != footer.workload_digest {
            let path = self.tape.display();
            return Err(Failure::input(format_args!(
                "{path}: its requests do not match its digest; see tokentape verify"
            )));
        }
        let told = Workload {
            workload_digest: requests.digest.clone(),
            wire_digest: requests.digest.clone(),
            tape_digest: is_whole.then(|| requests.digest.clone()),
            ..Workload::of(&self.tape, reader.header())
        };
        Ok(Load { requests, told })
    }

    fn simulate(&self, load: Load, traffic: &Asked, folder: &Path) -> Result<(RunInfo, Figures), Failure> {
        let mut server = self.server()?;
        let Load { requests, told } = load;
        let schedule = traffic.shape.map(|shape| shape.offsets(&requests.offsets())).transpose()?;
        let until = traffic.duration.map(|duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        let options = Options {
            concurrency: traffic.concurrency,
            schedule,
            until,
            gap_ns: u64::try_from(self.send_gap.as_nanos()).unwrap_or(u64::MAX),
        };
        let mut writer = RunWriter::create(folder, self.force)?;
        let mut timelines: Vec<Timeline> = Vec::new();
        let mut summary = self.summary_only.then(Summary::default);
        let report = simulate::run(requests, &options, &mut server, &mut |flight| -> Result<(), Failure> {
            let timeline = answer::timeline(flight);
            if let Some(summary) = &mut summary {
                summary.add(&timeline);
                return Ok(());
            }
            writer.timeline(&timeline)?;
            timelines.push(timeline);
            Ok(())
        })?;
        timelines.sort_by_key(|timeline| timeline.index);
        let measurement = Measurement {
            timelines: &timelines,
            duration_ns: report.duration_ns,
            concurrency: traffic.concurrency,
            request_rate: traffic.shape.and_then(|shape| shape.rate()),
        };
        let metrics = match summary {
            Some(summary) => summary.metrics(&measurement, report.peak_concurrency),
            None => native::calculate(&measurement),
        };
        let counts = Counts {
            requests: report.ended,
            succeeded: report.ended,
            left_out: report.left_out,
            ..Counts::default()
        };
        let mut info = self.info(told, traffic, counts, report.duration_ns);
        // The client has no part in it: it takes no time.
        let client = Client { kernel_stamps: true, ..Client::default() };
        info.verdict = Verdict::of(
            &Evidence {
                counts: &info.counts,
                workload: &info.workload,
                traffic: &info.traffic,
                metrics: &metrics,
                client: &client,
            },
            &Thresholds::default(),
        );
        let figures = Figures(metrics);
        writer.finish(&info, &figures.json())?;
        Ok((info, figures))
    }

    /// `run.json`. It has no date and no machine: the clock is not this one's, and the bytes are the same everywhere.
    fn info(&self, workload: Workload, traffic: &Asked, counts: Counts, duration_ns: u64) -> RunInfo {
        let name = self.engine.as_ref().map_or("timing", |profile| &profile.name);
        RunInfo {
            format: FORMAT,
            created_by: concat!("tokentape ", env!("CARGO_PKG_VERSION")).to_owned(),
            started_at: "1970-01-01T00:00:00Z".to_owned(),
            start_monotonic_ns: 0,
            duration_ns,
            workload,
            target: TargetInfo { url: format!("simulated:{name}"), headers: Vec::new() },
            traffic: Traffic {
                concurrency: traffic.concurrency,
                request_rate: traffic.shape.and_then(|shape| shape.rate()),
                arrival: traffic.shape.map(|shape| shape.arrival().to_owned()),
                shape: traffic.shape,
                window_ns: traffic.window.clone(),
                duration_limit_ms: traffic
                    .duration
                    .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
                ..Traffic::default()
            },
            counts,
            verdict: Verdict::default(),
            effort: None,
            server: None,
            machine: Machine { system: "simulated clock".to_owned(), arch: String::new(), cpus: 0 },
            calibration: None,
        }
    }
}

impl From<Refused> for Failure {
    fn from(error: Refused) -> Self {
        Self::run(error)
    }
}

impl From<Unfit> for Failure {
    fn from(error: Unfit) -> Self {
        Self::input(error)
    }
}
