//! Parses what the exchanges bring, in a thread that never takes a processor from the one that reads.
//!
//! Parsing may wait: nothing is stamped there. But what waits is memory, so where the collector falls behind by
//! [`BEHIND_NS`], the calling thread, which has its fair share of the processors, takes it over until it has caught up.
//! Where later turns of a conversation wait for what it reads, the calling thread collects from beginning to end.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokentape_pacer::{monotonic_ns, run_in_the_gaps};

use super::exchange::{Exchange, News};
use super::history::Histories;
use super::reading::Reading;
use crate::timeline::{Attempt, Timeline};

/// How old news may be when it is read. At a hundred thousand events a second that is some 2 MB that wait.
const BEHIND_NS: u64 = 100_000_000;

/// What becomes of the news of all exchanges.
#[derive(Debug)]
pub(super) struct Collector<'r, 'p> {
    news: Receiver<News>,
    /// Of each slot's exchange, what has been read of it.
    readings: HashMap<u32, Reading>,
    /// Of each slot's request, the attempts that failed.
    attempts: HashMap<u32, Vec<Attempt>>,
    /// What the server said, where later turns repeat it.
    histories: Option<&'r mut Histories<'p>>,
    /// The run's start, once it has started.
    start: &'r OnceLock<u64>,
    /// Whether timelines keep the text that was generated.
    keeps_text: bool,
}

/// An exchange that has been read.
#[derive(Debug)]
pub(super) enum Collected {
    /// Of the measured requests.
    Measured(Timeline),
    /// Of the warm-up.
    WarmUp(Timeline),
}

/// What the collector's thread tells the calling one.
enum Told<'r, 'p> {
    Collected(Box<Collected>),
    /// It has fallen behind: this is to be given back when it has caught up.
    Behind(Collector<'r, 'p>),
}

impl<'r, 'p> Collector<'r, 'p> {
    pub(super) fn new(news: Receiver<News>, start: &'r OnceLock<u64>, keeps_text: bool) -> Self {
        Self { news, readings: HashMap::new(), attempts: HashMap::new(), histories: None, start, keeps_text }
    }

    /// The same for later turns that repeat what the server said.
    pub(super) fn with(self, histories: Option<&'r mut Histories<'p>>) -> Self {
        Self { histories, ..self }
    }

    /// Reads all news until every sender is gone, in the gaps that other threads leave, and gives what is complete to
    /// `take` in the calling thread.
    pub(super) fn collect(self, mut take: impl FnMut(Collected)) {
        let mut collector = self;
        if collector.histories.is_some() {
            while let Ok(news) = collector.news.recv() {
                collector.read(news).into_iter().for_each(&mut take);
            }
            return;
        }
        let (tell, told) = channel();
        let (give_back, given_back) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                run_in_the_gaps();
                while collector.collect_until_behind(&tell) {
                    drop(tell.send(Told::Behind(collector)));
                    let Ok(caught_up) = given_back.recv() else { return };
                    collector = caught_up;
                }
            });
            for told in told {
                match told {
                    Told::Collected(collected) => take(*collected),
                    Told::Behind(mut collector) => {
                        collector.catch_up(&mut take);
                        // The other thread waits for it.
                        drop(give_back.send(collector));
                    }
                }
            }
        });
    }

    /// Whether it has fallen behind; else, that was all.
    fn collect_until_behind(&mut self, tell: &Sender<Told<'r, 'p>>) -> bool {
        while let Ok(news) = self.news.recv() {
            let told_at = news.told_at();
            if let Some(collected) = self.read(news) {
                // The calling thread listens until this one ends.
                drop(tell.send(Told::Collected(Box::new(collected))));
            }
            if monotonic_ns().saturating_sub(told_at) > BEHIND_NS {
                return true;
            }
        }
        false
    }

    /// Reads what is there.
    fn catch_up(&mut self, take: &mut impl FnMut(Collected)) {
        while let Ok(news) = self.news.try_recv() {
            self.read(news).into_iter().for_each(&mut *take);
        }
    }

    fn read(&mut self, news: News) -> Option<Collected> {
        match news {
            News::Part { slot, part, .. } => {
                self.readings.entry(slot).or_default().read(part);
                None
            }
            News::Attempt { exchange, .. } => {
                let slot = exchange.slot;
                // The warm-up is sent once.
                if let Collected::Measured(timeline) = self.finish(*exchange) {
                    self.attempts.entry(slot).or_default().push(Attempt::of(&timeline));
                }
                None
            }
            News::End(exchange) => {
                let failed = self.attempts.remove(&exchange.slot).unwrap_or_default();
                Some(match self.finish(*exchange) {
                    Collected::Measured(timeline) => Collected::Measured(timeline.after(failed)),
                    Collected::WarmUp(timeline) => Collected::WarmUp(timeline),
                })
            }
        }
    }

    /// What has become of an exchange.
    fn finish(&mut self, mut exchange: Exchange) -> Collected {
        let slot = exchange.slot;
        let reading = self.readings.remove(&slot).unwrap_or_default();
        let successor = exchange.successor.take();
        exchange.keeps_text = self.keeps_text || successor.is_some();
        // The warm-up was sent before the start, however late this thread comes to see it.
        let origin = self.start.get().filter(|origin| exchange.dispatched >= **origin);
        let mut timeline = exchange.timeline_after(reading, origin.copied().unwrap_or(0));
        if let (Some(successor), Some(histories)) = (successor, &mut self.histories) {
            let answer = timeline.answer().map(str::to_owned);
            let body = histories.follow(successor.place, successor.next, answer);
            // Who waits for it may have been interrupted.
            drop(successor.body.send(body));
            timeline.text = timeline.text.filter(|_| self.keeps_text || timeline.usage.is_none());
        }
        if origin.is_some() { Collected::Measured(timeline) } else { Collected::WarmUp(timeline) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::exchange::{Ending, Exchange, Head};
    use super::super::plan::Prepared;
    use super::*;

    /// An exchange of one token, that ended then.
    fn exchange(index: u64, ended: u64) -> Exchange {
        let request = Prepared {
            index,
            offset_ns: 0,
            method: http::Method::POST,
            path: http::Uri::from_static("/v1/completions"),
            body: Bytes::new(),
            headers: None,
            input_tokens: None,
            output_tokens: None,
            session: None,
        };
        let mut exchange = Exchange::new(&request, 0, 1, 1);
        exchange.head = Some(Head {
            status: 200,
            is_stream: true,
            encoding: None,
            retry_after: None,
            read: 0,
            written: 1,
        });
        exchange.stamps.reads_at.push(ended);
        exchange.stamps.reads_late.push(0);
        exchange.receive(b"data: {\"choices\":[{\"text\":\"x\",\"finish_reason\":\"stop\"}]}\n\n", 0);
        exchange.ending = Ending::Complete;
        exchange.ended = ended;
        exchange
    }

    /// Whether it keeps up, or falls behind with each: everything is collected, in order.
    #[test]
    fn nothing_is_lost_when_it_falls_behind() {
        for age_ns in [0, 10 * BEHIND_NS] {
            let (tell, news) = channel();
            let start = OnceLock::from(1);
            let teller = std::thread::spawn(move || {
                for index in 0..1000 {
                    let ended = monotonic_ns().saturating_sub(age_ns);
                    tell.send(News::End(Box::new(exchange(index, ended)))).unwrap();
                }
            });
            let mut indices = Vec::new();
            Collector::new(news, &start, false).collect(|collected| match collected {
                Collected::Measured(timeline) => {
                    assert!(timeline.outcome.is_success());
                    indices.push(timeline.index);
                }
                Collected::WarmUp(_) => panic!("dispatched after the start"),
            });
            teller.join().unwrap();
            assert_eq!(indices, (0..1000).collect::<Vec<_>>());
        }
    }
}
