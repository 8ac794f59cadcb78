//! Reads that tell when the kernel had the bytes: `SO_TIMESTAMPNS`.
//!
//! The moment a read returns says when the reader came round to it; the kernel's own stamp says when the bytes were
//! there to be read. A thread that is busy with fifty streams moves the first and not the second.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::monotonic_ns;

/// What one read brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received {
    /// Number of bytes; 0 at the end of the stream.
    pub bytes: usize,
    /// When the read returned, on the clock of [`monotonic_ns`].
    pub read_ns: u64,
    /// When the kernel had taken in the last of the bytes, on the same clock; `None` where it did not stamp them.
    pub arrived_ns: Option<u64>,
}

/// Asks the kernel to stamp what arrives on a socket from now on. Does nothing on systems that have no such stamps.
pub fn stamp_arrivals(socket: &TcpStream) -> io::Result<()> {
    system::stamp_arrivals(socket)
}

/// Reads what there is into `buffer`, and tells when it had arrived.
///
/// # Panics
///
/// Outside a tokio runtime with I/O.
pub fn poll_receive(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<Received>> {
    loop {
        ready!(socket.poll_read_ready(cx))?;
        match socket.try_io(Interest::READABLE, || system::receive(socket, buffer)) {
            // Not ready after all: tokio has noted it, and the next turn waits.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
            Ok((bytes, stamp)) => {
                let read_ns = monotonic_ns();
                if 0 < bytes && bytes < buffer.len() {
                    spent(socket);
                }
                let arrived_ns = stamp.and_then(|stamp| wall::to_monotonic(stamp, read_ns));
                return Poll::Ready(Ok(Received { bytes, read_ns, arrived_ns }));
            }
        }
    }
}

/// A read that leaves room has emptied the socket: tokio is told, as its own reads tell it, so that the next one waits
/// for the next edge instead of asking the kernel in vain.
fn spent(socket: &TcpStream) {
    let nothing: io::Result<()> = socket.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
    debug_assert!(nothing.is_err());
}

/// The kernel stamps by the wall clock. Between two settings of that clock it runs as far ahead of the monotonic one as
/// before: the same adjustments reach both.
mod wall {
    use std::sync::atomic::{AtomicI64, Ordering};

    use nix::time::{ClockId, clock_gettime};

    use crate::monotonic_ns;

    /// How far the wall clock is ahead, in ns; 0 before it is known.
    static AHEAD_NS: AtomicI64 = AtomicI64::new(0);

    /// No byte waits longer for its reader than this; what seems to was stamped before the clock was set.
    const LONGEST_WAIT_NS: u64 = 60_000_000_000;

    /// A stamp on the monotonic clock: never after `read_ns`, the return of the read that brought it. `None` where the
    /// wall clock was set in between.
    pub(super) fn to_monotonic(stamp_ns: i64, read_ns: u64) -> Option<u64> {
        let possible = |ahead_ns: i64| {
            let at_ns = u64::try_from(stamp_ns.checked_sub(ahead_ns)?).ok()?;
            let wait_ns = read_ns.checked_sub(at_ns)?;
            (wait_ns <= LONGEST_WAIT_NS).then_some(at_ns)
        };
        possible(AHEAD_NS.load(Ordering::Relaxed)).or_else(|| {
            let ahead_ns = measure()?;
            AHEAD_NS.store(ahead_ns, Ordering::Relaxed);
            possible(ahead_ns)
        })
    }

    /// The difference, from the closest of a few readings of one clock between two of the other.
    fn measure() -> Option<i64> {
        let closest = (0..8).filter_map(|_| {
            let before_ns = monotonic_ns();
            let wall = clock_gettime(ClockId::CLOCK_REALTIME).ok()?;
            let after_ns = monotonic_ns();
            let wall_ns = wall.tv_sec().checked_mul(1_000_000_000)?.checked_add(wall.tv_nsec())?;
            let ahead_ns = wall_ns.checked_sub(i64::try_from(before_ns.midpoint(after_ns)).ok()?)?;
            Some((after_ns - before_ns, ahead_ns))
        });
        closest.min().map(|(_, ahead_ns)| ahead_ns)
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io::{self, IoSliceMut};
    use std::os::fd::AsRawFd;

    use nix::cmsg_space;
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
    use nix::sys::time::TimeSpec;
    use tokio::net::TcpStream;

    pub(super) fn stamp_arrivals(socket: &TcpStream) -> io::Result<()> {
        Ok(setsockopt(socket, sockopt::ReceiveTimestampns, &true)?)
    }

    /// The number of bytes, and when the last of them arrived, in ns of the wall clock.
    pub(super) fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Option<i64>)> {
        let mut control = cmsg_space!(TimeSpec);
        let mut slices = [IoSliceMut::new(buffer)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
        let stamp = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(at) => Some(at),
            _ => None,
        });
        let wall_ns = |at: TimeSpec| at.tv_sec().checked_mul(1_000_000_000)?.checked_add(at.tv_nsec());
        Ok((message.bytes, stamp.and_then(wall_ns)))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    use tokio::net::TcpStream;

    pub(super) fn stamp_arrivals(_: &TcpStream) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Option<i64>)> {
        Ok((socket.try_read(buffer)?, None))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    /// What was written while nobody read has arrived before, and is read after.
    #[cfg(target_os = "linux")]
    #[tokio::test(flavor = "current_thread")]
    async fn the_stamp_is_of_the_arrival_and_not_of_the_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        stamp_arrivals(&socket).unwrap();
        // The kernel begins to stamp a moment after the first socket asks for it.
        std::thread::sleep(Duration::from_millis(50));
        let before_ns = monotonic_ns();
        client.write_all(b"one").unwrap();
        let written_ns = monotonic_ns();
        std::thread::sleep(Duration::from_millis(5));
        let mut buffer = [0; 16];
        let received = poll_fn(|cx| poll_receive(&socket, cx, &mut buffer)).await.unwrap();
        assert_eq!(&buffer[..received.bytes], b"one");
        let arrived_ns = received.arrived_ns.unwrap();
        // The distance of the two clocks is known to within the time that it takes to read one.
        assert!(before_ns <= arrived_ns + 100_000, "{before_ns} {arrived_ns}");
        assert!(arrived_ns < written_ns + 1_000_000 && written_ns < received.read_ns);
        drop(client);
        let end = poll_fn(|cx| poll_receive(&socket, cx, &mut buffer)).await.unwrap();
        assert_eq!(end.bytes, 0);
    }
}
