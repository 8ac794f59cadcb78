//! `tokentape cat`.

use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use super::{Failure, Outcome};
use crate::tape::{Entry, Reader, Request, Response};

/// Which requests to print.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tape
    #[arg(value_name = "TAPE")]
    tape: PathBuf,
    /// Only requests A to B-1, counted from 0; either end may be left out
    #[arg(long, value_name = "A..B")]
    range: Option<Indices>,
    /// Also print the recorded responses, each with its type, in the order of the file
    #[arg(long)]
    responses: bool,
}

const EXAMPLES: &str = "\
Each line has index, offset_ns, method, path and body (body_base64 where it is not UTF-8), and
input_tokens, output_tokens and session where the tape has them. With --responses, each line also
begins with its type, request or response; a response has index, status, headers, head_ns, chunks,
body, end_ns and outcome (docs/tape-format.md).

Examples:
  tokentape cat load.tape.zst | head
  tokentape cat load.tape.zst --range 100..110
  tokentape cat load.tape.zst --responses | jq -c 'select(.status) | [.index, .status, .outcome]'
  tokentape cat load.tape.zst --range 42..43 | jq -r .body | jq .";

pub(super) fn exec(args: Args) -> Outcome {
    let reader = Reader::open(&args.tape)?;
    let count = reader.footer().requests;
    let Indices(range) = args.range.unwrap_or(Indices(0..u64::MAX));
    if range.start > count {
        return Err(Failure::usage(format_args!(
            "--range begins at request {}, but {} has {count}, counted from 0",
            range.start,
            args.tape.display()
        )));
    }
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    // What precedes an unreadable record has been printed by then: dropping the writer flushes it.
    if args.responses {
        for entry in reader.entries_in(range) {
            print_line(&mut out, &Tagged::of(&entry?))?;
        }
    } else {
        for request in reader.requests_in(range) {
            print_line(&mut out, &request?)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn print_line(out: &mut impl Write, record: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}

/// A record as the tape has it, with its type.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Tagged<'a> {
    Request(&'a Request),
    Response(&'a Response),
}

impl<'a> Tagged<'a> {
    fn of(entry: &'a Entry) -> Self {
        match entry {
            Entry::Request(request) => Self::Request(request),
            Entry::Response(response) => Self::Response(response),
        }
    }
}

/// `A..B`, `A..`, `..B` or `..`.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Indices(Range<u64>);

impl FromStr for Indices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (start, end) = text.split_once("..").ok_or("expected A..B, such as 100..110")?;
        let number = |text: &str, default| match text {
            "" => Ok(default),
            digits => digits.parse().map_err(|error| format!("{digits:?} is not a request's index: {error}")),
        };
        let range = number(start, 0)?..number(end, u64::MAX)?;
        if range.start > range.end {
            return Err(format!("it ends before it begins; did you mean {}..{}?", range.end, range.start));
        }
        Ok(Self(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_as_they_are_written() {
        let read = |text: &str| text.parse().map(|Indices(range)| range);
        assert_eq!(read("3..5"), Ok(3..5));
        assert_eq!(read("3.."), Ok(3..u64::MAX));
        assert_eq!(read("..5"), Ok(0..5));
        assert_eq!(read(".."), Ok(0..u64::MAX));
        for bad in ["", "3", "3..x", "-1..2", "5..3", "3..=5"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
