//! Which request is sent next: the measured ones, or those of the warm-up, in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokentape_pacer::monotonic_ns;
use tokio::sync::oneshot;

use super::Plan;
use super::behaviour::Behaviour;
use super::plan::{Prepared, followers};
use crate::timeline::Ns;

/// Requests that slots take in order: those that wait for no other one.
pub(super) struct Queue<'p> {
    requests: &'p [Prepared],
    /// When each is due, in ns from the run's start.
    schedule: Option<&'p [Ns]>,
    /// From when on nothing is given out, in ns from the run's start.
    until: Option<Ns>,
    /// How the client behaves towards each.
    pub(super) behaviour: Behaviour,
    /// The request that each must precede.
    followers: Vec<Option<usize>>,
    /// The requests that wait for no other.
    heads: Vec<usize>,
    /// The next head of each hand. With n of them, hand h deals out every nth, from the hth on.
    next: Mutex<Vec<usize>>,
    /// Which were sent.
    sent: Vec<AtomicBool>,
}

/// A request that a slot has taken.
pub(super) struct Turn<'p> {
    /// Its place in the plan.
    pub(super) place: usize,
    pub(super) request: &'p Prepared,
    /// When it is due, in ns from the run's start; none where it is to be sent as soon as it is taken.
    pub(super) due: Option<Ns>,
    /// When it was taken.
    pub(super) taken: u64,
    /// Where its body comes from, if not from the plan.
    pub(super) body: Option<oneshot::Receiver<Bytes>>,
}

impl<'p> Queue<'p> {
    /// Requests of which each may be sent whatever became of the others.
    pub(super) fn new(requests: &'p [Prepared]) -> Self {
        Self {
            requests,
            schedule: None,
            until: None,
            behaviour: Behaviour::default(),
            followers: vec![None; requests.len()],
            heads: (0..requests.len()).collect(),
            next: Mutex::new(vec![0]),
            sent: requests.iter().map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// The measured requests, with their schedule, the run's limit in time, and the sessions' order.
    pub(super) fn measured(
        plan: &'p Plan,
        schedule: Option<&'p [Ns]>,
        until: Option<Ns>,
        hands: usize,
        behaviour: Behaviour,
    ) -> Self {
        let followers = followers(&plan.requests);
        let mut is_head = vec![true; plan.requests.len()];
        for follower in followers.iter().flatten() {
            is_head[*follower] = false;
        }
        let heads = (0..plan.requests.len()).filter(|place| is_head[*place]).collect();
        let next = Mutex::new((0..hands).collect());
        Self { schedule, until, behaviour, followers, heads, next, ..Self::new(&plan.requests) }
    }

    /// The next request for this slot, in a run that started then, and the moment of its taking. Both are had under
    /// one lock: with one hand, tape order is send order, on however many threads.
    pub(super) fn take(&self, slot: u32, start: Option<u64>) -> Option<Turn<'p>> {
        let mut hands = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let count = hands.len();
        let next = hands.get_mut(slot as usize % count)?;
        let place = *self.heads.get(*next)?;
        let taken = monotonic_ns();
        let elapsed = taken.saturating_sub(start.unwrap_or(taken));
        let due = self.scheduled(place);
        if self.until.is_some_and(|until| elapsed.max(due.unwrap_or(0)) >= until) {
            return None;
        }
        *next += count;
        Some(Turn { place, request: &self.requests[place], due, taken, body: None })
    }

    /// The turn that waited for this one, which ended then.
    pub(super) fn follow(&self, turn: &Turn<'p>, ended: u64, start: u64) -> Option<Turn<'p>> {
        let place = self.followers.get(turn.place).copied().flatten()?;
        let request = &self.requests[place];
        let ended_ns = ended.saturating_sub(start);
        let due = match (self.behaviour.think_ns, self.scheduled(place)) {
            (Some(think), _) => ended_ns.saturating_add(think),
            (None, Some(scheduled)) => scheduled.max(ended_ns),
            (None, None) => ended_ns + request.offset_ns.saturating_sub(turn.request.offset_ns),
        };
        let is_left_out = self.until.is_some_and(|until| due >= until);
        (!is_left_out).then_some(Turn { place, request, due: Some(due), taken: ended, body: None })
    }

    fn scheduled(&self, place: usize) -> Option<Ns> {
        // A schedule that ends too soon has its last time for the rest.
        self.schedule.and_then(|schedule| schedule.get(place).or(schedule.last()).copied())
    }

    /// Whether requests have times of their own.
    pub(super) fn is_scheduled(&self) -> bool {
        self.schedule.is_some()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn mark_sent(&self, turn: &Turn<'p>) {
        self.sent[turn.place].store(true, Ordering::Relaxed);
    }

    /// The requests that nobody sent.
    pub(super) fn rest(&self) -> Vec<&'p Prepared> {
        let unsent = self.requests.iter().zip(&self.sent).filter(|(_, sent)| !sent.load(Ordering::Relaxed));
        unsent.map(|(request, _)| request).collect()
    }
}
