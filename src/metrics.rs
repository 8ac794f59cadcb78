//! Timelines to figures. Pure: one file a dialect, and the arithmetic they share.
//!
//! A *dialect* is a named, versioned set of definitions: what is a token, what ends a request, which percentile
//! method. Every dialect reads the same raw timelines, so the differences between two of them are differences of
//! definition and of nothing else. `docs/metrics.md` puts them side by side.

pub mod client;
pub mod definitions;
pub mod evalscope;
mod messages;
pub mod native;
pub mod slo;
pub mod stats;
pub mod steady;
pub mod vllm;

use std::fmt::{self, Display};
use std::str::FromStr;

use thiserror::Error;

use crate::timeline::{Facts, Ns, Outcome, Timeline};

/// What a dialect computes its figures from: the raw timelines of one run.
#[derive(Clone, Copy, Debug)]
pub struct Measurement<'a> {
    /// One timeline a request, in tape order.
    pub timelines: &'a [Timeline],
    /// The measured window in nanoseconds: from just before the first request to just after the last one ended.
    pub duration_ns: Ns,
    /// The concurrency limit; none in an open loop.
    pub concurrency: Option<u32>,
    /// The requests a second asked for; none when they were sent as fast as the limit let them.
    pub request_rate: Option<f64>,
}

impl Measurement<'_> {
    /// The measured window in seconds.
    #[must_use]
    pub fn duration_s(&self) -> f64 {
        seconds(self.duration_ns)
    }
}

/// A named set of definitions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Dialect {
    /// tokentape's own definitions: see [`native`].
    #[default]
    Native,
    /// `vllm bench serve`, as of one of its versions.
    Vllm(vllm::Version),
    /// `evalscope perf`, as of one of its versions.
    Evalscope(evalscope::Version),
}

impl Dialect {
    /// Every dialect, the default first.
    pub const ALL: [Dialect; 6] = [
        Dialect::Native,
        Dialect::Vllm(vllm::Version::V0_11_0),
        Dialect::Vllm(vllm::Version::V0_32_0),
        Dialect::Vllm(vllm::Version::V0_33_0),
        Dialect::Evalscope(evalscope::Version::V1_1_1),
        Dialect::Evalscope(evalscope::Version::V1_14_1),
    ];

    /// The name it is asked for by: `vllm-0.11.0`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Native => "native",
            Dialect::Vllm(vllm::Version::V0_11_0) => "vllm-0.11.0",
            Dialect::Vllm(vllm::Version::V0_32_0) => "vllm-0.32.0",
            Dialect::Vllm(vllm::Version::V0_33_0) => "vllm-0.33.0",
            Dialect::Evalscope(evalscope::Version::V1_1_1) => "evalscope-1.1.1",
            Dialect::Evalscope(evalscope::Version::V1_14_1) => "evalscope-1.14.1",
        }
    }
}

impl Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no dialect's.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("unknown dialect {name:?}; known are {}", Dialect::ALL.map(Dialect::name).join(", "))]
pub struct UnknownDialect {
    /// The name that was asked for.
    pub name: String,
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Dialect::ALL.into_iter().find(|dialect| dialect.name() == name);
        known.ok_or_else(|| UnknownDialect { name: name.to_owned() })
    }
}

/// Counts a text's tokens: what the peers' tokenizer does where the server sent no usage.
pub type CountTokens<'a> = &'a dyn Fn(&str) -> u32;

/// A request's output tokens where a peer saw no usage: a count of the text. Where the timeline has none, the
/// server's count after all, and last the number of output events.
fn count_output(timeline: &Timeline, count: Option<CountTokens<'_>>) -> u32 {
    let events = || timeline.events.facts.iter().filter(|facts| facts.is_output()).count();
    match (count.zip(timeline.text.as_deref()), timeline.usage) {
        (Some((count, text)), _) => count(text),
        (None, Some(usage)) => usage.completion_tokens,
        (None, None) => u32::try_from(events()).unwrap_or(u32::MAX),
    }
}

/// Nanoseconds as seconds, the way `CPython`'s `time.perf_counter()` makes them: one division in double precision.
fn seconds(ns: Ns) -> f64 {
    ns as f64 / 1e9
}

/// Whether a whole 200 response arrived, whatever was in it. What breaks a body off raises in the peers.
fn is_complete(timeline: &Timeline) -> bool {
    let whole = matches!(timeline.outcome, Outcome::Success | Outcome::InBand { .. } | Outcome::NoTokens);
    whole && timeline.status.is_none_or(|status| status == 200)
}

/// Whether the responses were text completions rather than chat. The peers are told by a flag; a timeline shows it.
pub(crate) fn is_completion(timeline: &Timeline) -> bool {
    timeline.events.facts.iter().any(|facts| facts.has(Facts::COMPLETION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_dialects_go_both_ways() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        assert_eq!(
            "vllm".parse::<Dialect>().unwrap_err().to_string(),
            r#"unknown dialect "vllm"; known are native, vllm-0.11.0, vllm-0.32.0, vllm-0.33.0, evalscope-1.1.1, evalscope-1.14.1"#
        );
    }
}
