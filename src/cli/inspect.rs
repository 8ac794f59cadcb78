//! `tokentape inspect`.

mod draw;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use tokentape_tokenizer::Tokenizer;

use super::output::print;
use super::verify::Meter;
use super::{Failure, Outcome};
use crate::convert::prompt_ids;
use crate::tape::edit::text;
use crate::tape::{
    self, Bucket, Contents, Entry, Figures, Header, Progress, Reader, Response, Reuse, ReuseFigures, Sessions,
};
use draw::Canvas;

/// What to inspect, and how to show it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tape
    #[arg(value_name = "TAPE")]
    tape: PathBuf,
    /// Tell how much of the prompts a prefix cache could have found by this tokenizer's tokens, instead of by bytes
    #[arg(long, value_name = "DIR|FILE|NAME")]
    tokenizer: Option<String>,
    /// Tokens in a block of such a cache
    #[arg(long, value_name = "N", default_value = "16", requires = "tokenizer",
          value_parser = clap::value_parser!(u16).range(1..))]
    block_tokens: u16,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Bytes in a block, where no tokenizer counts: about 16 tokens.
const BLOCK_BYTES: usize = 64;

const EXAMPLES: &str = "\
Every request is read, and the tape verified on the way: the digest and counts shown are true.
The p50 and p90 columns, and histograms above 2048, have three significant digits; all other
figures are exact.

Prefix reuse is the share of the prompts' whole blocks that a prompt before had, with everything
that stands before the block: of blocks of 64 bytes of the body's prompt, or with --tokenizer of so
many tokens as the server sees them. Past a million different blocks it is an estimate, and says so.

Examples:
  tokentape inspect load.tape.zst
  tokentape inspect load.tape.zst --tokenizer models/qwen3 --block-tokens 16
  tokentape inspect load.tape.zst --json | jq .workload_digest";

pub(super) fn exec(args: Args) -> Outcome {
    let reader = Reader::open(&args.tape)?;
    let total = reader.footer().requests;
    let mut contents = Contents::default();
    let mut answers = Answers::default();
    let tokenizer =
        args.tokenizer.as_ref().map(|name| Tokenizer::load(name)).transpose().map_err(Failure::input)?;
    let block_tokens = usize::from(args.block_tokens);
    let mut reuse = Reuse::default();
    let mut uncounted = None;
    let mut meter = Meter::new("reading");
    reader.verify_entries(&mut |entry| match entry {
        Entry::Request(request) => {
            contents.add(request);
            match &tokenizer {
                None => reuse.add(text::prompt(&request.body).unwrap_or_default(), BLOCK_BYTES),
                Some(tokenizer) => match prompt_ids(tokenizer, &request.body) {
                    Ok(ids) => reuse.add(&ids.unwrap_or_default(), block_tokens),
                    Err(error) => uncounted = uncounted.take().or(Some((request.index, error))),
                },
            }
            meter.show(Progress { done: request.index + 1, total });
        }
        Entry::Response(response) => answers.add(response),
    })?;
    meter.clear();
    if let Some((index, error)) = uncounted {
        return Err(Failure::run(format_args!(
            "--tokenizer: the prompt of request {index} cannot be counted: {error}; leave it out to count bytes"
        )));
    }
    let prefix_reuse = reuse.figures().map(|ReuseFigures { blocks, share, one_in }| Found {
        block_tokens: tokenizer.is_some().then_some(args.block_tokens),
        block_bytes: tokenizer.is_none().then_some(BLOCK_BYTES),
        blocks,
        share,
        one_in,
    });
    let inspection = Inspection { prefix_reuse, ..Inspection::of(&args, &reader, &contents, answers) };
    if args.json {
        let json = serde_json::to_string_pretty(&inspection).map_err(Failure::run)?;
        print(&format!("{json}\n"))
    } else {
        print(&(inspection.to_string() + &inspection.pictures(Canvas::of_terminal())))
    }
}

/// The recorded responses, by how they ended and by status.
#[derive(Default)]
struct Answers {
    outcomes: BTreeMap<&'static str, u64>,
    statuses: BTreeMap<u16, u64>,
}

impl Answers {
    fn add(&mut self, response: &Response) {
        let outcome = match response.outcome {
            tape::Outcome::ClientGone => "client_gone",
            tape::Outcome::Complete => "complete",
            tape::Outcome::ServerGone => "server_gone",
            tape::Outcome::Stopped => "stopped",
        };
        *self.outcomes.entry(outcome).or_default() += 1;
        if let Some(head) = &response.head {
            *self.statuses.entry(head.status).or_default() += 1;
        }
    }
}

/// What is shown, in the order in which it is shown.
#[derive(Serialize)]
struct Inspection<'a> {
    tape: String,
    header: &'a Header,
    workload_digest: &'a str,
    requests: u64,
    responses: u64,
    outcomes: BTreeMap<&'static str, u64>,
    statuses: BTreeMap<u16, u64>,
    sessions: Sessions,
    frames: usize,
    compressed_bytes: u64,
    decompressed_bytes: u64,
    input_tokens: Option<Figures>,
    output_tokens: Option<Figures>,
    body_bytes: Option<Figures>,
    arrivals: Option<ArrivalFigures>,
    prefix_reuse: Option<Found>,
    histograms: Histograms,
    paths: &'a BTreeMap<String, u64>,
    models: &'a BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct ArrivalFigures {
    span_ns: u64,
    mean_rate_per_s: Option<f64>,
    /// Requests in each step of time, from the tape's start on.
    over_time: Vec<u64>,
    step_ns: u64,
}

#[derive(Serialize)]
struct Histograms {
    input_tokens: Vec<Bucket>,
    output_tokens: Vec<Bucket>,
}

/// How much of the prompts was there before.
#[derive(Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    block_tokens: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_bytes: Option<usize>,
    blocks: u64,
    share: f64,
    one_in: u64,
}

impl<'a> Inspection<'a> {
    fn of(args: &Args, reader: &'a Reader, contents: &'a Contents, answers: Answers) -> Self {
        let mean_rate_per_s = contents.arrivals.mean_rate();
        let (step_ns, over_time) = contents.arrivals.over_time();
        let arrivals =
            |span_ns| ArrivalFigures { span_ns, mean_rate_per_s, over_time: over_time.to_vec(), step_ns };
        Self {
            tape: args.tape.display().to_string(),
            header: reader.header(),
            workload_digest: &reader.footer().workload_digest,
            requests: reader.footer().requests,
            responses: reader.footer().responses,
            outcomes: answers.outcomes,
            statuses: answers.statuses,
            sessions: contents.sessions,
            frames: reader.frames(),
            compressed_bytes: reader.compressed_bytes(),
            decompressed_bytes: reader.decompressed_bytes(),
            input_tokens: contents.input_tokens.figures(),
            output_tokens: contents.output_tokens.figures(),
            body_bytes: contents.body_bytes.figures(),
            arrivals: contents.arrivals.span_ns().map(arrivals),
            prefix_reuse: None,
            histograms: Histograms {
                input_tokens: contents.input_tokens.buckets(),
                output_tokens: contents.output_tokens.buckets(),
            },
            paths: &contents.paths,
            models: &contents.models,
        }
    }
}

impl fmt::Display for Inspection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header;
        field(f, "tape", &self.tape)?;
        field(f, "format", header.version)?;
        field(f, "created by", &header.created_by)?;
        field(f, "source", &header.source)?;
        for (name, value) in &header.params {
            field(f, &format!("  {name}"), value)?;
        }
        if let Some(seed) = header.seed {
            field(f, "seed", seed)?;
        }
        if let Some(tokenizer) = &header.tokenizer {
            field(f, "tokenizer", format_args!("{} ({})", tokenizer.name, tokenizer.digest))?;
        }
        field(f, "digest", self.workload_digest)?;
        field(f, "requests", grouped(self.requests))?;
        if self.responses > 0 {
            let named = |(name, count): (String, &u64)| format!("{} {name}", grouped(*count));
            let outcomes = self.outcomes.iter().map(|(name, count)| named((name.replace('_', " "), count)));
            let statuses =
                self.statuses.iter().map(|(status, count)| named((format!("of status {status}"), count)));
            let parts: Vec<_> = outcomes.chain(statuses).collect();
            field(f, "responses", format_args!("{} ({})", grouped(self.responses), parts.join(", ")))?;
        }
        let Sessions { begun, requests, longest } = self.sessions;
        if requests > 0 {
            let (begun, requests) = (grouped(begun), grouped(requests));
            field(
                f,
                "sessions",
                format_args!("{begun}, with {requests} requests; the longest has {longest} turns"),
            )?;
        }
        let (compressed, decompressed) = (grouped(self.compressed_bytes), grouped(self.decompressed_bytes));
        field(
            f,
            "size",
            format_args!("{compressed} bytes; {decompressed} uncompressed, in {} frames", self.frames),
        )?;
        if let Some(arrivals) = &self.arrivals {
            let span = arrivals.span_ns as f64 / 1e9;
            match arrivals.mean_rate_per_s {
                Some(rate) => {
                    field(f, "arrivals", format_args!("over {span:.3} s, {rate:.3} requests/s on average"))?;
                }
                None => field(f, "arrivals", "all at one time")?,
            }
        } else {
            field(f, "arrivals", "none recorded")?;
        }
        if let Some(found) = &self.prefix_reuse {
            field(f, "prefix reuse", found)?;
        }
        self.names(f, "path", self.paths)?;
        self.names(f, "model", self.models)?;
        let spreads = [
            ("input tokens", self.input_tokens),
            ("output tokens", self.output_tokens),
            ("body bytes", self.body_bytes),
        ];
        if spreads.iter().any(|(_, figures)| figures.is_some()) {
            let [requests, total, min, mean, p50, p90, max] =
                ["requests", "total", "min", "mean", "p50", "p90", "max"];
            writeln!(f, "\n{:14}{requests:>12}{total:>16}{min:>9}{mean:>11}{p50:>9}{p90:>9}{max:>9}", "")?;
        }
        for (name, figures) in spreads {
            if let Some(Figures { count, total, min, mean, p50, p90, max }) = figures {
                let (count, total) = (grouped(count), grouped(total));
                writeln!(f, "{name:14}{count:>12}{total:>16}{min:>9}{mean:>11.1}{p50:>9}{p90:>9}{max:>9}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.share * 100.0;
        let about = if self.one_in > 1 { "about " } else { "" };
        let size = match (self.block_tokens, self.block_bytes) {
            (Some(tokens), _) => format!("{tokens} tokens"),
            (None, bytes) => format!("{} bytes", bytes.unwrap_or_default()),
        };
        write!(f, "{about}{share:.1} % of {} blocks of {size}", grouped(self.blocks))
    }
}

impl Inspection<'_> {
    /// The pictures, below the figures.
    fn pictures(&self, canvas: Canvas) -> String {
        let mut text = String::new();
        for (name, buckets) in [
            ("input tokens", &self.histograms.input_tokens),
            ("output tokens", &self.histograms.output_tokens),
        ] {
            // One length needs no picture.
            if buckets.len() > 1 {
                text += &format!("\n{name}\n{}", canvas.histogram(buckets));
            }
        }
        if let Some(arrivals) = &self.arrivals {
            let (line, each) = canvas.over_time(&arrivals.over_time);
            let most =
                arrivals.over_time.chunks(each).map(|counts| counts.iter().sum::<u64>()).max().unwrap_or(0);
            let column = arrivals.step_ns as f64 * each as f64 / 1e9;
            text += &format!(
                "\narrivals: a column is {column:.3} s, the highest has {}\n  {line}\n",
                grouped(most)
            );
        }
        text
    }

    /// One line for each name, or one for them all where every request has the same.
    fn names(&self, f: &mut fmt::Formatter<'_>, label: &str, names: &BTreeMap<String, u64>) -> fmt::Result {
        for (name, &count) in names {
            if count == self.requests {
                field(f, label, name)?;
            } else {
                field(f, label, format_args!("{name} ({} requests)", grouped(count)))?;
            }
        }
        Ok(())
    }
}

/// A line of the overview. Names come out of the file: a control character in one must not reach the terminal.
fn field(f: &mut fmt::Formatter<'_>, label: &str, value: impl fmt::Display) -> fmt::Result {
    let value = value.to_string().replace(char::is_control, "\u{fffd}");
    writeln!(f, "{label:18}{value}")
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let shown = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
