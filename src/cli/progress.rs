//! What a person sees while a replay runs: on a terminal a panel on stderr, elsewhere a plain line every two seconds.
//!
//! It costs the run nothing that is measured: what it shows comes from timelines that are complete, and it is put
//! together and drawn by a thread that never takes a processor from another. Whoever collects timelines never waits for
//! that thread.

mod panel;
mod tally;

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use console::Term;
use tokentape_pacer::run_in_the_gaps;

use self::panel::View;
use self::tally::{Shared, Tally};
use crate::replay::Options;
use crate::timeline::{Ns, Timeline};

/// How often the panel is drawn, and the figures are asked for.
const DRAWN_EVERY: Duration = Duration::from_millis(250);
/// Where stderr is no terminal, a plain line this often.
const PLAIN_EVERY: Duration = Duration::from_secs(2);
/// The time over which a rate is taken.
const RATE_OVER: Duration = Duration::from_secs(5);

/// The progress of a replay. It ends, and leaves the terminal as it was, with this value.
pub(super) struct Progress {
    tally: Option<Tally>,
    painter: Option<(Sender<()>, JoinHandle<()>)>,
}

/// What is to come.
#[derive(Clone, Debug, Default)]
struct Expected {
    total: u64,
    /// The most requests in flight.
    limit: Option<u64>,
    /// When each is due.
    schedule: Option<Vec<Ns>>,
    /// When the last one is sent at the latest.
    until: Option<Duration>,
}

impl Progress {
    /// Progress of `total` requests; nothing at all if `quiet`.
    pub(super) fn new(total: u64, options: &Options, quiet: bool) -> Self {
        if quiet {
            return Self { tally: None, painter: None };
        }
        let expected = Expected {
            total,
            limit: options.concurrency.map(|limit| limit as u64),
            schedule: options.schedule.clone(),
            until: options.duration,
        };
        let shared = Arc::new(Shared::default());
        let tally = Tally::new(Arc::clone(&shared));
        let (stop, stopped) = channel();
        let paint = move || {
            run_in_the_gaps();
            let mut painter = Painter::new(expected, shared);
            while stopped.recv_timeout(DRAWN_EVERY) == Err(RecvTimeoutError::Timeout) {
                painter.paint();
            }
            painter.clear();
        };
        // Without a thread there is no picture, and the run goes on.
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(paint).ok();
        Self { tally: Some(tally), painter: thread.map(|thread| (stop, thread)) }
    }

    /// A request has ended.
    pub(super) fn ended(&mut self, timeline: &Timeline) {
        if let Some(tally) = &mut self.tally {
            tally.ended(timeline);
        }
    }

    /// Takes the panel away.
    pub(super) fn finish(self) {
        drop(self);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.painter.take() {
            drop(stop);
            // A picture that went wrong is no reason to lose a run.
            drop(thread.join());
        }
    }
}

/// Draws what the tally tells.
struct Painter {
    expected: Expected,
    shared: Arc<Shared>,
    /// How many lines the panel takes up; none where stderr is no terminal.
    panel: Option<usize>,
    begun: Instant,
    last_line: Instant,
    /// Requests and tokens at the moments of the last paintings.
    recent: VecDeque<(Instant, u64, u64)>,
}

impl Painter {
    fn new(expected: Expected, shared: Arc<Shared>) -> Self {
        let panel = std::io::stderr().is_terminal().then_some(0);
        let begun = Instant::now();
        Self { expected, shared, panel, begun, last_line: begun, recent: VecDeque::from([(begun, 0, 0)]) }
    }

    fn paint(&mut self) {
        let view = self.view();
        match self.panel {
            Some(lines) => {
                // A line that the terminal breaks in two could not be taken away whole.
                let panel = view.panel(usize::from(Term::stderr().size().1).saturating_sub(1));
                self.panel = Some(panel.len());
                write(&panel::redrawn(lines, &panel));
            }
            None if self.last_line.elapsed() >= PLAIN_EVERY => {
                self.last_line = Instant::now();
                write(&format!("{}\n", view.line()));
            }
            None => {}
        }
    }

    fn view(&mut self) -> View {
        let now = Instant::now();
        let (done, tokens) = self.shared.counts();
        // One older than the span stays: the rate is taken from there.
        while self.recent.get(1).is_some_and(|(at, ..)| now - *at >= RATE_OVER) {
            self.recent.pop_front();
        }
        let (since, done_then, tokens_then) = self.recent.front().copied().unwrap_or((self.begun, 0, 0));
        self.recent.push_back((now, done, tokens));
        let over = (now - since).as_secs_f64().max(1e-3);
        let told = self.shared.told();
        let elapsed = told.started.map(|started| now.saturating_duration_since(started));
        View {
            elapsed: now - self.begun,
            done,
            total: self.expected.total,
            in_flight: elapsed.map(|elapsed| self.expected.in_flight(elapsed, done)),
            limit: self.expected.limit,
            left: elapsed.and_then(|elapsed| self.expected.left(elapsed, done)),
            share: self.expected.share(elapsed.unwrap_or_default(), done),
            requests_per_s: done.saturating_sub(done_then) as f64 / over,
            tokens_per_s: tokens.saturating_sub(tokens_then) as f64 / over,
            told,
        }
    }

    fn clear(&self) {
        if let Some(lines) = self.panel {
            write(&panel::redrawn(lines, &[]));
        }
    }
}

/// What cannot be shown is not worth ending a run for.
fn write(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}

impl Expected {
    /// How many requests are in flight, from what is known without asking those who send: of a schedule, those that are
    /// due and have not ended; else as many as the limit lets, and there are.
    fn in_flight(&self, elapsed: Duration, done: u64) -> u64 {
        let due = self.schedule.as_ref().map_or(self.total, |schedule| {
            schedule.partition_point(|due| u128::from(*due) <= elapsed.as_nanos()) as u64
        });
        due.saturating_sub(done).min(self.limit.unwrap_or(u64::MAX))
    }

    /// About how long the run still takes.
    fn left(&self, elapsed: Duration, done: u64) -> Option<Duration> {
        let last_due = self.schedule.as_ref().and_then(|schedule| schedule.last()).copied();
        // With a limit, a schedule may fall behind: then the rate says more.
        let by_schedule = last_due.map(|due| Duration::from_nanos(due).saturating_sub(elapsed));
        let remaining = self.total.saturating_sub(done);
        let by_rate = (done > 0).then(|| elapsed.mul_f64(remaining as f64 / done as f64));
        let by_count = if self.limit.is_some() { by_rate.or(by_schedule) } else { by_schedule.or(by_rate) };
        let by_time = self.until.map(|until| until.saturating_sub(elapsed));
        match (by_count, by_time) {
            (Some(count), Some(time)) => Some(count.min(time)),
            (count, time) => count.or(time),
        }
    }

    /// How much of the run is over, from 0 to 1.
    fn share(&self, elapsed: Duration, done: u64) -> f64 {
        let by_count = done as f64 / self.total.max(1) as f64;
        let by_time = self.until.map_or(0.0, |until| elapsed.div_duration_f64(until));
        by_count.max(by_time).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Ns = 1_000_000_000;

    #[test]
    fn in_flight_is_what_is_due_and_has_not_ended() {
        let at = Duration::from_secs;
        let closed = Expected { total: 10, limit: Some(4), ..Expected::default() };
        assert_eq!((closed.in_flight(at(1), 0), closed.in_flight(at(9), 8)), (4, 2));
        let schedule = Some(vec![0, SECOND, 2 * SECOND, 9 * SECOND]);
        let open = Expected { total: 4, schedule, ..Expected::default() };
        assert_eq!((open.in_flight(at(2), 1), open.in_flight(at(3), 3)), (2, 0));
    }

    #[test]
    fn what_is_left_follows_from_rate_schedule_or_limit() {
        let at = Duration::from_secs;
        let closed = Expected { total: 10, limit: Some(4), ..Expected::default() };
        assert_eq!((closed.left(at(2), 0), closed.left(at(2), 4)), (None, Some(at(3))));
        let timed = Expected { until: Some(at(4)), ..closed.clone() };
        assert_eq!(timed.left(at(2), 4), Some(at(2)));
        assert!((timed.share(at(1), 0) - 0.25).abs() < 1e-9 && (closed.share(at(1), 4) - 0.4).abs() < 1e-9);
        let open = Expected { total: 2, schedule: Some(vec![0, 9 * SECOND]), ..Expected::default() };
        assert_eq!(open.left(at(4), 1), Some(at(5)));
    }
}
