//! Deadlines kept to microseconds, and the one monotonic clock that tokentape and its mock share.
//!
//! tokio's timer is a wheel of 1 ms slots whose deadlines are rounded up, so a sleep ends 0 to 2 ms late. That is too
//! coarse for pacing requests, and far too coarse for pacing tokens. A [`Pacer`] keeps time for one single-threaded
//! runtime with one `timerfd` and one ordered queue of deadlines, so its cost does not grow with the number of
//! sleepers. Deadlines are absolute: a late wake-up never shifts the ones after it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! # tokio::task::LocalSet::new().run_until(async {
//! use tokentape_pacer::{Pacer, monotonic_ns};
//!
//! let pacer = Pacer::start()?;
//! let start = monotonic_ns();
//! for token in 1..=3 {
//!     pacer.sleep_until(start + token * 250_000).await;
//! }
//! assert!(monotonic_ns() >= start + 750_000 - tokentape_pacer::LEAD_NS);
//! # Ok(()) }).await }
//! ```
//!
//! On systems other than Linux the same interface is kept by tokio's timer, to [`RESOLUTION_NS`].

mod arrivals;
mod clock;
mod deadlines;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(target_os = "linux", expect(unreachable_pub, reason = "public elsewhere; here only tested"))]
mod portable;
mod priority;

pub use arrivals::{Received, poll_receive, stamp_arrivals};
pub use clock::monotonic_ns;
pub use deadlines::{LEAD_NS, QUANTUM_NS};
#[cfg(target_os = "linux")]
pub use linux::{Pacer, RESOLUTION_NS, Sleep};
#[cfg(not(target_os = "linux"))]
pub use portable::{Pacer, RESOLUTION_NS, Sleep};
pub use priority::{go_first, run_in_the_gaps, wait_for_a_turn};
