//! `tokentape record`.

use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;
use tokentape_tokenizer::Tokenizer;

use super::interrupt;
use super::output::print;
use super::{Failure, Outcome};
use crate::record::{self, Options, Redaction, Summary};
use crate::replay::Target;

/// What to record, and where.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Where clients connect; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The server that requests go to
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// The tape; it must not exist
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Record requests of every method, rather than POST alone; all are passed on
    #[arg(long)]
    all: bool,
    /// Record requests and no responses
    #[arg(long)]
    no_responses: bool,
    /// Count the tokens of prompts with this tokenizer: a folder, a file, a hub name or `embedded`
    #[arg(long, value_name = "DIR|FILE|NAME")]
    tokenizer: Option<String>,
    /// What happens to the texts of requests and responses
    #[arg(long, value_name = "POLICY", value_enum, default_value_t)]
    redact: Policy,
    /// Leave out this value of request bodies, whatever the policy: a JSON pointer such as /metadata/customer
    #[arg(long = "redact-path", value_name = "POINTER", value_parser = parse_pointer)]
    redact_paths: Vec<String>,
    /// With --redact seeded: replace so many tokens together; prompts keep their common beginnings to the block
    #[arg(long, value_name = "TOKENS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    redact_block: u16,
    /// With --redact seeded: make the same text the same in every recording with this seed. Keep it secret
    #[arg(long, value_name = "SEED")]
    redact_seed: Option<u64>,
    /// The header that names a request's session
    #[arg(long, value_name = "NAME")]
    session_header: Option<http::HeaderName>,
    /// Where a request's body names its session: a JSON pointer such as /user
    #[arg(long, value_name = "POINTER", value_parser = parse_pointer)]
    session_path: Option<String>,
    /// Begin a new file (FILE.1.tape.zst, …) when one has this size: 512MiB, 1GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    rotate_size: Option<u64>,
    /// Begin a new file when one is this old: 1h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    rotate_time: Option<Duration>,
    /// How long answers under way may take to end after Ctrl-C
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// Threads that pass requests on [default: one a core, 8 at most]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
The first line on stdout is `listening on http://ADDRESS:PORT`. Every request passes through as it
came, and its answer as the server gives it, piece by piece; Ctrl-C ends the tape.

Keys never reach it: headers of requests are not recorded, and the values of Authorization, cookies
and the like are starred out wherever else they turn up. --redact drop empties all texts, --redact
seeded puts others of as many tokens in their place. A body that is not JSON is then left out.

A request is handed to the system before the first byte of its answer goes to the client, and the
answer before its end does: a recorder that was killed leaves a tape that can be salvaged.

Examples:
  tokentape record --listen 127.0.0.1:9000 --upstream http://127.0.0.1:8000 -o day.tape.zst
  tokentape record --upstream https://gateway.example/v1 -o day.tape.zst --rotate-time 1h
  tokentape record --upstream http://127.0.0.1:8000 -o shared.tape.zst --redact seeded \\
      --tokenizer models/qwen3 --session-header x-session-id

Exit codes:
  0  Ctrl-C or SIGTERM ended it, and all that passed is on the tape
  1  the tape could not be written, or something that passed is not on it
  2  usage
  3  the tokenizer cannot be read";

/// What happens to texts.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Policy {
    /// They become empty
    Drop,
    /// They stay
    #[default]
    Keep,
    /// They become others of as many tokens, with the same common beginnings; needs --tokenizer
    Seeded,
}

pub(super) fn exec(args: Args) -> Outcome {
    let json = args.json;
    let listen = args.listen;
    let options = args.options()?;
    let interrupted = interrupt::watch()?;
    let listener = TcpListener::bind(listen).map_err(|error| {
        Failure::run(format_args!("cannot listen on {listen}: {error} (port 0 takes a free one)"))
    })?;
    let address = listener.local_addr()?;
    // Before the first line: who reads that may count on the file.
    let recorder = record::Recorder::new(options)?;
    print(&format!("listening on http://{address}\n"))?;
    let shutdown = {
        let mut interrupted = interrupted;
        // Its sender never goes.
        async move { drop(interrupted.wait_for(|interrupted| *interrupted).await) }
    };
    let is_terminal = io::stderr().is_terminal();
    let summary = recorder.run(listener, shutdown, |summary| {
        if is_terminal {
            // A progress line that cannot be written is not worth ending a recording for.
            drop(write!(io::stderr(), "\r\x1b[K{}", so_far(summary)));
        }
    })?;
    if is_terminal {
        drop(write!(io::stderr(), "\r\x1b[K"));
    }
    print(&if json { as_json(&summary) } else { as_text(&summary) })?;
    let missing = summary.too_large + summary.emptied;
    if missing > 0 {
        return Err(Failure::run(format_args!(
            "{missing} requests or responses are not on the tape as they passed: {} too large, {} bodies that could \
             not be read as JSON and so not be redacted",
            summary.too_large, summary.emptied
        )));
    }
    Ok(())
}

impl Args {
    fn options(self) -> Result<Options, Failure> {
        let tokenizer = self.tokenizer.as_deref().map(Tokenizer::load).transpose().map_err(Failure::input)?;
        let upstream = Target::new(&self.upstream).map_err(|error| {
            // The error's own words speak of a replay.
            Failure::usage(error.to_string().replace("cannot replay to", "cannot record"))
        })?;
        let redaction = match self.redact {
            Policy::Drop => Redaction::Drop,
            Policy::Keep => Redaction::Keep,
            Policy::Seeded if tokenizer.is_none() => {
                return Err(Failure::usage(record::Error::NoTokenizer));
            }
            Policy::Seeded => {
                Redaction::Seeded { seed: self.redact_seed, block: usize::from(self.redact_block) }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Options {
            upstream,
            output: self.output,
            tokenizer: tokenizer.map(Arc::new),
            redaction,
            redact_paths: self.redact_paths,
            rotate_bytes: self.rotate_size,
            rotate_after: self.rotate_time,
            session_header: self.session_header.map(|name| name.to_string()),
            session_path: self.session_path,
            responses: !self.no_responses,
            all: self.all,
            grace: self.grace,
            workers: self.workers.map_or(cores.min(8), usize::from),
        })
    }
}

impl From<record::Error> for Failure {
    fn from(error: record::Error) -> Self {
        match error {
            record::Error::NoTokenizer => Self::usage(error),
            record::Error::NoWords { .. } => Self::input(error),
            _ => Self::run(error),
        }
    }
}

fn so_far(summary: &Summary) -> String {
    let ended = summary.complete + summary.client_gone + summary.server_gone;
    format!("{} requests, {ended} answered", summary.requests)
}

fn as_text(summary: &Summary) -> String {
    let mut text = format!("requests         {}\n", summary.requests);
    for (name, count) in [
        ("complete", summary.complete),
        ("client gone", summary.client_gone),
        ("server gone", summary.server_gone),
        ("stopped", summary.stopped),
        ("not sent whole", summary.unfinished),
        ("too large", summary.too_large),
        ("emptied", summary.emptied),
        ("keys starred", summary.masked),
        ("inexact", summary.inexact),
    ] {
        if count > 0 {
            text.push_str(&format!("  {name:14} {count}\n"));
        }
    }
    for part in &summary.parts {
        text.push_str(&format!(
            "tape             {} ({} requests, {} bytes)\nworkload digest  {}\n",
            part.path.display(),
            part.requests,
            part.bytes,
            part.workload_digest
        ));
    }
    text
}

fn as_json(summary: &Summary) -> String {
    let parts: Vec<_> = summary
        .parts
        .iter()
        .map(|part| {
            json!({
                "tape": part.path.display().to_string(),
                "requests": part.requests,
                "responses": part.responses,
                "bytes": part.bytes,
                "workload_digest": part.workload_digest,
            })
        })
        .collect();
    let json = json!({
        "requests": summary.requests,
        "responses": {
            "complete": summary.complete,
            "client_gone": summary.client_gone,
            "server_gone": summary.server_gone,
            "stopped": summary.stopped,
        },
        "unfinished_requests": summary.unfinished,
        "too_large": summary.too_large,
        "emptied": summary.emptied,
        "masked": summary.masked,
        "inexact": summary.inexact,
        "tapes": parts,
    });
    format!("{json:#}\n")
}

/// A JSON pointer (RFC 6901) to something within a document.
fn parse_pointer(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err(format!("did you mean /{text}?")) }
}

/// A number of bytes: `1000`, `512MiB`, `1GB`.
fn parse_size(text: &str) -> Result<u64, String> {
    const FORM: &str = "expected a size such as 512MiB or 1GiB";
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| FORM)?;
    let unit = match unit.trim() {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(FORM.to_owned()),
    };
    number.checked_mul(unit).filter(|&bytes| bytes > 0).ok_or_else(|| FORM.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_they_are_written() {
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("20 MB"), Ok(20_000_000));
        assert_eq!(parse_size("7"), Ok(7));
        for bad in ["", "0", "GiB", "1.5GiB", "1TiB", "99999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
