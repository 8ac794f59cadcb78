//! `tokentape calibrate`: what this machine's figures are worth.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tokentape_tokenizer::Tokenizer;

use super::bundled::Mock;
use super::generate::write_tape;
use super::replay::{Job, Replayed, now};
use super::{Failure, Outcome, output};
use crate::calibrate::{Calibration, Load, Setting, cache};
use crate::effort::Priority;
use crate::generate::{Lengths, Params, Random};
use crate::replay::Target;
use crate::replay::engine::Options;
use crate::replay::plan::PlanOptions;
use crate::run::Thresholds;
use crate::timeline::Timeline;
use crate::truth;

/// Replay against the bundled mock, and hold every figure against its truth log.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Streams at once: one number, or several to be taken one after another
    #[arg(long, value_name = "N[,N..]", value_delimiter = ',', default_value = "50",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: Vec<u32>,
    /// Double the streams, from --concurrency on, until a load fails, and name the last good one
    #[arg(long)]
    sweep: bool,
    /// Requests measured at each load [default: ten a stream, from 500 to 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// The mock's time to first token
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = humantime::parse_duration)]
    ttft: Duration,
    /// The mock's time from token to token
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = humantime::parse_duration)]
    itl: Duration,
    /// Tokens of each answer
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    output_tokens: u32,
    /// Sending threads, each with its share of the connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: u32,
    /// Leave tapes, truth logs and runs in this folder, one a load; what is there of the same load is replaced
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print the calibration as JSON
    #[arg(long)]
    json: bool,
    /// No progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  tokentape calibrate
  tokentape calibrate --concurrency 50,500,1000
  tokentape calibrate --sweep --json

Both ends run on this machine. The calibration is kept in the user's cache ($XDG_CACHE_HOME or ~/.cache), and every
later run on this machine carries it in its run.json. The exit code is 1 if a load misses a mark; with --sweep, if the
first one does. docs/accuracy.md has the marks.";

/// More streams than this are not tried: each takes a port, of which an address has few more.
const MOST_STREAMS: u32 = 16_384;
/// A fault in one of these would leave a sweep without end.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn exec(args: Args) -> Outcome {
    let started_at = now();
    let place = Place::new(args.output.as_deref())?;
    let setting = Setting {
        ttft_ns: nanoseconds(args.ttft),
        itl_ns: nanoseconds(args.itl),
        output_tokens: args.output_tokens,
    };
    let mut loads: Vec<Load> = Vec::new();
    let mut next = args.concurrency.first().copied();
    let mut listed = args.concurrency.iter().skip(1).copied();
    while let Some(streams) = next {
        if !args.quiet {
            eprintln!("{streams} streams");
        }
        match measure(&args, setting, streams, &place.folder) {
            Ok(load) => loads.push(load),
            // So many streams cannot even be opened, and what was measured before stays.
            Err(failure) if args.sweep && !loads.is_empty() => {
                eprintln!("at {streams} streams: {}", failure.message());
                break;
            }
            Err(failure) => return Err(failure),
        }
        next = listed.next();
        if args.sweep {
            let good = loads.last().is_some_and(Load::passed);
            next = next.or_else(|| streams.checked_mul(2)).filter(|next| good && *next <= MOST_STREAMS);
        }
    }
    let created_by = concat!("tokentape ", env!("CARGO_PKG_VERSION")).to_owned();
    let calibration = Calibration::new(created_by, started_at, cache::cpu(), setting, loads);
    if args.json {
        output::print(&(serde_json::to_string_pretty(&calibration).map_err(std::io::Error::from)? + "\n"))?;
    } else {
        output::print(&calibration.table())?;
    }
    match cache::save(&calibration) {
        Ok(Some(path)) if !args.quiet => eprintln!("kept in {}", path.display()),
        Ok(_) => {}
        // The figures are on the screen; that they are not kept is worth a word and no more.
        Err(error) => eprintln!("note: the calibration could not be kept: {error}"),
    }
    judge(&calibration, args.sweep)
}

fn judge(calibration: &Calibration, sweep: bool) -> Outcome {
    let failed = calibration.loads.iter().find(|load| !load.passed());
    match (failed, calibration.last_good_streams) {
        (Some(load), Some(good)) if sweep => {
            eprintln!("good up to {good} streams; at {}: {}", load.streams, load.missed.join("; "));
            Ok(())
        }
        (Some(load), _) => {
            let (streams, missed) = (load.streams, load.missed.join("; "));
            Err(Failure::run(format_args!("at {streams} streams: {missed}")))
        }
        (None, Some(good)) if sweep => {
            eprintln!("good up to {good} streams, the most that were tried");
            Ok(())
        }
        (None, _) => Ok(()),
    }
}

/// One load: a mock of its own, a warm-up of one request a stream, and the requests.
fn measure(args: &Args, setting: Setting, streams: u32, folder: &Path) -> Result<Load, Failure> {
    let folder = folder.join(streams.to_string());
    fs::create_dir_all(&folder).map_err(|error| {
        Failure::run(format_args!("cannot create the folder {}: {error}", folder.display()))
    })?;
    let (tape, truth_log, run) = (folder.join("tape.zst"), folder.join("truth.jsonl"), folder.join("run"));
    let requests = args.requests.unwrap_or((10 * u64::from(streams)).clamp(500, 10_000));
    let warmup = u64::from(streams);
    generate(&tape, requests + warmup, setting.output_tokens)?;
    let span = |ns: u64| format!("{ns}ns");
    let mock = Mock::start(&truth_log, &span(setting.ttft_ns), &span(setting.itl_ns))?;
    let job = Job {
        tape: &tape,
        target: Target::new(&mock.url)?,
        plan: PlanOptions { requests: Some(requests), warmup, ..PlanOptions::default() },
        options: Options {
            concurrency: Some(streams as usize),
            workers: args.workers as usize,
            // Both ends of the measurement go first: neither waits behind the other.
            priority: Some(Priority::RealTime),
            timeout: TIMEOUT,
            ..Options::default()
        },
        shape: None,
        scrape: None,
        output: &run,
        force: true,
        quiet: args.quiet,
        thresholds: Thresholds::default(),
    };
    let Replayed { info, report, .. } = job.run()?;
    mock.stop()?;
    if report.interrupted {
        return Err(Failure::run("interrupted: nothing was calibrated"));
    }
    let truth = tokentape_mock::truth::read(&truth_log).map_err(Failure::input)?;
    let truths = truth::by_id(&truth.records);
    let check = truth::check(&report.timelines, &truths);
    let as_read: Vec<Timeline> = report.timelines.iter().cloned().map(Timeline::as_read).collect();
    let as_read = truth::check(&as_read, &truths);
    let checks = (&check, &as_read);
    Ok(Load::new(streams, setting, &report.timelines, checks, &truth.records, &info.verdict.reasons))
}

fn generate(path: &Path, requests: u64, output_tokens: u32) -> Outcome {
    let tokenizer = Tokenizer::embedded().map_err(Failure::input)?;
    let output_tokens = Lengths::new(output_tokens, output_tokens).map_err(Failure::usage)?;
    let params = Params { requests, output_tokens, ..Params::default() };
    let source = Random::new(params, &tokenizer)?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    write_tape(path, &source, threads)?;
    Ok(())
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Where the files of a calibration lie: the folder asked for, or one that is gone with this value.
struct Place {
    folder: PathBuf,
    is_passing: bool,
}

impl Place {
    fn new(asked: Option<&Path>) -> Result<Self, Failure> {
        let passing = || std::env::temp_dir().join(format!("tokentape-calibrate-{}", std::process::id()));
        let place = Self { folder: asked.map_or_else(passing, Path::to_owned), is_passing: asked.is_none() };
        fs::create_dir_all(&place.folder).map_err(|error| {
            Failure::run(format_args!("cannot create the folder {}: {error}", place.folder.display()))
        })?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_passing {
            // Left-overs in the system's own folder for them are no failure.
            drop(fs::remove_dir_all(&self.folder));
        }
    }
}
