//! What answers in a simulation: the mock's engine, or one of its timing models.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokentape_mock::Timing;
use tokentape_mock::engine::{Engine, Output, Profile, Request, Totals};

use super::Refused;
use super::workload::Item;
use crate::timeline::Ns;

/// Tokens that came for one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Token {
    /// What the request was submitted under.
    pub tag: u32,
    /// How many tokens.
    pub count: u32,
    /// Whether they are its last.
    pub is_last: bool,
    /// How many of the prompt's tokens were known already, where the server tells.
    pub cached_tokens: Option<u32>,
}

/// A simulated server.
#[derive(Debug)]
pub struct Server(Kind);

#[derive(Debug)]
enum Kind {
    Engine {
        engine: Box<Engine>,
        /// The end of the step under way, and what it brings.
        step: Option<Ns>,
        outputs: Vec<Output>,
    },
    Timing {
        timing: Timing,
        seed: u64,
        /// When the next token of each answer comes.
        next: BinaryHeap<Reverse<(Ns, u32)>>,
        /// The tokens after it, by tag.
        rest: Vec<std::vec::IntoIter<Ns>>,
    },
}

impl Server {
    /// An engine at rest.
    #[must_use]
    pub fn engine(profile: Profile) -> Self {
        let engine = Box::new(Engine::new(profile));
        Self(Kind::Engine { engine, step: None, outputs: Vec::new() })
    }

    /// A server that takes these times, whatever its load is otherwise.
    #[must_use]
    pub fn timing(timing: Timing, seed: u64) -> Self {
        Self(Kind::Timing { timing, seed, next: BinaryHeap::new(), rest: Vec::new() })
    }

    /// What its engine has done.
    pub(super) fn totals(&self) -> Option<Totals> {
        match &self.0 {
            Kind::Engine { engine, .. } => Some(engine.totals()),
            Kind::Timing { .. } => None,
        }
    }

    /// Takes a request, beside so many others that are under way.
    pub(super) fn submit(
        &mut self,
        now_ns: Ns,
        tag: u32,
        item: &mut Item,
        others: u64,
    ) -> Result<(), Refused> {
        let prefix = std::mem::take(&mut item.prefix);
        match &mut self.0 {
            Kind::Engine { engine, .. } => {
                // As the mock takes it from the same key.
                let (words, _) = item.key.as_chunks();
                let request = Request {
                    prompt_tokens: item.prompt_tokens,
                    max_tokens: item.output_tokens,
                    prefix,
                    seed: u64::from_le_bytes(words[0]),
                    tag,
                };
                engine
                    .submit(request)
                    .map_err(|error| Refused { index: item.index, reason: error.to_string() })?;
            }
            Kind::Timing { timing, seed, next, rest } => {
                let asked = (now_ns, item.prompt_tokens, item.output_tokens);
                let mut due = timing.answer_ns(*seed, item.key, asked, others).into_iter();
                if let Some(first) = due.next() {
                    next.push(Reverse((first, tag)));
                }
                if rest.len() <= tag as usize {
                    rest.resize_with(tag as usize + 1, || Vec::new().into_iter());
                }
                rest[tag as usize] = due;
            }
        }
        Ok(())
    }

    /// Begins what can begin at this moment.
    pub(super) fn begin(&mut self, now_ns: Ns) {
        if let Kind::Engine { engine, step: step @ None, outputs, .. } = &mut self.0 {
            *step = engine.step(now_ns, outputs).map(|step| step.end_ns);
        }
    }

    /// When it brings something next.
    pub(super) fn next_ns(&self) -> Option<Ns> {
        match &self.0 {
            Kind::Engine { step, .. } => *step,
            Kind::Timing { next, .. } => next.peek().map(|Reverse((at_ns, _))| *at_ns),
        }
    }

    /// What it brings at the moment of [`Server::next_ns`].
    pub(super) fn take(&mut self, arrived: &mut Vec<Token>) {
        match &mut self.0 {
            Kind::Engine { step, outputs, .. } => {
                *step = None;
                arrived.extend(outputs.drain(..).map(|output| Token {
                    tag: output.tag,
                    count: output.tokens,
                    is_last: output.is_last,
                    cached_tokens: Some(output.cached_tokens),
                }));
            }
            Kind::Timing { next, rest, .. } => {
                let Some(Reverse((_, tag))) = next.pop() else { return };
                let following = rest[tag as usize].next();
                if let Some(at_ns) = following {
                    next.push(Reverse((at_ns, tag)));
                }
                arrived.push(Token { tag, count: 1, is_last: following.is_none(), cached_tokens: None });
            }
        }
    }
}
