//! `tokentape cat`.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use super::span::Numbers;
use super::{Failure, Outcome};
use crate::tape::{Reader, Request, Salvage};

/// Which requests to print.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tape
    #[arg(value_name = "TAPE")]
    tape: PathBuf,
    /// Only requests A to B-1, counted from 0; either end may be left out
    #[arg(long, value_name = "A..B")]
    range: Option<Numbers>,
    /// Read a broken tape as far as it is good, and end well
    #[arg(long)]
    salvage: bool,
}

const EXAMPLES: &str = "\
Each line has index, offset_ns, method, path and body (body_base64 where it is not UTF-8), and
input_tokens, output_tokens and session where the tape has them.

Examples:
  tokentape cat load.tape.zst | head
  tokentape cat load.tape.zst --range 100..110
  tokentape cat load.tape.zst --range 42..43 | jq -r .body | jq .
  tokentape cat --salvage broken.tape.zst | tail -1";

pub(super) fn exec(args: Args) -> Outcome {
    let Numbers(range) = args.range.unwrap_or(Numbers(0..u64::MAX));
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    // What precedes an unreadable record has been printed by then: dropping the writer flushes it.
    let mut print = |request: &Request| -> Outcome {
        serde_json::to_writer(&mut out, request).map_err(io::Error::from)?;
        Ok(out.write_all(b"\n")?)
    };
    if args.salvage {
        let mut end = None;
        for request in Salvage::open(&args.tape)? {
            match request {
                Ok(request) if range.contains(&request.index) => print(&request)?,
                Ok(_) => {}
                Err(error) => end = Some(error),
            }
        }
        out.flush()?;
        if let Some(error) = end {
            // When stderr itself is gone there is nobody left to tell.
            drop(writeln!(io::stderr(), "note: the {error}"));
        }
        return Ok(());
    }
    let reader = Reader::open(&args.tape)?;
    let count = reader.footer().requests;
    if range.start > count {
        return Err(Failure::usage(format_args!(
            "--range begins at request {}, but {} has {count}, counted from 0",
            range.start,
            args.tape.display()
        )));
    }
    for request in reader.requests_in(range) {
        print(&request?)?;
    }
    out.flush()?;
    Ok(())
}
