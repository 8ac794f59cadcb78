//! `tokentape merge`: several tapes as one.

use std::path::PathBuf;

use serde_json::Map;

use super::Outcome;
use super::edit::{CREATED_BY, Output, Scope, digest};
use crate::tape::edit::merge::{Merge, Options};
use crate::tape::{Entry, Reader, edit};

/// Which tapes, and where the new one goes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tapes, two or more
    #[arg(value_name = "TAPE", num_args = 2.., required = true)]
    tapes: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
    /// One after the other, each from the last arrival before it on; else by their arrival times
    #[arg(long)]
    append: bool,
    /// Sessions of one name in several tapes are one session; else the second tape's become NAME#2
    #[arg(long)]
    same_sessions: bool,
}

const EXAMPLES: &str = "\
Each tape's own order is kept; of requests that arrive at one time, the earlier tape's come first.
Recorded responses go with their requests.

Examples:
  tokentape merge chat.tape.zst batch.tape.zst -o both.tape.zst
  tokentape merge --append monday.tape.zst tuesday.tape.zst -o days.tape.zst
  tokentape merge --same-sessions part-1.tape.zst part-2.tape.zst -o whole.tape.zst";

pub(super) fn exec(args: Args) -> Outcome {
    args.output.keep_apart(&args.tapes)?;
    let readers = args.tapes.iter().map(Reader::open).collect::<Result<Vec<_>, _>>()?;
    let scope = Scope {
        requests: readers.iter().map(|reader| reader.footer().requests).sum(),
        answered: readers.iter().any(|reader| reader.footer().responses > 0),
    };
    let parents: Vec<&str> = readers.iter().map(digest).collect();
    let mut params = Map::new();
    for (name, set) in [("append", args.append), ("same_sessions", args.same_sessions)] {
        if set {
            params.insert(name.to_owned(), true.into());
        }
    }
    let mut notes = Vec::new();
    let tokenizer = edit::common_tokenizer(readers.iter().map(Reader::header)).unwrap_or_else(|several| {
        let [a, b] = &several.names;
        notes.push(format!(
            "input tokens were counted by different tokenizers ({a} and {b}): the new tape states none"
        ));
        None
    });
    let counts_differ = !notes.is_empty();
    let header = edit::header(CREATED_BY, "merge", &parents, params, tokenizer);
    args.output.write(&header, scope, |tape| {
        let options = Options { append: args.append, same_sessions: args.same_sessions };
        for next in Merge::new(readers.iter().map(Reader::entries), options) {
            let (number, mut entry) = next?;
            if let Entry::Request(request) = &mut entry {
                tape.step();
                if counts_differ {
                    request.input_tokens = None;
                }
            }
            tape.write(number, entry)?;
        }
        Ok(notes)
    })
}
