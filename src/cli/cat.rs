//! `tokentape cat`.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::span::Numbers;
use super::{Failure, Outcome};
use crate::tape::{Entry, Reader, Request, Response, Salvage};

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
    /// Also print the recorded responses, each with its type, in the order of the file
    #[arg(long)]
    responses: bool,
    /// Read a broken tape as far as it is good, and end well
    #[arg(long)]
    salvage: bool,
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
  tokentape cat load.tape.zst --range 42..43 | jq -r .body | jq .
  tokentape cat --salvage broken.tape.zst | tail -1";

pub(super) fn exec(args: Args) -> Outcome {
    let Numbers(range) = args.range.unwrap_or(Numbers(0..u64::MAX));
    // What precedes an unreadable record has been printed by then: dropping the writer flushes it.
    let mut printer =
        Printer { out: BufWriter::with_capacity(64 << 10, io::stdout().lock()), responses: args.responses };
    if args.salvage {
        let mut end = None;
        for entry in Salvage::open(&args.tape)?.entries() {
            match entry {
                Ok(entry) if range.contains(&entry.index()) => printer.print(&entry)?,
                Ok(_) => {}
                Err(error) => end = Some(error),
            }
        }
        printer.out.flush()?;
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
    if args.responses {
        for entry in reader.entries_in(range) {
            printer.print(&entry?)?;
        }
    } else {
        for request in reader.requests_in(range) {
            printer.line(&request?)?;
        }
    }
    printer.out.flush()?;
    Ok(())
}

/// Prints records as JSON lines.
struct Printer<W: Write> {
    out: W,
    /// With their responses, and each record with its type.
    responses: bool,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, entry: &Entry) -> io::Result<()> {
        match entry {
            _ if self.responses => self.line(&Tagged::of(entry)),
            Entry::Request(request) => self.line(request),
            Entry::Response(_) => Ok(()),
        }
    }

    fn line(&mut self, record: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, record)?;
        self.out.write_all(b"\n")
    }
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
