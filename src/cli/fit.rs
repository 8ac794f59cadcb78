//! `tokentape fit`: an engine's profile from a measured run.

use std::io::Write;
use std::path::PathBuf;

use tokentape_mock::engine::Profile;

use super::{Failure, Outcome, output};
use crate::run::Run;
use crate::simulate::fit::fit;

/// Make an engine's profile from a measured run
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run
    run: PathBuf,
    /// The profile's file
    #[arg(short, long, value_name = "PROFILE")]
    output: PathBuf,
    /// The profile whose scheduler and cache it takes, which no run can show: a name or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "h100-llama-3.1-8b", value_parser = Profile::named)]
    like: Profile,
}

pub(super) fn exec(args: Args) -> Outcome {
    let run = Run::load(&args.run)?;
    let name = args.output.file_stem().map_or_else(|| "fitted".into(), |name| name.to_string_lossy());
    let (profile, quality) = fit(&name, &run.timelines, &args.like).ok_or_else(|| {
        Failure::run(format_args!("{}: no request in it has two tokens to fit from", args.run.display()))
    })?;
    let mut file = output::create(&args.output)?;
    file.write_all(profile.to_json().as_bytes())?;
    file.flush()?;
    output::print(&format!(
        "profile left in {}\nexplained of the spread: ITL by load {:.1} %, TTFT by prompt length {:.1} %\n",
        args.output.display(),
        quality.itl_r_squared * 100.0,
        quality.ttft_r_squared * 100.0,
    ))
}
