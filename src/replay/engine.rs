//! Sends a plan by a schedule, or as fast as a limit allows.
//!
//! - **Closed loop**: a fixed number of slots, each with one held connection, take the requests in order.
//! - **Open loop**: each request goes out at its own time, whatever became of those before it, on a connection that is
//!   free or on a new one.
//! - **Limited open loop**: the schedule and a fixed number of slots. A request whose time has come waits for a slot,
//!   as it would for a semaphore; the wait is the difference between `scheduled_ns` and `dispatched_ns`.
//!
//! A later turn of a session waits for the end of the one before it, in either loop, and goes out on the same slot. With
//! a schedule it is due at its own time or then; without one, then and after the time that lies between the two on the
//! tape. So a limit is one of sessions under way, and a slot rests while its user thinks.
//!
//! One single-threaded runtime a worker; its slots and their connections never leave it. The
//! [collector](super::collector) parses what the exchanges bring, so that nothing is parsed where stamps are taken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Barrier, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokentape_pacer::{LEAD_NS, Pacer, monotonic_ns};
use tokio::sync::watch;
use tokio::task::{LocalSet, unconstrained};

use super::busy;
use super::collector::{Collected, Collector};
use super::connection::Connector;
use super::exchange::{Exchange, News};
use super::plan::{Prepared, followers};
use super::slot::{Slot, interrupted};
use super::turnstile::Turnstile;
use super::{Error, Plan, Target};
use crate::effort::{Busy, Effort};
use crate::schedule::Slots;
use crate::timeline::{Ns, Timeline};

/// How to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many requests are in flight at once, at most; without a limit, as many as the schedule brings.
    pub concurrency: Option<usize>,
    /// When each request is to be sent, in ns from the run's start, in tape order and never earlier than the one
    /// before it. Without a schedule, as soon as the limit allows.
    pub schedule: Option<Vec<Ns>>,
    /// Which slot carries which request.
    pub slots: Slots,
    /// Dispatch nothing from this time on, from the run's start. What is in flight then is waited for; the rest is
    /// left out.
    pub duration: Option<Duration>,
    /// How many threads send; slots are dealt out to them.
    pub workers: usize,
    /// The time limit of each request, from its dispatch.
    pub timeout: Duration,
    /// Whether each timeline keeps the generated text; else only those without a server's count of its tokens do.
    pub keeps_text: bool,
}

/// One request after another, without a schedule.
impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: Some(1),
            schedule: None,
            slots: Slots::default(),
            duration: None,
            workers: 1,
            timeout: Duration::from_secs(600),
            keeps_text: false,
        }
    }
}

/// What a replay brought.
#[derive(Debug)]
pub struct Report {
    /// One timeline for each request of the plan that was not left out, in tape order.
    pub timelines: Vec<Timeline>,
    /// How many requests the time limit of the run left out.
    pub left_out: u64,
    /// The run's start on the monotonic clock: the zero of every timeline.
    pub start_monotonic_ns: u64,
    /// From the run's start to the end of the last request.
    pub duration_ns: u64,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// How many warm-up requests failed.
    pub warmup_failures: usize,
    /// What sending took of the processors.
    pub effort: Effort,
}

/// Replays a plan: opens every connection, sends the warm-up, starts the clock, sends the measured requests.
///
/// When `interrupt` turns true, requests in flight are cut and the rest are not sent; what was measured stays.
/// `on_end` sees each timeline as its request ends.
pub fn run(
    plan: &Plan,
    target: &Target,
    options: &Options,
    interrupt: &watch::Receiver<bool>,
    on_end: &mut dyn FnMut(&Timeline),
) -> Result<Report, Error> {
    let connector = Connector::new(target)?;
    // Without a limit, what the warm-up opens is there for the schedule's first requests.
    let limit = options.concurrency.unwrap_or(plan.warmup.len().max(options.workers));
    let slots = limit.clamp(1, plan.requests.len());
    let workers = options.workers.clamp(1, slots);
    // Without a limit and a schedule, everything is due at once.
    let at_once = options.concurrency.is_none().then(|| vec![0; plan.requests.len()]);
    let schedule = options.schedule.as_ref().or(at_once.as_ref());
    let until = options.duration.map(|limit| Ns::try_from(limit.as_nanos()).unwrap_or(Ns::MAX));
    let hands = if options.slots == Slots::Static && options.concurrency.is_some() { slots } else { 1 };
    let shared = Shared {
        target,
        connector: &connector,
        timeout: options.timeout,
        workers,
        limited: options.concurrency.is_some(),
        warmup: Queue::new(&plan.warmup),
        measured: Queue::measured(plan, schedule.map(Vec::as_slice), until, hands),
        barrier: Barrier::new(workers),
        start: OnceLock::new(),
        fault: Mutex::new(None),
        begun: OnceLock::new(),
        busy: Mutex::new(Vec::new()),
    };
    let mut timelines = Vec::with_capacity(plan.requests.len());
    let mut warmup_failures = 0;
    let (told, news) = channel();
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (shared, told, interrupt) = (&shared, told.clone(), interrupt.clone());
            // Slot s is worker s mod workers: the first requests of a tape spread over all of them.
            let slots = (worker..slots).step_by(workers).map(|slot| u32::try_from(slot).unwrap_or(u32::MAX));
            scope.spawn(move || shared.work(slots.collect(), &told, &interrupt));
        }
        drop(told);
        Collector::new(news, &shared.start, options.keeps_text).collect(|collected| match collected {
            Collected::Measured(timeline) => {
                on_end(&timeline);
                timelines.push(timeline);
            }
            Collected::WarmUp(timeline) => warmup_failures += usize::from(!timeline.outcome.is_success()),
        });
    });
    let (process, peak_memory_bytes) = busy::process();
    let begun = shared.begun.get().copied().unwrap_or(process);
    let workers = shared.busy.into_inner().unwrap_or_else(PoisonError::into_inner);
    let effort = Effort { workers, process: process.since(&begun), peak_memory_bytes };
    if let Some(fault) = shared.fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(fault);
    }
    let duration_ns = timelines.iter().map(|timeline| timeline.end_ns).max().unwrap_or(0);
    let interrupted = *interrupt.borrow();
    let mut unsent = shared.measured.rest();
    let mut left_out = 0;
    if until.is_some() && !interrupted {
        left_out = std::mem::take(&mut unsent).len() as u64;
    }
    for request in unsent {
        let timeline = Timeline {
            index: request.index,
            input_tokens: request.input_tokens,
            output_tokens: request.output_tokens,
            ..Timeline::default()
        };
        on_end(&timeline);
        timelines.push(timeline);
    }
    timelines.sort_by_key(|timeline| timeline.index);
    Ok(Report {
        timelines,
        left_out,
        start_monotonic_ns: shared.start.get().copied().unwrap_or(0),
        duration_ns,
        interrupted,
        warmup_failures,
        effort,
    })
}

/// Requests that slots take in order: those that wait for no other one.
struct Queue<'p> {
    requests: &'p [Prepared],
    /// When each is due, in ns from the run's start.
    schedule: Option<&'p [Ns]>,
    /// From when on nothing is given out, in ns from the run's start.
    until: Option<Ns>,
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
struct Turn<'p> {
    /// Its place in the plan.
    place: usize,
    request: &'p Prepared,
    /// When it is due, in ns from the run's start; none where it is to be sent as soon as it is taken.
    due: Option<Ns>,
    /// When it was taken.
    taken: u64,
}

impl<'p> Queue<'p> {
    /// Requests of which each may be sent whatever became of the others.
    fn new(requests: &'p [Prepared]) -> Self {
        Self {
            requests,
            schedule: None,
            until: None,
            followers: vec![None; requests.len()],
            heads: (0..requests.len()).collect(),
            next: Mutex::new(vec![0]),
            sent: requests.iter().map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// The measured requests, with their schedule, the run's limit in time, and the sessions' order.
    fn measured(plan: &'p Plan, schedule: Option<&'p [Ns]>, until: Option<Ns>, hands: usize) -> Self {
        let followers = followers(&plan.requests);
        let mut is_head = vec![true; plan.requests.len()];
        for follower in followers.iter().flatten() {
            is_head[*follower] = false;
        }
        let heads = (0..plan.requests.len()).filter(|place| is_head[*place]).collect();
        let next = Mutex::new((0..hands).collect());
        Self { schedule, until, followers, heads, next, ..Self::new(&plan.requests) }
    }

    /// The next request for this slot, in a run that started then, and the moment of its taking. Both are had under
    /// one lock: with one hand, tape order is send order, on however many threads.
    fn take(&self, slot: u32, start: Option<u64>) -> Option<Turn<'p>> {
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
        Some(Turn { place, request: &self.requests[place], due, taken })
    }

    /// The turn that waited for this one, which ended then.
    fn follow(&self, turn: &Turn<'p>, ended: u64, start: u64) -> Option<Turn<'p>> {
        let place = self.followers.get(turn.place).copied().flatten()?;
        let request = &self.requests[place];
        let ended_ns = ended.saturating_sub(start);
        let due = self.scheduled(place).map_or_else(
            || ended_ns + request.offset_ns.saturating_sub(turn.request.offset_ns),
            |scheduled| scheduled.max(ended_ns),
        );
        let is_left_out = self.until.is_some_and(|until| due >= until);
        (!is_left_out).then_some(Turn { place, request, due: Some(due), taken: ended })
    }

    fn scheduled(&self, place: usize) -> Option<Ns> {
        // A schedule that ends too soon has its last time for the rest.
        self.schedule.and_then(|schedule| schedule.get(place).or(schedule.last()).copied())
    }

    fn mark_sent(&self, turn: &Turn<'p>) {
        self.sent[turn.place].store(true, Ordering::Relaxed);
    }

    /// The requests that nobody sent.
    fn rest(&self) -> Vec<&'p Prepared> {
        let unsent = self.requests.iter().zip(&self.sent).filter(|(_, sent)| !sent.load(Ordering::Relaxed));
        unsent.map(|(request, _)| request).collect()
    }
}

/// What the workers share.
struct Shared<'p> {
    target: &'p Target,
    connector: &'p Connector,
    timeout: Duration,
    workers: usize,
    /// Whether the number of slots is a limit.
    limited: bool,
    warmup: Queue<'p>,
    measured: Queue<'p>,
    barrier: Barrier,
    /// The run's start: set once, between warm-up and measurement.
    start: OnceLock<u64>,
    /// Why the run cannot start.
    fault: Mutex<Option<Error>>,
    /// The process's processor time at the run's start.
    begun: OnceLock<Busy>,
    /// Each worker's processor time from there on.
    busy: Mutex<Vec<Busy>>,
}

impl Shared<'_> {
    /// One worker's life: connect, warm up, measure; in step with the others.
    fn work(&self, slots: Vec<u32>, collector: &Sender<News>, interrupt: &watch::Receiver<bool>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(|error| self.fail(Error::System(error))).ok();
        let local = LocalSet::new();
        let mut ready = None;
        if let Some(runtime) = &runtime {
            match local.block_on(runtime, self.connect(slots)) {
                Ok(open) => ready = Some(open),
                Err(error) => self.fail(error),
            }
        }
        self.barrier.wait();
        let (Some(runtime), Some((pacer, mut open)), false) = (runtime, ready, self.has_failed()) else {
            return;
        };
        let turnstile = Turnstile::new();
        let worker = Worker { shared: self, pacer, turnstile, collector, interrupt: interrupt.clone() };
        if !self.warmup.requests.is_empty() {
            open = local.block_on(&runtime, unconstrained(worker.closed_loop(open, &self.warmup)));
        }
        let before = busy::thread();
        if self.barrier.wait().is_leader() {
            self.begun.get_or_init(|| busy::process().0);
            // Every worker waits below until the start is set.
            self.start.get_or_init(monotonic_ns);
        }
        self.barrier.wait();
        if self.limited {
            local.block_on(&runtime, unconstrained(worker.closed_loop(open, &self.measured)));
        } else {
            local.block_on(&runtime, unconstrained(worker.open_loop(open, &self.measured)));
        }
        if let (Some(before), Some(after), Some(&start)) = (before, busy::thread(), self.start.get()) {
            // Waiting for the others' warm-up is no part of it.
            let before = Busy { wall_ns: start, ..before };
            self.busy.lock().unwrap_or_else(PoisonError::into_inner).push(after.since(&before));
        }
    }

    /// Opens one connection a slot, and the timer.
    async fn connect(&self, slots: Vec<u32>) -> Result<(Pacer, Vec<Slot>), Error> {
        let mut open = Vec::with_capacity(slots.len());
        for number in slots {
            let connection = self.connector.open().await.map_err(|reason| {
                let reason = match number {
                    0 => reason,
                    _ => format!("{reason} (connection {} of the concurrency asked for)", number + 1),
                };
                Error::Unreachable { url: self.target.url.clone(), reason }
            })?;
            open.push(Slot { number, connection: Some(Box::new(connection)) });
        }
        Ok((Pacer::start()?, open))
    }

    fn fail(&self, error: Error) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn has_failed(&self) -> bool {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// One worker, with what its slots need.
struct Worker<'w, 'p> {
    shared: &'w Shared<'p>,
    pacer: Pacer,
    turnstile: Turnstile,
    collector: &'w Sender<News>,
    interrupt: watch::Receiver<bool>,
}

impl<'p> Worker<'_, 'p> {
    /// Every slot takes requests and sends them, one after another. Each has wake-ups of its own. (The callers lift
    /// the scheduler's budget: it would hold back slot 129's read until the driver had been asked again.)
    async fn closed_loop(&self, slots: Vec<Slot>, queue: &Queue<'p>) -> Vec<Slot> {
        let slots: FuturesUnordered<_> = slots.into_iter().map(|slot| self.take_turns(slot, queue)).collect();
        self.turnstile.drain(slots).await
    }

    /// One slot's turns, until there is none left or the run is interrupted.
    async fn take_turns(&self, mut slot: Slot, queue: &Queue<'p>) -> Slot {
        let start = self.shared.start.get().copied();
        let mut free_since = start;
        while !*self.interrupt.borrow() {
            // What has a time of its own keeps to that.
            if queue.schedule.is_none() {
                self.turnstile.pass().await;
            }
            let Some(turn) = queue.take(slot.number, start) else {
                break;
            };
            (slot, free_since) = self.converse(slot, turn, free_since, queue).await;
        }
        slot
    }

    /// Sends a request when it is due, and after it the later turns of its session, until the last or an
    /// interruption. Takes and gives the time since when the slot is free.
    async fn converse(
        &self,
        mut slot: Slot,
        mut turn: Turn<'p>,
        mut free_since: Option<u64>,
        queue: &Queue<'p>,
    ) -> (Slot, Option<u64>) {
        loop {
            let (scheduled, dispatched) = match turn.due.map(|due| self.moment(due)) {
                None => (free_since.unwrap_or(turn.taken), Some(turn.taken)),
                Some(due) => {
                    tokio::select! {
                        biased;
                        () = self.wait_until(due) => (due, None),
                        () = interrupted(self.interrupt.clone()) => return (slot, free_since),
                    }
                }
            };
            queue.mark_sent(&turn);
            let exchange;
            (slot, exchange) = self.send(slot, turn.request, scheduled, dispatched).await;
            let ended = exchange.ended;
            free_since = Some(ended);
            // The collector outlives every worker.
            drop(self.collector.send(News::End(Box::new(exchange))));
            match queue.follow(&turn, ended, self.moment(0)) {
                Some(next) if !*self.interrupt.borrow() => turn = next,
                _ => return (slot, free_since),
            }
        }
    }

    /// Sends each request at its time, on the slot that was free last or on a new one.
    async fn open_loop(&self, mut idle: Vec<Slot>, queue: &Queue<'p>) {
        let mut busy = FuturesUnordered::new();
        let mut number = idle.iter().map(|slot| slot.number).max().unwrap_or(0);
        let step = u32::try_from(self.shared.workers).unwrap_or(u32::MAX);
        'requests: while !*self.interrupt.borrow() {
            let Some(turn) = queue.take(0, self.shared.start.get().copied()) else {
                break;
            };
            let due = turn.due.map_or(turn.taken, |due| self.moment(due));
            let mut wait = std::pin::pin!(self.wait_until(due));
            loop {
                tokio::select! {
                    biased;
                    () = &mut wait => break,
                    Some((slot, _)) = busy.next() => idle.push(slot),
                    () = interrupted(self.interrupt.clone()) => break 'requests,
                }
            }
            let slot = idle.pop().unwrap_or_else(|| {
                number = number.saturating_add(step);
                Slot { number, connection: None }
            });
            // Sent, and stamped, when it is polled next: after those of a burst that are before it.
            busy.push(self.converse(slot, turn, None, queue));
        }
        while busy.next().await.is_some() {}
    }

    /// Sends a request on a slot: dispatched then, or else at the first poll.
    async fn send(
        &self,
        slot: Slot,
        request: &Prepared,
        scheduled: u64,
        dispatched: Option<u64>,
    ) -> (Slot, Exchange) {
        let Shared { connector, target, timeout, .. } = *self.shared;
        let dispatched = dispatched.unwrap_or_else(monotonic_ns);
        let mut exchange = Exchange::new(request, slot.number, scheduled, dispatched);
        exchange.collector = Some(self.collector.clone());
        slot.carry(exchange, request, (connector, target), timeout, self.interrupt.clone()).await
    }

    /// A time of the schedule on the monotonic clock.
    fn moment(&self, due: Ns) -> u64 {
        self.shared.start.get().copied().unwrap_or(0).saturating_add(due)
    }

    /// Waits for a time of the monotonic clock: never too short, so that nothing is sent before it is due.
    async fn wait_until(&self, moment: u64) {
        if moment > monotonic_ns() {
            self.pacer.sleep_until(moment.saturating_add(LEAD_NS)).await;
        }
    }
}
