//! Many threads, one order.

use std::sync::mpsc::sync_channel;
use std::thread;

use super::{Error, Made, Sink};
use crate::tape::format::Request;

/// Requests that a worker makes before it hands them on.
const BATCH: u64 = 64;
/// Batches that a worker may be ahead: what bounds the memory.
const AHEAD: usize = 2;

/// A request, and whether its prompt has as many tokens as was asked for.
pub(super) struct Item {
    pub(super) request: Request,
    pub(super) exact: bool,
}

/// Calls `make` for each index below `total`, on `threads` workers, and `sink` with each result in order, on the
/// calling thread. Worker w makes batch w, w + threads, …, so the batches come in turn and none has to be kept back.
pub(super) fn run(
    total: u64,
    threads: usize,
    make: &(dyn Fn(u64) -> Result<Item, Error> + Sync),
    sink: Sink,
) -> Result<Made, Error> {
    let threads = threads.max(1);
    let batches = total.div_ceil(BATCH);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads as u64)
            .map(|worker| {
                let (send, receive) = sync_channel(AHEAD);
                scope.spawn(move || {
                    for batch in (worker..batches).step_by(threads) {
                        let indexes = batch * BATCH..total.min((batch + 1) * BATCH);
                        let items: Result<Vec<Item>, Error> = indexes.map(make).collect();
                        let failed = items.is_err();
                        // Nobody receives any more once the sink, or another worker, has failed.
                        if send.send(items).is_err() || failed {
                            return;
                        }
                    }
                });
                receive
            })
            .collect();
        let mut made = Made::default();
        for worker in (0..threads).cycle().take(usize::try_from(batches).unwrap_or(usize::MAX)) {
            // A worker that ends early has panicked, and the scope passes that on.
            let Ok(items) = workers[worker].recv() else { break };
            for Item { request, exact } in items? {
                sink(request).map_err(Error::Sink)?;
                made.requests += 1;
                made.inexact += u64::from(!exact);
            }
        }
        Ok(made)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn every_index_comes_once_and_in_order() {
        for total in [0, 1, 63, 64, 65, 1000] {
            for threads in [0, 1, 2, 3, 50] {
                let mut next = 0;
                let made = run(total, threads, &|index| Ok(item(index)), &mut |request| {
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
        let end = run(u64::MAX / 2, 2, &|index| Ok(item(index)), &mut |_| {
            taken += 1;
            if taken == 100 { Err("full".to_owned()) } else { Ok(()) }
        });
        assert!(matches!(end, Err(Error::Sink(reason)) if reason == "full"));
    }

    #[test]
    fn a_request_that_cannot_be_made_ends_it_in_its_place() {
        let make = |index| match index {
            200 => Err(Error::Header { reason: "no".to_owned() }),
            _ => Ok(item(index)),
        };
        let mut last = None;
        let end = run(10_000, 3, &make, &mut |request| {
            last = Some(request.index);
            Ok(())
        });
        assert!(matches!(end, Err(Error::Header { .. })));
        assert_eq!(last, Some(191), "the batches before it are complete");
    }
}
