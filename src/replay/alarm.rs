//! What may end an exchange from outside: its time limit, an interruption.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A future that is polled first, and then only when it itself has been woken.
///
/// It stands beside one that is woken with every event of a stream: to ask a timer and a channel each time whether
/// they have come, which takes a lock and cold memory, would be in vain but once.
#[derive(Debug)]
pub(super) struct Alarm<F> {
    future: Pin<Box<F>>,
    inner: Arc<Inner>,
    /// A waker of `inner`.
    waker: Waker,
}

impl<F: Future> Alarm<F> {
    pub(super) fn new(future: F) -> Self {
        let inner = Arc::new(Inner { outer: AtomicWaker::new(), woken: AtomicBool::new(true) });
        let waker = Waker::from(Arc::clone(&inner));
        Self { future: Box::pin(future), inner, waker }
    }
}

impl<F: Future> Future for Alarm<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Before the question, so that a wake-up after it finds the task.
        self.inner.outer.register(cx.waker());
        if !self.inner.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let waker = self.waker.clone();
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

#[derive(Debug)]
struct Inner {
    outer: AtomicWaker,
    woken: AtomicBool,
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.outer.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn it_is_asked_when_it_is_woken_and_not_before() {
        let mut asked = 0;
        let (ring, mut rings) = tokio::sync::oneshot::channel::<()>();
        let mut alarm = Alarm::new(poll_fn(|cx| {
            asked += 1;
            Pin::new(&mut rings).poll(cx)
        }));
        // Other wake-ups of the same task.
        for _ in 0..50 {
            let is_pending = poll_fn(|cx| Poll::Ready(Pin::new(&mut alarm).poll(cx).is_pending())).await;
            assert!(is_pending);
        }
        ring.send(()).unwrap();
        alarm.await.unwrap();
        assert_eq!(asked, 2);
    }
}
