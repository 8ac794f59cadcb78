//! The socket under hyper, stamped on both sides: when the kernel had the last bytes that were read, and when the write
//! returned that emptied hyper's buffer. The stamps are taken here, where the kernel gives and takes the bytes, and not
//! where a handler runs.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use socket2::SockRef;
use tokentape_pacer::{Received, monotonic_ns};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::Socket;
use crate::truth::{Entry, Outcome};

/// What is known of one connection, shared by its transport and the answer that is sent through it. HTTP/1.1 has one
/// answer at a time.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    arrival_ns: Cell<u64>,
    read_ns: Cell<u64>,
    write_ns: Cell<u64>,
    /// The record of the answer; logged when its last event is written, or when the connection is gone.
    entry: RefCell<Option<Entry>>,
    under_way: Cell<Option<Part>>,
    /// Where what is written is to break off.
    cut: Cell<Option<Cut>>,
    waiting: RefCell<Option<Waker>>,
}

/// A part of an answer that is stamped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// The response's head.
    Head,
    /// The record's next event.
    Event,
    /// So many of them; 0 where the last one's end is still to come.
    Events(usize),
}

/// The end of a connection that is broken off on purpose.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// The bytes that still go out.
    keep: usize,
    /// By a reset; else by an ordinary end.
    reset: bool,
}

impl Connection {
    /// When the kernel had the bytes that the last read brought, or, where it does not tell, when that read returned.
    /// Of a request just taken from hyper, this is the arrival of its last byte: a client that sends the next request
    /// before the answer would blur it, and none does.
    pub(crate) fn arrival_ns(&self) -> u64 {
        self.arrival_ns.get()
    }

    /// When the last read returned bytes.
    pub(crate) fn read_ns(&self) -> u64 {
        self.read_ns.get()
    }

    /// Begins the record of an answer.
    pub(crate) fn begin(&self, entry: Entry) {
        drop(self.entry.replace(Some(entry)));
    }

    /// Ends the record as it is.
    pub(crate) fn end(&self) {
        drop(self.entry.take());
    }

    /// From now on, so many bytes go out; then the connection is closed or reset.
    pub(crate) fn break_after(&self, keep: usize, reset: bool) {
        self.cut.set(Some(Cut { keep, reset }));
    }

    /// The record's next event is due at a moment that the record did not know when it was begun.
    pub(crate) fn due(&self, due_ns: u64) {
        if let Some(entry) = self.entry.borrow_mut().as_mut() {
            entry.record.due_ns.push(due_ns);
        }
    }

    /// `part` is being handed to hyper, in this very poll: the next flush is its own.
    pub(crate) fn hand_over(&self, part: Part) {
        self.under_way.set(Some(part));
    }

    /// Ready when nothing is under way.
    pub(crate) fn poll_written(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.under_way.get().is_none() {
            return Poll::Ready(());
        }
        drop(self.waiting.replace(Some(cx.waker().clone())));
        Poll::Pending
    }

    /// Whatever becomes of the answer from here on, it is the fault's doing.
    pub(crate) fn fail(&self) {
        if let Some(entry) = self.entry.borrow_mut().as_mut() {
            entry.record.outcome = Outcome::Fault;
        }
    }

    /// A read brought bytes.
    pub(crate) fn received(&self, received: &Received) {
        self.read_ns.set(received.read_ns);
        self.arrival_ns.set(received.arrived_ns.unwrap_or(received.read_ns));
    }

    /// A write has returned.
    pub(crate) fn wrote(&self) {
        self.write_ns.set(monotonic_ns());
    }

    /// hyper's buffer is empty: what was under way is written.
    fn flushed(&self) {
        let Some(part) = self.under_way.take() else { return };
        // Changed where it is: this is done for every event, and moving an entry out and back copies it twice.
        let mut slot = self.entry.borrow_mut();
        if let Some(entry) = slot.as_mut() {
            match part {
                Part::Head => entry.record.head_ns = Some(self.write_ns.get()),
                Part::Event => entry.record.written_ns.push(self.write_ns.get()),
                Part::Events(count) => {
                    entry.record.written_ns.extend(std::iter::repeat_n(self.write_ns.get(), count));
                }
            }
        }
        let ended = slot.take_if(|entry| entry.is_complete());
        drop(slot);
        drop(ended);
        let waiting = self.waiting.take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// A socket that keeps a [`Connection`]'s stamps.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Socket,
    connection: Rc<Connection>,
}

impl Transport {
    pub(crate) fn new(socket: Socket, connection: Rc<Connection>) -> Self {
        Self { socket, connection }
    }

    /// Writes what a fault leaves of `bytes`.
    fn poll_cut(&mut self, cx: &mut Context<'_>, bytes: &[u8], cut: Cut) -> Poll<io::Result<usize>> {
        if cut.keep == 0 {
            // TLS may still hold what was written before.
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            if cut.reset {
                // The system resets what it would otherwise have to send first.
                SockRef::from(self.socket.tcp()).set_linger(Some(Duration::ZERO))?;
            }
            self.connection.fail();
            self.connection.end();
            return Poll::Ready(Err(io::Error::other("broken off on purpose")));
        }
        let kept = &bytes[..bytes.len().min(cut.keep)];
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, kept))?;
        self.connection.break_after(cut.keep - written, cut.reset);
        Poll::Ready(Ok(written))
    }
}

/// Bytes taken from the socket at a time. hyper's own buffer cannot be lent to tokio without unsafe code, so requests
/// are copied once; they are read before anything is timed.
const READ_BYTES: usize = 16 * 1024;

impl Read for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // hyper asks with every event that it writes, mostly in vain: the array is not to be zeroed for that. TLS may hold
        // bytes of which the socket knows no more.
        if let Socket::Plain(_) = &self.socket {
            ready!(self.socket.tcp().poll_read_ready(cx))?;
        }
        let mut bytes = [0; READ_BYTES];
        let room = cursor.remaining().min(READ_BYTES);
        let mut read = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut self.get_mut().socket).poll_read(cx, &mut read))?;
        cursor.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(cut) = self.connection.cut.get() {
            return self.poll_cut(cx, bytes, cut);
        }
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(cut) = self.connection.cut.get() {
            let first = buffers.iter().find(|buffer| !buffer.is_empty());
            return self.poll_cut(cx, first.map_or(&[], |buffer| buffer), cut);
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Called by hyper when its own buffer has become empty. TCP has none of its own to flush, but TLS has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.connection.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
