//! `/metrics`: vLLM's series, from what the server really did. An answer counts when it has ended, with the times of its
//! writes; one that is no stream, with the deadlines of its tokens and the time of its write. Queues, KV cache, prefix
//! cache and preemptions are the engine's, and 0 without one. What belongs to a request in the engine is not known here:
//! its time in the queue is part of its prefill, its preemptions are 0, its prompt counts as computed.

mod families;
mod histogram;
mod http;
mod process;
mod text;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::driver::Standing;
use crate::profile::Profile;
use crate::truth::{EventKind, Record};
use families::FINISHED;
use histogram::{CHOICES, FIRST_TOKEN, Histogram, PREEMPTIONS, REQUEST, STEP_TOKENS, TOKEN, seconds, tokens};
use http::Exchanges;

pub(crate) use http::Exchange;

/// The counts of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    profile: Profile,
    model: String,
    /// Unix time in seconds.
    created: f64,
    state: Mutex<State>,
}

/// What is counted.
#[derive(Clone, Debug)]
pub(crate) struct State {
    running: u64,
    /// Where an engine keeps the time: how that stands.
    engine: Option<Standing>,
    prompt_tokens: u64,
    generation_tokens: u64,
    /// By [`FINISHED`].
    finished: [u64; FINISHED.len()],
    request_prompt_tokens: Histogram,
    request_generation_tokens: Histogram,
    iteration_tokens: Histogram,
    request_max_tokens: Histogram,
    params_n: Histogram,
    params_max_tokens: Histogram,
    ttft: Histogram,
    itl: Histogram,
    tpot: Histogram,
    e2e: Histogram,
    queue: Histogram,
    inference: Histogram,
    prefill: Histogram,
    decode: Histogram,
    preemptions: Histogram,
    exchanges: Exchanges,
}

/// One choice of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ChoiceCount {
    pub(crate) prompt_tokens: u64,
    pub(crate) tokens: u64,
    pub(crate) max_tokens: u64,
    /// Whether something other than its length ended it.
    pub(crate) stopped: bool,
}

/// An answer under way. However it ends, [`Observation::ended`] counts it.
#[derive(Debug)]
pub(crate) struct Observation {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) choices: Vec<ChoiceCount>,
    pub(crate) n: usize,
    /// When the first token of an answer that is no stream was due.
    pub(crate) first_due_ns: Option<u64>,
    /// The exchange, where it has not been counted with its response: a stream's.
    pub(crate) exchange: Option<Exchange>,
}

impl Metrics {
    pub(crate) fn new(profile: Profile, model: &str, max_model_len: u32, created: u64) -> Self {
        let tokens = || Histogram::new(tokens(max_model_len));
        let request = || Histogram::new(REQUEST);
        let state = State {
            running: 0,
            engine: None,
            prompt_tokens: 0,
            generation_tokens: 0,
            finished: [0; FINISHED.len()],
            request_prompt_tokens: tokens(),
            request_generation_tokens: tokens(),
            iteration_tokens: Histogram::new(STEP_TOKENS),
            request_max_tokens: tokens(),
            params_n: Histogram::new(CHOICES),
            params_max_tokens: tokens(),
            ttft: Histogram::new(FIRST_TOKEN),
            itl: Histogram::new(TOKEN),
            tpot: Histogram::new(TOKEN),
            e2e: request(),
            queue: request(),
            inference: request(),
            prefill: request(),
            decode: request(),
            preemptions: Histogram::new(PREEMPTIONS),
            exchanges: Exchanges::new(),
        };
        Self { profile, model: model.to_owned(), created: created as f64, state: Mutex::new(state) }
    }

    /// An answer begins.
    pub(crate) fn begun(&self, choices: usize) {
        self.lock().running += choices as u64;
    }

    /// A request was answered.
    pub(crate) fn exchanged(&self, exchange: &Exchange) {
        self.lock().exchanges.add(exchange);
    }

    /// Nothing under the lock can panic half-way, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A value of the engine's.
    fn engine(&self, value: impl FnOnce(&Standing) -> f64) -> f64 {
        self.engine.as_ref().map_or(0.0, value)
    }
}

impl Observation {
    /// The answer has ended, `complete` or cut off.
    pub(crate) fn ended(self, record: &Record, complete: bool) {
        let mut state = self.metrics.lock();
        state.running = state.running.saturating_sub(self.choices.len() as u64);
        if complete {
            self.count(&mut state, record);
        } else if self.metrics.profile == Profile::Vllm0110 {
            // Later servers do not count what a client gave up.
            state.finished[2] += self.choices.len() as u64;
        }
        if let Some(mut exchange) = self.exchange {
            let last_ns = record.written_ns.last().copied().unwrap_or(record.arrival_ns);
            exchange.duration_ns = last_ns.saturating_sub(record.arrival_ns);
            state.exchanges.add(&exchange);
        }
    }

    fn count(&self, state: &mut State, record: &Record) {
        if self.choices.is_empty() {
            return;
        }
        let last_ns = record.written_ns.last().copied().unwrap_or(record.arrival_ns);
        let tokens = token_times(record);
        let first_ns = self.first_due_ns.or(tokens.first().copied()).unwrap_or(last_ns);
        let last_token_ns = tokens.last().copied().unwrap_or(last_ns);
        for choice in &self.choices {
            let ChoiceCount { prompt_tokens, tokens, max_tokens, stopped } = *choice;
            state.prompt_tokens += prompt_tokens;
            state.generation_tokens += tokens;
            state.finished[usize::from(!stopped)] += 1;
            state.request_prompt_tokens.observe(prompt_tokens as f64);
            state.request_generation_tokens.observe(tokens as f64);
            state.params_max_tokens.observe(max_tokens as f64);
            state.iteration_tokens.observe((prompt_tokens + 1) as f64);
            let gaps = tokens.saturating_sub(1);
            state.iteration_tokens.observe_times(1.0, gaps);
            state.preemptions.observe(0.0);
            let decode_ns = last_token_ns.saturating_sub(first_ns);
            state.ttft.observe_seconds(first_ns.saturating_sub(record.arrival_ns));
            state.queue.observe(0.0);
            state.prefill.observe_seconds(first_ns.saturating_sub(record.arrival_ns));
            state.decode.observe_seconds(decode_ns);
            state.inference.observe_seconds(last_token_ns.saturating_sub(record.arrival_ns));
            state.e2e.observe_seconds(last_token_ns.saturating_sub(record.arrival_ns));
            let gap_ns = decode_ns.checked_div(gaps).unwrap_or(0);
            state.tpot.observe_seconds(gap_ns);
            if self.first_due_ns.is_some() {
                state.itl.observe_times(seconds(gap_ns), gaps);
            }
        }
        // Tokens of several choices come in turn.
        for pair in tokens.windows(self.choices.len() + 1) {
            state.itl.observe_seconds(pair[pair.len() - 1].saturating_sub(pair[0]));
        }
        state.params_n.observe(self.n as f64);
        let longest = self.choices.iter().map(|choice| choice.tokens).max().unwrap_or(0);
        state.request_max_tokens.observe(longest as f64);
    }
}

/// When the events that tell of tokens were written.
fn token_times(record: &Record) -> Vec<u64> {
    let events = record.events.iter().zip(&record.written_ns);
    events.filter(|(kind, _)| **kind == EventKind::Token).map(|(_, &written_ns)| written_ns).collect()
}
