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
//! What a request's failure, a user's impatience or a conversation's history change in this is [`Behaviour`]'s.
//!
//! One single-threaded runtime a worker; its slots and their connections never leave it. The collector parses what the
//! exchanges bring, so that nothing is parsed where stamps are taken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Barrier, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokentape_pacer::{Pacer, go_first, monotonic_ns};
use tokio::sync::{oneshot, watch};
use tokio::task::{LocalSet, unconstrained, yield_now};

use super::behaviour::{Behaviour, History};
use super::busy;
use super::cancel::{After, Watch};
use super::collector::{Collected, Collector};
use super::connection::Connector;
use super::exchange::{Exchange, News, Successor};
use super::history::Histories;
use super::plan::{Prepared, digest_with, followers};
use super::queue::{Queue, Turn};
use super::slot::{Patience, Slot, interrupted};
use super::turnstile::Turnstile;
use super::{Error, Plan, Target};
use crate::effort::{Busy, Effort, Priority};
use crate::schedule::Slots;
use crate::timeline::{Ns, Timeline};

/// How long before it is due a request is waited for awake, in ns: at two thousand requests a second, a fifth of a
/// processor at most.
const AWAKE_NS: u64 = 100_000;

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
    /// How these threads are to run; the system may refuse, and the report tells what they had. Without a wish, they go
    /// first where the server runs on another machine: on this one it would be the server that waits.
    pub priority: Option<Priority>,
    /// The time limit of each request, from its dispatch.
    pub timeout: Duration,
    /// What the client does besides sending each request once; the warm-up goes out without any of it.
    pub behaviour: Behaviour,
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
            priority: None,
            timeout: Duration::from_secs(600),
            behaviour: Behaviour::default(),
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
    /// How many requests went out with other bodies than the plan's, because they repeat what the server said.
    pub rebuilt: u64,
    /// The digest of the requests as they were sent, where there are such; those that were not sent count as planned.
    pub wire_digest: Option<String>,
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
    let mut histories = match options.behaviour.history {
        History::Recorded => None,
        History::Answers => Some(Histories::new(&plan.requests, &followers(&plan.requests))?),
    };
    let hands = if options.slots == Slots::Static && options.concurrency.is_some() { slots } else { 1 };
    let shared = Shared {
        target,
        connector: &connector,
        timeout: options.timeout,
        workers,
        limited: options.concurrency.is_some(),
        warmup: Queue::new(&plan.warmup),
        measured: Queue::measured(plan, schedule.map(Vec::as_slice), until, hands, options.behaviour.clone()),
        barrier: Barrier::new(workers),
        start: OnceLock::new(),
        fault: Mutex::new(None),
        begun: OnceLock::new(),
        busy: Mutex::new(Vec::new()),
        goes_first: AtomicBool::new(match options.priority {
            Some(priority) => priority == Priority::RealTime,
            None => !connector.is_local(),
        }),
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
        let collector = Collector::new(news, &shared.start, options.keeps_text).with(histories.as_mut());
        collector.collect(|collected| match collected {
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
    let priority = if shared.goes_first.into_inner() { Priority::RealTime } else { Priority::Normal };
    let effort = Effort { workers, process: process.since(&begun), priority, peak_memory_bytes };
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
    let bodies = histories.map(Histories::into_bodies).unwrap_or_default();
    Ok(Report {
        timelines,
        left_out,
        start_monotonic_ns: shared.start.get().copied().unwrap_or(0),
        duration_ns,
        interrupted,
        warmup_failures,
        rebuilt: bodies.len() as u64,
        wire_digest: (!bodies.is_empty()).then(|| digest_with(&plan.requests, &bodies)),
        effort,
    })
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
    /// Whether the workers go before ordinary threads: asked for, and refused to none so far.
    goes_first: AtomicBool,
}

impl Shared<'_> {
    /// One worker's life: connect, warm up, measure; in step with the others.
    fn work(&self, slots: Vec<u32>, collector: &Sender<News>, interrupt: &watch::Receiver<bool>) {
        if self.goes_first.load(Ordering::Relaxed) && !go_first() {
            self.goes_first.store(false, Ordering::Relaxed);
        }
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
        if !self.warmup.is_empty() {
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
        loop {
            // What has a time of its own keeps to that.
            if !queue.is_scheduled() {
                self.turnstile.pass().await;
            }
            // After the wait in line: those who stand there are not to send what would be cut at once.
            if *self.interrupt.borrow() {
                break;
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
            // Made on another thread while this user thinks.
            let own = match turn.body.take() {
                Some(body) => body.await.ok().map(|body| Box::new(turn.request.with_body(body))),
                None => None,
            };
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
            let request = own.as_deref().unwrap_or(turn.request);
            let mut exchange;
            (slot, exchange) = self.persist(slot, request, scheduled, dispatched, &queue.behaviour).await;
            let ended = exchange.ended;
            free_since = Some(ended);
            let mut next = queue.follow(&turn, ended, self.moment(0)).filter(|_| !*self.interrupt.borrow());
            if let Some(next) = next.as_mut().filter(|_| queue.behaviour.history == History::Answers) {
                let (body, made) = oneshot::channel();
                exchange.successor = Some(Successor { place: turn.place, next: next.place, body });
                next.body = Some(made);
            }
            self.tell(News::End(Box::new(exchange)));
            match next {
                Some(next) => turn = next,
                None => return (slot, free_since),
            }
        }
    }

    /// Sends a request, and again after each failure that asks for it. Gives the last attempt.
    async fn persist(
        &self,
        mut slot: Slot,
        request: &Prepared,
        scheduled: u64,
        mut dispatched: Option<u64>,
        behaviour: &Behaviour,
    ) -> (Slot, Exchange) {
        let mut attempts = 1;
        loop {
            let exchange;
            (slot, exchange) = self.send(slot, request, scheduled, dispatched, behaviour).await;
            let retry_after = exchange.head.as_ref().and_then(|head| head.retry_after);
            let wait = behaviour.retry.as_ref().zip(exchange.failure());
            let Some(wait) = wait.and_then(|(retry, failure)| retry.wait(attempts, failure, retry_after))
            else {
                return (slot, exchange);
            };
            let wait = Ns::try_from(wait.as_nanos()).unwrap_or(Ns::MAX);
            tokio::select! {
                biased;
                () = interrupted(self.interrupt.clone()) => return (slot, exchange),
                () = self.wait_until(exchange.ended.saturating_add(wait)) => {}
            }
            self.tell(News::Attempt { exchange: Box::new(exchange), at: monotonic_ns() });
            dispatched = None;
            attempts += 1;
        }
    }

    fn tell(&self, news: News) {
        // The collector outlives every worker.
        drop(self.collector.send(news));
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
        behaviour: &Behaviour,
    ) -> (Slot, Exchange) {
        let Shared { connector, target, timeout, .. } = *self.shared;
        // Drawn before the moment that counts as the dispatch.
        let (mut patience, mut watch) = (Patience::new(timeout), None);
        match behaviour.cancel.and_then(|cancel| cancel.of(request.index)) {
            Some(After::Tokens(tokens)) => watch = Some(Box::new(Watch::new(tokens))),
            Some(After::TimeNs(limit)) => patience = patience.or_on_purpose(Duration::from_nanos(limit)),
            None => {}
        }
        let dispatched = dispatched.unwrap_or_else(monotonic_ns);
        let mut exchange = Exchange::new(request, slot.number, scheduled, dispatched);
        exchange.collector = Some(self.collector.clone());
        exchange.watch = watch;
        slot.carry(exchange, request, (connector, target), patience, self.interrupt.clone()).await
    }

    /// A time of the schedule on the monotonic clock.
    fn moment(&self, due: Ns) -> u64 {
        self.shared.start.get().copied().unwrap_or(0).saturating_add(due)
    }

    /// Waits for a time of the monotonic clock: never too short, so that nothing is sent before it is due. The last of
    /// it is waited awake, with an eye on the sockets: waking up takes the system as long as sending does.
    async fn wait_until(&self, moment: u64) {
        let nearly = moment.saturating_sub(AWAKE_NS);
        if nearly > monotonic_ns() {
            self.pacer.sleep_until(nearly).await;
        }
        while monotonic_ns() < moment {
            yield_now().await;
        }
    }
}
