//! Sends a plan by a schedule, or as fast as a limit allows.
//!
//! - **Closed loop**: a fixed number of slots, each with one held connection, take the requests in order.
//! - **Open loop**: each request goes out at its own time, whatever became of those before it, on a connection that is
//!   free or on a new one.
//! - **Limited open loop**: the schedule and a fixed number of slots. A request whose time has come waits for a slot,
//!   as it would for a semaphore; the wait is the difference between `scheduled_ns` and `dispatched_ns`.
//!
//! One single-threaded runtime a worker; its slots and their connections never leave it. The calling thread collects
//! finished exchanges and parses them, so that nothing is parsed where stamps are taken.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Barrier, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokentape_pacer::{LEAD_NS, Pacer, monotonic_ns};
use tokio::sync::watch;
use tokio::task::{LocalSet, unconstrained};

use super::connection::Connector;
use super::exchange::Exchange;
use super::plan::Prepared;
use super::slot::{Slot, interrupted};
use super::{Error, Plan, Target};
use crate::timeline::{Ns, Timeline};

/// How to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many requests are in flight at once, at most; without a limit, as many as the schedule brings.
    pub concurrency: Option<usize>,
    /// When each request is to be sent, in ns from the run's start, in tape order and never earlier than the one
    /// before it. Without a schedule, as soon as the limit allows.
    pub schedule: Option<Vec<Ns>>,
    /// How many threads send; slots are dealt out to them.
    pub workers: usize,
    /// The time limit of each request, from its dispatch.
    pub timeout: Duration,
    /// Whether each timeline keeps the generated text; else only those without a server's count of its tokens do.
    pub keeps_text: bool,
}

/// What a replay brought.
#[derive(Debug)]
pub struct Report {
    /// One timeline for each request of the plan, in tape order.
    pub timelines: Vec<Timeline>,
    /// The run's start on the monotonic clock: the zero of every timeline.
    pub start_monotonic_ns: u64,
    /// From the run's start to the end of the last request.
    pub duration_ns: u64,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// How many warm-up requests failed.
    pub warmup_failures: usize,
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
    let shared = Shared {
        target,
        connector: &connector,
        timeout: options.timeout,
        workers,
        limited: options.concurrency.is_some(),
        warmup: Queue::new(&plan.warmup, None),
        measured: Queue::new(&plan.requests, schedule.map(Vec::as_slice)),
        barrier: Barrier::new(workers),
        start: OnceLock::new(),
        fault: Mutex::new(None),
    };
    let mut timelines = Vec::with_capacity(plan.requests.len());
    let mut warmup_failures = 0;
    let (ended, exchanges) = channel();
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (shared, ended, interrupt) = (&shared, ended.clone(), interrupt.clone());
            // Slot s is worker s mod workers: the first requests of a tape spread over all of them.
            let slots = (worker..slots).step_by(workers).map(|slot| u32::try_from(slot).unwrap_or(u32::MAX));
            scope.spawn(move || shared.work(slots.collect(), &ended, &interrupt));
        }
        drop(ended);
        for mut exchange in exchanges {
            exchange.keeps_text = options.keeps_text;
            // The warm-up was sent before the start, however late this thread comes to see it.
            match shared.start.get().filter(|origin| exchange.dispatched >= **origin) {
                Some(origin) => {
                    let timeline = exchange.timeline(*origin);
                    on_end(&timeline);
                    timelines.push(timeline);
                }
                None => warmup_failures += usize::from(!exchange.timeline(0).outcome.is_success()),
            }
        }
    });
    if let Some(fault) = shared.fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(fault);
    }
    let duration_ns = timelines.iter().map(|timeline| timeline.end_ns).max().unwrap_or(0);
    let unsent = shared.measured.rest();
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
        start_monotonic_ns: shared.start.get().copied().unwrap_or(0),
        duration_ns,
        interrupted: *interrupt.borrow(),
        warmup_failures,
    })
}

/// Requests that slots take in order.
struct Queue<'p> {
    requests: &'p [Prepared],
    /// When each is due, in ns from the run's start.
    schedule: Option<&'p [Ns]>,
    next: Mutex<usize>,
    /// Those that were taken and never sent.
    returned: Mutex<Vec<&'p Prepared>>,
}

/// A request that a slot has taken.
struct Turn<'p> {
    request: &'p Prepared,
    /// When it is due, in ns from the run's start; none where it is to be sent as soon as it is taken.
    due: Option<Ns>,
    /// When it was taken.
    taken: u64,
}

impl<'p> Queue<'p> {
    fn new(requests: &'p [Prepared], schedule: Option<&'p [Ns]>) -> Self {
        Self { requests, schedule, next: Mutex::new(0), returned: Mutex::new(Vec::new()) }
    }

    /// The next request and the moment of its taking. Both are had under one lock: tape order is send order, on
    /// however many threads.
    fn take(&self) -> Option<Turn<'p>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let request = self.requests.get(*next)?;
        // A schedule that ends too soon has its last time for the rest.
        let due = self.schedule.and_then(|schedule| schedule.get(*next).or(schedule.last()).copied());
        *next += 1;
        Some(Turn { request, due, taken: monotonic_ns() })
    }

    /// Takes back a request that was not sent after all.
    fn give_back(&self, request: &'p Prepared) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    }

    /// The requests that nobody sent.
    fn rest(&self) -> Vec<&'p Prepared> {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned.iter().copied().chain(&self.requests[next..]).collect()
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
}

impl Shared<'_> {
    /// One worker's life: connect, warm up, measure; in step with the others.
    fn work(&self, slots: Vec<u32>, ended: &Sender<Exchange>, interrupt: &watch::Receiver<bool>) {
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
        let worker = Worker { shared: self, pacer, ended, interrupt: interrupt.clone() };
        if !self.warmup.requests.is_empty() {
            open = local.block_on(&runtime, unconstrained(worker.closed_loop(open, &self.warmup)));
        }
        if self.barrier.wait().is_leader() {
            // Every worker waits below until the start is set.
            self.start.get_or_init(monotonic_ns);
        }
        self.barrier.wait();
        if self.limited {
            local.block_on(&runtime, unconstrained(worker.closed_loop(open, &self.measured)));
        } else {
            local.block_on(&runtime, unconstrained(worker.open_loop(open, &self.measured)));
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
            open.push(Slot { number, connection: Some(connection) });
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
    ended: &'w Sender<Exchange>,
    interrupt: watch::Receiver<bool>,
}

impl<'p> Worker<'_, 'p> {
    /// Every slot takes requests and sends them, one after another. Each has wake-ups of its own. (The callers lift
    /// the scheduler's budget: it would hold back slot 129's read until the driver had been asked again.)
    async fn closed_loop(&self, slots: Vec<Slot>, queue: &Queue<'p>) -> Vec<Slot> {
        let slots: FuturesUnordered<_> = slots.into_iter().map(|slot| self.take_turns(slot, queue)).collect();
        slots.collect().await
    }

    /// One slot's turns, until there is none left or the run is interrupted.
    async fn take_turns(&self, mut slot: Slot, queue: &Queue<'p>) -> Slot {
        let mut free_since = self.shared.start.get().copied();
        while !*self.interrupt.borrow() {
            let Some(turn) = queue.take() else {
                break;
            };
            let (scheduled, dispatched) = match turn.due.map(|due| self.moment(due)) {
                None => (free_since.unwrap_or(turn.taken), turn.taken),
                Some(due) => {
                    tokio::select! {
                        biased;
                        () = self.wait_until(due) => (due, monotonic_ns()),
                        () = interrupted(self.interrupt.clone()) => {
                            queue.give_back(turn.request);
                            break;
                        }
                    }
                }
            };
            let exchange;
            (slot, exchange) = self.send(slot, turn.request, scheduled, dispatched).await;
            free_since = Some(exchange.ended);
            // The collector outlives every worker.
            drop(self.ended.send(exchange));
        }
        slot
    }

    /// Sends each request at its time, on the slot that was free last or on a new one.
    async fn open_loop(&self, mut idle: Vec<Slot>, queue: &Queue<'p>) {
        let mut busy = FuturesUnordered::new();
        let mut number = idle.iter().map(|slot| slot.number).max().unwrap_or(0);
        let step = u32::try_from(self.shared.workers).unwrap_or(u32::MAX);
        'requests: while !*self.interrupt.borrow() {
            let Some(turn) = queue.take() else {
                break;
            };
            let due = turn.due.map_or(turn.taken, |due| self.moment(due));
            let mut wait = std::pin::pin!(self.wait_until(due));
            loop {
                tokio::select! {
                    biased;
                    () = &mut wait => break,
                    Some((slot, exchange)) = busy.next() => {
                        idle.push(slot);
                        drop(self.ended.send(exchange));
                    }
                    () = interrupted(self.interrupt.clone()) => {
                        queue.give_back(turn.request);
                        break 'requests;
                    }
                }
            }
            let slot = idle.pop().unwrap_or_else(|| {
                number = number.saturating_add(step);
                Slot { number, connection: None }
            });
            busy.push(self.send(slot, turn.request, due, monotonic_ns()));
        }
        while let Some((_, exchange)) = busy.next().await {
            drop(self.ended.send(exchange));
        }
    }

    async fn send(
        &self,
        slot: Slot,
        request: &Prepared,
        scheduled: u64,
        dispatched: u64,
    ) -> (Slot, Exchange) {
        let Shared { connector, target, timeout, .. } = *self.shared;
        let exchange = Exchange::new(request, slot.number, scheduled, dispatched);
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
