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
            Ok((bytes, age_ns)) => {
                let read_ns = monotonic_ns();
                let arrived_ns = age_ns.map(|age_ns| read_ns.saturating_sub(age_ns));
                return Poll::Ready(Ok(Received { bytes, read_ns, arrived_ns }));
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io::{self, IoSliceMut};
    use std::os::fd::AsRawFd;

    use nix::cmsg_space;
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
    use nix::sys::time::TimeSpec;
    use nix::time::{ClockId, clock_gettime};
    use tokio::net::TcpStream;

    pub(super) fn stamp_arrivals(socket: &TcpStream) -> io::Result<()> {
        Ok(setsockopt(socket, sockopt::ReceiveTimestampns, &true)?)
    }

    /// The number of bytes, and how long ago the last of them arrived, in ns.
    pub(super) fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
        let mut control = cmsg_space!(TimeSpec);
        let mut slices = [IoSliceMut::new(buffer)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
        let stamp = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(at) => Some(at),
            _ => None,
        });
        Ok((message.bytes, stamp.and_then(age_ns)))
    }

    /// How long ago a moment of the wall clock was. The kernel stamps by the wall clock, so only an age can be carried
    /// over to the monotonic one; a clock that was set in between by more than the age yields 0.
    fn age_ns(at: TimeSpec) -> Option<u64> {
        let now = clock_gettime(ClockId::CLOCK_REALTIME).ok()?;
        let ns = |time: TimeSpec| i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec());
        u64::try_from((ns(now) - ns(at)).max(0)).ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    use tokio::net::TcpStream;

    pub(super) fn stamp_arrivals(_: &TcpStream) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
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
        // The two clocks are read one after the other, a few ns apart.
        assert!(before_ns <= arrived_ns + 100_000, "{before_ns} {arrived_ns}");
        assert!(arrived_ns < written_ns + 1_000_000 && written_ns < received.read_ns);
        drop(client);
        let end = poll_fn(|cx| poll_receive(&socket, cx, &mut buffer)).await.unwrap();
        assert_eq!(end.bytes, 0);
    }
}
