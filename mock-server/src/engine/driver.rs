//! The engine in real time: one thread steps it, and tells each answer's deadlines as a step begins.
//!
//! A step begins when the one before it ends, or when a request arrives at an engine at rest: at those moments, not when
//! this thread wakes up, so nothing drifts. Requests that arrived by then are part of it. A deadline is known a whole
//! step ahead, and the worker that writes the token keeps it.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokentape_pacer::monotonic_ns;

use super::{Engine, Id, Profile, Request, TooLong, Totals};
use crate::deadlines::Feed;

/// The least and the most that a step waits for requests that arrived before it and are still being read by a worker,
/// in ns.
const GRACE_NS: (u64, u64) = (100_000, 2_000_000);

/// The share of the step before it that a step waits: its tokens are due when it ends, and are told well before.
const GRACE_SHARE: u64 = 4;

/// The way to the engine's thread.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    arrivals: Sender<Arrival>,
    room: u64,
    block_tokens: u32,
    shown: Shown,
}

/// How the engine stands: as the step under way will leave it, or the last one has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Standing {
    /// Sequences admitted.
    pub(crate) running: usize,
    /// Sequences not yet admitted, or sent back.
    pub(crate) waiting: usize,
    /// The share of the KV cache that sequences hold.
    pub(crate) cache_usage: f64,
    /// What it has done so far.
    pub(crate) totals: Totals,
}

/// Where the thread shows that, and others look.
#[derive(Clone, Debug, Default)]
struct Shown(Arc<Mutex<Standing>>);

impl Shown {
    /// Nothing under the lock can panic.
    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Arrival {
    at_ns: u64,
    request: Request,
    feed: Feed,
}

impl Driver {
    /// Starts the thread. It ends when every driver is gone and everything under way is done or abandoned.
    pub(crate) fn start(profile: Profile) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (arrivals, incoming) = mpsc::channel();
        let shown = Shown::default();
        let driver = Self {
            arrivals,
            room: profile.cache.tokens(),
            block_tokens: profile.cache.block_tokens,
            shown: shown.clone(),
        };
        let desk = Desk::new(Engine::new(profile));
        let thread = std::thread::Builder::new()
            .name("mock-engine".to_owned())
            .spawn(move || drive(desk, &incoming, &shown))?;
        Ok((driver, thread))
    }

    /// The tokens in a block of its cache.
    pub(crate) fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// How the engine stands.
    pub(crate) fn standing(&self) -> Standing {
        *self.shown.lock()
    }

    /// Hands a request to the engine; the deadlines of its tokens come through the feed.
    pub(crate) fn submit(&self, at_ns: u64, request: Request) -> Result<Feed, TooLong> {
        request.check(self.room)?;
        let feed = Feed::default();
        // The thread outlives every driver.
        self.arrivals.send(Arrival { at_ns, request, feed: feed.clone() }).unwrap_or_default();
        Ok(feed)
    }
}

/// What the thread knows, without its clock.
#[derive(Debug)]
struct Desk {
    engine: Engine,
    /// Those that the engine does not have yet, by arrival.
    early: VecDeque<Arrival>,
    feeds: HashMap<Id, Feed>,
    outputs: Vec<super::Output>,
    /// When the step under way ends.
    free_ns: u64,
    /// How long a step waits for those that arrived before it.
    grace_ns: u64,
}

impl Desk {
    fn new(engine: Engine) -> Self {
        let (free_ns, grace_ns) = (0, GRACE_NS.0);
        Self { engine, early: VecDeque::new(), feeds: HashMap::new(), outputs: Vec::new(), free_ns, grace_ns }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let place = self.early.partition_point(|other| other.at_ns <= arrival.at_ns);
        self.early.insert(place, arrival);
    }

    /// When the next step can begin; none while there is nothing to do.
    fn due_ns(&self) -> Option<u64> {
        if self.engine.running() + self.engine.waiting() > 0 {
            return Some(self.free_ns);
        }
        self.early.front().map(|arrival| arrival.at_ns.max(self.free_ns))
    }

    /// When that is to begin: once all who arrived before are known.
    fn turn_ns(&self) -> Option<u64> {
        self.due_ns().map(|due_ns| due_ns.saturating_add(self.grace_ns))
    }

    fn standing(&self) -> Standing {
        let Self { engine, .. } = self;
        Standing {
            running: engine.running(),
            waiting: engine.waiting(),
            cache_usage: engine.cache_usage(),
            totals: engine.totals(),
        }
    }

    /// Begins the step that is due then.
    fn step(&mut self, begin_ns: u64) {
        let arrived = self.early.partition_point(|arrival| arrival.at_ns <= begin_ns);
        for arrival in self.early.drain(..arrived) {
            if let Ok(id) = self.engine.submit(arrival.request) {
                self.feeds.insert(id, arrival.feed);
            }
        }
        // A client that went away leaves its feed behind.
        let gone: Vec<Id> =
            self.feeds.iter().filter(|(_, feed)| feed.is_abandoned()).map(|(id, _)| *id).collect();
        for id in gone {
            self.engine.cancel(id);
            self.feeds.remove(&id);
        }
        let Some(step) = self.engine.step(begin_ns, &mut self.outputs) else { return };
        self.free_ns = step.end_ns;
        let grace_ns = step.end_ns.saturating_sub(begin_ns) / GRACE_SHARE;
        self.grace_ns = grace_ns.clamp(GRACE_NS.0, GRACE_NS.1);
        for output in self.outputs.drain(..) {
            if let Some(feed) = self.feeds.get(&output.id) {
                feed.push(output.tokens, step.end_ns);
            }
            if output.is_last {
                self.feeds.remove(&output.id);
            }
        }
    }
}

fn drive(mut desk: Desk, incoming: &Receiver<Arrival>, shown: &Shown) {
    let mut is_open = true;
    loop {
        let now_ns = monotonic_ns();
        // A request's arrival is a moment ago when it comes here, so a step that others might join waits a little.
        match (desk.due_ns(), desk.turn_ns()) {
            (Some(due_ns), Some(turn_ns)) if turn_ns <= now_ns || !is_open => {
                desk.step(due_ns);
                *shown.lock() = desk.standing();
            }
            (_, turn_ns) => {
                let arrival = match turn_ns {
                    None => incoming.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(turn_ns) => incoming.recv_timeout(Duration::from_nanos(turn_ns - now_ns)),
                };
                match arrival {
                    Ok(arrival) => desk.arrive(arrival),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => is_open = false,
                }
            }
        }
        while let Ok(arrival) = incoming.try_recv() {
            desk.arrive(arrival);
        }
        if !is_open && desk.due_ns().is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::timing::{Purpose, RequestKey, Stream};

    fn due(feed: &Feed, token: u32) -> Poll<u64> {
        feed.poll_token(token, &mut Context::from_waker(Waker::noop()))
    }

    fn arrival(at_ns: u64, max_tokens: u32) -> (Arrival, Feed) {
        let feed = Feed::default();
        let request = Request { prompt_tokens: 8, max_tokens, ..Request::default() };
        (Arrival { at_ns, request, feed: feed.clone() }, feed)
    }

    const MS: u64 = 1_000_000;

    /// Times are those of arrivals and steps, whenever the thread comes to them.
    #[test]
    fn deadlines_do_not_depend_on_when_the_thread_wakes() {
        let mut desk = Desk::new(Engine::new(Profile::load("fixed").unwrap()));
        let ((first, feed), (second, other)) = (arrival(100 * MS, 3), arrival(105 * MS, 2));
        // Told in the wrong order.
        desk.arrive(second);
        desk.arrive(first);
        assert_eq!(desk.due_ns(), Some(100 * MS));
        assert_eq!(desk.grace_ns, GRACE_NS.0);
        desk.step(100 * MS);
        assert_eq!(desk.grace_ns, GRACE_NS.1);
        assert_eq!((due(&feed, 0), due(&other, 0)), (Poll::Ready(120 * MS), Poll::Pending));
        assert_eq!(desk.due_ns(), Some(120 * MS));
        assert_eq!((desk.standing().running, desk.standing().waiting), (1, 0));
        assert!(desk.standing().cache_usage > 0.0);
        desk.step(120 * MS);
        assert_eq!((due(&feed, 1), due(&other, 0)), (Poll::Ready(140 * MS), Poll::Ready(140 * MS)));
        desk.step(140 * MS);
        assert_eq!((due(&feed, 2), due(&other, 1)), (Poll::Ready(145 * MS), Poll::Ready(145 * MS)));
        assert_eq!(desk.due_ns(), None);
        assert!(desk.feeds.is_empty());
    }

    /// Requests are told by workers that are busy with others, each by up to 1.9 ms after its arrival and in any order:
    /// what the engine does is what it would have done with all of them known beforehand.
    #[test]
    fn what_is_told_within_the_grace_changes_nothing() {
        let mut random = Stream::new(1, Purpose::Timing, &RequestKey::new("", b"", b""));
        let mut at_ns = 0;
        let mut requests: Vec<(u64, u64, u32)> = (0..200)
            .map(|_| {
                at_ns += random.below(40 * MS);
                (at_ns + random.below(1_900_000), at_ns, 1 + u32::try_from(random.below(100)).unwrap())
            })
            .collect();
        // Nothing was before the first: a step that waits for no other has the least grace.
        requests[0].0 = requests[0].1;
        let told = times(&requests);
        for (told_ns, at_ns, _) in &mut requests {
            *told_ns = *at_ns;
        }
        let known = times(&requests);
        assert!(told == known);
    }

    /// When the tokens of requests are due, each told at a moment, arrived at one, and of so many tokens.
    fn times(requests: &[(u64, u64, u32)]) -> Vec<Vec<u64>> {
        let mut desk = Desk::new(Engine::new(Profile::load("h100-llama-3.1-8b").unwrap()));
        let mut told: Vec<(u64, usize)> = requests.iter().map(|request| request.0).zip(0..).collect();
        told.sort_unstable();
        let feeds: Vec<Feed> = requests.iter().map(|_| Feed::default()).collect();
        for (told_ns, place) in told {
            while let Some(due_ns) = desk.due_ns().filter(|_| desk.turn_ns() <= Some(told_ns)) {
                desk.step(due_ns);
            }
            let (_, at_ns, max_tokens) = requests[place];
            let request = Request { prompt_tokens: 300, max_tokens, ..Request::default() };
            desk.arrive(Arrival { at_ns, request, feed: feeds[place].clone() });
        }
        while let Some(due_ns) = desk.due_ns() {
            desk.step(due_ns);
        }
        let token = |feed: &Feed, token| match due(feed, token) {
            Poll::Ready(due_ns) => due_ns,
            Poll::Pending => panic!("a token was never told"),
        };
        let tokens =
            |(feed, request): (&Feed, &(u64, u64, u32))| (0..request.2).map(|n| token(feed, n)).collect();
        feeds.iter().zip(requests).map(tokens).collect()
    }

    #[test]
    fn what_nobody_waits_for_is_dropped() {
        let mut desk = Desk::new(Engine::new(Profile::load("fixed").unwrap()));
        let (first, feed) = arrival(0, 100);
        desk.arrive(first);
        desk.step(0);
        drop(feed);
        desk.step(desk.free_ns);
        assert_eq!((desk.due_ns(), desk.engine.cache_usage()), (None, 0.0));
    }

    /// What the engine would refuse is refused before: nobody would ever push to its feed.
    #[test]
    fn what_never_fits_is_refused_at_once() {
        let (driver, thread) = Driver::start(Profile::load("fixed").unwrap()).unwrap();
        let prompt_tokens = u32::try_from(driver.room).unwrap();
        let error = driver.submit(0, Request { prompt_tokens, ..Request::default() }).unwrap_err();
        assert_eq!(error, TooLong { tokens: driver.room + 1, room: driver.room });
        drop(driver);
        thread.join().unwrap();
    }

    #[test]
    fn the_thread_ends_with_its_drivers() {
        let (driver, thread) = Driver::start(Profile::load("fixed").unwrap()).unwrap();
        let feed =
            driver.submit(monotonic_ns(), Request { prompt_tokens: 8, max_tokens: 2, ..Request::default() });
        let looking = driver.shown.clone();
        drop(driver);
        thread.join().unwrap();
        assert!(due(&feed.unwrap(), 1).is_ready());
        let Standing { running, waiting, totals, .. } = *looking.lock();
        assert_eq!((running, waiting, totals.steps), (0, 0, 2));
    }
}
