//! Where the slots of a closed loop stand in line to send, behind whatever there is to read.
//!
//! Where five hundred answers end together, five hundred requests are to be sent, each of which takes the system some
//! twenty microseconds. Sent in one go, they keep the client from its sockets for ten milliseconds and more; what comes
//! in meanwhile is merged by the kernel into one read with one stamp, and a first token gets the time of the second. So
//! a few are let through at a time, and before the next ones everything that has arrived is read.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use futures_util::Stream;
use futures_util::StreamExt;
use tokio::sync::Semaphore;

/// How many are let through between two looks at the sockets: a look costs a few microseconds, a request twenty.
const AT_ONCE: usize = 4;

/// The line of one worker's slots.
#[derive(Debug)]
pub(super) struct Turnstile {
    /// How many stand in line.
    waiting: Cell<usize>,
    /// Lets them through, first come, first served.
    gate: Semaphore,
}

impl Turnstile {
    pub(super) fn new() -> Self {
        Self { waiting: Cell::new(0), gate: Semaphore::new(0) }
    }

    /// Stands in line until it is this one's turn.
    pub(super) async fn pass(&self) {
        self.waiting.set(self.waiting.get() + 1);
        // Never closed, so that only a permit can end the wait.
        if let Ok(permit) = self.gate.acquire().await {
            permit.forget();
        }
    }

    /// Everything that `slots` bring. They are polled until none of them can go on; then a few of those in line are let
    /// through, and the runtime looks at the sockets before these are polled.
    pub(super) async fn drain<S: Stream + Unpin>(&self, mut slots: S) -> Vec<S::Item> {
        let mut brought = Vec::new();
        poll_fn(|cx| {
            while let Poll::Ready(next) = slots.poll_next_unpin(cx) {
                match next {
                    Some(slot) => brought.push(slot),
                    None => return Poll::Ready(()),
                }
            }
            let let_through = self.waiting.get().min(AT_ONCE);
            if let_through > 0 {
                self.waiting.set(self.waiting.get() - let_through);
                self.gate.add_permits(let_through);
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
        brought
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::stream::FuturesUnordered;

    use super::*;

    /// Ten slots that send three times each: all of them get through, in the order in which they came to the line.
    #[test]
    fn everyone_gets_through_in_order() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (turnstile, sent) = (Turnstile::new(), RefCell::new(Vec::new()));
        let slot = async |slot: usize| {
            for _ in 0..3 {
                turnstile.pass().await;
                sent.borrow_mut().push(slot);
            }
            slot
        };
        let slots: FuturesUnordered<_> = (0..10).map(slot).collect();
        let mut ended = runtime.block_on(turnstile.drain(slots));
        ended.sort_unstable();
        assert_eq!(ended, (0..10).collect::<Vec<_>>());
        let rounds: Vec<usize> = (0..3).flat_map(|_| 0..10).collect();
        assert_eq!(*sent.borrow(), rounds);
    }

    /// No more are let through at once than may keep the runtime from its sockets.
    #[test]
    fn a_few_at_a_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (turnstile, sent, most) = (Turnstile::new(), Cell::new(0), Cell::new(0));
        let slots: FuturesUnordered<_> = (0..10)
            .map(|_| async {
                turnstile.pass().await;
                sent.set(sent.get() + 1);
            })
            .collect();
        runtime.block_on(async {
            let mut drain = std::pin::pin!(turnstile.drain(slots));
            poll_fn(|cx| {
                let before = sent.get();
                let polled = drain.as_mut().poll(cx);
                most.set(most.get().max(sent.get() - before));
                polled.map(drop)
            })
            .await;
        });
        assert_eq!((sent.get(), most.get()), (10, AT_ONCE));
    }
}
