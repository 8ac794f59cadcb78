//! `tokentape verify`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokentape_tokenizer::Tokenizer;

use super::output::print;
use super::{Failure, Outcome};
use crate::generate;
use crate::tape::{self, Progress, Reader, Request};

/// What to check.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tape
    #[arg(value_name = "TAPE")]
    tape: PathBuf,
    /// Also make the requests again from the header, and compare each one
    #[arg(long)]
    regenerate: bool,
    /// The tokenizer to make them with, where the header's name for it does not lead to it: a folder or a file
    #[arg(long, value_name = "DIR|FILE|NAME", requires = "regenerate")]
    tokenizer: Option<String>,
}

const EXAMPLES: &str = "\
Reads the whole tape, and checks every frame, the order of its requests, their responses, the index,
the counts and the workload digest.

Examples:
  tokentape verify load.tape.zst
  tokentape verify load.tape.zst --regenerate
  tokentape verify load.tape.zst --regenerate --tokenizer models/qwen3

Exit codes:
  0  the tape is whole, and says the truth about itself
  1  --regenerate: its header makes other requests
  3  it cannot be read, or is damaged or altered; the error says where";

pub(super) fn exec(args: Args) -> Outcome {
    let mut meter = Meter::new("verifying");
    let footer = tape::verify(&args.tape, &mut |progress| meter.show(progress))?;
    meter.clear();
    if args.regenerate {
        compare_regenerated(&args.tape, args.tokenizer.as_deref())?;
    }
    let regenerated = if args.regenerate { "; its header makes it again" } else { "" };
    let responses =
        if footer.responses > 0 { format!(", {} responses", footer.responses) } else { String::new() };
    print(&format!(
        "ok: {} requests{responses}, digest {}{regenerated}\n",
        footer.requests, footer.workload_digest
    ))
}

/// Makes a tape's requests again from its header, and holds each one against the tape's.
fn compare_regenerated(path: &Path, tokenizer: Option<&str>) -> Outcome {
    let reader = Reader::open(path)?;
    let total = reader.footer().requests;
    let differs = |how: fmt::Arguments<'_>| {
        Failure::run(format_args!("tape {} is not what its header makes: {how}", path.display()))
    };
    let mut recorded = reader.requests();
    let mut meter = Meter::new("regenerating");
    let mut done = 0;
    let mut difference = None;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut sink = |made: Request| {
        difference = match recorded.next() {
            Some(Ok(recorded)) => first_difference(&recorded, &made)
                .map(|field| differs(format_args!("request {done} has another {field}"))),
            Some(Err(error)) => Some(error.into()),
            None => Some(differs(format_args!("it has {total} requests, the header makes more"))),
        };
        done += 1;
        meter.show(Progress { done, total });
        // This only stops the generator; the failure, with its exit code, stays here.
        if difference.is_some() { Err("the tape differs".to_owned()) } else { Ok(()) }
    };
    let made = match tokenizer {
        Some(name) => {
            let tokenizer = Tokenizer::load(name).map_err(Failure::input)?;
            generate::regenerate_with(reader.header(), &tokenizer, threads, &mut sink)
        }
        None => generate::regenerate(reader.header(), threads, &mut sink),
    };
    meter.clear();
    if let Some(failure) = difference {
        return Err(failure);
    }
    made?;
    if done < total {
        return Err(differs(format_args!("it has {total} requests, the header makes {done}")));
    }
    Ok(())
}

/// The first field in which two requests differ.
fn first_difference(a: &Request, b: &Request) -> Option<&'static str> {
    let fields = [
        ("index", a.index == b.index),
        ("method", a.method == b.method),
        ("path", a.path == b.path),
        ("body", a.body == b.body),
        ("offset_ns", a.offset_ns == b.offset_ns),
        ("count of input tokens", a.input_tokens == b.input_tokens),
        ("count of output tokens", a.output_tokens == b.output_tokens),
        ("session", a.session == b.session),
    ];
    fields.into_iter().find_map(|(field, same)| (!same).then_some(field))
}

/// Progress through a tape on stderr, from the second second on, when a person is there to see it.
#[derive(Debug)]
pub(super) struct Meter {
    verb: &'static str,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Meter {
    const PATIENCE: Duration = Duration::from_secs(2);
    /// Requests between two looks at the clock.
    const STRIDE: u64 = 1024;

    pub(super) fn new(verb: &'static str) -> Self {
        Self { verb, started: Instant::now(), bar: None }
    }

    pub(super) fn show(&mut self, progress: Progress) {
        if !progress.done.is_multiple_of(Self::STRIDE) {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_position(progress.done);
        } else if self.started.elapsed() >= Self::PATIENCE {
            // On stderr, and hidden where that is no terminal.
            let bar = ProgressBar::new(progress.total).with_message(self.verb);
            if let Ok(style) =
                ProgressStyle::with_template("{msg} {bar:40} {human_pos} of {human_len} requests, {eta} left")
            {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
    }

    pub(super) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// An error's text must not stand behind a half-drawn bar.
impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A tape that cannot be read is unreadable input, whatever is wrong with it.
impl From<tape::Error> for Failure {
    fn from(error: tape::Error) -> Self {
        Self::input(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_that_differs_is_named() {
        let request = Request {
            index: 0,
            offset_ns: 0,
            method: "POST".to_owned(),
            path: "/v1/completions".to_owned(),
            body: b"{}".to_vec(),
            input_tokens: Some(1),
            output_tokens: None,
            session: None,
        };
        assert_eq!(first_difference(&request, &request), None);
        let other = Request { body: b"{ }".to_vec(), output_tokens: Some(1), ..request.clone() };
        assert_eq!(first_difference(&request, &other), Some("body"));
        let other = Request { output_tokens: Some(1), ..request.clone() };
        assert_eq!(first_difference(&request, &other), Some("count of output tokens"));
    }
}
