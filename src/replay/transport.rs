//! The stamping transport: a TCP stream, under TLS and hyper, that notes when the bytes of each read had arrived, when
//! the read returned, and when the last write did.
//!
//! A stamp is taken the moment the system call returns, before anybody looks at the bytes; that of the arrival is the
//! kernel's. hyper reads only when it
//! needs bytes it does not have, and hands a body frame on before it reads again; so while one frame is in hand, the
//! last read is the one that completed it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokentape_pacer::{monotonic_ns, poll_receive, stamp_arrivals};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// When the reads and writes of one exchange returned, in ns of the monotonic clock.
#[derive(Debug, Default)]
pub struct Stamps {
    /// When the kernel had the bytes of each read that brought some; where it does not tell, when that read returned.
    pub reads_at: Vec<u64>,
    /// How much later each read returned.
    pub reads_late: Vec<u32>,
    /// How many bytes each brought.
    pub reads_bytes: Vec<u32>,
    /// When the last write returned; 0 before the first.
    pub last_write: u64,
}

impl Stamps {
    /// None yet, and room for as many as `other` has: one response is much like the one before it.
    #[must_use]
    pub fn like(other: &Self) -> Self {
        let reads = other.reads_at.len();
        Self {
            reads_at: Vec::with_capacity(reads),
            reads_late: Vec::with_capacity(reads),
            reads_bytes: Vec::with_capacity(reads),
            last_write: 0,
        }
    }

    /// The index of the last read; 0 before the first.
    #[must_use]
    pub fn last_read(&self) -> u32 {
        u32::try_from(self.reads_at.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }
}

/// The stamps that a transport writes and its slot reads, on one thread.
pub type SharedStamps = Rc<RefCell<Stamps>>;

/// A TCP stream whose reads and writes are stamped.
#[derive(Debug)]
pub struct Stamped {
    stream: TcpStream,
    stamps: SharedStamps,
}

impl Stamped {
    /// Wraps a connected stream.
    #[must_use]
    pub fn new(stream: TcpStream, stamps: SharedStamps) -> Self {
        // Without the kernel's stamps, bytes have arrived when they are read.
        stamp_arrivals(&stream).unwrap_or_default();
        Self { stream, stamps }
    }

    fn wrote(&self) {
        self.stamps.borrow_mut().last_write = monotonic_ns();
    }
}

/// The most bytes taken at a time.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    /// Where reads go first. hyper lends memory that nothing has been written to, which would have to be zeroed before
    /// each read, thousands of bytes for the few hundred that come.
    static LANDING: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

impl AsyncRead for Stamped {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let received = LANDING.with_borrow_mut(|landing| {
            let room = &mut landing[..buf.remaining().min(READ_BYTES)];
            let received = ready!(poll_receive(&self.stream, cx, room))?;
            buf.put_slice(&room[..received.bytes]);
            Poll::Ready(Ok::<_, io::Error>(received))
        });
        let received = ready!(received)?;
        if received.bytes > 0 {
            let arrived = received.arrived_ns.unwrap_or(received.read_ns);
            let mut stamps = self.stamps.borrow_mut();
            stamps.reads_at.push(arrived);
            stamps.reads_late.push(u32::try_from(received.read_ns - arrived).unwrap_or(u32::MAX));
            stamps.reads_bytes.push(u32::try_from(received.bytes).unwrap_or(u32::MAX));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.wrote();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.wrote();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A stamped stream, plain or under TLS.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP.
    Plain(Stamped),
    /// TLS over stamped TCP: stamps and byte counts are those of the encrypted stream.
    Tls(Box<TlsStream<Stamped>>),
}

/// Forwards one poll to whichever stream it is.
macro_rules! forward {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Transport::Plain($stream) => $call,
            Transport::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
