//! What the sending threads tell, put together: of each request one timeline.

use std::collections::HashMap;

use bytes::Bytes;

use super::exchange::{Exchange, News};
use super::history::Histories;
use super::reading::Reading;
use crate::timeline::{Attempt, Timeline};

/// Parses what the exchanges bring, on a thread that sends nothing.
#[derive(Debug)]
pub(super) struct Collector<'p> {
    /// Whether each timeline keeps the generated text.
    keeps_text: bool,
    /// What the server said, where later turns repeat it.
    histories: Option<Histories<'p>>,
    /// Of each slot's exchange, what has been read of it.
    readings: HashMap<u32, Reading>,
    /// Of each slot's request, the attempts that failed.
    attempts: HashMap<u32, Vec<Attempt>>,
}

impl<'p> Collector<'p> {
    pub(super) fn new(keeps_text: bool, histories: Option<Histories<'p>>) -> Self {
        Self { keeps_text, histories, readings: HashMap::new(), attempts: HashMap::new() }
    }

    /// Takes in the next piece of news, in a run that started then. Gives the timeline of a request that has ended, and
    /// whether it was sent after the start: it is the warm-up's if not.
    pub(super) fn take(&mut self, news: News, start: Option<u64>) -> Option<(Timeline, bool)> {
        match news {
            News::Part(slot, part) => {
                self.readings.entry(slot).or_default().read(part);
                None
            }
            News::Attempt(exchange) => {
                let slot = exchange.slot;
                let (timeline, _) = self.read(*exchange, start);
                self.attempts.entry(slot).or_default().push(Attempt::of(&timeline));
                None
            }
            News::End(exchange) => {
                let attempts = self.attempts.remove(&exchange.slot);
                let (timeline, is_measured) = self.read(*exchange, start);
                Some((timeline.after(attempts.unwrap_or_default()), is_measured))
            }
        }
    }

    fn read(&mut self, mut exchange: Exchange, start: Option<u64>) -> (Timeline, bool) {
        let reading = self.readings.remove(&exchange.slot).unwrap_or_default();
        // The warm-up was sent before the start, however late this thread comes to see it.
        let origin = start.filter(|origin| exchange.dispatched >= *origin);
        let successor = exchange.successor.take();
        exchange.keeps_text = self.keeps_text || successor.is_some();
        let mut timeline = exchange.timeline_after(reading, origin.unwrap_or(0));
        if let (Some(successor), Some(histories)) = (successor, &mut self.histories) {
            let (place, next) = (successor.place, successor.next);
            let body = histories.follow(place, next, timeline.answer().map(str::to_owned));
            // Who waits for it may have been interrupted.
            drop(successor.body.send(body));
            timeline.text = timeline.text.filter(|_| self.keeps_text || timeline.usage.is_none());
        }
        (timeline, origin.is_some())
    }

    /// The bodies that are not the tape's, by their request's place in the plan.
    pub(super) fn into_bodies(self) -> HashMap<usize, Bytes> {
        self.histories.map(Histories::into_bodies).unwrap_or_default()
    }
}
