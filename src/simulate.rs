//! The simulated clock: a tape sent to the mock's engine without waiting for anything.
//!
//! The same state machine that paces the mock server ([`tokentape_mock::engine`]) is stepped from event to event. The
//! client and the network take no time: a request arrives when it is sent, a token when its step ends, and a slot's
//! next request goes out in the nanosecond in which the one before it ended. What comes out are ordinary timelines, and
//! the same ones each time.
//!
//! Order within one nanosecond: what a step brings, then what is sent, then the next step. Sessions are kept as
//! [`replay`](crate::replay::engine) keeps them: a later turn waits for the one before it, on the same slot.

pub mod answer;
pub mod fit;
pub mod server;
pub mod summary;
pub mod workload;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use tokentape_mock::engine::Totals;

use self::server::{Server, Token};
use self::workload::{Item, Workload};
use crate::timeline::Ns;

/// How to send.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Requests in flight at once, at most; no limit if none.
    pub concurrency: Option<u32>,
    /// When each request is due, in tape order; as soon as a slot is free if none.
    pub schedule: Option<Vec<Ns>>,
    /// From when on nothing is sent.
    pub until: Option<Ns>,
    /// The client sends no two requests closer together than this. 0 is a client that takes no time; a real one's
    /// requests come one by one, and the first of them finds an engine at rest that does not wait for the others.
    pub gap_ns: Ns,
}

/// A request that the server refused: it would never fit.
#[derive(Debug, thiserror::Error)]
#[error(
    "request {index}: {reason}; a profile with a larger cache is needed, or a tape with shorter requests"
)]
pub struct Refused {
    /// Its index in the tape.
    pub index: u64,
    /// Why.
    pub reason: String,
}

/// A request under way, or ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flight {
    /// The request; what the server needed of it is gone.
    pub item: Item,
    /// Its slot, from 0.
    pub slot: u32,
    /// When it was due, in ns from the run's start.
    pub scheduled_ns: Ns,
    /// When it was sent.
    pub dispatched_ns: Ns,
    /// When each token came.
    pub tokens_ns: Vec<Ns>,
    /// How many of the prompt's tokens the server had already; none where it does not tell.
    pub cached_tokens: Option<u32>,
}

impl Flight {
    /// When the answer was complete.
    #[must_use]
    pub fn end_ns(&self) -> Ns {
        self.tokens_ns.last().copied().unwrap_or(self.dispatched_ns)
    }
}

/// What a simulation came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// When the last answer was complete.
    pub duration_ns: Ns,
    /// Answers.
    pub ended: u64,
    /// Requests not sent, because of the limit in time.
    pub left_out: u64,
    /// The most requests in flight at one moment.
    pub peak_concurrency: u64,
    /// What the engine did; none where answers came from a timing model.
    pub totals: Option<Totals>,
}

/// Sends every request of a workload to a server, and tells of each as it ends.
pub fn run<E: From<Refused>>(
    workload: Workload,
    options: &Options,
    server: &mut Server,
    ended: &mut dyn FnMut(&Flight) -> Result<(), E>,
) -> Result<Report, E> {
    let all = workload.items.len() as u64;
    let mut simulation = Simulation::new(workload, options);
    let mut arrived = Vec::new();
    loop {
        simulation.dispatch(server)?;
        server.begin(simulation.now_ns);
        let next = [server.next_ns(), simulation.next_send_ns()].into_iter().flatten().min();
        let Some(next_ns) = next else { break };
        simulation.now_ns = next_ns;
        if server.next_ns() == Some(next_ns) {
            server.take(&mut arrived);
            for token in arrived.drain(..) {
                simulation.arrived(token, ended)?;
            }
        }
    }
    let report = simulation.report;
    Ok(Report { left_out: all - report.ended, totals: server.totals(), ..report })
}

/// A later turn of a session: when it is due, its place in the tape, and its slot.
type Turn = Reverse<(Ns, usize, u32)>;

struct Simulation<'a> {
    items: Vec<Item>,
    options: &'a Options,
    now_ns: Ns,
    /// The next request that waits for no other, or where to look for it.
    next_head: usize,
    /// Later turns whose time is known.
    turns: BinaryHeap<Turn>,
    /// Free slots, the one free for longest first; with no limit, the one that was freed last.
    free: VecDeque<u32>,
    slots: u32,
    /// By tag.
    flights: Vec<Flight>,
    /// Tags of flights that have ended.
    vacant: Vec<u32>,
    /// When the client can send again.
    ready_ns: Ns,
    report: Report,
}

impl<'a> Simulation<'a> {
    fn new(workload: Workload, options: &'a Options) -> Self {
        Self {
            items: workload.items,
            options,
            now_ns: 0,
            next_head: 0,
            turns: BinaryHeap::new(),
            free: (0..options.concurrency.unwrap_or(0)).collect(),
            slots: options.concurrency.unwrap_or(0),
            flights: Vec::new(),
            vacant: Vec::new(),
            ready_ns: 0,
            report: Report::default(),
        }
    }

    /// Sends everything whose time has come and that has a slot.
    fn dispatch(&mut self, server: &mut Server) -> Result<(), Refused> {
        while let Some(&Reverse((due_ns, place, slot))) = self.turns.peek()
            && due_ns.max(self.ready_ns) <= self.now_ns
        {
            self.turns.pop();
            self.send(place, slot, due_ns, server)?;
        }
        while self.options.concurrency.is_none() || !self.free.is_empty() {
            let Some((place, due_ns)) = self.head() else { break };
            if due_ns.unwrap_or(0).max(self.ready_ns) > self.now_ns {
                break;
            }
            let slot = self.free.pop_front().unwrap_or_else(|| {
                self.slots += 1;
                self.slots - 1
            });
            self.next_head += 1;
            self.send(place, slot, due_ns.unwrap_or(self.now_ns), server)?;
        }
        Ok(())
    }

    /// The next request that waits for no other, and when it is due; none after the limit in time.
    fn head(&mut self) -> Option<(usize, Option<Ns>)> {
        while self.items.get(self.next_head)?.is_later_turn {
            self.next_head += 1;
        }
        let due_ns = self.scheduled(self.next_head);
        let from_ns = self.now_ns.max(due_ns.unwrap_or(0));
        (!self.is_too_late(from_ns)).then_some((self.next_head, due_ns))
    }

    fn scheduled(&self, place: usize) -> Option<Ns> {
        self.options.schedule.as_ref().and_then(|schedule| schedule.get(place)).copied()
    }

    fn is_too_late(&self, at_ns: Ns) -> bool {
        self.options.until.is_some_and(|until| at_ns >= until)
    }

    /// When the next request is due that only waits for its time.
    fn next_send_ns(&mut self) -> Option<Ns> {
        let turn = self.turns.peek().map(|Reverse((due_ns, ..))| *due_ns);
        let has_slot = self.options.concurrency.is_none() || !self.free.is_empty();
        let head = if has_slot { self.head().map(|(_, due_ns)| due_ns.unwrap_or(0)) } else { None };
        let due_ns = [turn, head].into_iter().flatten().min()?;
        Some(due_ns.max(self.ready_ns))
    }

    fn send(
        &mut self,
        place: usize,
        slot: u32,
        scheduled_ns: Ns,
        server: &mut Server,
    ) -> Result<(), Refused> {
        let tag = self.vacant.pop().unwrap_or_else(|| {
            self.flights.push(Flight::default());
            // A flight takes more than a byte, so there are never 2^32 of them.
            u32::try_from(self.flights.len() - 1).unwrap_or(u32::MAX)
        });
        let others = (self.flights.len() - self.vacant.len()) as u64 - 1;
        self.ready_ns = self.now_ns.saturating_add(self.options.gap_ns);
        self.report.peak_concurrency = self.report.peak_concurrency.max(others + 1);
        let flight = &mut self.flights[tag as usize];
        flight.item = std::mem::take(&mut self.items[place]);
        flight.slot = slot;
        (flight.scheduled_ns, flight.dispatched_ns) = (scheduled_ns, self.now_ns);
        flight.tokens_ns.clear();
        flight.cached_tokens = None;
        server.submit(self.now_ns, tag, &mut flight.item, others)
    }

    fn arrived<E>(&mut self, token: Token, ended: &mut dyn FnMut(&Flight) -> Result<(), E>) -> Result<(), E> {
        let flight = &mut self.flights[token.tag as usize];
        let length = flight.tokens_ns.len() + token.count as usize;
        flight.tokens_ns.resize(length, self.now_ns);
        flight.cached_tokens = token.cached_tokens;
        if !token.is_last {
            return Ok(());
        }
        ended(flight)?;
        let (slot, next) = (flight.slot, flight.item.next_turn);
        let sent_offset_ns = flight.item.offset_ns;
        self.vacant.push(token.tag);
        self.report.ended += 1;
        self.report.duration_ns = self.now_ns;
        let Some(place) = next.map(|place| place as usize) else {
            self.free(slot);
            return Ok(());
        };
        let due_ns = self.scheduled(place).map_or_else(
            || self.now_ns + self.items[place].offset_ns.saturating_sub(sent_offset_ns),
            |scheduled| scheduled.max(self.now_ns),
        );
        if self.is_too_late(due_ns) {
            self.free(slot);
        } else {
            self.turns.push(Reverse((due_ns, place, slot)));
        }
        Ok(())
    }

    fn free(&mut self, slot: u32) {
        if self.options.concurrency.is_some() {
            self.free.push_back(slot);
        } else {
            self.free.push_front(slot);
        }
    }
}

#[cfg(test)]
mod tests;
