//! The closed loop: a fixed number of slots, each with one held connection, take the tape's requests in order.
//!
//! One single-threaded runtime a worker; its slots and their connections never leave it. The calling thread collects
//! finished exchanges and parses them, so that nothing is parsed where stamps are taken.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Barrier, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokentape_pacer::monotonic_ns;
use tokio::sync::watch;
use tokio::task::unconstrained;

use super::connection::{Connection, Connector};
use super::exchange::{Ending, Exchange};
use super::plan::Prepared;
use super::{Error, Plan, Target};
use crate::timeline::Timeline;

/// How to replay.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many requests are in flight at once, at most.
    pub concurrency: usize,
    /// How many threads send; slots are dealt out to them.
    pub workers: usize,
    /// The time limit of each request, from its dispatch.
    pub timeout: Duration,
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
    let slots = options.concurrency.clamp(1, plan.requests.len());
    let workers = options.workers.clamp(1, slots);
    let shared = Shared {
        target,
        connector: &connector,
        timeout: options.timeout,
        warmup: Queue::new(&plan.warmup),
        measured: Queue::new(&plan.requests),
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
        for exchange in exchanges {
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
    next: Mutex<usize>,
}

impl<'p> Queue<'p> {
    fn new(requests: &'p [Prepared]) -> Self {
        Self { requests, next: Mutex::new(0) }
    }

    /// The next request and the moment of its dispatch. Both are taken under one lock: tape order is send order,
    /// on however many threads.
    fn take(&self) -> Option<(&'p Prepared, u64)> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let request = self.requests.get(*next)?;
        *next += 1;
        Some((request, monotonic_ns()))
    }

    /// The requests that nobody took.
    fn rest(&self) -> &'p [Prepared] {
        &self.requests[*self.next.lock().unwrap_or_else(PoisonError::into_inner)..]
    }
}

/// What the workers share.
struct Shared<'p> {
    target: &'p Target,
    connector: &'p Connector,
    timeout: Duration,
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
        let mut open = Vec::new();
        if let Some(runtime) = &runtime {
            match runtime.block_on(self.connect(slots)) {
                Ok(slots) => open = slots,
                Err(error) => self.fail(error),
            }
        }
        self.barrier.wait();
        let Some(runtime) = runtime.filter(|_| !self.has_failed()) else {
            return;
        };
        let run = |open: Vec<Slot>, queue: &Queue<'_>| {
            // Each future has wake-ups of its own. The scheduler's budget is lifted: it would hold back slot 129's
            // read until the driver had been asked again.
            let slots: FuturesUnordered<_> =
                open.into_iter().map(|slot| slot.run(self, queue, ended, interrupt)).collect();
            runtime.block_on(unconstrained(slots.collect::<Vec<_>>()))
        };
        if !self.warmup.requests.is_empty() {
            open = run(open, &self.warmup);
        }
        if self.barrier.wait().is_leader() {
            // Every worker waits below until the start is set.
            self.start.get_or_init(monotonic_ns);
        }
        self.barrier.wait();
        run(open, &self.measured);
    }

    /// Opens one connection a slot.
    async fn connect(&self, slots: Vec<u32>) -> Result<Vec<Slot>, Error> {
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
        Ok(open)
    }

    fn fail(&self, error: Error) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn has_failed(&self) -> bool {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// One place in the closed loop.
struct Slot {
    number: u32,
    connection: Option<Connection>,
}

impl Slot {
    /// Takes requests and sends them, one after another, until there is none or the run is interrupted.
    async fn run(
        mut self,
        shared: &Shared<'_>,
        queue: &Queue<'_>,
        ended: &Sender<Exchange>,
        interrupt: &watch::Receiver<bool>,
    ) -> Self {
        let mut interrupt = interrupt.clone();
        let mut free_since = shared.start.get().copied();
        while !*interrupt.borrow() {
            let Some((request, dispatched)) = queue.take() else {
                break;
            };
            let scheduled = free_since.unwrap_or(dispatched);
            let mut exchange = Exchange::new(request, self.number, scheduled, dispatched);
            exchange.ending = tokio::select! {
                biased;
                ending = self.send(request, shared, &mut exchange) => ending,
                () = interrupted(&mut interrupt) => Ending::Cancelled,
            };
            self.close(&mut exchange);
            free_since = Some(exchange.ended);
            // The collector outlives every worker.
            drop(ended.send(exchange));
        }
        self
    }

    async fn send(&mut self, request: &Prepared, shared: &Shared<'_>, exchange: &mut Exchange) -> Ending {
        let limit_ms = u64::try_from(shared.timeout.as_millis()).unwrap_or(u64::MAX);
        let work = async {
            let connection = match self.connection.take() {
                Some(mut held) => {
                    if held.is_ready().await {
                        Some(held)
                    } else {
                        None
                    }
                }
                None => None,
            };
            let connection = match connection {
                Some(held) => held,
                None => match shared.connector.open().await {
                    Ok(new) => {
                        exchange.connected = Some(monotonic_ns());
                        new
                    }
                    Err(reason) => return Ending::Connect(reason),
                },
            };
            self.connection.insert(connection).send(request, shared.target, exchange).await
        };
        tokio::time::timeout(shared.timeout, work).await.unwrap_or(Ending::Timeout { limit_ms })
    }

    /// Takes the exchange's stamps, and drops a connection that is in the middle of a response.
    fn close(&mut self, exchange: &mut Exchange) {
        if let Some(connection) = &mut self.connection {
            exchange.stamps = connection.finish();
        }
        let complete = matches!(exchange.ending, Ending::Complete);
        // A complete response ended with its last read, whenever this task came to see it.
        exchange.ended = match exchange.stamps.reads_at.last() {
            Some(last) if complete => *last,
            _ => monotonic_ns(),
        };
        if !complete {
            self.connection = None;
        }
    }
}

/// Ends when the run is interrupted.
async fn interrupted(interrupt: &mut watch::Receiver<bool>) {
    if interrupt.wait_for(|stop| *stop).await.is_err() {
        // Nobody can interrupt any more.
        std::future::pending::<()>().await;
    }
}
