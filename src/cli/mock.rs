//! `tokentape mock`: the flags of the `tokentape-mock` binary, its server, an oracle, and answers from a tape.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tokentape_mock::Error;
use tokentape_mock::recordings::Recordings;

use super::{Failure, Outcome};
use crate::playback::{Miss, Playback, Timing};
use crate::tape::Reader;
use crate::truth::oracle::Oracle;

/// What the server is, and what it answers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: tokentape_mock::Args,
    /// Play the responses that this tape holds: to the same method, path and body, byte for byte. Several to one request
    /// come in the order in which they were recorded
    #[arg(long, value_name = "TAPE")]
    answers: Option<PathBuf>,
    /// When their pieces go out: `recorded`, `fast`, or `speed:X` for X times as fast
    #[arg(long, value_name = "TIMING", default_value = "recorded", requires = "answers")]
    answers_timing: Pace,
    /// What to answer where the tape has nothing: 404, or what the mock would answer by itself
    #[arg(long, value_enum, default_value = "404", requires = "answers")]
    answers_miss: MissArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MissArg {
    /// Not found, with what was looked for
    #[value(name = "404")]
    NotFound,
    /// The mock's own answer
    Model,
}

#[derive(Clone, Copy, Debug)]
struct Pace(Timing);

impl FromStr for Pace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let speed = |text: &str| text.parse().ok().filter(|&speed: &f64| speed > 0.0 && speed.is_finite());
        match text {
            "recorded" => Ok(Self(Timing::Recorded)),
            "fast" => Ok(Self(Timing::Fast)),
            _ => text
                .strip_prefix("speed:")
                .and_then(speed)
                .map(|speed| Self(Timing::Speed(speed)))
                .ok_or("give recorded, fast, or speed:X such as speed:2"),
        }
    }
}

pub(super) fn exec(args: Args) -> Outcome {
    let recordings = args.playback()?.map(|playback| Arc::new(playback) as Arc<dyn Recordings>);
    Ok(tokentape_mock::run_with(args.server, Some(Arc::new(Oracle)), recordings)?)
}

impl Args {
    fn playback(&self) -> Result<Option<Playback>, Failure> {
        let Some(path) = &self.answers else { return Ok(None) };
        let reader = Reader::open(path)?;
        let Pace(timing) = self.answers_timing;
        let miss = match self.answers_miss {
            MissArg::NotFound => Miss::NotFound,
            MissArg::Model => Miss::Model,
        };
        let playback = Playback::load(&reader, timing, miss)?;
        if playback.responses() == 0 {
            return Err(Failure::usage(format_args!(
                "--answers: {} holds no responses; `tokentape record` makes tapes that do",
                path.display()
            )));
        }
        Ok(Some(playback))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Tokenizer(_) | Error::NoWords | Error::Tls(_) => Self::input(error),
            Error::Bind { .. } | Error::Runtime(_) | Error::Stdout(_) | Error::TruthLog { .. } => {
                Self::run(error)
            }
        }
    }
}
