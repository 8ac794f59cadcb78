//! `tokentape demo`: the whole way in one command, on the embedded defaults.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tokentape_tokenizer::Tokenizer;

use super::bundled::Mock;
use super::generate::write_tape;
use super::replay::{Job, Replayed};
use super::verdict::judge;
use super::{Failure, Outcome, output};
use crate::effort::Priority;
use crate::generate::{Params, Random};
use crate::metrics::{Dialect, Measurement, evalscope};
use crate::replay::Target;
use crate::replay::engine::Options;
use crate::replay::plan::PlanOptions;
use crate::report::{self, evalscope::folder};
use crate::run::Thresholds;
use crate::tape::Footer;
use crate::truth;

/// Generate a tape, start the mock server, replay, report as the peers do, and check against the truth log.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Where the tape, the truth log and the run are left; what an earlier demo left there is replaced
    #[arg(short, long, value_name = "DIR", default_value = "runs/demo")]
    output: PathBuf,
    /// Requests to send
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// Requests in flight at once
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: u32,
    /// The mock's time to first token
    #[arg(long, value_name = "TIME", default_value = "20ms")]
    ttft: String,
    /// The mock's time from token to token
    #[arg(long, value_name = "TIME", default_value = "5ms")]
    itl: String,
    /// No progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  tokentape demo
  tokentape demo --concurrency 8 --requests 64 --ttft 50ms --itl 10ms -o runs/slow";

pub(super) fn exec(args: Args) -> Outcome {
    let folder = &args.output;
    fs::create_dir_all(folder).map_err(|error| {
        Failure::run(format_args!("cannot create the folder {}: {error}", folder.display()))
    })?;
    let (tape, truth_log, run) =
        (folder.join("demo.tape.zst"), folder.join("truth.jsonl"), folder.join("run"));

    let footer = generate(&tape, args.requests)?;
    output::print(&format!(
        "1. tape      {} requests, {} tokens in, {} tokens out, seed 0\n             workload digest {}\n",
        footer.requests, footer.input_tokens, footer.output_tokens, footer.workload_digest,
    ))?;

    let mock = Mock::start(&truth_log, &args.ttft, &args.itl)?;
    output::print(&format!(
        "2. mock      {} in a process of its own: first token after {}, then one every {}\n",
        mock.url, args.ttft, args.itl,
    ))?;

    output::print(&format!("3. replay    {} streams at once\n\n", args.concurrency))?;
    let job = Job {
        tape: &tape,
        target: Target::new(&mock.url)?,
        plan: PlanOptions::default(),
        options: Options {
            priority: Some(Priority::RealTime),
            concurrency: Some(args.concurrency as usize),
            timeout: Duration::from_secs(60),
            ..Options::default()
        },
        shape: None,
        scrape: None,
        output: &run,
        force: true,
        quiet: args.quiet,
        thresholds: Thresholds::default(),
    };
    let done = job.run()?;
    mock.stop()?;
    done.write_page(&run, None)?;
    let Replayed { info, report, .. } = done;

    let measurement = Measurement {
        timelines: &report.timelines,
        duration_ns: report.duration_ns,
        concurrency: Some(args.concurrency),
        request_rate: None,
    };
    let options = report::Options::default();
    let as_vllm =
        report::render(&measurement, Dialect::Vllm(crate::metrics::vllm::Version::V0_11_0), &options);
    let facts =
        folder::RunFacts { version: evalscope::Version::V1_1_1, number: args.requests, handoff: false };
    let as_evalscope = folder::Run::new(&measurement, facts, None).summary_table();
    output::print(
        "The same timelines, as vllm bench serve 0.11.0 and as evalscope perf 1.1.1 report them:\n\n",
    )?;
    output::print(&side_by_side(&as_vllm, &as_evalscope))?;

    let truth = tokentape_mock::truth::read(&truth_log).map_err(Failure::input)?;
    let check = truth::check(&report.timelines, &truth::by_id(&truth.records));
    output::print(
        "\nevalscope counts input tokens as the server does, with the chat template; vLLM as the tape does, without.\n\
         Against the truth log, by tokentape's own definitions (true: from the moment the request had reached the mock):\n\n",
    )?;
    output::print(&check.table())?;
    // As it was called: it need not be installed.
    let program = std::env::args().next().unwrap_or_else(|| "tokentape".to_owned());
    output::print(&format!(
        "\n{}run left in {}; look closer with\n  {program} report {}\n  {program} inspect {}\n",
        info.verdict.text(),
        run.display(),
        run.display(),
        tape.display(),
    ))?;
    judge(&info, &report)?;
    if check.unmatched > 0 {
        let count = check.unmatched;
        return Err(Failure::run(format_args!(
            "{count} successful requests are not in the mock's truth log"
        )));
    }
    Ok(())
}

/// Makes the demo's tape: the generator's defaults, which are the original comparison's lengths.
fn generate(path: &Path, requests: u64) -> Result<Footer, Failure> {
    let tokenizer = Tokenizer::embedded().map_err(Failure::input)?;
    let source = Random::new(Params { requests, ..Params::default() }, &tokenizer)?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    Ok(write_tape(path, &source, threads)?.0)
}

/// Two blocks of lines beside each other.
fn side_by_side(left: &str, right: &str) -> String {
    let width = left.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let (mut left, mut right) = (left.lines(), right.lines());
    let mut both = String::new();
    loop {
        let (a, b) = match (left.next(), right.next()) {
            (None, None) => return both,
            (a, b) => (a.unwrap_or(""), b.unwrap_or("")),
        };
        both.push_str(format!("{a:<width$}   {b}").trim_end());
        both.push('\n');
    }
}
