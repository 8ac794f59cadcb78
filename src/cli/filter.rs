//! `tokentape filter`: the requests of a tape that are as asked for.

use std::path::PathBuf;

use serde_json::{Map, json};

use super::edit::{CREATED_BY, Output, Scope, digest};
use super::span::Numbers;
use super::{Failure, Outcome};
use crate::tape::edit::select::Criteria;
use crate::tape::{Entry, Reader, edit};

/// What the requests must be like, and where they go.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tape
    #[arg(value_name = "TAPE")]
    tape: PathBuf,
    #[command(flatten)]
    output: Output,
    /// With A to B-1 input tokens, by the tape's own count; either end may be left out
    #[arg(long, value_name = "A..B")]
    input_tokens: Option<Numbers>,
    /// That ask for A to B-1 output tokens
    #[arg(long, value_name = "A..B")]
    output_tokens: Option<Numbers>,
    /// To this path, whatever its query; may be given several times
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,
    /// Of this session; may be given several times
    #[arg(long, value_name = "ID")]
    session: Vec<String>,
}

const EXAMPLES: &str = "\
A request must be all that is asked for. One that states no count of tokens has none. Requests keep
their arrival times; recorded responses go with their requests.

Examples:
  tokentape filter day.tape.zst --input-tokens 4096.. -o long.tape.zst
  tokentape filter day.tape.zst --path /v1/chat/completions --output-tokens ..256 -o chat.tape.zst
  tokentape filter day.tape.zst --session user-1 --session user-2 -o two.tape.zst";

pub(super) fn exec(args: Args) -> Outcome {
    let criteria = args.criteria();
    let params = args.params();
    if params.is_empty() {
        return Err(Failure::usage(
            "what to keep is missing: give --input-tokens, --output-tokens, --path or --session",
        ));
    }
    args.output.keep_apart([&args.tape])?;
    let reader = Reader::open(&args.tape)?;
    let tokenizer = reader.header().tokenizer.clone();
    let header = edit::header(CREATED_BY, "filter", &[digest(&reader)], params, tokenizer);
    args.output.write(&header, Scope::of(&reader, 1), |tape| {
        for entry in reader.entries() {
            let entry = entry?;
            if let Entry::Request(request) = &entry {
                tape.step();
                if !criteria.matches(request) {
                    continue;
                }
            }
            tape.write(0, entry)?;
        }
        Ok(Vec::new())
    })
}

impl Args {
    fn criteria(&self) -> Criteria {
        let range = |numbers: &Option<Numbers>| numbers.as_ref().map(|Numbers(range)| range.clone());
        Criteria {
            window: None,
            input_tokens: range(&self.input_tokens),
            output_tokens: range(&self.output_tokens),
            paths: self.path.clone(),
            sessions: self.session.clone(),
        }
    }

    /// As they would have to be given again.
    fn params(&self) -> Map<String, serde_json::Value> {
        let mut params = Map::new();
        for (name, numbers) in [("input_tokens", &self.input_tokens), ("output_tokens", &self.output_tokens)]
        {
            if let Some(Numbers(range)) = numbers {
                let end = (range.end < u64::MAX).then_some(range.end);
                params.insert(name.to_owned(), json!([range.start, end]));
            }
        }
        for (name, names) in [("path", &self.path), ("session", &self.session)] {
            if !names.is_empty() {
                params.insert(name.to_owned(), json!(names));
            }
        }
        params
    }
}
