//! A server's settings, resolved: nothing here is still a string to be parsed.

use std::path::PathBuf;
use std::sync::Arc;

use tokentape_tokenizer::Tokenizer;

use crate::answers::Answers;
use crate::engine::Profile;
use crate::faults::Faults;
use crate::profile::Wire;
use crate::recordings::Recordings;
use crate::timing::Timing;
use crate::tls::Tls;
use crate::truth::{Header, Record};

/// What a server is and how it answers.
#[derive(Clone, Debug)]
pub struct Config {
    /// The one model that it serves.
    pub model: String,
    /// Counts prompts; its words are what answers are made of.
    pub tokenizer: Arc<Tokenizer>,
    /// The pace of every answer.
    pub timing: Timing,
    /// Keeps the time in place of that, where there is one.
    pub engine: Option<Profile>,
    /// What is done to answers on purpose.
    pub faults: Faults,
    /// The seed of texts, jitter and ids.
    pub seed: u64,
    /// The most tokens that a prompt and its answer may have together.
    pub max_model_len: u32,
    /// The length of a chat answer whose request names none, where the context has room for it. vLLM fills the context.
    pub chat_max_tokens: u32,
    /// How many threads answer.
    pub workers: usize,
    /// The key that requests below `/v1` must bring as `Authorization: Bearer KEY`.
    pub api_key: Option<String>,
    /// What it shows to clients that speak TLS to it; without, it speaks plain HTTP.
    pub tls: Option<Tls>,
    /// How it speaks.
    pub wire: Wire,
    /// Where answers come from; those that it has none for the server makes up.
    pub answers: Option<Arc<dyn Answers>>,
    /// Where recorded responses come from; they go before everything else.
    pub recordings: Option<Arc<dyn Recordings>>,
    /// Where the truth log goes.
    pub truth_log: Option<PathBuf>,
    /// How many of the last records are kept in memory too.
    pub keep_records: usize,
    /// What calculates figures from them, for `/admin/oracle`.
    pub oracle: Option<Arc<dyn Oracle>>,
    /// How long before each deadline a worker begins to turn in a loop, in nanoseconds; 0 for not at all.
    pub spin_ns: u64,
    /// Whether the threads that answer run before all ordinary ones, where the system grants it.
    pub real_time: bool,
}

/// The figures that a client without an error of its own would report.
pub trait Oracle: std::fmt::Debug + Send + Sync {
    /// As JSON, from the records of the last answers, in the order in which they ended.
    fn figures(&self, records: &[Arc<Record>]) -> String;
}

impl Config {
    /// The default of [`Config::max_model_len`], in tokens.
    pub const MAX_MODEL_LEN: u32 = 32_768;
    /// The default of [`Config::chat_max_tokens`].
    pub const CHAT_MAX_TOKENS: u32 = 256;

    /// A server of `model` at the pace of `timing`, everything else at its default.
    #[must_use]
    pub fn new(model: impl Into<String>, tokenizer: Arc<Tokenizer>, timing: Timing) -> Self {
        Self {
            model: model.into(),
            tokenizer,
            timing,
            engine: None,
            faults: Faults::default(),
            seed: 0,
            max_model_len: Self::MAX_MODEL_LEN,
            chat_max_tokens: Self::CHAT_MAX_TOKENS,
            workers: Self::default_workers(),
            api_key: None,
            tls: None,
            wire: Wire::default(),
            answers: None,
            recordings: None,
            truth_log: None,
            keep_records: 0,
            oracle: None,
            spin_ns: 0,
            real_time: false,
        }
    }

    /// Half of the machine's cores: the other half is left to the client under test.
    #[must_use]
    pub fn default_workers() -> usize {
        std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
    }

    /// The scheme of its URLs.
    pub(crate) const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    pub(crate) fn truth_header(&self) -> Header {
        Header {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: self.model.clone(),
            ttft_ns: self.timing.ttft.mean_ns(),
            itl_ns: self.timing.itl.mean_ns(),
            jitter_percent: f64::from(self.timing.jitter_millipercent) / 1000.0,
            engine: self.engine.as_ref().map(|profile| profile.name.clone()),
            seed: self.seed,
            clock: "CLOCK_MONOTONIC".to_owned(),
        }
    }
}
