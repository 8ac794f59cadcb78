//! The command line, and the server that it starts.

use std::io::{self, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command, FromArgMatches};
use tokentape_tokenizer::Tokenizer;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Oracle};
use crate::duration::parse_ns;
use crate::engine::Profile;
use crate::faults::{Faults, Rule};
use crate::profile::Wire;
use crate::recordings::Recordings;
use crate::server::{Error, Service};
use crate::settings::Settings;
use crate::timing::{Law, Timing};
use crate::tls::Tls;

/// How many of the last answers an oracle knows of.
const KEPT_RECORDS: usize = 10_000;

/// The flags of `tokentape-mock` and of `tokentape mock`, and what `--config` adds to them.
#[derive(Clone, Debug)]
pub struct Args {
    flags: Flags,
    settings: Settings,
}

/// The flags.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Flags {
    /// Take settings from this TOML file, by the names of the flags (ttft = "20ms"); a flag takes the place of the
    /// file's.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// The port to listen on; 0 takes a free one. The first line of stdout says which.
    #[arg(long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// The model's name.
    #[arg(long, default_value = "tokentape")]
    pub(crate) model: String,
    /// The tokenizer that counts prompts and whose words make the answers: a folder, a `tokenizer.json`, or a name.
    #[arg(long, value_name = "DIR|FILE|NAME", default_value = "embedded")]
    pub(crate) tokenizer: String,
    /// From a request's arrival to its first token: a span (20ms, 1.5ms, 250us, 0) or a law, such as
    /// uniform:10ms..30ms, normal:20ms,cv=0.1, lognormal:20ms,cv=0.3, gamma:20ms,sd=5ms or empirical:FILE.csv; with
    /// ,token=50us for each token of the prompt and ,load=0.01 for each other answer.
    #[arg(long, value_name = "LAW", default_value = "20ms", value_parser = Law::parse_ttft)]
    pub(crate) ttft: Law,
    /// From one token to the next, likewise; with ,rho=0.8 correlated from token to token.
    #[arg(long, value_name = "LAW", default_value = "5ms", value_parser = Law::parse_itl)]
    pub(crate) itl: Law,
    /// How far each interval strays from its length, uniformly to both sides, in percent of it.
    #[arg(long = "jitter", value_name = "PERCENT", default_value = "0%", value_parser = parse_millipercent)]
    pub(crate) jitter_millipercent: u32,
    /// Let an engine keep the time instead: a profile's name (a100-llama-3.1-8b, fixed, h100-llama-3.1-8b,
    /// h100x4-llama-3.1-70b) or file. It batches, queues and caches as vLLM's scheduler does.
    #[arg(long, value_name = "NAME|FILE", value_parser = Profile::named,
          conflicts_with_all = ["ttft", "itl", "jitter_millipercent"])]
    pub(crate) engine: Option<Profile>,
    /// What to do to answers on purpose: KIND[:ARG[:ARG]][@10%|@1/20], such as rst:5@1/20; several with commas between
    /// them (docs/mock-faults.md lists them). A request's header `x-mock-fault` takes its place.
    #[arg(long = "fault", value_name = "FAULT", value_delimiter = ',')]
    pub(crate) faults: Vec<Rule>,
    /// The seed of texts, jitter and ids.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// The most tokens that a prompt and its answer may have together.
    #[arg(long, value_name = "TOKENS", default_value_t = Config::MAX_MODEL_LEN,
          value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) max_model_len: u32,
    /// The length of a chat answer whose request names none.
    #[arg(long, value_name = "TOKENS", default_value_t = Config::CHAT_MAX_TOKENS,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) chat_max_tokens: u32,
    /// Threads that answer [default: half of the cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// Require `Authorization: Bearer KEY` below /v1.
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// Speak TLS, with this certificate and the chain behind it (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// How the server speaks.
    #[command(flatten)]
    pub(crate) wire: Wire,
    /// Turn in a loop for this long before each deadline, so that tokens are not late for want of a timer. It takes the
    /// core that each worker runs on.
    #[arg(long = "spin", value_name = "SPAN", default_value = "0", value_parser = parse_ns)]
    pub(crate) spin_ns: u64,
    /// How the threads that answer run. Real-time priority takes the right to it (`CAP_SYS_NICE`, or `ulimit -r`); without
    /// it they run as others do.
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Priority::Normal)]
    pub(crate) priority: Priority,
    /// Say at the end where the 99th percentile of the tokens' lateness was above this.
    #[arg(long = "max-lateness", value_name = "SPAN", default_value = "1ms", value_parser = parse_ns)]
    pub(crate) max_lateness_ns: u64,
    /// Record what really happened, as JSON lines: each arrival, each due time, each write's return.
    #[arg(long, value_name = "FILE")]
    pub(crate) truth_log: Option<PathBuf>,
}

/// Whether threads have to wait behind others for a processor.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Priority {
    /// Before all ordinary threads, where the system grants it
    RealTime,
    /// In turn with the others
    Normal,
}

/// Serves until SIGINT or SIGTERM. The first line on stdout is `listening on http://ADDRESS:PORT`, or `https:`.
pub fn run(args: Args) -> Result<(), Error> {
    run_with(args, None, None)
}

/// As [`run`], with an oracle for `/admin/oracle`, and with responses that were recorded.
pub fn run_with(
    args: Args,
    oracle: Option<Arc<dyn Oracle>>,
    recordings: Option<Arc<dyn Recordings>>,
) -> Result<(), Error> {
    let Args { flags, settings } = args;
    let address = (flags.host.as_str(), flags.port);
    let listener = TcpListener::bind(address)
        .map_err(|source| Error::Bind { address: format!("{}:{}", flags.host, flags.port), source })?;
    let tokenizer = Tokenizer::load(&flags.tokenizer)?;
    let pair = flags.tls_cert.as_deref().zip(flags.tls_key.as_deref());
    let tls = pair.map(|(certificate, key)| Tls::load(certificate, key)).transpose()?;
    let bound = listener.local_addr().map_err(Error::Runtime)?;
    let max_lateness_ns = flags.max_lateness_ns;
    let keep_records = if oracle.is_some() { KEPT_RECORDS } else { 0 };
    let base = Config::new("", Arc::new(tokenizer), Timing::fixed(0, 0));
    let config = Config { tls, recordings, keep_records, oracle, ..flags.apply(base) };
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on {}://{bound}", config.scheme())
        .and_then(|()| stdout.flush())
        .map_err(Error::Stdout)?;
    let lateness = Service::new(config, Some(settings))?.run(listener, interrupted())?;
    if let Some(complaint) = lateness.complaint(max_lateness_ns) {
        // When stderr is gone there is nobody left to tell.
        drop(writeln!(io::stderr(), "note: {complaint}"));
    }
    Ok(())
}

impl clap::Args for Args {
    fn augment_args(command: Command) -> Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args_for_update(command)
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (flags, settings) = (Flags::from_arg_matches(matches)?, Settings::of_matches(matches));
        let Some(path) = &flags.config else { return Ok(Self { flags, settings }) };
        let fault = |message: &str| {
            clap::Error::raw(ErrorKind::ValueValidation, format!("--config {}: {message}\n", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| fault(&error.to_string()))?;
        let settings = Settings::of_toml(&text).map_err(|error| fault(&error))?.overlaid(settings);
        let flags = settings.parse().map_err(|error| fault(&error))?;
        Ok(Self { flags, settings })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Flags {
    /// `base`, set as the flags say.
    pub(crate) fn apply(self, base: Config) -> Config {
        let timing = Timing { ttft: self.ttft, itl: self.itl, jitter_millipercent: self.jitter_millipercent };
        Config {
            model: self.model,
            timing,
            engine: self.engine,
            faults: Faults::new(self.faults),
            seed: self.seed,
            max_model_len: self.max_model_len,
            chat_max_tokens: self.chat_max_tokens,
            workers: self.workers.map_or_else(Config::default_workers, usize::from),
            api_key: self.api_key,
            wire: self.wire,
            truth_log: self.truth_log,
            spin_ns: self.spin_ns,
            real_time: self.priority == Priority::RealTime,
            ..base
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
