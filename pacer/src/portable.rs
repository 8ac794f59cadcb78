//! The driver elsewhere: tokio's own timer, which keeps a millisecond.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::monotonic_ns;

/// How far apart two deadlines can be and still fire together, in nanoseconds.
pub const RESOLUTION_NS: u64 = 1_000_000;

/// Keeps time for one single-threaded runtime. A clone is another handle on the same timer.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// One moment on both clocks.
    origin: (Instant, u64),
}

impl Pacer {
    /// Takes the runtime's timer.
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as on Linux")]
    pub fn start() -> io::Result<Self> {
        Ok(Self { origin: (Instant::now(), monotonic_ns()) })
    }

    /// The same handle: where the timer keeps a millisecond, there is no moment to turn in a loop for.
    #[must_use]
    pub fn spinning(self, _spin_ns: u64) -> Self {
        self
    }

    /// Waits until `deadline_ns` on the clock of [`monotonic_ns`]. A deadline that has passed is ready at once.
    /// Dropping the future withdraws it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time.
    pub fn sleep_until(&self, deadline_ns: u64) -> Sleep {
        let (instant, origin_ns) = self.origin;
        let wait = Duration::from_nanos(deadline_ns.saturating_sub(origin_ns));
        Sleep(Box::pin(tokio::time::sleep_until(instant + wait)))
    }
}

/// Ready at a deadline; see [`Pacer::sleep_until`].
#[derive(Debug)]
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct Sleep(Pin<Box<tokio::time::Sleep>>);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_wakes_early() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let deadline_ns = monotonic_ns() + 2 * RESOLUTION_NS;
            Pacer::start().unwrap().spinning(1).sleep_until(deadline_ns).await;
            assert!(monotonic_ns() >= deadline_ns);
            Pacer::start().unwrap().spinning(1).sleep_until(0).await;
        });
    }
}
