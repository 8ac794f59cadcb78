//! Parses what the exchanges bring, in a thread that never takes a processor from the one that reads.
//!
//! Parsing may wait: nothing is stamped there. But what waits is memory, so a collector that has fallen behind by
//! [`BEHIND_NS`] is carried on by the calling thread, which has its fair share of the processors.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokentape_pacer::{monotonic_ns, run_in_the_gaps};

use super::exchange::News;
use super::reading::Reading;
use crate::timeline::Timeline;

/// How old news may be when it is read. At fifty thousand events a second that is some 10 MB that wait.
const BEHIND_NS: u64 = 500_000_000;

/// What becomes of the news of all exchanges.
#[derive(Debug)]
pub(super) struct Collector<'r> {
    news: Receiver<News>,
    /// Of each slot's exchange, what has been read of it.
    readings: HashMap<u32, Reading>,
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
enum Told<'r> {
    Collected(Collected),
    /// It has fallen behind: this is to be carried on.
    Behind(Collector<'r>),
}

impl<'r> Collector<'r> {
    pub(super) fn new(news: Receiver<News>, start: &'r OnceLock<u64>, keeps_text: bool) -> Self {
        Self { news, readings: HashMap::new(), start, keeps_text }
    }

    /// Reads all news until every sender is gone, in the gaps that other threads leave, and gives what is complete to
    /// `take` in the calling thread.
    pub(super) fn collect(self, mut take: impl FnMut(Collected)) {
        let (tell, told) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || self.collect_in_the_gaps(&tell));
            for told in told {
                match told {
                    Told::Collected(collected) => take(collected),
                    Told::Behind(mut collector) => {
                        while let Some(news) = collector.next() {
                            collector.read(news).into_iter().for_each(&mut take);
                        }
                    }
                }
            }
        });
    }

    fn collect_in_the_gaps(mut self, tell: &Sender<Told<'r>>) {
        run_in_the_gaps();
        while let Some(news) = self.next() {
            let told_at = news.told_at();
            let collected = self.read(news);
            // The calling thread listens until this one ends.
            if let Some(collected) = collected {
                drop(tell.send(Told::Collected(collected)));
            }
            if monotonic_ns().saturating_sub(told_at) > BEHIND_NS {
                drop(tell.send(Told::Behind(self)));
                return;
            }
        }
    }

    fn next(&self) -> Option<News> {
        self.news.recv().ok()
    }

    fn read(&mut self, news: News) -> Option<Collected> {
        let mut exchange = match news {
            News::Part { slot, part, .. } => {
                self.readings.entry(slot).or_default().read(part);
                return None;
            }
            News::End(exchange) => *exchange,
        };
        let reading = self.readings.remove(&exchange.slot).unwrap_or_default();
        exchange.keeps_text = self.keeps_text;
        // The warm-up was sent before the start, however late this thread comes to see it.
        let origin = self.start.get().filter(|origin| exchange.dispatched >= **origin);
        let timeline = exchange.timeline_after(reading, origin.copied().unwrap_or(0));
        Some(if origin.is_some() { Collected::Measured(timeline) } else { Collected::WarmUp(timeline) })
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
        exchange.head = Some(Head { status: 200, is_stream: true, encoding: None, read: 0, written: 1 });
        exchange.stamps.reads_at.push(ended);
        exchange.stamps.reads_late.push(0);
        exchange.receive(b"data: {\"choices\":[{\"text\":\"x\",\"finish_reason\":\"stop\"}]}\n\n", 0);
        exchange.ending = Ending::Complete;
        exchange.ended = ended;
        exchange
    }

    /// Whether it keeps up or has fallen behind at once: everything is collected, in order.
    #[test]
    fn nothing_is_lost_when_it_falls_behind() {
        for age_ns in [0, 10 * BEHIND_NS] {
            let (tell, news) = channel();
            let start = OnceLock::from(1);
            let ended = monotonic_ns().saturating_sub(age_ns);
            for index in 0..100 {
                tell.send(News::End(Box::new(exchange(index, ended)))).unwrap();
            }
            drop(tell);
            let mut indices = Vec::new();
            Collector::new(news, &start, false).collect(|collected| match collected {
                Collected::Measured(timeline) => {
                    assert!(timeline.outcome.is_success());
                    indices.push(timeline.index);
                }
                Collected::WarmUp(_) => panic!("dispatched after the start"),
            });
            assert_eq!(indices, (0..100).collect::<Vec<_>>());
        }
    }
}
