//! `tokentape scale`: a tape at another speed, or several times over.

use std::path::PathBuf;

use serde_json::Map;
use tokentape_tokenizer::Tokenizer;

use super::edit::{CREATED_BY, Output, Scope, digest};
use super::{Failure, Outcome};
use crate::generate::fresh::{Fresh, Renewed};
use crate::tape::edit::scale::{Rounds, at_speed};
use crate::tape::{Entry, Reader, edit};

/// How to scale a tape, and where the new one goes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tape
    #[arg(value_name = "TAPE")]
    tape: PathBuf,
    #[command(flatten)]
    output: Output,
    /// So many times as fast; below 1, slower
    #[arg(long, value_name = "X", value_parser = speed)]
    speed: Option<f64>,
    /// All requests so many times, at the same rate; sessions become NAME#2 in the second round
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    repeat: Option<u64>,
    /// Begin each round's prompts with words of its own, so that a prefix cache has seen none of them
    #[arg(long, requires = "repeat")]
    fresh_prefix: bool,
    /// Seed of the words
    #[arg(long, value_name = "S", default_value = "0", requires = "fresh_prefix")]
    seed: u64,
    /// Put the words in the place of each prompt's first ones, so that it keeps its number of tokens by this tokenizer;
    /// without it they stand before the prompt, and their rounds state no input tokens
    #[arg(long, value_name = "DIR|FILE|NAME", requires = "fresh_prefix")]
    tokenizer: Option<String>,
}

const EXAMPLES: &str = "\
The first round is the tape as it is. Within a round, prompts share what they shared. Recorded
responses go with their requests.

Examples:
  tokentape scale day.tape.zst --speed 10 -o fast.tape.zst
  tokentape scale load.tape.zst --repeat 5 --fresh-prefix --tokenizer models/qwen3 -o long.tape.zst";

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().map_err(|error| format!("not a number: {error}"))?;
    if speed > 0.0 && f64::is_finite(speed) { Ok(speed) } else { Err("must be above 0".to_owned()) }
}

pub(super) fn exec(args: Args) -> Outcome {
    if args.speed.is_none() && args.repeat.is_none() {
        return Err(Failure::usage("how to scale is missing: give --speed or --repeat"));
    }
    args.output.keep_apart([&args.tape])?;
    let reader = Reader::open(&args.tape)?;
    let tokenizer = match (args.fresh_prefix, &args.tokenizer) {
        (false, _) => None,
        (true, name) => Some(
            name.as_ref()
                .map_or_else(Tokenizer::embedded, |name| Tokenizer::load(name))
                .map_err(Failure::input)?,
        ),
    };
    let exact = args.tokenizer.is_some();
    if let Some((id, given)) = reader.header().tokenizer.as_ref().zip(tokenizer.as_ref())
        && exact
        && id.digest != given.digest()
    {
        return Err(Failure::usage(format_args!(
            "--tokenizer: the tape's tokens were counted by {:?} of digest {}, this one has {}",
            id.name,
            id.digest,
            given.digest()
        )));
    }
    let fresh = tokenizer.as_ref().map(|tokenizer| Fresh::new(args.seed, tokenizer, exact)).transpose()?;
    let header_tokenizer = reader.header().tokenizer.clone();
    let header = edit::header(CREATED_BY, "scale", &[digest(&reader)], args.params(), header_tokenizer);
    let (speed, repeat) = (args.speed.unwrap_or(1.0), args.repeat.unwrap_or(1));
    args.output.write(&header, Scope::of(&reader, repeat), |tape| {
        let mut rounds = Rounds::default();
        let (mut inexact, mut unchanged) = (0_u64, 0_u64);
        for _ in 0..repeat {
            for entry in reader.entries() {
                let mut entry = entry?;
                if let Entry::Request(request) = &mut entry {
                    tape.step();
                    request.offset_ns = at_speed(request.offset_ns, speed);
                    rounds.place(request);
                    if let Some(fresh) = fresh.as_ref().filter(|_| rounds.round() > 0) {
                        match fresh.renew(request, rounds.round())? {
                            Renewed::Exact => {}
                            Renewed::Inexact => inexact += 1,
                            Renewed::Unchanged => unchanged += 1,
                        }
                    }
                }
                tape.write(rounds.round(), entry)?;
            }
            rounds.advance();
        }
        Ok(notes(exact, inexact, unchanged))
    })
}

fn notes(exact: bool, inexact: u64, unchanged: u64) -> Vec<String> {
    let mut notes = Vec::new();
    if inexact > 0 && exact {
        notes.push(format!(
            "{inexact} prompts could not keep their number of tokens; the tape states their true one"
        ));
    } else if inexact > 0 {
        notes.push(format!(
            "{inexact} prompts are longer by their new words and state no input tokens: give --tokenizer to keep both"
        ));
    }
    if unchanged > 0 {
        notes.push(format!("{unchanged} requests have no prompt of text, and are repeated as they are"));
    }
    notes
}

impl Args {
    /// As they would have to be given again.
    fn params(&self) -> Map<String, serde_json::Value> {
        let mut params = Map::new();
        if let Some(speed) = self.speed {
            params.insert("speed".to_owned(), speed.into());
        }
        if let Some(repeat) = self.repeat {
            params.insert("repeat".to_owned(), repeat.into());
        }
        if self.fresh_prefix {
            params.insert("fresh_prefix".to_owned(), true.into());
            params.insert("prefix_seed".to_owned(), self.seed.into());
            params.insert("keeps_tokens".to_owned(), self.tokenizer.is_some().into());
        }
        params
    }
}
