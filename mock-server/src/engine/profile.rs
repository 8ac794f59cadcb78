//! What an engine runs on: a data file with the scheduler's limits, the KV cache's size, and how long a step takes.
//!
//! `mock-server/profiles` holds those that come along, each with its sources. Numbers of hardware are the makers';
//! efficiencies and overheads are assumptions unless a profile says otherwise: a profile is a model, and `fit` makes one
//! from a run that was measured.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::prompt::mixed;

/// A model of an inference server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is called.
    pub name: String,
    /// Where its numbers come from.
    pub sources: Vec<String>,
    /// The scheduler's limits.
    pub scheduler: Scheduler,
    /// The KV cache.
    pub cache: Cache,
    /// How long a step takes.
    pub step: StepTime,
    /// Speculative decoding, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speculation: Option<Speculation>,
}

/// The scheduler's limits, by vLLM's names.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduler {
    /// Sequences in a step, at most.
    pub max_num_seqs: u32,
    /// Tokens in a step, at most.
    pub max_num_batched_tokens: u32,
    /// Whether a prompt may be computed in parts. Without, it waits for a step that has room for all of it; one that is
    /// longer than any step is computed in parts all the same.
    pub chunked_prefill: bool,
}

/// The KV cache.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Tokens in a block.
    pub block_tokens: u32,
    /// Blocks.
    pub blocks: u32,
    /// Whether a prompt's full blocks are found again.
    pub prefix_caching: bool,
}

impl Cache {
    /// The tokens that it has room for.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        u64::from(self.blocks) * u64::from(self.block_tokens)
    }
}

/// How long a step takes, given what is in it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum StepTime {
    /// A sum, in nanoseconds: for times that were measured, or are given.
    Linear {
        /// Every step.
        base_ns: f64,
        /// A step that computes any of a prompt.
        #[serde(default)]
        prefill_ns: f64,
        /// Each token of a prompt.
        #[serde(default)]
        prompt_token_ns: f64,
        /// Each sequence that is decoding.
        #[serde(default)]
        sequence_ns: f64,
        /// Each token of context that a decoding sequence reads.
        #[serde(default)]
        context_token_ns: f64,
    },
    /// What the hardware can do at most: for times that are reckoned.
    Roofline(Roofline),
}

/// The larger of computing and of reading memory (Williams, Waterman, Patterson, "Roofline: an insightful visual
/// performance model for multicore architectures", CACM 52(4), 2009), and an overhead:
/// `max(FLOPs / FLOP/s, bytes / bytes/s) + overhead`, with
/// `FLOPs = 2 * parameters * tokens + attention_flops * (token, context) pairs` and
/// `bytes = weight_bytes + kv_bytes_per_token * (context read + tokens written)`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Roofline {
    /// Parameters that a token is multiplied with.
    pub parameters: f64,
    /// Bytes of weights read in a step.
    pub weight_bytes: f64,
    /// Bytes of keys and values of one token: 2 * layers * KV heads * head size * bytes of a number.
    pub kv_bytes_per_token: f64,
    /// FLOPs of one token attending to one other: 4 * layers * heads * head size.
    pub attention_flops: f64,
    /// The hardware's FLOPs a second, dense.
    pub flops_per_s: f64,
    /// The share of them that is reached.
    pub compute_efficiency: f64,
    /// The memory's bytes a second.
    pub memory_bytes_per_s: f64,
    /// The share of them that is reached.
    pub memory_efficiency: f64,
    /// What every step takes besides, in ns: scheduling, launching, sampling, communication.
    pub overhead_ns: f64,
}

/// Speculative decoding: a decoding sequence computes some drafted tokens along with its next one, and keeps those up to
/// the first that is rejected.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Speculation {
    /// Drafted tokens a step.
    pub tokens: u32,
    /// The chance that a drafted token is accepted, after those before it were.
    pub acceptance: f64,
}

impl Speculation {
    /// How many of a step's drafts are accepted: the same for the same sequence at the same place, in any step.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, which is what is meant"
    )]
    pub(super) fn accepted(&self, drafts: u32, seed: u64, generated: u32) -> u32 {
        let limit = (self.acceptance * 2_f64.powi(64)) as u64;
        let is_accepted = |draft: &u32| {
            let place = (u64::from(generated) << 32) | u64::from(*draft);
            mixed(seed ^ mixed(place.wrapping_add(0x9e37_79b9_7f4a_7c15))) < limit
        };
        u32::try_from((0..drafts).take_while(is_accepted).count()).unwrap_or(drafts)
    }
}

/// What is in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    tokens: u64,
    prompt_tokens: u64,
    decoding: u64,
    /// Context read by decoding sequences.
    decoding_context: u64,
    /// Context read by all.
    context: u64,
    /// Pairs of a token and one that it attends to.
    pairs: u64,
}

impl Load {
    /// Adds `new` tokens of a sequence of which `computed` are computed.
    pub(super) fn add(&mut self, computed: u32, new: u32, is_decoding: bool) {
        let (computed, new) = (u64::from(computed), u64::from(new));
        self.tokens += new;
        self.context += computed;
        self.pairs += new * computed + new * (new + 1) / 2;
        if is_decoding {
            self.decoding += 1;
            self.decoding_context += computed;
        } else {
            self.prompt_tokens += new;
        }
    }
}

/// No step is shorter: time must go on.
const SHORTEST_STEP_NS: u64 = 1_000;

impl StepTime {
    /// How long a step takes, in whole nanoseconds. Only sums, products and quotients: the same on every machine.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, which is what is meant"
    )]
    pub(super) fn duration_ns(&self, load: &Load) -> u64 {
        let ns = match *self {
            Self::Linear { base_ns, prefill_ns, prompt_token_ns, sequence_ns, context_token_ns } => {
                base_ns
                    + if load.prompt_tokens > 0 { prefill_ns } else { 0.0 }
                    + prompt_token_ns * load.prompt_tokens as f64
                    + sequence_ns * load.decoding as f64
                    + context_token_ns * load.decoding_context as f64
            }
            Self::Roofline(hardware) => hardware.duration_ns(load),
        };
        (ns.round() as u64).max(SHORTEST_STEP_NS)
    }
}

impl Roofline {
    fn duration_ns(&self, load: &Load) -> f64 {
        let flops = 2.0 * self.parameters * load.tokens as f64 + self.attention_flops * load.pairs as f64;
        let bytes = self.weight_bytes + self.kv_bytes_per_token * (load.context + load.tokens) as f64;
        let computing = flops / (self.flops_per_s * self.compute_efficiency);
        let reading = bytes / (self.memory_bytes_per_s * self.memory_efficiency);
        computing.max(reading) * 1e9 + self.overhead_ns
    }
}

/// The profiles that come along.
const BUNDLED: [(&str, &str); 4] = [
    ("a100-llama-3.1-8b", include_str!("../../profiles/a100-llama-3.1-8b.json")),
    ("fixed", include_str!("../../profiles/fixed.json")),
    ("h100-llama-3.1-8b", include_str!("../../profiles/h100-llama-3.1-8b.json")),
    ("h100x4-llama-3.1-70b", include_str!("../../profiles/h100x4-llama-3.1-70b.json")),
];

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a name nor a file.
    #[error("cannot read the engine profile {}: {source}; profiles that come along: {}", path.display(), names())]
    File {
        /// What was asked for.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that is no profile.
    #[error("the engine profile {name}: {reason}")]
    Malformed {
        /// Which.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn names() -> String {
    BUNDLED.map(|(name, _)| name).join(", ")
}

impl Profile {
    /// The profile of this name, or in this file.
    pub fn load(name_or_path: &str) -> Result<Self, Error> {
        if let Some((name, text)) = BUNDLED.into_iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(name, text);
        }
        let path = Path::new(name_or_path);
        let text =
            fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Self::parse(name_or_path, &text)
    }

    /// As [`Profile::load`], with the error as a sentence for the command line.
    pub fn named(name_or_path: &str) -> Result<Self, String> {
        Self::load(name_or_path).map_err(|error| error.to_string())
    }

    /// A profile from its JSON text; `name` is for the error.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let malformed = |reason: String| Error::Malformed { name: name.to_owned(), reason };
        let profile: Self = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        profile.check().map_err(|reason| malformed(reason.to_owned()))?;
        Ok(profile)
    }

    /// The file's text, with a final line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A struct of numbers and text always serialises.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Whether an engine can run on it.
    fn check(&self) -> Result<(), &'static str> {
        let Scheduler { max_num_seqs, max_num_batched_tokens, .. } = self.scheduler;
        let Cache { block_tokens, blocks, .. } = self.cache;
        if [max_num_seqs, max_num_batched_tokens, block_tokens, blocks].contains(&0) {
            return Err("its limits must all be above 0");
        }
        if blocks == u32::MAX || self.cache.tokens() > u64::from(u32::MAX) {
            return Err("its cache must have room for fewer than 2^32 tokens");
        }
        let times: &[f64] = match &self.step {
            StepTime::Linear { base_ns, prefill_ns, prompt_token_ns, sequence_ns, context_token_ns } => {
                &[*base_ns, *prefill_ns, *prompt_token_ns, *sequence_ns, *context_token_ns]
            }
            StepTime::Roofline(it) => {
                let rates =
                    [it.flops_per_s, it.compute_efficiency, it.memory_bytes_per_s, it.memory_efficiency];
                if rates.iter().any(|rate| *rate <= 0.0) {
                    return Err("its rates and efficiencies must be above 0");
                }
                &[it.parameters, it.weight_bytes, it.kv_bytes_per_token, it.attention_flops, it.overhead_ns]
            }
        };
        // JSON has neither infinities nor NaN.
        if times.iter().any(|time| *time < 0.0) {
            return Err("what a step takes must not be below 0");
        }
        match self.speculation {
            Some(Speculation { acceptance, .. }) if !(0.0..=1.0).contains(&acceptance) => {
                Err("its acceptance must be from 0 to 1")
            }
            Some(Speculation { tokens, .. }) if tokens >= max_num_batched_tokens => {
                Err("it drafts more tokens than a step holds")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_along_can_be_used_and_says_its_sources() {
        for (name, _) in BUNDLED {
            let profile = Profile::load(name).unwrap();
            assert_eq!(profile.name, name);
            assert!(!profile.sources.is_empty());
            assert_eq!(Profile::parse(name, &profile.to_json()).unwrap(), profile);
        }
    }

    /// By hand: one sequence that decodes at a context of 1000 reads the weights and its own keys and values.
    #[test]
    fn a_decoding_step_is_bound_by_memory_and_a_prefill_by_computing() {
        let step = Profile::load("h100-llama-3.1-8b").unwrap().step;
        let mut load = Load::default();
        load.add(1000, 1, true);
        let reading_ns = (16.06e9 + 131_072.0 * 1001.0) / (3.35e12 * 0.8) * 1e9;
        assert!((step.duration_ns(&load) as f64 - (reading_ns + 1.0e6)).abs() < 1.0);
        let mut load = Load::default();
        load.add(0, 8192, false);
        let flops = 2.0 * 8.03e9 * 8192.0 + 524_288.0 * (8192.0 * 8193.0 / 2.0);
        assert!((step.duration_ns(&load) as f64 - (flops / (989e12 * 0.6) * 1e9 + 1.0e6)).abs() < 1.0);
    }

    #[test]
    fn drafts_are_accepted_at_their_rate() {
        let speculation = Speculation { tokens: 3, acceptance: 0.7 };
        let accepted: u32 = (0..20_000).map(|generated| speculation.accepted(3, 9, generated)).sum();
        // a + a^2 + a^3 a step; the standard deviation of the mean is below 0.01.
        let expected = 0.7 + 0.7_f64.powi(2) + 0.7_f64.powi(3);
        assert!((f64::from(accepted) / 20_000.0 - expected).abs() < 0.04);
        let certain = |acceptance| Speculation { tokens: 3, acceptance }.accepted(3, 1, 1);
        assert_eq!((certain(0.0), certain(1.0)), (0, 3));
    }

    #[test]
    fn slips_are_named() {
        let good = Profile::load("fixed").unwrap();
        let of = |profile: &Profile| Profile::parse("p", &profile.to_json()).unwrap_err().to_string();
        let mut bad = good.clone();
        bad.scheduler.max_num_seqs = 0;
        assert!(of(&bad).contains("the engine profile p: its limits"));
        let mut bad = good.clone();
        bad.speculation = Some(Speculation { tokens: 1, acceptance: 1.5 });
        assert!(of(&bad).contains("acceptance"));
        let text = Profile::load("h100-llama-3.1-8b").unwrap().to_json();
        let of = |from: &str, to: &str| Profile::parse("p", &text.replace(from, to)).unwrap_err().to_string();
        assert!(of("\"compute_efficiency\": 0.6", "\"compute_efficiency\": 0.0").contains("must be above 0"));
        assert!(of("\"weight_bytes\"", "\"weights\"").contains("unknown field `weights`"));
        assert!(Profile::load("no-such").unwrap_err().to_string().contains("h100-llama-3.1-8b"));
        assert!(Profile::parse("p", "{}").unwrap_err().to_string().contains("missing field"));
    }
}
