//! `tokentape report`: a run's figures, as a dialect defines them; or those of another tool's result.

use std::path::PathBuf;

use super::{Failure, Outcome, output};
use crate::metrics::steady::Window;
use crate::metrics::vllm::Goodput;
use crate::metrics::{Dialect, Measurement, client, native, slo};
use crate::report::html::RunPage;
use crate::run::Run;
use crate::timeline::Timeline;
use crate::{compare, convert, report};

/// Show a run's figures as a dialect defines them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The run's folder; or a vLLM result file, or an evalscope output folder
    run: PathBuf,
    /// Whose definitions, and whose table: native, vllm-0.11.0, vllm-0.32.0, vllm-0.33.0, evalscope-1.1.1 or
    /// evalscope-1.14.1 [default: native]
    #[arg(long, value_name = "DIALECT")]
    dialect: Option<Dialect>,
    /// What makes a request good, such as ttft:200ms,tpot:30ms,e2el:5s: report goodput (native and vLLM's dialects)
    #[arg(long, value_name = "OBJECTIVES", value_parser = slo::parse_goodput)]
    goodput: Option<Goodput>,
    /// Only the steady part of the run: from the first to the last moment at which 95 % of the concurrency limit are in
    /// flight (native dialect)
    #[arg(long)]
    steady: bool,
    /// When a read counts as arrived
    #[arg(long, value_enum, default_value_t = Clock::Kernel)]
    clock: Clock,
    /// The form of the output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Write to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Clock {
    /// When the kernel had its bytes
    Kernel,
    /// When it returned to the client, which is what a client that stamps in user space sees
    User,
}

impl Clock {
    /// The run by this clock.
    fn apply(self, run: &mut Run) {
        if self == Self::User {
            run.timelines = std::mem::take(&mut run.timelines).into_iter().map(Timeline::as_read).collect();
            let end = run.timelines.iter().map(|timeline| timeline.end_ns).max().unwrap_or(0);
            run.info.duration_ns = run.info.duration_ns.max(end);
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Format {
    /// The dialect's own table
    Table,
    /// The dialect's own result files, as JSON
    Json,
    /// One HTML page with charts, which needs nothing else
    Html,
    /// An HdrHistogram interval log of TTFT, ITL, TPOT and E2EL, as native defines them
    Hlog,
}

const EXAMPLES: &str = "\
Examples:
  tokentape report runs/first
  tokentape report runs/first --dialect vllm-0.11.0
  tokentape report runs/first --dialect evalscope-1.1.1 --json
  tokentape report runs/first --steady --goodput ttft:200ms,tpot:30ms
  tokentape report runs/first --clock user
  tokentape report runs/first --format html -o first.html
  tokentape report runs/first --format hlog -o first.hlog
  tokentape report vllm-result.json";

pub(super) fn exec(args: Args) -> Outcome {
    let is_run = args.run.join("run.json").exists();
    // What is not there at all was meant to be a run.
    let bytes = if is_run || !args.run.exists() { of_run(&args)? } else { of_foreign(&args)? };
    output::write(args.output.as_deref(), &bytes)
}

/// What is asked for must be there to be shown.
fn check_steady(args: &Args, measurement: &Measurement<'_>) -> Outcome {
    let is_whole = matches!(args.format(), Format::Hlog | Format::Html);
    if args.dialect.unwrap_or_default() != Dialect::Native || is_whole {
        return Err(Failure::usage(
            "--steady shows the native figures; leave out --dialect, --format hlog and --format html",
        ));
    }
    if Window::of(measurement).is_none() {
        return Err(Failure::input(format_args!(
            "{}: the run has no steady part: 95 % of its concurrency limit were never in flight",
            args.run.display()
        )));
    }
    Ok(())
}

impl Args {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

fn of_run(args: &Args) -> Result<Vec<u8>, Failure> {
    let mut run = Run::load(&args.run).map_err(Failure::input)?;
    let dialect = args.dialect.unwrap_or_default();
    // The client's delay is what tells the clocks apart, so it is the same by both.
    let client = client::calculate(&measurement(&run), run.info.effort.as_ref());
    args.clock.apply(&mut run);
    let measurement = measurement(&run);
    if args.steady {
        check_steady(args, &measurement)?;
    }
    let mut options = report::Options {
        client: Some(&client),
        goodput: args.goodput,
        steady: args.steady,
        server: run.info.server.as_ref(),
        ..report::Options::default()
    };
    options.vllm.goodput = args.goodput;
    Ok(match args.format() {
        Format::Table if dialect == Dialect::Native => {
            let table = report::render(&measurement, dialect, &options);
            let clock = match args.clock {
                Clock::Kernel => "",
                Clock::User => "clock: user; the latencies contain the read delay\n",
            };
            format!("{table}\n{clock}{}", run.info.verdict.text()).into_bytes()
        }
        Format::Table => report::render(&measurement, dialect, &options).into_bytes(),
        Format::Json => report::json(&measurement, dialect, &options).into_bytes(),
        Format::Html if args.dialect.is_some() => {
            return Err(Failure::usage("--format html shows every dialect; leave out --dialect"));
        }
        Format::Html => report::html::run(&RunPage {
            info: &run.info,
            measurement: &measurement,
            metrics: &native::calculate(&measurement),
            client: &client,
            goodput: args.goodput,
        }),
        Format::Hlog => report::hlog::hlog(&measurement).map_err(Failure::run)?,
    })
}

fn measurement(run: &Run) -> Measurement<'_> {
    Measurement {
        timelines: &run.timelines,
        duration_ns: run.info.duration_ns,
        concurrency: run.info.traffic.concurrency,
        request_rate: run.info.traffic.request_rate,
    }
}

/// Another tool's figures under their neutral names: each result of the file, where it holds several.
fn of_foreign(args: &Args) -> Result<Vec<u8>, Failure> {
    let results = convert::load(&args.run).map_err(Failure::input)?;
    if args.steady || args.goodput.is_some() {
        return Err(Failure::usage(format_args!(
            "--steady and --goodput need a run's timelines; {} is another tool's result",
            args.run.display()
        )));
    }
    if let Some(dialect) = args.dialect {
        return Err(Failure::usage(format_args!(
            "--dialect {dialect}: {} is another tool's result, with that tool's definitions; only a run can be seen \
             through a dialect",
            args.run.display()
        )));
    }
    if args.clock == Clock::User {
        return Err(Failure::usage(format_args!(
            "--clock user: {} is another tool's result; only a run has the stamps of two clocks",
            args.run.display()
        )));
    }
    match args.format() {
        Format::Table => {
            let tables: Vec<String> = results.iter().map(compare::figures_table).collect();
            Ok(tables.join("\n").into_bytes())
        }
        Format::Json => {
            let objects: Vec<_> = results.iter().map(compare::figures_json).collect();
            Ok(format!("{:#}\n", serde_json::json!({ "results": objects })).into_bytes())
        }
        Format::Html => Err(Failure::usage(format_args!(
            "--format html: {} is another tool's result; compare it with a run, which makes a page of both",
            args.run.display()
        ))),
        Format::Hlog => Err(Failure::usage(format_args!(
            "--format hlog: {} is another tool's result; only a run has an interval log",
            args.run.display()
        ))),
    }
}
