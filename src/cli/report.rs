//! `tokentape report`: a run's figures, as a dialect defines them.

use std::io::Write;
use std::path::PathBuf;

use super::{Failure, Outcome, output};
use crate::metrics::{Dialect, Measurement};
use crate::report;
use crate::run::Run;

/// Show a run's figures as a dialect defines them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The run's folder
    run: PathBuf,
    /// Whose definitions, and whose table: native, vllm-0.11.0, vllm-0.32.0, vllm-0.33.0, evalscope-1.1.1 or
    /// evalscope-1.14.1
    #[arg(long, value_name = "DIALECT", default_value_t = Dialect::Native)]
    dialect: Dialect,
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
enum Format {
    /// The dialect's own table
    Table,
    /// The dialect's own result files, as JSON
    Json,
    /// An HdrHistogram interval log of TTFT, ITL, TPOT and E2EL, as native defines them
    Hlog,
}

const EXAMPLES: &str = "\
Examples:
  tokentape report runs/first
  tokentape report runs/first --dialect vllm-0.11.0
  tokentape report runs/first --dialect evalscope-1.1.1 --json
  tokentape report runs/first --format hlog -o first.hlog";

pub(super) fn exec(args: Args) -> Outcome {
    let run = Run::load(&args.run).map_err(Failure::input)?;
    let measurement = Measurement {
        timelines: &run.timelines,
        duration_ns: run.info.duration_ns,
        concurrency: run.info.traffic.concurrency,
        request_rate: run.info.traffic.request_rate,
    };
    let options = report::Options::default();
    let format = if args.json { Format::Json } else { args.format };
    let bytes = match format {
        Format::Table if args.dialect == Dialect::Native => {
            let table = report::render(&measurement, args.dialect, &options);
            format!("{table}verdict: {}\n", run.info.verdict.line()).into_bytes()
        }
        Format::Table => report::render(&measurement, args.dialect, &options).into_bytes(),
        Format::Json => report::json(&measurement, args.dialect, &options).into_bytes(),
        Format::Hlog => report::hlog::hlog(&measurement).map_err(Failure::run)?,
    };
    match &args.output {
        Some(path) => {
            let mut file = output::create(path)?;
            file.write_all(&bytes).and_then(|()| file.flush())?;
            Ok(())
        }
        None => output::print_bytes(&bytes),
    }
}
