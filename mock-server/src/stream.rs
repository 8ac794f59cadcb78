//! The body of a streamed answer: hyper gets one event at its deadline, and the next one only when that is written.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokentape_pacer::{Pacer, Sleep};

use crate::transport::{Connection, Part};
use crate::wire::Frames;

/// One answer on its way. hyper writes together whatever is ready together; so that each event, and the head before
/// them, is a write of its own, this is never ready twice without a flush in between. The end of the body is not told
/// with the last event either: the chunk that ends it is a write of its own, as uvicorn makes it.
#[derive(Debug)]
pub(crate) struct Stream {
    frames: Frames,
    due_ns: std::vec::IntoIter<u64>,
    pacer: Pacer,
    connection: Rc<Connection>,
    /// Whether the head has been accounted for.
    started: bool,
    /// Until the next event's deadline; `None` once that has come, and after the last event.
    sleep: Option<Sleep>,
}

impl Stream {
    /// Sends `frames`, each when it is due.
    pub(crate) fn new(frames: Frames, due_ns: Vec<u64>, pacer: Pacer, connection: Rc<Connection>) -> Self {
        let mut stream =
            Self { frames, due_ns: due_ns.into_iter(), pacer, connection, started: false, sleep: None };
        stream.set_sleep();
        stream
    }

    fn set_sleep(&mut self) {
        self.sleep = self.due_ns.next().map(|due_ns| self.pacer.sleep_until(due_ns));
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if !this.started {
            // hyper asks for the body in the poll in which it buffered the head, before it flushes.
            this.started = true;
            this.connection.hand_over(Part::Head);
        }
        // The deadline first: while it is ahead there is no need to be woken for the write before it.
        if let Some(sleep) = &mut this.sleep {
            ready!(Pin::new(sleep).poll(cx));
            this.sleep = None;
        }
        ready!(this.connection.poll_written(cx));
        let Some(event) = this.frames.next() else {
            return Poll::Ready(None);
        };
        this.connection.hand_over(Part::Event);
        this.set_sleep();
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}
