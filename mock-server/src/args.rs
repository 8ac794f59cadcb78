//! The command line, and the server that it starts.

use std::io::{self, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use tokentape_tokenizer::Tokenizer;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::duration::parse_ns;
use crate::faults::{Faults, Rule};
use crate::server::{Error, serve};
use crate::timing::Timing;

/// The flags of `tokentape-mock` and of `tokentape mock`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The port to listen on; 0 takes a free one. The first line of stdout says which.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// The model's name.
    #[arg(long, default_value = "tokentape")]
    pub model: String,
    /// The tokenizer that counts prompts and whose words make the answers: a folder, a `tokenizer.json`, or a name.
    #[arg(long, value_name = "DIR|FILE|NAME", default_value = "embedded")]
    pub tokenizer: String,
    /// From a request's arrival to its first token (20ms, 1.5ms, 250us, 0).
    #[arg(long = "ttft", value_name = "SPAN", default_value = "20ms", value_parser = parse_ns)]
    pub ttft_ns: u64,
    /// From one token to the next.
    #[arg(long = "itl", value_name = "SPAN", default_value = "5ms", value_parser = parse_ns)]
    pub itl_ns: u64,
    /// How far each interval strays from its length, uniformly to both sides, in percent of it.
    #[arg(long = "jitter", value_name = "PERCENT", default_value = "0%", value_parser = parse_millipercent)]
    pub jitter_millipercent: u32,
    /// What to do to answers on purpose: KIND[:ARG][@10%|@1/20], such as rst:5@1/20; several with commas between them
    /// (docs/mock-faults.md lists them). A request's header `x-mock-fault` takes its place.
    #[arg(long = "fault", value_name = "FAULT", value_delimiter = ',')]
    pub faults: Vec<Rule>,
    /// The seed of texts, jitter and ids.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The most tokens that a prompt and its answer may have together.
    #[arg(long, value_name = "TOKENS", default_value_t = Config::MAX_MODEL_LEN,
          value_parser = clap::value_parser!(u32).range(2..))]
    pub max_model_len: u32,
    /// The length of a chat answer whose request names none.
    #[arg(long, value_name = "TOKENS", default_value_t = Config::CHAT_MAX_TOKENS,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub chat_max_tokens: u32,
    /// Threads that answer [default: half of the cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Require `Authorization: Bearer KEY` below /v1.
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,
    /// Record what really happened, as JSON lines: each arrival, each due time, each write's return.
    #[arg(long, value_name = "FILE")]
    pub truth_log: Option<PathBuf>,
}

/// Serves until SIGINT or SIGTERM. The first line on stdout is `listening on http://ADDRESS:PORT`.
pub fn run(args: Args) -> Result<(), Error> {
    let address = (args.host.as_str(), args.port);
    let listener = TcpListener::bind(address)
        .map_err(|source| Error::Bind { address: format!("{}:{}", args.host, args.port), source })?;
    let tokenizer = Tokenizer::load(&args.tokenizer)?;
    let bound = listener.local_addr().map_err(Error::Runtime)?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{bound}").and_then(|()| stdout.flush()).map_err(Error::Stdout)?;
    serve(listener, args.into_config(tokenizer), interrupted())
}

impl Args {
    fn into_config(self, tokenizer: Tokenizer) -> Config {
        let timing = Timing {
            ttft_ns: self.ttft_ns,
            itl_ns: self.itl_ns,
            jitter_millipercent: self.jitter_millipercent,
        };
        Config {
            faults: Faults::new(self.faults),
            seed: self.seed,
            max_model_len: self.max_model_len,
            chat_max_tokens: self.chat_max_tokens,
            workers: self.workers.map_or_else(Config::default_workers, usize::from),
            api_key: self.api_key,
            truth_log: self.truth_log,
            ..Config::new(self.model, Arc::new(tokenizer), timing)
        }
    }
}

/// Ready at the first SIGINT or SIGTERM; where neither can be caught, never.
async fn interrupted() {
    let caught = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = caught else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Parses `2.5%` to 2500. The error is a whole sentence for the command line.
pub(crate) fn parse_millipercent(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is not a percentage from 0% to 100%, with at most three decimals");
    if text == "0" {
        return Ok(0);
    }
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(wrong());
    }
    let millis = format!("{whole}{fraction:0<3}").parse().map_err(|_| wrong())?;
    if millis > 100_000 { Err(wrong()) } else { Ok(millis) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        for (text, millis) in
            [("0%", 0), ("0", 0), ("10%", 10_000), ("2.5%", 2_500), ("0.001%", 1), ("100%", 100_000)]
        {
            assert_eq!(parse_millipercent(text), Ok(millis), "{text}");
        }
        for text in ["", "%", "10", "-1%", "100.001%", "101%", "1.2345%", ".5%", "5.%", "ten%"] {
            assert!(parse_millipercent(text).is_err(), "{text}");
        }
    }
}
