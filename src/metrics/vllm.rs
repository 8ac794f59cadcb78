//! The figures of `vllm bench serve`, as one of its versions defines them.
//!
//! Two layers, as in the original: [`outputs`] is its request functions
//! (`vllm/benchmarks/lib/endpoint_request_func.py`), [`calculate`] its `calculate_metrics`
//! (`vllm/benchmarks/serve.py`). [`SpecDecode`], [`Diffusion`] and [`Probes`] are what `benchmark` of the latter file
//! adds from the server's counters and from requests of its own. All times are seconds, as the original keeps them;
//! milliseconds appear only in [`Stats`] and [`Probes`], multiplied last.
//!
//! [`Version`] says in which answers the versions differ; everything else is common to them.

mod counters;
mod figures;
mod request;

pub use self::counters::{Diffusion, DiffusionCounters, Probes, SpecDecode, SpecDecodeCounters};
pub use self::figures::{Goodput, Metrics, Settings, Stats, calculate};
pub use self::request::{Arrivals, Output, outputs};

use serde::{Deserialize, Serialize};

use super::messages;
use super::stats::Numpy;
use crate::timeline::{Facts, Ns, Timeline};

/// A version of `vllm bench serve`. What is new in a version stays in the later ones.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Version {
    /// 0.11.0 (2025-10).
    #[serde(rename = "0.11.0")]
    V0_11_0,
    /// 0.32.0 (2026-10).
    #[serde(rename = "0.32.0")]
    V0_32_0,
    /// 0.33.0 (2026-11).
    #[serde(rename = "0.33.0")]
    V0_33_0,
}

/// Which of the request functions read the response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Api {
    Chat,
    Completions,
}

impl Version {
    /// Every version, the oldest first.
    pub const ALL: [Version; 3] = [Version::V0_11_0, Version::V0_32_0, Version::V0_33_0];

    /// Whether each socket read is stripped of white space before it is split into events, which lets a `: ping`
    /// swallow what follows (up to 0.32).
    pub(crate) fn strips_reads(self) -> bool {
        self < Version::V0_33_0
    }

    /// The messages that the version's stream reader hands on, with their reads' stamps.
    fn messages(self, timeline: &Timeline) -> Box<dyn Iterator<Item = (Ns, Facts)> + '_> {
        if self.strips_reads() {
            Box::new(messages::messages(timeline))
        } else {
            Box::new(messages::whole_messages(timeline))
        }
    }

    /// Whether a chat event with `choices` is a token whatever its delta holds, the role-only opening one too (up to
    /// 0.32).
    pub(crate) fn any_choice_is_a_chat_token(self) -> bool {
        self < Version::V0_33_0
    }

    /// Whether an event is a token: in completions any event with choices, in chat see
    /// [`Version::any_choice_is_a_chat_token`].
    fn is_token(self, api: Api, facts: Facts) -> bool {
        facts.has(Facts::CHOICES)
            && (api == Api::Completions || self.any_choice_is_a_chat_token() || has_streamed_output(facts))
    }

    /// Whether in chat every JSON event moves the end of the request, the usage event too; else only token events do
    /// (from 0.30).
    pub(crate) fn any_event_ends_chat(self) -> bool {
        self == Version::V0_11_0
    }

    /// Whether a complete chat stream without one token is a success, with a TTFT of 0; else a failure (from 0.30).
    pub(crate) fn empty_chat_succeeds(self) -> bool {
        self == Version::V0_11_0
    }

    /// Whether chat tells the first token by a TTFT that is still zero; else by a flag (from 0.30).
    fn first_chat_token_has_zero_ttft(self) -> bool {
        self == Version::V0_11_0
    }

    /// Whether the prompt's tokens are the server's count, where it sends one (from 0.20).
    pub(crate) fn takes_prompt_len_from_usage(self) -> bool {
        self > Version::V0_11_0
    }

    /// Whether the server's own times are taken (from 0.33).
    fn takes_server_times(self) -> bool {
        self >= Version::V0_33_0
    }

    /// Whether the failures have a row and a key (from 0.11.1).
    pub(crate) fn reports_failures(self) -> bool {
        self > Version::V0_11_0
    }

    /// Whether latencies, start times and queue times are saved, and the queue has metrics of its own (from 0.30).
    pub(crate) fn reports_queueing(self) -> bool {
        self > Version::V0_11_0
    }

    /// Whether the server's counters (from 0.14, diffusion from 0.24) and probes (from 0.27) are reported.
    pub(crate) fn reports_counters(self) -> bool {
        self > Version::V0_11_0
    }

    /// Whether it can do without a tokenizer, and has the key `rtfx` (from 0.17).
    pub(crate) fn knows_audio(self) -> bool {
        self > Version::V0_11_0
    }

    /// The label of the sum of both throughputs (respelt in 0.13).
    pub(crate) fn total_throughput_label(self) -> &'static str {
        if self == Version::V0_11_0 {
            "Total Token throughput (tok/s):"
        } else {
            "Total token throughput (tok/s):"
        }
    }

    /// The numpy it runs on.
    pub(crate) fn numpy(self) -> Numpy {
        if self == Version::V0_11_0 { Numpy::UP_TO_2_2 } else { Numpy::FROM_2_3 }
    }
}

/// `_choice_has_streamed_output` of 0.33.0. [`Facts::is_output`] without the older name of the reasoning field, which
/// vLLM's client does not know.
fn has_streamed_output(facts: Facts) -> bool {
    facts.any(Facts::CONTENT.with(Facts::REASONING).with(Facts::TOOL_CALL))
        || (facts.has(Facts::EMPTY_CONTENT) && !facts.has(Facts::ROLE))
}
