//! The engine: continuous batching as a pure state machine, after vLLM's V1 scheduler.
//!
//! Time is a value. [`Engine::step`] takes the moment at which a step begins, decides what is computed in it, and tells
//! at once when it ends and which tokens it brings: so the mock server knows every deadline before it comes, and a
//! simulated clock drives the same code without waiting.
//!
//! A step serves the running sequences first, in the order of their admission, each with the tokens that it still has
//! to compute, as far as `max_num_batched_tokens` goes; then it admits waiting ones, first come first served, while
//! `max_num_seqs` and the KV cache allow. A prompt longer than what is left of the budget is computed in chunks. Where
//! the cache is full, the sequence that was admitted last gives up its blocks, goes back to the head of the queue and is
//! computed anew. The model of the hardware is in [`profile`]: how long a step takes, given what is in it.
//!
//! What differs from vLLM: one kind of sequence and no priorities; generated tokens are not found again in the prefix
//! cache; a speculative token is accepted or not by chance alone.

mod blocks;
pub(crate) mod driver;
pub mod profile;
mod prompt;

use std::collections::VecDeque;

pub use profile::Profile;
pub use prompt::prefix;

use self::blocks::Pool;
use self::profile::Load;

/// What is asked of the engine.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Request {
    /// The prompt's tokens.
    pub prompt_tokens: u32,
    /// The tokens to generate; no answer ends sooner.
    pub max_tokens: u32,
    /// A hash for each of the prompt's full blocks that stands for all tokens up to its end ([`prefix`]); shorter, or
    /// empty, where they are not to be found again.
    pub prefix: Box<[u64]>,
    /// Decides which speculative tokens are accepted.
    pub seed: u64,
    /// The caller's own name for it.
    pub tag: u32,
}

impl Request {
    /// Whether a cache of `room` tokens ever has room for it. A prompt of no token counts as one, and so does an answer.
    fn check(&self, room: u64) -> Result<(), TooLong> {
        let tokens = u64::from(self.prompt_tokens.max(1)) + u64::from(self.max_tokens.max(1));
        if tokens > room { Err(TooLong { tokens, room }) } else { Ok(()) }
    }
}

/// Names a sequence of one engine.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Id {
    place: u32,
    generation: u32,
}

/// A request that would never fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it needs room for {tokens} tokens, and the engine's KV cache has room for {room}")]
pub struct TooLong {
    /// Prompt and answer together.
    pub tokens: u64,
    /// The cache's tokens.
    pub room: u64,
}

/// What a step brings to one sequence, at the step's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Output {
    /// Whose.
    pub id: Id,
    /// The caller's own name for that.
    pub tag: u32,
    /// How many tokens; several where speculative ones were accepted.
    pub tokens: u32,
    /// Whether they are the last.
    pub is_last: bool,
    /// How many of the prompt's tokens were in the cache when it was admitted first.
    pub cached_tokens: u32,
}

/// One step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// When it ends, and all its outputs come. The next step begins no sooner.
    pub end_ns: u64,
    /// Tokens computed in it.
    pub batched_tokens: u32,
    /// Sequences served in it.
    pub sequences: u32,
    /// Sequences that gave up their blocks in it.
    pub preempted: u32,
}

/// What an engine has done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Steps.
    pub steps: u64,
    /// Sequences that gave up their blocks.
    pub preemptions: u64,
    /// Prompt tokens looked up in the prefix cache.
    pub queried_tokens: u64,
    /// Those of them that were found.
    pub hit_tokens: u64,
}

/// The engine's state: queues, sequences, and the KV cache's blocks.
#[derive(Clone, Debug)]
pub struct Engine {
    profile: Profile,
    pool: Pool,
    sequences: Vec<Sequence>,
    vacant: Vec<u32>,
    waiting: VecDeque<u32>,
    running: Vec<u32>,
    /// The sequences of the step under way with the tokens that it computes of them; kept for its room.
    batch: Vec<(u32, u32)>,
    totals: Totals,
}

#[derive(Clone, Debug, Default)]
struct Sequence {
    generation: u32,
    request: Request,
    generated: u32,
    /// Tokens whose keys and values are in the cache.
    computed: u32,
    blocks: Vec<u32>,
    /// None before it was admitted.
    cached_tokens: Option<u32>,
    ended: bool,
}

impl Sequence {
    /// Prompt and what was generated: all must be computed before the next token comes.
    fn tokens(&self) -> u32 {
        self.request.prompt_tokens + self.generated
    }

    /// Whether only its newest token is to be computed.
    fn is_decoding(&self) -> bool {
        self.generated > 0 && self.computed + 1 == self.tokens()
    }
}

impl Engine {
    /// An engine at rest.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        let pool = Pool::new(profile.cache.blocks);
        Self {
            profile,
            pool,
            sequences: Vec::new(),
            vacant: Vec::new(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            batch: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// What it models.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What it has done so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Sequences admitted.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences not yet admitted, or sent back.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The share of the KV cache that sequences hold.
    #[must_use]
    pub fn cache_usage(&self) -> f64 {
        1.0 - f64::from(self.pool.free()) / f64::from(self.profile.cache.blocks.max(1))
    }

    /// Puts a request at the end of the queue. A prompt of no token counts as one, and so does an answer.
    pub fn submit(&mut self, mut request: Request) -> Result<Id, TooLong> {
        request.prompt_tokens = request.prompt_tokens.max(1);
        request.max_tokens = request.max_tokens.max(1);
        if !self.profile.cache.prefix_caching {
            request.prefix = Box::default();
        }
        request.check(self.profile.cache.tokens())?;
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.sequences.push(Sequence::default());
            // A sequence takes more than a byte, so there are never 2^32 of them.
            u32::try_from(self.sequences.len() - 1).unwrap_or(u32::MAX)
        });
        let sequence = &mut self.sequences[place as usize];
        let (generation, blocks) = (sequence.generation, std::mem::take(&mut sequence.blocks));
        *sequence = Sequence { generation, request, blocks, ..Sequence::default() };
        self.waiting.push_back(place);
        Ok(Id { place, generation })
    }

    /// Drops a sequence wherever it is. One that has ended is gone already.
    pub fn cancel(&mut self, id: Id) {
        let known = self.sequences.get(id.place as usize);
        if known.is_none_or(|sequence| sequence.generation != id.generation) {
            return;
        }
        self.waiting.retain(|place| *place != id.place);
        self.running.retain(|place| *place != id.place);
        self.vacate(id.place);
    }

    /// Begins a step at this moment, as if it had ended: what it brings is appended to `outputs`. None where there is
    /// nothing to do.
    pub fn step(&mut self, begin_ns: u64, outputs: &mut Vec<Output>) -> Option<Step> {
        let mut load = Load::default();
        let mut budget = self.profile.scheduler.max_num_batched_tokens;
        self.batch.clear();
        let preempted = self.serve_running(&mut budget, &mut load);
        if preempted == 0 {
            self.admit(&mut budget, &mut load);
        }
        if self.batch.is_empty() {
            return None;
        }
        self.totals.steps += 1;
        self.totals.preemptions += u64::from(preempted);
        self.emit(outputs);
        Some(Step {
            end_ns: begin_ns.saturating_add(self.profile.step.duration_ns(&load)),
            batched_tokens: self.profile.scheduler.max_num_batched_tokens - budget,
            sequences: u32::try_from(self.batch.len()).unwrap_or(u32::MAX),
            preempted,
        })
    }

    /// Gives every running sequence its part of the step; gives the number of those that lost their blocks.
    fn serve_running(&mut self, budget: &mut u32, load: &mut Load) -> u32 {
        let drafts = self.profile.speculation.map_or(0, |speculation| speculation.tokens);
        let (mut next, mut preempted) = (0, 0);
        while let Some(&place) = self.running.get(next).filter(|_| *budget > 0) {
            let sequence = &self.sequences[place as usize];
            let mut wanted = sequence.tokens() - sequence.computed;
            if sequence.is_decoding() {
                let left = sequence.request.max_tokens - sequence.generated;
                wanted += drafts.min(left - 1);
            }
            let new = wanted.min(*budget);
            while !self.allocate(place, new) {
                // Never one that this step serves: those are before `next`.
                let Some(last) = self.running.pop() else { return preempted };
                self.preempt(last);
                preempted += 1;
                if last == place {
                    return preempted;
                }
            }
            self.schedule(place, new, budget, load);
            next += 1;
        }
        preempted
    }

    /// Admits waiting sequences while there is room.
    fn admit(&mut self, budget: &mut u32, load: &mut Load) {
        let scheduler = self.profile.scheduler;
        while let Some(&place) = self.waiting.front()
            && *budget > 0
            && self.running.len() < scheduler.max_num_seqs as usize
        {
            let block_tokens = self.profile.cache.block_tokens;
            let sequence = &self.sequences[place as usize];
            // The last token is always computed: the next one comes of it.
            let reusable = ((sequence.tokens() - 1) / block_tokens) as usize;
            let prefix = &sequence.request.prefix;
            let hits = self.pool.hits(&prefix[..reusable.min(prefix.len())]);
            let cached = u32::try_from(hits).unwrap_or(u32::MAX) * block_tokens;
            let wanted = sequence.tokens() - cached;
            if !scheduler.chunked_prefill && wanted > *budget && *budget < scheduler.max_num_batched_tokens {
                return;
            }
            let new = wanted.min(*budget);
            let blocks = (cached + new).div_ceil(block_tokens);
            let sequence = &mut self.sequences[place as usize];
            if !self.pool.admit(&sequence.request.prefix[..hits], blocks, &mut sequence.blocks) {
                return;
            }
            sequence.computed = cached;
            if sequence.cached_tokens.is_none() {
                sequence.cached_tokens = Some(cached);
                self.totals.queried_tokens += u64::from(sequence.request.prompt_tokens);
                self.totals.hit_tokens += u64::from(cached);
            }
            self.waiting.pop_front();
            self.running.push(place);
            self.schedule(place, new, budget, load);
        }
    }

    /// Puts a part of a sequence into the step; its blocks are there.
    fn schedule(&mut self, place: u32, new: u32, budget: &mut u32, load: &mut Load) {
        let sequence = &self.sequences[place as usize];
        load.add(sequence.computed, new, sequence.is_decoding());
        // From now on, also within this step, others find its full blocks.
        let block_tokens = self.profile.cache.block_tokens;
        let full = ((sequence.computed + new) / block_tokens) as usize;
        let known = (sequence.computed / block_tokens) as usize;
        let full = full.min(sequence.request.prefix.len());
        for block in known..full {
            self.pool.name(sequence.blocks[block], sequence.request.prefix[block]);
        }
        self.batch.push((place, new));
        *budget -= new;
    }

    /// Whether a sequence now has the blocks for so many new tokens.
    fn allocate(&mut self, place: u32, new: u32) -> bool {
        let sequence = &mut self.sequences[place as usize];
        let blocks = (sequence.computed + new).div_ceil(self.profile.cache.block_tokens);
        self.pool.extend(blocks, &mut sequence.blocks)
    }

    fn preempt(&mut self, place: u32) {
        let sequence = &mut self.sequences[place as usize];
        self.pool.release(&mut sequence.blocks);
        sequence.computed = 0;
        self.waiting.push_front(place);
    }

    /// The step's end: counts what was computed, and makes tokens of it where a sequence has caught up.
    fn emit(&mut self, outputs: &mut Vec<Output>) {
        let mut any_ended = false;
        for &(place, new) in &self.batch {
            let sequence = &mut self.sequences[place as usize];
            let left = sequence.request.max_tokens - sequence.generated;
            let tokens = if sequence.is_decoding() {
                let accepted = self.profile.speculation.map_or(0, |speculation| {
                    speculation.accepted(new - 1, sequence.request.seed, sequence.generated)
                });
                sequence.computed += 1 + accepted;
                1 + accepted
            } else {
                sequence.computed += new;
                if sequence.computed < sequence.tokens() {
                    continue;
                }
                1
            };
            sequence.generated += tokens;
            sequence.ended = tokens == left;
            any_ended |= sequence.ended;
            let id = Id { place, generation: sequence.generation };
            let cached_tokens = sequence.cached_tokens.unwrap_or(0);
            outputs.push(Output {
                id,
                tag: sequence.request.tag,
                tokens,
                is_last: sequence.ended,
                cached_tokens,
            });
        }
        if any_ended {
            let sequences = &self.sequences;
            self.running.retain(|place| !sequences[*place as usize].ended);
            for entry in 0..self.batch.len() {
                let (place, _) = self.batch[entry];
                if self.sequences[place as usize].ended {
                    self.vacate(place);
                }
            }
        }
    }

    /// Frees a sequence's blocks and its place.
    fn vacate(&mut self, place: u32) {
        let sequence = &mut self.sequences[place as usize];
        self.pool.release(&mut sequence.blocks);
        sequence.generation = sequence.generation.wrapping_add(1);
        sequence.ended = false;
        sequence.request.prefix = Box::default();
        self.vacant.push(place);
    }
}

#[cfg(test)]
mod tests;
