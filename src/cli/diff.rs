//! `tokentape diff`: what is different in two tapes.

use std::path::PathBuf;

use super::output::print;
use super::verify::Meter;
use super::{Failure, Outcome};
use crate::tape::edit::diff::{Diff, Differences};
use crate::tape::{Progress, Reader};

/// Which tapes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The first tape
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The second tape
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Requests are held against each other index by index; and their bodies as two heaps, wherever they
stand. Headers and recorded responses are not compared.

Examples:
  tokentape diff a.tape.zst b.tape.zst
  tokentape diff a.tape.zst b.tape.zst --json | jq .first

Exit codes:
  0  the requests are the same
  1  they differ
  3  a tape cannot be read";

pub(super) fn exec(args: Args) -> Outcome {
    let (a, b) = (Reader::open(&args.a)?, Reader::open(&args.b)?);
    let total = a.footer().requests.max(b.footer().requests);
    let (mut requests_a, mut requests_b) = (a.requests(), b.requests());
    let mut meter = Meter::new("comparing");
    let mut diff = Diff::default();
    for done in 1.. {
        let (a, b) = (requests_a.next().transpose()?, requests_b.next().transpose()?);
        if a.is_none() && b.is_none() {
            break;
        }
        diff.add(a.as_ref(), b.as_ref());
        meter.show(Progress { done, total });
    }
    meter.clear();
    let found = diff.finish();
    if args.json {
        let json = serde_json::to_string_pretty(&found).map_err(Failure::run)?;
        print(&format!("{json}\n"))?;
    } else {
        print(&as_text(&found))?;
    }
    match &found.first {
        None => Ok(()),
        Some(first) => Err(Failure::run(format_args!(
            "{} and {} differ from request {} on",
            args.a.display(),
            args.b.display(),
            first.index
        ))),
    }
}

fn as_text(found: &Differences) -> String {
    let row = |name: &str, counts: [u64; 4]| {
        let counts = counts.map(|count| format!("{count:>12}")).concat();
        format!("{name:<10}{counts}\n")
    };
    let mut text =
        format!("{:<10}{:>12}{:>12}{:>12}{:>12}\n", "", "same", "changed", "only in A", "only in B");
    text += &row("requests", [found.same, found.changed, found.only_in_a, found.only_in_b]);
    let bodies = found.bodies;
    text += &format!(
        "{:<10}{:>12}{:>12}{:>12}{:>12}\n",
        "bodies", bodies.same, "-", bodies.only_in_a, bodies.only_in_b
    );
    if let Some(first) = &found.first {
        let at = first.body_byte.map(|at| format!(" (the body from its byte {at} on)")).unwrap_or_default();
        text +=
            &format!("\nfirst difference: request {}: {}{at}\n", first.index, first.differs_in.join(", "));
    }
    if found.changed > 0 {
        let fields = &found.fields;
        let counts = [
            ("offset_ns", fields.offset_ns),
            ("method", fields.method),
            ("path", fields.path),
            ("body", fields.body),
            ("input_tokens", fields.input_tokens),
            ("output_tokens", fields.output_tokens),
            ("session", fields.session),
        ];
        let counts: Vec<_> =
            counts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}")).collect();
        text += &format!("changed in: {}\n", counts.join(", "));
    }
    text
}
