//! Many threads, one order.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::{Made, Refused};
use crate::tape::format::Request;

/// Batches that a worker may be ahead: what bounds the memory, with the number of requests in one.
const AHEAD: usize = 2;

/// A request, and whether its prompt has as many tokens as was asked for.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) request: Request,
    pub(crate) exact: bool,
}

/// Calls `make` for each thing and its index, on `threads` workers, and `sink` with each result in order, on the calling
/// thread. A thread of its own takes the things, `batch` at a time; worker w makes batch w, w + threads, …, so the
/// batches come in turn and none has to be kept back. The first thing that is an error ends it, in its place.
pub(crate) fn run<T: Send, E: Send + From<Refused>>(
    things: impl Iterator<Item = Result<T, E>> + Send,
    batch: usize,
    threads: usize,
    make: &(dyn Fn(u64, T) -> Result<Item, E> + Sync),
    sink: &mut dyn FnMut(Request) -> Result<(), String>,
) -> Result<Made, E> {
    let threads = threads.max(1);
    thread::scope(|scope| {
        let (to_workers, workers): (Vec<_>, Vec<_>) = (0..threads)
            .map(|_| {
                let (to_worker, todo) = sync_channel(AHEAD);
                let (done, from_worker) = sync_channel(AHEAD);
                scope.spawn(move || work(&todo, &done, make));
                (to_worker, from_worker)
            })
            .unzip();
        scope.spawn(move || deal(things, batch, &to_workers));
        let mut made = Made::default();
        for worker in workers.iter().cycle() {
            // The first worker in turn without a batch has seen the end: or it has panicked, which the scope passes on.
            let Ok(items) = worker.recv() else { break };
            for item in items {
                let Item { request, exact } = item?;
                sink(request).map_err(Refused)?;
                made.requests += 1;
                made.inexact += u64::from(!exact);
            }
        }
        Ok(made)
    })
}

/// What a worker gets at a time: things with their indexes, the last of which may be an error.
type Batch<T, E> = Vec<(u64, Result<T, E>)>;

/// Hands the things out, until nobody takes them any more.
fn deal<T, E>(things: impl Iterator<Item = Result<T, E>>, batch: usize, workers: &[SyncSender<Batch<T, E>>]) {
    let mut things = (0..).zip(things);
    for worker in workers.iter().cycle() {
        let mut next: Batch<T, E> = Vec::with_capacity(batch);
        let mut failed = false;
        while next.len() < batch && !failed {
            let Some(thing) = things.next() else { break };
            failed = thing.1.is_err();
            next.push(thing);
        }
        let last = next.len() < batch || failed;
        if worker.send(next).is_err() || last {
            return;
        }
    }
}

fn work<T, E>(
    todo: &Receiver<Batch<T, E>>,
    done: &SyncSender<Vec<Result<Item, E>>>,
    make: &(dyn Fn(u64, T) -> Result<Item, E> + Sync),
) {
    for batch in todo {
        let mut items = Vec::with_capacity(batch.len());
        let mut failed = false;
        for (index, thing) in batch {
            let item = thing.and_then(|thing| make(index, thing));
            failed = item.is_err();
            items.push(item);
            if failed {
                break;
            }
        }
        // Nobody receives any more once the sink, or another worker, has failed.
        if done.send(items).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Error;

    fn item(index: u64) -> Item {
        let request = Request {
            index,
            offset_ns: 0,
            method: String::new(),
            path: String::new(),
            body: Vec::new(),
            input_tokens: None,
            output_tokens: None,
            session: None,
        };
        Item { request, exact: !index.is_multiple_of(10) }
    }

    #[expect(clippy::unnecessary_wraps, reason = "what a maker is")]
    fn make(index: u64, thing: u64) -> Result<Item, Error> {
        assert_eq!(index, thing);
        Ok(item(index))
    }

    #[test]
    fn every_index_comes_once_and_in_order() {
        for total in [0, 1, 63, 64, 65, 1000] {
            for threads in [0, 1, 2, 3, 50] {
                let mut next = 0;
                let made = run((0..total).map(Ok), 64, threads, &make, &mut |request| {
                    assert_eq!(request.index, next);
                    next += 1;
                    Ok(())
                })
                .unwrap();
                assert_eq!(made, Made { requests: total, inexact: total.div_ceil(10) });
                assert_eq!(next, total);
            }
        }
    }

    #[test]
    fn a_sink_that_takes_no_more_ends_it() {
        let mut taken = 0;
        let end = run((0..u64::MAX / 2).map(Ok), 64, 2, &make, &mut |_| {
            taken += 1;
            if taken == 100 { Err("full".to_owned()) } else { Ok(()) }
        });
        assert!(matches!(end, Err(Error::Sink(reason)) if reason == "full"));
    }

    #[test]
    fn a_request_that_cannot_be_made_ends_it_in_its_place() {
        let no = || Error::Header { reason: "no".to_owned() };
        let fails_at_200 = |index, _| if index == 200 { Err(no()) } else { Ok(item(index)) };
        let mut last = None;
        let mut sink = |request: Request| {
            last = Some(request.index);
            Ok(())
        };
        let end = run((0..10_000_u64).map(Ok), 64, 3, &fails_at_200, &mut sink);
        assert!(matches!(end, Err(Error::Header { .. })));
        let things = (0..u64::MAX).map(|index| if index == 300 { Err(no()) } else { Ok(index) });
        let end = run(things, 64, 3, &make, &mut |_| Ok(()));
        assert!(matches!(end, Err(Error::Header { .. })));
        assert_eq!(last, Some(199), "those before it are handed over");
    }
}
