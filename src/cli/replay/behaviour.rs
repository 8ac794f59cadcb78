//! What the client does besides sending each request once: the flags.

use std::time::Duration;

use crate::replay::cancel::{After, Cancel};
use crate::replay::retry::{self, Retry};
use crate::replay::{Behaviour, History};
use crate::run::verdict::parse_share;
use crate::timeline::Ns;

/// What the client does besides.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Behaviour")]
pub(in crate::cli) struct BehaviourArgs {
    /// Break each request off on purpose, after a time such as 500ms or so many tokens, such as 20tok
    #[arg(long, value_name = "TIME|Ntok")]
    cancel_after: Option<After>,
    /// Break off only this share of the requests, the same ones in every run
    #[arg(long, value_name = "SHARE", default_value = "100%", requires = "cancel_after", value_parser = share)]
    cancel_share: f64,
    /// Send a request that failed again, so often at most; each attempt is on record
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    retries: Option<u32>,
    /// After which failures
    #[arg(
        long,
        value_enum,
        value_name = "KIND[,KIND...]",
        value_delimiter = ',',
        requires = "retries",
        default_value = "connect,status,timeout"
    )]
    retry_on: Vec<RetryOn>,
    /// The wait before a retry, doubled with each; longer where the server's Retry-After says so
    #[arg(
        long,
        value_name = "TIME",
        default_value = "500ms",
        requires = "retries",
        value_parser = humantime::parse_duration
    )]
    retry_backoff: Duration,
    /// Whose answers a conversation's later turns repeat
    #[arg(long, value_enum, default_value_t = HistoryChoice::Recorded)]
    history: HistoryChoice,
    /// From the end of a conversation's turn to the next, in place of what the tape or the schedule says
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    think_time: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum RetryOn {
    /// No connection could be opened
    Connect,
    /// Status 408, 409, 429 or 5xx
    Status,
    /// The time limit passed
    Timeout,
    /// The connection broke before the response was complete
    Truncated,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum HistoryChoice {
    /// The server's own of this run
    Answers,
    /// The tape's
    Recorded,
}

impl BehaviourArgs {
    /// What was asked for.
    pub(in crate::cli) fn behaviour(&self) -> Behaviour {
        Behaviour {
            cancel: self.cancel_after.map(|after| Cancel { after, share: self.cancel_share }),
            retry: self.retries.map(|limit| Retry {
                limit,
                on: self.retry_on.iter().map(|on| on.failure()).collect(),
                backoff_ms: u64::try_from(self.retry_backoff.as_millis()).unwrap_or(u64::MAX),
            }),
            history: match self.history {
                HistoryChoice::Answers => History::Answers,
                HistoryChoice::Recorded => History::Recorded,
            },
            think_ns: self.think_time.map(|time| Ns::try_from(time.as_nanos()).unwrap_or(Ns::MAX)),
        }
    }
}

impl RetryOn {
    const fn failure(self) -> retry::Failure {
        match self {
            Self::Connect => retry::Failure::Connect,
            Self::Status => retry::Failure::Status,
            Self::Timeout => retry::Failure::Timeout,
            Self::Truncated => retry::Failure::Truncated,
        }
    }
}

fn share(text: &str) -> Result<f64, &'static str> {
    parse_share(text).filter(|share| *share <= 1.0).ok_or("give it as a share up to 100%, such as 10% or 0.1")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        behaviour: BehaviourArgs,
    }

    fn behaviour(line: &str) -> Option<Behaviour> {
        let words = std::iter::once("replay").chain(line.split_whitespace());
        Line::try_parse_from(words).ok().map(|line| line.behaviour.behaviour())
    }

    #[test]
    fn nothing_happens_unasked() {
        assert!(behaviour("").unwrap().is_plain());
    }

    #[test]
    fn each_flag_says_one_thing() {
        let cancel = |after, share| Some(Cancel { after, share });
        let asked = |line| behaviour(line).unwrap();
        assert_eq!(asked("--cancel-after 20tok").cancel, cancel(After::Tokens(20), 1.0));
        assert_eq!(
            asked("--cancel-after 1s --cancel-share 10%").cancel,
            cancel(After::TimeNs(1_000_000_000), 0.1)
        );
        let all = [retry::Failure::Connect, retry::Failure::Status, retry::Failure::Timeout];
        assert_eq!(asked("--retries 3").retry, Some(Retry { limit: 3, on: all.to_vec(), backoff_ms: 500 }));
        assert_eq!(
            asked("--retries 1 --retry-on truncated,connect --retry-backoff 2s").retry,
            Some(Retry {
                limit: 1,
                on: vec![retry::Failure::Truncated, retry::Failure::Connect],
                backoff_ms: 2000
            })
        );
        assert_eq!(asked("--history answers").history, History::Answers);
        assert_eq!(asked("--think-time 0s").think_ns, Some(0));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--cancel-after 20",
            "--cancel-after 0tok",
            "--cancel-share 10%",
            "--cancel-after 1s --cancel-share 110%",
            "--retry-on status",
            "--retry-backoff 1s",
            "--retries 0",
            "--retries 1 --retry-on no_tokens",
            "--history mine",
        ] {
            assert_eq!(behaviour(line), None, "{line}");
        }
    }
}
