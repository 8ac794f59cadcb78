//! `tokentape slice`: a part of a tape.

use std::path::PathBuf;

use serde_json::{Map, json};

use super::edit::{CREATED_BY, Output, Scope, digest};
use super::span::{Numbers, Times};
use super::{Failure, Outcome};
use crate::tape::edit::select::{Criteria, Sampler};
use crate::tape::{Entry, Reader, edit};

/// Which part, and where it goes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tape
    #[arg(value_name = "TAPE")]
    tape: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Requests A to B-1, counted from 0; either end may be left out
    #[arg(long, value_name = "A..B")]
    range: Option<Numbers>,
    /// Requests that arrive in this part of the tape's time
    #[arg(long, value_name = "FROM..TO")]
    window: Option<Times>,
    /// So many of them, drawn at random; they keep their order
    #[arg(long, value_name = "N")]
    sample: Option<u64>,
    /// Seed of the sample
    #[arg(long, value_name = "S", default_value = "0", requires = "sample")]
    seed: u64,
    /// Keep the arrival times of the whole tape
    #[arg(long)]
    keep_offsets: bool,
}

const EXAMPLES: &str = "\
The new tape's time begins with the window, or with its first request where there is no window;
--keep-offsets leaves it. A range is reached without reading what is before it. Sessions keep their
names and turns; recorded responses go with their requests.

Examples:
  tokentape slice day.tape.zst --window 9h..10h -o hour.tape.zst
  tokentape slice load.tape.zst --range ..500 -o first.tape.zst
  tokentape slice load.tape.zst --sample 1000 --seed 7 -o sample.tape.zst";

pub(super) fn exec(args: Args) -> Outcome {
    if args.range.is_none() && args.window.is_none() && args.sample.is_none() {
        return Err(Failure::usage("what to take is missing: give --range, --window or --sample"));
    }
    args.output.keep_apart([&args.tape])?;
    let reader = Reader::open(&args.tape)?;
    let count = reader.footer().requests;
    let range = args.range.as_ref().map_or(0..count, |Numbers(range)| range.start..range.end.min(count));
    if range.start >= count && count > 0 {
        return Err(Failure::usage(format_args!(
            "--range begins at request {}, but {} has {count}, counted from 0",
            range.start,
            args.tape.display()
        )));
    }
    let window = args.window.as_ref().map(|Times(window)| window.clone());
    let criteria = Criteria { window: window.clone(), ..Criteria::default() };
    // How many there are to draw from is known beforehand but for a window.
    let within = range.end.saturating_sub(range.start);
    let mut sampler = match args.sample {
        None => None,
        Some(size) => {
            let mut population = within;
            if window.is_some() {
                population = 0;
                for request in reader.requests_in(range.clone()) {
                    population += u64::from(criteria.matches(&request?));
                }
            }
            Some(Sampler::new(args.seed, size, population))
        }
    };
    let tokenizer = reader.header().tokenizer.clone();
    let header = edit::header(CREATED_BY, "slice", &[digest(&reader)], args.params(), tokenizer);
    args.output.write(&header, Scope { requests: within, ..Scope::of(&reader, 1) }, |tape| {
        let mut begin_ns = window.map(|window| window.start);
        for entry in reader.entries_in(range) {
            let mut entry = entry?;
            if let Entry::Request(request) = &mut entry {
                tape.step();
                if !criteria.matches(request) || !sampler.as_mut().is_none_or(Sampler::takes) {
                    continue;
                }
                if !args.keep_offsets {
                    let begin_ns = *begin_ns.get_or_insert(request.offset_ns);
                    request.offset_ns = request.offset_ns.saturating_sub(begin_ns);
                }
            }
            tape.write(0, entry)?;
        }
        Ok(Vec::new())
    })
}

impl Args {
    /// As they would have to be given again.
    fn params(&self) -> Map<String, serde_json::Value> {
        let mut params = Map::new();
        let span = |start: u64, end: u64| json!([start, (end < u64::MAX).then_some(end)]);
        if let Some(Numbers(range)) = &self.range {
            params.insert("range".to_owned(), span(range.start, range.end));
        }
        if let Some(Times(window)) = &self.window {
            params.insert("window_ns".to_owned(), span(window.start, window.end));
        }
        if let Some(sample) = self.sample {
            params.insert("sample".to_owned(), sample.into());
            params.insert("sample_seed".to_owned(), self.seed.into());
        }
        if self.keep_offsets {
            params.insert("keep_offsets".to_owned(), true.into());
        }
        params
    }
}
