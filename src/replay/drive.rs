//! hyper's connection, driven by whoever waits for its response.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body_util::Full;
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::transport::Transport;

/// A connection's driver: it reads and writes when it is polled, and has no task of its own.
#[derive(Debug)]
pub(crate) struct Driver<B = Full<Bytes>>
where
    B: Body + 'static,
{
    connection: http1::Connection<TokioIo<Transport>, B>,
    inner: Arc<Inner>,
    /// A waker of `inner`.
    waker: Waker,
}

impl<B> Driver<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static,
{
    pub(crate) fn new(connection: http1::Connection<TokioIo<Transport>, B>) -> Self {
        let inner = Arc::new(Inner::default());
        let waker = Waker::from(Arc::clone(&inner));
        Self { connection, inner, waker }
    }

    /// Waits for `work` while driving the connection that it depends on; `None` if the connection ended and `work`
    /// can no longer finish.
    pub(crate) async fn drive<F: Future>(&mut self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        poll_fn(|cx| self.poll(cx, work.as_mut())).await
    }

    /// One turn of [`drive`](Self::drive).
    pub(crate) fn poll<F: Future>(
        &mut self,
        cx: &mut Context<'_>,
        mut work: Pin<&mut F>,
    ) -> Poll<Option<F::Output>> {
        self.inner.outer.register(cx.waker());
        self.inner.inside.store(true, Ordering::Relaxed);
        let cx = &mut Context::from_waker(&self.waker);
        let output = loop {
            self.inner.again.store(false, Ordering::Relaxed);
            let ended = Pin::new(&mut self.connection).poll(cx).is_ready();
            // After the driver, so that what it has just read is seen now. Once it has ended, an error is not lost:
            // hyper reports it through `work` as well.
            match work.as_mut().poll(cx) {
                Poll::Ready(output) => break Poll::Ready(Some(output)),
                Poll::Pending if ended => break Poll::Ready(None),
                Poll::Pending if self.inner.again.load(Ordering::Relaxed) => {}
                Poll::Pending => break Poll::Pending,
            }
        };
        self.inner.inside.store(false, Ordering::SeqCst);
        // A wake-up from another thread between the last look and here: nothing of this engine makes one, and if one
        // came, it is passed on.
        if output.is_pending() && self.inner.again.load(Ordering::SeqCst) {
            self.inner.outer.wake();
        }
        output
    }
}

/// Wakes the task, except from inside its own poll.
///
/// hyper's driver and body wake each other with every frame. Both are polled here, by one task, which need not be
/// scheduled anew for what it is about to look at anyway.
#[derive(Debug, Default)]
struct Inner {
    outer: AtomicWaker,
    inside: AtomicBool,
    again: AtomicBool,
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Noted first, looked at after: so that one of the two sides sees the other.
        self.again.store(true, Ordering::SeqCst);
        if !self.inside.load(Ordering::SeqCst) {
            self.outer.wake();
        }
    }
}
