//! The driver on Linux: one `timerfd` on `CLOCK_MONOTONIC` under tokio's own epoll.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::deadlines::{Deadlines, Key, LEAD_NS};
use crate::monotonic_ns;

/// How far apart two deadlines can be and still fire together, in nanoseconds: the quantum.
pub const RESOLUTION_NS: u64 = crate::QUANTUM_NS;

/// Keeps time for one single-threaded runtime. A clone is another handle on the same timer.
#[derive(Clone)]
pub struct Pacer {
    shared: Rc<Shared>,
    spin_ns: u64,
}

struct Shared {
    timer: AsyncFd<Timer>,
    /// What the timer is set to; `u64::MAX` when it is not.
    armed_ns: Cell<u64>,
    sleepers: RefCell<Deadlines<Waker>>,
}

/// nix's timer, with the trait by which tokio knows a descriptor.
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Pacer {
    /// Opens the timer and spawns its driver, which lives as long as the surrounding [`tokio::task::LocalSet`]. Also
    /// sets the calling thread's timer slack to 1 ns.
    ///
    /// # Panics
    ///
    /// Outside a `LocalSet`, or in a runtime without I/O.
    pub fn start() -> io::Result<Self> {
        // The slack delays epoll's own timeouts, never the timerfd: where it cannot be set, nothing here suffers.
        prctl::set_timerslack(1).unwrap_or_default();
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is an unsafe function; `Timer` never changes its descriptor"
        )]
        let timer = AsyncFd::with_interest(Timer(timer), Interest::READABLE)?;
        let shared = Rc::new(Shared {
            timer,
            armed_ns: Cell::new(u64::MAX),
            sleepers: RefCell::new(Deadlines::new()),
        });
        tokio::task::spawn_local(drive(Rc::clone(&shared)));
        Ok(Self { shared, spin_ns: 0 })
    }

    /// A handle whose sleeps end `spin_ns` early and then turn in a loop until their deadlines, never sooner: as exact
    /// as the clock, for the price of a core that does nothing else meanwhile.
    #[must_use]
    pub fn spinning(self, spin_ns: u64) -> Self {
        Self { spin_ns, ..self }
    }

    /// Waits until `deadline_ns` on the clock of [`monotonic_ns`], give or take [`LEAD_NS`] on the early side. A
    /// deadline that has passed is ready at once. Dropping the future withdraws it.
    pub fn sleep_until(&self, deadline_ns: u64) -> Sleep {
        let spin_until_ns = if self.spin_ns > 0 { deadline_ns } else { 0 };
        let deadline_ns = deadline_ns.saturating_sub(self.spin_ns);
        Sleep { shared: Rc::clone(&self.shared), deadline_ns, spin_until_ns, queued: None }
    }
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacer").finish_non_exhaustive()
    }
}

/// Wakes whoever is due each time the timer rings, and sets it again.
///
/// The timer is never read: tokio's epoll is edge-triggered, and each expiry is a new edge.
async fn drive(shared: Rc<Shared>) {
    let mut due = Vec::new();
    while let Ok(mut ring) = shared.timer.readable().await {
        ring.clear_ready();
        shared.armed_ns.set(u64::MAX);
        shared.sleepers.borrow_mut().drain_due(monotonic_ns(), &mut due);
        // The borrow has ended: a waker may run code that comes back here.
        due.drain(..).for_each(Waker::wake);
        shared.arm();
    }
}

impl Shared {
    /// Sets the timer to the next alarm where that is sooner than what it is set to.
    #[expect(
        clippy::expect_used,
        reason = "an open timerfd takes every time that a u64 of nanoseconds can name"
    )]
    fn arm(&self) {
        let Some(alarm_ns) = self.sleepers.borrow().alarm_ns() else {
            return;
        };
        // Zero would disarm it.
        let alarm_ns = alarm_ns.max(1);
        if alarm_ns < self.armed_ns.get() {
            let at = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(alarm_ns)));
            let absolute = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
            self.timer.get_ref().0.set(at, absolute).expect("a valid time on an open timerfd");
            self.armed_ns.set(alarm_ns);
        }
    }
}

/// Ready at a deadline; see [`Pacer::sleep_until`].
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct Sleep {
    shared: Rc<Shared>,
    deadline_ns: u64,
    /// Until when it keeps the thread; 0 for not at all.
    spin_until_ns: u64,
    queued: Option<Key>,
}

impl Sleep {
    fn spin(&self) {
        while monotonic_ns() < self.spin_until_ns {
            std::hint::spin_loop();
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let Some(key) = this.queued {
            let waker = cx.waker().clone();
            let previous = this.shared.sleepers.borrow_mut().replace(key, waker);
            if previous.is_some() {
                return Poll::Pending;
            }
            this.spin();
            return Poll::Ready(());
        }
        if this.deadline_ns <= monotonic_ns().saturating_add(LEAD_NS) {
            this.spin();
            return Poll::Ready(());
        }
        let key = this.shared.sleepers.borrow_mut().insert(this.deadline_ns, cx.waker().clone());
        this.queued = Some(key);
        this.shared.arm();
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.queued {
            // Bound first, so that the borrow has ended when the waker drops: it may run code that comes back here.
            let waker = self.shared.sleepers.borrow_mut().remove(key);
            drop(waker);
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline_ns", &self.deadline_ns).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    fn run<T>(test: impl AsyncFnOnce(Pacer) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async { test(Pacer::start().unwrap()).await })
    }

    #[test]
    fn sleepers_wake_in_the_order_of_their_deadlines() {
        let order = run(async |pacer| {
            let start = monotonic_ns();
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = [3_u64, 1, 2, 0]
                .map(|n| {
                    let (pacer, order) = (pacer.clone(), Rc::clone(&order));
                    tokio::task::spawn_local(async move {
                        let deadline_ns = start + n * 2_000_000;
                        pacer.sleep_until(deadline_ns).await;
                        assert!(monotonic_ns() + LEAD_NS >= deadline_ns);
                        order.borrow_mut().push(n);
                    })
                })
                .into();
            for task in tasks {
                task.await.unwrap();
            }
            Rc::into_inner(order).unwrap().into_inner()
        });
        assert_eq!(order, [0, 1, 2, 3]);
    }

    #[test]
    fn an_earlier_deadline_is_not_held_up_by_a_later_one() {
        run(async |pacer| {
            let mut never = Box::pin(pacer.sleep_until(u64::MAX));
            tokio::select! {
                biased;
                () = &mut never => panic!("the end of time has come"),
                () = pacer.sleep_until(monotonic_ns() + 1_000_000) => {}
            }
        });
    }

    #[test]
    fn a_passed_deadline_is_ready_at_once_and_zero_is_one() {
        run(async |pacer| {
            pacer.sleep_until(0).await;
            pacer.sleep_until(monotonic_ns()).await;
        });
    }

    #[test]
    fn a_spinning_sleep_never_ends_early() {
        run(async |pacer| {
            let pacer = pacer.spinning(300_000);
            for after_ns in [0, 100_000, 1_000_000] {
                let deadline_ns = monotonic_ns() + after_ns;
                pacer.sleep_until(deadline_ns).await;
                assert!(monotonic_ns() >= deadline_ns);
            }
        });
    }

    #[test]
    fn a_dropped_sleep_leaves_nothing_behind() {
        struct Ignore;
        impl Wake for Ignore {
            fn wake(self: std::sync::Arc<Self>) {}
        }
        run(async |pacer| {
            let waker = Waker::from(std::sync::Arc::new(Ignore));
            let mut sleep = pacer.sleep_until(monotonic_ns() + 1_000_000_000);
            assert!(Pin::new(&mut sleep).poll(&mut Context::from_waker(&waker)).is_pending());
            drop(sleep);
            assert_eq!(pacer.shared.sleepers.borrow().alarm_ns(), None);
            // The timer is still set for the one that left; the next sleeper is served all the same.
            pacer.sleep_until(monotonic_ns() + 1_000_000).await;
        });
    }
}
